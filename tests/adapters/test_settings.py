"""Settings: where they come from, which source wins, and what a wrong one says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import RtcoreError
from rtcore.namespaces import SlowConsumer
from rtcore_adapters.settings import (
    BinarySettings,
    RealtimeSettings,
    Settings,
    SettingsError,
    SseSettings,
    WebRtcSettings,
    WebSocketSettings,
    WsSettings,
    load_settings,
)

NOTHING = Settings()
SECTIONS = ("REALTIME_", "WEBSOCKET_", "SSE_", "WEBRTC_", "WS_", "BINARY_")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that no file of the developer's has a say."""
    monkeypatch.chdir(tmp_path)


def load(env: Mapping[str, str] | None = None, **files: str) -> Settings:
    for name, text in files.items():
        Path({"toml": "rtcore.toml", "dotenv": ".env"}[name]).write_text(text)
    return load_settings(env=env or {})


def fault(env: Mapping[str, str] | None = None, **files: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(env, **files)
    line = str(caught.value)
    assert line.isprintable()
    return line


def test_defaults() -> None:
    assert load() == Settings(
        realtime=RealtimeSettings(
            prefix="/realtime",
            max_connections=1000,
            max_connections_per_user=None,
            max_connections_per_address=None,
            allow_anonymous=False,
            shutdown_timeout=10.0,
            max_channels=1000,
            presence_limit=256,
            history_size=100,
            history_ttl=300.0,
            persistent_size=100,
            max_history_bytes=268_435_456,
            presence_grace=5.0,
            slow_consumer=SlowConsumer.DISCONNECT,
            namespaces=(),
            idempotency_window=300.0,
            idempotency_size=1000,
            rate_limit=None,
            rate_limit_burst=None,
            rate_limit_bytes=None,
            user_rate_limit=None,
            user_rate_limit_bytes=None,
            rate_limit_warnings=5,
            allowed_origins=(),
            trusted_proxies=(),
            authentication_timeout=5.0,
            hook_timeout=5.0,
            max_header_size=16_384,
            max_body_size=None,
            body_timeout=30.0,
            write_timeout=30.0,
            max_sockets=None,
            max_sockets_per_address=None,
            tls_certificate=None,
            tls_key=None,
            tls_client_ca=None,
        ),
        websocket=WebSocketSettings(
            enabled=True,
            auth_required=False,
            max_connections=None,
            heartbeat_interval=30.0,
            disconnect_timeout=60.0,
            message_queue_size=1000,
            max_message_size=1_048_576,
            handshake_timeout=10.0,
            message_timeout=120.0,
            binary_max_size=1_048_576,
        ),
        sse=SseSettings(
            enabled=True, auth_required=False, max_connections=None, heartbeat_interval=30.0, retry_timeout=3000
        ),
        webrtc=WebRtcSettings(
            enabled=True,
            stun_servers=(),
            turn_servers=(),
            turn_secret=None,
            turn_ttl=3600.0,
            max_rooms=1000,
            max_rooms_per_user=100,
            max_participants_per_room=8,
            peer_ttl=15.0,
            room_ttl=300.0,
        ),
        ws=WsSettings(
            jwt_secret_key=None,
            jwt_algorithm=("HS256",),
            jwt_expire_minutes=60.0,
            jwt_public_key=None,
            jwt_private_key=None,
            jwks_url=None,
            jwks_refresh=300.0,
            jwt_audience=None,
            jwt_issuer=None,
            jwt_leeway=0.0,
            api_keys=(),
            api_key_header="X-API-Key",
            cookie=None,
            roles=(),
        ),
        binary=BinarySettings(
            data_enabled=True,
            max_file_size=1_073_741_824,
            allowed_types=("*/*",),
            store_url=None,
            inline_max_size=65_536,
            file_ttl=604_800.0,
            quota=10_737_418_240,
            check_content=True,
            resume_timeout=600.0,
        ),
    )


def test_every_setting_has_a_variable_and_a_key() -> None:
    values: dict[str, dict[str, object]] = {
        "realtime": {
            "prefix": "/rt",
            "max_connections": 1,
            "max_connections_per_user": 24,
            "max_connections_per_address": 25,
            "allow_anonymous": True,
            "shutdown_timeout": 0.0,
            "max_channels": 2,
            "presence_limit": 0,
            "history_size": 0,
            "history_ttl": 12.5,
            "persistent_size": 13,
            "max_history_bytes": 14,
            "presence_grace": 15.5,
            "slow_consumer": "drop_oldest",
            "idempotency_window": 16.5,
            "idempotency_size": 1017,
            "rate_limit": 18.5,
            "rate_limit_burst": 19,
            "rate_limit_bytes": 20.5,
            "user_rate_limit": 21.5,
            "user_rate_limit_bytes": 22.5,
            "rate_limit_warnings": 23,
            "allowed_origins": ("https://example.org", "https://*.example.org:8443"),
            "trusted_proxies": ("10.0.0.0/8", "::1"),
            "authentication_timeout": 27.5,
            "hook_timeout": 26.5,
            "max_header_size": 2048,
            "max_body_size": 28,
            "body_timeout": 29.5,
            "write_timeout": 30.5,
            "max_sockets": 31,
            "max_sockets_per_address": 32,
            "tls_certificate": "cert.pem",
            "tls_key": "key.pem",
            "tls_client_ca": "ca.pem",
        },
        "websocket": {
            "enabled": False,
            "auth_required": True,
            "max_connections": 3,
            "heartbeat_interval": 4.5,
            "disconnect_timeout": 5.5,
            "message_queue_size": 6,
            "max_message_size": 7,
            "handshake_timeout": 8.5,
            "message_timeout": 9.5,
            "binary_max_size": 33,
        },
        "sse": {
            "enabled": False,
            "auth_required": True,
            "max_connections": 9,
            "heartbeat_interval": 10.5,
            "retry_timeout": 11,
        },
        "webrtc": {
            "enabled": False,
            "stun_servers": ("stun:a", "stuns:b:1"),
            "turn_servers": ("turn:c?transport=udp",),
            "turn_secret": "12.5",
            "turn_ttl": 24.5,
            "max_rooms": 25,
            "max_rooms_per_user": 29,
            "max_participants_per_room": 26,
            "peer_ttl": 27.5,
            "room_ttl": 28.5,
        },
        "ws": {
            "jwt_secret_key": "0123456789abcdef0123456789ABCDEF0123456789abcdef",
            "jwt_algorithm": ("HS384", "EdDSA"),
            "jwt_expire_minutes": 1.5,
            "jwt_public_key": "keys/public.pem",
            "jwt_private_key": "keys/private.pem",
            "jwks_url": "https://example.org/jwks.json",
            "jwks_refresh": 2.5,
            "jwt_audience": "me",
            "jwt_issuer": "https://example.org/",
            "jwt_leeway": 3.5,
            "api_key_header": "X-Key",
            "cookie": "token",
        },
        "binary": {
            "data_enabled": False,
            "max_file_size": 34,
            "allowed_types": ("image/*", "application/pdf"),
            "store_url": "s3://bucket/prefix?endpoint=https://s3.example.org&region=eu",
            "inline_max_size": 0,
            "file_ttl": 35.5,
            "quota": 36,
            "check_content": False,
            "resume_timeout": 37.5,
        },
    }
    chosen = {**values["realtime"], "slow_consumer": SlowConsumer.DROP_OLDEST}
    wanted = Settings(
        realtime=RealtimeSettings(**chosen),  # type: ignore[arg-type]
        websocket=WebSocketSettings(**values["websocket"]),  # type: ignore[arg-type]
        sse=SseSettings(**values["sse"]),  # type: ignore[arg-type]
        webrtc=WebRtcSettings(**values["webrtc"]),  # type: ignore[arg-type]
        ws=WsSettings(**values["ws"]),  # type: ignore[arg-type]
        binary=BinarySettings(**values["binary"]),  # type: ignore[arg-type]
    )
    # Nothing is left at its default, so nothing can be missing below.
    made = attrs.asdict(wanted, value_serializer=lambda _, __, value: getattr(value, "value", value))
    # Lists of tables have tests of their own.
    lists = [("realtime", "namespaces"), ("ws", "api_keys"), ("ws", "roles")]
    assert [made[section].pop(key) for section, key in lists] == [(), (), ()]
    assert made == values
    for section, table in attrs.asdict(NOTHING).items():
        assert all(values[section][key] != default for key, default in table.items() if (section, key) not in lists)

    variables = {
        f"{section}_{key}".upper(): ", ".join(value) if isinstance(value, tuple) else str(value)
        for section, table in values.items()
        for key, value in table.items()
    }
    toml = "\n".join(
        f"[{section}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for section, table in values.items()
    )
    assert load(variables) == wanted
    assert load(toml=toml) == wanted
    Path("rtcore.toml").unlink()
    assert load(dotenv="\n".join(f"{name}='{value}'" for name, value in variables.items())) == wanted


def test_the_environment_wins_over_dotenv_over_toml() -> None:
    toml = "[websocket]\nmessage_queue_size = 1\nmax_message_size = 1\nmax_connections = 1"
    dotenv = "WEBSOCKET_MESSAGE_QUEUE_SIZE=2\nexport WEBSOCKET_MAX_MESSAGE_SIZE=2  # so it may say"
    assert load({"WEBSOCKET_MESSAGE_QUEUE_SIZE": "3"}, toml=toml, dotenv=dotenv).websocket == (
        WebSocketSettings(message_queue_size=3, max_message_size=2, max_connections=1)
    )


def test_what_is_overridden_is_not_checked() -> None:
    assert load({"SSE_RETRY_TIMEOUT": "1"}, toml="[sse]\nretry_timeout = 0").sse.retry_timeout == 1


def test_an_empty_variable_takes_a_limit_away() -> None:
    assert load({"SSE_MAX_CONNECTIONS": ""}, toml="[sse]\nmax_connections = 5") == NOTHING


def test_unknown_variables_are_ignored() -> None:
    assert load({"REALTIME_NO_SUCH": "1", "PATH": "/bin"}, dotenv="WEBSOCKET_NOPE=x") == NOTHING


def test_a_name_without_a_value_sets_nothing() -> None:
    assert load(dotenv="SSE_ENABLED\nSSE_MAX_CONNECTIONS\nSSE_RETRY_TIMEOUT=5").sse == SseSettings(retry_timeout=5)


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "on", "ON"])
def test_words_for_true(word: str) -> None:
    assert load({"REALTIME_ALLOW_ANONYMOUS": word}).realtime.allow_anonymous


@pytest.mark.parametrize("word", ["false", "FALSE", "0", "no", "off", "Off"])
def test_words_for_false(word: str) -> None:
    assert not load({"WEBSOCKET_ENABLED": word}).websocket.enabled


@pytest.mark.parametrize(
    ("written", "prefix"),
    [
        ("/realtime", "/realtime"),
        ("api/v1/rt/", "/api/v1/rt"),
        ("//x//", "/x"),
        ("/", ""),
        ("", ""),
        ("/.hidden/..x", "/.hidden/..x"),
    ],
)
def test_the_prefix_is_normalised(written: str, prefix: str) -> None:
    assert load({"REALTIME_PREFIX": written}).realtime.prefix == prefix
    assert load(toml=f'[realtime]\nprefix = "{written}"').realtime.prefix == prefix
    assert RealtimeSettings(prefix=written).prefix == prefix


COUNT = "a whole number from 1 to 2147483647"
SWITCH = "true or false (also 1 or 0, yes or no, on or off)"
PATH = "a path such as /realtime, of letters, digits and - . _ ~ between slashes"
SECONDS = "a number from 0.001 to 86400 (seconds)"
POLICIES = "disconnect, drop_oldest or latest"
RATE = "a number from 0.001 to 2147483647"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("REALTIME_MAX_CONNECTIONS", "many", COUNT),
        ("REALTIME_MAX_CONNECTIONS", "0", COUNT),
        ("REALTIME_MAX_CONNECTIONS", "-1", COUNT),
        ("REALTIME_MAX_CONNECTIONS", "1.5", COUNT),
        ("REALTIME_MAX_CONNECTIONS", "", COUNT),
        ("REALTIME_MAX_CONNECTIONS", "2147483648", COUNT),
        ("WEBSOCKET_MAX_CONNECTIONS", "0", f"{COUNT}, or nothing for no limit of its own"),
        ("WEBSOCKET_MAX_MESSAGE_SIZE", "1MiB", "a whole number from 1 to 1073741824 (bytes)"),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "0", SECONDS),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "nan", SECONDS),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "inf", SECONDS),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "30s", SECONDS),
        ("REALTIME_SHUTDOWN_TIMEOUT", "-1", "a number from 0 to 86400 (seconds)"),
        ("REALTIME_PRESENCE_LIMIT", "-1", "a whole number from 0 to 2147483647"),
        ("REALTIME_HISTORY_SIZE", "-1", "a whole number from 0 to 2147483647"),
        ("REALTIME_HISTORY_TTL", "31622401", "a number from 0 to 31622400 (seconds)"),
        ("REALTIME_MAX_HISTORY_BYTES", "1GiB", "a whole number from 0 to 1125899906842624 (bytes)"),
        ("REALTIME_PERSISTENT_SIZE", "-1", "a whole number from 0 to 2147483647"),
        ("REALTIME_PRESENCE_GRACE", "-0.1", "a number from 0 to 86400 (seconds)"),
        ("REALTIME_SLOW_CONSUMER", "LATEST", POLICIES),
        ("REALTIME_SLOW_CONSUMER", "", POLICIES),
        ("REALTIME_IDEMPOTENCY_WINDOW", "-1", "a number from 0 to 86400 (seconds)"),
        ("REALTIME_IDEMPOTENCY_SIZE", "999", COUNT.replace("from 1 ", "from 1000 ")),
        ("REALTIME_RATE_LIMIT", "0", f"{RATE} (messages a second), or nothing for no limit"),
        ("REALTIME_RATE_LIMIT", "inf", f"{RATE} (messages a second), or nothing for no limit"),
        ("REALTIME_RATE_LIMIT_BURST", "0", f"{COUNT}, or nothing for those of two seconds"),
        ("REALTIME_RATE_LIMIT_BYTES", "-1", f"{RATE} (bytes a second), or nothing for no limit"),
        ("REALTIME_USER_RATE_LIMIT", "nan", f"{RATE} (messages a second), or nothing for no limit"),
        ("REALTIME_USER_RATE_LIMIT_BYTES", "all", f"{RATE} (bytes a second), or nothing for no limit"),
        ("REALTIME_RATE_LIMIT_WARNINGS", "-1", "a whole number from 0 to 2147483647"),
        ("SSE_RETRY_TIMEOUT", "0", "a whole number from 1 to 2147483647 (milliseconds)"),
        ("SSE_ENABLED", "maybe", SWITCH),
        ("SSE_ENABLED", "", SWITCH),
        ("REALTIME_PREFIX", "/a b", PATH),
        ("REALTIME_PREFIX", "/a/../b", PATH),
        ("REALTIME_PREFIX", "/a//b", PATH),
        ("REALTIME_PREFIX", "/a\n", PATH),
        ("REALTIME_PREFIX", "/чат", PATH),
    ],
)
def test_a_wrong_value(name: str, value: str, allowed: str) -> None:
    assert fault({name: value}) == f"{name} is {value!r}; allowed: {allowed}"
    assert fault(dotenv=f"{name}='{value}'") == f".env: {name} is {value!r}; allowed: {allowed}"


@pytest.mark.parametrize(
    ("section", "key", "value", "shown", "allowed"),
    [
        ("realtime", "max_connections", "0", "0", COUNT),
        ("realtime", "max_connections", "true", "True", COUNT),
        ("realtime", "max_connections", "1.5", "1.5", COUNT),
        ("realtime", "max_connections", "[1]", "[1]", COUNT),
        ("realtime", "prefix", "5", "5", PATH),
        ("realtime", "slow_consumer", "[]", "[]", POLICIES),
        ("realtime", "slow_consumer", "1", "1", POLICIES),
        ("websocket", "heartbeat_interval", "true", "True", SECONDS),
        ("websocket", "heartbeat_interval", "{ }", "{}", SECONDS),
        ("websocket", "enabled", "2", "2", SWITCH),
        ("websocket", "enabled", "[]", "[]", SWITCH),
    ],
)
def test_a_wrong_value_in_toml(section: str, key: str, value: str, shown: str, allowed: str) -> None:
    line = f"rtcore.toml: [{section}] {key} is {shown}; allowed: {allowed}"
    assert fault(toml=f"[{section}]\n{key} = {value}") == line


def test_a_long_value_is_cut() -> None:
    assert len(fault({"SSE_ENABLED": "x" * 10_000})) < 200


def test_what_nobody_would_read_in_toml() -> None:
    assert fault(toml="[sse]\nretry = 1") == (
        "rtcore.toml: [sse] 'retry' is not known; allowed: "
        "enabled, auth_required, max_connections, heartbeat_interval, retry_timeout"
    )
    assert fault(toml="[webhook]") == (
        "rtcore.toml: 'webhook' is not known; "
        "allowed: [realtime], [websocket], [sse], [webrtc], [ws], [binary], [[namespace]], [[role]], [[api_key]]"
    )
    assert fault(toml="[realtime]\nnamespaces = []").startswith("rtcore.toml: [realtime] 'namespaces' is not known; ")
    assert fault(toml="sse = false") == "rtcore.toml: sse is False; allowed: a table, [sse]"
    assert fault(toml='[sse]\n"a\\nb" = 1').startswith(r"rtcore.toml: [sse] 'a\nb' is not known")


def test_files_that_cannot_be_read() -> None:
    assert fault(toml="[sse").startswith("rtcore.toml: cannot be read: Expected ']'")
    Path("rtcore.toml").write_bytes(b"\xff")
    assert fault().startswith("rtcore.toml: cannot be read: 'utf-8' codec")
    Path("rtcore.toml").unlink()
    Path("rtcore.toml").mkdir()
    assert fault().startswith("rtcore.toml: cannot be read: [Errno 21]")
    Path("rtcore.toml").rmdir()
    Path(".env").write_bytes(b"A=\xff")
    assert fault().startswith(".env: cannot be read: 'utf-8' codec")


def test_which_toml_file(tmp_path: Path) -> None:
    for number, name in enumerate(["rtcore.toml", "dotenv.toml", "env.toml", "argument.toml"]):
        Path(name).write_text(f"[realtime]\npresence_limit = {number}")

    assert load_settings(env={}).realtime.presence_limit == 0
    Path(".env").write_text("REALTIME_CONFIG=dotenv.toml")
    assert load_settings(env={}).realtime.presence_limit == 1
    env = {"REALTIME_CONFIG": str(tmp_path / "env.toml")}
    assert load_settings(env=env).realtime.presence_limit == 2
    assert load_settings(env=env, config=Path("argument.toml")).realtime.presence_limit == 3


def test_another_folder(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "rtcore.toml").write_text("[realtime]\npresence_limit = 7")
    (there / ".env").write_text("REALTIME_MAX_CHANNELS=8")
    (there / "mine.toml").write_text("[realtime]\npresence_limit = 9")

    assert load_settings(env={}) == NOTHING
    assert load_settings(env={}, cwd=there).realtime == RealtimeSettings(presence_limit=7, max_channels=8)
    assert load_settings(env={}, cwd=there, config=Path("mine.toml")).realtime.presence_limit == 9


def test_a_file_that_was_named_must_exist() -> None:
    allowed = "allowed: the path of a TOML file that exists"
    assert fault({"REALTIME_CONFIG": "no.toml"}) == f"REALTIME_CONFIG is 'no.toml'; {allowed}"
    with pytest.raises(SettingsError, match=r"^The settings file is 'no\.toml'; allowed: the path"):
        load_settings(env={}, config=Path("no.toml"))
    assert load({"REALTIME_CONFIG": ""}) == NOTHING


def test_a_wrong_value_names_the_file_as_it_was_named() -> None:
    Path("mine.toml").write_text("[sse]\nenabled = 3")
    assert fault({"REALTIME_CONFIG": "./mine.toml"}).startswith("./mine.toml: [sse] enabled is 3; ")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(SECTIONS)]:
        monkeypatch.delenv(name)
    assert load_settings() == NOTHING
    monkeypatch.setenv("SSE_RETRY_TIMEOUT", "5")
    assert load_settings().sse.retry_timeout == 5


def test_made_by_hand() -> None:
    with pytest.raises(ValueError, match="max_connections"):
        RealtimeSettings(max_connections=0)
    with pytest.raises(ValueError, match="prefix"):
        RealtimeSettings(prefix="/a b")
    assert issubclass(SettingsError, RtcoreError)


def said(env: Mapping[str, str]) -> str | None:
    try:
        load_settings(env=env)
    except SettingsError as error:
        return str(error)
    return None


@given(
    st.sampled_from(["REALTIME_PREFIX", "WEBSOCKET_MAX_CONNECTIONS", "SSE_HEARTBEAT_INTERVAL", "SSE_ENABLED"]),
    st.text(),
)
def test_any_text_is_a_value_or_one_line(name: str, text: str) -> None:
    line = said({name: text})
    assert line is None or (line.startswith(f"{name} is ") and line.isprintable())


def test_importing_reads_no_environment(pytestconfig: pytest.Config) -> None:
    code = "import rtcore_adapters.settings"
    env = {**os.environ, "WEBSOCKET_MAX_CONNECTIONS": "wrong"}
    subprocess.run([sys.executable, "-c", code], env=env, cwd=pytestconfig.rootpath, check=True, timeout=60)
