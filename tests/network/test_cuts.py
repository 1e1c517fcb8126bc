"""What a client hears through a network that cuts, stalls and splits: everything, once, in order."""

from __future__ import annotations

import pytest

from ..browser.server import Server
from ..proxy import proxy_to
from .clients import Kind, listening, patiently, talking, talking_on
from .conftest import port_of

pytestmark = pytest.mark.anyio

# More than the server needs to say before it can repeat anything, so that each connection gets a little further.
_CUTS = [*range(40, 1400, 97), *range(1400, 5000, 211)]


async def test_cuts_at_many_points(server: Server, kind: Kind) -> None:
    port = port_of(server)
    channels = [f"cuts-{kind}-{name}" for name in "abc"]
    with proxy_to(port) as proxy, proxy_to(port) as other:
        async with talking(other.port, channels) as talker, listening(kind, proxy.port, channels) as (_, record):
            proxy.cut_after(_CUTS)
            # Acknowledgements are lost too.
            other.cut_after([*_CUTS[:10], *_CUTS[-10:]])
            proxy.cut()
            other.cut()
            async with talking_on(talker):
                await patiently(lambda: proxy.accepted > len(_CUTS) and other.accepted > 20)
            await talker.say()
            await talker.heard_by(record)
            talker.check(record)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end"])
async def test_cuts_by_either_end(server: Server, kind: Kind, reset: bool) -> None:
    port = port_of(server)
    channels = [f"ends-{kind}-{reset}-{name}" for name in "ab"]
    with proxy_to(port) as proxy:
        async with talking(proxy.port, channels) as talker, listening(kind, proxy.port, channels) as (_, record):
            async with talking_on(talker):
                for _ in range(5):
                    before, accepted = len(record), proxy.accepted
                    proxy.cut(reset=reset)
                    await patiently(lambda: len(record) > before + 5 and proxy.accepted >= accepted + 2)  # noqa: B023
            await talker.say()
            await talker.heard_by(record)
            talker.check(record)


async def test_a_link_that_is_dead_and_does_not_say_so(server: Server, kind: Kind) -> None:
    port = port_of(server)
    channels = [f"dead-{kind}-{name}" for name in "ab"]
    with proxy_to(port) as proxy:
        async with talking(port, channels) as talker, listening(kind, proxy.port, channels) as (client, record):
            await talker.say()
            await talker.heard_by(record)
            proxy.stall()
            connection_id = client.connection_id
            async with talking_on(talker):
                # It is noticed, and what was said meanwhile comes on the next connection.
                await patiently(lambda: proxy.accepted == 2 and client.connection_id != connection_id)
                await patiently(lambda: len(record) > 50)
            # What was under way comes to an end of which nobody is any more.
            proxy.resume()
            await talker.say()
            await talker.heard_by(record)
            talker.check(record)


async def test_a_publisher_whose_link_is_dead(server: Server, kind: Kind) -> None:
    port = port_of(server)
    channels = [f"mute-{kind}-{name}" for name in "ab"]
    with proxy_to(port) as proxy:
        async with talking(proxy.port, channels) as talker, listening(kind, port, channels) as (_, record):
            await talker.say(5)
            proxy.stall()
            await talker.say(5)
            # It says the same again elsewhere; then what it had said before arrives.
            await patiently(lambda: not talker.pending)
            proxy.resume()
            await talker.say(5)
            await talker.heard_by(record)
            talker.check(record)


async def test_byte_by_byte(server: Server, kind: Kind) -> None:
    port = port_of(server)
    channels = [f"bytes-{kind}-{name}" for name in "ab"]
    with proxy_to(port) as proxy:
        proxy.pace(chunk=1)
        async with talking(proxy.port, channels) as talker, listening(kind, proxy.port, channels) as (_, record):
            await talker.say(10)
            await talker.heard_by(record)
            accepted = proxy.accepted
            proxy.cut()
            await talker.say(10)
            await talker.heard_by(record)
            talker.check(record)
            assert proxy.accepted >= accepted + 2


async def test_what_is_said_to_it_and_to_everybody_while_it_is_away(server: Server, kind: Kind) -> None:
    port = port_of(server)
    user, channel = f"ann-{kind}", f"away-{kind}"
    with proxy_to(port) as proxy:
        async with (
            talking(port, [channel]) as talker,
            listening(kind, proxy.port, [channel], user_id=user) as (_, record),
        ):
            for first in (1, 11):
                proxy.refuse()
                proxy.cut()
                for number in range(first, first + 5):
                    await talker.client.send_to_user(user, number, ack=True)
                    await talker.client.broadcast(number)
                    await talker.say()
                proxy.refuse(False)
                await talker.heard_by(record)
                await patiently(lambda: len(record) == first + 14 if first == 1 else len(record) == 30)  # noqa: B023
            said = [*range(1, 6), *range(11, 16)]
            assert record.gaps == []
            assert record.heard == {f"$user:{user}": said, "$broadcast": said, channel: list(range(1, 11))}
