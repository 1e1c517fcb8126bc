"""Files in simulations: what is kept of them, how clients send them, and what counts as a failure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import attrs
import pytest

from rtcore.client import Answered, ClientConfig
from rtcore.encoded import Encoded, Source
from rtcore.messages import Message, encode
from rtcore.node import NodeConfig
from rtcore.simulation import Choices, ServerConfig, SimulatedUpload, SimulatedWebSocketClient
from rtcore.simulation.keeper import Keeper
from rtcore.uploads import AbandonFile, AppendToFile, FileConfig, FinishFile, OpenFile

from .room import Room

FILES = FileConfig(chunk_size=4, window=8, max_uploads=2, max_uploads_per_connection=2, resume_timeout=3.0)
CONFIG = ServerConfig(node=NodeConfig(files=FILES), inline_max_size=10)
CONTENT = b"0123456789abcdef"


class Desk(Room):
    """The room, on a server that takes files."""

    def __init__(self, *, config: ServerConfig = CONFIG) -> None:
        super().__init__(config=config)

    @property
    def keeper(self) -> Keeper:
        return self.server.keeper

    def send(
        self, content: bytes = CONTENT, client: SimulatedWebSocketClient | None = None, **fields: object
    ) -> SimulatedUpload:
        """Let ann send a file."""
        if "recipient_id" not in fields:
            fields.setdefault("channel", "chat")
        return self.simulation.send_file(client or self.ann, content, **fields)

    def until(self, condition: Callable[[], bool]) -> None:
        self.simulation.run_until(condition)

    def lines(self, part: str) -> list[str]:
        return [line for line in self.simulation.world.trace.lines() if part in line]


def files(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message["type"] == "binary"]


def told(upload: SimulatedUpload) -> tuple[bool, str | None]:
    return upload.file is not None, upload.code


# Within messages


def test_a_file_in_a_message_comes_in_the_form_of_each_wire() -> None:
    desk = Desk()
    cyd = desk.simulation.add_websocket_client("cyd", user_id="cyd", base64=True)
    cyd.join("chat")
    desk.simulation.run_for(1.0)
    call = desk.simulation.publish(desk.ann, b"hello", channel="chat", content_type="text/plain", echo=False)
    desk.simulation.rest()
    assert isinstance(call.outcome, Answered)
    assert files(desk.ann.heard) == []
    [frame], [event], [text] = (files(client.heard) for client in (desk.bob, desk.eve, cyd))
    assert (frame["data"], frame["size"], frame["content_type"]) == (b"hello", 5, "text/plain")
    assert event["binary_data"] == text["binary_data"] == "aGVsbG8="
    assert "data" not in event
    assert desk.simulation.contents.heard == 3
    desk.simulation.empty()


def test_a_file_in_a_message_survives_the_loss_of_the_connection() -> None:
    desk = Desk()
    call = desk.simulation.publish(desk.ann, b"hello", channel="chat")
    desk.ann.change_address()
    desk.bob.change_address()
    desk.simulation.rest()
    assert isinstance(call.outcome, Answered)
    assert [message["data"] for message in files(desk.bob.heard)] == [b"hello"]


# In chunks


@pytest.mark.parametrize("size", [0, 1, 4, 10, 11, 16])
def test_a_file_is_kept_and_published(size: int) -> None:
    desk = Desk()
    upload = desk.send(CONTENT[:size], filename="a.txt", persistent=True)
    assert desk.ann.uploads == [upload]
    assert desk.ann.busy
    desk.simulation.rest()
    assert told(upload) == (True, None)
    assert desk.ann.uploads == []
    assert list(desk.keeper.disk.values()) == [CONTENT[:size]]
    [frame], [event] = files(desk.bob.heard), files(desk.eve.heard)
    assert (frame["filename"], frame["size"]) == ("a.txt", size)
    assert frame["sha256"] == hashlib.sha256(CONTENT[:size]).hexdigest()
    # What is small comes at once.
    assert frame.get("data") == (CONTENT[:size] if size <= 10 else None)
    assert ("binary_data" in event) == (size <= 10)
    assert desk.simulation.keeping.outcomes == {"done": 1}
    desk.simulation.empty()


def test_a_file_for_a_user() -> None:
    desk = Desk()
    upload = desk.send(recipient_id="bob")
    desk.simulation.rest()
    assert upload.channel == "$user:bob"
    assert told(upload) == (True, None)
    assert len(files(desk.bob.heard)) == 1
    assert files(desk.eve.heard) == []


def test_a_file_of_which_nobody_hears() -> None:
    desk = Desk()
    upload = desk.send(channel="attic")
    desk.until(lambda: bool(upload.announced))
    desk.ann.change_address()
    desk.simulation.rest()
    assert told(upload) == (True, None)
    assert [each.line.channel for each in desk.simulation.ledger.by_number[upload.number]] == ["attic"]
    # The next publication there is the next one of the ledger too.
    desk.simulation.publish(desk.ann, channel="attic")
    desk.simulation.rest()
    desk.simulation.empty()


def test_a_file_goes_on_where_it_was() -> None:
    desk = Desk()
    upload = desk.send(b"x" * 50)
    desk.until(lambda: upload.room > 20 and upload.under_way)
    desk.ann.change_address()
    desk.until(lambda: not desk.ann.connected)
    assert not upload.under_way
    desk.simulation.rest()
    assert told(upload) == (True, None)
    assert len(desk.lines("OpenFile") + [line for line in desk.lines("begin_upload") if " s1c" in line]) == 2


def test_a_file_begins_anew_where_the_server_does() -> None:
    desk = Desk()
    upload = desk.send(b"x" * 50)
    desk.until(lambda: upload.room > 20)
    assert desk.keeper.incoming == ("upload-1",)
    desk.server.crash(silently=False)
    assert desk.keeper.incoming == ()
    desk.simulation.rest()
    assert told(upload) == (True, None)
    assert list(desk.keeper.disk.values()) == [b"x" * 50]
    desk.simulation.empty()


def test_what_is_sent_while_offline_is_begun_later() -> None:
    desk = Desk()
    desk.server.crash(silently=False)
    desk.simulation.run_for(0.5)
    upload = desk.send()
    assert not desk.lines("begin_upload")
    desk.simulation.rest()
    assert told(upload) == (True, None)


def test_a_server_that_dies_before_it_knows_what_was_kept() -> None:
    desk = Desk()
    upload = desk.send()
    desk.until(lambda: bool(desk.keeper.disk))
    desk.server.crash(silently=False)
    # Nobody knows of it, nor does who has sent it whether it was published.
    assert list(desk.keeper.orphans) == list(desk.keeper.disk) == ["s-file-1"]
    desk.simulation.rest()
    assert told(upload) == (False, "connection_lost")
    assert files(desk.bob.heard) == []
    desk.simulation.empty()


def test_a_file_is_cancelled() -> None:
    desk = Desk()
    upload = desk.send()
    # It is being read.
    desk.until(lambda: upload.room > 0)
    upload.cancel()
    desk.simulation.rest()
    assert told(upload) == (False, "cancelled")
    assert desk.keeper.disk == {}
    desk.simulation.empty()


def test_a_file_is_cancelled_when_all_of_it_was_sent() -> None:
    desk = Desk()
    upload = desk.send()
    desk.until(lambda: bool(upload.announced))
    upload.cancel()
    desk.simulation.rest()
    assert told(upload) == (False, "cancelled_late")
    assert len(files(desk.bob.heard)) == 1
    desk.simulation.empty()


def test_a_file_whose_client_ends() -> None:
    desk = Desk()
    upload = desk.send()
    desk.simulation.run_for(0.05)
    desk.ann.disconnect()
    assert told(upload) == (False, "ended")
    desk.simulation.run_for(1.0)
    assert desk.keeper.incoming == ("upload-1",)
    desk.simulation.rest()
    desk.simulation.empty()
    assert desk.keeper.incoming == ()


def test_a_file_that_changes_while_it_is_read_twice() -> None:
    desk = Desk()
    upload = desk.send(b"x" * 50)
    desk.until(lambda: upload.room > 20 and upload.under_way)
    # What is under way is lost, and has been hashed.
    desk.ann.change_address()
    upload.change()
    desk.simulation.rest()
    assert told(upload) == (False, "checksum_mismatch")
    assert desk.keeper.disk == {}
    desk.simulation.empty()


def test_an_empty_file_does_not_change() -> None:
    desk = Desk()
    upload = desk.send(b"")
    upload.change()
    desk.simulation.rest()
    assert not upload.changed
    assert told(upload) == (True, None)


def test_more_files_than_may_come_at_a_time() -> None:
    desk = Desk()
    uploads = [desk.send() for _ in range(4)]
    desk.simulation.rest()
    assert list(map(told, uploads)) == [(True, None)] * 4
    assert desk.lines("too_many_uploads")


def test_a_client_that_has_too_much_to_say_asks_later() -> None:
    desk = Desk()
    simulation = desk.simulation
    config = ClientConfig(queue_size=0, backoff_base=0.1)
    cyd = simulation.add_websocket_client("cyd", user_id="cyd", config=config)
    simulation.run_for(1.0)
    upload = desk.send(client=cyd)
    simulation.run_for(0.05)
    cyd.frozen = True
    desk.server.drain()
    cyd.frozen = False
    # It has heard that the server stops, and is not told yet that the connection is gone.
    desk.until(lambda: bool(desk.lines('cyd <- {"type":"disconnect"')))
    upload.connected()
    assert desk.lines("has too much to say while offline")
    simulation.rest()
    assert told(upload) == (True, None)


# The keeper


def test_the_disk_is_not_always_there() -> None:
    # Each draw is the most that there may be: the slowest of all disks, which fails whatever it can.
    desk = Desk()
    upload = desk.send()
    desk.simulation.run_for(0.045)
    desk.simulation.world.faulty = True
    desk.keeper._server.world.choices = Choices(lambda limit: limit - 1)
    desk.until(lambda: upload.ended)
    assert told(upload) == (False, "store_full")
    assert desk.keeper.incoming == ()


def test_a_disk_that_was_told_to_forget_does_nothing() -> None:
    desk = Desk()
    keeper = desk.keeper
    keeper.perform(OpenFile("key", "chat", None, None, "text/plain", 2))
    keeper.perform(AppendToFile("key", b"ab"))
    keeper.perform(AbandonFile("key"))
    desk.simulation.run_for(1.0)
    assert keeper.incoming == ()


def test_a_file_is_abandoned_when_it_is_kept_already() -> None:
    desk = Desk()
    upload = desk.send()
    desk.until(lambda: bool(desk.keeper.disk))
    desk.server.drain()
    assert desk.keeper.disk == {}
    desk.server.stop()
    desk.simulation.rest()
    assert told(upload) == (False, "connection_lost")


def begun() -> tuple[Desk, Keeper]:
    desk = Desk()
    desk.keeper.perform(OpenFile("key", "chat", None, None, "text/plain", 2))
    return desk, desk.keeper


def test_a_keeper_is_asked_for_one_file_once() -> None:
    desk, keeper = begun()
    with desk.fails("keeper", "key is opened a second time"):
        keeper.perform(OpenFile("key", "chat", None, None, "text/plain", 2))


def test_a_keeper_is_asked_for_what_it_has() -> None:
    desk, keeper = begun()
    keeper.perform(AbandonFile("key"))
    with desk.fails("keeper", "is about no file that is open"):
        keeper.perform(AbandonFile("key"))


def test_a_keeper_is_asked_for_nothing_after_the_end() -> None:
    desk, keeper = begun()
    desk.simulation.keeping._coming["s1", "key"].size = 0
    keeper.perform(FinishFile("key", hashlib.sha256(b"").hexdigest()))
    with desk.fails("keeper", "comes after the end of the file"):
        keeper.perform(FinishFile("key", "0"))
    desk.until(lambda: bool(keeper.disk))
    with desk.fails("keeper", "comes after the end of the file"):
        keeper.perform(FinishFile("key", "0"))


# What must hold


def heard(desk: Desk, content: bytes = CONTENT[:9]) -> Message:
    """Return the message of a file that was sent in chunks, as bob heard it."""
    desk.send(content)
    desk.simulation.rest()
    [message] = files(desk.bob.heard)
    return message


def test_what_is_heard_is_what_was_sent() -> None:
    desk = Desk()
    desk.simulation.publish(desk.ann, b"hello", channel="chat")
    desk.simulation.rest()
    [message] = files(desk.bob.heard)
    for changed in ({"data": b"jello"}, {"data": None}, {"size": 4}):
        with desk.fails("files_are_what_was_sent", "bob hears .* and not what was sent: b'hello'"):
            desk.simulation.contents.client_heard(desk.bob, {**message, **changed})
    with desk.fails("files_are_what_was_sent", "in which there is a file that nobody has sent"):
        desk.simulation.contents.client_heard(desk.bob, {**message, "n": 99})
    desk.simulation.contents.client_heard(desk.bob, {**message, "n": 99, "data": None})


def test_what_is_heard_has_the_form_of_its_wire() -> None:
    desk = Desk()
    message = heard(desk)
    with desk.fails("files_are_what_was_sent", "and takes no bytes"):
        desk.simulation.contents.client_heard(desk.eve, message)
    with desk.fails("files_are_what_was_sent", "and takes bytes"):
        desk.simulation.contents.client_heard(desk.bob, {**message, "binary_data": "aGVsbG8="})


def test_what_is_delivered_is_what_was_sent() -> None:
    desk = Desk()
    desk.simulation.publish(desk.ann, b"hello", channel="chat")
    desk.simulation.rest()
    [message] = files(desk.bob.heard)
    meta = message["meta"]
    assert isinstance(meta, dict)
    head = encode({name: message[name] for name in message if name != "data"}).json
    encoded = Encoded(head, source=Source("chat", meta["epoch"], meta["offset"]), data=b"jello")
    with desk.fails("files_are_what_was_sent", "chat .* and not what was sent"):
        desk.simulation.contents.server_delivers(desk.server, encoded, ("s1c1",))


def test_what_is_kept_is_what_was_sent() -> None:
    desk = Desk()
    message = heard(desk)
    contents, disk = desk.simulation.contents, desk.keeper.disk
    [upload] = contents._uploads.values()
    for changed in ({"sha256": "0" * 64}, {"size": 4}):
        with desk.fails("files_are_what_was_sent", "and it has 9 bytes and is "):
            contents.client_heard(desk.bob, {**message, **changed})
    for data in (b"jello", None):
        with desk.fails("files_are_what_was_sent", "in it, of b'012345678'"):
            contents.client_heard(desk.bob, {**message, "data": data})
    upload.content = b"else"
    with desk.fails("files_are_what_was_sent", "what is kept is not what was sent"):
        contents.client_heard(desk.bob, message)
    upload.announced.clear()
    upload.changed = True
    with desk.fails("files_are_what_was_sent", "what is kept is not what was sent"):
        contents.client_heard(desk.bob, message)
    disk.clear()
    with desk.fails("files_are_what_was_sent", "and it is not kept"):
        contents.client_heard(desk.bob, message)


def test_what_a_sender_is_told_is_true() -> None:
    desk = Desk()
    heard(desk)
    [upload] = desk.simulation.contents._uploads.values()
    assert upload.file is not None
    for changed in ({"offset": 99}, {"offset": 0}):
        upload.file = {**upload.file, **changed}
        with desk.fails("files_are_what_was_sent", "ann is told that file 1 is .* but there is None"):
            desk.simulation.contents.client_file_ends(desk.ann, upload)


def test_no_more_files_come_than_may() -> None:
    desk = Desk()
    keeping = desk.simulation.keeping
    for number in range(2):
        keeping.server_asks_keeper(desk.server, OpenFile(f"key{number}", "chat", None, None, "text/plain", 2))
    with desk.fails("files_are_kept_or_nothing_of_them", "3 files come to s at a time, of which 2 may"):
        keeping.server_asks_keeper(desk.server, OpenFile("key2", "chat", None, None, "text/plain", 2))


@pytest.mark.parametrize(("size", "data"), [(100, b"123456789"), (2, b"123")])
def test_no_more_of_a_file_is_held_than_may_be(size: int, data: bytes) -> None:
    desk = Desk()
    keeping = desk.simulation.keeping
    keeping.server_asks_keeper(desk.server, OpenFile("key", "chat", None, None, "text/plain", size))
    with desk.fails("files_are_kept_or_nothing_of_them", "s holds more of key than it may"):
        keeping.server_asks_keeper(desk.server, AppendToFile("key", data))


def test_a_file_is_whole_where_it_ends() -> None:
    desk, keeper = begun()
    with desk.fails("files_are_kept_or_nothing_of_them", "s takes key for whole"):
        keeper.perform(FinishFile("key", "0"))


def test_a_sender_keeps_to_its_window() -> None:
    desk = Desk()
    upload = desk.send()
    desk.until(lambda: upload.room > 0)
    with desk.fails("files_are_kept_or_nothing_of_them", "ann sends file 1 up to 9, and there is room up to 8"):
        desk.simulation.keeping.client_sends_chunk(desk.ann, upload, 5, 4)


@pytest.mark.parametrize("code", ["wrong_offset", "checksum_mismatch", "file_too_large", "type_not_allowed"])
def test_nobody_fails_who_does_as_they_should(code: str) -> None:
    desk = Desk()
    upload = desk.send()
    upload.code = code
    with desk.fails("files_are_kept_or_nothing_of_them", f"ann is told of file 1: {code}"):
        desk.simulation.keeping.client_file_ends(desk.ann, upload)


def test_there_are_reasons_to_fail() -> None:
    files = attrs.evolve(FILES, max_file_size=10, allowed_types=("image/*",))
    desk = Desk(config=attrs.evolve(CONFIG, node=NodeConfig(files=files)))
    uploads = [desk.send(content_type="image/png"), desk.send(b"x", content_type="text/plain")]
    desk.simulation.rest()
    assert [upload.code for upload in uploads] == ["file_too_large", "type_not_allowed"]


def test_what_is_known_is_told() -> None:
    desk = Desk()
    heard(desk)
    [upload] = desk.simulation.contents._uploads.values()
    upload.code = "connection_lost"
    keeping = desk.simulation.keeping
    # Long ago it was.
    keeping.client_file_ends(desk.ann, upload)
    [publication] = desk.simulation.ledger.by_number[upload.number]
    publication.clock = desk.server.now()
    with desk.fails("files_are_kept_or_nothing_of_them", "ann is told that nobody knows of file 1, and chat"):
        keeping.client_file_ends(desk.ann, upload)


def test_a_file_is_left_of_which_nothing_comes() -> None:
    desk, _ = begun()
    with desk.fails("files_are_kept_or_nothing_of_them", "s waits for more of key"):
        desk.simulation.keeping.emptied()


def test_a_file_is_left_that_was_not_published() -> None:
    desk = Desk()
    desk.keeper.disk["file"] = b""
    desk.keeper.orphans["file"] = None
    desk.simulation.keeping.emptied()
    desk.keeper.orphans.clear()
    with desk.fails("files_are_kept_or_nothing_of_them", "s keeps file, which was not published"):
        desk.simulation.keeping.emptied()
