"""What tests of the router and of the node say, and what they expect to hear."""

from __future__ import annotations

import json

from rtcore.messages import Encoded, Message
from rtcore.node import PROTOCOL_VERSION, Node, NodeConfig, NodeEffect
from rtcore.router import Deliver
from rtcore.session import Transport

STAMP = 1_700_000_000_000
NAMED = {"connected", "response", "error", "heartbeat", "disconnect", "user_joined", "user_left"}


def encoded(message: Message) -> Encoded:
    kind = str(message["type"])
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    return Encoded(body, kind if kind in NAMED else None)


def to(connection_id: str, message: Message) -> Deliver:
    return Deliver(encoded(message), (connection_id,))


def ok(connection_id: str, data: Message, identifier: str | int = "7") -> Deliver:
    return to(connection_id, {"type": "response", "id": identifier, "ok": True, "data": data})


def error(connection_id: str, code: str, message: str, identifier: str | int | None = "7") -> Deliver:
    said: Message = {"type": "error", "code": code, "message": message}
    return to(connection_id, said if identifier is None else {**said, "id": identifier})


def published(
    message: Message, offset: int, epoch: str, connection_id: str | None = None, user_id: str | None = None
) -> Encoded:
    meta = {
        "id": f"{epoch}:{offset}",
        "offset": offset,
        "epoch": epoch,
        "sender": {"connection_id": connection_id, "user_id": user_id},
        "timestamp": STAMP,
    }
    return encoded({**message, "meta": meta})


def came_or_went(kind: str, channel: str, offset: int, epoch: str, connection_id: str, user_id: str | None) -> Encoded:
    message: Message = {"type": kind, "channel": channel, "user_id": user_id, "connection_id": connection_id}
    return published(message, offset, f"{epoch}p", connection_id, user_id)


def connected(
    connection_id: str, user_id: str | None, *channels: str, heartbeat_interval: float | None = 30.0
) -> Deliver:
    message: Message = {
        "type": "connected",
        "connection_id": connection_id,
        "user_id": user_id,
        "protocol": PROTOCOL_VERSION,
        "heartbeat_interval": heartbeat_interval,
        "channels": list(channels),
    }
    return to(connection_id, message)


class Served:
    """A node, and a clock that stands still until it is moved."""

    def __init__(self, config: NodeConfig | None = None, *handled: str) -> None:
        self.node = Node(config or NodeConfig(), entropy="e", handled=handled)
        self.now = 100.0

    def connect(
        self, connection_id: str, user_id: str | None, *channels: str, transport: Transport = Transport.WEBSOCKET
    ) -> list[NodeEffect]:
        return self.node.connect(
            connection_id, user_id=user_id, transport=transport, channels=channels, now=self.now, timestamp=STAMP
        )

    def receive(self, connection_id: str, message: Message | str) -> list[NodeEffect]:
        text = message if isinstance(message, str) else json.dumps(message)
        return self.node.receive_text(connection_id, text, now=self.now, timestamp=STAMP)

    def command(self, connection_id: str, name: str, **data: object) -> list[NodeEffect]:
        return self.receive(connection_id, {"type": "command", "command": name, "data": data, "id": "7"})

    def publish(self, channel: str, message: Message, user_id: str | None = None) -> list[NodeEffect]:
        return self.node.publish(channel, message, user_id=user_id, now=self.now, timestamp=STAMP)

    def disconnect(self, connection_id: str) -> list[NodeEffect]:
        return self.node.disconnect(connection_id, now=self.now, timestamp=STAMP)

    def wait_until(self, now: float) -> list[NodeEffect]:
        self.now = now
        return self.node.handle_timeout(now=now, timestamp=STAMP)


def small_node() -> Served:
    """Return a node with Ann on c1 and c2, and somebody anonymous on c3."""
    served = Served()
    served.connect("c1", "ann")  # e.1 is the epoch of her own channel, e.2 that of everybody's
    served.connect("c2", "ann")
    served.connect("c3", None)
    return served
