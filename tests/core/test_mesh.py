"""A peer and all others in its room."""

from __future__ import annotations

from typing import Any

import pytest

from rtcore.messages import Message
from rtcore.signaling.mesh import Mesh, MeshConfig
from rtcore.signaling.negotiation_config import Phase
from rtcore.signaling.peer_connection import (
    Build,
    Close,
    IceState,
    IceStateChanged,
    LocalDescriptionSet,
    NegotiationNeeded,
    RemoteDescriptionSet,
    Rollback,
    RolledBack,
    Send,
    SetLocalDescription,
    SetRemoteDescription,
)


def participant(peer_id: str, instance: str = "i", **more: object) -> Message:
    return {"peer_id": peer_id, "instance": instance, "polite": True, **more}


def answer(*participants: object, instance: str = "own", **more: object) -> Message:
    return {"room_id": "room", "peer_id": "me", "instance": instance, "participants": list(participants), **more}


def joined(peer_id: str, instance: str = "i", *, rejoined: bool = False) -> Message:
    return {"type": "peer_joined", "room_id": "room", "rejoined": rejoined, **participant(peer_id, instance)}


def left(peer_id: str, instance: str = "i") -> Message:
    return {"type": "peer_left", "room_id": "room", "peer_id": peer_id, "instance": instance, "reason": "left"}


def mesh_with(*peers: str, **more: Any) -> Mesh:
    mesh = Mesh("room", entropy="e", config=MeshConfig(peer_ttl=10.0), **more)
    mesh.join(answer(*(participant(each) for each in peers)), now=0.0)
    return mesh


def offer(mesh: Mesh, peer_id: str) -> list[Any]:
    mesh.handle(peer_id, NegotiationNeeded(0), now=0.0)
    return mesh.handle(peer_id, LocalDescriptionSet(0, "offer", "v=0"), now=0.0)


def told(effects: list[Any]) -> list[Any]:
    return [effect.message["signal_type"] for effect in effects if isinstance(effect, Send)]


# Coming and going


def test_join_builds_a_connection_to_each() -> None:
    mesh = Mesh("room", entropy="e")
    effects = mesh.join(answer(participant("a"), participant("b", "j"), participant("me")), now=0.0)
    assert effects == [Build("a", "i", 0), Build("b", "j", 0)]
    assert list(mesh) == ["a", "b"]
    assert len(mesh) == 2
    found = mesh.get("b")
    assert found is not None
    assert found.instance == "j"
    assert mesh.get("me") is None


def test_peer_that_joins_and_leaves() -> None:
    mesh = mesh_with()
    assert mesh.receive(joined("a"), now=0.0) == [Build("a", "i", 0)]
    assert mesh.receive(left("a", "another"), now=0.0) == []
    assert mesh.receive(left("b"), now=0.0) == []
    assert mesh.receive(left("a"), now=0.0) == [Close("a")]
    assert len(mesh) == 0


def test_another_instance_is_another_peer() -> None:
    mesh = mesh_with("a")
    assert mesh.receive(joined("a", "j"), now=0.0) == [Close("a"), Build("a", "j", 0)]


def test_peer_that_was_given_up_and_comes_back_hears_that_the_connection_is_another() -> None:
    mesh = mesh_with("a")
    mesh.receive(left("a"), now=0.0)
    effects = mesh.receive(joined("a"), now=0.0)
    assert told(effects) == ["bye"]
    assert effects[1:] == [Build("a", "i", 1)]


def test_former_peers_are_forgotten_in_time() -> None:
    mesh = mesh_with("a")
    mesh.receive(left("a"), now=0.0)
    for number in range(256):
        mesh.receive(joined(str(number)), now=0.0)
        mesh.receive(left(str(number)), now=0.0)
    assert mesh.receive(joined("a"), now=0.0) == [Build("a", "i", 0)]


@pytest.mark.parametrize("message", [{"type": "room_closed", "room_id": "room"}, left("me", "own")], ids=repr)
def test_end_of_the_room_closes_all(message: Message) -> None:
    assert mesh_with("a", "b").receive(message, now=0.0) == [Close("a"), Close("b")]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "room_closed", "room_id": "another"},
        {"type": "room_closed", "room_id": None},
        {"type": "room_updated", "room_id": "room", "name": "n"},
        {"type": "peer_left", "peer_id": "a"},
        {"type": "peer_joined", "peer_id": "b", "instance": "i"},
        {"type": "peer_joined", "peer_id": 1, "instance": "i", "polite": True},
        {"type": "webrtc_signal", "signal_type": "bye"},
        {"type": "webrtc_signal", "signal_type": "bye", "peer_id": "b"},
        left("me", "another"),
        joined("a"),
        {},
    ],
    ids=repr,
)
def test_messages_that_change_nothing(message: Message) -> None:
    mesh = mesh_with("a")
    assert mesh.receive(message, now=0.0) == []
    assert list(mesh) == ["a"]


@pytest.mark.parametrize("said", [{}, {"peer_id": "me"}, {"peer_id": "me", "instance": 1}], ids=repr)
def test_answer_without_sense_changes_nothing(said: Message) -> None:
    assert mesh_with("a").join(said, now=0.0) == []


def test_answer_may_name_nobody_who_can_be_understood() -> None:
    mesh = Mesh("room", entropy="e")
    assert mesh.join(answer("a", None, {"peer_id": "b"}), now=0.0) == []
    assert mesh.join({"peer_id": "me", "instance": "own"}, now=0.0) == []


# Negotiations


def test_each_pair_has_its_own_negotiation() -> None:
    mesh = mesh_with("a", "b")
    assert [effect.message["negotiation"] for effect in offer(mesh, "a")] == ["e.1.1"]
    (sent,) = offer(mesh, "b")
    assert sent.peer_id == "b"
    assert sent.message["negotiation"] == "e.2.1"
    assert sent.message["room_id"] == "room"
    reply = {"type": "webrtc_signal", "signal_type": "answer", "peer_id": "b", "instance": "i", "sdp": "v=0"}
    assert mesh.receive({**reply, "negotiation": "e.1.1"}, now=0.0) == []
    accepted = mesh.receive({**reply, "negotiation": "e.2.1"}, now=0.0)
    assert accepted == [SetRemoteDescription("b", "answer", "v=0")]
    assert mesh.handle("b", RemoteDescriptionSet(0), now=0.0) == []
    assert mesh.handle("c", RemoteDescriptionSet(0), now=0.0) == []


def test_mesh_that_cannot_roll_back_says_so_to_its_pairs() -> None:
    mesh = mesh_with("a", rollback=False)
    offer(mesh, "a")
    crossed = {"type": "webrtc_signal", "signal_type": "offer", "peer_id": "a", "sdp": "v=0", "build": 0}
    assert told(mesh.receive(crossed, now=0.0)) == ["bye"]


# Losses


def test_what_is_recovered_changes_nothing() -> None:
    mesh = mesh_with("a")
    assert mesh.join(answer(participant("b"), recovered=True), now=0.0) == []
    assert list(mesh) == ["a"]


def test_first_answer_counts_even_if_it_is_recovered() -> None:
    mesh = Mesh("room", entropy="e")
    assert mesh.join(answer(participant("a"), recovered=True), now=0.0) == [Build("a", "i", 0)]


@pytest.mark.parametrize("rejoined", [False, True])
def test_loss_is_mended_on_both_sides(rejoined: bool) -> None:
    mesh = mesh_with("a")
    offer(mesh, "a")
    if rejoined:
        effects = mesh.receive(joined("a", rejoined=True), now=0.0)
    else:
        effects = mesh.join(answer(participant("a"), recovered=False), now=0.0)
    assert effects == [Rollback("a")]


def test_own_new_instance_begins_anew() -> None:
    mesh = mesh_with("a")
    mesh.receive(left("a"), now=0.0)
    mesh.receive(joined("a"), now=0.0)
    effects = mesh.join(answer(participant("a"), instance="another"), now=0.0)
    assert effects == [Close("a"), Build("a", "i", 0)]


def test_peer_that_is_missing_is_waited_for() -> None:
    mesh = mesh_with("a")
    assert mesh.join(answer(), now=5.0) == []
    assert mesh.next_timeout() == 15.0
    # Nobody would pass anything on to it.
    assert offer(mesh, "a") == []
    assert mesh.join(answer(), now=6.0) == []
    assert mesh.handle_timeout(now=9.0) == []
    assert mesh.receive(joined("a"), now=9.0) == [Rollback("a")]
    assert mesh.next_timeout() is None
    assert mesh.handle("a", RolledBack(0), now=9.0)[-1] == SetLocalDescription("a")


def test_who_has_left_and_is_back_has_not_heard_it_all_however_much_is_replayed() -> None:
    mesh = mesh_with("a")
    assert mesh.join(answer(participant("b"), recovered=True), now=1.0) == []
    assert mesh.receive({"type": "room_closed", "room_id": "room"}, now=2.0) == [Close("a")]
    assert mesh.join(answer(participant("b"), recovered=True), now=3.0) == [Build("b", "i", 0)]
    assert mesh.join(answer(recovered=True), now=4.0) == []


def test_signals_say_by_which_instance_they_are() -> None:
    mesh = mesh_with("a")
    [offered] = offer(mesh, "a")
    assert offered.message["instance"] == "own"


def test_peer_that_stays_missing_is_given_up() -> None:
    mesh = mesh_with("a", "b")
    mesh.join(answer(participant("b")), now=5.0)
    assert mesh.handle_timeout(now=15.0) == [Close("a")]
    assert mesh.next_timeout() is None


@pytest.mark.parametrize("state", [IceState.FAILED, IceState.CLOSED])
def test_peer_that_is_missing_is_given_up_with_its_connection(state: IceState) -> None:
    mesh = mesh_with("a")
    mesh.join(answer(), now=5.0)
    assert mesh.handle("a", IceStateChanged(1, state), now=6.0) == []
    assert mesh.handle("a", IceStateChanged(0, IceState.CONNECTED), now=6.0) == []
    assert mesh.handle("a", IceStateChanged(0, state), now=6.0) == [Close("a")]


def test_connections_are_repaired_in_time() -> None:
    mesh = mesh_with("a", "b")
    mesh.handle("a", IceStateChanged(0, IceState.FAILED), now=1.0)
    assert mesh.next_timeout() == 9.0
    assert mesh.handle_timeout(now=9.0) == []
    assert mesh.next_timeout() == 25.0
    found = mesh.get("a")
    assert found is not None
    assert found.phase is Phase.OFFERING
