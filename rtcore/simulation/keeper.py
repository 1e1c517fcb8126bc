"""Who keeps the files that a server takes: a disk that outlives its node, is slow at times, full, or away."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

import attrs

from rtcore.errors import Refusal
from rtcore.uploads import AbandonFile, AppendToFile, FileEffect, FinishFile, KeptFile, OpenFile

from .trace import SimulationFailure

if TYPE_CHECKING:
    from .server import SimulatedServer

__all__ = ["FileNews", "Keeper"]

#: What a node is told of a file: that so many bytes more are stored, that it is kept, or why it is not.
FileNews: TypeAlias = int | KeptFile | Refusal

_FULL: Final = Refusal("store_full", "there is no room for more", status=507)
_UNAVAILABLE: Final = Refusal("store_unavailable", "the disk does not answer", status=503)
_MISMATCH: Final = Refusal("checksum_mismatch", "what has come is not what was sent", status=422)
_DELAYS: Final = ((6, (0.0, 0.02)), (3, (0.02, 0.3)), (1, (0.3, 3.0)))


@attrs.define(eq=False)
class _Incoming:
    """A file of which the node has not been told that it is kept.

    Attributes:
        effect: As what it was opened.
        data: What is stored of it.
        waiting: What is to be done with it next.
        busy: Whether something is being done.
        file_id: By which it is kept, once it is.
    """

    effect: OpenFile
    data: bytearray = attrs.field(factory=bytearray)
    waiting: deque[AppendToFile | FinishFile] = attrs.field(factory=deque)
    busy: bool = False
    file_id: str | None = None


class Keeper:
    """Does with files what a node asks for, one thing after the other for each, in a time that chance decides.

    Args:
        server: Whose.

    Attributes:
        disk: What is kept, by id; outlives the server.
        orphans: What of it no node knows, since one ended before it was told.
    """

    def __init__(self, server: SimulatedServer) -> None:
        self.disk: dict[str, bytes] = {}
        self.orphans: dict[str, None] = {}
        self._server = server
        self._incoming: dict[str, _Incoming] = {}
        self._serial = 0

    @property
    def incoming(self) -> tuple[str, ...]:
        """The keys of files that were opened, and are neither abandoned nor known by the node to be kept."""
        return tuple(self._incoming)

    def perform(self, effect: FileEffect) -> None:
        """Begin to do what the node asks for; it is told what comes of it."""
        server, key = self._server, effect.key
        server.observer.server_asks_keeper(server, effect)
        incoming = self._incoming.get(key)
        if isinstance(effect, OpenFile):
            if incoming is not None:
                raise self._broken(f"{key} is opened a second time")
            self._incoming[key] = _Incoming(effect)
            return
        if incoming is None:
            raise self._broken(f"{effect} is about no file that is open")
        match effect:
            case AppendToFile() | FinishFile():
                if incoming.file_id is not None or (incoming.waiting and isinstance(incoming.waiting[-1], FinishFile)):
                    raise self._broken(f"{effect} comes after the end of the file")
                incoming.waiting.append(effect)
                self._work(incoming)
            case AbandonFile():
                del self._incoming[key]
                if incoming.file_id is not None:
                    del self.disk[incoming.file_id]
            case _:
                assert_never(effect)

    def clear(self) -> None:
        """Lose what is not kept yet, at the end of a life."""
        for incoming in self._incoming.values():
            if incoming.file_id is not None:
                self.orphans[incoming.file_id] = None
        self._incoming.clear()

    # Inside

    def _work(self, incoming: _Incoming) -> None:
        if not incoming.busy and incoming.waiting:
            incoming.busy = True
            self._later(incoming, self._do)

    def _later(self, incoming: _Incoming, do: Callable[[_Incoming], None]) -> None:
        world, server = self._server.world, self._server
        delay = world.choices.seconds(*world.choices.weighted(_DELAYS)) if world.faulty else 0.001
        world.scheduler.after(delay, partial(server.attend, partial(self._if_there, incoming, do)))

    def _if_there(self, incoming: _Incoming, do: Callable[[_Incoming], None]) -> None:
        if self._incoming.get(incoming.effect.key) is incoming:
            do(incoming)

    def _do(self, incoming: _Incoming) -> None:
        """Do what waits: all that is to be appended at once, or what ends the file."""
        incoming.busy = False
        world = self._server.world
        if world.faulty and world.choices.chance(2):
            self._fail(incoming, world.choices.pick((_UNAVAILABLE, _FULL)))
            return
        effect = incoming.waiting[0]
        if isinstance(effect, FinishFile):
            incoming.waiting.popleft()
            self._keep(incoming, effect.sha256)
            return
        size = 0
        while incoming.waiting and isinstance(effect := incoming.waiting[0], AppendToFile):
            incoming.data += effect.data
            size += len(effect.data)
            incoming.waiting.popleft()
        self._work(incoming)
        self._server.tell_of_file(incoming.effect.key, size)

    def _keep(self, incoming: _Incoming, sha256: str) -> None:
        if hashlib.sha256(incoming.data).hexdigest() != sha256:
            self._fail(incoming, _MISMATCH)
            return
        self._serial += 1
        incoming.file_id = f"{self._server.name}-file-{self._serial}"
        self.disk[incoming.file_id] = bytes(incoming.data)
        # The node does not know of it at once.
        self._later(incoming, self._tell)

    def _tell(self, incoming: _Incoming) -> None:
        key, file_id = incoming.effect.key, incoming.file_id
        assert file_id is not None, "it is kept"
        data = self.disk[file_id]
        inline = data if len(data) <= self._server.config.inline_max_size else None
        sha256 = hashlib.sha256(data).hexdigest()
        self._server.tell_of_file(key, KeptFile(file_id, f"/realtime/binary/{file_id}", len(data), sha256, inline))
        # Unless the node did not want it after all.
        self._incoming.pop(key, None)

    def _fail(self, incoming: _Incoming, refusal: Refusal) -> None:
        del self._incoming[incoming.effect.key]
        self._server.tell_of_file(incoming.effect.key, refusal)

    def _broken(self, explanation: str) -> SimulationFailure:
        return self._server.world.fail("keeper", f"{self._server}: {explanation}")
