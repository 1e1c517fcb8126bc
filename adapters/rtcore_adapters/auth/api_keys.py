"""API keys: whose they are, in a time that does not tell how near a wrong one is."""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest

import attrs

from rtcore import Identity, Refusal
from rtcore.permissions import grant_of_scopes
from rtcore_adapters.settings import WsSettings

from .errors import AuthenticationError

__all__ = ["ApiKey", "ApiKeys"]


@attrs.frozen
class ApiKey:
    """An API key that is known, without the key.

    Attributes:
        name: What it is called.
        scopes: What it allows.
        identity: Who comes with it; the name is its grant's `token_id`.
    """

    name: str
    scopes: tuple[str, ...]
    identity: Identity


class ApiKeys:
    """The API keys of a server."""

    def __init__(self, ws: WsSettings) -> None:
        # Digests, which are all of one length, so that a comparison tells nothing of how long a key is either.
        self._known = [(_digest(key.key), _api_key(name, key.scopes, key.user)) for name, key in ws.named_api_keys]

    def find(self, key: str) -> ApiKey:
        """Return what is known of a key.

        Raises:
            AuthenticationError: ``invalid_api_key``: there is no such key.
        """
        digest = _digest(key)
        found = None
        # All of them, always.
        for known, api_key in self._known:
            if compare_digest(known, digest):
                found = api_key
        if found is None:
            raise AuthenticationError("invalid_api_key", "this server knows no such API key")
        return found


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _api_key(name: str, scopes: tuple[str, ...], user: str | None) -> ApiKey:
    grant = grant_of_scopes(scopes)
    assert not isinstance(grant, Refusal), "the settings have checked them"
    return ApiKey(name, scopes, Identity(user, attrs.evolve(grant, token_id=name)))
