"""Files that come in chunks: what the node wants done with them is done, whatever the store does."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import TaskGroup

from rtcore import BinaryMessage, CloseCode, Grant, Identity, LocalProtocolError, Message, NodeConfig, Refusal
from rtcore.binary import encode_payload
from rtcore.permissions import EVERYTHING, OPEN, Scope
from rtcore.router import Published
from rtcore.uploads import AbandonFile, AppendToFile, FileConfig, FinishFile, KeptFile, OpenFile
from rtcore_transports import Driver, Files, FilesConfig
from rtcore_transports.file_uploads import FileNews, FileUploads

from .outlets import Outlet, attach
from .servers import nothing_left, patiently
from .stores import DiskStore

pytestmark = pytest.mark.anyio

CHUNK: Final = 2**16
LARGE: Final = bytes(range(256)) * 1024  # 256 KiB
DIGEST: Final = hashlib.sha256(LARGE).hexdigest()
DOWN: Final = Refusal("store_unavailable", "it is down", status=503)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path)


@pytest.fixture
def files(store: DiskStore) -> Files:
    return Files(store, FilesConfig(file=FileConfig(resume_timeout=0.01), piece_size=CHUNK))


@pytest.fixture
async def driver(tasks: TaskGroup, files: Files) -> Driver:
    made = Driver(NodeConfig(websocket_heartbeat=None), files=files)
    tasks.start_soon(made.run)
    return made


def begin(driver: Driver, size: int = len(LARGE), upload_id: str = "u", **fields: object) -> None:
    data = {"upload_id": upload_id, "channel": "room", "size": size, **fields}
    message = {"type": "command", "command": "begin_upload", "id": upload_id, "data": data}
    assert driver.receive_text("1", json.dumps(message)) == []


def send(driver: Driver, start: int, stop: int, data: bytes = LARGE, upload_id: str = "u") -> None:
    head: Message = {"type": "chunk", "upload_id": upload_id, "offset": start}
    if stop == len(data):
        head["sha256"] = hashlib.sha256(data).hexdigest()
    assert driver.receive_bytes("1", encode_payload(head, data[start:stop])) == []


def send_all(driver: Driver, data: bytes = LARGE, upload_id: str = "u") -> None:
    for start in range(0, max(len(data), 1), CHUNK):
        send(driver, start, min(start + CHUNK, len(data)), data, upload_id)


def last(outlet: Outlet) -> Any:
    return json.loads(outlet.heard[-1])


# From a node to a store


async def test_a_file_comes(driver: Driver, files: Files, store: DiskStore) -> None:
    ann, bob = attach(driver, "1", "ann", "room"), attach(driver, "2", "bob", "room")
    begin(driver, filename="a.bin", content_type="image/x-own", message={"caption": "hello"})
    await ann.hears('"window"')
    send_all(driver)
    told = json.loads(await ann.hears('"file"'))["file"]
    heard = json.loads(await bob.hears('"caption"'))
    assert (heard["type"], heard["caption"], heard["url"]) == ("binary", "hello", told["url"])
    assert (told["sha256"], told["size"], told["filename"]) == (DIGEST, len(LARGE), "a.bin")
    file = await files.find(told["file_id"])
    assert file is not None
    assert (file.channel, file.user_id, file.filename, file.content_type) == ("room", "ann", "a.bin", "image/x-own")
    assert (store.folder / file.file_id).read_bytes() == LARGE
    stats = driver.stats()
    assert (stats["files"], stats["file_bytes"], stats["uploads"]) == (1, len(LARGE), 0)


async def test_a_small_file_is_in_its_message(driver: Driver, store: DiskStore) -> None:
    ann = attach(driver, "1", None, "room")
    begin(driver, 5)
    send_all(driver, b"hello")
    heard = json.loads(await ann.hears('"binary_data"'))
    assert BinaryMessage.from_message(heard).data == b"hello"
    assert (store.folder / heard["file_id"]).read_bytes() == b"hello"


async def test_an_empty_file(driver: Driver, store: DiskStore) -> None:
    ann = attach(driver, "1", None, "room")
    begin(driver, 0)
    send_all(driver, b"")
    heard = json.loads(await ann.hears('"binary_data"'))
    assert (heard["size"], BinaryMessage.from_message(heard).data) == (0, b"")


async def test_what_waits_is_stored_in_one_go(driver: Driver, store: DiskStore) -> None:
    """A store that is slow makes the pieces larger, and nobody wait."""
    ann = attach(driver, "1")
    begin(driver, 10 * CHUNK)
    data = bytes(10 * CHUNK)
    store.shut()
    for number in range(4):
        send(driver, number * CHUNK, (number + 1) * CHUNK, data)
    await patiently(lambda: store.waiting)
    for number in range(4, 8):
        send(driver, number * CHUNK, (number + 1) * CHUNK, data)
    store.gate.set()
    await ann.hears(f'"offset":{8 * CHUNK}')
    for number in range(8, 10):
        send(driver, number * CHUNK, (number + 1) * CHUNK, data)
    await ann.hears('"file"')
    assert sum(store.writes) == 10 * CHUNK
    assert len(store.writes) <= 5


async def test_several_at_once(driver: Driver, store: DiskStore) -> None:
    ann = attach(driver, "1")
    contents = {f"u{number}": bytes([number]) * (CHUNK * number) for number in range(1, 6)}
    for upload_id, data in contents.items():
        begin(driver, len(data), upload_id)
    for start in range(0, 5 * CHUNK, CHUNK):
        for upload_id, data in contents.items():
            if start < len(data):
                send(driver, start, start + CHUNK, data, upload_id)
    for upload_id, data in contents.items():
        told = json.loads(await ann.hears(f'"upload_id":"{upload_id}","offset":{len(data)},"file"'))["file"]
        assert (store.folder / told["file_id"]).read_bytes() == data


async def test_a_store_that_fails(driver: Driver, store: DiskStore) -> None:
    ann = attach(driver, "1")
    begin(driver)
    store.fault = DOWN
    send_all(driver)
    error = json.loads(await ann.hears('"error"'))["error"]
    assert error == {"code": "store_unavailable", "message": "it is down"}
    store.fault = None
    begin(driver, upload_id="again")
    send_all(driver, upload_id="again")
    await ann.hears('"file"')
    assert len(store.names) == 2


async def test_a_store_with_a_bug(
    driver: Driver, store: DiskStore, monkeypatch: pytest.MonkeyPatch, faults: list[logging.LogRecord]
) -> None:
    """Whoever sends is told, and nobody else harmed."""

    async def fail(file_id: str) -> None:
        raise ValueError("a bug")

    ann = attach(driver, "1")
    with monkeypatch.context() as patch:
        patch.setattr(store, "create", fail)
        begin(driver)
        send_all(driver)
        assert json.loads(await ann.hears('"error"'))["error"]["code"] == "store_unavailable"
    assert [record.getMessage() for record in faults] == ["a file could not be kept"]
    faults.clear()
    begin(driver, upload_id="again")
    send_all(driver, upload_id="again")
    await ann.hears('"file"')


async def test_content_that_was_changed_on_its_way(driver: Driver, store: DiskStore) -> None:
    ann = attach(driver, "1")
    begin(driver)
    send(driver, 0, CHUNK, LARGE)
    send(driver, CHUNK, 2 * CHUNK, LARGE)
    send(driver, 2 * CHUNK, 3 * CHUNK, bytes(len(LARGE)))
    send(driver, 3 * CHUNK, 4 * CHUNK, LARGE)
    assert json.loads(await ann.hears('"error"'))["error"]["code"] == "checksum_mismatch"
    await patiently(lambda: store.names == [])


async def test_cancelling(driver: Driver, store: DiskStore) -> None:
    ann = attach(driver, "1")
    begin(driver)
    store.shut()
    for start in range(0, 3 * CHUNK, CHUNK):
        send(driver, start, start + CHUNK)
    await patiently(lambda: store.waiting)
    message = {"type": "command", "command": "cancel_upload", "id": "c", "data": {"upload_id": "u"}}
    driver.receive_text("1", json.dumps(message))
    await ann.hears('"c"')
    await patiently(lambda: store.names == [] and not store.waiting)
    assert driver.stats()["file_bytes"] == 0


async def test_a_sender_who_does_not_come_back(driver: Driver, store: DiskStore) -> None:
    ann = attach(driver, "1")
    begin(driver)
    for start in range(0, 3 * CHUNK, CHUNK):
        send(driver, start, start + CHUNK)
    await patiently(lambda: store.writes)
    driver.detach("1", ann)
    await patiently(lambda: store.names == [])


async def test_rights_that_are_gone_when_the_file_is_there(driver: Driver, store: DiskStore) -> None:
    """Then it is kept no longer, and never published."""
    ann, bob = attach(driver, "1"), attach(driver, "2", None, "room")
    begin(driver)
    store.shut()
    send_all(driver)
    await patiently(lambda: store.waiting)
    assert driver.regrant("1", Grant(upload=Scope(exclusive=True))) is None
    store.gate.set()
    error = json.loads(await ann.hears('"error"'))["error"]
    assert error["code"] == "upload_denied"
    await patiently(lambda: store.names == [] and driver.stats()["file_bytes"] == 0)
    assert not any('"binary"' in text for text in bob.heard)


async def test_a_server_that_stops(files: Files, store: DiskStore) -> None:
    """What is on its way is given up; what is being kept is, or is not, but nothing is left in between."""
    async with nothing_left():
        driver = Driver(files=files)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            ann = attach(driver, "1")
            begin(driver, upload_id="one")
            for start in range(0, 3 * CHUNK, CHUNK):
                send(driver, start, start + CHUNK, upload_id="one")
            await patiently(lambda: store.names)
            begin(driver, upload_id="two")
            store.shut()
            send_all(driver, upload_id="two")
            await patiently(lambda: store.waiting)
            driver.drain()
            store.gate.set()
            await driver.aclose()
            assert (store.names, store.closed) == ([], True)
            assert ann.closed == (CloseCode.SERVICE_RESTART, "the server is restarting")
            tasks.cancel_scope.cancel()
    assert store.names == []
    await Driver().aclose()


async def test_a_server_that_is_cut_off(files: Files, store: DiskStore) -> None:
    async with nothing_left():
        driver = Driver(files=files)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            attach(driver, "1")
            begin(driver)
            for start in range(0, 3 * CHUNK, CHUNK):
                send(driver, start, start + CHUNK)
            await patiently(lambda: store.names)
            tasks.cancel_scope.cancel()
    assert store.names == []
    assert driver.stats()["uploads"] == 0


async def test_in_the_background(files: Files, store: DiskStore) -> None:
    """A driver that runs only while it has to does so for a file whose sender is away."""
    driver = Driver(files=files)
    async with nothing_left():
        ann = attach(driver, "1")
        driver.ensure_running()
        begin(driver)
        for start in range(0, 3 * CHUNK, CHUNK):
            send(driver, start, start + CHUNK)
        await patiently(lambda: store.names)
        driver.detach("1", ann)
        await patiently(lambda: store.names == [])


async def test_in_the_background_a_file_waits_for_its_sender(store: DiskStore) -> None:
    driver = Driver(files=Files(store))
    async with nothing_left():
        ann = attach(driver, "1")
        driver.ensure_running()
        begin(driver)
        for start in range(0, 3 * CHUNK, CHUNK):
            send(driver, start, start + CHUNK)
        await ann.hears(f'"offset":{3 * CHUNK}')
        driver.detach("1", ann)
        await anyio.wait_all_tasks_blocked()
        ann = attach(driver, "1")
        driver.ensure_running()
        begin(driver)
        assert json.loads(await ann.hears('"window"'))["data"]["offset"] == 3 * CHUNK
        send(driver, 3 * CHUNK, len(LARGE))
        await ann.hears('"file"')
        driver.detach("1", ann)


async def test_what_is_asked_for_before_it_runs(files: Files, store: DiskStore) -> None:
    told: list[FileNews] = []
    ended: list[bool] = []
    uploads = FileUploads(files, tell=lambda key, news: told.append(news), ended=lambda: ended.append(True))
    for key in ("one", "two"):
        uploads.perform(OpenFile(key, "room", None, None, "text/plain", 5))
        uploads.perform(AppendToFile(key, b"he"))
        uploads.perform(AppendToFile(key, b"llo"))
    uploads.perform(AbandonFile("one"))
    uploads.perform(FinishFile("two", hashlib.sha256(b"hello").hexdigest()))
    assert (uploads.busy, ended) == (True, [True])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(uploads.run)
        await patiently(lambda: not uploads.busy)
        tasks.cancel_scope.cancel()
    size, kept = told
    assert size == 5
    assert isinstance(kept, KeptFile)
    assert kept.data == b"hello"
    uploads.perform(AppendToFile("two", b"late"))
    assert (len(told), len(store.names)) == (2, 2)


async def test_a_file_that_nobody_may_have_and_that_cannot_be_removed(
    files: Files, store: DiskStore, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays until it expires, which is logged."""
    told: list[FileNews] = []

    def tell(key: str, news: FileNews) -> None:
        told.append(news)
        if isinstance(news, KeptFile):
            store.fault = DOWN
            uploads.perform(AbandonFile(key))

    uploads = FileUploads(files, tell=tell, ended=lambda: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(uploads.run)
        uploads.perform(OpenFile("one", "room", None, None, "text/plain", 0))
        uploads.perform(FinishFile("one", hashlib.sha256().hexdigest()))
        await patiently(lambda: told and not uploads.busy)
        tasks.cancel_scope.cancel()
    assert "it is down" in caplog.text


# Files in messages, and what HTTP publishes


async def test_a_file_within_a_message(driver: Driver) -> None:
    ann, bob = attach(driver, "1", "ann"), attach(driver, "2", "bob", "room")
    head = {"type": "binary", "channel": "room", "content_type": "text/plain", "id": "a"}
    assert driver.receive_bytes("1", encode_payload(head, b"hello")) == []
    await ann.hears('"ok":true')
    assert BinaryMessage.from_message(json.loads(await bob.hears('"binary"'))) == BinaryMessage(b"hello", "text/plain")
    driver.detach("1", ann)
    assert driver.receive_bytes("1", encode_payload(head, b"hello")) == []


async def test_a_file_for_the_application(driver: Driver) -> None:
    async def count(message: Message, sender: object) -> Message:
        data = message["data"]
        assert isinstance(data, bytes | memoryview)
        return {"length": len(data)}

    driver.handlers["binary"] = count
    ann = attach(driver, "1")
    [handle] = driver.receive_bytes("1", encode_payload({"type": "binary", "id": "a"}, b"hello"))
    await driver.handle(handle)
    assert json.loads(await ann.hears('"a"'))["data"] == {"length": 5}


async def test_a_driver_without_files(tasks: TaskGroup) -> None:
    driver = Driver(NodeConfig(files=FileConfig()))
    tasks.start_soon(driver.run)
    ann = attach(driver, "1")
    driver.receive_bytes("1", encode_payload({"type": "binary", "channel": "room"}, b"hello"))
    assert json.loads(await ann.hears('"error"'))["code"] == "binary_disabled"
    with pytest.raises(LocalProtocolError, match="files"):
        await driver.publish_file(Identity(None, OPEN), "room", KeptFile("f", "/f", 0, ""), {})
    assert "files" not in driver.stats()


async def test_publishing_what_is_kept(driver: Driver, files: Files) -> None:
    asked: list[Message] = []

    async def on_publish(identity: Identity, channel: str, message: Message) -> bool:
        asked.append(message)
        return message.get("filename") != "no"

    driver.hooks.publish = on_publish
    bob = attach(driver, "1", "bob", "room")
    incoming = await files.create(channel="room", user_id=None, filename=None, content_type="text/plain")
    await incoming.write(b"hello")
    kept = await incoming.finish()
    identity = Identity("ann", OPEN)
    head: Message = {"channel": "room", "content_type": "text/plain"}
    published = await driver.publish_file(identity, "room", kept, head)
    assert isinstance(published, Published)
    heard = json.loads(await bob.hears('"file_id"'))
    assert (heard["file_id"], heard["meta"]["offset"]) == (kept.file_id, published.offset)
    refused = await driver.publish_file(identity, "room", kept, {**head, "filename": "no"})
    assert isinstance(refused, Refusal)
    assert len(asked) == 2
    absent = await driver.publish_file(Identity(None, EVERYTHING), "$connection:9", kept, head)
    assert isinstance(absent, Refusal)
    assert absent.code == "not_found"


async def test_publishing_a_file_as_the_application(driver: Driver) -> None:
    bob = attach(driver, "1", "bob", "room")
    head: Message = {"type": "binary", "content_type": "text/plain", "size": 5}
    for outcome in (
        driver.publish("room", head, data=b"hello"),
        driver.publish_to_user("bob", head, data=b"hello"),
        driver.publish_to_connection("1", head, data=b"hello"),
        await driver.publish_by(Identity("ann", OPEN), "room", head, data=b"hello"),
    ):
        assert isinstance(outcome, Published)
    await patiently(lambda: sum('"binary_data"' in text for text in bob.heard) == 4)
