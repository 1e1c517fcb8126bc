"""The machine of a file that a client sends in chunks: refusals, failures, ends and misuse."""

from __future__ import annotations

from hashlib import sha256

import pytest

from rtcore.client import Cancelled, Failed, Progressed, ReadPiece, SendChunk, Upload, UploadState
from rtcore.errors import LocalProtocolError

from .client_upload_talk import (
    FORGOTTEN,
    HEAD,
    answer,
    begin,
    begun,
    cancel,
    failure,
    fault,
    kept,
    new,
    read,
    sent,
    stored,
)

# Refusals


def test_refusal_is_the_end() -> None:
    upload = new()
    upload.connected(now=0.0)
    assert upload.refused(1, "file_too_large", "too large", now=0.0) == [Failed("file_too_large", "too large")]
    assert upload.state is UploadState.ENDED


@pytest.mark.parametrize(("retry_after", "at"), [(7.0, 10.0), (0.0, 4.0)])
def test_refusal_for_now_is_asked_again(retry_after: float, at: float) -> None:
    upload = new()
    upload.connected(now=0.0)
    assert upload.refused(1, "too_many_uploads", "later", retry_after, now=3.0) == []
    assert upload.state is UploadState.WAITING
    assert upload.next_timeout() == at
    assert upload.handle_timeout(now=at - 0.5) == []
    assert upload.handle_timeout(now=at) == [begin(2)]
    assert upload.next_timeout() is None
    assert answer(upload, 2) == [Progressed(0, 10), ReadPiece(0, 4)]


def test_answer_that_does_not_come_is_asked_for_again() -> None:
    upload = Upload("u", HEAD, 10, retry_wait=2.0)
    upload.connected(now=0.0)
    assert upload.refused(1, "timeout", "late", now=10.0) == []
    assert upload.handle_timeout(now=12.0) == [begin(2)]
    # That of the first is no longer of interest, and neither is a refusal.
    assert answer(upload, 1) == []
    assert upload.refused(1, "upload_superseded", "asked again", now=12.0) == []
    assert answer(upload, 2) == [Progressed(0, 10), ReadPiece(0, 4)]
    assert upload.refused(2, "timeout", "late", now=12.0) == []
    assert answer(upload, 2) == []


@pytest.mark.parametrize("code", ["connection_lost", "not_sent"])
def test_request_that_is_lost_with_its_connection_waits_for_another(code: str) -> None:
    upload = new()
    upload.connected(now=0.0)
    assert upload.refused(1, code, "lost", now=0.0) == []
    assert upload.state is UploadState.OFFLINE
    assert upload.lost(now=0.0) == []
    assert upload.connected(now=1.0) == [begin(2)]
    # Its outcome may be told late.
    assert upload.refused(1, code, "lost", now=1.0) == []
    assert answer(upload, 2) == [Progressed(0, 10), ReadPiece(0, 4)]


def test_wait_ends_with_the_connection() -> None:
    upload = new()
    upload.connected(now=0.0)
    upload.refused(1, "rate_limited", "later", 50.0, now=0.0)
    upload.lost(now=1.0)
    assert upload.next_timeout() is None
    assert upload.handle_timeout(now=100.0) == []
    assert upload.connected(now=100.0) == [begin(2)]


# Failures


@pytest.mark.parametrize("code", ["checksum_mismatch", "store_unavailable", "content_mismatch"])
def test_failure_is_the_end(code: str) -> None:
    upload = sent()
    assert failure(upload, code) == [Failed(code, "no")]
    assert upload.state is UploadState.ENDED


def test_failure_tells_when_another_try_may_succeed() -> None:
    error = {"code": "store_unavailable", "message": "no", "retry_after": 5}
    effects = sent().received({"type": "upload", "upload_id": "u", "error": error}, now=0.0)
    assert effects == [Failed("store_unavailable", "no", 5.0)]


def test_failure_may_come_while_something_is_read() -> None:
    upload = begun()
    assert failure(upload, "store_full", "there is no room") == [Failed("store_full", "there is no room")]
    assert read(upload, 0) == []


def test_file_that_the_server_has_forgotten_is_begun_anew() -> None:
    upload = begun()
    read(upload, 0)
    read(upload, 4)
    assert failure(upload, "unknown_upload", now=5.0) == []
    assert upload.state is UploadState.WAITING
    assert upload.next_timeout() == 6.0
    # So is told for the other chunk.
    assert failure(upload, "unknown_upload", now=5.5) == []
    assert upload.handle_timeout(now=6.0) == [begin(2)]
    assert failure(upload, "unknown_upload", now=6.0) == []
    assert answer(upload, 2) == [ReadPiece(0, 4)]


def test_file_that_the_server_has_forgotten_at_its_end_may_be_published() -> None:
    upload = sent()
    failure(upload, "unknown_upload")
    upload.handle_timeout(now=1.0)
    assert answer(upload, 2) == [cancel(3), Failed("connection_lost", FORGOTTEN)]


def test_file_that_becomes_shorter_fails() -> None:
    upload = begun()
    read(upload, 0)
    text = "it ends after 4 bytes, and had 10 when its upload began"
    assert upload.read(b"", now=0.0) == [cancel(2), Failed("file_changed", text)]
    assert upload.state is UploadState.ENDED


def test_file_that_has_become_shorter_fails_offline_too() -> None:
    upload = begun()
    upload.lost(now=0.0)
    text = "it ends after 0 bytes, and had 10 when its upload began"
    assert upload.read(b"", now=0.0) == [cancel(2), Failed("file_changed", text)]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"offset": 0, "window": 8},
        {"offset": -1, "window": 8, "chunk_size": 4},
        {"offset": "0", "window": 8, "chunk_size": 4},
        {"offset": 0.5, "window": 8, "chunk_size": 4},
        {"offset": True, "window": 8, "chunk_size": 4},
        {"offset": 0, "window": 0, "chunk_size": 4},
        {"offset": 0, "window": 8, "chunk_size": 0},
        {"offset": 0, "window": 8, "chunk_size": 4, "resumed": 1},
        {"offset": 0, "window": 8, "chunk_size": 4, "file": "f"},
    ],
)
def test_bad_answer_is_the_end(data: object) -> None:
    upload = new()
    upload.connected(now=0.0)
    asked, failed = upload.answered(1, data, now=0.0)
    assert asked == cancel(2)
    assert isinstance(failed, Failed)
    assert failed.code == "protocol_error"
    assert failed.message.startswith(fault("a bad answer to begin_upload: "))
    assert upload.state is UploadState.ENDED


def test_server_cannot_have_what_was_not_sent() -> None:
    upload = begun()
    read(upload, 0)
    assert stored(upload, 5) == [cancel(2), Failed("protocol_error", fault("it says that it has 5 bytes of 4 sent"))]
    upload = begun()
    read(upload, 0)
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    expected = Failed("protocol_error", fault("it says that it has 5 bytes of 4 sent"))
    assert answer(upload, 2, 5, resumed=True) == [cancel(3), expected]


@pytest.mark.parametrize("fields", [{"offset": -1}, {"offset": "4"}, {"error": "no"}, {"error": {}}, {"file": []}])
def test_bad_news_are_the_end(fields: dict[str, object]) -> None:
    upload = begun()
    asked, failed = upload.received({"type": "upload", "upload_id": "u", **fields}, now=0.0)
    assert asked == cancel(2)
    assert isinstance(failed, Failed)
    assert failed.code == "protocol_error"
    assert failed.message.startswith(fault("a bad message of an upload: "))


@pytest.mark.parametrize("fields", [{"url": None}, {"file_id": 1}, {"size": "10"}, {"sha256": None}])
def test_bad_description_of_the_file_is_the_end(fields: dict[str, object]) -> None:
    asked, failed = sent().received(kept(**fields), now=0.0)
    assert asked == cancel(2)
    assert isinstance(failed, Failed)
    assert failed.message.startswith(fault("a bad description of the file: "))


@pytest.mark.parametrize("fields", [{"size": 11}, {"sha256": sha256(b"").hexdigest()}])
def test_file_that_was_kept_must_be_the_one_that_was_sent(fields: dict[str, object]) -> None:
    text = fault("the file that it has kept is not the one that was sent")
    assert sent().received(kept(**fields), now=0.0) == [cancel(2), Failed("protocol_error", text)]


def test_file_cannot_be_kept_before_all_was_sent() -> None:
    text = fault("the file that it has kept is not the one that was sent")
    assert begun().received(kept(), now=0.0) == [cancel(2), Failed("protocol_error", text)]
    upload = new()
    upload.connected(now=0.0)
    assert answer(upload, 1, 10, file=kept()["file"]) == [cancel(2), Failed("protocol_error", text)]


def test_news_of_another_upload_change_nothing() -> None:
    upload = begun()
    error = {"code": "store_full", "message": "no"}
    assert upload.received({"type": "upload", "upload_id": "v", "error": error}, now=0.0) == []
    assert upload.received({"type": "upload", "error": error}, now=0.0) == []
    assert upload.state is UploadState.SENDING


# Ends


def test_upload_that_has_not_begun_is_cancelled_without_a_word() -> None:
    assert new().cancel(now=0.0) == [Cancelled()]


def test_upload_that_has_begun_is_cancelled_at_the_server() -> None:
    upload = begun()
    assert upload.cancel(now=0.0) == [cancel(2), Cancelled()]
    assert upload.state is UploadState.ENDED
    upload = begun()
    upload.lost(now=0.0)
    assert upload.cancel(now=0.0) == [cancel(2), Cancelled()]


def test_nothing_follows_the_end() -> None:
    upload = new()
    upload.connected(now=0.0)
    upload.refused(1, "too_many_uploads", "later", 5.0, now=0.0)
    upload.cancel(now=0.0)
    assert upload.next_timeout() is None
    assert upload.connected(now=0.0) == []
    assert upload.lost(now=0.0) == []
    assert answer(upload, 1) == []
    assert upload.refused(1, "forbidden", "no", now=0.0) == []
    assert stored(upload, 4) == []
    assert read(upload, 0) == []
    assert upload.cancel(now=0.0) == []
    assert upload.handle_timeout(now=9.0) == []
    assert upload.state is UploadState.ENDED


# Misuse


@pytest.mark.parametrize(
    ("upload_id", "head", "size", "retry_wait", "message"),
    [
        ("", {"channel": "a"}, 1, 1.0, "id of an upload"),
        ("u" * 65, {"channel": "a"}, 1, 1.0, "id of an upload"),
        ("u\n", {"channel": "a"}, 1, 1.0, "id of an upload"),
        ("u", {"channel": "a"}, -1, 1.0, "size of a file"),
        ("u", {"channel": "a"}, 1, 0.0, "the wait"),
        ("u", {}, 1, 1.0, "'channel' or to a 'recipient_id'"),
        ("u", {"channel": "a", "recipient_id": "b"}, 1, 1.0, "'channel' or to a 'recipient_id'"),
        ("u", {"channel": "a", "message": object()}, 1, 1.0, "JSON cannot express"),
    ],
)
def test_upload_that_cannot_be(
    upload_id: str, head: dict[str, object], size: int, retry_wait: float, message: str
) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        Upload(upload_id, head, size, retry_wait=retry_wait)


def test_what_was_not_asked_for_is_not_taken() -> None:
    upload = begun()
    with pytest.raises(LocalProtocolError, match=r"read\(\) of 5 bytes, where 4 were asked for"):
        upload.read(b"12345", now=0.0)
    read(upload, 0)
    read(upload, 4)
    with pytest.raises(LocalProtocolError, match=r"read\(\) of 1 bytes, where 0 were asked for"):
        upload.read(b"1", now=0.0)
    assert stored(upload, 8) == [Progressed(8, 10), ReadPiece(8, 2)]


def test_what_is_logged_does_not_hold_the_bytes() -> None:
    assert repr(SendChunk(b"secret")) == "SendChunk(payload=<6 bytes>)"
