"""The load of signaling: rooms of two peers who negotiate, all in one process that does next to nothing for a signal.

A negotiation is 40 signals: an offer and an answer of 2,500 bytes of SDP, and 19 candidates of 150 bytes each way. They
are made and masked beforehand, and counted by a word that each holds once where they arrive; see `benchmarks.load`.
"""

from __future__ import annotations

import json
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import attrs

from .load import MARKER, Opening, connect_each, masked_frame

__all__ = ["DIALECTS", "SIGNALS", "Dialect", "Negotiators"]

#: Signals of one negotiation.
SIGNALS = 40

_CANDIDATES = SIGNALS // 2 - 1
_SDP_SIZE = 2500
_CANDIDATE_SIZE = 150

_TIMEOUT = 20.0
_QUIET = 0.3
_BUFFER_SIZE = 262_144
_BRACE = ord("}")
_TAIL_SIZE = len(MARKER) - 1
# Of the frames of signals that are acknowledged: after a header of eight bytes and `{"id":"`.
_ID = slice(15, 23)
_ZEROS = int.from_bytes(b"00000000", "big")

Json: TypeAlias = dict[str, object]


@attrs.frozen
class Dialect:
    """How to talk to a server.

    Attributes:
        target: That of the WebSocket of a peer, by its room and its side, 0 or 1; whose sockets are open is in.
        signal: What a peer, by its room and side, sends to the other one: ``"offer"``, ``"answer"`` or ``"candidate"``,
            and the session description or the candidate.
        content: The session description or candidate in what the other one hears.
        acknowledged: Whether each signal has an id of its own, under which it is answered.
    """

    target: Callable[[int, int], str]
    signal: Callable[[int, int, str, object], Json]
    content: Callable[[Json], object]
    acknowledged: bool = False


def _name(room: int, side: int) -> str:
    return f"peer-{room:06}-{side}-0123456789abcdef"


def _instance(room: int, side: int) -> str:
    return f"{room:014x}{side:02x}"


def _rtcore_target(room: int, side: int) -> str:
    names = f"room_id=room-{room:06}&peer_id={_name(room, side)}&instance={_instance(room, side)}"
    return f"/realtime/webrtc/signaling?{names}"


def _rtcore_signal(room: int, side: int, kind: str, content: object) -> Json:
    # What `rtcore.signaling.Negotiation` and its twin in JavaScript send.
    return {
        "type": "webrtc_signal",
        "signal_type": "ice-candidate" if kind == "candidate" else kind,
        "room_id": f"room-{room:06}",
        "target_peer_id": _name(room, 1 - side),
        "target_instance": _instance(room, 1 - side),
        "build": 0,
        "ice_candidate" if kind == "candidate" else "sdp": content,
        "negotiation": f"{room:016x}.1",
    }


def _rtcore_content(heard: Json) -> object:
    return heard.get("sdp") or heard.get("ice_candidate")


def _acknowledged_signal(room: int, side: int, kind: str, content: object) -> Json:
    return {"id": "00000000", **_rtcore_signal(room, side, kind, content)}


def _peerjs_target(room: int, side: int) -> str:
    return f"/peerjs?key=peerjs&id={_name(room, side)}&token={_instance(room, side)}"


def _peerjs_signal(room: int, side: int, kind: str, content: object) -> Json:
    # What `Negotiator` in the client, `peerjs` on npm, sends for a media connection.
    payload: Json = {"type": "media", "connectionId": f"mc_{room:011}"}
    if kind == "candidate":
        payload["candidate"] = content
    else:
        payload["sdp"] = {"type": kind, "sdp": content}
    return {"type": kind.upper(), "dst": _name(room, 1 - side), "payload": payload}


def _peerjs_content(heard: Json) -> object:
    payload = heard["payload"]
    assert isinstance(payload, dict), "PeerJS passes it on as it came"
    described = payload.get("sdp")
    return described["sdp"] if isinstance(described, dict) else payload["candidate"]


DIALECTS = {
    "rtcore": Dialect(_rtcore_target, _rtcore_signal, _rtcore_content),
    "acknowledged": Dialect(_rtcore_target, _acknowledged_signal, _rtcore_content, acknowledged=True),
    "peerjs": Dialect(_peerjs_target, _peerjs_signal, _peerjs_content),
}


def _description() -> str:
    lines = [
        "v=0",
        "o=- 4611731400430051336 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        f"a=msid-semantic: WMS {MARKER.decode()}",
    ]
    sdp = "\r\n".join(lines) + "\r\n"
    filler = "a=rtcp-fb:96 transport-cc\r\n"
    sdp += filler * ((_SDP_SIZE - len(sdp)) // len(filler) - 1)
    return sdp + "a=x:" + "." * (_SDP_SIZE - len(sdp) - 6) + "\r\n"


def _candidate(number: int) -> Json:
    line = f"candidate:{number:010} 1 udp 2122260223 192.168.1.17 54321 typ host generation 0 ufrag {MARKER.decode()}"
    short = json.dumps({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}, separators=(",", ":"))
    return {"candidate": line + "." * (_CANDIDATE_SIZE - len(short)), "sdpMid": "0", "sdpMLineIndex": 0}


_SDP = _description()
_ALL_CANDIDATES = [_candidate(number) for number in range(_CANDIDATES)]


class _End:
    """The connection of one peer: what it says, and what it waits for."""

    __slots__ = ("frames", "receive", "send", "tail", "waiting")

    def __init__(self, sock: socket.socket, frames: list[bytes]) -> None:
        self.frames = frames
        self.send = sock.send
        self.receive = sock.recv_into
        #: When each signal was sent, or due, that it has not heard yet.
        self.waiting: deque[float] = deque()
        # The last bytes if the last read ended in the middle of a message.
        self.tail = b""

    def count(self, buffer: bytearray, read: int) -> int:
        """Return how many signals have come with what was read; see `benchmarks.load.Listeners.read`."""
        count = buffer.count(MARKER, 0, read)
        if buffer[read - 1] != _BRACE or self.tail:
            cut = self.tail + buffer[: min(read, _TAIL_SIZE)]
            count += cut.count(MARKER)
            self.tail = b""
            if buffer[read - 1] != _BRACE:
                self.tail = bytes((cut if read < _TAIL_SIZE else buffer[read - _TAIL_SIZE : read])[-_TAIL_SIZE:])
        return count


class Negotiators:
    """Rooms of two peers, all connected.

    Attributes:
        signals: How many signals have arrived.
        bytes: How many bytes have.
        idle: Seconds for which there was nothing to read or to send.
        latencies: Seconds from when each was sent, or due, until it was read.
    """

    def __init__(self, sockets: list[socket.socket], dialect: Dialect) -> None:
        self.signals = 0
        self.bytes = 0
        self.idle = 0.0
        self.latencies = array("d")
        self._heard_at = time.monotonic()
        self._acknowledged = dialect.acknowledged
        self._serial = 0
        self._dialect = dialect
        self._sockets = sockets
        self._buffer = bytearray(_BUFFER_SIZE)
        self._epoll = select.epoll()
        self._ends: list[_End] = []
        # The number of each peer by its file descriptor: twice that of its room, and its side.
        self._numbers: dict[int, int] = {}
        for number, sock in enumerate(sockets):
            sock.setblocking(False)
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            self._numbers[sock.fileno()] = number
            self._ends.append(_End(sock, [self._frame(number, index) for index in range(_CANDIDATES + 1)]))

    @classmethod
    @contextmanager
    def connected(cls, port: int, dialect: Dialect, rooms: int) -> Iterator[Negotiators]:
        """Connect the peers of so many rooms, and have each room negotiate once; they are closed with the context.

        Raises:
            RuntimeError: If what a peer hears is not what the other one said.
        """
        openings = [Opening(dialect.target(room, side)) for room in range(rooms) for side in (0, 1)]
        with ExitStack() as stack:
            self = cls([stack.enter_context(sock) for sock in connect_each(port, openings)], dialect)
            stack.callback(self._epoll.close)
            self._settle()
            yield self

    @property
    def rooms(self) -> int:
        """How many rooms there are."""
        return len(self._ends) // 2

    def at_once(self) -> None:
        """Let every room negotiate once, with two writes.

        The offer and all candidates of the one peer go out together; the other one does likewise when it has the offer.
        """
        ends, due = self._ends, self.signals + self.rooms * SIGNALS
        for number in range(0, len(ends), 2):
            self._say_all(number)
        answered = [False] * self.rooms
        while self.signals < due:
            for number in self._hear():
                if number % 2 and not answered[number // 2]:
                    answered[number // 2] = True
                    self._say_all(number)

    def in_turn(self) -> None:
        """Let every room negotiate once, each signal when the one before it has arrived."""
        ends, due = self._ends, self.signals + self.rooms * SIGNALS
        steps = [0] * self.rooms
        for number in range(0, len(ends), 2):
            self._say(number, 0, time.monotonic())
        while self.signals < due:
            for number in self._hear():
                step = steps[number // 2] = steps[number // 2] + 1
                if step < SIGNALS:
                    self._say((number & ~1) | step % 2, step // 2, time.monotonic())

    def at_rate(self, rate: float, seconds: float) -> None:
        """Send so many signals a second, whether or not those before have arrived; the rooms take turns.

        Each room is at another place of its negotiation. A signal that is sent late counts from when it was due.
        """
        rooms, ends = self.rooms, self._ends
        due = self.signals + int(rate * seconds)
        total, sent, start = int(rate * seconds), 0, time.monotonic()
        while self.signals < due:
            at = start + sent / rate
            while sent < total and time.monotonic() >= at:
                room = sent % rooms
                # Nobody begins with the answer, the second signal, before there was an offer.
                step = (sent // rooms + 2 + room % (SIGNALS - 1)) % SIGNALS
                if step == 1 and ends[2 * room + 1].waiting:
                    # It answers when it has the offer, which is late.
                    break
                self._say(2 * room + step % 2, step // 2, at)
                sent += 1
                at = start + sent / rate
            self._hear(16)

    def quiet(self) -> None:
        """Read until nothing has come for 0.3 s: what is said beside signals, acknowledgements say, has arrived."""
        self._heard_at = time.monotonic()
        while time.monotonic() - self._heard_at < _QUIET:
            self._hear()

    # Inside

    def _frame(self, number: int, index: int) -> bytes:
        room, side = divmod(number, 2)
        content: object = _SDP if index == 0 else _ALL_CANDIDATES[index - 1]
        kind = ("offer", "answer")[side] if index == 0 else "candidate"
        signal = self._dialect.signal(room, side, kind, content)
        return masked_frame(json.dumps(signal, separators=(",", ":")).encode())

    def _identified(self, frame: bytes) -> bytes:
        """Return a frame with the next id in place of zeros: what is masked stays so where its digits are changed."""
        if not self._acknowledged:
            return frame
        self._serial += 1
        changes = int.from_bytes(b"%08d" % self._serial, "big") ^ _ZEROS
        number = int.from_bytes(frame[_ID], "big") ^ changes
        return frame[: _ID.start] + number.to_bytes(8, "big") + frame[_ID.stop :]

    def _say(self, number: int, index: int, at: float) -> None:
        frame = self._identified(self._ends[number].frames[index])
        self._ends[number ^ 1].waiting.append(at)
        self._write(number, frame)

    def _say_all(self, number: int) -> None:
        frames = b"".join(map(self._identified, self._ends[number].frames))
        self._ends[number ^ 1].waiting.extend([time.monotonic()] * (_CANDIDATES + 1))
        self._write(number, frames)

    def _write(self, number: int, data: bytes) -> None:
        if self._ends[number].send(data) != len(data):
            raise RuntimeError("the server does not read what it is sent")

    def _hear(self, most: int = 1024) -> list[int]:
        """Read once from each that can be read, at most `most` of them, without waiting.

        Returns:
            The numbers of those that have heard a signal.

        Raises:
            RuntimeError: If one hears more than was said, or is closed; or if nothing has come for long.
        """
        buffer, ends, numbers, latencies = self._buffer, self._ends, self._numbers, self.latencies
        heard: list[int] = []
        start = time.monotonic()
        ready = self._epoll.poll(0, most)
        for file, _ in ready:
            number = numbers[file]
            end = ends[number]
            read = end.receive(buffer)
            if not read:
                raise RuntimeError("the server ended a connection")
            self.bytes += read
            if count := end.count(buffer, read):
                now = time.monotonic()
                self.signals += count
                heard.append(number)
                waiting = end.waiting
                if len(waiting) < count:
                    raise RuntimeError("a peer heard more than was said to it")
                for _ in range(count):
                    latencies.append(now - waiting.popleft())
        if ready:
            self._heard_at = start
        else:
            now = time.monotonic()
            self.idle += now - start
            if now - self._heard_at > _TIMEOUT:
                raise RuntimeError("signals did not arrive")
        return heard

    def _settle(self) -> None:
        """Read what peers are told when they come, then let one room negotiate, and compare; then all."""
        self.quiet()
        for index in range(_CANDIDATES + 1):
            for side in (0, 1):
                self._write(side, self._identified(self._ends[side].frames[index]))
                said = _SDP if index == 0 else _ALL_CANDIDATES[index - 1]
                if (heard := self._dialect.content(self._message(self._sockets[1 - side]))) != said:
                    raise RuntimeError(f"{said!r} arrived as {heard!r}")
        self.quiet()
        self.in_turn()

    def _message(self, sock: socket.socket) -> Json:
        """Wait for one that holds a signal, alone or after others, on one connection."""
        data = b""
        sock.settimeout(_TIMEOUT)
        while MARKER not in data or not data.endswith(b"}"):
            data += sock.recv(_BUFFER_SIZE)
        sock.setblocking(False)
        while True:
            size, start = data[1], 2
            if size == 126:
                size, start = int.from_bytes(data[2:4], "big"), 4
            if MARKER in data[start : start + size]:
                message: Json = json.loads(data[start : start + size])
                return message
            data = data[start + size :]
