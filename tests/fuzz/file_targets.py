"""What is fuzzed of files: how they come in by frames, chunks and forms, how they are looked at, and read."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from hashlib import sha256
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import Response

from rtcore import LocalProtocolError, Refusal
from rtcore.binary import encode_payload, parse_payload
from rtcore.node import Node, NodeConfig
from rtcore.node.effects import NodeEffect
from rtcore.permissions import OPEN, Grant, Identity, Scope
from rtcore.router import Deliver, Refused
from rtcore.router import Request as Asked
from rtcore.session import Transport
from rtcore.uploads import (
    AbandonFile,
    AppendToFile,
    BeginUpload,
    CancelUpload,
    Chunk,
    Completed,
    Failed,
    FileConfig,
    FinishFile,
    KeptFile,
    OpenFile,
    Progressed,
    Uploads,
    bare_filename,
)
from rtcore_adapters.content import inspect
from rtcore_adapters.errors import RefusalError
from rtcore_adapters.file_response import file_response
from rtcore_adapters.multipart import FormEvent, FormReader, PartContinues
from rtcore_transports.file_download import filename_of
from rtcore_transports.file_names import safe_name
from rtcore_transports.file_store import StoredFile
from rtcore_transports.files import Files

from .registry import as_text, cut, target

__all__: list[str] = []

_SECRET: Final = b"what nobody else may see"
_FILES: Final = FileConfig(
    max_binary_size=1000, max_file_size=1000, chunk_size=64, window=128, max_uploads=3, max_uploads_per_connection=2
)
_ERROR: Final = Refusal("store_full", "no room", status=507)

# Frames


def _begin(**fields: object) -> bytes:
    asked = {"upload_id": "u", "channel": "open:1", "size": 3, **fields}
    return b">" + json.dumps({"type": "command", "command": "begin_upload", "data": asked, "id": "1"}).encode()


_CHUNK: Final = b'{"type":"chunk","upload_id":"u","offset":0,"sha256":"%s"}\nabc' % sha256(b"abc").hexdigest().encode()


@target(
    b'{"type":"binary","channel":"open:1","filename":"a.txt","content_type":"text/plain"}\nhello',
    b'{"type":"binary","channel":"secret:1","persistent":true,"id":1}\nhello\n--\n{"type":"binary","recipient_id":"alice"}\n',
    b'=\x00\x00\x00\x11{"type":"binary"}abc\n--\n=\xff\xff\xff\xff{',
    b"\n--\n".join((_begin(), _CHUNK)),
    b"\n--\n".join((_begin(channel="secret:1"), _CHUNK)),
    b"\n--\n".join((_begin(message={"persistent": True, "echo": False}), _begin(), _CHUNK, _begin(), _CHUNK)),
)
def binary_frames(data: bytes) -> None:
    """Frames and commands of a client whose rights are few: nothing gets where it may send nothing, or out of there.

    A record is a command behind ``>``, a payload behind ``=``, or a head and, behind the end of its line, the bytes.
    """
    node = Node(NodeConfig(max_message_size=4096, files=_FILES), entropy="e")
    moment: dict[str, Any] = {"now": 0.0, "timestamp": 1_700_000_000_000}
    node.connect("alice", user_id="alice", grant=OPEN, transport=Transport.WEBSOCKET, **moment)
    for channel in ("secret:1", "open:1"):
        node.subscribe("alice", channel, **moment)
    node.publish("secret:1", {"type": "binary", "persistent": True}, data=_SECRET, **moment)
    only = Scope(("open:*", "$user:bob"), exclusive=True)
    grant = Grant(subscribe=only, publish=only, history=only, presence=only, upload=only, signal=only)
    node.connect("mallory", user_id="mallory", grant=grant, transport=Transport.WEBSOCKET, **moment)
    keeper = _Keeper(node)
    for record in data.split(b"\n--\n")[:40]:
        if "mallory" not in node:
            break
        if record.startswith(b">"):
            keeper.take(node.receive_text("mallory", as_text(record[1:]), **moment))
            continue
        head, _, rest = record.partition(b"\n")
        payload = record[1:] if record.startswith(b"=") else encode_payload(head, rest)
        parsed = parse_payload(payload)
        if not isinstance(parsed, Refusal):
            assert parse_payload(encode_payload(*parsed)) == parsed
        keeper.take(node.receive_bytes("mallory", payload, **moment))
    keeper.take(node.drain(**moment))
    assert not keeper.open, "of what a node has begun it says how it ends"


class _Keeper:
    """Keeps files as a node says, at once, and looks at what it delivers."""

    def __init__(self, node: Node) -> None:
        self.open: dict[str, int] = {}
        self._node = node

    def take(self, effects: list[NodeEffect]) -> None:
        files = self._node.files
        assert files is not None
        moment: dict[str, Any] = {"now": 0.0, "timestamp": 1_700_000_000_000}
        for effect in effects:
            match effect:
                case Deliver():
                    self._check(effect)
                case OpenFile():
                    assert effect.channel.startswith("open:") or effect.channel == "$user:bob"
                    assert effect.key not in self.open
                    self.open[effect.key] = 0
                case AppendToFile():
                    self.open[effect.key] += len(effect.data)
                    self.take(files.appended(effect.key, len(effect.data), **moment))
                case FinishFile():
                    size = self.open.pop(effect.key)
                    kept = KeptFile("f", "/binary/f", size, effect.sha256)
                    self.take(files.finished(effect.key, kept, **moment))
                case AbandonFile():
                    self.open.pop(effect.key, None)

    def _check(self, effect: Deliver) -> None:
        value = json.loads(effect.message.json)
        if "mallory" in effect.connections:
            assert value.get("channel") != "secret:1" or value["type"] == "error", value
        elif "alice" in effect.connections and effect.skip != "alice":
            assert value.get("channel") == "open:1" or value["type"] in ("user_joined", "user_left"), value


# Chunks

_IDS: Final = ("u", "v", "w", "x")
_CONNECTIONS: Final = ("a", "b", "c")


@target(
    b"\x00\x00\x00\x10\x01\x00\x00\x10\x04\x00\x00\x10\x02\x00\x00\x00\x05\x00\x00\x00",
    b"\x00\x00\x00\x40\x01\x00\x00\x20\x03\x00\x00\x00\x00\x00\x01\x40\x04\x00\x00\x20\x01\x00\x01\x20\x02\x00\x01\x00",
    b"\x00\x00\x00\x40\x00\x00\x01\x40\x00\x01\x02\x40\x00\x02\x00\x10\x06\x00\x00\x00\x07\x00\x00\xff\x08\x00\x00\x00",
)
def uploads(data: bytes) -> None:
    """Whatever senders, the store and the clock do to uploads, in whatever order: four bytes are one thing done."""
    machine = Uploads(_FILES)
    now = 0.0
    # By key: what was appended, what of it is stored, and whether it is to be kept.
    files: dict[str, list[int]] = {}
    opened, ended = 0, 0
    received: dict[str, int] = {}
    for at in range(0, min(len(data), 800) - 3, 4):
        operation, which, connection, amount = data[at : at + 4]
        upload_id, connection_id = _IDS[which % 4], _CONNECTIONS[connection % 3]
        key = next((key for key in files if int(key.removeprefix("upload-")) % 4 == which % 4), None)
        request = Asked(connection_id, "1")
        effects: list[Any] = []
        match operation % 9:
            case 0:
                head = {"type": "binary", "channel": "c", "size": amount}
                begin = BeginUpload(upload_id, "c", request, amount, "image/png", None, head)
                effects = machine.begin(begin, connection_id, Identity("ann", OPEN), now=now)
            case 1 | 2:
                offset = received.get(upload_id, 0) + (which >> 6)
                last = "0" * 64 if operation % 9 == 2 else None
                effects = machine.receive(Chunk(upload_id, offset, bytes(amount), last), connection_id, now=now)
                if any(isinstance(effect, AppendToFile) for effect in effects):
                    received[upload_id] = offset + amount
            case 3:
                machine.disconnect(connection_id, now=now)
            case 4 if key is not None:
                size = min(amount, files[key][0] - files[key][1])
                files[key][1] += size
                effects = machine.appended(key, size, now=now)
            case 5 if key is not None:
                try:
                    upload = machine.finished(key)
                except LocalProtocolError:
                    assert not files[key][2], "it was to be kept"
                    continue
                assert upload is not None
                assert files[key][2], "it was not to be kept"
                effects = machine.complete(upload, {"file_id": "f"}, now=now)
                del files[key]
                ended += 1
            case 6 if key is not None:
                effects = machine.failed(key, _ERROR)
                del files[key]
                ended += 1
            case 7:
                now += amount * 10
                effects = machine.handle_timeout(now=now)
            case 8:
                effects = machine.cancel(CancelUpload(upload_id, request), connection_id, "ann")
        for effect in effects:
            match effect:
                case OpenFile():
                    files[effect.key] = [0, 0, 0]
                    opened += 1
                    received[upload_id] = 0
                case AppendToFile():
                    files[effect.key][0] += len(effect.data)
                case FinishFile():
                    assert not files[effect.key][2]
                    files[effect.key][2] = 1
                case AbandonFile():
                    del files[effect.key]
                    ended += 1
                case Failed() | Progressed() | Completed():
                    assert effect.connection_id in _CONNECTIONS
                case Refused():
                    assert effect.refusal.code
        assert all(appended - stored <= _FILES.window for appended, stored, _ in files.values())
        assert len(machine) == len(files) == opened - ended <= _FILES.max_uploads
    assert {effect.key for effect in machine.drain()} == files.keys()
    assert machine.empty


# Forms

_PART: Final = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
_FIELD: Final = b'--edge\r\nContent-Disposition: form-data; name="channel"\r\n\r\nroom\r\n'


@target(
    b"\x07" + _FIELD + _PART + b"Content-Type: text/plain\r\n\r\nhello\r\n--edge--\r\n",
    b"\x3f" + _PART + b"\r\n\r\n--edg\r\n--\r\n-\r\r\n--edge\r\n" + _FIELD[8:] + b"--edge--\r\nepilogue",
    b"\x01" + _PART[:-2] + b"; filename*=UTF-8''%e2%82%ac\r\n\r\n\r\n--edge--",
)
def form(data: bytes) -> None:
    """A form, whole and in pieces: the same parts, or refused alike."""
    parts = list(cut(data))
    assert _read_form([b"".join(parts)]) == _read_form(parts)


def _read_form(parts: list[bytes]) -> list[FormEvent] | str:
    """Return what is in a form, the pieces of a part as one, or why it is refused."""
    reader = FormReader("multipart/form-data; boundary=edge")
    found: list[FormEvent] = []
    try:
        for piece in parts:
            for event in reader.feed(piece):
                last = found[-1] if found else None
                if isinstance(event, PartContinues) and isinstance(last, PartContinues):
                    found[-1] = PartContinues(last.data + event.data)
                else:
                    found.append(event)
        reader.close()
    except RefusalError as error:
        return error.refusal.code
    return found


@target(b"multipart/form-data; boundary=edge", b'multipart/form-data; boundary="a b"; charset=utf-8', b"text/plain")
def form_type(data: bytes) -> None:
    """The ``Content-Type`` of a form."""
    try:
        FormReader(data.decode("latin-1"))
    except RefusalError:
        return
    assert b"multipart/form-data" in data.lower()


# Reading

_SIZE: Final = 1000
_ETAG: Final = sha256(b"").hexdigest()


def _run(coroutine: Coroutine[Any, Any, Response]) -> Response:
    """Return what a coroutine returns that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(Response, end.value)
    raise AssertionError("it waits")


def _respond(headers: list[tuple[bytes, bytes]], filename: str | None, content_type: str = "text/plain") -> Response:
    file = StoredFile("0" * 32, "c", None, filename, content_type, _SIZE, _ETAG, 1_700_000_000_000, None)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    # Where it is, is asked when it is sent.
    return _run(file_response(Request(scope), cast(Files, None), file, timestamp=1_700_000_001_000))


@target(
    b"range: bytes=0-9\nif-range: Tue, 14 Nov 2023 22:13:20 GMT",
    b'range: bytes=-5\nif-range: "' + _ETAG.encode() + b'"',
    b"range: bytes=0-0,5-7\nrange: bytes=990-",
    b'if-none-match: W/"' + _ETAG.encode() + b'", "b"\nif-modified-since: Tuesday, 14-Nov-23 22:13:20 GMT',
    b"if-match: *\nrange: bytes=1000-\nif-modified-since: Tue Nov 14 22:13:20 2023",
)
def download(data: bytes) -> None:
    """The headers of a request for a file: what is answered is a part of it, or all, or a refusal of three kinds."""
    lines = (line.partition(b":") for line in data.split(b"\n"))
    headers = [(name.strip().lower(), value.strip()) for name, _, value in lines]
    try:
        response = _respond(headers, "a.txt")
    except RefusalError:
        # That is a precondition which has failed.
        assert any(name == b"if-match" for name, _ in headers)
        return
    told = response.headers
    match response.status_code:
        case 200:
            assert told["content-length"] == str(_SIZE)
            assert "content-range" not in told
        case 206:
            span, _, size = told["content-range"].removeprefix("bytes ").partition("/")
            first, last = map(int, span.split("-"))
            assert 0 <= first <= last < _SIZE == int(size)
            assert told["content-length"] == str(last + 1 - first)
        case 304:
            assert told["etag"] == f'"{_ETAG}"'
        case 416:
            assert told["content-range"] == f"bytes */{_SIZE}"
        case other:
            raise AssertionError(other)


@target(
    b"image/svg+xml\na.svg",
    b"text/plain\n../../etc/passwd",
    'text/html; charset=utf-8\n"\\\u202e€%41.html'.encode(),
    b"image/png\nC:\\con.png\r\nset-cookie: a=b",
    b"text/plain\n<x>",
)
def file_name(data: bytes) -> None:
    """What files are called: no header but its own, no folder but the one it is saved in, and read back the same."""
    kind, _, called = as_text(data).partition("\n")
    saved = safe_name(called)
    assert saved
    assert saved not in (".", "..")
    assert not set(saved) & set("/\\:\0")
    assert len(saved.encode()) <= 255
    name = bare_filename(called)
    if isinstance(name, Refusal):
        return
    kind = kind if kind.isascii() and kind.isprintable() else "text/plain"
    disposition = _respond([], name, kind).headers["content-disposition"]
    assert disposition.isascii()
    assert disposition.isprintable()
    assert disposition.startswith("attachment") or not kind.startswith(("text/html", "image/svg"))
    assert filename_of(disposition) == name
    assert name is None or not set(name) & set("/\\")


# Content

_MALICIOUS: Final = (b"<script>", b"<html>", b"<!doctype html>")


@target(
    b"image/png\n\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"image/png\n<script>alert(1)</script>",
    b"image/svg+xml\n<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'b'>]><svg >",
    b"text/plain\n\xff\xfe<\0s\0c\0r\0i\0p\0t\0>\0",
    b"application/x-mine\n<!-- <?" * 20,
    b"video/mp2t\nG" + b"\x00" * 187 + b"G" + b"\x00" * 187 + b"G",
    b"application/x-msdownload\nMZ" + b"\0" * 58 + b"PE\0\0",
)
def content(data: bytes) -> None:
    """What is in a file: a page is nothing that a browser shows as something else, and no first bytes take long."""
    kind, _, head = data.partition(b"\n")
    content_type = kind.decode("latin-1").lower()
    refusal = inspect(content_type, head)
    assert refusal is None or refusal.code == "content_mismatch"
    if head.lower().startswith(_MALICIOUS) and content_type.startswith(("image/", "audio/", "video/")):
        assert refusal is not None
