"""A sender that has sent all of a file does not send it again where it may have been published."""

from __future__ import annotations

from hashlib import sha256

import pytest

from rtcore.binary import encode_payload
from rtcore.client import Ask, Failed, Progressed, ReadPiece, SendChunk, Upload, UploadEffect

CONTENT = b"abcd"
CHUNK = SendChunk(
    encode_payload({"type": "chunk", "upload_id": "u", "offset": 0, "sha256": sha256(CONTENT).hexdigest()}, CONTENT)
)
CANCEL = {"upload_id": "u"}


def answer(upload: Upload, number: int, offset: int = 0, *, resumed: bool) -> list[UploadEffect]:
    data = {"upload_id": "u", "offset": offset, "window": 8, "chunk_size": 4, "resumed": resumed}
    return upload.answered(number, data, now=0.0)


def sent() -> Upload:
    """Return an upload whose only chunk was sent, on a connection that is lost."""
    upload = Upload("u", {"channel": "a"}, len(CONTENT))
    upload.connected(now=0.0)
    assert answer(upload, 1, resumed=False) == [Progressed(0, 4), ReadPiece(0, 4)]
    assert upload.read(CONTENT, now=0.0) == [CHUNK]
    upload.lost(now=0.0)
    return upload


def test_what_is_known_since_it_was_begun_anew_is_not_known() -> None:
    upload = sent()
    # A server that has forgotten the file begins it anew, and its answer is lost.
    upload.connected(now=0.0)
    upload.refused(2, "connection_lost", "it was lost", now=0.0)
    upload.connected(now=0.0)
    cancel, failed = answer(upload, 3, resumed=True)
    assert cancel == Ask(4, "cancel_upload", CANCEL)
    assert isinstance(failed, Failed)
    assert failed.code == "connection_lost"


def test_an_answer_that_is_overdue_may_have_begun_it_anew_too() -> None:
    upload = sent()
    upload.connected(now=0.0)
    upload.refused(2, "timeout", "no answer", now=0.0)
    assert upload.handle_timeout(now=9.0) != []
    assert isinstance(answer(upload, 3, resumed=True)[-1], Failed)


def test_where_something_was_received_it_is_the_same_file() -> None:
    upload = Upload("u", {"channel": "a"}, 8)
    upload.connected(now=0.0)
    answer(upload, 1, resumed=False)
    upload.read(CONTENT, now=0.0)
    upload.read(CONTENT, now=0.0)
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    upload.refused(2, "connection_lost", "it was lost", now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 3, 4, resumed=True) == [Progressed(4, 8), ReadPiece(4, 4)]
    # That was an answer: the next one tells of the same file.
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 4, resumed=True) == [Progressed(0, 8)]
    assert upload.read(CONTENT, now=0.0) == [ReadPiece(0, 4)]


def test_where_all_was_answered_it_is_the_same_file() -> None:
    upload = sent()
    upload.connected(now=0.0)
    assert upload.refused(2, "too_many_uploads", "later", 5.0, now=0.0) == []
    upload.handle_timeout(now=5.0)
    assert answer(upload, 3, resumed=True) == [ReadPiece(0, 4)]
    assert upload.read(CONTENT, now=5.0) == [CHUNK]


@pytest.mark.parametrize("code", ["publish_denied", "type_not_allowed"])
def test_a_refusal_does_not_tell_what_has_become_of_it(code: str) -> None:
    upload = sent()
    upload.connected(now=0.0)
    cancel, failed = upload.refused(2, code, "not any more", now=0.0)
    assert cancel == Ask(3, "cancel_upload", CANCEL)
    fault = "the file may have been published or not, and may not be sent again: not any more"
    assert failed == Failed("connection_lost", fault)
