"""Credentials as requests bring them, in headers, a cookie or the query, and as a WebSocket's first message does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl

import attrs

from rtcore import Refusal
from rtcore.handshake import Headers
from rtcore.messages import parse, reply_id

from .visitors import Credentials

__all__ = ["MAX_INTRODUCTION", "Introduction", "credentials_in", "read_introduction"]

#: Bytes of the first message of a client of whom nothing else is known: room for the longest token, and some more.
MAX_INTRODUCTION: Final = 16384

_MAX_LENGTH: Final = 8192
_TOKEN: Final = "token"
_API_KEY: Final = "api_key"

_AMBIGUOUS: Final = Refusal(
    "ambiguous_credentials", "there are several different credentials: send one token or one API key", status=400
)
_INVALID_TOKEN: Final = Refusal(
    "invalid_token", f"a token is at most {_MAX_LENGTH} printable ASCII characters", status=401
)
_INVALID_API_KEY: Final = Refusal(
    "invalid_api_key", f"an API key is at most {_MAX_LENGTH} printable ASCII characters", status=401
)
_NOT_AUTHENTICATED: Final = Refusal(
    "unauthorized",
    "the first message must be the command 'authenticate' with a 'token' or an 'api_key' in its 'data', and have at "
    f"most {MAX_INTRODUCTION} bytes",
    status=401,
)


def credentials_in(headers: Headers, query: bytes, *, api_key_header: str, cookie: str | None) -> Credentials | Refusal:
    """Return what a request brings to say who sends it, of which there may be nothing, or why that cannot be.

    Args:
        headers: Of the request, names in lower case.
        query: As it stands in the URL.
        api_key_header: The name of the header that an API key comes in.
        cookie: The name of the cookie that a token comes in, or ``None`` where none counts.
    """
    # In a dictionary, for the order of what has come is that of what is refused.
    found = dict.fromkeys(
        (kind, value) for kind, value in (*_in_headers(headers, api_key_header, cookie), *_in_query(query)) if value
    )
    return _only(tuple(found))


@attrs.frozen
class Introduction:
    """The first message of a client that came without its credential.

    Attributes:
        credentials: What it says who it is by.
        id: Under which it wants an answer, or ``None``.
    """

    credentials: Credentials
    id: str | int | None


def read_introduction(text: str) -> Introduction | Refusal:
    """Read the first message of a client that came without its credential."""
    if len(text) > MAX_INTRODUCTION or len(text.encode("utf-8", "surrogatepass")) > MAX_INTRODUCTION:
        return _NOT_AUTHENTICATED
    message = parse(text)
    if isinstance(message, Refusal) or message["type"] != "command":
        return _NOT_AUTHENTICATED
    command, data = message.get("command"), message.get("data")
    if command not in ("authenticate", "refresh_token") or not isinstance(data, dict):
        return _NOT_AUTHENTICATED
    kinds = (_TOKEN,) if command == "refresh_token" else (_TOKEN, _API_KEY)
    found = [(kind, data[kind]) for kind in kinds if data.get(kind) not in (None, "")]
    if not found or not all(isinstance(value, str) for _, value in found):
        return _NOT_AUTHENTICATED
    credentials = _only(tuple(found))
    return credentials if isinstance(credentials, Refusal) else Introduction(credentials, reply_id(message))


def _only(found: tuple[tuple[str, str], ...]) -> Credentials | Refusal:
    if len(found) > 1:
        return _AMBIGUOUS
    for kind, value in found:
        if len(value) > _MAX_LENGTH or not (value.isascii() and value.isprintable()):
            return _INVALID_TOKEN if kind == _TOKEN else _INVALID_API_KEY
        return Credentials(token=value) if kind == _TOKEN else Credentials(api_key=value)
    return Credentials()


def _in_headers(headers: Headers, api_key_header: str, cookie: str | None) -> Iterator[tuple[str, str]]:
    key_name = api_key_header.lower().encode()
    for name, raw in headers:
        # What is not ASCII is refused below, whatever it was meant to be.
        value = raw.decode("latin-1").strip()
        if name == key_name:
            yield _API_KEY, value
        elif name == b"authorization":
            # "Note that both scheme and parameter names are matched case-insensitively." (RFC 9110, section 11.1).
            # Other schemes are for whoever is between us and the client.
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                yield _TOKEN, token.strip()
        elif name == b"cookie" and cookie is not None:
            for pair in value.split(";"):
                its_name, _, content = pair.strip().partition("=")
                if its_name == cookie:
                    yield _TOKEN, content.strip().strip('"')


def _in_query(query: bytes) -> Iterator[tuple[str, str]]:
    try:
        fields = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="surrogateescape", max_num_fields=2000)
    except ValueError:
        # Whoever reads the rest of the query says so.
        return
    for name, value in fields:
        if name in (_TOKEN, _API_KEY):
            yield name, value
