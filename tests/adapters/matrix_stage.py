"""Servers for the matrix of permissions, what goes on there, and credentials of all kinds."""

from __future__ import annotations

import hmac
import itertools
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import time
from typing import Any, Final

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rtcore.permissions import Action
from rtcore_adapters import Settings
from rtcore_adapters.settings import (
    ApiKeySettings,
    BinarySettings,
    RealtimeSettings,
    RoleSettings,
    SseSettings,
    WebSocketSettings,
    WsSettings,
)

from .clients import Client
from .hosting import Host, HostKind, run_host
from .permission_matrix import ROWS, Column, Row

__all__ = ["ADMIN_KEY", "SECRET", "SERIAL", "Stage", "claims_of", "make_token", "staged"]

SECRET: Final = "a-secret-that-the-server-knows-and-whoever-issues-tokens"
OTHER_SECRET: Final = "a-secret-of-somebody-else-that-is-just-as-long-as-the-one"
ADMIN_KEY: Final = "the-key-of-an-operator"

# What a token names for each right, in the claim for it. The patterns allow what the matrix asks for and no more.
CLAIMS: Final[Mapping[Action, tuple[str, list[str]]]] = {
    Action.SUBSCRIBE: ("channels", ["news"]),
    Action.PUBLISH: ("publish", ["news", "$user:bob", "$broadcast", "$connection:*"]),
    Action.HISTORY: ("history", ["news"]),
    Action.PRESENCE: ("presence", ["news"]),
    Action.UPLOAD: ("upload", ["news"]),
    Action.SIGNAL: ("rooms", ["room", "made:*"]),
    Action.ADMINISTER: ("roles", ["operator"]),
}

# Of which a row needs both.
_PAIRS: Final = tuple((row.right, row.beside) for row in ROWS if row.beside is not None)

#: Numbers for names that nothing else has.
SERIAL: Final = itertools.count()


def make_token(claims: Mapping[str, object], *, algorithm: str = "HS256", key: Any = None) -> str:
    """Sign a token by hand: no library is in the way of what none would make."""

    def encoded(data: bytes) -> str:
        return urlsafe_b64encode(data).rstrip(b"=").decode()

    key = SECRET.encode() if key is None else key
    head = json.dumps({"alg": algorithm, "typ": "JWT"}).encode()
    whole = f"{encoded(head)}.{encoded(json.dumps(claims).encode())}"
    match algorithm:
        case "none":
            signature = b""
        case "EdDSA":
            signature = key.sign(whole.encode())
        case _:
            signature = hmac.digest(key, whole.encode(), "sha256")
    return f"{whole}.{encoded(signature)}"


def claims_of(*rights: Action, user: str = "ann", **more: object) -> dict[str, object]:
    """Return the claims of a token with these rights and no others."""
    claims = {name: patterns if right in rights else [] for right, (name, patterns) in CLAIMS.items()}
    now = int(time())
    return {"sub": user, "iat": now, "exp": now + 600, "jti": f"token-{next(SERIAL)}", **claims, **more}


def rights_without(right: Action | None, *, operators_too: bool) -> tuple[Action, ...]:
    """Return all rights but one, and but those of operators where they need no other."""
    return tuple(each for each in Action if each is not right and not (operators_too and each is Action.ADMINISTER))


def scopes_of(*rights: Action) -> tuple[str, ...]:
    """Return the scopes of an API key with these rights and no others."""
    scopes: list[str] = []
    for right in rights:
        patterns = CLAIMS[right][1]
        scopes += ["admin"] if right is Action.ADMINISTER else [f"{right.value}:{pattern}" for pattern in patterns]
    return tuple(scopes)


def rights_of(right: Action | None, beside: Action | None = None) -> tuple[Action, ...]:
    """Return a right, and the one that everybody has beside it."""
    return tuple(each for each in (right, beside) if each is not None)


def _key(
    right: Action | None, *, beside: Action | None = None, without: bool = False, operators_too: bool = False
) -> str:
    """Return the API key that has a right alone, or is without it."""
    kind = "without" if without else "with"
    name = "-and-".join(each.value for each in rights_of(right, beside)) or "anything"
    return f"key-{kind}-{name}{'-or-admin' if operators_too else ''}"


def settings_of(public_key: Path, *, required: bool) -> Settings:
    """Return the settings of a server that knows all these credentials."""
    rights: dict[str, tuple[Action, ...]] = {}
    for right in (None, *Action):
        rights[_key(right)] = rights_of(right)
        rights[_key(right, without=True)] = rights_without(right, operators_too=False)
        rights[_key(right, without=True, operators_too=True)] = rights_without(right, operators_too=True)
    rights |= {_key(right, beside=beside): rights_of(right, beside) for right, beside in _PAIRS}
    keys = [ApiKeySettings(key=name, name=name, scopes=scopes_of(*having)) for name, having in rights.items()]
    return Settings(
        realtime=RealtimeSettings(presence_grace=0.0),
        websocket=WebSocketSettings(auth_required=required),
        sse=SseSettings(auth_required=required),
        binary=BinarySettings(store_url=(public_key.parent / f"files-{required}").as_uri()),
        ws=WsSettings(
            jwt_secret_key=SECRET,
            jwt_public_key=str(public_key),
            jwt_algorithm=("HS256", "EdDSA"),
            api_keys=(ApiKeySettings(key=ADMIN_KEY, name="operator"), *keys),
            roles=(RoleSettings(name="operator", admin=True),),
        ),
    )


@attrs.frozen
class Stage:
    """A server on which something is going on.

    Attributes:
        host: The server.
        pem: Its public key.
        revoked: A token that may do everything, had it not been revoked.
        file_id: A file that an operator has sent to the channel ``news``.
        connection_id: A connection of bob's in the channel ``news``, and the peer ``bob`` in the room ``room``. Another
            is ann's.
    """

    host: Host
    pem: bytes
    revoked: str
    file_id: str = ""
    connection_id: str = ""

    def headers(self, row: Row, column: Column) -> dict[str, str]:
        """Return the headers with which somebody comes."""
        everything = claims_of(*Action)
        with_right = rights_of(row.right, row.beside)
        match column:
            case Column.NOTHING | Column.ANONYMOUS:
                return {}
            case Column.KEY_GARBAGE:
                return {"X-API-Key": "key-with-nothing"}
            case Column.KEY_WITH:
                return {"X-API-Key": _key(row.right, beside=row.beside)}
            case Column.KEY_WITHOUT:
                return {"X-API-Key": _key(row.right, without=True, operators_too=row.operators_too)}
            case Column.GARBAGE:
                token = "not.a.token"
            case Column.EXPIRED:
                token = make_token({**everything, "iat": int(time()) - 60, "exp": int(time()) - 1})
            case Column.WRONG_KEY:
                token = make_token(everything, key=OTHER_SECRET.encode())
            case Column.UNSIGNED:
                token = make_token(everything, algorithm="none")
            case Column.CONFUSED:
                token = make_token(everything, key=self.pem)
            case Column.REVOKED:
                token = self.revoked
            case Column.TOKEN_WITH:
                token = make_token(claims_of(*with_right))
            case Column.TOKEN_WITHOUT:
                token = make_token(claims_of(*rights_without(row.right, operators_too=row.operators_too)))
        return {"Authorization": f"Bearer {token}"}

    @contextmanager
    def connection(self, user: str, query: str = "", path: str = "/ws") -> Iterator[Client]:
        """Open a WebSocket of a user who may do everything."""
        token = make_token(claims_of(*Action, user=user))
        with self.host.client(query, path, additional_headers={"Authorization": f"Bearer {token}"}) as client:
            yield client

    def post(self, path: str, body: object) -> None:
        """Do something that must be done, as an operator."""
        response = self.host.http.post(path, json=body, headers={"X-API-Key": ADMIN_KEY})
        assert response.status_code in (200, 201), response.text

    def look(self) -> object:
        """Return what nobody may change who may not."""
        driver = self.host.realtime.driver

        def state() -> object:
            node = driver.node
            counts = driver.stats()
            told = [counts[name] for name in ("published_messages", "files", "uploads_total")]
            return told, driver.signaling.describe(), len(node.revocations)

        return self.host.portal.call(state)


@contextmanager
def staged(kind: HostKind, folder: Path, *, required: bool) -> Iterator[Stage]:
    """Run a server on which something is going on."""
    key = Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(pem)
    revoked = make_token(claims_of(*Action, jti="revoked"))
    with ExitStack() as stack:
        host = stack.enter_context(run_host(kind, settings_of(folder / "public.pem", required=required)))
        stage = Stage(host, pem, revoked)
        for user in ("ann", "bob"):
            query = f"channel=news&room_id=room&peer_id={user}"
            client = stack.enter_context(stage.connection(user, query, "/webrtc/signaling"))
            stage = attrs.evolve(stage, connection_id=client.connection_id)
        stage.post("/send", {"channel": "news", "data": "something was said"})
        stage.post("/tokens/revoke", {"token_id": "revoked"})
        sent = host.http.post("/binary/send?channel=news", content=b"1", headers={"X-API-Key": ADMIN_KEY})
        yield attrs.evolve(stage, file_id=sent.json()["file_id"])
