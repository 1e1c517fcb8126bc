"""Rooms of a node: whatever peers do, each knows who is there and hears every signal once, or is told that it has not.

Applications join rooms, lose their connections (of which the server may hear late), come back, and take each other's
places. What each is told, they fold into a view of their rooms; it is compared with what is the case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtcore.messages import Message
from rtcore.node import Node, NodeConfig, NodeEffect
from rtcore.router import Deliver
from rtcore.session import Transport
from rtcore.signaling import SignalingConfig

ROOMS = ["r", "s"]
# What is about two peers needs both to be in one room, most of the time.
SOME_ROOM = st.sampled_from(["r", "r", "r", "r", "s"])
PEER_TTL = 10.0
MAX_PARTICIPANTS = 3
STAMP = 1_700_000_000_000
SOME_APP = st.sampled_from([0, 0, 0, 2, 2, 2, 1, 3, 4, 5])
CONTENTS: dict[str, Message] = {
    "offer": {"sdp": "v=0"},
    "answer": {"sdp": "v=0"},
    "ice-candidate": {"ice_candidate": None},
    "bye": {},
}


@attrs.define
class View:
    """What an application knows of a room that it is in.

    Attributes:
        instance: Its life there.
        epoch: Of its stream.
        offset: Up to where it has heard it.
        peers: The others: their instances, and whether it is polite towards them.
        owed: The signals that it must yet hear, in order.
    """

    instance: str
    epoch: str
    offset: int
    peers: dict[str, tuple[str, bool]]
    owed: list[int]


@attrs.define(eq=False)
class App:
    """An application, which has one name in all rooms.

    Attributes:
        instances: Its life in each room.
        views: The rooms that it is in, or believes to be.
        connection: Its present connection, or ``None``.
        last: The last signal that was acknowledged, by which connection.
        came: How often it has heard ``peer_joined`` since this was looked at.
    """

    name: str
    peer_id: str
    user_id: str | None
    session: str | None
    rollback: bool = True
    connection: str | None = None
    instances: dict[str, str] = attrs.field(factory=dict)
    views: dict[str, View] = attrs.field(factory=dict)
    last: tuple[str, Message] | None = None
    came: list[tuple[str, bool]] = attrs.field(factory=list)


@attrs.define(eq=False)
class Place:
    """Who is in a room under some name, by which connection, and until when if that was lost."""

    app: App
    instance: str
    connection: str
    gone_at: float | None = None


class RoomsMachine(RuleBasedStateMachine):
    """Applications, and a node whose rooms are modelled by `places`."""

    @initialize()
    def start(self) -> None:
        config = SignalingConfig(
            max_participants=MAX_PARTICIPANTS, peer_ttl=PEER_TTL, room_ttl=25.0, max_held=4, max_rooms_per_connection=2
        )
        self.node = Node(NodeConfig(signaling=config), entropy="e")
        self.now = 0.0
        self.serial = 0
        self.apps = [
            App("a1", "a", "ann", "s1"),
            App("a2", "a", "ann", None),  # takes the place of the first
            App("b", "b", None, "s2", rollback=False),
            App("c", "c", None, None),  # is known by its connection alone
            App("d", "d", "dan", None, rollback=False),
            App("m", "a", "mallory", "s1"),  # never takes anybody's place
        ]
        self.places: dict[str, dict[str, Place]] = {room: {} for room in ROOMS}
        self.offers: dict[tuple[str, str, str], str | None] = {}
        self.listeners: dict[str, App] = {}
        self.answers: list[Message] = []
        self.taken_over: list[str] = []
        for index in (0, 2):
            self.join(index, "r", since=False, anew=True, named=True)

    def teardown(self) -> None:
        for connection in list(self.listeners):
            self.drop(connection)
        while (at := self.node.next_timeout()) is not None:
            self.now = at
            self.node.handle_timeout(now=at, timestamp=STAMP)
        assert self.node.empty
        assert self.now < 1000.0

    # What is heard

    def perform(self, effects: Iterable[NodeEffect]) -> None:
        for effect in effects:
            assert isinstance(effect, Deliver)
            message = json.loads(effect.message.json)
            for connection in effect.connections:
                app = self.listeners[connection]
                if message.get("reason") == "taken_over":
                    self.taken_over.append(connection)
                if app.connection == connection and connection != effect.skip:
                    self.hear(app, message)

    def hear(self, app: App, message: Message) -> None:
        kind, room = message["type"], str(message.get("room_id"))
        if kind in ("response", "error"):
            self.answers.append(message)
            if kind == "response" and message["id"] == "join":
                self.enter(app, message["data"])
            return
        if kind in ("connected", "heartbeat"):
            return
        if message.get("reason") == "taken_over":
            # By another application of its user, on no stream of the room: it hears of that no longer.
            view = app.views.pop(room)
            assert (message["peer_id"], message["instance"], view.owed) == (app.peer_id, view.instance, [])
            return
        view, meta = app.views[room], message["meta"]
        assert isinstance(meta, dict)
        assert (meta["epoch"], meta["offset"]) == (view.epoch, view.offset + 1), "a hole, or somebody else's"
        view.offset += 1
        peer_id, instance = str(message["peer_id"]), str(message["instance"])
        match kind:
            case "peer_joined":
                known = view.peers.get(peer_id)
                assert (known is not None and known[0] == instance) if message["rejoined"] else known is None
                view.peers[peer_id] = (instance, bool(message["polite"]))
                app.came.append((peer_id, bool(message["rejoined"])))
            case "peer_left" if peer_id == app.peer_id:
                # By another application, or by its own next life.
                assert (instance, message["reason"]) == (view.instance, "replaced")
                assert not view.owed
                del app.views[room]
            case "peer_left":
                assert view.peers.pop(peer_id)[0] == instance
            case "webrtc_signal":
                assert message["target_peer_id"] == app.peer_id
                assert view.peers[peer_id][0] == instance
                assert message["number"] == view.owed.pop(0)
            case _:
                raise AssertionError(f"unheard of: {message}")

    def enter(self, app: App, data: object) -> None:
        assert isinstance(data, dict)
        room, view = data["room_id"], app.views.get(data["room_id"])
        # Without a name of its own it has that which it is given.
        assert (data["peer_id"], data["instance"]) == (app.peer_id, app.instances.setdefault(room, data["instance"]))
        if data.get("recovered"):
            assert view is not None
            assert data["epoch"] == view.epoch
            assert data["offset"] == view.offset + data["replayed"]
            return
        assert data["replayed"] == 0
        peers = {each["peer_id"]: (each["instance"], each["polite"]) for each in data["participants"]}
        app.views[room] = View(data["instance"], data["epoch"], data["offset"], peers, [])

    def say(self, app: App, message: Message) -> Message:
        assert app.connection is not None
        self.answers.clear()
        self.perform(self.node.receive_text(app.connection, json.dumps(message), now=self.now, timestamp=STAMP))
        (answer,) = self.answers
        return answer

    # What is the case

    def go(self, room: str, peer_id: str) -> None:
        del self.places[room][peer_id]
        self.forget_offers(room, peer_id)

    def forget_offers(self, room: str, peer_id: str) -> None:
        for offer in list(self.offers):
            if offer[0] == room and peer_id in offer[1:]:
                del self.offers[offer]

    def is_awaited(self, offer: tuple[str, str, str], negotiation: str | None) -> bool:
        """Tell whether an answer with that negotiation may be given to what was offered, if anything was."""
        return offer in self.offers and (None in (self.offers[offer], negotiation) or self.offers[offer] == negotiation)

    def drop(self, connection: str) -> None:
        """Have the server hear that a connection has ended."""
        for places in self.places.values():
            for place in places.values():
                if place.connection == connection and place.gone_at is None:
                    place.gone_at = self.now + PEER_TTL
        assert self.node.disconnect(connection, now=self.now, timestamp=STAMP) == []
        app = self.listeners.pop(connection)
        if app.connection == connection:
            app.connection = None

    def place_of(self, app: App, room: str) -> Place | None:
        """Return where an application is by its present connection."""
        place = self.places[room].get(app.peer_id)
        return place if place is not None and place.connection == app.connection and place.gone_at is None else None

    def somebody(self, index: int) -> App:
        app = self.apps[index]
        if app.connection is None:
            self.serial += 1
            app.connection = f"c{self.serial}"
            self.listeners[app.connection] = app
            connected = self.node.connect(
                app.connection,
                user_id=app.user_id,
                transport=Transport.WEBSOCKET,
                session=app.session,
                now=self.now,
                timestamp=STAMP,
            )
            self.perform(connected)
        return app

    # What happens

    @rule(
        index=SOME_APP,
        room=SOME_ROOM,
        since=st.booleans(),
        anew=st.sampled_from([False, False, True]),
        named=st.sampled_from([True, True, False]),
    )
    def join(self, index: int, room: str, since: bool, anew: bool, named: bool) -> None:
        app = self.somebody(index)
        assert app.connection is not None
        held = self.places[room].get(app.peer_id)
        data: Message = {"room_id": room, "peer_id": app.peer_id, "rollback": app.rollback}
        before = app.instances.get(room)
        if since and room in app.views:
            data["since"] = {"epoch": app.views[room].epoch, "offset": app.views[room].offset}
        if named:
            if anew or before is None:
                self.serial += 1
                app.instances[room] = f"i{self.serial}"
            data["instance"] = app.instances[room]
        elif held is not None and (held.connection == app.connection or "since" in data):
            app.instances[room] = held.instance
        else:
            app.instances.pop(room, None)
        goes_on = held is not None and held.instance == app.instances.get(room)
        for each in self.apps:
            each.came.clear()
        self.taken_over.clear()
        code = None
        if held is not None:
            mine = held.app is app and (app.session is not None or held.connection == app.connection)
            if not mine and (app.user_id is None or held.app.user_id != app.user_id):
                code = "peer_id_taken"
        elif len(self.places[room]) >= MAX_PARTICIPANTS:
            code = "room_full"
        answer = self.say(app, {"type": "command", "command": "join_room", "data": data, "id": "join"})
        if code is not None:
            assert (answer.get("code"), self.taken_over) == (code, [])
            if before is not None:
                app.instances[room] = before
            return
        assert answer["type"] == "response", answer
        result = answer["data"]
        assert isinstance(result, dict)
        assert ("recovered" in result) is ("since" in data)
        elsewhere = held is not None and held.gone_at is None and held.connection != app.connection
        assert self.taken_over == ([held.connection] if held is not None and goes_on and elsewhere else [])
        if held is not None and not goes_on:
            self.go(room, app.peer_id)
        if goes_on and not result.get("recovered"):
            self.forget_offers(room, app.peer_id)
        assert goes_on or not result.get("recovered")
        self.places[room].pop(app.peer_id, None) if not goes_on else None
        self.places[room][app.peer_id] = Place(app, app.instances[room], app.connection)
        for other in self.apps:
            if other is not app and self.place_of(other, room) is not None:
                assert other.came == ([] if result.get("recovered") else [(app.peer_id, goes_on)])

    @rule(index=SOME_APP, room=SOME_ROOM)
    def leave(self, index: int, room: str) -> None:
        app = self.somebody(index)
        if self.place_of(app, room) is not None:
            self.go(room, app.peer_id)
        answer = self.say(app, {"type": "command", "command": "leave_room", "data": {"room_id": room}, "id": "leave"})
        assert answer["data"] == {"room_id": room}
        app.views.pop(room, None)

    @rule(index=SOME_APP, noticed=st.booleans())
    def lose_connection(self, index: int, noticed: bool) -> None:
        app = self.apps[index]
        connection, app.connection = app.connection, None
        if connection is not None and noticed:
            self.drop(connection)

    @rule()
    def notice(self) -> None:
        for connection, app in list(self.listeners.items()):
            if app.connection != connection:
                self.drop(connection)

    @rule(
        index=SOME_APP,
        room=SOME_ROOM,
        whom=st.sampled_from("aabbcd"),
        kind=st.sampled_from(["offer", "offer", "answer", "answer", "ice-candidate", "bye"]),
        negotiation=st.sampled_from(["n1", "n1", "n2", None]),
        outdated=st.sampled_from([False, False, False, True]),
    )
    def signal(self, index: int, room: str, whom: str, kind: str, negotiation: str | None, outdated: bool) -> None:
        app = self.somebody(index)
        assert app.connection is not None
        self.serial += 1
        message: Message = {
            "type": "webrtc_signal",
            "id": str(self.serial),
            "number": self.serial,
            "room_id": room,
            "signal_type": kind,
            "target_peer_id": whom,
            "negotiation": negotiation,
            **CONTENTS[kind],
        }
        if outdated:
            message["target_instance"] = "long ago"
        here, there = self.place_of(app, room), self.places[room].get(whom)
        offer = (room, whom, app.peer_id)
        code = None
        if here is None:
            code = "not_in_room"
        elif there is None or whom == app.peer_id:
            code = "unknown_peer"
        elif outdated or (kind == "answer" and not self.is_awaited(offer, negotiation)):
            code = "outdated_signal"
        if code is None:
            assert there is not None
            for each in self.apps:
                view = each.views.get(room)
                # Whoever was this peer may yet be it again. Of one who will not know it, the room says what is lost.
                if view is not None and (each.peer_id, view.instance) == (whom, there.instance):
                    view.owed.append(self.serial)
            match kind:
                case "offer":
                    self.offers[room, app.peer_id, whom] = negotiation
                case "answer":
                    del self.offers[offer]
                case "bye":
                    # What the other has offered may be for the connection that comes next.
                    self.offers.pop((room, app.peer_id, whom), None)
        answer = self.say(app, message)
        if code is None:
            assert answer["type"] == "response"
            app.last = (app.connection, message)
        else:
            assert answer.get("code") == code

    @rule(
        back=st.booleans(),
        offered=st.sampled_from(["n1", None]),
        then=st.sampled_from(["answer", "answer", "bye", "offer"]),
        negotiation=st.sampled_from(["n1", "n2", None]),
    )
    def negotiate(self, back: bool, offered: str | None, then: str, negotiation: str | None) -> None:
        caller, callee = (2, 0) if back else (0, 2)
        self.signal(caller, "r", self.apps[callee].peer_id, "offer", offered, outdated=False)
        self.signal(callee, "r", self.apps[caller].peer_id, then, negotiation, outdated=False)

    @rule(index=SOME_APP)
    def say_again(self, index: int) -> None:
        app = self.somebody(index)
        if app.last is not None and (app.last[0] == app.connection or app.session or app.user_id):
            assert self.say(app, app.last[1])["type"] == "response"

    @rule(seconds=st.sampled_from([0.5, 4.0, 9.5, 10.0, 30.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self.node.next_timeout()) is not None and at <= until:
            assert at > self.now
            self.now = at
            for room, places in self.places.items():
                for peer_id, place in list(places.items()):
                    if place.gone_at is not None and place.gone_at <= at:
                        self.go(room, peer_id)
            self.perform(self.node.handle_timeout(now=at, timestamp=STAMP))
        self.now = until

    # What is always so

    @invariant()
    def the_rooms_are_as_they_are(self) -> None:
        signaling = self.node.signaling
        assert signaling is not None
        listed = {room.room_id: room for room in signaling.rooms}
        for name, places in self.places.items():
            peers = listed[name].peers.values() if name in listed else ()
            assert [(each.peer_id, each.instance, each.connection_id) for each in peers] == [
                (peer_id, place.instance, place.connection if place.gone_at is None else None)
                for peer_id, place in places.items()
            ]
            assert len(places) <= MAX_PARTICIPANTS
        offered = {
            (name, each.peer_id, target): negotiation
            for name, room in listed.items()
            for each in room.peers.values()
            for target, negotiation in each.offered.items()
        }
        assert offered == self.offers
        assert signaling.rooms.peer_count == sum(map(len, self.places.values()))

    @invariant()
    def everybody_knows_who_is_there_and_has_heard_all(self) -> None:
        for name, places in self.places.items():
            present = {peer_id: place for peer_id, place in places.items() if self.place_of(place.app, name) is place}
            for peer_id, place in present.items():
                view = place.app.views[name]
                assert view.owed == []
                assert {who: known[0] for who, known in view.peers.items()} == {
                    other: each.instance for other, each in places.items() if other != peer_id
                }
                for other in present.keys() - {peer_id}:
                    polite = view.peers[other][1]
                    assert polite is not present[other].app.views[name].peers[peer_id][1]

    @invariant()
    def a_deadline_is_ahead(self) -> None:
        at = self.node.next_timeout()
        assert at is None or at > self.now


TestRooms = RoomsMachine.TestCase
TestRooms.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# Whatever is said


FIELDS = ["type", "command", "data", "signal_type", "target_peer_id", "room_id", "peer_id", "instance", "sdp", "id"]
WORDS = st.sampled_from(
    ["command", "webrtc_signal", "join_room", "leave_room", "create_room", "offer", "bye", "r", "a", "v=0", "c1"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=8,
)
FIELDS_OF_JOINS = [*FIELDS, "since", "metadata", "name"]
ASKED = st.fixed_dictionaries(
    {"type": st.just("command"), "command": st.sampled_from(["join_room", "create_room", "leave_room"])},
    optional={"data": st.dictionaries(st.sampled_from(FIELDS_OF_JOINS), VALUES)},
)
SIGNALS = st.fixed_dictionaries(
    {"signal_type": VALUES | WORDS},
    optional={name: VALUES | WORDS for name in FIELDS if name != "signal_type"},
)


@given(st.lists(st.tuples(st.sampled_from(["c1", "c2"]), ASKED | SIGNALS | VALUES), max_size=8))
def test_whatever_is_said_is_answered_at_most_once(said: list[tuple[str, object]]) -> None:
    node = Node(NodeConfig(signaling=SignalingConfig(max_rooms=2)), entropy="e")
    for name, user_id in (("c1", "ann"), ("c2", None)):
        node.connect(name, user_id=user_id, transport=Transport.WEBSOCKET, signals=True, now=0.0, timestamp=STAMP)
    for name, message in said:
        effects = node.receive_text(name, json.dumps(message), now=0.0, timestamp=STAMP)
        kinds = [json.loads(each.message.json)["type"] for each in effects if isinstance(each, Deliver)]
        assert len([kind for kind in kinds if kind in ("response", "error")]) <= 1
    assert int(str(node.stats()["webrtc_rooms"])) <= 2
