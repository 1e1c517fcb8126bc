"""Files from one client's machine to another's, through a real node."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest

from rtcore.binary import MAX_HEAD, BinaryMessage
from rtcore.client import (
    Answered,
    Ask,
    Client,
    ClientConfig,
    Command,
    Done,
    Effect,
    Failed,
    Join,
    MessageReceived,
    Open,
    Progressed,
    ProtocolFault,
    Publish,
    ReadPiece,
    Refused,
    Request,
    SendBytes,
    SendChunk,
    SendText,
    Upload,
    UploadEffect,
)
from rtcore.encoded import Encoded
from rtcore.node import Node, NodeConfig, NodeEffect
from rtcore.router import Deliver
from rtcore.session import Transport
from rtcore.uploads import AbandonFile, AppendToFile, FileConfig, FinishFile, KeptFile, OpenFile

INLINE = 64


class User:
    """A client, its connection, the file that it sends, and what has come of everything."""

    def __init__(self, node: World, name: str) -> None:
        self.world = node
        self.name = name
        self.connection_id: str | None = None
        self.client = Client(ClientConfig(), random=lambda: 0.0, session=f"secret of {name}")
        self.heard: list[dict[str, object]] = []
        self.outcomes: dict[str, Answered | Refused] = {}
        self.content = b""
        self.upload: Upload | None = None
        self.asked: dict[str, int] = {}
        self.ended: list[Done | Failed] = []
        self.progress: list[int] = []
        # How many chunks are still sent before the connection is lost.
        self.chunks_left = 10**9

    def request(self, command: Command) -> str:
        token, effects = self.client.request(command, now=0.0)
        self.perform(effects)
        return token

    def connect(self) -> None:
        self.perform(self.client.connect(now=0.0))

    def send(self, content: bytes, head: dict[str, object]) -> None:
        self.content = content
        self.upload = Upload("u", head, len(content))
        self.perform_upload(self.upload.connected(now=0.0))

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Open():
                    self.world.open(self)
                case SendText(text=message) | SendBytes(payload=message):
                    self.world.pending.append((self, self.connection_id, message))
                case MessageReceived(message=message):
                    self.hear(message)
                case Answered(id=token) | Refused(id=token):
                    self.outcomes[token] = effect
                    if self.upload is not None and token in self.asked:
                        self.tell_upload(self.upload, self.asked.pop(token), effect)
                case ProtocolFault():
                    pytest.fail(effect.reason)

    def hear(self, message: dict[str, object]) -> None:
        if message["type"] == "upload" and self.upload is not None:
            self.perform_upload(self.upload.received(message, now=0.0))
        else:
            self.heard.append(message)

    def tell_upload(self, upload: Upload, number: int, outcome: Answered | Refused) -> None:
        if isinstance(outcome, Answered):
            self.perform_upload(upload.answered(number, outcome.data, now=0.0))
        else:
            self.perform_upload(upload.refused(number, outcome.code, outcome.message, outcome.retry_after, now=0.0))

    def perform_upload(self, effects: Sequence[UploadEffect]) -> None:
        assert self.upload is not None
        for effect in effects:
            match effect:
                case Ask(number=number, command=command, data=data):
                    token, wanted = self.client.request(Request(command, data), now=0.0)
                    self.asked[token] = number
                    self.perform(wanted)
                case ReadPiece(offset=offset, size=size):
                    self.perform_upload(self.upload.read(self.content[offset : offset + size], now=0.0))
                case SendChunk(payload=payload):
                    self.chunks_left -= 1
                    if self.chunks_left >= 0:
                        self.world.pending.append((self, self.connection_id, payload))
                case Progressed(sent=sent):
                    self.progress.append(sent)
                case Done() | Failed():
                    self.ended.append(effect)


class World:
    """A node, somebody who keeps files in memory, and the users, whose messages arrive in order."""

    def __init__(self, **config: object) -> None:
        files = FileConfig(chunk_size=1000, window=4000, **config)  # type: ignore[arg-type]
        self.node = Node(NodeConfig(files=files), entropy="n")
        self.users: dict[str, User] = {}
        self.pending: list[tuple[User, str | None, str | bytes]] = []
        self.connections = 0
        self.files: dict[str, bytes] = {}

    def user(self, name: str) -> User:
        user = User(self, name)
        user.connect()
        self.run()
        user.request(Join("a"))
        self.run()
        return user

    def open(self, user: User) -> None:
        self.connections += 1
        user.connection_id = f"c{self.connections}"
        self.users[user.connection_id] = user
        user.perform(user.client.opened(now=0.0))
        self.act(
            self.node.connect(
                user.connection_id,
                user_id=user.name,
                transport=Transport.WEBSOCKET,
                session=user.client.session,
                now=0.0,
                timestamp=0,
            )
        )

    def lose(self, user: User) -> None:
        """The connection of `user` is lost, and after it another one stands."""
        connection_id, user.connection_id = user.connection_id, None
        assert connection_id is not None
        del self.users[connection_id]
        self.act(self.node.disconnect(connection_id, now=0.0, timestamp=0))
        user.perform(user.client.lost(1006, now=0.0))
        if user.upload is not None:
            user.perform_upload(user.upload.lost(now=0.0))
        user.chunks_left = 10**9
        user.connect()
        if user.upload is not None:
            user.perform_upload(user.upload.connected(now=0.0))

    def run(self) -> None:
        while self.pending:
            user, connection_id, message = self.pending.pop(0)
            if connection_id is None or connection_id != user.connection_id:
                continue
            receive = self.node.receive_text if isinstance(message, str) else self.node.receive_bytes
            self.act(receive(connection_id, message, now=0.0, timestamp=0))  # type: ignore[arg-type]

    def act(self, effects: Sequence[NodeEffect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(message, connections, skip):
                    for connection_id in connections:
                        if connection_id != skip and connection_id in self.users:
                            self.deliver(self.users[connection_id], message)
                case OpenFile() | AppendToFile() | FinishFile() | AbandonFile():
                    self.keep(effect)

    def deliver(self, user: User, message: Encoded) -> None:
        if message.data is None:
            user.perform(user.client.receive_text(message.text, now=0.0))
        else:
            user.perform(user.client.receive_bytes(message.payload, now=0.0))

    def keep(self, effect: OpenFile | AppendToFile | FinishFile | AbandonFile) -> None:
        assert self.node.files is not None
        match effect:
            case OpenFile(key=key):
                self.files[key] = b""
            case AppendToFile(key=key, data=data):
                self.files[key] += data
                self.act(self.node.files.appended(key, len(data), now=0.0, timestamp=0))
            case FinishFile(key=key, sha256=digest):
                content = self.files[key]
                assert sha256(content).hexdigest() == digest
                inline = content if len(content) <= INLINE else None
                file = KeptFile("f", "/realtime/binary/f", len(content), digest, inline)
                self.act(self.node.files.finished(key, file, now=0.0, timestamp=0))
            case AbandonFile(key=key):
                del self.files[key]


def files(user: User) -> list[dict[str, object]]:
    return [message for message in user.heard if message["type"] == "binary"]


def test_file_within_one_message_comes_to_all_and_is_acknowledged() -> None:
    world = World()
    ann, bob = world.user("ann"), world.user("bob")
    sent = BinaryMessage(b"\x89PNG", "image/png", "a.png")
    token = ann.request(Publish({**sent.to_head(channel="a"), "note": "hi"}, sent.data))
    world.run()
    assert isinstance(ann.outcomes[token], Answered)
    (heard,) = files(bob)
    assert BinaryMessage.from_message(heard) == sent
    assert heard["note"] == "hi"
    assert heard["id"] == token
    assert files(ann) == [heard]


def test_file_that_was_sent_and_not_acknowledged_is_published_once() -> None:
    world = World()
    ann, bob = world.user("ann"), world.user("bob")
    token, effects = ann.client.request(Publish({"type": "binary", "channel": "a"}, b"once"), now=0.0)
    (effect,) = effects
    assert isinstance(effect, SendBytes)
    assert ann.connection_id is not None
    # It arrives, and nobody is there any more to hear so.
    del world.users[ann.connection_id]
    world.act(world.node.receive_bytes(ann.connection_id, effect.payload, now=0.0, timestamp=0))
    world.users[ann.connection_id] = ann
    world.lose(ann)
    world.run()
    assert isinstance(ann.outcomes[token], Answered)
    assert [message["data"] for message in files(bob)] == [b"once"]
    assert [message["data"] for message in files(ann)] == [b"once"]


def test_head_of_the_most_bytes_may_be_heard() -> None:
    world = World()
    ann, bob = world.user("ann"), world.user("bob")
    note = "n" * (MAX_HEAD - 100)
    token = ann.request(Publish({"type": "binary", "channel": "a", "note": note}, b""))
    world.run()
    outcome = ann.outcomes[token]
    # Whether such a message is too much is for the server to say; who hears it does not take it for a fault.
    assert isinstance(outcome, Answered) == bool(files(bob))


@pytest.mark.parametrize("size", [0, 1, INLINE, 999, 1000, 1001, 25_000])
def test_file_in_chunks_comes_to_all(size: int) -> None:
    world = World()
    ann, bob = world.user("ann"), world.user("bob")
    content = bytes(index % 251 for index in range(size))
    ann.send(content, {"channel": "a", "filename": "a.bin", "message": {"note": "hi"}})
    world.run()
    (outcome,) = ann.ended
    assert isinstance(outcome, Done)
    assert outcome.file["url"] == "/realtime/binary/f"
    assert ann.progress[-1] == size
    assert list(world.files.values()) == [content]
    (heard,) = files(bob)
    assert heard["sha256"] == sha256(content).hexdigest()
    assert heard["note"] == "hi"
    assert heard.get("data") == (content if size <= INLINE else None)
    assert files(ann) == [heard]


@pytest.mark.parametrize("chunks", [0, 1, 2, 7, 10])
def test_file_goes_on_after_a_loss(chunks: int) -> None:
    world = World()
    ann, bob = world.user("ann"), world.user("bob")
    content = bytes(range(100)) * 100
    ann.chunks_left = chunks
    ann.send(content, {"channel": "a"})
    world.run()
    world.lose(ann)
    world.run()
    (outcome,) = ann.ended
    assert isinstance(outcome, Done)
    assert ann.progress == sorted(ann.progress)
    assert list(world.files.values()) == [content]
    assert len(files(bob)) == 1


def test_file_that_the_server_does_not_take_is_refused() -> None:
    world = World(max_file_size=100, allowed_types=("image/*",))
    ann, bob = world.user("ann"), world.user("bob")
    ann.send(bytes(101), {"channel": "a", "content_type": "image/png"})
    world.run()
    ann.send(bytes(100), {"channel": "a", "content_type": "text/plain"})
    world.run()
    assert [outcome.code for outcome in ann.ended if isinstance(outcome, Failed)] == [
        "file_too_large",
        "type_not_allowed",
    ]
    assert files(bob) == []
