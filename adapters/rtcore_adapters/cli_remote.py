"""The server that a command of ``rtcore`` talks to: where it is, who asks, and how both are sure of each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Final

import attrs
import click

from rtcore_transports import HttpPublisher, WSClient, credentials

__all__ = ["Remote", "remote_options"]

_DEFAULT_URL: Final = "http://127.0.0.1:8000/realtime"

_OPTIONS: Final = (
    click.option(
        "--url",
        envvar="RTCORE_URL",
        default=_DEFAULT_URL,
        show_default=True,
        help="Where the realtime system is. [env: RTCORE_URL]",
    ),
    click.option("--token", envvar="RTCORE_TOKEN", help="A token. [env: RTCORE_TOKEN]"),
    click.option("--api-key", envvar="RTCORE_API_KEY", help="An API key. [env: RTCORE_API_KEY]"),
    click.option(
        "--ca-file",
        envvar="RTCORE_CA_FILE",
        metavar="FILE",
        help="Trust these authorities, in PEM, instead of the system's. [env: RTCORE_CA_FILE]",
    ),
    click.option(
        "--client-cert",
        envvar="RTCORE_CLIENT_CERT",
        metavar="FILE",
        help="A certificate to show the server, in PEM. [env: RTCORE_CLIENT_CERT]",
    ),
    click.option(
        "--client-key",
        envvar="RTCORE_CLIENT_KEY",
        metavar="FILE",
        help="Its private key, if that is in another file. [env: RTCORE_CLIENT_KEY]",
    ),
)


@attrs.frozen
class Remote:
    """A server, and what to show it.

    Attributes:
        url: Where the realtime system is, or its WebSocket.
        token: A token, or ``None``.
        api_key: An API key, or ``None``.
        ca_file: The authorities to trust, or ``None`` for those of the system.
        client_cert: A certificate to show, or ``None``.
        client_key: Its key, or ``None`` where that is in the same file.
    """

    url: str
    token: str | None = attrs.field(repr=False)
    api_key: str | None = attrs.field(repr=False)
    ca_file: str | None
    client_cert: str | None
    client_key: str | None

    def publisher(self) -> HttpPublisher:
        """Return what talks to its HTTP API.

        Raises:
            LocalProtocolError: The token or the API key is malformed, or a certificate cannot be read.
            click.UsageError: There is a key without a certificate.
        """
        return HttpPublisher(
            f"{self._base}/ws",
            headers=credentials(self.token, self.api_key),
            ca_file=self.ca_file,
            client_certificate=self._certificate,
        )

    def client(self) -> WSClient:
        """Return a client of its WebSocket; raises as `publisher` does."""
        return WSClient(
            f"{self._base.replace('http', 'ws', 1)}/ws",
            token=self.token,
            api_key=self.api_key,
            ca_file=self.ca_file,
            client_certificate=self._certificate,
        )

    @property
    def _base(self) -> str:
        """The URL of the prefix; that of its WebSocket will do as well."""
        url = self.url.rstrip("/").removesuffix("/ws")
        scheme, _, rest = url.partition("://")
        scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
        return f"{scheme}://{rest}"

    @property
    def _certificate(self) -> tuple[str, str | None] | None:
        if self.client_cert is not None:
            return self.client_cert, self.client_key
        if self.client_key is not None:
            raise click.UsageError("--client-key goes with --client-cert")
        return None


def remote_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command that talks to a server, which gets them as ``remote``."""

    @wraps(command)
    def run(
        *args: object,
        url: str,
        token: str | None,
        api_key: str | None,
        ca_file: str | None,
        client_cert: str | None,
        client_key: str | None,
        **options: object,
    ) -> None:
        command(*args, remote=Remote(url, token, api_key, ca_file, client_cert, client_key), **options)

    for option in reversed(_OPTIONS):
        option(run)
    return run
