"""What can be set from outside: environment, ``.env`` and a TOML file.

Each setting has one name in two spellings: ``WEBSOCKET_MAX_CONNECTIONS`` in the environment and in ``.env``,
``max_connections`` under ``[websocket]`` in TOML. The environment wins over ``.env``, which wins over TOML,
which wins over the defaults. Only what wins is checked, and a wrong value stops the start with one line that
names it as it was written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, cast, get_args

import attrs
import cattrs
import typed_settings as ts
from attrs.validators import and_, ge, le, matches_re, optional
from dotenv import dotenv_values
from typed_settings.dict_utils import get_path, set_path
from typed_settings.exceptions import ConfigFileLoadError
from typed_settings.loaders import Loader
from typed_settings.types import LoadedSettings, LoaderMeta, OptionInfo, OptionList, SettingsDict

from rtcore import NodeConfig, RouterConfig, RtcoreError, WebSocketConfig
from rtcore_transports import EndpointConfig

__all__ = [
    "RealtimeSettings",
    "Settings",
    "SettingsError",
    "SseSettings",
    "WebSocketSettings",
    "check_bind",
    "endpoint_config",
    "load_settings",
    "node_config",
]


class SettingsError(RtcoreError):
    """A setting cannot be used. The text is one line: which setting, its value and what is allowed."""


# A day: longer is a mistake in the unit. It also keeps 2.5 heartbeats, the patience of our clients, well
# under the 2**31 - 1 milliseconds above which a browser's setTimeout fires at once.
_DAY: Final = 86_400

# setTimeout again: it is what EventSource waits with.
_LONGEST_RETRY: Final = 2**31 - 1

_MOST: Final = 2**31 - 1

_ALLOWED: Final = "rtcore.allowed"


def _number(default: float | None, kind: str, low: float, high: float, unit: str) -> Any:
    allowed = f"{kind} from {low:g} to {high}{unit}"
    validator: Any = and_(ge(low), le(high))
    if default is None:
        allowed += ", or nothing for no limit of its own"
        validator = optional(validator)
    return attrs.field(default=default, validator=validator, metadata={_ALLOWED: allowed})


# As attrs.field() does, these claim to return the default: that is what a class body wants to hear.
def _count(default: int, *, low: int = 1, high: int = _MOST, unit: str = "") -> int:
    return cast(int, _number(default, "a whole number", low, high, unit))


def _count_or_none() -> int | None:
    return cast("int | None", _number(None, "a whole number", 1, _MOST, ""))


def _seconds(default: float, *, low: float = 0.001) -> float:
    return cast(float, _number(default, "a number", low, _DAY, " (seconds)"))


def _switch(default: bool) -> bool:
    allowed = "true or false (also 1 or 0, yes or no, on or off)"
    return attrs.field(default=default, metadata={_ALLOWED: allowed})


def _normalised_prefix(prefix: str) -> str:
    path = prefix.strip("/")
    return f"/{path}" if path else ""


@attrs.frozen
class RealtimeSettings:
    """What concerns all transports together: ``REALTIME_…`` or ``[realtime]``.

    Attributes:
        prefix: The path under which everything is served: with a leading slash and without a trailing one,
            so that a path is ``prefix + "/ws"``. Empty when all is served at the root.
        max_connections: How many connections are open at once, of all transports together.
        allow_anonymous: Whether anybody may connect to a server that does not listen on loopback only.
        shutdown_timeout: Seconds for which a server that ends waits for its connections to go.
        max_channels: How many channels one connection may have joined at once.
        presence_limit: The number of members above which a channel neither lists them nor tells anybody who
            joins and leaves: each of n members would hear of each other one, which makes n² messages.
    """

    # RFC 3986, section 3.3, allows more in a path. These need no escaping in a URL, a shell or a proxy's
    # configuration, and "." and ".." are left out because clients resolve them away.
    prefix: str = attrs.field(
        default="/realtime",
        converter=_normalised_prefix,
        validator=matches_re(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*"),
        metadata={_ALLOWED: "a path such as /realtime, of letters, digits and - . _ ~ between slashes"},
    )
    max_connections: int = _count(1000)
    allow_anonymous: bool = _switch(False)
    shutdown_timeout: float = _seconds(10.0, low=0)
    max_channels: int = _count(1000)
    presence_limit: int = _count(256, low=0)


@attrs.frozen
class WebSocketSettings:
    """What concerns WebSocket connections: ``WEBSOCKET_…`` or ``[websocket]``.

    Attributes:
        enabled: Whether the endpoint exists.
        max_connections: How many are open at once; ``None`` sets no limit of its own.
        heartbeat_interval: Seconds of silence after which a peer is pinged.
        disconnect_timeout: Seconds of silence after a ping that end a connection.
        message_queue_size: How many outbound messages may wait for one connection before it counts as slow.
        max_message_size: The largest inbound message, in bytes.
        handshake_timeout: Seconds within which the opening handshake must be complete.
    """

    enabled: bool = _switch(True)
    max_connections: int | None = _count_or_none()
    heartbeat_interval: float = _seconds(30.0)
    disconnect_timeout: float = _seconds(60.0)
    message_queue_size: int = _count(1000)
    max_message_size: int = _count(2**20, high=2**30, unit=" (bytes)")
    handshake_timeout: float = _seconds(10.0)


@attrs.frozen
class SseSettings:
    """What concerns Server-Sent Events: ``SSE_…`` or ``[sse]``.

    Attributes:
        enabled: Whether the endpoint exists.
        max_connections: How many streams are open at once; ``None`` sets no limit of its own.
        heartbeat_interval: Seconds of silence after which a stream carries a heartbeat.
        retry_timeout: Milliseconds that a browser waits before it connects again: the stream's ``retry``.
    """

    enabled: bool = _switch(True)
    max_connections: int | None = _count_or_none()
    heartbeat_interval: float = _seconds(30.0)
    retry_timeout: int = _count(3000, high=_LONGEST_RETRY, unit=" (milliseconds)")


@attrs.frozen
class Settings:
    """All settings. Made by hand, a value out of its range raises `ValueError`."""

    realtime: RealtimeSettings = attrs.field(factory=RealtimeSettings)
    websocket: WebSocketSettings = attrs.field(factory=WebSocketSettings)
    sse: SseSettings = attrs.field(factory=SseSettings)


def load_settings(
    *, config: Path | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Settings:
    """Load the settings from the environment, ``.env`` and a TOML file; the first of them wins.

    ``.env`` is read from `cwd`. The TOML file is `config`, or else what ``REALTIME_CONFIG`` names, or else
    ``rtcore.toml`` in `cwd` where it exists. Variables that are not ours are ignored; keys of the TOML file
    that are not ours are errors, since nobody else reads that file.

    Args:
        config: The TOML file; relative to `cwd`. It must exist.
        env: The environment; ``os.environ`` by default.
        cwd: The folder to look in; the working directory by default.

    Raises:
        SettingsError: A value is not allowed, or a file cannot be read.
    """
    env = os.environ if env is None else env
    cwd = Path() if cwd is None else cwd
    written = _read_dotenv(cwd / ".env")
    loaders: list[Loader] = [_Variables(written, ".env: "), _Variables(env)]
    chosen = str(config or env.get("REALTIME_CONFIG") or written.get("REALTIME_CONFIG") or "")
    path = cwd / (chosen or "rtcore.toml")
    if path.exists():
        loaders.insert(0, _TomlFile(path, chosen or "rtcore.toml"))
    elif chosen:
        name = "The settings file" if config else "REALTIME_CONFIG"
        raise SettingsError(f"{name} is {_shown(chosen)}; allowed: the path of a TOML file that exists")
    return ts.load_settings(Settings, loaders, processors=[_check], converter=_CONVERTER)


def node_config(settings: Settings) -> NodeConfig:
    """Return what of the settings concerns the node."""
    realtime, websocket, sse = settings.realtime, settings.websocket, settings.sse
    return NodeConfig(
        max_connections=realtime.max_connections,
        max_websocket=websocket.max_connections,
        max_sse=sse.max_connections,
        websocket_heartbeat=websocket.heartbeat_interval,
        sse_heartbeat=sse.heartbeat_interval,
        max_message_size=websocket.max_message_size,
        router=RouterConfig(max_channels=realtime.max_channels, presence_limit=realtime.presence_limit),
    )


def endpoint_config(settings: Settings) -> EndpointConfig:
    """Return what of the settings concerns the endpoints and the connections to them."""
    realtime, websocket, sse = settings.realtime, settings.websocket, settings.sse
    return EndpointConfig(
        prefix=realtime.prefix,
        websocket_enabled=websocket.enabled,
        sse_enabled=sse.enabled,
        allow_anonymous=realtime.allow_anonymous,
        sse_retry=sse.retry_timeout,
        websocket=WebSocketConfig(
            max_message_size=websocket.max_message_size,
            ping_interval=websocket.heartbeat_interval,
            pong_timeout=websocket.disconnect_timeout,
            handshake_timeout=websocket.handshake_timeout,
        ),
        # Room for a few of the largest messages, whatever the number of small ones.
        max_backlog=4 * websocket.max_message_size,
        max_waiting=websocket.message_queue_size,
    )


def check_bind(host: str, settings: Settings) -> None:
    """Refuse to listen where strangers could come in, unless that is wanted.

    Args:
        host: The address or the name to listen on. Of the names only ``localhost`` counts as loopback: what
            another resolves to is not for us to trust.
        settings: Whether anonymous users are allowed.

    Raises:
        SettingsError: `host` is not loopback and anonymous users are not allowed.
    """
    if settings.realtime.allow_anonymous or _is_loopback(host):
        return
    raise SettingsError(
        f"{_shown(host)} is not a loopback address and no authentication is required: "
        "listen on 127.0.0.1, ::1 or localhost, or set REALTIME_ALLOW_ANONYMOUS=true to let anybody in"
    )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(re.sub(r"^\[(.*)\]$", r"\1", host))
    except ValueError:
        return False
    # ::ffff:127.0.0.1 is a way to write 127.0.0.1, which is_loopback knows from Python 3.13 on.
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


@attrs.frozen
class _Given:
    """A value from outside, and its name as the user wrote it."""

    value: object
    name: str

    def checked(self, option: OptionInfo) -> object:
        attribute = attrs.fields_dict(option.parent_cls)[option.name]
        value = self.value
        if value == "" and type(None) in get_args(option.cls):
            value = None
        try:
            value = _CONVERTER.structure(value, option.cls)
            if callable(attribute.converter):
                value = attribute.converter(value)
            if attribute.validator is not None:
                attribute.validator(None, attribute, value)
        except (TypeError, ValueError):
            allowed = attribute.metadata[_ALLOWED]
            raise SettingsError(f"{self.name} is {_shown(self.value)}; allowed: {allowed}") from None
        return value


@attrs.frozen
class _Variables:
    """A loader of variables, those of the environment or those of a ``.env`` file."""

    variables: Mapping[str, str]
    where: str = ""

    def __call__(self, settings_cls: type, options: OptionList) -> LoadedSettings:
        values: SettingsDict = {}
        names = ts.EnvLoader(prefix="")
        for option in options:
            name = names.get_envvar(option)
            if name in self.variables:
                set_path(values, option.path, _Given(self.variables[name], f"{self.where}{name}"))
        return LoadedSettings(values, LoaderMeta(self))


@attrs.frozen
class _TomlFile:
    """A loader of a TOML file that must exist and must not hold what nobody would read."""

    path: Path
    shown: str

    def __call__(self, settings_cls: type, options: OptionList) -> LoadedSettings:
        sections: dict[str, list[str]] = {}
        for option in options:
            section, key = option.path.split(".")
            sections.setdefault(section, []).append(key)
        values: SettingsDict = {}
        for section, table in self._read(settings_cls, options).items():
            if section not in sections:
                known = ", ".join(f"[{name}]" for name in sections)
                raise SettingsError(f"{self.shown}: {_shown(section)} is not known; allowed: {known}")
            if not isinstance(table, dict):
                raise SettingsError(f"{self.shown}: {section} is {_shown(table)}; allowed: a table, [{section}]")
            for key, value in table.items():
                if key not in sections[section]:
                    known = ", ".join(sections[section])
                    raise SettingsError(f"{self.shown}: [{section}] {_shown(key)} is not known; allowed: {known}")
                set_path(values, f"{section}.{key}", _Given(value, f"{self.shown}: [{section}] {key}"))
        return LoadedSettings(values, LoaderMeta(self))

    def _read(self, settings_cls: type, options: OptionList) -> SettingsDict:
        try:
            return ts.TomlFormat(None)(self.path, settings_cls, options)
        except (ConfigFileLoadError, OSError, UnicodeError) as error:
            raise SettingsError(f"{self.shown}: cannot be read: {error}; allowed: a TOML file") from error


def _read_dotenv(path: Path) -> dict[str, str]:
    try:
        values = dotenv_values(path)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f".env: cannot be read: {error}; allowed: lines of NAME=value") from error
    # A name without "=" has no value; a shell would not set such a variable either.
    return {name: value for name, value in values.items() if value is not None}


def _check(settings_dict: SettingsDict, settings_cls: type, options: OptionList) -> SettingsDict:
    for option in options:
        given = get_path(settings_dict, option.path)
        if isinstance(given, _Given):
            set_path(settings_dict, option.path, given.checked(option))
    return settings_dict


# Stricter than int(), float() and str() where a TOML file gives a value of another type: 1.5 connections,
# `true` seconds and a number for a path are mistakes.
def _to_int(value: object, _: type[int]) -> int:
    if isinstance(value, str) or type(value) is int:
        return int(value)
    raise ValueError("not a whole number")


def _to_float(value: object, _: type[float]) -> float:
    if isinstance(value, str) or type(value) in (int, float):
        return float(cast("str | float", value))
    raise ValueError("not a number")


def _to_str(value: object, _: type[str]) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("not a string")


def _converter() -> cattrs.Converter:
    converter: Any = ts.default_converter()
    converter.register_structure_hook(int, _to_int)
    converter.register_structure_hook(float, _to_float)
    converter.register_structure_hook(str, _to_str)
    return cast(cattrs.Converter, converter)


_CONVERTER: Final = _converter()
