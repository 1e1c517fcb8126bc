"""The command ``rtcore``: serve, pub, sub, send-file, history, stats, token and revoke."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, Literal, NoReturn
from urllib.parse import quote

import anyio
import click

from rtcore import Message, RtcoreError, encode
from rtcore.commands import MAX_HISTORY_LIMIT
from rtcore.json_values import decode_value
from rtcore_transports import WSClient

from .app import RealtimeApp
from .auth import WSAuthenticator
from .cli_files import FileSaver, describe_file, is_file, send_file
from .cli_loop import print_json, run_on
from .cli_remote import Remote, remote_options
from .hosting import ServerName, load_app, run_server
from .logs import configure_logging
from .settings import check_bind, load_settings
from .tls import ServerTls, tls_files

__all__ = ["cli", "history", "main", "pub", "revoke", "serve", "stats", "sub", "token"]

# Of these a person who listens wants to see nothing.
_QUIET: Final = frozenset({"connected", "response", "heartbeat", "disconnect", "gap"})


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rtcore")
def cli() -> None:
    """Realtime messaging: WebSocket, Server-Sent Events and HTTP on one server."""


cli.add_command(send_file)


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
    "--tls-certificate",
    metavar="FILE",
    help="Serve HTTPS and WSS with this certificate. [env: REALTIME_TLS_CERTIFICATE]",
)
@click.option("--tls-key", metavar="FILE", help="The private key of the certificate. [env: REALTIME_TLS_KEY]")
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
    tls_certificate: str | None,
    tls_key: str | None,
    config: Path | None,
    log_level: str,
    log_format: Literal["console", "json"],
) -> None:
    """Serve until SIGTERM or Ctrl-C; SIGHUP has certificates and keys read anew."""
    settings = load_settings(config=config)
    check_bind(host, settings)
    configure_logging(log_level, log_format)
    realtime = settings.realtime
    # Of a certificate given here the key is too: half of one pair and half of another are none.
    given = tls_certificate is not None or tls_key is not None
    files = tls_files(
        tls_certificate if given else realtime.tls_certificate,
        tls_key if given else realtime.tls_key,
        realtime.tls_client_ca,
    )
    tls = None if files is None else ServerTls(files)
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
            shutdown_timeout=realtime.shutdown_timeout,
            announce=announce,
            tls=tls,
        )

    run_on(run, loop)


@cli.command()
@click.argument("channel")
@click.argument("message")
@remote_options
def pub(channel: str, message: str, remote: Remote) -> None:
    """Publish MESSAGE to CHANNEL: a JSON object as it is, and anything else as {"data": MESSAGE}.

    Prints where the message is in its channel. It asks once: where no answer comes, it may have been published or not.
    """
    value = decode_value(message)
    payload: Message = dict(value) if isinstance(value, dict) else {"data": message}

    async def run() -> None:
        print_json(await remote.publisher().send_to_channel(channel, payload))

    run_on(run)


@cli.command()
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, everything that comes.")
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@click.option(
    "--save",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save the files that come there; none that is there is replaced.",
)
@remote_options
def sub(channels: tuple[str, ...], as_json: bool, count: int | None, save: Path | None, remote: Remote) -> None:
    """Print the messages of CHANNELs as they come, until Ctrl-C; reconnects by itself.

    What was said while it was away comes first. Where something may be missing all the same, it says so on stderr.
    """

    async def listen(client: WSClient, saver: FileSaver | None) -> None:
        left = count
        for channel in channels:
            await client.subscribe_to_channel(channel)
        click.echo(f"listening to {', '.join(channels)}", err=True)
        async for message in client:
            if message.get("type") == "gap":
                click.echo(f"something may be missing in {message['channel']} ({message.get('reason')})", err=True)
            if saver is not None and is_file(message):
                await saver.save(message, _as_line(message), as_json=as_json)
            elif as_json:
                print_json(message)
            elif message.get("type") in _QUIET:
                continue
            else:
                click.echo(_as_line(message))
            if left is not None:
                left -= 1
                if not left:
                    return

    async def run() -> None:
        failure: RtcoreError | OSError | None = None
        async with remote.client() as client, anyio.create_task_group() as tasks:
            try:
                await listen(client, None if save is None else FileSaver(client, save, tasks))
            except (RtcoreError, OSError) as error:
                # Not through the task group, which would wrap it.
                failure = error
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    run_on(run)


@cli.command()
@click.argument("channel")
@click.option("--limit", type=click.IntRange(1, MAX_HISTORY_LIMIT), default=100, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@remote_options
def history(channel: str, limit: int, as_json: bool, remote: Remote) -> None:
    """Print what was said last in CHANNEL, as far as the server holds it."""

    async def run() -> None:
        page = await remote.publisher().get(f"/channels/{quote(channel, safe='')}/history?limit={limit}")
        publications = page.get("publications")
        for message in publications if isinstance(publications, list) else ():
            if as_json:
                print_json(message)
            else:
                click.echo(_as_line(message))

    run_on(run)


@cli.command()
@remote_options
def stats(remote: Remote) -> None:
    """Print the server's counts as JSON."""

    async def run() -> None:
        print_json(await remote.publisher().get("/stats"))

    run_on(run)


@cli.command()
@click.option("--token-id", help="The id of one token, its 'jti'.")
@click.option("--user", help="All tokens of a user, or with --token-id that one of the user's.")
@click.option("--issued-before", type=float, help="Only those issued before, in seconds since 1970.")
@click.option("--expires", type=float, metavar="SECONDS", help="How long to remember it. [default: 366 days]")
@remote_options
def revoke(
    token_id: str | None, user: str | None, issued_before: float | None, expires: float | None, remote: Remote
) -> None:
    """Refuse tokens from now on, and close the connections that came with them; prints how many.

    Of --user alone the tokens issued until now are refused: later ones are good.
    """
    named = {"token_id": token_id, "user_id": user, "issued_before": issued_before, "expires_in": expires}
    body = {name: value for name, value in named.items() if value is not None}

    async def run() -> None:
        print_json(await remote.publisher().post("/tokens/revoke", body))

    run_on(run)


@cli.command()
@click.option("--user", required=True, help="Whose it is.")
@click.option("--channels", multiple=True, metavar="PATTERN", help="What to subscribe to; may be given again.")
@click.option("--publish", multiple=True, metavar="PATTERN", help="Where to publish. [default: as --channels]")
@click.option("--history", multiple=True, metavar="PATTERN", help="Whose history to read. [default: as --channels]")
@click.option("--presence", multiple=True, metavar="PATTERN", help="Whose members to see. [default: as --channels]")
@click.option("--upload", multiple=True, metavar="PATTERN", help="Where to upload files. [default: as --publish]")
@click.option("--rooms", multiple=True, metavar="PATTERN", help="Which rooms to join.")
@click.option("--role", "roles", multiple=True, metavar="NAME", help="A role of the server's; may be given again.")
@click.option("--expires", type=float, metavar="SECONDS", help="For how long. [default: WS_JWT_EXPIRE_MINUTES]")
@click.option(
    "--config", type=click.Path(path_type=Path), help="A TOML file of settings. [default: rtcore.toml, if there is one]"
)
def token(user: str, expires: float | None, config: Path | None, **patterns: tuple[str, ...]) -> None:
    """Print a new token, signed with the key that the settings name: WS_JWT_SECRET_KEY or WS_JWT_PRIVATE_KEY."""
    claims = {name: list(values) for name, values in patterns.items() if values}
    click.echo(WSAuthenticator(load_settings(config=config)).create_access_token({"sub": user, **claims}, expires))


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
    if is_file(message):
        return f"{where}{who}{describe_file(message)}"
    for part in (message, message.get("data")):
        for field in ("text", "message", "data", "content"):
            if isinstance(part, dict) and isinstance(part.get(field), str):
                return f"{where}{who}{part[field]}"
    rest = {name: value for name, value in message.items() if name not in ("meta", "channel", "id")}
    return f"{where}{who}{encode(rest).text}"
