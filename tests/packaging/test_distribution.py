"""What is tested is what is meant to be tested, and it has all its files."""

from __future__ import annotations

import importlib
import importlib.resources
from pathlib import Path

import pytest

from ..wheel import TESTS_WHEEL

PACKAGES = ["rtcore", "rtcore_transports", "rtcore_adapters"]


@pytest.mark.parametrize("package", PACKAGES)
def test_where_the_package_comes_from(package: str) -> None:
    """Test the sources by default, and the installed wheel where ``RTCORE_TEST_WHEEL`` says so."""
    file = importlib.import_module(package).__file__
    assert file is not None
    installed = "site-packages" in Path(file).parts
    assert installed == TESTS_WHEEL


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_typed(package: str) -> None:
    assert importlib.resources.files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("page", ["test.html", "sse-test.html"])
def test_the_pages_are_there(page: str) -> None:
    assert importlib.resources.files("rtcore_adapters").joinpath("pages", page).is_file()
