"""Connections of one's own endpoints, in FastAPI, Starlette or bare ASGI, beside those of `RealtimeApp`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TypeAlias

import anyio
import attrs
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from rtcore import BinaryMessage, CloseCode, CommandError, LocalProtocolError, Message, Refusal, Transport, encode
from rtcore.channels import BROADCAST
from rtcore.messages import check_channel, normalize_user_id, with_type
from rtcore.permissions import OPEN, Grant
from rtcore.router import Published
from rtcore.session import NO_FILES
from rtcore.uploads import check_head
from rtcore_transports import Admission, Authenticator, Background, Driver, EndpointConfig

from .asgi_endpoints import EventStreamResponse
from .asgi_outlets import Send, WebSocketOutlet
from .auth import WSAuthenticator
from .errors import refusal_response
from .settings import Settings, endpoint_config, load_settings, node_config, open_files

__all__ = ["ConnectionManager", "Receipt", "connection_manager"]

#: Where a publication is in its channel: ``id``, ``offset`` and ``epoch``.
Receipt: TypeAlias = dict[str, object]


@attrs.frozen
class _Own:
    """A WebSocket of one's own endpoint, what writes to it, and the task that connected it.

    `replaced` are the tasks of connections whose id it has taken over; each will say once more that its own is gone.
    """

    websocket: WebSocket | Send
    writer: Background
    task: int
    replaced: dict[int, None]


class ConnectionManager:
    """Connects one's own endpoints to the node, and sends to whoever is connected.

    Messages are any JSON: what is not an object becomes ``{"data": …}``, and a missing ``type`` is
    ``channel_message``, ``user_message`` or ``broadcast`` by the target. Or they are a `rtcore.BinaryMessage`, which is
    said as one and is not kept. Every method raises `rtcore.CommandError` for an argument that cannot be, with nothing
    changed.

    Args:
        settings: Limits and intervals; those of the environment if left out, read when first needed.
        authenticator: Who knows credentials, instead of the `WSAuthenticator` of the settings' keys.
    """

    def __init__(self, settings: Settings | None = None, *, authenticator: Authenticator | None = None) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._config: EndpointConfig | None = None
        self._driver: Driver | None = None
        self._websockets: dict[str, _Own] = {}

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        if self._settings is None:
            self._settings = load_settings(keys_elsewhere=self._authenticator is not None)
        return self._settings

    @property
    def config(self) -> EndpointConfig:
        """What the endpoints offer."""
        if self._config is None:
            self._config = endpoint_config(self.settings)
        return self._config

    @property
    def driver(self) -> Driver:
        """The driver of its node."""
        if self._driver is None:
            settings = self.settings
            authenticator = self._authenticator
            if authenticator is None and settings.ws.takes_credentials:
                authenticator = WSAuthenticator(settings)
            self._driver = Driver(
                node_config(settings), files=open_files(settings), gate=self.config.gate, authenticator=authenticator
            )
        return self._driver

    # Connecting

    async def connect_websocket(
        self,
        websocket: WebSocket | Send,
        connection_id: str,
        user_id: str | int | None = None,
        grant: Grant | None = None,
        *,
        json_only: bool = False,
    ) -> None:
        """Accept a WebSocket, unless that is done, and connect it; from now on it is written to in the background.

        Args:
            websocket: Of FastAPI or Starlette; or, in a bare ASGI application, ``send``, after the accept. What the
                client sends is the caller's to receive.
            connection_id: An id of the caller's choice. A connection that has it already is closed: most often it is
                the same client, come back before its old connection was missed.
            user_id: Its user.
            grant: What it is allowed; by default `rtcore.permissions.OPEN`: what the namespaces open to anybody, and to
                administer. ``Grant()`` is the same without that, as for somebody who comes without a credential to a
                server that has keys. With one of a token the connection ends when the token does.
            json_only: Whether it hears files as JSON too, and not in binary frames.

        Raises:
            CommandError: If the server is full, there are too many connections of the user, the token has ended, or an
                id cannot be.
        """
        user = None if user_id is None else _checked(normalize_user_id(user_id))
        admission = Admission(user, (), grant=grant or OPEN)
        self._replace(connection_id)
        _admitted(self.driver.admit(admission, Transport.WEBSOCKET))
        # Only what follows the last await is sure: while it is accepted the client may have come once more.
        send: Send
        if isinstance(websocket, WebSocket):
            if websocket.application_state is WebSocketState.CONNECTING:
                await websocket.accept()
            send = websocket.send
        else:
            send = websocket
        config, driver = self.config, self.driver
        outlet = WebSocketOutlet(
            send,
            driver,
            connection_id,
            max_bytes=config.max_backlog,
            max_messages=config.max_waiting,
            json_only=json_only,
        )
        self._replace(connection_id)
        driver.attach(outlet, connection_id, admission, transport=Transport.WEBSOCKET)
        driver.ensure_running()
        writer = Background()
        writer.start(outlet.write)
        task = anyio.get_current_task().id
        replaced: dict[int, None] = {}
        if (old := self._websockets.get(connection_id)) is not None:
            replaced = {**old.replaced, old.task: None}
            replaced.pop(task, None)
        self._websockets[connection_id] = _Own(websocket, writer, task, replaced)

    async def disconnect_websocket(self, connection_id: str) -> None:
        """Close a WebSocket that was connected here; one that is gone already is no fault.

        Where another connection has taken over the id meanwhile, the task that connected the old one means the old one.
        """
        own = self._websockets.get(connection_id)
        task = anyio.get_current_task().id
        if own is not None and task in own.replaced:
            del own.replaced[task]
            return
        self.driver.close(connection_id, CloseCode.NORMAL_CLOSURE, "disconnected")
        if own is not None:
            del self._websockets[connection_id]
            await own.writer.wait()

    async def connect_event_stream(
        self,
        connection_id: str | None = None,
        user_id: str | int | None = None,
        channels: Sequence[str] = (),
        grant: Grant | None = None,
    ) -> Response:
        """Return a response that streams events to its client until either side ends it.

        It is a response of Starlette and FastAPI, and an ASGI application. Where the server is full, it is the error
        that says so. A client that comes back with ``Last-Event-ID`` is told first what it has missed.

        Args:
            connection_id: An id of the caller's choice, or ``None`` for one of ours.
            user_id: Its user.
            channels: What it is to hear, besides what goes to it, to its user and to everybody.
            grant: What it is allowed; by default `rtcore.permissions.OPEN`, as for `connect_websocket`.
        """
        user = None if user_id is None else _checked(normalize_user_id(user_id))
        for channel in channels:
            _admitted(check_channel(channel))
        if connection_id is not None:
            # Its place is free for the one that replaces it.
            self._replace(connection_id)
        admission = Admission(user, tuple(channels), grant=grant or OPEN)
        if refusal := self.driver.admit(admission, Transport.SSE):
            return refusal_response(refusal)
        return EventStreamResponse(self.driver, self.config, connection_id or secrets.token_hex(8), admission)

    async def cleanup_inactive_connections(self) -> int:
        """Disconnect the WebSockets of one's own endpoints whose client has gone unnoticed; returns how many."""
        gone = [
            connection_id
            for connection_id, own in self._websockets.items()
            if not own.writer.running
            or (isinstance(own.websocket, WebSocket) and own.websocket.client_state is WebSocketState.DISCONNECTED)
        ]
        for connection_id in gone:
            await self.disconnect_websocket(connection_id)
        return len(gone)

    # Channels

    async def subscribe_to_channel(self, connection_id: str, channel: str) -> None:
        """Join a connection to a channel.

        Raises:
            CommandError: If there is no such connection, or no such channel can be.
        """
        _admitted(check_channel(channel))
        _admitted(self.driver.subscribe(connection_id, channel))

    async def unsubscribe_from_channel(self, connection_id: str, channel: str) -> None:
        """Take a connection out of a channel; one that is not in it is no fault.

        Raises:
            CommandError: If there is no such connection.
        """
        _admitted(self.driver.unsubscribe(connection_id, channel))

    # Sending

    async def send_to_connection(self, connection_id: str, message: object) -> Receipt | None:
        """Send to one connection; ``None`` where there is none of that id (any more)."""
        whole, data = self._publishable(message, "user_message")
        if connection_id not in self.driver.node:
            return None
        return _receipt(self.driver.publish_to_connection(connection_id, whole, data=data))

    async def send_to_user(self, user_id: str | int, message: object) -> Receipt:
        """Send to every connection of a user, of whom there may be none."""
        user = _checked(normalize_user_id(user_id))
        whole, data = self._publishable(message, "user_message")
        return _receipt(self.driver.publish_to_user(user, whole, data=data))

    async def send_to_channel(self, channel: str, message: object, persist: bool = False) -> Receipt:
        """Send to everybody in a channel.

        Args:
            channel: The channel.
            message: What to say there.
            persist: Whether it is kept for those who join later; that is ``"persistent": true`` in the message.
        """
        _admitted(check_channel(channel))
        whole, data = self._publishable(message, "channel_message")
        if persist:
            whole["persistent"] = True
        return _receipt(self.driver.publish(channel, whole, data=data))

    async def broadcast(self, message: object) -> Receipt:
        """Send to everybody."""
        whole, data = self._publishable(message, "broadcast")
        return _receipt(self.driver.publish(BROADCAST, whole, data=data))

    # Looking

    async def get_connection_stats(self) -> dict[str, object]:
        """Return counts: ``websocket_count``, ``sse_count``, ``unique_users``, ``active_channels`` and more."""
        return self.driver.stats()

    def _publishable(self, message: object, default_type: str) -> tuple[Message, bytes | None]:
        """Return what is said, and the file in it."""
        if not isinstance(message, BinaryMessage):
            return _message(message, default_type), None
        head, files = message.to_head(), self.driver.files
        _admitted(NO_FILES if files is None else check_head(head, message.data, files.config.file))
        return head, message.data

    def _replace(self, connection_id: str) -> None:
        self.driver.close(connection_id, CloseCode.GOING_AWAY, "replaced by a new connection", reconnect=False)


#: The connections of the settings of the environment; those of a `RealtimeApp` without settings are among them.
connection_manager = ConnectionManager()


def _checked(value: str | Refusal) -> str:
    if isinstance(value, Refusal):
        raise CommandError(value.code, value.message)
    return value


def _admitted(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise CommandError(refusal.code, refusal.message, refusal.retry_after)


def _message(payload: object, default_type: str) -> Message:
    message = with_type(payload, default_type)
    if isinstance(message, Refusal):
        raise CommandError(message.code, message.message)
    try:
        encode(message)
    except LocalProtocolError as error:
        raise CommandError("invalid_message", str(error)) from error
    return message


def _receipt(outcome: Published | Refusal) -> Receipt:
    if isinstance(outcome, Refusal):
        raise CommandError(outcome.code, outcome.message, outcome.retry_after)
    return {"id": outcome.id, "offset": outcome.offset, "epoch": outcome.epoch}
