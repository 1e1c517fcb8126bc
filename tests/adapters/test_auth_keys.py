"""API keys, PEM files, and the tokens that we make ourselves."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.x509.oid import NameOID

from rtcore import Identity, Refusal, RtcoreError
from rtcore.permissions import EVERYTHING, Credential, Scope
from rtcore_adapters import WSAuthenticator
from rtcore_adapters.auth import AuthenticationError
from rtcore_adapters.auth import api_keys as api_keys_module
from rtcore_adapters.settings import ApiKeySettings, Settings, SettingsError, WsSettings
from rtcore_transports import Credentials

from .foreign_tokens import (
    SECRET,
    PrivateKey,
    ec_key,
    ed448_key,
    ed_key,
    hs,
    private_pem,
    public_pem,
    rs256,
    rsa_key,
    token,
)

NOW: Final = 1_700_000_000.0


def authenticator(*api_keys: ApiKeySettings, now: float = NOW, **ws: Any) -> WSAuthenticator:
    return WSAuthenticator(Settings(ws=WsSettings(api_keys=api_keys, **ws)), clock=lambda: now)


def by_secret(now: float = NOW, **ws: Any) -> WSAuthenticator:
    return authenticator(now=now, jwt_secret_key=SECRET, **ws)


# API keys

KEYS: Final = (
    ApiKeySettings(key="first-key"),
    ApiKeySettings(key="second-key", name="news", scopes=("publish:news:*",), user="robot"),
    ApiKeySettings(key="third-key", scopes=()),
)


def test_api_keys() -> None:
    verifier = authenticator(*KEYS)
    assert verifier.verify_api_key("first-key") == {"name": "key-1", "scopes": ["*"], "user": None}
    assert verifier.verify_api_key("second-key") == {"name": "news", "scopes": ["publish:news:*"], "user": "robot"}
    assert verifier.verify_api_key("third-key") == {"name": "key-3", "scopes": [], "user": None}


@pytest.mark.parametrize(
    "wrong", ["", "first-ke", "first-key ", "FIRST-KEY", "first-key\0", "é", "\ud800", "news", "key-1", "x" * 100_000]
)
def test_api_keys_that_are_none(wrong: str) -> None:
    for verifier in (authenticator(*KEYS), authenticator()):
        with pytest.raises(AuthenticationError) as caught:
            verifier.verify_api_key(wrong)
        assert (caught.value.code, caught.value.status) == ("invalid_api_key", 401)
        assert caught.value.message == "this server knows no such API key"


def test_every_key_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    verifier = authenticator(*KEYS)
    monkeypatch.setattr(api_keys_module, "compare_digest", compare)
    for key in ("first-key", "third-key"):
        compared.clear()
        verifier.verify_api_key(key)
        assert compared == [(32, 32)] * 3
    compared.clear()
    with pytest.raises(AuthenticationError):
        verifier.verify_api_key("f")
    assert compared == [(32, 32)] * 3


@pytest.mark.anyio
async def test_who_comes() -> None:
    verifier = authenticator(*KEYS, jwt_secret_key=SECRET)
    everything = await verifier.authenticate(Credentials(api_key="first-key"))
    assert isinstance(everything, Identity)
    assert (everything.user_id, everything.grant.subscribe) == (None, EVERYTHING.subscribe)
    assert everything.grant.admin
    # By which its publications are known.
    assert everything.grant.token_id == "key-1"

    robot = await verifier.authenticate(Credentials(api_key="second-key"))
    assert isinstance(robot, Identity)
    assert robot.user_id == "robot"
    assert robot.grant.publish == Scope(("news:*",), exclusive=True)
    assert robot.grant.subscribe == Scope((), exclusive=True)
    assert robot.grant.credential is Credential.KEY

    ann = await verifier.authenticate(Credentials(token=token({"alg": "HS256"}, {"sub": "ann"}, hs())))
    assert isinstance(ann, Identity)
    assert (ann.user_id, ann.grant.credential) == ("ann", Credential.TOKEN)


@pytest.mark.anyio
async def test_who_does_not() -> None:
    verifier = authenticator(*KEYS, jwt_secret_key=SECRET)
    for credentials, code, status in (
        (Credentials(), "unauthorized", 401),
        (Credentials(api_key="no"), "invalid_api_key", 401),
        # One is not the other.
        (Credentials(api_key=SECRET), "invalid_api_key", 401),
        (Credentials(token="first-key"), "invalid_token", 401),
        (Credentials(token="", api_key=""), "ambiguous_credentials", 400),
        (Credentials(token="x", api_key="first-key"), "ambiguous_credentials", 400),
    ):
        refusal = await verifier.authenticate(credentials)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.status) == (code, status)


# Tokens of our own


def opened(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims, read without the code under test."""
    header, claims = (json.loads(base64.urlsafe_b64decode(f"{part}===")) for part in text.split(".")[:2])
    return header, claims


def test_a_new_token() -> None:
    maker = by_secret(now=NOW + 0.12345)
    text = maker.create_access_token({"sub": "анна", "channels": ["chat:*"]})
    header, claims = opened(text)
    assert header == {"alg": "HS256", "typ": "JWT"}
    assert len(claims["jti"]) >= 20
    now = NOW + 0.123
    assert claims == {
        "sub": "анна",
        "channels": ["chat:*"],
        "iat": now,
        "exp": pytest.approx(now + 3600),
        "jti": claims["jti"],
    }
    signed, _, signature = text.rpartition(".")
    assert base64.urlsafe_b64encode(hs()(signed.encode())).rstrip(b"=").decode() == signature
    assert maker.verify_jwt_token(text) == claims
    assert opened(maker.create_access_token({}))[1]["jti"] != claims["jti"]


def test_all_that_settings_say_of_a_new_token() -> None:
    maker = by_secret(
        jwt_algorithm=("HS512", "HS256"), jwt_expire_minutes=1.5, jwt_issuer="https://a.example", jwt_audience="me"
    )
    text = maker.create_access_token({"sub": "ann"})
    header, claims = opened(text)
    assert header["alg"] == "HS512"
    assert (claims["exp"], claims["iss"], claims["aud"]) == (NOW + 90, "https://a.example", "me")
    assert maker.verify_jwt_token(text) == claims


@pytest.mark.parametrize(
    ("expires_in", "exp"),
    [(900, NOW + 900), (0.5, NOW + 0.5), (timedelta(hours=2), NOW + 7200), (-1, NOW - 1), (None, NOW + 3600)],
)
def test_how_long_it_is_good(expires_in: float | timedelta | None, exp: float) -> None:
    text = by_secret().create_access_token({}, expires_in)
    assert opened(text)[1]["exp"] == exp
    if exp < NOW:
        with pytest.raises(AuthenticationError, match="token_expired"):
            by_secret().verify_jwt_token(text)


def test_claims_that_are_given_are_kept() -> None:
    given = {"sub": "ann", "iat": NOW - 5, "exp": NOW + 5, "jti": "1", "iss": "b", "aud": ["you", "me"], "x": {"y": 1}}
    maker = by_secret(jwt_issuer="a", jwt_audience="me")
    assert opened(maker.create_access_token(given))[1] == given
    assert opened(maker.create_access_token(given, 60))[1] == {**given, "exp": NOW + 60}
    assert given["exp"] == NOW + 5


def test_a_new_token_is_good_at_once() -> None:
    for now in (NOW + 0.0004, NOW + 0.9996, NOW + 1 / 3):
        maker = by_secret(now=now)
        assert maker.verify_jwt_token(maker.create_access_token({}))["iat"] <= now


@pytest.mark.parametrize(
    ("claims", "expires_in"),
    [
        ({"sub": []}, None),
        ({"channels": 5}, None),
        ({"exp": "soon"}, None),
        ({"jti": ""}, None),
        ({"x": float("nan")}, None),
        ({"x": b"bytes"}, None),
        ({"x": "\ud800"}, None),
        ({"x": "y" * 10_000}, None),
        ({}, float("nan")),
        ({}, float("inf")),
        ({}, True),
        ({}, "900"),
        ({}, 1e15),
    ],
)
def test_tokens_that_nobody_would_take_are_not_made(claims: dict[str, object], expires_in: Any) -> None:
    with pytest.raises(AuthenticationError) as caught:
        by_secret().create_access_token(claims, expires_in)
    assert caught.value.code == "invalid_claims"


def test_claims_without_an_end() -> None:
    deep: list[object] = []
    deep.append(deep)
    with pytest.raises(AuthenticationError, match="invalid_claims"):
        by_secret().create_access_token({"x": deep})


@pytest.mark.parametrize("ws", [{}, {"jwt_algorithm": ("RS256",), "jwks_url": "http://127.0.0.1:9/"}])
def test_without_a_key_no_token_is_made(ws: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError) as caught:
        authenticator(**ws).create_access_token({"sub": "ann"})
    assert caught.value.code == "no_signing_key"
    assert isinstance(caught.value, RtcoreError)
    assert caught.value.refusal == Refusal("no_signing_key", caught.value.message, 503)


# PEM files


@pytest.fixture
def pem(tmp_path: Path) -> Callable[[str, bytes], str]:
    def write(name: str, data: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


ALGORITHMS: Final = {"RS256": rsa_key, "ES256": ec_key, "EdDSA": ed_key}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key_signs(algorithm: str, pem: Callable[[str, bytes], str]) -> None:
    make: Any = ALGORITHMS[algorithm]
    private, public = pem("private.pem", private_pem(make())), pem("public.pem", public_pem(make()))
    maker = authenticator(jwt_algorithm=(algorithm,), jwt_private_key=private)
    text = maker.create_access_token({"sub": "ann"})
    assert opened(text)[0] == {"alg": algorithm, "typ": "JWT"}
    # By itself it verifies too; who only verifies needs no more than the other.
    for verifier in (
        maker,
        authenticator(jwt_algorithm=(algorithm,), jwt_public_key=public),
        authenticator(jwt_algorithm=(algorithm,), jwt_public_key=public, jwt_private_key=private),
    ):
        assert verifier.verify_jwt_token(text)["sub"] == "ann"
    other = authenticator(jwt_algorithm=(algorithm,), jwt_private_key=pem("other.pem", private_pem(make(1))))
    with pytest.raises(AuthenticationError, match="invalid_token"):
        other.verify_jwt_token(text)


def certificate(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.org")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    return made.public_bytes(Encoding.PEM)


def test_a_certificate_holds_a_public_key(pem: Callable[[str, bytes], str]) -> None:
    path = pem("certificate.pem", certificate(rsa_key()))
    verifier = authenticator(jwt_algorithm=("RS256",), jwt_public_key=path)
    assert verifier.verify_jwt_token(token({"alg": "RS256"}, {"sub": "ann"}, rs256(rsa_key()))) == {"sub": "ann"}


@pytest.mark.parametrize(
    ("algorithm", "data"),
    [
        ("RS256", b""),
        ("RS256", b"\xff\0"),
        ("RS256", SECRET.encode()),
        ("RS256", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        ("RS256", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("RS256", private_pem(rsa_key())),
        ("RS256", public_pem(rsa_key(0, 1024))),
        ("RS256", public_pem(ec_key())),
        ("ES256", public_pem(rsa_key())),
        ("ES256", public_pem(ec_key(0, SECP384R1))),
        ("EdDSA", public_pem(ec_key())),
        ("ES256", public_pem(ed448_key())),
    ],
)
def test_files_that_hold_no_such_public_key(algorithm: str, data: bytes, pem: Callable[[str, bytes], str]) -> None:
    path = pem("key.pem", data)
    with pytest.raises(SettingsError) as caught:
        authenticator(jwt_algorithm=(algorithm,), jwt_public_key=path)
    said = str(caught.value).replace(repr(path), "PATH").replace(f"{path!r:.79}…", "PATH")
    assert said.endswith(f"; allowed: the path of a PEM file with a public key or a certificate for {algorithm}")
    assert said.startswith("WS_JWT_PUBLIC_KEY is ")
    assert said.isprintable()


@pytest.mark.parametrize(
    ("algorithm", "data"),
    [
        ("RS256", public_pem(rsa_key())),
        ("RS256", private_pem(rsa_key(), b"password")),
        ("RS256", private_pem(rsa_key(0, 1024))),
        ("ES256", private_pem(ed_key())),
        ("EdDSA", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ],
)
def test_files_that_hold_no_such_private_key(algorithm: str, data: bytes, pem: Callable[[str, bytes], str]) -> None:
    with pytest.raises(SettingsError) as caught:
        authenticator(jwt_algorithm=(algorithm,), jwt_private_key=pem("key.pem", data))
    assert str(caught.value).endswith(
        f"; allowed: the path of a PEM file with a private key without a password for {algorithm}"
    )


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "no.pem", "No such file or directory"), (tmp_path, "Is a directory")):
        for name in ("jwt_public_key", "jwt_private_key"):
            with pytest.raises(SettingsError, match=rf"^WS_{name.upper()} is .* cannot be read: {why}$"):
                authenticator(jwt_algorithm=("RS256",), **{name: str(path)})


def test_a_key_that_no_algorithm_uses(pem: Callable[[str, bytes], str]) -> None:
    path = pem("key.pem", public_pem(rsa_key()))
    with pytest.raises(SettingsError, match=r"^WS_JWT_PUBLIC_KEY is .* for WS_JWT_ALGORITHM RS256, ES256 or EdDSA$"):
        by_secret(jwt_public_key=path)


def test_an_algorithm_that_no_key_is_for(pem: Callable[[str, bytes], str]) -> None:
    path = pem("key.pem", public_pem(rsa_key()))
    with pytest.raises(SettingsError) as caught:
        by_secret(jwt_algorithm=("HS256", "RS256", "ES256"), jwt_public_key=path)
    assert str(caught.value) == (
        "WS_JWT_ALGORITHM is ES256, and the PEM file that is set is for RS256; "
        "allowed: without ES256, or with WS_JWKS_URL"
    )
    authenticator(jwt_algorithm=("RS256", "ES256"), jwt_public_key=path, jwks_url="http://127.0.0.1:9/")


def test_two_keys_that_are_no_pair(pem: Callable[[str, bytes], str]) -> None:
    ours, other = pem("private.pem", private_pem(ec_key())), pem("public.pem", public_pem(ec_key(1)))
    with pytest.raises(SettingsError) as caught:
        authenticator(jwt_algorithm=("ES256",), jwt_private_key=ours, jwt_public_key=other)
    assert str(caught.value) == (
        "WS_JWT_PRIVATE_KEY and WS_JWT_PUBLIC_KEY are no pair: tokens that are signed with the one are not verified by "
        "the other; allowed: the two parts of one key"
    )


def test_files_are_read_anew(pem: Callable[[str, bytes], str]) -> None:
    path = pem("key.pem", private_pem(ec_key()))
    maker = authenticator(jwt_algorithm=("ES256",), jwt_private_key=path)
    old = maker.create_access_token({})
    pem("key.pem", b"?")
    with pytest.raises(SettingsError):
        maker.reload()
    assert maker.verify_jwt_token(old)
    pem("key.pem", private_pem(ec_key(1)))
    maker.reload()
    with pytest.raises(AuthenticationError, match="invalid_token"):
        maker.verify_jwt_token(old)
    assert maker.verify_jwt_token(maker.create_access_token({}))


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WS_JWT_SECRET_KEY", SECRET)
    monkeypatch.setenv("WS_API_KEYS", "one,two")
    maker = WSAuthenticator()
    assert maker.verify_jwt_token(maker.create_access_token({"sub": "ann"}))["sub"] == "ann"
    assert maker.verify_api_key("two")["name"] == "key-2"
