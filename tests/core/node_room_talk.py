"""What peers say in the rooms of a node, and what they expect to hear."""

from __future__ import annotations

import attrs

from rtcore.encoded import Encoded
from rtcore.messages import Message
from rtcore.node import NodeConfig, NodeEffect
from rtcore.router import Deliver, Request
from rtcore.session import Transport
from rtcore.signaling import CreateRoom, JoinRoom

from .node_talk import STAMP, Served, encoded, error

SDP = "v=0\r\n"


def said(
    message: Message, offset: int, epoch: str, seq: int, connection_id: str | None = None, user_id: str | None = None
) -> Encoded:
    """Return something that is said on the stream of a peer, `seq` among all publications of a node."""
    sender = {"connection_id": connection_id, "user_id": user_id}
    meta = {"id": f"e-{seq}", "offset": offset, "epoch": epoch, "sender": sender, "timestamp": STAMP}
    plain = encoded({**message, "meta": meta}, f"e-{seq}")
    return Encoded(plain.json, str(message["type"]), id=plain.id)


def peer(
    peer_id: str,
    instance: str,
    user_id: str | None = None,
    *,
    is_connected: bool = True,
    polite: bool | None = None,
    metadata: Message | None = None,
) -> Message:
    about: Message = {
        "peer_id": peer_id,
        "user_id": user_id,
        "instance": instance,
        "metadata": metadata or {},
        "connected": is_connected,
    }
    return about if polite is None else {**about, "polite": polite}


def room(*participants: Message, room_id: str = "r", most: int = 8) -> Message:
    return {
        "room_id": room_id,
        "name": room_id,
        "max_participants": most,
        "participants": list(participants),
    }


def entered(peer_id: str, instance: str, *others: Message, room_id: str = "r", **stands: object) -> Message:
    return {**room(*others, room_id=room_id), "peer_id": peer_id, "instance": instance, **stands}


def came(peer_id: str, instance: str, user_id: str | None = None, *, polite: bool, rejoined: bool = False) -> Message:
    about = peer(peer_id, instance, user_id, polite=polite)
    return {"type": "peer_joined", "room_id": "r", **about, "rejoined": rejoined}


def left(peer_id: str, instance: str, reason: str) -> Message:
    return {"type": "peer_left", "room_id": "r", "peer_id": peer_id, "instance": instance, "reason": reason}


def taken_over(connection_id: str, epoch: str, seq: int) -> Deliver:
    """Return what a connection of Bob's is told, on its own channel of that epoch, when another has become his."""
    return Deliver(said(left("b", "b1", "taken_over"), 1, epoch, seq), (connection_id,))


def signal(kind: str, target: str, **fields: object) -> Message:
    content: Message = {"sdp": SDP} if kind in ("offer", "answer") else {}
    return {"type": "webrtc_signal", "signal_type": kind, "target_peer_id": target, **content, **fields}


def signed(message: Message, peer_id: str, instance: str) -> Message:
    return {**message, "room_id": "r", "peer_id": peer_id, "instance": instance}


def refused(code: str, text: str) -> Deliver:
    return error("c1", code, text)


@attrs.define
class Call:
    """A room with Ann, as "a" on c1, and Bob, as "b" on c2, who has the secret "bs"; their epochs are e.4 and e.5."""

    served: Served

    def join(self, connection_id: str, peer_id: str, instance: str, **fields: object) -> list[NodeEffect]:
        return self.served.command(
            connection_id, "join_room", room_id="r", peer_id=peer_id, instance=instance, **fields
        )


def calling(config: NodeConfig | None = None) -> Call:
    served = Served(config)
    served.connect("c1", "ann")  # e.1 and e.2 are the epochs of her own channel, and of everybody's
    served.connect("c2", None, session="bs")
    call = Call(served)
    call.join("c1", "a", "a1")
    call.join("c2", "b", "b1")
    return call


def rejoined(served: Served, name: str, since: int, epoch: str = "e.4", **fields: object) -> list[NodeEffect]:
    """Have Bob join again by a new connection."""
    served.connect(name, None, session="bs")
    fields = {"room_id": "r", "peer_id": "b", "instance": "b1", "since": {"epoch": epoch, "offset": since}, **fields}
    return served.command(name, "join_room", **fields)


def enter(
    served: Served,
    name: str,
    peer_id: str | None,
    instance: str | None,
    *,
    session: str | None = "bs",
    last_event_id: str | None = None,
    most: int | None = None,
) -> list[NodeEffect]:
    request = Request(None)
    return served.node.connect(
        name,
        transport=Transport.WEBSOCKET,
        session=session,
        last_event_id=last_event_id,
        signals=True,
        room=JoinRoom(request, CreateRoom(request, "r", None, most), peer_id, instance),
        now=served.now,
        timestamp=STAMP,
    )


def with_room(deliver: Deliver, told: Message) -> Deliver:
    tail = encoded({"type": "connected", "room": told}).json.removeprefix(b'{"type":"connected"')
    return Deliver(Encoded(deliver.message.json[:-1] + tail, "connected"), deliver.connections)
