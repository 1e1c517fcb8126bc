"""Who is present in a channel: whatever the number of their connections, and for a while after the last one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.presence import Member, Presence


@pytest.fixture
def presence() -> Presence:
    return Presence()


def test_nobody(presence: Presence) -> None:
    assert (len(presence), presence.members(), presence.next_timeout()) == (0, [], None)
    assert presence.take_gone(now=1e9) is None


def test_a_user_is_there_from_the_first_connection_to_the_last(presence: Presence) -> None:
    assert presence.enter("c1", "ann")
    assert not presence.enter("c2", "ann")
    assert (len(presence), presence.members()) == (1, [Member("ann", "c1")])
    assert not presence.leave("c1", "ann", until=None)
    assert presence.members() == [Member("ann", "c2")]
    assert presence.leave("c2", "ann", until=None)
    assert (len(presence), presence.members()) == (0, [])


def test_everybody_anonymous_is_somebody_else(presence: Presence) -> None:
    assert presence.enter("c1", None)
    assert presence.enter("c2", None)
    assert presence.enter("c3", "c1")  # a user may be called like a connection
    assert presence.enter("c4", "")
    assert presence.members() == [Member(None, "c1"), Member(None, "c2"), Member("c1", "c3"), Member("", "c4")]
    assert presence.leave("c1", None, until=None)
    assert presence.members() == [Member(None, "c2"), Member("c1", "c3"), Member("", "c4")]


def test_somebody_anonymous_cannot_come_back(presence: Presence) -> None:
    presence.enter("c1", None)
    assert presence.leave("c1", None, until=105.0)
    assert presence.next_timeout() is None


def test_who_comes_back_in_time_was_never_gone(presence: Presence) -> None:
    presence.enter("c1", "ann")
    assert not presence.leave("c1", "ann", until=105.0)
    assert (presence.members(), presence.next_timeout()) == ([Member("ann", "c1")], 105.0)
    assert presence.take_gone(now=104.9) is None
    assert not presence.enter("c2", "ann")
    assert (presence.members(), presence.next_timeout()) == ([Member("ann", "c2")], None)
    assert presence.take_gone(now=105.0) is None


def test_who_does_not_come_back_is_gone_by_the_last_connection(presence: Presence) -> None:
    presence.enter("c1", "ann")
    presence.enter("c2", "ann")
    presence.leave("c2", "ann", until=105.0)
    assert presence.next_timeout() is None  # there is still the other one
    presence.leave("c1", "ann", until=106.0)
    assert presence.take_gone(now=106.0) == Member("ann", "c1")
    assert (len(presence), presence.next_timeout()) == (0, None)
    assert presence.enter("c3", "ann")


def test_a_user_who_came_back_may_leave_at_once(presence: Presence) -> None:
    presence.enter("c1", "ann")
    presence.leave("c1", "ann", until=105.0)
    presence.enter("c2", "ann")
    assert presence.leave("c2", "ann", until=None)
    assert presence.next_timeout() is None


def test_they_go_one_by_one_first_gone_first(presence: Presence) -> None:
    for connection_id, user_id in (("c1", "ann"), ("c2", "bob"), ("c3", "cy")):
        presence.enter(connection_id, user_id)
    presence.leave("c2", "bob", until=105.0)
    presence.leave("c1", "ann", until=106.0)
    presence.leave("c3", "cy", until=108.0)
    # Until they are gone the order of coming holds.
    assert presence.members() == [Member("ann", "c1"), Member("bob", "c2"), Member("cy", "c3")]
    assert presence.take_gone(now=107.0) == Member("bob", "c2")
    assert presence.members() == [Member("ann", "c1"), Member("cy", "c3")]
    assert presence.take_gone(now=107.0) == Member("ann", "c1")
    assert presence.take_gone(now=107.0) is None
    assert presence.next_timeout() == 108.0


def test_who_leaves_again_waits_again(presence: Presence) -> None:
    presence.enter("c1", "ann")
    presence.enter("c2", "bob")
    presence.leave("c1", "ann", until=105.0)
    presence.leave("c2", "bob", until=106.0)
    presence.enter("c3", "ann")
    presence.leave("c3", "ann", until=107.0)
    assert presence.take_gone(now=110.0) == Member("bob", "c2")
    assert presence.take_gone(now=110.0) == Member("ann", "c3")


NAMES = ["c1", "c2", "c3", "c4", "c5"]
STEPS = st.tuples(st.sampled_from(NAMES), st.sampled_from([None, "ann", "bob"]), st.booleans(), st.integers(0, 3))
GRACE = 4.0


@given(st.lists(STEPS, max_size=60))
def test_it_is_the_truth_and_a_while_longer(steps: list[tuple[str, str | None, bool, int]]) -> None:
    presence = Presence()
    connected: dict[str, str | None] = {}
    waiting: dict[str, float] = {}  # users without connections, and when they are gone
    now = 0.0
    for connection_id, user_id, at_once, pause in steps:
        now += pause
        gone = []
        while (member := presence.take_gone(now=now)) is not None:
            gone.append(member.user_id)
        assert gone == [user for user, until in waiting.items() if until <= now]
        waiting = {user: until for user, until in waiting.items() if until > now}
        before = {user or connection for connection, user in connected.items()} | waiting.keys()
        if connection_id in connected:
            user_id = connected.pop(connection_id)
            others = user_id is not None and user_id in connected.values()
            changed = presence.leave(connection_id, user_id, until=None if at_once else now + GRACE)
            if user_id is not None and not others and not at_once:
                waiting[user_id] = now + GRACE
        else:
            changed = presence.enter(connection_id, user_id)
            connected[connection_id] = user_id
            waiting.pop(user_id or "", None)
        after = {user or connection for connection, user in connected.items()} | waiting.keys()
        assert changed is (before != after)
        assert len(presence) == len(after)
        assert {member.user_id or member.connection_id for member in presence.members()} == after
        assert presence.next_timeout() == min(waiting.values(), default=None)


def test_a_member_is_told_about_by_the_connection_that_stands_for_it(presence: Presence) -> None:
    presence.enter("c1", "ann", {"from": 1})
    presence.enter("c2", "ann", {"from": 2})
    assert presence.members() == [Member("ann", "c1", {"from": 1})]
    assert not presence.enter("c1", "ann", {"from": 3})
    assert presence.members() == [Member("ann", "c1", {"from": 3})]
    presence.leave("c1", "ann", until=105.0)
    presence.leave("c2", "ann", until=106.0)
    assert presence.members() == [Member("ann", "c2", {"from": 2})]
    assert presence.take_gone(now=106.0) == Member("ann", "c2", {"from": 2})
    assert presence.members() == []
