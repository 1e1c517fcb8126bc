"""What the handlers of the HTTP API share: they read JSON, and answer with JSON or a refusal."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import anyio
import attrs
from starlette.requests import Request
from starlette.responses import Response

from rtcore import Message, Refusal
from rtcore.messages import decode_value
from rtcore.router import Published

from .errors import RefusalError, json_response

__all__ = ["BodyLimits", "answer", "read_json", "receipt", "refused"]

# Python refuses to convert thousands of digits; no body is so long.
_MAX_DIGITS: Final = 18


@attrs.frozen
class BodyLimits:
    """What the body of a request may be.

    Attributes:
        max_size: The most bytes in it.
        timeout: Seconds in which all of it must have come.
    """

    max_size: int
    timeout: float = 30.0


async def read_json(request: Request, limits: BodyLimits, *, empty: object = None) -> object:
    """Return the JSON of a request's body, any value.

    Where a field is there twice, the last one counts, for what is decided as for what is done.

    Args:
        request: Whose body has not been read.
        limits: What it may be.
        empty: What no body at all stands for; without it there must be one.

    Raises:
        RefusalError: It is no JSON, too large or too slow.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        # What is compressed may be a thousand times as large.
        raise _unread("unsupported_media_type", "send the body without 'Content-Encoding'", status=415)
    is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    body = await _read(request, limits) if is_json or empty is not None else b""
    if not body and empty is not None:
        return empty
    if not is_json:
        # Anything else a page of another origin could send without asking first (WHATWG Fetch, section 2.2.2).
        raise _unread("unsupported_media_type", "send the header 'Content-Type: application/json'", status=415)
    value = decode_value(body)
    if isinstance(value, Refusal):
        raise RefusalError(value)
    return value


async def _read(request: Request, limits: BodyLimits) -> bytes:
    too_large = _unread("body_too_large", f"a request's body has at most {limits.max_size} bytes", status=413)
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) <= _MAX_DIGITS and int(length) > limits.max_size:
        raise too_large
    body = bytearray()
    with anyio.move_on_after(limits.timeout) as waiting:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limits.max_size:
                    raise too_large
    if waiting.cancelled_caught:
        text = f"the request's body was not complete after {limits.timeout:g} s"
        raise refused("request_timeout", text, status=408)
    return bytes(body)


def refused(code: str, message: str, status: int = 422) -> RefusalError:
    """Return the exception that answers a request with an error."""
    return RefusalError(Refusal(code, message, status))


def _unread(code: str, message: str, status: int) -> RefusalError:
    return RefusalError(Refusal(code, message, status), unread=True)


def answer(outcome: Message | Refusal, *, status: int = 200) -> Response:
    """Return the response of `outcome`.

    Raises:
        RefusalError: It is a refusal.
    """
    if isinstance(outcome, Refusal):
        raise RefusalError(outcome)
    return json_response(outcome, status=status)


def receipt(outcome: Published | Refusal) -> Response:
    """Return the response to a publication, likewise."""
    if isinstance(outcome, Refusal):
        raise RefusalError(outcome)
    return json_response({"id": outcome.id, "offset": outcome.offset, "epoch": outcome.epoch})
