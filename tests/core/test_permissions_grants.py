"""What a grant is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.patterns import matches
from rtcore.permissions import EVERYTHING, OPEN, Credential, Grant, Identity, Role, Scope

NAMES = st.text("ab$:*", max_size=6)
PATTERNS = st.lists(st.text("ab$:*", min_size=1, max_size=4), max_size=6)


@given(PATTERNS, NAMES)
def test_a_scope_covers_what_one_of_its_patterns_means(patterns: list[str], name: str) -> None:
    expected = any(matches(name, pattern.split("*")) for pattern in patterns)
    assert Scope(patterns).covers(name) is expected
    assert Scope(patterns, exclusive=True).covers(name) is expected


def test_a_scope_is_what_it_says() -> None:
    scope = Scope(["a", "b*", "a"], exclusive=True)
    assert scope == Scope(("a", "b*"), exclusive=True)
    assert hash(scope) == hash(Scope(("a", "b*"), exclusive=True))
    assert scope != Scope(("a", "b*"))
    assert scope != Scope(("b*", "a"), exclusive=True)
    assert repr(scope) == "Scope(patterns=('a', 'b*'), exclusive=True)"


def test_one_pattern_is_no_list() -> None:
    # Else its star would allow everything.
    with pytest.raises(TypeError, match=r"^patterns come in a list or a tuple: 'chat:\*'$"):
        Scope("chat:*")
    with pytest.raises(TypeError, match=r"^patterns come in a list or a tuple: '\*'$"):
        Role("r", publish="*")


@pytest.mark.parametrize("pattern", ["", "x" * 256, "a\n", None, 1])
def test_what_cannot_be_a_pattern(pattern: object) -> None:
    with pytest.raises(ValueError, match=r"^a pattern must be 1 to 255 printable characters: "):
        Scope(["a", pattern])  # type: ignore[list-item]


def test_a_scope_is_exclusive_or_not() -> None:
    with pytest.raises(TypeError):
        Scope([], "yes")  # type: ignore[arg-type]


def test_a_grant_with_info_has_a_hash() -> None:
    grants = {Grant(info={"name": "Ann"}), Grant(info={"name": "Ann"}), Grant(info={"name": "Bob"}), Grant()}
    assert len(grants) == 3
    assert len({Identity("a", Grant(info={})), Identity("a", Grant(info={}))}) == 1


def test_the_grants_that_are_there() -> None:
    assert Grant(admin=True) == OPEN
    everything = Scope(("*", "$*"), exclusive=True)
    assert (
        Grant(
            subscribe=everything,
            publish=everything,
            history=everything,
            presence=everything,
            upload=everything,
            signal=everything,
            admin=True,
            server=True,
            credential=Credential.KEY,
        )
        == EVERYTHING
    )
