"""A channel's history, a page at a time, in both directions."""

from __future__ import annotations

import attrs

from rtcore.channels import Channel
from rtcore.encoded import Encoded
from rtcore.errors import Refusal

__all__ = ["Page", "page_of"]


@attrs.frozen
class Page:
    """A part of a channel's history.

    Attributes:
        epoch: The life of the channel in which offsets count.
        offset: The number of the channel's last publication.
        publications: As they were delivered, in order.
        more: Whether more is held in the direction of paging.
        complete: Whether nothing that was asked for is missing because it is no longer held.
    """

    epoch: str
    offset: int
    publications: list[Encoded]
    more: bool
    complete: bool


def page_of(
    channel: Channel, *, epoch: str | None, after: int | None, before: int | None, limit: int, max_bytes: int
) -> Page | Refusal:
    """Return a part of a channel's history.

    Args:
        channel: The channel.
        epoch: The life of the channel in which the bounds count, or ``None`` for whichever it is.
        after: The offset that they come after, the oldest of them first; or
        before: the offset that they come before, the newest of them. Without either they are the newest.
        limit: How many publications at most, from 1.
        max_bytes: How many bytes of JSON at most, but for a single publication.

    Returns:
        The page, or why there is none: the channel has begun a new epoch.
    """
    if epoch is not None and epoch != channel.epoch:
        message = f"the channel's epoch is {channel.epoch!r} now: begin again without bounds"
        return Refusal("epoch_changed", message, status=409)
    history = channel.history
    found = history.page(after=after, before=before, limit=limit)
    if after is None:
        found.reverse()
    # Nearest to the bound first: what does not fit is further away.
    fitting = 0
    for publication in found:
        max_bytes -= publication.message.size
        if max_bytes < 0 and fitting:
            break
        fitting += 1
    cut = fitting < len(found)
    found = found[:fitting]
    if after is None:
        more = cut or (bool(found) and found[-1].offset > history.lost + 1)
        lost = history.lost if before is None else min(history.lost, before - 1)
        complete = lost < 1 or len(found) == limit or cut
        found.reverse()
    else:
        more = cut or (bool(found) and found[-1].offset < history.offset)
        complete = history.lost <= after
    return Page(channel.epoch, history.offset, [each.message for each in found], more, complete)
