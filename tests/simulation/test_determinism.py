"""The same seed is the same trace, bit for bit, whatever the run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rtcore.simulation import Scenario, run

from .digests import digest

ROOT = Path(__file__).parents[2]
SEEDS = ("1000", "40")


def digests(hash_seed: str, *, interpreter: str = sys.executable) -> str:
    """Run scenarios in another process; returns their hashes."""
    command = [interpreter, "-m", "tests.simulation.digests", *SEEDS]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout


def test_the_hash_seed_does_not_matter() -> None:
    first = digests("0")
    assert len(set(first.splitlines())) == int(SEEDS[1])
    for hash_seed in ("1", "4294967295", "random"):
        assert digests(hash_seed) == first


def test_what_ran_before_does_not_matter() -> None:
    alone = digest(7)
    run(8)
    assert digest(7) == alone != digest(8)


def test_a_report_has_the_hash_of_the_trace() -> None:
    scenario = Scenario(8)
    report = scenario.run(digest=True)
    assert report.digest == scenario.simulation.world.trace.digest()
    assert report == run(8, digest=True)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_version_of_python_does_not_matter(version: str) -> None:
    # Those that are here, and have what the core needs; this one among them, so that the test cannot be about none.
    major, minor = sys.version_info[:2]
    interpreter = sys.executable if version == f"{major}.{minor}" else shutil.which(f"python{version}")
    if interpreter is None or not _has_dependencies(interpreter):
        return
    assert digests("0", interpreter=interpreter) == digests("0")


def _has_dependencies(interpreter: str) -> bool:
    command = [interpreter, "-c", "import rtcore.simulation"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0
