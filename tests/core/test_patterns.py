"""Patterns: what can be one, and which names it means."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.messages import check_channel
from rtcore.patterns import MAX_PATTERN, is_pattern
from rtcore.patterns import matches as matches_literals

# Few characters, so that patterns repeat themselves and names nearly match.
NAMES = st.text("ab$:", max_size=12)
PATTERNS = st.text("ab$:*", min_size=1, max_size=8)


def matches(pattern: str, name: str) -> bool:
    return matches_literals(name, pattern.split("*"))


def naive(pattern: str, name: str) -> bool:
    """Try everything that each star may stand for."""

    @cache
    def rest(at: int, of: int) -> bool:
        if at == len(pattern):
            return of == len(name)
        if pattern[at] == "*":
            return any(rest(at + 1, until) for until in range(of, len(name) + 1))
        return of < len(name) and pattern[at] == name[of] and rest(at + 1, of + 1)

    return rest(0, 0) and (pattern[0] == "$" or not name.startswith("$"))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("chat", "chat", True),
        ("chat", "chats", False),
        ("chat:*", "chat:", True),
        ("chat:*", "chat:1:2", True),
        ("chat:*", "chat", False),
        ("chat:*", "my chat:1", False),
        ("*:log", "a:log", True),
        ("*:log", "a:log:b", False),
        ("*", "", True),
        ("**", "any", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False),
        # What begins and what ends a name are different parts of it, and what is between them is between them.
        ("aba*aba", "ababa", False),
        ("aba*aba", "abaaba", True),
        ("ab*b*c", "abc", False),
        ("ab*b*c", "abbc", True),
        ("a*b*b*c", "abc", False),
        ("a*b*b*c", "abbc", True),
        ("ab*bc*cd", "abbccd", True),
        ("ab*bc*cd", "abcd", False),
        ("ab*bc*cd", "abbcd", False),
        ("*aa*aa*", "aaa", False),
        ("*aa*aa*", "aaaa", True),
        # Nothing else is special.
        ("a?c", "abc", False),
        ("[ab]", "a", False),
        (".*", "a", False),
        (".*", ".a", True),
        ("Chat", "chat", False),
        ("комната:*", "комната:1", True),
        # The server's own channels are asked for by their sign.
        ("*", "$broadcast", False),
        ("*cast", "$broadcast", False),
        ("**", "$broadcast", False),
        ("$*", "$broadcast", True),
        ("$user:*", "$user:7", True),
        ("$broadcast", "$broadcast", True),
        ("*$", "a$", True),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected
    assert naive(pattern, name) is expected


@given(PATTERNS, NAMES)
@example("a*ba*b", "ababab")
def test_a_pattern_matches_as_by_trying_everything(pattern: str, name: str) -> None:
    assert matches(pattern, name) is naive(pattern, name)


@given(st.text(min_size=1, max_size=6) | PATTERNS, st.text(max_size=8) | NAMES)
def test_a_pattern_matches_as_an_expression_of_its_parts(pattern: str, name: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    expected = re.fullmatch(expression, name, re.DOTALL) is not None
    assert matches(pattern, name) is (expected and (pattern[0] == "$" or not name.startswith("$")))


@given(PATTERNS, st.data())
def test_what_a_pattern_makes_matches_it(pattern: str, data: st.DataObject) -> None:
    name = "".join(data.draw(NAMES) if character == "*" else character for character in pattern)
    assert matches(pattern, name) is (pattern[0] == "$" or not name.startswith("$"))


def test_a_hostile_name_costs_no_going_back() -> None:
    # Trying everything would take longer than the universe has.
    assert not matches("*a" * 126 + "*b*", "a" * 255)
    assert matches("*a" * 126 + "*", "a" * 255)


def test_names_that_look_alike_are_two() -> None:
    composed = "caf\u00e9"
    decomposed = unicodedata.normalize("NFD", composed)
    assert decomposed == "cafe\u0301"
    assert matches(composed, composed)
    assert not matches(composed, decomposed)
    assert not matches(decomposed, composed)
    # A star stands for code points, be they half of what is seen as one character.
    assert matches("cafe*", decomposed)
    assert not matches("cafe*", composed)
    assert not matches("chat:*", "ch\u0430t:1"), "with a Cyrillic а"
    assert matches("*\U0001f44d", "well: \U0001f44d")


@pytest.mark.parametrize("name", ["a\u200bb", "a\u202eb", "a\u00adb", "\ufeffa", "a\u00a0b", "a\nb", "\ud800", "\x7f"])
def test_what_is_not_seen_is_neither_in_names_nor_in_patterns(name: str) -> None:
    assert isinstance(check_channel(name), Refusal)
    assert not is_pattern(name)


@pytest.mark.parametrize("value", ["*", "$*", "a", "two words", "комната:*", "x" * MAX_PATTERN])
def test_a_pattern(value: str) -> None:
    assert is_pattern(value)


@pytest.mark.parametrize("value", ["", "x" * (MAX_PATTERN + 1), None, 1, True, b"*", ["*"]])
def test_no_pattern(value: object) -> None:
    assert not is_pattern(value)


@given(st.text(max_size=300))
def test_every_name_of_a_channel_is_a_pattern(name: str) -> None:
    if check_channel(name) is None:
        assert is_pattern(name)
        if "*" not in name:
            assert matches(name, name)
