"""Whether what somebody comes with is good now, and what becomes of it when what they are allowed changes."""

from __future__ import annotations

from typing import Final

import attrs

from rtcore.errors import Refusal
from rtcore.permissions import Credential, Grant, Identity
from rtcore.permissions.revocations import Revocations
from rtcore.session import Session

__all__ = ["check_renewal", "refuse_credential", "refuse_session", "with_credential_of"]

_REVOKED: Final = Refusal("token_revoked", "the token was revoked: get another one", status=401)
_EXPIRED: Final = Refusal("token_expired", "the token has expired: get another one", status=401)
_MISMATCH: Final = Refusal(
    "user_mismatch", "the token is another user's than the connection: connect again with it", status=403
)


def refuse_credential(user_id: str | None, grant: Grant, revocations: Revocations, *, timestamp: int) -> Refusal | None:
    """Tell why what somebody comes with is good no longer, or ``None`` if it is.

    Args:
        user_id: Who comes.
        grant: With what.
        revocations: Which tokens were revoked.
        timestamp: Milliseconds since 1970.
    """
    if revocations.covers(user_id, grant, timestamp=timestamp):
        return _REVOKED
    # RFC 7519, section 4.1.4: "the current date/time MUST be before the expiration date/time listed in the "exp"
    # claim".
    if grant.expires_at is not None and timestamp / 1000 >= grant.expires_at:
        return _EXPIRED
    return None


def refuse_session(session: Session, *, now: float) -> Refusal | None:
    """Tell that the time of a connection has ended, which is about to be ended too, or ``None`` if it has not."""
    return _EXPIRED if session.has_ended(now=now) else None


def check_renewal(
    session: Session, identity: Identity | Refusal, revocations: Revocations, *, timestamp: int
) -> Grant | Refusal:
    """Return with what a connection goes on, or why it cannot; see `refuse_credential`.

    A connection is the same user's for as long as it lasts: what it has published, heard and joined is that user's.
    """
    if isinstance(identity, Refusal):
        return identity
    if identity.user_id != session.user_id:
        return _MISMATCH
    refusal = refuse_credential(identity.user_id, identity.grant, revocations, timestamp=timestamp)
    return refusal or identity.grant


def with_credential_of(held: Grant, grant: Grant) -> Grant:
    """Return what the application allows somebody instead of what they hold.

    They still hold what they came with, and lose it all when that is revoked, unless `grant` comes of a token itself.
    """
    if grant.credential is Credential.TOKEN:
        return grant
    return attrs.evolve(grant, credential=held.credential, token_id=held.token_id, issued_at=held.issued_at)
