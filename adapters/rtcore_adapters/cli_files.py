"""Files on the command line: ``rtcore send-file``, and what ``rtcore sub`` does with those that come."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anyio
import click
from anyio.abc import TaskGroup

from rtcore import Message, RtcoreError
from rtcore.binary import BINARY
from rtcore_transports import WSClient

from .cli_loop import print_json, run_on
from .cli_remote import Remote, remote_options

__all__ = ["FileSaver", "describe_file", "is_file", "send_file"]

# Each is a connection. While so many are busy nothing more is heard.
_SAVES_AT_ONCE: Final = 8
# Of a program that Ctrl-C has ended before it was through, as shells tell it.
_INTERRUPTED: Final = 130


@click.command("send-file")
@click.argument("channel")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="What to call it. [default: as it is called]")
@click.option("--type", "content_type", metavar="TYPE", help="Its media type. [default: what its name says]")
@click.option("--json", "as_json", is_flag=True, help="Print all that the server tells of it.")
@remote_options
def send_file(
    channel: str, path: Path, name: str | None, content_type: str | None, as_json: bool, remote: Remote
) -> None:
    """Send the file PATH to CHANNEL; prints where it is, once it is kept and published.

    It goes on where it was when the connection is lost. Ctrl-C ends it, and nothing of the file is kept.
    """
    size = path.stat().st_size

    async def run() -> None:
        with ExitStack() as stack:
            progress = None
            if sys.stderr.isatty():
                bar = stack.enter_context(click.progressbar(length=size, label=name or path.name, file=sys.stderr))

                def progress(sent: int, total: int) -> None:
                    # It may go back: a server that has restarted begins anew.
                    bar.update(sent - bar.pos)

            async with remote.client() as client:
                file = await client.send_file(
                    path, channel=channel, content_type=content_type, filename=name, progress=progress
                )
        if as_json:
            print_json(file)
        else:
            click.echo(file["url"])

    try:
        run_on(run)
    except KeyboardInterrupt:
        click.echo("rtcore: cancelled", err=True)
        sys.exit(_INTERRUPTED)


def is_file(message: Message) -> bool:
    """Tell whether a message is a file, or names one."""
    return message.get("type") == BINARY


def describe_file(message: Message) -> str:
    """Return what a person wants to know of a file."""
    name, kind, size, url = (message.get(field) for field in ("filename", "content_type", "size", "url"))
    text = f"{name or 'a file'} ({kind}, {size} bytes)"
    return f"{text} {url}" if isinstance(url, str) else text


class FileSaver:
    """Saves the files that come, several at a time.

    Args:
        client: Who hears of them.
        folder: Where they go; it is made if need be.
        tasks: In which they are saved.
    """

    def __init__(self, client: WSClient, folder: Path, tasks: TaskGroup) -> None:
        self._client = client
        self._folder = folder
        self._tasks = tasks
        self._free = anyio.Semaphore(_SAVES_AT_ONCE)
        folder.mkdir(parents=True, exist_ok=True)

    async def save(self, message: Message, title: str, *, as_json: bool) -> None:
        """Begin to save the file of a message, once there is room; where it went is printed, or why it did not.

        Args:
            message: The message.
            title: How it begins what is printed.
            as_json: Print the message instead, and where it went in ``saved_to``.
        """
        await self._free.acquire()
        self._tasks.start_soon(self._save, message, title, as_json)

    async def _save(self, message: Message, title: str, as_json: bool) -> None:
        try:
            # With the slash it is a folder even where somebody has removed it.
            path = await self._client.save_file(message, f"{self._folder}{os.sep}")
        except (RtcoreError, OSError) as error:
            click.echo(f"{title} is not saved: {error}", err=True)
            return
        finally:
            self._free.release()
        if as_json:
            print_json({**{name: value for name, value in message.items() if name != "data"}, "saved_to": str(path)})
        else:
            click.echo(f"{title} -> {path}")
