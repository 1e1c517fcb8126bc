"""Whether a token is good now, here and from where it comes (RFC 7519, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

from rtcore.permissions.token_values import as_instant

from .errors import AuthenticationError

__all__ = ["check_claims"]


def check_claims(
    claims: Mapping[str, object], *, now: float, leeway: float, audience: str | None, issuer: str | None
) -> None:
    """Check when a token is good, for whom it is and from whom it comes.

    Args:
        claims: What it says.
        now: Seconds since 1970.
        leeway: Seconds by which the issuer's clock may differ.
        audience: Whom it must be for; ``None``: for nobody in particular.
        issuer: From whom it must be; ``None``: it does not matter.

    Raises:
        AuthenticationError: ``token_expired``, or else ``invalid_token``.
    """
    expires_at, not_before, issued_at = (_instant(claims, name) for name in ("exp", "nbf", "iat"))
    # "the current date/time MUST be before the expiration date/time"
    if expires_at is not None and now - leeway >= expires_at:
        raise AuthenticationError("token_expired", "the token has expired: get a new one")
    # "the current date/time MUST be after or equal to the not-before date/time"
    if not_before is not None and now + leeway < not_before:
        raise AuthenticationError("invalid_token", "the token is not good yet")
    if issued_at is not None and now + leeway < issued_at:
        raise AuthenticationError("invalid_token", "the token was issued in the future: check the clock of its issuer")
    if issuer is not None and claims.get("iss") != issuer:
        raise AuthenticationError("invalid_token", "the token is from another issuer")
    # "If the principal processing the claim does not identify itself with a value in the "aud" claim when this claim is
    # present, then the JWT MUST be rejected."
    named = claims.get("aud")
    audiences = named if isinstance(named, list) else [named]
    if ("aud" in claims or audience is not None) and (audience is None or audience not in audiences):
        raise AuthenticationError("invalid_token", "the token is for another audience")


def _instant(claims: Mapping[str, object], name: str) -> float | None:
    if name not in claims:
        return None
    instant = as_instant(claims[name])
    if instant is None:
        raise AuthenticationError("invalid_token", f"the token's {name!r} must be a number of seconds since 1970")
    return instant
