"""The client's machine in rooms: to it they are channels that are joined by other commands."""

from __future__ import annotations

from rtcore.client import (
    Answered,
    Disconnect,
    Drop,
    Ended,
    Join,
    Publish,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    SendText,
)

from .client_talk import (
    LOST,
    ask,
    command,
    connected,
    error,
    gap,
    hear,
    heard,
    member,
    message,
    reconnect,
    response,
    standing,
    text,
    welcome,
)

ROOM = {"room_id": "r", "name": "r", "max_participants": 8, "participants": []}
JOIN = Request("join_room", {"room_id": "r", "peer_id": "ann"})
LEAVE = Request("leave_room", {"room_id": "r"})
SIGNAL = {"type": "webrtc_signal", "signal_type": "bye", "target_peer_id": "bob"}


def stands(offset: int, epoch: str = "e", **fields: object) -> dict[str, object]:
    return {**ROOM, "offset": offset, "epoch": epoch, "replayed": 0, **fields}


def join(token: str, **fields: object) -> SendText:
    return command("join_room", {"peer_id": "ann", "room_id": "r", **fields}, token)


def test_room_is_joined_and_left() -> None:
    client = connected()
    assert client.request(JOIN, now=0.0) == ("0-1", [join("0-1")])
    assert client.receive_text(response("0-1", stands(0)), now=0.0) == [Answered("0-1", stands(0))]
    assert client.channels == ()
    assert hear(client, message(1), message(2), message(2)) == heard(1, 2)
    assert client.request(LEAVE, now=0.0) == ("0-2", [command("leave_room", {"room_id": "r"}, "0-2")])
    client.receive_text(response("0-2", {"room_id": "r"}), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == []


def test_room_is_joined_again_from_where_it_was_heard() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(0)), now=0.0)
    hear(client, message(1), message(2))
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [join("0-2", since={"epoch": "e", "offset": 2})]
    back = stands(4, recovered=True, replayed=2)
    assert client.receive_text(response("0-2", back), now=1.0) == [Rejoined("$room:r", back)]
    assert hear(client, message(3), message(4), message(5), now=1.0) == heard(3, 4, 5)


def test_what_is_lost_of_a_room_is_told() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(3)), now=0.0)
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    back = stands(0, "f", recovered=False)
    assert client.receive_text(response("0-2", back), now=1.0) == [Rejoined("$room:r", back), gap("$room:r", 0, "f")]


def test_hole_in_a_room_is_asked_for() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(0)), now=0.0)
    assert hear(client, message(2)) == [join("0-2", since={"epoch": "e", "offset": 0})]


def test_room_that_is_refused_again() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(0)), now=0.0)
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    refused = [RejoinRefused("$room:r", "peer_id_taken", "no")]
    assert client.receive_text(error("0-2", "peer_id_taken"), now=1.0) == refused


def test_room_that_is_left_while_offline() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(0)), now=0.0)
    client.lost(None, now=0.0)
    assert client.request(LEAVE, now=0.0) == ("0-2", [Answered("0-2", {"room_id": "r"})])
    assert reconnect(client, 1.0) == []


def test_leave_under_way_when_the_connection_is_lost() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(0)), now=0.0)
    ask(client, LEAVE)
    assert client.lost(None, now=0.0)[0] == Answered("0-2", {"room_id": "r"})


def test_join_without_an_answer_is_undone() -> None:
    client = connected(command_timeout=5.0)
    ask(client, JOIN)
    assert client.handle_timeout(now=5.0)[1] == command("leave_room", {"room_id": "r"}, "0-2")


def test_channel_and_room_of_one_name_are_two() -> None:
    client = member(5, channel="r")
    assert client.request(JOIN, now=0.0)[1] == [join("0-2")]
    client.receive_text(response("0-2", stands(0, "f")), now=0.0)
    assert hear(client, message(6), message(1, "f")) == [*heard(6), *heard(1, epoch="f")]
    assert client.position("r") == ("e", 6)
    client.receive_text(response(ask(client, LEAVE), {"room_id": "r"}), now=0.0)
    assert hear(client, message(7)) == heard(7)


def test_command_without_a_room_is_just_a_command() -> None:
    client = connected()
    assert client.request(Request("join_room", {"room_id": 5}), now=0.0)[1] == [
        command("join_room", {"room_id": 5}, "0-1")
    ]
    assert client.request(Request("leave_room"), now=0.0)[1] == [command("leave_room", {}, "0-2")]


def test_signal_is_sent_again_by_a_server_that_knows_what_it_has_got() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(0)), now=0.0)
    sent = SendText(text({**SIGNAL, "id": "0-2"}))
    assert client.request(Publish(SIGNAL), now=0.0) == ("0-2", [sent])
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [join("0-3", since={"epoch": "e", "offset": 0}), sent]
    client.lost(None, now=2.0)
    lost = Refused("0-2", "connection_lost", LOST)
    assert lost in reconnect(client, 3.0, welcome("c2", session_epoch="other"))


def test_rooms_are_left_at_the_end() -> None:
    client = member(5)
    client.receive_text(response(ask(client, JOIN), stands(0, "f")), now=0.0)
    left = command("leave_room", {"room_id": "r"})
    assert client.send(Disconnect(), now=0.0) == [left, Drop(1000, ""), Ended(1000, "", 0)]


def test_nothing_is_said_at_the_end_while_offline() -> None:
    client = connected()
    client.receive_text(response(ask(client, JOIN), stands(0)), now=0.0)
    client.receive_text(text({"type": "disconnect", "code": 1012}), now=0.0)
    assert client.send(Disconnect(), now=0.0) == [Drop(1000, ""), Ended(1000, "", 0)]


def test_room_that_the_server_joins_channels_beside() -> None:
    client = connected(hello=welcome(channels=["a"]))
    client.receive_text(response(ask(client, Join("a")), standing(5)), now=0.0)
    client.receive_text(response(ask(client, JOIN), stands(0, "f")), now=0.0)
    assert client.channels == ("a",)
