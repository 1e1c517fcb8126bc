"""Which pages may use the HTTP API: the CORS protocol (WHATWG Fetch, section 3.3) as ASGI middleware."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rtcore_transports import Driver

from .asgi_endpoints import visitor_of
from .errors import refusal_response
from .unread_bodies import skip_body

__all__ = ["Cors"]

_METHODS: Final = b"GET, HEAD, POST, PUT, DELETE"
_REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "If-None-Match", "If-Range", "Last-Event-ID", "Range")
# What a page may read of an answer beside what Fetch lists as safe.
_RESPONSE_HEADERS: Final = (
    b"Accept-Ranges, Allow, Content-Disposition, Content-Range, ETag, Retry-After, WWW-Authenticate"
)
# Seconds. What changes meanwhile holds for requests all the same; browsers keep it for two hours at most.
_MAX_AGE: Final = b"600"
_PREFLIGHT_VARY: Final = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class Cors:
    """Refuses requests of pages whose origin is not allowed, and tells browsers that the others may read the answers.

    A request without the header ``Origin`` does not come from a page of another origin, or changes nothing and has an
    answer that the page cannot read: it is passed on. Nothing is done for a request that is refused.

    Args:
        app: What is behind it.
        driver: Whose gatekeeper knows the origins that are allowed.
    """

    def __init__(self, app: ASGIApp, driver: Driver) -> None:
        self._app = app
        self._driver = driver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        gatekeeper = self._driver.gatekeeper
        visitor = visitor_of(scope, self._driver)
        if refusal := gatekeeper.check_origin(visitor):
            await skip_body(scope, receive)
            await refusal_response(refusal, {"vary": "Origin"})(scope, receive, send)
            return
        # The origin that has passed the check, and never "*", which a browser would not take where it sends cookies.
        fields = gatekeeper.cors_headers(visitor)
        if fields and scope["method"] == "OPTIONS" and _is_preflight(scope):
            allowed = ", ".join([*_REQUEST_HEADERS, gatekeeper.config.api_key_header]).encode()
            fields += [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", allowed),
                (b"access-control-max-age", _MAX_AGE),
                (b"vary", _PREFLIGHT_VARY),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": fields})
            await send({"type": "http.response.body", "body": b""})
            return
        if fields:
            fields.append((b"access-control-expose-headers", _RESPONSE_HEADERS))
        fields.append((b"vary", b"Origin"))

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *fields]}
            await send(message)

        await self._app(scope, receive, add)


def _is_preflight(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])
