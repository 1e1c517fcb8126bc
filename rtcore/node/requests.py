"""What a node does with what clients ask for, and how it answers them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final, TypeAlias, assert_never

from rtcore.channels import connection_channel
from rtcore.commands import Query, Renew
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import Action, Identity
from rtcore.router import (
    Command,
    Deliver,
    Joined,
    Left,
    Publish,
    Published,
    Refused,
    Request,
    Router,
    Subscribe,
    Unsubscribe,
)
from rtcore.session import Handle, Session, Transport
from rtcore.signaling import CreateRoom, JoinRoom, LeaveRoom, RoomCommand, SendSignal
from rtcore.uploads import BeginUpload

from .answers import error_message, joined_data, receipt, response_message
from .effects import Consult, NodeEffect, Verify, concerns, to
from .queries import describe_presence, page_of_history
from .signaling import Answer, Signaling, Step

__all__ = ["NO_ROOMS", "Requests", "Wanted", "unknown_connection"]

#: What is said of rooms where there are none.
NO_ROOMS: Final = Refusal("webrtc_disabled", "this server has no rooms: WEBRTC_ENABLED is false", status=404)


#: What connections ask for, but for what concerns files that come in chunks.
Wanted: TypeAlias = Subscribe | Unsubscribe | Publish | RoomCommand | Query | Renew | Handle | Refused

# What must be allowed to whoever asks something about a channel.
_ABOUT_CHANNELS: Final = {"history": Action.HISTORY, "presence": Action.PRESENCE}


class Requests:
    """Carries out what clients ask for.

    Args:
        router: The channels.
        sessions: The connections.
        signaling: The rooms, or ``None``.
        consulted: For which actions the application is asked before.
        stats: Returns the counts of the node.

    Attributes:
        published: How many publications were made.
        refused: How many requests were refused.
    """

    def __init__(
        self,
        router: Router,
        sessions: Mapping[str, Session],
        signaling: Signaling | None,
        *,
        consulted: Container[Action],
        stats: Callable[[], Message],
    ) -> None:
        self.published = 0
        self.refused = 0
        self._router = router
        self._sessions = sessions
        self._signaling = signaling
        self._consulted = consulted
        self._stats = stats

    def carry_out(self, wanted: Wanted, session: Session, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Do what a connection asks for, or have it done: by `Handle`, `Verify` or `Consult`."""
        match wanted:
            case Subscribe() | Publish() | Query():
                if consult := self.consult(wanted, session.identity, number=session.number, now=now):
                    return [consult]
                return self._carry_out(wanted, now=now, timestamp=timestamp)
            case Unsubscribe():
                return self.command(wanted, now=now, timestamp=timestamp)
            case Renew(request=request):
                return [Verify(request, wanted.token)]
            case CreateRoom() | JoinRoom() | LeaveRoom() | SendSignal():
                return self._in_rooms(wanted, session, now=now, timestamp=timestamp)
            case Refused():
                return self.answer([wanted])
            case Handle():
                return [wanted]
            case _:
                assert_never(wanted)

    def resolve(self, consult: Consult, refusal: Refusal | None, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Do what the application was asked about, as far as it is allowed now, or answer why not."""
        command = consult.command
        assert not isinstance(command, BeginUpload), "files are begun elsewhere"
        if refusal is not None and (not isinstance(command, Publish) or not self._is_made(command, now=now)):
            return self.answer([Refused(consult.request, refusal)])
        return self._carry_out(command, now=now, timestamp=timestamp)

    def command(self, command: Command, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Have the router do something, and answer who asked for it."""
        return self.answer(self._router.send(command, now=now, timestamp=timestamp))

    def from_outside(self, command: Subscribe | Unsubscribe, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Have the router do something to a connection that has not asked for it, and so is not answered."""
        connection_id = command.request.connection_id
        assert connection_id is not None, "it is a connection that joins or leaves"
        session = self._sessions.get(connection_id)
        if session is None:
            return [Refused(Request(None), unknown_connection(connection_id))]
        effects: list[NodeEffect] = []
        for effect in self._router.send(command, now=now, timestamp=timestamp):
            if isinstance(effect, Refused):
                effects.append(Refused(Request(None), effect.refusal))
            elif isinstance(effect, Deliver):
                if session.transport is Transport.SSE and concerns(effect, connection_id):
                    # What is replayed is older than what the stream has told: it must not take its position back.
                    effect = Deliver(effect.message.with_id(None), effect.connections)
                effects.append(effect)
        return effects

    def answer(self, steps: Sequence[Step]) -> list[NodeEffect]:
        """Turn the outcomes of connections' requests into messages to them."""
        answered: list[NodeEffect] = []
        for effect in steps:
            match effect:
                case Answer():
                    answered += self.respond(effect.request, effect.outcome)
                case Deliver():
                    answered.append(effect)
                case Published(request=request):
                    self.published += not effect.repeated
                    if request.connection_id is None:
                        answered.append(effect)
                    else:
                        answered += self.respond(request, receipt(effect))
                case Joined(request=request):
                    answered += self.respond(request, joined_data(effect))
                case Left(request=request):
                    answered += self.respond(request, {"channel": effect.channel})
                case Refused(request=request, refusal=refusal):
                    if request.connection_id is None:
                        answered.append(effect)
                    else:
                        answered += self.respond(request, refusal)
                case _:
                    assert_never(effect)
        return answered

    def respond(self, request: Request, outcome: Message | Refusal) -> list[NodeEffect]:
        """Answer a connection, which hears of a refusal even if it did not ask."""
        assert request.connection_id is not None, "others are told by effects"
        if isinstance(outcome, Refusal):
            self.refused += 1
            return [to(request.connection_id, error_message(request, outcome))]
        if request.id is None:
            return []
        return [to(request.connection_id, response_message(request, outcome))]

    def consult(
        self,
        command: Subscribe | Publish | BeginUpload | Query,
        identity: Identity,
        *,
        number: int | None = None,
        now: float,
    ) -> Consult | None:
        """Return what the application is to be asked before, or ``None`` where the outcome is clear without it.

        Args:
            command: What is wanted.
            identity: By whom.
            number: That of the connection, or ``None`` without one.
            now: Monotonic seconds.
        """
        connection_id = command.request.connection_id
        action = Action.PUBLISH if isinstance(command, Publish | BeginUpload) else Action.SUBSCRIBE
        if action not in self._consulted:
            return None
        right, message = action, None
        match command:
            case Publish(channel=channel):
                if self._is_made(command, now=now):
                    return None
                message = command.message
            case BeginUpload(channel=channel):
                message = command.head
            case Subscribe(channel=channel):
                pass
            case Query(name=name, data=data):
                if name not in _ABOUT_CHANNELS:
                    return None
                # Who may not join a channel is not to read all that was said there instead.
                right, channel = _ABOUT_CHANNELS[name], str(data["channel"])
            case _:
                assert_never(command)
        if connection_id is not None and channel == connection_channel(connection_id):
            return None
        asker = identity if connection_id is None else connection_id
        if message is None:
            refusal = self._router.decide(right, channel, asker=asker)
        else:
            refusal = self._router.decide_publication(channel, message, asker=asker)
        if refusal:
            return None
        return Consult(action, channel, command, command.request, message, identity, number)

    def _carry_out(self, command: Subscribe | Publish | Query, *, now: float, timestamp: int) -> list[NodeEffect]:
        if isinstance(command, Query):
            return self.respond(command.request, self._query(command, now=now, timestamp=timestamp))
        return self.command(command, now=now, timestamp=timestamp)

    def _is_made(self, command: Publish, *, now: float) -> bool:
        """Tell whether it is the repetition of a publication, which is answered as that was."""
        return self._router.recall_publication(command, now=now) is not None

    def _query(self, query: Query, *, now: float, timestamp: int) -> Message | Refusal:
        asker = query.request.connection_id
        assert asker is not None, "others ask the node"
        match query.name:
            case "ping":
                return {"timestamp": timestamp}
            case "presence":
                return describe_presence(self._router, str(query.data["channel"]), asker=asker)
            case "history":
                return page_of_history(self._router, query.data, asker=asker, now=now)
            case "get_rooms":
                rooms, identity = self._signaling, self._sessions[asker].identity
                return NO_ROOMS if rooms is None else {"rooms": rooms.describe(asker=identity)}
            case "get_connection_stats":
                return self._router.decide(Action.ADMINISTER, asker=asker) or self._stats()
            case name:
                assert name == "get_active_users", "the session lets no other command through"
                users: Message = {"users": self._router.users, "count": self._router.user_count}
                return self._router.decide(Action.ADMINISTER, asker=asker) or users

    def _in_rooms(self, command: RoomCommand, session: Session, *, now: float, timestamp: int) -> list[NodeEffect]:
        if self._signaling is None:
            return self.respond(command.request, NO_ROOMS)
        return self.answer(self._signaling.carry_out(command, session, now=now, timestamp=timestamp))


def unknown_connection(connection_id: str) -> Refusal:
    """Return that nobody is connected under that id."""
    return Refusal("not_found", f"there is no connection {connection_id!r}", status=404)
