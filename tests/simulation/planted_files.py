"""Bugs to plant in what the real machines make of files; see `tests.simulation.planted_bugs`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest

from rtcore.binary import encode_payload
from rtcore.client import Ask, SendBytes, Upload
from rtcore.client import UploadState as Sending
from rtcore.client.outbox import Outbox
from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.frames import encode_binary
from rtcore.node.files import Files
from rtcore.permissions import Action
from rtcore.router import Deliver, Router
from rtcore.router.rights import Rights
from rtcore.simulation.keeper import Keeper
from rtcore.uploads import AbandonFile, Uploads
from rtcore.uploads.upload import UploadState

__all__ = ["FILE_BUGS"]

Plant = Callable[[pytest.MonkeyPatch], None]

#: By name, in the order in which they are defined.
FILE_BUGS: Final[dict[str, Plant]] = {}


def bug(plant: Plant) -> Plant:
    FILE_BUGS[plant.__name__] = plant
    return plant


# Resuming


@bug
def a_chunk_is_appended_twice_after_a_resume(patch: pytest.MonkeyPatch) -> None:
    answer = Uploads._answer

    def forgetful(self: Uploads, upload: Any) -> Any:
        if upload.pending is not None and not upload.waiting and upload.state is UploadState.RECEIVING:
            # What was stored last counts as lost.
            upload.received = upload.stored = max(upload.received - self._config.chunk_size, 0)
        return answer(self, upload)

    patch.setattr(Uploads, "_answer", forgetful)


@bug
def a_resume_is_told_what_is_stored_and_not_what_was_received(patch: pytest.MonkeyPatch) -> None:
    go_on = Uploads._go_on

    def stored(self: Uploads, upload: Any, *args: Any, **moment: Any) -> Any:
        effects = go_on(self, upload, *args, **moment)
        if upload.pending is not None:
            effects += [attrs.evolve(each, offset=upload.stored) for each in self._answer(upload)]
        return effects

    patch.setattr(Uploads, "_go_on", stored)


@bug
def a_resume_does_not_wait_until_what_was_received_is_stored(patch: pytest.MonkeyPatch) -> None:
    go_on = Uploads._go_on

    def hasty(self: Uploads, upload: Any, *args: Any, **moment: Any) -> Any:
        return [*go_on(self, upload, *args, **moment), *self._answer(upload)]

    patch.setattr(Uploads, "_go_on", hasty)


@bug
def what_has_become_of_a_file_is_not_remembered(patch: pytest.MonkeyPatch) -> None:
    complete = Uploads.complete

    def forgetful(self: Uploads, upload: Any, *args: Any, **moment: Any) -> Any:
        effects = complete(self, upload, *args, **moment)
        self._outcomes.clear()
        return effects

    patch.setattr(Uploads, "complete", forgetful)


@bug
def a_chunk_is_taken_from_whatever_connection(patch: pytest.MonkeyPatch) -> None:
    receive = Uploads.receive

    def generous(self: Uploads, chunk: Any, connection_id: str, **moment: Any) -> Any:
        upload = self._uploads.get(chunk.upload_id)
        owner = connection_id if upload is None or upload.owner is None else upload.owner
        return receive(self, chunk, owner, **moment)

    patch.setattr(Uploads, "receive", generous)


@bug
def an_older_connection_takes_a_file_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Uploads, "owner_of", lambda self, upload_id: None)


@bug
def the_first_connection_hears_that_the_file_is_kept(patch: pytest.MonkeyPatch) -> None:
    complete = Uploads.complete

    def stale(self: Uploads, upload: Any, *args: Any, **moment: Any) -> Any:
        first = upload.begin.request.connection_id
        return [attrs.evolve(each, connection_id=first) for each in complete(self, upload, *args, **moment)]

    patch.setattr(Uploads, "complete", stale)


@bug
def a_file_that_may_be_published_is_sent_once_more(patch: pytest.MonkeyPatch) -> None:
    answered = Upload.answered

    def eager(self: Upload, *args: Any, **moment: Any) -> Any:
        self._may_be_published = False
        return answered(self, *args, **moment)

    patch.setattr(Upload, "answered", eager)


@bug
def a_file_that_was_begun_anew_counts_as_known(patch: pytest.MonkeyPatch) -> None:
    ask = Upload._ask

    def sure(self: Upload) -> Any:
        self._awaits_answer = False
        return ask(self)

    patch.setattr(Upload, "_ask", sure)


@bug
def a_sender_that_comes_back_does_not_ask(patch: pytest.MonkeyPatch) -> None:
    connected = Upload.connected

    def sure(self: Upload, **moment: Any) -> Any:
        if self._asked and self.state is Sending.OFFLINE:
            self._state = Sending.SENDING
            return self._read_on()
        return connected(self, **moment)

    patch.setattr(Upload, "connected", sure)


# The window


@bug
def a_sender_does_not_wait_for_room(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upload, "_room", lambda self: self._chunk_size)


@bug
def what_is_stored_is_not_told(patch: pytest.MonkeyPatch) -> None:
    appended = Uploads.appended

    def silent(self: Uploads, *args: Any, **moment: Any) -> Any:
        appended(self, *args, **moment)
        return []

    patch.setattr(Uploads, "appended", silent)


@bug
def a_server_takes_more_files_than_it_may(patch: pytest.MonkeyPatch) -> None:
    begin = Uploads.begin

    def generous(self: Uploads, *args: Any, **moment: Any) -> Any:
        config = self._config
        self._config = attrs.evolve(config, max_uploads=1000, max_uploads_per_connection=1000)
        try:
            return begin(self, *args, **moment)
        finally:
            self._config = config

    patch.setattr(Uploads, "begin", generous)


# Whole, once, or nothing


@bug
def the_checksum_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    keep = Keeper._keep

    def trusting(self: Keeper, incoming: Any, sha256: str) -> None:
        keep(self, incoming, hashlib.sha256(incoming.data).hexdigest())

    patch.setattr(Keeper, "_keep", trusting)


@bug
def what_is_read_again_is_hashed_again(patch: pytest.MonkeyPatch) -> None:
    read = Upload.read

    def twice(self: Upload, data: bytes, **moment: Any) -> Any:
        piece = self._reading
        if piece is not None and data:
            self._hashed = piece.offset
        return read(self, data, **moment)

    patch.setattr(Upload, "read", twice)


@bug
def a_file_is_published_once_for_each_of_its_connections(patch: pytest.MonkeyPatch) -> None:
    publish = Files._publish_upload

    def again(self: Files, upload: Any, *args: Any, **moment: Any) -> Any:
        if upload.owner != upload.begin.request.connection_id:
            publish(self, upload, *args, **moment)
        return publish(self, upload, *args, **moment)

    patch.setattr(Files, "_publish_upload", again)


@bug
def a_file_whose_sender_does_not_come_back_stays(patch: pytest.MonkeyPatch) -> None:
    handle_timeout = Uploads.handle_timeout

    def keeping(self: Uploads, **moment: Any) -> Any:
        return [each for each in handle_timeout(self, **moment) if not isinstance(each, AbandonFile)]

    patch.setattr(Uploads, "handle_timeout", keeping)


@bug
def a_file_that_may_not_be_published_stays(patch: pytest.MonkeyPatch) -> None:
    fail = Uploads.fail

    def keeping(self: Uploads, *args: Any) -> Any:
        return [each for each in fail(self, *args) if not isinstance(each, AbandonFile)]

    patch.setattr(Uploads, "fail", keeping)


@bug
def a_sender_hears_of_a_file_before_it_is_kept(patch: pytest.MonkeyPatch) -> None:
    def early(self: Keeper, incoming: Any, sha256: str) -> None:
        self._serial += 1
        incoming.file_id = f"file-{self._serial}"
        self.disk[incoming.file_id] = b""
        self._later(incoming, self._tell)

    patch.setattr(Keeper, "_keep", early)


@bug
def a_cancelled_file_goes_on(patch: pytest.MonkeyPatch) -> None:
    def going_on(self: Upload, **moment: Any) -> Any:
        return [Ask(self._asked + 1, "cancel_upload", {"upload_id": "another"})]

    patch.setattr(Upload, "cancel", going_on)


# What is in them


@bug
def the_file_of_another_message_is_in_the_frame(patch: pytest.MonkeyPatch) -> None:
    frame = Encoded.frame.fget  # type: ignore[attr-defined]
    last = [b""]

    def other(self: Encoded) -> Any:
        if self.data is None:
            return frame(self)
        data, last[0] = last[0], bytes(self.data)
        return encode_binary(encode_payload(self.head, data))

    patch.setattr(Encoded, "frame", property(other))


@bug
def a_frame_is_text(patch: pytest.MonkeyPatch) -> None:
    frame = Encoded.frame.fget  # type: ignore[attr-defined]
    patch.setattr(Encoded, "frame", property(lambda self: frame(self) if self.data is None else self.json_frame))


@bug
def text_is_a_frame(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Encoded, "json_frame", property(lambda self: self.frame))


@bug
def what_is_sent_again_has_no_file(patch: pytest.MonkeyPatch) -> None:
    publish_again = Outbox.publish_again

    def empty(self: Outbox, **moment: Any) -> Any:
        return [
            SendBytes(each.payload[: 4 + int.from_bytes(each.payload[:4], "big")])
            if isinstance(each, SendBytes)
            else each
            for each in publish_again(self, **moment)
        ]

    patch.setattr(Outbox, "publish_again", empty)


@bug
def what_is_told_again_has_no_file(patch: pytest.MonkeyPatch) -> None:
    send = Router.send

    def empty(self: Router, command: Any, **moment: Any) -> Any:
        effects = send(self, command, **moment)
        if type(command).__name__ != "Subscribe":
            return effects
        return [
            attrs.evolve(
                each,
                message=Encoded(each.message.head, each.message.event, id=each.message.id, source=each.message.source),
            )
            if isinstance(each, Deliver) and each.message.source is not None
            else each
            for each in effects
        ]

    patch.setattr(Router, "send", empty)


@bug
def a_small_file_comes_without_its_bytes(patch: pytest.MonkeyPatch) -> None:
    finished = Files.finished
    patch.setattr(
        Files,
        "finished",
        lambda self, key, file, **moment: finished(self, key, attrs.evolve(file, data=None), **moment),
    )


# Rights


@bug
def whoever_may_publish_may_send_files(patch: pytest.MonkeyPatch) -> None:
    def careless(self: Rights, channel: str, message: Any, *, asker: Any) -> Refusal | None:
        return self.decide(Action.PUBLISH, channel, asker=asker)

    patch.setattr(Rights, "decide_publication", careless)


@bug
def a_file_is_published_whatever_was_taken_meanwhile(patch: pytest.MonkeyPatch) -> None:
    decide = Rights.decide_publication

    def lasting(self: Rights, channel: str, message: Any, **asker: Any) -> Refusal | None:
        return None if "file_id" in message else decide(self, channel, message, **asker)

    patch.setattr(Rights, "decide_publication", lasting)
