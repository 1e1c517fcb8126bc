"""Keys of tokens: from a secret, and from PEM files. Which algorithm a key is for is in its kind, never in a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from rtcore_adapters.settings import SettingsError, WsSettings
from rtcore_adapters.settings.errors import shown

__all__ = ["HMAC", "RSA_BITS", "SigningKey", "VerificationKey", "algorithm_of", "signing_keys", "verification_keys"]

#: RFC 7518, section 3.3: "A key of size 2048 bits or larger MUST be used". Ones much larger only take time.
RSA_BITS: Final = range(2048, 16385)

#: The algorithms whose keys are secrets.
HMAC: Final = ("HS256", "HS384", "HS512")


@attrs.frozen
class VerificationKey:
    """What verifies tokens.

    Attributes:
        algorithms: Of which kinds.
        key: For joserfc; not to be seen.
        key_id: By which tokens name it, or ``None``.
    """

    algorithms: tuple[str, ...]
    key: Key = attrs.field(repr=False)
    key_id: str | None = None


@attrs.frozen
class SigningKey:
    """What signs tokens.

    Attributes:
        algorithm: How.
        key: For joserfc; not to be seen.
    """

    algorithm: str
    key: Key = attrs.field(repr=False)


def algorithm_of(key: Key) -> str | None:
    """Return the algorithm that a key of two parts is for, or ``None`` if it is for none of ours or too weak."""
    match key:
        case RSAKey() if key.public_key.key_size in RSA_BITS:
            return "RS256"
        case ECKey() if key.curve_name == "P-256":
            return "ES256"
        case OKPKey() if key.curve_name in ("Ed25519", "Ed448"):
            return "EdDSA"
    return None


def verification_keys(ws: WsSettings) -> tuple[VerificationKey, ...]:
    """Return the keys that are ours from the start: not those of a JWKS.

    Raises:
        SettingsError: A file holds no such key.
    """
    keys: list[VerificationKey] = []
    private = _private_key_of(ws)
    hmac = tuple(name for name in ws.jwt_algorithm if name in HMAC)
    if ws.jwt_secret_key is not None and hmac:
        keys.append(VerificationKey(hmac, _secret(ws.jwt_secret_key)))
    if ws.jwt_public_key is not None:
        key = _read_pem("WS_JWT_PUBLIC_KEY", ws.jwt_public_key, _public_key, "a public key or a certificate", ws)
        keys.append(VerificationKey((key.algorithm,), key.key))
        if private is not None and private.key.thumbprint() != key.key.thumbprint():
            raise SettingsError(
                "WS_JWT_PRIVATE_KEY and WS_JWT_PUBLIC_KEY are no pair: tokens that are signed with the one are not "
                "verified by the other; allowed: the two parts of one key"
            )
    elif private is not None:
        keys.append(VerificationKey((private.algorithm,), private.key))
    if ws.jwks_url is None:
        served = [name for key in keys for name in key.algorithms if name not in HMAC]
        for name in ws.jwt_algorithm:
            if name not in (*HMAC, *served):
                raise SettingsError(
                    f"WS_JWT_ALGORITHM is {name}, and the PEM file that is set is for {', '.join(served)}; "
                    f"allowed: without {name}, or with WS_JWKS_URL"
                )
    return tuple(keys)


def signing_keys(ws: WsSettings) -> tuple[SigningKey, ...]:
    """Return the keys that sign tokens, those first whose algorithm is named first.

    Raises:
        SettingsError: A file holds no such key.
    """
    private = _private_key_of(ws)
    keys: list[SigningKey] = []
    for name in ws.jwt_algorithm:
        if name in HMAC and ws.jwt_secret_key is not None:
            keys.append(SigningKey(name, _secret(ws.jwt_secret_key)))
        elif private is not None and private.algorithm == name:
            keys.append(private)
    return tuple(keys)


def _secret(secret: str) -> Key:
    return OctKey.import_key(secret.encode())


def _private_key_of(ws: WsSettings) -> SigningKey | None:
    if ws.jwt_private_key is None:
        return None
    return _read_pem("WS_JWT_PRIVATE_KEY", ws.jwt_private_key, _private_key, "a private key without a password", ws)


def _read_pem(name: str, path: str, read: Callable[[bytes], Key | None], what: str, ws: WsSettings) -> SigningKey:
    algorithms = [algorithm for algorithm in ws.jwt_algorithm if algorithm not in HMAC]
    try:
        key = read(Path(path).read_bytes())
        algorithm = None if key is None else algorithm_of(key)
    except OSError as error:
        raise SettingsError(f"{name} is {shown(path)}, which cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = algorithm = None
    if key is None or algorithm not in algorithms:
        wanted = " or ".join(algorithms) or "WS_JWT_ALGORITHM RS256, ES256 or EdDSA"
        raise SettingsError(f"{name} is {shown(path)}; allowed: the path of a PEM file with {what} for {wanted}")
    return SigningKey(algorithm, key)


def _public_key(pem: bytes) -> Key | None:
    if b"-----BEGIN CERTIFICATE-----" in pem:
        return _key(load_pem_x509_certificate(pem).public_key())
    return _key(load_pem_public_key(pem))


def _private_key(pem: bytes) -> Key | None:
    return _key(load_pem_private_key(pem, None))


def _key(native: object) -> Key | None:
    match native:
        case RSAPublicKey() | RSAPrivateKey():
            return RSAKey(native, native)
        case EllipticCurvePublicKey() | EllipticCurvePrivateKey():
            return ECKey(native, native)
        case Ed25519PublicKey() | Ed25519PrivateKey() | Ed448PublicKey() | Ed448PrivateKey():
            return OKPKey(native, native)
    return None
