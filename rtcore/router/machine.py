"""The router's machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import attrs

from rtcore.binary import Bytes
from rtcore.channels import BROADCAST, Channel, connection_channel, is_builtin, user_channel
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.filters import Filter, with_presence
from rtcore.history import Publication
from rtcore.idempotency import Idempotency, Publisher
from rtcore.messages import Message, check_channel
from rtcore.permissions import OPEN, Action, Grant
from rtcore.presence import Member

from .commands import (
    Command,
    Deliver,
    Effect,
    Joined,
    Left,
    Publish,
    Published,
    Recovered,
    Refused,
    Request,
    Roster,
    Subscribe,
    Unsubscribe,
)
from .config import RouterConfig
from .connections import Connection, Connections
from .numbering import Numbering
from .paging import Page, page_of
from .presence import Changes, interruption, roster_of, tells_changes
from .recovery import Followed, Resumption, missed, missed_changes, resume, wanted
from .registry import Registry
from .repetition import publishing, recall
from .rights import Asker, Rights, unsubscribed
from .sizes import fitted

__all__ = ["Router"]


class Router:
    """The connections, users and channels of one server.

    Args:
        config: Limits.
        entropy: A text that differs between any two routers, past ones included; epochs and tokens are made from it.
    """

    def __init__(self, config: RouterConfig, *, entropy: str) -> None:
        self._config = config
        self._entropy = entropy
        self._connections = Connections()
        self._registry = Registry(config, entropy=entropy)
        self._rights = Rights(self._connections, self._registry)
        self._numbering = Numbering(entropy)
        self._changes = Changes(self._numbering, self._registry, limit=config.presence_limit)
        self._published: Idempotency[Published] = Idempotency(
            window=config.idempotency_window, size=config.idempotency_size, max_idle=config.max_idle
        )

    # What there is

    @property
    def users(self) -> list[str]:
        """The ids of the users with a connection, first come first."""
        return list(self._connections.users)

    @property
    def user_count(self) -> int:
        """How many users have a connection."""
        return len(self._connections.users)

    def is_connected(self, user_id: str) -> bool:
        """Tell whether a user has a connection."""
        return user_id in self._connections.users

    @property
    def empty(self) -> bool:
        """Whether it holds nothing: no connection, channel, publication or publisher."""
        return not (self._connections or self._published or self._registry or self._registry.memory)

    @property
    def history_bytes(self) -> int:
        """How many bytes of JSON the channels hold."""
        return self._registry.memory.bytes

    def decide(self, action: Action, channel: str = "", *, asker: Asker) -> Refusal | None:
        """Tell why somebody may not do something with a channel, or ``None`` if they may; see `Rights.decide`.

        Args:
            action: What to do.
            channel: Where; of no account for `Action.ADMINISTER`.
            asker: Who wants to: a connection's id, somebody who has none, or ``None`` for the application.
        """
        return self._rights.decide(action, channel, asker=asker)

    def decide_publication(self, channel: str, message: Message, *, asker: Asker) -> Refusal | None:
        """Tell likewise why somebody may not publish `message`, of which it matters whether it is a file."""
        return self._rights.decide_publication(channel, message, asker=asker)

    def check_size(self, channel: str, message: Message, data: Bytes | None) -> Refusal | None:
        """Tell why `message`, with the file `data` in it, is too large for a channel, or ``None`` if it is not."""
        outcome = fitted(self._registry.namespace_of(channel), message, data)
        return outcome if isinstance(outcome, Refusal) else None

    def channels(self, *, asker: Asker = None) -> list[Channel]:
        """Return the channels that somebody subscribes to, built-in ones left out.

        Args:
            asker: Who asks: somebody who may administer is told of all, everybody else of those that they may join.
        """
        decide, used = self._rights.decide, self._registry.used()
        if decide(Action.ADMINISTER, asker=asker) is None:
            return used
        return [each for each in used if decide(Action.SUBSCRIBE, each.name, asker=asker) is None]

    def channels_of(self, connection_id: str) -> list[str]:
        """Return the channels that a connection has joined, built-in ones left out, in the order in which it did."""
        return [name for name in self._connections.get(connection_id).channels if not is_builtin(name)]

    def roster(self, name: str, *, asker: Asker = None) -> Roster | Refusal:
        """Return who is present in a channel, or why `asker` may not know that, or nobody does."""
        if refusal := self._rights.decide(Action.PRESENCE, name, asker=asker):
            return refusal
        channel = self._registry.find(name)
        roster = roster_of(channel, limit=self._config.presence_limit)
        return roster or Refusal("presence_disabled", "this channel does not know who is there", 403)

    def history(
        self,
        name: str,
        *,
        asker: Asker = None,
        epoch: str | None,
        after: int | None,
        before: int | None,
        limit: int,
        now: float,
    ) -> Page | Refusal:
        """Return a part of what a channel has said, or why not; see `rtcore.router.paging.page_of`."""
        if refusal := self._rights.decide(Action.HISTORY, name, asker=asker):
            return refusal
        channel = self._registry.find(name)
        channel.expire(now=now)
        return page_of(
            channel, epoch=epoch, after=after, before=before, limit=limit, max_bytes=self._config.max_replay_bytes
        )

    # Connections

    def attach(
        self,
        connection_id: str,
        user_id: str | None,
        *,
        grant: Grant = OPEN,
        session: str | None = None,
        now: float,
    ) -> str | None:
        """Add a connection, which hears from now on what is sent to it, to its user and to everybody.

        Args:
            connection_id: A new id.
            user_id: Its user.
            grant: What it is allowed, until `regrant`.
            session: A secret by which the client is known again on its next connection, or ``None``.
            now: Monotonic seconds.

        Returns:
            The life in which the session is remembered, or ``None`` without one: what it has published in that life is
            not published again.

        Raises:
            LocalProtocolError: If there is one of that id; nothing has changed.
        """
        if connection_id in self._connections:
            raise LocalProtocolError(f"connection {connection_id!r} is attached already")
        own = (
            Publisher("connection", user_id, connection_id)
            if session is None
            else Publisher("session", user_id, session)
        )
        publishers = (own,) if user_id is None else (own, Publisher("user", user_id))
        lives = [self._published.attach(publisher) for publisher in publishers]
        self._connections.add(connection_id, Connection(user_id, grant, publishers))
        if user_id is not None:
            self._listen(user_channel(user_id), connection_id, user_id, now=now)
        self._listen(BROADCAST, connection_id, user_id, now=now)
        direct = connection_channel(connection_id)
        if self._registry.get(direct) is not None:  # something was sent to it before it came
            self._listen(direct, connection_id, user_id, now=now)
        return None if session is None else f"{self._entropy}.{lives[0]}"

    def regrant(self, connection_id: str, grant: Grant, *, now: float, timestamp: int) -> list[Effect]:
        """Change what a connection is allowed, and what others are told about it.

        Returns:
            For each channel that it has joined, in that order: where it may no longer hear it, the `Deliver` to it of
            ``unsubscribed``, after which it hears nothing more of the channel, then that of ``user_left`` to the
            others; where it may know from now on who is there, or no longer, that of a ``gap`` in the comings and
            goings. Nothing where nothing has changed.

        Raises:
            LocalProtocolError: If there is none of that id; nothing has changed.
        """
        connection = self._connections.get(connection_id)
        connection.grant = grant
        only = (connection_id,)
        effects: list[Effect] = []
        # To those of the server's own it has been joined by the server, which takes it out of them too.
        for name in [each for each in connection.channels if not is_builtin(each)]:
            if refusal := self._rights.decide(Action.SUBSCRIBE, name, asker=connection_id):
                effects.append(Deliver(unsubscribed(name, refusal), only))
                del connection.channels[name]
                effects += self._leave(
                    name, connection_id, connection.user_id, for_good=True, now=now, timestamp=timestamp
                )
                continue
            channel = self._registry.open(name)
            filter = channel.filter_of(connection_id)
            saw, sees = filter is None or filter.presence, self._rights.may_see(connection, channel)
            channel.subscribe(connection_id, connection.user_id, with_presence(filter, sees), grant.info)
            if sees is not saw and tells_changes(channel.namespace):
                # Or a list of members that was right until now would be taken for right from now on.
                reason = "presence_granted" if sees else "presence_denied"
                effects.append(Deliver(interruption(channel, reason), only))
        return effects

    def resume(self, connection_id: str, token: str | None, *, fresh: str | None = None, now: float) -> Resumption:
        """Return how a connection that has just been attached and has joined its channels goes on from a token.

        Nothing may be delivered to it before what this returns.

        Args:
            connection_id: The connection.
            token: What it says it has heard, or ``None``.
            fresh: A channel that has begun with it, of which it cannot have missed anything; or ``None``.
            now: Monotonic seconds.
        """
        connection = self._connections.get(connection_id)
        names = [BROADCAST, *([] if connection.user_id is None else [user_channel(connection.user_id)])]
        followed: list[Followed] = []
        for name in (*names, *(each for each in connection.channels if each != fresh)):
            channel = self._registry.get(name)
            assert channel is not None, "it subscribes to it"
            channel.expire(now=now)
            recalls = self._rights.may_recall(connection, channel)
            followed.append(Followed(channel, recalls, recalls and self._rights.may_see(connection, channel)))
        seq = self._numbering.seq
        return resume(followed, token, instance=self._entropy, seq=seq, max_bytes=self._config.max_replay_bytes)

    def detach(self, connection_id: str, *, now: float, timestamp: int) -> list[Effect]:
        """Remove a connection from everything.

        Returns:
            The ``user_left`` of each channel that it was in, unless its user may yet come back.

        Raises:
            LocalProtocolError: If there is none of that id; nothing has changed.
        """
        connection = self._connections.remove(connection_id)
        effects: list[Effect] = []
        for name in connection.channels:
            effects += self._leave(
                name, connection_id, connection.user_id, for_good=False, now=now, timestamp=timestamp
            )
        self._unlisten(BROADCAST, connection_id, now=now)
        self._registry.drop(connection_channel(connection_id))
        user_id = connection.user_id
        if user_id is not None:
            self._unlisten(user_channel(user_id), connection_id, now=now)
        for publisher in connection.publishers:
            self._published.detach(publisher, now=now)
        return effects

    def end_channel(self, name: str) -> None:
        """Forget a channel to which nobody may come back, those who subscribe to it included."""
        channel = self._registry.get(name)
        if channel is not None:
            for group in channel.groups:
                for connection_id in group.connections:
                    self._connections.get(connection_id).channels.pop(name, None)
            self._registry.drop(name)

    def recall(self, request: Request, *, channel: str | None = None, now: float) -> Published | None:
        """Return what has become of a publication of that id by the same connection, session or user before.

        Args:
            request: Of a connection.
            channel: Where it is to be published now; ``None`` for a signal, whose stream is not known yet.
            now: Monotonic seconds.
        """
        if request.connection_id is None:
            return None
        publishers = self._connections.get(request.connection_id).publishers
        return recall(self._published, self._rights, request, publishers, channel, asker=request.connection_id, now=now)

    def recall_publication(self, command: Publish, *, now: float) -> Published | None:
        """Return that for a publication, which may be one without a connection: by the same user, or key."""
        request, (asker, publishers) = command.request, publishing(command, self._connections)
        return recall(self._published, self._rights, request, publishers, command.channel, asker=asker, now=now)

    # Commands

    def send(self, command: Command, *, now: float, timestamp: int) -> list[Effect]:
        """Carry out a command.

        Args:
            command: What to do.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970, for people to read.

        Returns:
            For `Publish`: a `Deliver` for each group of subscribers who want to hear it, then `Published`. For
            `Subscribe`: `Joined`, then the `Deliver` of everything that is replayed, both before any publication of the
            channel that is new; then the `Deliver` of ``user_joined`` to the others. For `Unsubscribe`: `Left`, then
            the `Deliver` of ``user_left``. Or `Refused` alone.

        Raises:
            LocalProtocolError: If a connection is named that is not attached, or a message is no JSON; nothing
                has changed.
        """
        match command:
            case Publish():
                return self._publish(command, now=now, timestamp=timestamp)
            case Subscribe():
                return self._subscribe(command, now=now, timestamp=timestamp)
            case Unsubscribe():
                return self._unsubscribe(command, now=now, timestamp=timestamp)
            case _:
                assert_never(command)

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do, in monotonic seconds, or ``None``."""
        due = (self._registry.next_timeout(), self._published.next_timeout())
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, *, now: float, timestamp: int) -> list[Effect]:
        """Forget what has been held for long enough.

        Returns:
            The `Deliver` of ``user_left`` for each user who has not come back in time.
        """
        self._published.handle_timeout(now=now)
        effects: list[Effect] = []
        for channel in self._registry.take_due(now=now):
            while (member := channel.presence.take_gone(now=now)) is not None:
                connection_id, user_id = member.connection_id, member.user_id
                effects += self._changes.vanish(channel, connection_id, user_id, now=now, timestamp=timestamp)
            self._registry.settle(channel, now=now)
        return effects

    def _publish(self, command: Publish, *, now: float, timestamp: int) -> list[Effect]:
        request, name, message, user_id = command.request, command.channel, command.message, command.user_id
        grant = command.grant
        asker, publishers = publishing(command, self._connections)
        if request.connection_id is not None:
            connection = self._connections.get(request.connection_id)
            user_id, grant = connection.user_id, connection.grant
        if request.id is not None and (first := self.recall_publication(command, now=now)):
            return [first]
        if not command.builtin and (refusal := self._rights.decide_publication(name, message, asker=asker)):
            return [Refused(request, refusal)]
        channel = self._registry.find(name)
        data = fitted(channel.namespace, message, command.data)
        if isinstance(data, Refusal):
            return [Refused(request, data)]
        if message.get("channel") != name and not is_builtin(name):
            # Whoever hears several channels wants to know which one speaks.
            message = {**message, "channel": name}
        encoded = self._numbering.publish(
            channel,
            message,
            connection_id=request.connection_id,
            user_id=user_id,
            info=None if grant is None else grant.info,
            timestamp=timestamp,
            data=data,
        )
        self._listen_directly(channel)
        persistent = channel.namespace.last_value or message.get("persistent") is True
        channel.history.append(self._numbering.seq, encoded, persistent=persistent, now=now)
        self._registry.published(channel, now=now)
        effects: list[Effect] = [
            Deliver(encoded, group.connections, command.skip)
            for group in channel.groups
            if group.filter is None or group.filter.matches(message)
        ]
        published = Published(request, str(encoded.id), name, channel.offset, channel.epoch)
        if request.id is not None:
            for publisher in publishers:
                self._published.remember(publisher, request.id, published, now=now)
        effects.append(published)
        return effects

    def _subscribe(self, command: Subscribe, *, now: float, timestamp: int) -> list[Effect]:
        request, name = command.request, command.channel
        connection_id = request.connection_id
        assert connection_id is not None, "only connections subscribe"
        connection = self._connections.get(connection_id)
        if not command.builtin and (refusal := check_channel(name)):
            return [Refused(request, refusal)]
        if not command.builtin and (refusal := self._rights.decide(Action.SUBSCRIBE, name, asker=connection_id)):
            return [Refused(request, refusal)]
        again = name in connection.channels
        if not (again or command.builtin) and len(connection.channels) >= self._config.max_channels:
            limit = self._config.max_channels
            message = f"a connection may join at most {limit} channels: leave one first"
            return [Refused(request, Refusal("too_many_channels", message, status=429))]
        connection.channels[name] = None
        user_id, info = connection.user_id, connection.grant.info
        channel = self._registry.open(name)
        recalls, sees = self._rights.may_recall(connection, channel), self._rights.may_see(connection, channel)
        filter = command.filter if command.builtin else with_presence(command.filter, sees)
        told: Sequence[Effect] = []
        if self._listen(name, connection_id, user_id, filter, info, now=now):
            member = Member(user_id, connection_id, info)
            told = self._changes.appear(channel, member, now=now, timestamp=timestamp)
        channel.expire(now=now)
        max_bytes = self._config.max_replay_bytes
        complete, publications = missed(channel, command.since, allowed=recalls, max_bytes=max_bytes)
        if again and command.since is None:
            # It was told what was kept when it came, and everything since.
            publications = []
        publications = wanted(publications, command.filter)
        roster: Roster | None = None
        changes: list[Publication] = []
        if sees and (roster := roster_of(channel, limit=self._config.presence_limit)) is not None:
            changes_complete, changes = missed_changes(channel, command.changes_since, allowed=recalls)
            roster = attrs.evolve(roster, recovered=changes_complete)
        recovered = Recovered(complete, len(publications))
        replay = sorted(publications + wanted(changes, command.filter), key=_by_seq) if command.replays else []
        only = (connection_id,)
        return [
            Joined(request, name, channel.offset, channel.epoch, recovered, roster),
            *(Deliver(each.message, only) for each in replay),
            *told,
        ]

    def _unsubscribe(self, command: Unsubscribe, *, now: float, timestamp: int) -> list[Effect]:
        request, name = command.request, command.channel
        assert request.connection_id is not None, "only connections unsubscribe"
        connection = self._connections.get(request.connection_id)
        effects: list[Effect] = [Left(request, name)]
        if name in connection.channels:
            del connection.channels[name]
            effects += self._leave(
                name, request.connection_id, connection.user_id, for_good=True, now=now, timestamp=timestamp
            )
        return effects

    # Membership

    def _listen(
        self,
        name: str,
        connection_id: str,
        user_id: str | None,
        filter: Filter | None = None,
        info: Message | None = None,
        *,
        now: float,
    ) -> bool:
        channel = self._registry.open(name)
        appeared = channel.subscribe(connection_id, user_id, filter, info)
        self._registry.keep(channel, now=now)
        return appeared

    def _unlisten(self, name: str, connection_id: str, *, until: float | None = None, now: float) -> bool:
        channel = self._registry.open(name)
        vanished = channel.unsubscribe(connection_id, until=until)
        self._registry.keep(channel, now=now)
        return vanished

    def _listen_directly(self, channel: Channel) -> None:
        """Subscribe a connection to its own channel, which exists only once something is sent there."""
        if channel.name.startswith("$connection:") and not len(channel):
            connection_id = channel.name.removeprefix("$connection:")
            connection = self._connections.find(connection_id)
            if connection is not None:
                channel.subscribe(connection_id, connection.user_id)

    def _leave(
        self, name: str, connection_id: str, user_id: str | None, *, for_good: bool, now: float, timestamp: int
    ) -> Sequence[Effect]:
        channel = self._registry.open(name)
        grace = channel.namespace.presence_grace
        until = None if for_good or not grace else now + grace
        if not self._unlisten(name, connection_id, until=until, now=now):
            return []
        return self._changes.vanish(channel, connection_id, user_id, now=now, timestamp=timestamp)


def _by_seq(publication: Publication) -> int:
    return publication.seq
