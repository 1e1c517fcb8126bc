"""Uploads of a server that have begun, and what is said of them."""

from __future__ import annotations

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import Identity
from rtcore.router import Request
from rtcore.uploads import (
    Cancelled,
    CancelUpload,
    Failed,
    UploadEffect,
)

from .upload_talk import ANN, Sending, command

WHOLE = b"0123456789"
FILE: Message = {"file_id": "f-1", "size": 10}

MISMATCH = Refusal(
    "upload_mismatch", "this upload was begun otherwise, or by another user: draw another 'upload_id'", status=409
)
COMPLETE = Refusal("upload_complete", "all of this file has come: it cannot be cancelled any more", status=409)
CANCELLED = Refusal("upload_cancelled", "this upload was cancelled", status=409)
SUPERSEDED = Refusal("upload_superseded", "a later begin_upload has taken its place", status=409)
UNKNOWN = Refusal(
    "unknown_upload", "this upload is not known, or not on this connection: ask begin_upload from where to go on", 404
)
IDLE = Refusal("upload_timeout", "nothing has come of this file for too long: begin again", status=408)
FULL = Refusal("store_full", "no room", status=507)
DENIED = Refusal("publish_denied", "no", status=403)


def too_many(what: str) -> Refusal:
    return Refusal("too_many_uploads", f"{what} at a time: try again later", 429, retry_after=5)


def wrong_offset(offset: int, received: int = 4) -> Refusal:
    text = f"this chunk begins at {offset}, and {received} bytes have come: begin_upload tells"
    return Refusal("wrong_offset", text, status=409)


def incomplete(end: int) -> Refusal:
    return Refusal("incomplete", f"'sha256' comes with the last chunk, and {end} of 10 bytes have come")


def sending(*, size: int = 10) -> Sending:
    """Return the uploads of a server where Ann has begun one on c1."""
    served = Sending()
    served.begin(command(size=size))
    return served


def received() -> Sending:
    """Return those where all of it has come and is to be kept."""
    served = sending()
    served.chunk(0, WHOLE[:4])
    served.chunk(4, WHOLE[4:8])
    served.appended(8)
    served.chunk(8, WHOLE[8:], WHOLE)
    return served


def finish(served: Sending, key: str = "upload-1", file: Message = FILE) -> list[UploadEffect]:
    upload = served.uploads.finished(key)
    assert upload is not None
    return served.uploads.complete(upload, file, now=served.now)


def completed() -> Sending:
    served = received()
    finish(served)
    return served


def failed(refusal: Refusal, connection_id: str = "c1", upload_id: str = "u") -> Failed:
    return Failed(connection_id, upload_id, refusal)


def cancel(served: Sending, connection_id: str = "c1", identity: Identity = ANN) -> list[UploadEffect]:
    return served.uploads.cancel(CancelUpload("u", Request(connection_id, "9")), connection_id, identity.user_id)


def cancelled(connection_id: str = "c1") -> Cancelled:
    return Cancelled(Request(connection_id, "9"), "u")
