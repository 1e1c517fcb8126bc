"""The sending side of one file that goes to the server in chunks, whatever becomes of the connection.

It runs beside a `rtcore.client.Client`, and knows nothing of it: its driver makes the requests, sends the chunks and
reads the file. States, what moves between them, and the effects of the move::

    OFFLINE   connected               -> ASKING   Ask
    ASKING    answered                -> SENDING  Progressed, ReadPiece (or SendChunk for an empty file)
    ASKING    refused for now         -> WAITING
    SENDING   `unknown_upload`        -> WAITING
    WAITING   retry_at                -> ASKING   Ask
    any       lost                    -> OFFLINE
    any       `file`                  -> ENDED    Progressed, Done
    any       refused, `error`, a bad message, the file is shorter -> ENDED  (Ask to cancel,) Failed
    any       cancel                  -> ENDED    (Ask to cancel,) Cancelled

What does not fit there: while SENDING, each piece that was read becomes a chunk, and what the server says that it has
stored makes room for more. A piece may be read while there is no connection; then it is read again when it is its turn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Annotated, Final, TypeAlias

import attrs
import msgspec

from rtcore.binary import Bytes, encode_payload
from rtcore.errors import LocalProtocolError
from rtcore.messages import Message

from .wire import encode

__all__ = [
    "Ask",
    "Cancelled",
    "Done",
    "Failed",
    "Progressed",
    "ReadPiece",
    "SendChunk",
    "Upload",
    "UploadEffect",
    "UploadState",
]

# A server that takes a file in one piece must not have all of it read into memory.
_MAX_CHUNK: Final = 2**20
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Outcomes of a request that say nothing of the upload, since the server has perhaps never seen it.
_LINK_LOST: Final = ("connection_lost", "not_sent")


@attrs.frozen
class Ask:
    """Effect: give the server a command, as a `rtcore.client.Request`.

    Attributes:
        number: What to tell `Upload.answered` or `Upload.refused` with its outcome. Nobody waits for that of
            ``cancel_upload``.
        command: ``begin_upload`` or ``cancel_upload``.
        data: Its data.
    """

    number: int
    command: str
    data: Mapping[str, object]


@attrs.frozen
class ReadPiece:
    """Effect: read so many bytes of the file from `offset` on, and tell `Upload.read`. There is one at a time."""

    offset: int
    size: int


@attrs.frozen
class SendChunk:
    """Effect: send `payload` as one WebSocket binary message on the present connection; without one, drop it."""

    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")


@attrs.frozen
class Progressed:
    """Effect: of `total` bytes the server has `sent`. It begins with 0, or anew if a server has lost what it had."""

    sent: int
    total: int


@attrs.frozen
class Done:
    """Effect, the last: the file is kept and published; `file` is what the server says of it."""

    file: Message


@attrs.frozen
class Failed:
    """Effect, the last: the file is not kept, or nobody knows.

    Attributes:
        code: The server's word, or one of the machine's own: ``file_changed`` (it has become shorter),
            ``connection_lost`` (all was sent, and nobody can tell any more what has become of it: it may have been
            published or not), and ``protocol_error`` (the server says what cannot be: likewise).
        message: What is wrong.
        retry_after: Seconds after which another try may succeed, or ``None``.
    """

    code: str
    message: str
    retry_after: float | None = None


@attrs.frozen
class Cancelled:
    """Effect, the last: the upload is given up. If all of it was sent, it may be kept and published all the same."""


UploadEffect: TypeAlias = Ask | ReadPiece | SendChunk | Progressed | Done | Failed | Cancelled


class UploadState(Enum):
    """Where an upload stands."""

    OFFLINE = auto()
    ASKING = auto()
    SENDING = auto()
    WAITING = auto()
    ENDED = auto()


class _Beginning(msgspec.Struct):
    """The answer to ``begin_upload``.

    The server has the bytes up to `offset`, and unless that is the whole file all of them are stored. `resumed` tells
    whether it has known the upload before.
    """

    offset: Annotated[int, msgspec.Meta(ge=0)]
    window: Annotated[int, msgspec.Meta(ge=1)]
    chunk_size: Annotated[int, msgspec.Meta(ge=1)]
    resumed: bool = False
    file: Message | None = None


class _Error(msgspec.Struct):
    code: str
    message: str = ""
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None


class _News(msgspec.Struct):
    """``upload``: how much is stored, what the file has become, or why it has failed."""

    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    file: Message | None = None
    error: _Error | None = None


class _File(msgspec.Struct):
    """What is checked of the file that the server has kept."""

    file_id: str
    url: str
    size: int
    sha256: str


class Upload:
    """One file on its way to the server. It is sent once as a whole, or its sender is told that it is not.

    What the server says never raises. Nothing that was sent is kept here: what the server has lost is read again. The
    SHA-256 is made of the bytes as they are read for the first time, so a file that changes between two readings of
    the same place is not taken for whole by the server.

    After its end each input returns nothing.

    Args:
        upload_id: 1 to 64 of the characters ``A-Z a-z 0-9 _ -`` at random, a secret that no other upload has.
        head: The further fields of ``begin_upload``: ``channel`` or ``recipient_id``, and if wanted ``filename``,
            ``content_type`` and ``message``.
        size: The bytes of the file.
        retry_wait: Seconds before the server is asked again, at least, where it has refused for now or not answered.

    Raises:
        LocalProtocolError: One of them is not as it must be.
    """

    def __init__(self, upload_id: str, head: Mapping[str, object], size: int, *, retry_wait: float = 1.0) -> None:
        if not _ID.fullmatch(upload_id):
            raise LocalProtocolError("the id of an upload is 1 to 64 of the characters A-Z a-z 0-9 _ -")
        if size < 0 or retry_wait <= 0:
            raise LocalProtocolError("the size of a file is 0 or more, and the wait more than 0")
        if ("channel" in head) == ("recipient_id" in head):
            raise LocalProtocolError("a file goes to a 'channel' or to a 'recipient_id'")
        self._data: Mapping[str, object] = {**head, "upload_id": upload_id, "size": size}
        # What JSON cannot express is told now, and not when there is a connection.
        encode(self._data)
        self._id = upload_id
        self._size = size
        self._retry_wait = retry_wait
        self._state = UploadState.OFFLINE
        self._retry_at: float | None = None
        self._asked = 0
        # Whether the newest request has no answer, and whether any since the last answer has had none.
        self._awaits_answer = False
        self._begins_in_doubt = False
        self._hash = hashlib.sha256()
        self._hashed = 0
        # How far it was sent, how far at most to any server, and whether that was all of it.
        self._sent = 0
        self._most_sent = 0
        self._may_be_published = False
        # What the server said on the present connection, and how much of it was told as progress.
        self._stored = 0
        self._told: int | None = None
        self._window = 0
        self._chunk_size = 0
        self._reading: ReadPiece | None = None

    @property
    def state(self) -> UploadState:
        """Where the upload stands."""
        return self._state

    @property
    def upload_id(self) -> str:
        """What the server calls it in its messages of the type ``upload``."""
        return self._id

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, in seconds, or ``None``."""
        return self._retry_at

    def connected(self, *, now: float) -> list[UploadEffect]:
        """Tell that the client is connected, at the beginning or anew, and so whatever was under way is lost.

        Returns:
            `Ask`.
        """
        return self._ask()

    def lost(self, *, now: float) -> list[UploadEffect]:
        """Tell that the connection is lost, or is about to end: nothing is sent before `connected`."""
        if self._state is not UploadState.ENDED:
            self._stand(UploadState.OFFLINE)
        return []

    def answered(self, number: int, data: object, *, now: float) -> list[UploadEffect]:
        """Tell the answer to a request.

        Args:
            number: Its `Ask.number`; the answer to any but the newest is of no interest any more.
            data: What the server has answered.
            now: Monotonic seconds.

        Returns:
            `Progressed`; then `ReadPiece` unless one is under way, or, for an empty file, `SendChunk`. If the server
            has completed the file before, `Progressed` and `Done`. If it has forgotten one that it may have published,
            or answers what cannot be, `Ask` to cancel, and `Failed`.
        """
        if self._state is not UploadState.ASKING or number != self._asked:
            return []
        try:
            beginning = msgspec.convert(data, _Beginning)
        except msgspec.ValidationError as error:
            return self._fault(f"a bad answer to begin_upload: {error}")
        if beginning.file is not None:
            return self._complete(beginning.file)
        offset = beginning.offset
        if offset > self._most_sent:
            return self._fault(f"it says that it has {offset} bytes of {self._most_sent} sent")
        self._awaits_answer = False
        # Nothing is sent before it is answered: what has been received was sent to where the last of it went too.
        if self._may_be_published and (not beginning.resumed or (self._begins_in_doubt and not offset)):
            # To send it again might publish it twice.
            fault = "the server has forgotten the file, of which all was sent: it may have been published or not"
            return self._give_up("connection_lost", fault)
        self._begins_in_doubt = False
        self._stand(UploadState.SENDING)
        self._sent = self._stored = offset
        self._window, self._chunk_size = beginning.window, min(beginning.chunk_size, _MAX_CHUNK)
        effects = self._progress()
        if not self._size:
            effects.append(self._chunk(b""))
        return [*effects, *self._read_on()]

    def refused(
        self, number: int, code: str, message: str, retry_after: float | None = None, *, now: float
    ) -> list[UploadEffect]:
        """Tell that a request was refused, or has come to nothing.

        Args:
            number: Its `Ask.number`; the outcome of any but the newest is of no interest any more.
            code: Of a `rtcore.client.Refused`: ``connection_lost`` and ``not_sent`` mean that it is asked again once
                connected, ``timeout`` that it is asked again soon.
            message: What is wrong.
            retry_after: Seconds after which to ask again, or ``None`` where that has no point.
            now: Monotonic seconds.

        Returns:
            Nothing, or `Failed`, behind the `Ask` to cancel where the file may have been published.
        """
        if self._state is not UploadState.ASKING or number != self._asked:
            return []
        if code in _LINK_LOST:
            return self.lost(now=now)
        self._awaits_answer = code == "timeout"
        if code == "timeout" or retry_after is not None:
            return self._wait(retry_after or 0.0, now)
        if self._may_be_published:
            fault = f"the file may have been published or not, and may not be sent again: {message}"
            return self._give_up("connection_lost", fault)
        return self._fail(code, message)

    def received(self, message: Mapping[str, object], *, now: float) -> list[UploadEffect]:
        """Receive a message of the type ``upload``; one about another upload changes nothing.

        Returns:
            `Progressed`, and `ReadPiece` where there is room again. For a file that is complete `Progressed` and
            `Done`. For an error `Failed`; but nothing for ``unknown_upload``, after which the server is asked again.
            For what cannot be `Ask` to cancel, and `Failed`.
        """
        if self._state is UploadState.ENDED or message.get("upload_id") != self._id:
            return []
        try:
            news = msgspec.convert(message, _News)
        except msgspec.ValidationError as error:
            return self._fault(f"a bad message of an upload: {error}")
        if (failure := news.error) is not None:
            if failure.code != "unknown_upload":
                return self._fail(failure.code, failure.message, failure.retry_after)
            # Each chunk under way gets one of these; the first has said it all.
            return self._wait(0.0, now) if self._state is UploadState.SENDING else []
        if news.file is not None:
            return self._complete(news.file)
        if self._state is not UploadState.SENDING:
            return []
        if news.offset > self._sent:
            return self._fault(f"it says that it has {news.offset} bytes of {self._sent} sent")
        # Of a file that is being kept, it has said that all has come, and what of it is stored may be less.
        self._stored = max(self._stored, news.offset)
        return [*self._progress(), *self._read_on()]

    def read(self, data: Bytes, *, now: float) -> list[UploadEffect]:
        """Give the bytes that `ReadPiece` asked for, whatever has happened since.

        Args:
            data: So many as were asked for; fewer are sent as they are; none if the file ends before.
            now: Monotonic seconds.

        Returns:
            `SendChunk`, if it is still what comes next, and the next `ReadPiece`, if there is room for it. If the file
            has ended, `Ask` to cancel, and `Failed`.

        Raises:
            LocalProtocolError: Nothing was asked for, or fewer bytes; nothing has changed.
        """
        if self._state is UploadState.ENDED:
            return []
        piece = self._reading
        if piece is None or len(data) > piece.size:
            raise LocalProtocolError(f"read() of {len(data)} bytes, where {piece.size if piece else 0} were asked for")
        self._reading = None
        if not data:
            fault = f"it ends after {piece.offset} bytes, and had {self._size} when its upload began"
            return self._give_up("file_changed", fault)
        known = self._hashed - piece.offset
        assert known >= 0, "what was sent, and so what is read next, has been hashed up to there"
        if known < len(data):
            self._hash.update(memoryview(data)[known:])
            self._hashed = piece.offset + len(data)
        effects: list[UploadEffect] = []
        # On another connection other limits may hold, and another place may be next.
        if self._state is UploadState.SENDING and piece.offset == self._sent and len(data) <= self._room():
            effects.append(self._chunk(data))
        return [*effects, *self._read_on()]

    def cancel(self, *, now: float) -> list[UploadEffect]:
        """Give the upload up.

        Returns:
            `Ask` to cancel, if the server may know of it, and `Cancelled`.
        """
        if self._state is UploadState.ENDED:
            return []
        effects = self._ask_to_cancel()
        self._stand(UploadState.ENDED)
        return [*effects, Cancelled()]

    def handle_timeout(self, *, now: float) -> list[UploadEffect]:
        """Do what is due by `now`.

        Returns:
            `Ask`, where the server is to be asked again.
        """
        return self._ask() if self._retry_at is not None and now >= self._retry_at else []

    # Inside

    def _stand(self, state: UploadState, *, retry_at: float | None = None) -> None:
        self._state = state
        self._retry_at = retry_at

    def _wait(self, seconds: float, now: float) -> list[UploadEffect]:
        self._stand(UploadState.WAITING, retry_at=now + max(seconds, self._retry_wait))
        return []

    def _ask(self) -> list[UploadEffect]:
        if self._state is UploadState.ENDED:
            return []
        # One that was not answered may have begun the file anew, which makes it known to the next one.
        self._begins_in_doubt |= self._awaits_answer
        self._awaits_answer = True
        self._stand(UploadState.ASKING)
        self._asked += 1
        return [Ask(self._asked, "begin_upload", self._data)]

    def _ask_to_cancel(self) -> list[UploadEffect]:
        return [Ask(self._asked + 1, "cancel_upload", {"upload_id": self._id})] if self._asked else []

    def _room(self) -> int:
        return min(self._chunk_size, self._stored + self._window - self._sent)

    def _read_on(self) -> list[UploadEffect]:
        size = min(self._chunk_size, self._window, self._size - self._sent)
        if self._state is not UploadState.SENDING or self._reading is not None or not 0 < size <= self._room():
            return []
        self._reading = ReadPiece(self._sent, size)
        return [self._reading]

    def _chunk(self, data: Bytes) -> SendChunk:
        head: Message = {"type": "chunk", "upload_id": self._id, "offset": self._sent}
        self._sent += len(data)
        self._most_sent = max(self._most_sent, self._sent)
        if self._sent == self._size:
            head["sha256"] = self._hash.hexdigest()
            self._may_be_published = True
        return SendChunk(encode_payload(head, data))

    def _progress(self) -> list[UploadEffect]:
        if self._stored == self._told:
            return []
        self._told = self._stored
        return [Progressed(self._stored, self._size)]

    def _complete(self, said: Message) -> list[UploadEffect]:
        try:
            file = msgspec.convert(said, _File)
        except msgspec.ValidationError as error:
            return self._fault(f"a bad description of the file: {error}")
        if not self._may_be_published or (file.size, file.sha256) != (self._size, self._hash.hexdigest()):
            return self._fault("the file that it has kept is not the one that was sent")
        self._stand(UploadState.ENDED)
        self._stored = self._size
        return [*self._progress(), Done(said)]

    def _fault(self, reason: str) -> list[UploadEffect]:
        return self._give_up("protocol_error", f"the server does not keep to the protocol: {reason}")

    def _give_up(self, code: str, message: str) -> list[UploadEffect]:
        return [*self._ask_to_cancel(), *self._fail(code, message)]

    def _fail(self, code: str, message: str, retry_after: float | None = None) -> list[UploadEffect]:
        self._stand(UploadState.ENDED)
        return [Failed(code, message, retry_after)]
