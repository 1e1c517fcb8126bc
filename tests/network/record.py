"""What one listener hears, checked as it comes: in order, once, and without a hole that nobody told of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Record", "stream_of"]


def stream_of(message: Mapping[str, Any]) -> str:
    """Return the channel that a message was published to, built-in ones included."""
    if "recipient_id" in message:
        return f"$user:{message['recipient_id']}"
    if message["type"] == "broadcast":
        return "$broadcast"
    return str(message["channel"])


class Record:
    """Hears messages, and holds each against those before it of the same channel.

    Attributes:
        heard: By channel, the number in each message's ``data``, in order.
        gaps: The ``gap`` messages.
        places: By channel and number, the epoch and the offset that it came with.
        positions: By channel, the epoch and the offset that its next message must follow.
    """

    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {}
        self.gaps: list[dict[str, Any]] = []
        self.places: dict[tuple[str, int], tuple[str, int]] = {}
        self.positions: dict[str, tuple[str, int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.heard.values()))

    def take(self, message: dict[str, Any]) -> None:
        """Take a message.

        Raises:
            AssertionError: It is there twice, out of order, or after a hole.
        """
        if message["type"] == "gap":
            self.gaps.append(message)
            if "stream" not in message:
                self._go_on(message)
            return
        stream, meta = stream_of(message), message["meta"]
        heard = self.heard.setdefault(stream, [])
        position = (meta["epoch"], meta["offset"])
        epoch, offset = self.positions.get(stream, (meta["epoch"], meta["offset"] - 1))
        assert position == (epoch, offset + 1), f"{stream}: {position} follows {(epoch, offset)}, {message['data']}"
        # The publisher counts up, so that a publication that is made twice under two offsets shows too.
        assert not heard or message["data"] > heard[-1], f"{stream}: {message['data']} follows {heard[-1]}"
        self.positions[stream] = position
        heard.append(message["data"])
        self.places[stream, message["data"]] = position

    def told_of(self, channel: str, position: tuple[str, int]) -> bool:
        """Whether a gap has told that a publication at this position may be missing."""
        epoch, offset = position
        last = max(
            (place[1] for (where, _), place in self.places.items() if (where, place[0]) == (channel, epoch)), default=0
        )
        for gap in self.gaps:
            if gap["channel"] == channel and "stream" not in gap:
                if gap["epoch"] == epoch and offset <= gap["offset"]:
                    return True
                # What ends a life of the server is the beginning of another.
                if gap["epoch"] != epoch and offset > last:
                    return True
        return False

    def _go_on(self, gap: dict[str, Any]) -> None:
        stream, position = gap["channel"], (gap["epoch"], gap["offset"])
        epoch, offset = self.positions.get(stream, position)
        assert epoch != position[0] or offset <= position[1], f"{gap} leads back from {offset}"
        self.positions[stream] = position
