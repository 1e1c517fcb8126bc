"""Nobody does, hears or learns what they may not, and nobody is refused what they may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from rtcore.channels import BROADCAST
from rtcore.encoded import Encoded
from rtcore.errors import CloseCode, Refusal
from rtcore.messages import Message
from rtcore.permissions import Action, Credential, Grant, Identity, Revocation
from rtcore.simulation.authority import HOOK_DENIED
from rtcore.simulation.entitlement import WhyNot, why_not, why_not_recall

from .invariant import Invariant
from .ledger import Ledger

if TYPE_CHECKING:
    from rtcore.simulation.client import SimulatedClient
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Rights"]

_decode = msgspec.json.Decoder().decode

_SENDING: Final = (Action.PUBLISH, Action.UPLOAD)
_ACTIONS: Final[dict[str, tuple[Action, ...]]] = {
    "join_channel": (Action.SUBSCRIBE,),
    "history": (Action.HISTORY,),
    "presence": (Action.PRESENCE,),
    "begin_upload": _SENDING,
    "get_active_users": (Action.ADMINISTER,),
    "get_connection_stats": (Action.ADMINISTER,),
}
# What may be said to anybody before it is looked at what they are allowed: it is about what they send.
_BEFORE: Final = (
    *(
        "rate_limited",
        "binary_too_large",
        "type_not_allowed",
        "file_too_large",
        "too_many_uploads",
        "upload_superseded",
    ),
)
# Clocks are told in milliseconds.
_TICK: Final = 0.002


@attrs.define(eq=False)
class _Held:
    """What one connection holds.

    Attributes:
        server: Where it is connected.
        user_id: Its user.
        grant: What it is allowed.
        ends_at: Until when, in the server's monotonic seconds; ``None`` for ever.
        wanted: The channels that it wants to join as it connects.
        channels: Those that it is in, as it was told.
        refusal: The code with which its last token must have been refused; ``None`` where it was good.
    """

    server: SimulatedServer
    user_id: str | None
    grant: Grant
    ends_at: float | None
    wanted: tuple[str, ...]
    channels: dict[str, None] = attrs.field(factory=dict)
    refusal: str | None = None


@attrs.define(eq=False)
class _Asked:
    """What a connection has asked for.

    Attributes:
        command: What.
        actions: What it must be allowed for it.
        channel: Where.
        was_allowed: Whether it has been since: who goes on with a file is answered once what has come of it is stored.
    """

    command: str
    actions: tuple[Action, ...]
    channel: str
    was_allowed: bool = False


class Rights(Invariant):
    """Every connection does, hears and learns what its grant and the namespaces allow at that moment, and nothing else.

    Who may not do something is told the same whether there is such a channel or not. Whoever is taken out of a channel
    is told. No connection outlives its grant, and none has a token that was revoked.

    On servers without an authority everybody may do everything, and there is nothing to see.

    Args:
        ledger: What was published.

    Attributes:
        refused: How often somebody was not allowed something, by code.
        removed: How often a connection was taken out of a channel.
        renewed: How often a connection went on with another token.
        ended: How often a connection was ended for what it came with.
    """

    name = "only_what_is_allowed"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.refused: dict[str, int] = {}
        self.removed = 0
        self.renewed = 0
        self.ended = 0
        self._there: dict[str, _Held] = {}
        # Connections whose rights have changed in this step.
        self._changed: dict[str, None] = {}
        self._revocations: dict[str, list[Revocation]] = {}
        self._asked: dict[tuple[str, object], _Asked] = {}
        # The number that the server had come to when a publication, or a change of who is there, was first seen.
        self._seen: dict[tuple[str, int], int] = {}
        # What is said to those who may not, and why not.
        self._texts: dict[tuple[Action, WhyNot], str] = {}
        # The channels that clients were taken out of, and have not asked for since.
        self._unwanted: dict[tuple[str, str], None] = {}

    def recalls(self, server: SimulatedServer, connection_id: str, channel: str) -> bool:
        """Tell whether a connection may be told what it has missed of a channel that it hears."""
        held = self._there.get(connection_id)
        return held is None or self._why_not_recall(held, channel) is None

    # What connections hold

    def server_grants(
        self, server: SimulatedServer, connection_id: str, identity: Identity, channels: tuple[str, ...]
    ) -> None:
        """See `Observer`."""
        if server.authority is not None:
            held = _Held(server, identity.user_id, identity.grant, _end(server, identity.grant), channels)
            self._there[connection_id] = held
            self._changed[connection_id] = None

    def server_renews(self, server: SimulatedServer, connection_id: str, identity: Identity | Refusal) -> None:
        """See `Observer`."""
        held = self._there.get(connection_id)
        if held is None or connection_id not in server.connections or _has_ended(held):
            return
        held.refusal = self._refusal(held, identity)
        if held.refusal is None:
            assert isinstance(identity, Identity), "or it would be refused"
            self.renewed += 1
            held.grant, held.ends_at = identity.grant, _end(server, identity.grant)
            self._changed[connection_id] = None

    def server_regrants(self, server: SimulatedServer, connection_ids: tuple[str, ...], grant: Grant) -> None:
        """See `Observer`."""
        for connection_id in connection_ids:
            held = self._there[connection_id]
            if not _has_ended(held):
                ends = [at for at in (held.ends_at, _end(server, grant)) if at is not None]
                held.ends_at = min(ends, default=None)
                old = held.grant
                held.grant = attrs.evolve(
                    grant, credential=old.credential, token_id=old.token_id, issued_at=old.issued_at
                )
                self._changed[connection_id] = None

    def server_revokes(self, server: SimulatedServer, revocation: Revocation) -> None:
        """See `Observer`."""
        self._revocations.setdefault(server.life, []).append(revocation)
        self._changed.update(dict.fromkeys(server.connections))

    def server_stopped(self, server: SimulatedServer) -> None:
        """See `Observer`."""
        self._there = {name: held for name, held in self._there.items() if held.server is not server}

    def check(self) -> None:
        """See `Invariant`."""
        if not self._there:
            return
        changed, self._changed = self._changed, {}
        for connection_id in changed:
            self._check_changed(connection_id)
        scheduler = self.simulation.world.scheduler
        at = scheduler.next_at()
        if at is not None and at <= scheduler.now:
            # More happens at this moment.
            return
        for connection_id, held in list(self._there.items()):
            server = held.server
            if connection_id not in server.connections:
                del self._there[connection_id]
            elif _has_ended(held) and not server.frozen:
                raise self.broken(f"{connection_id} is connected, and what it came with has ended at {held.ends_at}")

    def _check_changed(self, connection_id: str) -> None:
        held = self._there.get(connection_id)
        if held is None or connection_id not in held.server.connections:
            return
        if self._is_revoked(held.server, held.user_id, held.grant):
            raise self.broken(f"{connection_id} is connected, and its token {held.grant.token_id} was revoked")
        for channel in held.channels:
            if why := self._why_not(Action.SUBSCRIBE, held, channel):
                raise self.broken(f"{connection_id} is in {channel}, and may not be: {why.value}; it was not told")
        for (asker, _), asked in self._asked.items():
            if asker == connection_id:
                self._take_note(held, asked)

    def _refusal(self, held: _Held, identity: Identity | Refusal) -> str | None:
        """Return the code with which a token is to be refused, or ``None`` if it is good."""
        if isinstance(identity, Refusal):
            return identity.code
        if identity.user_id != held.user_id:
            return "user_mismatch"
        if self._is_revoked(held.server, identity.user_id, identity.grant):
            return "token_revoked"
        expires_at = identity.grant.expires_at
        assert expires_at is not None, "every token ends some day"
        return "token_expired" if expires_at <= held.server.timestamp() / 1000 else None

    def _is_revoked(self, server: SimulatedServer, user_id: str | None, grant: Grant) -> bool:
        if grant.credential is not Credential.TOKEN:
            return False
        issued_at = grant.issued_at
        assert issued_at is not None, "every token says so"
        return any(
            each.token_id in (None, grant.token_id)
            and each.user_id in (None, user_id)
            and (each.issued_before is None or issued_at < each.issued_before)
            for each in self._revocations.get(server.life, ())
        )

    def _why_not(self, action: Action, held: _Held, channel: str, *, member: bool | None = None) -> WhyNot | None:
        namespace = held.server.config.node.router.namespaces.get(channel)
        if member is None:
            # Everybody is in what they hear anyway.
            member = channel in held.channels or channel in (BROADCAST, f"$user:{held.user_id}")
        return why_not(action, channel, user_id=held.user_id, grant=held.grant, namespace=namespace, member=member)

    def _why_not_recall(self, held: _Held, channel: str) -> WhyNot | None:
        namespace = held.server.config.node.router.namespaces.get(channel)
        return why_not_recall(channel, user_id=held.user_id, grant=held.grant, namespace=namespace)

    # What they ask for

    def server_received(self, server: SimulatedServer, connection_id: str, text: str) -> None:
        """See `Observer`."""
        if connection_id not in self._there:
            return
        message = _decode(text)
        id, command = message.get("id"), str(message.get("command", ""))
        if command:
            data = message.get("data") or {}
            asked = _Asked(command, _ACTIONS.get(command, ()), _target(data))
        else:
            actions = _SENDING if message["type"] == "binary" else (Action.PUBLISH,)
            asked = _Asked("publish", actions, _target(message))
        self._asked[connection_id, id] = asked
        self._take_note(self._there[connection_id], asked)

    def _take_note(self, held: _Held, asked: _Asked) -> None:
        if asked.command == "begin_upload":
            asked.was_allowed |= not any(self._why_not(action, held, asked.channel) for action in asked.actions)

    # What they hear

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`; the ledger is told before."""
        if server.authority is None:
            return
        source = message.source
        if source is None:
            # What only moves a position on an event stream has no text.
            if receivers[0] in self._there and message.json:
                self._told(server, receivers[0], message)
            return
        key, channel = (source.epoch, source.offset), source.channel
        here = server.node._router._numbering.seq
        is_new = key not in self._seen
        # Whether anything else has been said since.
        again = self._seen.setdefault(key, here) != here
        if not source.presence:
            publication = self._ledger.publications[key]
            if is_new:
                content = _decode(message.json)
                actions = _SENDING if content["type"] == "binary" else (Action.PUBLISH,)
                self._check_publisher(content["meta"]["sender"]["connection_id"], channel, str(publication), actions)
            # What is kept for later joiners is theirs to hear.
            again = again and not publication.persistent
        for connection_id in receivers:
            held = self._there.get(connection_id)
            if held is not None and connection_id in server.connections:
                self._check_hearing(connection_id, held, channel, presence=source.presence, again=again)

    def _check_hearing(self, connection_id: str, held: _Held, channel: str, *, presence: bool, again: bool) -> None:
        what = f"{connection_id} hears {'who comes and goes' if presence else 'what is said'} in {channel}"
        why = None if channel.startswith("$") else self._why_not(Action.SUBSCRIBE, held, channel)
        if why is None and presence:
            why = self._why_not(Action.PRESENCE, held, channel, member=True)
        if why is None and again:
            what += " and was said before"
            why = self._why_not_recall(held, channel)
        if why is not None:
            raise self.broken(f"{what}, and may not: {why.value}")
        if self._is_revoked(held.server, held.user_id, held.grant):
            raise self.broken(f"{what}, and its token {held.grant.token_id} was revoked")

    def _check_publisher(self, connection_id: str | None, channel: str, what: str, actions: tuple[Action, ...]) -> None:
        """Fail if who has just published something may not."""
        if connection_id is None or channel == f"$connection:{connection_id}":
            return
        held = self._there[connection_id]
        for action in actions:
            if why := self._why_not(action, held, channel):
                raise self.broken(f"{what} is published by {connection_id}, who may not: {why.value}")
        if _has_ended(held):
            raise self.broken(f"{what} is published by {connection_id}, whose time has ended at {held.ends_at}")

    # What they are told

    def _told(self, server: SimulatedServer, connection_id: str, encoded: Encoded) -> None:
        message, held = _decode(encoded.json), self._there[connection_id]
        kind = message["type"]
        if kind in ("response", "error"):
            asked = self._asked.pop((connection_id, message.get("id")), None)
            if asked is None:
                return
            if kind == "response":
                self._check_answer(connection_id, held, asked, message["data"])
            else:
                self._check_refusal(connection_id, held, asked, message)
        elif kind == "connected":
            held.channels = dict.fromkeys(message["channels"])
            for channel in held.wanted:
                if channel not in held.channels and self._why_not(Action.SUBSCRIBE, held, channel) is None:
                    raise self.broken(f"{connection_id} is not let into {channel} without reason")
            self._check_time(connection_id, held, message)
            for channel in held.channels:
                self._check_roster(connection_id, held, channel, message.get("presence", {}).get(channel))
        elif kind == "unsubscribed":
            self.removed += 1
            channel = str(message["channel"])
            del held.channels[channel]
            if self._why_not(Action.SUBSCRIBE, held, channel) is None:
                raise self.broken(f"{connection_id} is taken out of {channel}, where it may be")
        elif kind == "gap" and message["reason"] == "presence_limit":
            self._check_roster(connection_id, held, str(message["channel"]), message)
        elif kind == "upload" and "file" in message:
            key = (str(message["file"]["epoch"]), int(message["file"]["offset"]))
            if key not in self._seen:
                self._seen[key] = server.node._router._numbering.seq
                channel = self._ledger.publications[key].line.channel
                self._check_publisher(connection_id, channel, f"{key}", _SENDING)
        elif kind == "disconnect" and message["code"] == CloseCode.UNAUTHORIZED:
            self.ended += 1
            if not _has_ended(held) and not self._is_revoked(server, held.user_id, held.grant):
                raise self.broken(f"{connection_id} is ended, and its token is good: {message['reason']}")

    def _check_answer(self, connection_id: str, held: _Held, asked: _Asked, data: Message) -> None:
        channel = asked.channel
        if asked.command == "refresh_token":
            if held.refusal is not None:
                raise self.broken(f"{connection_id} goes on with a token that is good for nothing: {held.refusal}")
            self._check_time(connection_id, held, data)
        elif asked.command == "leave_channel":
            held.channels.pop(channel, None)
        elif asked.command == "publish":
            key = (str(data["epoch"]), int(str(data["offset"])))
            if key not in self._seen:
                self._seen[key] = held.server.node._router._numbering.seq
                self._check_publisher(connection_id, str(data["channel"]), f"{key}", asked.actions)
        elif asked.command == "begin_upload" and "file" in data:
            # What has become of it is no secret to who has sent it.
            pass
        else:
            for action in asked.actions:
                if (why := self._why_not(action, held, channel)) and not asked.was_allowed:
                    raise self.broken(f"{connection_id} is answered {asked.command} of {channel}, but {why.value}")
            if asked.command == "join_channel":
                held.channels[channel] = None
                self._check_roster(connection_id, held, channel, data.get("presence"))

    def _check_refusal(self, connection_id: str, held: _Held, asked: _Asked, error: Message) -> None:
        code, text = str(error["code"]), str(error["message"])
        if asked.command == "refresh_token":
            if code not in _BEFORE and code != held.refusal:
                raise self.broken(f"{connection_id} cannot go on: {code}, but it is {held.refusal}")
            return
        if code in _BEFORE or text == HOOK_DENIED:
            return
        reasons = [(action, why) for action in asked.actions if (why := self._why_not(action, held, asked.channel))]
        for action in asked.actions:
            if code == ("admin_required" if action is Action.ADMINISTER else f"{action.value}_denied"):
                self.refused[code] = self.refused.get(code, 0) + 1
                why = dict(reasons).get(action)
                if why is None:
                    raise self.broken(f"{connection_id} is refused {asked.command} of {asked.channel} without reason")
                first = self._texts.setdefault((action, why), text)
                if text != first:
                    raise self.broken(f"{connection_id} is told {text!r} of {asked.channel}, and others {first!r}")
                return
        if reasons:
            raise self.broken(f"{connection_id} may not {asked.command} {asked.channel}, and is told of {code}")

    def _check_roster(self, connection_id: str, held: _Held, channel: str, roster: object) -> None:
        """Fail if who is told who is in a channel may not know, or the other way round."""
        if not held.server.config.node.router.namespaces.get(channel).presence:
            return
        why = self._why_not(Action.PRESENCE, held, channel, member=True)
        if (roster is None) is (why is None):
            raise self.broken(f"{connection_id} is told of {roster} in {channel}, but it is {why}")

    def _check_time(self, connection_id: str, held: _Held, message: Message) -> None:
        expires_in = message.get("expires_in")
        left = None if held.ends_at is None else held.ends_at - held.server.now()
        same = expires_in is left
        if isinstance(expires_in, int | float) and left is not None:
            same = abs(expires_in - left) < _TICK
        if not same:
            raise self.broken(f"{connection_id} is told that its time ends in {expires_in}, but that is in {left}")

    # What clients do about it

    def client_heard(self, client: SimulatedClient, message: Message) -> None:
        """See `Observer`."""
        if message["type"] == "unsubscribed":
            channel = str(message["channel"])
            if not client.wants_to_join(channel):
                self._unwanted[client.name, channel] = None

    def client_asks(self, client: SimulatedClient, channel: str) -> None:
        """See `Observer`."""
        self._unwanted.pop((client.name, channel), None)

    def client_says(self, client: SimulatedClient, text: str) -> None:
        """See `Observer`."""
        if self._unwanted and '"join_channel"' in text:
            channel = str(_decode(text)["data"]["channel"])
            if (client.name, channel) in self._unwanted:
                raise self.broken(f"{client} joins {channel}, of which it was taken out, and its user has not asked")


def _target(data: Message) -> str:
    return f"$user:{data['recipient_id']}" if "recipient_id" in data else str(data.get("channel", ""))


def _end(server: SimulatedServer, grant: Grant) -> float | None:
    """Return when a grant ends by the clock of a server."""
    return None if grant.expires_at is None else server.now() + (grant.expires_at - server.timestamp() / 1000)


def _has_ended(held: _Held) -> bool:
    return held.ends_at is not None and held.ends_at <= held.server.now()
