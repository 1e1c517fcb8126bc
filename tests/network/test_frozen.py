"""A client whose process is stopped, and goes on when the server has given it up."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx2
import pytest

from ..browser.server import Server
from ..proxy import proxy_to
from .clients import TIMEOUT, Kind, hearing_process, patiently, talking, talking_on
from .conftest import port_of

pytestmark = pytest.mark.anyio

# What the kernel keeps for a connection is some megabytes, which so are not too many messages.
_PADDING = "x" * 200_000


async def is_connected(http: httpx2.AsyncClient, user_id: str) -> bool:
    """Whether a user has a connection, or had one of which the server has not noticed the end."""
    response = await http.get("connections")
    return any(each["user_id"] == user_id for each in response.json()["connections"])


async def slow_disconnects(http: httpx2.AsyncClient) -> int:
    count: int = (await http.get("stats")).json()["slow_disconnects"]
    return count


async def test_for_longer_than_the_server_waits(server: Server, anyio_backend: str, tmp_path: Path) -> None:
    port = port_of(server)
    channels = ["stopped-a", "stopped-b"]
    with (
        proxy_to(port) as proxy,
        hearing_process(anyio_backend, "websocket", proxy.port, channels, tmp_path, user_id="stopped") as listener,
    ):
        process, record, wrong = listener
        async with talking(port, channels) as talker:
            await talker.say(5)
            await talker.heard_by(record)
            process.process.send_signal(signal.SIGSTOP)
            async with talking_on(talker):
                # The server has said why it goes, to somebody who does not listen.
                await patiently(lambda: b'"code":4408' in proxy.returned)
            process.process.send_signal(signal.SIGCONT)
            await talker.say(5)
            await talker.heard_by(record)
            assert wrong == []
            talker.check(record)
            assert proxy.accepted == 2


@pytest.mark.parametrize("kept", ["all", "short:"])
async def test_until_too_much_waits_for_it(
    server: Server, anyio_backend: str, kind: Kind, kept: str, tmp_path: Path
) -> None:
    port, user = port_of(server), f"slow-{kind}-{kept}"
    channels = [f"{kept}slow-{kind}-a", f"{kept}slow-{kind}-b"]
    with hearing_process(anyio_backend, kind, port, channels, tmp_path, user_id=user) as (process, record, wrong):
        async with (
            talking(port, channels) as talker,
            httpx2.AsyncClient(base_url=server.url, timeout=TIMEOUT, trust_env=False) as http,
        ):
            await talker.say(5)
            await talker.heard_by(record)
            before = await slow_disconnects(http)
            assert await is_connected(http, user)
            process.process.send_signal(signal.SIGSTOP)
            while await slow_disconnects(http) == before:
                await talker.say(padding=_PADDING)
                await patiently(lambda: not talker.pending)
                # It is for its backlog that it is given up, and not for its silence; it is counted before it is gone.
                assert await is_connected(http, user) or await slow_disconnects(http) > before
            await talker.say(10)
            await patiently(lambda: not talker.pending)
            process.process.send_signal(signal.SIGCONT)
            await talker.heard_by(record)
            await talker.say(5)
            await talker.heard_by(record)
            assert wrong == []
            if kept == "all":
                talker.check(record)
            else:
                talker.check_in_part(record)
                assert {gap["channel"] for gap in record.gaps} == set(channels)
                assert {gap["reason"] for gap in record.gaps} == {"history_lost"}
