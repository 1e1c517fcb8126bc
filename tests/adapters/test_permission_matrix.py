"""Whoever comes with whatever gets from each endpoint, command and message what the matrix says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest
from websockets.exceptions import ConnectionClosed

from rtcore.binary import encode_payload
from rtcore.commands import _COMMANDS
from rtcore_adapters import RealtimeApp, Settings
from rtcore_adapters.guard import RULES

from .clients import Client, Stream
from .hosting import NATIVE, HostKind
from .matrix_stage import SERIAL, Stage, claims_of, make_token, staged
from .permission_matrix import FAULTS, ROWS, Column, Row, expected

KINDS: Final = (*NATIVE, HostKind("hypercorn", "asyncio"), HostKind("hypercorn", "trio"))

SIGNAL: Final = {"type": "webrtc_signal", "signal_type": "bye", "target_peer_id": "bob", "room_id": "room"}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Stage]]:
    """Return a server that requires credentials, and one that does not."""
    folder = tmp_path_factory.mktemp("keys")
    with staged(request.param, folder, required=True) as strict, staged(request.param, folder, required=False) as lax:
        yield strict, lax


# Over HTTP

#: What is sent to a path: the values of its parameters, and the body.
Asked = tuple[dict[str, str], object]


@contextmanager
def _prepared(stage: Stage, row: Row) -> Iterator[Asked]:
    """Have there be what a request is about."""
    made = f"made:{next(SERIAL)}"
    with ExitStack() as stack:
        match row.kind, row.name, row.variant:
            case "POST", "/send", variant:
                target = {
                    "to a channel": {"channel": "news"},
                    "to a user": {"user_id": "bob"},
                    "to a connection": {"connection_id": stage.connection_id},
                }[variant]
                yield {}, {**target, "data": 1}
            case "POST", "/broadcast", _:
                yield {}, {"data": 1}
            case "POST", "/notifications/send", _:
                yield {}, {"user_id": "bob", "title": "T", "content": "C"}
            case "POST", "/notifications/channel", _:
                yield {}, {"channel": "news", "title": "T", "content": "C"}
            case "POST", "/notifications/broadcast", _:
                yield {}, {"title": "T", "content": "C"}
            case "POST", "/tokens/revoke", _:
                yield {}, {"token_id": made}
            case "DELETE", "/connections/{connection_id}", _:
                victim = stack.enter_context(stage.connection("victim"))
                yield {"connection_id": victim.connection_id}, None
            case "POST", "/binary/upload" | "/binary/send" | "/binary/text", _:
                yield {}, {"channel": "news"}
            case "POST", "/webrtc/rooms", _:
                yield {}, {"room_id": made}
            case "PUT", _, _:
                yield {"room_id": "room"}, {"name": "Room"}
            case "DELETE", "/webrtc/rooms/{room_id:path}", _:
                stage.post("/webrtc/rooms", {"room_id": made})
                yield {"room_id": made}, None
            case "DELETE", _, _:
                query = f"room_id={made}&peer_id=victim"
                stack.enter_context(stage.connection("victim", query, "/webrtc/signaling"))
                yield {"room_id": made, "peer_id": "victim"}, None
            case "POST", "/webrtc/signal", variant:
                sender, target_id = ("ann", "bob") if variant == "as a peer of one's own" else ("bob", "ann")
                yield {}, {**SIGNAL, "peer_id": sender, "target_peer_id": target_id}
            case _:
                values = {"channel": "news", "room_id": "room", "name": "rtcore.js", "file_id": stage.file_id}
                yield values, None


def _path(row: Row, values: Mapping[str, str]) -> str:
    return row.name.replace(":path", "").format_map(values)


def _content(row: Row, body: Any) -> dict[str, Any]:
    """Return what is sent, as the client takes it."""
    match row.name:
        case "/binary/upload":
            return {"data": body, "files": {"file": ("a.bin", b"1", "application/x-cat")}}
        case "/binary/send":
            return {"params": body, "content": b"1"}
        case "/binary/text":
            return {"json": {**body, "text": "1"}}
        case _:
            return {"json": body}


def _ask_over_http(stage: Stage, row: Row, column: Column) -> str:
    """Return what is answered, and see to it that who is refused has changed nothing."""
    with _prepared(stage, row) as (values, body):
        before = stage.look()
        path, headers = _path(row, values), stage.headers(row, column)
        if row.name == "/events":
            opened = _open_event_stream(stage, headers)
            assert str(stage.host.http.head(path, headers=headers).status_code) == opened[:3]
            return opened
        response = stage.host.http.request(row.kind, path, headers=headers, **_content(row, body))
        if row.kind == "GET":
            head = stage.host.http.head(path, headers=headers)
            assert (head.status_code, head.content) == (response.status_code, b"")
        if response.status_code >= 400:
            assert stage.look() == before
            challenge = response.headers.get("www-authenticate")
            assert challenge == ("Bearer" if response.status_code == 401 else None)
            return f"{response.status_code} {response.json()['error']['code']}"
        shown = row.name not in ("/channels", "/webrtc/rooms") or row.kind == "POST" or _is_told_of(response.json())
        return f"{response.status_code}" if shown else f"{response.status_code}, nothing of it"


def _is_told_of(listing: Mapping[str, list[Mapping[str, str]]]) -> bool:
    [entries] = listing.values()
    names = {entry.get("channel", entry.get("room_id")) for entry in entries}
    assert not names or names & {"news", "room"}, "it is told of other things alone"
    return bool(names)


def _open_event_stream(stage: Stage, headers: dict[str, str]) -> str:
    with stage.host.http.stream("GET", "/events?channel=news", headers=headers) as response:
        if response.status_code != 200:
            return f"{response.status_code} {json.loads(response.read())['error']['code']}"
        opened = Stream(response)
        return "200" if opened.connected["channels"] == ["news"] else "200, not joined"


# Over WebSocket


def _said(row: Row) -> tuple[str, str, list[dict[str, Any]]]:
    """Return where a row is asked for, with which query, and by which messages; the last of them is answered."""

    def command(name: str, **data: object) -> dict[str, Any]:
        return {"type": "command", "command": name, "data": data, "id": name}

    made = f"made:{next(SERIAL)}"
    match row.kind, row.name:
        case "WS", "/ws":
            return row.name, "channel=news", [command("ping")]
        case "WS", path:
            return path, f"room_id={made}", [command("ping")]
        case "command", "join_channel" | "leave_channel" | "history" | "presence":
            return "/ws", "", [command(row.name, channel="news")]
        case "command", "create_room" | "join_room" | "leave_room":
            return "/ws", "", [command(row.name, room_id=made)]
        case "command", "refresh_token":
            return "/ws", "", [command(row.name, token=make_token(claims_of()))]
        case "command", "begin_upload":
            return "/ws", "", [command(row.name, upload_id=f"upload-{next(SERIAL)}", channel="news", size=1)]
        case "command", "cancel_upload":
            return "/ws", "", [command(row.name, upload_id="no-upload")]
        case "command", name:
            return "/ws", "", [command(name)]
        case _, "channel":
            return "/ws", "", [{"type": "note", "channel": "news", "id": made}]
        case _, "binary":
            return "/ws", "", [{"type": "binary", "channel": "news", "id": made}]
        case _, "recipient_id":
            return "/ws", "", [{"type": "note", "recipient_id": "bob", "id": made}]
        case _, "webrtc_signal":
            return "/ws", "", [command("join_room", room_id="room", peer_id=made), {**SIGNAL, "id": made}]
        case _, kind:
            assert kind == "text", "a message that the test does not know"
            return "/ws", "", [{"type": "text", "data": "hello", "id": made}]


def _say(client: Client, message: dict[str, Any]) -> None:
    client.say(encode_payload(message, b"1") if message["type"] == "binary" else message)


def _answers(heard: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    return heard["type"] in ("response", "error") and heard.get("id") == message["id"]


def _ask_over_websocket(stage: Stage, row: Row, column: Column) -> str:
    path, query, messages = _said(row)
    connected: dict[str, Any] = {}
    with stage.host.websocket(path, query, additional_headers=stage.headers(row, column)) as websocket:
        client = Client(websocket, welcome=False)
        # Whoever comes with nothing is heard first. To a host that turns somebody away nothing more is said: it would
        # answer with a reset, before which the client may not have read the rest.
        speaks_first = column is Column.NOTHING
        try:
            if speaks_first:
                _say(client, messages[0])
            while not _answers(heard := client.hear(), messages[-1]):
                if heard["type"] == "disconnect":
                    assert not connected
                    assert (heard["code"], heard["reconnect"]) == (4401, False)
                elif heard["type"] == "connected":
                    connected = heard
                    for message in messages[speaks_first:]:
                        _say(client, message)
        except ConnectionClosed as ended:
            return "lost" if ended.rcvd is None else f"{ended.rcvd.code} {ended.rcvd.reason}"
    if heard["type"] == "error":
        return str(heard["code"])
    if row.name == "get_rooms" and not heard["data"]["rooms"]:
        return "ok, nothing of it"
    if row.kind == "WS" and not (connected["channels"] if path == "/ws" else "room" in connected):
        return "ok, not joined"
    return "ok"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title.replace("`", ""))
def test_the_matrix(stages: tuple[Stage, Stage], row: Row) -> None:
    strict, lax = stages
    ask = _ask_over_http if row.over_http else _ask_over_websocket
    answers = {column: ask(lax if column is Column.ANONYMOUS else strict, row, column) for column in Column}
    assert answers == {column: expected(row, column) for column in Column}


# That nothing is missing


def test_every_endpoint_is_in_the_matrix() -> None:
    """A new one without a row is refused here, and one without a rule is not served at all."""
    app = RealtimeApp(Settings())
    served = {(method, route.path) for route in app.routes for method in route.methods or () if method != "HEAD"}
    served |= {("WS", path) for path in app.websocket_paths}
    assert served == {(row.kind, row.name) for row in ROWS if row.over_http or row.kind == "WS"}


def test_the_matrix_asks_for_what_the_rules_ask_for() -> None:
    for row in ROWS:
        # An event stream lets in for itself.
        if row.over_http and row.name != "/events":
            rule = RULES[row.kind, row.name]
            assert rule.action in (row.right, row.beside or row.right)
            assert rule.public == row.public


def test_every_command_is_in_the_matrix() -> None:
    assert set(_COMMANDS) == {row.name for row in ROWS if row.kind == "command"}


def test_every_fault_is_told_apart_from_what_is_right() -> None:
    assert set(Column) - set(FAULTS) == {
        Column.TOKEN_WITHOUT,
        Column.TOKEN_WITH,
        Column.KEY_WITHOUT,
        Column.KEY_WITH,
        Column.ANONYMOUS,
    }


# That nobody learns what is there


def _http_request(row: Row, *, there: bool, stage: Stage) -> tuple[str, object]:
    """Return the path and the body of a request for what is there, or for what is not."""
    values = {
        "channel": "news",
        "room_id": "room",
        "peer_id": "bob",
        "connection_id": stage.connection_id,
        "file_id": stage.file_id,
    }
    if not there:
        values = {name: "x" * len(value) for name, value in values.items()}
    body: dict[str, object] | None = None
    match row.name, row.variant:
        case "/send", variant:
            name = {"to a channel": "channel", "to a connection": "connection_id"}.get(variant, "user_id")
            body = {name: values.get(name, "bob" if there else "xxx"), "data": 1}
        case "/binary/upload" | "/binary/send" | "/binary/text", _:
            body = {"channel": values["channel"]}
        case "/notifications/channel", _:
            body = {"channel": values["channel"], "title": "T", "content": "C"}
        case "/webrtc/rooms", _:
            body = {"room_id": values["room_id"]} if row.kind == "POST" else None
        case "/webrtc/signal", _:
            body = {**SIGNAL, "room_id": values["room_id"], "peer_id": values["peer_id"]}
        case _ if row.kind == "PUT":
            body = {"name": "Room"}
    return _path(row, values), body


NAMING: Final = [
    row
    for row in ROWS
    if row.over_http and ("{" in row.name or row.variant or row.name in ("/notifications/channel", "/webrtc/rooms"))
    if not row.public
]


@pytest.mark.parametrize("row", NAMING, ids=lambda row: row.title.replace("`", ""))
def test_over_http_nobody_learns_what_is_there(stages: tuple[Stage, Stage], row: Row) -> None:
    strict, lax = stages
    nothing: dict[str, str] = {}
    without = {"Authorization": f"Bearer {make_token(claims_of())}"}
    seen_by_anybody = expected(row, Column.ANONYMOUS)[0] == "2"
    for stage, who in ((strict, (nothing, without)), (lax, (without,) if seen_by_anybody else (nothing, without))):
        for headers in who:
            answers = []
            for there in (True, False):
                path, body = _http_request(row, there=there, stage=stage)
                response = stage.host.http.request(row.kind, path, headers=headers, **_content(row, body))
                fields = sorted((name, value) for name, value in response.headers.items() if name != "date")
                answers.append((response.status_code, fields, response.content))
            assert answers[0] == answers[1]


COMMANDS: Final[list[dict[str, Any]]] = [
    {"command": "join_channel", "data": {"channel": "{channel}"}},
    {"command": "join_channel", "data": {"channel": "{channel}", "since": {"epoch": "e", "offset": 0}}},
    {"command": "history", "data": {"channel": "{channel}"}},
    {"command": "presence", "data": {"channel": "{channel}"}},
    {"command": "leave_channel", "data": {"channel": "{channel}"}},
    {"command": "create_room", "data": {"room_id": "{room}"}},
    {"command": "join_room", "data": {"room_id": "{room}", "peer_id": "bob"}},
    {"command": "leave_room", "data": {"room_id": "{room}"}},
    {"command": "begin_upload", "data": {"upload_id": "upload", "channel": "{channel}", "size": 1}},
    {"type": "note", "channel": "{channel}"},
    {"type": "note", "recipient_id": "{user}"},
    {**SIGNAL, "room_id": "{room}"},
]


@pytest.mark.parametrize("message", COMMANDS, ids=lambda message: message.get("command", message.get("type")))
def test_over_websocket_nobody_learns_what_is_there(stages: tuple[Stage, Stage], message: dict[str, Any]) -> None:
    strict, _ = stages
    answers = []
    for names in (("news", "room", "bob"), ("neither", "nor", "nobody")):
        text = json.dumps({"type": "command", **message, "id": "1"})
        for placeholder, name in zip(("{channel}", "{room}", "{user}"), names, strict=True):
            text = text.replace(placeholder, name)
        headers = {"Authorization": f"Bearer {make_token(claims_of())}"}
        with strict.host.client(additional_headers=headers) as client:
            client.say(text)
            answer = client.hear()
        told = json.dumps(answer)
        for name in names:
            told = told.replace(f'"{name}"', '"its name"')
        answers.append(told)
    assert answers[0] == answers[1]
