"""The command ``rtcore``: serve, pub, sub and stats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeVar

import anyio
import click

from rtcore import Message, RtcoreError, encode
from rtcore.messages import decode_value
from rtcore_transports import HttpPublisher, WSClient, credentials

from .app import RealtimeApp
from .hosting import HostingError, ServerName, load_app, run_server
from .logs import configure_logging
from .settings import check_bind, load_settings

__all__ = ["cli", "main", "pub", "serve", "stats", "sub"]

CommandT = TypeVar("CommandT", bound=Callable[..., object])

_DEFAULT_URL: Final = "http://127.0.0.1:8000/realtime"
# Of these a person who listens wants to see nothing.
_QUIET: Final = frozenset({"connected", "response", "heartbeat", "disconnect"})


def _remote(command: CommandT) -> CommandT:
    """Add the options of every command that talks to a server."""
    for option in (
        click.option("--api-key", envvar="RTCORE_API_KEY", help="An API key. [env: RTCORE_API_KEY]"),
        click.option("--token", envvar="RTCORE_TOKEN", help="A token. [env: RTCORE_TOKEN]"),
        click.option(
            "--url",
            envvar="RTCORE_URL",
            default=_DEFAULT_URL,
            show_default=True,
            help="Where the realtime system is. [env: RTCORE_URL]",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rtcore")
def cli() -> None:
    """Realtime messaging: WebSocket, Server-Sent Events and HTTP on one server."""


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="The port; 0: a free one.")
@click.option("--app", metavar="MODULE:ATTRIBUTE", help="An ASGI application to serve beside the realtime system.")
@click.option(
    "--server", type=click.Choice(["native", "hypercorn"]), default="native", show_default=True, help="What serves."
)
@click.option(
    "--loop",
    type=click.Choice(["asyncio", "uvloop", "trio"]),
    default="asyncio",
    show_default=True,
    help="The event loop.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="A TOML file of settings. [default: rtcore.toml, if there is one]"
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="What to log to stderr.",
)
@click.option(
    "--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True, help="How to log it."
)
def serve(
    host: str,
    port: int,
    app: str | None,
    server: ServerName,
    loop: Literal["asyncio", "uvloop", "trio"],
    config: Path | None,
    log_level: str,
    log_format: Literal["console", "json"],
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    settings = load_settings(config=config)
    check_bind(host, settings)
    configure_logging(log_level, log_format)
    beside = None if app is None else load_app(app)

    def announce(url: str) -> None:
        click.echo(f"rtcore serves {url} ({server} on {loop})")
        click.echo(f"  try it in a browser: {url}/test and {url}/sse-test")

    async def run() -> None:
        await run_server(
            RealtimeApp(settings),
            beside,
            host=host,
            port=port,
            server=server,
            shutdown_timeout=settings.realtime.shutdown_timeout,
            announce=announce,
        )

    _run(run, loop)


@cli.command()
@click.argument("channel")
@click.argument("message")
@_remote
def pub(channel: str, message: str, url: str, token: str | None, api_key: str | None) -> None:
    """Publish MESSAGE to CHANNEL: a JSON object as it is, and anything else as {"data": MESSAGE}.

    Prints where the message is in its channel.
    """
    value = decode_value(message)
    payload: Message = dict(value) if isinstance(value, dict) else {"data": message}

    async def run() -> None:
        _print(await _publisher(url, token, api_key).send_to_channel(channel, payload))

    _run(run)


@cli.command()
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, everything that comes.")
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@_remote
def sub(
    channels: tuple[str, ...], as_json: bool, count: int | None, url: str, token: str | None, api_key: str | None
) -> None:
    """Print the messages of CHANNELs as they come, until Ctrl-C; reconnects by itself."""

    async def run() -> None:
        left = count
        async with WSClient(_websocket_url(url), token=token, api_key=api_key) as client:
            for channel in channels:
                await client.subscribe_to_channel(channel)
            click.echo(f"listening to {', '.join(channels)}", err=True)
            async for message in client:
                if as_json:
                    _print(message)
                elif message.get("type") in _QUIET:
                    continue
                else:
                    click.echo(_as_line(message))
                if left is not None:
                    left -= 1
                    if not left:
                        return

    _run(run)


@cli.command()
@_remote
def stats(url: str, token: str | None, api_key: str | None) -> None:
    """Print the server's counts as JSON."""

    async def run() -> None:
        _print(await _publisher(url, token, api_key).get("/stats"))

    _run(run)


def main() -> NoReturn:
    """Run the command: exit status 0, or 1 with one line on stderr."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        _fail(error.format_message())
    except (RtcoreError, OSError) as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        # Whoever pressed Ctrl-C knows; and a pipe that closes has had enough.
        sys.exit(0)
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    click.echo(f"rtcore: {' '.join(message.split())}", err=True)
    sys.exit(1)


def _run(run: Callable[[], Coroutine[Any, Any, None]], loop: str = "asyncio") -> None:
    if loop != "asyncio" and find_spec(loop) is None:
        raise HostingError(f"--loop {loop} needs {loop}: pip install 'rtcore[{loop}]'")
    if loop == "trio":
        anyio.run(run, backend="trio")
    else:
        anyio.run(run, backend="asyncio", backend_options={"use_uvloop": loop == "uvloop"})


def _base(url: str) -> str:
    """Return the URL of the prefix; that of its WebSocket will do as well."""
    url = url.rstrip("/").removesuffix("/ws")
    scheme, _, rest = url.partition("://")
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    return f"{scheme}://{rest}"


def _websocket_url(url: str) -> str:
    """Return the URL of the WebSocket below the URL of the prefix."""
    return f"{_base(url).replace('http', 'ws', 1)}/ws"


def _publisher(url: str, token: str | None, api_key: str | None) -> HttpPublisher:
    return HttpPublisher(f"{_base(url)}/ws", headers=credentials(token, api_key))


def _print(message: Message) -> None:
    click.echo(encode(message).text)


def _as_line(message: Message) -> str:
    """Return what a person wants to read of a message."""
    meta, channel = message.get("meta"), message.get("channel")
    sender = meta.get("sender") if isinstance(meta, dict) else None
    user = sender.get("user_id") if isinstance(sender, dict) else None
    where = f"[{channel}] " if isinstance(channel, str) else ""
    who = f"{user}: " if isinstance(user, str) else ""
    if message.get("type") in ("user_joined", "user_left"):
        verb = "joins" if message["type"] == "user_joined" else "leaves"
        return f"{where}{message.get('user_id') or message.get('connection_id')} {verb}"
    for part in (message, message.get("data")):
        for field in ("text", "message", "data", "content"):
            if isinstance(part, dict) and isinstance(part.get(field), str):
                return f"{where}{who}{part[field]}"
    rest = {name: value for name, value in message.items() if name not in ("meta", "channel", "id")}
    return f"{where}{who}{encode(rest).text}"
