"""Python peers in a room, and all that they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from aiortc import MediaStreamTrack

from rtcore_adapters.webrtc import (
    ChannelReceived,
    DataChannel,
    PeerEvent,
    RemotePeer,
    WebRTCPeer,
)
from rtcore_transports import WSClient

from ..transports.servers import EAGER, Server

# Encryption and video of several connections share one processor with other tests.
PATIENCE = 60.0


class Member:
    """A peer, and all that it has been told."""

    def __init__(self, client: WSClient, peer: WebRTCPeer) -> None:
        self.client = client
        self.peer = peer
        self.events: list[PeerEvent] = []

    async def collect(self) -> None:
        async for event in self.peer:
            self.events.append(event)

    def count(self, kind: type[PeerEvent], peer_id: str | None = None) -> int:
        return len([each for each in self.events if isinstance(each, kind) and peer_id in (None, each.peer.peer_id)])

    def other(self, peer_id: str) -> RemotePeer:
        [peer] = [peer for peer in self.peer.peers if peer.peer_id == peer_id]
        return peer

    def tracks(self, peer_id: str, kind: str) -> list[MediaStreamTrack]:
        return [track for track in self.other(peer_id).tracks if track.kind == kind]

    async def connected(self, *peer_ids: str) -> None:
        with anyio.fail_after(PATIENCE):
            for peer_id in peer_ids:
                await until(lambda peer_id=peer_id: peer_id in [peer.peer_id for peer in self.peer.peers])
                await self.other(peer_id).wait_connected()

    async def track(self, peer_id: str, kind: str) -> MediaStreamTrack:
        await until(lambda: self.tracks(peer_id, kind))
        return self.tracks(peer_id, kind)[-1]

    async def channel(self, label: str) -> DataChannel:
        def found() -> list[DataChannel]:
            return [e.channel for e in self.events if isinstance(e, ChannelReceived) and e.channel.label == label]

        await until(found)
        return found()[-1]


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until `condition` holds."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 — what is waited for here has no event
            await anyio.sleep(0.005)


@asynccontextmanager
async def member(
    server: Server, peer_id: str, *tracks: MediaStreamTrack, client: WSClient | None = None, **options: object
) -> AsyncIterator[Member]:
    """Be in the room ``r``."""
    async with AsyncExitStack() as stack:
        client = client or await stack.enter_async_context(WSClient(server.url(), config=EAGER))
        peer = WebRTCPeer(client, "r", peer_id=peer_id, tracks=tracks, **options)  # type: ignore[arg-type]
        one = Member(client, await stack.enter_async_context(peer))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(one.collect)
        yield one
        await peer.aclose()


async def exchange(one: Member, other: Member, text: str = "hello") -> None:
    """Say something over a new channel, there and back."""
    with anyio.fail_after(PATIENCE):
        name = f"{text}-{one.peer.peer_id}"
        mine = await one.other(str(other.peer.peer_id)).open_channel(name)
        theirs = await other.channel(name)
        await mine.send(text)
        assert await anext(theirs) == text
        await theirs.send(text.encode())
        assert await anext(mine) == text.encode()
        mine.close()
