"""Where settings come from: the environment, ``.env`` and a TOML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints

import attrs
import typed_settings as ts
from dotenv import dotenv_values
from typed_settings.dict_utils import get_path, set_path
from typed_settings.exceptions import ConfigFileLoadError
from typed_settings.loaders import Loader
from typed_settings.types import LoadedSettings, LoaderMeta, OptionList, SettingsDict

from .consistency import lacks_key
from .errors import SettingsError, shown
from .fields import CREDENTIALS, lack_credentials
from .given import CONVERTER, LISTS, Given, GivenList
from .tables import Settings, WebRtcSettings

__all__ = ["load_settings"]


def load_settings(
    *,
    config: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keys_elsewhere: bool = False,
) -> Settings:
    """Load the settings from the environment, ``.env`` and a TOML file; the first of them wins.

    ``.env`` is read from `cwd`. The TOML file is `config`, or else what ``REALTIME_CONFIG`` names, or else
    ``rtcore.toml`` in `cwd` where it exists. Variables that are not ours are ignored; keys of the TOML file
    that are not ours are errors, since nobody else reads that file.

    Args:
        config: The TOML file; relative to `cwd`. It must exist.
        env: The environment; ``os.environ`` by default.
        cwd: The folder to look in; the working directory by default.
        keys_elsewhere: Whether somebody else knows credentials, so that they may be required without a key here.

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
        raise SettingsError(f"{name} is {shown(chosen)}; allowed: the path of a TOML file that exists")
    settings = ts.load_settings(Settings, loaders, processors=[_check], converter=CONVERTER)
    if not keys_elsewhere and (fault := lacks_key(settings)):
        raise SettingsError(fault)
    return settings


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
                value, written = self.variables[name], f"{self.where}{name}"
                kind = LISTS.get(option.path)
                given = Given(value, written) if kind is None else GivenList(value, written, kind, json=True)
                set_path(values, option.path, given)
        return LoadedSettings(values, LoaderMeta(self))


@attrs.frozen
class _TomlFile:
    """A loader of a TOML file that must exist and must not hold what nobody would read."""

    path: Path
    name: str

    def __call__(self, settings_cls: type, options: OptionList) -> LoadedSettings:
        sections: dict[str, list[str]] = {}
        for option in options:
            if option.path not in LISTS:
                section, key = option.path.split(".")
                sections.setdefault(section, []).append(key)
        values: SettingsDict = {}
        for section, table in self._read(settings_cls, options).items():
            if path := _TABLES.get(section):
                name = f"[[{section}]]" if isinstance(table, list) else section
                set_path(values, path, GivenList(table, f"{self.name}: {name}", LISTS[path]))
                continue
            if section not in sections:
                known = ", ".join([*(f"[{name}]" for name in sections), *(f"[[{name}]]" for name in _TABLES)])
                raise SettingsError(f"{self.name}: {shown(section)} is not known; allowed: {known}")
            if not isinstance(table, dict):
                raise SettingsError(f"{self.name}: {section} is {shown(table)}; allowed: a table, [{section}]")
            for key, value in table.items():
                if key not in sections[section]:
                    known = ", ".join(sections[section])
                    raise SettingsError(f"{self.name}: [{section}] {shown(key)} is not known; allowed: {known}")
                set_path(values, f"{section}.{key}", Given(value, f"{self.name}: [{section}] {key}"))
        return LoadedSettings(values, LoaderMeta(self))

    def _read(self, settings_cls: type, options: OptionList) -> SettingsDict:
        try:
            return ts.TomlFormat(None)(self.path, settings_cls, options)
        except (ConfigFileLoadError, OSError, UnicodeError) as error:
            raise SettingsError(f"{self.name}: cannot be read: {error}; allowed: a TOML file") from error


def _read_dotenv(path: Path) -> dict[str, str]:
    try:
        values = dotenv_values(path)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f".env: cannot be read: {error}; allowed: lines of NAME=value") from error
    # A name without "=" has no value; a shell would not set such a variable either.
    return {name: value for name, value in values.items() if value is not None}


def _check(settings_dict: SettingsDict, settings_cls: type, options: OptionList) -> SettingsDict:
    turn_servers = get_path(settings_dict, _TURN_SERVERS)
    for option in options:
        given = get_path(settings_dict, option.path)
        if isinstance(given, Given):
            attribute = attrs.fields_dict(option.parent_cls)[option.name]
            set_path(settings_dict, option.path, given.checked(attribute, option.cls))
        elif isinstance(given, GivenList):
            set_path(settings_dict, option.path, given.checked())
    if isinstance(turn_servers, Given) and lack_credentials(
        get_path(settings_dict, _TURN_SERVERS), get_path(settings_dict, _TURN_SECRET)
    ):
        raise turn_servers.refused(attrs.fields_dict(WebRtcSettings)["turn_servers"], CREDENTIALS)
    _check_together(settings_dict)
    return settings_dict


def _check_together(settings_dict: SettingsDict) -> None:
    kinds = get_type_hints(Settings)
    tables: dict[str, Any] = {section: kinds[section](**table) for section, table in settings_dict.items()}
    try:
        Settings(**tables)
    except ValueError as error:
        raise SettingsError(str(error)) from None


_TURN_SERVERS: Final = "webrtc.turn_servers"
_TURN_SECRET: Final = "webrtc.turn_secret"
_TABLES: Final = {kind.table: path for path, kind in LISTS.items()}
