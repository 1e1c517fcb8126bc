"""What waits for one connection that reads more slowly than it is spoken to, and what of it may be dropped.

A backlog is bounded. A publication that finds no room is dealt with by the policy of its channel
(`rtcore.namespaces.SlowConsumer`), and whatever is dropped is announced by a ``gap`` message at the place where it
would have been. A hole between two offsets is no gap by itself: a subscriber does not hear what a filter keeps from it,
or what it has published itself with ``"echo": false``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from .encoded import Encoded, Source
from .messages import Message, encode
from .namespaces import SlowConsumer

__all__ = ["Backlog"]

# A channel's name, and whether it is the stream of its comings and goings.
_StreamKey: TypeAlias = tuple[str, bool]
_Key: TypeAlias = tuple[str, bool, str]

_REASON: Final = "slow_consumer"


class _Stream:
    """The part of a backlog that is of one stream.

    Attributes:
        newest: What was pushed last, dropped or not.
        tail: The last entry; a stream without any is forgotten.
    """

    __slots__ = ("key", "newest", "tail")

    def __init__(self, key: _StreamKey, newest: Source, tail: _Entry) -> None:
        self.key = key
        self.newest = newest
        self.tail = tail


class _Entry:
    """A message that waits or, where `message` is ``None``, the place of one or more of a stream that were dropped.

    It is a link of two chains, of all entries (`before`, `after`) and of those of its stream (`earlier`, `later`). No
    two places of dropped messages follow each other in a stream: they are one, where the first of them was.
    """

    __slots__ = ("after", "before", "earlier", "later", "message", "stream")

    def __init__(self, message: Encoded, before: _Entry | None) -> None:
        self.message: Encoded | None = message
        self.before = before
        self.after: _Entry | None = None
        self.stream: _Stream | None = None
        self.earlier: _Entry | None = None
        self.later: _Entry | None = None


class Backlog:
    """The messages that wait for one connection, in order.

    ``len()`` is the number of messages that wait; it is true while there is anything to pop, be it the announcement of
    a gap. Each call costs the same whatever waits, but for what it drops. Nothing is kept of what was dropped but the
    place of each gap, and nothing at all once everything is popped.

    Args:
        max_bytes: How large it may have grown, in bytes of JSON, when one more message still enters.
        max_messages: The most messages that wait.

    Attributes:
        bytes: How many bytes of JSON wait.
        dropped: How many messages were dropped by policy so far.
        gaps: How many gaps were popped so far.
    """

    def __init__(self, *, max_bytes: int, max_messages: int) -> None:
        self.bytes = 0
        self.dropped = 0
        self.gaps = 0
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._messages = 0
        self._head: _Entry | None = None
        self._tail: _Entry | None = None
        # No message that may be dropped for its age is before this entry.
        self._oldest: _Entry | None = None
        self._streams: dict[_StreamKey, _Stream] = {}
        self._latest: dict[_Key, _Entry] = {}

    def __len__(self) -> int:
        return self._messages

    def __bool__(self) -> bool:
        return self._head is not None

    def push(self, messages: Sequence[Encoded]) -> bool:
        """Add messages at the end, each by the policy of its source.

        A `SlowConsumer.LATEST` one first drops the one of the same channel and key that waits, if any. Where there is
        no room, `SlowConsumer.DROP_OLDEST` ones that wait are dropped until there is, oldest first; where that is not
        enough, a new one of that policy is dropped itself. Messages of other policies, and those without a source, are
        never dropped for want of room.

        Returns:
            Whether all have been dealt with. If not, nothing could be dropped to make room for one of them: the
            connection is to be ended (4410), and the backlog to be cleared.
        """
        for message in messages:
            source = message.source
            policy = SlowConsumer.DISCONNECT if source is None else source.policy
            freed = 0
            if source is not None and policy is SlowConsumer.LATEST:
                freed = self._drop_replaced(source)
            # What takes no more than the place of its predecessor needs no room.
            has_room = 0 < freed >= message.size or self._make_room()
            if not has_room and policy is not SlowConsumer.DROP_OLDEST:
                return False
            entry = self._append(message)
            if not has_room:
                self._drop(entry)
        return True

    def pop(self, max_bytes: int) -> list[Encoded]:
        """Take messages from the front, with a ``gap`` in the place of what was dropped.

        A gap names the offset after which its stream goes on: the one before the stream's next message, in the epoch of
        that message; or, where no other waits, that of the last one dropped. So whoever has heard of a message has
        heard of everything that was pushed before it, or of the gap.

        Args:
            max_bytes: The most bytes of JSON to take; the first message is taken whatever its size.

        Returns:
            At least one message, unless there is nothing.
        """
        popped: list[Encoded] = []
        size = 0
        while (entry := self._head) is not None:
            waiting = entry.message
            message = self._gap(entry) if waiting is None else waiting
            size += message.size
            if popped and size > max_bytes:
                break
            popped.append(message)
            if waiting is None:
                self.gaps += 1
            else:
                self._remove(waiting, entry)
            self._unlink(entry)
        return popped

    def clear(self) -> None:
        """Forget everything, announced or not; the counts of what was dropped and popped stay."""
        # Link by link, since a chain that refers to itself would wait for the garbage collector.
        while (entry := self._head) is not None:
            if entry.message is not None:
                self._remove(entry.message, entry)
            self._unlink(entry)

    # Room

    def _make_room(self) -> bool:
        """Drop the oldest messages that may be, until one more can enter; returns whether it can."""
        while self.bytes > self._max_bytes or self._messages >= self._max_messages:
            entry = self._oldest
            while entry is not None and not _may_be_dropped(entry):
                entry = entry.after
            self._oldest = entry
            if entry is None:
                return False
            self._drop(entry)
        return True

    def _drop_replaced(self, source: Source) -> int:
        """Drop the message that one from `source` takes the place of; returns its size, or 0 if there is none."""
        entry = self._latest.get((source.channel, source.presence, source.key))
        if entry is None:
            return 0
        before = self.bytes
        self._drop(entry)
        return before - self.bytes

    def _drop(self, entry: _Entry) -> None:
        """Turn a message into the place of a gap, or into part of the one beside it."""
        assert entry.message is not None, "what is dropped already is in no index of what may be"
        self._remove(entry.message, entry)
        self.dropped += 1
        entry.message = None
        # A later gap becomes part of an earlier one and not the other way round: nothing that was pushed after a
        # dropped message may be heard before the gap is.
        if entry.later is not None and entry.later.message is None:
            self._unlink(entry.later)
        if entry.earlier is not None and entry.earlier.message is None:
            self._unlink(entry)

    def _gap(self, entry: _Entry) -> Encoded:
        stream = entry.stream
        assert stream is not None, "only what is of a stream is dropped"
        following = None if entry.later is None else entry.later.message
        source = None if following is None else following.source
        channel, presence = stream.key
        message: Message = {"type": "gap", "channel": channel}
        if presence:
            message["stream"] = "presence"
        message["epoch"] = stream.newest.epoch if source is None else source.epoch
        message["offset"] = stream.newest.offset if source is None else source.offset - 1
        return encode({**message, "reason": _REASON})

    # Chains

    def _append(self, message: Encoded) -> _Entry:
        entry = _Entry(message, self._tail)
        if self._tail is None:
            self._head = entry
        else:
            self._tail.after = entry
        self._tail = entry
        if self._oldest is None:
            self._oldest = entry
        self._messages += 1
        self.bytes += message.size
        source = message.source
        if source is not None:
            key = (source.channel, source.presence)
            stream = self._streams.get(key)
            if stream is None:
                stream = self._streams[key] = _Stream(key, source, entry)
            else:
                entry.earlier, stream.tail.later = stream.tail, entry
                stream.newest = source
                stream.tail = entry
            entry.stream = stream
            if source.policy is SlowConsumer.LATEST:
                self._latest[source.channel, source.presence, source.key] = entry
        return entry

    def _remove(self, message: Encoded, entry: _Entry) -> None:
        """Count and index a message no longer; its entry stays in the chains."""
        self._messages -= 1
        self.bytes -= message.size
        source = message.source
        if source is not None and source.policy is SlowConsumer.LATEST:
            key = (source.channel, source.presence, source.key)
            assert self._latest[key] is entry, "one that is replaced is dropped before"
            del self._latest[key]

    def _unlink(self, entry: _Entry) -> None:
        """Take an entry out of its chains."""
        before, after = entry.before, entry.after
        if before is None:
            self._head = after
        else:
            before.after = after
        if after is None:
            self._tail = before
        else:
            after.before = before
        if self._oldest is entry:
            self._oldest = after
        earlier, later, stream = entry.earlier, entry.later, entry.stream
        if earlier is not None:
            earlier.later = later
        if later is not None:
            later.earlier = earlier
        elif stream is not None:
            if earlier is None:
                del self._streams[stream.key]
            else:
                stream.tail = earlier
        entry.before = entry.after = entry.earlier = entry.later = entry.stream = None


def _may_be_dropped(entry: _Entry) -> bool:
    message = entry.message
    return message is not None and message.source is not None and message.source.policy is SlowConsumer.DROP_OLDEST
