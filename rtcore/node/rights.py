"""What the connections of a node are allowed, and what becomes of them when that changes or ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rtcore.errors import CloseCode, Refusal
from rtcore.permissions import Credential, Grant, Identity
from rtcore.permissions.revocations import Revocation, Revocations
from rtcore.router import Refused, Request, Router
from rtcore.session import Session

from .answers import renewed_data
from .credentials import check_renewal, refuse_credential, with_credential_of
from .departures import Departures
from .effects import NodeEffect
from .requests import Requests, unknown_connection
from .sessions import Sessions
from .signaling import Signaling

__all__ = ["NodeRights"]

_REVOKED: Final = "the token was revoked"
_EXPIRED: Final = "the token has expired"


class NodeRights:
    """The inputs of a node that change what connections are allowed; `Node` inherits them.

    Attributes:
        signaling: Its rooms, or ``None``.
        revocations: Which tokens were revoked.
    """

    signaling: Signaling | None
    revocations: Revocations
    _router: Router
    _sessions: Sessions
    _requests: Requests
    _departures: Departures

    def renew(self, request: Request, identity: Identity | Refusal, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Let a connection go on with another token; the outcome of a `Verify`.

        Args:
            request: Who asks.
            identity: Whose the token is and what it allows, or why it is good for nothing: then the connection goes on
                until its time ends.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            What `regrant` returns, then the answer; or the answer alone, where the token is another user's, has expired
            or was revoked. Nothing once the connection is gone.
        """
        if (session := self._sessions.of_request(request)) is None:
            return []
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        renewal = check_renewal(session, identity, self.revocations, timestamp=timestamp)
        if isinstance(renewal, Refusal):
            return self._requests.respond(request, renewal)
        effects = self._regrant(session, renewal, prolongs=True, now=now, timestamp=timestamp)
        if request.connection_id not in self._sessions:
            return effects
        return effects + self._requests.respond(request, renewed_data(session, now=now))

    def confirm(self, request: Request, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Answer a connection that has authenticated before it was connected as `renew` would have done."""
        session = self._sessions.of_request(request)
        return [] if session is None else self._requests.respond(request, renewed_data(session, now=now))

    def regrant(self, connection_id: str, grant: Grant, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Allow a connection something else from now on.

        A `grant` that does not come of a token leaves it the credential that it has: its time ends when it would have
        ended, at the latest, and it is revoked as it would have been.

        Returns:
            The `Deliver` to it of ``unsubscribed`` for each channel that it may no longer hear, of ``peer_left`` for
            each room that it may no longer use, and to others of what they hear of that. Or `Refused`, where there is
            no such connection, or what `grant` comes of is good no longer.
        """
        session = self._sessions.get(connection_id)
        if session is None:
            return [Refused(Request(None), unknown_connection(connection_id))]
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        prolongs = grant.credential is Credential.TOKEN
        if prolongs and (refusal := refuse_credential(session.user_id, grant, self.revocations, timestamp=timestamp)):
            return [Refused(Request(None), refusal)]
        grant = with_credential_of(session.grant, grant)
        return self._regrant(session, grant, prolongs=prolongs, now=now, timestamp=timestamp)

    def regrant_user(self, user_id: str, grant: Grant, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Do that for all connections of a user, first come first; there need not be any."""
        effects: list[NodeEffect] = []
        for session in self._sessions.of_user(user_id):
            effects += self.regrant(session.connection_id, grant, now=now, timestamp=timestamp)
        return effects

    def revoke(self, revocation: Revocation, *, now: float, timestamp: int) -> list[NodeEffect] | Refusal:
        """Refuse tokens from now on, and end the connections that have come with them.

        Returns:
            For each of these the `Deliver` of ``disconnect`` and `Close`, then what others hear of their leaving; or
            why the tokens are not refused: nothing has changed.
        """
        if refusal := self.revocations.add(revocation, timestamp=timestamp):
            return refusal
        covers = self.revocations.covers
        ended = [each for each in self._sessions.values() if covers(each.user_id, each.grant, timestamp=timestamp)]
        return self._unauthorize(ended, _REVOKED, now=now, timestamp=timestamp)

    # Inside

    def _regrant(
        self, session: Session, grant: Grant, *, prolongs: bool, now: float, timestamp: int
    ) -> list[NodeEffect]:
        session.regrant(grant, prolongs=prolongs, now=now, timestamp=timestamp)
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        self._sessions.rekey(session)
        regranted = self._router.regrant(session.connection_id, grant, now=now, timestamp=timestamp)
        effects = self._requests.answer(regranted)
        if self.signaling is not None:
            effects += self.signaling.withdraw(session, now=now, timestamp=timestamp)
        return effects

    def _expire(self, *ended: Session, now: float, timestamp: int) -> list[NodeEffect]:
        return self._unauthorize(ended, _EXPIRED, now=now, timestamp=timestamp)

    def _unauthorize(self, ended: Sequence[Session], reason: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        # Nobody waits in a room for those who may not come back, or only as somebody who may be there.
        return self._departures.end(
            ended, CloseCode.UNAUTHORIZED, reason, reconnect=False, comes_back=False, now=now, timestamp=timestamp
        )
