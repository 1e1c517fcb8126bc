"""JSON Web Signatures (RFC 7515) of tokens: read, verified and made.

Which algorithms count is the server's to say and never the token's (RFC 8725, section 3.1). What a token says about
keys besides the id of one, in ``jwk``, ``jku``, ``x5c`` or ``x5u``, is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.util import urlsafe_b64decode

from .errors import AuthenticationError
from .keys import SigningKey, VerificationKey

__all__ = ["LONGEST_TOKEN", "SignedToken", "read_token", "sign"]

#: The most characters of a token, as of any credential.
LONGEST_TOKEN: Final = 8192

_MALFORMED: Final = "this is no JSON Web Token that this server understands: one that is signed and not encrypted"


class _Registry(jws.JWSRegistry):
    """As joserfc has it, but with room for headers of certificates, and for the name ``EdDSA`` without a warning."""

    max_header_length = LONGEST_TOKEN

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


@attrs.frozen
class SignedToken:
    """A token whose signature has yet to be verified.

    Attributes:
        algorithm: How it says that it is signed, which is one of the ways that were allowed.
        key_id: By which key, or ``None`` if it does not say.
    """

    algorithm: str
    key_id: str | None
    _text: bytes = attrs.field(repr=False)

    def claims(self, keys: Iterable[VerificationKey]) -> dict[str, object] | None:
        """Return what it says if one of `keys` has signed it, else ``None``.

        Raises:
            AuthenticationError: One of them has, and it says nothing that can be read.
        """
        registry = _Registry(algorithms=[self.algorithm], strict_check_header=False)
        for key in keys:
            if self.algorithm not in key.algorithms:
                continue
            try:
                signed = jws.deserialize_compact(self._text, key.key, registry=registry)
            except (JoseError, ValueError):
                continue
            return _read_object(signed.payload)
        return None


def read_token(token: str, algorithms: Sequence[str]) -> SignedToken:
    """Read how a token is signed.

    Args:
        token: In the JWS Compact Serialization (RFC 7515, section 7.1).
        algorithms: Those that are allowed.

    Raises:
        AuthenticationError: ``invalid_token``: it is none, or is not signed in an allowed way.
    """
    if not isinstance(token, str) or not token.isascii() or len(token) > LONGEST_TOKEN or token.count(".") != 2:
        raise _malformed()
    text = token.encode("ascii")
    try:
        header = _read_object(urlsafe_b64decode(text.partition(b".")[0]))
    except ValueError:
        raise _malformed() from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    # RFC 7515, section 4.1.11: "If any of the listed extension Header Parameters are not understood and supported by
    # the recipient, then the JWS is invalid." None is.
    if "crit" in header or not isinstance(key_id, str | None):
        raise _malformed()
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise AuthenticationError("invalid_token", "the token is not signed in a way that this server accepts")
    return SignedToken(algorithm, key_id, text)


def sign(claims: Mapping[str, object], key: SigningKey) -> str:
    """Return a token that says `claims`.

    Raises:
        TypeError: JSON cannot express them.
        ValueError: Likewise.
    """
    payload = json.dumps(dict(claims), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    registry = _Registry(algorithms=[key.algorithm])
    return jws.serialize_compact({"alg": key.algorithm, "typ": "JWT"}, payload.encode(), key.key, registry=registry)


def _read_object(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(value, dict):
        raise _malformed()
    return value


# RFC 7515, section 4, and RFC 7519, section 4, let us reject names that come twice. Two readers who each take another
# of them would not agree on what was signed.
def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError
    return value


def _no_number(word: str) -> float:
    raise ValueError(word)


def _malformed() -> AuthenticationError:
    return AuthenticationError("invalid_token", _MALFORMED)
