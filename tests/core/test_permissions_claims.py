"""Who somebody is and what they are allowed, by the claims of a token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.json_values import decode_value
from rtcore.messages import encode
from rtcore.permissions import Action, Credential, Grant, Identity, Role, Scope, decide, identity_of

ROLES = {
    "reader": Role("reader", channels=["news:*"], publish=[]),
    "writer": Role("writer", publish=["news:*"], rooms=["desk"]),
    "all": Role("all", channels=["a"], publish=["b"], history=["c"], presence=["d"], upload=["e"], rooms=["f"]),
    "boss": Role("boss", admin=True),
    "bot": Role("bot", server=True),
}

LIST = "a list of at most 1000 strings, each of 1 to 255 printable characters"
INSTANT = "a number of seconds since 1970"
USER_ID = "1 to 255 printable characters, or a whole number"
TOKEN_ID = "a string of 1 to 255 characters"
INFO = "a JSON object of at most 4096 bytes, nested 64 deep at most"
LISTS = ["channels", "publish", "history", "presence", "upload", "rooms", "roles"]


def read(claims: Mapping[str, object], roles: Mapping[str, Role] = ROLES) -> Identity | Refusal:
    return identity_of(claims, roles=roles)


def token(**fields: object) -> Grant:
    return Grant(credential=Credential.TOKEN, **fields)  # type: ignore[arg-type]


def only(*patterns: str) -> Scope:
    return Scope(patterns, exclusive=True)


def test_a_token_that_says_nothing_allows_what_anybody_may() -> None:
    assert read({}) == Identity(None, token())
    assert read({"nbf": None, "scope": 7, "name": ["Ann"]}) == Identity(None, token())


def test_all_that_a_token_may_say() -> None:
    claims: dict[str, object] = {
        "sub": "ann",
        "channels": ["a", "a*"],
        "publish": ["b"],
        "history": ["c"],
        "presence": ["d"],
        "upload": ["e"],
        "rooms": ["f"],
        "roles": [],
        "info": {"name": "Ann"},
        "jti": "1",
        "iat": 1_700_000_000,
        "exp": 1_700_000_000.5,
    }
    grant = token(
        subscribe=only("a", "a*"),
        publish=only("b"),
        history=only("c"),
        presence=only("d"),
        upload=only("e"),
        signal=only("f"),
        info={"name": "Ann"},
        token_id="1",
        issued_at=1_700_000_000.0,
        expires_at=1_700_000_000.5,
    )
    assert read(claims) == Identity("ann", grant)


def test_channels_hold_for_all_that_is_done_there() -> None:
    scope = only("chat:*")
    grant = token(subscribe=scope, publish=scope, history=scope, presence=scope, upload=scope)
    assert read({"channels": ["chat:*"]}) == Identity(None, grant)
    # One need not be a list.
    assert read({"channels": "chat:*"}) == Identity(None, grant)


def test_files_go_where_messages_go() -> None:
    assert read({"publish": ["b"]}) == Identity(None, token(publish=only("b"), upload=only("b")))
    assert read({"publish": ["b"], "upload": []}) == Identity(None, token(publish=only("b"), upload=only()))
    assert read({"channels": ["a"], "publish": []}) == Identity(
        None, token(subscribe=only("a"), publish=only(), history=only("a"), presence=only("a"), upload=only())
    )


def test_nothing_listed_is_nothing_allowed() -> None:
    none = only()
    assert read({"channels": [], "rooms": []}) == Identity(
        None, token(subscribe=none, publish=none, history=none, presence=none, upload=none, signal=none)
    )


@pytest.mark.parametrize("name", ["history", "presence", "upload", "rooms"])
def test_a_claim_by_itself(name: str) -> None:
    field = "signal" if name == "rooms" else name
    assert read({name: ["x"]}) == Identity(None, token(**{field: only("x")}))


def test_a_role_adds_what_it_has() -> None:
    assert read({"roles": ["all"]}) == Identity(
        None,
        token(
            subscribe=Scope(["a"]),
            publish=Scope(["b"]),
            history=Scope(["c"]),
            presence=Scope(["d"]),
            upload=Scope(["e"]),
            signal=Scope(["f"]),
        ),
    )
    news = Scope(["news:*"])
    assert read({"roles": "reader"}) == Identity(None, token(subscribe=news, history=news, presence=news))
    assert read({"roles": ["writer"]}) == Identity(None, token(publish=news, upload=news, signal=Scope(["desk"])))
    assert read({"roles": ["boss"]}) == Identity(None, token(admin=True))
    assert read({"roles": ["bot"]}) == Identity(None, token(server=True))


def test_a_role_adds_to_what_the_token_itself_names() -> None:
    claims = {"channels": ["chat:*", "news:*"], "roles": ["reader", "writer", "boss", "reader"], "rooms": ["hall"]}
    read_scope = only("chat:*", "news:*")
    assert read(claims) == Identity(
        None,
        token(
            subscribe=read_scope,
            publish=read_scope,
            history=read_scope,
            presence=read_scope,
            upload=read_scope,
            signal=only("hall", "desk"),
            admin=True,
        ),
    )
    # What is inherited is what the token itself has, and not what a role adds to it.
    assert read({"publish": ["b"], "roles": ["all"]}) == Identity(
        None,
        token(
            subscribe=Scope(["a"]),
            publish=only("b"),
            history=Scope(["c"]),
            presence=Scope(["d"]),
            upload=only("b", "e"),
            signal=Scope(["f"]),
        ),
    )


def test_a_role_that_is_not_there_counts_for_nothing() -> None:
    assert read({"roles": ["nobody", "writer2"]}) == Identity(None, token())
    assert read({"roles": ["boss"]}, {}) == Identity(None, token())


def test_an_admin_may_do_everything_unless_the_role_is_said_to_be_something_else() -> None:
    found = read({"sub": "ann", "roles": ["admin"]})
    everything = Scope(["*", "$*"])
    scopes = dict.fromkeys(["subscribe", "publish", "history", "presence", "upload", "signal"], everything)
    assert found == Identity("ann", token(**scopes, admin=True, server=True))
    restricted = read({"channels": [], "rooms": [], "roles": ["admin"]})
    assert isinstance(restricted, Identity)
    for action in Action:
        for name in ("a", "$broadcast"):
            assert decide(action, name, user_id=None, grant=restricted.grant) is None
    assert read({"roles": ["admin"]}, {"admin": Role("admin", admin=True)}) == Identity(None, token(admin=True))


@pytest.mark.parametrize(("sub", "user_id"), [("ann", "ann"), (7, "7"), (-7, "-7"), ("x" * 255, "x" * 255), ("ы", "ы")])
def test_a_user(sub: object, user_id: str) -> None:
    assert read({"sub": sub}) == Identity(user_id, token())


@pytest.mark.parametrize("sub", ["", None, True, 1.0, [], {}, "a\n", "x" * 256, 10**255])
def test_no_user(sub: object) -> None:
    assert read({"sub": sub}) == refused("sub", USER_ID)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "value",
    [None, 1, True, {}, {"a": 1}, "", "a\n", [""], [None], [1], [["a"]], ["a", "a\n"], ["x" * 256], ["a"] * 1001],
)
def test_no_list(name: str, value: object) -> None:
    assert read({name: value}) == refused(name, LIST)


def test_the_longest_list() -> None:
    patterns = [f"{i:0>255}" for i in range(1000)]
    found = read({"rooms": patterns})
    assert found == Identity(None, token(signal=only(*patterns)))
    assert read({"roles": patterns}) == Identity(None, token())


@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        "1700000000",
        True,
        [],
        -1,
        -0.5,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        1_700_000_000_000,
        253_402_300_800,
    ],
)
def test_no_instant(name: str, value: object) -> None:
    assert read({name: value}) == refused(name, INSTANT)


def test_the_first_and_the_last_instant() -> None:
    grant = token(issued_at=0.0, expires_at=253_402_300_799.0)
    found = read({"iat": 0, "exp": 253_402_300_799})
    assert found == Identity(None, grant)
    assert isinstance(found, Identity)
    assert isinstance(found.grant.issued_at, float)


@pytest.mark.parametrize("jti", [None, 1, "", "x" * 256, ["a"]])
def test_no_id(jti: object) -> None:
    assert read({"jti": jti}) == refused("jti", TOKEN_ID)


def test_an_id() -> None:
    assert read({"jti": "x" * 255}) == Identity(None, token(token_id="x" * 255))


@pytest.mark.parametrize("info", [None, [], "Ann", 1, {"x": "y" * 4089}, {"x": "\ud800"}, {"x": object()}])
def test_no_info(info: object) -> None:
    assert read({"info": info}) == refused("info", INFO)


def nested(depth: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(depth - 1):
        found = {"x": found}
    return found


def test_the_largest_info() -> None:
    largest = {"x": "y" * 4088}
    assert len(json.dumps(largest, separators=(",", ":"))) == 4096
    assert read({"info": largest}) == Identity(None, token(info=largest))
    # Bytes count, and not characters.
    assert read({"info": {"x": "ы" * 2045}}) == refused("info", INFO)
    assert read({"info": nested(64)}) == Identity(None, token(info=nested(64)))
    assert read({"info": nested(65)}) == refused("info", INFO)
    assert read({"info": nested(600)}) == refused("info", INFO)
    assert read({"info": nested(100_000)}) == refused("info", INFO)


def test_info_is_a_copy_of_what_json_can_say() -> None:
    names = ["Ann"]
    info = {"names": names, "nan": math.nan}
    found = read({"info": info})
    names.append("Bob")
    assert found == Identity(None, token(info={"names": ["Ann"], "nan": None}))


def refused(claim: str, expected: str) -> Refusal:
    return Refusal("invalid_token", f"the token's claim '{claim}' must be {expected}", status=401)


# Whatever `json.loads` makes, lone surrogates, NaN and large numbers included.
TEXTS = st.text(st.characters(codec=None), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
NAMES = st.sampled_from([*LISTS, "sub", "info", "jti", "iat", "exp"])
RIGHT = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.text("ab", min_size=1, max_size=2) | st.integers(0, 9),
        **{name: st.lists(st.text("ab*$", min_size=1, max_size=3), max_size=3) for name in LISTS[:-1]},
        "roles": st.lists(st.sampled_from([*ROLES, "admin", "nobody"])),
        "info": st.dictionaries(st.text("ab"), st.integers(0, 9)),
        "jti": st.text("ab", min_size=1),
        "iat": st.integers(0, 2**32),
        "exp": st.floats(0, 2**32),
    },
)


@given(st.dictionaries(NAMES | TEXTS, JSON, max_size=4), RIGHT)
@example({"info": {"event": "\n", "type": []}}, {})
def test_any_claims_are_read_or_refused(wrong: dict[str, object], right: dict[str, object]) -> None:
    for claims in (wrong, right, {**right, **wrong}):
        found = read(claims)
        if isinstance(found, Refusal):
            assert (found.code, found.status) == ("invalid_token", 401)
        else:
            assert hash(found) == hash(read(claims))
            # Others can be told.
            assert isinstance(decode_value(encode({"type": "x", "info": found.grant.info}).json), dict)
    assert isinstance(read(right), Identity)


@given(RIGHT, st.sampled_from([*ROLES, "admin"]), st.sampled_from(Action), st.sampled_from(["a", "b", "news:1", "$a"]))
def test_a_role_never_takes_anything_away(claims: dict[str, object], role: str, action: Action, name: str) -> None:
    roles = claims.pop("roles", [])
    assert isinstance(roles, list)
    less, more = read({**claims, "roles": roles}), read({**claims, "roles": [*roles, role]})
    assert isinstance(less, Identity)
    assert isinstance(more, Identity)
    if decide(action, name, user_id=less.user_id, grant=less.grant) is None:
        assert decide(action, name, user_id=more.user_id, grant=more.grant) is None


@given(RIGHT, st.sampled_from(Action), st.sampled_from(["a", "b", "aa", "$a"]))
def test_a_list_of_channels_never_gives_more_than_without(claims: dict[str, object], action: Action, name: str) -> None:
    # Roles aside, which add.
    claims.pop("roles", None)
    found, without = read(claims), read({})
    assert isinstance(found, Identity)
    assert isinstance(without, Identity)
    if name != "$a" and decide(action, name, user_id=None, grant=found.grant) is None:
        assert decide(action, name, user_id=None, grant=without.grant) is None


def test_what_is_the_same_is_one_object() -> None:
    identity = identity_of({"channels": ["a:*"], "publish": ["b"]}, roles={})
    assert isinstance(identity, Identity)
    grant = identity.grant
    assert grant.subscribe is grant.history is grant.presence
    assert grant.publish is grant.upload
    assert grant.signal == Scope()
    again = identity_of({"sub": "bob", "channels": ["a:*"]}, roles={})
    assert isinstance(again, Identity)
    assert again.grant.subscribe is grant.subscribe


def test_long_lists_are_not_kept() -> None:
    claims = {"channels": [f"{number}" for number in range(33)]}
    one, two = identity_of(claims, roles={}), identity_of(claims, roles={})
    assert isinstance(one, Identity)
    assert isinstance(two, Identity)
    assert one == two
    assert one.grant.subscribe is not two.grant.subscribe
