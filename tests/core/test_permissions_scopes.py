"""What an API key is allowed, by its scopes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.permissions import EVERYTHING, Action, Credential, Grant, Scope, decide, grant_of_scopes

ACTIONS = ["subscribe", "publish", "history", "presence", "upload", "signal"]
ALLOWED = "'*', 'admin', ACTION or ACTION:PATTERN, where ACTION is one of " + ", ".join(ACTIONS)


def key(admin: bool = False, **patterns: list[str]) -> Grant:
    scopes = {action: Scope(patterns.get(action, []), exclusive=True) for action in ACTIONS}
    return Grant(**scopes, admin=admin, server=True, credential=Credential.KEY)


def test_a_key_is_allowed_what_its_scopes_name_and_nothing_else() -> None:
    assert grant_of_scopes([]) == key()
    assert grant_of_scopes(["publish:news:*"]) == key(publish=["news:*"])
    scopes = ["publish:news:*", "signal:room-*", "admin", "publish:$broadcast", "history"]
    expected = key(admin=True, publish=["news:*", "$broadcast"], signal=["room-*"], history=["*", "$*"])
    assert grant_of_scopes(scopes) == expected
    assert grant_of_scopes(tuple(scopes)) == expected


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_alone_is_for_all_channels(action: str) -> None:
    assert grant_of_scopes([action]) == key(**{action: ["*", "$*"]})
    assert grant_of_scopes([f"{action}:a:b"]) == key(**{action: ["a:b"]})


def test_a_star_is_everything() -> None:
    assert grant_of_scopes(["*"]) == EVERYTHING
    assert grant_of_scopes(["publish:a", "*", "admin"]) == EVERYTHING


@pytest.mark.parametrize(
    "scope",
    [
        *("", "*:*", "read", "Publish", "publish:", " publish", "publish:a\n", "publish:" + "x" * 256, ":a"),
        *("admin:", "admin:a", "administer", "publish,history", "**", "$*", None, 1, ["publish"]),
    ],
)
def test_no_scope(scope: object) -> None:
    refusal = Refusal("invalid_scope", f"a scope must be {ALLOWED}: {scope!r:.80}")
    assert grant_of_scopes(["publish:a", scope]) == refusal  # type: ignore[list-item]
    # What is wrong is not outweighed.
    assert grant_of_scopes(["*", scope]) == refusal  # type: ignore[list-item]


def test_one_scope_is_no_list() -> None:
    # Its star does not allow everything.
    assert isinstance(grant_of_scopes("publish:*"), Refusal)


SCOPES = st.lists(
    st.sampled_from([*ACTIONS, "admin"])
    | st.builds("{}:{}".format, st.sampled_from(ACTIONS), st.sampled_from(["a", "b*", "$*", "$user:a"])),
    max_size=5,
)


@given(SCOPES, SCOPES, st.sampled_from(Action), st.sampled_from(["a", "b", "bb", "$user:a", "$broadcast"]))
def test_more_scopes_never_deny_more(scopes: list[str], others: list[str], action: Action, name: str) -> None:
    less, more = grant_of_scopes(scopes), grant_of_scopes([*scopes, *others])
    assert isinstance(less, Grant)
    assert isinstance(more, Grant)
    if decide(action, name, user_id=None, grant=less) is None:
        assert decide(action, name, user_id=None, grant=more) is None
    # Each scope is an action of its own.
    if not any(scope.startswith((action.value, action.value[:5])) for scope in scopes):
        assert decide(action, name, user_id=None, grant=less) is not None
