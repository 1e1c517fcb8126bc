"""What the handlers of the HTTP API share: they read JSON, and answer with JSON or a refusal."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import anyio
import attrs
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from rtcore import Message, Refusal
from rtcore.json_values import decode_value
from rtcore.router import Published

from .errors import RefusalError, json_response

__all__ = ["BodyLimits", "BodyReader", "answer", "length_of", "read_json", "receipt", "refuse_encoded", "refused"]

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
    refuse_encoded(request)
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
    if (length_of(request) or 0) > limits.max_size:
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


def refuse_encoded(request: Request) -> None:
    """Raise `RefusalError` where the body is compressed: what is may be a thousand times as large."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _unread("unsupported_media_type", "send the body without 'Content-Encoding'", status=415)


def length_of(request: Request) -> int | None:
    """Return how many bytes the body of a request is said to have, or ``None`` where nothing is said."""
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        return None
    return int(length) if len(length) <= _MAX_DIGITS else 10**_MAX_DIGITS


class BodyReader:
    """Reads a body piece by piece, however long it takes as long as it goes on.

    Args:
        request: Whose body has not been read.
        too_large: What to refuse it with.
        max_size: The most bytes that it may have.
        timeout: Seconds for which it may stop.

    Raises:
        RefusalError: It is said to be larger.
    """

    def __init__(self, request: Request, too_large: Refusal, *, max_size: int, timeout: float) -> None:
        if (length_of(request) or 0) > max_size:
            raise RefusalError(too_large)
        self._receive = request.receive
        self._too_large = too_large
        self._left = max_size
        self._timeout = timeout
        self._is_complete = False

    async def read(self) -> bytes:
        """Return the next piece, or nothing at the end.

        Raises:
            RefusalError: It is larger than it may be, or has stopped.
            ClientDisconnect: It ends too early.
        """
        piece = b""
        while not piece and not self._is_complete:
            with anyio.move_on_after(self._timeout) as waiting:
                message = await self._receive()
            if waiting.cancelled_caught:
                raise refused("request_timeout", f"the request's body stopped for {self._timeout:g} s", status=408)
            if message["type"] != "http.request":
                raise ClientDisconnect
            piece = message.get("body", b"")
            self._is_complete = not message.get("more_body", False)
        self._left -= len(piece)
        if self._left < 0:
            raise RefusalError(self._too_large)
        return piece


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
