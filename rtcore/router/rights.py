"""Who may do what in the channels of a router."""

from __future__ import annotations

from typing import Final, TypeAlias

from rtcore.binary import BINARY
from rtcore.channels import Channel, connection_channel, is_builtin
from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.messages import Message, encode
from rtcore.permissions import Action, Grant, Identity, decide

from .connections import Connection, Connections
from .registry import Registry

__all__ = ["Asker", "Rights", "unsubscribed"]

#: Who wants something: a connection's id, somebody who has none, or ``None`` for the application.
Asker: TypeAlias = Identity | str | None

# Of somebody who is allowed what the namespaces let everybody do.
_NOTHING_SAID: Final = Grant()


def unsubscribed(channel: str, refusal: Refusal) -> Encoded:
    """Return what tells a connection that it has been taken out of a channel."""
    message = {"type": "unsubscribed", "channel": channel, "code": refusal.code, "reason": refusal.message}
    return encode(message)


class Rights:
    """The decisions of a router.

    They are made before a channel is looked for, so whoever is refused has changed nothing, and hears the same whether
    there is one or not.

    Args:
        connections: Who is there.
        registry: The channels that there are.
    """

    def __init__(self, connections: Connections, registry: Registry) -> None:
        self._connections = connections
        self._registry = registry

    def decide(self, action: Action, name: str = "", *, asker: Asker) -> Refusal | None:
        """Tell why somebody may not do something, or ``None`` if they may; see `rtcore.permissions.decide`.

        The application may do everything, and a connection may always publish and send files to itself. A user who has
        no connection here is a member of what any connection of the user has joined.

        Raises:
            LocalProtocolError: If a connection is named that is not attached.
        """
        if asker is None:
            return None
        channel = self._registry.get(name)
        if isinstance(asker, Identity):
            user_id, grant = asker.user_id, asker.grant
            theirs = () if user_id is None else self._connections.users.get(user_id, ())
            member = channel is not None and any(each in channel for each in theirs)
        else:
            connection = self._connections.get(asker)
            speaks = action is Action.PUBLISH or action is Action.UPLOAD
            if speaks and name.startswith("$") and name == connection_channel(asker):
                return None
            user_id, grant = connection.user_id, connection.grant
            member = channel is not None and asker in channel
        namespace = self._registry.namespace_of(name) if channel is None else channel.namespace
        return decide(action, name, user_id=user_id, grant=grant, namespace=namespace, member=member)

    def decide_publication(self, name: str, message: Message, *, asker: Asker) -> Refusal | None:
        """Tell why somebody may not publish this; a file asks for `Action.UPLOAD` too, wherever its bytes are."""
        refusal = self.decide(Action.PUBLISH, name, asker=asker)
        if refusal is None and message.get("type") == BINARY:
            return self.decide(Action.UPLOAD, name, asker=asker)
        return refusal

    def may_recall(self, connection: Connection, channel: Channel) -> bool:
        """Tell whether a connection may be told what it has missed of a channel that it has joined, or hears anyway."""
        if _allows(Action.HISTORY, connection, channel):
            return True
        # Nobody is asked whether they may hear what is said to them and to everybody, so the channels that a credential
        # names say nothing of that: a token for one channel must not make its bearer lose messages to the user. The
        # namespace alone decides, as if it were that of any channel.
        user_id, namespace = connection.user_id, channel.namespace
        return is_builtin(channel.name) and not decide(
            Action.HISTORY, user_id=user_id, grant=_NOTHING_SAID, namespace=namespace, member=True
        )

    def may_see(self, connection: Connection, channel: Channel) -> bool:
        """Tell whether a connection may know who is in a channel that it has joined."""
        return _allows(Action.PRESENCE, connection, channel)


def _allows(action: Action, connection: Connection, channel: Channel) -> bool:
    user_id, grant, namespace = connection.user_id, connection.grant, channel.namespace
    return decide(action, channel.name, user_id=user_id, grant=grant, namespace=namespace, member=True) is None
