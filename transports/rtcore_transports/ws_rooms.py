"""What a client does about rooms: it is a peer in them, and says to other peers what their connections need."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping

from rtcore import Message, WebRTCRoom, WebRTCSignalType

__all__ = ["RoomClient"]


class RoomClient(ABC):
    """The part of `rtcore_transports.WSClient` that is about WebRTC signaling."""

    @abstractmethod
    async def send_command(self, name: str, data: Mapping[str, object] | None = None) -> Message:
        """Give the server a command, and return the data of its response."""

    @abstractmethod
    async def send_json(self, message: object, *, ack: bool = False) -> Message | None:
        """Send a message, and with `ack` return its acknowledgement."""

    async def create_room(
        self, room_id: str | None = None, *, name: str | None = None, max_participants: int | None = None
    ) -> WebRTCRoom:
        """Make a room, which is kept for a while though nobody is in it.

        Args:
            room_id: Its id; the server makes one up if left out.
            name: Its name for people.
            max_participants: How many may be in it; the most that the server allows if left out.

        Raises:
            CommandError: The server refused it (``room_exists``, ``too_many_rooms``…), or did not answer in time.
            ConnectionClosed: The connection was lost before the answer came; there may be such a room or not.
        """
        fields = (("room_id", room_id), ("name", name), ("max_participants", max_participants))
        data = {field: value for field, value in fields if value is not None}
        return WebRTCRoom.from_message(await self.send_command("create_room", data))

    async def join_room(
        self,
        room_id: str,
        *,
        peer_id: str | None = None,
        metadata: Mapping[str, object] | None = None,
        rollback: bool = True,
    ) -> Message:
        """Be a peer in a room, which is made if there is none, now and after each reconnection.

        ``peer_joined``, ``peer_left`` and ``webrtc_signal`` messages follow. What the peer has missed while it was away
        comes first when it is back; where the server cannot tell everything, a ``gap`` comes in its place, and the
        others hear ``peer_joined`` with ``rejoined`` true.

        Args:
            room_id: The room.
            peer_id: As whom; one that nobody else has is made up if left out, and kept.
            metadata: What the others are told about this peer.
            rollback: Whether it can roll a local offer back.

        Returns:
            The room: its ``participants``, each with ``polite``, and the client's own ``peer_id`` and ``instance``.

        Raises:
            CommandError: The server refused it (``room_full``, ``peer_id_taken``…), or did not answer in time: the
                client is no peer.
        """
        instance = secrets.token_hex(8)
        data: dict[str, object] = {"room_id": room_id, "peer_id": peer_id or instance, "instance": instance}
        if metadata is not None:
            data["metadata"] = metadata
        if not rollback:
            data["rollback"] = False
        return await self.send_command("join_room", data)

    async def leave_room(self, room_id: str) -> Message:
        """Be a peer in a room no longer.

        Raises:
            CommandError: The server refused it, or did not answer in time.
        """
        return await self.send_command("leave_room", {"room_id": room_id})

    async def rooms(self) -> list[WebRTCRoom]:
        """Return all rooms.

        Raises:
            CommandError: The server refused it, or did not answer in time.
            ConnectionClosed: The connection was lost before the answer came.
        """
        rooms = (await self.send_command("get_rooms"))["rooms"]
        return [WebRTCRoom.from_message(room) for room in rooms] if isinstance(rooms, list) else []

    async def send_webrtc_signal(
        self,
        signal_type: WebRTCSignalType | str,
        target_peer_id: str,
        sdp: str | None = None,
        ice_candidate: Mapping[str, object] | None = None,
        room_id: str | None = None,
        *,
        ack: bool = False,
        **fields: object,
    ) -> Message | None:
        """Say something to another peer in a room about the connection to it; see `send_json`.

        Like a publication it is said once: it is kept until it is acknowledged, and so survives a loss of the
        connection.

        Args:
            signal_type: What it is.
            target_peer_id: Whom to.
            sdp: The session description of an offer or an answer.
            ice_candidate: A candidate, as ``RTCIceCandidate.toJSON()`` has it; with the type ``ice-candidate``,
                ``None`` says that there are no more.
            room_id: The room in which both are; may be left out by who is in one only.
            ack: Wait for the acknowledgement, and return it.
            fields: More fields, such as ``negotiation``.

        Raises:
            CommandError: With `ack`, the server refused it: ``not_in_room``, ``unknown_peer``, ``outdated_signal``…
            ConnectionClosed: With `ack`, the connection was lost before the answer came.
        """
        kind = WebRTCSignalType(signal_type)
        signal: dict[str, object] = {"type": "webrtc_signal", "signal_type": kind.value, **fields}
        signal["target_peer_id"] = target_peer_id
        if sdp is not None:
            signal["sdp"] = sdp
        if ice_candidate is not None or kind is WebRTCSignalType.ICE_CANDIDATE:
            signal["ice_candidate"] = ice_candidate
        if room_id is not None:
            signal["room_id"] = room_id
        return await self.send_json(signal, ack=ack)
