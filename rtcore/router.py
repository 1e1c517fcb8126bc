"""Who hears what: connections, users and channels, and the publications that flow between them.

Everything that is delivered is a publication of a channel. Messages to one connection, to one user and to
everybody are publications of built-in channels, whose names begin with ``$`` and which nobody joins.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

import attrs

from .channels import BROADCAST, Channel, connection_channel, is_builtin, user_channel
from .errors import LocalProtocolError, Refusal
from .messages import Encoded, Message, check_channel, publication

__all__ = [
    "Command",
    "Deliver",
    "Effect",
    "Joined",
    "Left",
    "Publish",
    "Published",
    "Refused",
    "Request",
    "Router",
    "RouterConfig",
    "Subscribe",
    "Unsubscribe",
]


@attrs.frozen
class RouterConfig:
    """Limits of a router.

    Attributes:
        max_channels: How many channels one connection may join.
        presence_limit: Above so many members a channel neither sends ``user_joined`` and ``user_left`` nor lists
            its members: with n members each change costs n messages, and all of them coming costs n².
        idle_timeout: Seconds for which a channel that nobody subscribes to keeps its offset and epoch.
        max_idle: How many such channels are kept; beyond it the longest idle are forgotten first.
    """

    max_channels: int = 1000
    presence_limit: int = 256
    idle_timeout: float = 300.0
    max_idle: int = 10_000


@attrs.frozen
class Request:
    """Who asked for something, and under which id they want to be told.

    Attributes:
        connection_id: The asking connection, or ``None`` for the HTTP API and the application.
        id: The id to answer under, or ``None`` for no answer. Only a connection may leave it out.
    """

    connection_id: str | None
    id: str | int | None = None


@attrs.frozen
class Subscribe:
    """Command: join a channel."""

    channel: str
    request: Request


@attrs.frozen
class Unsubscribe:
    """Command: leave a channel; leaving one that was not joined is no fault."""

    channel: str
    request: Request


@attrs.frozen
class Publish:
    """Command: publish `message`, which the caller no longer changes, to a channel, built-in ones included.

    Attributes:
        skip: A connection that is not to hear it.
        user_id: The sender's user, where the request names no connection.
    """

    channel: str
    message: Message
    request: Request
    skip: str | None = None
    user_id: str | None = None


Command: TypeAlias = Subscribe | Unsubscribe | Publish


@attrs.frozen
class Deliver:
    """Effect: `message` goes to every one of `connections` but `skip`, after everything delivered before.

    `connections` is the same object for all publications between two changes of the membership.
    """

    message: Encoded
    connections: tuple[str, ...]
    skip: str | None = None


@attrs.frozen
class Published:
    """Effect: a publication is in its channel."""

    request: Request
    id: str
    channel: str
    offset: int
    epoch: str


@attrs.frozen
class Joined:
    """Effect: the connection subscribes to the channel, whose next publication is ``offset + 1``.

    Attributes:
        members: Who is present, the connection included, as ``{"user_id", "connection_id"}``; ``None`` in a
            channel with too many to list.
    """

    request: Request
    channel: str
    offset: int
    epoch: str
    count: int
    members: list[Message] | None


@attrs.frozen
class Left:
    """Effect: the connection no longer subscribes to the channel."""

    request: Request
    channel: str


@attrs.frozen
class Refused:
    """Effect: what was asked for is not done, and nothing has changed."""

    request: Request
    refusal: Refusal


Effect: TypeAlias = Deliver | Published | Joined | Left | Refused


@attrs.define
class _Connection:
    user_id: str | None
    channels: dict[str, None] = attrs.field(factory=dict)


class Router:
    """The connections, users and channels of one server.

    Args:
        config: Limits.
        entropy: A text that differs between any two routers, past ones included; epochs are made from it.
    """

    def __init__(self, config: RouterConfig, *, entropy: str) -> None:
        self._config = config
        self._entropy = entropy
        self._epochs = 0
        self._connections: dict[str, _Connection] = {}
        self._users: dict[str, dict[str, None]] = {}
        self._channels: dict[str, Channel] = {}
        # Channels without subscribers and when they are forgotten. All wait equally long: first in, first out.
        self._idle: dict[str, float] = {}

    # What there is

    @property
    def users(self) -> list[str]:
        """The ids of the users with a connection, first come first."""
        return list(self._users)

    @property
    def user_count(self) -> int:
        """How many users have a connection."""
        return len(self._users)

    def channels(self) -> list[Channel]:
        """Return the channels that somebody subscribes to, built-in ones left out."""
        return [channel for channel in self._channels.values() if len(channel) and not is_builtin(channel.name)]

    def channels_of(self, connection_id: str) -> list[str]:
        """Return the channels that a connection has joined, in the order in which it did."""
        return list(self._connection(connection_id).channels)

    def presence(self, name: str) -> tuple[int, list[Message] | None]:
        """Return how many are present in a channel and, unless they are too many to list, who."""
        channel = self._channels.get(name)
        return (0, []) if channel is None else self._presence(channel)

    # Connections

    def attach(self, connection_id: str, user_id: str | None) -> None:
        """Add a connection, which hears from now on what is sent to it, to its user and to everybody.

        Raises:
            LocalProtocolError: If there is one of that id; nothing has changed.
        """
        if connection_id in self._connections:
            raise LocalProtocolError(f"connection {connection_id!r} is attached already")
        self._connections[connection_id] = _Connection(user_id)
        if user_id is not None:
            self._users.setdefault(user_id, {})[connection_id] = None
            self._listen(user_channel(user_id), connection_id, user_id)
        self._listen(BROADCAST, connection_id, user_id)
        own = connection_channel(connection_id)
        if own in self._channels:  # something was sent to it before it came
            self._listen(own, connection_id, user_id)

    def detach(self, connection_id: str, *, now: float, timestamp: int) -> list[Effect]:
        """Remove a connection from everything. Returns the ``user_left`` of each channel that it was in.

        Raises:
            LocalProtocolError: If there is none of that id; nothing has changed.
        """
        connection = self._connection(connection_id)
        del self._connections[connection_id]
        effects: list[Effect] = []
        for name in connection.channels:
            effects += self._leave(name, connection_id, connection.user_id, now=now, timestamp=timestamp)
        self._unlisten(self._channels[BROADCAST], connection_id, now=now)
        self._channels.pop(connection_channel(connection_id), None)  # it has a subscriber, so it is not idle
        user_id = connection.user_id
        if user_id is not None:
            self._unlisten(self._channels[user_channel(user_id)], connection_id, now=now)
            del self._users[user_id][connection_id]
            if not self._users[user_id]:
                del self._users[user_id]
        return effects

    # Commands

    def send(self, command: Command, *, now: float, timestamp: int) -> list[Effect]:
        """Carry out a command.

        Args:
            command: What to do.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970, for people to read.

        Returns:
            For `Publish`: `Deliver`, unless nobody subscribes, then `Published`. For `Subscribe`: `Joined`, which
            comes before any publication of the channel, then the `Deliver` of ``user_joined`` to the others. For
            `Unsubscribe`: `Left`, then the `Deliver` of ``user_left``. Or `Refused` alone.

        Raises:
            LocalProtocolError: If a connection is named that is not attached, or a message is no JSON; nothing
                has changed.
        """
        match command:
            case Publish():
                return self._publish(command, now=now, timestamp=timestamp)
            case Subscribe():
                return self._subscribe(command, timestamp=timestamp)
            case Unsubscribe():
                return self._unsubscribe(command, now=now, timestamp=timestamp)
            case _:
                assert_never(command)

    def next_timeout(self) -> float | None:
        """Return when the next idle channel is forgotten, or ``None``."""
        return next(iter(self._idle.values()), None)

    def handle_timeout(self, *, now: float) -> None:
        """Forget the channels that have been idle for long enough."""
        while (at := self.next_timeout()) is not None and at <= now:
            self._forget_oldest()

    def _publish(self, command: Publish, *, now: float, timestamp: int) -> list[Effect]:
        request = command.request
        user_id = command.user_id
        if request.connection_id is not None:
            user_id = self._connection(request.connection_id).user_id
        channel = self._channels.get(command.channel)
        known = channel is not None
        if channel is None:
            channel = Channel(command.channel, self._next_epoch())
        offset = channel.offset + 1
        identifier = f"{channel.epoch}:{offset}"
        encoded = publication(
            command.message,
            id=identifier,
            offset=offset,
            epoch=channel.epoch,
            connection_id=request.connection_id,
            user_id=user_id,
            timestamp=timestamp,
        )
        channel.next_offset()
        if not known:
            self._channels[channel.name] = channel
            self._listen_directly(channel)
        if not len(channel):
            self._start_idling(channel, now=now)
        effects: list[Effect] = []
        if subscribers := channel.subscribers:
            effects.append(Deliver(encoded, subscribers, command.skip))
        effects.append(Published(request, identifier, channel.name, offset, channel.epoch))
        return effects

    def _subscribe(self, command: Subscribe, *, timestamp: int) -> list[Effect]:
        request, name = command.request, command.channel
        assert request.connection_id is not None, "only connections subscribe"
        connection = self._connection(request.connection_id)
        if refusal := check_channel(name):
            return [Refused(request, refusal)]
        if name not in connection.channels and len(connection.channels) >= self._config.max_channels:
            limit = self._config.max_channels
            message = f"a connection may join at most {limit} channels: leave one first"
            return [Refused(request, Refusal("too_many_channels", message, status=429))]
        appeared = False
        if name not in connection.channels:
            connection.channels[name] = None
            appeared = self._listen(name, request.connection_id, connection.user_id)
        channel = self._channels[name]
        count, members = self._presence(channel)
        effects: list[Effect] = [Joined(request, name, channel.offset, channel.epoch, count, members)]
        if appeared:
            effects += self._tell(channel, "user_joined", request.connection_id, connection.user_id, timestamp)
        return effects

    def _unsubscribe(self, command: Unsubscribe, *, now: float, timestamp: int) -> list[Effect]:
        request, name = command.request, command.channel
        assert request.connection_id is not None, "only connections unsubscribe"
        connection = self._connection(request.connection_id)
        effects: list[Effect] = [Left(request, name)]
        if name in connection.channels:
            del connection.channels[name]
            effects += self._leave(name, request.connection_id, connection.user_id, now=now, timestamp=timestamp)
        return effects

    # Membership

    def _connection(self, connection_id: str) -> _Connection:
        try:
            return self._connections[connection_id]
        except KeyError:
            raise LocalProtocolError(f"connection {connection_id!r} is not attached") from None

    def _listen(self, name: str, connection_id: str, user_id: str | None) -> bool:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._next_epoch())
        self._idle.pop(name, None)
        return channel.subscribe(connection_id, user_id)

    def _unlisten(self, channel: Channel, connection_id: str, *, now: float) -> bool:
        vanished = channel.unsubscribe(connection_id)
        if not len(channel):
            self._start_idling(channel, now=now)
        return vanished

    def _listen_directly(self, channel: Channel) -> None:
        """Subscribe a connection to its own channel, which exists only once something is sent there."""
        connection_id = channel.name.removeprefix("$connection:")
        connection = self._connections.get(connection_id)
        if connection is not None and channel.name == connection_channel(connection_id):
            channel.subscribe(connection_id, connection.user_id)

    def _leave(self, name: str, connection_id: str, user_id: str | None, *, now: float, timestamp: int) -> list[Effect]:
        channel = self._channels[name]
        if not self._unlisten(channel, connection_id, now=now):
            return []
        return self._tell(channel, "user_left", connection_id, user_id, timestamp)

    def _presence(self, channel: Channel) -> tuple[int, list[Message] | None]:
        if channel.member_count > self._config.presence_limit:
            return channel.member_count, None
        return channel.member_count, [attrs.asdict(member) for member in channel.members()]

    def _tell(
        self, channel: Channel, kind: str, connection_id: str, user_id: str | None, timestamp: int
    ) -> list[Effect]:
        """Tell the others in a channel that somebody came or went."""
        others = len(channel) - (connection_id in channel)
        if not others or channel.member_count > self._config.presence_limit:
            return []
        offset = channel.next_presence_offset()
        # An epoch of its own, or a client that drops what it has seen would take these for publications.
        epoch = f"{channel.epoch}p"
        encoded = publication(
            {"type": kind, "channel": channel.name, "user_id": user_id, "connection_id": connection_id},
            id=f"{epoch}:{offset}",
            offset=offset,
            epoch=epoch,
            connection_id=connection_id,
            user_id=user_id,
            timestamp=timestamp,
        )
        return [Deliver(encoded, channel.subscribers, skip=connection_id)]

    # Channels come and go

    def _next_epoch(self) -> str:
        self._epochs += 1
        return f"{self._entropy}.{self._epochs}"

    def _start_idling(self, channel: Channel, *, now: float) -> None:
        self._idle.pop(channel.name, None)
        self._idle[channel.name] = now + self._config.idle_timeout
        if len(self._idle) > self._config.max_idle:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        name = next(iter(self._idle))
        del self._idle[name]
        del self._channels[name]
