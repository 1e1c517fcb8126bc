"""Binary messages and files in chunks on every host, with clients that are not ours."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import pytest

from rtcore import Message
from rtcore_adapters import Settings
from rtcore_adapters.settings import BinarySettings, RealtimeSettings, WebSocketSettings

from .binary_hosts import split
from .clients import TIMEOUT, Client
from .hosting import HOSTS, Host, HostKind, run_host

#: Larger than the largest text.
MAX_BINARY: Final = 200_000
MAX_TEXT: Final = 2**16
CHUNK: Final = 2**16
DATA: Final = bytes(range(256)) * 300


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    kind: HostKind = request.param
    settings = Settings(
        realtime=RealtimeSettings(allow_anonymous=True, presence_grace=0.0),
        websocket=WebSocketSettings(max_message_size=MAX_TEXT, binary_max_size=MAX_BINARY),
        binary=BinarySettings(store_url=tmp_path_factory.mktemp("files").as_uri(), inline_max_size=1000),
    )
    with run_host(kind, settings) as running:
        yield running


def frame(head: Message, data: bytes) -> bytes:
    """Return what a client sends: written anew, so that our own writer does not read what it wrote."""
    text = json.dumps(head).encode()
    return len(text).to_bytes(4, "big") + text + data


def hear(client: Client) -> tuple[dict[str, Any], bytes | None]:
    """Return the next message, and the file that has come with it in a binary frame."""
    said = client.websocket.recv(timeout=TIMEOUT)
    return split(said) if isinstance(said, bytes) else (json.loads(said), None)  # type: ignore[return-value]


def file_in(message: Message) -> bytes:
    encoded = message["binary_data"]
    assert isinstance(encoded, str)
    return base64.b64decode(encoded, validate=True)


# A file within a message


def test_a_file_to_a_channel(host: Host, room: str) -> None:
    """Who takes binary frames hears it as it is, and everybody else as JSON; it is acknowledged, and in the history."""
    query = f"channel={room}"
    with (
        host.client(query) as sender,
        host.client(query) as frames,
        host.client(f"{query}&binary=base64") as text,
        host.stream(query) as stream,
    ):
        head = {
            "type": "binary",
            "channel": room,
            "content_type": "application/x-own",
            "filename": "a/b\\ö.img",
            "n": [1],
        }
        sender.say(frame({**head, "id": 7}, DATA))
        while (heard := hear(frames))[0]["type"] != "binary":
            pass
        message, data = heard
        meta = message.pop("meta")
        expected = {**head, "filename": "ö.img", "size": len(DATA), "id": 7}
        assert (message, data) == (expected, DATA)
        assert meta["sender"]["connection_id"] == sender.connection_id
        for told in (text.hear_type("binary"), stream.hear_type("binary")):
            assert told.pop("$event", "binary_data") == "binary_data"
            assert file_in(told) == DATA
            del told["binary_data"]
            assert told == {**expected, "meta": meta}
        while (answer := hear(sender)[0])["type"] != "response":
            pass
        assert (answer["id"], answer["ok"], answer["data"]["offset"]) == (7, True, meta["offset"])
        sender.say(frame({**head, "id": 7}, DATA))
        assert hear(sender)[0]["data"]["offset"] == meta["offset"]
        page = sender.ask("history", channel=room)["data"]["publications"]
        assert [file_in(each) for each in page if each["type"] == "binary"] == [DATA]
        page = host.http.get(f"/channels/{quote(room, safe='')}/history").json()["publications"]
        assert [file_in(each) for each in page if each["type"] == "binary"] == [DATA]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, MAX_BINARY])
def test_sizes(host: Host, size: int) -> None:
    """Without a target it comes back, as text does."""
    data = bytes(size)
    with host.client() as frames, host.client("binary=base64") as text:
        for client in (frames, text):
            client.say(frame({"type": "binary"}, data))
        message, heard = hear(frames)
        assert (message["size"], message["content_type"], heard) == (size, "application/octet-stream", data)
        assert file_in(text.hear()) == data


def test_a_file_that_comes_in_fragments(host: Host) -> None:
    with host.client() as client:
        payload = frame({"type": "binary"}, DATA)
        client.websocket.send(iter([payload[:3], payload[3:50], payload[50:]]))
        assert hear(client)[1] == DATA


def test_what_is_too_large(host: Host) -> None:
    """A little too large is refused, and tells what to do; far too large ends the connection, and no other."""
    with host.client() as other, host.client() as client:
        client.say(frame({"type": "binary", "id": 1}, bytes(MAX_BINARY + 1)))
        answer = client.hear()
        assert (answer["type"], answer["id"], answer["code"]) == ("error", 1, "binary_too_large")
        assert client.ask("ping")["ok"] is True
        client.say(frame({"type": "binary"}, bytes(MAX_BINARY + MAX_TEXT + 1)))
        assert client.closed()[0] == 1009
        assert other.ask("ping")["ok"] is True
    with host.client() as client:
        # Text has its own limit.
        client.say(json.dumps({"type": "text", "data": "x" * MAX_TEXT}))
        assert client.closed()[0] == 1009


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "malformed_binary"),
        (b"\x00\x00\x00\x02[]", "malformed_binary"),
        (b"\xff\xff\xff\xff{}", "malformed_binary"),
        (frame({"type": "text"}, b"x"), "reserved_type"),
        (frame({"type": "binary", "url": "x"}, b"x"), "reserved_field"),
        (frame({"type": "binary", "content_type": "image"}, b"x"), "invalid_content_type"),
        (frame({"type": "binary", "content_type": "image/png"}, b"<html>"), "content_mismatch"),
        (frame({"type": "binary", "filename": ".."}, b"x"), "invalid_filename"),
        (frame({"type": "binary", "channel": "$all"}, b"x"), "invalid_channel"),
    ],
)
def test_what_is_refused(host: Host, payload: bytes, code: str) -> None:
    with host.client() as client:
        client.say(payload)
        answer = client.hear()
        assert (answer["type"], answer["code"]) == ("error", code)
        assert client.ask("ping")["ok"] is True


def test_a_form_that_there_is_not(host: Host) -> None:
    with host.websocket(query="binary=hex") as websocket:
        client = Client(websocket, welcome=False)
        assert "'base64'" in client.hear()["reason"]
        assert client.closed() == (4400, "invalid_binary")


def test_files_and_text_keep_their_order(host: Host, room: str) -> None:
    with (
        host.client(f"channel={room}") as frames,
        host.client(f"channel={room}&binary=base64") as text,
        host.client() as sender,
    ):
        for number in range(60):
            if number % 3:
                sender.say({"type": "note", "channel": room, "number": number})
            else:
                sender.say(frame({"type": "binary", "channel": room, "number": number}, bytes([number]) * 5000))
        for client in (frames, text):
            heard = []
            while len(heard) < 60:
                message, data = hear(client)
                if "number" in message:
                    heard.append(message["number"])
                    if message["type"] == "binary":
                        data = file_in(message) if data is None else data
                        assert data == bytes([message["number"]]) * 5000
            assert heard == list(range(60))


# A file in chunks


def send_chunks(client: Client, upload_id: str, data: bytes, start: int = 0, stop: int | None = None) -> None:
    for offset in range(start, stop or len(data), CHUNK):
        part = data[offset : offset + CHUNK]
        head: Message = {"type": "chunk", "upload_id": upload_id, "offset": offset}
        if offset + len(part) == len(data):
            head["sha256"] = hashlib.sha256(data).hexdigest()
        client.say(frame(head, part))


def wait_for_file(client: Client) -> dict[str, Any]:
    while "file" not in (told := hear(client)[0]):
        assert "error" not in told, told
    return dict(told["file"])


def test_a_file_in_chunks(host: Host, room: str) -> None:
    """It goes on where it was when the connection is lost in the midst of it."""
    data = DATA * 6
    with host.client(f"channel={room}") as receiver:
        with host.client("user_id=ann") as sender:
            begun = sender.ask("begin_upload", upload_id="u-1", channel=room, size=len(data), filename="x.bin")["data"]
            assert (begun["offset"], begun["chunk_size"]) == (0, CHUNK)
            send_chunks(sender, "u-1", data, 0, 3 * CHUNK)
            assert sender.hear_type("upload")["offset"] <= 3 * CHUNK
        with host.client("user_id=ann") as sender:
            begun = sender.ask("begin_upload", upload_id="u-1", channel=room, size=len(data), filename="x.bin")["data"]
            offset = begun["offset"]
            assert 0 < offset <= 3 * CHUNK
            send_chunks(sender, "u-1", data, offset)
            file = wait_for_file(sender)
        while (heard := hear(receiver)[0])["type"] != "binary":
            pass
        assert (heard["url"], heard["sha256"], heard["filename"]) == (file["url"], file["sha256"], "x.bin")
        assert heard["meta"]["offset"] == file["offset"]
    response = host.http.get(str(file["url"]).removeprefix(host.prefix))
    assert (response.status_code, response.content) == (200, data)


def test_a_small_file_in_chunks_is_in_its_message(host: Host, room: str) -> None:
    with host.client() as sender, host.client(f"channel={room}") as receiver:
        assert sender.ask("begin_upload", upload_id="u-2", channel=room, size=1000)["ok"] is True
        send_chunks(sender, "u-2", DATA[:1000])
        file = wait_for_file(sender)
        message, data = hear(receiver)
        assert (data, message["file_id"]) == (DATA[:1000], file["file_id"])


def test_a_cancelled_upload(host: Host, room: str) -> None:
    with host.client() as sender:
        assert sender.ask("begin_upload", upload_id="u-3", channel=room, size=10 * CHUNK)["ok"] is True
        send_chunks(sender, "u-3", bytes(10 * CHUNK), 0, 3 * CHUNK)
        assert sender.ask("cancel_upload", upload_id="u-3")["ok"] is True
        host.wait_for(lambda: host.http.get("/stats").json()["uploads"] == 0)


def test_text_goes_on_while_a_file_comes(host: Host, room: str) -> None:
    data = bytes(40 * CHUNK)
    with host.client() as sender, host.client(f"channel={room}") as one, host.client() as two:
        window = sender.ask("begin_upload", upload_id="u-4", channel="elsewhere", size=len(data))["data"]["window"]
        stored = 0
        for sent in range(0, len(data), CHUNK):
            while sent + CHUNK - stored > window:
                stored = sender.hear_type("upload")["offset"]
            send_chunks(sender, "u-4", data, sent, sent + CHUNK)
            two.say({"type": "note", "channel": room, "number": sent})
            assert one.hear()["number"] == sent
        assert wait_for_file(sender)["size"] == len(data)
