"""`WSClient` sends files of any size: they arrive once and whole, or their sender is told that they do not."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from rtcore import CommandError, LocalProtocolError, Message, Refusal
from rtcore.binary import encode_payload, parse_payload
from rtcore.frames import encode_text
from rtcore.websocket import SendBytes
from rtcore_transports import Files, FilesConfig, WSClient

from .sent_files import CHUNK, CONFIG, LARGE, SIZE, WINDOW, at, client_of, heard_file, kept, written
from .servers import (
    EAGER,
    HASTY,
    TIMEOUT,
    ASGISocket,
    Server,
    handshake,
    nothing_left,
    patiently,
    receive,
    tcp_server,
    websocket_app,
)
from .stores import DiskStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    folder = tmp_path / "store"
    folder.mkdir()
    return DiskStore(folder)


@pytest.fixture
async def server(idle_server: Server, store: DiskStore) -> AsyncIterator[Server]:
    idle_server.files = Files(store, FilesConfig(file=CONFIG, inline_max_size=1000))
    await idle_server.start()
    yield idle_server
    # What is on its way into the store is carried to its end.
    store.gate.set()


# One file


async def test_a_file(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path)
    told: list[tuple[int, int]] = []
    async with nothing_left(), client_of(server, user_id="bob") as bob, client_of(server, user_id="ann") as ann:
        file = await ann.send_file(
            path, channel="room", progress=lambda *each: told.append(each), message={"caption": "x", "event": "pet"}
        )
        message = await heard_file(bob)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    said = {"content_type": "image/jpeg", "filename": "cat.jpg", "size": SIZE, "sha256": digest}
    assert {name: file[name] for name in said} == said
    assert {name: message[name] for name in said} == said
    assert (message["caption"], message["channel"]) == ("x", "room")
    assert (message["url"], message["file_id"]) == (file["url"], file["file_id"])
    meta: Any = message["meta"]
    assert (meta["offset"], meta["epoch"]) == (file["offset"], file["epoch"])
    assert kept(store) == {str(file["file_id"]): path.read_bytes()}
    assert (told[0], told[-1]) == ((0, SIZE), (SIZE, SIZE))
    assert told == sorted(told)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, WINDOW, WINDOW + 1])
async def test_sizes(server: Server, store: DiskStore, tmp_path: Path, size: int) -> None:
    path = written(tmp_path, size=size)
    async with client_of(server) as ann:
        file = await ann.send_file(path, channel="room")
        message = await heard_file(ann)
        assert message["size"] == size
        # The bytes of what is small are in the message.
        assert message.get("data") == (path.read_bytes() if size <= 1000 else None)
    assert kept(store) == {str(file["file_id"]): path.read_bytes()}


async def test_to_a_user(server: Server, tmp_path: Path) -> None:
    async with client_of(server, user_id="ann") as ann, client_of(server, user_id="7") as bob:
        await ann.send_file(written(tmp_path), user_id=7, filename="dog.tar.gz")
        message = await heard_file(bob)
        assert (message["recipient_id"], message["filename"]) == ("7", "dog.tar.gz")
        assert message["content_type"] == "application/gzip"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "image/png"), ("a.txt.xz", "application/x-xz"), ("a.Z", "application/octet-stream"), ("a", None)],
)
async def test_types_are_guessed(server: Server, tmp_path: Path, name: str, kind: str | None) -> None:
    async with client_of(server) as ann:
        file = await ann.send_file(written(tmp_path, name, 10), channel="room")
        assert file["content_type"] == (kind or "application/octet-stream")
        file = await ann.send_file(tmp_path / name, channel="room", content_type="text/x-own")
        assert file["content_type"] == "text/x-own"


@pytest.mark.parametrize("is_async", [False, True])
async def test_progress_that_is_slow_or_fails(server: Server, store: DiskStore, tmp_path: Path, is_async: bool) -> None:
    told: list[int] = []

    async def slow(sent: int, total: int) -> None:
        await anyio.wait_all_tasks_blocked()
        told.append(sent)

    def fail(sent: int, total: int) -> None:
        if sent:
            raise ValueError("no more")

    async def fail_later(sent: int, total: int) -> None:
        fail(sent, total)

    path = written(tmp_path)
    async with client_of(server) as ann:
        await ann.send_file(path, channel="room", progress=slow)
        assert (told[0], told[-1]) == (0, SIZE)
        with pytest.raises(ValueError, match="no more"):
            await ann.send_file(path, channel="room", progress=fail_later if is_async else fail)
        await patiently(lambda: server.driver.stats()["uploads"] == 0)
        await patiently(lambda: not any(name.endswith(".part") for name in store.names))
    assert len(kept(store)) == 1


# Beside everything else


async def test_several_at_once_and_what_is_said_meanwhile(server: Server, store: DiskStore, tmp_path: Path) -> None:
    paths = [written(tmp_path, f"{number}.bin", SIZE + number, number) for number in range(6)]
    # No more than four of them come in at a time; the others wait.
    async with nothing_left(), client_of(server, user_id="bob") as bob, client_of(server, user_id="ann") as ann:
        sent: list[Message] = []
        heard: list[object] = []
        files: list[Message] = []

        async def send(path: Path) -> None:
            sent.append(await ann.send_file(path, channel="room"))

        bob.on_message("note")(heard.append)
        bob.on_message("binary")(lambda data, message: files.append(message))
        async with anyio.create_task_group() as tasks:
            for path in paths[:4]:
                tasks.start_soon(send, path)
            for number in range(200):
                await ann.send_to_channel("room", {"type": "note", "data": number})
                await anyio.lowlevel.checkpoint()
        for path in paths[4:]:
            await send(path)
        await patiently(lambda: len(files) == len(paths) and len(heard) == 200)
        assert heard == list(range(200))
        assert sorted(str(file["filename"]) for file in files) == [path.name for path in paths]
    assert kept(store) == {str(file["file_id"]): (tmp_path / str(file["filename"])).read_bytes() for file in sent}


async def test_what_is_said_does_not_wait_for_a_store(server: Server, store: DiskStore, tmp_path: Path) -> None:
    async with client_of(server) as ann, anyio.create_task_group() as tasks:
        store.shut()
        tasks.start_soon(lambda: ann.send_file(written(tmp_path, size=LARGE), channel="room"))
        await patiently(lambda: store.waiting)
        for _ in range(5):
            await ann.send_to_channel("room", "hello", ack=True)
        assert (await receive(ann))["data"] == "hello"
        store.gate.set()


async def test_a_file_that_must_wait_holds_up_no_other(idle_server: Server, tmp_path: Path) -> None:
    chunks: list[tuple[str, int]] = []
    begun: list[str] = []
    ready = anyio.Event()

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        while (event := await socket._receive())["type"] == "websocket.receive":
            if text := event.get("text"):
                command: Any = json.loads(text)
                if command["command"] == "begin_upload":
                    begun.append(command["data"]["upload_id"])
                    answer = {"upload_id": begun[-1], "offset": 0, "window": 2 * CHUNK, "chunk_size": CHUNK}
                    await socket.answer(command, answer)
                continue
            parsed = parse_payload(event["bytes"])
            assert not isinstance(parsed, Refusal)
            chunks.append((str(parsed[0]["upload_id"]), len(parsed[1])))
            if len(chunks) == 4:
                ready.set()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    client = WSClient(idle_server.url("/ws"), config=EAGER)
    async with client, anyio.create_task_group() as tasks:
        for name in "ab":
            path = written(tmp_path, name)
            tasks.start_soon(lambda path=path: client.send_file(path, channel="room"))
        # Each has sent what it may, though the server has stored nothing.
        await ready.wait()
        assert sorted(chunks) == sorted((each, CHUNK) for each in begun * 2)
        await anyio.wait_all_tasks_blocked()
        assert len(chunks) == 4
        tasks.cancel_scope.cancel()


async def test_a_network_that_is_slow(tmp_path: Path) -> None:
    """Little of a file is ahead of what is said next, however much the server would take."""
    path = written(tmp_path, size=2**24)
    answered = anyio.Event()

    async def handle(stream: SocketStream) -> None:
        stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        await handshake(stream)
        await stream.send(encode_text(b'{"type": "connected", "connection_id": "c"}'))
        frame = await stream.receive()
        start, length = 2 + 4 + (2 if frame[1] & 127 == 126 else 0), len(frame)
        mask = frame[start - 4 : start]
        command = json.loads(bytes(frame[at] ^ mask[(at - start) % 4] for at in range(start, length)))
        data = {"offset": 0, "window": 2**24, "chunk_size": 2**16}
        answer = {"type": "response", "id": command["id"], "ok": True, "data": data}
        await stream.send(encode_text(json.dumps(answer).encode()))
        answered.set()
        await anyio.sleep_forever()

    async with (
        tcp_server(handle) as port,
        WSClient(f"ws://127.0.0.1:{port}/ws", websocket=HASTY) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(lambda: client.send_file(path, channel="room"))
        await answered.wait()
        # It holds at any time; when nothing more goes, it has been seen.
        sent = -1
        while sent < client.stats.bytes_sent:
            sent = client.stats.bytes_sent
            assert sent < 2**20
            await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()


async def test_from_a_handler_and_while_iterating(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path)
    sent: list[Message] = []
    async with client_of(server, queue_size=2) as ann:

        async def send(data: object, message: Message) -> None:
            if message["data"] == 0:
                sent.append(await ann.send_file(path, channel="room"))

        ann.on_message("note")(send)
        for number in range(20):
            server.driver.publish("room", {"type": "note", "data": number})
        assert (await heard_file(ann))["filename"] == "cat.jpg"
        for number in range(20):
            server.driver.publish("room", {"type": "word", "data": number})
        assert (await receive(ann))["type"] == "word"
        sent.append(await ann.send_file(path, channel="room"))
    assert len(sent) == len(kept(store)) == 2


async def test_messages_of_uploads_are_for_those_who_ask(server: Server, tmp_path: Path) -> None:
    async with client_of(server) as ann:
        heard: list[object] = []
        await ann.send_file(written(tmp_path), channel="room")
        assert (await receive(ann))["type"] == "binary"
        # By hand, as no client of ours does it.
        ann.on_message("upload")(lambda message: heard.append(message))
        data = {"upload_id": "mine", "channel": "room", "size": 5}
        assert (await ann.send_command("begin_upload", data))["offset"] == 0
        session: Any = ann._session
        session.write(SendBytes(encode_payload({"type": "chunk", "upload_id": "mine", "offset": 3}, b"x")))
        await patiently(lambda: heard)
        error: Any = heard[0]
        assert (error["upload_id"], error["error"]["code"]) == ("mine", "wrong_offset")


# Refused


async def test_what_the_server_refuses(server: Server, store: DiskStore, tmp_path: Path) -> None:
    async with client_of(server) as ann:
        with pytest.raises(CommandError, match="file_too_large"):
            await ann.send_file(written(tmp_path, size=2**22 + 1), channel="room")
        path = written(tmp_path)
        with pytest.raises(CommandError, match="invalid_filename"):
            await ann.send_file(path, channel="room", filename="..")
        with pytest.raises(CommandError, match="invalid_content_type"):
            await ann.send_file(path, channel="room", content_type="nonsense")
        with pytest.raises(CommandError, match="invalid_channel"):
            await ann.send_file(path, channel="")
        assert ann.connected
        assert store.names == []


async def test_a_store_that_fails(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path)

    def fail() -> None:
        store.fault = Refusal("store_full", "there is no room", status=507)

    async with client_of(server) as ann:
        with pytest.raises(CommandError, match="store_full: there is no room"):
            await ann.send_file(path, channel="room", progress=at([CHUNK], fail))
        store.fault = None
        await ann.send_to_channel("room", "chat goes on", ack=True)
        await ann.send_file(path, channel="room")
    assert list(kept(store).values()) == [path.read_bytes()]


async def test_files_that_are_switched_off(idle_server: Server, tmp_path: Path) -> None:
    await idle_server.start()
    async with client_of(idle_server) as ann:
        with pytest.raises(CommandError):
            await ann.send_file(written(tmp_path), channel="room")
        assert ann.connected


async def test_refused_for_now(idle_server: Server, tmp_path: Path) -> None:
    """The server says when there may be room again, and until then the file waits."""
    asked: list[object] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        for _ in range(3):
            command: Any = await socket.receive()
            asked.append(command["data"]["upload_id"])
            refusal = {"type": "error", "id": command["id"], "code": "too_many_uploads", "message": "later"}
            await socket.send(refusal | ({"retry_after": 0} if len(asked) < 3 else {}))
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        with pytest.raises(CommandError, match="too_many_uploads: later"):
            await client.send_file(written(tmp_path), channel="room")
    assert len(asked) == 3
    assert len(set(asked)) == 1


# What is no file, or not the same any more


async def test_what_cannot_be_sent(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    async with client_of(server) as ann:
        with pytest.raises(FileNotFoundError):
            await ann.send_file(tmp_path / "missing", channel="room")
        with pytest.raises(IsADirectoryError):
            await ann.send_file(tmp_path, channel="room")
        for special in (tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(LocalProtocolError, match="no file that has a size"):
                await ann.send_file(special, channel="room")
        with pytest.raises(LocalProtocolError, match="name one"):
            await ann.send_file(path)
        with pytest.raises(LocalProtocolError, match="not to both"):
            await ann.send_file(path, channel="room", user_id="bob")
        with pytest.raises(LocalProtocolError, match="JSON"):
            await ann.send_file(path, channel="room", message={"own": object()})
        assert ann.connected
    with pytest.raises(LocalProtocolError, match="not connected"):
        await client_of(server).send_file(path, channel="room")
    assert store.names == []


async def test_a_file_that_becomes_shorter(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path)
    async with client_of(server) as ann:
        with pytest.raises(LocalProtocolError, match="has changed"):
            await ann.send_file(path, channel="room", progress=at([0], lambda: os.truncate(path, 100)))
        await ann.ping()
        await patiently(lambda: store.names == [])


async def test_a_file_that_becomes_another(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path, size=LARGE)

    def change() -> None:
        with open(path, "r+b") as file:
            file.write(Random(2).randbytes(LARGE))

    async with client_of(server) as ann:
        store.shut()
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(LocalProtocolError, match="has changed"):
                    await ann.send_file(path, channel="room")

            tasks.start_soon(send)
            await patiently(lambda: ann.stats.bytes_sent > WINDOW)
            await patiently(lambda: store.waiting)
            restarted = anyio.Event()

            async def restart() -> None:
                await server.stop()
                await server.start()
                restarted.set()

            tasks.start_soon(restart)
            await patiently(lambda: not ann.connected)
            change()
            store.gate.set()
            await restarted.wait()
        assert kept(store) == {}


async def test_memory_is_bounded(server: Server, store: DiskStore, tmp_path: Path) -> None:
    """No more of a file is sent than the server has room for."""
    path = written(tmp_path, size=LARGE)
    async with client_of(server) as ann:
        store.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: ann.send_file(path, channel="room"))
            await patiently(lambda: ann.stats.bytes_sent > WINDOW)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(TIMEOUT):
                await ann.ping()
            # The server gathers some, and takes what it has gathered for stored.
            assert ann.stats.bytes_sent < LARGE - 2**19
            store.gate.set()
    assert list(kept(store).values()) == [path.read_bytes()]
