"""Servers as a newcomer starts them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..programs import running

RTCORE = Path(sys.executable).with_name("rtcore")


@pytest.fixture(scope="session")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of ``rtcore serve``."""
    errors = tmp_path_factory.mktemp("serve") / "errors"
    with running(str(RTCORE), "serve", "--port", "0", errors=errors) as server:
        found = re.search(r":(\d+)/", server.read_line())
        assert found, server.complaints
        yield int(found[1])
        assert server.stop() == 0
        assert server.complaints == ""


@pytest.fixture
def serve_application(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Serve the ``app`` of a program under uvicorn; returns the port."""
    with ExitStack() as stack:

        def serve(code: str) -> int:
            (tmp_path / "main.py").write_text(code)
            command = [sys.executable, "-m", "uvicorn", "main:app", "--app-dir", str(tmp_path), "--port", "0"]
            server = stack.enter_context(running(*command, errors=tmp_path / "errors", errors_are_output=True))
            while line := server.read_line():
                if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                    return int(found[1])
            raise AssertionError("uvicorn has not started")

        yield serve
