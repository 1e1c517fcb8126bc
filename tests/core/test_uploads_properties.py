"""Files that come in chunks, in any order of events: what is kept is what was sent, and each of them ends once."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtcore.errors import Refusal
from rtcore.permissions import Identity
from rtcore.router import Refused, Request
from rtcore.uploads import (
    AbandonFile,
    AppendToFile,
    BeginUpload,
    Begun,
    Cancelled,
    CancelUpload,
    Chunk,
    Completed,
    Failed,
    FileConfig,
    FinishFile,
    OpenFile,
    Progressed,
    UploadEffect,
    Uploads,
)

from .upload_talk import ANN, BOB, CHUNK, CONFIG, NOBODY, WINDOW, digest

IDS = ["u1", "u2", "u3"]
IDENTITIES = [ANN, ANN, ANN, ANN, BOB, NOBODY]
SIZES = [0, 1, CHUNK, WINDOW, WINDOW + 3, 3 * WINDOW]
# What ends most of what has begun must not come up as often as what goes on with it.
SELDOM = st.sampled_from([False, False, True])
FULL = Refusal("store_full", "no room", status=507)
DENIED = Refusal("publish_denied", "no", status=403)


class Status(Enum):
    """What has become of a file, as whoever keeps files sees it."""

    OPEN = auto()
    FINISHING = auto()
    PUBLISHED = auto()
    ABANDONED = auto()
    FAILED = auto()


@attrs.define
class File:
    """A file of a keeper, and who sends it.

    Attributes:
        upload_id: By which its sender knows it.
        size: That it is to have.
        owner: The connection that has asked for it last, and is there.
        sent: What was accepted of it.
        stored: How much of that is stored.
        digest: Of what it is to be, once it is whole.
        told: The connections that were told how it has ended.
    """

    upload_id: str
    size: int
    owner: str | None
    sent: bytes = b""
    stored: int = 0
    digest: str | None = None
    status: Status = Status.OPEN
    told: list[str] = attrs.field(factory=list)


def content(upload_id: str, size: int) -> bytes:
    return bytes((int(upload_id[1:]) * 50 + place) % 251 for place in range(size))


class UploadsMachine(RuleBasedStateMachine):
    @initialize(
        max_uploads=st.integers(1, 4), per_connection=st.integers(1, 3), resume_timeout=st.sampled_from([0.0, 60.0])
    )
    def start(self, max_uploads: int, per_connection: int, resume_timeout: float) -> None:
        self.config: FileConfig = attrs.evolve(
            CONFIG,
            max_uploads=max_uploads,
            max_uploads_per_connection=per_connection,
            resume_timeout=resume_timeout,
        )
        self.uploads = Uploads(self.config)
        self.now = 100.0
        self.connections: dict[str, Identity] = {}
        self.count = 0
        self.requests: dict[Request, str] = {}
        self.files: dict[str, File] = {}
        self.opening = ""
        self.connect(ANN)

    # What is expected of the machine

    @property
    def current(self) -> dict[str, str]:
        """The keys of the files that are on their way, by the ids of their uploads."""
        return {
            file.upload_id: key
            for key, file in self.files.items()
            if file.status is Status.OPEN or file.status is Status.FINISHING
        }

    def perform(self, effects: Sequence[UploadEffect], caller: str | None = None) -> None:
        for effect in effects:
            match effect:
                case OpenFile(key=key, size=size):
                    assert key not in self.files
                    assert caller is not None
                    self.files[key] = File(self.opening, size, caller)
                case AppendToFile(key=key, data=data):
                    file = self.files[key]
                    assert file.status is Status.OPEN
                    assert 0 < len(data) <= CHUNK
                    file.sent += data
                    assert content(file.upload_id, file.size).startswith(file.sent)
                case FinishFile(key=key, sha256=sha256):
                    file = self.files[key]
                    assert (file.status, len(file.sent)) == (Status.OPEN, file.size)
                    file.status, file.digest = Status.FINISHING, sha256
                case AbandonFile(key=key):
                    file = self.files[key]
                    assert file.status in (Status.OPEN, Status.FINISHING)
                    file.status = Status.ABANDONED
                case Begun(request=request, upload_id=upload_id, offset=offset, file=told):
                    assert self.requests.pop(request) == upload_id
                    assert request.connection_id in self.connections
                    key = self.current.get(upload_id)
                    if told is None:
                        assert key is not None
                        file = self.files[key]
                        assert (offset, file.owner) == (len(file.sent), request.connection_id)
                        # Or whoever goes on could not have a whole window under way.
                        assert file.stored == offset or file.status is Status.FINISHING
                    else:
                        assert key is None
                        assert self.files[str(told["file_id"])].status is Status.PUBLISHED
                case Progressed(connection_id=connection_id, upload_id=upload_id, offset=offset):
                    file = self.files[self.current[upload_id]]
                    assert (file.owner, file.stored) == (connection_id, offset)
                case Completed(connection_id=connection_id, file=told):
                    file = self.files[str(told["file_id"])]
                    assert (file.owner, file.status) == (connection_id, Status.PUBLISHED)
                    self.tell(file, connection_id)
                case Failed(connection_id=connection_id, upload_id=upload_id, refusal=refusal):
                    assert connection_id in self.connections
                    if refusal.code == "unknown_upload":
                        assert caller == connection_id
                        key = self.current.get(upload_id)
                        assert key is None or self.files[key].owner != connection_id
                    else:
                        self.tell_end(upload_id, connection_id)
                case Refused(request=request):
                    upload_id = self.requests.pop(request)
                    assert request.connection_id in self.connections
                    if effect.refusal.code not in (
                        "upload_mismatch",
                        "upload_complete",
                        "upload_superseded",
                        "too_many_uploads",
                    ):
                        self.tell_end(upload_id, request.connection_id)
                case Cancelled():
                    assert effect.request.connection_id == caller

    def tell(self, file: File, connection_id: str) -> None:
        assert connection_id not in file.told
        file.told.append(connection_id)

    def tell_end(self, upload_id: str, connection_id: str) -> None:
        """Note that a connection is told that a file has ended: the last one that it had of that id."""
        ended = [
            file
            for file in self.files.values()
            if (file.upload_id, file.owner) == (upload_id, connection_id)
            and file.status in (Status.ABANDONED, Status.FAILED)
        ]
        self.tell(ended[-1], connection_id)

    def pick(self, data: st.DataObject, *statuses: Status) -> str:
        return data.draw(st.sampled_from([key for key, file in self.files.items() if file.status in statuses]))

    def has(self, *statuses: Status) -> bool:
        return any(file.status in statuses for file in self.files.values())

    # What happens

    @precondition(lambda self: len(self.connections) < 3)
    @rule(identity=st.sampled_from(IDENTITIES))
    def connect(self, identity: Identity) -> None:
        self.count += 1
        self.connections[f"c{self.count}"] = identity

    @precondition(lambda self: self.connections)
    @rule(data=st.data(), really=SELDOM)
    def disconnect(self, data: st.DataObject, really: bool) -> None:
        if not really:
            return
        connection_id = data.draw(st.sampled_from(list(self.connections)))
        del self.connections[connection_id]
        self.uploads.disconnect(connection_id, now=self.now)
        for file in self.files.values():
            if file.owner == connection_id and file.status in (Status.OPEN, Status.FINISHING):
                file.owner = None
        self.requests = {each: what for each, what in self.requests.items() if each.connection_id != connection_id}

    @precondition(lambda self: self.connections)
    @rule(data=st.data(), upload_id=st.sampled_from(IDS), size=st.sampled_from(SIZES))
    def begin(self, data: st.DataObject, upload_id: str, size: int) -> None:
        self.begin_on(data.draw(st.sampled_from(list(self.connections))), upload_id, size)

    @precondition(lambda self: self.connections and self.has(*list(Status)))
    @rule(data=st.data())
    def begin_again(self, data: st.DataObject) -> None:
        file = self.files[self.pick(data, *(list(Status) if data.draw(st.booleans()) else self.now_there))]
        self.begin_on(data.draw(st.sampled_from(list(self.connections))), file.upload_id, file.size)

    @property
    def now_there(self) -> list[Status]:
        return [Status.OPEN, Status.FINISHING] if self.current else list(Status)

    def begin_on(self, connection_id: str, upload_id: str, size: int) -> None:
        self.count += 1
        request = Request(connection_id, self.count)
        self.requests[request] = upload_id
        self.opening = upload_id
        command = BeginUpload(upload_id, "chat", request, size, "a/b", None, {"type": "binary"})
        effects = self.uploads.begin(command, connection_id, self.connections[connection_id], now=self.now)
        refused = any(isinstance(each, Refused) and each.request == request for each in effects)
        key = self.current.get(upload_id)
        if key is not None and not refused:
            # It was there already, and is this one's from now on.
            self.files[key].owner = connection_id
        self.perform(effects, connection_id)

    def send(self, connection_id: str, upload_id: str, offset: int, part: bytes, sha256: str | None) -> None:
        chunk = Chunk(upload_id, offset, part, sha256)
        self.perform(self.uploads.receive(chunk, connection_id, now=self.now), connection_id)

    @precondition(lambda self: self.sendable())
    @rule(data=st.data(), sizes=st.lists(st.integers(0, CHUNK), min_size=1, max_size=5), last=st.integers(0, 2))
    def send_more(self, data: st.DataObject, sizes: list[int], last: int) -> None:
        """Send the next chunks as they should be, as far as the window allows, and perhaps the last."""
        file = self.files[data.draw(st.sampled_from(self.sendable()))]
        for size in sizes:
            if file.status is Status.OPEN:
                self.send_next(file, size, last=bool(last))

    def send_next(self, file: File, size: int, *, last: bool) -> None:
        assert file.owner is not None
        offset, whole = len(file.sent), content(file.upload_id, file.size)
        end = min(offset + size, file.size, file.stored + WINDOW)
        ends = last and end == file.size
        self.send(file.owner, file.upload_id, offset, whole[offset:end], digest(whole) if ends else None)
        assert (file.status, len(file.sent)) == (Status.FINISHING if ends else Status.OPEN, end)

    @precondition(lambda self: self.sendable())
    @rule(data=st.data(), stored=st.booleans())
    def send_rest(self, data: st.DataObject, stored: bool) -> None:
        """Send all that is missing while it is stored."""
        key = data.draw(st.sampled_from(self.sendable()))
        file = self.files[key]
        while file.status is Status.OPEN:
            self.store_some(key, WINDOW)
            self.send_next(file, CHUNK, last=True)
        if stored:
            self.store_some(key, WINDOW)

    def sendable(self) -> list[str]:
        return [key for key in self.current.values() if self.files[key].owner and self.files[key].status is Status.OPEN]

    @precondition(lambda self: self.sendable())
    @rule(
        data=st.data(),
        shift=st.sampled_from([0, -2, -1, 1]),
        size=st.sampled_from([0, 1, CHUNK, CHUNK + 1]),
        last=st.booleans(),
    )
    def send_anything(self, data: st.DataObject, shift: int, size: int, last: bool) -> None:
        """Send a chunk that is perhaps not as it should be."""
        file = self.files[data.draw(st.sampled_from(self.sendable()))]
        whole = content(file.upload_id, file.size)
        offset = max(0, len(file.sent) + shift)
        part = (whole + b"more.")[offset : offset + size]
        assert file.owner is not None
        self.send(file.owner, file.upload_id, offset, part, digest(whole) if last else None)

    @precondition(lambda self: self.sendable())
    @rule(data=st.data(), really=SELDOM)
    def send_too_much(self, data: st.DataObject, really: bool) -> None:
        """Send all that is missing, and wait for nothing."""
        file = self.files[data.draw(st.sampled_from(self.sendable()))]
        whole, too_much = content(file.upload_id, file.size), file.size - file.stored > WINDOW
        while really and file.status is Status.OPEN and file.owner is not None and len(file.sent) < file.size:
            offset = len(file.sent)
            self.send(file.owner, file.upload_id, offset, whole[offset : offset + CHUNK], None)
            if file.status is Status.ABANDONED:
                assert too_much
                return
        assert not (really and too_much)

    @precondition(lambda self: self.connections)
    @rule(data=st.data(), upload_id=st.sampled_from(IDS), last=st.booleans())
    def send_elsewhere(self, data: st.DataObject, upload_id: str, last: bool) -> None:
        """Send a chunk on any connection, be it late."""
        connection_id = data.draw(st.sampled_from(list(self.connections)))
        key = self.current.get(upload_id)
        file = File(upload_id, 0, None) if key is None else self.files[key]
        if file.status is Status.FINISHING or file.owner != connection_id:
            whole = content(upload_id, file.size)
            self.send(connection_id, upload_id, len(file.sent), b"", digest(whole) if last else None)
            assert file.status is not Status.ABANDONED

    @precondition(lambda self: self.connections)
    @rule(data=st.data(), upload_id=st.sampled_from(IDS), really=SELDOM)
    def cancel(self, data: st.DataObject, upload_id: str, really: bool) -> None:
        if not really:
            return
        connection_id = data.draw(st.sampled_from(list(self.connections)))
        self.count += 1
        request = Request(connection_id, self.count)
        self.requests[request] = upload_id
        before = self.current.get(upload_id)
        identity = self.connections[connection_id]
        effects = self.uploads.cancel(CancelUpload(upload_id, request), connection_id, identity.user_id)
        if isinstance(effects[-1], Cancelled):
            del self.requests[request]
        if before is not None and self.files[before].status is Status.FINISHING:
            assert isinstance(effects[-1], Refused | Cancelled)
            assert len(effects) == 1
        self.perform(effects, connection_id)

    @precondition(lambda self: self.has(Status.OPEN, Status.FINISHING))
    @rule(data=st.data(), part=st.integers(0, WINDOW))
    def store(self, data: st.DataObject, part: int) -> None:
        self.store_some(self.pick(data, Status.OPEN, Status.FINISHING), part)

    def store_some(self, key: str, part: int) -> None:
        file = self.files[key]
        size = min(part, len(file.sent) - file.stored)
        file.stored += size
        self.perform(self.uploads.appended(key, size, now=self.now))

    @precondition(lambda self: self.has(Status.FINISHING))
    @rule(data=st.data(), allowed=st.sampled_from([True, True, False]))
    def finish(self, data: st.DataObject, allowed: bool) -> None:
        key = self.pick(data, Status.FINISHING)
        file = self.files[key]
        # What is kept is what was sent, and all of it.
        assert file.sent == content(file.upload_id, file.size)
        assert file.digest == digest(file.sent)
        upload = self.uploads.finished(key)
        assert upload is not None
        assert (upload.begin.upload_id, upload.owner) == (file.upload_id, file.owner)
        if allowed:
            file.status = Status.PUBLISHED
            self.perform(self.uploads.complete(upload, {"file_id": key, "size": file.size}, now=self.now))
        else:
            self.perform(self.uploads.fail(upload, DENIED))
            assert file.status is Status.ABANDONED
        # Neither is it published again.
        assert self.uploads.finished(key) is None

    @precondition(lambda self: self.has(Status.OPEN, Status.FINISHING))
    @rule(data=st.data(), really=SELDOM)
    def fail(self, data: st.DataObject, really: bool) -> None:
        if not really:
            return
        key = self.pick(data, Status.OPEN, Status.FINISHING)
        self.files[key].status = Status.FAILED
        self.perform(self.uploads.failed(key, FULL))

    @precondition(lambda self: self.has(Status.PUBLISHED, Status.ABANDONED, Status.FAILED))
    @rule(data=st.data())
    def tell_late(self, data: st.DataObject) -> None:
        key = self.pick(data, Status.PUBLISHED, Status.ABANDONED, Status.FAILED)
        assert self.uploads.appended(key, 1, now=self.now) == []
        assert self.uploads.finished(key) is None
        assert self.uploads.failed(key, FULL) == []

    @rule(seconds=st.sampled_from([0.0, 0.0, 1.0, 1.0, 29.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.uploads.handle_timeout(now=self.now))
        at = self.uploads.next_timeout()
        assert at is None or at > self.now

    # What always holds

    @invariant()
    def little_is_held(self) -> None:
        if not hasattr(self, "files"):
            return
        on_their_way = [self.files[key] for key in self.current.values()]
        assert len(self.uploads) == len(on_their_way) <= self.config.max_uploads
        for file in on_their_way:
            assert len(file.sent) - file.stored <= WINDOW
        for connection_id in self.connections:
            owned = [file.upload_id for file in on_their_way if file.owner == connection_id]
            assert len(owned) <= self.config.max_uploads_per_connection
            assert all(upload_id in self.uploads.sent_by(connection_id) for upload_id in owned)

    @invariant()
    def ends_are_told(self) -> None:
        for file in getattr(self, "files", {}).values():
            assert len(file.told) <= 1
            if file.status in (Status.PUBLISHED, Status.ABANDONED, Status.FAILED):
                given_up = file.owner if file.owner in self.connections else None
                assert given_up is None or file.told == [given_up] or file.status is Status.ABANDONED

    def teardown(self) -> None:
        if not hasattr(self, "files"):
            return
        for connection_id in list(self.connections):
            self.uploads.disconnect(connection_id, now=self.now)
        self.connections.clear()
        for key in list(self.current.values()):
            if self.files[key].status is Status.FINISHING:
                self.files[key].status = Status.FAILED
                self.perform(self.uploads.failed(key, FULL))
        self.wait(1000.0)
        assert self.uploads.empty
        assert self.uploads.next_timeout() is None
        assert not self.current
        assert self.uploads.drain() == []


TestUploads = UploadsMachine.TestCase
TestUploads.settings = settings(max_examples=200, stateful_step_count=50)
