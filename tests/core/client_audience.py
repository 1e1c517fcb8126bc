"""What an application hears of its client, held against what was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

# Of these "given" and "both" are joined by the server on connecting, and the first is never asked for.
JOINED = ["plain", "last", "oldest", "latest", "filtered", "both"]
GIVEN = ("given", "both")
FILTERS: dict[str, object] = {"types": ["wanted"]}
Place = tuple[str, int]


def stream_of(channel: str, presence: bool) -> str:
    return f"{channel}/presence" if presence else channel


@attrs.define
class Said:
    """A publication that is in its channel."""

    number: int
    type: str
    silenced: str | None = None


@attrs.define
class Heard:
    """What an application knows of one stream: it must go on after this."""

    epoch: str | None
    offset: int
    # Of what is kept for later joiners, the last one told since somebody came or a gap was announced.
    kept: int | None = 0


class Truth:
    """What was published where, in all lives of the server."""

    def __init__(self) -> None:
        self.channels: dict[str, str] = {}
        self.log: dict[str, dict[int, Said]] = {}
        self.newest: dict[str, Place] = {}
        self.places: dict[int, Place] = {}

    def published(self, channel: str, epoch: str, offset: int, said: Said) -> None:
        place = (epoch, offset)
        assert self.places.setdefault(said.number, place) == place, "published twice"
        log = self.log.setdefault(epoch, {})
        if offset not in log:
            assert offset == len(log) + 1
            log[offset] = said
            self.channels[epoch] = channel
            self.newest[channel] = place
        assert log[offset].number == said.number


class Listener:
    """An application: it holds all that its client tells it against what was said."""

    def __init__(self, name: str, truth: Truth) -> None:
        self.name = name
        self.truth = truth
        self.streams: dict[str, Heard] = {}
        self.once: dict[Place, None] = {}
        self.refused: dict[int, None] = {}
        self.awaited: dict[int, None] = {}

    def begin(self, began: dict[str, Place]) -> None:
        for channel, (epoch, offset) in began.items():
            self.streams[channel] = Heard(epoch or None, offset)

    def connected(self, given: Sequence[str]) -> None:
        # Where the server joins by itself it says who is there in `connected`, and goes on from that.
        for channel in given:
            self.streams.pop(stream_of(channel, True), None)

    def joined(self, channel: str, data: Any) -> None:
        heard = self.streams.get(channel)
        if data.get("recovered"):
            assert heard is not None
            assert heard.epoch == data["epoch"]
        elif heard is None:
            self.streams[channel] = Heard(data["epoch"], data["offset"])
        presence = data["presence"]
        key = stream_of(channel, True)
        if presence.get("recovered") and channel in GIVEN and key not in self.streams:
            # It may be in the middle of what is replayed.
            return
        if not presence.get("recovered"):
            self.streams[key] = Heard(presence["epoch"], presence["offset"], None)

    def left(self, channel: str) -> None:
        self.streams.pop(channel, None)
        self.streams.pop(stream_of(channel, True), None)
        if channel != "given":
            self.once = {place: None for place in self.once if self.truth.channels.get(place[0]) != channel}

    def hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "gap":
            self.interrupted(message)
        elif "meta" in message:
            self.published(message)

    def interrupted(self, gap: dict[str, Any]) -> None:
        key = stream_of(gap["channel"], gap.get("stream") == "presence")
        heard = self.streams.get(key)
        if heard is not None:
            if heard.epoch == gap["epoch"]:
                assert gap["offset"] >= heard.offset or gap["reason"] == "slow_consumer"
                gap = {**gap, "offset": max(gap["offset"], heard.offset)}
            self.streams[key] = Heard(gap["epoch"], gap["offset"])

    def published(self, message: dict[str, Any]) -> None:
        meta = message["meta"]
        epoch, offset = meta["epoch"], meta["offset"]
        presence = message["type"] in ("user_joined", "user_left")
        channel = message["channel"] if presence else self.truth.channels[epoch]
        heard = self.streams.get(stream_of(channel, presence))
        if heard is None:
            return
        place = (epoch, offset)
        assert place not in self.once, f"{self.name} has heard {place} of {channel} twice"
        self.once[place] = None
        if heard.epoch is not None and heard.epoch != epoch:
            # A channel that nobody listens to is forgotten: no harm to who had heard all of it.
            assert channel not in JOINED or channel in GIVEN, "of a life that was not announced"
            assert heard.epoch.partition(".")[0] == epoch.partition(".")[0]
            rest = [each for at, each in self.truth.log.get(heard.epoch, {}).items() if at > heard.offset]
            assert all(each.silenced == self.name for each in rest)
            heard.offset = 0
        heard.epoch = epoch
        said = None if presence else self.truth.log[epoch][offset]
        assert said is None or said.number == message["n"]
        if offset <= heard.offset:
            assert heard.kept is not None, "out of order"
            assert offset > heard.kept, "out of order"
            # Where a token resumes after a gap and the replay is cut once more, more than that is replayed then.
            assert message.get("persistent") or channel == "last" or channel not in JOINED
            heard.kept = offset
            return
        for missing in range(heard.offset + 1, offset):
            assert not presence, "a hole in what came and went"
            assert self.truth.log[epoch][missing].silenced == self.name or self.unwanted(channel, epoch, missing)
        if said is not None and said.silenced == self.name:
            # Without a join nothing numbers what is left out, so it comes with what was missed; unless it is awaited.
            assert said.number in self.refused or channel not in JOINED, "its own, which it did not want"
            assert said.number not in self.awaited
        heard.kept = None
        heard.offset = offset

    def unwanted(self, channel: str, epoch: str, offset: int) -> bool:
        return channel == "filtered" and self.truth.log[epoch][offset].type not in FILTERS["types"]  # type: ignore[operator]

    def settled(self) -> None:
        """Nothing of the present lives is missing at the end."""
        for key, heard in self.streams.items():
            if "/" not in key:
                epoch, offset = self.truth.newest.get(key, ("", 0))
                if heard.epoch == epoch:
                    for missing in range(heard.offset + 1, offset + 1):
                        said = self.truth.log[epoch][missing]
                        assert said.silenced == self.name or self.unwanted(key, epoch, missing), (key, missing)
                else:
                    assert heard.epoch is None, key
