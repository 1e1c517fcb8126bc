"""The pages negotiate by the same rules as the machines in Python, and with the browser's own connections."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest

from rtcore.errors import LocalProtocolError
from rtcore.messages import Message
from rtcore.signaling.mesh import Mesh
from rtcore.signaling.negotiation_config import Phase
from rtcore.signaling.peer_connection import (
    CandidateGathered,
    Effect,
    Event,
    IceState,
    IceStateChanged,
    LocalDescriptionSet,
    NegotiationNeeded,
    OperationFailed,
    RemoteDescriptionSet,
    RolledBack,
)

from .server import Server
from .tabs import Tabs

LOOP = "asyncio"

pytestmark = pytest.mark.xdist_group("browser")

_RUN = """async ([url, runs]) => {
  const { Mesh } = await import(url);
  return runs.map(([rollback, run]) => {
    const mesh = new Mesh("room", { entropy: "e", rollback });
    return run.map(([what, now, ...values]) => {
      try {
        if (what === "join") return [mesh.join(...values, now), mesh.nextTimeout()];
        if (what === "receive") return [mesh.receive(...values, now), mesh.nextTimeout()];
        if (what === "handle") return [mesh.handle(...values, now), mesh.nextTimeout()];
        if (what === "time") return [mesh.handleTimeout(now), mesh.nextTimeout()];
        return [mesh.close(), mesh.nextTimeout()];
      } catch (error) {
        return ["error", mesh.nextTimeout()];
      }
    });
  });
}"""


class Run:
    """What may come to a mesh in any order, possible or not, and what the one in Python makes of it."""

    def __init__(self, seed: int) -> None:
        self._lots = random.Random(seed)
        self.rollback = self._lots.random() < 0.7
        # In a calm run, connections live long enough to get into every state.
        self._calm = self._lots.random() < 0.6
        # In a lossy run hardly any signal arrives, so offers are made again and again.
        self._lossy = self._lots.random() < 0.3
        # For how long connections were left to themselves, in seconds.
        self.waits: list[float] = []
        self.steps: list[list[Any]] = []
        self.results: list[Any] = []
        self._mesh = Mesh("room", entropy="e", rollback=self.rollback)
        self._now = 0.0
        # Names that this side has given its offers.
        self._offers = ["e.1.1"]
        self._own = "own"
        self._take("join", self._answer())
        for _ in range(80):
            self._step()

    def _step(self) -> None:
        lots = self._lots
        self._now += lots.choice([0.0, 0.0, 0.5, 4.0])
        match lots.randrange(24):
            case number if self._lossy and 3 <= number < 13 and lots.random() < 0.9:
                self._wait()
            case number if self._calm and number < 5:
                peer_id = lots.choice("ab")
                if (known := self._mesh.get(peer_id)) is not None:
                    joined: Message = {"type": "peer_joined", "rejoined": True, "peer_id": peer_id}
                    self._take("receive", {**joined, "instance": known.instance, "polite": lots.random() < 0.7})
            case 0:
                self._take("join", self._answer())
            case 1 | 2:
                self._take("receive", self._room_message())
            case 3:
                self._wait()
            case 4 if lots.random() < 0.2:
                self._take("close")
                if lots.random() < 0.5:
                    own = self._own
                    # For the server nothing was missed, but here nothing is left.
                    self._take("join", {**self._answer(), "instance": own, "recovered": True})
            case number if number < 13:
                self._take("receive", self._signal())
            case _:
                peer_id = lots.choice("ab")
                self._take("handle", peer_id, self._event(peer_id))

    def _wait(self) -> None:
        """Let time pass until something is due, or almost."""
        due = self._mesh.next_timeout() or 0.0
        self._now = max(self._now, due - self._lots.choice([0.0, 0.0, 0.0, 0.5]))
        self._take("time")

    def _take(self, what: str, *values: Any) -> None:
        said = [_plain(value) if attrs.has(type(value)) else value for value in values]
        self.steps.append([what, self._now, *said])
        mesh, now = self._mesh, self._now
        try:
            match what:
                case "join":
                    effects = mesh.join(*values, now=now)
                case "receive":
                    effects = mesh.receive(*values, now=now)
                case "handle":
                    effects = mesh.handle(*values, now=now)
                case "time":
                    effects = mesh.handle_timeout(now=now)
                case _:
                    effects = mesh.close()
        except LocalProtocolError:
            self.results.append(["error", mesh.next_timeout()])
            return
        plain = [_plain(effect) for effect in effects]
        names = (effect.get("message", {}).get("negotiation") for effect in plain)
        self._offers += [name for name in names if name is not None]
        self.results.append([plain, mesh.next_timeout()])
        negotiations = (mesh.get(peer_id) for peer_id in mesh)
        times = (each.next_timeout() for each in negotiations if each is not None)
        self.waits += [time - now for time in times if time is not None]

    def _participant(self) -> Message:
        lots = self._lots
        return {
            "peer_id": lots.choice(["a", "b", "b", "me", 1]),
            "instance": lots.choice("iiiiij"),
            "polite": lots.random() < 0.5,
        }

    def _answer(self) -> Message:
        lots = self._lots
        self._own = "own" if lots.random() < 0.9 else "new"
        answer: Message = {"peer_id": "me", "instance": self._own}
        if lots.random() < 0.5:
            answer["recovered"] = lots.random() < 0.5
        if lots.random() < 0.9:
            answer["participants"] = [self._participant() for _ in range(lots.randrange(4))]
        return answer

    def _room_message(self) -> Message:
        lots = self._lots
        kind = lots.choice(["peer_joined", "peer_joined", "peer_left", "room_closed", "room_updated"])
        message: Message = {"type": kind, "rejoined": lots.random() < 0.5, **self._participant()}
        if kind == "peer_left" and lots.random() < 0.1:
            message.update(peer_id="me", instance=self._own)
        if lots.random() < 0.8:
            message["room_id"] = lots.choice(["room", "room", "room", "another", None])
        return message

    def _signal(self) -> Message:
        lots = self._lots
        peer_id = lots.choice("ab")
        negotiation = self._mesh.get(peer_id)
        build = 0 if negotiation is None else negotiation.build
        kinds = ["offer", "offer", "answer", "answer", "ice-candidate", "ice-candidate"]
        kinds += [] if self._calm else ["bye", "unknown"]
        message: Message = {"type": "webrtc_signal", "peer_id": peer_id, "signal_type": lots.choice(kinds)}
        if lots.random() < 0.9:
            others = [] if self._calm else [build - 1, build + 1, "1", None]
            message["build"] = lots.choice([build, build, build, build, *others])
        if lots.random() < 0.9:
            message["negotiation"] = lots.choice(["n", "m", "o", self._offers[-1], self._offers[-1], None, 7])
        if lots.random() < 0.95:
            message["sdp"] = lots.choice([_sdp("x"), _sdp("y"), "v=0", 7])
        if lots.random() < 0.9:
            fragment = lots.choice([{}, {"usernameFragment": "x"}, {"usernameFragment": "y"}])
            message["ice_candidate"] = lots.choice([None, {"candidate": "c", **fragment}, {"candidate": 1}, "c"])
        if lots.random() < 0.3:
            message["instance"] = lots.choice("iij")
        return message

    def _event(self, peer_id: str) -> Event:
        lots = self._lots
        negotiation = self._mesh.get(peer_id)
        build = 0 if negotiation is None else negotiation.build
        if lots.random() < 0.1:
            build -= 1
        phase = None if negotiation is None else negotiation.phase
        ends: dict[Phase | None, Event] = {
            Phase.OFFERING: LocalDescriptionSet(build, "offer", _sdp("z")),
            Phase.ANSWERING: LocalDescriptionSet(build, "answer", _sdp("z")),
            Phase.ACCEPTING: RemoteDescriptionSet(build),
            Phase.RECEIVING: RemoteDescriptionSet(build),
            Phase.ROLLING_BACK: RolledBack(build),
        }
        if phase in ends and lots.random() < 0.7:
            return ends[phase]
        states = [IceState.CONNECTED, IceState.CONNECTED, *IceState]
        return lots.choice(
            [
                NegotiationNeeded(build),
                NegotiationNeeded(build),
                CandidateGathered(build, {"candidate": "c"}),
                IceStateChanged(build, lots.choice(states)),
                *([] if self._calm else [OperationFailed(build), RemoteDescriptionSet(build)]),
            ]
        )


def _sdp(fragment: str) -> str:
    return f"v=0\r\na=ice-ufrag:{fragment}\r\n"


def _plain(value: Effect | Event) -> dict[str, Any]:
    """Return an effect or an event as it is in JavaScript."""
    fields = {"peerId" if name == "peer_id" else name: each for name, each in attrs.asdict(value).items()}
    return {"name": type(value).__name__, **fields}


def test_the_rules_are_those_of_the_machines_in_python(server: Server, tabs: Tabs) -> None:
    runs = [Run(seed) for seed in range(500)]
    page = tabs.open(f"{server.url}/test")
    there = page.evaluate(_RUN, [f"{server.url}/assets/mesh.js", [[run.rollback, run.steps] for run in runs]])
    for seed, (run, results) in enumerate(zip(runs, there, strict=True)):
        for number, (result, expected) in enumerate(zip(results, run.results, strict=True)):
            assert result == expected, f"seed {seed}, after {run.steps[: number + 1]}"
    names = {effect["name"] for run in runs for effects, _ in run.results if effects != "error" for effect in effects}
    for rollback in (True, False):
        # An offer that was never answered, and nothing else to wait for: the longest that there is.
        assert max(wait for run in runs if run.rollback is rollback for wait in run.waits) == 80.0
    assert names == {effect.__name__ for effect in Effect.__args__}


# Two meshes in one page, and between them what a server does; `pass` keeps signals back while it is false.
_ROOM = """async (url) => {
  const { PeerConnections } = await import(url);
  const room = (window.room = { peers: {}, heard: {}, faults: [], builds: 0, offers: 0, pass: true });
  Object.assign(room, { instances: {}, inside: {} });
  const otherOf = { a: "b", b: "a" };
  room.describe = (of, to) => ({ peer_id: of, instance: room.instances[of], polite: to < of });
  room.enter = (name) => {
    room.instances[name] = `${name}${Math.random()}`;
    room.heard[name] = [];
    const instance = room.instances[name];
    room.peers[name] = new PeerConnections("room", {
      send: (signal) => {
        if (signal.signal_type === "offer") room.offers += 1;
        const { target_instance: target } = signal;
        setTimeout(() => {
          const other = otherOf[name];
          if (!room.pass || target !== room.instances[other] || instance !== room.instances[name]) return;
          room.peers[other].receive({ ...signal, peer_id: name, instance });
        });
      },
      built: (peerId, connection) => {
        room.builds += 1;
        const channel = connection.createDataChannel("chat", { negotiated: true, id: 1 });
        channel.addEventListener("open", () => channel.send(`hello from ${name}`));
        channel.addEventListener("message", ({ data }) => room.heard[name].push(data));
        connection.chat = channel;
      },
      failed: (peerId, error) => room.faults.push(String(error)),
    });
  };
  room.join = (name, more) => {
    const other = otherOf[name];
    const participants = room.inside[other] ? [room.describe(other, name)] : [];
    const joined = { type: "peer_joined", ...room.describe(name, other), rejoined: more !== undefined };
    if (room.inside[other]) room.peers[other].receive(joined);
    room.inside[name] = true;
    room.peers[name].join({ peer_id: name, instance: room.instances[name], participants, ...more });
  };
  room.of = (name) => room.peers[name].connections.get(otherOf[name]);
  room.settled = () => ["a", "b"].every((name) => {
    const connection = room.of(name);
    const reached = ["connected", "completed"].includes(connection?.iceConnectionState);
    return reached && connection.signalingState === "stable";
  });
  room.enter("a");
  room.enter("b");
  room.join("a");
  room.join("b");
}"""
_SETTLED = "room.settled() && room.heard.a.length > 0 && room.heard.b.length > 0"


def test_browsers_connections_negotiate_perfectly(server: Server, tabs: Tabs) -> None:
    # A page without a policy, for Playwright waits by evaluating texts. It has no icon, but the browser asks for one.
    tabs.expect_complaint("status of 404")
    page = tabs.open(f"{server.url}/health")
    # Both have a data channel from the start, so their first offers cross.
    page.evaluate(_ROOM, f"{server.url}/assets/mesh.js")
    page.wait_for_function(_SETTLED)
    assert page.evaluate("room.heard") == {"a": ["hello from b"], "b": ["hello from a"]}
    # The polite one has taken its first offer back, and begun anew for that.
    assert page.evaluate("[room.builds, room.faults, room.offers]") == [3, [], 2]

    # Both add something at once.
    page.evaluate("for (const name of ['a', 'b']) room.of(name).addTransceiver('video')")
    page.wait_for_function(
        "room.settled() && ['a', 'b'].every((each) => room.of(each).getTransceivers().every(({ mid }) => mid))"
    )

    # Signals are lost, and what was lost is made good; meanwhile the channel goes on.
    page.evaluate("room.pass = false; for (const name of ['a', 'b']) room.of(name).addTransceiver('audio')")
    page.wait_for_function("['a', 'b'].every((each) => room.of(each).signalingState === 'have-local-offer')")
    page.evaluate("room.of('a').chat.send('still here')")
    page.wait_for_function("room.heard.b.includes('still here')")
    page.evaluate("room.pass = true; room.join('a', { recovered: false })")
    page.wait_for_function(
        "room.settled() && ['a', 'b'].every((each) => room.of(each).getTransceivers().every(({ mid }) => mid))"
    )

    # ICE is restarted by both.
    fragment = "room.of('a').localDescription.sdp.match(/ice-ufrag:(\\S+)/)[1]"
    before = page.evaluate(fragment)
    page.evaluate("for (const name of ['a', 'b']) room.of(name).restartIce()")
    page.wait_for_function(f"room.settled() && {fragment} !== {before!r}")
    assert page.evaluate("[room.builds, room.faults]") == [3, []]

    # One is loaded anew.
    page.evaluate("room.peers.b.close(); room.enter('b'); room.join('b')")
    page.wait_for_function(_SETTLED)
    assert page.evaluate("[room.builds, room.faults]") == [6, []]
