"""What takes a server time to decide: whether a token is good, and what its application says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from rtcore.errors import Refusal
from rtcore.node import Consult, NodeEffect, Verify
from rtcore.permissions import OPEN, Identity

from .authority import Authority

if TYPE_CHECKING:
    from .server import SimulatedServer
    from .server_connections import ServerConnection

__all__ = ["Deciding"]


class Deciding:
    """Asks, and holds what a connection says until the answer is there, as the driver of the transports does.

    Args:
        server: Whose.
        authority: Who is asked; ``None`` where nobody is, and all may do what they like under any name.
    """

    def __init__(self, server: SimulatedServer, authority: Authority | None) -> None:
        self._server = server
        self._authority = authority
        self._held: dict[ServerConnection, deque[str | bytes]] = {}

    def identify(self, user_id: str | None, token: str | None, enter: Callable[[Identity | Refusal], None]) -> None:
        """Call `enter` with who somebody is that wants to connect, now or later, and in this life only.

        Args:
            user_id: Whom they say they are.
            token: What says so too, where somebody is asked.
            enter: What is done then.
        """
        if self._authority is None:
            enter(Identity(user_id, OPEN))
        elif token is None:
            enter(Identity(None, self._authority.anonymous))
        else:
            self._authority.verify(self._server, token, partial(self._identified, self._server.life, enter))

    def hold(self, connection: ServerConnection, message: str | bytes) -> bool:
        """Keep what a connection says for later; tells whether that is to be done."""
        if connection not in self._held:
            return False
        self._held[connection].append(message)
        return True

    def ask(self, effect: Verify | Consult) -> None:
        """Do what the node asks for, and pass in what comes of it."""
        server, authority = self._server, self._authority
        connection_id = effect.request.connection_id
        assert authority is not None and connection_id is not None, "or nobody would ask"  # noqa: PT018
        connection = server.connections[connection_id]
        self._held[connection] = deque()
        server.note(f"{connection_id} is held", effect)
        if isinstance(effect, Verify):
            authority.verify(server, effect.token, partial(self._verified, connection, effect), renews=True)
        else:
            authority.consult(server, effect.action, partial(self._consulted, connection, effect))

    def clear(self) -> None:
        """Forget everything, at the end of a life."""
        self._held.clear()

    # Inside

    def _identified(self, life: str, enter: Callable[[Identity | Refusal], None], identity: Identity | Refusal) -> None:
        server = self._server
        if server.running and server.life == life:
            enter(identity)
            server.settle()

    def _verified(self, connection: ServerConnection, effect: Verify, identity: Identity | Refusal) -> None:
        server = self._server

        def renew() -> list[NodeEffect]:
            server.observer.server_renews(server, connection.connection_id, identity)
            return server.node.renew(effect.request, identity, now=server.now(), timestamp=server.timestamp())

        self._go_on(connection, renew)

    def _consulted(self, connection: ServerConnection, effect: Consult, refusal: Refusal | None) -> None:
        server = self._server

        def resolve() -> list[NodeEffect]:
            return server.node.resolve(effect, refusal, now=server.now(), timestamp=server.timestamp())

        self._go_on(connection, resolve)

    def _go_on(self, connection: ServerConnection, decide: Callable[[], list[NodeEffect]]) -> None:
        held = self._held.pop(connection, None)
        if held is None:
            # Of another life.
            return
        server = self._server
        server.perform(decide())
        while held and not self.holds(connection):
            server.receive(connection, held.popleft())
        if held:
            self._held[connection].extend(held)
        server.settle()

    def holds(self, connection: ServerConnection) -> bool:
        """Tell whether something of a connection is being decided."""
        return connection in self._held
