"""Keys that somebody else publishes: a JSON Web Key Set (RFC 7517), fetched again as it changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

import anyio
import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key
from joserfc.util import base64_to_int

from rtcore_transports import Background

from .errors import AuthenticationError
from .keys import RSA_BITS, VerificationKey, algorithm_of

__all__ = ["Jwks", "read_jwks"]

_log = logging.getLogger("rtcore.auth")

# Seconds for the whole of it.
_TIMEOUT: Final = 5.0
_MAX_SIZE: Final = 2**20
_MAX_KEYS: Final = 100

# Seconds between two attempts, whatever tokens there are: anybody can make one up that names an unknown key.
_MIN_INTERVAL: Final = 10.0

# The members that make a public key (RFC 7518, section 6; RFC 8037), and those that it would be private with.
_KINDS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_PRIVATE: Final = ("d", "k", "p", "q", "dp", "dq", "qi", "oth")


class Jwks:
    """The keys that are published under a URL.

    They are fetched when first asked for. Once they are older than `refresh` they are fetched again while the old ones
    go on, which nobody waits for until they are twice as old. What cannot be fetched leaves them as they were.

    Args:
        url: Where they are.
        algorithms: For which keys are wanted.
        refresh: Seconds.
        timer: Says what time it is, in seconds of a scale that never goes back.
    """

    def __init__(self, url: str, algorithms: Sequence[str], *, refresh: float, timer: Callable[[], float]) -> None:
        self._url = url
        self._algorithms = algorithms
        self._refresh = refresh
        self._timer = timer
        self._keys: tuple[VerificationKey, ...] | None = None
        self._fetched_at = self._next_at = float("-inf")
        self._failed = False
        self._fetching = Background()

    def known(self, key_id: str | None) -> tuple[VerificationKey, ...]:
        """Return the keys that were fetched and have this id, or all of them for ``None``.

        Raises:
            AuthenticationError: ``keys_unavailable``: none were.
        """
        if self._keys is None:
            raise _unavailable()
        return tuple(key for key in self._keys if key_id is None or key.key_id == key_id)

    async def find(self, key_id: str | None) -> tuple[VerificationKey, ...]:
        """Return the keys with this id, or all of them for ``None``; fetch them where that is due.

        Raises:
            AuthenticationError: ``keys_unavailable``: they cannot be fetched.
        """
        age = self._timer() - self._fetched_at
        if age >= self._refresh:
            self._start()
        if age >= 2 * self._refresh:
            await self._fetching.wait()
        if not (found := self.known(key_id)):
            self._start()
            await self._fetching.wait()
            if not (found := self.known(key_id)) and self._failed:
                raise _unavailable()
        return found

    def _start(self) -> None:
        # One at a time, on its own: whoever waits for it may give up, and the next one finds it done.
        if not self._fetching.running and (now := self._timer()) >= self._next_at:
            self._next_at = now + min(_MIN_INTERVAL, self._refresh)
            self._fetching.start(self._fetch)

    async def _fetch(self) -> None:
        self._failed = True
        try:
            with anyio.fail_after(_TIMEOUT):
                self._keys = read_jwks(await self._get(), self._algorithms)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            _log.warning(
                "the keys of tokens cannot be fetched: %s", str(error) or "no answer in time", extra={"url": self._url}
            )
            return
        self._failed = False
        self._fetched_at = self._timer()

    async def _get(self) -> bytes:
        # Neither proxies of the environment nor redirects: the keys come from where the settings say, or not at all.
        # And as it comes, since decompressed it may be much more.
        headers = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=_TIMEOUT, verify=self._url.startswith("https:")) as client,
            client.stream("GET", self._url, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise ValueError(f"the answer is {response.status_code}")
            body = bytearray()
            with anyio.CancelScope() as scope:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MAX_SIZE:
                        # httpx2 reads by generators inside generators, and only what is raised in the innermost ends
                        # them all; left early they would be the garbage collector's, of which trio warns.
                        scope.cancel()
            if len(body) > _MAX_SIZE:
                raise ValueError(f"the answer is longer than {_MAX_SIZE} bytes")
            return bytes(body)


def read_jwks(data: bytes, algorithms: Sequence[str]) -> tuple[VerificationKey, ...]:
    """Read a JWK Set.

    RFC 7517, section 5: "Implementations SHOULD ignore JWKs within a JWK Set that use "kty" (key type) values that are
    not understood by them, that are missing required members, or for which values are out of the supported ranges."
    Ignored are also those that are secret, which nobody should publish, and those that are for something else.

    Args:
        data: As it came.
        algorithms: For which keys are wanted.

    Raises:
        ValueError: It is none.
    """
    try:
        document: object = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise ValueError("the answer is no JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("the answer is no JWK Set, an object with 'keys'")
    if len(keys) > _MAX_KEYS:
        raise ValueError(f"the answer has more than {_MAX_KEYS} keys")
    read = (_read_key(key, algorithms) for key in keys)
    return tuple(key for key in read if key is not None)


def _read_key(jwk: object, algorithms: Sequence[str]) -> VerificationKey | None:
    if not isinstance(jwk, dict) or any(name in jwk for name in _PRIVATE):
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in _as_list(jwk.get("key_ops", ["verify"])):
        return None
    key = _public_key(jwk)
    algorithm = None if key is None else algorithm_of(key)
    key_id = jwk.get("kid")
    if key is None or algorithm is None or algorithm not in algorithms or jwk.get("alg", algorithm) != algorithm:
        return None
    return VerificationKey((algorithm,), key, key_id) if isinstance(key_id, str | None) else None


def _public_key(jwk: dict[str, object]) -> Key | None:
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _KINDS:
        return None
    # No others: what is beside a key is for its publisher.
    members = cast("dict[str, str | list[str]]", {name: jwk.get(name) for name in ("kty", *_KINDS[kind])})
    try:
        # joserfc warns of a short key and would go on.
        if kind == "RSA" and base64_to_int(str(members["n"])).bit_length() not in RSA_BITS:
            return None
        return JWKRegistry.import_key(members)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _unavailable() -> AuthenticationError:
    return AuthenticationError(
        "keys_unavailable",
        "the keys that verify tokens cannot be fetched at the moment: try again",
        status=503,
        retry_after=int(_MIN_INTERVAL),
    )
