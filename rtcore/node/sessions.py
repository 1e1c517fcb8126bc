"""Who is connected to a node, how many they may be, and when each of them has something to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rtcore.deadlines import Deadlines
from rtcore.errors import Refusal
from rtcore.router import Request
from rtcore.session import Session, Transport

from .config import NodeConfig

__all__ = ["Sessions"]


class Sessions(Mapping[str, Session]):
    """The connections of a node by their ids, first come first.

    Args:
        config: How many there may be.

    Attributes:
        accepted: How many have come so far.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.accepted = 0
        self._config = config
        self._sessions: dict[str, Session] = {}
        self._transports = dict.fromkeys(Transport, 0)
        self._users: dict[str, dict[str, None]] = {}
        self._addresses: dict[str, int] = {}
        self._deadlines: Deadlines[str] = Deadlines()

    def __getitem__(self, connection_id: str) -> Session:
        return self._sessions[connection_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    def count(self, transport: Transport) -> int:
        """Return how many are connected by `transport`."""
        return self._transports[transport]

    def of_request(self, request: Request) -> Session | None:
        """Return the connection that has asked for something, or ``None`` if it is gone, or none has."""
        return None if request.connection_id is None else self._sessions.get(request.connection_id)

    def of_user(self, user_id: str) -> list[Session]:
        """Return the connections of a user, first come first."""
        return [self._sessions[connection_id] for connection_id in self._users.get(user_id, ())]

    def admit(self, transport: Transport, *, user_id: str | None, address: str | None) -> Refusal | None:
        """Tell why there would be too many with one more, or ``None`` if there would not."""
        config = self._config
        limit = config.max_websocket if transport is Transport.WEBSOCKET else config.max_sse
        if len(self._sessions) >= config.max_connections or _is_reached(limit, self._transports[transport]):
            return Refusal("full", "the server is full: try again later", 503, retry_after=config.retry_after)
        if user_id is not None and _is_reached(config.max_per_user, len(self._users.get(user_id, ()))):
            return self._too_many(f"a user may have {config.max_per_user} connections")
        if address is not None and _is_reached(config.max_per_address, self._addresses.get(address, 0)):
            return self._too_many(f"{config.max_per_address} connections may come from one address")
        return None

    def add(self, session: Session) -> None:
        """Take note of one that has come, under an id that nobody has."""
        self._sessions[session.connection_id] = session
        self._transports[session.transport] += 1
        self.accepted += 1
        if session.user_id is not None:
            self._users.setdefault(session.user_id, {})[session.connection_id] = None
        if session.address is not None:
            self._addresses[session.address] = self._addresses.get(session.address, 0) + 1
        self.rekey(session)

    def remove(self, session: Session) -> None:
        """Take note of one that has gone."""
        del self._sessions[session.connection_id]
        self._deadlines.set(session.connection_id, None)
        self._transports[session.transport] -= 1
        user_id, address = session.user_id, session.address
        if user_id is not None:
            del self._users[user_id][session.connection_id]
            if not self._users[user_id]:
                del self._users[user_id]
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def rekey(self, session: Session) -> None:
        """Take note of the deadline of one that is here."""
        self._deadlines.set(session.connection_id, session.next_timeout())

    def next_timeout(self) -> float | None:
        """Return the earliest deadline in monotonic seconds, or ``None``."""
        return self._deadlines.next_timeout()

    def handle_timeout(self, *, now: float) -> tuple[list[Session], list[str]]:
        """Return those whose time has ended, of which each must be removed, and those that are to hear a heartbeat."""
        ended: list[Session] = []
        beating: list[str] = []
        for connection_id in self._deadlines.pop_due(now=now):
            session = self._sessions[connection_id]
            if session.has_ended(now=now):
                ended.append(session)
                continue
            beats = session.handle_timeout(now=now)
            assert beats, "a session has no other deadline, and this one has come"
            beating.append(connection_id)
            self.rekey(session)
        return ended, beating

    def _too_many(self, limit: str) -> Refusal:
        text = f"{limit} at a time: close one first, or try again later"
        return Refusal("too_many_connections", text, 429, retry_after=self._config.retry_after)


def _is_reached(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit
