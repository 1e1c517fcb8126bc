"""What a server shows of a channel's history is what the history must hold, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rtcore.encoded import Encoded
from rtcore.messages import Message

from .invariant import Invariant
from .ledger import Ledger, Publication

if TYPE_CHECKING:
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Pages"]

_decode = msgspec.json.Decoder().decode
_DEFAULT_LIMIT = 100


class Pages(Invariant):
    """A page of a history is a part of what the channel has said and still holds: in order, and as large as asked for.

    Where bytes are scarce a page may have less.

    Args:
        ledger: What was published.

    Attributes:
        shown: How many pages were shown.
    """

    name = "history_is_what_was_said"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.shown = 0
        self._asked: dict[tuple[str, object], Message] = {}

    def server_received(self, server: SimulatedServer, connection_id: str, text: str) -> None:
        """See `Observer`."""
        message = _decode(text)
        if message.get("command") == "history":
            self._asked[connection_id, message.get("id")] = message["data"]

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`."""
        if message.source is None and message.json.startswith((b'{"type":"response"', b'{"type":"error"')):
            answer = _decode(message.json)
            asked = self._asked.pop((receivers[0], answer.get("id")), None)
            if asked is None:
                return
            if answer["type"] == "response":
                self._check(server, asked, answer["data"])
            elif answer["code"] == "epoch_changed":
                line = self._ledger.line(server, str(asked["channel"]))
                if line.held(str(asked["epoch"]), now=server.now()):
                    raise self.broken(f"{server} says that the epoch of {asked} is over, and holds what it has said")

    def _check(self, server: SimulatedServer, asked: Message, answer: Message) -> None:
        self.shown += 1
        line = self._ledger.line(server, str(asked["channel"]))
        epoch, offset, shown = answer["epoch"], answer["offset"], answer["publications"]
        assert isinstance(epoch, str) and isinstance(shown, list), "as the protocol has it"  # noqa: PT018
        if asked.get("epoch") not in (None, epoch):
            raise self.broken(f"{asked} is answered with another epoch, {epoch}")
        said = [each for each in line.publications if each.epoch == epoch]
        last = said[-1].offset if said else 0
        if offset != last:
            raise self.broken(f"{line.channel} {epoch} is said to stand at {offset}, and stands at {last}")
        held = line.held(epoch, now=server.now())
        expected, more, complete = _page(held, last, asked)
        told = [(each["meta"]["epoch"], each["meta"]["offset"]) for each in shown]
        truth = [(each.epoch, each.offset) for each in expected]
        router = server.config.node.router
        if min(router.max_history_bytes, router.max_replay_bytes) < self._ledger.bytes.get(server.life, 0):
            # Part of it may have been let go of, or not fit.
            if told != truth[: len(told)] and told != truth[len(truth) - len(told) :]:
                raise self.broken(f"{asked} is answered with {told}, which is no part of {truth}")
            return
        if told != truth:
            raise self.broken(f"{asked} is answered with {told}, and not with {truth}")
        if (answer["more"], answer["complete"]) != (more, complete):
            raise self.broken(
                f"{asked} of {truth} says more={answer['more']} and complete={answer['complete']}, "
                f"and not {more} and {complete}"
            )
        for publication, message in zip(expected, shown, strict=True):
            if publication.json is not None and message != _decode(publication.json):
                raise self.broken(f"{publication} is shown as {message}")


def _page(held: list[Publication], last: int, asked: Message) -> tuple[list[Publication], bool, bool]:
    """Return what a page must have, whether there is more, and whether nothing is missing."""
    limit, after, before = asked.get("limit", _DEFAULT_LIMIT), asked.get("after"), asked.get("before")
    assert isinstance(limit, int), "the request was not refused"
    oldest = held[0].offset if held else last + 1
    if isinstance(after, int):
        found = [each for each in held if each.offset > after]
        return found[:limit], len(found) > limit, oldest <= after + 1
    found = [each for each in held if before is None or (isinstance(before, int) and each.offset < before)]
    reaches = min(oldest, before) if isinstance(before, int) else oldest
    return found[-limit:], len(found) > limit, len(found) >= limit or reaches <= 1
