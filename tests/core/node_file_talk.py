"""A node that takes files, and what is said to and by it."""

from __future__ import annotations

from typing import Any

from rtcore.binary import encode_payload
from rtcore.encoded import Encoded, Source
from rtcore.errors import Refusal
from rtcore.messages import Message, publication
from rtcore.node import Files, NodeConfig, NodeEffect
from rtcore.permissions import OPEN, Grant
from rtcore.router import Deliver
from rtcore.uploads import FileConfig, KeptFile

from .node_talk import STAMP, Served, ok, to
from .upload_talk import digest

FILES = FileConfig(max_binary_size=100, max_file_size=1000, chunk_size=4, window=8, resume_timeout=60.0)
CONFIG = NodeConfig(files=FILES, websocket_heartbeat=None)
WHOLE = b"abc"
BEGIN: Message = {"upload_id": "u", "channel": "chat", "size": 3, "content_type": "image/png", "filename": "cat.png"}
HEAD: Message = {
    "type": "binary",
    "channel": "chat",
    "content_type": "image/png",
    "filename": "cat.png",
    "size": 3,
}
KEPT = KeptFile("f-1", "/realtime/binary/f-1", 3, digest(WHOLE), WHOLE)
SAID: Message = {"sha256": digest(WHOLE), "file_id": "f-1", "url": "/realtime/binary/f-1"}
NO = Refusal("not_today", "not today", status=403)


class Filing(Served):
    """A node that takes files."""

    def __init__(self, config: NodeConfig = CONFIG, *handled: str, **kwargs: Any) -> None:
        super().__init__(config, *handled, **kwargs)

    @property
    def files(self) -> Files:
        assert self.node.files is not None
        return self.node.files

    def receive_bytes(self, connection_id: str, head: Message, data: bytes) -> list[NodeEffect]:
        payload = encode_payload(head, data)
        return self.node.receive_bytes(connection_id, payload, now=self.now, timestamp=self.timestamp)

    def begin(self, connection_id: str = "c1", **fields: object) -> list[NodeEffect]:
        return self.command(connection_id, "begin_upload", **{**BEGIN, **fields})

    def chunk(self, data: bytes = WHOLE, *, connection_id: str = "c1", last: bool = True) -> list[NodeEffect]:
        head: Message = {"type": "chunk", "upload_id": "u", "offset": 0}
        return self.receive_bytes(connection_id, {**head, "sha256": digest(data)} if last else head, data)

    def finish(self, file: KeptFile = KEPT, key: str = "upload-1") -> list[NodeEffect]:
        return self.files.finished(key, file, now=self.now, timestamp=self.timestamp)

    def publish_file(self, channel: str = "chat", **kwargs: Any) -> list[NodeEffect]:
        head: Message = {"content_type": "image/png", "filename": "cat.png"}
        return self.files.publish_file(channel, KEPT, head=head, now=self.now, timestamp=self.timestamp, **kwargs)


def filing(*, grant: Grant = OPEN, config: NodeConfig = CONFIG) -> Filing:
    """Return a node with Ann on c1, and somebody anonymous on c2 in the channel."""
    served = Filing(config)
    served.connect("c1", "ann", grant=grant)  # e.1 and e.2 are the epochs of her own channel, and of everybody's
    served.connect("c2", None, "chat")  # e.3
    return served


def sent(served: Filing) -> Filing:
    """Have Ann send a file that is to be kept."""
    served.begin()
    served.chunk()
    return served


def said(
    message: Message,
    offset: int,
    epoch: str,
    seq: int,
    *,
    connection_id: str | None = "c1",
    user_id: str | None = "ann",
    data: bytes | None = WHOLE,
    channel: str = "chat",
) -> Encoded:
    return publication(
        message,
        id=f"e-{seq}",
        source=Source(channel, epoch, offset),
        connection_id=connection_id,
        user_id=user_id,
        timestamp=STAMP,
        data=data,
    )


def began(offset: int = 0, *, connection_id: str = "c1", resumed: bool = False, **fields: object) -> Deliver:
    data: Message = {"upload_id": "u", "offset": offset, "window": 8, "chunk_size": 4, "resumed": resumed, **fields}
    return ok(connection_id, data)


def upload(connection_id: str = "c1", **fields: object) -> Deliver:
    return to(connection_id, {"type": "upload", "upload_id": "u", **fields})


def told(offset: int = 1, epoch: str = "e.3", seq: int = 2) -> Message:
    """Return what the sender of the file is told of it."""
    return {
        "file_id": "f-1",
        "url": "/realtime/binary/f-1",
        "size": 3,
        "sha256": digest(WHOLE),
        "content_type": "image/png",
        "filename": "cat.png",
        "channel": "chat",
        "id": f"e-{seq}",
        "offset": offset,
        "epoch": epoch,
    }


def fault(refusal: Refusal, connection_id: str = "c1") -> Deliver:
    return upload(connection_id, error={"code": refusal.code, "message": refusal.message})
