"""What a driver does about rooms, for servers that have some."""

from __future__ import annotations

from collections.abc import Sequence

from rtcore import Identity, Message, Refusal
from rtcore.node import NodeEffect, Signaling
from rtcore.router import Published
from rtcore.signaling import CreateRoom

from .driver_base import DriverBase

__all__ = ["RoomDriver"]


class RoomDriver(DriverBase):
    """The part of `rtcore_transports.Driver` that is about rooms."""

    @property
    def signaling(self) -> Signaling:
        """The rooms, as they are now."""
        self.catch_up()
        signaling = self.node.signaling
        assert signaling is not None, "the caller knows that there are rooms"
        return signaling

    def create_room(self, command: CreateRoom, *, asker: Identity | None = None) -> Message | Refusal:
        """Make a room; returns it, or why there is none."""
        room = self.signaling.create(command, asker=asker, now=self.now())
        self._perform([])
        return room if isinstance(room, Refusal) else room.describe()

    def update_room(self, room_id: str, *, name: str | None, max_participants: int | None) -> Refusal | None:
        """Change a room, and tell the peers in it; returns why not, if not."""
        return self._perform_or_refuse(
            self.signaling.update(room_id, name=name, max_participants=max_participants, **self._moment())
        )

    def close_room(self, room_id: str) -> Refusal | None:
        """End a room, and tell the peers in it; returns why not, if not."""
        return self._perform_or_refuse(self.signaling.close(room_id, **self._moment()))

    def remove_peer(self, room_id: str, peer_id: str) -> Refusal | None:
        """Send a peer away from a room, and tell it and the others; returns why not, if not."""
        return self._perform_or_refuse(self.signaling.remove(room_id, peer_id, **self._moment()))

    def signal(self, message: Message, *, asker: Identity | None = None) -> Published | Refusal:
        """Pass on what a program says for a peer, see `rtcore.node.Signaling.signal_as`, or tell why not."""
        if asker is not None and (refusal := self.node.throttle(asker, message, now=self.now())):
            self._perform([])
            return refusal
        effects = self.signaling.signal_as(message, asker=asker, **self._moment())
        if isinstance(effects, Refusal):
            return effects
        [published] = [each for each in self._perform(effects) if isinstance(each, Published)]
        return published

    def _perform_or_refuse(self, effects: Sequence[NodeEffect] | Refusal) -> Refusal | None:
        if isinstance(effects, Refusal):
            return effects
        self._perform(effects)
        return None
