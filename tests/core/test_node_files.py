"""The node: files within messages, and what is published of those that have come otherwise."""

from __future__ import annotations

import json

import attrs
import pytest

from rtcore.binary import encode_payload
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import Close, Consult, NodeConfig, NodeEffect
from rtcore.permissions import EVERYTHING, OPEN, Action, Grant, Identity, Scope
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.router import Deliver, Publish, Published, Refused, Request, RouterConfig
from rtcore.session import NO_FILES, Handle
from rtcore.uploads import AbandonFile

from .node_file_talk import (
    BEGIN,
    CONFIG,
    KEPT,
    NO,
    SAID,
    WHOLE,
    Filing,
    fault,
    filing,
    said,
    sent,
)
from .node_talk import STAMP, Served, denial, error, ok, token, unauthorized

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


def test_what_is_to_be_published_with_them_must_fit_the_channel() -> None:
    small = Namespace(pattern="chat", max_message_size=20)
    served = filing(config=attrs.evolve(CONFIG, router=RouterConfig(namespaces=Namespaces((small,)))))

    def check(message: Message, data: bytes | None) -> Refusal | None:
        return served.files.check("chat", asker=None, content_type=None, size=3, message=message, data=data)

    refusal = Refusal("message_too_large", "a message to this channel has at most 20 bytes", status=413)
    assert check({"type": "binary"}, WHOLE) is None
    assert check({"type": "binary"}, WHOLE * 2) == refusal
    assert check({"url": "/f"}, WHOLE * 10) is None
    assert check({"url": KEPT.url}, None) == refusal


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
