"""How commands run what is asynchronous, and print what they get."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import anyio
import click

from rtcore import Message, encode

from .hosting_error import HostingError

__all__ = ["print_json", "run_on"]


def run_on(run: Callable[[], Coroutine[Any, Any, None]], loop: str = "asyncio") -> None:
    """Run a function on an event loop: ``asyncio``, ``uvloop`` or ``trio``.

    Raises:
        HostingError: There is no such loop here.
    """
    if loop != "asyncio" and find_spec(loop) is None:
        raise HostingError(f"--loop {loop} needs {loop}: pip install 'rtcore[{loop}]'")
    if loop == "trio":
        anyio.run(run, backend="trio")
    else:
        anyio.run(run, backend="asyncio", backend_options={"use_uvloop": loop == "uvloop"})


def print_json(message: Message) -> None:
    """Print a message as JSON on one line, a file in it as event streams have it: as ``binary_data``."""
    data = message.get("data")
    if isinstance(data, bytes):
        message = {**message, "binary_data": b64encode(data).decode()}
        del message["data"]
    click.echo(encode(message).text)
