"""The files that a simulated client sends in chunks: the machine `rtcore.client.Upload` for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

from rtcore.binary import parse_payload
from rtcore.channels import user_channel
from rtcore.client import (
    Answered,
    Ask,
    Cancelled,
    Done,
    Failed,
    Progressed,
    ReadPiece,
    Refused,
    Request,
    SendChunk,
    Upload,
    UploadEffect,
)
from rtcore.errors import QueueFull, Refusal
from rtcore.messages import Message

if TYPE_CHECKING:
    from .websocket_client import SimulatedWebSocketClient

__all__ = ["Sending", "SimulatedUpload"]

_RETRY_WAIT: Final = 0.5


class SimulatedUpload:
    """One file that a client sends in chunks.

    Args:
        client: Whose.
        message: What is published when it is whole, but for what the server says; has its number as ``n``.
        content: What is in it.

    Attributes:
        number: By which the invariants know it.
        channel: Where it is published.
        message: As given.
        content: What is in it now.
        changed: Whether that was something else before.
        announced: The SHA-256 of the whole, each time that the last of it was sent.
        room: Up to where the server has made room for it on the present connection.
        file: What the server has said of it, once it is kept and published.
        code: Why it is not, once that is so. ``cancelled_late`` is what was cancelled when all of it had been sent, and
            ``ended`` what was not through when its client ended: both may have been published.
    """

    def __init__(self, client: SimulatedWebSocketClient, message: Message, content: bytes) -> None:
        number = message["n"]
        assert isinstance(number, int), "it is followed by it"
        self.number = number
        self.channel = str(message["channel"]) if "channel" in message else user_channel(str(message["recipient_id"]))
        self.message = message
        self.content = content
        self.changed = False
        self.announced: dict[str, None] = {}
        self.room = 0
        self.file: Message | None = None
        self.code: str | None = None
        head = {name: message[name] for name in message if name in _HEAD}
        head["message"] = {name: message[name] for name in message if name not in (*_HEAD, "type")}
        upload_id = client.world.choices.entropy(8).hex()
        self.machine = Upload(upload_id, head, len(content), retry_wait=_RETRY_WAIT)
        self._client = client
        self._window = self._sent = 0

    def __repr__(self) -> str:
        return f"file {self.number}"

    @property
    def under_way(self) -> bool:
        """Whether something was sent on the present connection that is not known to be stored."""
        return self._sent > self.room - self._window

    @property
    def ended(self) -> bool:
        """Whether it has come to something."""
        return self.file is not None or self.code is not None

    def cancel(self) -> None:
        """Do not want it to be sent any more."""
        self._client.note("cancels", self)
        self.perform(self.machine.cancel(now=self._client.now()))

    def change(self) -> None:
        """Write something else to it, of the same size."""
        if self.content:
            self._client.note("changes", self)
            self.changed = True
            self.content = bytes(byte ^ 0xFF for byte in self.content)

    # What its client tells

    def connected(self) -> None:
        """The client is connected."""
        self.room = self._window = self._sent = 0
        self.perform(self.machine.connected(now=self._client.now()))

    def lost(self) -> None:
        """The client is no longer connected."""
        self.room = self._window = self._sent = 0
        self.perform(self.machine.lost(now=self._client.now()))

    def told(self, number: int, outcome: Answered | Refused) -> None:
        """Something that was asked for has an outcome."""
        now = self._client.now()
        if isinstance(outcome, Answered):
            data = outcome.data
            if isinstance(data, dict) and "window" in data:
                self._window = int(data["window"])
                self.room = int(data["offset"]) + self._window
            self.perform(self.machine.answered(number, data, now=now))
        else:
            self.perform(self.machine.refused(number, outcome.code, outcome.message, outcome.retry_after, now=now))

    def hear(self, message: Message) -> None:
        """The server has said something about files."""
        if message["upload_id"] == self.machine.upload_id:
            offset = message.get("offset")
            if isinstance(offset, int):
                self.room = offset + self._window
            self.perform(self.machine.received(message, now=self._client.now()))

    def end(self) -> None:
        """The client has ended."""
        self._end("ended")

    # Inside

    def perform(self, effects: Sequence[UploadEffect]) -> None:
        """Carry out effects of the machine, in order."""
        client = self._client
        for effect in effects:
            match effect:
                case Ask(number=number, command=command, data=data):
                    client.sending.ask(self, number, command, data)
                case ReadPiece():
                    seconds = client.world.choices.seconds(0.0, 0.05) if client.world.faulty else 0.001
                    client.world.scheduler.after(seconds, partial(client.attend, partial(self._read, effect)))
                case SendChunk(payload=payload):
                    self._send(payload)
                case Progressed():
                    client.note(f"{self} is", effect)
                case Done(file=file):
                    self.file = file
                    self._end(None)
                case Failed(code=code):
                    client.note(f"{self} fails", effect)
                    self._end(code)
                case Cancelled():
                    self._end("cancelled_late" if self.announced else "cancelled")
                case _:
                    assert_never(effect)
        client.rekey()

    def _read(self, piece: ReadPiece) -> None:
        if not self.ended:
            data = self.content[piece.offset : piece.offset + piece.size]
            self.perform(self.machine.read(data, now=self._client.now()))

    def _send(self, payload: bytes) -> None:
        parsed = parse_payload(payload)
        assert not isinstance(parsed, Refusal), "it says what can be read"
        head, data = parsed
        sha256, offset = head.get("sha256"), head["offset"]
        assert isinstance(offset, int), "a chunk says where it belongs"
        if isinstance(sha256, str):
            self.announced[sha256] = None
        self._sent = offset + len(data)
        self._client.observer.client_sends_chunk(self._client, self, offset, len(data))
        self._client.send_bytes(payload)

    def _end(self, code: str | None) -> None:
        client, file = self._client, self.file
        self.code = code
        client.sending.forget(self)
        client.observer.client_file_ends(client, self)
        if file is not None:
            receipt = {"channel": self.channel, "epoch": file["epoch"], "offset": file["offset"]}
            client.observer.client_published(client, self.number, receipt)
        else:
            assert code is not None, "it is the one or the other"
            client.observer.client_refused(client, self.number, code)


# What of a message is told with its file, beside the other fields.
_HEAD: Final = ("channel", "recipient_id", "content_type", "filename")


class Sending:
    """All files that a client sends in chunks.

    Args:
        client: The client.

    Attributes:
        uploads: Those of which is not known what they come to.
    """

    def __init__(self, client: SimulatedWebSocketClient) -> None:
        self.uploads: list[SimulatedUpload] = []
        self._client = client
        # Who has asked for something, by the id under which it was sent.
        self._asked: dict[str, tuple[SimulatedUpload, int]] = {}

    def begin(self, message: Message, content: bytes) -> SimulatedUpload:
        """Send a file, now or once there is a connection."""
        client = self._client
        upload = SimulatedUpload(client, message, content)
        client.note("sends", (upload, message, content))
        self.uploads.append(upload)
        client.observer.client_publishes(client, message)
        client.observer.client_sends_file(client, upload)
        if client.connected:
            upload.connected()
        return upload

    def forget(self, upload: SimulatedUpload) -> None:
        """Take note that an upload has ended."""
        self.uploads.remove(upload)

    def ask(self, upload: SimulatedUpload, number: int, command: str, data: Mapping[str, object]) -> None:
        """Give the server a command."""
        try:
            call = self._client.call(Request(command, data))
        except QueueFull:
            self._client.note("has too much to say while offline")
            upload.told(number, Refused("", "not_sent", "there is no room for it"))
            return
        self._asked[call.id] = (upload, number)

    def told(self, token: str, outcome: Answered | Refused) -> None:
        """Something has an outcome that maybe an upload has asked for."""
        asked = self._asked.pop(token, None)
        if asked is not None:
            asked[0].told(asked[1], outcome)

    def connected(self) -> None:
        """The client is connected."""
        for upload in list(self.uploads):
            upload.connected()

    def lost(self) -> None:
        """The client is no longer connected."""
        for upload in self.uploads:
            upload.lost()

    def hear(self, message: Message) -> None:
        """The server has said something about files."""
        for upload in list(self.uploads):
            upload.hear(message)

    def end(self) -> None:
        """The client has ended."""
        for upload in list(self.uploads):
            upload.end()

    def next_timeout(self) -> float | None:
        """Return the earliest deadline of all uploads, or ``None``."""
        due = (upload.machine.next_timeout() for upload in self.uploads)
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        for upload in list(self.uploads):
            upload.perform(upload.machine.handle_timeout(now=now))
