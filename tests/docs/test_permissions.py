"""The document of permissions is right: its tables are what is decided, and its examples can be read."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from rtcore import Access, Action, Grant, Identity, Namespace, Refusal
from rtcore.permissions import EVERYTHING, decide, grant_of_scopes, identity_of
from rtcore_adapters.settings import Settings, load_settings
from rtcore_adapters.settings.configs import node_config, roles

from .snippets import ROOT, snippets

DOCUMENT = "docs/permissions.md"
OF_CHANNELS = ("subscribe", "publish", "history", "presence", "upload")


def tables() -> dict[str, list[list[str]]]:
    """Return the tables of the document: their rows by what stands in the first row, cells in order."""
    found: dict[str, list[list[str]]] = {}
    for block in re.findall(r"(?:^\|.*\|\n)+", (ROOT / DOCUMENT).read_text(), re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        found[" | ".join(head)] = rows
    return found


def table(start: str) -> list[list[str]]:
    [rows] = [rows for head, rows in tables().items() if head.startswith(start)]
    return rows


def bare(cell: str) -> str:
    return cell.replace("`", "")


def settings(folder: Path) -> Settings:
    """Return the settings of a server with all that the document shows in TOML."""
    code = "\n".join(each.code for each in snippets(DOCUMENT) if each.language == "toml")
    path = folder / "rtcore.toml"
    path.write_text(code)
    return load_settings(config=path, env={}, cwd=folder)


def identity(came_with: str, tmp_path: Path) -> Identity:
    """Return who somebody is, by a cell of a table."""
    if came_with == "nothing":
        return Identity(None, Grant())
    said = json.loads(bare(came_with))
    if isinstance(said, list):
        grant = grant_of_scopes(said)
        assert isinstance(grant, Grant)
        return Identity(None, grant)
    found = identity_of(said, roles=roles(settings(tmp_path)))
    assert isinstance(found, Identity)
    return found


def asking(setting: str) -> Namespace:
    """Return a namespace by a line of TOML, possibly none."""
    said = tomllib.loads(bare(setting))
    return Namespace(pattern="*", **{key: Access(value) for key, value in said.items()})


def test_no_table_is_left_out() -> None:
    assert [head.partition(" |")[0] for head in tables()] == [
        "Action",
        "Asked for",
        "Channel",
        "Came with",
        "Claim",
        "",
    ]
    assert [(each.heading, each.language) for each in snippets(DOCUMENT)] == [
        ("Tokens", "json"),
        ("Roles", "toml"),
        ("API keys", "toml"),
        ("Namespaces", "toml"),
    ]


def test_the_actions() -> None:
    rows = table("Action")
    assert [row[0] for row in rows] == [action.value for action in Action]
    for name, _, claim, scope, key, code in rows:
        action = Action(name)
        words = [bare(cell).partition(" ")[0] for cell in (claim, scope, key, code)]
        claim, scope, key, code = words
        nothing = identity_of({} if claim == "admin" else {claim: []}, roles={})
        assert isinstance(nothing, Identity)
        refusal = decide(action, "a", user_id=None, grant=nothing.grant)
        assert refusal is not None
        assert (refusal.code, refusal.status) == (code, 403)
        granted = grant_of_scopes([scope])
        assert isinstance(granted, Grant)
        assert decide(action, "a", user_id=None, grant=granted) is None
        if key:
            namespace = Namespace(pattern="*", **{key: Access.SERVER})  # type: ignore[arg-type]
            assert decide(action, "a", user_id=None, grant=Grant(), namespace=namespace) is not None


#: What the heads of the columns mean, for one action.
CAME_WITH = {
    "nobody": ("nothing", ""),
    "a user": ("token", ""),
    "a token that names the channel": ("token", "a"),
    "a token that names others": ("token", "b"),
    "a key that names the channel": ("key", "a"),
    "a key that names others": ("key", "b"),
    "a token that names `*`": ("token", "*"),
    "a token that names `$*`": ("token", "$*"),
    "a key that names `$*`": ("key", "$*"),
}


def bearer(head: str, action: str) -> Identity:
    credential, pattern = CAME_WITH[head]
    if credential == "nothing":
        return Identity(None, Grant())
    if credential == "key":
        grant = grant_of_scopes([f"{action}:{pattern}"])
        assert isinstance(grant, Grant)
        return Identity(None, grant)
    claim = "channels" if action == "subscribe" else action
    found = identity_of({"sub": "ann", **({claim: [pattern]} if pattern else {})}, roles={})
    assert isinstance(found, Identity)
    return found


@pytest.mark.parametrize("action", OF_CHANNELS)
def test_the_decision(action: str) -> None:
    [head] = [head for head in tables() if head.startswith("Asked for")]
    heads = head.split(" | ")[1:]
    rows = table("Asked for")
    assert [bare(row[0]) for row in rows] == [access.value for access in Access]
    key = {"history": "history_access", "presence": "presence_access"}.get(action, action)
    for asked, *cells in rows:
        if (action, bare(asked)) == ("subscribe", "members"):
            continue
        namespace = Namespace(pattern="*", **{key: Access(bare(asked))})  # type: ignore[arg-type]
        for head, cell in zip(heads, cells, strict=True):
            who = bearer(head, action)
            decided = [
                decide(Action(action), "a", user_id=who.user_id, grant=who.grant, namespace=namespace, member=member)
                is None
                for member in (False, True)
            ]
            assert decided == {"yes": [True, True], "no": [False, False], "joined": [False, True]}[cell], (asked, head)


def test_the_decision_in_the_servers_own_channels() -> None:
    [head] = [head for head in tables() if head.startswith("Channel")]
    heads = head.split(" | ")[2:]
    named = {
        "`$user:ID`": ["$user:ann", "$user:bob"],
        "`$user:ID` of their own": ["$user:ann"],
        "`$user:ID` of others": ["$user:bob"],
        "`$broadcast`, `$connection:ID`": ["$broadcast", "$connection:1"],
    }
    checked = set()
    for channels, actions, *cells in table("Channel"):
        for name in named[channels]:
            for action in OF_CHANNELS if actions == "all five" else actions.split(", "):
                checked.add((name, action))
                for head, cell in zip(heads, cells, strict=True):
                    who = bearer(head, action)
                    refusal = decide(Action(action), name, user_id=who.user_id, grant=who.grant, member=True)
                    assert (refusal is None) is {"yes": True, "no": False}[cell], (name, action, head)
    names = ("$user:ann", "$user:bob", "$broadcast", "$connection:1")
    assert checked == {(name, action) for name in names for action in OF_CHANNELS}


@pytest.mark.parametrize("row", table("Came with"), ids=" ".join)
def test_a_case(row: list[str], tmp_path: Path) -> None:
    came_with, setting, action, name, expected = row
    who = identity(came_with, tmp_path)
    refusal = decide(Action(action), bare(name), user_id=who.user_id, grant=who.grant, namespace=asking(setting))
    assert (refusal.code if refusal else "allowed") == bare(expected)


def test_the_token(tmp_path: Path) -> None:
    [code] = [each.code for each in snippets(DOCUMENT) if each.language == "json"]
    ann = identity(code, tmp_path)
    assert ann.user_id == "ann"
    assert ann.grant.info == {"name": "Ann"}
    assert ann.grant.expires_at is not None
    may = {
        (action.value, name)
        for action in Action
        for name in ("chat:1", "news", "staff", "$broadcast", "room", "other")
        if decide(action, name, user_id=ann.user_id, grant=ann.grant) is None
    }
    assert may == {
        *(("subscribe", name) for name in ("chat:1", "news", "staff")),
        *(("history", name) for name in ("chat:1", "news", "staff")),
        *(("presence", name) for name in ("chat:1", "news", "staff")),
        *(("publish", name) for name in ("chat:1", "staff", "$broadcast")),
        *(("upload", name) for name in ("chat:1", "staff", "$broadcast")),
        *(("signal", name) for name in ("chat:1", "news", "staff", "$broadcast", "room", "other")),
    }


def test_the_claims() -> None:
    names = [name for row in table("Claim") for name in bare(row[0]).split(", ")]
    assert names == [
        *("sub", "channels", "publish", "history", "presence", "upload", "rooms"),
        *("roles", "info", "jti", "iat", "exp"),
    ]
    for name in names:
        assert identity_of({name: None}, roles={}) == identity_of({name: True}, roles={})
        refusal = identity_of({name: None}, roles={})
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.status) == ("invalid_token", 401)


def test_the_settings(tmp_path: Path) -> None:
    loaded = settings(tmp_path)
    found = roles(loaded)
    assert list(found) == ["moderator", "support"]
    assert found["moderator"].publish == ("chat:*", "staff", "$broadcast")
    assert found["moderator"].history is None
    assert (found["support"].admin, found["support"].rooms) == (True, ("ticket:*",))
    [key] = loaded.ws.api_keys
    assert key.name == "newsroom"
    assert isinstance(grant_of_scopes(key.scopes), Grant)
    namespaces = node_config(loaded).router.namespaces
    team, news = namespaces.get("team:red"), namespaces.get("news")
    assert (team.subscribe, team.presence_access, team.publish) == (Access.GRANTED, Access.MEMBERS, Access.ANYBODY)
    assert (news.publish, news.history_access, news.subscribe) == (Access.SERVER, Access.USERS, Access.ANYBODY)


def test_the_settings_in_the_environment(tmp_path: Path) -> None:
    env = dict(re.findall(r"`(WS_\w+)='(.*?)'`", (ROOT / DOCUMENT).read_text()))
    assert sorted(env) == ["WS_API_KEYS", "WS_ROLES"]
    loaded = load_settings(env=env, cwd=tmp_path)
    assert [role.channels for role in loaded.ws.roles] == [("chat:*",)]
    assert [key.scopes for key in loaded.ws.api_keys] == [("publish:news:*",)]
    # A key that is just its text has no scopes.
    [key] = load_settings(env={"WS_API_KEYS": "9b2ed3f1c84a4c1d"}, cwd=tmp_path).ws.api_keys
    assert grant_of_scopes(key.scopes) == EVERYTHING
