"""What a driver publishes for programs, and for the application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypedDict

from rtcore import Action, Credential, Grant, Identity, LocalProtocolError, Message, Refusal
from rtcore.binary import Bytes
from rtcore.channels import connection_channel, user_channel
from rtcore.messages import reply_id
from rtcore.node import Consult
from rtcore.router import Publish, Published, Refused, Request
from rtcore.uploads import KeptFile
from rtcore.uploads.heads import kept_message

from .driver_base import DriverBase, Rest

__all__ = ["PublishingDriver"]

# How the names of the channels of connections begin.
_TO_CONNECTION: Final = connection_channel("")


class PublishingDriver(DriverBase):
    """The part of `rtcore_transports.Driver` that publishes."""

    def publish(
        self, channel: str, message: Message, *, by: Identity | None = None, data: Bytes | None = None
    ) -> Published | Refusal:
        """Publish to a channel, see `rtcore.Node.publish`, or tell why not.

        Args:
            channel: Where.
            message: What.
            data: The file in it, if it is one.
            by: Who publishes, as far as they are allowed; an ``id`` of the message makes it once for their user or
                their key. ``None`` is the application, which may do everything. No hook is asked: see `publish_by`.
        """
        return _outcome_of(self._publish(channel, message, by, data))

    async def publish_by(
        self, identity: Identity, channel: str, message: Message, *, data: Bytes | None = None
    ) -> Published | Refusal:
        """Publish for somebody to a channel, if they and the application's hook allow it, or tell why not.

        The hook is not asked about what is refused anyway, nor about a repetition. A channel of a connection must be
        that of one that is there.
        """
        if refusal := self._absent(channel, identity):
            return refusal
        return await self._consulted(self._publish(channel, message, identity, data, consults=True))

    async def publish_file(
        self, identity: Identity, channel: str, file: KeptFile, head: Message
    ) -> Published | Refusal:
        """Publish for somebody the message of a file that `files` has kept, as `publish_by` does, or tell why not.

        Args:
            identity: Who publishes; they need the rights to publish there and to upload.
            channel: Where.
            file: The file. If it is not published, to delete it is the caller's.
            head: What the message says besides of it: ``content_type``, ``filename``, and fields of one's own.

        Raises:
            LocalProtocolError: Files are not taken, or JSON cannot express `head`; nothing has changed.
        """
        if self.node.files is None:
            raise LocalProtocolError("no files are taken here: make the driver with 'files'")
        if refusal := self._absent(channel, identity):
            return refusal
        effects = self.node.files.publish_file(
            channel, file, head=head, consults=True, **_publisher(identity, head), **self._moment()
        )
        return await self._consulted(self._perform(effects))

    async def publish_files(
        self, identity: Identity, channel: str, files: Sequence[tuple[KeptFile, Message]]
    ) -> list[Published] | Refusal:
        """Publish for somebody the messages of several files, as `publish_file` does: all in one step, or none.

        Args:
            identity: Who publishes.
            channel: Where.
            files: Each with what its message says besides, where it goes included.

        Returns:
            What became of each; or why not.
        """
        assert self.node.files is not None, "whoever has kept files takes them"
        consults: list[Consult] = []
        for file, head in files:
            message, request = kept_message(head, file), Request(None, reply_id(head))
            kind = message.get("content_type")
            refusal = self.node.files.check(
                channel, asker=identity, content_type=kind, size=file.size, message=message, data=file.data
            )
            if refusal := refusal or self.node.throttle(identity, message, file.data, now=self.now()):
                return refusal
            publisher = _publisher(identity, head)["publisher"]
            command = Publish(
                channel, message, request, None, identity.user_id, identity.grant, publisher, data=file.data
            )
            consults.append(Consult(Action.PUBLISH, channel, command, request, message, identity, None))
        for consult in consults:
            if refusal := await self.gatekeeper.consult(consult.action, identity, channel, consult.message):
                return refusal
        outcomes: list[Published] = []
        for consult in consults:
            # They were judged alike: of what is refused now, because rights have changed, the first is.
            outcome = _outcome_of(self._perform(self.node.resolve(consult, None, **self._moment())))
            if isinstance(outcome, Refusal):
                return outcome
            outcomes.append(outcome)
        return outcomes

    async def _consulted(self, rest: Sequence[Rest]) -> Published | Refusal:
        [outcome] = rest
        return _outcome_of(await self._consult(outcome) if isinstance(outcome, Consult) else [outcome])

    def publish_to_user(self, user_id: str, message: Message, *, data: Bytes | None = None) -> Published | Refusal:
        """Publish to every connection of a user, or tell why not."""
        return self.publish(user_channel(user_id), message, data=data)

    def publish_to_connection(
        self, connection_id: str, message: Message, *, by: Identity | None = None, data: Bytes | None = None
    ) -> Published | Refusal:
        """Publish to one connection, or tell why not."""
        channel = connection_channel(connection_id)
        return self._absent(channel, by) or self.publish(channel, message, by=by, data=data)

    def _publish(
        self, channel: str, message: Message, by: Identity | None, data: Bytes | None, *, consults: bool = False
    ) -> list[Rest]:
        moment = self._moment()
        if by is None:
            return self._perform(self.node.publish(channel, message, data=data, **moment))
        publisher = _publisher(by, message)
        return self._perform(self.node.publish(channel, message, data=data, consults=consults, **publisher, **moment))

    def _absent(self, channel: str, by: Identity | None) -> Refusal | None:
        """Tell that there is no connection whose channel this is; to those alone who may publish to it."""
        connection_id = channel.removeprefix(_TO_CONNECTION)
        if connection_id == channel or connection_id in self.node:
            return None
        absent = Refusal("not_found", f"there is no connection {connection_id!r}", status=404)
        return self.node.decide(Action.PUBLISH, channel, asker=by) or absent


class _Publisher(TypedDict):
    user_id: str | None
    grant: Grant
    publisher: str | None
    id: str | int | None


def _publisher(by: Identity, message: Message) -> _Publisher:
    """Return who publishes, and under which id, as a node takes it."""
    # What a key is called is told where a token tells its id.
    publisher = by.grant.token_id if by.grant.credential is Credential.KEY else None
    return {"user_id": by.user_id, "grant": by.grant, "publisher": publisher, "id": reply_id(message)}


def _outcome_of(rest: Sequence[Rest]) -> Published | Refusal:
    [outcome] = [each for each in rest if isinstance(each, Published | Refused)]
    return outcome.refusal if isinstance(outcome, Refused) else outcome
