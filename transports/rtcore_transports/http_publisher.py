"""The HTTP side of the clients: what they publish by POST to the API beside their stream."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import anyio
import attrs
import httpx2
import msgspec

from rtcore import CommandError, ConnectionFailed, LocalProtocolError, NotificationMessage
from rtcore.handshake import Headers
from rtcore.messages import NotificationType

from .client_request import as_message, credentials, reason_of, refusal_in, shown_url, user_id_of
from .client_tls import ClientCertificate, tls_context
from .client_tokens import Token, TokenSource, bearer

__all__ = ["HttpPublisher", "new_http_client", "origin_of", "unwind"]

# Seconds for each step of a request: to get a token, to connect, to write, to read.
_TIMEOUT: Final = 10.0


def new_http_client(
    url: str, headers: Headers, ssl_context: ssl.SSLContext | None, *, timeout: float | None
) -> httpx2.AsyncClient:
    """Return an HTTP client for `url`, which the caller closes.

    It heeds no proxies of the environment, as WebSockets do not, and follows no redirects, which could carry an API key
    elsewhere.
    """
    # For plain HTTP no certificates are wanted, and loading them takes longer than a request.
    verify = ssl_context or url.startswith("https:")
    return httpx2.AsyncClient(headers=list(headers), verify=verify, timeout=timeout, trust_env=False)


def origin_of(url: httpx2.URL) -> tuple[str, str, int | None]:
    """Return the origin of a URL (RFC 6454): credentials for one are not meant for another."""
    return url.scheme, url.host, url.port


async def unwind(content: AsyncIterator[bytes]) -> None:
    """End an iteration that was left early.

    httpx2 reads by generators inside generators, and only what is raised in the innermost ends them all; trio wants
    them to be ended, and warns where the garbage collector has to do it.
    """
    with anyio.CancelScope() as scope, suppress(httpx2.HTTPError, httpx2.StreamError):
        scope.cancel()
        async for _ in content:
            pass


class HttpPublisher:
    """Publishes over HTTP.

    Args:
        url: Of the stream, ``…/ws`` or ``…/events``; the API is beside it.
        headers: For every request.
        token: Sent in the header ``Authorization``: a text, or an async function that returns one. Its token serves
            until the server refuses it; then a fresh one is asked for, and the request made once more.
        ssl_context: For ``https``; the defaults of httpx2 if left out. Or, in its place:
        ca_file: A PEM file of the authorities to trust, instead of the system's.
        client_certificate: The PEM files of a certificate to show the server and of its key; ``None`` for a key that is
            in the same file.

    Raises:
        LocalProtocolError: The token is malformed, or a certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers = (),
        token: Token | TokenSource | None = None,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        client_certificate: ClientCertificate | None = None,
    ) -> None:
        parts = urlsplit(url)
        scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
        self._base = urlunsplit((scheme, parts.netloc, parts.path.rpartition("/")[0], "", ""))
        fixed, self._tokens = TokenSource.of(token)
        self._headers = credentials(fixed, None) + headers
        self._ssl_context = tls_context(ssl_context, ca_file, client_certificate)
        self._keep = False
        self._client: httpx2.AsyncClient | None = None

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Keep connections for further requests, until the end of the block."""
        self._keep = True
        try:
            yield
        finally:
            self._keep = False
            client, self._client = self._client, None
            if client is not None:
                # It only lets go of sockets, so it does not wait for anybody.
                with anyio.CancelScope(shield=True):
                    await client.aclose()

    async def post(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """Post a JSON object to `path` of the API, and return the one that comes back.

        Raises:
            CommandError: The server refused it.
            ConnectionFailed: There was no answer, and whether it was carried out is not known; or there is no token.
            LocalProtocolError: JSON cannot express the body, or what is to be a token is none. Nothing was sent.
        """
        try:
            content = msgspec.json.encode(body)
        except (TypeError, ValueError, RecursionError) as error:
            raise LocalProtocolError(f"JSON cannot express the message: {error}") from error
        return await self._request("POST", path, content)

    async def get(self, path: str) -> dict[str, object]:
        """Return the JSON object at `path` of the API, such as ``/stats``.

        Raises:
            CommandError: The server refused it.
            ConnectionFailed: There was no answer, or no token.
            LocalProtocolError: What is to be a token is none.
        """
        return await self._request("GET", path, b"")

    def url_of(self, reference: str) -> httpx2.URL:
        """Return where something is on the server, as a message has it: a path, or a whole URL.

        Raises:
            LocalProtocolError: It is no URL, or is of another origin, which is not to get the credentials.
        """
        base = httpx2.URL(self._base + "/")
        try:
            url = base.join(reference)
        except (httpx2.InvalidURL, ValueError):
            raise LocalProtocolError(f"{shown_url(reference)} is not a URL") from None
        if origin_of(url) != origin_of(base) or url.userinfo:
            raise LocalProtocolError(f"{shown_url(str(url))} is on another server than this client's: get it yourself")
        return url

    def new_client(self, *, timeout: float) -> httpx2.AsyncClient:
        """Return an HTTP client for `stream`, which the caller closes.

        Args:
            timeout: Seconds for each step of a request.
        """
        return new_http_client(self._base, self._headers, self._ssl_context, timeout=timeout)

    async def stream(self, client: httpx2.AsyncClient, url: httpx2.URL, headers: Headers) -> httpx2.Response:
        """Ask for what is at `url`; returns the response, whatever its status, which the caller reads and closes.

        Raises:
            ConnectionFailed: There was no answer, or no token.
            LocalProtocolError: What is to be a token is none.
        """

        async def send(token: str | None) -> httpx2.Response:
            all_headers = [*headers, *(() if token is None else bearer(token))]
            try:
                return await client.send(client.build_request("GET", url, headers=all_headers), stream=True)
            except httpx2.HTTPError as error:
                raise ConnectionFailed(f"no answer from {shown_url(str(url))}: {reason_of(error)}") from error

        return await self._with_token(send)

    async def send_to_channel(self, channel: str, message: object) -> dict[str, object]:
        """Publish to a channel."""
        return await self.post("/send", {**as_message(message), "channel": channel})

    async def send_to_user(self, user_id: str | int, message: object) -> dict[str, object]:
        """Publish to every connection of a user."""
        return await self.post("/send", {**as_message(message), "user_id": user_id_of(user_id)})

    async def broadcast(self, message: object) -> dict[str, object]:
        """Publish to everybody."""
        return await self.post("/broadcast", as_message(message))

    async def send_notification(
        self,
        *,
        title: str,
        content: str,
        type: NotificationType,
        channel: str | None,
        user_id: str | int | None,
        auto_hide: bool,
        duration: int | None,
    ) -> dict[str, object]:
        """Publish a notification to a channel, to a user, or without either to everybody."""
        if channel is not None and user_id is not None:
            raise LocalProtocolError("a notification goes to a channel or to a user, not to both")
        try:
            notification = NotificationMessage(title, content, type, auto_hide, duration)
        except (TypeError, ValueError) as error:
            raise LocalProtocolError(f"this is no notification: {error.args[0]}") from error
        body = {name: value for name, value in attrs.asdict(notification).items() if value is not None}
        if channel is not None:
            return await self.post("/notifications/channel", {**body, "channel": channel})
        if user_id is not None:
            return await self.post("/notifications/send", {**body, "user_id": user_id_of(user_id)})
        return await self.post("/notifications/broadcast", body)

    async def _request(self, method: str, path: str, content: bytes) -> dict[str, object]:
        if self._keep:
            if self._client is None:
                self._client = new_http_client(self._base, self._headers, self._ssl_context, timeout=_TIMEOUT)
            return await self._request_with(self._client, method, path, content)
        async with new_http_client(self._base, self._headers, self._ssl_context, timeout=_TIMEOUT) as client:
            return await self._request_with(client, method, path, content)

    async def _request_with(
        self, client: httpx2.AsyncClient, method: str, path: str, content: bytes
    ) -> dict[str, object]:
        url = self._base + path
        response = await self._with_token(lambda token: _answer(client, method, url, content, token))
        if not response.is_success:
            refusal = refusal_in(response.status_code, response.headers, response.content)
            raise CommandError(refusal.code, refusal.message, refusal.retry_after)
        try:
            return msgspec.json.decode(response.content, type=dict[str, object])
        except msgspec.MsgspecError as error:
            raise ConnectionFailed(f"the answer of {url} is not a JSON object") from error

    async def _with_token(self, send: Callable[[str | None], Awaitable[httpx2.Response]]) -> httpx2.Response:
        """Make a request with the last token; once more with a fresh one if the server has refused that."""
        tokens = self._tokens
        token = None if tokens is None else await tokens.last(limit=_TIMEOUT)
        response = await send(token)
        if response.status_code == 401 and tokens is not None and token is not None:
            # What was refused was not carried out.
            tokens.refused(token)
            refused, token = token, await tokens.last(limit=_TIMEOUT)
            if token != refused:
                await response.aclose()
                response = await send(token)
        return response


async def _answer(
    client: httpx2.AsyncClient, method: str, url: str, content: bytes, token: str | None
) -> httpx2.Response:
    headers = [] if token is None else [*bearer(token)]
    if content:
        headers.append((b"content-type", b"application/json"))
    try:
        return await client.request(method, url, content=content, headers=headers)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConnectionFailed(f"no answer from {url}: {reason_of(error)}") from error
