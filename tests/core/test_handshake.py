"""The opening handshake: a table of faults for each side, limits, splits, and wsproto at the other end."""

from __future__ import annotations

import json

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, Request

from rtcore.errors import LocalProtocolError, Refusal
from rtcore.handshake import (
    Accepted,
    Answer,
    ClientHandshake,
    Declined,
    Failed,
    ServerHandshake,
    UpgradeRequest,
    accept_response,
    check_request,
    fault_of,
    refusal_response,
    reject_response,
)

# The example of section 1.3
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
NONCE = b"the sample nonce"

REQUEST = {
    b"Host": b"example.com",
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Key": KEY,
    b"Sec-WebSocket-Version": b"13",
}
RESPONSE = {
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Accept": ACCEPT,
}
SWITCH = b"HTTP/1.1 101 Switching Protocols"


def head(first: bytes, fields: dict[bytes, bytes], *extra: bytes) -> bytes:
    lines = [first, *(name + b": " + value for name, value in fields.items()), *extra, b"", b""]
    return b"\r\n".join(lines)


def request(*extra: bytes, line: bytes = b"GET /chat?a=1 HTTP/1.1", **changed: bytes | None) -> bytes:
    fields = dict(REQUEST)
    for keyword, value in changed.items():
        name = next(known for known in fields if known.lower() == keyword.replace("_", "-").encode())
        if value is None:
            del fields[name]
        else:
            fields[name] = value
    return head(line, fields, *extra)


def response(*extra: bytes, line: bytes = SWITCH, **changed: bytes | None) -> bytes:
    fields = dict(RESPONSE)
    for keyword, value in changed.items():
        name = next(known for known in fields if known.lower() == keyword.replace("_", "-").encode())
        if value is None:
            del fields[name]
        else:
            fields[name] = value
    return head(line, fields, *extra)


def client(*subprotocols: str, max_size: int = 4096) -> ClientHandshake:
    return ClientHandshake(
        host="example.com",
        target="/chat",
        headers=[],
        subprotocols=subprotocols,
        entropy=lambda size: NONCE[:size],
        max_size=max_size,
    )


def ask(data: bytes, *, size: int | None = None, max_size: int = 4096) -> UpgradeRequest | Refusal | None:
    handshake = ServerHandshake(max_size=max_size)
    size = size or len(data) or 1
    for start in range(0, len(data), size):
        outcome = handshake.receive_data(data[start : start + size])
        if outcome is not None:
            return outcome
    return None


def answer(data: bytes, *subprotocols: str, size: int | None = None, max_size: int = 4096) -> Answer | None:
    handshake = client(*subprotocols, max_size=max_size)
    size = size or len(data) or 1
    for start in range(0, len(data), size):
        outcome = handshake.receive_data(data[start : start + size])
        if outcome is not None:
            return outcome
    return None


# The server's side


def test_request_is_read() -> None:
    assert ask(request(b"Sec-WebSocket-Protocol: chat, superchat", b"X-Seen: 1", b"X-Seen: 2")) == UpgradeRequest(
        target="/chat?a=1",
        headers=(
            (b"host", b"example.com"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-key", KEY),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-protocol", b"chat, superchat"),
            (b"x-seen", b"1"),
            (b"x-seen", b"2"),
        ),
        subprotocols=("chat", "superchat"),
        key=KEY,
    )


@pytest.mark.parametrize(
    "data",
    [
        request(upgrade=b"WebSocket"),
        request(upgrade=b"h2c, websocket"),
        request(connection=b"keep-alive, UPGRADE"),
        request(b"Connection: keep-alive"),
        request(b"Content-Length: 0"),
        request(b"Sec-WebSocket-Extensions: permessage-deflate"),
        request(b"Sec-WebSocket-Protocol: ,", b"Sec-WebSocket-Protocol: a"),
        request().replace(b"\r\n", b"\n"),
    ],
)
def test_request_in_other_words(data: bytes) -> None:
    assert isinstance(ask(data), UpgradeRequest)


SERVER_FAULTS: dict[str, tuple[bytes, int, str]] = {
    "garbage": (b"\x16\x03\x01\x02\x00", 400, "bad_request"),
    "no HTTP": (b"hello there\r\n\r\n", 400, "bad_request"),
    "empty line first": (b"\r\n\r\n", 400, "bad_request"),
    "bad header": (request(b"no colon"), 400, "bad_request"),
    "no host, says h11": (request(host=None), 400, "bad_request"),
    "control character": (request(b"X: a\x00b"), 400, "bad_request"),
    "HTTP/1.0": (request(line=b"GET / HTTP/1.0"), 400, "http_version"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "http_version"),
    "POST": (request(line=b"POST / HTTP/1.1"), 405, "method_not_allowed"),
    "plain request": (request(upgrade=None, connection=None), 426, "upgrade_required"),
    "no upgrade": (request(upgrade=None), 426, "upgrade_required"),
    "other upgrade": (request(upgrade=b"h2c"), 426, "upgrade_required"),
    "no connection": (request(connection=None), 426, "upgrade_required"),
    "other connection": (request(connection=b"keep-alive"), 426, "upgrade_required"),
    "no version": (request(sec_websocket_version=None), 426, "websocket_version"),
    "other version": (request(sec_websocket_version=b"8"), 426, "websocket_version"),
    "two versions": (request(b"Sec-WebSocket-Version: 13"), 426, "websocket_version"),
    "no key": (request(sec_websocket_key=None), 400, "websocket_key"),
    "empty key": (request(sec_websocket_key=b""), 400, "websocket_key"),
    "key not in base64": (request(sec_websocket_key=b"*" * 24), 400, "websocket_key"),
    "key with a stray character": (request(sec_websocket_key=KEY[:4] + b"*" + KEY[4:]), 400, "websocket_key"),
    "short key": (request(sec_websocket_key=b"YWJj"), 400, "websocket_key"),
    "long key": (request(sec_websocket_key=b"QUFB" * 8), 400, "websocket_key"),
    "two keys": (request(b"Sec-WebSocket-Key: " + KEY), 400, "websocket_key"),
    "body": (request(b"Content-Length: 3") + b"abc", 400, "unexpected_body"),
    "chunked body": (request(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "unexpected_body"),
    "subprotocol with a space": (request(b"Sec-WebSocket-Protocol: a b"), 400, "websocket_protocol"),
    "subprotocol outside ASCII": (request(b"Sec-WebSocket-Protocol: \xc3\xa9"), 400, "websocket_protocol"),
    "too large": (request(b"X: " + b"x" * 5000), 431, "headers_too_large"),
}


@pytest.mark.parametrize("name", SERVER_FAULTS)
@pytest.mark.parametrize("size", [None, 1, 7])
def test_server_fault(name: str, size: int | None) -> None:
    data, status, code = SERVER_FAULTS[name]
    outcome = ask(data, size=size)
    assert isinstance(outcome, Refusal)
    assert (outcome.status, outcome.code) == (status, code)


def test_host_is_asked_for_where_h11_did_not_read() -> None:
    headers = [(name, value) for name, value in REQUEST.items() if name != b"Host"]
    outcome = check_request(method=b"GET", target="/", headers=headers, http_version=b"1.1")
    assert isinstance(outcome, Refusal)
    assert outcome.code == "host_required"


@pytest.mark.parametrize("size", [None, 1])
def test_largest_request(size: int | None) -> None:
    data = request()
    assert isinstance(ask(data + b"early" * 10, size=size, max_size=len(data)), UpgradeRequest)
    outcome = ask(data + b"early" * 10, size=size, max_size=len(data) - 1)
    assert isinstance(outcome, Refusal)
    assert outcome.code == "headers_too_large"


@pytest.mark.parametrize("room", [0, 3, 1000])
def test_what_follows_a_request_is_kept(room: int) -> None:
    data = request()
    handshake = ServerHandshake(max_size=len(data) + room)
    assert handshake.receive_data(data[:20]) is None
    assert isinstance(handshake.receive_data(data[20:] + b"\x81\x80early"), UpgradeRequest)
    assert handshake.trailing == b"\x81\x80early"


def upgrade() -> UpgradeRequest:
    outcome = ask(request(b"Sec-WebSocket-Protocol: chat, superchat"))
    assert isinstance(outcome, UpgradeRequest)
    return outcome


def test_accept_response() -> None:
    assert accept_response(upgrade(), subprotocol="superchat", headers=[(b"Set-Cookie", b"a=b")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: " + ACCEPT + b"\r\nsec-websocket-protocol: superchat\r\nset-cookie: a=b\r\n\r\n"
    )


def test_subprotocol_that_was_not_offered() -> None:
    with pytest.raises(LocalProtocolError, match="did not offer"):
        accept_response(upgrade(), subprotocol="other", headers=[])


@pytest.mark.parametrize(
    "header",
    [
        (b"X: 1\r\nY", b"2"),
        (b"X", b"1\r\nY: 2"),
        (b"X", b" padded "),
        (b"Sec-WebSocket-Accept", b"mine"),
        (b"CONNECTION", b"keep-alive"),
        (b"Content-Length", b"0"),
    ],
)
def test_header_that_cannot_be_sent(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(LocalProtocolError, match="header"):
        accept_response(upgrade(), subprotocol=None, headers=[header])
    with pytest.raises(LocalProtocolError, match="header"):
        reject_response(status=403, headers=[header], body=b"")
    with pytest.raises(LocalProtocolError, match="header"):
        ClientHandshake(host="a", target="/", headers=[header], subprotocols=(), entropy=bytes, max_size=100)


def test_reject_response() -> None:
    assert reject_response(status=403, headers=[(b"Content-Type", b"text/plain")], body=b"no") == (
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    )
    assert reject_response(status=599, headers=[], body=b"").startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize("status", [0, 101, 200, 299, 304, 600])
def test_status_that_does_not_refuse(status: int) -> None:
    with pytest.raises(LocalProtocolError, match="does not refuse"):
        reject_response(status=status, headers=[], body=b"")


@pytest.mark.parametrize(
    ("status", "line", "telling"),
    [
        (400, b"HTTP/1.1 400 Bad Request", []),
        (405, b"HTTP/1.1 405 Method Not Allowed", [b"allow: GET"]),
        (426, b"HTTP/1.1 426 Upgrade Required", [b"upgrade: websocket", b"sec-websocket-version: 13"]),
    ],
)
def test_refusal_response(status: int, line: bytes, telling: list[bytes]) -> None:
    top, _, body = refusal_response(Refusal("a_code", "what is wrong", status)).partition(b"\r\n\r\n")
    length = b"content-length: %d" % len(body)
    assert top.split(b"\r\n") == [line, b"content-type: application/json", *telling, length, b"connection: close"]
    assert json.loads(body) == {"error": {"code": "a_code", "message": "what is wrong"}}


# The client's side


def test_request_is_written() -> None:
    handshake = ClientHandshake(
        host="bücher.example:8080",
        target="/chat?a=1",
        headers=[(b"Origin", b"http://example.com")],
        subprotocols=["chat", "superchat"],
        entropy=lambda size: NONCE[:size],
        max_size=4096,
    )
    assert handshake.request == (
        b"GET /chat?a=1 HTTP/1.1\r\nhost: xn--bcher-kva.example:8080\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-key: " + KEY + b"\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: chat, superchat\r\n"
        b"origin: http://example.com\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("host", "target", "subprotocols"),
    [
        ("a\r\nX: 1", "/", []),
        ("a" * 64, "/", []),
        ("a", "/ HTTP/1.1\r\nX: 1", []),
        ("a", "/é", []),
        ("a", "", []),
        ("a", "/", [""]),
        ("a", "/", ["a b"]),
        ("a", "/", ["é"]),
        ("a", "/", ["twice", "twice"]),
    ],
)
def test_request_that_cannot_be_sent(host: str, target: str, subprotocols: list[str]) -> None:
    with pytest.raises(LocalProtocolError):
        ClientHandshake(host=host, target=target, headers=[], subprotocols=subprotocols, entropy=bytes, max_size=100)


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize(
    ("data", "subprotocol"),
    [
        (response(), None),
        (response(upgrade=b"WebSocket", connection=b"keep-alive, upgrade"), None),
        (response(b"Sec-WebSocket-Protocol: b"), "b"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(), None),
    ],
)
def test_accepted(data: bytes, subprotocol: str | None, size: int | None) -> None:
    outcome = answer(data, "a", "b", size=size)
    assert isinstance(outcome, Accepted)
    assert outcome.subprotocol == subprotocol
    assert (b"sec-websocket-accept", ACCEPT) in outcome.headers


CLIENT_FAULTS: dict[str, tuple[bytes, Answer]] = {
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Failed("the server did not answer with HTTP/1.1")),
    "control characters": (b"\x15\x03\x01", Failed("the server did not answer with HTTP/1.1")),
    "no upgrade": (response(upgrade=None), Failed("the answer lacks 'Upgrade: websocket'")),
    "other upgrade": (response(upgrade=b"h2c"), Failed("the answer lacks 'Upgrade: websocket'")),
    "no connection": (response(connection=None), Failed("the answer lacks 'Connection: Upgrade'")),
    "no accept": (
        response(sec_websocket_accept=None),
        Failed("the answer was not made for this request: 'Sec-WebSocket-Accept' is wrong"),
    ),
    "wrong accept": (
        response(sec_websocket_accept=ACCEPT.lower()),
        Failed("the answer was not made for this request: 'Sec-WebSocket-Accept' is wrong"),
    ),
    "extension": (
        response(b"Sec-WebSocket-Extensions: permessage-deflate"),
        Failed("the server chose an extension that was not offered"),
    ),
    "other subprotocol": (
        response(b"Sec-WebSocket-Protocol: c"),
        Failed("the server chose a subprotocol that was not offered"),
    ),
    "two subprotocols": (
        response(b"Sec-WebSocket-Protocol: a", b"Sec-WebSocket-Protocol: b"),
        Failed("the server chose a subprotocol that was not offered"),
    ),
    "endless headers": (response(b"X: " + b"x" * 5000), Failed("the headers of the answer are too large")),
    "endless hints": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200, Failed("the headers of the answer are too large")),
    "refused": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
        Declined(403, ((b"content-length", b"3"),), b"no!"),
    ),
    "refused in chunks": (
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n1\r\n!\r\n0\r\n\r\n",
        Declined(503, ((b"transfer-encoding", b"chunked"),), b"no!"),
    ),
    "refused in bad chunks": (
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n?",
        Declined(503, ((b"transfer-encoding", b"chunked"),), b"no"),
    ),
    "redirected": (
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        Declined(302, ((b"location", b"/x"), (b"content-length", b"0")), b""),
    ),
    "not even refused": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000,
        Declined(200, ((b"content-length", b"5000"),), b"x" * (4096 - 41)),
    ),
}


@pytest.mark.parametrize("name", CLIENT_FAULTS)
@pytest.mark.parametrize("size", [None, 1, 7])
def test_client_fault(name: str, size: int | None) -> None:
    data, expected = CLIENT_FAULTS[name]
    if name == "refused in bad chunks":
        data += b"\r\n\r\n" * 100
    assert answer(data, "a", "b", size=size) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Failed("the end")),
        (response()[:-1], Failed("the end")),
        (b"HTTP/1.1 500 Oops\r\n\r\nno", Declined(500, (), b"no")),
        (
            b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nno",
            Declined(500, ((b"content-length", b"5"),), b"no"),
        ),
    ],
)
def test_unfinished_answer(data: bytes, expected: Answer) -> None:
    handshake = client()
    assert handshake.receive_data(data) is None
    assert handshake.stop("the end") == expected


@pytest.mark.parametrize("room", [0, 3, 1000])
def test_what_follows_an_answer_is_kept(room: int) -> None:
    handshake = client(max_size=len(response()) + room)
    assert isinstance(handshake.receive_data(response() + b"\x81\x01a\x81"), Accepted)
    assert handshake.trailing == b"\x81\x01a\x81"


# Both, and with wsproto

tokens = st.text("abcXYZ019-._~", min_size=1, max_size=8)


@given(
    offered=st.lists(tokens, unique=True, max_size=3),
    pick=st.integers(0, 3),
    nonce=st.binary(min_size=16, max_size=16),
    places=st.lists(st.integers(0, 400), max_size=4),
)
def test_both_sides_agree(offered: list[str], pick: int, nonce: bytes, places: list[int]) -> None:
    ours = ClientHandshake(
        host="a", target="/", headers=[], subprotocols=offered, entropy=lambda _: nonce, max_size=4096
    )
    server = ServerHandshake(max_size=4096)
    start, asked = 0, None
    for end in [*sorted(place for place in places if place < len(ours.request)), len(ours.request)]:
        assert asked is None
        asked = server.receive_data(ours.request[start:end])
        start = end
    assert isinstance(asked, UpgradeRequest)
    assert asked.subprotocols == tuple(offered)
    chosen = offered[pick] if pick < len(offered) else None
    outcome = ours.receive_data(accept_response(asked, subprotocol=chosen, headers=[]))
    assert isinstance(outcome, Accepted)
    assert outcome.subprotocol == chosen


@pytest.mark.parametrize("subprotocol", [None, "b"])
def test_server_with_the_client_of_wsproto(subprotocol: str | None) -> None:
    theirs = WSConnection(ConnectionType.CLIENT)
    asked = ask(theirs.send(Request(host="example.com", target="/chat", subprotocols=["a", "b"])))
    assert isinstance(asked, UpgradeRequest)
    theirs.receive_data(accept_response(asked, subprotocol=subprotocol, headers=[(b"x-a", b"1")]))
    assert list(theirs.events()) == [AcceptConnection(subprotocol=subprotocol, extra_headers=[(b"x-a", b"1")])]


def test_refusal_reaches_the_client_of_wsproto() -> None:
    theirs = WSConnection(ConnectionType.CLIENT)
    theirs.send(Request(host="example.com", target="/chat"))
    theirs.receive_data(refusal_response(Refusal("full", "try later", 503)))
    event = next(iter(theirs.events()))
    assert isinstance(event, RejectConnection)
    assert event.status_code == 503


def test_client_with_the_server_of_wsproto() -> None:
    ours = client("a", "b")
    theirs = WSConnection(ConnectionType.SERVER)
    theirs.receive_data(ours.request)
    event = next(iter(theirs.events()))
    assert isinstance(event, Request)
    assert (event.host, event.target, event.subprotocols) == ("example.com", "/chat", ["a", "b"])
    outcome = ours.receive_data(theirs.send(AcceptConnection(subprotocol="b")))
    assert isinstance(outcome, Accepted)
    assert outcome.subprotocol == "b"


@given(data=st.binary(max_size=300), size=st.integers(1, 50))
def test_no_bytes_make_a_handshake_raise(data: bytes, size: int) -> None:
    for prefix in (b"", b"GET / HTTP/1.1\r\n", request()[:-2]):
        assert ask(prefix + data, size=size) == ask(prefix + data)
    for prefix in (b"", b"HTTP/1.1 ", b"HTTP/1.1 403 No\r\n", response()[:-2], b"HTTP/1.1 403 No\r\n\r\n"):
        assert answer(prefix + data, size=size) == answer(prefix + data)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([(b"host", b"a"), (b"authorization", b"Bearer se\0cret")], "Illegal header value"),
        ([(b"host", b"a"), (b"se cret", b"x")], "Illegal header name"),
        ([], "Missing mandatory Host: header"),
    ],
)
def test_a_fault_is_told_without_what_is_wrong(headers: list[tuple[bytes, bytes]], told: str) -> None:
    with pytest.raises(h11.LocalProtocolError) as caught:
        h11.Request(method=b"GET", target=b"/", headers=headers)
    assert fault_of(caught.value) == told


def test_a_fault_of_a_peer_is_told_without_what_is_wrong() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\0\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError) as caught:
        connection.next_event()
    assert fault_of(caught.value) == "illegal header line"
