"""Clients that are not ours, from libraries and from bare sockets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from rtcore import Message

__all__ = [
    "TIMEOUT",
    "Client",
    "Say",
    "Stream",
    "error_code",
    "get",
    "masked_frame",
    "raw_upgrade",
    "read_all",
    "read_frames",
    "read_head",
    "read_response",
]

#: What takes longer than this has failed; nothing waits for it to pass.
TIMEOUT: Final = 10.0

Say: TypeAlias = str | bytes | Message


class Client:
    """A WebSocket client of the realtime protocol, on a library that is not ours.

    Args:
        websocket: Just opened.
        welcome: Whether its first message is to be ``connected``.
    """

    def __init__(self, websocket: ClientConnection, *, welcome: bool = True) -> None:
        self.websocket = websocket
        self.connected: dict[str, Any] = {}
        self._asked = 0
        if welcome:
            self.connected = self.hear()
            assert self.connected["type"] == "connected"

    @property
    def connection_id(self) -> str:
        """The id by which the server knows it."""
        return str(self.connected["connection_id"])

    def hear(self) -> dict[str, Any]:
        """Return the next message."""
        text = self.websocket.recv(timeout=TIMEOUT)
        assert isinstance(text, str)
        message: dict[str, Any] = json.loads(text)
        return message

    def hear_type(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type, passing over others."""
        while (message := self.hear())["type"] != kind:
            pass
        return message

    def say(self, message: Say) -> None:
        """Send a message, or text or bytes as they are."""
        self.websocket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def ask(self, command: str, **data: object) -> dict[str, Any]:
        """Send a command; returns its answer, passing over all else."""
        self._asked += 1
        identifier = f"ask-{self._asked}"
        self.say({"type": "command", "command": command, "data": data, "id": identifier})
        while (answer := self.hear()).get("id") != identifier or answer["type"] not in ("response", "error"):
            pass
        return answer

    def join(self, channel: str) -> dict[str, Any]:
        """Join a channel; returns what joining answers."""
        answer = self.ask("join_channel", channel=channel)
        assert answer["ok"] is True
        data: dict[str, Any] = answer["data"]
        return data

    def closed(self) -> tuple[int, str]:
        """Wait for the end, passing over messages; returns the close code and reason."""
        with pytest.raises(ConnectionClosed) as ended:
            list(iter(self.hear, None))
        assert ended.value.rcvd is not None, "the connection ended without a Close frame"
        return ended.value.rcvd.code, ended.value.rcvd.reason


class Stream:
    """A client of an event stream, on a library that is not ours, and a parser that is as simple as can be.

    Attributes:
        last_event_id: What to resume after.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.last_event_id = ""
        assert response.status_code == 200, response.read()
        self._lines = _lines(response)
        self.retry = self.next_event()
        self.connected = self.hear()
        assert self.connected["type"] == "connected"
        self.connection_id = str(self.connected["connection_id"])

    def next_event(self) -> dict[str, str]:
        """Return the fields of the next event, or of the next block without one."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line and fields:
                self.last_event_id = fields.get("id", self.last_event_id)
                return fields
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
        raise EOFError("the stream has ended")

    def hear(self) -> dict[str, Any]:
        """Return the message of the next event; named ones tell their name in ``"$event"``."""
        while "data" not in (fields := self.next_event()):
            pass
        message: dict[str, Any] = json.loads(fields["data"])
        if "event" in fields:
            message["$event"] = fields["event"]
        return message

    def hear_type(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type, passing over others."""
        while (message := self.hear())["type"] != kind:
            pass
        return message


def _lines(response: httpx2.Response) -> Iterator[str]:
    """Split at LF alone: `iter_lines` splits where ``str.splitlines`` does, in the midst of somebody's text."""
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()


def raw_upgrade(path: str = "/realtime/ws", headers: str = "") -> bytes:
    """Return the bytes of a WebSocket handshake."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    ).encode()


def read_head(sock: socket.socket) -> tuple[int, bytes, bytes]:
    """Read the head of an HTTP response; returns the status, the head and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        assert more, f"the connection ended after {data!r}"
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head, rest


def read_response(sock: socket.socket, *, has_body: bool = True) -> tuple[int, bytes, bytes]:
    """Read an HTTP response that tells its length; returns the status, the head and the body."""
    status, head, body = read_head(sock)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) if has_body else 0
    while len(body) < length:
        more = sock.recv(65536)
        assert more, f"the connection ended after {len(body)} of {length} bytes"
        body += more
    assert len(body) == length
    return status, head, body


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def error_code(body: bytes) -> str:
    """Return the code of an error, which must have the one shape."""
    content = json.loads(body)
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["code", "message"]
    return str(content["error"]["code"])


def read_all(sock: socket.socket) -> bytes:
    """Read until the peer ends the connection, by whatever means."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


def masked_frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a final frame of a client, masked with zeros."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + struct.pack("!H", size)
    else:
        length = b"\xff" + struct.pack("!Q", size)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def read_frames(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Read frames of a server, opcode and payload, until it ends the connection or sends a Close frame."""
    with sock.makefile("rb") as file:
        while head := file.read(2):
            size = head[1]
            if size >= 126:
                size = int.from_bytes(file.read(2 if size == 126 else 8), "big")
            opcode = head[0] & 0x0F
            yield opcode, file.read(size)
            if opcode == 8:
                return
