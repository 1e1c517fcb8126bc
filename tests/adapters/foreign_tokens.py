"""JSON Web Tokens and key sets that are made without any of the code under test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

__all__ = [
    "PrivateKey",
    "SECRET",
    "Signer",
    "b64",
    "ec_key",
    "ed448_key",
    "ed_key",
    "eddsa",
    "es256",
    "es256_der",
    "hs",
    "jwk",
    "private_pem",
    "ps256",
    "public_pem",
    "rs256",
    "rsa_key",
    "token",
]

Signer: TypeAlias = Callable[[bytes], bytes]
PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

#: Long enough for each of the algorithms.
SECRET: Final = "kQ7-0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789_z"


def b64(data: bytes) -> str:
    """Return `data` in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(header: Mapping[str, object] | bytes, claims: object, sign: Signer) -> str:
    """Return a token in the compact serialization; what is bytes is taken as it is."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(sign(signed.encode()))}"


def hs(secret: str | bytes = SECRET, bits: int = 256) -> Signer:
    """Sign with a secret."""
    key = secret.encode() if isinstance(secret, str) else secret
    return lambda data: hmac.new(key, data, getattr(hashlib, f"sha{bits}")).digest()


def rs256(key: rsa.RSAPrivateKey) -> Signer:
    """Sign as RS256."""
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def ps256(key: rsa.RSAPrivateKey) -> Signer:
    """Sign as PS256."""
    return lambda data: key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def es256_der(key: ec.EllipticCurvePrivateKey) -> Signer:
    """Sign with ECDSA, and leave the signature as X.509 wants it."""
    return lambda data: key.sign(data, ec.ECDSA(hashes.SHA256()))


def es256(key: ec.EllipticCurvePrivateKey) -> Signer:
    """Sign as ES256."""

    def sign(data: bytes) -> bytes:
        size = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(es256_der(key)(data))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def eddsa(key: ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) -> Signer:
    """Sign as EdDSA."""
    return key.sign


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a key; the same for the same number."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 0, curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """Return a key; the same for the same number."""
    return ec.generate_private_key(curve())


@cache
def ed_key(number: int = 0) -> ed25519.Ed25519PrivateKey:
    """Return a key; the same for the same number."""
    return ed25519.Ed25519PrivateKey.generate()


@cache
def ed448_key() -> ed448.Ed448PrivateKey:
    """Return a key, always the same."""
    return ed448.Ed448PrivateKey.generate()


def public_pem(key: PrivateKey) -> bytes:
    """Return the public part of a key in PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    """Return a key in PEM."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


def jwk(key: PrivateKey, *, private: bool = False, **more: Any) -> dict[str, Any]:
    """Return a key as a JSON Web Key, its public part unless `private`, with `more` members."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        made = {"kty": "RSA", "n": _number(public.n, key.key_size // 8), "e": _number(public.e, 3)}
        if private:
            made["d"] = _number(key.private_numbers().d, key.key_size // 8)
        return made | more
    if isinstance(key, ec.EllipticCurvePrivateKey):
        numbers, size = key.private_numbers(), (key.curve.key_size + 7) // 8
        curve = {"secp256r1": "P-256", "secp384r1": "P-384"}[key.curve.name]
        point = numbers.public_numbers
        made = {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
        return made | ({"d": _number(numbers.private_value, size)} if private else {}) | more
    curve = "Ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "Ed448"
    made = {"kty": "OKP", "crv": curve, "x": b64(key.public_key().public_bytes_raw())}
    return made | ({"d": b64(key.private_bytes_raw())} if private else {}) | more
