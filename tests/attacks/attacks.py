"""The attacks: each does its worst, and returns what that has come to. Numbers are for a test; benchmarks take more."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import attrs

from .attacker import Attacker, Outcome, get, masked_frame, outcome_of, raw_upgrade

__all__ = ["ATTACKS", "SMUGGLED", "Attack", "smuggle"]

_ENOUGH: Final = 2**26
_JSON: Final = "Content-Type: application/json"
_FIN: Final = 0x80


@attrs.frozen
class Attack:
    """One attack.

    Attributes:
        name: What it is.
        run: Makes it on a port of loopback, that many times as hard as a test has it.
        tls: Whether the server is to speak TLS.
        files: To how many descriptors the server is to be limited.
    """

    name: str
    run: Callable[[int, int], Outcome]
    tls: bool = False
    files: int | None = None


ATTACKS: Final[dict[str, Attack]] = {}


def _attack(
    name: str, *, tls: bool = False, files: int | None = None
) -> Callable[[Callable[[int, int], Outcome]], Callable[[int, int], Outcome]]:
    def register(run: Callable[[int, int], Outcome]) -> Callable[[int, int], Outcome]:
        ATTACKS[name] = Attack(name, run, tls, files)
        return run

    return register


# Slowly


@_attack("slow heads")
def slow_heads(port: int, scale: int) -> Outcome:
    """Begin requests, and send a byte of each from time to time."""
    with Attacker.on(port) as attacker:
        attacker.open_many(100 * scale, b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        return attacker.wait(say=lambda: b"x")


@_attack("slow bodies")
def slow_bodies(port: int, scale: int) -> Outcome:
    """Send the half of a body, and no more."""
    with Attacker.on(port) as attacker:
        attacker.open_many(50 * scale, get("/echo", "Content-Length: 1000", method="POST") + b"x" * 500)
        attacker.open_many(50 * scale, get("/realtime/broadcast", _JSON, "Content-Length: 9", method="POST") + b"{")
        return attacker.wait()


@_attack("slow frames")
def slow_frames(port: int, scale: int) -> Outcome:
    """Send a byte of a frame from time to time."""
    with Attacker.on(port) as attacker:
        for _ in range(50 * scale):
            attacker.send(attacker.open_websocket("/realtime/ws"), masked_frame(b"x" * 1000)[:20])
        return attacker.wait(say=lambda: b"x")


@_attack("slow TLS", tls=True)
def slow_tls(port: int, scale: int) -> Outcome:
    """Begin handshakes of TLS, and send a byte of each from time to time."""
    with Attacker.on(port) as attacker:
        attacker.open_many(100 * scale, b"\x16\x03\x01\x40\x00\x01")
        return attacker.wait(say=lambda: b"\x00")


# Much at once


@_attack("many headers")
def many_headers(port: int, scale: int) -> Outcome:
    """Send heads of thousands of headers."""
    return _push(port, 50 * scale, lambda: [b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 20_000 + b"\r\n"])


@_attack("a giant header")
def giant_header(port: int, scale: int) -> Outcome:
    """Send one header without end."""
    return _push(port, 50 * scale, lambda: itertools.chain([b"GET / HTTP/1.1\r\nHost: a\r\nX: "], _endless(b"x")))


@_attack("an endless request line")
def endless_line(port: int, scale: int) -> Outcome:
    """Send a target without end."""
    return _push(port, 50 * scale, lambda: itertools.chain([b"GET /"], _endless(b"x")))


@_attack("10 GB bodies")
def huge_bodies(port: int, scale: int) -> Outcome:
    """Announce 10 GB, and begin to send them."""
    head = get("/realtime/broadcast", _JSON, f"Content-Length: {10 * 2**30}", method="POST")
    return _push(port, 20 * scale, lambda: itertools.chain([head + b'{"data":"'], _endless(b"x")))


@_attack("chunks of a body without end")
def endless_chunks(port: int, scale: int) -> Outcome:
    """Send a body that does not say how long it is."""
    head = get("/realtime/broadcast", _JSON, "Transfer-Encoding: chunked", method="POST")
    return _push(port, 20 * scale, lambda: itertools.chain([head], _endless(b"1000\r\n" + b"x" * 4096 + b"\r\n")))


@_attack("chunk extensions without end")
def chunk_extensions(port: int, scale: int) -> Outcome:
    """Send bodies that are hardly anything but extensions: many of them, and one."""
    head = get("/echo", "Transfer-Encoding: chunked", method="POST")
    with Attacker.on(port) as attacker:
        for _ in range(20 * scale):
            many = itertools.chain([head], _endless(b"1;" + b"x" * 1000 + b"\r\nx\r\n"))
            attacker.push(attacker.open(), many)
            attacker.push(attacker.open(), itertools.chain([head + b"1;"], _endless(b"x")))
        return attacker.wait()


@_attack("trailers without end")
def endless_trailers(port: int, scale: int) -> Outcome:
    """End a body, and send trailers."""
    head = get("/echo", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n0\r\n"
    return _push(port, 20 * scale, lambda: itertools.chain([head], _endless(b"X: y\r\n")))


@_attack("gzip bodies")
def gzip_bodies(port: int, scale: int) -> Outcome:
    """Send 10 MB of JSON in 10 KB."""
    body = gzip.compress(json.dumps({"data": "x" * 10_000_000}).encode())
    headers = (_JSON, "Content-Encoding: gzip", f"Content-Length: {len(body)}", "Connection: close")
    request = get("/realtime/broadcast", *headers, method="POST") + body
    return _push(port, 20 * scale, lambda: [request])


@_attack("pipelining")
def pipelining(port: int, scale: int) -> Outcome:
    """Send a thousand requests at once."""
    with Attacker.on(port) as attacker:
        for sock in attacker.open_many(5 * scale):
            attacker.push(sock, [get("/") * 1000])
        return attacker.wait()


@_attack("pipelining, unread")
def pipelining_unread(port: int, scale: int) -> Outcome:
    """Send requests without end, and read no answer."""
    request = get("/echo", "Content-Length: 50000", method="POST") + b"x" * 50_000
    with Attacker.on(port) as attacker:
        for _ in range(5 * scale):
            attacker.push(attacker.open(receive_buffer=4096), _endless(request), reads=False)
        return attacker.wait()


# Smuggling

_CHUNKED: Final = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What two servers in a row may take for different requests: where a second one hides, there must be no answer to it.
SMUGGLED: Final[dict[str, bytes]] = {
    "CL.TE": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE.CL": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two CL": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "two CL that agree": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list in CL": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 44\r\n\r\n",
    "a signed CL": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
    "a hexadecimal CL": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n",
    "two TE": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "a list in TE": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown TE": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE with a vertical tab": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE of HTTP/1.0": b"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 0\r\n\r\n",
    "obs-fold": b"POST /echo HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 0\r\n\r\n",
    "obs-fold of TE": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"POST /echo HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "one bare LF": b"POST /echo HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 0\r\n\r\n",
    "bare CR": b"POST /echo HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 0\r\n\r\n",
    "NUL": b"POST /echo HTTP/1.1\r\nHost: a\r\nX: y\x00\r\nContent-Length: 0\r\n\r\n",
    "a chunk with a bare LF": _CHUNKED + b"1\r\nx\n0\r\n\r\n",
    "a chunk of a negative size": _CHUNKED + b"-1\r\nx\r\n",
    "a chunk longer than it says": _CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "a chunk size of many digits": (_CHUNKED + b"0" * 40 + b"\r\n\r\n"),
}
_SECOND: Final = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def smuggle(port: int, first: bytes) -> str:
    """Send a request that hides another, and return what came of it; see `Outcome.ends`."""
    with socket.create_connection(("127.0.0.1", port), 30.0) as sock:
        sock.sendall(first + _SECOND)
        heard = b""
        with suppress(ConnectionError):
            while data := sock.recv(65536):
                heard += data
    return outcome_of(heard)


@_attack("smuggled requests")
def smuggling(port: int, scale: int) -> Outcome:
    """Hide requests in others."""
    shapes = list(SMUGGLED.values()) * scale
    ends = Counter(smuggle(port, shape) for shape in shapes)
    return Outcome(len(shapes), sum(len(shape) + len(_SECOND) for shape in shapes), ends)


# Sockets


@_attack("half-open connections", files=256)
def half_open(port: int, scale: int) -> Outcome:
    """Open connections in bursts, say nothing, and hold as many as one can."""
    with Attacker.on(port) as attacker:
        held: deque[socket.socket] = deque()
        for _ in range(5000 * scale):
            held.append(attacker.open())
            if len(held) > 2000:
                attacker.drop(held.popleft())
        return attacker.outcome


@_attack("connection churn")
def churn(port: int, scale: int) -> Outcome:
    """Open connections, and end them at once, one way or the other."""
    with Attacker.on(port) as attacker:
        for number in range(2000 * scale):
            sock = attacker.open()
            if number % 2:
                attacker.send(sock, raw_upgrade("/realtime/ws"))
            attacker.drop(sock, reset=number % 3 == 0)
        return attacker.outcome


# WebSockets


@_attack("ping floods")
def pings(port: int, scale: int) -> Outcome:
    """Send pings without end, and read no pong."""
    with Attacker.on(port) as attacker:
        for _ in range(4 * scale):
            sock = attacker.open_websocket("/realtime/ws", receive_buffer=4096)
            attacker.push(sock, _endless(masked_frame(b"x" * 125, 9)), reads=False)
        return attacker.wait()


@_attack("fragments without end")
def fragments(port: int, scale: int) -> Outcome:
    """Send messages that do not end: of ever more bytes, and of none."""
    begin, more = _fragment(1, b"x" * 1000), _fragment(0, b"x" * 1000)
    with Attacker.on(port) as attacker:
        for _ in range(3 * scale):
            attacker.push(attacker.open_websocket("/realtime/ws"), itertools.chain([begin], _endless(more)))
        for _ in range(scale):
            empty = itertools.chain([_fragment(1, b"")], _endless(_fragment(0, b"")))
            attacker.push(attacker.open_websocket("/realtime/ws"), empty)
        return attacker.wait()


@_attack("compressed frames")
def compressed(port: int, scale: int) -> Outcome:
    """Offer compression, and compress whatever the answer is."""
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with Attacker.on(port) as attacker:
        for _ in range(20 * scale):
            sock = attacker.open()
            frame = bytearray(masked_frame(b"\x00" * 100))
            frame[0] |= 0x40
            attacker.send(sock, raw_upgrade("/realtime/ws")[:-2] + offer + bytes(frame))
        return attacker.wait()


@_attack("nobody reads")
def nobody_reads(port: int, scale: int) -> Outcome:
    """Ask for all there is, and read nothing: of a channel, of a response, of an application's WebSocket."""
    message = masked_frame(json.dumps({"type": "note", "channel": "room", "data": "x" * 20_000}).encode())
    with Attacker.on(port) as attacker:
        for _ in range(4 * scale):
            attacker.open_websocket("/realtime/ws?channel=room", receive_buffer=4096)
            attacker.open_websocket("/flood", receive_buffer=4096)
            attacker.open_response("/realtime/events?channel=room", receive_buffer=4096)
            attacker.open_response("/endless", receive_buffer=4096)
        publisher = attacker.open_websocket("/realtime/ws")
        attacker.push(publisher, itertools.repeat(message, 500))
        attacker.send(publisher, masked_frame(b'{"type":"text","data":"the end"}'))
        assert b"the end" in attacker.hear(publisher, b"the end"), "nobody is published to"
        attacker.drop(publisher)
        attacker.wait_unread()
        return attacker.wait()


def _push(port: int, count: int, pieces: Callable[[], Iterator[bytes] | list[bytes]]) -> Outcome:
    """Send the same on so many connections, one after the other, until each is ended."""
    with Attacker.on(port) as attacker:
        for _ in range(count):
            attacker.push(attacker.open(), pieces())
        return attacker.wait()


def _endless(piece: bytes) -> Iterator[bytes]:
    """Return a piece again and again, but not for ever: who would take so much has failed."""
    many = piece * max(1, 65536 // len(piece))
    return itertools.repeat(many, _ENOUGH // len(many))


def _fragment(opcode: int, payload: bytes) -> bytes:
    """Return a frame with which a message does not end."""
    frame = bytearray(masked_frame(payload, opcode))
    frame[0] &= ~_FIN
    return bytes(frame)
