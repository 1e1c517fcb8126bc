"""The decision whether somebody may do something."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.namespaces import Access, Namespace
from rtcore.permissions import EVERYTHING, OPEN, Action, Credential, Grant, Scope, decide

# Each action that concerns a channel, with the fields of a grant and of a namespace that it is about.
FIELDS = {
    Action.SUBSCRIBE: ("subscribe", "subscribe"),
    Action.PUBLISH: ("publish", "publish"),
    Action.HISTORY: ("history", "history_access"),
    Action.PRESENCE: ("presence", "presence_access"),
    Action.UPLOAD: ("upload", "upload"),
}
DEEDS = {
    Action.SUBSCRIBE: "join this channel",
    Action.PUBLISH: "publish to this channel",
    Action.HISTORY: "be told what was said in this channel",
    Action.PRESENCE: "know who is in this channel",
    Action.UPLOAD: "send files to this channel",
    Action.SIGNAL: "use this room",
}
ADMIN_REQUIRED = Refusal("admin_required", "this needs a credential that may administer the server", status=403)

OF_CHANNELS = pytest.mark.parametrize("action", list(FIELDS))


def granting(action: Action, *patterns: str, exclusive: bool = False, server: bool = False) -> Grant:
    return Grant(**{action.value: Scope(patterns, exclusive)}, server=server)  # type: ignore[arg-type]


def asking(action: Action, access: Access) -> Namespace:
    return Namespace(pattern="*", **{FIELDS[action][1]: access})  # type: ignore[arg-type]


def accesses(action: Action) -> list[Access]:
    return [access for access in Access if action is not Action.SUBSCRIBE or access is not Access.MEMBERS]


def denied(action: Action, message: str) -> Refusal:
    return Refusal(f"{action.value}_denied", message.format(DEEDS[action]), status=403)


def not_granted(action: Action) -> Refusal:
    return denied(action, "your token or key does not allow you to {}: you need one that names it")


def by_name(action: Action) -> Refusal:
    return denied(action, "only those to whom it is granted by name may {}: you need a token or key")


@OF_CHANNELS
def test_what_nobody_has_limited_is_open_to_anybody(action: Action) -> None:
    assert decide(action, "a", user_id=None, grant=Grant()) is None
    assert decide(action, "a", user_id=None, grant=OPEN, namespace=Namespace(pattern="*")) is None


@OF_CHANNELS
def test_what_others_are_asked_for_is_of_no_account(action: Action) -> None:
    others = {of: Scope((), exclusive=True) for of, _ in FIELDS.values() if of != action.value}
    namespace = Namespace(
        pattern="*", **{asked: Access.SERVER for other, (_, asked) in FIELDS.items() if other is not action}
    )
    grant = Grant(**others, signal=Scope((), exclusive=True))
    assert decide(action, "a", user_id=None, grant=grant, namespace=namespace) is None


@OF_CHANNELS
def test_an_exclusive_scope_allows_what_it_names(action: Action) -> None:
    grant = granting(action, "chat:*", "news", exclusive=True)
    assert decide(action, "chat:1", user_id="u", grant=grant) is None
    assert decide(action, "news", user_id="u", grant=grant, namespace=Namespace(pattern="*")) is None
    assert decide(action, "new", user_id="u", grant=grant) == not_granted(action)
    # Nor is it asked whether it would be open to them.
    assert decide(action, "x", user_id="u", grant=grant, namespace=asking(action, Access.USERS)) == not_granted(action)
    server = attrs.evolve(grant, server=True)
    assert decide(action, "x", user_id="u", grant=server, member=True) == not_granted(action)


@OF_CHANNELS
@pytest.mark.parametrize("grant", [Grant(), OPEN])
def test_what_a_namespace_asks_for(action: Action, grant: Grant) -> None:
    users, granted, server = (asking(action, access) for access in (Access.USERS, Access.GRANTED, Access.SERVER))
    expected = denied(action, "only users may {}: say who you are, with a token")
    assert decide(action, "a", user_id=None, grant=grant, namespace=users, member=True) == expected
    assert decide(action, "a", user_id="u", grant=grant, namespace=users) is None

    assert decide(action, "a", user_id="u", grant=grant, namespace=granted, member=True) == by_name(action)
    other = granting(action, "b", "$*")
    assert decide(action, "a", user_id="u", grant=other, namespace=granted) == by_name(action)
    assert decide(action, "a", user_id=None, grant=granting(action, "a"), namespace=granted) is None
    assert decide(action, "a", user_id=None, grant=granting(action, "*"), namespace=granted) is None

    expected = denied(action, "only the server may {}")
    assert decide(action, "a", user_id="u", grant=grant, namespace=server, member=True) == expected
    assert decide(action, "a", user_id="u", grant=granting(action, "a"), namespace=server) == expected


@pytest.mark.parametrize("action", [action for action in FIELDS if action is not Action.SUBSCRIBE])
def test_what_is_for_members(action: Action) -> None:
    members = asking(action, Access.MEMBERS)
    expected = denied(action, "only members may {}: join it first")
    assert decide(action, "a", user_id="u", grant=Grant(), namespace=members) == expected
    assert decide(action, "a", user_id="u", grant=granting(action, "a"), namespace=members) == expected
    assert decide(action, "a", user_id=None, grant=Grant(), namespace=members, member=True) is None


@OF_CHANNELS
def test_what_counts_as_the_server_is_asked_for_nothing(action: Action) -> None:
    for access in accesses(action):
        namespace = asking(action, access)
        for name in ("a", "$broadcast", "$user:7", "$connection:c"):
            for grant in (EVERYTHING, Grant(server=True), granting(action, "*", "$*", exclusive=True, server=True)):
                assert decide(action, name, user_id=None, grant=grant, namespace=namespace) is None


@OF_CHANNELS
@pytest.mark.parametrize("name", ["$broadcast", "$connection:c", "$room:1", "$user", "$", "$users:7"])
def test_the_servers_own_channels_are_granted_by_name(action: Action, name: str) -> None:
    for access in accesses(action):
        if access in (Access.USERS, Access.SERVER, Access.MEMBERS):
            continue
        namespace = asking(action, access)
        for grant in (Grant(), OPEN, granting(action, "*")):
            assert decide(action, name, user_id="7", grant=grant, namespace=namespace, member=True) == by_name(action)
        # Without a namespace too.
        assert decide(action, name, user_id="7", grant=Grant(), member=True) == by_name(action)
        for pattern in ("$*", name):
            for exclusive in (False, True):
                grant = granting(action, pattern, exclusive=exclusive)
                assert decide(action, name, user_id="7", grant=grant, namespace=namespace) is None
    # A namespace can ask for more, and never for less.
    grant = granting(action, "$*")
    expected = denied(action, "only the server may {}")
    assert decide(action, name, user_id="7", grant=grant, namespace=asking(action, Access.SERVER)) == expected
    expected = denied(action, "only users may {}: say who you are, with a token")
    assert decide(action, name, user_id=None, grant=grant, namespace=asking(action, Access.USERS)) == expected
    assert decide(action, name, user_id="7", grant=Grant(), namespace=asking(action, Access.USERS)) == by_name(action)


@pytest.mark.parametrize("action", [Action.PUBLISH, Action.UPLOAD])
def test_anybody_may_write_to_a_user(action: Action) -> None:
    assert decide(action, "$user:7", user_id=None, grant=Grant()) is None
    assert decide(action, "$user:", user_id=None, grant=Grant()) is None
    users = asking(action, Access.USERS)
    assert decide(action, "$user:7", user_id="8", grant=Grant(), namespace=users) is None
    expected = denied(action, "only users may {}: say who you are, with a token")
    assert decide(action, "$user:7", user_id=None, grant=Grant(), namespace=users) == expected
    exclusive = granting(action, "*", exclusive=True)
    assert decide(action, "$user:7", user_id="7", grant=exclusive) == not_granted(action)


@pytest.mark.parametrize("action", [Action.SUBSCRIBE, Action.HISTORY, Action.PRESENCE])
def test_what_was_said_to_a_user_is_for_this_user(action: Action) -> None:
    assert decide(action, "$user:7", user_id="7", grant=Grant()) is None
    for user_id in (None, "", "8", "77", "$user:7"):
        assert decide(action, "$user:7", user_id=user_id, grant=Grant()) == by_name(action)
    assert decide(action, "$user:None", user_id=None, grant=Grant()) == by_name(action)
    assert decide(action, "$user:7", user_id="8", grant=granting(action, "$user:*")) is None


def test_rooms_are_open_to_whom_the_grant_lets_in() -> None:
    server = Namespace(pattern="*", **{asked: Access.SERVER for _, asked in FIELDS.values()})
    for namespace in (None, server):
        for name in ("room-1", "$room", "$user:7"):
            assert decide(Action.SIGNAL, name, user_id=None, grant=Grant(), namespace=namespace) is None
        grant = granting(Action.SIGNAL, "room-*", exclusive=True)
        assert decide(Action.SIGNAL, "room-1", user_id=None, grant=grant, namespace=namespace) is None
        expected = not_granted(Action.SIGNAL)
        assert decide(Action.SIGNAL, "hall", user_id="u", grant=grant, namespace=namespace) == expected
        assert expected.message == "your token or key does not allow you to use this room: you need one that names it"


def test_administering() -> None:
    almost = attrs.evolve(EVERYTHING, admin=False)
    assert decide(Action.ADMINISTER, user_id="u", grant=almost) == ADMIN_REQUIRED
    assert decide(Action.ADMINISTER, user_id=None, grant=Grant()) == ADMIN_REQUIRED
    assert decide(Action.ADMINISTER, user_id=None, grant=Grant(admin=True)) is None
    assert decide(Action.ADMINISTER, user_id=None, grant=OPEN) is None
    # It is nothing else.
    granted = asking(Action.PUBLISH, Access.GRANTED)
    assert decide(Action.PUBLISH, "a", user_id="u", grant=OPEN, namespace=granted) == by_name(Action.PUBLISH)


def test_what_comes_with_what() -> None:
    assert Grant().credential is OPEN.credential is Credential.NONE
    assert EVERYTHING.credential is Credential.KEY
    for action in Action:
        for name in ("a", "$broadcast", "$user:7"):
            assert decide(action, name, user_id=None, grant=EVERYTHING) is None


# Few names, so that patterns often mean them.
NAMES = st.sampled_from(["a", "ab", "b", "$a", "$broadcast", "$user:a", "$user:b", "$connection:a"])
PATTERNS = st.text("ab*", min_size=1, max_size=2) | st.sampled_from(["$*", "$user:*", "$user:a"]) | NAMES
SCOPES = st.builds(Scope, st.lists(PATTERNS, max_size=3), st.booleans())
GRANTS = st.builds(
    Grant,
    subscribe=SCOPES,
    publish=SCOPES,
    history=SCOPES,
    presence=SCOPES,
    upload=SCOPES,
    signal=SCOPES,
    admin=st.booleans(),
    server=st.booleans(),
)
ACCESS = st.sampled_from(Access)
NAMESPACES = st.none() | st.builds(
    Namespace,
    pattern=st.just("*"),
    subscribe=ACCESS.filter(lambda access: access is not Access.MEMBERS),
    publish=ACCESS,
    upload=ACCESS,
    history_access=ACCESS,
    presence_access=ACCESS,
)
USERS = st.sampled_from([None, "a", "b"])
SCOPE_NAMES = ("subscribe", "publish", "history", "presence", "upload", "signal")


@given(st.sampled_from(Action), NAMES, USERS, GRANTS, GRANTS, NAMESPACES, st.booleans())
def test_more_never_denies_more(
    action: Action,
    name: str,
    user_id: str | None,
    grant: Grant,
    more: Grant,
    namespace: Namespace | None,
    member: bool,
) -> None:
    def may(grant: Grant, user_id: str | None = user_id, member: bool = member) -> bool:
        return decide(action, name, user_id=user_id, grant=grant, namespace=namespace, member=member) is None

    scopes = {
        of: Scope(getattr(grant, of).patterns + getattr(more, of).patterns, getattr(grant, of).exclusive)
        for of in SCOPE_NAMES
    }
    if may(grant):
        assert may(attrs.evolve(grant, **scopes))
        assert may(attrs.evolve(grant, admin=True))
        assert may(attrs.evolve(grant, server=True))
        assert may(grant, member=True)
        if user_id is None:
            assert may(grant, user_id="a")
        open_to_more = {of: attrs.evolve(getattr(grant, of), exclusive=False) for of in SCOPE_NAMES}
        assert may(attrs.evolve(grant, **open_to_more))
    assert may(EVERYTHING)


@given(st.sampled_from(Action), NAMES, USERS, GRANTS, NAMESPACES, st.booleans())
def test_what_is_said_depends_on_what_was_asked_alone(
    action: Action, name: str, user_id: str | None, grant: Grant, namespace: Namespace | None, member: bool
) -> None:
    first = decide(action, name, user_id=user_id, grant=grant, namespace=namespace, member=member)
    copy = attrs.evolve(grant)
    assert decide(action, name, user_id=user_id, grant=copy, namespace=namespace, member=member) == first
    if first is not None:
        assert first.status == 403
        assert first.code == ("admin_required" if action is Action.ADMINISTER else f"{action.value}_denied")
        # No name, no user and no pattern is repeated.
        assert "$" not in first.message
        assert "*" not in first.message
