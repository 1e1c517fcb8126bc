"""Each target of the fuzzing: on its seeds, on what was found once, and on what Hypothesis makes of the seeds."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .targets import SEEDS, TARGETS

#: What has made a target fail, by target: it must not again.
FOUND: Final[dict[str, tuple[bytes, ...]]] = {
    # The port of a host is no pattern.
    "origin": (b"http://l:0\n[::]:*",),
}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    for seed in (b"", *SEEDS[name], *FOUND.get(name, ())):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_mutations(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    seed = data.draw(st.sampled_from(SEEDS[name]))
    at = data.draw(st.integers(0, len(seed)))
    until = data.draw(st.integers(at, min(len(seed), at + 8)))
    target(seed[:at] + data.draw(st.binary(max_size=24)) + seed[until:])
