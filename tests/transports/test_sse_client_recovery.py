"""`SSEClient` loses nothing of what it hears, or says so."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from rtcore_transports import SSEClient

from .servers import EAGER_SSE, TIMEOUT, Server, nothing_left, patiently, publish, saying, scripted, url_of

pytestmark = pytest.mark.anyio


async def hear(client: SSEClient, count: int) -> list[Any]:
    """Return the messages of the next events."""
    heard: list[Any] = []
    with anyio.fail_after(TIMEOUT):
        async for event in client.events():
            heard.append(event.json())
            if len(heard) == count:
                break
    return heard


async def numbers(client: SSEClient, count: int) -> list[object]:
    """Return the data of the next notes; anything else that comes fails."""
    heard = await hear(client, count)
    assert {message["type"] for message in heard} <= {"note"}, heard
    return [message["data"] for message in heard]


def cut(server: Server, client: SSEClient) -> None:
    assert client.connection_id is not None
    assert server.driver.close(client.connection_id, 1012, "cut")


async def test_what_was_said_while_it_was_away_comes_once_and_in_order(server: Server) -> None:
    client = SSEClient(server.events_url, channel=["a", "b"], user_id="ann", config=EAGER_SSE)
    async with nothing_left(), client:
        publish(server, "a", 1)
        publish(server, "b", 2)
        assert await numbers(client, 2) == [1, 2]
        for first in (10, 20):
            connection_id = client.connection_id
            cut(server, client)
            publish(server, "b", first)
            publish(server, "a", first + 1)
            server.driver.publish_to_user("ann", {"type": "note", "data": first + 2})
            publish(server, "$broadcast", first + 3)
            publish(server, "elsewhere", -1)
            await patiently(lambda: client.connection_id != connection_id)  # noqa: B023 — waited for here
            publish(server, "b", first + 4)
            # Whatever the channel, it is told in the order in which it was said.
            assert await numbers(client, 5) == [first, first + 1, first + 2, first + 3, first + 4]


async def test_a_stream_on_which_nothing_was_said_has_a_position_too(server: Server) -> None:
    publish(server, "a", 1)
    client = SSEClient(server.events_url, channel="a", user_id="ann", config=EAGER_SSE)
    async with client:
        await patiently(lambda: client.last_event_id)
        cut(server, client)
        publish(server, "a", 2)
        assert await numbers(client, 1) == [2]


async def test_an_id_alone_moves_the_position(idle_server: Server) -> None:
    async with scripted(idle_server, saying("id: a-1\ndata: x\n\nid: a-2\n\n", stay=False), saying()) as app:
        client = SSEClient(url_of(idle_server), config=EAGER_SSE)
        async with client:
            await patiently(lambda: len(app.visits) == 2)
            assert app.visits[1].headers["last-event-id"] == "a-2"
            assert client.last_event_id == "a-2"


async def test_it_goes_on_where_it_was_after_disconnecting(server: Server) -> None:
    client = SSEClient(server.events_url, channel="a", user_id="ann", config=EAGER_SSE)
    async with client:
        publish(server, "a", 1)
        assert await numbers(client, 1) == [1]
    token = client.last_event_id
    publish(server, "a", 2, 3)
    async with client:
        assert await numbers(client, 2) == [2, 3]
    async with SSEClient(server.events_url, channel="a", user_id="ann", last_event_id=token) as another:
        assert await numbers(another, 2) == [2, 3]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("garbage", "invalid_token"),
        ("é\N{SNOWMAN}", "invalid_token"),
        ("other-5", "foreign_token"),
        (" x-1", "foreign_token"),
    ],
)
async def test_where_something_is_missing_a_gap_says_so(server: Server, token: str, reason: str) -> None:
    heard: list[Any] = []
    publish(server, "a", 1)
    async with SSEClient(server.events_url, channel="a", last_event_id=token) as client:
        gaps = await hear(client, 2)
        assert [(gap["type"], gap["channel"], gap["offset"], gap["reason"]) for gap in gaps] == [
            ("gap", "$broadcast", 0, reason),
            ("gap", "a", 1, reason),
        ]
        publish(server, "a", 2)
        assert await numbers(client, 1) == [2]
    client = SSEClient(server.events_url, channel="a", last_event_id=token)
    client.on_event("gap")(heard.append)
    async with client:
        await patiently(lambda: heard == [*gaps[:1], {**gaps[1], "offset": 2}])


async def test_another_server_is_told_by_gaps(server: Server) -> None:
    async with SSEClient(server.events_url, channel="a", config=EAGER_SSE) as client:
        publish(server, "a", 1)
        assert await numbers(client, 1) == [1]
        await server.stop()
        await server.start()
        await patiently(lambda: len(server.driver.node))
        publish(server, "a", 2)
        *farewell, broadcast, room, note = await hear(client, 3)
        assert farewell == []
        assert [gap["channel"] for gap in (broadcast, room)] == ["$broadcast", "a"]
        assert note["data"] == 2
