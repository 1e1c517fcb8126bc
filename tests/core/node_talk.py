"""What tests of the router and of the node say, and what they expect to hear."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.namespaces import Namespace
from rtcore.node import PROTOCOL_VERSION, Close, Consult, Node, NodeConfig, NodeEffect
from rtcore.permissions import OPEN, Action, Credential, Grant, Identity, Scope, decide
from rtcore.permissions.revocations import Revocation
from rtcore.router import Command, Deliver, Effect, Joined, Recovered, Request, Roster, Router, RouterConfig
from rtcore.session import Transport

STAMP = 1_700_000_000_000
NAMED = {
    *("connected", "response", "error", "heartbeat", "disconnect", "user_joined", "user_left", "gap", "unsubscribed"),
    "upload",
}


def encoded(message: Message, id: str | None = None) -> Encoded:
    kind = str(message["type"])
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    return Encoded(body, kind if kind in NAMED else None, id=id)


def to(connection_id: str, message: Message) -> Deliver:
    return Deliver(encoded(message), (connection_id,))


def ok(connection_id: str, data: Message, identifier: str | int = "7") -> Deliver:
    return to(connection_id, {"type": "response", "id": identifier, "ok": True, "data": data})


def error(
    connection_id: str,
    code: str,
    message: str,
    identifier: str | int | None = "7",
    *,
    retry_after: int | None = None,
) -> Deliver:
    said: Message = {"type": "error", "code": code, "message": message}
    if identifier is not None:
        said["id"] = identifier
    if retry_after is not None:
        said["retry_after"] = retry_after
    return to(connection_id, said)


def published(
    message: Message, offset: int, epoch: str, seq: int, connection_id: str | None = None, user_id: str | None = None
) -> Encoded:
    """Return the publication of a router whose entropy is ``e``, `seq` among all of them."""
    meta = {
        "id": f"e-{seq}",
        "offset": offset,
        "epoch": epoch,
        "sender": {"connection_id": connection_id, "user_id": user_id},
        "timestamp": STAMP,
    }
    return encoded({**message, "meta": meta}, f"e-{seq}")


def came_or_went(
    kind: str, channel: str, offset: int, epoch: str, seq: int, connection_id: str, user_id: str | None
) -> Encoded:
    """Return a ``user_joined`` or ``user_left`` in the first life of the changes of the channel of that epoch."""
    message: Message = {"type": kind, "channel": channel, "user_id": user_id, "connection_id": connection_id}
    return published(message, offset, epoch if "p" in epoch else f"{epoch}p", seq, connection_id, user_id)


def gap(channel: str, epoch: str, offset: int, reason: str) -> Message:
    return {"type": "gap", "channel": channel, "epoch": epoch, "offset": offset, "reason": reason}


def presence_gap(channel: str, epoch: str) -> Encoded:
    return encoded(
        {
            "type": "gap",
            "stream": "presence",
            "channel": channel,
            "epoch": epoch,
            "offset": 0,
            "reason": "presence_limit",
        }
    )


def member(user_id: str | None, connection_id: str) -> Message:
    return {"user_id": user_id, "connection_id": connection_id}


def roster(*members: tuple[str | None, str], epoch: str, offset: int, recovered: bool | None = None) -> Message:
    """Return who is present in a channel as clients are told."""
    said: Message = {
        "count": len(members),
        "users": [member(*each) for each in members],
        "epoch": epoch,
        "offset": offset,
    }
    return said if recovered is None else {**said, "recovered": recovered}


def connected(
    connection_id: str,
    user_id: str | None,
    *channels: str,
    at: str = "e-0",
    heartbeat_interval: float | None = 30.0,
    session_epoch: str | None = None,
    recovered: bool | None = None,
    gaps: list[Message] | None = None,
    presence: dict[str, Message] | None = None,
    expires_in: float | None = None,
) -> Deliver:
    message: Message = {
        "type": "connected",
        "connection_id": connection_id,
        "user_id": user_id,
        "protocol": PROTOCOL_VERSION,
        "heartbeat_interval": heartbeat_interval,
        "channels": list(channels),
        "session_epoch": session_epoch,
        "last_event_id": at,
    }
    if expires_in is not None:
        message["expires_in"] = expires_in
    if recovered is not None:
        message["recovered"] = recovered
    if gaps is not None:
        message["gaps"] = gaps
    if presence is not None:
        message["presence"] = presence
    return to(connection_id, message)


class Routed:
    """A router, and a clock that stands still until it is moved."""

    def __init__(self, config: RouterConfig | None = None) -> None:
        self.router = Router(config or RouterConfig(), entropy="e")
        self.now = 100.0

    def attach(self, connection_id: str, user_id: str | None = None, *, session: str | None = None) -> str | None:
        return self.router.attach(connection_id, user_id, session=session, now=self.now)

    def send(self, command: Command) -> list[Effect]:
        return self.router.send(command, now=self.now, timestamp=STAMP)

    def detach(self, connection_id: str) -> list[Effect]:
        return self.router.detach(connection_id, now=self.now, timestamp=STAMP)

    def wait_until(self, now: float) -> list[Effect]:
        self.now = now
        effects = self.router.handle_timeout(now=now, timestamp=STAMP)
        at = self.router.next_timeout()
        assert at is None or at > now
        return effects


def joined(
    request: Request,
    channel: str,
    offset: int,
    epoch: str,
    *members: tuple[str | None, str],
    changes: int = 0,
    complete: bool | None = None,
    replayed: int = 0,
    changes_complete: bool | None = None,
) -> Joined:
    """Return the answer to a join of a channel in the first life of its changes."""
    listed = [member(*each) for each in members]
    there = Roster(len(members), listed, f"{epoch}p", changes, changes_complete)
    return Joined(request, channel, offset, epoch, Recovered(complete, replayed), there)


class Served:
    """A node, and clocks that stand still until they are moved."""

    def __init__(self, config: NodeConfig | None = None, *handled: str, consulted: Container[Action] = ()) -> None:
        self.node = Node(config or NodeConfig(), entropy="e", handled=handled, consulted=consulted)
        self.now = 100.0
        self.timestamp = STAMP

    def connect(
        self,
        connection_id: str,
        user_id: str | None,
        *channels: str,
        transport: Transport = Transport.WEBSOCKET,
        session: str | None = None,
        last_event_id: str | None = None,
        grant: Grant = OPEN,
        address: str | None = None,
    ) -> list[NodeEffect]:
        return self.node.connect(
            connection_id,
            user_id=user_id,
            grant=grant,
            address=address,
            transport=transport,
            channels=channels,
            session=session,
            last_event_id=last_event_id,
            now=self.now,
            timestamp=self.timestamp,
        )

    def receive(self, connection_id: str, message: Message | str) -> list[NodeEffect]:
        text = message if isinstance(message, str) else json.dumps(message)
        return self.node.receive_text(connection_id, text, now=self.now, timestamp=self.timestamp)

    def command(self, connection_id: str, name: str, **data: object) -> list[NodeEffect]:
        return self.receive(connection_id, {"type": "command", "command": name, "data": data, "id": "7"})

    def publish(self, channel: str, message: Message, user_id: str | None = None) -> list[NodeEffect]:
        return self.node.publish(channel, message, user_id=user_id, now=self.now, timestamp=self.timestamp)

    def renew(self, connection_id: str, outcome: Identity | Refusal, identifier: str | None = "7") -> list[NodeEffect]:
        return self.node.renew(Request(connection_id, identifier), outcome, now=self.now, timestamp=self.timestamp)

    def regrant(self, connection_id: str, grant: Grant) -> list[NodeEffect]:
        return self.node.regrant(connection_id, grant, now=self.now, timestamp=self.timestamp)

    def revoke(self, **criteria: Any) -> list[NodeEffect] | Refusal:
        revocation = Revocation(until=self.timestamp / 1000 + 10_000.0, **criteria)
        return self.node.revoke(revocation, now=self.now, timestamp=self.timestamp)

    def resolve(self, consult: Consult, refusal: Refusal | None = None) -> list[NodeEffect]:
        return self.node.resolve(consult, refusal, now=self.now, timestamp=self.timestamp)

    def disconnect(self, connection_id: str) -> list[NodeEffect]:
        return self.node.disconnect(connection_id, now=self.now, timestamp=self.timestamp)

    def wait_until(self, now: float) -> list[NodeEffect]:
        self.now = now
        effects = self.node.handle_timeout(now=now, timestamp=self.timestamp)
        at = self.node.next_timeout()
        assert at is None or at > now
        return effects


def token(
    *, expires_in: float | None = 60.0, issued: float | None = 0.0, token_id: str | None = "t", **rights: Any
) -> Grant:
    """Return what a token allows that was issued, and ends, so many seconds after `STAMP`."""
    return Grant(
        credential=Credential.TOKEN,
        token_id=token_id,
        issued_at=None if issued is None else STAMP / 1000 + issued,
        expires_at=None if expires_in is None else STAMP / 1000 + expires_in,
        **rights,
    )


def denial(action: Action, name: str = "", grant: Grant | None = None) -> Refusal:
    """Return why Ann may not do something, who is allowed nothing, or what `grant` says."""
    nothing = Scope(exclusive=True)
    held = Grant(subscribe=nothing, publish=nothing, history=nothing, presence=nothing, signal=nothing)
    refusal = decide(action, name, user_id="ann", grant=grant or held, namespace=Namespace(pattern="*"))
    assert refusal is not None
    return refusal


def denied(connection_id: str, action: Action, name: str = "", identifier: str | None = "7") -> Deliver:
    """Return that answer to a connection."""
    refusal = denial(action, name)
    return error(connection_id, refusal.code, refusal.message, identifier)


def unauthorized(connection_id: str, reason: str) -> list[NodeEffect]:
    """Return how a connection ends whose token is good no longer."""
    message: Message = {"type": "disconnect", "code": 4401, "reason": reason, "reconnect": False}
    return [to(connection_id, message), Close(connection_id, 4401, reason)]


def small_node(config: NodeConfig | None = None) -> Served:
    """Return a node with Ann on c1 and c2, and somebody anonymous on c3."""
    served = Served(config)
    served.connect("c1", "ann")  # e.1 is the epoch of her own channel, e.2 that of everybody's
    served.connect("c2", "ann")
    served.connect("c3", None)
    return served
