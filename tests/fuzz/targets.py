"""What is fuzzed: each target takes any bytes, and must neither fail nor let anybody down, whatever they are.

Hypothesis runs all of them in the tests, and ``python -m tests.fuzz.campaign`` each for as long as one likes, guided by
the branches that inputs reach.
"""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any, Final

from rtcore import (
    Client,
    ClientConfig,
    EventSource,
    EventSourceConfig,
    LocalProtocolError,
    Refusal,
    WebSocket,
    WebSocketConfig,
)
from rtcore.encoded import Encoded
from rtcore.event_stream import EventStreamParser, EventTooLarge, encode_event
from rtcore.json_values import decode_value
from rtcore.node import Consult, Node, NodeConfig, Verify
from rtcore.patterns import matches
from rtcore.permissions import OPEN, Grant, Identity, Scope
from rtcore.permissions.claims import identity_of
from rtcore.permissions.scopes import grant_of_scopes
from rtcore.router import Deliver
from rtcore.session import Transport
from rtcore.websocket import Accept, Closed, HandshakeRequested
from rtcore_adapters import WSAuthenticator
from rtcore_adapters.auth import AuthenticationError
from rtcore_adapters.settings import Settings, WsSettings
from rtcore_transports.admission import EndpointConfig, read_query
from rtcore_transports.client_address import address_key, client_address
from rtcore_transports.client_request import refusal_in
from rtcore_transports.origins import OriginPattern, allows_origin
from rtcore_transports.presented import credentials_in, read_introduction

from . import file_targets as _file_targets  # noqa: F401
from .registry import SEEDS, TARGETS, Target, as_text, cut, target

__all__ = ["SEEDS", "TARGETS", "Target"]

_REQUEST: Final = (
    b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_RESPONSE: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_NONCE: Final = b"the sample nonce"
_SECRET: Final = "what nobody else may hear"


# Bytes


@target(b"\x00" + _REQUEST, b"\x1f" + _REQUEST + b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")
def websocket_server(data: bytes) -> None:
    """A server's WebSocket from the first byte on; its end is its last word."""
    machine = WebSocket.server(WebSocketConfig(max_message_size=4096), now=0.0)
    _run(machine, data)


@target(
    b"\x00\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    b"\x05\x88\x82\x00\x00\x00\x00\x03\xe8",
    b"\x01\x01\x80abcd\x80\x80abcd",
)
def websocket_frames(data: bytes) -> None:
    """The frames of a client."""
    machine = WebSocket.server(WebSocketConfig(max_message_size=4096), now=0.0)
    machine.receive_data(_REQUEST, now=0.0)
    machine.send(Accept(), now=0.0)
    _run(machine, data)


@target(b"\x00" + _RESPONSE, b"\x20" + _RESPONSE + b"\x81\x05hello")
def websocket_client(data: bytes) -> None:
    """What a server may answer a client."""
    machine, _ = WebSocket.client(
        WebSocketConfig(max_message_size=4096),
        host="example.com",
        target="/",
        entropy=lambda size: _NONCE[:size],
        now=0.0,
    )
    _run(machine, data)


def _run(machine: WebSocket, data: bytes) -> None:
    effects: list[Any] = []
    for number, piece in enumerate(cut(data)):
        effects += machine.receive_data(piece, now=float(number))
        if isinstance(effects and effects[-1], HandshakeRequested):
            effects += machine.send(Accept(), now=float(number))
    effects += machine.receive_eof(now=1e6)
    ends = [index for index, effect in enumerate(effects) if isinstance(effect, Closed)]
    assert len(ends) <= 1, effects
    assert not ends or ends == [len(effects) - 1], effects


@target(b"\x00retry: 10\r\nid: 1\rdata: a\ndata: b\n\nevent: x\ndata\n\n", b"\x08\xef\xbb\xbfdata: a\n\n: comment\n\n")
def event_stream(data: bytes) -> None:
    """An event stream, whole and in pieces: the same events."""
    pieces = list(cut(data))
    whole = EventStreamParser(max_event_size=256)
    parts = EventStreamParser(max_event_size=256)
    at_once = whole.receive_data(b"".join(pieces))
    in_turn: list[object] = []
    for piece in pieces:
        in_turn += parts.receive_data(piece)
        if in_turn and isinstance(in_turn[-1], EventTooLarge):
            # It has ended.
            break
    assert at_once == in_turn
    assert whole.last_event_id == parts.last_event_id


@target(b"\x00data: a\n\nid: 7\n\n", b"\x04event: gap\ndata: {}\n\n")
def event_source(data: bytes) -> None:
    """An `EventSource` that reads it, and connects again."""
    source = EventSource(EventSourceConfig(), random=lambda: 0.5)
    source.connect(now=0.0)
    source.response(200, "text/event-stream", now=0.0)
    for number, piece in enumerate(cut(data)):
        source.receive_data(piece, now=float(number))
    source.receive_eof(now=1e5)
    source.handle_timeout(now=1e6)


@target(b"message\0data: forged\n\nid: 7", b"gap\0a\rb\nc")
def event_of_a_message(data: bytes) -> None:
    """An event that users name and fill says what they said, and nothing else."""
    name, _, body = data.partition(b"\0")
    event, text = as_text(name), as_text(body)
    try:
        encoded = encode_event(text, event=event or None, id="7")
    except LocalProtocolError:
        # Nothing of what would be another line gets out.
        return
    items = EventStreamParser().receive_data(encoded)
    normalised = text.replace("\r\n", "\n").replace("\r", "\n")
    assert [(item.event, item.data, item.id) for item in items] == [(event or "message", normalised, "7")], items  # type: ignore[union-attr]


# Messages


def _with_rights() -> Node:
    """Return a node with somebody who may hear everything, in a channel that `mallory` may not know of."""
    node = Node(NodeConfig(max_message_size=4096), entropy="e", handled=("handled",))
    moment: dict[str, Any] = {"now": 0.0, "timestamp": 1_700_000_000_000}
    node.connect("alice", user_id="alice", grant=OPEN, transport=Transport.WEBSOCKET, **moment)
    for channel in ("secret:1", "open:1"):
        node.subscribe("alice", channel, **moment)
    _say(node, "alice", {"type": "command", "command": "join_room", "data": {"room_id": "secret", "peer_id": "alice"}})
    node.publish("secret:1", {"type": "text", "data": _SECRET, "persistent": True}, **moment)
    node.publish("open:1", {"type": "text", "data": "hello", "persistent": True}, **moment)
    only = Scope(("open:*", "$user:bob"), exclusive=True)
    grant = Grant(
        subscribe=only, publish=only, history=only, presence=only, upload=only, signal=only, expires_at=1_700_000_100.0
    )
    node.connect("mallory", user_id="mallory", grant=grant, transport=Transport.WEBSOCKET, **moment)
    return node


def _say(node: Node, connection_id: str, message: object, now: float = 1.0) -> list[Any]:
    return node.receive_text(connection_id, json.dumps(message), now=now, timestamp=1_700_000_001_000)


def _command(name: str, /, **data: object) -> bytes:
    return json.dumps({"type": "command", "command": name, "data": data, "id": "1"}).encode()


@target(
    b'{"channel":"secret:1","type":"text","data":1,"id":"a"}\n{"channel":"open:1","type":"text","persistent":true}',
    b'{"type":"text","recipient_id":"alice","data":1}\n{"type":"webrtc_signal","signal_type":"bye","target_peer_id":"alice","room_id":"secret"}',
    _command("join_channel", channel="secret:1", since={"epoch": "e.3", "offset": 0})
    + b"\n"
    + _command("join_channel", channel="open:1"),
    _command("history", channel="secret:1", limit=3, after=0) + b"\n" + _command("presence", channel="secret:1"),
    _command("join_room", room_id="secret", peer_id="alice") + b"\n" + _command("get_rooms"),
    _command("create_room", room_id="open:r", name="x") + b"\n" + _command("leave_room", room_id="secret"),
    _command("refresh_token", token="x")
    + b"\n"
    + _command("get_active_users")
    + b"\n"
    + _command("get_connection_stats"),
)
def session(data: bytes) -> None:
    """Lines of a client whose rights are few: it hears nothing secret, and bothers nobody whom it may not reach."""
    node = _with_rights()
    for number, line in enumerate(data.split(b"\n")[:40]):
        now = 1.0 + number
        moment: dict[str, Any] = {"now": now, "timestamp": 1_700_000_000_000 + int(now * 1000)}
        if "mallory" not in node:
            break
        for effect in node.receive_text("mallory", as_text(line), **moment):
            if isinstance(effect, Deliver):
                _check_delivery(effect)
            elif isinstance(effect, Verify):
                answer = node.renew(
                    effect.request, Identity("mallory", OPEN) if number % 2 else Refusal("no", "no"), **moment
                )
                assert all(isinstance(each, Deliver) for each in answer)
                # With everything allowed there is nothing more to find out.
                return
            else:
                assert not isinstance(effect, Consult)
    node.handle_timeout(now=200.0, timestamp=1_700_000_200_000)
    assert "mallory" not in node, "its grant has ended"


def _check_delivery(effect: Deliver) -> None:
    message: Encoded = effect.message
    value = json.loads(message.json)
    if "mallory" in effect.connections:
        assert _SECRET not in message.text
        assert value.get("channel") != "secret:1" or value["type"] == "error", value
        assert value["type"] not in ("peer_joined", "peer_left") or value["room_id"] != "secret", value
    elif "alice" in effect.connections and effect.skip != "alice":
        assert value.get("channel") == "open:1" or value["type"] in ("user_joined", "user_left", "broadcast"), value


@target(b'{"type":"text"}', b'{"type":"connected","connection_id":"c","heartbeat_interval":30}', b"[" * 200)
def client(data: bytes) -> None:
    """Lines of a server, to our client."""
    machine = Client(ClientConfig(), random=lambda: 0.5, session="s")
    machine.connect(now=0.0)
    machine.opened(now=0.0)
    machine.receive_text(
        '{"type":"connected","connection_id":"c","user_id":null,"protocol":1,"heartbeat_interval":30,"channels":[]}',
        now=0.0,
    )
    for number, line in enumerate(data.split(b"\n")[:40]):
        if machine.state.name != "CONNECTED":
            return
        machine.receive_text(as_text(line), now=float(number))


# What requests say


@target(b"channel=a&token=x&session=s&last_event_id=e-1", b"room_id=r&peer_id=p&user_id=%00", b"channel=%24user:bob")
def query(data: bytes) -> None:
    """The query of an endpoint: what is read from it cannot be what is the server's own."""
    admission = read_query(data, EndpointConfig(), signals=True)
    if not isinstance(admission, Refusal):
        assert all(1 <= len(name) <= 255 and name.isprintable() and name[0] != "$" for name in admission.channels)


@target(
    b"authorization: Bearer x\ncookie: a=b; t=c\nx-api-key: k\n?token=x&api_key=", b"authorization: basic x\n?token="
)
def credentials(data: bytes) -> None:
    """The headers and the query that credentials come in."""
    head, _, asked = data.partition(b"\n?")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in head.split(b"\n"))]
    found = credentials_in(headers, asked, api_key_header="X-API-Key", cookie="t")
    assert isinstance(found, Refusal) or not (found.token and found.api_key)
    for secret in () if isinstance(found, Refusal) else (found.token, found.api_key):
        assert secret is None or len(secret) < 4 or secret not in repr(found)


@target(
    b'{"type":"command","command":"authenticate","data":{"token":"x"},"id":"1"}',
    b'{"type":"command","command":"refresh_token","data":{}}',
)
def introduction(data: bytes) -> None:
    """The first message of somebody who has said nothing yet."""
    read_introduction(as_text(data))


@target(
    b"https://example.com\nexample.com",
    b"http://localhost:3000\n[::1]:8000",
    b"null\nexample.com",
    b"https://a.example.com.\nexample.com",
)
def origin(data: bytes) -> None:
    """An origin: what is allowed by the list is allowed by its very host."""
    theirs, _, host = as_text(data).partition("\n")
    pattern = OriginPattern.read("https://*.example.com")
    if allows_origin(theirs, host=host, scheme="https", allowed=[pattern]) and not allows_origin(
        theirs, host=host, scheme="https", allowed=[OriginPattern.read("https://other.example")]
    ):
        assert theirs.lower().startswith("https://"), theirs
        assert theirs.lower().split("//")[1].split(":")[0].removesuffix(".").endswith(".example.com"), theirs


@target(
    b'for=192.0.2.1, for="[2001:db8::1]:80"\n203.0.113.9, 10.0.0.1',
    b"for=unknown\n",
    b"for=_hidden;by=x\n::ffff:1.2.3.4",
)
def forwarded(data: bytes) -> None:
    """The headers of proxies."""
    first, _, second = data.partition(b"\n")
    headers = [(b"forwarded", first)] if first else []
    headers += [(b"x-forwarded-for", second)] if second else []
    found = client_address("10.0.0.1", headers, (ip_network("10.0.0.0/8"),))
    assert address_key(found.address) is not None


_AUTHENTICATOR: Final = WSAuthenticator(
    Settings(ws=WsSettings(jwt_secret_key="a secret of thirty-two characters".replace(" ", "-"))), clock=lambda: 1.7e9
)
_CLAIMS: Final = {"sub": "ann", "channels": ["a:*"], "jti": "1"}
_GENUINE: Final = _AUTHENTICATOR.create_access_token(_CLAIMS, 60)


@target(
    _GENUINE.encode(),
    b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
    b"eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiYjY0Il0sImI2NCI6ZmFsc2V9.e30.",
)
def token(data: bytes) -> None:
    """A token: nothing is genuine that does not say what the genuine one says."""
    try:
        found = _AUTHENTICATOR.verify_jwt_token(data.decode("latin-1"))
    except AuthenticationError:
        return
    assert found == _CLAIMS | {"iat": 1.7e9, "exp": 1.7e9 + 60}


@target(b'{"sub":"ann","channels":["a:*"],"exp":1,"roles":["admin"],"info":{}}', b'{"sub":1,"rooms":"r"}')
def claims(data: bytes) -> None:
    """The claims of a token that is genuine."""
    value = decode_value(data)
    if isinstance(value, dict):
        identity = identity_of(value, roles={})
        if not isinstance(identity, Refusal) and "roles" not in value:
            assert not identity.grant.admin
            assert not identity.grant.server


@target(b"publish:news:*\nsubscribe\nadmin", b"*", b"signal:\nupload:*")
def scopes(data: bytes) -> None:
    """The scopes of an API key."""
    lines = as_text(data).split("\n")
    grant = grant_of_scopes(lines)
    if not isinstance(grant, Refusal) and "*" not in lines and "admin" not in lines:
        assert not grant.admin


@target(b"chat:*\nchat:1", b"*a*b*\nab", b"$*\n$user:1")
def pattern(data: bytes) -> None:
    """A pattern and a name: none but one with a dollar means what is the server's own."""
    text, _, name = as_text(data).partition("\n")
    found = matches(name, text.split("*"))
    assert not (found and name.startswith("$") and not text.startswith("$"))
    assert matches(name, name.split("*")) or "*" in name


@target(b'{"error":{"code":"c","message":"m"}}', b"{}")
def http_error(data: bytes) -> None:
    """An error of somebody's HTTP server."""
    refusal_in(400, {"retry-after": as_text(data[:12])}, data)
