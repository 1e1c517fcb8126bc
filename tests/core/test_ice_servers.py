"""ICE servers: which URLs are any, and credentials that a TURN server takes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.signaling.ice_servers import IceServer, has_credentials, ice_servers, is_stun_url, is_turn_url


def servers(
    stun: list[str] | None = None,
    turn: list[str] | None = None,
    *,
    secret: str | None = None,
    user: str | None = "anna",
) -> list[IceServer]:
    return ice_servers(stun or [], turn or [], secret=secret, user=user, now_wall_seconds=1_000.9, ttl=60.0)


def name_of(user: str | None) -> str:
    [server] = servers(turn=["turn:h"], secret="s", user=user)
    username = server["username"]
    signed = hmac.new(b"s", username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(server["credential"]) == signed
    return username


def test_nothing_is_nothing() -> None:
    assert servers() == servers(secret="s") == []


def test_stun_servers_need_no_credentials() -> None:
    assert servers(["stun:a", "stuns:b:5349"], secret="s") == [{"urls": ["stun:a", "stuns:b:5349"]}]


def test_turn_servers_share_what_was_issued() -> None:
    # The credential is what `printf 1060:anna | openssl dgst -sha1 -hmac north -binary | base64` prints.
    assert servers(["stun:a"], ["turn:b", "turns:b?transport=tcp"], secret="north") == [
        {"urls": ["stun:a"]},
        {
            "urls": ["turn:b", "turns:b?transport=tcp"],
            "username": "1060:anna",
            "credential": "F6hVlgGK5U80reCQhtTNDR9xRdQ=",
        },
    ]


def test_credentials_of_a_url_are_taken_out_of_it() -> None:
    turn = ["turn:joe:pa%3Ass%40:wo/rd=@b:1?transport=udp", "turn:c", "turns:joe:pa%3Ass%40%3Awo/rd%3D@d", "turn:c:1"]
    own: IceServer = {"urls": ["turn:b:1?transport=udp", "turns:d"], "username": "joe", "credential": "pa:ss@:wo/rd="}
    assert servers(turn=turn) == [own, {"urls": ["turn:c", "turn:c:1"]}]
    [first, second] = servers(turn=turn, secret="s")
    assert first == own
    assert (second["urls"], second["username"]) == (["turn:c", "turn:c:1"], "1060:anna")


def test_which_urls_have_credentials() -> None:
    assert has_credentials("turn:joe:x@h")
    assert not has_credentials("turn:h:3478?transport=udp")
    assert not has_credentials("turn:[::1]:3478")


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (None, "1060"),
        ("42", "1060:42"),
        ("anna@example.org+x", "1060:anna@example.org+x"),
        ("a:b", "1060:a:b"),
        ("a b'c\"d\\e", "1060:a%20b%27c%22d%5Ce"),
        ("Ян", "1060:%D0%AF%D0%BD"),
        ("x" * 255, "1060:" + "x" * 255),
        ("x" * 256, "1060:" + hashlib.sha256(b"x" * 256).hexdigest()),
        ("Reunion-Selected", "1060:" + hashlib.sha256(b"Reunion-Selected").hexdigest()),
        ("reunion", "1060:reunion"),
        ("selected", "1060:selected"),
        ("\ud800", "1060:%ED%A0%80"),
    ],
)
def test_the_name_of_a_user(user: str | None, name: str) -> None:
    assert name_of(user) == name


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_a_name_is_one_that_any_turn_server_takes(user: str, other: str) -> None:
    name = name_of(user)
    assert name.startswith("1060:")
    assert len(name) < 509
    assert name.isascii()
    assert not set(name) & set(" '\"\\")
    assert name.isprintable()
    assert (name_of(other) == name) == (other == user)


@given(st.text(min_size=1), st.floats(0, 2e9), st.floats(1, 86_400))
def test_it_is_json_and_expires_when_it_should(secret: str, now: float, ttl: float) -> None:
    [server] = ice_servers((), ("turn:h",), secret=secret, user="u", now_wall_seconds=now, ttl=ttl)
    assert json.loads(json.dumps(server)) == server
    expires_at = int(server["username"].partition(":")[0])
    assert now + ttl - 1 < expires_at <= now + ttl


HOSTS = ["h", "stun.example.org", "10.0.0.1", "[::1]", "[2001:db8::1]", "xn--e1afmkfd.xn--p1ai", "a_b"]
NO_HOSTS = ["", "[]", "[::1", "::1", "[1:2]", "[::g]", "пример.рф", "a b", "h/", "//h", "h\n", "[fe80::1%eth0]"]
PORTS = ["", ":1", ":3478", ":65535"]
NO_PORTS = [":", ":0", ":65536", ":x", ":123456", ":1 ", ":-1", ":１"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("port", PORTS)
def test_urls(host: str, port: str) -> None:
    for end in ("", "?transport=udp", "?transport=tcp"):
        for user in ("", "joe:x@", "j%20oe:a:b@", "joe:x/+=@"):
            for s in ("", "s"):
                assert is_turn_url(f"turn{s}:{user}{host}{port}{end}")
                assert is_stun_url(f"stun{s}:{user}{host}{port}{end}") == (not user and not end)


@pytest.mark.parametrize(
    "rest",
    [
        *NO_HOSTS,
        *(f"h{port}" for port in NO_PORTS),
        *("joe@h", "joe:@h", ":x@h", "@h", "a@b:c@h", "joe:a b@h", "joe:%4@h", "joe:a,b@h", "joe:x@"),
        *("h?", "h?transport=sctp", "h?transport=TCP", "h?transport=udp&x=1", "h?a", "h#a", "?transport=udp"),
    ],
)
def test_what_are_no_urls(rest: str) -> None:
    for scheme in ("turn", "turns", "stun", "stuns"):
        assert not is_turn_url(f"{scheme}:{rest}")
        assert not is_stun_url(f"{scheme}:{rest}")


@pytest.mark.parametrize(
    "text", ["", "h", "h:3478", "turn", "stun", "http:h", "TURN:h", "STUN:h", " turn:h", "stun :h"]
)
def test_what_has_no_scheme_of_them(text: str) -> None:
    assert not is_turn_url(text)
    assert not is_stun_url(text)


def test_a_long_text_takes_no_time() -> None:
    assert not is_turn_url("turn:" + "a:" * 20_000)
    assert not is_turn_url("turn:a:" + "a" * 20_000)


@given(st.text())
def test_any_text_is_a_url_or_none(text: str) -> None:
    for scheme in ("turn:", "stun:", ""):
        assert isinstance(is_turn_url(scheme + text), bool)
        assert isinstance(is_stun_url(scheme + text), bool)
