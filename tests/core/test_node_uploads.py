"""The node: files that come in chunks."""

from __future__ import annotations

import json

import attrs
import pytest

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.node import Close, Consult
from rtcore.permissions import OPEN, Action, Grant, Identity, Scope
from rtcore.router import Deliver, Request, RouterConfig
from rtcore.uploads import AbandonFile, AppendToFile, BeginUpload, FinishFile, OpenFile

from .node_file_talk import (
    CONFIG,
    HEAD,
    KEPT,
    NO,
    SAID,
    WHOLE,
    Filing,
    began,
    fault,
    filing,
    said,
    sent,
    told,
    upload,
)
from .node_talk import STAMP, Served, denial, error, ok, token, unauthorized
from .upload_talk import digest

# Files in chunks


def test_a_file_in_chunks_is_published_once_it_is_kept() -> None:
    served = filing()
    opened = OpenFile("upload-1", "chat", "ann", "cat.png", "image/png", 3)
    assert served.begin() == [opened, began()]
    assert served.chunk(b"ab", last=False) == [AppendToFile("upload-1", b"ab")]
    assert served.files.appended("upload-1", 2, now=served.now, timestamp=STAMP) == [upload(offset=2)]
    last = served.receive_bytes("c1", {"type": "chunk", "upload_id": "u", "offset": 2, "sha256": digest(WHOLE)}, b"c")
    assert last == [AppendToFile("upload-1", b"c"), FinishFile("upload-1", digest(WHOLE))]
    assert served.node.stats()["uploads"] == 1
    assert served.finish() == [
        Deliver(said({**HEAD, **SAID}, 1, "e.3", 2), ("c2",)),
        upload(offset=3, file=told()),
    ]
    assert served.finish() == []
    counts = {
        name: served.node.stats()[name] for name in ("uploads", "uploads_total", "upload_bytes", "uploads_failed")
    }
    assert counts == {"uploads": 0, "uploads_total": 1, "upload_bytes": 3, "uploads_failed": 0}
    assert served.node.stats()["published_messages"] == 1


def test_what_is_published_of_a_file_is_as_its_sender_says() -> None:
    served = filing()
    served.connect("c3", "ann", "chat")
    served.command("c1", "join_channel", channel="chat")
    message: Message = {"caption": "A cat", "persistent": True, "event": "cat", "echo": False}
    served.begin(message=message, filename=None)
    served.chunk()
    [delivered, completed] = served.finish(attrs.evolve(KEPT, data=None))
    assert isinstance(delivered, Deliver)
    assert (delivered.connections, delivered.skip) == (("c2", "c3", "c1"), "c1")
    assert (delivered.message.event, delivered.message.data) == ("cat", None)
    published = json.loads(delivered.message.json)
    del published["meta"]
    assert published == {
        **message,
        "type": "binary",
        "channel": "chat",
        "content_type": "image/png",
        "size": 3,
        **SAID,
    }
    assert isinstance(completed, Deliver)
    assert "filename" not in json.loads(completed.message.json)["file"]


def test_a_file_to_a_user() -> None:
    served = Filing()
    served.connect("c1", "ann")
    served.connect("c2", "bob")
    assert served.begin(channel=None, recipient_id="bob")[0] == OpenFile(
        "upload-1", "$user:bob", "ann", "cat.png", "image/png", 3
    )
    served.chunk()
    [delivered, completed] = served.finish()
    message: Message = {**HEAD, **SAID, "recipient_id": "bob"}
    del message["channel"]
    assert isinstance(delivered, Deliver)
    assert delivered.connections == ("c2",)
    published = json.loads(delivered.message.head)
    del published["meta"]
    assert published == message
    assert isinstance(completed, Deliver)
    file = json.loads(completed.message.json)["file"]
    assert "channel" not in file
    assert (file["offset"], file["epoch"]) == (1, "e.3")


def test_a_sender_that_has_left_is_still_the_sender() -> None:
    served = sent(filing())
    served.disconnect("c1")
    heard = said({**HEAD, **SAID}, 1, "e.3", 2, connection_id=None)
    assert served.finish() == [Deliver(heard, ("c2",))]
    served.connect("c3", "ann")
    assert served.begin("c3") == [began(3, connection_id="c3", resumed=True, file=told())]


def test_a_sender_that_has_come_back_is_told() -> None:
    served = filing()
    served.begin()
    served.chunk(b"ab", last=False)
    served.files.appended("upload-1", 2, now=served.now, timestamp=STAMP)
    served.disconnect("c1")
    served.connect("c3", "ann")
    assert served.begin("c3") == [began(2, connection_id="c3", resumed=True)]
    served.receive_bytes("c3", {"type": "chunk", "upload_id": "u", "offset": 2, "sha256": digest(WHOLE)}, b"c")
    heard = said({**HEAD, **SAID}, 1, "e.3", 2, connection_id="c3")
    assert served.finish() == [Deliver(heard, ("c2",)), upload("c3", offset=3, file=told())]


@pytest.mark.parametrize("scope", ["publish", "upload"])
@pytest.mark.parametrize("away", [False, True])
def test_rights_are_asked_again_when_a_file_is_kept(scope: str, away: bool) -> None:
    nothing = Scope(exclusive=True)
    served = sent(filing())
    grant = Grant(**{scope: nothing})  # type: ignore[arg-type]
    served.regrant("c1", grant)
    refusal = denial(Action(scope), "chat", grant)
    if away:
        # What it was allowed when it began is what counts for somebody who has left.
        served.disconnect("c1")
        assert len(served.finish()) == 1
    else:
        assert served.finish() == [AbandonFile("upload-1"), fault(refusal)]
        assert served.node.stats()["uploads_failed"] == 1
        assert served.node.stats()["published_messages"] == 0


def test_a_member_that_has_left_may_not_publish() -> None:
    namespaces = Namespaces([Namespace(pattern="chat", publish=Access.MEMBERS)])
    served = Filing(attrs.evolve(CONFIG, router=RouterConfig(namespaces=namespaces)))
    served.connect("c1", "ann", "chat")
    sent(served)
    served.disconnect("c1")
    assert served.finish() == [AbandonFile("upload-1")]


def test_the_credential_of_a_sender_that_has_left_may_end() -> None:
    served = sent(filing(grant=token(expires_in=10.0)))
    served.disconnect("c1")
    served.timestamp += 10_000
    assert served.finish() == [AbandonFile("upload-1")]
    served = sent(filing(grant=token(token_id="t")))
    served.revoke(token_id="t")
    assert served.finish() == [AbandonFile("upload-1")]


def test_the_time_of_a_sender_may_end() -> None:
    served = sent(filing(grant=token(expires_in=10.0)))
    served.now += 10.0
    refusal = Refusal("token_expired", "the token has expired: get another one", status=401)
    assert served.finish() == [AbandonFile("upload-1"), fault(refusal)]


def test_a_file_that_cannot_be_kept() -> None:
    served = sent(filing())
    full = Refusal("store_full", "no room", status=507)
    assert served.files.failed("upload-1", full, now=served.now, timestamp=STAMP) == [fault(full)]
    assert served.files.empty


def test_giving_up() -> None:
    served = filing()
    served.begin()
    assert served.command("c1", "cancel_upload", upload_id="u") == [
        AbandonFile("upload-1"),
        ok("c1", {"upload_id": "u"}),
    ]
    sent(served)
    complete = error("c1", "upload_complete", "all of this file has come: it cannot be cancelled any more")
    assert served.command("c1", "cancel_upload", upload_id="u") == [complete]


def test_chunks_of_nothing() -> None:
    [delivered] = filing().chunk()
    assert isinstance(delivered, Deliver)
    assert json.loads(delivered.message.json)["error"]["code"] == "unknown_upload"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"size": 1001}, "file_too_large"),
        ({"size": -1}, "invalid_upload"),
        ({"filename": ".."}, "invalid_filename"),
        ({"content_type": "x"}, "invalid_content_type"),
        ({"channel": "$broadcast"}, "invalid_channel"),
    ],
)
@pytest.mark.parametrize("consults", [False, True])
def test_files_that_are_refused(fields: Message, code: str, consults: bool) -> None:
    served = Filing(CONFIG, consulted=(Action.PUBLISH,) if consults else ())
    served.connect("c1", "ann")
    [refused] = served.begin(**fields)
    assert isinstance(refused, Deliver)
    assert json.loads(refused.message.json)["code"] == code


# What the application is asked


def consulting() -> Filing:
    served = Filing(CONFIG, consulted=(Action.PUBLISH,))
    served.connect("c1", "ann")
    return served


def ask(served: Filing, connection_id: str = "c1") -> Consult:
    [consult] = served.begin(connection_id)
    assert isinstance(consult, Consult)
    return consult


def test_the_application_is_asked_before_a_file_begins() -> None:
    served = consulting()
    consult = ask(served)
    command = consult.command
    assert isinstance(command, BeginUpload)
    request = Request("c1", "7")
    assert consult == Consult(Action.PUBLISH, "chat", command, request, HEAD, Identity("ann", OPEN), 0)
    assert served.files.empty
    opened = OpenFile("upload-1", "chat", "ann", "cat.png", "image/png", 3)
    assert served.resolve(consult) == [opened, began()]
    # It has said yes to the whole file.
    served.chunk()
    assert len(served.finish()) == 1


def test_what_the_application_refuses_does_not_begin() -> None:
    served = consulting()
    assert served.resolve(ask(served), NO) == [error("c1", "not_today", "not today")]
    assert served.files.empty


def test_rights_may_change_while_it_is_asked() -> None:
    served = consulting()
    consult = ask(served)
    grant = Grant(upload=Scope(exclusive=True))
    served.regrant("c1", grant)
    refusal = denial(Action.UPLOAD, "chat", grant)
    assert served.resolve(consult) == [error("c1", refusal.code, refusal.message)]


def test_whoever_has_left_is_not_answered() -> None:
    served = consulting()
    consult = ask(served)
    served.disconnect("c1")
    served.connect("c1", "ann")
    assert served.resolve(consult) == []
    assert served.files.empty


def test_it_is_asked_again_before_a_file_goes_on_but_not_once_it_is_complete() -> None:
    served = consulting()
    served.resolve(ask(served))
    served.disconnect("c1")
    served.connect("c3", "ann")
    assert served.resolve(ask(served, "c3")) == [began(connection_id="c3", resumed=True)]
    served.chunk(connection_id="c3")
    served.finish()
    outcome = began(3, connection_id="c3", resumed=True, file=told(epoch="e.3", seq=1))
    assert served.begin("c3") == [outcome]


SUPERSEDED = error("c1", "upload_superseded", "a later begin_upload has taken its place")


def test_an_answer_that_comes_late_does_not_take_a_file_back() -> None:
    served = consulting()
    late = ask(served)
    served.connect("c3", "ann")
    opened = OpenFile("upload-1", "chat", "ann", "cat.png", "image/png", 3)
    assert served.resolve(ask(served, "c3")) == [opened, began(connection_id="c3")]
    assert served.resolve(late) == [SUPERSEDED]
    assert served.chunk(b"ab", connection_id="c3", last=False) == [AppendToFile("upload-1", b"ab")]


def test_what_has_completed_while_it_was_asked() -> None:
    served = consulting()
    served.resolve(ask(served))
    served.chunk()
    consult = ask(served)
    served.finish()
    outcome = began(3, resumed=True, file=told(epoch="e.3", seq=1))
    assert served.resolve(consult, NO) == [outcome]


# Time and the end


def test_senders_that_have_left_are_waited_for() -> None:
    served = filing()
    served.begin()
    served.disconnect("c1")
    served.disconnect("c2")
    assert served.node.next_timeout() is not None
    assert served.wait_until(160.0) == [AbandonFile("upload-1")]
    served.wait_until(1_000.0)
    served.wait_until(10_000.0)
    assert served.node.empty


def test_senders_that_send_nothing_are_told() -> None:
    served = Filing()
    served.connect("c1", "ann")
    served.begin()
    idle = Refusal("upload_timeout", "nothing has come of this file for too long: begin again", status=408)
    assert served.wait_until(700.0) == [AbandonFile("upload-1"), fault(idle)]


def test_a_node_is_not_empty_while_files_are_remembered() -> None:
    served = Filing()
    served.connect("c1", "ann")
    sent(served).finish()
    served.disconnect("c1")
    served.wait_until(150.0)
    assert not served.node.empty
    for at in (160.0, 1_000.0, 10_000.0):
        served.wait_until(at)
    assert served.node.empty


def test_a_node_that_stops_gives_up_all_files() -> None:
    served = filing()
    served.begin()
    served.begin("c2", upload_id="v")
    *others, first, second = served.node.drain(now=served.now, timestamp=STAMP)
    assert [first, second] == [AbandonFile("upload-1"), AbandonFile("upload-2")]
    assert all(isinstance(each, Deliver | Close) for each in others)
    assert served.finish() == []
    assert Served().node.drain(now=100.0, timestamp=STAMP) == []


def test_whoever_is_sent_away_hears_nothing_more_of_files() -> None:
    served = sent(filing(grant=token()))
    ended = served.revoke(token_id="t")
    assert isinstance(ended, list)
    assert ended == unauthorized("c1", "the token was revoked")
    assert served.finish() == [AbandonFile("upload-1")]
