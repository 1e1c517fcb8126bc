"""Values from outside: their names as they were written, what they become, and what is said of those that cannot be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeVar, cast, get_args, get_type_hints

import attrs
import cattrs
import typed_settings as ts

from rtcore.json_values import decode_value
from rtcore.namespaces import Access, SlowConsumer

from .credentials import ApiKeySettings, RoleSettings
from .errors import SettingsError, shown
from .fields import ALLOWED, HIDDEN, SECRET
from .tables import NamespaceSettings

__all__ = ["CONVERTER", "LISTS", "Given", "GivenList", "ListKind"]

EnumT = TypeVar("EnumT", bound=Enum)


@attrs.frozen
class Given:
    """A value from outside, and its name as the user wrote it."""

    value: object
    name: str

    def checked(self, attribute: attrs.Attribute[object], kind: object) -> object:
        """Return what it becomes, or raise `SettingsError`."""
        value = self.value
        if value == "" and type(None) in get_args(kind):
            value = None
        try:
            value = CONVERTER.structure(value, cast(type, kind))
            if callable(attribute.converter):
                value = attribute.converter(value)
            if attribute.validator is not None:
                attribute.validator(None, attribute, value)
        except (TypeError, ValueError):
            raise self.refused(attribute, attribute.metadata[ALLOWED]) from None
        return value

    def refused(self, attribute: attrs.Attribute[object], allowed: str) -> SettingsError:
        """Return the error that says what is allowed instead."""
        value = shown(self.value, secret=attribute.metadata.get(SECRET))
        return SettingsError(f"{self.name} is {value}; allowed: {allowed}")


@attrs.frozen
class ListKind:
    """What a setting that is a list of tables is a list of.

    Attributes:
        row: The class of each.
        table: What it is called in TOML: ``[[table]]``.
        example: One of them in JSON.
        identified_by: The field that no two of them have in common, or ``None`` where that is not to be seen.
        texts: The field that a text alone is, or ``None`` if there must be objects.
        secret: What is not to be seen of wrong ones.
    """

    row: type
    table: str
    example: str
    identified_by: str | None = None
    texts: str | None = None
    secret: re.Pattern[str] | None = None


@attrs.frozen
class GivenList:
    """A list of tables from outside, and its name as the user wrote it; `json` if it is still text."""

    value: object
    name: str
    kind: ListKind
    json: bool = False

    def checked(self) -> tuple[object, ...]:
        """Return what they become, or raise `SettingsError`."""
        kind, value = self.kind, self.value
        if self.json:
            value = self._read(str(value))
        if not isinstance(value, list):
            allowed = f"tables, [[{kind.table}]]"
            if self.json:
                allowed = f"a JSON list of objects such as [{kind.example}]"
                allowed += ", or texts with commas between them" if kind.texts else ""
            raise SettingsError(f"{self.name} is {shown(self.value, secret=kind.secret)}; allowed: {allowed}")
        rows: list[Any] = []
        known: set[object] = set()
        for number, table in enumerate(value, 1):
            where = f"{self.name} {number}"
            row = self._row(table, where)
            rows.append(row)
            if (field := kind.identified_by) is not None:
                if (identity := getattr(row, field)) in known:
                    raise SettingsError(
                        f"{where}: {field} is {shown(identity)}, as in another; allowed: each {field} once"
                    )
                known.add(identity)
        return tuple(rows)

    def _read(self, text: str) -> object:
        if self.kind.texts is not None and not text.lstrip().startswith(("[", "{")):
            return [part for part in re.split(r"[\s,]+", text) if part]
        return decode_value(text or "[]")

    def _row(self, table: object, where: str) -> object:
        kind = self.kind
        fields = attrs.fields_dict(kind.row)
        if kind.texts is not None and self.json and isinstance(table, str):
            table = {kind.texts: table}
        if not isinstance(table, dict):
            allowed = f"an object such as {kind.example}" if self.json else f"a table, [[{kind.table}]]"
            raise SettingsError(f"{where} is {shown(table, secret=kind.secret)}; allowed: {allowed}")
        for key in table:
            if key not in fields:
                # Of a key that is a secret by mistake nothing is shown either.
                what = shown(key, secret=kind.secret)
                raise SettingsError(f"{where}: {what} is not known; allowed: {', '.join(fields)}")
        for key, field in fields.items():
            if field.default is attrs.NOTHING and key not in table:
                raise SettingsError(f"{where}: {key} is missing; allowed: {field.metadata[ALLOWED]}")
        kinds = get_type_hints(kind.row)
        values = {key: Given(value, f"{where}: {key}").checked(fields[key], kinds[key]) for key, value in table.items()}
        return kind.row(**values)


_ROWS: Final = (NamespaceSettings, ApiKeySettings, RoleSettings)

#: What is named in TOML unlike all the rest, by their paths: lists of tables.
LISTS: Final[Mapping[str, ListKind]] = {
    "realtime.namespaces": ListKind(
        NamespaceSettings, "namespace", '{"pattern": "chat:*", "history_size": 500}', identified_by="pattern"
    ),
    "ws.roles": ListKind(RoleSettings, "role", '{"name": "staff", "channels": ["staff:*"]}', identified_by="name"),
    "ws.api_keys": ListKind(
        ApiKeySettings, "api_key", '{"key": "…", "scopes": ["publish:news:*"]}', texts="key", secret=HIDDEN
    ),
}


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


# In a variable a list is text: what pydantic's users know, JSON, or what is easier to type, with commas between.
def _to_texts(value: object, kind: object) -> tuple[str, ...] | None:
    if value is None and kind != tuple[str, ...]:
        return None
    if isinstance(value, str):
        read = decode_value(value) if value.lstrip().startswith("[") else None
        value = re.split(r"[\s,]+", value.strip(", \t\r\n")) if read is None else read
        value = [text for text in value if text != ""] if isinstance(value, list) else value
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError("not a list of texts")
    return tuple(value)


# The value and not the name, which is Python's own affair; and what has been checked passes once more.
def _to_enum(value: object, kind: type[EnumT]) -> EnumT:
    return kind(value)


def _to_row(value: object, _: type) -> object:
    assert isinstance(value, _ROWS), "they are made by GivenList"
    return value


def _converter() -> cattrs.Converter:
    converter: Any = ts.default_converter()
    converter.register_structure_hook(int, _to_int)
    converter.register_structure_hook(float, _to_float)
    converter.register_structure_hook(str, _to_str)
    converter.register_structure_hook_func(lambda kind: kind in (tuple[str, ...], tuple[str, ...] | None), _to_texts)
    converter.register_structure_hook(SlowConsumer, _to_enum)
    converter.register_structure_hook(Access, _to_enum)
    for kind in _ROWS:
        converter.register_structure_hook(kind, _to_row)
    return cast(cattrs.Converter, converter)


CONVERTER: Final = _converter()
