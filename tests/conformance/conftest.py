"""The choice of cases, and where the suite is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..programs import ROOT


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option; pytest takes it where it is told of this folder, as in ``pytest tests/conformance``."""
    parser.addoption("--all-cases", action="store_true", help="Autobahn cases with large messages too")


@pytest.fixture
def all_cases(pytestconfig: pytest.Config) -> bool:
    """Whether the cases with large messages are wanted too."""
    return bool(pytestconfig.getoption("--all-cases", default=False))


@pytest.fixture
def kosoku() -> str:
    """Autobahn's cases as a program, from a virtual environment of its own."""
    path = Path(os.environ.get("RTCORE_KOSOKU") or ROOT / ".venv-conformance" / "bin" / "kosoku")
    if not path.is_file():
        pytest.fail(f"{path} is missing: 'make conformance' installs it; or set RTCORE_KOSOKU to a command", False)
    return str(path)
