"""The kinds of settings: their defaults, their ranges, and what is said to be allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from ipaddress import ip_network
from typing import Any, Final, cast
from urllib.parse import urlsplit

import attrs
from attrs.validators import and_, deep_iterable, ge, instance_of, le, matches_re, optional

from rtcore import Refusal
from rtcore.media_types import is_media_range
from rtcore.patterns import MAX_PATTERN, is_pattern
from rtcore.permissions import grant_of_scopes
from rtcore.signaling.ice_servers import has_credentials, is_stun_url, is_turn_url
from rtcore_adapters.stores.urls import is_store_url
from rtcore_transports.origins import OriginPattern

from .errors import shown

__all__ = [
    "ALLOWED",
    "CREDENTIALS",
    "HIDDEN",
    "SECRET",
    "channel_pattern",
    "count",
    "count_or_none",
    "file_or_none",
    "header_name",
    "lack_credentials",
    "media_ranges",
    "name",
    "name_or_none",
    "networks",
    "number",
    "one_of",
    "one_of_or_none",
    "origins",
    "path",
    "patterns",
    "patterns_or_none",
    "rate_or_none",
    "scopes",
    "seconds",
    "seconds_or_none",
    "secret",
    "secret_or_none",
    "some_of",
    "store_url_or_none",
    "stun_urls",
    "switch",
    "switch_or_none",
    "text_or_none",
    "token_or_none",
    "turn_urls",
    "url_or_none",
]

#: Where a field says in words what is allowed.
ALLOWED: Final = "rtcore.allowed"

#: Where a field has the pattern of what is not to be seen of its value.
SECRET: Final = "rtcore.secret"

#: The pattern of what is not to be seen at all.
HIDDEN: Final = re.compile(r"(?s).+")

# What comes before the host of a URL. Greedy, so that no part of a password remains, wherever its "@" is.
_USER: Final = re.compile(r"(?s)(?<=//).*(?=@)")

# That, and options that a store does not have, since keys may be among them.
_STORE_SECRETS: Final = re.compile(rf"{_USER.pattern}|(?<=[?&])(?!endpoint=|region=)[^&']*")

#: What TURN servers need, in words.
CREDENTIALS: Final = (
    "URLs with USER:PASSWORD@ before the host, or any where WEBRTC_TURN_SECRET says what they share with us"
)

# A day: longer is a mistake in the unit. It also keeps 2.5 heartbeats, the patience of our clients, well
# under the 2**31 - 1 milliseconds above which a browser's setTimeout fires at once.
_DAY: Final = 86_400

_MOST: Final = 2**31 - 1

_INHERITED: Final = "what holds for all channels"


def _field(default: object, allowed: str, validator: Any = None, *, nothing: str = "") -> Any:
    if default is None or nothing:
        allowed += f", or nothing for {nothing}"
        validator = None if validator is None else optional(validator)
    return attrs.field(default=default, validator=validator, metadata={ALLOWED: allowed})


def _number(default: float | None, kind: str, low: float, high: float, unit: str, **more: str) -> Any:
    return _field(default, f"{kind} from {low:g} to {high}{unit}", and_(ge(low), le(high)), **more)


# As attrs.field() does, these claim to return the default: that is what a class body wants to hear.
def count(default: int, *, low: int = 1, high: int = _MOST, unit: str = "") -> int:
    """Define a whole number."""
    return cast(int, _number(default, "a whole number", low, high, unit))


def count_or_none(
    default: int | None = None, *, low: int = 1, high: int = _MOST, unit: str = "", nothing: str = _INHERITED
) -> int | None:
    """Define a whole number that need not be given, or can be taken away."""
    return cast("int | None", _number(default, "a whole number", low, high, unit, nothing=nothing))


def number(default: float, low: float, high: float, unit: str) -> float:
    """Define a number of some unit."""
    return cast(float, _number(default, "a number", low, high, unit))


def seconds(default: float, *, low: float = 0.001, high: float = _DAY) -> float:
    """Define a time in seconds."""
    return cast(float, _number(default, "a number", low, high, " (seconds)"))


def seconds_or_none(*, low: float = 0.001, high: float = _DAY) -> float | None:
    """Define a time in seconds that need not be given."""
    return cast("float | None", _number(None, "a number", low, high, " (seconds)", nothing=_INHERITED))


def rate_or_none(unit: str) -> float | None:
    """Define a rate, of so many `unit` a second, that need not be given."""
    return cast("float | None", _number(None, "a number", 0.001, _MOST, f" ({unit} a second)", nothing="no limit"))


def switch(default: bool) -> bool:
    """Define what is on or off."""
    return cast(bool, _field(default, _SWITCH))


def switch_or_none() -> bool | None:
    """Define what is on or off and need not be given."""
    return cast("bool | None", _field(None, _SWITCH, nothing=_INHERITED))


def text_or_none() -> str | None:
    """Define a text that need not be given."""
    return cast("str | None", _field(None, "a text", nothing=_INHERITED))


def name() -> str:
    """Define a name, which must be given."""
    return attrs.field(validator=_is_name, metadata={ALLOWED: _NAME})


def name_or_none(nothing: str) -> str | None:
    """Define a name that need not be given."""
    return cast("str | None", _field(None, _NAME, _is_name, nothing=nothing))


def header_name(default: str) -> str:
    """Define the name of a header (RFC 9110, section 5.1)."""
    return cast(str, _field(default, f"the name of a header, such as {default}", matches_re(_TOKEN)))


def token_or_none(what: str) -> str | None:
    """Define what is a token in HTTP (RFC 9110, section 5.6.2) and need not be given."""
    return cast("str | None", _field(None, what, matches_re(_TOKEN), nothing="none"))


def file_or_none() -> str | None:
    """Define the path of a file that need not be given."""
    # Whoever takes it for the file's content is not to find a private key in a log.
    return cast(
        "str | None",
        _secret_field(None, "the path of a PEM file, or nothing for none", _is_path, re.compile(r"(?s).*-----.*")),
    )


def url_or_none(example: str) -> str | None:
    """Define a URL of HTTP that need not be given."""
    allowed = f"a URL such as {example}, without a user, or nothing for none"
    return cast("str | None", _secret_field(None, allowed, _is_http_url, _USER))


def store_url_or_none(nothing: str) -> str | None:
    """Define where files are kept."""
    allowed = (
        "a URL such as file:///srv/files or s3://bucket/prefix?endpoint=https://s3.example.org&region=eu, "
        f"without a user, or nothing for {nothing}"
    )
    return cast("str | None", _secret_field(None, allowed, is_store_url, _STORE_SECRETS))


def secret(longest: int = 255) -> str:
    """Define a secret, which must be given."""
    return cast(str, _secret_field(attrs.NOTHING, _printable(longest), _is_secret(longest), HIDDEN))


def secret_or_none(longest: int = 255) -> str | None:
    """Define a secret that need not be given."""
    allowed = f"{_printable(longest)}, or nothing for none"
    return cast("str | None", _secret_field(None, allowed, _is_secret(longest), HIDDEN))


def _printable(longest: int) -> str:
    return f"1 to {longest} letters, digits and other printable characters of ASCII"


def _secret_field(default: Any, allowed: str, fits: Callable[[str], bool], secret: re.Pattern[str]) -> Any:
    # As the validators of attrs, but its message shows no value.
    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not (value is None and default is None) and not (isinstance(value, str) and fits(value)):
            raise ValueError(f"{attribute.name!r} must be {allowed}")

    return attrs.field(
        default=default, validator=check, repr=secret is not HIDDEN, metadata={ALLOWED: allowed, SECRET: secret}
    )


def stun_urls() -> tuple[str, ...]:
    """Define where STUN servers are."""
    return _urls(is_stun_url, "stun:stun.example.org:3478")


def turn_urls() -> tuple[str, ...]:
    """Define where TURN servers are."""
    # As greedy as it is, no part of a password remains, wherever its "@" or its comma is.
    return _urls(is_turn_url, "turn:turn.example.org:3478?transport=udp", secret=re.compile(r"(?s)(?<=:).*(?=@)"))


def lack_credentials(turn_servers: Iterable[str], secret: str | None) -> bool:
    """Tell whether some of the TURN servers are such as no browser would take.

    With one that has no username or no credential, the constructor of ``RTCPeerConnection`` throws an
    ``InvalidAccessError`` (W3C WebRTC, section 4.4.1): nobody could call anybody.
    """
    return secret is None and not all(map(has_credentials, turn_servers))


def origins() -> tuple[str, ...]:
    """Define whose web pages may come."""
    return _texts(_is_origin, "origins such as https://example.org or https://*.example.org, null, or * for any")


def networks() -> tuple[str, ...]:
    """Define networks, of addresses of IP."""
    return _texts(_is_network, "addresses or networks such as 10.0.0.0/8")


def some_of(words: Iterable[str], default: str) -> tuple[str, ...]:
    """Define a list of some words of a few, at least one."""
    known = tuple(words)
    allowed = f"some of {', '.join(known)}, with commas between them"
    return cast("tuple[str, ...]", _list(known.__contains__, allowed, default=(default,), least=1))


def media_ranges() -> tuple[str, ...]:
    """Define of what media types files may be (RFC 9110, section 12.5.1), in lower case."""
    allowed = "media types such as */*, image/* or application/pdf, with commas between them"
    field = _list(is_media_range, allowed, default=("*/*",), least=1, converter=_in_lower_case)
    return cast("tuple[str, ...]", field)


def patterns() -> tuple[str, ...]:
    """Define patterns of names."""
    return cast("tuple[str, ...]", _list(is_pattern, _PATTERNS))


def patterns_or_none(otherwise: str) -> tuple[str, ...] | None:
    """Define patterns of names that need not be given."""
    allowed = f"{_PATTERNS}, or left out for {otherwise}"
    return cast("tuple[str, ...] | None", _list(is_pattern, allowed, default=None))


def scopes() -> tuple[str, ...]:
    """Define what an API key allows."""
    allowed = (
        "a list of scopes, each * for everything, or ACTION or ACTION:PATTERN, such as publish:news:*, "
        "with ACTION subscribe, publish, history, presence, upload, signal or admin"
    )

    def check(_: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
        if isinstance(grant_of_scopes(value), Refusal):
            raise ValueError(f"{attribute.name!r} must be {allowed}: {shown(value)}")

    return attrs.field(
        default=cast("tuple[str, ...]", ("*",)), validator=and_(instance_of(tuple), check), metadata={ALLOWED: allowed}
    )


def channel_pattern() -> str:
    """Define a pattern of names of channels, which must be given."""
    allowed = f"1 to {MAX_PATTERN} printable characters, where * stands for any, such as chat:*"
    return attrs.field(validator=_is_channel_pattern, metadata={ALLOWED: allowed})


def path(default: str) -> str:
    """Define the path under which everything is served."""
    # RFC 3986, section 3.3, allows more in a path. These need no escaping in a URL, a shell or a proxy's
    # configuration, and "." and ".." are left out because clients resolve them away.
    return attrs.field(
        default=default,
        converter=_normalised_path,
        validator=matches_re(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*"),
        metadata={ALLOWED: "a path such as /realtime, of letters, digits and - . _ ~ between slashes"},
    )


def one_of(kind: type[Enum]) -> dict[str, str]:
    """Describe a field that is one of a few words."""
    return {ALLOWED: _words(kind)}


def one_of_or_none(kind: type[Enum], *, but: Enum | None = None) -> dict[str, str]:
    """Describe a field that is one of a few words, `but` not that one, and need not be given."""
    return {ALLOWED: f"{_words(kind, but)}, or nothing for {_INHERITED}"}


def _words(kind: type[Enum], but: Enum | None = None) -> str:
    *words, last = (str(member.value) for member in kind if member is not but)
    return f"{', '.join(words)} or {last}"


def _urls(fits: Callable[[str], bool], example: str, *, secret: re.Pattern[str] | None = None) -> tuple[str, ...]:
    return _texts(fits, f"URLs such as {example}", secret=secret)


def _texts(fits: Callable[[str], bool], what: str, *, secret: re.Pattern[str] | None = None) -> tuple[str, ...]:
    allowed = f"{what}, with commas between them, or nothing for none"
    return cast("tuple[str, ...]", _list(fits, allowed, secret=secret))


def _list(
    fits: Callable[[str], bool],
    allowed: str,
    *,
    default: tuple[str, ...] | None = (),
    least: int = 0,
    secret: re.Pattern[str] | None = None,
    converter: Callable[[Any], Any] | None = None,
) -> Any:
    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not (isinstance(value, str) and fits(value)):
            raise ValueError(f"{attribute.name!r} must be {allowed}: {shown(value, secret=secret)}")

    def check_size(_: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
        if len(value) < least:
            raise ValueError(f"{attribute.name!r} must be {allowed}: none")

    validator = and_(deep_iterable(check, instance_of(tuple)), check_size)
    return attrs.field(
        default=default,
        converter=converter,
        validator=optional(validator) if default is None else validator,
        repr=secret is None,
        metadata={ALLOWED: allowed, SECRET: secret},
    )


_NAME: Final = "1 to 255 printable characters"

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}"

_PATTERNS: Final = f"a list of patterns, of 1 to {MAX_PATTERN} printable characters each, such as chat:*"

_SWITCH: Final = "true or false (also 1 or 0, yes or no, on or off)"


def _is_name(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not (isinstance(value, str) and 1 <= len(value) <= 255 and value.isprintable()):
        raise ValueError(f"{attribute.name!r} must be {attribute.metadata[ALLOWED]}: {shown(value)}")


def _is_channel_pattern(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not is_pattern(value):
        raise ValueError(f"{attribute.name!r} must be {attribute.metadata[ALLOWED]}: {value!r}")


def _is_secret(longest: int) -> Callable[[str], bool]:
    # Without spaces: the text of a key, as of one for verifying that everybody may have, cannot be meant.
    return lambda value: re.fullmatch(rf"[!-~]{{1,{longest}}}", value) is not None


def _is_path(value: str) -> bool:
    return 1 <= len(value) <= 4096 and value.isprintable() and "-----" not in value


def _is_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return (
            value.isascii()
            and re.search(r"\s", value) is None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and parts.port != 0
        )
    except ValueError:
        return False


def _is_origin(value: str) -> bool:
    try:
        OriginPattern.read(value)
    except ValueError:
        return False
    return True


def _in_lower_case(values: Any) -> Any:
    # "The type and subtype tokens are case-insensitive." (RFC 9110, section 8.3.1). What is no list is refused later.
    if not isinstance(values, tuple):
        return values
    return tuple(value.lower() if isinstance(value, str) else value for value in values)


def _is_network(value: str) -> bool:
    try:
        ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def _normalised_path(written: str) -> str:
    inside = written.strip("/")
    return f"/{inside}" if inside else ""
