"""The HTTP API: publish, look, and close, as JSON. Every host serves these same routes."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rtcore import CloseCode, Message, NotificationMessage, Refusal
from rtcore.channels import BROADCAST
from rtcore.messages import RESERVED_EVENTS, RESERVED_TYPES, check_channel, decode_value, normalize_user_id, with_type
from rtcore.router import Published
from rtcore_transports import Driver

from .errors import RefusalError, json_response, refusal_response
from .pages import CONTENT_TYPES, page

__all__ = ["HttpApi"]

_TARGETS: Final = ("channel", "user_id", "recipient_id", "connection_id")
_NOTIFICATION_FIELDS: Final = ("title", "content", "type", "auto_hide", "duration")


class HttpApi:
    """The handlers of the HTTP API.

    Args:
        driver: Whose node it publishes to and tells about.
        max_body_size: The most bytes in the body of one request.
    """

    def __init__(self, driver: Driver, *, max_body_size: int) -> None:
        self._driver = driver
        self._max_body_size = max_body_size

    def routes(self) -> list[Route]:
        """Return all routes, below the prefix."""
        return [
            Route("/send", self.send, methods=["POST"]),
            Route("/broadcast", self.broadcast, methods=["POST"]),
            Route("/notifications/send", self.notify_user, methods=["POST"]),
            Route("/notifications/channel", self.notify_channel, methods=["POST"]),
            Route("/notifications/broadcast", self.notify_everybody, methods=["POST"]),
            Route("/channels", self.channels),
            Route("/channels/{channel:path}/presence", self.presence),
            Route("/connections", self.connections),
            Route("/connections/{connection_id}", self.close_connection, methods=["DELETE"]),
            Route("/stats", self.stats),
            Route("/health", self.health),
            Route("/test", self.test_page),
            Route("/sse-test", self.sse_test_page),
            Route("/assets/{name}", self.asset),
        ]

    # Publishing

    async def send(self, request: Request) -> Response:
        """POST /send: one message to a channel, a user or a connection."""
        body = await self._body(request)
        fields = body if isinstance(body, dict) else {}
        targets = [name for name in _TARGETS if fields.get(name) is not None]
        if len(targets) != 1:
            raise _refused("missing_target", "name one target: 'channel', 'user_id' or 'connection_id'")
        target = fields[targets[0]]
        if targets[0] == "channel":
            message = _publishable(body, "channel_message")
            return _receipt(self._driver.publish(str(target), message))
        message = _publishable(body, "user_message")
        if targets[0] == "connection_id":
            outcome = self._driver.publish_to_connection(str(target), message)
            if isinstance(outcome, Refusal):
                raise RefusalError(outcome)
            return _receipt(outcome)
        return _receipt(self._driver.publish_to_user(_user_id(target), message))

    async def broadcast(self, request: Request) -> Response:
        """POST /broadcast: one message to everybody."""
        message = _publishable(await self._body(request), "broadcast")
        return _receipt(self._driver.publish(BROADCAST, message))

    async def notify_user(self, request: Request) -> Response:
        """POST /notifications/send: a notification to ``user_id``."""
        body = await self._body(request)
        message = _notification(body)
        return _receipt(self._driver.publish_to_user(_user_id(_field(body, "user_id")), message))

    async def notify_channel(self, request: Request) -> Response:
        """POST /notifications/channel: a notification to ``channel``."""
        body = await self._body(request)
        channel = _field(body, "channel")
        if refusal := check_channel(channel):
            raise RefusalError(refusal)
        message = {**_notification(body), "channel": channel}
        return _receipt(self._driver.publish(str(channel), message))

    async def notify_everybody(self, request: Request) -> Response:
        """POST /notifications/broadcast: a notification to everybody."""
        return _receipt(self._driver.publish(BROADCAST, _notification(await self._body(request))))

    # Looking and closing

    async def channels(self, request: Request) -> Response:
        """GET /channels: the channels in use."""
        return json_response({"channels": self._driver.node.channels()})

    async def presence(self, request: Request) -> Response:
        """GET /channels/{channel}/presence: who is there."""
        channel = request.path_params["channel"]
        if refusal := check_channel(channel):
            raise RefusalError(refusal)
        return json_response(self._driver.node.presence(channel))

    async def connections(self, request: Request) -> Response:
        """GET /connections: all connections."""
        return json_response({"connections": self._driver.node.connections()})

    async def close_connection(self, request: Request) -> Response:
        """DELETE /connections/{connection_id}: close one by force; it is told not to come back."""
        connection_id = request.path_params["connection_id"]
        if not self._driver.close(connection_id, CloseCode.NORMAL_CLOSURE, "closed by the server's operator"):
            raise _refused("not_found", f"there is no connection {connection_id!r}", status=404)
        return json_response({"connection_id": connection_id, "closed": True})

    async def stats(self, request: Request) -> Response:
        """GET /stats: counts."""
        return json_response(self._driver.stats())

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while the server takes connections, 503 once it is about to stop."""
        if self._driver.node.draining:
            return refusal_response(
                Refusal("draining", "the server is about to stop: ask another one", 503, retry_after=5)
            )
        return json_response({"status": "ok", "live": True, "ready": True})

    # Test pages

    async def test_page(self, request: Request) -> Response:
        """GET /test: the WebSocket test page."""
        return _page("test.html")

    async def sse_test_page(self, request: Request) -> Response:
        """GET /sse-test: the event stream test page."""
        return _page("sse-test.html")

    async def asset(self, request: Request) -> Response:
        """GET /assets/{name}: what the test pages load."""
        return _page(request.path_params["name"])

    async def _body(self, request: Request) -> object:
        """Return the JSON of a request's body, any value."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise _refused("unsupported_media_type", "send the header 'Content-Type: application/json'", status=415)
        body = bytearray()
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > self._max_body_size:
                    limit = self._max_body_size
                    raise _refused("body_too_large", f"a request's body has at most {limit} bytes", status=413)
        value = decode_value(bytes(body))
        if isinstance(value, Refusal):
            raise RefusalError(value)
        return value


def _refused(code: str, message: str, status: int = 422) -> RefusalError:
    return RefusalError(Refusal(code, message, status))


def _publishable(body: object, default_type: str) -> Message:
    message = with_type(body, default_type)
    if isinstance(message, Refusal):
        raise RefusalError(message)
    kind = message["type"]
    if kind in (RESERVED_TYPES | {"command"}) - {default_type}:
        raise _refused(
            "reserved_type", f"messages of type {kind!r} come from the server only: choose another type", 403
        )
    if message.get("event") in RESERVED_EVENTS:
        event = message["event"]
        raise _refused("reserved_event", f"events named {event!r} come from the server only: choose another name", 403)
    return message


def _field(body: object, name: str) -> object:
    value = body.get(name) if isinstance(body, dict) else None
    if value is None:
        raise _refused("missing_target", f"name the {name!r} it is for")
    return value


def _user_id(value: object) -> str:
    user_id = normalize_user_id(value)
    if isinstance(user_id, Refusal):
        raise RefusalError(user_id)
    return user_id


def _notification(body: object) -> Message:
    if not isinstance(body, dict):
        raise _refused("invalid_notification", "a notification is an object with 'title' and 'content'")
    try:
        fields = {name: body[name] for name in _NOTIFICATION_FIELDS if name in body}
        return NotificationMessage(**fields).to_message()
    except (TypeError, ValueError) as error:
        # The first argument of attrs' errors is what people may read.
        raise _refused("invalid_notification", f"a notification is wrong: {error.args[0]}") from None


def _receipt(published: Published) -> Response:
    return json_response({"id": published.id, "offset": published.offset, "epoch": published.epoch})


def _page(name: str) -> Response:
    if name not in CONTENT_TYPES:
        raise _refused("not_found", f"there is no asset {name!r}", status=404)
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    return Response(page(name), headers=headers, media_type=CONTENT_TYPES[name])
