"""Files that come in chunks: from their beginning to each of their ends."""

from __future__ import annotations

import attrs
import pytest

from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.router import Refused, Request
from rtcore.uploads import (
    AbandonFile,
    AppendToFile,
    CancelUpload,
    Completed,
    FinishFile,
    Progressed,
)

from .upload_talk import CONFIG, Sending, begun, command, digest, opened
from .uploads_begun import (
    DENIED,
    FILE,
    FULL,
    IDLE,
    UNKNOWN,
    WHOLE,
    cancel,
    completed,
    failed,
    finish,
    incomplete,
    received,
    sending,
    wrong_offset,
)

# From beginning to end


def test_a_file_comes_in_chunks() -> None:
    served = Sending()
    assert served.uploads.empty
    assert served.begin(command()) == [opened(command()), begun(command())]
    assert served.chunk(0, WHOLE[:4]) == [AppendToFile("upload-1", WHOLE[:4])]
    assert served.chunk(4, WHOLE[4:8]) == [AppendToFile("upload-1", WHOLE[4:8])]
    assert served.appended(8) == [Progressed("c1", "u", 8)]
    assert served.chunk(8, WHOLE[8:], WHOLE) == [
        AppendToFile("upload-1", WHOLE[8:]),
        FinishFile("upload-1", digest(WHOLE)),
    ]
    assert served.appended(2) == [Progressed("c1", "u", 10)]
    assert len(served.uploads) == 1
    assert finish(served) == [Completed("c1", "u", FILE)]
    assert len(served.uploads) == 0
    assert not served.uploads.empty
    assert served.wait_until(160.0) == []
    assert served.uploads.empty
    assert (served.uploads.total, served.uploads.bytes, served.uploads.failures) == (1, 10, 0)


def test_the_digest_may_come_alone() -> None:
    served = sending(size=4)
    assert served.chunk(0, b"abcd") == [AppendToFile("upload-1", b"abcd")]
    assert served.chunk(4, b"", b"abcd") == [FinishFile("upload-1", digest(b"abcd"))]


def test_an_empty_file_is_one_empty_chunk() -> None:
    served = sending(size=0)
    assert served.chunk(0, b"", b"") == [FinishFile("upload-1", digest(b""))]
    assert finish(served) == [Completed("c1", "u", FILE)]


def test_an_empty_chunk_changes_nothing() -> None:
    served = sending()
    assert served.chunk(0, b"") == []
    assert served.chunk(0, WHOLE[:4]) == [AppendToFile("upload-1", WHOLE[:4])]


def test_the_messages_to_senders() -> None:
    assert begun(command(), 4).to_data() == {
        "upload_id": "u",
        "offset": 4,
        "window": 8,
        "chunk_size": 4,
        "resumed": False,
    }
    assert begun(command(), 10, file=FILE, resumed=True).to_data() == {
        "upload_id": "u",
        "offset": 10,
        "window": 8,
        "chunk_size": 4,
        "resumed": True,
        "file": FILE,
    }
    assert Progressed("c1", "u", 4).to_message() == {"type": "upload", "upload_id": "u", "offset": 4}
    assert Completed("c1", "u", FILE).to_message() == {"type": "upload", "upload_id": "u", "offset": 10, "file": FILE}
    error: Message = {"code": "store_full", "message": "no room"}
    assert failed(FULL).to_message() == {"type": "upload", "upload_id": "u", "error": error}
    later = attrs.evolve(FULL, retry_after=5)
    assert failed(later).to_message()["error"] == {**error, "retry_after": 5}


# What breaks the protocol


@pytest.mark.parametrize(
    ("offset", "data", "whole", "refusal"),
    [
        *((offset, b"x", None, wrong_offset(offset)) for offset in (0, 3, 5, 10, 11)),
        (4, b"45678", None, Refusal("chunk_too_large", "a chunk has at most 4 bytes: begin_upload tells", status=413)),
        (4, b"456", b"0123456", incomplete(7)),
        (4, b"", b"0123", incomplete(4)),
    ],
)
def test_chunks_that_end_an_upload(offset: int, data: bytes, whole: bytes | None, refusal: Refusal) -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    assert served.chunk(offset, data, whole) == [AbandonFile("upload-1"), failed(refusal)]
    assert served.uploads.empty
    assert served.uploads.failures == 1
    # What is on its way still does not bring it back, and is no fault.
    assert served.chunk(4, WHOLE[4:8]) == []
    assert served.begin(command()) == [opened(command(), "upload-2"), begun(command())]


def test_a_digest_that_comes_one_byte_too_early_ends_an_upload() -> None:
    served = sending(size=5)
    early = Refusal("incomplete", "'sha256' comes with the last chunk, and 4 of 5 bytes have come")
    assert served.chunk(0, b"0123", b"0123") == [AbandonFile("upload-1"), failed(early)]


def test_more_than_was_said_ends_an_upload() -> None:
    served = sending(size=6)
    served.chunk(0, WHOLE[:4])
    too_long = Refusal("too_long", "more has come than the 6 bytes that begin_upload said")
    assert served.chunk(4, WHOLE[4:7]) == [AbandonFile("upload-1"), failed(too_long)]


def test_more_than_the_window_ends_an_upload() -> None:
    served = sending(size=20)
    served.chunk(0, b"0123")
    served.chunk(4, b"4567")
    text = "at most 8 bytes may be under way and not stored: wait until more are"
    ended = failed(Refusal("window_exceeded", text, status=429))
    assert served.chunk(8, b"8") == [AbandonFile("upload-1"), ended]
    served = sending(size=20)
    served.chunk(0, b"0123")
    served.chunk(4, b"4567")
    assert served.appended(1) == [Progressed("c1", "u", 1)]
    assert served.chunk(8, b"8") == [AppendToFile("upload-1", b"8")]
    assert served.chunk(9, b"9") == [AbandonFile("upload-1"), ended]


def test_what_comes_behind_the_last_chunk() -> None:
    served = received()
    # Whoever has come back cannot know that it was received.
    assert served.chunk(10, b"", WHOLE) == []
    too_long = Refusal("too_long", "more has come than the 10 bytes that begin_upload said")
    assert served.chunk(10, b"x") == [AbandonFile("upload-1"), failed(too_long)]
    assert finish_of_none(served)


def test_a_chunk_again_behind_the_last_one() -> None:
    served = received()
    assert served.chunk(8, WHOLE[8:], WHOLE) == [AbandonFile("upload-1"), failed(wrong_offset(8, 10))]


def finish_of_none(served: Sending) -> bool:
    return served.uploads.finished("upload-1") is None


@pytest.mark.parametrize("connection_id", ["c1", "c2"])
def test_chunks_of_what_is_not_known(connection_id: str) -> None:
    served = sending()
    assert served.chunk(0, b"x", upload_id="v", connection_id=connection_id) == [failed(UNKNOWN, connection_id, "v")]


def test_chunks_on_another_connection() -> None:
    served = sending()
    assert served.chunk(0, b"x", connection_id="c2") == [failed(UNKNOWN, "c2")]
    served.begin(command("v", "c2"))
    assert served.chunk(0, b"x", connection_id="c2") == [failed(UNKNOWN, "c2")]
    assert served.chunk(0, WHOLE[:4]) == [AppendToFile("upload-1", WHOLE[:4])]


def test_late_chunks_are_known_for_a_while() -> None:
    served = Sending()
    for number in range(70):
        served.begin(command(f"u{number}"))
        served.uploads.cancel(CancelUpload(f"u{number}", Request("c1")), "c1", "ann")
    assert served.chunk(0, b"x", upload_id="u6") == []
    assert served.chunk(0, b"x", upload_id="u5") == [failed(UNKNOWN, upload_id="u5")]
    served.disconnect("c1")
    assert served.chunk(0, b"x", upload_id="u69") == [failed(UNKNOWN, upload_id="u69")]


def test_which_files_come_on_a_connection() -> None:
    served = Sending()
    assert "u" not in served.uploads.sent_by("c1")
    served.begin(command())
    assert "u" in served.uploads.sent_by("c1")
    assert "u" not in served.uploads.sent_by("c2")
    cancel(served)
    assert "u" not in served.uploads.sent_by("c1")


# What whoever keeps files tells


def test_a_file_that_cannot_be_stored() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    assert served.uploads.failed("upload-1", FULL) == [failed(FULL)]
    assert served.uploads.empty
    assert served.uploads.failures == 1
    assert served.chunk(4, WHOLE[4:8]) == []
    assert served.uploads.failed("upload-1", FULL) == []


def test_a_file_that_cannot_be_kept() -> None:
    served = received()
    served.disconnect("c1")
    assert served.uploads.failed("upload-1", FULL) == []
    again = command(connection_id="c2")
    assert served.begin(again) == [opened(again, "upload-2"), begun(again)]


def test_a_fault_of_the_store_before_the_answer() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    again = command(identifier="8")
    served.begin(again)
    assert served.uploads.failed("upload-1", FULL) == [Refused(again.request, FULL)]


def test_a_file_that_may_not_be_published() -> None:
    served = received()
    upload = served.uploads.finished("upload-1")
    assert upload is not None
    assert served.uploads.fail(upload, DENIED) == [AbandonFile("upload-1"), failed(DENIED)]
    assert served.uploads.empty


def test_a_file_is_complete_while_its_sender_is_away() -> None:
    served = received()
    served.disconnect("c1")
    assert finish(served) == []
    again = command(connection_id="c2")
    assert served.begin(again) == [begun(again, 10, file=FILE, resumed=True)]


def test_what_was_given_up_is_of_no_account() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    cancel(served)
    assert served.appended(4) == []
    assert served.uploads.finished("upload-1") is None
    assert served.uploads.failed("upload-1", FULL) == []


@pytest.mark.parametrize("size", [-1, 5])
def test_more_cannot_be_stored_than_was_to_be(size: int) -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    with pytest.raises(LocalProtocolError, match="cannot be stored: 4 were to be"):
        served.appended(size)
    assert served.appended(4) == [Progressed("c1", "u", 4)]


def test_what_has_not_come_whole_cannot_be_kept() -> None:
    served = sending()
    with pytest.raises(LocalProtocolError, match="'upload-1' was not to be kept yet"):
        served.uploads.finished("upload-1")
    assert served.chunk(0, WHOLE[:4]) == [AppendToFile("upload-1", WHOLE[:4])]


# Time


def test_a_sender_is_waited_for_until_it_is_forgotten() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    served.disconnect("c1")
    assert served.wait_until(159.9) == []
    assert served.wait_until(160.0) == [AbandonFile("upload-1")]
    assert served.uploads.empty
    assert served.uploads.failures == 1
    again = command(connection_id="c2")
    assert served.begin(again) == [opened(again, "upload-2"), begun(again)]


def test_a_sender_that_sends_nothing_is_told() -> None:
    served = sending()
    served.now = 110.0
    served.chunk(0, WHOLE[:4])
    served.now = 120.0
    served.appended(4)
    assert served.uploads.next_timeout() == 130.0
    assert served.wait_until(130.0) == []
    assert served.uploads.next_timeout() == 150.0
    assert served.wait_until(150.0) == [AbandonFile("upload-1"), failed(IDLE)]
    assert served.uploads.empty


def test_a_sender_that_waits_for_the_store_is_not_idle() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    assert served.wait_until(130.0) == []
    assert served.wait_until(160.0) == []
    served.appended(4)
    assert served.wait_until(189.9) == []
    assert served.wait_until(190.0) == [AbandonFile("upload-1"), failed(IDLE)]


def test_what_is_to_be_kept_takes_its_time() -> None:
    served = received()
    assert served.uploads.next_timeout() is None
    served.disconnect("c1")
    assert served.uploads.next_timeout() is None
    assert served.wait_until(10_000.0) == []
    served.begin(command(connection_id="c2"))
    assert served.uploads.next_timeout() is None
    assert finish(served) == [Completed("c2", "u", FILE)]


def test_what_is_due_first_comes_first() -> None:
    served = completed()
    served.now = 101.0
    served.begin(command("v"))
    assert served.uploads.next_timeout() == 131.0
    served.now = 125.0
    served.disconnect("c1")
    assert served.uploads.next_timeout() == 160.0
    assert served.wait_until(160.0) == []
    assert served.wait_until(185.0) == [AbandonFile("upload-2")]
    assert served.uploads.next_timeout() is None


def test_nobody_is_waited_for() -> None:
    served = Sending(attrs.evolve(CONFIG, resume_timeout=0))
    served.begin(command())
    served.disconnect("c1")
    assert served.wait_until(served.now) == [AbandonFile("upload-1")]


def test_a_server_that_stops_keeps_nothing() -> None:
    served = completed()
    served.begin(command("v", size=0))
    served.chunk(0, b"", b"", upload_id="v")
    served.begin(command("w"))
    served.begin(command("x", "c2"))
    served.disconnect("c2")
    assert served.uploads.drain() == [AbandonFile(f"upload-{number}") for number in (2, 3, 4)]
    assert served.uploads.empty
    assert served.uploads.next_timeout() is None
    assert served.uploads.finished("upload-2") is None
    assert served.uploads.drain() == []
    served.disconnect("c1")
