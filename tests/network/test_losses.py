"""What cannot be recovered is told by a gap: nothing comes twice, and it goes on."""

from __future__ import annotations

import signal

import pytest
from anyio import to_thread

from ..browser.server import Server
from ..proxy import proxy_to
from .clients import Kind, listening, patiently, talking, talking_on
from .conftest import port_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_that_ends_and_starts_again(own_server: Server, kind: Kind, how: signal.Signals) -> None:
    port = port_of(own_server)
    channels = ["a", "b", "c"]
    async with talking(port, channels) as talker, listening(kind, port, channels) as (_, record):
        async with talking_on(talker):
            await patiently(lambda: len(record) > 50)
            await to_thread.run_sync(own_server.end, how)
            await to_thread.run_sync(own_server.restart)
            again = len(record)
            await patiently(lambda: len(record) > again + 50)
        await talker.say()
        await talker.heard_by(record)
        talker.check_in_part(record)
        told = {gap["channel"]: gap["reason"] for gap in record.gaps if "stream" not in gap}
        reason = "history_lost" if kind == "websocket" else "foreign_token"
        assert {channel: told.get(channel) for channel in channels} == dict.fromkeys(channels, reason)
        # What it does not know is not said again: at most what was under way is in doubt.
        assert len(talker.doubtful) <= 40


async def test_what_is_in_doubt_when_a_server_dies_is_not_said_again(own_server: Server, kind: Kind) -> None:
    port = port_of(own_server)
    with proxy_to(port) as proxy:
        async with (
            talking(proxy.port, ["a"], patience=1000.0) as talker,
            listening(kind, port, ["a"]) as (_, record),
        ):
            await talker.say()
            await patiently(lambda: len(record) == 1 and not talker.pending)
            proxy.stall(up=False)
            await talker.say(5)
            # All are heard, and the publisher has not been told.
            await patiently(lambda: len(record) == 6)
            await to_thread.run_sync(own_server.end, signal.SIGKILL)
            proxy.cut()
            await to_thread.run_sync(own_server.restart)
            await patiently(lambda: any(gap["channel"] == "a" for gap in record.gaps))
            await patiently(lambda: not talker.pending)
            await talker.say(5)
            await talker.heard_by(record)
            talker.check_in_part(record)
            assert talker.doubtful == [("a", number) for number in range(2, 7)]
            assert record.heard == {"a": list(range(1, 12))}


async def test_a_history_that_is_too_short(server: Server, kind: Kind) -> None:
    port = port_of(server)
    short, long = f"short:{kind}", f"long-{kind}"
    with proxy_to(port) as proxy:
        async with talking(port, [short, long]) as talker, listening(kind, proxy.port, [short, long]) as (_, record):
            await talker.say(2)
            await talker.heard_by(record)
            for missed in (5, 6):
                proxy.refuse()
                proxy.cut()
                await talker.say(missed)
                await patiently(lambda: not talker.pending)
                proxy.refuse(False)
                await talker.heard_by(record)
            await talker.say(2)
            await talker.heard_by(record)
            talker.check_in_part(record)
            # What was kept is enough the first time, and one short of it the second. A join then begins anew, while a
            # token is told what is still there.
            told = 13 if kind == "websocket" else 8
            assert record.heard == {short: [*range(1, 8), *range(told + 1, 16)], long: list(range(1, 16))}
            [gap] = record.gaps
            assert (gap["channel"], gap["offset"], gap["reason"]) == (short, told, "history_lost")
