"""All connections: how they come about, and what becomes of them when somebody, or chance, ends them."""

from __future__ import annotations

from functools import partial
from typing import Final

from .link import Cut, Link, Listener, Quality, Socket, SocketHandler
from .machine import Machine
from .world import World

__all__ = ["Network"]

# Bytes that were not acknowledged for so many seconds end a connection, as Linux does with TCP_USER_TIMEOUT.
_RETRANSMISSION_TIMEOUT: Final = 30.0

_QUALITIES: Final[tuple[tuple[int, Quality], ...]] = (
    (25, Quality()),
    (15, Quality(capacity=2500)),
    (20, Quality(jitter=0.08)),
    (15, Quality(latency=0.05, jitter=0.05, chopping=40)),
    (10, Quality(latency=0.03, capacity=900)),
    (10, Quality(latency=0.05, jitter=0.2, chopping=15, capacity=4000)),
    (5, Quality(latency=0.6, jitter=0.5)),
)


class Network:
    """All connections.

    Args:
        world: Where they are.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.scheduler = world.scheduler
        self._links: dict[Link, None] = {}

    def connect(self, machine: Machine, listener: Listener, handler: SocketHandler) -> Socket:
        """Ask for a connection; `handler` is told what comes of it."""
        world = self.world
        choices = world.choices
        quality = choices.weighted(_QUALITIES) if world.faulty else Quality()
        link = Link(quality, listener)
        near, far = Socket(self, machine, link), Socket(self, listener.machine, link)
        near.peer, far.peer = far, near
        link.near, link.far = near, far
        near.handler = handler
        self._links[link] = None
        fate = choices.below(100) if world.faulty else 0
        if fate >= 98:
            link.dead = True
        elif 79 <= fate < 94:
            # In the middle of a handshake, of a replay, or of a message.
            link.lasts = choices.between(*choices.pick(((1, 500), (400, 1200), (1000, 4000))))
        self.scheduler.after(quality.latency, partial(self._arrive, link, fate >= 94))
        return near

    def links(self, *machines: Machine) -> list[Link]:
        """Return the connections that stand, or those of some machines."""
        standing = [link for link in self._links if link.stands and not link.dead]
        if not machines:
            return standing
        return [link for link in standing if link.near.owner in machines or link.far.owner in machines]

    def haunted(self) -> bool:
        """Tell whether somebody believes in a connection that is dead."""
        return any(
            link.dead and any(end.handler is not None and not end.broken for end in (link.near, link.far))
            for link in self._links
        )

    def stall(self, link: Link, seconds: float) -> None:
        """Let nothing arrive for a while."""
        self._note(link, "stalls", f"for {seconds:.3f} s")
        link.stalled_until = max(link.stalled_until, self.scheduler.now + seconds)

    def cut(self, link: Link, how: Cut) -> None:
        """End a connection that stands."""
        self._note(link, "is cut", how.value)
        choices = self.world.choices
        near, far = link.near, link.far
        if how is Cut.RESET:
            self.reset(near, after=choices.seconds(0.0, 1.0))
            self.reset(far, after=choices.seconds(0.0, 1.0))
        elif how is Cut.SILENT:
            self.silence(link)
        else:
            ends = [near, far] if how is Cut.END else [choices.pick((far, near))]
            for end in ends:
                if not end.broken:
                    end.peer.finished = True
                    end.truncate(choices.below(end.unread + 1))

    def leave(self, link: Link, seconds: float) -> None:
        """Let the near end see a reset at once, while what it has written comes to the far end so much later."""
        self._note(link, "is left", f"for {seconds:.3f} s")
        link.stalled_until = link.left_until = max(link.stalled_until, self.scheduler.now + seconds)
        self.reset(link.near, after=0.0)

    def silence(self, link: Link) -> None:
        """Let nothing arrive any more; neither end is told."""
        link.dead = True
        for end in (link.near, link.far):
            if end.unread:
                self.lose(end.peer)

    def disconnect(self, machine: Machine, *, silently: bool) -> None:
        """Take a machine's end of all its connections away, at once.

        Args:
            machine: Whose.
            silently: Whether the other ends are told nothing, rather than see a reset.
        """
        for link in list(self._links):
            for end in (link.near, link.far):
                if end.owner is machine and not end.broken:
                    if silently:
                        self.silence(link)
                        end.handler = None
                        end.sever()
                    else:
                        end.abort()

    def reset(self, socket: Socket, *, after: float) -> None:
        """Let one end see a reset, some seconds from now."""
        if not socket.broken:
            self.scheduler.after(after, socket.reset)

    def lose(self, writer: Socket) -> None:
        """Let who wrote on a dead connection find out some day, or soon if the other machine knows nothing of it."""
        link = writer.link
        if writer is link.near and writer.peer.broken and link.listener.listening:
            self.reset(writer, after=2 * link.quality.latency)
        elif not link.losing:
            link.losing = True
            self.scheduler.after(_RETRANSMISSION_TIMEOUT, writer.time_out)
            self.scheduler.after(_RETRANSMISSION_TIMEOUT, writer.peer.time_out)

    def forget(self, socket: Socket) -> None:
        """Take note that an end is broken."""
        if socket.peer.broken:
            self._links.pop(socket.link, None)

    def _arrive(self, link: Link, refused: bool) -> None:
        near, far = link.near, link.far
        if link.dead or near.broken:
            return
        if refused or not link.listener.listening:
            far.broken = True
            self.reset(near, after=link.quality.latency)
            return
        far.owner.attend(partial(self._accept, link))

    def _accept(self, link: Link) -> None:
        near, far = link.near, link.far
        if link.dead or near.broken or far.broken:
            # It was given up, or the listener was, while its machine was frozen.
            return
        far.handler = link.listener.accept(far)
        self.scheduler.after(link.quality.latency, partial(self._connected, near))

    def _connected(self, near: Socket) -> None:
        if near.broken or near.link.dead or near.handler is None:
            return
        if near.owner.frozen:
            near.owner.attend(partial(self._connected, near))
            return
        near.link.stands = True
        near.handler.connected()

    def _note(self, link: Link, what: str, detail: str) -> None:
        self.world.trace.add(self.scheduler.now, f"{link.near.owner.name}--{link.far.owner.name}", what, detail)
