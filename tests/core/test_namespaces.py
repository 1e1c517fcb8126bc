"""Namespaces: which one holds for a channel, and what one may say."""

from __future__ import annotations

import attrs
import pytest

from rtcore.namespaces import Access, Namespace, Namespaces, SlowConsumer


def test_defaults() -> None:
    namespace = Namespace(pattern="chat:*")
    assert namespace == Namespace(
        pattern="chat:*",
        history_size=100,
        history_ttl=300.0,
        last_value=False,
        persistent_size=100,
        presence=True,
        join_leave=True,
        presence_grace=5.0,
        slow_consumer=SlowConsumer.DISCONNECT,
        conflation_key="key",
        subscribe=Access.ANYBODY,
        publish=Access.ANYBODY,
        upload=Access.ANYBODY,
        history_access=Access.ANYBODY,
        presence_access=Access.ANYBODY,
        max_message_size=None,
    )
    assert Namespaces() == Namespaces((), Namespace(pattern="*"))


def test_the_first_that_matches_holds_and_else_the_default() -> None:
    loud = Namespace(pattern="chat:loud:*", history_size=1)
    chat = Namespace(pattern="chat:*", history_size=2)
    default = Namespace(pattern="nothing", history_size=3)
    namespaces = Namespaces([loud, chat], default)
    assert namespaces.get("chat:loud:1") is loud
    assert namespaces.get("chat:1") is chat
    assert namespaces.get("nothing") is default
    assert namespaces.get("else") is default
    assert Namespaces([chat, loud], default).get("chat:loud:1") is chat


def test_a_star_is_not_for_the_servers_own_channels() -> None:
    everything, own = Namespace(pattern="*"), Namespace(pattern="$user:*")
    namespaces = Namespaces([everything, own])
    assert namespaces.get("any") is everything
    assert namespaces.get("$user:7") is own
    assert namespaces.get("$broadcast") is namespaces.default


def test_a_namespace_is_what_it_says() -> None:
    one = Namespaces([Namespace(pattern="a*"), Namespace(pattern="b*")])
    same = Namespaces((Namespace(pattern="a*"), Namespace(pattern="b*")))
    assert (one, hash(one)) == (same, hash(same))
    assert one != Namespaces([Namespace(pattern="b*"), Namespace(pattern="a*")])
    assert one != Namespaces(one.namespaces, Namespace(pattern="*", presence=False))
    assert one.namespaces == same.namespaces == (Namespace(pattern="a*"), Namespace(pattern="b*"))


def test_a_last_value_is_one() -> None:
    state = Namespace(pattern="state:*", last_value=True, persistent_size=500, history_size=7)
    assert (state.persistent_size, state.history_size) == (1, 7)
    assert Namespace(pattern="state:*", last_value=True, persistent_size=0).persistent_size == 1
    assert attrs.evolve(Namespace(pattern="state:*", persistent_size=9), last_value=True).persistent_size == 1


def test_the_least_and_the_most() -> None:
    least = Namespace(
        pattern="x",
        history_size=0,
        history_ttl=0,
        persistent_size=0,
        presence_grace=0,
        conflation_key="",
        max_message_size=1,
    )
    assert (least.history_size, least.history_ttl, least.persistent_size, least.presence_grace) == (0, 0, 0, 0)
    assert least.max_message_size == 1
    assert Namespace(pattern="x" * 255).pattern == "x" * 255


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("pattern", "", "'pattern' must be 1 to 255 printable characters: ''"),
        ("pattern", "x" * 256, "'pattern' must be 1 to 255 printable characters: 'xxx"),
        ("pattern", "a\n", "'pattern' must be 1 to 255 printable characters: 'a\\\\n'"),
        ("history_size", -1, "'history_size' must be at least 0: -1"),
        ("persistent_size", -1, "'persistent_size' must be at least 0: -1"),
        ("history_ttl", -0.5, "'history_ttl' must be at least 0 and finite: -0.5"),
        ("history_ttl", float("inf"), "'history_ttl' must be at least 0 and finite: inf"),
        ("history_ttl", float("nan"), "'history_ttl' must be at least 0 and finite: nan"),
        ("presence_grace", -1, "'presence_grace' must be at least 0 and finite: -1"),
        ("max_message_size", 0, "'max_message_size' must be at least 1: 0"),
        ("subscribe", Access.MEMBERS, "'subscribe' is what makes members: it cannot be for members only"),
    ],
)
def test_a_value_out_of_its_range(field: str, value: object, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        Namespace(**{"pattern": "a", field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pattern", 1),
        ("pattern", None),
        ("history_size", 1.5),
        ("history_size", True),
        ("history_size", None),
        ("persistent_size", "1"),
        ("history_ttl", "1"),
        ("history_ttl", True),
        ("presence_grace", None),
        ("last_value", 1),
        ("presence", "yes"),
        ("join_leave", None),
        ("slow_consumer", "latest"),
        ("conflation_key", None),
        ("subscribe", "users"),
        ("publish", "server"),
        ("upload", None),
        ("history_access", True),
        ("presence_access", "members"),
        ("max_message_size", "1"),
        ("max_message_size", True),
    ],
)
def test_a_value_of_the_wrong_type(field: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"'{field}' must be"):
        Namespace(**{"pattern": "a", field: value})  # type: ignore[arg-type]
