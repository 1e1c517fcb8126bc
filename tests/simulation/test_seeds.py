"""A thousand days in the life of the whole system, in each of which everything holds that must."""

from __future__ import annotations

import pytest

from rtcore.simulation import run

pytestmark = pytest.mark.many_seeds

CHUNK = 50


# In chunks, so that the processes of the test run share them.
@pytest.mark.parametrize("first", range(0, 1000, CHUNK))
def test_everything_holds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(seed)
