"""Files that come in chunks: who may go on with them, and how each of them ends."""

from __future__ import annotations

import attrs
import pytest

from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.permissions import Identity
from rtcore.router import Refused, Request
from rtcore.uploads import (
    AbandonFile,
    AppendToFile,
    Cancelled,
    CancelUpload,
    Completed,
    Failed,
    FinishFile,
    Progressed,
    UploadEffect,
)

from .upload_talk import ANN, BOB, CONFIG, NOBODY, Sending, begun, command, digest, opened

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


# Going on


def test_a_sender_that_comes_back_goes_on() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    served.appended(4)
    served.disconnect("c1")
    again = command(connection_id="c2")
    assert served.begin(again) == [begun(again, 4, resumed=True)]
    assert served.chunk(4, WHOLE[4:8], connection_id="c2") == [AppendToFile("upload-1", WHOLE[4:8])]
    assert served.appended(4) == [Progressed("c2", "u", 8)]


def test_a_sender_that_comes_back_has_the_whole_window() -> None:
    served = sending(size=20)
    served.chunk(0, b"0123")
    served.chunk(4, b"4567")
    served.disconnect("c1")
    again = command(connection_id="c2", size=20)
    assert served.begin(again) == []
    assert served.appended(4) == []
    assert served.appended(4) == [begun(again, 8, resumed=True)]
    assert served.chunk(8, b"89ab", connection_id="c2") == [AppendToFile("upload-1", b"89ab")]
    assert served.chunk(12, b"cdef", connection_id="c2") == [AppendToFile("upload-1", b"cdef")]


def test_while_the_sender_is_away_nobody_is_told() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    served.disconnect("c1")
    assert served.appended(4) == []
    assert served.begin(command(connection_id="c2")) == [begun(command(connection_id="c2"), 4, resumed=True)]


def test_the_newest_connection_has_it() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    served.appended(4)
    again = command(connection_id="c2")
    assert served.begin(again) == [begun(again, 4, resumed=True)]
    assert served.chunk(4, WHOLE[4:8]) == [failed(UNKNOWN)]
    served.disconnect("c1")
    assert served.chunk(4, WHOLE[4:8], connection_id="c2") == [AppendToFile("upload-1", WHOLE[4:8])]
    assert served.appended(4) == [Progressed("c2", "u", 8)]


def test_asking_again_on_the_same_connection() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    first, second = command(identifier="8"), command(identifier="9")
    assert served.begin(first) == []
    assert served.begin(second) == [Refused(first.request, SUPERSEDED)]
    assert served.appended(4) == [begun(second, 4, resumed=True)]


def test_chunks_before_the_answer() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    again = command(identifier="8")
    assert served.begin(again) == []
    assert served.chunk(4, WHOLE[4:8]) == [AppendToFile("upload-1", WHOLE[4:8])]
    assert served.appended(4) == []
    assert served.chunk(8, WHOLE[8:], WHOLE) == [
        AppendToFile("upload-1", WHOLE[8:]),
        FinishFile("upload-1", digest(WHOLE)),
        begun(again, 10, resumed=True),
    ]
    assert served.appended(6) == [Progressed("c1", "u", 10)]


def test_a_fault_before_the_answer_is_the_answer() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    again = command(identifier="8")
    assert served.begin(again) == []
    assert served.chunk(5, b"x") == [AbandonFile("upload-1"), Refused(again.request, wrong_offset(5))]


def test_whoever_leaves_before_the_answer_is_not_answered() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    assert served.begin(command(identifier="8")) == []
    served.disconnect("c1")
    assert served.appended(4) == []


def test_going_on_while_it_is_to_be_kept() -> None:
    served = received()
    served.disconnect("c1")
    again = command(connection_id="c2")
    assert served.begin(again) == [begun(again, 10, resumed=True)]
    assert served.chunk(10, b"", WHOLE, connection_id="c2") == []
    assert served.appended(2) == [Progressed("c2", "u", 10)]
    assert finish(served) == [Completed("c2", "u", FILE)]
    assert served.chunk(10, b"", WHOLE, connection_id="c2") == []


@pytest.mark.parametrize(
    "changes",
    [{"size": 11}, {"channel": "other"}, {"content_type": "image/gif"}, {"filename": None}],
)
@pytest.mark.parametrize("ended", [False, True])
def test_going_on_with_another_file(changes: dict[str, object], ended: bool) -> None:
    served = completed() if ended else sending()
    other = command(connection_id="c2", **changes)  # type: ignore[arg-type]
    assert served.begin(other) == [Refused(other.request, MISMATCH)]
    assert not served.uploads.recalls(other, "ann")


@pytest.mark.parametrize("identity", [BOB, NOBODY])
@pytest.mark.parametrize("ended", [False, True])
def test_going_on_with_the_file_of_somebody_else(identity: Identity, ended: bool) -> None:
    served = completed() if ended else sending()
    again = command(connection_id="c2")
    assert served.begin(again, identity) == [Refused(again.request, MISMATCH)]
    assert not served.uploads.recalls(again, identity.user_id)
    if not ended:
        assert served.chunk(0, WHOLE[:4]) == [AppendToFile("upload-1", WHOLE[:4])]


def test_somebody_anonymous_goes_on() -> None:
    served = Sending()
    assert served.begin(command(), NOBODY) == [opened(command(), user_id=None), begun(command())]
    served.disconnect("c1")
    again = command(connection_id="c2")
    assert served.begin(again, NOBODY) == [begun(again, resumed=True)]


def test_the_outcome_is_remembered() -> None:
    served = completed()
    again = command(connection_id="c2")
    assert served.uploads.recalls(again, "ann")
    assert served.begin(again) == [begun(again, 10, file=FILE, resumed=True)]
    # It was perhaps sent before that was heard.
    assert served.chunk(10, b"", WHOLE, connection_id="c2") == []
    assert served.wait_until(159.9) == []
    assert served.begin(again) == [begun(again, 10, file=FILE, resumed=True)]
    assert served.wait_until(160.0) == []
    assert not served.uploads.recalls(again, "ann")
    assert served.begin(again) == [opened(again, "upload-2"), begun(again)]


def test_so_many_outcomes_are_remembered() -> None:
    served = Sending()
    for number in range(1, 4):
        served.begin(command(f"u{number}", size=0))
        served.chunk(0, b"", b"", upload_id=f"u{number}")
        finish(served, f"upload-{number}")
        served.now += 1.0
    remembered = [served.uploads.recalls(command(f"u{number}", size=0), "ann") for number in range(1, 4)]
    assert remembered == [False, True, True]
    assert served.uploads.next_timeout() == 161.0


# How many


def test_so_many_files_come_on_one_connection() -> None:
    served = Sending()
    for upload_id in ("u1", "u2"):
        served.begin(command(upload_id))
    third = command("u3")
    assert served.begin(third) == [Refused(third.request, too_many("2 files come on this connection"))]
    # Those that do may be asked for.
    assert served.begin(command("u1")) == [begun(command("u1"), resumed=True)]
    # Nor may a third one be brought here.
    served.begin(command("u3", "c2"))
    assert served.begin(third) == [Refused(third.request, too_many("2 files come on this connection"))]
    served.uploads.cancel(CancelUpload("u1", Request("c1")), "c1", "ann")
    assert served.begin(third) == [begun(third, resumed=True)]


def test_so_many_files_come_at_a_time() -> None:
    served = Sending()
    for connection_id in ("c1", "c2", "c3"):
        served.begin(command(f"of-{connection_id}", connection_id))
    late = command("late", "c4")
    assert served.begin(late) == [Refused(late.request, too_many("3 files are on their way"))]
    served.now = 101.0
    served.disconnect("c2")
    served.now = 102.0
    served.disconnect("c1")
    # Whoever is here goes before whoever is away, and has been for longest.
    assert served.begin(late) == [AbandonFile("upload-2"), opened(late, "upload-4"), begun(late)]
    again = command("of-c1", "c5")
    assert served.begin(again) == [begun(again, resumed=True)]
    lost = command("of-c2", "c6")
    assert served.begin(lost) == [Refused(lost.request, too_many("3 files are on their way"))]


def test_what_is_to_be_kept_makes_no_room() -> None:
    served = received()
    served.disconnect("c1")
    served.begin(command("v", "c2"))
    served.begin(command("w", "c3"))
    late = command("late", "c4")
    assert served.begin(late) == [Refused(late.request, too_many("3 files are on their way"))]


def test_what_files_are_taken() -> None:
    served = Sending(attrs.evolve(CONFIG, allowed_types=("image/*",)))
    large = command(size=101)
    refusal = Refusal("file_too_large", "this server takes files of at most 100 bytes", status=413)
    assert served.begin(large) == [Refused(large.request, refusal)]
    assert served.uploads.check("image/png", 101) == refusal
    page = command(content_type="text/html")
    refusal = Refusal("type_not_allowed", "this server takes no files of type text/html", status=415)
    assert served.begin(page) == [Refused(page.request, refusal)]
    assert served.uploads.check("text/html", 5) == refusal
    assert served.uploads.check("image/png", 100) is None
    assert served.begin(command(size=100)) == [opened(command(size=100)), begun(command(size=100))]


# Giving up


def test_giving_up_keeps_nothing() -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    assert cancel(served) == [AbandonFile("upload-1"), cancelled()]
    assert served.uploads.empty
    assert served.uploads.failures == 0
    assert served.chunk(4, WHOLE[4:8]) == []
    assert served.appended(4) == []
    assert cancel(served) == [cancelled()]


def test_giving_up_what_is_not_known() -> None:
    assert cancel(Sending()) == [cancelled()]


@pytest.mark.parametrize("identity", [BOB, NOBODY])
def test_giving_up_the_file_of_somebody_else(identity: Identity) -> None:
    served = sending()
    assert cancel(served, "c2", identity) == [cancelled("c2")]
    assert served.chunk(0, WHOLE[:4]) == [AppendToFile("upload-1", WHOLE[:4])]
    assert cancel(completed(), "c2", identity) == [cancelled("c2")]


def test_giving_up_on_another_connection() -> None:
    served = sending()
    assert cancel(served, "c2") == [AbandonFile("upload-1"), failed(CANCELLED), cancelled("c2")]
    served = sending()
    served.disconnect("c1")
    assert cancel(served, "c2") == [AbandonFile("upload-1"), cancelled("c2")]


@pytest.mark.parametrize("connection_id", ["c1", "c2"])
def test_giving_up_before_the_answer(connection_id: str) -> None:
    served = sending()
    served.chunk(0, WHOLE[:4])
    again = command(identifier="8")
    served.begin(again)
    answer = Refused(again.request, CANCELLED)
    assert cancel(served, connection_id) == [AbandonFile("upload-1"), answer, cancelled(connection_id)]


def test_giving_up_what_has_come() -> None:
    assert cancel(received()) == [Refused(Request("c1", "9"), COMPLETE)]
    assert cancel(completed()) == [Refused(Request("c1", "9"), COMPLETE)]


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
