"""`WSClient` in rooms: peers find each other, and what they say to each other survives losses."""

from __future__ import annotations

import pytest

from rtcore import CommandError, Message, WebRTCSignalType
from rtcore_transports import WSClient

from .servers import EAGER, Server, cut, nothing_left, patiently, receive

pytestmark = pytest.mark.anyio

OFFER = "v=0 offer"


def client_of(server: Server) -> WSClient:
    return WSClient(server.url(), config=EAGER)


async def kinds(client: WSClient, count: int) -> list[object]:
    return [(await receive(client)).get("signal_type", "?") for _ in range(count)]


async def test_two_peers(server: Server) -> None:
    async with nothing_left(), client_of(server) as ann, client_of(server) as bob:
        room = await ann.join_room("r", peer_id="ann", metadata={"name": "Ann"})
        assert room["participants"] == []
        room = await bob.join_room("r", peer_id="bob")
        [other] = room["participants"]
        assert (other["peer_id"], other["metadata"], other["polite"]) == ("ann", {"name": "Ann"}, False)
        joined = await receive(ann)
        assert (joined["type"], joined["peer_id"], joined["polite"]) == ("peer_joined", "bob", True)
        receipt = await ann.send_webrtc_signal(signal_type="offer", target_peer_id="bob", sdp=OFFER, ack=True)
        assert receipt is not None
        assert receipt["offset"] == 1
        offer = await receive(bob)
        assert (offer["signal_type"], offer["peer_id"], offer["sdp"], offer["room_id"]) == ("offer", "ann", OFFER, "r")
        await bob.send_webrtc_signal(WebRTCSignalType.ICE_CANDIDATE, "ann", ice_candidate={"candidate": "c"})
        await bob.send_webrtc_signal(WebRTCSignalType.ICE_CANDIDATE, "ann")
        assert [(await receive(ann))["ice_candidate"] for _ in range(2)] == [{"candidate": "c"}, None]
        await bob.send_webrtc_signal("bye", "ann", room_id="r", reason="lunch")
        assert (await receive(ann))["reason"] == "lunch"
        await bob.leave_room("r")
        left = await receive(ann)
        assert (left["type"], left["peer_id"], left["reason"]) == ("peer_left", "bob", "left")
        with pytest.raises(CommandError, match="unknown_peer"):
            await ann.send_webrtc_signal("bye", "bob", ack=True)
        with pytest.raises(ValueError, match="shout"):
            await ann.send_webrtc_signal("shout", "bob")


async def test_rooms(server: Server) -> None:
    async with client_of(server) as client:
        room = await client.create_room("r", name="Room", max_participants=2)
        assert (room.room_id, room.name, room.max_participants, room.participants) == ("r", "Room", 2, ())
        other = await client.create_room()
        await client.join_room("r", peer_id="ann")
        rooms = {room.room_id: room for room in await client.rooms()}
        assert [peer["peer_id"] for peer in rooms["r"].participants] == ["ann"]
        assert set(rooms) == {"r", other.room_id}
        with pytest.raises(CommandError, match="room_exists"):
            await client.create_room("r")


async def test_what_was_said_while_a_peer_was_away_comes_once_and_in_order(server: Server) -> None:
    async with nothing_left(), client_of(server) as ann, client_of(server) as bob:
        await ann.join_room("r", peer_id="ann")
        bob_is = (await bob.join_room("r", peer_id="bob"))["instance"]
        await receive(ann)
        rejoined: list[Message] = []
        bob.on_message("rejoined")(lambda data, message: rejoined.append(message))
        for round in range(2):
            cut(server, bob)
            for number in range(3):
                await ann.send_webrtc_signal("offer", "bob", OFFER, negotiation=f"{round}.{number}", ack=True)
            negotiations = [(await receive(bob))["negotiation"] for _ in range(3)]
            assert negotiations == [f"{round}.{number}" for number in range(3)]
        await patiently(lambda: len(rejoined) == 2)
        assert [message["room_id"] for message in rejoined] == ["r", "r"]
        assert all(message["data"]["recovered"] for message in rejoined)
        await bob.send_webrtc_signal("answer", "ann", "v=0 answer", negotiation="1.2", ack=True)
        # Nobody has heard that it was away.
        answer = await receive(ann)
        assert (answer["signal_type"], answer["instance"]) == ("answer", bob_is)


async def test_what_a_peer_says_while_it_is_away_is_said_when_it_is_back(server: Server) -> None:
    async with client_of(server) as ann, client_of(server) as bob:
        await ann.join_room("r", peer_id="ann")
        await bob.join_room("r", peer_id="bob")
        await receive(ann)
        cut(server, bob)
        await bob.send_webrtc_signal("offer", "ann", OFFER, negotiation="n")
        await bob.send_webrtc_signal("ice-candidate", "ann", negotiation="n")
        assert await kinds(ann, 2) == ["offer", "ice-candidate"]


async def test_a_restarted_server(server: Server) -> None:
    async with client_of(server) as ann, client_of(server) as bob:
        await ann.join_room("r", peer_id="ann")
        bob_is = (await bob.join_room("r", peer_id="bob"))["instance"]
        await receive(ann)
        back: list[Message] = []
        ann.on_message("rejoined")(back.append)
        bob.on_message("rejoined")(back.append)
        await server.stop()
        await server.start()
        await patiently(lambda: len(back) == 2)
        assert all(data["recovered"] is False for data in back)
        # Whoever came first hears of the other; whoever came second finds it there.
        present = [peer for data in back for peer in data["participants"]]
        for client in (ann, bob):
            # What was said by the server that is gone, to everybody and in the room, is lost.
            gaps = [await receive(client), await receive(client)]
            assert [(gap["type"], gap["channel"]) for gap in gaps] == [("gap", "$broadcast"), ("gap", "$room:r")]
        if bob_is not in [peer["instance"] for peer in present]:
            assert (await receive(ann))["instance"] == bob_is
        await ann.send_webrtc_signal("offer", "bob", OFFER, ack=True)


async def test_somebody_else_with_the_same_name(server: Server) -> None:
    async with client_of(server) as ann, client_of(server) as eve:
        await ann.join_room("r", peer_id="ann")
        with pytest.raises(CommandError, match="peer_id_taken"):
            await eve.join_room("r", peer_id="ann")
        with pytest.raises(CommandError, match="not_in_room"):
            await eve.send_webrtc_signal("bye", "ann", ack=True)
