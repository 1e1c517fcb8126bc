"""`WSClient` publishes once what it says, and never more at a time than the server remembers."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import msgspec
import pytest

from rtcore import ClientConfig, CommandError, ConnectionClosed, LocalProtocolError, Message, QueueFull
from rtcore.client import Publish
from rtcore_transports import WSClient

from .servers import (
    EAGER,
    HASTY,
    TIMEOUT,
    ASGISocket,
    Server,
    cancelled_once,
    cut,
    nothing_left,
    numbers,
    patiently,
    receive,
    websocket_app,
)
from .test_ws_client_links import session_at

pytestmark = pytest.mark.anyio


async def test_what_is_not_acknowledged_is_sent_again(idle_server: Server) -> None:
    heard: list[Any] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome(session_epoch="s")
        while (message := await socket.receive()) is not None:
            heard.append(message)
            if len(heard) == 3:
                await socket.close(1012)
            elif len(heard) > 3:
                await socket.answer(message, {"channel": "room", "offset": len(heard), "epoch": "e"})

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with nothing_left(), WSClient(idle_server.url("/ws"), config=EAGER) as client:
        await client.send_to_channel("room", "a")
        await client.send_to_user("bob", "b")
        answer = await client.send_to_channel("room", "c", ack=True)
        assert answer == {"channel": "room", "offset": 6, "epoch": "e"}
        assert client.stats.unacknowledged == 0
    assert [message["data"] for message in heard] == ["a", "b", "c", "a", "b", "c"]
    ids = [message["id"] for message in heard]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3


async def test_what_may_have_been_published_is_not_sent_again(idle_server: Server) -> None:
    """A server that does not know the session cannot tell a repetition."""
    visits = 0

    async def script(socket: ASGISocket) -> None:
        nonlocal visits
        visits += 1
        await socket.welcome()
        if visits == 1:
            for _ in range(3):
                await socket.receive()
            await socket.close(1012)
        assert await socket.receive() is None

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with nothing_left(), WSClient(idle_server.url("/ws"), config=EAGER) as client:
        await client.send_to_channel("room", "a")
        await client.send_json({"channel": "room", "id": 7})
        with pytest.raises(ConnectionClosed, match="before the answer"):
            await client.send_to_channel("room", "b", ack=True)
        told = [await receive(client) for _ in range(2)]
        assert [(message["type"], message["code"]) for message in told] == [("error", "connection_lost")] * 2
        assert ("id" in told[0], told[1]["id"]) == (False, 7)


async def test_what_a_handler_of_the_application_gets_is_not_sent_again(idle_server: Server) -> None:
    heard: list[Message] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome(session_epoch="s")
        while (message := await socket.receive()) is not None:
            heard.append(message)
            if len(heard) == 1:
                await socket.close(1012)

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        with pytest.raises(ConnectionClosed, match="before the answer"):
            await client.send_json({"type": "order", "item": 1}, ack=True)
        await patiently(lambda: client.stats.reconnects == 1)
    assert len(heard) == 1


async def test_published_once_whatever_becomes_of_the_connection(server: Server) -> None:
    total = 60
    url = server.url("/realtime/ws?channel=room")
    async with nothing_left(), WSClient(url, config=EAGER, user_id="ann") as client:
        for number in range(total):
            await client.send_json({"type": "note", "channel": "room", "data": number})
            if number % 7 == 3:
                await patiently(lambda: client.connection_id in server.driver.node)
                # What is on its way is not carried out, and of what was, the acknowledgement may be.
                cut(server, client)
        await patiently(lambda: client.stats.unacknowledged == 0)
        assert await numbers(client, total) == list(range(total))
        assert client.stats.reconnects >= 8
        page: Any = server.driver.history({"channel": "room"})
        assert [msgspec.json.decode(each)["data"] for each in page["publications"]] == list(range(total))


async def test_refusals_are_told(server: Server) -> None:
    async with WSClient(server.url()) as client:
        await client.send_json({"type": "system", "channel": "room"})
        refused = await receive(client)
        assert (refused["type"], refused["code"], "id" in refused) == ("error", "reserved_type", False)
        await client.send_json({"type": "note", "channel": "room", "id": "mine"})
        answer = await receive(client)
        assert (answer["type"], answer["id"], answer["ok"]) == ("response", "mine", True)
        # The same once more is not published, and has the same answer.
        await client.send_json({"type": "note", "channel": "room", "id": "mine"})
        assert await receive(client) == answer
        await client.send_json({"type": "note", "channel": "", "id": 5})
        assert (await receive(client))["id"] == 5


@pytest.mark.parametrize("own_id", [True, 1.5, ["a"], "x" * 256])
async def test_ids_that_cannot_be(server: Server, own_id: object) -> None:
    async with WSClient(server.url()) as client:
        with pytest.raises(LocalProtocolError, match="id of a message"):
            await client.send_json({"channel": "room", "id": own_id})
        assert await client.send_json({"channel": "room", "id": None}, ack=True)


async def test_a_refusal_says_when_to_try_again(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        while (message := await socket.receive()) is not None:
            error = {"type": "error", "code": "rate_limited", "message": "later", "retry_after": 3}
            await socket.send({**error, "id": message["id"]})

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws")) as client:
        with pytest.raises(CommandError, match="rate_limited") as caught:
            await client.send_to_channel("room", 1, ack=True)
        assert caught.value.retry_after == 3
        await client.send_to_channel("room", 1)
        assert await receive(client) == {
            "type": "error",
            "code": "rate_limited",
            "message": "later",
            "retry_after": 3,
        }


async def test_whoever_disconnects_hears_no_more(idle_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        while await socket.receive():
            pass

    idle_server.app = websocket_app(script)
    await idle_server.start()
    heard: list[object] = []
    client = WSClient(idle_server.url("/ws"), config=EAGER)
    client.on_message("error")(heard.append)
    async with nothing_left(), client:
        await client.send_to_channel("room", 1)
        await idle_server.stop()
        await patiently(lambda: not client.connected)
        await client.send_to_channel("room", 2)
        await client.send_text("3")
    assert heard == []
    assert "2 messages were never sent" in caplog.text


# How much may be under way

FEW = attrs.evolve(EAGER, max_unacknowledged=2)


class Hesitant:
    """A server that acknowledges nothing until told to, and cuts the connection off when told to do that."""

    def __init__(self, server: Server) -> None:
        self.heard: list[Any] = []
        self.answering = anyio.Event()
        self.cutting = anyio.Event()
        server.app = websocket_app(self._script)

    async def _script(self, socket: ASGISocket) -> None:
        await socket.welcome()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cut, socket)
            while (message := await socket.receive()) is not None:
                self.heard.append(message)
                tasks.start_soon(self._answer, socket, message)
            tasks.cancel_scope.cancel()

    async def _answer(self, socket: ASGISocket, message: Message) -> None:
        await self.answering.wait()
        await socket.answer(message, {"channel": "room", "offset": 1, "epoch": "e"})

    async def _cut(self, socket: ASGISocket) -> None:
        await self.cutting.wait()
        await socket.close(1012)


async def test_sending_waits_while_too_much_is_not_acknowledged(idle_server: Server) -> None:
    slow = Hesitant(idle_server)
    await idle_server.start()
    sent: list[int] = []
    async with nothing_left(), WSClient(idle_server.url("/ws"), config=FEW) as client:
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                for number in range(6):
                    await client.send_to_channel("room", number, ack=number == 5)
                    sent.append(number)

            tasks.start_soon(send)
            await patiently(lambda: len(slow.heard) == 2)
            await anyio.wait_all_tasks_blocked()
            assert (sent, client.stats.unacknowledged) == ([0, 1], 2)
            slow.answering.set()
        assert sent == [0, 1, 2, 3, 4, 5]
    assert [message["data"] for message in slow.heard] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("ack", [False, True])
async def test_cancelled_while_it_waits_for_room(idle_server: Server, ack: bool) -> None:
    slow = Hesitant(idle_server)
    await idle_server.start()
    async with nothing_left(), WSClient(idle_server.url("/ws"), config=FEW) as client:
        for number in range(2):
            await client.send_to_channel("room", number)
        async with cancelled_once(lambda: client._session and client._session._looking):
            await client.send_to_channel("room", "never", ack=ack)
        assert client._session is not None
        assert not client._session._looking
        slow.answering.set()
        await client.send_to_channel("room", "last", ack=True)
    assert [message["data"] for message in slow.heard] == [0, 1, "last"]


async def test_cancelled_while_an_acknowledgement_is_awaited(server: Server) -> None:
    """The publication is made all the same, once, and nothing of it is left."""
    async with nothing_left(), WSClient(server.url("/realtime/ws?channel=room"), config=EAGER) as client:
        await server.stop()
        await patiently(lambda: not client.connected)
        async with cancelled_once(lambda: client.stats.unacknowledged):
            await client.send_json({"type": "note", "channel": "room", "data": 1}, ack=True)
        await server.start()
        assert [(await receive(client))["type"] for _ in range(2)] == ["gap", "gap"]
        assert await numbers(client, 1) == [1]
        await patiently(lambda: client.stats.unacknowledged == 0)
        assert client._session is not None
        assert not client._session._outcomes.awaited


async def test_a_loss_ends_the_waiting_for_room(idle_server: Server) -> None:
    slow = Hesitant(idle_server)
    await idle_server.start()
    config = attrs.evolve(FEW, backoff_base=TIMEOUT, backoff_cap=TIMEOUT)
    async with nothing_left(), WSClient(idle_server.url("/ws"), config=config, websocket=HASTY) as client:
        for number in range(2):
            await client.send_to_channel("room", number)
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(QueueFull):
                    await client.send_to_channel("room", 2)

            tasks.start_soon(send)
            await patiently(lambda: client._session and client._session._looking)
            slow.cutting.set()


async def test_whoever_waits_for_room_has_reading_go_on(server: Server) -> None:
    """One task that sends much and then listens: acknowledgements are read although nobody takes the messages."""
    config = attrs.evolve(EAGER, max_unacknowledged=5)
    async with WSClient(server.url("/realtime/ws?channel=room"), config=config, queue_size=2) as client:
        await client.send_json({"type": "note", "channel": "room", "data": -1})
        assert await numbers(client, 1) == [-1]
        with anyio.fail_after(TIMEOUT):
            for number in range(100):
                await client.send_json({"type": "note", "channel": "room", "data": number})
        assert await numbers(client, 100) == list(range(100))


async def test_an_answer_is_not_overdue_while_we_do_not_listen(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        first = await socket.receive()
        assert first is not None
        for number in range(50):
            await socket.send({"type": "note", "data": number})
        await socket.answer(first, {})
        while (message := await socket.receive()) is not None:
            await socket.answer(message)

    idle_server.app = websocket_app(script)
    await idle_server.start()
    now = 0.0
    client = WSClient(idle_server.url("/ws"), config=ClientConfig(), queue_size=10, websocket=HASTY)
    async with session_at(client, lambda: now) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.inbox.get)
            await anyio.wait_all_tasks_blocked()
            session.post(Publish({"type": "note", "channel": "room"}), None)
        await patiently(lambda: session.inbox.full and not session.attentive)
        now = 1000.0
        at = session._next_timeout()
        assert at is not None
        assert at > now
        session._handle_timeout()
        assert session.stats.unacknowledged == 1
        for _ in range(49):
            message = await session.inbox.get()
            assert message is not None
            assert message["type"] == "note"
        await patiently(lambda: session.stats.unacknowledged == 0)
        assert len(session.inbox) == 0
