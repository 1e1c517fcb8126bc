"""Where the clients have fresh tokens from, and how they serve over HTTP."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from rtcore import CommandError, ConnectionFailed, LocalProtocolError
from rtcore_transports import HttpPublisher, WSClient
from rtcore_transports.client_tokens import TokenSource

from .servers import Server, cancelled_once, nothing_left, patiently
from .tokens import SECRET, Issuer, PickyApi

pytestmark = pytest.mark.anyio


# Over HTTP


async def test_token_serves_until_it_is_refused(idle_server: Server) -> None:
    api = PickyApi()
    idle_server.app = api
    await idle_server.start()
    http = HttpPublisher(idle_server.url("/realtime/ws", "http"), token=Issuer(), headers=((b"x-own", b"1"),))
    async with nothing_left():
        await http.broadcast({})
        async with http.kept_alive():
            await http.broadcast({})
        api.refused.append(f"{SECRET}-1")
        await http.broadcast({"n": 3})
        await http.get("/stats")
    sent = [(posted.headers["authorization"], posted.body) for posted in api.posted]
    first, second = (f"Bearer {SECRET}-{number}" for number in (1, 2))
    assert sent == [(first, {}), (first, {}), (first, {"n": 3}), (second, {"n": 3}), (second, {})]
    assert {posted.headers["x-own"] for posted in api.posted} == {"1"}


@pytest.mark.parametrize(("fixed", "requests"), [(None, 2), (SECRET, 1)], ids=["another token", "the same token"])
async def test_second_token_that_is_refused(idle_server: Server, fixed: str | None, requests: int) -> None:
    api = PickyApi(SECRET, *(f"{SECRET}-{number}" for number in range(5)))
    idle_server.app = api
    await idle_server.start()
    issuer = Issuer()
    if fixed is not None:
        issuer.failing = lambda: fixed
    with pytest.raises(CommandError, match="http_401"):
        await HttpPublisher(idle_server.url("/realtime/ws", "http"), token=issuer).broadcast({})
    assert (len(api.posted), issuer.asked) == (requests, 2)


async def test_fixed_token_that_is_refused(idle_server: Server) -> None:
    api = PickyApi(SECRET)
    idle_server.app = api
    await idle_server.start()
    with pytest.raises(CommandError, match="http_401"):
        await HttpPublisher(idle_server.url("/realtime/ws", "http"), token=SECRET).broadcast({})
    assert [posted.headers["authorization"] for posted in api.posted] == [f"Bearer {SECRET}"]


async def test_function_that_fails_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer()
    issuer.failing = lambda: str(1 / 0)
    client = WSClient("ws://127.0.0.1:9/ws", token=issuer)
    with pytest.raises(ConnectionFailed, match="ZeroDivisionError"):
        await client.broadcast({})
    monkeypatch.setattr("rtcore_transports.http_publisher._TIMEOUT", 0.01)
    issuer.gate = anyio.Event()
    with pytest.raises(ConnectionFailed, match="no token came in time"):
        await client.broadcast({})


# One call for all


async def test_function_that_is_not_async() -> None:
    source = TokenSource(lambda: SECRET)  # type: ignore[arg-type, return-value]
    with pytest.raises(LocalProtocolError, match="async function"):
        await source.fresh()


async def test_all_who_ask_at_once_get_the_same() -> None:
    issuer = Issuer()
    issuer.gate = anyio.Event()
    source = TokenSource(issuer)
    got: list[str] = []

    async def ask() -> None:
        got.append(await source.fresh())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        issuer.gate.set()
    assert (got, issuer.asked) == ([f"{SECRET}-1"] * 5, 1)
    # The last one is good until it is refused; who wants a fresh one gets one.
    assert await source.last() == f"{SECRET}-1"
    source.refused("another")
    assert await source.last() == f"{SECRET}-1"
    assert await source.fresh() == f"{SECRET}-2"
    source.refused(f"{SECRET}-2")
    assert await source.last() == f"{SECRET}-3"


@pytest.mark.parametrize(("failing", "error"), [(lambda: 1 / 0, ConnectionFailed), (lambda: 5, LocalProtocolError)])
async def test_all_who_ask_at_once_fail_together(failing: Any, error: type[Exception]) -> None:
    issuer = Issuer()
    issuer.gate = anyio.Event()
    issuer.failing = failing
    source = TokenSource(issuer)
    failures: list[BaseException | None] = []

    async def ask() -> None:
        with pytest.raises(error, match="no token") as caught:
            await source.fresh()
        failures.append(caught.value.__cause__)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        issuer.gate.set()
    assert (len(set(failures)), issuer.asked) == (1, 1)
    issuer.failing = None
    assert await source.fresh() == f"{SECRET}-1"


async def test_who_asks_first_may_be_cancelled() -> None:
    issuer = Issuer()
    issuer.gate = anyio.Event()
    source = TokenSource(issuer)
    got: list[str] = []

    async def ask() -> None:
        got.append(await source.fresh())

    async with nothing_left(), anyio.create_task_group() as tasks:
        async with cancelled_once(lambda: issuer.asked == 1):
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await source.fresh()
        await patiently(lambda: issuer.asked == 2)
        issuer.gate.set()
    assert (got, issuer.asked, issuer.most_at_once) == ([f"{SECRET}-1"] * 2, 2, 1)


async def test_who_waits_may_be_cancelled() -> None:
    issuer = Issuer()
    issuer.gate = anyio.Event()
    source = TokenSource(issuer)
    async with nothing_left(), anyio.create_task_group() as tasks:
        tasks.start_soon(source.fresh)
        await patiently(lambda: issuer.asked == 1)
        async with cancelled_once(lambda: True):
            await source.fresh()
        issuer.gate.set()
    assert issuer.asked == 1
