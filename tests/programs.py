"""Programs that run beside a test, and end with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

__all__ = ["ROOT", "Program", "running"]

#: The folder of the project.
ROOT = Path(__file__).parents[1]

_STOP_TIMEOUT = 20.0


@attrs.frozen
class Program:
    """A program that runs beside a test.

    Attributes:
        process: Its standard output is a pipe.
        errors: The file that its standard error goes to.
    """

    process: subprocess.Popen[bytes]
    errors: Path

    @property
    def complaints(self) -> str:
        """What it has written to its standard error."""
        return self.errors.read_text(errors="replace")

    def read_line(self) -> str:
        """Wait for a line of its standard output; empty once it has ended."""
        assert self.process.stdout is not None, "it is a pipe"
        line: bytes = self.process.stdout.readline()
        return line.decode().strip()

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit status."""
        return self.process.wait()

    def stop(self) -> int:
        """Tell it to end, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        self.process.terminate()
        return self.process.wait(_STOP_TIMEOUT)


@contextmanager
def running(*arguments: str, errors: Path, errors_are_output: bool = False) -> Iterator[Program]:
    """Start a program in the project's folder; it is killed at the end of the block if it has not ended by then.

    Args:
        arguments: The program and its arguments.
        errors: A file for its standard error.
        errors_are_output: Put its standard error into the pipe of its standard output instead.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with (
        errors.open("wb") as file,
        subprocess.Popen(
            arguments,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors_are_output else file,
        ) as process,
    ):
        try:
            yield Program(process, errors)
        finally:
            process.kill()
