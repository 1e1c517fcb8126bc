"""A chat for those who have logged in: an application that issues short tokens, and a client that renews its own.

Serve the application beside the realtime system::

    export WS_JWT_SECRET_KEY="$(python3 -c 'import secrets; print(secrets.token_urlsafe(48))')"
    WEBSOCKET_AUTH_REQUIRED=true SSE_AUTH_REQUIRED=true rtcore serve --app examples.authenticated_chat:app

and talk, as ann or bob::

    python -m examples.authenticated_chat ann wonderland
"""

from __future__ import annotations

import argparse
import sys
from hmac import compare_digest

import anyio
import anyio.to_thread
import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rtcore_adapters import WSAuthenticator
from rtcore_transports import WSClient

PASSWORDS = {"ann": "wonderland", "bob": "builder"}


async def log_in(request: Request) -> Response:
    """Answer who has the right password with a token; it is good for WS_JWT_EXPIRE_MINUTES."""
    said = await request.json()
    name, password = str(said["name"]), str(said["password"])
    if name not in PASSWORDS or not compare_digest(password.encode(), PASSWORDS[name].encode()):
        return Response("wrong name or password", 403)
    print(f"a token for {name}", flush=True)
    claims = {"sub": name, "channels": ["lobby"], "info": {"name": name.title()}}
    return JSONResponse({"token": WSAuthenticator().create_access_token(claims)})


app = Starlette(routes=[Route("/login", log_in, methods=["POST"])])


async def chat(base: str, name: str, password: str) -> None:
    """Chat until the end of standard input."""

    async def fresh_token() -> str:
        async with httpx2.AsyncClient() as http:
            answer = await http.post(f"{base}/login", json={"name": name, "password": password})
            token: str = answer.raise_for_status().json()["token"]
            return token

    async with WSClient(f"{base.replace('http', 'ws', 1)}/realtime/ws", token=fresh_token) as client:

        @client.on_message("chat")
        async def said(message: dict[str, dict[str, dict[str, dict[str, str]]]]) -> None:
            print(f"{message['meta']['sender']['info']['name']}: {message['text']}", flush=True)

        await client.subscribe_to_channel("lobby")
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await client.send_json({"type": "chat", "channel": "lobby", "text": line.strip()}, ack=True)


def main() -> None:
    """Read the command line, and chat."""
    parser = argparse.ArgumentParser(description="Chat with those who have logged in.")
    parser.add_argument("name")
    parser.add_argument("password")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the application is")
    parser.add_argument("--trio", action="store_true", help="run on trio instead of asyncio")
    options = parser.parse_args()
    backend = "trio" if options.trio else "asyncio"
    anyio.run(chat, options.url, options.name, options.password, backend=backend)


if __name__ == "__main__":
    main()
