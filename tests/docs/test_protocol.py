"""The document of the protocol is right: what it shows runs, and it leaves out no setting and no code of a refusal."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from uuid import uuid4

import attrs
import httpx2
import pytest
from websockets.sync.client import ClientConnection, connect

from rtcore import Action
from rtcore.commands import _COMMANDS
from rtcore.messages import RESERVED_TYPES
from rtcore_adapters import RealtimeApp, WSAuthenticator, load_settings
from rtcore_adapters.settings import NamespaceSettings, Settings
from rtcore_adapters.settings.configs import node_config

from .snippets import ROOT, snippets

DOCUMENT = "docs/protocol.md"
SECRET = "a-secret-of-the-documents-that-is-long-enough"


def text() -> str:
    return (ROOT / DOCUMENT).read_text()


def code(heading: str) -> str:
    [found] = [each.code for each in snippets(DOCUMENT) if each.heading == heading]
    return found


def test_no_snippet_is_left_out() -> None:
    assert [(each.heading, each.language) for each in snippets(DOCUMENT)] == [
        ("Another authenticator", "python"),
        ("Hooks", "python"),
        ("Namespaces", "toml"),
    ]


# What it shows


def ask(websocket: ClientConnection, **message: object) -> str:
    """Return the code of the error that a message is answered with, or ``ok``."""
    # The same id a second time would be a repetition.
    id = uuid4().hex
    websocket.send(json.dumps({"id": id, **message}))
    while True:
        heard = json.loads(websocket.recv(10))
        if heard.get("id") == id and heard["type"] in ("response", "error"):
            answer: str = heard.get("code", "ok")
            return answer


def test_another_authenticator(serve_application: Callable[[str], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBSOCKET_AUTH_REQUIRED", "true")
    port = serve_application(code("Another authenticator"))
    for query, told in (("?token=a-ticket", "ann"), ("?token=none", None), ("?api_key=a-ticket", None)):
        with connect(f"ws://127.0.0.1:{port}/realtime/ws{query}", proxy=None) as websocket:
            assert json.loads(websocket.recv(10)).get("user_id") == told
            if told is not None:
                renewal = {"command": "refresh_token", "data": {"token": "a-ticket"}}
                assert ask(websocket, type="command", **renewal) == "ok"
    url = f"http://127.0.0.1:{port}/realtime/channels"
    answers = [httpx2.get(url, headers={"Authorization": f"Bearer {each}"}) for each in ("a-ticket", "none")]
    assert [answer.status_code for answer in answers] == [200, 401]


def test_hooks(serve_application: Callable[[str], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WS_JWT_SECRET_KEY", SECRET)
    authenticator = WSAuthenticator(load_settings(env={"WS_JWT_SECRET_KEY": SECRET}, cwd=tmp_path))
    port = serve_application(code("Hooks"))

    def as_user(name: str) -> ClientConnection:
        token = authenticator.create_access_token({"sub": name})
        return connect(f"ws://127.0.0.1:{port}/realtime/ws?token={token}", proxy=None)

    with as_user("mallory") as websocket:
        farewell = json.loads(websocket.recv(10))
        assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 4403, False)
    for user, expected in (("ann", "ok"), ("bob", "subscribe_denied")):
        with as_user(user) as websocket:
            assert ask(websocket, type="command", command="join_channel", data={"channel": "vip:1"}) == expected
            assert ask(websocket, type="text", channel="chat", text="Hello") == "ok"
            assert ask(websocket, type="text", channel="chat", text="spam") == "no_spam"
    answer = httpx2.post(f"http://127.0.0.1:{port}/realtime/send", json={"channel": "chat", "text": "spam"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "no_spam")


def test_namespaces(tmp_path: Path) -> None:
    path = tmp_path / "rtcore.toml"
    path.write_text(code("Namespaces"))
    namespaces = node_config(load_settings(config=path, env={}, cwd=tmp_path)).router.namespaces
    assert namespaces.get("chat:1").history_size == 500
    price = namespaces.get("price:x")
    assert (price.last_value, price.slow_consumer.value, price.conflation_key) == (True, "latest", "symbol")
    assert (price.publish.value, price.subscribe.value) == ("server", "anybody")


# What must be in it


def rows(head: str) -> list[list[str]]:
    """Return the cells of the tables that begin with `head`."""
    found = re.findall(rf"^\| {re.escape(head)}.*\n\|[- |]+\n((?:\|.*\|\n)+)", text(), re.MULTILINE)
    assert found, head
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for block in found for line in block.splitlines()]


#: Defaults that are said in words.
IN_WORDS = {
    "REALTIME_RATE_LIMIT_BURST": "two seconds' worth",
    "REALTIME_MAX_BODY_SIZE": "as `WEBSOCKET_MAX_MESSAGE_SIZE`",
}


def shown(name: str, default: object) -> str:
    """Return how the document says a default."""
    if name in IN_WORDS:
        assert default is None
        return IN_WORDS[name]
    match default:
        case None | ():
            return "none"
        case bool():
            return str(default).lower()
        case Enum():
            return f"`{default.value}`"
        case str():
            return f"`{default}`"
        case (str(only),):
            return f"`{only}`"
        case int() | float():
            return f"{default:.0f}" if default == int(default) else f"{default:g}"
    raise AssertionError(f"{name}: {default!r}")


def test_every_setting_is_there_with_its_default() -> None:
    documented = {name: cells[1] for cells in rows("Name | Default") for name in re.findall(r"`(\w+)`", cells[0])}
    expected = {
        f"{section.name.upper()}_{field.name.upper()}": field.default
        for section in attrs.fields(Settings)
        for field in attrs.fields(type(getattr(Settings(), section.name)))
    }
    assert documented == {name: shown(name, default) for name, default in expected.items()}


def test_every_key_of_a_namespace_is_there() -> None:
    named = [name for cells in rows("Key | Default") for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(named) == sorted(attrs.fields_dict(NamespaceSettings))


def test_every_endpoint_is_there() -> None:
    documented = {
        (method, re.sub(r"\{(channel|room_id|peer_id)\}", r"{\1:path}", path))
        for methods, paths, *_ in rows("Method | Path")
        for method in methods.split(", ")
        for path in re.findall(r"`(/[^`]*)`", paths)
    }
    app = RealtimeApp(Settings())
    served = {(method, route.path) for route in app.routes for method in route.methods or () if method != "HEAD"}
    served |= {("WebSocket", path) for path in app.websocket_paths}
    # What the pages load, and what is told whoever asks for a WebSocket without a handshake.
    served -= {("GET", "/assets/{name}"), *(("GET", path) for path in app.websocket_paths)}
    assert documented == served


def test_every_command_and_reserved_type_is_there() -> None:
    commands = [name for cells in rows("Command | Data") for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(commands) == sorted([*_COMMANDS, "authenticate"])
    [reserved] = re.findall(r"^Reserved types[^:]*:((?:\s`\w+`[,.])+)", text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", reserved)) == RESERVED_TYPES


#: What is refused, and how: the functions that make refusals of a code.
REFUSING = ("Refusal", "refused", "_unread", "AuthenticationError")

#: What stands in codes that are put together.
PARTS = {
    "action.value": [action.value for action in Action if action is not Action.ADMINISTER],
    # Whatever is checked in a loop.
    "name": ["after", "before", "since", "presence_since", "echo", "persistent"],
    "field": ["peer_id", "instance", "name"],
}

#: Those of making a token, and of scopes in the settings, which are for whoever runs the server.
NOT_SAID = {"no_signing_key", "invalid_claims", "invalid_scope"}


def codes(file: Path) -> Iterator[str]:
    """Return the codes of the refusals that a module makes."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if function not in REFUSING:
            continue
        match node.args[0]:
            case ast.Constant(value=str(code)):
                yield code
            case ast.JoinedStr(values=parts):
                [part] = [ast.unparse(part.value) for part in parts if isinstance(part, ast.FormattedValue)]
                before, after = (ast.unparse(node.args[0])[2:-1]).split(f"{{{part}}}")
                yield from (f"{before}{each}{after}" for each in PARTS[part])


def test_every_code_of_a_refusal_is_there() -> None:
    files = [
        file
        for folder in ("rtcore", "transports/rtcore_transports", "adapters/rtcore_adapters")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not {"simulation", "client", "client_request.py"} & set(file.parts)
    ]
    said = {code for file in files for code in codes(file)} - NOT_SAID
    assert {"token_expired", "upload_denied", "invalid_after", "unsupported_media_type", "keys_unavailable"} <= said
    assert said - set(re.findall(r"`([a-z_]+)`", text())) == set()
