"""Publications that were made before, under the same id."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from rtcore.idempotency import Idempotency, Publisher
from rtcore.permissions import Action, Identity

from .commands import Publish, Published, Request
from .connections import Connections
from .rights import Asker, Rights

__all__ = ["publishing", "recall"]


def publishing(command: Publish, connections: Connections) -> tuple[Asker, Sequence[Publisher]]:
    """Return who publishes something, and under what it may have been published before.

    Without a connection that is an API key, or else a user.
    """
    connection_id = command.request.connection_id
    if connection_id is not None:
        return connection_id, connections.get(connection_id).publishers
    asker = None if command.grant is None else Identity(command.user_id, command.grant)
    if command.publisher is not None:
        return asker, (Publisher("key", None, command.publisher),)
    return asker, () if command.user_id is None else (Publisher("user", command.user_id),)


def recall(
    published: Idempotency[Published],
    rights: Rights,
    request: Request,
    publishers: Sequence[Publisher],
    channel: str | None,
    *,
    asker: Asker,
    now: float,
) -> Published | None:
    """Return what has become of a publication of that id before, or ``None`` if there was none.

    Args:
        published: What was made before.
        rights: Who may know of it.
        request: Of the publication.
        publishers: By whom it may have been made, its own first.
        channel: Where it is to be published now; ``None`` for a signal, whose stream is not known yet.
        asker: Who publishes.
        now: Monotonic seconds.
    """
    if request.id is None:
        return None
    for publisher in publishers:
        first = published.find(publisher, request.id, now=now)
        if first is None or (publisher.kind == "user" and not _may_know(rights, first.channel, channel, asker)):
            continue
        if publisher is not publishers[0]:
            # Another client of the user was first. This one is to be answered the same for as long as it is known: so
            # long it may send again what was not acknowledged.
            published.remember(publishers[0], request.id, first, now=now)
        return attrs.evolve(first, request=request, repeated=True)
    return None


def _may_know(rights: Rights, first: str, channel: str | None, asker: Asker) -> bool:
    """Tell whether somebody may know that another client of the user has published to the channel `first`."""
    # A repetition goes where the first went. An id that was used elsewhere was drawn again, or guessed, by a client
    # that may be allowed less than the other.
    if first == channel or first.startswith("$room:" if channel is None else "$connection:"):
        return True
    return rights.decide(Action.PUBLISH, first, asker=asker) is None
