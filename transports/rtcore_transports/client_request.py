"""What the clients put into their requests, and how they read a refusal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

import h11
import msgspec

from rtcore import LocalProtocolError, Refusal
from rtcore.handshake import Headers, fault_of
from rtcore.messages import normalize_user_id

__all__ = [
    "as_message",
    "credentials",
    "headers_of",
    "reason_of",
    "refusal_in",
    "shown_url",
    "take_id",
    "user_id_of",
    "with_query",
    "without_query",
]

_MAX_ID: Final = 255


def credentials(token: str | None, api_key: str | None) -> Headers:
    """Return the headers that carry credentials: unlike a query, they do not end up in logs.

    Raises:
        LocalProtocolError: A header cannot carry them.
    """
    headers: list[tuple[bytes, bytes]] = []
    for name, prefix, secret in ((b"authorization", "Bearer ", token), (b"x-api-key", "", api_key)):
        if secret is not None:
            if not (secret and secret.isascii() and secret.isprintable()) or " " in secret:
                # Without the secret itself, for errors do end up in logs.
                raise LocalProtocolError("a token or an API key is one or more ASCII characters without spaces")
            headers.append((name, (prefix + secret).encode()))
    return tuple(headers)


def shown_url(url: str) -> str:
    """Return what may be shown of a URL, or of what was taken for one: neither query nor credentials."""
    return repr(re.sub(r"^([^/]*//)?[^/]*@", r"\1", url.partition("?")[0]))


def with_query(url: str, fields: Sequence[tuple[str, str]]) -> str:
    """Return `url` with more fields in its query.

    Raises:
        LocalProtocolError: It is no URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise LocalProtocolError(f"{shown_url(url)} is not a URL") from None
    query = "&".join(filter(None, [parts.query, urlencode(fields)]))
    return urlunsplit(parts._replace(query=query))


def without_query(url: str, name: str, value: str) -> str:
    """Return `url` without the fields of its query that have that name and value; the rest is untouched."""
    parts = urlsplit(url)
    fields = [field.partition("=") for field in parts.query.split("&")]
    kept = ["".join(field) for field in fields if (unquote_plus(field[0]), unquote_plus(field[2])) != (name, value)]
    return urlunsplit(parts._replace(query="&".join(kept)))


def as_message(payload: object) -> dict[str, object]:
    """Return a new object for a payload: itself, or ``{"data": payload}``."""
    return dict(payload) if isinstance(payload, Mapping) else {"data": payload}


def take_id(message: dict[str, object]) -> object:
    """Return the id that the user has given a message, and write it there as the machine wants it.

    Raises:
        LocalProtocolError: The server would not take it.
    """
    own_id = message.pop("id", None)
    if own_id is None:
        return None
    text = str(own_id) if isinstance(own_id, int) and not isinstance(own_id, bool) else own_id
    if not isinstance(text, str) or len(text) > _MAX_ID:
        raise LocalProtocolError(f"the id of a message is a string of at most {_MAX_ID} characters, or a whole number")
    message["id"] = text
    return own_id


def user_id_of(value: str | int) -> str:
    """Return a user id as text.

    Raises:
        LocalProtocolError: It is none.
    """
    user_id = normalize_user_id(value)
    if isinstance(user_id, Refusal):
        raise LocalProtocolError(user_id.message)
    return user_id


def headers_of(headers: Mapping[str, str]) -> Headers:
    """Return a user's headers as they are sent.

    Raises:
        LocalProtocolError: One is malformed.
    """
    try:
        # h11 checks them, in the company of what every request needs.
        request = h11.Request(method="GET", target="/", headers=[("host", "localhost"), *headers.items()])
    except (h11.LocalProtocolError, UnicodeError) as error:
        raise LocalProtocolError(f"a header cannot be sent: {fault_of(error)}") from None
    return tuple(request.headers)[1:]


def reason_of(error: BaseException) -> str:
    """Return what an error says, or else what the one says that it comes from: on trio those of TLS say it there."""
    at: BaseException | None = error
    while at is not None:
        if text := str(at):
            return text
        at = at.__cause__ or at.__context__
    return type(error).__name__


class _Error(msgspec.Struct):
    code: str
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


def refusal_in(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Read an HTTP error; one of another server's making gets a code made of its status.

    Args:
        status: The status.
        headers: The headers, names in lower case or in any.
        body: The body.
    """
    after = headers.get("retry-after", "")
    retry_after = int(after) if after.isdecimal() and after.isascii() and len(after) < 10 else None
    try:
        error = msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Refusal(f"http_{status}", f"the server answered with HTTP status {status}", status, retry_after)
    return Refusal(error.code, error.message, status, retry_after)
