"""The `websockets` library that lets in who has a JSON Web Token, of HS256, by joserfc.

The argument is a file that holds the secret.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from .websockets_broadcast import main

_key = OctKey.import_key(Path(sys.argv[1]).read_text())
_claims = jwt.JWTClaimsRegistry(sub={"essential": True}, exp={"essential": True})


def _check(connection: ServerConnection, request: Request) -> Response | None:
    try:
        token = jwt.decode(request.headers.get("Authorization", "").removeprefix("Bearer "), _key, ["HS256"])
        _claims.validate(token.claims)
    except (JoseError, ValueError):
        return connection.respond(HTTPStatus.UNAUTHORIZED, "no token, or one that is no good\n")
    return None


if __name__ == "__main__":
    asyncio.run(main(_check))
