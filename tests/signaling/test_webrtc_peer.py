"""Python peers in a room, by real connections of aiortc: media, data and files, whatever happens to the signaling."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack

import anyio
import pytest
from aiortc import AudioStreamTrack, VideoStreamTrack
from av import AudioFrame, VideoFrame

from rtcore import CommandError, ConnectionClosed, LocalProtocolError, Message
from rtcore.signaling.ice_servers import IceServer, ice_servers
from rtcore.signaling.mesh import MeshConfig
from rtcore.signaling.negotiation import NegotiationConfig
from rtcore.signaling.peer_connection import IceState, IceStateChanged
from rtcore_adapters.webrtc import (
    ChannelReceived,
    PeerConnected,
    PeerJoined,
    PeerLeft,
    RemotePeer,
    WebRTCPeer,
)
from rtcore_transports import WSClient

from ..transports.servers import EAGER, Server, cut, nothing_left, patiently
from .coturn import Coturn
from .members import PATIENCE, exchange, member, until

pytestmark = pytest.mark.anyio


async def test_data_alone(server: Server) -> None:
    async with nothing_left(), member(server, "ann") as ann, member(server, "bob") as bob:
        await until(lambda: ann.peer.peers and bob.peer.peers)
        # Nobody has anything to send, so there is nothing to connect for.
        assert not ann.other("bob").connected
        await exchange(ann, bob)
        await exchange(bob, ann)
        await ann.connected("bob")
        assert [type(event) for event in ann.events if not isinstance(event, ChannelReceived)] == [
            PeerJoined,
            PeerConnected,
        ]


async def test_media_both_ways(server: Server) -> None:
    async with (
        nothing_left(),
        member(server, "ann", VideoStreamTrack(), AudioStreamTrack()) as ann,
        member(server, "bob", VideoStreamTrack(), AudioStreamTrack()) as bob,
    ):
        for one, other in ((ann, "bob"), (bob, "ann")):
            await one.connected(other)
            with anyio.fail_after(PATIENCE):
                video = await (await one.track(other, "video")).recv()
                audio = await (await one.track(other, "audio")).recv()
            assert isinstance(video, VideoFrame)
            assert (video.width, video.height) == (640, 480)
            assert isinstance(audio, AudioFrame)
        await exchange(ann, bob)


async def test_a_track_that_comes_later(server: Server) -> None:
    async with nothing_left(), member(server, "ann") as ann, member(server, "bob") as bob:
        await until(lambda: ann.peer.peers and bob.peer.peers)
        for one, other, kind, track in (
            (ann, bob, "video", VideoStreamTrack()),
            (bob, ann, "audio", AudioStreamTrack()),
            (bob, ann, "video", VideoStreamTrack()),
        ):
            one.peer.add_track(track)
            received = await other.track(str(one.peer.peer_id), kind)
            with anyio.fail_after(PATIENCE):
                await received.recv()
        assert ann.count(PeerConnected) == bob.count(PeerConnected) == 1
        with pytest.raises(LocalProtocolError, match="already"):
            bob.peer.add_track(track)


async def test_offers_that_cross(server: Server) -> None:
    """Neither can roll back, so one builds its connection anew, and both go on from there."""
    async with (
        nothing_left(),
        member(server, "ann", VideoStreamTrack()) as ann,
        member(server, "bob", VideoStreamTrack()) as bob,
    ):
        signals: list[object] = []
        for one in (ann, bob):
            one.client.on_message("webrtc_signal")(lambda _, message: signals.append(message["signal_type"]))
        for round in range(3):
            await ann.connected("bob")
            await bob.connected("ann")
            with anyio.fail_after(PATIENCE):
                await (await ann.track("bob", "video")).recv()
                await (await bob.track("ann", "video")).recv()
            signals.clear()
            # Both at once, from now on: each hears of the other's offer after it has made its own.
            ann.peer.add_track(AudioStreamTrack() if round % 2 else VideoStreamTrack())
            bob.peer.add_track(VideoStreamTrack() if round % 2 else AudioStreamTrack())
            await until(lambda: "answer" in signals)
            await until(lambda: ann.other("bob").connected and bob.other("ann").connected)
        await until(lambda: len(ann.other("bob").tracks) == len(bob.other("ann").tracks) == 4)
        await exchange(ann, bob)


async def test_three_and_one_leaves(server: Server) -> None:
    async with nothing_left(), member(server, "ann", VideoStreamTrack()) as ann, member(server, "bob") as bob:
        async with member(server, "cec", AudioStreamTrack(), metadata={"name": "Cec"}) as cec:
            await ann.connected("bob", "cec")
            await bob.connected("ann", "cec")
            await cec.connected("ann", "bob")
            assert ann.other("cec").metadata == {"name": "Cec"}
            for one, other in ((ann, bob), (bob, cec), (cec, ann)):
                await exchange(one, other, "round")
            with anyio.fail_after(PATIENCE):
                await (await bob.track("cec", "audio")).recv()
            gone = ann.other("cec")
            lost = await ann.other("cec").open_channel("lost")
        await until(lambda: ann.count(PeerLeft, "cec") == bob.count(PeerLeft, "cec") == 1)
        assert gone.left
        assert lost.closed
        with pytest.raises(ConnectionClosed):
            await lost.send("is anybody there?")
        with pytest.raises(ConnectionClosed, match="'cec' has left"):
            await gone.open_channel("lost")
        with pytest.raises(ConnectionClosed, match="'cec' has left"):
            await gone.wait_connected()
        assert [peer.peer_id for peer in ann.peer.peers] == ["bob"]
        await exchange(ann, bob, "still here")
        assert ann.count(PeerConnected, "bob") == 1


async def test_a_reload(server: Server) -> None:
    """The same peer comes by another instance, before anybody has missed the former one."""
    async with nothing_left(), member(server, "ann", VideoStreamTrack()) as ann, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(WSClient(server.url(), config=EAGER, user_id="7")) for _ in range(2)]
        async with member(server, "bob", client=clients[0]) as bob:
            await bob.connected("ann")
            former = ann.other("bob")
            async with member(server, "bob", client=clients[1]) as again:
                await again.connected("ann")
                await until(lambda: former.left)
                assert ann.other("bob") is not former
                await exchange(ann, again)
                with anyio.fail_after(PATIENCE):
                    await (await again.track("ann", "video")).recv()
                # Whoever was replaced is told, and does not fight for the name.
                await until(lambda: bob.peer.left)
                assert bob.peer.peers == ()


async def test_media_goes_on_while_the_server_is_away(server: Server) -> None:
    async with (
        nothing_left(),
        member(server, "ann", VideoStreamTrack()) as ann,
        member(server, "bob", VideoStreamTrack()) as bob,
    ):
        await ann.connected("bob")
        await bob.connected("ann")
        await exchange(ann, bob)
        video = await ann.track("bob", "video")
        back: list[object] = []
        for one in (ann, bob):
            one.client.on_message("rejoined")(back.append)
        connections = ann.count(PeerConnected), bob.count(PeerConnected)
        for _ in range(2):
            back.clear()
            await server.stop()
            with anyio.fail_after(PATIENCE):
                for _ in range(10):
                    await video.recv()
            await exchange(ann, bob, "away")
            await server.start()
            await until(lambda: len(back) == 2)
        await exchange(bob, ann, "back")
        with anyio.fail_after(PATIENCE):
            await video.recv()
        assert (ann.count(PeerConnected), bob.count(PeerConnected)) == connections
        assert not ann.other("bob").left
        # What is new since then is negotiated by the new server.
        ann.peer.add_track(AudioStreamTrack())
        with anyio.fail_after(PATIENCE):
            await (await bob.track("ann", "audio")).recv()


@pytest.mark.parametrize("restart", [False, True], ids=["cut", "restart"])
async def test_signaling_is_lost_while_they_connect(server: Server, restart: bool) -> None:
    for moment in range(8):
        async with (
            nothing_left(),
            member(server, "ann", VideoStreamTrack()) as ann,
            member(server, "bob", VideoStreamTrack()) as bob,
        ):
            # Each time a little further: before the offer, between it and the answer, after it.
            for _ in range(4 * moment):
                await asyncio.sleep(0)
            if restart:
                await server.stop()
                await server.start()
            else:
                for one in (ann, bob)[moment % 2 :]:
                    cut(server, one.client)
            await ann.connected("bob")
            await bob.connected("ann")
            await exchange(ann, bob)
            await exchange(bob, ann)


async def test_a_connection_that_ends_is_built_anew(server: Server) -> None:
    async with (
        nothing_left(),
        member(server, "ann", VideoStreamTrack()) as ann,
        member(server, "bob", AudioStreamTrack()) as bob,
    ):
        await ann.connected("bob")
        await bob.connected("ann")
        channel = await ann.other("bob").open_channel("lost")
        former, track = ann.other("bob").connection, await ann.track("bob", "audio")
        before = ann.count(PeerConnected), bob.count(PeerConnected)
        assert former is not None
        assert former._pc is not None
        await former._pc.close()
        with anyio.fail_after(PATIENCE):
            assert [each async for each in channel] == []
        await until(lambda: ann.count(PeerConnected) > before[0] and bob.count(PeerConnected) > before[1])
        await exchange(ann, bob)
        assert track.readyState == "ended"
        with anyio.fail_after(PATIENCE):
            await (await ann.track("bob", "audio")).recv()
            await (await bob.track("ann", "video")).recv()


class SlowClient(WSClient):
    """One whose signals wait, each until the one before has gone."""

    def __init__(self, url: str) -> None:
        super().__init__(url, config=EAGER)
        self.open = asyncio.Event()
        self.signals: list[Message] = []

    async def send_json(self, message: object, *, ack: bool = False) -> Message | None:
        if ack:
            assert isinstance(message, dict)
            self.signals.append(message)
            await self.open.wait()
        return await super().send_json(message, ack=ack)


async def test_what_waits_behind_a_slow_signal(server: Server) -> None:
    """Only what is about the present connection is sent; otherwise that would come too late, again and again."""
    config = MeshConfig(negotiation=NegotiationConfig(connect_timeout=None, restart_interval=0.01, max_interval=0.01))
    async with (
        nothing_left(),
        SlowClient(server.url()) as client,
        member(server, "bob") as bob,
        member(server, "ann", VideoStreamTrack(), client=client, config=config) as ann,
    ):
        await until(lambda: client.signals)
        for build in range(3):
            peer = ann.other("bob")
            await until(lambda peer=peer, build=build: has_offered(peer, build))
            ann.peer.report(peer, IceStateChanged(build, IceState.CLOSED))
        await until(lambda: has_offered(ann.other("bob"), 3))
        [waiting] = client.signals
        assert waiting["build"] == 0
        client.open.set()
        await ann.connected("bob")
        await bob.connected("ann")
        await exchange(ann, bob)
        _, first, *rest = client.signals
        assert (first["signal_type"], first["build"]) == ("bye", 3)
        # Where their offers cross, there is another.
        assert {signal["build"] for signal in rest} <= {3, 4}


def has_offered(peer: RemotePeer, build: int) -> bool:
    """Tell whether the connection by that number has made an offer."""
    connection = peer.connection
    pc = None if connection is None or connection.build != build else connection._pc
    return pc is not None and pc.iceGatheringState == "complete"


async def test_a_connection_that_does_not_come_about_is_tried_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[str] = []
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: addresses)
    config = MeshConfig(negotiation=NegotiationConfig(restart_interval=0.05, max_interval=0.1))
    async with (
        nothing_left(),
        member(server, "ann", VideoStreamTrack(), connect_timeout=0.2, config=config) as ann,
        member(server, "bob", connect_timeout=1000.0, config=config) as bob,
    ):

        def is_new() -> bool:
            connection = ann.other("bob").connection
            return connection is not None and connection.build >= 2

        await until(lambda: ann.peer.peers and is_new())
        addresses.append("127.0.0.1")
        await ann.connected("bob")
        await exchange(bob, ann)


async def test_a_relay_alone(server: Server, coturn: Coturn) -> None:
    [issued] = ice_servers([], [coturn.url], secret=coturn.secret, user="ann", now_wall_seconds=time.time(), ttl=600.0)
    asked = 0

    async def servers() -> list[IceServer]:
        nonlocal asked
        asked += 1
        # aiortc cannot read the first, and is not asked to.
        return [{"urls": ["stun:[::1]:3478"]}, issued]

    async with (
        nothing_left(),
        member(server, "ann", VideoStreamTrack(), ice_servers=servers, relay_only=True) as ann,
        member(server, "bob", ice_servers=servers, relay_only=True) as bob,
    ):
        await bob.connected("ann")
        await exchange(bob, ann)
        with anyio.fail_after(PATIENCE):
            await (await bob.track("ann", "video")).recv()
        for one, other in ((ann, "bob"), (bob, "ann")):
            connection = one.other(other).connection
            assert connection is not None
            assert connection._pc is not None
            sdp = connection._pc.localDescription.sdp
            candidates = [line for line in sdp.splitlines() if line.startswith("a=candidate")]
            assert candidates
            assert all(" typ relay " in line for line in candidates)
        assert asked == 2


async def test_settings_that_cannot_be_had(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """No function of the user's ends a peer: it is asked again for the next connection."""
    attempts = 0

    async def servers() -> list[IceServer]:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError("no route to the server")
        return []

    config = MeshConfig(negotiation=NegotiationConfig(restart_interval=0.05))
    async with (
        nothing_left(),
        member(server, "ann", VideoStreamTrack(), ice_servers=servers, config=config) as ann,
        member(server, "bob") as bob,
    ):
        await bob.connected("ann")
        await exchange(ann, bob)
    assert attempts >= 3
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "there are no settings for a peer connection"
    ] * 2
    caplog.clear()


async def test_a_room_that_is_closed(server: Server) -> None:
    async with nothing_left(), member(server, "ann") as ann, member(server, "bob") as bob:
        await until(lambda: ann.peer.peers)
        await exchange(ann, bob)
        assert server.driver.close_room("r") is None
        await until(lambda: ann.peer.left and bob.peer.left)
        assert ann.count(PeerLeft) == bob.count(PeerLeft) == 1
        with pytest.raises(LocalProtocolError, match="no longer"):
            ann.peer.add_track(VideoStreamTrack())
        # They do not come back by themselves.
        back: list[object] = []
        ann.client.on_message("connected")(back.append)
        cut(server, ann.client)
        await patiently(lambda: ann.client.stats.reconnects == 1 and ann.client.connected)
        assert await ann.client.rooms() == []


async def test_who_is_not_let_in(server: Server) -> None:
    async with nothing_left(), WSClient(server.url()) as client, member(server, "ann"):
        peer = WebRTCPeer(client, "r", peer_id="ann")
        with pytest.raises(CommandError, match="peer_id_taken"):
            await peer.__aenter__()
        with pytest.raises(LocalProtocolError, match="once"):
            await peer.__aenter__()
        await peer.aclose()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio(anyio_backend: str) -> None:
    with pytest.raises(LocalProtocolError, match="asyncio alone"):
        await WebRTCPeer(WSClient("ws://127.0.0.1:9/ws"), "r").__aenter__()
