"""RFC 6455 opening handshake (section 4), both sides.

h11 reads the HTTP and checks what goes into it. The rules of section 4 are applied here and not by
``wsproto.handshake``, which draws its key from the operating system, reads a request twice where a host has read it
before, and knows of no size limit; wsproto is the oracle of the tests instead.

A fault of the peer is a value (`Refusal` on a server, `Failed` on a client), however the bytes were cut. No extension
is ever offered or accepted.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Final, TypeAlias

import attrs
import h11
import msgspec
from wsproto.utilities import generate_accept_token

from rtcore.errors import LocalProtocolError, Refusal

__all__ = [
    "Accepted",
    "Answer",
    "ClientHandshake",
    "Declined",
    "Failed",
    "Headers",
    "ServerHandshake",
    "UpgradeRequest",
    "accept_response",
    "check_request",
    "fault_of",
    "refusal_response",
    "reject_response",
]

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

# Where h11 goes on to show what is wrong.
_SHOWN: Final = re.compile(r":? (?:bytearray\()?b?['\"]")
_TOKEN: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
# What the handshake itself says; a caller's header of the same name would contradict it.
_OWN_HEADERS: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"host",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What a refusal must tell besides: RFC 9110, sections 15.5.6 and 15.5.22; RFC 6455, section 4.4.
_TELLING: Final[dict[int, Headers]] = {
    405: ((b"allow", b"GET"),),
    426: ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")),
}


@attrs.frozen
class UpgradeRequest:
    """A request that may be accepted.

    Attributes:
        target: The request target: path and query.
        headers: All headers, names in lower case.
        subprotocols: What the client offers, most wanted first.
        key: Its ``Sec-WebSocket-Key``.
    """

    target: str
    headers: Headers
    subprotocols: tuple[str, ...]
    key: bytes


@attrs.frozen
class Accepted:
    """The server has switched to WebSocket."""

    subprotocol: str | None
    headers: Headers


@attrs.frozen
class Declined:
    """The server answered with something else than 101.

    Attributes:
        status: The HTTP status.
        headers: All headers, names in lower case.
        body: The body, or as much of it as fits the size limit together with the head.
    """

    status: int
    headers: Headers
    body: bytes


@attrs.frozen
class Failed:
    """The server's answer is no answer to a WebSocket handshake."""

    fault: str


Answer: TypeAlias = Accepted | Declined | Failed


class _Buffer:
    """Feeds h11 up to a limit, so that a size limit falls on the same byte however the bytes were cut."""

    __slots__ = ("_h11", "_left", "_rest")

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], max_size: int) -> None:
        self._h11 = h11.Connection(role, max_incomplete_event_size=max_size)
        self._left = max_size
        self._rest = b""

    @property
    def full(self) -> bool:
        return not self._left

    def feed(self, data: bytes) -> None:
        piece = data[: self._left]
        self._left -= len(piece)
        self._rest += data[len(piece) :]
        if piece:  # to h11 an empty piece is the end
            self._h11.receive_data(piece)

    @property
    def trailing(self) -> bytes:
        return self._h11.trailing_data[0] + self._rest


class ServerHandshake(_Buffer):
    """Reads one request. States: reading, then done, after which nothing more may be fed."""

    __slots__ = ()

    def __init__(self, *, max_size: int) -> None:
        """Start reading.

        Args:
            max_size: Bytes that the request line and the headers may have.
        """
        super().__init__(h11.SERVER, max_size)

    def receive_data(self, data: bytes) -> UpgradeRequest | Refusal | None:
        """Read bytes of the client; return the outcome, or ``None`` while more are wanted."""
        self.feed(data)
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError:
            # What h11 says depends on how much it had seen, and quotes the peer: neither belongs in an answer.
            return Refusal("bad_request", "this is not a valid HTTP/1.1 request", 400)
        if isinstance(event, h11.Request):
            return check_request(
                method=event.method,
                target=event.target.decode("ascii"),
                headers=tuple(event.headers),
                http_version=event.http_version,
            )
        # Before a request has been read there is no other event, and without an end of the input no end.
        assert event is h11.NEED_DATA
        if self.full:
            return Refusal("headers_too_large", "the request line and the headers are too large", 431)
        return None


def check_request(
    *, method: bytes, target: str, headers: Sequence[tuple[bytes, bytes]], http_version: bytes
) -> UpgradeRequest | Refusal:
    """Apply section 4.2.1 to a request.

    Args:
        method: As on the request line.
        target: Path and query.
        headers: In the order received, names in any case, values without surrounding white space.
        http_version: ``b"1.1"`` and the like.
    """
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value)
    if http_version != b"1.1":
        return Refusal("http_version", "a WebSocket handshake needs HTTP/1.1", 400)
    if method != b"GET":
        return Refusal("method_not_allowed", "a WebSocket handshake is a GET request", 405)
    upgrades = b"websocket" in _elements(fields, b"upgrade", lower=True)
    if not (upgrades and b"upgrade" in _elements(fields, b"connection", lower=True)):
        return Refusal(
            "upgrade_required",
            "this is a WebSocket endpoint: ask with 'Connection: Upgrade' and 'Upgrade: websocket'",
            426,
        )
    if fields.get(b"sec-websocket-version") != [b"13"]:
        return Refusal("websocket_version", "send 'Sec-WebSocket-Version: 13', once", 426)
    keys = fields.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal("websocket_key", "send one 'Sec-WebSocket-Key': 16 random bytes in base64", 400)
    if len(fields.get(b"host", ())) != 1:
        return Refusal("host_required", "send one 'Host' header", 400)
    if b"transfer-encoding" in fields or fields.get(b"content-length", [b"0"]) != [b"0"]:
        return Refusal("unexpected_body", "a WebSocket handshake has no body", 400)
    subprotocols = _elements(fields, b"sec-websocket-protocol")
    if not all(map(_is_token, subprotocols)):
        return Refusal("websocket_protocol", "'Sec-WebSocket-Protocol' is a list of names with commas between", 400)
    return UpgradeRequest(
        target=target,
        headers=tuple((name.lower(), value) for name, value in headers),
        subprotocols=tuple(name.decode("ascii") for name in subprotocols),
        key=keys[0],
    )


def fault_of(error: h11.ProtocolError | UnicodeError) -> str:
    """Return what is wrong with a request or a header, without showing it: there may be a token in it."""
    return _SHOWN.split(str(error), maxsplit=1)[0]


def _elements(fields: dict[bytes, list[bytes]], name: bytes, *, lower: bool = False) -> list[bytes]:
    """Split the comma-separated list that all headers of one name make up (RFC 9110, section 5.6.1)."""
    whole = b",".join(fields.get(name, ()))
    elements = [stripped for element in whole.split(b",") if (stripped := element.strip())]
    return [element.lower() for element in elements] if lower else elements


def _is_token(value: bytes) -> bool:
    return _TOKEN.fullmatch(value.decode("latin-1")) is not None


def _is_key(value: bytes) -> bool:
    # "a base64-encoded (see Section 4 of [RFC4648]) value that, when decoded, is 16 bytes in length" (section 4.2.1)
    try:
        return len(binascii.a2b_base64(value, strict_mode=True)) == 16
    except binascii.Error:
        return False


def accept_response(
    request: UpgradeRequest, *, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """Build the 101 response (section 4.2.2).

    Raises:
        LocalProtocolError: The subprotocol was not offered, or a header is malformed or the handshake's own.
    """
    if subprotocol is not None and subprotocol not in request.subprotocols:
        raise LocalProtocolError(f"the client did not offer the subprotocol {subprotocol!r}")
    own = [
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"sec-websocket-accept", generate_accept_token(request.key)),
    ]
    if subprotocol is not None:
        own.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    return _head(101, [*own, *_foreign(headers)])


def reject_response(*, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Build any other response, which ends the connection.

    Raises:
        LocalProtocolError: The status is not one that refuses (300 to 599, without 304, which has no body), or a
            header is malformed or the handshake's own.
    """
    if not 300 <= status <= 599 or status == 304:
        raise LocalProtocolError(f"{status} does not refuse a handshake: use 300 to 599, but not 304")
    return _final(status, _foreign(headers), body)


def refusal_response(refusal: Refusal) -> bytes:
    """Build the response that tells a client what is wrong with its request, as JSON."""
    body = msgspec.json.encode({"error": {"code": refusal.code, "message": refusal.message}})
    headers = [(b"content-type", b"application/json"), *_TELLING.get(refusal.status, ())]
    return _final(refusal.status, headers, body)


def _final(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    return _head(status, [*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]) + body


def _head(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    try:
        reason = HTTPStatus(status).phrase.encode()
    except ValueError:
        reason = b""
    lines = [b"HTTP/1.1 %d %b" % (status, reason), *(b"%b: %b" % header for header in headers), b"", b""]
    return b"\r\n".join(lines)


def _foreign(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Check headers of the caller's: a line break in one would let its author write the rest of the response."""
    try:
        checked = list(h11.InformationalResponse(status_code=101, headers=list(headers)).headers)
    except h11.LocalProtocolError as error:
        raise LocalProtocolError(f"a header cannot be sent: {fault_of(error)}") from None
    for name, _ in checked:
        if name in _OWN_HEADERS:
            raise LocalProtocolError(f"the header {name.decode()} belongs to the handshake")
    return checked


class ClientHandshake(_Buffer):
    """Makes one request and reads its answer. States: reading, then done, after which nothing more may be fed."""

    __slots__ = ("_body", "_key", "_response", "_subprotocols", "request")

    request: bytes

    def __init__(
        self,
        *,
        host: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        subprotocols: Sequence[str],
        entropy: Callable[[int], bytes],
        max_size: int,
    ) -> None:
        """Build `request`, the bytes to be written.

        Args:
            host: The host, with the port where it is not the scheme's.
            target: Path and query.
            headers: Headers of the caller's, such as ``Origin`` or ``Authorization``.
            subprotocols: What to offer, most wanted first.
            entropy: Gives that many unpredictable bytes.
            max_size: Bytes that the answer may have, up to the first frame; of a longer body the rest is left out.

        Raises:
            LocalProtocolError: The request cannot be written.
        """
        super().__init__(h11.CLIENT, max_size)
        # "The elements that comprise this value MUST be non-empty strings with characters in the range U+0021 to
        # U+007E not including separator characters [...] and MUST all be unique strings." (section 4.1)
        if len(dict.fromkeys(subprotocols)) != len(subprotocols) or not all(map(_TOKEN.fullmatch, subprotocols)):
            raise LocalProtocolError("subprotocols are distinct names of letters, digits and -!#$%&'*+.^_`|~")
        self._subprotocols = tuple(subprotocols)
        self._key = binascii.b2a_base64(entropy(16), newline=False)
        self._response: h11.Response | None = None
        self._body = b""
        try:
            own = [
                (b"host", host.encode("idna")),
                (b"upgrade", b"websocket"),
                (b"connection", b"upgrade"),
                (b"sec-websocket-key", self._key),
                (b"sec-websocket-version", b"13"),
            ]
            if subprotocols:
                own.append((b"sec-websocket-protocol", ", ".join(subprotocols).encode("ascii")))
            request = h11.Request(method=b"GET", target=target.encode("ascii"), headers=[*own, *_foreign(headers)])
        except (UnicodeError, h11.LocalProtocolError) as error:
            raise LocalProtocolError(f"the request cannot be sent: {fault_of(error)}") from None
        self.request = self._h11.send(request) + self._h11.send(h11.EndOfMessage())

    def receive_data(self, data: bytes) -> Answer | None:
        """Read bytes of the server; return the outcome, or ``None`` while more are wanted."""
        self.feed(data)
        return self._advance()

    def stop(self, fault: str) -> Declined | Failed:
        """Expect no more bytes; return the outcome: an answer whose body was still coming is an answer.

        Args:
            fault: What to say of an answer that did not come.
        """
        return Failed(fault) if self._response is None else self._declined(self._response)

    def _advance(self) -> Answer | None:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError:
                if self._response is not None:
                    return self._declined(self._response)
                return Failed("the server did not answer with HTTP/1.1")
            match event:
                case h11.InformationalResponse(status_code=101):
                    return self._check(tuple(event.headers))
                case h11.InformationalResponse():
                    # "A client MUST be able to parse one or more 1xx responses received prior to a final response"
                    # (RFC 9110, section 15.2)
                    continue
                case h11.Response():
                    self._response = event
                case h11.Data():
                    self._body += event.data
                case h11.EndOfMessage():
                    assert self._response is not None  # h11 tells of an end only after a beginning
                    return self._declined(self._response)
                case _:
                    assert event is h11.NEED_DATA
                    break
        if self.full:
            if self._response is not None:
                return self._declined(self._response)
            return Failed("the headers of the answer are too large")
        return None

    def _declined(self, response: h11.Response) -> Declined:
        return Declined(response.status_code, tuple(response.headers), self._body)

    def _check(self, headers: Headers) -> Accepted | Failed:
        """Apply the list at the end of section 4.1."""
        fields: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            fields.setdefault(name, []).append(value)
        if _elements(fields, b"upgrade", lower=True) != [b"websocket"]:
            return Failed("the answer lacks 'Upgrade: websocket'")
        if b"upgrade" not in _elements(fields, b"connection", lower=True):
            return Failed("the answer lacks 'Connection: Upgrade'")
        if fields.get(b"sec-websocket-accept") != [generate_accept_token(self._key)]:
            return Failed("the answer was not made for this request: 'Sec-WebSocket-Accept' is wrong")
        if b"sec-websocket-extensions" in fields:
            return Failed("the server chose an extension that was not offered")
        chosen = fields.get(b"sec-websocket-protocol")
        if chosen is None:
            return Accepted(None, headers)
        subprotocol = b",".join(chosen).decode("latin-1")
        if subprotocol not in self._subprotocols:
            return Failed("the server chose a subprotocol that was not offered")
        return Accepted(subprotocol, headers)
