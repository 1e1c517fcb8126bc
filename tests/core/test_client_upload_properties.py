"""A file on its way from the client's machine to the server's, whatever happens in between.

However connections are lost, servers restart and those who keep files fail: the file is published whole and once, or
its sender is told that it is not, or that it may not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import uploads as server
from rtcore.binary import parse_payload
from rtcore.client import (
    Ask,
    Cancelled,
    Done,
    Failed,
    Progressed,
    ReadPiece,
    SendChunk,
    Upload,
    UploadEffect,
    UploadState,
)
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import OPEN, Identity
from rtcore.router import Refused, Request
from rtcore.uploads.commands import parse_begin_upload, parse_cancel_upload, parse_chunk

# The chunks that one server after another takes, so that what is hashed ends in the middle of one.
CHUNKS = (4, 3, 5)
WINDOW = 10
ANN = Identity("ann", OPEN)
# Told where the sender cannot know: all had been sent, to somebody who has forgotten it since.
UNKNOWN = "connection_lost"


class World:
    """A client that sends one file, servers one after the other, and the connections between them.

    Messages of one direction of one connection stay in order. What a client has sent on a connection that it has lost
    may still arrive, before the server notices that the connection has ended or after a new one was made.
    """

    def __init__(self, content: bytes) -> None:
        self.now = 0.0
        self.content = content
        self.upload = Upload("u", {"channel": "a", "message": {"note": "n"}}, len(content), retry_wait=1.0)
        self.reading: ReadPiece | None = None
        self.outcomes: list[Done | Failed | Cancelled] = []
        self.progress: list[int] = []
        self.all_sent = False
        # The requests of which the client has not heard, by number.
        self.asked: dict[int, Ask] = {}
        # Connections, the last of which may be the client's: what goes to the server on each, and what comes back.
        self.connection: int | None = None
        self.connections = 0
        self.to_server: dict[int, list[Ask | bytes]] = {}
        self.to_client: list[tuple[int | None, object]] = []
        # The server, and whoever keeps its files.
        self.restarts = 0
        self.server = self.new_server()
        self.keeper: list[server.FileEffect] = []
        self.files: dict[str, bytearray] = {}
        self.published: list[bytes] = []

    def new_server(self) -> server.Uploads:
        chunk_size = CHUNKS[self.restarts % len(CHUNKS)]
        return server.Uploads(server.FileConfig(chunk_size=chunk_size, window=WINDOW, resume_timeout=600.0))

    # The client

    def perform(self, effects: Sequence[UploadEffect]) -> None:
        for effect in effects:
            assert not self.outcomes, "nothing follows the end"
            match effect:
                case Ask():
                    assert effect.number not in self.asked
                    if self.connection is not None:
                        self.asked[effect.number] = effect
                        self.to_server[self.connection].append(effect)
                case ReadPiece():
                    assert self.reading is None, "one at a time"
                    assert 0 < effect.size <= max(CHUNKS)
                    assert effect.offset + effect.size <= len(self.content)
                    self.reading = effect
                case SendChunk(payload=payload):
                    assert self.connection is not None, "it sends only while it is connected"
                    self.to_server[self.connection].append(payload)
                    self.all_sent |= b'"sha256"' in payload
                case Progressed(sent=sent, total=total):
                    assert total == len(self.content)
                    self.progress.append(sent)
                case Done() | Failed() | Cancelled():
                    self.outcomes.append(effect)

    def connect(self) -> None:
        if self.connection is None:
            self.connections += 1
            self.connection = self.connections
            self.to_server[self.connection] = []
            self.perform(self.upload.connected(now=self.now))

    def lose(self) -> None:
        """The client loses its connection, which the server does not know yet."""
        if self.connection is not None:
            self.connection = None
            self.to_client.clear()
            asked, self.asked = self.asked, {}
            for number in asked:
                self.perform(self.upload.refused(number, "connection_lost", "lost", now=self.now))
            self.perform(self.upload.lost(now=self.now))

    def lose_patience(self) -> None:
        """The client waits no longer for the answers to what it has asked."""
        asked, self.asked = self.asked, {}
        for number in asked:
            self.perform(self.upload.refused(number, "timeout", "late", now=self.now))

    def read(self) -> None:
        if (piece := self.reading) is not None:
            self.reading = None
            self.perform(self.upload.read(self.content[piece.offset : piece.offset + piece.size], now=self.now))

    def change(self) -> None:
        """Somebody writes something else to the file."""
        self.content = bytes(byte ^ 0xFF for byte in self.content)

    def cancel(self) -> None:
        self.perform(self.upload.cancel(now=self.now))

    def hear(self) -> None:
        if self.to_client:
            number, said = self.to_client.pop(0)
            if number is None:
                assert isinstance(said, dict)
                self.perform(self.upload.received(said, now=self.now))
            elif self.asked.pop(number, None) is not None:
                if isinstance(said, Refusal):
                    refused = self.upload.refused(number, said.code, said.message, said.retry_after, now=self.now)
                    self.perform(refused)
                else:
                    self.perform(self.upload.answered(number, said, now=self.now))

    # The server

    def arrive(self) -> None:
        """The oldest message on the oldest connection arrives."""
        for connection, messages in self.to_server.items():
            if messages:
                self.take(str(connection), messages.pop(0))
                return

    def arrive_late(self) -> None:
        """The oldest message on the newest connection arrives, before those of older ones."""
        if self.connection is not None and (messages := self.to_server[self.connection]):
            self.take(str(self.connection), messages.pop(0))

    def take(self, connection: str, message: Ask | bytes) -> None:
        if isinstance(message, bytes):
            parsed = parse_payload(message)
            assert not isinstance(parsed, Refusal)
            chunk = parse_chunk(*parsed)
            assert not isinstance(chunk, Refusal)
            self.act(self.server.receive(chunk, connection, now=self.now))
            return
        request = Request(connection, message.number)
        if message.command == "cancel_upload":
            cancel = parse_cancel_upload(dict(message.data), request)
            assert not isinstance(cancel, Refusal)
            self.act(self.server.cancel(cancel, connection, "ann"))
        else:
            begin = parse_begin_upload(dict(message.data), request)
            assert not isinstance(begin, Refusal)
            self.act(self.server.begin(begin, connection, ANN, now=self.now))

    def act(self, effects: Sequence[server.UploadEffect]) -> None:
        for effect in effects:
            match effect:
                case server.Begun():
                    self.answer(effect.request, effect.to_data())
                case server.Cancelled():
                    self.answer(effect.request, {"upload_id": effect.upload_id})
                case Refused():
                    self.answer(effect.request, effect.refusal)
                case server.Progressed() | server.Completed() | server.Failed():
                    self.tell(effect.connection_id, None, effect.to_message())
                case _:
                    self.keeper.append(effect)

    def answer(self, request: Request, said: Message | Refusal) -> None:
        assert isinstance(request.connection_id, str)
        assert isinstance(request.id, int)
        self.tell(request.connection_id, request.id, said)

    def tell(self, connection: str, number: int | None, said: Message | Refusal) -> None:
        if connection == str(self.connection):
            self.to_client.append((number, said))

    def notice(self) -> None:
        """The server notices that a connection has ended; what was under way on it is lost."""
        for connection in list(self.to_server):
            if connection != self.connection:
                del self.to_server[connection]
                self.server.disconnect(str(connection), now=self.now)
                return

    def restart(self) -> None:
        """The server ends, and another one begins that knows nothing."""
        self.lose()
        self.to_server.clear()
        self.keeper.clear()
        self.files.clear()
        self.restarts += 1
        self.server = self.new_server()

    def keep(self) -> None:
        """Whoever keeps files does what is next."""
        if not self.keeper:
            return
        match self.keeper.pop(0):
            case server.OpenFile(key=key, size=size):
                assert size == len(self.content)
                self.files[key] = bytearray()
            case server.AppendToFile(key=key, data=data) if key in self.files:
                self.files[key] += data
                self.act(self.server.appended(key, len(data), now=self.now))
            case server.FinishFile(key=key, sha256=digest) if key in self.files:
                self.finish(key, digest)
            case server.AbandonFile(key=key):
                self.files.pop(key, None)
            case _:
                pass

    def finish(self, key: str, digest: str) -> None:
        content = bytes(self.files[key])
        if sha256(content).hexdigest() != digest:
            self.break_down(key, "checksum_mismatch")
            return
        upload = self.server.finished(key)
        if upload is None:
            return
        self.published.append(content)
        file: Message = {"file_id": key, "url": f"/{key}", "size": len(content), "sha256": digest}
        self.act(self.server.complete(upload, file, now=self.now))

    def fail(self) -> None:
        """Whoever keeps files cannot do what is next."""
        if self.keeper:
            effect = self.keeper.pop(0)
            if not isinstance(effect, server.AbandonFile):
                self.break_down(effect.key, "store_unavailable")

    def break_down(self, key: str, code: str) -> None:
        self.files.pop(key, None)
        self.act(self.server.failed(key, Refusal(code, "no", 503)))

    def send_all(self) -> None:
        """Let all go well until the last of the file is sent."""
        for _ in range(100):
            if not self.outcomes and not self.all_sent:
                self.turn()

    def turn(self) -> None:
        for step in ORDINARY:
            step(self)

    # Time

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.upload.handle_timeout(now=self.now))
        self.act(self.server.handle_timeout(now=self.now))

    def stay_away(self) -> None:
        """The client loses its connection, and comes back when nobody waits for it any more."""
        self.lose()
        while self.to_server:
            self.notice()
        self.wait(700.0)

    def settle(self) -> None:
        """Let all go well from here on."""
        while len(self.to_server) > (self.connection is not None):
            self.notice()
        for _ in range(1000):
            if self.outcomes:
                return
            self.turn()
            if self.upload.state is UploadState.WAITING:
                self.wait(1.0)
        pytest.fail(f"it comes to no end: {self.upload.state}, {self.asked}, {self.to_server}, {self.keeper}")


Step = Callable[[World], None]
ORDINARY: list[Step] = [World.connect, World.arrive, World.keep, World.hear, World.read]
LOSSES: list[Step] = [
    World.lose,
    World.send_all,
    World.lose_patience,
    World.notice,
    World.arrive_late,
    lambda world: world.wait(0.6),
]
DISASTERS: list[Step] = [World.restart, World.restart, World.stay_away, World.fail]
INTERFERENCE: list[Step] = [World.change, World.cancel]


def scripts(*rare: list[Step]) -> st.SearchStrategy[list[Step]]:
    """Return what may happen: for some turns all goes well, but that somebody does nothing; then one thing more."""
    quiet = st.integers(0, 12).flatmap(
        lambda turns: st.sampled_from([None, *ORDINARY]).map(
            lambda idle: [step for turn in range(turns) if (step := ORDINARY[turn % len(ORDINARY)]) is not idle]
        )
    )
    event = st.one_of(*(st.sampled_from(each) for each in (ORDINARY, *rare)))
    part = st.tuples(quiet, event).map(lambda each: [*each[0], each[1]])
    return st.lists(part, min_size=10, max_size=30).map(lambda parts: [step for part in parts for step in part])


def run(content: bytes, script: Sequence[Step]) -> World:
    world = World(content)
    for step in script:
        step(world)
    world.settle()
    assert len(world.outcomes) == 1
    assert len(world.published) <= 1
    return world


CONTENTS = st.sampled_from([0, 1, 4, 8, 10, 23, 40]).map(lambda size: bytes(range(size)))


@given(CONTENTS, scripts(LOSSES))
def test_losses_of_connections_cost_nothing(content: bytes, script: list[Step]) -> None:
    world = run(content, script)
    outcome = world.outcomes[0]
    if isinstance(outcome, Failed):
        # Of a file that may be under way as a whole, the server may seem to be one that has just heard of it.
        assert outcome.code == UNKNOWN
        assert len(content) <= WINDOW
        return
    assert isinstance(outcome, Done)
    assert world.published == [content]
    # A server that goes on living never takes back what it has.
    assert world.progress == sorted(world.progress)
    assert world.progress[-1] == len(content)


@given(CONTENTS, scripts(LOSSES, DISASTERS))
def test_file_is_published_whole_and_once_or_its_sender_knows(content: bytes, script: list[Step]) -> None:
    world = run(content, script)
    outcome = world.outcomes[0]
    if isinstance(outcome, Done):
        assert world.published == [content]
        assert world.progress[-1] == len(content)
    else:
        assert isinstance(outcome, Failed)
        assert outcome.code in ("store_unavailable", UNKNOWN)
        assert world.published in ([], [content] if outcome.code == UNKNOWN else [])


@given(CONTENTS, scripts(LOSSES, DISASTERS, INTERFERENCE))
def test_file_that_changes_or_is_cancelled_is_published_as_a_whole_or_not_at_all(
    content: bytes, script: list[Step]
) -> None:
    world = run(content, script)
    outcome = world.outcomes[0]
    if isinstance(outcome, Done):
        assert sha256(world.published[0]).hexdigest() == outcome.file["sha256"]
    elif isinstance(outcome, Failed) and outcome.code != UNKNOWN:
        assert world.published == []


def test_file_is_not_published_twice_by_a_server_that_has_just_heard_of_it() -> None:
    world = World(bytes(range(4)))
    world.send_all()
    for step in (world.arrive, world.keep, world.keep, world.keep):
        step()
    assert world.published == [world.content]
    world.restart()
    for step in (world.connect, world.arrive, world.lose):
        step()
    world.settle()
    outcome = world.outcomes[0]
    assert isinstance(outcome, Failed)
    assert outcome.code == UNKNOWN
    assert world.published == [world.content]


def test_world_keeps_a_file_where_nothing_happens() -> None:
    content = bytes(range(23))
    world = run(content, [])
    assert isinstance(world.outcomes[0], Done)
    assert world.published == [content]
    assert world.progress == [0, 4, 8, 12, 16, 20, 23]
