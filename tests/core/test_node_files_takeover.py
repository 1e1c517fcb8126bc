"""The node: a file belongs to the newest of its sender's connections, in whatever order they ask."""

from __future__ import annotations

from rtcore.messages import Message
from rtcore.node import NodeConfig
from rtcore.uploads import FileConfig

from .node_talk import Served, error, ok

BEGIN: Message = {"upload_id": "u", "channel": "chat", "size": 3}
BEGUN: Message = {"upload_id": "u", "offset": 0, "window": 8, "chunk_size": 4}


def served() -> Served:
    served = Served(NodeConfig(files=FileConfig(chunk_size=4, window=8), websocket_heartbeat=None))
    for connection_id in ("old", "new"):
        served.connect(connection_id, "ann")
    return served


def test_a_newer_connection_takes_it() -> None:
    node = served()
    node.command("old", "begin_upload", **BEGIN)
    assert node.command("new", "begin_upload", **BEGIN) == [ok("new", {**BEGUN, "resumed": True})]


def test_what_an_older_connection_has_asked_comes_too_late() -> None:
    node = served()
    node.command("new", "begin_upload", **BEGIN)
    text = "a later begin_upload has taken its place"
    assert node.command("old", "begin_upload", **BEGIN) == [error("old", "upload_superseded", text)]
    # Once that is gone, nobody is newer.
    node.disconnect("new")
    assert node.command("old", "begin_upload", **BEGIN) == [ok("old", {**BEGUN, "resumed": True})]
