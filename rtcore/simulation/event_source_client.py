"""A client on an event stream: the machine `rtcore.EventSource` over simulated connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never
from urllib.parse import urlencode

import attrs
import msgspec

from rtcore.event_source import (
    Connect,
    Disconnected,
    Effect,
    EventReceived,
    EventSource,
    EventSourceConfig,
    Failed,
    Opened,
    State,
)
from rtcore.event_stream import Event

from .authority import Wallet
from .client import SimulatedClient
from .link import SocketHandler
from .network import Network
from .observer import Observer
from .server import SimulatedServer
from .world import World

__all__ = ["SimulatedEventSource"]

_UNAUTHORIZED: Final = 401


class SimulatedEventSource(SimulatedClient):
    """One `rtcore.EventSource`, over any number of connections.

    Args:
        world: Where it is.
        network: How it reaches servers.
        name: Differs from all others.
        user_id: Whom it says it is, or ``None`` for nobody.
        channels: What it wants to hear.
        servers: Where it may connect.
        observer: Who is told what happens.
        wallet: Its tokens; ``None`` for a client that says whom it is, and has nothing to show.
        config: Times of the source.
        skew: What its clock shows at the beginning.

    Attributes:
        machine: The machine.
    """

    streams = True

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        *,
        user_id: str | None,
        channels: Sequence[str],
        servers: Sequence[SimulatedServer],
        observer: Observer,
        wallet: Wallet | None = None,
        config: EventSourceConfig | None = None,
        skew: float = 0.0,
    ) -> None:
        super().__init__(world, network, name, user_id=user_id, servers=servers, observer=observer, skew=skew)
        if wallet is not None and wallet.refreshes:
            # Another token may be better.
            config = config or EventSourceConfig()
            config = attrs.evolve(config, retried_statuses=(*config.retried_statuses, _UNAUTHORIZED))
        self.machine = EventSource(config, random=world.choices.random)
        self._wallet = wallet
        self._channels = tuple(channels)
        # Those of them to which the present server has not joined it, or from which it has taken it.
        self._denied: dict[str, None] = {}
        self._link: _Stream | None = None
        self._resumes = False
        self._opened = False
        # Whether the last token was refused.
        self._refused = False

    @property
    def channels(self) -> tuple[str, ...]:
        """See `SimulatedClient`."""
        return () if self.ended else tuple(each for each in self._channels if each not in self._denied)

    def is_given(self, channel: str) -> bool:
        """See `SimulatedClient`."""
        return channel in self._channels

    @property
    def ended(self) -> bool:
        """See `SimulatedClient`."""
        return self.machine.state is State.CLOSED

    def connect(self) -> None:
        """See `SimulatedClient`."""
        if self.machine.state in (State.NEW, State.WAITING):
            self._perform(self.machine.connect(now=self.now()))

    def disconnect(self) -> None:
        """See `SimulatedClient`."""
        self.note("disconnects")
        self.machine.close(now=self.now())
        self._drop()

    def next_timeout(self) -> float | None:
        """See `Machine.next_timeout`."""
        return self.machine.next_timeout()

    def handle_timeout(self) -> None:
        """See `Machine.handle_timeout`."""
        now = self.now()
        self._perform(self.machine.handle_timeout(now=now))
        at = self.machine.next_timeout()
        if at is not None and at <= now:
            raise self.world.fail("no_deadline_in_the_past", f"{self.name} has one at {at}, and it is {now}")

    # What its connections tell

    def responded(self, status: int, content_type: str, retry_after: float | None) -> None:
        """The head of a response has come."""
        self._perform(self.machine.response(status, content_type, now=self.now(), retry_after=retry_after))

    def received(self, link: _Stream, data: bytes) -> None:
        """More of the stream has come, maybe with the head, after which the stream may have been dropped."""
        if link is self._link and data:
            self._perform(self.machine.receive_data(data, now=self.now()))

    def ended_by_peer(self) -> None:
        """The stream has ended, or there will be none."""
        self._perform(self.machine.receive_eof(now=self.now()))

    # Inside

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case EventReceived(event=event):
                    self._receive(event)
                case Connect(last_event_id=last_event_id):
                    self._resumes = bool(last_event_id)
                    server = self.choose_server()
                    self.note("opens", (server.name, last_event_id))
                    self._link = _Stream(self, server, self._target(), last_event_id)
                case Opened():
                    self._refused = False
                    self.reconnects += self._opened
                    self._opened = True
                case Disconnected(status=status):
                    self.note("waits", effect)
                    self._drop()
                    if status == _UNAUTHORIZED and self._refused:
                        # Two in a row: the age of the token is not the reason.
                        self.disconnect()
                    self._refused |= status == _UNAUTHORIZED
                case Failed(status=status) if status == _UNAUTHORIZED and self._wallet is not None:
                    self.note("ends", effect)
                    self._drop()
                case Failed():
                    raise self.world.fail("protocol", f"{self.name} does not understand the server: {effect}")
                case _:
                    assert_never(effect)
        self.rekey()

    def _receive(self, event: Event) -> None:
        self.note("<-", (event.event, event.id, event.data))
        message = msgspec.json.decode(event.data)
        if event.event == "connected":
            self._denied = {each: None for each in self._channels if each not in message["channels"]}
            for channel in self._denied:
                self.observer.client_removed(self, channel)
            self.connection_id = str(message["connection_id"])
            self.observer.client_connected(self, self.connection_id, resumes=self._resumes)
        else:
            self.hear(message)
            if event.event == "unsubscribed":
                self._denied[message["channel"]] = None
                self.observer.client_removed(self, message["channel"])

    def _target(self) -> str:
        query = [("channel", channel) for channel in self._channels]
        if self._wallet is not None:
            if (token := self._wallet.token()) is not None:
                query.append(("token", token))
        elif self.user_id is not None:
            query.append(("user_id", self.user_id))
        return f"/events?{urlencode(query)}"

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        if self.connection_id is not None:
            self.connection_id = None
            self.observer.client_disconnected(self)


class _Stream(SocketHandler):
    """One request, and the response that it leads to."""

    def __init__(self, client: SimulatedEventSource, server: SimulatedServer, target: str, last_event_id: str) -> None:
        self._client = client
        self._host = server.name
        self._target = target
        self._last_event_id = last_event_id
        self._head: bytes | None = b""
        self._unwritten = b""
        self._socket = client.network.connect(client, server, self)

    def close(self) -> None:
        """Close what is left of it."""
        self._socket.abort()

    def connected(self) -> None:
        """See `SocketHandler`."""
        lines = [f"GET {self._target} HTTP/1.1", f"host: {self._host}", "accept: text/event-stream"]
        if self._last_event_id:
            lines.append(f"last-event-id: {self._last_event_id.encode().decode('latin-1')}")
        self._write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def receive_data(self, data: bytes) -> None:
        """See `SocketHandler`."""
        if self._head is None:
            self._client.received(self, data)
            return
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = None
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip(" ") for name, _, value in (line.partition(":") for line in lines)}
        retry_after = headers.get("retry-after")
        self._client.responded(
            int(status.split(" ")[1]),
            headers.get("content-type", ""),
            None if retry_after is None else float(retry_after),
        )
        self._client.received(self, body)

    def receive_eof(self) -> None:
        """See `SocketHandler`."""
        self._client.ended_by_peer()

    def receive_reset(self) -> None:
        """See `SocketHandler`."""
        self._client.ended_by_peer()

    def writable(self) -> None:
        """See `SocketHandler`."""
        data, self._unwritten = self._unwritten, b""
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._unwritten = data[self._socket.write(data) :]
