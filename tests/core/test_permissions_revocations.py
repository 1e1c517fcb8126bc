"""Revocations: what may be revoked, and which tokens that covers for how long."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.permissions import EVERYTHING, Credential, Grant, Revocation, Revocations, parse_revocation

NOW = 1_700_000_000
TIMESTAMP = NOW * 1000
YEAR = 366 * 86_400.0
FULL = Refusal(
    "too_many_revocations",
    "2 revocations are remembered: wait until some have ended, or let them end earlier",
    status=503,
)


def token(token_id: str | None = None, issued_at: float | None = None) -> Grant:
    return Grant(credential=Credential.TOKEN, token_id=token_id, issued_at=issued_at)


def at(revocations: Revocations, user_id: str | None, grant: Grant, now: float = NOW) -> bool:
    return revocations.covers(user_id, grant, timestamp=round(now * 1000))


def made(*revocations: Revocation, max_size: int = 100) -> Revocations:
    found = Revocations(max_size)
    for revocation in revocations:
        assert found.add(revocation, timestamp=TIMESTAMP) is None
    return found


# What may be revoked.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"token_id": "t"}, Revocation(token_id="t", until=NOW + YEAR)),
        ({"token_id": "t" * 255}, Revocation(token_id="t" * 255, until=NOW + YEAR)),
        ({"user_id": 7}, Revocation(user_id="7", issued_before=NOW, until=NOW + YEAR)),
        ({"token_id": "t", "user_id": "u"}, Revocation(token_id="t", user_id="u", until=NOW + YEAR)),
        ({"user_id": "u", "issued_before": 5}, Revocation(user_id="u", issued_before=5.0, until=NOW + YEAR)),
        ({"issued_before": NOW + 0.5}, Revocation(issued_before=NOW + 0.5, until=NOW + YEAR)),
        ({"token_id": "t", "expires_in": 60}, Revocation(token_id="t", until=NOW + 60.0)),
        ({"token_id": "t", "expires_in": 0.5}, Revocation(token_id="t", until=NOW + 0.5)),
    ],
)
def test_what_is_to_be_revoked(data: dict[str, object], expected: Revocation) -> None:
    assert parse_revocation(data, timestamp=TIMESTAMP) == expected


INSTANT = "'issued_before' must be a number of seconds since 1970"
TOKEN_ID = "'token_id' must be a string of 1 to 255 characters"
EXPIRES_IN = "'expires_in' must be a number of seconds above 0"
WHICH = "say which tokens: 'token_id', 'user_id' or 'issued_before'"
KEYS = "it may say token_id, user_id, issued_before, expires_in, and not "


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, WHICH),
        ({"expires_in": 5}, WHICH),
        # None of these may turn into all tokens of a user, or of everybody.
        ({"user_id": "u", "issued_befor": 5}, f"{KEYS}'issued_befor'"),
        ({"user_id": "u", "x" * 100: 5}, f"{KEYS}'{'x' * 79}"),
        ({"token_id": None, "user_id": "u"}, TOKEN_ID),
        ({"token_id": "", "user_id": "u"}, TOKEN_ID),
        ({"token_id": 7}, TOKEN_ID),
        ({"token_id": "t" * 256}, TOKEN_ID),
        ({"user_id": "u", "issued_before": None}, INSTANT),
        ({"issued_before": "yesterday"}, INSTANT),
        ({"issued_before": True}, INSTANT),
        ({"issued_before": -1}, INSTANT),
        ({"issued_before": TIMESTAMP}, INSTANT),
        ({"issued_before": math.nan}, INSTANT),
        ({"token_id": "t", "expires_in": 0}, EXPIRES_IN),
        ({"token_id": "t", "expires_in": -1}, EXPIRES_IN),
        ({"token_id": "t", "expires_in": None}, EXPIRES_IN),
        ({"token_id": "t", "expires_in": "60"}, EXPIRES_IN),
        ({"token_id": "t", "expires_in": math.inf}, EXPIRES_IN),
        ({"token_id": "t", "expires_in": 10**400}, EXPIRES_IN),
        ({"token_id": "t", "expires_in": 253_402_300_799}, EXPIRES_IN),
    ],
)
def test_what_cannot_be_revoked(data: dict[str, object], message: str) -> None:
    assert parse_revocation(data, timestamp=TIMESTAMP) == Refusal("invalid_revocation", message)


@pytest.mark.parametrize("user_id", [None, "", 1.5, True, "a\n"])
def test_no_user(user_id: object) -> None:
    found = parse_revocation({"user_id": user_id, "token_id": "t"}, timestamp=TIMESTAMP)
    assert isinstance(found, Refusal)
    assert found.code == "invalid_user_id"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["token_id", "user_id", "issued_before", "expires_in"]) | st.text(max_size=3),
        JSON | st.text("ab", min_size=1, max_size=2) | st.integers(0, 9),
    )
)
def test_anything_is_parsed_or_refused(data: dict[str, object]) -> None:
    found = parse_revocation(data, timestamp=TIMESTAMP)
    if isinstance(found, Revocation):
        # It always means some tokens only, until some time, and can be remembered.
        assert found.token_id is not None or found.issued_before is not None
        assert found.until > NOW
        assert Revocations().add(found, timestamp=TIMESTAMP) is None


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, ValueError),
        ({"token_id": 1}, TypeError),
        ({"user_id": 1}, TypeError),
        ({"issued_before": "x"}, ValueError),
        ({"issued_before": -1}, ValueError),
        ({"token_id": "t", "until": math.nan}, ValueError),
        ({"token_id": "t", "until": math.inf}, ValueError),
        ({"token_id": "t", "until": None}, ValueError),
    ],
)
def test_no_revocation(fields: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Revocation(**{"until": NOW, **fields})  # type: ignore[arg-type]


# What is revoked.


def test_a_token_by_its_id() -> None:
    revocations = made(Revocation(token_id="t", until=NOW + 10))
    assert at(revocations, "u", token("t"))
    assert at(revocations, None, token("t", issued_at=NOW + 5))
    assert not at(revocations, "u", token("t2"))
    assert not at(revocations, "t", token())


def test_tokens_of_a_user_by_their_age() -> None:
    revocations = made(Revocation(user_id="u", issued_before=NOW, until=NOW + 10))
    assert at(revocations, "u", token("t", issued_at=NOW - 0.1))
    assert at(revocations, "u", token(issued_at=NOW - 1))
    assert not at(revocations, "u", token(issued_at=NOW))
    # Who does not say when has come before.
    assert at(revocations, "u", token("t"))
    assert not at(revocations, "v", token(issued_at=0))
    assert not at(revocations, None, token(issued_at=0))


def test_all_tokens_of_a_user() -> None:
    revocations = made(Revocation(user_id="u", until=NOW + 10))
    assert at(revocations, "u", token(issued_at=NOW + 1e9))
    assert not at(revocations, "v", token())


def test_tokens_of_everybody_by_their_age() -> None:
    revocations = made(Revocation(issued_before=NOW, until=NOW + 10))
    assert at(revocations, None, token())
    assert at(revocations, "u", token("t", issued_at=NOW - 1))
    assert not at(revocations, "u", token("t", issued_at=NOW))


def test_all_that_is_said_must_be_so() -> None:
    revocations = made(Revocation(token_id="t", user_id="u", issued_before=NOW, until=NOW + 10))
    assert at(revocations, "u", token("t", issued_at=NOW - 1))
    assert not at(revocations, "u", token("t", issued_at=NOW))
    assert not at(revocations, "v", token("t", issued_at=NOW - 1))
    assert not at(revocations, "u", token("t2", issued_at=NOW - 1))


def test_what_comes_from_no_token_is_not_revoked() -> None:
    revocations = made(Revocation(issued_before=NOW, until=NOW + 10), Revocation(user_id="u", until=NOW + 10))
    for grant in (Grant(), EVERYTHING, Grant(token_id="t", credential=Credential.KEY)):
        assert not at(revocations, "u", grant)


def test_a_revocation_ends() -> None:
    revocations = made(Revocation(token_id="t", until=NOW + 10))
    assert at(revocations, None, token("t"), NOW + 9.999)
    assert len(revocations) == 1
    assert not at(revocations, None, token("t"), NOW + 10)
    assert len(revocations) == 0
    # What has ended already is not remembered.
    assert revocations.add(Revocation(token_id="t", until=NOW), timestamp=TIMESTAMP) is None
    assert len(revocations) == 0


def test_what_says_nothing_new_takes_no_room() -> None:
    first = Revocation(user_id="u", issued_before=NOW, until=NOW + 10)
    revocations = made(first, first)
    assert len(revocations) == 1
    made_earlier = attrs.evolve(first, issued_before=NOW - 5, until=NOW + 9)
    assert revocations.add(made_earlier, timestamp=TIMESTAMP) is None
    assert len(revocations) == 1
    # This is for longer, and the next for more.
    assert revocations.add(attrs.evolve(made_earlier, until=NOW + 20), timestamp=TIMESTAMP) is None
    assert len(revocations) == 2
    assert at(revocations, "u", token(issued_at=NOW - 6), NOW + 15)
    assert not at(revocations, "u", token(issued_at=NOW - 1), NOW + 15)
    assert revocations.add(Revocation(user_id="u", until=NOW + 20), timestamp=TIMESTAMP + 5000) is None
    assert len(revocations) == 1
    assert at(revocations, "u", token(issued_at=NOW + 1), NOW + 19)


def test_no_more_are_remembered_than_there_is_room_for() -> None:
    revocations = made(
        Revocation(token_id="a", until=NOW + 10), Revocation(user_id="u", issued_before=5, until=NOW + 20), max_size=2
    )
    assert revocations.add(Revocation(token_id="b", until=NOW + 5), timestamp=TIMESTAMP) == FULL
    assert not at(revocations, None, token("b"))
    assert at(revocations, None, token("a"))
    # What is remembered may be said again, and said to be more.
    assert revocations.add(Revocation(token_id="a", until=NOW + 10), timestamp=TIMESTAMP) is None
    assert revocations.add(Revocation(token_id="a", until=NOW + 12), timestamp=TIMESTAMP) is None
    assert revocations.add(Revocation(user_id="u", until=NOW + 20), timestamp=TIMESTAMP) is None
    assert len(revocations) == 2
    # But not to be something else.
    other = Revocation(token_id="a", user_id="u", until=NOW + 20)
    assert revocations.add(other, timestamp=TIMESTAMP) == FULL
    later = (NOW + 12) * 1000
    assert revocations.add(other, timestamp=later) is None
    assert len(revocations) == 2


def test_what_has_ended_is_forgotten_little_by_little() -> None:
    revocations = made(*(Revocation(token_id=str(each), until=NOW + 1 + each / 1000) for each in range(100)))
    sizes = []
    for _ in range(30):
        assert not at(revocations, None, token("50"), NOW + 5)
        sizes.append(len(revocations))
    assert sizes == [max(0, 100 - 4 * each) for each in range(1, 31)]


def test_what_has_ended_is_not_covered_though_it_is_remembered() -> None:
    revocations = made(*(Revocation(token_id=str(each), until=NOW + 10) for each in range(10)))
    assert not at(revocations, None, token("9"), NOW + 10)
    assert len(revocations) == 6


def test_one_that_is_extended_holds_until_the_new_end() -> None:
    first = Revocation(token_id="t", until=NOW + 10)
    revocations = made(first, attrs.evolve(first, until=NOW + 20))
    assert at(revocations, None, token("t"), NOW + 10)
    assert at(revocations, None, token("t"), NOW + 19)
    assert not at(revocations, None, token("t"), NOW + 20)


def test_one_that_is_extended_over_and_over_takes_no_room() -> None:
    revocations = Revocations(max_size=10)
    for each in range(1000):
        revocation = Revocation(user_id="u", issued_before=NOW + each, until=NOW + YEAR + each)
        assert revocations.add(revocation, timestamp=TIMESTAMP) is None
    assert len(revocations) == 1
    assert len(revocations._heap) < 100
    assert at(revocations, "u", token(issued_at=NOW + 998))
    assert not at(revocations, "u", token(issued_at=NOW + 999))


def test_many_are_as_quick_to_ask_as_few() -> None:
    # Looking through all of them each time would take minutes.
    revocations = Revocations(20_000)
    for each in range(10_000):
        assert revocations.add(Revocation(token_id=f"t{each}", until=NOW + YEAR), timestamp=TIMESTAMP) is None
        revocation = Revocation(user_id=f"u{each}", issued_before=NOW, until=NOW + YEAR)
        assert revocations.add(revocation, timestamp=TIMESTAMP) is None
    assert len(revocations) == 20_000
    assert revocations.add(Revocation(token_id="t", until=NOW + 1), timestamp=TIMESTAMP) is not None
    for each in range(10_000):
        assert at(revocations, "u", token(f"t{each}", NOW))
        assert at(revocations, f"u{each}", token("t", NOW - 1))
        assert not at(revocations, f"u{each}", token("t", NOW))


IDS = st.sampled_from([None, "a", "b"])
TIMES = st.integers(0, 12)
REVOCATIONS = st.builds(
    lambda token_id, user_id, issued_before, until: Revocation(
        token_id=token_id,
        user_id=user_id,
        issued_before=issued_before if token_id or user_id or issued_before else 0,
        until=until,
    ),
    IDS,
    IDS,
    st.none() | TIMES,
    TIMES,
)
TOKENS = st.tuples(IDS, IDS, st.none() | TIMES)
STEPS = st.lists(st.tuples(st.integers(0, 2), REVOCATIONS | TOKENS), max_size=40)


def naive(revocations: list[Revocation], user_id: str | None, grant: Grant, now: float) -> bool:
    return any(
        now < each.until
        and (each.token_id is None or each.token_id == grant.token_id)
        and (each.user_id is None or each.user_id == user_id)
        and (each.issued_before is None or grant.issued_at is None or grant.issued_at < each.issued_before)
        for each in revocations
    )


@given(STEPS, st.sampled_from([1, 3, 100]))
def test_what_is_covered_is_what_a_list_says(
    steps: list[tuple[int, Revocation | tuple[str | None, str | None, int | None]]], max_size: int
) -> None:
    revocations, found = [], Revocations(max_size)
    now = 0
    for wait, step in steps:
        now += wait
        if isinstance(step, Revocation):
            was = len(found)
            refusal = found.add(step, timestamp=now * 1000)
            if refusal is None:
                revocations.append(step)
            else:
                assert refusal.code == "too_many_revocations"
                assert len(found) <= was
                # Nothing that has ended keeps another from being remembered.
                assert sum(now < each.until for each in revocations) >= max_size
        else:
            user_id, token_id, issued_at = step
            grant = token(token_id, issued_at)
            assert found.covers(user_id, grant, timestamp=now * 1000) is naive(revocations, user_id, grant, now)
        assert len(found) <= min(max_size, len(revocations))
        assert len(found._heap) <= 2 * max_size + 64
    for _ in range(40):
        assert not found.covers("a", token("a"), timestamp=20_000)
    assert (len(found), found._entries, found._heap) == (0, {}, [])
