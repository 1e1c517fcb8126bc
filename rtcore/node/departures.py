"""How connections leave a node, of themselves or sent away, and what others hear of that."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from rtcore.messages import encode
from rtcore.router import Deliver, Router
from rtcore.session import Session

from .answers import disconnect_message
from .effects import Close, NodeEffect, to
from .files import Files
from .limiters import Limiters
from .requests import Requests
from .sessions import Sessions
from .signaling import Signaling

__all__ = ["Departures"]


class Departures:
    """Has connections leave.

    Args:
        router: The channels.
        sessions: The connections.
        limiters: What has held them to their rates.
        signaling: The rooms, or ``None``.
        files: The files, or ``None``.
        requests: Turns what the router says into what is delivered.
    """

    def __init__(
        self,
        router: Router,
        sessions: Sessions,
        limiters: Limiters,
        signaling: Signaling | None,
        files: Files | None,
        requests: Requests,
    ) -> None:
        self._router = router
        self._sessions = sessions
        self._limiters = limiters
        self._signaling = signaling
        self._files = files
        self._requests = requests

    def leave(self, session: Session, *, comes_back: bool = True, now: float, timestamp: int) -> list[NodeEffect]:
        """Remove a connection that has ended.

        Args:
            session: The connection's.
            comes_back: Whether its client may be about to come back, and is waited for in its rooms.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            The `Deliver` of ``peer_left`` for each room that it leaves, and of ``user_left`` for each channel.
        """
        connection_id, user_id = session.connection_id, session.user_id
        self._sessions.remove(session)
        effects: list[NodeEffect] = []
        if self._signaling is not None:
            if not comes_back:
                effects += self._signaling.send_away(connection_id, now=now, timestamp=timestamp)
            self._signaling.rooms.disconnect(connection_id, now=now)
        if self._files is not None:
            self._files.disconnect(connection_id, now=now)
        effects += self._requests.answer(self._router.detach(connection_id, now=now, timestamp=timestamp))
        if user_id is not None and not self._router.is_connected(user_id):
            self._limiters.release(user_id, now=now)
        return effects

    def end(
        self,
        ended: Sequence[Session],
        code: int,
        reason: str,
        *,
        reconnect: bool | None = None,
        retry_after: float | None = None,
        comes_back: bool = True,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """End connections, all at once.

        Args:
            ended: Which.
            code: Of the close.
            reason: Why, for people.
            reconnect: Whether their clients should connect again, or ``None`` for what the code implies.
            retry_after: Seconds that they should wait before, or ``None``.
            comes_back: As for `leave`.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            For each the `Deliver` of ``disconnect`` and `Close`; then for each what `leave` returns, of which they
            hear nothing.
        """
        message = disconnect_message(code, reason, reconnect=reconnect, retry_after=retry_after)
        effects: list[NodeEffect] = []
        for session in ended:
            effects += [to(session.connection_id, message), Close(session.connection_id, code, reason)]
        gone = {session.connection_id for session in ended}
        for session in ended:
            left = self.leave(session, comes_back=comes_back, now=now, timestamp=timestamp)
            effects += (each for effect in left if (each := _to_others(effect, gone)) is not None)
        return effects

    def end_all(self, code: int, reason: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """End all connections: the `Deliver` of one ``disconnect`` to them, if there are any, then each `Close`."""
        everybody = tuple(self._sessions.values())
        only = tuple(self._sessions)
        effects: list[NodeEffect] = [Deliver(encode(disconnect_message(code, reason)), only)] if only else []
        for session in everybody:
            effects.append(Close(session.connection_id, code, reason))
            # Nobody hears who left: all leave.
            self.leave(session, now=now, timestamp=timestamp)
        return effects


def _to_others(effect: NodeEffect, gone: set[str]) -> NodeEffect | None:
    """Return an effect as it is for those who are still there; ``None`` if it is for nobody."""
    assert isinstance(effect, Deliver), "whoever leaves has asked for nothing"
    if gone.isdisjoint(effect.connections):
        return effect
    others = tuple(each for each in effect.connections if each not in gone)
    return attrs.evolve(effect, connections=others) if others else None
