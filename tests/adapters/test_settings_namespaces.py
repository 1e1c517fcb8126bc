"""Namespaces and rate limits from settings: how they are written, and what the node makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.namespaces import Access, Namespace, Namespaces, SlowConsumer
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore_adapters.settings import (
    NamespaceSettings,
    RealtimeSettings,
    Settings,
    SettingsError,
    load_settings,
    node_config,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that no file of the developer's has a say."""
    monkeypatch.chdir(tmp_path)


def load(
    value: object = None, *, toml: str = "", env: Mapping[str, str] | None = None
) -> tuple[NamespaceSettings, ...]:
    if toml:
        Path("rtcore.toml").write_text(toml)
    variables = {} if value is None else {"REALTIME_NAMESPACES": value if isinstance(value, str) else json.dumps(value)}
    return load_settings(env={**variables, **(env or {})}).realtime.namespaces


def fault(value: object = None, *, toml: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        load(value, toml=toml)
    line = str(caught.value)
    assert line.isprintable()
    return line


def node_namespaces(*namespaces: NamespaceSettings, **realtime: object) -> Namespaces:
    settings = Settings(RealtimeSettings(namespaces=namespaces, **realtime))  # type: ignore[arg-type]
    return node_config(settings).router.namespaces


def test_none_unless_said() -> None:
    assert load() == load("") == load("[]") == load(toml="[realtime]") == ()


def test_every_key() -> None:
    table = {
        "pattern": "chat:*",
        "history_size": 0,
        "history_ttl": 1.5,
        "last_value": True,
        "persistent_size": 2,
        "presence": False,
        "join_leave": False,
        "presence_grace": 3.5,
        "slow_consumer": "latest",
        "conflation_key": "symbol",
        "subscribe": "users",
        "publish": "members",
        "upload": "granted",
        "history_access": "anybody",
        "presence_access": "server",
        "max_message_size": 4,
    }
    assert list(table) == [field.name for field in attrs.fields(NamespaceSettings)]
    assert list(table) == [field.name for field in attrs.fields(Namespace)]
    wanted = (
        NamespaceSettings(
            pattern="chat:*",
            history_size=0,
            history_ttl=1.5,
            last_value=True,
            persistent_size=2,
            presence=False,
            join_leave=False,
            presence_grace=3.5,
            slow_consumer=SlowConsumer.LATEST,
            conflation_key="symbol",
            subscribe=Access.USERS,
            publish=Access.MEMBERS,
            upload=Access.GRANTED,
            history_access=Access.ANYBODY,
            presence_access=Access.SERVER,
            max_message_size=4,
        ),
    )
    assert load([table]) == wanted
    toml = "[[namespace]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    assert load(toml=toml) == wanted


def test_they_keep_their_order() -> None:
    toml = '[[namespace]]\npattern = "b"\n[[namespace]]\npattern = "a"\n[realtime]\nmax_channels = 1'
    assert load(toml=toml) == (NamespaceSettings(pattern="b"), NamespaceSettings(pattern="a"))
    assert load([{"pattern": "2"}, {"pattern": "1"}]) == (
        NamespaceSettings(pattern="2"),
        NamespaceSettings(pattern="1"),
    )


def test_the_variable_replaces_the_file_unread() -> None:
    toml = '[[namespace]]\npattern = ""\nno = 1'
    assert load([{"pattern": "a"}], toml=toml) == (NamespaceSettings(pattern="a"),)
    assert load("", toml=toml) == ()


def test_dotenv() -> None:
    Path(".env").write_text("""REALTIME_NAMESPACES='[{"pattern": "a", "presence": false}]'""")
    assert load() == (NamespaceSettings(pattern="a", presence=False),)
    Path(".env").write_text("REALTIME_NAMESPACES=5")
    assert fault().startswith(".env: REALTIME_NAMESPACES is '5'; allowed: a JSON list")


EXAMPLE = '{"pattern": "chat:*", "history_size": 500}'
KEYS = (
    "pattern, history_size, history_ttl, last_value, persistent_size, presence, join_leave, presence_grace, "
    "slow_consumer, conflation_key, subscribe, publish, upload, history_access, presence_access, max_message_size"
)


@pytest.mark.parametrize("value", ["x", "{}", "5", "null", '[{"pattern": "a"}', "[" * 200 + "]" * 200])
def test_a_variable_that_is_no_list(value: str) -> None:
    shown = repr(value) if len(value) < 80 else repr(value)[:79] + "…"
    assert fault(value) == f"REALTIME_NAMESPACES is {shown}; allowed: a JSON list of objects such as [{EXAMPLE}]"


def test_tables_that_are_none() -> None:
    allowed = "allowed: tables, [[namespace]]"
    assert fault(toml='[namespace]\npattern = "a"') == f"rtcore.toml: namespace is {{'pattern': 'a'}}; {allowed}"
    assert fault(toml='namespace = "[]"') == f"rtcore.toml: namespace is '[]'; {allowed}"
    assert fault(toml="namespace = [1]") == "rtcore.toml: [[namespace]] 1 is 1; allowed: a table, [[namespace]]"
    assert fault("[1]") == f"REALTIME_NAMESPACES 1 is 1; allowed: an object such as {EXAMPLE}"


INHERITED = "or nothing for what holds for all channels"
ACCESS = f"anybody, users, members, granted or server, {INHERITED}"
PATTERN = "1 to 255 printable characters, where * stands for any, such as chat:*"
SWITCH = f"true or false (also 1 or 0, yes or no, on or off), {INHERITED}"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"pattern": "a", "history": 1}, f"'history' is not known; allowed: {KEYS}"),
        ({"history_size": 1}, f"pattern is missing; allowed: {PATTERN}"),
        ({"pattern": ""}, f"pattern is ''; allowed: {PATTERN}"),
        ({"pattern": "a\n"}, f"pattern is 'a\\n'; allowed: {PATTERN}"),
        ({"pattern": 5}, f"pattern is 5; allowed: {PATTERN}"),
        ({"pattern": "b"}, "pattern is 'b', as in another; allowed: each pattern once"),
        ({"history_size": -1}, f"history_size is -1; allowed: a whole number from 0 to 2147483647, {INHERITED}"),
        ({"history_size": 1.5}, f"history_size is 1.5; allowed: a whole number from 0 to 2147483647, {INHERITED}"),
        ({"history_ttl": -1}, f"history_ttl is -1; allowed: a number from 0 to 31622400 (seconds), {INHERITED}"),
        ({"last_value": "maybe"}, f"last_value is 'maybe'; allowed: {SWITCH}"),
        (
            {"persistent_size": True},
            f"persistent_size is True; allowed: a whole number from 0 to 2147483647, {INHERITED}",
        ),
        ({"presence": 2}, f"presence is 2; allowed: {SWITCH}"),
        ({"join_leave": []}, f"join_leave is []; allowed: {SWITCH}"),
        (
            {"presence_grace": 86401},
            f"presence_grace is 86401; allowed: a number from 0 to 86400 (seconds), {INHERITED}",
        ),
        (
            {"slow_consumer": "drop"},
            f"slow_consumer is 'drop'; allowed: disconnect, drop_oldest or latest, {INHERITED}",
        ),
        ({"slow_consumer": []}, f"slow_consumer is []; allowed: disconnect, drop_oldest or latest, {INHERITED}"),
        ({"conflation_key": 1}, f"conflation_key is 1; allowed: a text, {INHERITED}"),
        ({"subscribe": "members"}, f"subscribe is 'members'; allowed: anybody, users, granted or server, {INHERITED}"),
        ({"publish": "me"}, f"publish is 'me'; allowed: {ACCESS}"),
        ({"upload": "me"}, f"upload is 'me'; allowed: {ACCESS}"),
        ({"history_access": "me"}, f"history_access is 'me'; allowed: {ACCESS}"),
        ({"presence_access": "me"}, f"presence_access is 'me'; allowed: {ACCESS}"),
        (
            {"max_message_size": 0},
            (
                "max_message_size is 0; allowed: a whole number from 1 to 1073741824 (bytes), "
                "or nothing for the server's limit alone"
            ),
        ),
    ],
)
def test_a_wrong_namespace(table: dict[str, object], said: str) -> None:
    wrong = table if "is missing" in said else {"pattern": "a", **table}
    assert fault([{"pattern": "b"}, wrong]) == f"REALTIME_NAMESPACES 2: {said}"
    body = "\n".join(f"{key} = {json.dumps(value)}" for key, value in wrong.items())
    toml = f'[[namespace]]\npattern = "b"\n[[namespace]]\n{body}'
    assert fault(toml=toml) == f"rtcore.toml: [[namespace]] 2: {said}"


def test_a_long_value_is_cut() -> None:
    assert len(fault("x" * 10_000)) < 250
    assert len(fault([{"pattern": "x" * 10_000}])) < 250
    assert len(fault([{"pattern": "x", "y" * 10_000: 1}])) < 400


KEY = st.sampled_from(KEYS.split(", "))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.text() | st.lists(st.dictionaries(KEY, JSON) | JSON, max_size=3).map(json.dumps))
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    try:
        load_settings(env={"REALTIME_NAMESPACES": text})
    except SettingsError as error:
        line = str(error)
        assert line.startswith("REALTIME_NAMESPACES ")
        assert line.isprintable()


# What the node makes of it


def test_what_is_not_said_is_as_it_is_for_all_channels() -> None:
    everywhere = {
        "history_size": 1,
        "history_ttl": 2.5,
        "persistent_size": 3,
        "presence_grace": 4.5,
        "slow_consumer": SlowConsumer.DROP_OLDEST,
    }
    default = Namespace(pattern="*", **everywhere)  # type: ignore[arg-type]
    assert node_namespaces(**everywhere) == Namespaces((), default)
    assert node_namespaces(NamespaceSettings(pattern="a:*"), **everywhere) == Namespaces(
        [attrs.evolve(default, pattern="a:*")], default
    )


def test_what_is_said_holds() -> None:
    chosen = NamespaceSettings(
        pattern="chat:*",
        history_size=0,
        history_ttl=1.5,
        last_value=False,
        persistent_size=0,
        presence=False,
        join_leave=False,
        presence_grace=0.0,
        slow_consumer=SlowConsumer.LATEST,
        conflation_key="symbol",
        subscribe=Access.GRANTED,
        publish=Access.SERVER,
        upload=Access.USERS,
        history_access=Access.MEMBERS,
        presence_access=Access.USERS,
        max_message_size=4,
    )
    assert node_namespaces(chosen, NamespaceSettings(pattern="state:*", last_value=True)) == Namespaces(
        [
            Namespace(
                pattern="chat:*",
                history_size=0,
                history_ttl=1.5,
                last_value=False,
                persistent_size=0,
                presence=False,
                join_leave=False,
                presence_grace=0.0,
                slow_consumer=SlowConsumer.LATEST,
                conflation_key="symbol",
                subscribe=Access.GRANTED,
                publish=Access.SERVER,
                upload=Access.USERS,
                history_access=Access.MEMBERS,
                presence_access=Access.USERS,
                max_message_size=4,
            ),
            Namespace(pattern="state:*", last_value=True, persistent_size=1),
        ]
    )


def limits(**realtime: object) -> RateLimitConfig:
    return node_config(Settings(RealtimeSettings(**realtime))).rate_limits  # type: ignore[arg-type]


def test_rate_limits() -> None:
    assert limits(rate_limit_burst=5) == RateLimitConfig()
    assert limits(rate_limit=1.5, rate_limit_warnings=0) == RateLimitConfig(
        connection=RateLimit(messages=1.5), warnings=0
    )
    assert limits(rate_limit_bytes=2.5) == RateLimitConfig(connection=RateLimit(bytes=2.5))
    assert limits(rate_limit=1.5, rate_limit_burst=7, rate_limit_bytes=2.5) == RateLimitConfig(
        connection=RateLimit(messages=1.5, message_burst=7, bytes=2.5)
    )
    assert limits(user_rate_limit=3.5, rate_limit_burst=7) == RateLimitConfig(user=RateLimit(messages=3.5))
    assert limits(user_rate_limit_bytes=4.5) == RateLimitConfig(user=RateLimit(bytes=4.5))


def test_limits_of_memory() -> None:
    realtime = RealtimeSettings(max_history_bytes=1, idempotency_window=2.5, idempotency_size=3000)
    router = node_config(Settings(realtime)).router
    assert (router.max_history_bytes, router.idempotency_window, router.idempotency_size) == (1, 2.5, 3000)


def test_made_by_hand() -> None:
    with pytest.raises(ValueError, match="pattern"):
        NamespaceSettings(pattern="")
    with pytest.raises(ValueError, match="history_size"):
        NamespaceSettings(pattern="a", history_size=-1)
    with pytest.raises(ValueError, match="subscribe"):
        NamespaceSettings(pattern="a", subscribe=Access.MEMBERS)
