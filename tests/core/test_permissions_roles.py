"""What a role is made of."""

from __future__ import annotations

import pytest

from rtcore.permissions import Role


def test_a_role() -> None:
    role = Role("r", channels=["a", "a"], publish=[], history=("b",))
    assert (role.channels, role.publish, role.history) == (("a",), (), ("b",))
    assert (role.presence, role.upload, role.rooms, role.admin, role.server) == (None, None, (), False, False)
    assert role == Role("r", ("a",), (), ("b",))
    assert hash(role) == hash(Role("r", ("a",), (), ("b",)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("channels", "a"),
        ("publish", "a"),
        ("history", "a"),
        ("presence", "a"),
        ("upload", "a"),
        ("rooms", "a"),
        ("admin", 1),
        ("server", "yes"),
    ],
)
def test_a_value_of_the_wrong_type(field: str, value: object) -> None:
    with pytest.raises(TypeError):
        Role(**{"name": "r", field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["channels", "publish", "history", "presence", "upload", "rooms"])
def test_what_cannot_be_a_pattern(field: str) -> None:
    with pytest.raises(ValueError, match=r"^a pattern must be 1 to 255 printable characters: ''$"):
        Role(**{"name": "r", field: [""]})  # type: ignore[arg-type]
