"""Errors of the HTTP API: one shape on every path."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rtcore import Refusal, encode
from rtcore_transports.file_store import FileStoreError

from .unread_bodies import skip_body

__all__ = [
    "RefusalError",
    "json_response",
    "refusal_response",
    "respond_to_failure",
    "respond_to_http_exception",
    "respond_to_nobody",
    "respond_to_refusal",
    "respond_to_store",
]

_MESSAGES: Final = {
    404: Refusal("not_found", "there is nothing under this path", status=404),
    405: Refusal("method_not_allowed", "this path does not take this method: see the header Allow", status=405),
}


class RefusalError(Exception):
    """A request that is refused, on its way to the response that says so.

    Args:
        refusal: Why.
        unread: Whether it is refused whatever its body says, which has not been read.
    """

    def __init__(self, refusal: Refusal, *, unread: bool = False) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.unread = unread


def json_response(content: dict[str, object], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `content` as JSON."""
    return Response(encode(content).json, status, headers, "application/json")


def refusal_response(refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    """Return the one shape of all errors, ``{"error": {"code", "message"}}``."""
    headers = dict(headers or {})
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 401:
        # "The server generating a 401 response MUST send a WWW-Authenticate header field" (RFC 9110, section 15.5.2).
        headers["www-authenticate"] = "Bearer"
    return json_response({"error": {"code": refusal.code, "message": refusal.message}}, refusal.status, headers)


async def respond_to_refusal(request: Request, error: Exception) -> Response:
    """Turn a `RefusalError` into its response."""
    assert isinstance(error, RefusalError), "registered for nothing else"
    if error.unread:
        await skip_body(request.scope, request.receive)
    headers = {}
    if error.refusal.status == 408 and request.scope.get("http_version", "1.1").startswith("1"):
        # "the server SHOULD send the "close" connection option [...] in the response, since 408 implies that the server
        # has decided to close the connection rather than continue waiting." (RFC 9110, section 15.5.9)
        headers["connection"] = "close"
    return refusal_response(error.refusal, headers)


async def respond_to_store(request: Request, error: Exception) -> Response:
    """Turn a `FileStoreError` into its response."""
    assert isinstance(error, FileStoreError), "registered for nothing else"
    return await respond_to_refusal(request, RefusalError(error.refusal))


async def respond_to_http_exception(request: Request, error: Exception) -> Response:
    """Turn what Starlette refuses by itself into the shape of ours."""
    assert isinstance(error, HTTPException), "registered for nothing else"
    fallback = Refusal("http_error", error.detail, status=error.status_code)
    return refusal_response(_MESSAGES.get(error.status_code, fallback), dict(error.headers or {}))


async def respond_to_nobody(request: Request, error: Exception) -> Response:
    """Answer a request whose client left before it was complete: where somebody is there after all, it is malformed."""
    return refusal_response(Refusal("incomplete_request", "the request's body ends too early", status=400))


async def respond_to_failure(request: Request, error: Exception) -> Response:
    """Answer where we have failed; Starlette raises the error all the same, so that the host can log it."""
    return refusal_response(Refusal("internal_error", "the server failed to answer this request", status=500))
