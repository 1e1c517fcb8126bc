"""Tokens and keys of the servers that want some."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx2
from playwright.sync_api import Page

from rtcore_adapters import WSAuthenticator
from rtcore_adapters.settings import load_settings

from .server import Server

__all__ = ["OPERATOR_KEY", "REQUIRED", "message_numbers", "post", "token", "token_function"]

OPERATOR_KEY: Final = "the-key-of-the-operator-of-this-server"

#: Settings of a server that wants to know everybody, and that pages of no other origin may use.
REQUIRED: Final = {
    "WEBSOCKET_AUTH_REQUIRED": "true",
    "SSE_AUTH_REQUIRED": "true",
    "WS_JWT_SECRET_KEY": "a-secret-of-forty-characters-or-of-more",
    "WS_API_KEYS": json.dumps([{"key": OPERATOR_KEY, "name": "operator", "scopes": ["*"]}]),
    "REALTIME_ALLOWED_ORIGINS": "https://app.example",
}

with tempfile.TemporaryDirectory() as _folder:
    _AUTHENTICATOR = WSAuthenticator(load_settings(env=REQUIRED, cwd=Path(_folder)))


def token(user_id: str, expires_in: float = 600, **claims: object) -> str:
    """Return a token of a user, with more claims."""
    return _AUTHENTICATOR.create_access_token({"sub": user_id, **claims}, expires_in)


def token_function(tokens: Sequence[str]) -> str:
    """Return a script by which a page has its tokens from a function: these, and the last one again and again."""
    return f"""{{
      const tokens = {json.dumps(list(tokens))};
      window.tokensTaken = 0;
      window.rtcoreToken = async () => tokens[Math.min(window.tokensTaken++, tokens.length - 1)];
    }}"""


def post(server: Server, path: str, **body: object) -> object:
    """Ask something of a server as its operator."""
    headers = {"X-API-Key": OPERATOR_KEY}
    response = httpx2.post(f"{server.url}/{path}", json=body, headers=headers, trust_env=False)
    return response.raise_for_status().json()


def message_numbers(page: Page) -> list[int]:
    """The numbers in the messages that either page shows, in its order."""
    shown = page.locator("#messages .message .body, #events .event[data-event=message] .preview").all_inner_texts()
    return [int(json.loads(text)["message"] if text.startswith("{") else text) for text in shown]
