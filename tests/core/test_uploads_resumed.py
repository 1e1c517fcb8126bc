"""Files that come in chunks: who may go on with them or give them up, and how many there are."""

from __future__ import annotations

import attrs
import pytest

from rtcore.errors import Refusal
from rtcore.permissions import Identity
from rtcore.router import Refused, Request
from rtcore.uploads import (
    AbandonFile,
    AppendToFile,
    CancelUpload,
    Completed,
    FinishFile,
    Progressed,
)

from .upload_talk import BOB, CONFIG, NOBODY, Sending, begun, command, digest, opened
from .uploads_begun import (
    CANCELLED,
    COMPLETE,
    FILE,
    MISMATCH,
    SUPERSEDED,
    UNKNOWN,
    WHOLE,
    cancel,
    cancelled,
    completed,
    failed,
    finish,
    received,
    sending,
    too_many,
    wrong_offset,
)

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
