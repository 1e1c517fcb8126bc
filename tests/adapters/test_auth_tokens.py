"""Tokens made by others: which are taken, and which are not, however they try."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey

from rtcore import Identity, Refusal
from rtcore_adapters import WSAuthenticator
from rtcore_adapters.auth import AuthenticationError
from rtcore_adapters.auth.keys import VerificationKey
from rtcore_adapters.auth.signatures import read_token
from rtcore_adapters.settings import RoleSettings, Settings, WsSettings

from .foreign_tokens import (
    SECRET,
    Signer,
    b64,
    ec_key,
    ed448_key,
    ed_key,
    eddsa,
    es256,
    es256_der,
    hs,
    jwk,
    ps256,
    public_pem,
    rs256,
    rsa_key,
    token,
)

#: Where the clock stands.
NOW: Final = 1_700_000_000.0
HS256: Final = {"alg": "HS256", "typ": "JWT"}
ANN: Final = {"sub": "ann", "exp": NOW + 60}


def authenticator(now: float = NOW, **ws: Any) -> WSAuthenticator:
    chosen = {"jwt_secret_key": SECRET} | ws
    return WSAuthenticator(Settings(ws=WsSettings(**chosen)), clock=lambda: now)


def with_public(folder: Path, pem: bytes, algorithm: str, **ws: Any) -> WSAuthenticator:
    path = folder / "public.pem"
    path.write_bytes(pem)
    chosen: dict[str, Any] = {"jwt_secret_key": None, "jwt_algorithm": (algorithm,), "jwt_public_key": str(path)}
    return authenticator(**(chosen | ws))


def fault(verifier: WSAuthenticator, text: str) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        verifier.verify_jwt_token(text)
    error = caught.value
    assert error.status == 401
    assert str(error).isprintable()
    assert len(str(error)) < 200
    return error


def is_invalid(verifier: WSAuthenticator, text: str) -> bool:
    return fault(verifier, text).code == "invalid_token"


def is_malformed(text: str) -> bool:
    """Tell whether a token is refused before any key is tried."""
    return fault(authenticator(), text).message == (
        "this is no JSON Web Token that this server understands: one that is signed and not encrypted"
    )


# What is taken


@pytest.mark.parametrize("bits", [256, 384, 512])
def test_secrets(bits: int) -> None:
    name = f"HS{bits}"
    text = token({"alg": name}, ANN, hs(bits=bits))
    assert authenticator(jwt_algorithm=(name,)).verify_jwt_token(text) == ANN
    assert authenticator(jwt_algorithm=("HS256", "HS384", "HS512")).verify_jwt_token(text) == ANN


KEYS: Final = {
    "RS256": (rsa_key, rs256),
    "ES256": (ec_key, es256),
    "EdDSA": (ed_key, eddsa),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_public_keys(algorithm: str, tmp_path: Path) -> None:
    make, sign = KEYS[algorithm]
    verifier = with_public(tmp_path, public_pem(make()), algorithm)  # type: ignore[operator]
    signer: Signer = sign(make())  # type: ignore[operator]
    assert verifier.verify_jwt_token(token({"alg": algorithm, "kid": "any"}, ANN, signer)) == ANN
    other: Signer = sign(make(1))  # type: ignore[operator]
    assert is_invalid(verifier, token({"alg": algorithm}, ANN, other))


def test_ed448(tmp_path: Path) -> None:
    verifier = with_public(tmp_path, public_pem(ed448_key()), "EdDSA")
    assert verifier.verify_jwt_token(token({"alg": "EdDSA"}, ANN, eddsa(ed448_key()))) == ANN


def test_several_algorithms_each_with_its_key(tmp_path: Path) -> None:
    both = ("HS256", "RS256")
    verifier = with_public(tmp_path, public_pem(rsa_key()), "", jwt_algorithm=both, jwt_secret_key=SECRET)
    assert verifier.verify_jwt_token(token(HS256, ANN, hs())) == ANN
    assert verifier.verify_jwt_token(token({"alg": "RS256"}, ANN, rs256(rsa_key()))) == ANN
    assert is_invalid(verifier, token(HS256, ANN, hs(public_pem(rsa_key()))))
    assert is_invalid(verifier, token({"alg": "RS256"}, ANN, hs()))


def test_claims_are_returned_as_they_are() -> None:
    claims = {"sub": "анна", "exp": NOW + 0.5, "x": [1, None, {"y": 1.5}], "channels": 5}
    assert authenticator().verify_jwt_token(token(HS256, claims, hs())) == claims


def test_what_is_in_the_header_besides_does_not_matter() -> None:
    header = {"alg": "HS256", "typ": "at+jwt", "cty": "x", "made_by": "somebody", "x5t": "abc"}
    assert authenticator().verify_jwt_token(token(header, ANN, hs())) == ANN


@pytest.mark.anyio
async def test_who_it_is() -> None:
    roles = (RoleSettings(name="staff", channels=("staff:*",)),)
    verifier = authenticator(roles=roles, jwt_leeway=5.0)
    claims = {"sub": 5, "exp": NOW + 60, "iat": NOW, "jti": "1", "channels": "c", "roles": ["staff"], "info": {"a": 1}}
    identity = await verifier.verify(token(HS256, claims, hs()))
    assert isinstance(identity, Identity)
    assert identity.user_id == "5"
    assert identity.grant.subscribe.patterns == ("c", "staff:*")
    assert (identity.grant.token_id, identity.grant.issued_at, identity.grant.info) == ("1", NOW, {"a": 1})
    # Until then it would be taken.
    assert identity.grant.expires_at == NOW + 65
    endless = await verifier.verify(token(HS256, {}, hs()))
    assert isinstance(endless, Identity)
    assert (endless.user_id, endless.grant.expires_at) == (None, None)


@pytest.mark.anyio
async def test_who_it_cannot_be() -> None:
    refusal = await authenticator().verify(token(HS256, {"sub": []}, hs()))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("invalid_token", 401)
    refusal = await authenticator().verify(token(HS256, {"exp": NOW}, hs()))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("token_expired", 401)


# What is not taken


def unsigned(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "none ", "", "null", None, 0, [], ["HS256"], {}])
@pytest.mark.parametrize("sign", [unsigned, hs(), hs("x" * 32)])
def test_no_algorithm(name: object, sign: Signer) -> None:
    assert is_invalid(authenticator(), token({"alg": name}, ANN, sign))


def test_no_algorithm_at_all() -> None:
    assert is_invalid(authenticator(), token({"typ": "JWT"}, ANN, hs()))


@pytest.mark.parametrize(
    "name", ["hs256", "HS384", "HS512", "HS1", "RS256", "ES256", "EdDSA", "PS256", "HS256 ", "dir"]
)
def test_another_algorithm_than_was_set(name: str) -> None:
    for bits in (256, 384, 512):
        error = fault(authenticator(), token({"alg": name}, ANN, hs(bits=bits)))
        assert error.message == "the token is not signed in a way that this server accepts"


def test_a_key_is_for_its_own_algorithms() -> None:
    key = OctKey.import_key(SECRET)
    signed = read_token(GENUINE, ("HS256",))
    assert signed.claims([VerificationKey(("HS512", "RS256"), key)]) is None
    assert signed.claims([VerificationKey(("HS512",), key), VerificationKey(("HS512", "HS256"), key)]) == ANN


def taken_for_secrets(number: int) -> list[bytes]:
    """What somebody could sign with who knows no more than a public key."""
    key = rsa_key(number)
    pem = public_pem(key)
    public = key.public_key()
    modulus = str(jwk(key)["n"])
    return [
        pem,
        pem.strip(),
        pem.replace(b"\n", b"\r\n"),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        modulus.encode(),
        public.public_numbers().n.to_bytes(256, "big"),
        json.dumps(jwk(key)).encode(),
        b"",
    ]


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    for algorithms in (("RS256",), ("RS256", "HS256")):
        secret = SECRET if "HS256" in algorithms else None
        pem = public_pem(rsa_key())
        verifier = with_public(tmp_path, pem, "", jwt_algorithm=algorithms, jwt_secret_key=secret)
        for known in taken_for_secrets(0):
            for name in ("HS256", "RS256"):
                assert is_invalid(verifier, token({"alg": name}, ANN, hs(known)))


def test_wrong_keys() -> None:
    for wrong in (SECRET[:-1], SECRET + "x", SECRET.swapcase(), "", "secret", SECRET.encode() + b"\0"):
        assert is_invalid(authenticator(), token(HS256, ANN, hs(wrong)))


def test_signatures_of_other_kinds(tmp_path: Path) -> None:
    verifier = with_public(tmp_path, public_pem(ec_key()), "ES256")
    header = {"alg": "ES256"}
    assert verifier.verify_jwt_token(token(header, ANN, es256(ec_key()))) == ANN
    # RFC 7518, section 3.4: R and S, 32 bytes each, and nothing else.
    assert is_invalid(verifier, token(header, ANN, es256_der(ec_key())))
    assert is_invalid(verifier, token(header, ANN, lambda data: es256(ec_key())(data) + b"\0"))
    assert is_invalid(verifier, token(header, ANN, lambda data: b"\0" * 64))
    assert is_invalid(verifier, token(header, ANN, lambda data: b"\xff" * 64))
    assert is_invalid(verifier, token(header, ANN, lambda data: b""))
    assert is_invalid(verifier, token(header, ANN, es256(ec_key(0, SECP384R1))))
    verifier = with_public(tmp_path, public_pem(rsa_key()), "RS256")
    assert is_invalid(verifier, token({"alg": "RS256"}, ANN, ps256(rsa_key())))
    assert is_invalid(verifier, token({"alg": "PS256"}, ANN, ps256(rsa_key())))


GENUINE: Final = token(HS256, ANN, hs())


def test_what_was_changed() -> None:
    header, payload, signature = GENUINE.split(".")
    other = token(HS256, {"sub": "eve", "exp": NOW + 60}, hs()).split(".")
    assert is_invalid(authenticator(), f"{header}.{other[1]}.{signature}")
    assert is_invalid(authenticator(), f"{header}.{payload}.{other[2]}")
    assert is_invalid(authenticator(), ".".join([b64(b'{"alg": "HS256"}'), payload, signature]))
    for position, letter in enumerate(GENUINE):
        changed = "A" if letter != "A" else "B"
        assert is_invalid(authenticator(), GENUINE[:position] + changed + GENUINE[position + 1 :])


def test_more_or_less_than_a_token() -> None:
    header, payload, signature = GENUINE.split(".")
    for wrong in (
        "",
        ".",
        "..",
        "...",
        f"{header}.{payload}",
        f"{header}.{payload}.",
        f".{payload}.{signature}",
        f"{header}..{signature}",
        f"{GENUINE}.",
        f"{GENUINE}.a.b",
        f"{header}.a.{payload}.b.{signature}",
        f" {GENUINE}",
        f"{GENUINE} ",
        f"{GENUINE}\n",
        f"{GENUINE}=",
        f"{header}=.{payload}.{signature}",
        f"{GENUINE}\0",
        f"Bearer {GENUINE}",
        f"{GENUINE}é",
        "ééé.ééé.ééé",
        "\ud800.\ud800.\ud800",
        GENUINE.replace(".", "。"),
        json.dumps({"payload": payload, "protected": header, "signature": signature}),
    ):
        assert is_invalid(authenticator(), wrong), wrong
    for parts in (1, 2, 4, 5):
        assert is_malformed(".".join([header] * parts))
    assert is_invalid(authenticator(), GENUINE.encode())  # type: ignore[arg-type]
    assert is_invalid(authenticator(), None)  # type: ignore[arg-type]


def test_encrypted_tokens() -> None:
    for header in ({"alg": "dir", "enc": "A256GCM"}, {"alg": "HS256", "enc": "A256GCM"}, {"alg": "RSA-OAEP"}):
        assert is_invalid(authenticator(), ".".join([b64(json.dumps(header).encode()), "", b64(b"iv"), "AA", "AA"]))


def test_long_tokens() -> None:
    def of(length: int) -> str:
        claims = {**ANN, "x": "y" * length}
        return token(HS256, claims, hs())

    longest = next(text for size in range(6100, 0, -1) if len(text := of(size)) <= 8192)
    assert len(longest) > 8180
    assert authenticator().verify_jwt_token(longest)["sub"] == "ann"
    assert is_invalid(authenticator(), of(6200))
    assert is_invalid(authenticator(), "a" * 10_000_000)
    assert is_invalid(authenticator(), "." * 10_000_000)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": None},
        {"crit": ["b64"], "b64": True},
        {"crit": ["b64"], "b64": False},
        {"crit": ["alg"]},
        {"kid": 5},
        {"kid": ["a"]},
    ],
)
def test_headers_that_are_not_understood(header: dict[str, object]) -> None:
    assert is_malformed(token({**HS256, **header}, ANN, hs()))


def test_an_extension_that_is_not_said_to_be_critical() -> None:
    assert is_invalid(authenticator(), token({**HS256, "b64": False}, ANN, hs()))


def test_a_payload_that_is_not_encoded() -> None:
    header = b64(json.dumps({**HS256, "b64": False, "crit": ["b64"]}).encode())
    payload = json.dumps({"sub": "ann"}).replace(" ", "")
    signature = b64(hs()(f"{header}.{payload}".encode()))
    assert is_invalid(authenticator(), f"{header}.{payload}.{signature}")


@pytest.mark.parametrize("algorithm", KEYS)
def test_keys_inside_of_a_token_do_not_count(algorithm: str, tmp_path: Path) -> None:
    make, sign = KEYS[algorithm]
    verifier = with_public(tmp_path, public_pem(make()), algorithm)  # type: ignore[operator]
    mallory = make(1)  # type: ignore[operator]
    for more in (
        {"jwk": jwk(mallory)},
        {"jwk": jwk(mallory, private=True), "kid": "mallory"},
        {"jku": "http://127.0.0.1:9/jwks.json"},
        {"x5u": "http://127.0.0.1:9/cert.pem"},
        {"x5c": ["MIIB"]},
        {"kid": str(tmp_path / "public.pem")},
    ):
        header = {"alg": algorithm, **more}
        assert is_invalid(verifier, token(header, ANN, sign(mallory)))  # type: ignore[operator]
        assert is_invalid(verifier, token(header, ANN, hs(b"")))
        if "x5c" not in more:
            # They do no harm either, and are not fetched.
            assert verifier.verify_jwt_token(token(header, ANN, sign(make()))) == ANN  # type: ignore[operator]


@pytest.mark.parametrize(
    "kid",
    [
        "/dev/null",
        "../../../dev/null",
        "' OR 1=1 --",
        "a\0b",
        "http://127.0.0.1:9/",
        "$(id)",
        "|id",
        "é",
        "",
        "x" * 900,
    ],
)
def test_the_name_of_a_key_finds_none(kid: str) -> None:
    assert is_invalid(authenticator(), token({**HS256, "kid": kid}, ANN, hs(b"")))
    assert authenticator().verify_jwt_token(token({**HS256, "kid": kid}, ANN, hs())) == ANN


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b'"HS256"',
        b'["alg"]',
        b"5",
        b"null",
        b'{"alg": "HS256", "alg": "HS256"}',
        b'{"alg": "none", "alg": "HS256"}',
        b'{"alg": "HS256", "a": {"b": 1, "b": 2}}',
        b'{"alg": "HS256", "x": NaN}',
        b'\xef\xbb\xbf{"alg": "HS256"}',
        b'{"alg": "HS256"}\xff',
        '{"alg": "HS256"}'.encode("utf-16"),
        b'{"alg": "HS256", "a": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_headers_that_are_none(header: bytes) -> None:
    assert is_invalid(authenticator(), token(header, ANN, hs()))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"ann"',
        b"5",
        b'{"sub": "eve", "sub": "ann"}',
        b'{"sub": "ann", "info": {"a": 1, "a": 2}}',
        b'{"sub": NaN}',
        b'{"sub": Infinity}',
        b'{"sub": "ann"} {}',
        b'\xef\xbb\xbf{"sub": "ann"}',
        b'{"sub": "\xff"}',
        '{"sub": "ann"}'.encode("utf-16"),
        '{"sub": "ann"}'.encode("utf-32"),
        b'{"a": ' + b"[" * 2900 + b"]" * 2900 + b"}",
    ],
)
def test_payloads_that_are_no_claims(payload: bytes) -> None:
    assert is_invalid(authenticator(), token(HS256, payload, hs()))


def test_nothing_is_said_of_a_payload_before_it_is_verified() -> None:
    wrong = "no key of this server has signed this token"
    for claims in (ANN, {"exp": NOW - 60}, [], b"{"):
        assert fault(authenticator(), token(HS256, claims, hs("x" * 32))).message == wrong


@given(st.text(max_size=200) | st.tuples(*[st.binary(max_size=60).map(b64)] * 3).map(".".join))
def test_any_text_is_refused(text: str) -> None:
    assert is_invalid(authenticator(), text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["alg", "typ", "cty", "kid", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64", "zip"]
)
CLAIMS = st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "jti"])


@given(st.dictionaries(NAMES, JSON, max_size=4), st.dictionaries(CLAIMS, JSON, max_size=4), st.booleans())
def test_any_header_and_any_claims_are_taken_or_refused(
    header: dict[str, Any], claims: dict[str, Any], signed: bool
) -> None:
    text = token({"alg": "HS256", **header}, claims, hs() if signed else hs("x" * 32))
    said, code = None, None
    try:
        said = authenticator().verify_jwt_token(text)
    except AuthenticationError as error:
        code = error.code
    assert code in (None, "invalid_token", "token_expired")
    if code is None:
        assert said == claims
        assert signed
        assert not any(isinstance(value, float) and not math.isfinite(value) for value in claims.values())


def test_without_keys_there_are_no_tokens() -> None:
    nobody = authenticator(jwt_secret_key=None)
    assert fault(nobody, GENUINE).message == "this server takes no tokens: there is no key to verify them with"
