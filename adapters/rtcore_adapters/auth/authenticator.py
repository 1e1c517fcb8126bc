"""Tells who comes with a token or an API key, and makes tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from math import floor, isfinite
from secrets import token_urlsafe
from typing import Final

import attrs

from rtcore import Identity, Refusal
from rtcore.permissions import identity_of
from rtcore_adapters.settings import Settings, load_settings, roles
from rtcore_transports import Credentials

from .api_keys import ApiKeys
from .claims import check_claims
from .errors import AuthenticationError
from .jwks import Jwks
from .keys import HMAC, SigningKey, VerificationKey, signing_keys, verification_keys
from .signatures import LONGEST_TOKEN, SignedToken, read_token, sign

__all__ = ["WSAuthenticator"]

_UNAUTHORIZED: Final = Refusal("unauthorized", "this needs a credential: a token or an API key", status=401)
_AMBIGUOUS: Final = Refusal("ambiguous_credentials", "there are a token and an API key: send one of them", status=400)
_UNKNOWN_SIGNER: Final = "no key of this server has signed this token"


class WSAuthenticator:
    """Tells who comes with a token or an API key, and makes tokens.

    Nothing that it says, logs or shows holds a token, a key or a secret.

    Args:
        settings: Whose ``[ws]`` says what keys there are; from the environment by default.
        clock: Says what time it is, in seconds since 1970.
        timer: Likewise on a scale that never goes back.

    Raises:
        SettingsError: A file holds no key that fits.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = load_settings() if settings is None else settings
        ws = self._ws = settings.ws
        self._clock = clock
        self._roles = roles(settings)
        self._api_keys = ApiKeys(ws)
        self._keys: tuple[VerificationKey, ...]
        self._signing_keys: tuple[SigningKey, ...]
        self.reload()
        self._jwks = None
        if ws.jwks_url is not None:
            self._jwks = Jwks(ws.jwks_url, ws.jwt_algorithm, refresh=ws.jwks_refresh, timer=timer)

    def reload(self) -> None:
        """Read the PEM files anew.

        Raises:
            SettingsError: One of them holds no key that fits; the keys are as they were.
        """
        keys, signing = verification_keys(self._ws), signing_keys(self._ws)
        self._keys, self._signing_keys = keys, signing

    def create_access_token(self, claims: Mapping[str, object], expires_in: float | timedelta | None = None) -> str:
        """Return a new token.

        Args:
            claims: What it says: ``sub``, the user; ``channels``, ``publish`` and so on, patterns; ``roles``; ``info``.
                The claims ``iat``, ``exp``, ``jti``, ``iss`` and ``aud`` are added where they are not among them.
            expires_in: Seconds for which it is good, which counts more than an ``exp`` in `claims`; what
                ``WS_JWT_EXPIRE_MINUTES`` says by default.

        Raises:
            AuthenticationError: ``invalid_claims``: no server would take such a token; or ``no_signing_key``: there is
                no key to sign it with.
        """
        if not self._signing_keys:
            raise AuthenticationError(
                "no_signing_key",
                "there is no key to sign tokens with: set WS_JWT_SECRET_KEY or WS_JWT_PRIVATE_KEY",
                status=503,
            )
        # Milliseconds, as in revocations: a token that is issued in the second after one was revoked is newer.
        now = floor(self._clock() * 1000) / 1000
        whole: dict[str, object] = {"iat": now, "jti": token_urlsafe(16), **claims}
        if expires_in is not None or "exp" not in claims:
            whole["exp"] = now + self._lifetime(expires_in)
        for name, value in (("iss", self._ws.jwt_issuer), ("aud", self._ws.jwt_audience)):
            if value is not None:
                whole.setdefault(name, value)
        refusal = identity_of(whole, roles=self._roles)
        if isinstance(refusal, Refusal):
            raise AuthenticationError("invalid_claims", refusal.message, status=422)
        try:
            token = sign(whole, self._signing_keys[0])
        except (TypeError, ValueError, RecursionError):
            raise AuthenticationError("invalid_claims", "JSON cannot express the claims", status=422) from None
        if len(token) > LONGEST_TOKEN:
            raise AuthenticationError(
                "invalid_claims", f"the token is longer than {LONGEST_TOKEN} characters: name roles instead", status=422
            )
        return token

    def verify_jwt_token(self, token: str) -> dict[str, object]:
        """Return what a token says.

        Of a JWKS it knows the keys that `verify` has fetched, and fetches none.

        Raises:
            AuthenticationError: ``token_expired``, ``invalid_token``, or ``keys_unavailable`` where none were fetched.
        """
        signed, claims = self._read(token)
        if claims is None and self._jwks is not None and signed.algorithm not in HMAC:
            claims = signed.claims(self._jwks.known(signed.key_id))
        return self._checked(claims)

    def verify_api_key(self, key: str) -> dict[str, object]:
        """Return what is known of an API key: its ``name``, its ``scopes``, a list, and the ``user`` or ``None``.

        Raises:
            AuthenticationError: ``invalid_api_key``: there is no such key.
        """
        known = self._api_keys.find(key)
        return {"name": known.name, "scopes": list(known.scopes), "user": known.identity.user_id}

    async def authenticate(self, credentials: Credentials) -> Identity | Refusal:
        """Return who comes with `credentials`, or why that cannot be told."""
        match credentials.token, credentials.api_key:
            case str(token), None:
                return await self.verify(token)
            case None, str(key):
                try:
                    return self._api_keys.find(key).identity
                except AuthenticationError as error:
                    return error.refusal
            case None, None:
                return _UNAUTHORIZED
        return _AMBIGUOUS

    async def verify(self, token: str) -> Identity | Refusal:
        """Return who comes with a token, or why that cannot be told; fetch the keys of a JWKS where that is due."""
        try:
            signed, claims = self._read(token)
            if claims is None and self._jwks is not None and signed.algorithm not in HMAC:
                claims = signed.claims(await self._jwks.find(signed.key_id))
            identity = identity_of(self._checked(claims), roles=self._roles)
        except AuthenticationError as error:
            return error.refusal
        if isinstance(identity, Refusal) or identity.grant.expires_at is None:
            return identity
        # It is good until then by the clock of whoever issued it, which may be behind ours.
        expires_at = identity.grant.expires_at + self._ws.jwt_leeway
        return attrs.evolve(identity, grant=attrs.evolve(identity.grant, expires_at=expires_at))

    def _read(self, token: str) -> tuple[SignedToken, dict[str, object] | None]:
        if not self._ws.takes_tokens:
            raise AuthenticationError(
                "invalid_token", "this server takes no tokens: there is no key to verify them with"
            )
        signed = read_token(token, self._ws.jwt_algorithm)
        return signed, signed.claims(self._keys)

    def _checked(self, claims: dict[str, object] | None) -> dict[str, object]:
        if claims is None:
            raise AuthenticationError("invalid_token", _UNKNOWN_SIGNER)
        ws = self._ws
        check_claims(claims, now=self._clock(), leeway=ws.jwt_leeway, audience=ws.jwt_audience, issuer=ws.jwt_issuer)
        return claims

    def _lifetime(self, expires_in: float | timedelta | None) -> float:
        if expires_in is None:
            return self._ws.jwt_expire_minutes * 60
        seconds = expires_in.total_seconds() if isinstance(expires_in, timedelta) else expires_in
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isfinite(seconds):
            raise AuthenticationError("invalid_claims", "'expires_in' must be a number of seconds", status=422)
        return seconds
