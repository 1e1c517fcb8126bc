"""One track for several readers, none of whom waits for another: what aiortc's ``MediaRelay`` does, with an end.

A track of aiortc can be read once, and one that comes from the network must be read, or its frames pile up. So each
track that is sent is read by one task for all connections, and each that comes by one task for its user. A reader that
is late loses the oldest frames.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Final, TypeAlias

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.frame import Frame
from av.packet import Packet

__all__ = ["Fanout", "FanoutTrack", "MediaData"]

_log = logging.getLogger("rtcore.webrtc")

#: What a track yields: what is to be encoded, or has been.
MediaData: TypeAlias = "Frame | Packet[Any]"

# Frames that wait for a reader: a fifth of a second of video, whose frames may have megabytes, and two of audio.
_MAX_WAITING: Final = {"audio": 100, "video": 6}


class FanoutTrack(MediaStreamTrack):
    """A track as one reader has it; its ``stop`` ends that reader alone.

    Args:
        source: The track.
    """

    def __init__(self, source: MediaStreamTrack) -> None:
        super().__init__()
        self.kind = source.kind
        self._id = source.id
        self._frames: deque[MediaData] = deque(maxlen=_MAX_WAITING.get(source.kind, 1))
        self._arrived = asyncio.Event()

    def put(self, data: MediaData) -> None:
        """Let the reader have a frame."""
        self._frames.append(data)
        self._arrived.set()

    async def recv(self) -> MediaData:
        """Return the next frame.

        Raises:
            MediaStreamError: The track has ended.
        """
        while not self._frames:
            if self.readyState != "live":
                raise MediaStreamError
            self._arrived.clear()
            await self._arrived.wait()
        return self._frames.popleft()

    def stop(self) -> None:
        """End; what waits can still be read."""
        super().stop()
        self._arrived.set()


class Fanout:
    """Reads a track, from the first reader on, until `close` or the end of the track.

    Args:
        source: The track, which nobody else reads.
    """

    def __init__(self, source: MediaStreamTrack) -> None:
        self.source = source
        self._readers: dict[FanoutTrack, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._ended = source.readyState != "live"

    def subscribe(self) -> FanoutTrack:
        """Return the track for one more reader."""
        reader = FanoutTrack(self.source)
        if self._ended:
            reader.stop()
            return reader
        self._readers[reader] = None
        reader.on("ended", lambda: self._readers.pop(reader, None))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return reader

    async def close(self) -> None:
        """Read no more; readers find their tracks ended. The track itself is not stopped."""
        self._ended = True
        task = self._task
        if task is not None:
            task.cancel()
            # Its errors have been logged, and cancelling it is what was wanted.
            await asyncio.wait([task])
        self._end()

    async def _run(self) -> None:
        try:
            while True:
                data = await self.source.recv()
                for reader in self._readers:
                    reader.put(data)
        except MediaStreamError:
            pass
        except Exception:
            # A track of the user's: for everybody else it has just ended.
            _log.exception("a track failed")
        finally:
            self._ended = True
            self._end()

    def _end(self) -> None:
        for reader in list(self._readers):
            reader.stop()
