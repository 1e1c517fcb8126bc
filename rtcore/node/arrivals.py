"""How a new connection arrives: what it joins at once, and what it is told of that and of what it has missed."""

from __future__ import annotations

from collections.abc import Container, Sequence

from rtcore.errors import Refusal
from rtcore.permissions import Grant
from rtcore.router import Request, Roster, Router, Subscribe
from rtcore.session import Session, Transport
from rtcore.signaling import JoinRoom

from .answers import connected_message
from .config import NodeConfig
from .effects import NodeEffect
from .limiters import Limiters
from .requests import NO_ROOMS, Requests
from .sessions import Sessions
from .signaling import Entrance, Signaling
from .welcome import welcome

__all__ = ["Arrivals"]


class Arrivals:
    """Has new connections arrive.

    Args:
        config: The node's.
        router: The channels.
        sessions: The connections.
        limiters: What holds them to their rates.
        signaling: The rooms, or ``None``.
        requests: Carries out what they join.
        handled: The message types for which the application has a handler.
    """

    def __init__(
        self,
        config: NodeConfig,
        router: Router,
        sessions: Sessions,
        limiters: Limiters,
        signaling: Signaling | None,
        requests: Requests,
        *,
        handled: Container[str],
    ) -> None:
        self._config = config
        self._router = router
        self._sessions = sessions
        self._limiters = limiters
        self._signaling = signaling
        self._requests = requests
        self._handled = handled

    def arrive(
        self,
        connection_id: str,
        user_id: str | None,
        *,
        grant: Grant,
        address: str | None,
        transport: Transport,
        channels: Sequence[str],
        session: str | None,
        last_event_id: str | None,
        signals: bool,
        room: JoinRoom | None,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """Add a connection whose credential is good, join it to `channels` and a room, and welcome it.

        See `Node.connect`.
        """
        session_epoch = self._router.attach(connection_id, user_id, grant=grant, session=session, now=now)
        interval = self._config.heartbeat_interval(transport)
        opened = Session(
            connection_id,
            user_id,
            transport,
            grant=grant,
            address=address,
            heartbeat_interval=interval,
            max_message_size=self._config.max_message_size,
            handled=self._handled,
            limiters=self._limiters.of(user_id, now=now),
            max_warnings=self._config.rate_limits.warnings,
            secret=session,
            number=self._sessions.accepted,
            signals=signals,
            files=self._config.files,
            now=now,
            timestamp=timestamp,
        )
        self._sessions.add(opened)
        joins: list[NodeEffect] = []
        for channel in channels:
            # What it has missed of all of them is merged below.
            join = Subscribe(channel, Request(connection_id), replays=False)
            joins += self._requests.command(join, now=now, timestamp=timestamp)
        entrance: Entrance | Refusal | None = None
        if room is not None:
            entrance = self._enter(room, opened, resumes=last_event_id is not None, now=now, timestamp=timestamp)
        fresh = entrance.joined.channel if isinstance(entrance, Entrance) and entrance.is_new else None
        resumption = self._router.resume(connection_id, last_event_id, fresh=fresh, now=now)
        message = connected_message(
            opened,
            heartbeat_interval=interval,
            rosters={name: self._roster(connection_id, name) for name in self._router.channels_of(connection_id)},
            session_epoch=session_epoch,
            resumption=resumption,
            expires_in=opened.expires_in(now=now),
        )
        if isinstance(entrance, Entrance):
            assert self._signaling is not None
            goes_on = not entrance.is_new and resumption.continues(entrance.joined.channel)
            told = entrance.describe()
            # What it has missed is replayed with all else.
            del told["replayed"]
            if last_event_id is not None:
                told["recovered"] = goes_on
            message["room"] = told
            announced = self._signaling.announce(entrance, recovered=goes_on, now=now, timestamp=timestamp)
            joins += self._requests.answer([*entrance.before, *announced])
        elif entrance is not None:
            joins += self._requests.respond(Request(connection_id), entrance)
        return welcome(opened, message, joins, resumption)

    def _enter(
        self, command: JoinRoom, session: Session, *, resumes: bool, now: float, timestamp: int
    ) -> Entrance | Refusal:
        if self._signaling is None:
            return NO_ROOMS
        return self._signaling.enter(command, session, resumes=resumes, replays=False, now=now, timestamp=timestamp)

    def _roster(self, connection_id: str, channel: str) -> Roster | None:
        roster = self._router.roster(channel, asker=connection_id)
        return None if isinstance(roster, Refusal) else roster
