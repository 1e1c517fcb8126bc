"""One peer connection of aiortc, which carries out what a `Negotiation` wants, one thing after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import anyio
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.sdp import candidate_from_sdp

from rtcore.signaling.peer_connection import (
    DescriptionType,
    Event,
    IceState,
    IceStateChanged,
    LocalDescriptionSet,
    NegotiationNeeded,
    OperationFailed,
    RemoteDescriptionSet,
)

from .channel import DataChannel
from .tracks import Fanout, FanoutTrack

__all__ = ["Connection", "ConnectionOwner"]

_log = logging.getLogger("rtcore.webrtc")

# What aiortc calls them; it knows neither "connected" nor "disconnected".
_ICE_STATES: Final[Mapping[str, IceState]] = {state.value: state for state in IceState}

# The last one that there is (RFC 8831, section 6.5), so it is in nobody's way.
_SILENT_CHANNEL: Final = 65_534


class ConnectionOwner(Protocol):
    """Whom a connection tells what becomes of it. Nothing here may block or raise."""

    def report(self, event: Event) -> None:
        """Something has happened that the negotiation has to know."""
        ...

    def connected(self) -> None:
        """Media and data can flow, for the first time."""
        ...

    def received_track(self, track: MediaStreamTrack) -> None:
        """The other side sends a track."""
        ...

    def received_channel(self, channel: DataChannel) -> None:
        """The other side has opened a data channel."""
        ...


class Connection:
    """The connection to a peer by one number of `rtcore.signaling.peer_connection.Build`.

    What aiortc cannot do is not asked of it: it neither rolls back nor restarts ICE, so a `Negotiation` that knows
    gives the connection up instead. aiortc gathers its candidates before a description is complete, so there are none
    to send on their own. It waits for the other side's candidates for ever, so here the time for connecting is limited.

    Args:
        owner: Whom to tell.
        build: Its number.
        configure: Returns the settings for it.
        tracks: What to send.
        connect_timeout: Seconds after the other side's description within which it has to be connected.
    """

    def __init__(
        self,
        owner: ConnectionOwner,
        build: int,
        *,
        configure: Callable[[], Awaitable[RTCConfiguration]],
        tracks: Sequence[Fanout],
        connect_timeout: float,
    ) -> None:
        self.build = build
        #: Set once it is connected, or closed.
        self.settled = asyncio.Event()
        self._owner = owner
        self._configure = configure
        self._connect_timeout = connect_timeout
        # Tracks that are to be sent, and have no place in any description yet. aiortc cannot answer an offer that has
        # no place for a track that was added, so each is added when there is one.
        self._unplaced: list[Fanout] = list(tracks)
        self._sent: list[FanoutTrack] = []
        self._received: list[Fanout] = []
        self._channels: list[DataChannel] = []
        self._operations: deque[Callable[[RTCPeerConnection], Awaitable[None]]] = deque()
        self._operating = False
        self._wake = asyncio.Event()
        #: Set once there is a peer connection, or will be none.
        self._ready = asyncio.Event()
        self._pc: RTCPeerConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retired = False
        self._announced = False
        self._connected = False
        self._ice_connected = False

    async def run(self) -> None:
        """Carry out what is wanted until `retire`, and close; cancelling it closes too."""
        try:
            pc = await self._build()
            if pc is not None:
                await self._operate(pc)
        finally:
            self.retire()
            with anyio.CancelScope(shield=True):
                await self._close()

    @property
    def is_connected(self) -> bool:
        """Whether media and data can flow, as far as is known."""
        return self._connected and not self._retired

    @property
    def is_retired(self) -> bool:
        """Whether it is, or is about to be, closed."""
        return self._retired

    # What is wanted of it. All of this returns at once.

    def retire(self) -> None:
        """Close, as soon as what is under way has ended; its events are of no interest from now on."""
        self._retired = True
        self._stop_timer()
        for channel in self._channels:
            channel.end()
        for track in self._sent:
            track.stop()
        self._ready.set()
        self.settled.set()
        self._wake.set()

    def set_local_description(self) -> None:
        """Make the offer or the answer that is due."""

        async def operate(pc: RTCPeerConnection) -> None:
            self._place_tracks(pc)
            if pc.signalingState == "stable" and pc.sctp is None:
                # So there is something to offer in any case, and channels that are opened later need no offer of their
                # own. Of a channel that was agreed on elsewhere the other side is not told.
                pc.createDataChannel("", negotiated=True, id=_SILENT_CHANNEL)
            await pc.setLocalDescription()
            description = pc.localDescription
            kind: DescriptionType = "answer" if description.type == "answer" else "offer"
            self._report(LocalDescriptionSet(self.build, kind, description.sdp))

        self._put(operate)

    def set_remote_description(self, kind: DescriptionType, sdp: str) -> None:
        """Take the other side's offer or answer."""

        async def operate(pc: RTCPeerConnection) -> None:
            await pc.setRemoteDescription(RTCSessionDescription(sdp, kind))
            if self._timer is None and not self._announced and not self._retired:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._connect_timeout, self._give_up)
            self._report(RemoteDescriptionSet(self.build))

        self._put(operate)

    def add_candidate(self, init: Mapping[str, object] | None) -> None:
        """Take a candidate of the other side; one that makes no sense is of no interest."""

        async def operate(pc: RTCPeerConnection) -> None:
            try:
                if init is None:
                    await pc.addIceCandidate(None)
                    return
                text, mid, index = init.get("candidate"), init.get("sdpMid"), init.get("sdpMLineIndex")
                # An empty one says that there are no more for one of several media (W3C WebRTC, section 4.8.2).
                if isinstance(text, str) and text:
                    candidate = candidate_from_sdp(text.removeprefix("candidate:"))
                    candidate.sdpMid = mid if isinstance(mid, str) else None
                    candidate.sdpMLineIndex = index if isinstance(index, int) else None
                    await pc.addIceCandidate(candidate)
            except Exception as error:
                _log.debug("a candidate was not added: %s", error)

        self._put(operate)

    def add_track(self, source: Fanout) -> None:
        """Send one more track."""
        self._unplaced.append(source)
        self._check()

    async def open_channel(self, label: str, **options: object) -> DataChannel | None:
        """Open a data channel; returns ``None`` if the connection ends before it is open.

        Args:
            label: Its name.
            options: As for aiortc's ``createDataChannel``.
        """
        await self._ready.wait()
        pc = self._pc
        if pc is None or self._retired:
            return None
        channel = DataChannel(pc.createDataChannel(label, **options))  # type: ignore[arg-type]
        self._channels.append(channel)
        self._check()
        try:
            return channel if await channel.opened() else None
        except BaseException:
            channel.close()
            raise

    # Inside

    def _put(self, operate: Callable[[RTCPeerConnection], Awaitable[None]]) -> None:
        self._operations.append(operate)
        self._wake.set()

    async def _build(self) -> RTCPeerConnection | None:
        try:
            configuration = await self._configure()
            if self._retired:
                return None
            pc = RTCPeerConnection(configuration)
        except Exception:
            # Of the user's function that tells the ICE servers, or what aiortc thinks of them.
            _log.exception("there are no settings for a peer connection")
            self._report(IceStateChanged(self.build, IceState.FAILED))
            return None
        self._pc = pc
        pc.on("iceconnectionstatechange", self._ice_changed)
        pc.on("connectionstatechange", self._state_changed)
        pc.on("track", self._take_track)
        pc.on("datachannel", self._take_channel)
        self._ready.set()
        return pc

    async def _operate(self, pc: RTCPeerConnection) -> None:
        while not self._retired:
            self._check()
            if not self._operations:
                self._wake.clear()
                await self._wake.wait()
                continue
            operate = self._operations.popleft()
            self._operating = True
            try:
                await operate(pc)
            except Exception as error:
                # What the other side has sent may be anything.
                _log.debug("a description was not set: %s: %s", type(error).__name__, error)
                self._report(OperationFailed(self.build))
            finally:
                self._operating = False

    async def _close(self) -> None:
        if self._pc is not None:
            try:
                await self._pc.close()
            except Exception:
                _log.exception("a peer connection was not closed")
        for received in self._received:
            await received.close()

    def _report(self, event: Event) -> None:
        if not self._retired:
            self._owner.report(event)

    def _place_tracks(self, pc: RTCPeerConnection) -> None:
        """Add tracks: all of them to an offer, to an answer those for which the other side has left a place."""
        places: list[str] | None = None
        if pc.signalingState == "have-remote-offer":
            places = [each.kind for each in pc.getTransceivers() if each.sender.track is None and not each.stopped]
        unplaced, self._unplaced = self._unplaced, []
        for source in unplaced:
            kind = source.source.kind
            if places is not None and kind not in places:
                self._unplaced.append(source)
                continue
            if places is not None:
                places.remove(kind)
            track = source.subscribe()
            self._sent.append(track)
            pc.addTrack(track)

    def _check(self) -> None:
        """Have an offer made if there is something to offer, and nothing else is under way.

        What is said to be needed any earlier may be part of what is under way, and another offer, that says nothing
        new, would cross those of the other side again and again. (W3C WebRTC, section 4.7.3, is as careful.)
        """
        pc = self._pc
        if pc is None or self._operating or self._operations or pc.signalingState != "stable":
            return
        if self._unplaced or (pc.sctp is not None and pc.sctp.mid is None):
            self._report(NegotiationNeeded(self.build))

    def _give_up(self) -> None:
        _log.debug("no connection after %.0f s", self._connect_timeout)
        self._report(IceStateChanged(self.build, IceState.FAILED))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # What aiortc tells

    def _ice_changed(self) -> None:
        assert self._pc is not None, "it tells it"
        state = _ICE_STATES[self._pc.iceConnectionState]
        if state is IceState.COMPLETED:
            self._ice_connected = True
        elif self._ice_connected and state in (IceState.NEW, IceState.CHECKING):
            # A kind of media was added, for which aiortc has a transport of its own until it is bundled with the rest.
            return
        self._report(IceStateChanged(self.build, state))

    def _state_changed(self) -> None:
        assert self._pc is not None, "it tells it"
        match self._pc.connectionState:
            case "connected":
                self._connected = True
                self._stop_timer()
                self.settled.set()
                if not self._announced and not self._retired:
                    self._announced = True
                    self._owner.connected()
            case "failed":
                self._connected = False
                # ICE may be fine, and the encryption is not.
                self._report(IceStateChanged(self.build, IceState.FAILED))
            case "closed":
                self._connected = False

    def _take_track(self, track: MediaStreamTrack) -> None:
        received = Fanout(track)
        self._received.append(received)
        mine = received.subscribe()
        if not self._retired:
            self._owner.received_track(mine)

    def _take_channel(self, raw: RTCDataChannel) -> None:
        channel = DataChannel(raw)
        self._channels.append(channel)
        if self._retired:
            channel.end()
        else:
            self._owner.received_channel(channel)
