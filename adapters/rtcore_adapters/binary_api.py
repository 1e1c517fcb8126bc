"""The part of the HTTP API that is about files: how they come in, and how they are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, assert_never

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rtcore import Message, Refusal
from rtcore.binary import BINARY
from rtcore.channels import user_channel
from rtcore.permissions import Action, Identity
from rtcore.uploads import check_head
from rtcore_transports import Driver
from rtcore_transports.file_store import FileStoreError, StoredFile
from rtcore_transports.files import Files

from .errors import RefusalError, json_response
from .file_intake import ONE_TARGET, TARGETS, FileIntake, Target, receipt_of, target_of
from .file_response import NO_FILE, file_response
from .guard import Guard
from .http_bodies import BodyLimits, BodyReader, length_of, read_json, refuse_encoded, refused
from .multipart import FormEvent, FormReader, PartBegins, PartContinues, PartEnds

__all__ = ["BinaryApi"]

_FILE: Final = "file"
# Bytes of a form beside its files: boundaries, headers, fields.
_FORM_ROOM: Final = 2**20
# Bytes of a field: a name of 255 characters of four bytes fits.
_MAX_FIELD: Final = 4096
_TEXT: Final = "text/plain; charset=utf-8"


class BinaryApi:
    """The handlers of ``/binary/…``.

    Args:
        driver: Whose node they publish to, and which has `files`.
        limits: What the body of a request may be that is no file, and how long one that is may stop.
        wall_clock: Nanoseconds since 1970.
    """

    def __init__(
        self, driver: Driver, files: Files, *, limits: BodyLimits, wall_clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._driver = driver
        self._files = files
        self._limits = limits
        self._wall_clock = wall_clock

    def routes(self, guard: Guard) -> list[Route]:
        """Return all routes, below the prefix."""
        route = guard.route
        return [
            route("/binary/upload", {"POST": self.upload}),
            route("/binary/send", {"POST": self.send}),
            route("/binary/text", {"POST": self.text}),
            route("/binary/{file_id}", {"GET": self.file}),
        ]

    # Sending

    async def upload(self, request: Request, sender: Identity) -> Response:
        """POST /binary/upload: the parts ``file`` of a form, to its ``channel`` or ``user_id``, or that of the query.

        They are kept and published in order, all of them or none.
        """
        with _before_reading():
            refuse_encoded(request)
            reader = FormReader(request.headers.get("content-type", ""))
            target = _target_in(request.query_params)
            if target is not None:
                self._check_rights(target, sender)
            body = self._body(request, _FORM_ROOM)
        async with FileIntake(self._driver, self._files, sender, target) as intake:
            form = _Form(intake)
            while data := await body.read():
                for event in reader.feed(data):
                    await form.take(event)
            reader.close()
            return json_response({"files": await intake.publish()})

    async def send(self, request: Request, sender: Identity) -> Response:
        """POST /binary/send: the body as it is, to the query's ``channel`` or ``user_id``; ``filename`` is its name."""
        query = request.query_params
        with _before_reading():
            refuse_encoded(request)
            if (target := _target_in(query)) is None:
                raise RefusalError(ONE_TARGET)
            self._check_rights(target, sender)
            body = self._body(request)
        async with FileIntake(self._driver, self._files, sender, target) as intake:
            with _before_reading():
                await intake.begin(query.get("filename"), request.headers.get("content-type"), length_of(request))
            while data := await body.read():
                await intake.write(data)
            await intake.end()
            [file] = await intake.publish()
            return json_response(file)

    async def text(self, request: Request, sender: Identity) -> Response:
        """POST /binary/text: ``text`` as a file within one message, not kept, to ``channel`` or ``user_id``."""
        fields = await read_json(request, self._limits)
        if not isinstance(fields, dict) or not isinstance(text := fields.get("text"), str):
            raise refused("invalid_text", "send an object with a string 'text'")
        if (target := _target_in(fields)) is None:
            raise RefusalError(ONE_TARGET)
        self._check_rights(target, sender)
        data = text.encode()
        head: Message = {"type": BINARY, **target.fields, "content_type": _TEXT, "filename": fields.get("filename")}
        if refusal := check_head(head, data, self._files.config.file):
            raise RefusalError(refusal)
        published = await self._driver.publish_by(sender, target.channel, head, data=data)
        if isinstance(published, Refusal):
            raise RefusalError(published)
        return json_response({**receipt_of(published), "size": len(data)})

    # Reading

    async def file(self, request: Request, asker: Identity) -> Response:
        """GET /binary/{file_id}: a file, or a part of it, to whoever may hear what was said with it."""
        file = await self._files.find(request.path_params["file_id"])
        if file is None or not await self._may_read(file, asker):
            raise RefusalError(NO_FILE)
        return await file_response(request, self._files, file, timestamp=self._wall_clock() // 1_000_000)

    async def _may_read(self, file: StoredFile, asker: Identity) -> bool:
        user_id, driver = asker.user_id, self._driver
        if asker.grant.admin or (user_id is not None and file.user_id == user_id):
            return True
        if user_id is not None and file.channel == user_channel(user_id):
            return True
        if driver.node.decide(Action.SUBSCRIBE, file.channel, asker=asker):
            return False
        if Action.SUBSCRIBE not in driver.hooks:
            return True
        refusal = await driver.gatekeeper.consult(Action.SUBSCRIBE, asker, file.channel)
        # What they are allowed may have changed while the application was asked.
        return not (refusal or driver.node.decide(Action.SUBSCRIBE, file.channel, asker=asker))

    # Inside

    def _check_rights(self, target: Target, sender: Identity) -> None:
        """Refuse whoever may not send there whatever they send."""
        for action in (Action.PUBLISH, Action.UPLOAD):
            if refusal := self._driver.node.decide(action, target.channel, asker=sender):
                raise RefusalError(refusal)

    def _body(self, request: Request, room: int = 0) -> BodyReader:
        most = self._files.config.file.max_file_size
        too_large = Refusal("file_too_large", f"a request has files of at most {most} bytes in all", status=413)
        return BodyReader(request, too_large, max_size=most + room, timeout=self._limits.timeout)


class _Form:
    """What the parts of a form are for.

    Args:
        intake: Takes the files in.
    """

    def __init__(self, intake: FileIntake) -> None:
        self._intake = intake
        # The part that has begun: a file is taken in once there is something of it.
        self._part = PartBegins("")
        self._is_open = False
        self._value = bytearray()

    async def take(self, event: FormEvent) -> None:
        """Take the next piece."""
        match event:
            case PartBegins(name=name, filename=filename):
                if filename is not None and name != _FILE:
                    raise refused("missing_file", f"the parts with files are called {_FILE!r}, and not {name[:64]!r}")
                self._part, self._is_open = event, False
                self._value.clear()
            case PartContinues(data=data) if self._part.name == _FILE:
                await self._open()
                await self._intake.write(data)
            case PartContinues(data=data):
                self._value += data
                if len(self._value) > _MAX_FIELD:
                    raise refused("field_too_large", f"a field has at most {_MAX_FIELD} bytes", status=413)
            case PartEnds():
                await self._end()
            case _:
                assert_never(event)

    async def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            await self._intake.begin(self._part.filename, self._part.content_type)

    async def _end(self) -> None:
        name = self._part.name
        if name == _FILE:
            if not self._is_open and self._part.filename == "":
                # What a browser sends where nobody has chosen a file (WHATWG HTML, section 4.10.21.4).
                return
            await self._open()
            await self._intake.end()
        elif name in TARGETS:
            try:
                value = self._value.decode()
            except UnicodeDecodeError:
                raise refused("malformed_form", f"the field {name!r} must be UTF-8", status=400) from None
            self._intake.address(target_of(name, value))


@contextmanager
def _before_reading() -> Iterator[None]:
    """Say of what is refused in the block that it is whatever the body says, which has not been read."""
    try:
        yield
    except (RefusalError, FileStoreError) as error:
        raise RefusalError(error.refusal, unread=True) from None


def _target_in(fields: Mapping[str, object]) -> Target | None:
    """Return the target that is named, or ``None`` where none is; raises `RefusalError` where there are two."""
    named = [name for name in TARGETS if fields.get(name) is not None]
    if len(named) > 1:
        raise RefusalError(ONE_TARGET)
    return target_of(named[0], fields[named[0]]) if named else None
