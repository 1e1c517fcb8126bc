"""Who may come in, and what for: ``[ws]``, ``[[role]]`` and ``[[api_key]]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from .fields import (
    file_or_none,
    header_name,
    name,
    name_or_none,
    number,
    patterns,
    patterns_or_none,
    scopes,
    seconds,
    secret,
    secret_or_none,
    some_of,
    switch,
    token_or_none,
    url_or_none,
)

__all__ = ["ALGORITHMS", "ApiKeySettings", "RoleSettings", "WsSettings"]

#: How tokens may be signed, and how many bytes a secret must have for it. RFC 7518, section 3.2: "A key of the same
#: size as the hash output (for instance, 256 bits for "HS256") or larger MUST be used with this algorithm."
ALGORITHMS: Final[Mapping[str, int | None]] = {
    "HS256": 32,
    "HS384": 48,
    "HS512": 64,
    "RS256": None,
    "ES256": None,
    "EdDSA": None,
}

# A year, in minutes: longer is a mistake in the unit.
_LONGEST_TOKEN: Final = 366 * 24 * 60


@attrs.frozen(kw_only=True)
class RoleSettings:
    """What tokens that name a role are allowed besides: one ``[[role]]``.

    Attributes:
        name: By which tokens name it.
        channels: Patterns of channels to join.
        publish: Where to publish.
        history: Of which channels to be told what was said.
        presence: Of which channels to know who is there.
        upload: Where to send files.
        rooms: Patterns of rooms.
        admin: Whether to administer.
        server: Whether to count as the server.
    """

    name: str = name()
    channels: tuple[str, ...] = patterns()
    publish: tuple[str, ...] | None = patterns_or_none("the same as channels")
    history: tuple[str, ...] | None = patterns_or_none("the same as channels")
    presence: tuple[str, ...] | None = patterns_or_none("the same as channels")
    upload: tuple[str, ...] | None = patterns_or_none("the same as publish")
    rooms: tuple[str, ...] = patterns()
    admin: bool = switch(False)
    server: bool = switch(False)


@attrs.frozen(kw_only=True)
class ApiKeySettings:
    """A key by which a program is known: one ``[[api_key]]``, or just its text.

    Attributes:
        key: What the program sends.
        name: What it is called, in logs and for idempotency; ``None`` for ``key-1`` and so on, by its place.
        scopes: What it allows: ``*``, or ``ACTION`` or ``ACTION:PATTERN`` each.
        user: As whom the program acts; ``None`` for nobody.
    """

    key: str = secret()
    name: str | None = name_or_none("one by its place")
    scopes: tuple[str, ...] = scopes()
    user: str | None = name_or_none("nobody")


@attrs.frozen
class WsSettings:
    """Who may come in: ``WS_…`` or ``[ws]``.

    Attributes:
        jwt_secret_key: What signs and verifies tokens of HS256, HS384 and HS512.
        jwt_algorithm: How tokens may be signed; new ones are signed in the first way for which there is a key.
        jwt_expire_minutes: For how many minutes a new token is good, unless told otherwise.
        jwt_public_key: The path of a PEM file whose key verifies tokens of RS256, ES256 or EdDSA.
        jwt_private_key: The path of a PEM file whose key signs them, and verifies them where nothing else does.
        jwks_url: Where the keys that verify them are published (RFC 7517).
        jwks_refresh: Seconds after which they are fetched again.
        jwt_audience: For whom tokens must be; ``None`` for tokens that do not say so.
        jwt_issuer: From whom they must come; ``None`` for anybody who has a key.
        jwt_leeway: Seconds by which the clocks of whoever issues them may differ from ours.
        api_keys: By which programs are known: ``[[api_key]]`` tables in TOML; in ``WS_API_KEYS`` texts with commas
            between them, or a JSON list of texts and objects.
        api_key_header: The header that an API key comes in.
        cookie: The cookie that a token may come in; ``None`` for none.
        roles: What tokens that name them are allowed besides: ``[[role]]`` tables in TOML, a JSON list of objects in
            ``WS_ROLES``.
    """

    jwt_secret_key: str | None = secret_or_none(1024)
    jwt_algorithm: tuple[str, ...] = some_of(ALGORITHMS, "HS256")
    jwt_expire_minutes: float = number(60.0, 0.1, _LONGEST_TOKEN, " (minutes)")
    jwt_public_key: str | None = file_or_none()
    jwt_private_key: str | None = file_or_none()
    jwks_url: str | None = url_or_none("https://example.org/.well-known/jwks.json")
    jwks_refresh: float = seconds(300.0, low=1)
    jwt_audience: str | None = name_or_none("anybody")
    jwt_issuer: str | None = name_or_none("anybody")
    jwt_leeway: float = seconds(0.0, low=0, high=3600)
    api_keys: tuple[ApiKeySettings, ...] = ()
    api_key_header: str = header_name("X-API-Key")
    cookie: str | None = token_or_none("the name of a cookie")
    roles: tuple[RoleSettings, ...] = ()

    @property
    def named_api_keys(self) -> list[tuple[str, ApiKeySettings]]:
        """The API keys, each with its name."""
        return [(key.name or f"key-{number}", key) for number, key in enumerate(self.api_keys, 1)]

    @property
    def takes_tokens(self) -> bool:
        """Whether there is a key for tokens."""
        return any((self.jwt_secret_key, self.jwt_public_key, self.jwt_private_key, self.jwks_url))

    @property
    def takes_credentials(self) -> bool:
        """Whether there is any key: for tokens, or of a program."""
        return self.takes_tokens or bool(self.api_keys)
