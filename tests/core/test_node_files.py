"""The node: files within messages, files that come in chunks, and what is published of them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from rtcore.binary import encode_payload
from rtcore.encoded import Encoded, Source
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message, publication
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.node import Close, Consult, Files, NodeConfig, NodeEffect
from rtcore.permissions import EVERYTHING, OPEN, Action, Grant, Identity, Scope
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.router import Deliver, Publish, Published, Refused, Request, RouterConfig
from rtcore.session import NO_FILES, Handle
from rtcore.uploads import AbandonFile, AppendToFile, BeginUpload, FileConfig, FinishFile, KeptFile, OpenFile

from .node_talk import STAMP, Served, denial, error, ok, to, token, unauthorized
from .upload_talk import digest

FILES = FileConfig(max_binary_size=100, max_file_size=1000, chunk_size=4, window=8, resume_timeout=60.0)
CONFIG = NodeConfig(files=FILES, websocket_heartbeat=None)
WHOLE = b"abc"
BEGIN: Message = {"upload_id": "u", "channel": "chat", "size": 3, "content_type": "image/png", "filename": "cat.png"}
HEAD: Message = {
    "type": "binary",
    "channel": "chat",
    "content_type": "image/png",
    "filename": "cat.png",
    "size": 3,
}
KEPT = KeptFile("f-1", "/realtime/binary/f-1", 3, digest(WHOLE), WHOLE)
SAID: Message = {"sha256": digest(WHOLE), "file_id": "f-1", "url": "/realtime/binary/f-1"}
NO = Refusal("not_today", "not today", status=403)


class Filing(Served):
    """A node that takes files."""

    def __init__(self, config: NodeConfig = CONFIG, *handled: str, **kwargs: Any) -> None:
        super().__init__(config, *handled, **kwargs)

    @property
    def files(self) -> Files:
        assert self.node.files is not None
        return self.node.files

    def receive_bytes(self, connection_id: str, head: Message, data: bytes) -> list[NodeEffect]:
        payload = encode_payload(head, data)
        return self.node.receive_bytes(connection_id, payload, now=self.now, timestamp=self.timestamp)

    def begin(self, connection_id: str = "c1", **fields: object) -> list[NodeEffect]:
        return self.command(connection_id, "begin_upload", **{**BEGIN, **fields})

    def chunk(self, data: bytes = WHOLE, *, connection_id: str = "c1", last: bool = True) -> list[NodeEffect]:
        head: Message = {"type": "chunk", "upload_id": "u", "offset": 0}
        return self.receive_bytes(connection_id, {**head, "sha256": digest(data)} if last else head, data)

    def finish(self, file: KeptFile = KEPT, key: str = "upload-1") -> list[NodeEffect]:
        return self.files.finished(key, file, now=self.now, timestamp=self.timestamp)

    def publish_file(self, channel: str = "chat", **kwargs: Any) -> list[NodeEffect]:
        head: Message = {"content_type": "image/png", "filename": "cat.png"}
        return self.files.publish_file(channel, KEPT, head=head, now=self.now, timestamp=self.timestamp, **kwargs)


def filing(*, grant: Grant = OPEN, config: NodeConfig = CONFIG) -> Filing:
    """Return a node with Ann on c1, and somebody anonymous on c2 in the channel."""
    served = Filing(config)
    served.connect("c1", "ann", grant=grant)  # e.1 and e.2 are the epochs of her own channel, and of everybody's
    served.connect("c2", None, "chat")  # e.3
    return served


def sent(served: Filing) -> Filing:
    """Have Ann send a file that is to be kept."""
    served.begin()
    served.chunk()
    return served


def said(
    message: Message,
    offset: int,
    epoch: str,
    seq: int,
    *,
    connection_id: str | None = "c1",
    user_id: str | None = "ann",
    data: bytes | None = WHOLE,
    channel: str = "chat",
) -> Encoded:
    return publication(
        message,
        id=f"e-{seq}",
        source=Source(channel, epoch, offset),
        connection_id=connection_id,
        user_id=user_id,
        timestamp=STAMP,
        data=data,
    )


def began(offset: int = 0, *, connection_id: str = "c1", resumed: bool = False, **fields: object) -> Deliver:
    data: Message = {"upload_id": "u", "offset": offset, "window": 8, "chunk_size": 4, "resumed": resumed, **fields}
    return ok(connection_id, data)


def upload(connection_id: str = "c1", **fields: object) -> Deliver:
    return to(connection_id, {"type": "upload", "upload_id": "u", **fields})


def told(offset: int = 1, epoch: str = "e.3", seq: int = 2) -> Message:
    """Return what the sender of the file is told of it."""
    return {
        "file_id": "f-1",
        "url": "/realtime/binary/f-1",
        "size": 3,
        "sha256": digest(WHOLE),
        "content_type": "image/png",
        "filename": "cat.png",
        "channel": "chat",
        "id": f"e-{seq}",
        "offset": offset,
        "epoch": epoch,
    }


def fault(refusal: Refusal, connection_id: str = "c1") -> Deliver:
    return upload(connection_id, error={"code": refusal.code, "message": refusal.message})


# Files within messages


def test_a_file_within_a_message_is_published() -> None:
    served = filing()
    head: Message = {"type": "binary", "channel": "chat", "id": "7", "content_type": "image/png"}
    message: Message = {**head, "size": 3}
    assert served.receive_bytes("c1", head, WHOLE) == [
        Deliver(said(message, 1, "e.3", 2), ("c2",)),
        ok("c1", {"channel": "chat", "offset": 1, "epoch": "e.3"}),
    ]
    # Sent again since the answer was lost, it is not published again.
    assert served.receive_bytes("c1", head, WHOLE) == [ok("c1", {"channel": "chat", "offset": 1, "epoch": "e.3"})]
    assert served.node.stats()["published_messages"] == 1


def test_a_file_is_in_the_history_and_recovered() -> None:
    served = filing()
    served.receive_bytes("c1", {"type": "binary", "channel": "chat", "content_type": "image/png"}, WHOLE)
    message: Message = {"type": "binary", "channel": "chat", "content_type": "image/png", "size": 3}
    heard = said(message, 1, "e.3", 2)
    page = served.node.history({"channel": "chat"}, now=served.now)
    assert isinstance(page, dict)
    publications = page["publications"]
    assert isinstance(publications, list)
    assert [json.loads(bytes(each)) for each in publications] == [json.loads(heard.json)]
    assert json.loads(heard.json)["binary_data"] == "YWJj"
    served.disconnect("c2")
    effects = served.connect("c3", None, "chat", last_event_id="e-1")
    assert Deliver(heard, ("c3",)) in effects
    assert [each.message.data for each in effects if isinstance(each, Deliver) and each.message == heard] == [WHOLE]


def test_filters_look_at_what_is_said_of_a_file() -> None:
    served = Filing()
    served.connect("c1", "ann")
    for connection_id, filters in [
        ("small", {"max_file_size": 2}),
        ("pictures", {"allowed_types": ["image/*"]}),
        ("none", {"binary_data": False}),
        ("all", None),
    ]:
        served.connect(connection_id, None)
        served.command(connection_id, "join_channel", channel="chat", filters=filters)
    png: Message = {"type": "binary", "channel": "chat", "content_type": "image/png"}
    pdf: Message = {"type": "binary", "channel": "chat", "content_type": "application/pdf"}

    def heard(head: Message, data: bytes) -> list[str]:
        effects = served.receive_bytes("c1", head, data)
        return [name for each in effects if isinstance(each, Deliver) for name in each.connections]

    assert heard(png, b"12") == ["small", "pictures", "all"]
    assert heard(png, b"123") == ["pictures", "all"]
    assert heard(pdf, b"12") == ["small", "all"]
    # Of what was missed likewise: the files that are not wanted are not even decoded.
    since: Message = {"epoch": served.node.channels()[0]["epoch"], "offset": 0}
    for connection_id, filters, count in [
        ("small", {"max_file_size": 2}, 2),
        ("pictures", {"allowed_types": ["image/*"]}, 2),
        ("none", {"binary_data": False}, 0),
    ]:
        effects = served.command(connection_id, "join_channel", channel="chat", filters=filters, since=since)
        assert len([each for each in effects if isinstance(each, Deliver) and each.message.data is not None]) == count


def test_a_file_comes_back_to_who_sends_it_nowhere() -> None:
    served = filing(grant=Grant(publish=Scope(exclusive=True), upload=Scope(exclusive=True)))
    message: Message = {"type": "binary", "content_type": "application/octet-stream", "size": 3}
    echo = said(message, 1, "e.4", 2, channel="$connection:c1")
    assert served.receive_bytes("c1", {"type": "binary"}, WHOLE) == [Deliver(echo, ("c1",))]


def test_the_application_may_handle_files() -> None:
    served = Filing(CONFIG, "binary")
    served.connect("c1", "ann")
    [handle] = served.receive_bytes("c1", {"type": "binary", "id": "7"}, WHOLE)
    message: Message = {"type": "binary", "id": "7", "content_type": "application/octet-stream", "size": 3}
    assert handle == Handle("binary", {**message, "data": WHOLE}, Request("c1", "7"))


@pytest.mark.parametrize(
    ("scopes", "action"),
    [
        ({"publish": Scope(exclusive=True)}, Action.PUBLISH),
        ({"upload": Scope(exclusive=True)}, Action.UPLOAD),
        ({"upload": Scope(exclusive=True), "publish": Scope(exclusive=True)}, Action.PUBLISH),
    ],
)
@pytest.mark.parametrize("consults", [False, True])
def test_who_may_not_send_files(scopes: dict[str, Scope], action: Action, consults: bool) -> None:
    served = Filing(CONFIG, consulted=(Action.PUBLISH,) if consults else ())
    served.connect("c1", "ann", grant=Grant(**scopes))  # type: ignore[arg-type]
    refusal = denial(action, "chat", Grant(**scopes))  # type: ignore[arg-type]
    refused = [error("c1", refusal.code, refusal.message)]
    assert served.receive_bytes("c1", {"type": "binary", "channel": "chat", "id": "7"}, WHOLE) == refused
    assert served.begin() == refused
    assert served.files.check("chat", asker="c1", content_type=None, size=3) == refusal
    assert served.files.empty
    assert served.node.stats()["refused_messages"] == 2


def test_the_application_is_asked_before_a_file_is_published() -> None:
    served = Filing(CONFIG, consulted=(Action.PUBLISH,))
    served.connect("c1", "ann")
    head: Message = {"type": "binary", "channel": "chat", "id": "7"}
    message: Message = {**head, "content_type": "application/octet-stream", "size": 3}
    [consult] = served.receive_bytes("c1", head, WHOLE)
    command = Publish("chat", message, Request("c1", "7"), data=WHOLE)
    assert consult == Consult(Action.PUBLISH, "chat", command, Request("c1", "7"), message, Identity("ann", OPEN), 0)
    assert isinstance(consult, Consult)
    assert served.resolve(consult) == [ok("c1", {"channel": "chat", "offset": 1, "epoch": "e.3"})]


def test_a_channel_that_takes_only_small_messages() -> None:
    namespaces = Namespaces([Namespace(pattern="chat", max_message_size=80)])
    served = Filing(attrs.evolve(CONFIG, router=RouterConfig(namespaces=namespaces)))
    served.connect("c1", "ann")
    head: Message = {"type": "binary", "channel": "chat", "id": "7"}
    refused = error("c1", "message_too_large", "a message to this channel has at most 80 bytes")
    assert served.receive_bytes("c1", head, bytes(9)) == [refused]


@pytest.mark.parametrize(("limit", "data"), [(400, WHOLE), (300, None), (20, "refused")])
def test_what_is_kept_need_not_come_along(limit: int, data: bytes | str | None) -> None:
    namespaces = Namespaces([Namespace(pattern="chat", max_message_size=limit)])
    served = filing(config=attrs.evolve(CONFIG, router=RouterConfig(namespaces=namespaces)))
    file = attrs.evolve(KEPT, data=WHOLE * 30)
    effects = sent(served).finish(file if data is None else KEPT)
    if data == "refused":
        refusal = Refusal("message_too_large", "a message to this channel has at most 20 bytes", status=413)
        assert effects == [AbandonFile("upload-1"), fault(refusal)]
    else:
        [delivered, _] = effects
        assert isinstance(delivered, Deliver)
        assert delivered.message.data == data


def test_a_server_that_takes_no_files() -> None:
    served = Served(NodeConfig())
    served.connect("c1", "ann")
    refused = error("c1", NO_FILES.code, NO_FILES.message)
    payload = encode_payload({"type": "binary", "id": "7"}, WHOLE)
    assert served.node.files is None
    assert served.node.receive_bytes("c1", payload, now=served.now, timestamp=STAMP) == [refused]
    assert served.command("c1", "begin_upload", **BEGIN) == [refused]
    assert served.command("c1", "cancel_upload", upload_id="u") == [refused]
    chunk = encode_payload({"type": "chunk", "upload_id": "u", "offset": 0}, WHOLE)
    refused = error("c1", NO_FILES.code, NO_FILES.message, None)
    assert served.node.receive_bytes("c1", chunk, now=served.now, timestamp=STAMP) == [refused]
    assert "uploads" not in served.node.stats()


def test_bytes_of_nobody() -> None:
    with pytest.raises(LocalProtocolError, match="connection 'c1' is not attached"):
        Filing().receive_bytes("c1", {"type": "binary"}, WHOLE)


def test_bytes_of_somebody_whose_time_has_ended() -> None:
    served = filing(grant=token(expires_in=10.0))
    served.now += 10.0
    ended = unauthorized("c1", "the token has expired")
    assert served.receive_bytes("c1", {"type": "binary"}, WHOLE) == ended


def test_whoever_sends_files_too_fast_is_ended() -> None:
    limits = RateLimitConfig(connection=RateLimit(messages=1.0, message_burst=1), warnings=0)
    served = filing(config=attrs.evolve(CONFIG, rate_limits=limits))
    served.receive_bytes("c1", {"type": "binary"}, WHOLE)
    *_, close = served.receive_bytes("c1", {"type": "binary"}, WHOLE)
    assert close == Close("c1", 4429, "too many messages, after several warnings")
    assert "c1" not in served.node


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


# Files that have come otherwise


def test_files_that_have_come_by_http_are_published() -> None:
    served = filing()
    published = Published(Request(None), "e-2", "chat", 1, "e.3")
    message: Message = {"content_type": "image/png", "filename": "cat.png", "type": "binary", "size": 3, **SAID}
    heard = said({**message, "channel": "chat"}, 1, "e.3", 2, connection_id=None)
    assert served.publish_file(user_id="ann") == [Deliver(heard, ("c2",)), published]
    assert served.node.stats()["published_messages"] == 1


def test_they_are_published_to_users() -> None:
    served = filing()
    [delivered, _] = served.publish_file("$user:ann")
    assert isinstance(delivered, Deliver)
    assert delivered.connections == ("c1",)
    assert json.loads(delivered.message.head)["recipient_id"] == "ann"


def test_they_are_published_once_by_their_id() -> None:
    served = filing()
    [_, first] = served.publish_file(grant=EVERYTHING, publisher="robot", id="9")
    assert isinstance(first, Published)
    assert served.publish_file(grant=EVERYTHING, publisher="robot", id="9") == [attrs.evolve(first, repeated=True)]


@pytest.mark.parametrize("scope", ["publish", "upload"])
def test_they_need_the_same_rights(scope: str) -> None:
    served = filing()
    grant = Grant(**{scope: Scope(exclusive=True)})  # type: ignore[arg-type]
    refusal = denial(Action(scope), "chat", grant)
    refused = [Refused(Request(None), refusal)]
    assert served.publish_file(user_id="ann", grant=grant) == refused
    asker = Identity("ann", grant)
    assert served.files.check("chat", asker=asker, content_type="image/png", size=3) == refusal
    # Nor may an API key that may not send files say that there is one somewhere.
    message: Message = {"type": "binary", "url": "/elsewhere"}
    assert served.node.publish("chat", message, grant=grant, now=served.now, timestamp=STAMP) == refused


def test_the_application_is_asked_before_they_are_published() -> None:
    served = Filing(CONFIG, consulted=(Action.PUBLISH,))
    [consult] = served.publish_file(user_id="ann", grant=OPEN, consults=True)
    assert isinstance(consult, Consult)
    assert consult.message is not None
    assert consult.message["url"] == KEPT.url
    assert isinstance(served.resolve(consult)[-1], Published)
    assert served.resolve(consult, NO) == [Refused(Request(None), NO)]


def test_what_files_are_taken() -> None:
    served = filing()
    assert served.files.check("chat", asker=None, content_type=None, size=1000) is None
    refusal = Refusal("file_too_large", "this server takes files of at most 1000 bytes", status=413)
    assert served.files.check("chat", asker=None, content_type=None, size=1001) == refusal
    refused = served.files.check("chat", asker=None, content_type="x", size=3)
    assert refused is not None
    assert refused.code == "invalid_content_type"


def test_files_within_publications_by_http() -> None:
    served = filing()
    message: Message = {"type": "binary", "content_type": "text/plain", "size": 3}
    effects = served.node.publish("chat", message, data=WHOLE, user_id="ann", now=served.now, timestamp=STAMP)
    heard = said({**message, "channel": "chat"}, 1, "e.3", 2, connection_id=None)
    assert effects == [Deliver(heard, ("c2",)), Published(Request(None), "e-2", "chat", 1, "e.3")]


def test_they_count_in_the_rate_of_their_user() -> None:
    limits = RateLimitConfig(user=RateLimit(bytes=1.0, byte_burst=1000))
    served = filing(config=attrs.evolve(CONFIG, rate_limits=limits))
    message: Message = {"type": "binary"}

    def publish(data: bytes) -> NodeEffect:
        return served.node.publish(
            "chat", message, data=data, user_id="ann", grant=OPEN, now=served.now, timestamp=STAMP
        )[-1]

    assert isinstance(publish(bytes(900)), Published)
    refused = publish(bytes(900))
    assert isinstance(refused, Refused)
    assert refused.refusal.code == "rate_limited"
    assert isinstance(publish(b""), Published)


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
