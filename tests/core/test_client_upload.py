"""The machine of a file that a client sends in chunks."""

from __future__ import annotations

from hashlib import sha256

import pytest

from rtcore.binary import encode_payload
from rtcore.client import Ask, Done, Failed, Progressed, ReadPiece, SendChunk, Upload, UploadState

from .client_upload_talk import CONTENT, FORGOTTEN, answer, begin, begun, cancel, chunk, kept, new, read, sent, stored

# One connection


def test_file_is_sent_in_chunks_within_the_window() -> None:
    upload = new()
    assert upload.state is UploadState.OFFLINE
    assert upload.upload_id == "u"
    assert upload.connected(now=0.0) == [begin(1)]
    assert upload.state is UploadState.ASKING
    assert answer(upload, 1) == [Progressed(0, 10), ReadPiece(0, 4)]
    assert upload.state is UploadState.SENDING
    assert read(upload, 0) == [chunk(0), ReadPiece(4, 4)]
    # Both are under way, and there is no room for a third.
    assert read(upload, 4) == [chunk(4)]
    assert stored(upload, 4) == [Progressed(4, 10), ReadPiece(8, 2)]
    assert stored(upload, 4) == []
    assert read(upload, 8) == [chunk(8)]
    assert stored(upload, 10) == [Progressed(10, 10)]
    message = kept()
    assert upload.received(message, now=0.0) == [Done(message["file"])]  # type: ignore[arg-type]
    assert upload.state is UploadState.ENDED
    assert upload.next_timeout() is None


def test_all_is_told_as_progress_before_the_end() -> None:
    upload = sent()
    message = kept()
    assert upload.received(message, now=0.0) == [Progressed(10, 10), Done(message["file"])]  # type: ignore[arg-type]


def test_file_of_one_chunk() -> None:
    upload = begun(b"abc")
    assert read(upload, 0, b"abc") == [chunk(0, b"abc")]


def test_empty_file_is_one_chunk_that_is_not_read() -> None:
    upload = new(0)
    assert upload.connected(now=0.0) == [begin(1, 0)]
    assert answer(upload, 1) == [Progressed(0, 0), chunk(0, b"")]
    # Whether it has come, nobody knows after a loss.
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, resumed=True) == [chunk(0, b"")]
    message = kept(b"")
    assert upload.received(message, now=0.0) == [Done(message["file"])]  # type: ignore[arg-type]


def test_what_is_sent_to_a_user_names_the_user() -> None:
    head = {"recipient_id": "bob", "message": {"note": "hi"}}
    assert Upload("u", head, 3).connected(now=0.0) == [
        Ask(1, "begin_upload", {"recipient_id": "bob", "message": {"note": "hi"}, "upload_id": "u", "size": 3}),
    ]


def test_window_smaller_than_a_chunk() -> None:
    upload = new()
    upload.connected(now=0.0)
    assert answer(upload, 1, window=3) == [Progressed(0, 10), ReadPiece(0, 3)]
    assert read(upload, 0, size=3) == [chunk(0, size=3)]
    # A piece is not read before all of it may be sent: the server counts what is small like a message.
    assert stored(upload, 2) == [Progressed(2, 10)]
    assert stored(upload, 3) == [Progressed(3, 10), ReadPiece(3, 3)]


def test_no_more_than_a_mebibyte_is_read_at_a_time() -> None:
    upload = new(2**30)
    upload.connected(now=0.0)
    effects = answer(upload, 1, window=2**30, chunk_size=2**30)
    assert effects == [Progressed(0, 2**30), ReadPiece(0, 2**20)]


def test_fewer_bytes_than_asked_for_are_sent_as_they_are() -> None:
    upload = begun()
    assert read(upload, 0, size=1) == [chunk(0, size=1), ReadPiece(1, 4)]
    assert read(upload, 1) == [chunk(1)]
    assert stored(upload, 1) == [Progressed(1, 10), ReadPiece(5, 4)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_read_may_be_bytes_of_any_kind(kind: type) -> None:
    upload = begun()
    assert upload.read(kind(CONTENT[:4]), now=0.0) == [chunk(0), ReadPiece(4, 4)]


# Other connections


def test_file_goes_on_where_the_server_has_it() -> None:
    upload = begun()
    read(upload, 0)
    read(upload, 4)
    assert upload.lost(now=1.0) == []
    assert upload.state is UploadState.OFFLINE
    assert upload.connected(now=2.0) == [begin(2)]
    assert answer(upload, 2, 4) == [Progressed(4, 10), ReadPiece(4, 4)]
    # It is sent again, and has been hashed before.
    assert read(upload, 4) == [chunk(4), ReadPiece(8, 2)]
    assert read(upload, 8) == [chunk(8)]


def test_file_begins_anew_where_the_server_does_not_know_it() -> None:
    upload = begun()
    read(upload, 0)
    read(upload, 4)
    stored(upload, 8)
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, 0) == [Progressed(0, 10)]
    # The piece that was being read is not the next any more.
    assert read(upload, 8) == [ReadPiece(0, 4)]
    assert read(upload, 0) == [chunk(0), ReadPiece(4, 4)]
    assert read(upload, 4) == [chunk(4)]
    assert stored(upload, 8) == [Progressed(8, 10), ReadPiece(8, 2)]
    assert read(upload, 8) == [chunk(8)]


def test_server_may_take_other_chunks_than_before() -> None:
    upload = begun()
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, 0, window=5, chunk_size=3) == []
    # What was read is next, and too much.
    assert read(upload, 0) == [ReadPiece(0, 3)]
    assert read(upload, 0, size=3) == [chunk(0, size=3)]


def test_server_that_the_client_comes_back_to_may_have_more_than_the_one_between() -> None:
    upload = begun()
    read(upload, 0)
    read(upload, 4)
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, 0) == [ReadPiece(0, 4)]
    assert read(upload, 0) == [chunk(0), ReadPiece(4, 4)]
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 3, 8, resumed=True) == [Progressed(8, 10)]
    assert read(upload, 4) == [ReadPiece(8, 2)]
    assert read(upload, 8) == [chunk(8)]


def test_piece_that_was_read_offline_is_sent_if_it_is_next() -> None:
    upload = begun()
    upload.lost(now=0.0)
    assert read(upload, 0) == []
    upload.connected(now=0.0)
    assert answer(upload, 2, 0) == [ReadPiece(0, 4)]
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 3, 0) == []
    assert read(upload, 0) == [chunk(0), ReadPiece(4, 4)]


def test_hash_is_of_what_was_read_first() -> None:
    upload = begun(b"abcd")
    read(upload, 0, b"abcd")
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, 0, resumed=True) == [ReadPiece(0, 4)]
    # The file has changed: the server will find that out.
    head = {"type": "chunk", "upload_id": "u", "offset": 0, "sha256": sha256(b"abcd").hexdigest()}
    assert read(upload, 0, b"xyzw") == [SendChunk(encode_payload(head, b"xyzw"))]


def test_piece_of_which_a_part_was_hashed() -> None:
    upload = begun()
    read(upload, 0)
    upload.lost(now=0.0)
    assert read(upload, 4, size=2) == []
    upload.connected(now=0.0)
    assert answer(upload, 2, 2, window=99, chunk_size=99) == [Progressed(2, 10), ReadPiece(2, 8)]
    assert read(upload, 2, size=8) == [chunk(2, size=8)]


def test_file_that_was_completed_while_the_client_was_away() -> None:
    upload = sent()
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    file = kept()["file"]
    assert answer(upload, 2, 10, resumed=True, file=file) == [Progressed(10, 10), Done(file)]  # type: ignore[arg-type]


def test_file_that_is_being_kept_while_the_client_was_away() -> None:
    upload = sent()
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, 10, resumed=True) == [Progressed(10, 10)]
    # Of what has come not all is stored yet.
    assert stored(upload, 9) == []
    message = kept()
    assert upload.received(message, now=0.0) == [Done(message["file"])]  # type: ignore[arg-type]


def test_last_chunk_that_was_lost_is_sent_again() -> None:
    upload = sent()
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, 8, resumed=True) == [ReadPiece(8, 2)]
    assert read(upload, 8) == [chunk(8)]


def test_file_of_which_all_was_sent_is_not_begun_anew() -> None:
    upload = sent()
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    assert answer(upload, 2, 0) == [cancel(3), Failed("connection_lost", FORGOTTEN)]


def test_doubt_lasts_until_an_answer() -> None:
    upload = sent()
    upload.lost(now=0.0)
    upload.connected(now=0.0)
    upload.refused(2, "timeout", "late", now=0.0)
    upload.handle_timeout(now=1.0)
    upload.refused(3, "too_many_uploads", "later", 5.0, now=1.0)
    assert upload.handle_timeout(now=6.0) == [begin(4)]
    assert answer(upload, 4, 0, resumed=True) == [cancel(5), Failed("connection_lost", FORGOTTEN)]


def test_news_of_a_lost_connection_change_nothing_but_an_end_does() -> None:
    upload = sent()
    upload.lost(now=0.0)
    assert stored(upload, 10) == []
    message = kept()
    assert upload.received(message, now=0.0) == [Progressed(10, 10), Done(message["file"])]  # type: ignore[arg-type]
