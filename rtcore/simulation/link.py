"""One connection: two streams of bytes, each of which may be slow, cut up, held up and cut off."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from .machine import Machine

if TYPE_CHECKING:
    from .network import Network

__all__ = ["Cut", "Link", "Listener", "Quality", "Socket", "SocketHandler"]

# How far the parts of what was cut up come apart, in seconds.
_CRUMB: Final = 0.003


class Cut(Enum):
    """How a connection ends that nobody has closed.

    Both sides see a reset; both see an end, after part of what was under way; only one side sees an end; or nobody
    sees anything.
    """

    RESET = "reset"
    END = "end"
    HALF = "half"
    SILENT = "silent"


@attrs.frozen
class Quality:
    """What a connection is like.

    Attributes:
        latency: Seconds from one end to the other.
        jitter: Seconds that may come on top; bytes stay in order.
        chopping: How many in a hundred reads are cut at some byte.
        capacity: Bytes that may be on their way or unread, in each direction.
    """

    latency: float = 0.02
    jitter: float = 0.0
    chopping: int = 0
    capacity: int = 65536


class SocketHandler(Protocol):
    """What a program does with its end of a connection."""

    def connected(self) -> None:
        """The connection stands; told to who asked for it."""
        ...

    def receive_data(self, data: bytes) -> None:
        """Bytes have come, at least one."""
        ...

    def receive_eof(self) -> None:
        """No more bytes will come."""
        ...

    def receive_reset(self) -> None:
        """The connection is no more, in both directions; or it could not be made."""
        ...

    def writable(self) -> None:
        """There is room again, after a write that was not taken whole."""
        ...


class Listener(Protocol):
    """Where connections lead."""

    @property
    def machine(self) -> Machine:
        """The machine that it runs on."""
        ...

    @property
    def listening(self) -> bool:
        """Whether there is anybody."""
        ...

    def accept(self, socket: Socket) -> SocketHandler:
        """Take the far end of a connection."""
        ...


class Socket:
    """One end of a connection.

    Args:
        network: Where it is.
        owner: Whose it is.
        link: What the two ends share.

    Attributes:
        owner: As given.
        link: As given.
        peer: The other end.
        handler: Who is told what comes; ``None`` once nobody wants to know.
        broken: Whether nothing comes or goes any more.
        finished: Whether nothing goes any more, by the owner's will or since the connection was cut.
        unread: How many bytes are on their way here.
    """

    __slots__ = (
        "_arrives_at",
        "_blocked",
        "_ended",
        "_inbox",
        "_last_at",
        "_network",
        "broken",
        "finished",
        "handler",
        "link",
        "owner",
        "peer",
        "unread",
    )

    peer: Socket

    def __init__(self, network: Network, owner: Machine, link: Link) -> None:
        self.owner = owner
        self.handler: SocketHandler | None = None
        self.broken = False
        self._network = network
        self.link = link
        self._blocked = False  # a write was not taken whole
        self.finished = False
        self._ended = False  # the other end's end was read
        # What is on its way here, with the time of its arrival; None is the end.
        self._inbox: deque[tuple[float, bytes | None]] = deque()
        self.unread = 0
        self._last_at = 0.0
        self._arrives_at: float | None = None

    # What a program does

    def write(self, data: bytes) -> int:
        """Write bytes; returns how many were taken. `SocketHandler.writable` tells when there is room for the rest."""
        if self.broken:
            return len(data)
        peer = self.peer
        if peer.broken or (self.finished and self.link.dead):
            # What is written to nobody is answered with a reset, if the answer comes through.
            if self.link.dead:
                self._network.lose(self)
            else:
                later = self.link.left_until - self._network.scheduler.now
                self._network.reset(self, after=max(2 * self.link.quality.latency, later))
            return len(data)
        if self.finished:
            # Cut: it goes nowhere, and nobody says so.
            return len(data)
        taken = min(len(data), self.link.quality.capacity - peer.unread)
        if taken < len(data):
            self._blocked = True
        if taken > 0:
            peer.unread += taken
            peer._send(data if taken == len(data) else data[:taken])
            if self.link.dead:
                self._network.lose(self)
        return max(taken, 0)

    def finish(self) -> None:
        """Write no more; the other end hears of it after all that was written."""
        if not self.broken and not self.finished:
            self.finished = True
            self.peer._send(None)

    def close(self) -> None:
        """Close for good: the other end hears of an end, and what it writes is answered with a reset."""
        self.finish()
        self.handler = None
        if self._ended:
            self.sever()

    def abort(self) -> None:
        """Close at once: what is under way is lost, and the other end sees a reset."""
        if not self.broken:
            self.sever()
            self.handler = None
            self._network.reset(self.peer, after=self.link.quality.latency)

    # What the network does

    def _send(self, data: bytes | None) -> None:
        """Put something on its way here."""
        network, quality = self._network, self.link.quality
        at = network.scheduler.now + quality.latency
        if quality.jitter and network.world.faulty:
            at += network.world.choices.seconds(0.0, quality.jitter)
        if at < self._last_at:
            at = self._last_at
        self._last_at = at
        self._inbox.append((at, data))
        self._plan(at)

    def _plan(self, at: float) -> None:
        if self._arrives_at is None:
            self._arrives_at = at
            self._network.scheduler.at(at, self._arrive)

    def _arrive(self) -> None:
        self._arrives_at = None
        link, inbox = self.link, self._inbox
        if self.broken or link.dead or not inbox:
            return
        owner = self.owner
        if owner.frozen:
            owner.attend(self._arrive)
            return
        network = self._network
        now = network.scheduler.now
        if now < link.stalled_until:
            self._plan(link.stalled_until)
            return
        handler = self.handler
        data = self._read(now)
        if data is not None and self is link.near and link.lasts is not None and network.world.faulty:
            data = self._break_within(data)
        if data is None:
            inbox.clear()
            self._ended = True
            if handler is not None:
                handler.receive_eof()
            else:
                self.sever()
            return
        self.unread -= len(data)
        peer = self.peer
        if peer._blocked:
            peer._blocked = False
            network.scheduler.after(link.quality.latency, peer._tell_writable)
        if inbox:
            self._plan(inbox[0][0])
        if handler is not None:
            handler.receive_data(data)
        else:
            # Nobody reads here any more.
            self.sever()
            network.reset(peer, after=link.quality.latency)

    def _read(self, now: float) -> bytes | None:
        """Take what has arrived out of the inbox; ``None`` is the end."""
        inbox = self._inbox
        at, first = inbox.popleft()
        if first is None:
            return None
        data = first
        while inbox and inbox[0][0] <= now and (more := inbox[0][1]) is not None:
            data += more
            inbox.popleft()
        world = self._network.world
        chopping = self.link.quality.chopping
        if chopping and len(data) > 1 and world.faulty and world.choices.chance(chopping):
            size = world.choices.between(1, len(data) - 1)
            at = now + world.choices.seconds(0.0, _CRUMB)
            # What comes after keeps its time, and so may be joined with the rest.
            inbox.appendleft((at, data[size:]))
            self._last_at = max(self._last_at, at)
            data = data[:size]
        return data

    def _break_within(self, data: bytes) -> bytes:
        """Return as much of `data` as still arrives on a link that does not last, which then breaks."""
        link, network = self.link, self._network
        assert link.lasts is not None, "the caller asks first"
        link.lasts -= len(data)
        if link.lasts > 0:
            return data
        network.cut(link, Cut.RESET)
        self.unread += link.lasts
        self._inbox.clear()
        self._inbox.append((self._last_at, None))
        return data[: link.lasts or None]

    def _tell_writable(self) -> None:
        if self.broken:
            return
        if self.link.dead:
            # The word that there is room is lost; whoever asks for it again and again gets no answer.
            self._network.lose(self)
        elif self.owner.frozen:
            self.owner.attend(self._tell_writable)
        elif self.handler is not None:
            self.handler.writable()

    def truncate(self, size: int) -> None:
        """Let no more than `size` bytes of what is under way arrive, and then the end."""
        kept: deque[tuple[float, bytes | None]] = deque()
        at = self._network.scheduler.now
        for at, data in self._inbox:
            if data is None or size <= 0:
                break
            kept.append((at, data[:size]))
            size -= len(data)
        kept.append((at, None))
        self._inbox = kept
        self._plan(kept[0][0])

    def sever(self) -> None:
        """Break this end, of which nobody is told."""
        self.broken = True
        self._inbox.clear()
        self._network.forget(self)

    def reset(self) -> None:
        """Break this end, and tell who has it, as soon as they are awake."""
        if self.broken:
            return
        if self.owner.frozen:
            self.owner.attend(self.reset)
            return
        handler = self.handler
        self.sever()
        if handler is not None:
            handler.receive_reset()

    def time_out(self) -> None:
        """Find out that the connection is dead, if it is."""
        if not self.broken and self.link.dead:
            self.reset()


@attrs.define(eq=False)
class Link:
    """What the two ends of a connection share.

    Attributes:
        quality: What it is like.
        near: The end of who asked for it.
        far: The end that it leads to.
        stands: Whether it has come about.
        dead: Whether nothing arrives any more, and nobody knows.
        stalled_until: Until when nothing arrives.
        left_until: Until when nobody says that the near end is no more.
        lasts: How many more bytes arrive at the near end before it breaks; ``None`` for any number.
        listener: Where it leads.
    """

    quality: Quality
    listener: Listener
    near: Socket = attrs.field(init=False)
    far: Socket = attrs.field(init=False)
    dead: bool = False
    stalled_until: float = 0.0
    left_until: float = 0.0
    lasts: int | None = None
    stands: bool = False
    losing: bool = False
