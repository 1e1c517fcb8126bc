"""When a token is good, for whom, and from whom."""

from __future__ import annotations

from typing import Any, Final

import pytest

from rtcore_adapters import WSAuthenticator
from rtcore_adapters.auth import AuthenticationError
from rtcore_adapters.settings import Settings, WsSettings

from .foreign_tokens import SECRET, hs, token

#: Where the clock stands.
NOW: Final = 1_700_000_000.0
HS256: Final = {"alg": "HS256", "typ": "JWT"}


def authenticator(**ws: Any) -> WSAuthenticator:
    return WSAuthenticator(Settings(ws=WsSettings(jwt_secret_key=SECRET, **ws)), clock=lambda: NOW)


def is_invalid(verifier: WSAuthenticator, text: str) -> bool:
    with pytest.raises(AuthenticationError) as caught:
        verifier.verify_jwt_token(text)
    return caught.value.code == "invalid_token"


@pytest.mark.parametrize("leeway", [0.0, 2.5])
def test_edges_of_time(leeway: float) -> None:
    verifier = authenticator(jwt_leeway=leeway)

    def code(**claims: float) -> str | None:
        try:
            verifier.verify_jwt_token(token(HS256, claims, hs()))
        except AuthenticationError as error:
            return error.code
        return None

    assert code(exp=NOW - leeway) == "token_expired"
    assert code(exp=NOW - leeway + 0.001) is None
    assert code(nbf=NOW + leeway) is None
    assert code(nbf=NOW + leeway + 0.001) == "invalid_token"
    assert code(iat=NOW + leeway) is None
    assert code(iat=NOW + leeway + 0.001) == "invalid_token"
    # What has expired has expired, whatever else is wrong.
    assert code(exp=NOW - leeway, nbf=NOW + 60, iat=NOW + 60) == "token_expired"


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["1700000060", None, True, [1], {}, float("nan"), float("inf"), -float("inf"), 10**400, "1e9"]
)
def test_times_that_are_none(name: str, value: object) -> None:
    assert is_invalid(authenticator(), token(HS256, {name: value}, hs()))


@pytest.mark.parametrize("written", [b'{"exp": 1e999}', b'{"exp": -1e999}', b'{"exp": 1' + b"0" * 5000 + b"}"])
def test_numbers_that_are_too_large(written: bytes) -> None:
    assert is_invalid(authenticator(), token(HS256, written, hs()))


def test_the_issuer() -> None:
    verifier = authenticator(jwt_issuer="https://a.example/")
    assert verifier.verify_jwt_token(token(HS256, {"iss": "https://a.example/"}, hs()))
    for wrong in ({}, {"iss": "https://b.example/"}, {"iss": "https://a.example"}, {"iss": ["https://a.example/"]}):
        assert is_invalid(verifier, token(HS256, wrong, hs()))
    assert authenticator().verify_jwt_token(token(HS256, {"iss": "anybody"}, hs()))


def test_the_audience() -> None:
    verifier = authenticator(jwt_audience="me")
    assert verifier.verify_jwt_token(token(HS256, {"aud": "me"}, hs()))
    assert verifier.verify_jwt_token(token(HS256, {"aud": ["you", "me"]}, hs()))
    for wrong in ({}, {"aud": "m"}, {"aud": "meme"}, {"aud": ["you"]}, {"aud": []}, {"aud": None}, {"aud": {"me": 1}}):
        assert is_invalid(verifier, token(HS256, wrong, hs()))


@pytest.mark.parametrize("audience", ["you", ["you"], [], None, [None]])
def test_what_is_for_somebody_is_not_for_nobody_in_particular(audience: object) -> None:
    assert is_invalid(authenticator(), token(HS256, {"aud": audience}, hs()))
