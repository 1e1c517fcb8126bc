"""A peer in a room, in Python: connected to each of the others by aiortc, whatever becomes of the server."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeAlias, assert_never

import anyio
import attrs
from aiortc import MediaStreamTrack, RTCConfiguration, RTCIceServer
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtcicetransport import parse_stun_turn_uri
from anyio.abc import TaskGroup

from rtcore import CommandError, ConnectionClosed, LocalProtocolError, Message, QueueFull, RtcoreError
from rtcore.signaling.ice_servers import IceServer
from rtcore.signaling.mesh import Mesh, MeshConfig
from rtcore.signaling.peer_connection import (
    AddCandidate,
    Build,
    Close,
    Effect,
    Event,
    RestartIce,
    Rollback,
    Send,
    SetLocalDescription,
    SetRemoteDescription,
)
from rtcore_transports import WSClient
from rtcore_transports.alarm import Alarm
from rtcore_transports.background import Background
from rtcore_transports.event_loops import runs_on_asyncio

from .channel import DataChannel
from .connection import Connection
from .events import ChannelReceived, PeerConnected, PeerEvent, PeerJoined, PeerLeft, TrackReceived
from .remote import RemotePeer
from .tracks import Fanout

__all__ = ["IceServerSource", "WebRTCPeer"]

_log = logging.getLogger("rtcore.webrtc")

#: STUN and TURN servers, or a function that returns them for each connection, as their credentials expire.
IceServerSource: TypeAlias = Sequence[IceServer] | Callable[[], Awaitable[Sequence[IceServer]]]

_MESSAGES: Final = ("peer_joined", "peer_left", "room_closed", "webrtc_signal", "rejoined")
# Seconds in which a client's queue may have drained, and those for a farewell.
_RETRY_INTERVAL: Final = 1.0
_LEAVE_TIMEOUT: Final = 1.0
_ATTEMPTS: Final = 5


class _Ear:
    """What a client tells a peer, until that has gone: handlers of a client stay."""

    def __init__(self, hear: Callable[[Message], None]) -> None:
        self.hear: Callable[[Message], None] | None = hear

    def __call__(self, data: object, message: Message) -> None:
        if self.hear is not None:
            self.hear(message)


class WebRTCPeer:
    """A peer in a room, connected to each other peer in it: browsers and Python programs alike. Runs on asyncio alone.

    ::

        async with WSClient(url) as client, WebRTCPeer(client, "room") as peer:
            peer.add_track(camera)
            async for event in peer:
                match event:
                    case TrackReceived(peer=other, track=track): ...

    Connections are made as soon as one of two peers has something to send. They outlive the loss of the connection to
    the server, and its restart. One that fails is built anew, again and again, as long as the other peer is in the
    room; `PeerConnected` tells of each. What cannot be done by aiortc is made up for in the same way: where offers
    cross between two such peers, and where a browser restarts ICE.

    Messages of the room, and ``rejoined``, go to handlers of the client from now on, and not to its iteration. The
    peer leaves the room at the end of the block, and the client stays. A client may be several peers, in several rooms.

    Args:
        client: A connected client.
        room_id: The room, which is made if there is none.
        peer_id: As whom; one that nobody else has is made up if left out.
        metadata: What the others are told about this peer.
        ice_servers: STUN and TURN servers; aiortc uses the first of each kind. None if left out.
        relay_only: Connect through the TURN server alone.
        tracks: What to send from the beginning; see `add_track`.
        connect_timeout: Seconds after which a connection that does not come about has failed.
        config: How long to hold on to peers and connections.
    """

    def __init__(
        self,
        client: WSClient,
        room_id: str,
        *,
        peer_id: str | None = None,
        metadata: Mapping[str, object] | None = None,
        ice_servers: IceServerSource = (),
        relay_only: bool = False,
        tracks: Sequence[MediaStreamTrack] = (),
        connect_timeout: float = 30.0,
        config: MeshConfig | None = None,
    ) -> None:
        self._client = client
        self._room_id = room_id
        self._peer_id = peer_id
        self._metadata = metadata
        self._ice_servers = ice_servers
        self._policy = RTCIceTransportPolicy.RELAY if relay_only else RTCIceTransportPolicy.ALL
        self._connect_timeout = connect_timeout
        self._tracks = [Fanout(track) for track in tracks]
        self._mesh = Mesh(room_id, entropy=secrets.token_hex(8), rollback=False, config=config)
        self._alarm = Alarm(self._mesh.next_timeout, self._handle_timeout, clock=time.monotonic)
        self._background = Background()
        self._ear = _Ear(self._hear)
        # What comes before the answer to the join has been taken.
        self._early: list[Message] | None = []
        self._described: dict[str, Mapping[str, object]] = {}
        self._peers: dict[str, RemotePeer] = {}
        self._instance: object = None
        self._connections: TaskGroup | None = None
        self._started = asyncio.Event()
        self._saying = anyio.CancelScope()
        self._signals: deque[Message] = deque()
        self._signaled = asyncio.Event()
        self._events: deque[PeerEvent] = deque()
        self._happened = asyncio.Event()
        self._entered = False
        self._ended = False

    async def __aenter__(self) -> WebRTCPeer:
        """Join the room.

        Raises:
            CommandError: The server refused it (``room_full``, ``peer_id_taken``…).
            ConnectionClosed: The connection was lost before the answer came.
            LocalProtocolError: It has been in a room before, or it runs on trio. Nothing has changed.
        """
        if not runs_on_asyncio():
            raise LocalProtocolError("a WebRTCPeer runs on asyncio alone, as aiortc does: not on trio")
        if self._entered:
            raise LocalProtocolError("a WebRTCPeer joins once: make another one")
        self._entered = True
        for kind in _MESSAGES:
            self._client.on_message(kind)(self._ear)
        try:
            answer = await self._client.join_room(
                self._room_id, peer_id=self._peer_id, metadata=self._metadata, rollback=False
            )
        except BaseException as error:
            self._ear.hear = None
            if not isinstance(error, CommandError):
                # It may yet be let in.
                with anyio.CancelScope(shield=True):
                    await self._leave()
            raise
        self._peer_id = str(answer["peer_id"])
        self._background.start(self._run)
        await self._started.wait()
        early, self._early = self._early or [], None
        self._joined(answer)
        for message in early:
            self._hear(message)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the room and close all connections; nothing is left running. Again is no fault."""
        self._end()
        with anyio.CancelScope(shield=True):
            await self._background.wait()
            for source in self._tracks:
                await source.close()

    # What there is

    @property
    def room_id(self) -> str:
        """The room."""
        return self._room_id

    @property
    def peer_id(self) -> str | None:
        """Its own name in the room; ``None`` before it has joined, if none was given."""
        return self._peer_id

    @property
    def peers(self) -> tuple[RemotePeer, ...]:
        """The other peers in the room."""
        return tuple(self._peers.values())

    @property
    def left(self) -> bool:
        """Whether it is in the room no longer: it has left, was sent away, or the room was closed."""
        return self._ended

    def __aiter__(self) -> WebRTCPeer:
        return self

    async def __anext__(self) -> PeerEvent:
        """Return what happens next; iteration ends when the peer is in the room no longer."""
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._happened.clear()
            await self._happened.wait()
        return self._events.popleft()

    # What it does

    def add_track(self, track: MediaStreamTrack) -> None:
        """Send a track to everybody, now and by each connection to come.

        It is read once for all of them, from the first connection on, and nobody else may read it. It is encoded for
        each peer anew. It is not stopped at the end: that is its owner's.

        Raises:
            LocalProtocolError: It is sent already, or the peer is in the room no longer. Nothing has changed.
        """
        if self._ended:
            raise LocalProtocolError("the peer is in the room no longer")
        if any(source.source is track for source in self._tracks):
            raise LocalProtocolError("the track is sent already")
        source = Fanout(track)
        self._tracks.append(source)
        for peer in self.peers:
            if peer.connection is not None:
                peer.connection.add_track(source)

    # Inside

    async def _run(self) -> None:
        async with anyio.create_task_group() as connections:
            self._connections = connections
            async with anyio.create_task_group() as timing:
                timing.start_soon(self._alarm.run)
                self._started.set()
                with self._saying:
                    await self._send_signals()
                timing.cancel_scope.cancel()
            await self._leave()

    async def _leave(self) -> None:
        """Leave the room, now or, where there is no connection, on the next one; nobody waits for the answer."""
        command = {"type": "command", "command": "leave_room", "data": {"room_id": self._room_id}}
        with anyio.move_on_after(_LEAVE_TIMEOUT), suppress(RtcoreError):
            await self._client.send_json(command)

    def _end(self) -> None:
        """Be in the room no longer."""
        if self._ended:
            return
        self._ear.hear = None
        self._perform(self._mesh.close())
        self._ended = True
        self._saying.cancel()
        self._happened.set()

    def _hear(self, message: Message) -> None:
        """Take a message of the client's."""
        if message.get("room_id") != self._room_id:
            return
        if self._early is not None:
            self._early.append(message)
            return
        match message:
            case {"type": "rejoined", "data": dict(answer)}:
                self._joined(answer)
            case _:
                if message["type"] == "peer_joined":
                    self._describe(message)
                self._perform(self._mesh.receive(message, now=time.monotonic()))
                if self._is_end(message):
                    self._end()

    def _is_end(self, message: Message) -> bool:
        """Tell whether a message says that this peer is in the room no longer."""
        if message["type"] == "peer_left":
            return (message.get("peer_id"), message.get("instance")) == (self._peer_id, self._instance)
        return message["type"] == "room_closed"

    def _joined(self, answer: Message) -> None:
        self._instance = answer.get("instance")
        participants = answer.get("participants")
        for participant in participants if isinstance(participants, list) else []:
            if isinstance(participant, dict):
                self._describe(participant)
        self._perform(self._mesh.join(answer, now=time.monotonic()))

    def _describe(self, participant: Mapping[str, object]) -> None:
        """Keep what the server says of a peer, for when it is met."""
        peer_id = participant.get("peer_id")
        if isinstance(peer_id, str):
            self._described[peer_id] = participant
            peer = self._peers.get(peer_id)
            if peer is not None and peer.instance == participant.get("instance"):
                peer.describe(participant)

    def _handle_timeout(self) -> None:
        self._perform(self._mesh.handle_timeout(now=time.monotonic()))

    def report(self, peer: RemotePeer, event: Event) -> None:
        """Take what the connection to a peer reports."""
        self._perform(self._mesh.handle(peer.peer_id, event, now=time.monotonic()))

    def tell(self, event: PeerEvent) -> None:
        """Tell the user."""
        self._events.append(event)
        self._happened.set()

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Build():
                    self._build(effect)
                case SetLocalDescription(peer_id):
                    self._connection(peer_id).set_local_description()
                case SetRemoteDescription(peer_id, kind, sdp):
                    self._connection(peer_id).set_remote_description(kind, sdp)
                case AddCandidate(peer_id, candidate):
                    self._connection(peer_id).add_candidate(candidate)
                case Close(peer_id):
                    peer = self._peers.pop(peer_id)
                    self._described.pop(peer_id, None)
                    peer.use(None)
                    self.tell(PeerLeft(peer))
                case Send(message=message):
                    self._signals.append(message)
                    self._signaled.set()
                case Rollback() | RestartIce():
                    raise AssertionError("a mesh that cannot roll back wants neither")
                case _:
                    assert_never(effect)
        self._alarm.changed()

    def _connection(self, peer_id: str) -> Connection:
        connection = self._peers[peer_id].connection
        assert connection is not None, "what is built comes first, and what is closed is forgotten"
        return connection

    def _build(self, build: Build) -> None:
        peer = self._peers.get(build.peer_id)
        if peer is None:
            peer = self._peers[build.peer_id] = RemotePeer(build.peer_id, build.instance)
            peer.describe(self._described.get(build.peer_id, {}))
            self.tell(PeerJoined(peer))
        assert peer.instance == build.instance, "another instance is another peer, and the former one is closed first"
        assert self._connections is not None, "it is built after the start, and closed before the end"
        connection = Connection(
            _Line(self, peer),
            build.build,
            configure=self._configure,
            tracks=self._tracks,
            connect_timeout=self._connect_timeout,
        )
        peer.use(connection)
        self._connections.start_soon(connection.run)

    async def _configure(self) -> RTCConfiguration:
        found = await self._ice_servers() if callable(self._ice_servers) else self._ice_servers
        servers = []
        for server in found:
            urls = [url for url in server["urls"] if _is_usable(url)]
            if urls:
                servers.append(RTCIceServer(urls, server.get("username"), server.get("credential")))
        return RTCConfiguration(servers, self._policy)

    async def _send_signals(self) -> None:
        while True:
            if not self._signals:
                self._signaled.clear()
                await self._signaled.wait()
                continue
            await self._send_signal(self._signals.popleft())

    async def _send_signal(self, signal: Message) -> None:
        """Send a signal until the server has it; what comes twice is recognized by who gets it."""
        for _ in range(_ATTEMPTS):
            if self._is_outdated(signal):
                return
            try:
                await self._client.send_json(signal, ack=True)
                return
            except CommandError as error:
                match error.code:
                    case "not_in_room":
                        _log.warning("no longer in the room %r: the server does not know this peer", self._room_id)
                        self._end()
                        return
                    case "timeout":
                        pass
                    case _ if error.retry_after is not None:
                        await anyio.sleep(error.retry_after)
                    case "unknown_peer" | "outdated_signal":
                        # It has gone, or has said something else meanwhile; we are about to hear of it.
                        return
                    case _:
                        _log.warning("a signal was refused: %s", error)
                        return
            except ConnectionClosed:
                if self._client.stats.state == "closed":
                    return
            except QueueFull:
                await anyio.sleep(_RETRY_INTERVAL)
            except LocalProtocolError as error:
                _log.debug("a signal was not sent: %s", error)
                return

    def _is_outdated(self, signal: Message) -> bool:
        """Tell whether a signal is about a connection that is there no longer.

        Where signals are slow, those of the present one would come too late behind such ones, and it would be given up
        as well, for ever.
        """
        peer = self._peers.get(str(signal["target_peer_id"]))
        present = None if peer is None or peer.connection is None else (peer.instance, peer.connection.build)
        return (signal["target_instance"], signal["build"]) != present or signal["instance"] != self._instance


@attrs.frozen
class _Line:
    """Tells a `WebRTCPeer` what becomes of its connections to another."""

    owner: WebRTCPeer
    peer: RemotePeer

    def report(self, event: Event) -> None:
        """See `ConnectionOwner`."""
        self.owner.report(self.peer, event)

    def connected(self) -> None:
        """See there."""
        self.owner.tell(PeerConnected(self.peer))

    def received_track(self, track: MediaStreamTrack) -> None:
        """See there."""
        self.peer.tracks.append(track)
        self.owner.tell(TrackReceived(self.peer, track))

    def received_channel(self, channel: DataChannel) -> None:
        """See there."""
        self.owner.tell(ChannelReceived(self.peer, channel))


def _is_usable(url: str) -> bool:
    """Tell whether aiortc can read the URL of a server; it reads no IPv6 addresses."""
    try:
        parse_stun_turn_uri(url)
    except ValueError:
        _log.warning("aiortc cannot use the ICE server %r", url)
        return False
    return True
