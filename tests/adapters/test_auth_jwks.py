"""Keys that somebody else publishes, on a server of the standard library's: rotated, wrong, slow and gone."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.lowlevel import checkpoint
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1

from rtcore import Identity
from rtcore_adapters import WSAuthenticator
from rtcore_adapters.auth import AuthenticationError
from rtcore_adapters.auth.jwks import read_jwks
from rtcore_adapters.settings import Settings, WsSettings

from .foreign_tokens import (
    SECRET,
    b64,
    ec_key,
    ed448_key,
    ed_key,
    eddsa,
    es256,
    hs,
    jwk,
    private_pem,
    public_pem,
    rs256,
    rsa_key,
    token,
)

pytestmark = pytest.mark.anyio

NOW: Final = 1_700_000_000.0
ANN: Final = {"sub": "ann", "exp": NOW + 60}
TIMEOUT: Final = 20.0


class Publisher:
    """Publishes keys, and may be slow about it."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.endless = False
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(self.path)
                publisher.may_answer.wait(TIMEOUT)
                self.send_response(publisher.status)
                for name, value in publisher.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                # Whoever has read enough is gone.
                try:
                    self.wfile.write(publisher.body)
                    while publisher.endless:
                        self.wfile.write(publisher.body)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def publish(self, *keys: object) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.endless = False
            self.may_answer.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.stop()


class Timer:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timer() -> Timer:
    return Timer()


def authenticator(url: str, timer: Timer, **ws: Any) -> WSAuthenticator:
    chosen = {"jwt_algorithm": ("RS256", "ES256", "EdDSA"), "jwks_url": url, "jwks_refresh": 300.0} | ws
    return WSAuthenticator(Settings(ws=WsSettings(**chosen)), clock=lambda: NOW, timer=timer)


async def code(verifier: WSAuthenticator, text: str) -> str | None:
    """Return why a token is not taken, or ``None`` if it is."""
    with anyio.fail_after(TIMEOUT):
        outcome = await verifier.verify(text)
    return None if isinstance(outcome, Identity) else outcome.code


def signed(number: int, kid: object = None) -> str:
    header = {"alg": "ES256", "kid": f"k{number}" if kid is None else kid}
    return token(header, ANN, es256(ec_key(number)))


def key(number: int, **more: Any) -> dict[str, Any]:
    return jwk(ec_key(number), kid=f"k{number}", **more)


async def fetched(publisher: Publisher, times: int) -> None:
    """Wait until the keys have been asked for so many times."""
    with anyio.fail_after(TIMEOUT):
        while len(publisher.asked) < times:
            await checkpoint()


async def test_they_are_fetched_at_first_need_and_kept(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0), jwk(rsa_key(), kid="rsa"), jwk(ed_key(), kid="ed"), jwk(ed448_key(), kid="ed448"))
    verifier = authenticator(publisher.url, timer)
    assert publisher.asked == []
    assert await code(verifier, signed(0)) is None
    assert await code(verifier, token({"alg": "RS256", "kid": "rsa"}, ANN, rs256(rsa_key()))) is None
    assert await code(verifier, token({"alg": "EdDSA", "kid": "ed"}, ANN, eddsa(ed_key()))) is None
    assert await code(verifier, token({"alg": "EdDSA", "kid": "ed448"}, ANN, eddsa(ed448_key()))) is None
    timer.now += 299.9
    assert await code(verifier, signed(0)) is None
    assert publisher.asked == ["/jwks.json"]
    identity = await verifier.verify(signed(0))
    assert isinstance(identity, Identity)
    assert identity.user_id == "ann"
    assert verifier.verify_jwt_token(signed(0)) == ANN


async def test_each_key_verifies_what_is_its_own(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0), key(1), jwk(rsa_key(), kid="rsa"))
    verifier = authenticator(publisher.url, timer)
    assert await code(verifier, signed(0)) is None
    assert await code(verifier, signed(1)) is None
    assert await code(verifier, signed(1, kid="k0")) == "invalid_token"
    assert await code(verifier, signed(0, kid="rsa")) == "invalid_token"
    # Who does not say which key may have any.
    for number, outcome in ((0, None), (1, None), (2, "invalid_token")):
        assert await code(verifier, token({"alg": "ES256"}, ANN, es256(ec_key(number)))) == outcome


async def test_rotation_without_a_restart(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer)
    assert await code(verifier, signed(0)) is None
    timer.now += 10
    publisher.publish(key(1))
    assert await code(verifier, signed(1)) is None
    # What has been withdrawn counts no more.
    assert await code(verifier, signed(0)) == "invalid_token"
    assert len(publisher.asked) == 2


async def test_unknown_keys_are_not_asked_for_more_than_once_in_ten_seconds(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer)
    for _ in range(20):
        assert await code(verifier, signed(1)) == "invalid_token"
    assert len(publisher.asked) == 1
    timer.now += 9.9
    assert await code(verifier, signed(1)) == "invalid_token"
    assert len(publisher.asked) == 1
    timer.now += 0.2
    for number in range(20):
        assert await code(verifier, signed(1, kid=f"made up {number}")) == "invalid_token"
    assert len(publisher.asked) == 2
    assert await code(verifier, signed(0)) is None


async def test_all_who_wait_wait_for_one_fetch(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    publisher.may_answer.clear()
    verifier = authenticator(publisher.url, timer)
    outcomes: list[str | None] = []

    async def verify() -> None:
        outcomes.append(await code(verifier, signed(0)))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(verify)
        await fetched(publisher, 1)
        # However long it takes, it is not begun again.
        timer.now += 20
        tasks.start_soon(verify)
        await checkpoint()
        assert outcomes == []
        publisher.may_answer.set()
    assert outcomes == [None] * 21
    assert len(publisher.asked) == 1


async def test_who_gives_up_leaves_the_fetch_to_the_others(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    publisher.may_answer.clear()
    verifier = authenticator(publisher.url, timer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(verifier.verify, signed(0))
        await fetched(publisher, 1)
        tasks.cancel_scope.cancel()
    publisher.may_answer.set()
    assert await code(verifier, signed(0)) is None
    assert len(publisher.asked) == 1


async def test_old_keys_go_on_while_new_ones_are_fetched(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer)
    assert await code(verifier, signed(0)) is None
    publisher.publish(key(1))
    publisher.may_answer.clear()
    timer.now += 300
    # Nobody answers yet, and nobody waits.
    assert await code(verifier, signed(0)) is None
    await fetched(publisher, 2)
    assert await code(verifier, signed(0)) is None
    publisher.may_answer.set()
    with anyio.fail_after(TIMEOUT):
        while await code(verifier, signed(0)) is None:
            await checkpoint()
    assert await code(verifier, signed(1)) is None
    assert len(publisher.asked) == 2


async def test_keys_that_are_much_too_old_are_fetched_first(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer)
    assert await code(verifier, signed(0)) is None
    publisher.publish(key(1))
    timer.now += 600
    assert await code(verifier, signed(0)) == "invalid_token"
    assert len(publisher.asked) == 2


async def test_nobody_is_there_at_first(timer: Timer, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher()
    publisher.publish(key(0))
    publisher.stop()
    verifier = authenticator(publisher.url, timer)
    with caplog.at_level(logging.WARNING):
        outcome = await verifier.verify(signed(0))
    assert not isinstance(outcome, Identity)
    assert (outcome.code, outcome.status, outcome.retry_after) == ("keys_unavailable", 503, 10)
    (record,) = caplog.records
    assert record.getMessage().startswith("the keys of tokens cannot be fetched: ")
    assert vars(record)["url"] == publisher.url
    with pytest.raises(AuthenticationError, match="keys_unavailable"):
        verifier.verify_jwt_token(signed(0))


async def test_somebody_is_there_later(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    publisher.status = 500
    verifier = authenticator(publisher.url, timer)
    for _ in range(5):
        assert await code(verifier, signed(0)) == "keys_unavailable"
    publisher.status = 200
    timer.now += 9.9
    assert await code(verifier, signed(0)) == "keys_unavailable"
    assert len(publisher.asked) == 1
    timer.now += 0.2
    assert await code(verifier, signed(0)) is None
    assert len(publisher.asked) == 2


async def test_old_keys_go_on_while_nobody_is_there(timer: Timer) -> None:
    publisher = Publisher()
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer)
    assert await code(verifier, signed(0)) is None
    publisher.stop()
    for _ in range(5):
        timer.now += 3600
        assert await code(verifier, signed(0)) is None
    # Nobody can tell of this one whether it is good.
    assert await code(verifier, signed(1)) == "keys_unavailable"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"keys"',
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b"\xff",
        b"<html></html>",
        b'{"keys": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps({"keys": [{}] * 101}).encode(),
        b'{"keys": [], "x": "' + b"x" * 2**20 + b'"}',
    ],
)
async def test_what_is_no_set_of_keys_changes_nothing(body: bytes, publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer)
    assert await code(verifier, signed(0)) is None
    publisher.body = body
    timer.now += 600
    assert await code(verifier, signed(0)) is None
    assert len(publisher.asked) == 2
    # And the same where there is nothing yet.
    assert await code(authenticator(publisher.url, timer), signed(0)) == "keys_unavailable"


async def test_no_more_is_read_than_keys_may_be_long(
    publisher: Publisher, timer: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.body = b" " * 2**16
    publisher.endless = True
    assert await code(authenticator(publisher.url, timer), signed(0)) == "keys_unavailable"
    (record,) = caplog.records
    assert "the answer is longer than 1048576 bytes" in record.getMessage()


async def test_redirects_are_not_followed(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    publisher.status, publisher.headers = 302, {"location": "/elsewhere"}
    assert await code(authenticator(publisher.url, timer), signed(0)) == "keys_unavailable"
    assert publisher.asked == ["/jwks.json"]


@pytest.mark.parametrize("status", [201, 204, 304, 401, 404, 500, 503])
async def test_answers_that_are_none(status: int, publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    publisher.status = status
    assert await code(authenticator(publisher.url, timer), signed(0)) == "keys_unavailable"


async def test_what_is_compressed_is_not_read(publisher: Publisher, timer: Timer) -> None:
    publisher.publish(key(0))
    publisher.body = gzip.compress(publisher.body)
    publisher.headers = {"content-encoding": "gzip"}
    assert await code(authenticator(publisher.url, timer), signed(0)) == "keys_unavailable"


async def test_who_does_not_answer_is_given_up(
    publisher: Publisher, timer: Timer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rtcore_adapters.auth.jwks._TIMEOUT", 0.05)
    publisher.publish(key(0))
    publisher.may_answer.clear()
    assert await code(authenticator(publisher.url, timer), signed(0)) == "keys_unavailable"
    assert [record.getMessage() for record in caplog.records] == [
        "the keys of tokens cannot be fetched: no answer in time"
    ]


async def test_beside_a_key_of_our_own(publisher: Publisher, timer: Timer, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(ec_key(7)))
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer, jwt_public_key=str(path))
    assert await code(verifier, signed(7)) is None
    assert publisher.asked == []
    assert await code(verifier, signed(0)) is None
    assert await code(verifier, signed(1)) == "invalid_token"


async def test_what_we_sign_ourselves_is_verified_beside_a_set(
    publisher: Publisher, timer: Timer, tmp_path: Path
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(ec_key(7)))
    publisher.publish(key(0))
    verifier = authenticator(publisher.url, timer, jwt_algorithm=("ES256",), jwt_private_key=str(path))
    assert await code(verifier, verifier.create_access_token({"sub": "ann"})) is None
    assert await code(verifier, signed(0)) is None


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_published_keys_are_no_secrets(secret: str | None, publisher: Publisher, timer: Timer) -> None:
    rsa, oct_key = jwk(rsa_key(), kid="rsa"), {"kty": "oct", "kid": "oct", "k": b64(b"x" * 32)}
    publisher.publish(rsa, key(0), oct_key)
    algorithms = ("RS256", "ES256", *(("HS256",) if secret else ()))
    verifier = authenticator(publisher.url, timer, jwt_algorithm=algorithms, jwt_secret_key=secret)
    known = [b"x" * 32, public_pem(rsa_key()), rsa["n"].encode(), json.dumps(rsa).encode(), publisher.body, b""]
    for kid in ("rsa", "oct", "k0"):
        for forged in known:
            assert await code(verifier, token({"alg": "HS256", "kid": kid}, ANN, hs(forged))) == "invalid_token"


async def test_for_what_is_signed_with_a_secret_no_keys_are_fetched(publisher: Publisher, timer: Timer) -> None:
    publisher.status = 500
    verifier = authenticator(publisher.url, timer, jwt_algorithm=("HS256", "ES256"), jwt_secret_key=SECRET)
    assert await code(verifier, token({"alg": "HS256"}, ANN, hs())) is None
    assert await code(verifier, token({"alg": "HS256", "kid": "a"}, ANN, hs("x" * 32))) == "invalid_token"
    with pytest.raises(AuthenticationError, match="invalid_token"):
        verifier.verify_jwt_token(token({"alg": "HS256"}, ANN, hs("x" * 32)))
    assert publisher.asked == []


# Which keys count


def kids(*keys: object, algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")) -> list[str | None]:
    return [each.key_id for each in read_jwks(json.dumps({"keys": keys}).encode(), algorithms)]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        5,
        [],
        {},
        {"kty": 5},
        {"kty": []},
        {"kty": "AKP", "pub": "x"},
        {"kty": "oct", "k": b64(b"x" * 32)},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "n": "!" * 400, "e": "AQAB"},
        {"kty": "RSA", "n": b64(b"\0" * 256), "e": "AQAB"},
        {"kty": "RSA", "n": b64(b"\0" * 200 + b"\xff" * 56), "e": "AQAB"},
        {"kty": "RSA", "n": b64(b"\xff" * 5000), "e": "AQAB"},
        {**jwk(rsa_key()), "e": ""},
        {**jwk(rsa_key()), "e": "AA"},
        {**jwk(rsa_key()), "k": "x"},
        {"kty": "EC", "crv": "P-256"},
        {**jwk(ec_key()), "x": b64(b"\1" * 32)},
        {**jwk(ec_key()), "crv": "P-999"},
        {**jwk(ec_key()), "crv": 5},
        {**jwk(ed_key()), "x": b64(b"x")},
        {**jwk(ed_key()), "crv": "X25519"},
        {**jwk(ec_key()), "kid": 5},
        jwk(ec_key(0, SECP384R1)),
        jwk(rsa_key(0, 1024)),
        jwk(rsa_key(), private=True),
        jwk(ec_key(), private=True),
        jwk(ed_key(), private=True),
        jwk(rsa_key(), use="enc"),
        jwk(rsa_key(), use=5),
        jwk(rsa_key(), use=None),
        jwk(rsa_key(), key_ops=["encrypt"]),
        jwk(rsa_key(), key_ops="verify"),
        jwk(rsa_key(), alg="RS512"),
        jwk(rsa_key(), alg="HS256"),
        jwk(rsa_key(), alg="ES256"),
        jwk(ec_key(), alg=["ES256"]),
    ],
)
def test_keys_that_do_not_count(wrong: object) -> None:
    good = jwk(ec_key(), kid="good")
    assert kids(wrong, good) == kids(good, wrong) == ["good"]


def test_keys_that_count() -> None:
    assert kids(
        jwk(rsa_key(), kid="a", alg="RS256", use="sig", key_ops=["verify"], x5c=["?"], x5t=5, x5u=[], unknown={}),
        jwk(ec_key(), kid="b", ext=True),
        jwk(ed_key(), key_ops=["sign", "verify"]),
        jwk(ed_key(), kid=""),
    ) == ["a", "b", None, ""]
    assert kids(jwk(rsa_key(), kid="a"), jwk(ec_key(), kid="b"), algorithms=("ES256",)) == ["b"]
    assert kids() == []
