"""No secret is in what settings, authenticators and their errors say of themselves, nor in what they log."""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import Refusal
from rtcore_adapters import WSAuthenticator, load_settings
from rtcore_adapters.auth import AuthenticationError
from rtcore_adapters.auth.keys import signing_keys, verification_keys
from rtcore_adapters.auth.signatures import read_token
from rtcore_adapters.logs import configure_logging
from rtcore_adapters.settings import Settings, SettingsError
from rtcore_transports import Credentials

from .foreign_tokens import ec_key, hs, jwk, private_pem, token

NOW: Final = 1_700_000_000.0
SECRET: Final = "S3CRET-0123456789abcdef0123456789abcdef"
API_KEY: Final = "S3CRET-api-key"
OTHER_KEY: Final = "S3CRET-other-key"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.pem").write_bytes(private_pem(ec_key()))
    return {
        "WS_JWT_SECRET_KEY": SECRET,
        "WS_JWT_ALGORITHM": "HS256,ES256",
        "WS_JWT_PRIVATE_KEY": "private.pem",
        "WS_API_KEYS": json.dumps([API_KEY, {"key": OTHER_KEY, "name": "other", "scopes": ["admin"]}]),
        "WEBRTC_TURN_SERVERS": "turn:ann:S3CRET-password@turn.example.org",
        "WEBRTC_TURN_SECRET": "S3CRET-turn",
    }


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Return what is logged, by us and by anybody, at any level."""
    everything, ours = logging.getLogger(), logging.getLogger("rtcore")
    handlers, levels = everything.handlers[:], (everything.level, ours.level)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    everything.addHandler(handler)
    everything.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    yield stream
    everything.handlers[:] = handlers
    everything.setLevel(levels[0])
    ours.setLevel(levels[1])


def secrets() -> list[str]:
    """What must not be seen; of the private key, the middle of its text and its number."""
    key = private_pem(ec_key()).decode()
    return ["S3CRET", key.splitlines()[1][20:60], jwk(ec_key(), private=True)["d"]]


def texts_of(thing: object) -> list[str]:
    """Return all that a thing says of itself, and of its parts, as far as they are to be seen."""
    found = [str(thing), repr(thing), f"{thing}", f"{thing!a}"]
    if attrs.has(type(thing)):
        for field in attrs.fields(type(thing)):
            if field.repr:
                found += texts_of(getattr(thing, field.name))
    if isinstance(thing, BaseException):
        found += ["".join(traceback.format_exception(thing)), repr(thing.args)]
    if isinstance(thing, tuple | list):
        for part in thing:
            found += texts_of(part)
    return found


def assert_silent(*things: object) -> None:
    for thing in things:
        for text in texts_of(thing):
            for secret in secrets():
                assert secret not in text


def test_settings_and_authenticators(environment: dict[str, str], log: io.StringIO) -> None:
    settings = load_settings(env=environment)
    maker = WSAuthenticator(settings)
    made = maker.create_access_token({"sub": "ann"})
    # They are there, so that there is something to be seen.
    assert settings.ws.jwt_secret_key == SECRET
    assert [key.key for key in settings.ws.api_keys] == [API_KEY, OTHER_KEY]
    assert_silent(
        settings,
        settings.ws.named_api_keys,
        maker,
        *vars(maker).values(),
        vars(maker),
        verification_keys(settings.ws),
        signing_keys(settings.ws),
        maker.verify_api_key(API_KEY),
        maker.verify_jwt_token(made),
        log.getvalue(),
    )
    assert made not in repr(read_token(made, ("HS256",)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WS_JWT_SECRET_KEY", "S3CRET"),
        ("WS_JWT_SECRET_KEY", "S3CRET é"),
        ("WS_API_KEYS", "[S3CRET"),
        ("WS_API_KEYS", '{"S3CRET": 1}'),
        ("WS_API_KEYS", '[{"S3CRET": 1}]'),
        ("WS_API_KEYS", '[["S3CRET"]]'),
        ("WS_API_KEYS", '[{"key": "S3CRET é"}]'),
        ("WS_API_KEYS", '[{"key": ["S3CRET"]}]'),
        ("WS_API_KEYS", "S3CRET,S3CRET"),
        ("WS_JWT_PRIVATE_KEY", "-----BEGIN S3CRET"),
        ("WS_JWKS_URL", "https://ann:S3CRET@example.org/"),
        ("WEBRTC_TURN_SECRET", "S3CRET é"),
        ("REALTIME_TLS_KEY", "-----BEGIN S3CRET"),
    ],
)
def test_settings_that_are_wrong(name: str, value: str, environment: dict[str, str], log: io.StringIO) -> None:
    for files in (False, True):
        given = environment | {name: value}
        if files:
            Path(".env").write_text("".join(f"{name}='{value}'\n" for name, value in given.items()))
        with pytest.raises(SettingsError) as caught:
            load_settings(env={} if files else given)
        assert_silent(caught.value, log.getvalue())


def test_files_that_are_wrong(environment: dict[str, str]) -> None:
    key = private_pem(ec_key())
    for content in (key[:150], key + b"x", key.replace(b"PRIVATE", b"PUBLIC"), b"S3CRET", private_pem(ec_key(), b"x")):
        Path("public.pem").write_bytes(content)
        settings = load_settings(env=environment | {"WS_JWT_PUBLIC_KEY": "public.pem"})
        with pytest.raises(SettingsError) as caught:
            WSAuthenticator(settings)
        assert_silent(caught.value)


def wrong_tokens() -> list[str]:
    good = token({"alg": "HS256"}, {"sub": "S3CRET", "exp": NOW + 60}, hs(SECRET))
    return [
        good[:-1],
        good + "A",
        good.replace(".", "", 1),
        token({"alg": "S3CRET"}, {}, hs(SECRET)),
        token({"alg": "HS256", "kid": ["S3CRET"]}, {}, hs(SECRET)),
        token({"alg": "HS256", "crit": ["S3CRET"]}, {}, hs(SECRET)),
        token({"alg": "HS256", "kid": "S3CRET"}, {"sub": "S3CRET"}, hs("S3CRET")),
        token({"alg": "HS256"}, {"exp": NOW - 60, "sub": "S3CRET"}, hs(SECRET)),
        token({"alg": "HS256"}, {"exp": "S3CRET"}, hs(SECRET)),
        token({"alg": "HS256"}, {"aud": "S3CRET"}, hs(SECRET)),
        token({"alg": "HS256"}, {"sub": ["S3CRET"]}, hs(SECRET)),
        token({"alg": "HS256"}, {"channels": {"S3CRET": 1}}, hs(SECRET)),
        token({"alg": "HS256"}, b'{"S3CRET": 1, "S3CRET": 2}', hs(SECRET)),
        "S3CRET",
        "S3CRET.é.S3CRET",
        "S3CRET" * 10_000,
    ]


@pytest.mark.anyio
async def test_credentials_that_are_wrong(environment: dict[str, str], log: io.StringIO) -> None:
    verifier = WSAuthenticator(load_settings(env=environment), clock=lambda: NOW)
    for wrong in wrong_tokens():
        refusal = await verifier.authenticate(Credentials(token=wrong))
        assert isinstance(refusal, Refusal)
        assert_silent(refusal, Credentials(token=wrong))
        assert wrong not in repr(refusal)
        try:
            verifier.verify_jwt_token(wrong)
        except AuthenticationError as error:
            assert_silent(error, error.refusal)
    # Tracebacks show the lines of this file.
    wrong = API_KEY[:-1]
    refusal = await verifier.authenticate(Credentials(api_key=wrong))
    assert_silent(refusal, Credentials(api_key=API_KEY))
    with pytest.raises(AuthenticationError) as caught:
        verifier.verify_api_key(wrong)
    assert_silent(caught.value)
    claims: dict[str, object]
    for claims in ({"sub": [SECRET]}, {"x": SECRET.encode()}, {"x": SECRET * 500}):
        with pytest.raises(AuthenticationError) as caught:
            verifier.create_access_token(claims)
        assert_silent(caught.value)
    assert_silent(log.getvalue())


@pytest.mark.anyio
async def test_keys_that_cannot_be_fetched(environment: dict[str, str], log: io.StringIO) -> None:
    # Nobody listens there.
    url = "http://127.0.0.1:9/jwks?token=S3CRET&a=1"
    verifier = WSAuthenticator(load_settings(env=environment | {"WS_JWKS_URL": url}), clock=lambda: NOW)
    refusal = await verifier.verify(token({"alg": "ES256", "kid": "S3CRET"}, {}, hs(SECRET)))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "keys_unavailable"
    assert_silent(refusal)
    assert "the keys of tokens cannot be fetched" in log.getvalue()
    assert_silent(log.getvalue())


def test_what_is_logged_in_spite_of_all(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Our logging takes them out even where somebody has logged them."""
    everything = logging.getLogger()
    before, level = everything.handlers[:], logging.getLogger("rtcore").level
    maker = WSAuthenticator(load_settings(env=environment))
    made = maker.create_access_token({"sub": "ann"})
    for format in ("json", "console"):
        stream = io.StringIO()
        configure_logging("debug", format, stream=stream)  # type: ignore[arg-type]
        ours = logging.getLogger("rtcore.test")
        ours.info("here is %s", made, extra={"token": made, "session": API_KEY, "authorization": f"Bearer {made}"})
        ours.info("GET /ws?token=%s&api_key=%s&session=%s", made, API_KEY, OTHER_KEY)
        ours.info("%r", {"X-API-Key": API_KEY, "api_key": OTHER_KEY, "token": made, "password": "S3CRET"})
        ours.info("Authorization: Basic S3CRET")
        assert made not in stream.getvalue()
        assert "S3CRET" not in stream.getvalue()
    everything.handlers[:] = before
    logging.getLogger("rtcore").setLevel(level)


@given(st.text(max_size=50), st.sampled_from(["WS_JWT_SECRET_KEY", "WS_API_KEYS", "WS_JWT_PRIVATE_KEY"]))
def test_whatever_is_around_a_secret(around: str, name: str) -> None:
    value = f"{around}-----S3CRET{around}"
    try:
        settings: Settings | None = load_settings(env={name: value})
    except SettingsError as error:
        settings = None
        assert_silent(error)
    assert_silent(settings)
