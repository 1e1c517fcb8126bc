"""Who may do what over HTTP and WebSocket, as data: the test asks for each cell, and the document shows them.

``python -m tests.adapters.permission_matrix`` prints it as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

import attrs

from rtcore.permissions import Action

__all__ = ["FAULTS", "ROWS", "Column", "Row", "expected", "markdown"]


class Column(Enum):
    """With what somebody comes.

    `NOTHING` to a server that requires a credential, `ANONYMOUS` to one that knows credentials and requires none. Those
    ``WITH`` a right have it and no other; those ``WITHOUT`` it have all the others.
    """

    NOTHING = "nothing"
    GARBAGE = "a token that is none"
    EXPIRED = "a token that has ended"
    WRONG_KEY = "a token signed with another key"
    UNSIGNED = "a token with the algorithm `none`"
    CONFUSED = "a token signed with the public key as a secret"
    REVOKED = "a token that was revoked"
    KEY_GARBAGE = "an API key that is none"
    TOKEN_WITHOUT = "a token without the right"
    TOKEN_WITH = "a token with the right alone"
    KEY_WITHOUT = "an API key without the right"
    KEY_WITH = "an API key with the right alone"
    ANONYMOUS = "nothing, where none is required"


#: Who is turned away at the door, and with which code: 401 over HTTP, 4401 over WebSocket.
FAULTS: Final[Mapping[Column, str]] = {
    Column.NOTHING: "unauthorized",
    Column.GARBAGE: "invalid_token",
    Column.EXPIRED: "token_expired",
    Column.WRONG_KEY: "invalid_token",
    Column.UNSIGNED: "invalid_token",
    Column.CONFUSED: "invalid_token",
    Column.REVOKED: "token_revoked",
    Column.KEY_GARBAGE: "invalid_api_key",
}


@attrs.frozen(kw_only=True)
class Row:
    """What somebody asks for.

    Attributes:
        kind: The HTTP method, ``WS`` for the opening of a WebSocket, ``command``, or ``message``.
        name: The path, the command, or what kind of message it is.
        variant: What tells several of one name apart.
        right: What it needs; ``None`` for nothing in particular.
        beside: Another right that it needs, which everybody here has.
        yes: What is answered to who has the right. Over HTTP that is a status, with the code of an error, if it is one,
            or with what is noteworthy; over WebSocket ``ok`` or such a code.
        no: What is answered to who has not.
        anonymous: What is answered to somebody anonymous.
        key: What is answered to a program with the right, if that is something else.
        key_without: Likewise without it.
        nothing: What is answered to whoever has yet to say who they are, if that is not that they must.
        operators_too: Whether operators need no right for it. Then those without the right are not operators either.
        public: Whether it is answered so to everybody, whatever they come with.
    """

    kind: str
    name: str
    variant: str = ""
    right: Action | None = None
    beside: Action | None = None
    yes: str
    no: str
    anonymous: str
    key: str | None = None
    key_without: str | None = None
    nothing: str | None = None
    operators_too: bool = False
    public: bool = False

    @property
    def over_http(self) -> bool:
        """Whether it is asked over HTTP."""
        return self.kind not in ("WS", "command", "message")

    @property
    def title(self) -> str:
        """What it is, in one line."""
        text = f"`{self.kind} {self.name}`" if self.over_http or self.kind == "WS" else f"{self.kind} `{self.name}`"
        return f"{text} {self.variant}".strip()


def expected(row: Row, column: Column) -> str:
    """Return what is answered."""
    if row.public:
        return row.yes
    if column is Column.NOTHING and row.nothing is not None:
        return row.nothing
    if column in FAULTS:
        return f"{401 if row.over_http else 4401} {FAULTS[column]}"
    key_without = row.no if row.key_without is None else row.key_without
    return {
        Column.TOKEN_WITHOUT: row.no,
        Column.TOKEN_WITH: row.yes,
        Column.KEY_WITHOUT: key_without,
        Column.KEY_WITH: row.yes if row.key is None else row.key,
        Column.ANONYMOUS: row.anonymous,
    }[column]


def _http(
    method: str, path: str, variant: str = "", *, right: Action, yes: str = "200", anonymous: str | None = None
) -> Row:
    """Return a row that is refused with the code of its right."""
    no = "403 admin_required" if right is Action.ADMINISTER else f"403 {right.value}_denied"
    return Row(kind=method, name=path, variant=variant, right=right, yes=yes, no=no, anonymous=anonymous or yes)


def _sending(kind: str, name: str, right: Action, beside: Action) -> Row:
    """Return a row of a file, which whoever sends it publishes."""
    over_http = kind == "POST"
    yes, no = ("200" if over_http else "ok"), f"{'403 ' if over_http else ''}{right.value}_denied"
    return Row(
        kind=kind,
        name=name,
        variant=f"by who may {beside.value}",
        right=right,
        beside=beside,
        yes=yes,
        no=no,
        anonymous=yes,
    )


def _operator(method: str, path: str) -> Row:
    return _http(method, path, right=Action.ADMINISTER, anonymous="401 unauthorized")


def _listing(path: str, right: Action, *, operators_too: bool = False) -> Row:
    """Return a row that leaves out what one may not know of."""
    no = "200, nothing of it"
    return Row(kind="GET", name=path, right=right, yes="200", no=no, anonymous="200", operators_too=operators_too)


def _joining(kind: str, path: str, right: Action, yes: str) -> Row:
    """Return a row of a connection, which is opened, and joins what it may."""
    return Row(kind=kind, name=path, right=right, yes=yes, no=f"{yes}, not joined", anonymous=yes)


def _public(path: str, answer: str = "200") -> Row:
    return Row(kind="GET", name=path, yes=answer, no=answer, anonymous=answer, public=True)


def _command(name: str, right: Action, *, anonymous: str = "ok") -> Row:
    no = "admin_required" if right is Action.ADMINISTER else f"{right.value}_denied"
    return Row(kind="command", name=name, right=right, yes="ok", no=no, anonymous=anonymous)


def _always(kind: str, name: str) -> Row:
    return Row(kind=kind, name=name, yes="ok", no="ok", anonymous="ok")


#: Of each endpoint, command and kind of message at least one.
ROWS: Final = (
    # Publishing
    _http("POST", "/send", "to a channel", right=Action.PUBLISH),
    _http("POST", "/send", "to a user", right=Action.PUBLISH),
    _http("POST", "/send", "to a connection", right=Action.PUBLISH, anonymous="401 unauthorized"),
    _http("POST", "/broadcast", right=Action.PUBLISH, anonymous="401 unauthorized"),
    _http("POST", "/notifications/send", right=Action.PUBLISH),
    _http("POST", "/notifications/channel", right=Action.PUBLISH),
    _http("POST", "/notifications/broadcast", right=Action.PUBLISH, anonymous="401 unauthorized"),
    # Sending files
    *(
        _sending(kind, name, *rights)
        for kind, name in (
            ("POST", "/binary/upload"),
            ("POST", "/binary/send"),
            ("POST", "/binary/text"),
            ("command", "begin_upload"),
            ("message", "binary"),
        )
        for rights in ((Action.UPLOAD, Action.PUBLISH), (Action.PUBLISH, Action.UPLOAD))
    ),
    _always("command", "cancel_upload"),
    # Looking
    Row(
        kind="GET",
        name="/binary/{file_id}",
        right=Action.SUBSCRIBE,
        yes="200",
        no="404 not_found",
        anonymous="200",
        operators_too=True,
    ),
    _listing("/channels", Action.SUBSCRIBE, operators_too=True),
    _http("GET", "/channels/{channel:path}/history", right=Action.HISTORY),
    _http("GET", "/channels/{channel:path}/presence", right=Action.PRESENCE),
    # Operating
    _operator("GET", "/connections"),
    _operator("DELETE", "/connections/{connection_id}"),
    _operator("POST", "/tokens/revoke"),
    _operator("GET", "/stats"),
    _operator("GET", "/metrics"),
    # For everybody
    _public("/health"),
    _public("/test"),
    _public("/sse-test"),
    _public("/assets/{name}"),
    _public("/ws", "426 upgrade_required"),
    _public("/webrtc/signaling", "426 upgrade_required"),
    _public("/webrtc/health"),
    # Rooms
    _listing("/webrtc/rooms", Action.SIGNAL),
    _http("POST", "/webrtc/rooms", right=Action.SIGNAL, yes="201"),
    _http("GET", "/webrtc/rooms/{room_id:path}", right=Action.SIGNAL),
    _operator("PUT", "/webrtc/rooms/{room_id:path}"),
    _operator("DELETE", "/webrtc/rooms/{room_id:path}"),
    _operator("DELETE", "/webrtc/rooms/{room_id:path}/peers/{peer_id:path}"),
    _operator("GET", "/webrtc/connections"),
    # As a peer of one's own; an operator may for any, and so may a program that may use the room.
    Row(
        kind="POST",
        name="/webrtc/signal",
        variant="as a peer of one's own",
        right=Action.SIGNAL,
        yes="200",
        no="403 signal_denied",
        anonymous="401 unauthorized",
        operators_too=True,
    ),
    Row(
        kind="POST",
        name="/webrtc/signal",
        variant="as somebody else's peer",
        right=Action.SIGNAL,
        yes="403 signal_denied",
        no="403 signal_denied",
        key="200",
        anonymous="401 unauthorized",
        operators_too=True,
    ),
    Row(kind="GET", name="/webrtc/ice-servers", yes="200", no="200", anonymous="200"),
    # Connections
    _joining("GET", "/events", Action.SUBSCRIBE, "200"),
    _joining("WS", "/ws", Action.SUBSCRIBE, "ok"),
    _joining("WS", "/webrtc/signaling", Action.SIGNAL, "ok"),
    # Commands
    _always("command", "ping"),
    _command("join_channel", Action.SUBSCRIBE),
    _always("command", "leave_channel"),
    _command("history", Action.HISTORY),
    _command("presence", Action.PRESENCE),
    _command("get_connection_stats", Action.ADMINISTER, anonymous="admin_required"),
    _command("get_active_users", Action.ADMINISTER, anonymous="admin_required"),
    _command("create_room", Action.SIGNAL),
    _command("join_room", Action.SIGNAL),
    _always("command", "leave_room"),
    Row(kind="command", name="get_rooms", right=Action.SIGNAL, yes="ok", no="ok, nothing of it", anonymous="ok"),
    # By a token of the user whose connection it is. It also says who comes, like `authenticate`.
    Row(
        kind="command",
        name="refresh_token",
        yes="ok",
        no="ok",
        key="user_mismatch",
        key_without="user_mismatch",
        nothing="ok",
        anonymous="user_mismatch",
    ),
    # Messages
    Row(kind="message", name="channel", right=Action.PUBLISH, yes="ok", no="publish_denied", anonymous="ok"),
    Row(kind="message", name="recipient_id", right=Action.PUBLISH, yes="ok", no="publish_denied", anonymous="ok"),
    Row(kind="message", name="webrtc_signal", right=Action.SIGNAL, yes="ok", no="not_in_room", anonymous="ok"),
    _always("message", "text"),
)

_SHOWN: Final = (
    Column.NOTHING,
    Column.TOKEN_WITHOUT,
    Column.TOKEN_WITH,
    Column.KEY_WITHOUT,
    Column.KEY_WITH,
    Column.ANONYMOUS,
)


def markdown() -> str:
    """Return the matrix as two tables: who is turned away at the door, and what the others may."""
    door = _table(
        ("Whoever comes with", "HTTP", "WebSocket"),
        ([_capital(column.value), f"401 `{code}`", f"4401 `{code}`"] for column, code in FAULTS.items()),
    )
    rights = _table(
        ("Asked for", "Right", *(_capital(column.value) for column in _SHOWN)),
        (
            [row.title, "" if row.right is None else row.right.value, *(_cell(expected(row, each)) for each in _SHOWN)]
            for row in ROWS
        ),
    )
    return f"{door}\n\n{rights}"


def _cell(answer: str) -> str:
    """Return an answer with its code set as one."""
    words = answer.split(" ")
    return " ".join(f"`{word}`" if "_" in word or word == "unauthorized" else word for word in words)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown())
