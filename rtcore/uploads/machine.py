"""The machine of all files that come in chunks.

An upload is `UploadState.RECEIVING` from its first ``begin_upload`` until its last chunk, and `UploadState.KEEPING`
until whoever keeps files says that it is kept; `finished` then hands it to the caller, which publishes it and says
`complete`, or may not and says `fail`. Every transition is here; what a chunk must be is told by `Upload.check`.

Of each `OpenFile` there follows exactly one `AbandonFile`, or the keeper's `failed`, or it is complete.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from rtcore.deadlines import Deadlines
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.permissions import Identity
from rtcore.router import Refused, Request

from .commands import BeginUpload, CancelUpload, Chunk
from .config import FileConfig
from .effects import AbandonFile, AppendToFile, FinishFile, OpenFile
from .heads import check_type
from .outcomes import Begun, Cancelled, Completed, Failed, Progressed, UploadEffect
from .upload import Outcome, Sender, Upload, UploadState

__all__ = ["SUPERSEDED", "Uploads"]

# Seconds after which somebody for whom there was no room may try again: that is when files end, not connections.
_RETRY_AFTER: Final = 5

_MISMATCH: Final = Refusal(
    "upload_mismatch", "this upload was begun otherwise, or by another user: draw another 'upload_id'", status=409
)
_COMPLETE: Final = Refusal("upload_complete", "all of this file has come: it cannot be cancelled any more", status=409)
_CANCELLED: Final = Refusal("upload_cancelled", "this upload was cancelled", status=409)
#: What is said where somebody else has asked later to go on.
SUPERSEDED: Final = Refusal("upload_superseded", "a later begin_upload has taken its place", status=409)
_UNKNOWN: Final = Refusal(
    "unknown_upload", "this upload is not known, or not on this connection: ask begin_upload from where to go on", 404
)
_IDLE: Final = Refusal("upload_timeout", "nothing has come of this file for too long: begin again", status=408)


class Uploads:
    """All files that come in chunks.

    Inputs return effects in order: what whoever keeps files must do, and what senders are told.

    Args:
        config: What files are taken, and how much of them at a time.

    Attributes:
        total: How many have begun so far.
        bytes: How much of them was received.
        failures: How many have failed, or were given up because their senders have not come back.
    """

    def __init__(self, config: FileConfig) -> None:
        self._config = config
        self.total = 0
        self.bytes = 0
        self.failures = 0
        self._uploads: dict[str, Upload] = {}
        self._by_key: dict[str, Upload] = {}
        self._senders: dict[str, Sender] = {}
        # Of those that still receive: when their sender is no longer waited for.
        self._deadlines: Deadlines[str] = Deadlines()
        # All are remembered equally long: first in, first out.
        self._outcomes: dict[str, Outcome] = {}

    def __len__(self) -> int:
        """Return how many files are on their way."""
        return len(self._uploads)

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way, nor remembered."""
        return not self._uploads and not self._outcomes

    def check(self, content_type: object, size: int) -> Refusal | None:
        """Tell why no file of this type and size is taken, or ``None`` if one is."""
        if size > self._config.max_file_size:
            text = f"this server takes files of at most {self._config.max_file_size} bytes"
            return Refusal("file_too_large", text, status=413)
        found = check_type(content_type, self._config.allowed_types)
        return found if isinstance(found, Refusal) else None

    def sent_by(self, connection_id: str) -> Container[str]:
        """Return the ids of the files that are on their way on a connection."""
        sender = self._senders.get(connection_id)
        return () if sender is None else sender.uploads

    def owner_of(self, upload_id: str) -> str | None:
        """Return the connection on which a file comes that is on its way, or ``None``."""
        upload = self._uploads.get(upload_id)
        return None if upload is None else upload.owner

    def recalls(self, command: BeginUpload, user_id: str | None) -> bool:
        """Tell whether it is known that a file which somebody wants to send is complete already."""
        outcome = self._outcomes.get(command.upload_id)
        return outcome is not None and _is_same(command, user_id, outcome.begin, outcome.user_id)

    # What senders ask for

    def begin(self, command: BeginUpload, connection_id: str, identity: Identity, *, now: float) -> list[UploadEffect]:
        """Begin a file, or go on with one: from now on it comes on this connection.

        Args:
            command: Which.
            connection_id: The connection.
            identity: Whose it is.
            now: Monotonic seconds.

        Returns:
            `OpenFile`, if it is new, behind the `AbandonFile` of what made room; then `Begun`, unless something is
            received and not stored: it is told once that is, so that whoever goes on has the whole window. Or `Refused`
            alone.
        """
        upload_id, request = command.upload_id, command.request
        upload = self._uploads.get(upload_id)
        outcome = self._outcomes.get(upload_id)
        if outcome is not None:
            if not self.recalls(command, identity.user_id):
                return [Refused(request, _MISMATCH)]
            self._sender(connection_id).end(upload_id)
            return [self._begun(request, command, command.size, file=outcome.file, resumed=True)]
        if upload is not None and not _is_same(command, identity.user_id, upload.begin, upload.identity.user_id):
            return [Refused(request, _MISMATCH)]
        sender = self._sender(connection_id)
        if upload_id not in sender.uploads and len(sender.uploads) >= self._config.max_uploads_per_connection:
            return [Refused(request, _too_many(f"{len(sender.uploads)} files come on this connection"))]
        if upload is not None:
            return self._go_on(upload, command, connection_id, identity, now=now)
        if refusal := self.check(command.content_type, command.size):
            return [Refused(request, refusal)]
        effects: list[UploadEffect] = []
        if len(self._uploads) >= self._config.max_uploads:
            if (longest := self._away_for_longest()) is None:
                return [Refused(request, _too_many(f"{len(self._uploads)} files are on their way"))]
            effects += self._fail(longest, _IDLE)
        self.total += 1
        upload = Upload(f"upload-{self.total}", command, identity, connection_id, now, now)
        self._uploads[upload_id] = self._by_key[upload.key] = upload
        self._own(upload, connection_id, now=now)
        opened = OpenFile(
            upload.key, command.channel, identity.user_id, command.filename, command.content_type, command.size
        )
        return [*effects, opened, self._begun(request, command, 0, resumed=False)]

    def receive(self, chunk: Chunk, connection_id: str, *, now: float) -> list[UploadEffect]:
        """Take a part of a file.

        Returns:
            `AppendToFile`, unless it is empty; then `FinishFile`, if it is the last. Or, where it breaks the protocol,
            `AbandonFile` and `Failed`; or `Failed` alone for a file that does not come on this connection. Nothing for
            one that does no longer.
        """
        upload_id, sender = chunk.upload_id, self._senders.get(connection_id)
        if sender is None or upload_id not in sender.uploads:
            if sender is not None and upload_id in sender.ended:
                return []
            return [Failed(connection_id, upload_id, _UNKNOWN)]
        upload = self._uploads[upload_id]
        if upload.state is UploadState.KEEPING and not chunk.data and chunk.offset == upload.received:
            # Whoever has come back knows that all has come, and not that this has come with it.
            return []
        if refusal := upload.check(chunk, self._config):
            return self._fail(upload, refusal)
        effects: list[UploadEffect] = []
        upload.active_at = now
        if chunk.data:
            upload.received += len(chunk.data)
            self.bytes += len(chunk.data)
            effects.append(AppendToFile(upload.key, chunk.data))
        if chunk.sha256 is not None:
            upload.state = UploadState.KEEPING
            self._deadlines.set(upload_id, None)
            effects += [FinishFile(upload.key, chunk.sha256), *self._answer(upload)]
        return effects

    def cancel(self, command: CancelUpload, connection_id: str, user_id: str | None) -> list[UploadEffect]:
        """Give up a file, which may be one that is not known, or of somebody else: that is left alone.

        Returns:
            `AbandonFile`, `Failed` or `Refused` for those who send it or are about to, on another connection as well,
            and `Cancelled`. Or `Refused` alone, where all of it has come.
        """
        upload_id, request = command.upload_id, command.request
        outcome, upload = self._outcomes.get(upload_id), self._uploads.get(upload_id)
        cancelled = Cancelled(request, upload_id)
        if outcome is not None:
            return [Refused(request, _COMPLETE) if outcome.user_id == user_id else cancelled]
        if upload is None or upload.identity.user_id != user_id:
            return [cancelled]
        if upload.state is UploadState.KEEPING:
            return [Refused(request, _COMPLETE)]
        effects = self._end(upload, _CANCELLED, told=upload.owner != connection_id)
        return [AbandonFile(upload.key), *effects, cancelled]

    def disconnect(self, connection_id: str, *, now: float) -> None:
        """Take note that a connection has ended: the files that came on it wait for their sender."""
        sender = self._senders.pop(connection_id, None)
        if sender is None:
            return
        for upload_id in sender.uploads:
            upload = self._uploads[upload_id]
            upload.owner = upload.pending = None
            upload.since = now
            if upload.state is UploadState.RECEIVING:
                self._deadlines.set(upload_id, now + self._config.resume_timeout)

    def drain(self) -> list[AbandonFile]:
        """Give up everything, and forget everything; nobody is told, since all connections have ended."""
        abandoned = [AbandonFile(upload.key) for upload in self._uploads.values()]
        for upload_id in self._uploads:
            self._deadlines.set(upload_id, None)
        self._uploads.clear()
        self._by_key.clear()
        self._senders.clear()
        self._outcomes.clear()
        return abandoned

    # What whoever keeps files tells: of those given up meanwhile it is of no account

    def appended(self, key: str, size: int, *, now: float) -> list[UploadEffect]:
        """Take note that so many bytes more are stored.

        Returns:
            `Progressed`, or `Begun` for one that has waited for that; nothing while the sender is away.

        Raises:
            LocalProtocolError: If more is stored than was to be; nothing has changed.
        """
        upload = self._by_key.get(key)
        if upload is None:
            return []
        if not 0 <= size <= upload.waiting:
            raise LocalProtocolError(f"{size} bytes more of {key!r} cannot be stored: {upload.waiting} were to be")
        upload.stored += size
        upload.active_at = now
        if upload.pending is not None:
            return self._answer(upload) if not upload.waiting else []
        if upload.owner is None:
            return []
        return [Progressed(upload.owner, upload.begin.upload_id, upload.stored)]

    def finished(self, key: str) -> Upload | None:
        """Return the file that is kept, of which the caller says at once that it is `complete` or that it must `fail`.

        Returns:
            The upload; ``None`` for one that was given up meanwhile, and of which nothing is kept.

        Raises:
            LocalProtocolError: If it was not to be kept yet; nothing has changed.
        """
        upload = self._by_key.get(key)
        if upload is not None and upload.state is not UploadState.KEEPING:
            raise LocalProtocolError(f"{key!r} was not to be kept yet: it has not come whole")
        return upload

    def complete(self, upload: Upload, file: Message, *, now: float) -> list[UploadEffect]:
        """Take note that a file is published.

        Args:
            upload: What `finished` has returned.
            file: What its sender is told, now and for as long as it is remembered.
            now: Monotonic seconds.

        Returns:
            `Completed`, unless the sender is away.
        """
        upload_id, owner = upload.begin.upload_id, upload.owner
        self._end(upload, None)
        until = now + self._config.resume_timeout
        self._outcomes[upload_id] = Outcome(upload.begin, upload.identity.user_id, file, until)
        if len(self._outcomes) > self._config.max_outcomes:
            del self._outcomes[next(iter(self._outcomes))]
        return [] if owner is None else [Completed(owner, upload_id, file)]

    def fail(self, upload: Upload, refusal: Refusal) -> list[UploadEffect]:
        """Give up a file that may not be published. Returns `AbandonFile`, then `Failed` unless the sender is away."""
        return self._fail(upload, refusal)

    def failed(self, key: str, refusal: Refusal) -> list[UploadEffect]:
        """Take note that nothing of a file is kept.

        Returns:
            `Failed`, or `Refused` for who has just asked to go on; nothing while the sender is away.
        """
        upload = self._by_key.get(key)
        if upload is None:
            return []
        self.failures += 1
        return self._end(upload, refusal)

    # Time

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do, in monotonic seconds, or ``None``."""
        at, outcome = self._deadlines.next_timeout(), next(iter(self._outcomes.values()), None)
        if outcome is None:
            return at
        return outcome.until if at is None else min(at, outcome.until)

    def handle_timeout(self, *, now: float) -> list[UploadEffect]:
        """Give up files whose senders have not come back, or send nothing, and forget what is long complete.

        Returns:
            For each `AbandonFile`, and, where the sender is there, `Failed`.
        """
        while (outcome := next(iter(self._outcomes.values()), None)) is not None and outcome.until <= now:
            del self._outcomes[outcome.begin.upload_id]
        effects: list[UploadEffect] = []
        for upload_id in self._deadlines.pop_due(now=now):
            upload = self._uploads[upload_id]
            if upload.owner is not None:
                # A sender whose window is full waits for us.
                idle_at = (now if upload.waiting else upload.active_at) + self._config.idle_timeout
                if idle_at > now:
                    self._deadlines.set(upload_id, idle_at)
                    continue
            effects += self._fail(upload, _IDLE)
        return effects

    # Inside

    def _sender(self, connection_id: str) -> Sender:
        return self._senders.setdefault(connection_id, Sender())

    def _own(self, upload: Upload, connection_id: str, *, now: float) -> None:
        upload_id, sender = upload.begin.upload_id, self._sender(connection_id)
        sender.uploads[upload_id] = None
        sender.ended.pop(upload_id, None)
        upload.owner, upload.since, upload.active_at = connection_id, now, now
        if upload.state is UploadState.RECEIVING:
            self._deadlines.set(upload_id, now + self._config.idle_timeout)

    def _go_on(
        self, upload: Upload, command: BeginUpload, connection_id: str, identity: Identity, *, now: float
    ) -> list[UploadEffect]:
        effects: list[UploadEffect] = []
        if upload.pending is not None:
            effects.append(Refused(upload.pending, SUPERSEDED))
        if upload.owner is not None:
            del self._senders[upload.owner].uploads[command.upload_id]
        self._own(upload, connection_id, now=now)
        upload.identity = identity
        upload.pending = command.request
        if upload.state is UploadState.KEEPING or not upload.waiting:
            effects += self._answer(upload)
        return effects

    def _answer(self, upload: Upload) -> list[UploadEffect]:
        """Answer who has asked to go on, if somebody has."""
        request, upload.pending = upload.pending, None
        return [] if request is None else [self._begun(request, upload.begin, upload.received, resumed=True)]

    def _begun(
        self, request: Request, begin: BeginUpload, offset: int, *, file: Message | None = None, resumed: bool
    ) -> Begun:
        window, chunk_size = self._config.window, self._config.chunk_size
        return Begun(request, begin.upload_id, offset, window, chunk_size, file, resumed)

    def _away_for_longest(self) -> Upload | None:
        away = [each for each in self._uploads.values() if each.owner is None and each.state is UploadState.RECEIVING]
        return min(away, key=lambda each: each.since, default=None)

    def _fail(self, upload: Upload, refusal: Refusal) -> list[UploadEffect]:
        self.failures += 1
        return [AbandonFile(upload.key), *self._end(upload, refusal)]

    def _end(self, upload: Upload, refusal: Refusal | None, *, told: bool = True) -> list[UploadEffect]:
        """Forget a file; whoever has asked to go on with it, or else sends it and is to be told, is told why."""
        upload_id, owner = upload.begin.upload_id, upload.owner
        del self._uploads[upload_id], self._by_key[upload.key]
        self._deadlines.set(upload_id, None)
        if owner is None:
            return []
        self._senders[owner].end(upload_id)
        if refusal is None:
            return []
        if upload.pending is not None:
            return [Refused(upload.pending, refusal)]
        return [Failed(owner, upload_id, refusal)] if told else []


def _is_same(command: BeginUpload, user_id: str | None, first: BeginUpload, first_user_id: str | None) -> bool:
    return user_id == first_user_id and command.continues(first)


def _too_many(what: str) -> Refusal:
    return Refusal("too_many_uploads", f"{what} at a time: try again later", 429, retry_after=_RETRY_AFTER)
