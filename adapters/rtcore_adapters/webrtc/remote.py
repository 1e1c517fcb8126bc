"""Another peer of the room, as a `WebRTCPeer` has it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiortc import MediaStreamTrack

from rtcore import ConnectionClosed, LocalProtocolError

from .channel import DataChannel
from .connection import Connection

__all__ = ["RemotePeer"]


class RemotePeer:
    """Another peer, for one life of its application: after a reload it is another object, with the same `peer_id`.

    Args:
        peer_id: Its name in the room.
        instance: Which life of its application it is.

    Attributes:
        user_id: Its user, or ``None``.
        metadata: What it tells about itself.
        tracks: What it sends, by the present connection.
    """

    def __init__(self, peer_id: str, instance: str) -> None:
        self.peer_id = peer_id
        self.instance = instance
        self.user_id: str | None = None
        self.metadata: Mapping[str, object] = {}
        self.tracks: list[MediaStreamTrack] = []
        self._left = False
        self._connection: Connection | None = None
        self._replaced = asyncio.Event()

    def __repr__(self) -> str:
        return f"RemotePeer({self.peer_id!r}, {self.instance!r})"

    @property
    def left(self) -> bool:
        """Whether it has gone, or is somebody else now."""
        return self._left

    @property
    def connected(self) -> bool:
        """Whether there is a connection to it, as far as is known."""
        return self._connection is not None and self._connection.is_connected

    async def wait_connected(self) -> None:
        """Wait until there is a connection to it.

        Raises:
            ConnectionClosed: It has left.
        """
        while not self.connected:
            connection = await self._present()
            # One that has failed is followed by another.
            await (self._replaced if connection.settled.is_set() else connection.settled).wait()

    async def open_channel(
        self,
        label: str,
        *,
        protocol: str = "",
        ordered: bool = True,
        max_retransmits: int | None = None,
        max_packet_life_time: int | None = None,
    ) -> DataChannel:
        """Open a data channel, once there is a connection, which is made if nobody has wanted one so far.

        Args:
            label: Its name, in ASCII: aiortc garbles any other.
            protocol: What is spoken on it, likewise.
            ordered: Whether messages arrive in order.
            max_retransmits: How often what is lost is sent again; always if left out.
            max_packet_life_time: For how many milliseconds; without end if left out.

        Raises:
            ConnectionClosed: The peer has left.
            LocalProtocolError: A name is not ASCII, or both limits are given. Nothing was done.
        """
        if not (label.isascii() and protocol.isascii()):
            raise LocalProtocolError("the label and the protocol of a data channel are ASCII")
        if max_retransmits is not None and max_packet_life_time is not None:
            raise LocalProtocolError("a data channel has 'max_retransmits' or 'max_packet_life_time', and not both")
        while True:
            connection = await self._present()
            channel = await connection.open_channel(
                label,
                protocol=protocol,
                ordered=ordered,
                maxRetransmits=max_retransmits,
                maxPacketLifeTime=max_packet_life_time,
            )
            if channel is not None:
                return channel
            if not connection.is_retired:
                raise ConnectionClosed(None, "the data channel was closed before it was open")

    # What the peer that it belongs to does

    def describe(self, participant: Mapping[str, object]) -> None:
        """Take what the server says of it."""
        user_id, metadata = participant.get("user_id"), participant.get("metadata")
        self.user_id = user_id if isinstance(user_id, str) else None
        self.metadata = metadata if isinstance(metadata, dict) else {}

    def use(self, connection: Connection | None) -> None:
        """Go on by another connection, or, with ``None``, be gone."""
        if self._connection is not None:
            self._connection.retire()
        self._connection = connection
        self._left = connection is None
        self.tracks = []
        self._replaced.set()
        self._replaced = asyncio.Event()

    @property
    def connection(self) -> Connection | None:
        """The present connection."""
        return self._connection

    async def _present(self) -> Connection:
        """Return the connection that is not about to be closed; waits for one if need be."""
        while self._connection is None or self._connection.is_retired:
            if self._left:
                raise ConnectionClosed(None, f"{self.peer_id!r} has left")
            await self._replaced.wait()
        return self._connection
