"""Resume tokens: what they say, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.tokens import Token

NUMBERS = st.integers(0, 10**18 - 1)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("e-0", Token("e", 0)),
        ("e-17", Token("e", 17)),
        ("e-17.0", Token("e", 17, 0)),
        ("e-17.5", Token("e", 17, 5)),
        ("a-b-3.2", Token("a-b", 3, 2)),
        ("--1", Token("-", 1)),
        ("e-999999999999999999", Token("e", 10**18 - 1)),
    ],
)
def test_what_tokens_say(text: str, token: Token) -> None:
    assert Token.parse(text) == token
    assert str(token) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "e", "-", "e-", "-5", "5", "e-x", "e-5.", "e-.5", "e-.", "e-5.x", "e-5.5.5", "e-5 ", "e- 5", "e-+5"),
        *("e-1_000", "e-٣", "e-5.٣", "e-²", "e-5e3", "e-1000000000000000000", "e-5.1000000000000000000"),
        "e-" + "9" * 10_000,
    ],
)
def test_what_is_no_token(text: str) -> None:
    assert Token.parse(text) is None


@given(st.text(min_size=1), NUMBERS, st.none() | NUMBERS)
def test_a_token_is_read_as_it_was_written(instance: str, seq: int, persistent: int | None) -> None:
    token = Token(instance, seq, persistent)
    assert Token.parse(str(token)) == token


@given(st.text() | st.text("e-.0123456789 ٣"))
def test_any_text_is_a_token_or_none(text: str) -> None:
    token = Token.parse(text)
    assert token is None or Token.parse(str(token)) == token
