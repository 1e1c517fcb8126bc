"""The files of a node: those that come in chunks, and those that are kept and are to be published."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, Protocol, assert_never

from rtcore.binary import BINARY, Bytes
from rtcore.channels import user_channel
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import Grant
from rtcore.permissions.revocations import Revocations
from rtcore.router import Deliver, Publish, Published, Refused, Request, Router
from rtcore.router.rights import Asker
from rtcore.session import Session
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
    KeptFile,
    OpenFile,
    Progressed,
    Upload,
    UploadEffect,
    Uploads,
)
from rtcore.uploads.heads import kept_message
from rtcore.uploads.machine import SUPERSEDED

from .credentials import refuse_credential, refuse_session
from .effects import NodeEffect, to
from .requests import Requests
from .sessions import Sessions

__all__ = ["Files"]

_USER: Final = user_channel("")


class _Publishing(Protocol):
    """Publishes something that has not come by a connection, as `Node.publish` does."""

    def __call__(
        self,
        channel: str,
        message: Message,
        *,
        data: Bytes | None,
        user_id: str | None,
        grant: Grant | None,
        publisher: str | None,
        id: str | int | None,
        consults: bool,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """Return what follows."""
        ...


class Files:
    """The files of a node.

    What whoever keeps them is asked is among the effects that inputs return, and is to be done in order for each key:
    `OpenFile`, `AppendToFile`, `FinishFile` and `AbandonFile`. What comes of it is told by `appended`, `finished` and
    `failed`; of a file that was given up meanwhile that is of no account. A file that may not be published after all
    is given up when it is kept already: then `AbandonFile` asks to delete it.

    Args:
        config: What files are taken.
        router: The channels.
        sessions: The connections.
        requests: Answers them, and asks the application before files are begun.
        revocations: Which tokens were revoked.
        publish: Publishes files that have not come by a connection.
    """

    def __init__(
        self,
        config: FileConfig,
        router: Router,
        sessions: Sessions,
        requests: Requests,
        revocations: Revocations,
        *,
        publish: _Publishing,
    ) -> None:
        self._uploads = Uploads(config)
        self._router = router
        self._sessions = sessions
        self._requests = requests
        self._revocations = revocations
        self._publish = publish

    @property
    def empty(self) -> bool:
        """Whether no file is on its way, and nothing is remembered of any."""
        return self._uploads.empty

    def stats(self) -> Message:
        """Return counts of files that come in chunks: now, so far, their bytes so far, and of those that failed."""
        return {
            "uploads": len(self._uploads),
            "uploads_total": self._uploads.total,
            "upload_bytes": self._uploads.bytes,
            "uploads_failed": self._uploads.failures,
        }

    # What clients send

    def sent_by(self, connection_id: str) -> Container[str]:
        """Return the ids of the files that are on their way on a connection."""
        return self._uploads.sent_by(connection_id)

    def carry_out(
        self, wanted: BeginUpload | CancelUpload | Chunk, session: Session, *, now: float
    ) -> list[NodeEffect]:
        """Do what a connection asks for, or have the application asked whether it may, by `Consult`."""
        connection_id, user_id = session.connection_id, session.user_id
        match wanted:
            case Chunk():
                return self._tell(self._uploads.receive(wanted, connection_id, now=now))
            case CancelUpload():
                return self._tell(self._uploads.cancel(wanted, connection_id, user_id))
            case BeginUpload():
                if not self._uploads.recalls(wanted, user_id):
                    if refusal := self._uploads.check(wanted.content_type, wanted.size):
                        return self._requests.respond(wanted.request, refusal)
                    if consult := self._requests.consult(wanted, session.identity, number=session.number, now=now):
                        return [consult]
                return self.begin(wanted, session, now=now)
            case _:
                assert_never(wanted)

    def begin(
        self, command: BeginUpload, session: Session, refusal: Refusal | None = None, *, now: float
    ) -> list[NodeEffect]:
        """Begin a file or go on with one, if the connection may still send one there, or answer why not.

        Args:
            command: Which.
            session: The connection's.
            refusal: What the application says against it.
            now: Monotonic seconds.
        """
        # What is known to be complete is no secret to who has sent it, and there is nothing more to be allowed.
        if not self._uploads.recalls(command, session.user_id):
            asker = session.connection_id
            refusal = refusal or self._router.decide_publication(command.channel, command.head, asker=asker)
            if refusal is not None:
                return self._requests.respond(command.request, refusal)
        owner = self._uploads.owner_of(command.upload_id)
        if owner is not None and self._sessions[owner].number > session.number:
            # It has waited on a connection that its sender has given up for the one on which the file comes now.
            return self._requests.respond(command.request, SUPERSEDED)
        return self._tell(self._uploads.begin(command, session.connection_id, session.identity, now=now))

    def disconnect(self, connection_id: str, *, now: float) -> None:
        """Take note that a connection has ended: what came on it waits for its sender."""
        self._uploads.disconnect(connection_id, now=now)

    def drain(self) -> list[AbandonFile]:
        """Give up everything that is on its way; those who send it have been told that the server stops."""
        return self._uploads.drain()

    # What whoever keeps files tells

    def appended(self, key: str, size: int, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take note that so many bytes more are stored; see `Uploads.appended`."""
        return self._tell(self._uploads.appended(key, size, now=now))

    def finished(self, key: str, file: KeptFile, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Publish a file that is kept, if its sender may still.

        Args:
            key: By which it was to be kept.
            file: What was kept.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            The `Deliver` of the publication, and what the sender is told. Or `AbandonFile` and what the sender is told.

        Raises:
            LocalProtocolError: If it was not to be kept yet; nothing has changed.
        """
        upload = self._uploads.finished(key)
        if upload is None:
            return []
        head = upload.begin.head
        published = self._publish_upload(upload, kept_message(head, file), file.data, now=now, timestamp=timestamp)
        if isinstance(published, Refusal):
            return self._tell(self._uploads.fail(upload, published))
        steps, receipt = published
        told: Message = {
            "file_id": file.file_id,
            "url": file.url,
            "size": file.size,
            "sha256": file.sha256,
            "content_type": head["content_type"],
        }
        for name in ("filename", "channel"):
            if name in head:
                told[name] = head[name]
        told |= {"id": receipt.id, "offset": receipt.offset, "epoch": receipt.epoch}
        self._requests.published += 1
        return [*steps, *self._tell(self._uploads.complete(upload, told, now=now))]

    def failed(self, key: str, refusal: Refusal, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take note that nothing of a file is kept, and why; its sender is told."""
        return self._tell(self._uploads.failed(key, refusal))

    # What comes otherwise than by a connection

    def check(
        self,
        channel: str,
        *,
        asker: Asker,
        content_type: object,
        size: int,
        message: Message | None = None,
        data: Bytes | None = None,
    ) -> Refusal | None:
        """Tell why a file would not be taken, or ``None`` if it would.

        Args:
            channel: Where it is to be published.
            asker: Who sends it: a connection's id, somebody who has none, or ``None`` for the application.
            content_type: Its media type; ``None`` for one that is not told.
            size: Its bytes, as far as they are known.
            message: What is to be published with it, once that is known.
            data: The file, where it is in that message.
        """
        refusal = self._router.decide_publication(channel, message or {"type": BINARY}, asker=asker)
        if refusal := refusal or self._uploads.check(content_type, size):
            return refusal
        return None if message is None else self._router.check_size(channel, message, data)

    def publish_file(
        self,
        channel: str,
        file: KeptFile,
        *,
        head: Message,
        user_id: str | None = None,
        grant: Grant | None = None,
        publisher: str | None = None,
        id: str | int | None = None,
        consults: bool = False,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """Publish a file that is kept and has not come by a connection.

        Args:
            channel: Where; ``$user:ID`` for a user.
            file: What was kept.
            head: What is said of it: ``content_type``, ``filename`` if it has one, and any other fields.
            user_id: As for `Node.publish`, and so are the others.
            grant: Likewise.
            publisher: Likewise.
            id: Likewise.
            consults: Likewise.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            What `Node.publish` returns. Where that is `Refused`, the file is the caller's to delete.
        """
        if channel.startswith(_USER):
            head = {**head, "recipient_id": channel.removeprefix(_USER)}
        return self._publish(
            channel,
            kept_message(head, file),
            data=file.data,
            user_id=user_id,
            grant=grant,
            publisher=publisher,
            id=id,
            consults=consults,
            now=now,
            timestamp=timestamp,
        )

    # Time

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do, in monotonic seconds, or ``None``."""
        return self._uploads.next_timeout()

    def handle_timeout(self, *, now: float) -> list[NodeEffect]:
        """Give up files whose senders have not come back, or send nothing of them."""
        return self._tell(self._uploads.handle_timeout(now=now))

    # Inside

    def _publish_upload(
        self, upload: Upload, message: Message, data: Bytes | None, *, now: float, timestamp: int
    ) -> tuple[list[Deliver], Published] | Refusal:
        """Publish a file as its sender, or return why that may not be any more."""
        channel, owner, identity = upload.begin.channel, upload.owner, upload.identity
        if owner is not None:
            session = self._sessions[owner]
            refusal = refuse_session(session, now=now)
            skip = owner if message.get("echo") is False else None
            command = Publish(channel, message, Request(owner), skip, data=data)
        else:
            # It is allowed what it was when it was here, unless that has ended meanwhile.
            refusal = refuse_credential(identity.user_id, identity.grant, self._revocations, timestamp=timestamp)
            command = Publish(channel, message, Request(None), None, identity.user_id, identity.grant, data=data)
        if refusal is not None:
            return refusal
        *delivered, last = self._router.send(command, now=now, timestamp=timestamp)
        if isinstance(last, Refused):
            return last.refusal
        assert isinstance(last, Published), "a publication ends with that"
        return [each for each in delivered if isinstance(each, Deliver)], last

    def _tell(self, effects: Sequence[UploadEffect]) -> list[NodeEffect]:
        """Turn what senders are told into messages and answers to them."""
        told: list[NodeEffect] = []
        for effect in effects:
            match effect:
                case OpenFile() | AppendToFile() | FinishFile() | AbandonFile():
                    told.append(effect)
                case Begun():
                    told += self._requests.respond(effect.request, effect.to_data())
                case Cancelled():
                    told += self._requests.respond(effect.request, {"upload_id": effect.upload_id})
                case Refused():
                    told += self._requests.respond(effect.request, effect.refusal)
                case Failed():
                    self._requests.refused += 1
                    told.append(to(effect.connection_id, effect.to_message()))
                case Progressed() | Completed():
                    told.append(to(effect.connection_id, effect.to_message()))
                case _:
                    assert_never(effect)
        return told
