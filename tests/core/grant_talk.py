"""What tests of permissions in the router say, and what they expect to hear."""

from __future__ import annotations

from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.permissions import Action, Grant, Scope, decide
from rtcore.router import Deliver, Effect, Publish, Request, RouterConfig, Subscribe

from .node_talk import STAMP, Routed, encoded

NOBODY = Request(None)
NOTHING = Scope((), exclusive=True)


def only(*patterns: str) -> Scope:
    return Scope(patterns, exclusive=True)


def denied(action: Action, name: str, grant: Grant, *, user_id: str | None = None, **options: object) -> Refusal:
    """Return what the one who may not do something is told; `options` are those of the channel's namespace."""
    namespace = Namespace(pattern="*", **options)  # type: ignore[arg-type]
    refusal = decide(action, name, user_id=user_id, grant=grant, namespace=namespace)
    assert refusal is not None
    return refusal


def unsubscribed(channel: str, refusal: Refusal) -> Encoded:
    said: Message = {"type": "unsubscribed", "channel": channel, "code": refusal.code, "reason": refusal.message}
    message = encoded(said)
    return Encoded(message.json, "unsubscribed")


def presence_changed(channel: str, epoch: str, offset: int, reason: str) -> Encoded:
    said: Message = {"type": "gap", "stream": "presence", "channel": channel, "epoch": epoch}
    return encoded({**said, "offset": offset, "reason": reason})


class Granted(Routed):
    """A router, some of whose channels have a namespace of their own."""

    def __init__(self, *namespaces: Namespace, presence_limit: int = 256, presence: bool = True) -> None:
        default = Namespace(pattern="*", presence=presence)
        config = RouterConfig(presence_limit=presence_limit, namespaces=Namespaces(namespaces, default))
        super().__init__(config)

    def come(self, connection_id: str, user_id: str | None, *channels: str, grant: Grant) -> list[Effect]:
        """Attach a connection and join it to channels; return what follows from the last of these."""
        self.router.attach(connection_id, user_id, grant=grant, now=self.now)
        effects: list[Effect] = []
        for channel in channels:
            effects = self.send(Subscribe(channel, Request(connection_id)))
        return effects

    def regrant(self, connection_id: str, grant: Grant) -> list[Effect]:
        return self.router.regrant(connection_id, grant, now=self.now, timestamp=STAMP)

    def say(self, channel: str, *, persistent: bool = False) -> list[Effect]:
        message: Message = {"type": "text", "persistent": True} if persistent else {"type": "text"}
        return self.send(Publish(channel, message, NOBODY))

    def heard_by(self, connection_id: str, effects: list[Effect]) -> list[Encoded]:
        """Return what a connection hears of what happens."""
        return [
            effect.message
            for effect in effects
            if isinstance(effect, Deliver) and connection_id in effect.connections and connection_id != effect.skip
        ]
