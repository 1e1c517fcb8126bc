"""One channel: who subscribes to it and wants what, and what there is to wait for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.channels import BROADCAST, Channel, Group, connection_channel, is_builtin, user_channel
from rtcore.encoded import Encoded
from rtcore.filters import Filter
from rtcore.history import Memory
from rtcore.namespaces import Namespace
from rtcore.presence import Member

TEXT = Filter(types=("text",))
NO_FILES = Filter(binary_data=False)


def new_channel(name: str = "chat", namespace: Namespace | None = None, *, lost_seq: int = 0) -> Channel:
    return Channel(name, "e.1", namespace or Namespace(pattern="*"), memory=Memory(2**20), lost_seq=lost_seq)


@pytest.fixture
def channel() -> Channel:
    return new_channel()


def test_names_of_built_in_channels() -> None:
    assert (BROADCAST, connection_channel("c1"), user_channel("42")) == ("$broadcast", "$connection:c1", "$user:42")
    assert all(is_builtin(name) for name in (BROADCAST, connection_channel(""), user_channel("")))
    assert not is_builtin("chat$")


def test_a_new_channel_is_empty(channel: Channel) -> None:
    assert (channel.name, channel.epoch, channel.changes_epoch) == ("chat", "e.1", "e.1p")
    assert (channel.offset, channel.changes.offset) == (0, 0)
    assert (len(channel), channel.groups, len(channel.presence)) == (0, (), 0)
    assert ("c1" in channel, channel.next_timeout()) == (False, None)


def test_both_its_streams_may_have_forgotten_what_came_before() -> None:
    channel = new_channel(lost_seq=7)
    assert (channel.history.lost_seq, channel.changes.lost_seq) == (7, 7)


def test_subscribers_are_present(channel: Channel) -> None:
    assert channel.subscribe("c1", "ann")
    assert not channel.subscribe("c2", "ann")
    assert (len(channel), channel.presence.members()) == (2, [Member("ann", "c1")])
    assert not channel.unsubscribe("c1")
    assert not channel.unsubscribe("c2", until=105.0)
    assert (len(channel), channel.groups) == (0, ())
    assert (channel.presence.members(), channel.next_timeout()) == ([Member("ann", "c2")], 105.0)
    assert not channel.subscribe("c3", "ann")
    assert channel.unsubscribe("c3")


@pytest.mark.parametrize("name", [BROADCAST, user_channel("ann"), connection_channel("c1")])
def test_nobody_is_present_in_a_channel_of_the_servers_own(name: str) -> None:
    channel = new_channel(name)
    assert not channel.subscribe("c1", "ann")
    assert channel.groups == (Group(None, ("c1",)),)
    assert not channel.unsubscribe("c1")
    assert channel.presence.members() == []


def test_groups_are_one_object_until_they_change(channel: Channel) -> None:
    channel.subscribe("c1", None)
    channel.subscribe("c2", None)
    before = channel.groups
    channel.history.append(1, Encoded(b"{}"), persistent=False, now=100.0)
    channel.subscribe("c2", None)
    assert channel.groups is before
    channel.unsubscribe("c1")
    channel.subscribe("c1", None)
    assert (before, channel.groups) == ((Group(None, ("c1", "c2")),), (Group(None, ("c2", "c1")),))


def test_those_who_want_the_same_are_in_one_group(channel: Channel) -> None:
    for connection_id, wanted in (("c1", TEXT), ("c2", None), ("c3", TEXT), ("c4", NO_FILES)):
        channel.subscribe(connection_id, None, wanted)
    assert channel.groups == (Group(TEXT, ("c1", "c3")), Group(None, ("c2",)), Group(NO_FILES, ("c4",)))
    assert (channel.filter_of("c1"), channel.filter_of("c2")) == (TEXT, None)
    channel.unsubscribe("c1")
    channel.unsubscribe("c4")
    assert list(channel.groups) == [Group(TEXT, ("c3",)), Group(None, ("c2",))]


def test_a_subscriber_may_want_something_else(channel: Channel) -> None:
    channel.subscribe("c1", "ann")
    channel.subscribe("c2", None)
    assert not channel.subscribe("c1", "ann", TEXT)
    assert channel.groups == (Group(None, ("c2",)), Group(TEXT, ("c1",)))
    before = channel.groups
    assert not channel.subscribe("c1", "ann", Filter(types=("text",)))
    assert channel.groups is before
    channel.subscribe("c1", "ann", None)
    assert list(channel.groups) == [Group(None, ("c2", "c1"))]
    assert channel.presence.members() == [Member("ann", "c1"), Member(None, "c2")]


def test_how_much_is_kept_is_up_to_the_namespace() -> None:
    channel = new_channel(namespace=Namespace(pattern="*", history_size=2, history_ttl=10.0, persistent_size=1))
    for seq in (1, 2, 3):
        channel.history.append(seq, Encoded(b"{}"), persistent=True, now=100.0)
        channel.changes.append(seq + 10, Encoded(b"{}"), persistent=True, now=100.0)
    assert [each.offset for each in channel.history.since(1) or []] == [2, 3]
    assert (channel.history.since(0), channel.changes.since(0)) == (None, None)
    assert [each.offset for each in channel.history.kept()] == [3]
    assert channel.changes.kept() == []  # who comes later is told who is there
    assert channel.next_timeout() == 110.0
    channel.expire(now=110.0)
    assert (channel.history.since(2), channel.changes.since(2), channel.next_timeout()) == (None, None, None)


def test_a_channel_of_last_values_keeps_one() -> None:
    channel = new_channel(namespace=Namespace(pattern="*", last_value=True, persistent_size=50))
    for seq in (1, 2):
        channel.history.append(seq, Encoded(b"{}"), persistent=True, now=100.0)
    assert [each.offset for each in channel.history.kept()] == [2]


def test_the_first_deadline_of_all_counts(channel: Channel) -> None:
    channel.subscribe("c1", "ann")
    channel.changes.append(1, Encoded(b"{}"), persistent=False, now=100.0)
    channel.history.append(2, Encoded(b"{}"), persistent=False, now=150.0)
    assert channel.next_timeout() == 400.0
    channel.unsubscribe("c1", until=205.0)
    assert channel.next_timeout() == 205.0
    channel.presence.take_gone(now=205.0)
    channel.expire(now=400.0)
    assert channel.next_timeout() == 450.0


def test_changes_begin_anew(channel: Channel) -> None:
    channel.changes.append(1, Encoded(b"{}"), persistent=False, now=100.0)
    channel.restart_changes(lost_seq=9)
    assert (channel.changes_epoch, channel.changes.offset, channel.changes.since(0)) == ("e.1p2", 0, [])
    assert (channel.changes.after_seq(0), channel.changes.lost_seq) == ([], 9)
    channel.restart_changes(lost_seq=9)
    assert (channel.changes_epoch, channel.epoch) == ("e.1p3", "e.1")


USERS = [None, "ann", "bob"]
NAMES = ["c1", "c2", "c3", "c4", "c5"]


STEPS = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(USERS), st.sampled_from([None, TEXT, NO_FILES]), st.booleans()
)


@given(st.lists(STEPS, max_size=60))
def test_it_behaves_like_ordered_dictionaries(steps: list[tuple[str, str | None, Filter | None, bool]]) -> None:
    channel = new_channel()
    model: dict[str, str | None] = {}
    groups: dict[Filter | None, dict[str, None]] = {None: {}, TEXT: {}, NO_FILES: {}}
    order: list[Filter | None] = []
    for connection_id, user_id, wanted, leaves in steps:
        before = {user or connection for connection, user in model.items()}
        changed = False
        if leaves and connection_id in model:
            changed = channel.unsubscribe(connection_id)
            del model[connection_id]
            for group in groups.values():
                group.pop(connection_id, None)
        elif not leaves:
            changed = channel.subscribe(connection_id, model.get(connection_id, user_id), wanted)
            model.setdefault(connection_id, user_id)
            if connection_id not in groups[wanted]:
                for group in groups.values():
                    group.pop(connection_id, None)
                groups[wanted][connection_id] = None
        order = [each for each in order if groups[each]]
        order += [wanted] if groups[wanted] and wanted not in order else []
        assert changed is ({user or connection for connection, user in model.items()} != before)
        assert channel.groups == tuple(Group(each, tuple(groups[each])) for each in order)
        assert len(channel) == len(model)
        assert all((name in channel) is (name in model) for name in NAMES)


def test_what_is_told_about_a_subscriber_may_change_and_regroups_nobody(channel: Channel) -> None:
    channel.subscribe("c1", "ann", TEXT, {"name": "Ann"})
    groups = channel.groups
    assert not channel.subscribe("c1", "ann", TEXT, {"name": "Anne"})
    assert channel.presence.members() == [Member("ann", "c1", {"name": "Anne"})]
    assert channel.groups is groups
