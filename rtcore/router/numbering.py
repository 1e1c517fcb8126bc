"""The numbers of all publications of a router."""

from __future__ import annotations

from rtcore.binary import Bytes
from rtcore.channels import Channel
from rtcore.encoded import Encoded, Source
from rtcore.messages import Message, publication
from rtcore.namespaces import SlowConsumer
from rtcore.tokens import Token

__all__ = ["Numbering"]


class Numbering:
    """Numbers publications, of whatever channel, in their order.

    Args:
        instance: A text that differs between any two routers, past ones included; tokens are made from it.

    Attributes:
        seq: The number of the last publication; 0 before the first.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self.seq = 0

    def publish(
        self,
        channel: Channel,
        message: Message,
        *,
        connection_id: str | None,
        user_id: str | None,
        info: Message | None,
        timestamp: int,
        data: Bytes | None = None,
    ) -> Encoded:
        """Return `message` as the next publication of a channel, which is to be appended to its history.

        Raises:
            LocalProtocolError: If it is no JSON; nothing has changed.
        """
        policy = channel.namespace.slow_consumer
        key = str(message.get(channel.namespace.conflation_key, "")) if policy is SlowConsumer.LATEST else ""
        return self._next(
            message,
            Source(channel.name, channel.epoch, channel.history.offset + 1, policy, key),
            connection_id,
            user_id,
            info,
            timestamp,
            data,
        )

    def change(
        self, channel: Channel, message: Message, *, connection_id: str, user_id: str | None, timestamp: int
    ) -> Encoded:
        """Return `message` as the next of the comings and goings of a channel, to be appended to them."""
        policy = channel.namespace.slow_consumer
        key = f"{user_id}/{connection_id}" if policy is SlowConsumer.LATEST else ""
        # An epoch of its own, or a client that drops what it has heard would take these for publications.
        source = Source(channel.name, channel.changes_epoch, channel.changes.offset + 1, policy, key, True)
        return self._next(message, source, connection_id, user_id, None, timestamp)

    def _next(
        self,
        message: Message,
        source: Source,
        connection_id: str | None,
        user_id: str | None,
        info: Message | None,
        timestamp: int,
        data: Bytes | None = None,
    ) -> Encoded:
        encoded = publication(
            message,
            id=str(Token(self._instance, self.seq + 1)),
            source=source,
            connection_id=connection_id,
            user_id=user_id,
            info=info,
            timestamp=timestamp,
            data=data,
        )
        self.seq += 1
        return encoded
