"""Who the bearer of a token is and what they are allowed, by its claims (RFC 7519)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Final, TypeAlias

from rtcore.errors import LocalProtocolError, Refusal
from rtcore.json_values import decode_value
from rtcore.messages import Message, encode, normalize_user_id
from rtcore.patterns import MAX_PATTERN, is_pattern

from .grants import Credential, Grant, Identity, Scope
from .roles import ADMIN, Role
from .token_values import MAX_TOKEN_ID, as_instant, as_token_id

__all__ = ["identity_of"]

_Patterns: TypeAlias = tuple[str, ...] | None

_LISTS: Final = ("channels", "publish", "history", "presence", "upload", "rooms", "roles")
_MAX_ENTRIES: Final = 1000
_MAX_NAME: Final = 255
# Lists that are longer are seldom the same twice.
_MAX_SHARED: Final = 32
_MAX_INFO: Final = 4096
# A message may be nested 128 deep, and what carries this is nested itself.
_MAX_INFO_DEPTH: Final = 64
_AROUND_INFO: Final = 128 - _MAX_INFO_DEPTH
_BUILT_IN: Final = {ADMIN.name: ADMIN}

# What is said of claims that are wrong.
_USER_ID: Final = f"1 to {_MAX_NAME} printable characters, or a whole number"
_LIST: Final = f"a list of at most {_MAX_ENTRIES} strings, each of 1 to {MAX_PATTERN} printable characters"
_INSTANT: Final = "a number of seconds since 1970"
_TOKEN_ID: Final = f"a string of 1 to {MAX_TOKEN_ID} characters"
_INFO: Final = f"a JSON object of at most {_MAX_INFO} bytes, nested {_MAX_INFO_DEPTH} deep at most"


def identity_of(claims: Mapping[str, object], *, roles: Mapping[str, Role]) -> Identity | Refusal:
    """Read what a token says; whether it is genuine and valid now is the caller's to ask.

    A claim that is not there leaves things as the namespaces say. One that is there is the whole of it: with
    ``channels`` no other channel may be joined, be it open to anybody. ``publish``, ``history`` and ``presence``, where
    they are not there, are as ``channels``, and ``upload`` is as ``publish``. What is ``null`` is wrong, not absent:
    whoever wrote it may have meant "nothing" or "anything".

    Args:
        claims: As decoded from JSON; others than those that are known are not looked at.
        roles: By their names. One that a token names and that is not among them counts for nothing, except ``admin``,
            which means everything.

    Returns:
        The identity, or a `Refusal` (``invalid_token``), which names the claim that is wrong and shows nothing of it.
    """
    user_id = normalize_user_id(claims["sub"]) if "sub" in claims else None
    if isinstance(user_id, Refusal):
        return _refusal("sub", _USER_ID)
    lists: dict[str, tuple[str, ...]] = {}
    for name in _LISTS:
        if name in claims:
            entries = _entries(claims[name])
            if entries is None:
                return _refusal(name, _LIST)
            lists[name] = entries
    instants: dict[str, float] = {}
    for name in ("iat", "exp"):
        if name in claims:
            instant = as_instant(claims[name])
            if instant is None:
                return _refusal(name, _INSTANT)
            instants[name] = instant
    token_id = as_token_id(claims.get("jti"))
    if "jti" in claims and token_id is None:
        return _refusal("jti", _TOKEN_ID)
    info = _info(claims.get("info"))
    if "info" in claims and info is None:
        return _refusal("info", _INFO)

    own = (*_inherited(*map(lists.get, _LISTS[:5])), lists.get("rooms"))
    held = [role for name in lists.get("roles", ()) if (role := roles.get(name, _BUILT_IN.get(name)))]
    added = [
        (*_inherited(role.channels, role.publish, role.history, role.presence, role.upload), role.rooms)
        for role in held
    ]
    # All patterns of a scope at once: one role after the other would cost the square of them.
    subscribe, publish, history, presence, upload, signal = (
        _scope((*(patterns or ()), *chain.from_iterable(each[at] or () for each in added)), patterns is not None)
        for at, patterns in enumerate(own)
    )
    return Identity(
        user_id,
        Grant(
            subscribe=subscribe,
            publish=publish,
            history=history,
            presence=presence,
            upload=upload,
            signal=signal,
            admin=any(role.admin for role in held),
            server=any(role.server for role in held),
            info=info,
            credential=Credential.TOKEN,
            token_id=token_id,
            issued_at=instants.get("iat"),
            expires_at=instants.get("exp"),
        ),
    )


def _scope(patterns: tuple[str, ...], exclusive: bool) -> Scope:
    """Return a scope, the same object for what the tokens of an application have in common.

    Each connection keeps its grant: what it keeps for itself alone, the garbage collector looks at for each of them.
    """
    return _shared_scope(patterns, exclusive) if len(patterns) <= _MAX_SHARED else Scope(patterns, exclusive)


@lru_cache(maxsize=1024)
def _shared_scope(patterns: tuple[str, ...], exclusive: bool) -> Scope:
    return Scope(patterns, exclusive)


def _inherited(
    channels: _Patterns, publish: _Patterns, history: _Patterns, presence: _Patterns, upload: _Patterns
) -> tuple[_Patterns, _Patterns, _Patterns, _Patterns, _Patterns]:
    if publish is None:
        publish = channels
    return (
        channels,
        publish,
        channels if history is None else history,
        channels if presence is None else presence,
        publish if upload is None else upload,
    )


def _entries(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES:
        return None
    # A name of a role is held to the same limits.
    entries = dict.fromkeys(entry for entry in value if is_pattern(entry))
    return tuple(entries) if all(map(is_pattern, value)) else None


def _info(value: object) -> Message | None:
    if not isinstance(value, dict):
        return None
    try:
        text = encode({"info": value}).json[len(b'{"info":') : -len(b"}")]
    except LocalProtocolError:
        return None
    if len(text) > _MAX_INFO or isinstance(decode_value(b"[" * _AROUND_INFO + text + b"]" * _AROUND_INFO), Refusal):
        return None
    # What is read again is a copy of our own, in which there is only what JSON can say.
    info = decode_value(text)
    assert isinstance(info, dict)  # as it was before
    return info


def _refusal(claim: str, expected: str) -> Refusal:
    return Refusal("invalid_token", f"the token's claim {claim!r} must be {expected}", status=401)
