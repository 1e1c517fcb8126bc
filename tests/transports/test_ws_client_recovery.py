"""`WSClient` loses nothing of what it hears, or says so."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from rtcore import CommandError, LocalProtocolError, Message
from rtcore_transports import WSClient

from .servers import EAGER, ASGISocket, Server, cut, nothing_left, numbers, patiently, publish, receive, websocket_app

pytestmark = pytest.mark.anyio


async def test_what_was_said_while_it_was_away_comes_once_and_in_order(server: Server) -> None:
    async with nothing_left(), WSClient(server.url("/realtime/ws?channel=a"), config=EAGER, user_id="ann") as client:
        await client.subscribe_to_channel("b")
        publish(server, "a", 1)
        publish(server, "b", 2)
        assert await numbers(client, 2) == [1, 2]
        for first in (10, 20):
            cut(server, client)
            publish(server, "a", first)
            publish(server, "b", first + 1)
            server.driver.publish_to_user("ann", {"type": "note", "data": first + 2})
            publish(server, "$broadcast", first + 3)
            await patiently(lambda: client.connected)
            publish(server, "a", first + 4)
            # What goes to it without joining comes first, and each channel for itself is in order.
            heard = await numbers(client, 5)
            assert heard[:2] == [first + 2, first + 3]
            assert [number for number in heard if number in (first, first + 4)] == [first, first + 4]
            assert first + 1 in heard
        assert client.stats.reconnects == 2


async def test_the_request_says_where_it_goes_on(idle_server: Server) -> None:
    visits: list[dict[str, str]] = []

    async def script(socket: ASGISocket) -> None:
        visits.append(socket.query)
        await socket.welcome(last_event_id="i-5")
        if len(visits) < 3:
            if len(visits) == 2:
                meta = {"id": "i-7", "epoch": "e", "offset": 1}
                await socket.send({"type": "note", "meta": meta})
            await socket.close(1012)
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    url = idle_server.url("/ws?mine=%C3%A4+b&session=x")
    async with WSClient(url, config=EAGER) as client:
        await patiently(lambda: len(visits) == 3)
        await client.disconnect()
        await client.connect()
    secrets = [visit.pop("session") for visit in visits]
    assert visits == [
        {"mine": "ä b"},
        {"mine": "ä b", "last_event_id": "i-5"},
        {"mine": "ä b", "last_event_id": "i-7"},
        {"mine": "ä b"},
    ]
    assert secrets[0] == secrets[1] == secrets[2] != secrets[3]
    assert all(len(secret) >= 20 for secret in secrets)


async def test_channels_in_the_url_are_memberships(server: Server) -> None:
    async with WSClient(server.url("/realtime/ws?channel=a&channel=b%20c&channel=a"), config=EAGER) as client:
        # It is a member once it is connected: what is said now is heard.
        publish(server, "b c", 1)
        assert await numbers(client, 1) == [1]
        assert client.stats.channels == ("a", "b c")
        assert client.stats.queued == 0
        await client.unsubscribe_from_channel("a")
        cut(server, client)
        await patiently(lambda: client.stats.reconnects == 1)
        await client.ping()
        assert client.stats.channels == ("b c",)
        assert [each["channel"] for each in server.driver.node.channels()] == ["b c"]


async def test_channels_in_the_url_have_room_in_the_queue(server: Server) -> None:
    config = attrs.evolve(EAGER, queue_size=0)
    async with WSClient(server.url("/realtime/ws?channel=a"), config=config) as client:
        assert client.stats.channels == ("a",)


async def test_a_channel_in_the_url_that_is_refused(idle_server: Server) -> None:
    idle_server.node = attrs.evolve(idle_server.node, router=attrs.evolve(idle_server.node.router, max_channels=1))
    await idle_server.start()
    async with WSClient(idle_server.url("/realtime/ws?channel=a&channel=b")) as client:
        refused = await receive(client)
        assert (refused["type"], refused["code"], refused["channel"]) == ("error", "too_many_channels", "b")
        assert client.stats.channels == ("a",)


@pytest.mark.parametrize("query", ["channel=", "channel=$own", "channel=%FF", f"channel={'x' * 256}"])
def test_a_channel_in_the_url_that_cannot_be(query: str) -> None:
    with pytest.raises(LocalProtocolError):
        WSClient(f"ws://localhost/ws?{query}")


async def test_where_something_is_missing_a_gap_says_so(idle_server: Server) -> None:
    heard: list[Message] = []
    await idle_server.start()
    async with WSClient(idle_server.url(), config=EAGER, user_id="ann") as client:
        await client.subscribe_to_channel("room")
        publish(idle_server, "room", 1)
        assert await numbers(client, 1) == [1]
        cut(idle_server, client)
        publish(idle_server, "room", *range(2, 200))
        gap = await receive(client)
        assert (gap["type"], gap["channel"], gap["offset"], gap["reason"]) == ("gap", "room", 199, "history_lost")
        client.on_message("gap")(heard.append)
        publish(idle_server, "room", 200)
        assert await numbers(client, 1) == [200]
        await idle_server.stop()
        await patiently(lambda: not client.connected)
        await idle_server.start()
        # It is another server, which knows nothing of what was said.
        await patiently(lambda: len(heard) == 3)
        assert [(gap["channel"], gap["reason"]) for gap in heard] == [
            ("$broadcast", "foreign_token"),
            ("$user:ann", "foreign_token"),
            ("room", "history_lost"),
        ]


async def test_what_the_client_has_missed_on_a_connection_it_asks_for(idle_server: Server) -> None:
    def note(offset: int) -> Message:
        return {"type": "note", "data": offset, "meta": {"id": f"i-{offset}", "epoch": "e", "offset": offset}}

    asked: list[object] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        join = await socket.receive()
        assert join is not None
        await socket.answer(join, {"channel": "room", "epoch": "e", "offset": 3})
        for offset in (4, 6, 7, 5):
            await socket.send(note(offset))
        rejoin: Any = await socket.receive()
        asked.append(rejoin["data"]["since"])
        await socket.answer(
            rejoin, {"channel": "room", "epoch": "e", "offset": 7, "recovered": True, "replayed": 3, "presence": {}}
        )
        for offset in (5, 6, 7, 8):
            await socket.send(note(offset))
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws")) as client:
        await client.subscribe_to_channel("room")
        assert await numbers(client, 5) == [4, 5, 6, 7, 8]
        assert asked == [{"epoch": "e", "offset": 4}]
        assert client.position("room") == {"epoch": "e", "offset": 8}


async def test_who_is_there_comes_with_each_rejoin(server: Server) -> None:
    rejoined: list[Any] = []
    async with (
        WSClient(server.url("/realtime/ws?channel=room"), config=EAGER, user_id="ann") as ann,
        WSClient(server.url("/realtime/ws?channel=room"), user_id="bob") as bob,
    ):
        ann.on_message("rejoined")(lambda data, message: rejoined.append((data, message)))
        assert (await receive(ann))["type"] == "user_joined"
        cut(server, ann)
        await patiently(lambda: rejoined)
        [(data, message)] = rejoined
        assert message == {"type": "rejoined", "channel": "room", "data": data}
        assert [user["user_id"] for user in data["presence"]["users"]] == ["ann", "bob"]
        assert (data["recovered"], data["replayed"]) == (True, 0)
        # It is for handlers only, and a quick return is silent.
        publish(server, "room", 1)
        assert await numbers(ann, 1) == [1]
        assert await numbers(bob, 1) == [1]
        assert (await bob.presence("room"))["count"] == 2


async def test_going_on_from_where_an_earlier_client_was(server: Server) -> None:
    async with WSClient(server.url("/realtime/ws?channel=room")) as client:
        publish(server, "room", 1, 2)
        assert await numbers(client, 2) == [1, 2]
        position = client.position("room")
        assert client.position("elsewhere") is None
    assert WSClient(server.url()).position("room") is None
    publish(server, "room", 3, 4)
    async with WSClient(server.url()) as client:
        joined = await client.subscribe_to_channel("room", since=position)
        assert (joined["recovered"], joined["replayed"], joined["offset"]) == (True, 2, 4)
        assert await numbers(client, 2) == [3, 4]
    async with WSClient(server.url()) as client:
        joined = await client.subscribe_to_channel("room", since={"epoch": "another", "offset": 1})
        assert (joined["recovered"], joined["replayed"]) == (False, 0)
        assert (await receive(client))["type"] == "gap"


async def test_filters(server: Server) -> None:
    async with WSClient(server.url(), config=EAGER) as client:
        await client.subscribe_to_channel("room", {"types": ["note"]})
        for first in (1, 2):
            server.driver.publish("room", {"type": "other"})
            publish(server, "room", first)
            assert await numbers(client, 1) == [first]
            cut(server, client)
        await patiently(lambda: client.stats.reconnects == 2)
        server.driver.publish("room", {"type": "other"})
        publish(server, "room", 3)
        assert await numbers(client, 1) == [3]


async def test_history(server: Server) -> None:
    publish(server, "room", *range(1, 8))
    async with WSClient(server.url()) as client:

        async def page(**bounds: int) -> tuple[list[int], object]:
            found: Any = await client.history("room", **bounds)
            return [publication["data"] for publication in found["publications"]], found["more"]

        assert await page() == ([1, 2, 3, 4, 5, 6, 7], False)
        assert await page(limit=3) == ([5, 6, 7], True)
        assert await page(limit=3, before=5) == ([2, 3, 4], True)
        assert await page(limit=3, after=4) == ([5, 6, 7], False)
        with pytest.raises(CommandError, match="invalid_limit"):
            await page(limit=0)
