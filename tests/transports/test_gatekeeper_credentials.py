"""What requests and first messages bring to say who sends them."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

import pytest

from rtcore import Refusal
from rtcore_transports import Credentials, GateConfig, Gatekeeper
from rtcore_transports.presented import Introduction, read_introduction

TOKEN: Final = Credentials(token="t0ken")
KEY: Final = Credentials(api_key="k3y")
NOTHING: Final = Credentials()
COOKIES: Final = GateConfig(cookie="session", api_key_header="X-My-Key")


def bring(*headers: tuple[str, str], query: str = "", config: GateConfig | None = None) -> Credentials | Refusal:
    fields = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers)
    return Gatekeeper(config).visitor(fields, query.encode(), None, "https").credentials


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


@pytest.mark.parametrize(
    ("headers", "query", "found"),
    [
        ([], "", NOTHING),
        ([bearer("t0ken")], "", TOKEN),
        ([("Authorization", "bEARER   t0ken ")], "", TOKEN),
        ([("X-API-Key", "k3y")], "", KEY),
        ([], "token=t0ken", TOKEN),
        ([], "channel=a&token=t%30ken&x=1", TOKEN),
        ([], "api_key=k3y", KEY),
        # The same, said twice.
        ([bearer("t0ken"), bearer("t0ken")], "token=t0ken&token=t0ken", TOKEN),
        ([("X-API-Key", "k3y")], "api_key=k3y", KEY),
        # What is empty is nothing.
        ([bearer(""), ("X-API-Key", " ")], "token=&api_key=", NOTHING),
        ([("Authorization", "Bearer")], "token", NOTHING),
        ([bearer("")], "token=t0ken", TOKEN),
        # What is for others.
        ([("Authorization", "Basic YTpi")], "", NOTHING),
        ([("Authorization", "t0ken")], "", NOTHING),
        ([("Cookie", "token=t0ken; session=t0ken"), ("Origin", "https://a.example")], "", NOTHING),
        ([], "Token=t0ken&access_token=t0ken", NOTHING),
        # Whoever reads the query says what is wrong with it.
        ([], "token=t0ken" + "&a" * 3000, NOTHING),
    ],
)
def test_what_a_request_brings(headers: list[tuple[str, str]], query: str, found: Credentials) -> None:
    assert bring(*headers, query=query) == found


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([bearer("t0ken"), ("X-API-Key", "k3y")], ""),
        ([bearer("t0ken")], "token=other"),
        ([bearer("t0ken"), bearer("other")], ""),
        ([bearer("t0ken")], "api_key=k3y"),
        ([bearer("same")], "api_key=same"),
        ([], "token=a&token=b"),
        ([], "token=a&api_key=b"),
        ([("X-API-Key", "a"), ("X-API-Key", "b")], ""),
    ],
)
def test_several_are_none(headers: list[tuple[str, str]], query: str) -> None:
    refusal = bring(*headers, query=query)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("ambiguous_credentials", 400)


@pytest.mark.parametrize("secret", ["x" * 8193, "schlüssel", "a\tb", "a\x7fb"])
def test_what_cannot_be_one(secret: str) -> None:
    for refusal, code in (
        (bring(bearer(secret)), "invalid_token"),
        (bring(query="token=" + quote(secret)), "invalid_token"),
        (bring(("X-API-Key", secret)), "invalid_api_key"),
        (bring(query="api_key=" + quote(secret)), "invalid_api_key"),
    ):
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.status) == (code, 401)
        assert secret not in refusal.message
    assert bring(bearer("x" * 8192)) == Credentials(token="x" * 8192)


def test_what_is_not_percent_encoded_utf_8() -> None:
    refusal = bring(query="token=%ff")
    assert isinstance(refusal, Refusal)
    assert refusal.code == "invalid_token"


def test_another_header_for_keys() -> None:
    assert bring(("X-My-Key", "k3y"), config=COOKIES) == KEY
    assert bring(("X-API-Key", "k3y"), config=COOKIES) == NOTHING


# Cookies


@pytest.mark.parametrize("cookie", ["session=t0ken", "a=b; session=t0ken;c", 'session="t0ken"'])
@pytest.mark.parametrize("page", [("Origin", "https://a.example"), ("Sec-Fetch-Site", "same-origin")])
def test_a_cookie_of_an_allowed_page(cookie: str, page: tuple[str, str]) -> None:
    assert bring(("Cookie", cookie), page, ("Host", "a.example"), config=COOKIES) == TOKEN


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Origin", "https://evil.example")],
        [("Origin", "null")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "none")],
        [("Sec-Fetch-Site", "same-origin"), ("Origin", "https://evil.example")],
        [("Referer", "https://a.example/")],
    ],
)
def test_a_cookie_of_nobody_knows_which_page(headers: list[tuple[str, str]]) -> None:
    assert bring(("Cookie", "session=t0ken"), ("Host", "a.example"), *headers, config=COOKIES) == NOTHING


def test_other_cookies() -> None:
    page = (("Origin", "https://a.example"), ("Host", "a.example"))
    assert bring(("Cookie", "sessions=t0ken; Session=t0ken; asession=t0ken"), *page, config=COOKIES) == NOTHING
    assert bring(("Cookie", "session="), *page, config=COOKIES) == NOTHING
    assert bring(("Cookie", "session=t0ken"), bearer("t0ken"), *page, config=COOKIES) == TOKEN
    refusal = bring(("Cookie", "session=t0ken; session=other"), *page, config=COOKIES)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "ambiguous_credentials"


# The first message


def say(command: str, data: object, **rest: object) -> Introduction | Refusal:
    return read_introduction(json.dumps({"type": "command", "command": command, "data": data, **rest}))


def test_a_first_message() -> None:
    assert say("authenticate", {"token": "t0ken"}) == Introduction(TOKEN, None)
    assert say("authenticate", {"api_key": "k3y", "token": ""}, id="1") == Introduction(KEY, "1")
    assert say("authenticate", {"token": "t0ken", "api_key": None}, id=7) == Introduction(TOKEN, 7)
    assert say("refresh_token", {"token": "t0ken", "api_key": "k3y"}, id=[]) == Introduction(TOKEN, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t0ken",
        "[]",
        "{}",
        '{"type": "text", "data": {"token": "t0ken"}}',
        '{"type": "command", "command": "ping"}',
        '{"type": "command", "command": "join_channel", "data": {"token": "t0ken"}}',
        '{"type": "command", "command": ["authenticate"], "data": {"token": "t0ken"}}',
        '{"type": "command", "command": "authenticate"}',
        '{"type": "command", "command": "authenticate", "data": "t0ken"}',
        '{"type": "command", "command": "authenticate", "data": {}}',
        '{"type": "command", "command": "authenticate", "data": {"token": ""}}',
        '{"type": "command", "command": "authenticate", "data": {"token": 5}}',
        '{"type": "command", "command": "authenticate", "data": {"token": ["t0ken"]}}',
        '{"type": "command", "command": "refresh_token", "data": {"api_key": "k3y"}}',
        '{"type":' + "[" * 2000 + "]" * 2000 + "}",
    ],
)
def test_a_first_message_that_says_nothing(text: str) -> None:
    refusal = read_introduction(text)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("unauthorized", 401)
    assert "t0ken" not in refusal.message


def test_a_first_message_that_says_too_much() -> None:
    refusal = say("authenticate", {"token": "t0ken", "api_key": "k3y"})
    assert isinstance(refusal, Refusal)
    assert refusal.code == "ambiguous_credentials"
    refusal = say("authenticate", {"token": "x" * 8193})
    assert isinstance(refusal, Refusal)
    assert refusal.code == "invalid_token"


@pytest.mark.parametrize("filling", ["x", "é"])
def test_a_first_message_that_is_too_long(filling: str) -> None:
    def fill(size: int) -> str:
        start, end = '{"type":"command","command":"authenticate","data":{"token":"t0ken"},"x":"', '"}'
        room = size - len(start) - len(end)
        return start + filling * (room // len(filling.encode())) + "x" * (room % len(filling.encode())) + end

    assert isinstance(read_introduction(fill(16384)), Introduction)
    refusal = read_introduction(fill(16385))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("unauthorized", 401)


def test_no_repr_shows_a_secret() -> None:
    introduction = say("authenticate", {"token": "t0ken"})
    visitor = Gatekeeper().visitor(((b"x-api-key", b"k3y"),), b"", None, "http")
    for text in (repr(TOKEN), str(KEY), repr(introduction), repr(visitor)):
        assert "t0ken" not in text
        assert "k3y" not in text
