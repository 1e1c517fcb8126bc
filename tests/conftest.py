"""What all tests share: both event loops, a task group, and how hard Hypothesis tries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import settings

from .wheel import TESTS_WHEEL

# Examples take as long as the machine is busy: a deadline would make tests pass by timing.
settings.register_profile("dev", deadline=None)

# In CI the examples are the same on each run, so a failure is the fault of the change under test. New
# examples come from every run on a developer's machine, and from `--hypothesis-profile=thorough`.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=2_000, print_blob=True)

settings.register_profile(
    "wheel", deadline=None, derandomize=True, database=None, max_examples=5, stateful_step_count=5
)

settings.load_profile("wheel" if TESTS_WHEEL else "ci" if os.environ.get("CI") else "dev")


@pytest.fixture(params=["asyncio"] if TESTS_WHEEL else ["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each test marked ``anyio`` on both event loops."""
    return str(request.param)


@pytest.fixture
async def tasks(anyio_backend: object) -> AsyncIterator[TaskGroup]:
    """Return a task group, which is cancelled at the end."""
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture(scope="session", autouse=True)
def files_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no server that is started without settings keep files where people have theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield
