"""The HTTP API: publish, look, and close, as JSON. Every host serves these same routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rtcore import CloseCode, Message, NotificationMessage, Refusal
from rtcore.channels import BROADCAST, connection_channel, user_channel
from rtcore.messages import RESERVED_EVENTS, RESERVED_TYPES, check_channel, normalize_user_id, with_type
from rtcore.permissions import Action, Identity
from rtcore_transports import Driver

from .errors import RefusalError, json_response, refusal_response
from .guard import Guard
from .http_bodies import BodyLimits, answer, read_json, receipt, refused
from .metrics import CONTENT_TYPE, Exposition
from .pages import CONTENT_TYPES, page

__all__ = ["HttpApi"]

_TARGETS: Final = ("channel", "user_id", "recipient_id", "connection_id")
_HISTORY_NUMBERS: Final = ("limit", "after", "before")
# Python refuses to convert thousands of them; no offset has so many.
_MAX_DIGITS: Final = 18
_NOTIFICATION_FIELDS: Final = ("title", "content", "type", "auto_hide", "duration")


class HttpApi:
    """The handlers of the HTTP API.

    Args:
        driver: Whose node it publishes to and tells about.
        limits: What the body of a request may be.
    """

    def __init__(self, driver: Driver, *, limits: BodyLimits) -> None:
        self._driver = driver
        self._limits = limits
        self._exposition = Exposition(driver.stats)

    def routes(self, guard: Guard) -> list[Route]:
        """Return all routes, below the prefix."""
        route = guard.route
        return [
            route("/send", {"POST": self.send}),
            route("/broadcast", {"POST": self.broadcast}),
            route("/notifications/send", {"POST": self.notify_user}),
            route("/notifications/channel", {"POST": self.notify_channel}),
            route("/notifications/broadcast", {"POST": self.notify_everybody}),
            route("/channels", {"GET": self.channels}),
            route("/channels/{channel:path}/history", {"GET": self.history}),
            route("/channels/{channel:path}/presence", {"GET": self.presence}),
            route("/connections", {"GET": self.connections}),
            route("/connections/{connection_id}", {"DELETE": self.close_connection}),
            route("/tokens/revoke", {"POST": self.revoke}),
            route("/stats", {"GET": self.stats}),
            route("/metrics", {"GET": self.metrics}),
            route("/health", {"GET": self.health}),
            route("/test", {"GET": self.test_page}),
            route("/sse-test", {"GET": self.sse_test_page}),
            route("/assets/{name}", {"GET": self.asset}),
        ]

    # Publishing

    async def send(self, request: Request, sender: Identity) -> Response:
        """POST /send: one message to a channel, a user or a connection."""
        body = await read_json(request, self._limits)
        fields = body if isinstance(body, dict) else {}
        targets = [name for name in _TARGETS if fields.get(name) is not None]
        if len(targets) != 1:
            raise refused("missing_target", "name one target: 'channel', 'user_id' or 'connection_id'")
        target = fields[targets[0]]
        if targets[0] == "channel":
            message = _publishable(body, "channel_message")
            return await self._publish(str(target), message, sender)
        message = _publishable(body, "user_message")
        if targets[0] == "connection_id":
            return await self._publish(connection_channel(str(target)), message, sender)
        return await self._publish(user_channel(_user_id(target)), message, sender)

    async def broadcast(self, request: Request, sender: Identity) -> Response:
        """POST /broadcast: one message to everybody."""
        message = _publishable(await read_json(request, self._limits), "broadcast")
        return await self._publish(BROADCAST, message, sender)

    async def notify_user(self, request: Request, sender: Identity) -> Response:
        """POST /notifications/send: a notification to ``user_id``."""
        body = await read_json(request, self._limits)
        user_id = _user_id(_field(body, "user_id"))
        return await self._publish(user_channel(user_id), _notification(body), sender)

    async def notify_channel(self, request: Request, sender: Identity) -> Response:
        """POST /notifications/channel: a notification to ``channel``."""
        body = await read_json(request, self._limits)
        channel = _field(body, "channel")
        if refusal := check_channel(channel):
            raise RefusalError(refusal)
        message = {**_notification(body), "channel": channel}
        return await self._publish(str(channel), message, sender)

    async def notify_everybody(self, request: Request, sender: Identity) -> Response:
        """POST /notifications/broadcast: a notification to everybody."""
        message = _notification(await read_json(request, self._limits))
        return await self._publish(BROADCAST, message, sender)

    # Looking and closing

    async def channels(self, request: Request, asker: Identity) -> Response:
        """GET /channels: the channels in use that one may join."""
        driver = self._driver
        driver.catch_up()
        channels = driver.node.channels(asker=asker)
        if Action.SUBSCRIBE in driver.hooks and not asker.grant.admin:
            names = [str(channel["channel"]) for channel in channels]
            denied = await driver.gatekeeper.consult_all(asker, names)
            channels = [channel for channel in channels if channel["channel"] not in denied]
        return json_response({"channels": channels})

    async def history(self, request: Request, asker: Identity) -> Response:
        """GET /channels/{channel}/history: what was said; query ``limit``, ``after`` or ``before``, ``epoch``."""
        query = request.query_params
        data: Message = {"channel": request.path_params["channel"], "epoch": query.get("epoch")}
        for name in _HISTORY_NUMBERS:
            if name in query:
                data[name] = _number(query[name])
        return await self._answer_about(
            request.path_params["channel"], asker, lambda: self._driver.history(data, asker=asker)
        )

    async def presence(self, request: Request, asker: Identity) -> Response:
        """GET /channels/{channel}/presence: who is there."""
        channel = request.path_params["channel"]
        if refusal := check_channel(channel):
            raise RefusalError(refusal)
        self._driver.catch_up()
        return await self._answer_about(channel, asker, lambda: self._driver.node.presence(channel, asker=asker))

    async def connections(self, request: Request, asker: Identity) -> Response:
        """GET /connections: all connections."""
        return json_response({"connections": self._driver.node.connections()})

    async def close_connection(self, request: Request, asker: Identity) -> Response:
        """DELETE /connections/{connection_id}: close one by force; it is told not to come back."""
        connection_id = request.path_params["connection_id"]
        if not self._driver.close(connection_id, CloseCode.NORMAL_CLOSURE, "closed by the server's operator"):
            raise refused("not_found", f"there is no connection {connection_id!r}", status=404)
        return json_response({"connection_id": connection_id, "closed": True})

    async def revoke(self, request: Request, asker: Identity) -> Response:
        """POST /tokens/revoke: refuse tokens from now on, and close the connections that came with them."""
        body = await read_json(request, self._limits)
        if not isinstance(body, dict):
            raise refused("invalid_revocation", "a revocation is an object that says which tokens it is about")
        closed = self._driver.revoke(body)
        if isinstance(closed, Refusal):
            raise RefusalError(closed)
        return json_response({"closed": closed})

    async def stats(self, request: Request, asker: Identity) -> Response:
        """GET /stats: counts."""
        return json_response(self._driver.stats())

    async def metrics(self, request: Request, asker: Identity) -> Response:
        """GET /metrics: the counts as Prometheus reads them."""
        return Response(self._exposition.text(), headers={"content-type": CONTENT_TYPE})

    async def health(self, request: Request, asker: Identity) -> Response:
        """GET /health: 200 while the server takes connections, 503 once it is about to stop."""
        if self._driver.node.draining:
            return refusal_response(
                Refusal("draining", "the server is about to stop: ask another one", 503, retry_after=5)
            )
        return json_response({"status": "ok", "live": True, "ready": True})

    # Test pages

    async def test_page(self, request: Request, asker: Identity) -> Response:
        """GET /test: the WebSocket test page."""
        return _page("test.html")

    async def sse_test_page(self, request: Request, asker: Identity) -> Response:
        """GET /sse-test: the event stream test page."""
        return _page("sse-test.html")

    async def asset(self, request: Request, asker: Identity) -> Response:
        """GET /assets/{name}: what the test pages load."""
        return _page(request.path_params["name"])

    async def _publish(self, channel: str, message: Message, sender: Identity) -> Response:
        self._driver.catch_up()
        return receipt(await self._driver.publish_by(sender, channel, message))

    async def _answer_about(self, channel: str, asker: Identity, tell: Callable[[], Message | Refusal]) -> Response:
        """Answer what somebody asks about a channel, if the application lets them join it, where it wants to be asked.

        What they are allowed is decided by `tell` before it is asked, and again after.
        """
        told = tell()
        if not isinstance(told, Refusal) and Action.SUBSCRIBE in self._driver.hooks:
            told = await self._driver.gatekeeper.consult(Action.SUBSCRIBE, asker, channel) or tell()
        return answer(told)


def _publishable(body: object, default_type: str) -> Message:
    message = with_type(body, default_type)
    if isinstance(message, Refusal):
        raise RefusalError(message)
    kind = message["type"]
    if kind in (RESERVED_TYPES | {"command"}) - {default_type}:
        raise refused("reserved_type", f"messages of type {kind!r} come from the server only: choose another type", 403)
    if message.get("event") in RESERVED_EVENTS:
        event = message["event"]
        raise refused("reserved_event", f"events named {event!r} come from the server only: choose another name", 403)
    return message


def _field(body: object, name: str) -> object:
    value = body.get(name) if isinstance(body, dict) else None
    if value is None:
        raise refused("missing_target", f"name the {name!r} it is for")
    return value


def _user_id(value: object) -> str:
    user_id = normalize_user_id(value)
    if isinstance(user_id, Refusal):
        raise RefusalError(user_id)
    return user_id


def _notification(body: object) -> Message:
    if not isinstance(body, dict):
        raise refused("invalid_notification", "a notification is an object with 'title' and 'content'")
    try:
        fields = {name: body[name] for name in _NOTIFICATION_FIELDS if name in body}
        return NotificationMessage(**fields).to_message()
    except (TypeError, ValueError) as error:
        # The first argument of attrs' errors is what people may read.
        raise refused("invalid_notification", f"a notification is wrong: {error.args[0]}") from None


def _number(text: str) -> int | str:
    """Return the whole number that a field of a query is; what is none stays as it is, to be refused."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else text


def _page(name: str) -> Response:
    if name not in CONTENT_TYPES:
        raise refused("not_found", f"there is no asset {name!r}", status=404)
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    return Response(page(name), headers=headers, media_type=CONTENT_TYPES[name])
