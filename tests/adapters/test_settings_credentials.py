"""Settings of who may come in: keys, API keys, roles, origins, proxies and certificates, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import LocalProtocolError
from rtcore_adapters import RealtimeApp
from rtcore_adapters.settings import (
    ApiKeySettings,
    RealtimeSettings,
    RoleSettings,
    Settings,
    SettingsError,
    SseSettings,
    WebSocketSettings,
    WsSettings,
    load_settings,
)

SECRET = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ABCDEF"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that no file of the developer's has a say."""
    monkeypatch.chdir(tmp_path)


def load(env: Mapping[str, str] | None = None, *, toml: str = "", dotenv: str = "") -> Settings:
    if toml:
        Path("rtcore.toml").write_text(toml)
    if dotenv:
        Path(".env").write_text(dotenv)
    return load_settings(env=env or {})


def fault(env: Mapping[str, str] | None = None, *, toml: str = "", dotenv: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        load(env, toml=toml, dotenv=dotenv)
    line = str(caught.value)
    assert line.isprintable()
    # What it came from says no more.
    assert caught.value.__cause__ is None
    return line


def made(kind: type, **values: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        kind(**values)
    return str(caught.value)


# Values

PEM = "the path of a PEM file, or nothing for none"
SECRETS = "1 to 1024 letters, digits and other printable characters of ASCII, or nothing for none"
URL = "a URL such as https://example.org/.well-known/jwks.json, without a user, or nothing for none"
ALGORITHMS = "some of HS256, HS384, HS512, RS256, ES256, EdDSA, with commas between them"
ORIGINS = (
    "origins such as https://example.org or https://*.example.org, null, or * for any, with commas between them, "
    "or nothing for none"
)
NETWORKS = "addresses or networks such as 10.0.0.0/8, with commas between them, or nothing for none"
COUNT = "a whole number from 1 to 2147483647"


@pytest.mark.parametrize(
    ("name", "value", "shown", "allowed"),
    [
        ("WS_JWT_SECRET_KEY", "with a space, and long enough for each of them", "…", SECRETS),
        ("WS_JWT_SECRET_KEY", "é" * 64, "…", SECRETS),
        ("WS_JWT_SECRET_KEY", "x" * 1025, "…", SECRETS),
        ("WS_JWT_SECRET_KEY", "-----BEGIN PUBLIC KEY-----\nAAAA\n", "…", SECRETS),
        ("WS_JWT_ALGORITHM", "none", "'none'", ALGORITHMS),
        ("WS_JWT_ALGORITHM", "hs256", "'hs256'", ALGORITHMS),
        ("WS_JWT_ALGORITHM", "HS256,PS256", "'HS256,PS256'", ALGORITHMS),
        ("WS_JWT_ALGORITHM", "", "''", ALGORITHMS),
        ("WS_JWT_EXPIRE_MINUTES", "0", "'0'", "a number from 0.1 to 527040 (minutes)"),
        ("WS_JWT_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----", "…", PEM),
        ("WS_JWT_PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----\\nMIIE", "…", PEM),
        ("WS_JWT_PRIVATE_KEY", "a\nb", "'a\\nb'", PEM),
        ("WS_JWKS_URL", "example.org/jwks.json", "'example.org/jwks.json'", URL),
        ("WS_JWKS_URL", "file:///etc/passwd", "'file:///etc/passwd'", URL),
        ("WS_JWKS_URL", "https://", "'https://'", URL),
        ("WS_JWKS_URL", "https://a b/", "'https://a b/'", URL),
        ("WS_JWKS_URL", "https://a:x/", "'https://a:x/'", URL),
        ("WS_JWKS_URL", "https://[::1/", "'https://[::1/'", URL),
        ("WS_JWKS_URL", "https://ann:passw0rd@example.org/", "'https://…@example.org/'", URL),
        ("WS_JWKS_REFRESH", "0", "'0'", "a number from 1 to 86400 (seconds)"),
        ("WS_JWT_AUDIENCE", "a\nb", "'a\\nb'", "1 to 255 printable characters, or nothing for anybody"),
        ("WS_JWT_LEEWAY", "-1", "'-1'", "a number from 0 to 3600 (seconds)"),
        ("WS_API_KEY_HEADER", "X API Key", "'X API Key'", "the name of a header, such as X-API-Key"),
        ("WS_API_KEY_HEADER", "", "''", "the name of a header, such as X-API-Key"),
        ("WS_COOKIE", "a=b", "'a=b'", "the name of a cookie, or nothing for none"),
        ("REALTIME_ALLOWED_ORIGINS", "example.org", "'example.org'", ORIGINS),
        ("REALTIME_ALLOWED_ORIGINS", "https://a.*.org", "'https://a.*.org'", ORIGINS),
        ("REALTIME_ALLOWED_ORIGINS", "https://a/path", "'https://a/path'", ORIGINS),
        ("REALTIME_TRUSTED_PROXIES", "proxy", "'proxy'", NETWORKS),
        ("REALTIME_TRUSTED_PROXIES", "10.0.0.0/33", "'10.0.0.0/33'", NETWORKS),
        ("REALTIME_MAX_CONNECTIONS_PER_USER", "0", "'0'", f"{COUNT}, or nothing for no limit of its own"),
        ("REALTIME_MAX_CONNECTIONS_PER_ADDRESS", "x", "'x'", f"{COUNT}, or nothing for no limit of its own"),
        ("REALTIME_HOOK_TIMEOUT", "0", "'0'", "a number from 0.001 to 86400 (seconds)"),
        ("REALTIME_BODY_TIMEOUT", "0", "'0'", "a number from 0.001 to 86400 (seconds)"),
        ("REALTIME_MAX_HEADER_SIZE", "1023", "'1023'", "a whole number from 1024 to 1048576 (bytes)"),
        (
            "REALTIME_MAX_BODY_SIZE",
            "0",
            "'0'",
            "a whole number from 1 to 1073741824 (bytes), or nothing for WEBSOCKET_MAX_MESSAGE_SIZE",
        ),
        ("REALTIME_TLS_KEY", "-----BEGIN PRIVATE KEY-----", "…", PEM),
        (
            "WEBSOCKET_AUTH_REQUIRED",
            "perhaps",
            "'perhaps'",
            "true or false (also 1 or 0, yes or no, on or off)",
        ),
    ],
)
def test_a_wrong_value(name: str, value: str, shown: str, allowed: str) -> None:
    assert fault({name: value}) == f"{name} is {shown}; allowed: {allowed}"
    if "\\" not in value:
        assert fault(dotenv=f"{name}='{value}'") == f".env: {name} is {shown}; allowed: {allowed}"
        Path(".env").unlink()
    section, _, key = name.lower().partition("_")
    # In TOML a number is one.
    said = fault(toml=f"[{section}]\n{key} = {json.dumps(value)}")
    assert said == f"rtcore.toml: [{section}] {key} is {shown}; allowed: {allowed}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REALTIME_ALLOWED_ORIGINS", "*"),
        ("REALTIME_ALLOWED_ORIGINS", "https://example.org, https://*.example.org:8443 http://[::1]:8000,null"),
        ("REALTIME_TRUSTED_PROXIES", "10.1.2.3/8,::1,fd00::/8,192.168.1.2"),
        ("WS_JWKS_URL", "http://127.0.0.1:8080/realms/x/protocol/openid-connect/certs?a=b"),
        ("WS_JWKS_URL", "https://[::1]/jwks"),
        ("WS_JWT_ISSUER", "https://issuer.example/ with spaces"),
    ],
)
def test_values_that_are_right(name: str, value: str) -> None:
    algorithm = {"WS_JWT_ALGORITHM": "RS256"} if name == "WS_JWKS_URL" else {}
    section, _, key = name.lower().partition("_")
    read = getattr(getattr(load({name: value} | algorithm), section), key)
    assert read == (value if isinstance(read, str) else tuple(value.replace(",", " ").split()))


def test_what_is_empty_is_nothing() -> None:
    empty = dict.fromkeys(
        [
            *("WS_JWT_SECRET_KEY", "WS_JWT_PUBLIC_KEY", "WS_JWT_PRIVATE_KEY", "WS_JWKS_URL", "WS_JWT_AUDIENCE"),
            *("WS_JWT_ISSUER", "WS_API_KEYS", "WS_COOKIE", "WS_ROLES", "REALTIME_TLS_CERTIFICATE"),
            *("REALTIME_ALLOWED_ORIGINS", "REALTIME_TRUSTED_PROXIES", "REALTIME_MAX_BODY_SIZE"),
        ],
        "",
    )
    assert load(empty) == Settings()


# API keys


def keys(env: str | None = None, *, toml: str = "") -> tuple[ApiKeySettings, ...]:
    return load({} if env is None else {"WS_API_KEYS": env}, toml=toml).ws.api_keys


def test_api_keys() -> None:
    one, two = ApiKeySettings(key="one"), ApiKeySettings(key="two")
    news = ApiKeySettings(key="three", name="news", scopes=("publish:news:*", "history"), user="robot")
    assert keys("one") == (one,)
    assert keys(" one, two,\n") == keys("one two") == keys('["one", "two"]') == (one, two)
    table = {"key": "three", "name": "news", "scopes": ["publish:news:*", "history"], "user": "robot"}
    assert keys(json.dumps([table])) == (news,)
    assert keys(json.dumps(["one", table, {"key": "two"}])) == (one, news, two)
    toml = "[[api_key]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    assert keys(toml=f'{toml}\n[[api_key]]\nkey = "one"') == (news, one)
    assert keys("", toml=toml) == ()
    assert keys("one", toml="[[api_key]]\nwrong = 1") == (one,)


def test_scopes() -> None:
    assert keys('[{"key": "a"}]')[0].scopes == ("*",)
    assert keys('[{"key": "a", "scopes": []}]')[0].scopes == ()
    assert keys('[{"key": "a", "scopes": "admin, signal:room-*"}]')[0].scopes == ("admin", "signal:room-*")


SCOPES = (
    "a list of scopes, each * for everything, or ACTION or ACTION:PATTERN, such as publish:news:*, "
    "with ACTION subscribe, publish, history, presence, upload, signal or admin"
)
KEY = "1 to 255 letters, digits and other printable characters of ASCII"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"key": "s3cret\u00e9"}, f"key is …; allowed: {KEY}"),
        ({"key": ""}, f"key is …; allowed: {KEY}"),
        ({"key": 5}, f"key is …; allowed: {KEY}"),
        ({"key": ["s3cret"]}, f"key is …; allowed: {KEY}"),
        ({"name": "s"}, f"key is missing; allowed: {KEY}"),
        ({"s3cret": "x"}, "… is not known; allowed: key, name, scopes, user"),
        ({"key": "s3cret", "scope": []}, "… is not known; allowed: key, name, scopes, user"),
        ({"key": "s3cret", "name": ""}, None),
        (
            {"key": "s3cret", "name": "a\n"},
            "name is 'a\\n'; allowed: 1 to 255 printable characters, or nothing for one by its place",
        ),
        (
            {"key": "s3cret", "user": "x" * 256},
            f"user is '{'x' * 78}…; allowed: 1 to 255 printable characters, or nothing for nobody",
        ),
        ({"key": "s3cret", "scopes": ["read"]}, f"scopes is ['read']; allowed: {SCOPES}"),
        ({"key": "s3cret", "scopes": ["publish:"]}, f"scopes is ['publish:']; allowed: {SCOPES}"),
        ({"key": "s3cret", "scopes": [1]}, f"scopes is [1]; allowed: {SCOPES}"),
        ({"key": "s3cret", "scopes": {}}, f"scopes is {{}}; allowed: {SCOPES}"),
    ],
)
def test_a_wrong_api_key(table: dict[str, object], said: str | None) -> None:
    if said is None:
        assert keys(json.dumps([table]))[0].name is None
        return
    assert fault({"WS_API_KEYS": json.dumps(["fine", table])}) == f"WS_API_KEYS 2: {said}"
    body = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items() if value != {})
    if "{}" not in said:
        assert fault(toml=f"[[api_key]]\n{body}") == f"rtcore.toml: [[api_key]] 1: {said}"


@pytest.mark.parametrize(
    "value", ['["s3cret"', "[s3cret]", '{"s3cret": 1}', '[["s3cret"]]', "[5]", '["s3cret\u00e9"]', "s3cret,\u00e9"]
)
def test_wrong_api_keys_are_not_shown(value: str) -> None:
    line = fault({"WS_API_KEYS": value})
    assert line.startswith("WS_API_KEYS")
    assert "s3cret" not in line
    assert " is …; allowed: " in line


def test_wrong_tables_of_api_keys_are_not_shown() -> None:
    example = '{"key": "…", "scopes": ["publish:news:*"]}'
    assert fault({"WS_API_KEYS": "[s3cret]"}) == (
        f"WS_API_KEYS is …; allowed: a JSON list of objects such as [{example}], or texts with commas between them"
    )
    assert fault({"WS_API_KEYS": "[5]"}) == f"WS_API_KEYS 1 is …; allowed: an object such as {example}"
    assert fault(toml='[api_key]\nkey = "s3cret"') == "rtcore.toml: api_key is …; allowed: tables, [[api_key]]"
    assert fault(toml='api_key = ["s3cret"]') == "rtcore.toml: [[api_key]] 1 is …; allowed: a table, [[api_key]]"
    assert fault(toml='[ws]\napi_keys = ["s3cret"]').startswith("rtcore.toml: [ws] 'api_keys' is not known; allowed: ")


def test_each_key_and_each_name_once() -> None:
    assert fault({"WS_API_KEYS": "s3cret,other,s3cret"}) == "WS_API_KEYS has a key twice; allowed: each key once"
    twice = '[{"key": "a", "name": "x"}, {"key": "b", "name": "x"}]'
    assert fault({"WS_API_KEYS": twice}) == "WS_API_KEYS has a name twice; allowed: each name once"
    # The name that another has by its place.
    twice = '[{"key": "a", "name": "key-2"}, "b"]'
    assert fault({"WS_API_KEYS": twice}) == "WS_API_KEYS has a name twice; allowed: each name once"


# Roles


def test_roles() -> None:
    table = {
        "name": "staff",
        "channels": ["staff:*"],
        "publish": ["a"],
        "history": [],
        "presence": ["b", "c"],
        "upload": ["d"],
        "rooms": ["e-*"],
        "admin": True,
        "server": True,
    }
    wanted = RoleSettings(
        name="staff",
        channels=("staff:*",),
        publish=("a",),
        history=(),
        presence=("b", "c"),
        upload=("d",),
        rooms=("e-*",),
        admin=True,
        server=True,
    )
    toml = "[[role]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    assert load({"WS_ROLES": json.dumps([table])}).ws.roles == load(toml=toml).ws.roles == (wanted,)
    assert load({"WS_ROLES": '[{"name": "x"}]'}).ws.roles == (RoleSettings(name="x"),)
    bare = RoleSettings(name="x")
    assert (bare.channels, bare.publish, bare.rooms, bare.admin, bare.server) == ((), None, (), False, False)


PATTERNS = "a list of patterns, of 1 to 255 printable characters each, such as chat:*"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "name is missing; allowed: 1 to 255 printable characters"),
        ({"name": ""}, "name is ''; allowed: 1 to 255 printable characters"),
        ({"name": "a", "channel": "x"}, "'channel' is not known; allowed: "),
        ({"name": "a", "channels": [5]}, f"channels is [5]; allowed: {PATTERNS}"),
        ({"name": "a", "channels": ["a\n"]}, f"channels is ['a\\n']; allowed: {PATTERNS}"),
        ({"name": "a", "publish": 5}, f"publish is 5; allowed: {PATTERNS}, or left out for the same as channels"),
        ({"name": "a", "upload": 5}, f"upload is 5; allowed: {PATTERNS}, or left out for the same as publish"),
        (
            {"name": "a", "admin": "maybe"},
            "admin is 'maybe'; allowed: true or false (also 1 or 0, yes or no, on or off)",
        ),
        ({"name": "b"}, "name is 'b', as in another; allowed: each name once"),
    ],
)
def test_a_wrong_role(table: dict[str, object], said: str) -> None:
    assert fault({"WS_ROLES": json.dumps([{"name": "b"}, table])}).startswith(f"WS_ROLES 2: {said}")


# What does not fit together


def test_a_secret_that_is_too_short() -> None:
    for algorithm, least in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
        env = {"WS_JWT_ALGORITHM": algorithm, "WS_JWT_SECRET_KEY": SECRET[: least - 1]}
        line = fault(env)
        assert line == (
            f"WS_JWT_SECRET_KEY has {least - 1} characters; allowed: at least {least} for {algorithm} (RFC 7518, "
            f"section 3.2); make one: python3 -c 'import secrets; print(secrets.token_urlsafe({least}))'"
        )
        assert load({**env, "WS_JWT_SECRET_KEY": SECRET[:least]}).ws.jwt_algorithm == (algorithm,)
    assert "for HS512" in fault({"WS_JWT_ALGORITHM": "HS256,HS512", "WS_JWT_SECRET_KEY": SECRET[:40]})
    assert "WS_JWT_SECRET_KEY has 6 characters" in made(Settings, ws=WsSettings(jwt_secret_key="s3cret"))


def test_an_algorithm_without_its_key() -> None:
    public = {"WS_JWT_PUBLIC_KEY": "key.pem"}
    missing = "WS_JWT_ALGORITHM is HS256; allowed: together with WS_JWT_SECRET_KEY"
    assert fault(public) == missing
    assert fault({"WS_JWKS_URL": "https://example.org/"}) == missing
    assert fault({**public, "WS_JWT_ALGORITHM": "RS256 HS256"}) == missing
    assert fault({"WS_JWT_ALGORITHM": "HS512"}) == missing.replace("HS256", "HS512")
    for algorithm in ("RS256", "ES256", "EdDSA"):
        missing = (
            f"WS_JWT_ALGORITHM is {algorithm}; "
            "allowed: together with WS_JWT_PUBLIC_KEY, WS_JWT_PRIVATE_KEY or WS_JWKS_URL"
        )
        assert fault({"WS_JWT_ALGORITHM": algorithm}) == missing
        assert fault({"WS_JWT_ALGORITHM": algorithm, "WS_JWT_SECRET_KEY": SECRET}) == missing
        for name, value in (*public.items(), ("WS_JWT_PRIVATE_KEY", "key.pem"), ("WS_JWKS_URL", "https://a/")):
            assert load({"WS_JWT_ALGORITHM": algorithm, name: value}).ws.takes_tokens


@pytest.mark.parametrize("name", ["WEBSOCKET_AUTH_REQUIRED", "SSE_AUTH_REQUIRED"])
def test_required_without_any_key(name: str) -> None:
    assert fault({name: "true"}) == (
        f"{name} is true, and there is no key that could let anybody in; "
        "allowed: with WS_JWT_SECRET_KEY, WS_JWT_PUBLIC_KEY, WS_JWKS_URL or WS_API_KEYS"
    )
    for key in ({"WS_JWT_SECRET_KEY": SECRET}, {"WS_API_KEYS": "key"}):
        assert load({name: "true", **key}).ws.takes_credentials
    # Somebody else may know who comes.
    settings = load_settings(env={name: "true"}, cwd=Path("/nowhere"), keys_elsewhere=True)
    assert not settings.ws.takes_credentials


def test_a_cookie_for_anybody() -> None:
    env = {"WS_COOKIE": "token", "REALTIME_ALLOWED_ORIGINS": "https://example.org,*"}
    assert fault(env) == (
        "WS_COOKIE is set, and REALTIME_ALLOWED_ORIGINS has '*': any web page could come with the cookies of those who "
        "see it; allowed: the origins of your own pages"
    )
    assert load({**env, "REALTIME_ALLOWED_ORIGINS": "https://example.org"}).ws.cookie == "token"


def test_half_a_certificate() -> None:
    tls = {
        "REALTIME_TLS_CERTIFICATE": "cert.pem",
        "REALTIME_TLS_KEY": "key.pem",
        "REALTIME_TLS_CLIENT_CA": "ca.pem",
    }
    assert load(tls).realtime.tls_client_ca == "ca.pem"
    for names, there, missing in (
        (("CERTIFICATE",), "CERTIFICATE", "KEY"),
        (("CERTIFICATE", "CLIENT_CA"), "CERTIFICATE", "KEY"),
        (("KEY",), "KEY", "CERTIFICATE"),
        (("CLIENT_CA",), "CLIENT_CA", "CERTIFICATE"),
    ):
        some = {f"REALTIME_TLS_{name}": tls[f"REALTIME_TLS_{name}"] for name in names}
        assert fault(some) == f"REALTIME_TLS_{there} is set; allowed: together with REALTIME_TLS_{missing}"


def test_made_by_hand() -> None:
    # Without a key it is for whoever makes an application of them to say who knows credentials.
    for settings in (
        Settings(websocket=WebSocketSettings(auth_required=True)),
        Settings(sse=SseSettings(auth_required=True)),
    ):
        with pytest.raises(LocalProtocolError, match="no authenticator"):
            RealtimeApp(settings)
    assert "REALTIME_TLS_KEY" in made(Settings, realtime=RealtimeSettings(tls_certificate="a"))
    for values in (
        {"jwt_secret_key": "s3cret with spaces"},
        {"jwt_secret_key": b"s3cret"},
        {"jwt_private_key": "-----BEGIN s3cret"},
        {"jwks_url": "https://s3cret:s3cret@a/"},
        {"jwt_algorithm": ("none",)},
        {"jwt_algorithm": ()},
        {"cookie": ""},
    ):
        said = made(WsSettings, **values)
        assert next(iter(values)) in said
        assert "s3cret" not in said
    assert "s3cret" not in made(ApiKeySettings, key="s3cret with spaces")
    assert "'scopes'" in made(ApiKeySettings, key="a", scopes=("x",))
    assert "'channels'" in made(RoleSettings, name="a", channels=("",))


NAMES = st.sampled_from(
    [
        *("WS_JWT_SECRET_KEY", "WS_JWT_ALGORITHM", "WS_JWKS_URL", "WS_JWT_PRIVATE_KEY", "WS_API_KEYS", "WS_ROLES"),
        *("WS_COOKIE", "WS_API_KEY_HEADER", "REALTIME_ALLOWED_ORIGINS", "REALTIME_TRUSTED_PROXIES"),
    ]
)
LISTS = st.lists(
    st.text(max_size=5)
    | st.dictionaries(
        st.sampled_from(["key", "name", "scopes", "user", "channels", "admin"]),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=2),
    ),
    max_size=3,
).map(json.dumps)


@given(NAMES, st.text() | LISTS)
def test_any_text_is_a_value_or_one_line(name: str, text: str) -> None:
    try:
        load_settings(env={name: text})
    except SettingsError as error:
        line = str(error)
        assert line.startswith((name, "WS_JWT_ALGORITHM", "WS_API_KEYS"))
        assert line.isprintable()
        assert len(line) < 600
