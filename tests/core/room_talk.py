"""What tests of rooms do, and what they expect to be said to the peers in them."""

from __future__ import annotations

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.router import Request, Since
from rtcore.signaling import (
    CreateRoom,
    Effect,
    Entered,
    JoinRoom,
    Room,
    Rooms,
    SignalingConfig,
    Tell,
    Unlisten,
)

REQUEST = Request("c1", "7")
SDP = "v=0\r\n"
SINCE = Since("e.1", 0)


class Hotel:
    """Rooms, and a clock that stands still until it is moved."""

    def __init__(self, config: SignalingConfig | None = None) -> None:
        self.rooms = Rooms(config or SignalingConfig(), entropy="e")
        self.now = 100.0

    def create(self, room_id: str | None = None, most: int | None = None) -> Room | Refusal:
        return self.rooms.create(CreateRoom(REQUEST, room_id, None, most), now=self.now)

    def try_to_join(
        self,
        connection_id: str,
        room_id: str = "r",
        peer_id: str | None = None,
        instance: str | None = None,
        *,
        user_id: str | None = None,
        session: str | None = None,
        metadata: Message | None = None,
        rollback: bool = True,
        since: Since | None = None,
        resumes: bool = False,
        most: int | None = None,
    ) -> Entered | Refusal:
        command = JoinRoom(
            REQUEST, CreateRoom(REQUEST, room_id, None, most), peer_id, instance, metadata or {}, rollback, since
        )
        return self.rooms.join(command, connection_id, user_id, session, resumes=resumes, now=self.now)

    def join(
        self,
        connection_id: str,
        room_id: str = "r",
        peer_id: str | None = None,
        instance: str | None = None,
        *,
        user_id: str | None = None,
        session: str | None = None,
        metadata: Message | None = None,
        rollback: bool = True,
        since: Since | None = None,
        resumes: bool = False,
    ) -> Entered:
        entered = self.try_to_join(
            connection_id,
            room_id,
            peer_id,
            instance,
            user_id=user_id,
            session=session,
            metadata=metadata,
            rollback=rollback,
            since=since,
            resumes=resumes,
        )
        assert isinstance(entered, Entered)
        return entered

    def leave(self, connection_id: str, room_id: str = "r") -> list[Effect]:
        return self.rooms.leave(connection_id, room_id, now=self.now)

    def lose(self, connection_id: str) -> None:
        self.rooms.disconnect(connection_id, now=self.now)

    def signal(self, connection_id: str, kind: str, target: str, **fields: object) -> Tell | str:
        content: Message = {"sdp": SDP} if kind in ("offer", "answer") else {}
        message: Message = {"type": "webrtc_signal", "signal_type": kind, "target_peer_id": target}
        told = self.rooms.signal(connection_id, {**message, **content, **fields})
        return told if isinstance(told, Tell) else told.code

    def wait_until(self, now: float) -> list[Effect]:
        self.now = now
        effects = self.rooms.handle_timeout(now=now)
        at = self.rooms.next_timeout()
        assert at is None or at > now
        return effects


def left(stream: str, peer_id: str, instance: str, reason: str, room_id: str = "r") -> Tell:
    return Tell(
        stream,
        {"type": "peer_left", "room_id": room_id, "peer_id": peer_id, "instance": instance, "reason": reason},
    )


def taken_over(connection_id: str, stream: str, peer_id: str, instance: str) -> list[Effect]:
    """Return what becomes of a connection whose peer goes on by another."""
    told = left(f"$connection:{connection_id}", peer_id, instance, "taken_over")
    return [told, Unlisten(connection_id, stream)]


def came(
    stream: str,
    peer_id: str,
    instance: str,
    *,
    polite: bool,
    rejoined: bool = False,
    user_id: str | None = None,
    metadata: Message | None = None,
) -> Tell:
    return Tell(
        stream,
        {
            "type": "peer_joined",
            "room_id": "r",
            "peer_id": peer_id,
            "user_id": user_id,
            "instance": instance,
            "metadata": metadata or {},
            "connected": True,
            "polite": polite,
            "rejoined": rejoined,
        },
    )


def passed(stream: str, sender: str, instance: str, kind: str, target: str, **fields: object) -> Tell:
    content: Message = {"sdp": SDP} if kind in ("offer", "answer") else {}
    message: Message = {"type": "webrtc_signal", "signal_type": kind, "target_peer_id": target, **content, **fields}
    return Tell(stream, {**message, "room_id": "r", "peer_id": sender, "instance": instance})


def couple(**config: float) -> Hotel:
    """Return a room with "a" on c1, "b" on c2 and "z", who cannot roll back, on c3; the streams are s1, s2 and s3."""
    hotel = Hotel(SignalingConfig(**config))  # type: ignore[arg-type]
    hotel.join("c1", "r", "a", "a1", user_id="ann", session="secret")
    hotel.join("c2", "r", "b", "b1")
    hotel.join("c3", "r", "z", "z1", rollback=False)
    return hotel


A, B, Z = "$room:se.1", "$room:se.2", "$room:se.3"
