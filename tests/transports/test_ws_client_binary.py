"""`WSClient` says and hears files within one message as it says and hears anything else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import pytest

from rtcore import BinaryMessage, CommandError, ConnectionClosed, LocalProtocolError, Message, QueueFull
from rtcore.binary import encode_payload
from rtcore.uploads import FileConfig
from rtcore_transports import Files, FilesConfig, WSClient

from .servers import EAGER, ASGISocket, Server, cut, nothing_left, patiently, publish, receive, websocket_app
from .stores import DiskStore

pytestmark = pytest.mark.anyio

PICTURE: Final = BinaryMessage(bytes(range(256)), "image/x-own", "cat.own")


@pytest.fixture
async def server(idle_server: Server, tmp_path: Path) -> Server:
    idle_server.files = Files(DiskStore(tmp_path), FilesConfig(file=FileConfig(max_binary_size=1000)))
    await idle_server.start()
    return idle_server


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[tuple[WSClient, WSClient]]:
    async with (
        nothing_left(),
        WSClient(server.url("/realtime/ws?channel=room"), config=EAGER, user_id="ann") as ann,
        WSClient(server.url("/realtime/ws?channel=room"), config=EAGER, user_id="bob") as bob,
    ):
        yield ann, bob


async def receive_a(kind: str, client: WSClient) -> Message:
    """Return the next message of a type, whatever else is told: who joins, or that the server was restarted."""
    while (message := await receive(client))["type"] != kind:
        pass
    return message


async def test_to_a_channel(clients: tuple[WSClient, WSClient]) -> None:
    ann, bob = clients
    said = {"type": "binary", "channel": "room", "content_type": "image/x-own", "filename": "cat.own"}
    told = await ann.send_binary(PICTURE, channel="room", ack=True, echo=False, caption="my cat")
    assert told is not None
    heard = await receive(bob)
    meta: Any = heard.pop("meta")
    del heard["id"]
    assert heard == {**said, "size": 256, "caption": "my cat", "echo": False, "data": PICTURE.data}
    assert type(heard["data"]) is bytes
    assert (meta["offset"], meta["epoch"]) == (told["offset"], told["epoch"])
    assert BinaryMessage.from_message(heard) == PICTURE
    # Of bytes; and what the user says has the last word.
    await ann.send_binary(b"abc", channel="room", filename="a.txt", content_type="text/plain")
    assert BinaryMessage.from_message(await receive(bob)) == BinaryMessage(b"abc", "text/plain", "a.txt")
    await ann.send_binary(PICTURE, channel="room", filename="dog.own")
    assert BinaryMessage.from_message(await receive(bob)) == attrs.evolve(PICTURE, filename="dog.own")
    await ann.send_binary(bytearray(b""), channel="room")
    assert BinaryMessage.from_message(await receive(bob)) == BinaryMessage(b"")


async def test_to_a_user(clients: tuple[WSClient, WSClient]) -> None:
    ann, bob = clients
    await ann.send_binary(PICTURE, user_id="bob", ack=True)
    heard = await receive(bob)
    assert (heard["recipient_id"], heard["data"]) == ("bob", PICTURE.data)


async def test_to_the_application(server: Server, clients: tuple[WSClient, WSClient]) -> None:
    ann, _ = clients
    await ann.send_binary(PICTURE)
    echo = await receive_a("binary", ann)
    assert BinaryMessage.from_message(echo) == PICTURE
    got: list[Message] = []

    async def take(message: Message, sender: object) -> None:
        got.append(message)

    server.driver.handlers["binary"] = take
    await ann.send_binary(PICTURE, caption="x", ack=True)
    assert [(message["data"], message["caption"]) for message in got] == [(PICTURE.data, "x")]


async def test_handlers_get_the_bytes(clients: tuple[WSClient, WSClient]) -> None:
    ann, bob = clients
    heard: list[tuple[object, object]] = []
    bob.on_message("binary")(lambda data, message: heard.append((data, message["filename"])))
    await ann.send_binary(PICTURE, channel="room")
    await patiently(lambda: heard == [(PICTURE.data, "cat.own")])


async def test_in_order_with_everything_else(server: Server, clients: tuple[WSClient, WSClient]) -> None:
    ann, bob = clients
    for number in range(50):
        await ann.send_binary(b"%d" % number, channel="room")
        await ann.send_to_channel("room", number)
    for number in range(50):
        assert (await receive(bob))["data"] == b"%d" % number
        assert (await receive(bob))["data"] == number


async def test_once_through_losses(server: Server, clients: tuple[WSClient, WSClient]) -> None:
    ann, bob = clients
    async with anyio.create_task_group() as tasks:

        async def say() -> None:
            for number in range(60):
                await ann.send_binary(b"%d" % number, channel="room", ack=number % 7 == 0)
                if number % 9 == 5:
                    cut(server, ann)
                if number % 11 == 5:
                    cut(server, bob)
                await patiently(lambda: ann.connected and bob.connected)

        tasks.start_soon(say)
        heard = [(await receive(bob))["data"] for _ in range(60)]
    assert heard == [b"%d" % number for number in range(60)]
    assert ann.stats.reconnects > 3


async def test_what_was_said_while_it_was_away(server: Server, clients: tuple[WSClient, WSClient]) -> None:
    ann, bob = clients
    cut(server, bob)
    await ann.send_binary(PICTURE, channel="room", ack=True)
    publish(server, "room", 5)
    assert (await receive(bob))["data"] == PICTURE.data
    assert (await receive(bob))["data"] == 5


async def test_it_is_queued_while_there_is_no_connection(server: Server, clients: tuple[WSClient, WSClient]) -> None:
    ann, _ = clients
    await server.stop()
    await patiently(lambda: not ann.connected)
    await ann.send_binary(PICTURE, channel="room", echo=True)
    assert ann.stats.queued == 1
    await server.start()
    assert (await receive_a("binary", ann))["data"] == PICTURE.data


async def test_what_the_server_refuses(clients: tuple[WSClient, WSClient]) -> None:
    ann, _ = clients
    with pytest.raises(CommandError, match="binary_too_large"):
        await ann.send_binary(bytes(1001), channel="room", ack=True)
    with pytest.raises(CommandError, match="invalid_filename"):
        await ann.send_binary(b"", channel="room", filename="..", ack=True)
    with pytest.raises(CommandError, match="reserved_field"):
        await ann.send_binary(b"", channel="room", url="/x", ack=True)
    await ann.send_binary(bytes(1001), channel="room", id="mine")
    refused = await receive_a("error", ann)
    assert (refused["type"], refused["id"], refused["code"]) == ("error", "mine", "binary_too_large")
    assert ann.connected


async def test_misuse(clients: tuple[WSClient, WSClient]) -> None:
    ann, _ = clients
    with pytest.raises(LocalProtocolError, match="not to both"):
        await ann.send_binary(b"", channel="room", user_id="bob")
    with pytest.raises(LocalProtocolError, match="must be bytes"):
        await ann.send_binary("text", channel="room")  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="JSON"):
        await ann.send_binary(b"", channel="room", own=object())
    with pytest.raises(LocalProtocolError, match="id of a message"):
        await ann.send_binary(b"", channel="room", id="x" * 256)
    with pytest.raises(LocalProtocolError, match="user id"):
        await ann.send_binary(b"", user_id="")
    with pytest.raises(LocalProtocolError, match="not connected"):
        await WSClient("ws://localhost/ws").send_binary(b"", channel="room")


async def test_the_queue_is_bounded(server: Server) -> None:
    async with WSClient(server.url(), config=attrs.evolve(EAGER, queue_size=1)) as client:
        await server.stop()
        await patiently(lambda: not client.connected)
        await client.send_binary(b"", channel="room")
        with pytest.raises(QueueFull):
            await client.send_binary(b"", channel="room")


async def test_the_application_heard_it_or_not(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket._receive()
        await socket.close(1012)

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        with pytest.raises(ConnectionClosed):
            await client.send_binary(b"x", ack=True)


async def test_a_large_message_comes(idle_server: Server) -> None:
    data = bytes(range(256)) * 2**15

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.send_bytes(encode_payload({"type": "binary", "size": len(data)}, data))
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        assert (await receive(client))["data"] == data


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\x09{}", b"\0\0\0\x02{}", b"\0\0\0\x02[]x"])
async def test_a_server_that_speaks_another_language(idle_server: Server, payload: bytes) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.send_bytes(payload)
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await receive(client)
        assert caught.value.code == 4400


async def test_what_it_sends_is_a_frame_of_the_protocol(idle_server: Server) -> None:
    sent: list[bytes] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        sent.append((await socket._receive())["bytes"])

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), auto_reconnect=False) as client:
        await client.send_binary(PICTURE, channel="room", id="a", own=[1])
        await patiently(lambda: sent)
    length = int.from_bytes(sent[0][:4], "big")
    assert sent[0][4 + length :] == PICTURE.data
    assert json.loads(sent[0][4 : 4 + length]) == {
        "type": "binary",
        "content_type": "image/x-own",
        "filename": "cat.own",
        "channel": "room",
        "id": "a",
        "own": [1],
    }
