"""A file over a data channel: what it is, the file in pieces, its SHA-256; then the other side says that it has it.

The channel is opened for the one file, with the protocol ``rtcore.file``::

    text   {"name": "cat.jpg", "size": 40000}
    bytes  16,384 at most, as often as it takes
    text   {"sha256": "…"}
    text   {"received": "…"}, the SHA-256 again, from the other side, which then closes the channel
"""

from __future__ import annotations

from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Final, TypeVar

import anyio
import attrs
import msgspec

from rtcore import ConnectionClosed
from rtcore_transports.file_names import safe_name

from .channel import DataChannel
from .remote import RemotePeer

__all__ = ["FILE_PROTOCOL", "ReceivedFile", "receive_file", "send_file"]

#: The protocol of such a channel.
FILE_PROTOCOL: Final = "rtcore.file"
# What every browser takes (RFC 8831, section 6.6: at most 16 KB where messages are not interleaved).
_PIECE: Final = 16_384


@attrs.frozen
class ReceivedFile:
    """A file that has come.

    Attributes:
        name: What the sender calls it, without folders.
        path: Where it is.
        size: Its bytes.
        sha256: Of what it holds, in hexadecimal.
    """

    name: str
    path: Path
    size: int
    sha256: str


StructT = TypeVar("StructT", bound=msgspec.Struct)


class _Head(msgspec.Struct):
    name: str
    size: int


class _Tail(msgspec.Struct):
    sha256: str


class _Receipt(msgspec.Struct):
    received: str


async def send_file(peer: RemotePeer, path: str | PathLike[str], *, name: str | None = None) -> str:
    """Send a file, no faster than the network takes it; returns its SHA-256 when the other side has it.

    Args:
        peer: To whom.
        path: Where it is.
        name: How to call it; the last part of the path if left out.

    Raises:
        ConnectionClosed: The peer has left, or the connection ended: try again.
        OSError: It cannot be read.
    """
    digest = sha256()
    async with await anyio.open_file(path, "rb") as file:
        size = await file.seek(0, 2)
        await file.seek(0)
        channel = await peer.open_channel("file", protocol=FILE_PROTOCOL)
        try:
            await channel.send(msgspec.json.encode(_Head(name or Path(path).name, size)).decode())
            while piece := await file.read(_PIECE):
                digest.update(piece)
                await channel.send(piece)
            await channel.send(msgspec.json.encode(_Tail(digest.hexdigest())).decode())
            async for message in channel:
                if _read(message, _Receipt).received != digest.hexdigest():
                    raise _malformed()
                return digest.hexdigest()
            raise ConnectionClosed(None, "the data channel was closed before the file had arrived")
        finally:
            channel.close()


async def receive_file(channel: DataChannel, folder: str | PathLike[str], *, max_size: int) -> ReceivedFile:
    """Receive a file by a channel of the protocol ``rtcore.file``.

    Args:
        channel: The channel.
        folder: Where to put it, under its name; what has that name there is replaced.
        max_size: How many bytes it may have.

    Raises:
        ConnectionClosed: The channel ended before all of it had come, or it is too large, or not what was announced;
            nothing is left in the folder.
        OSError: It cannot be written; likewise.
    """
    try:
        head = _read(await _next(channel), _Head)
        name = safe_name(head.name)
        if not 0 <= head.size <= max_size:
            raise ConnectionClosed(None, f"a file of {head.size} bytes is too large: at most {max_size} are taken")
        path, digest, size = Path(folder) / name, sha256(), 0
        partial = Path(folder) / f".{name}.part"
        try:
            async with await anyio.open_file(partial, "wb") as file:
                while isinstance(data := await _next(channel), bytes):
                    size += len(data)
                    if size > head.size:
                        raise ConnectionClosed(None, "the file is larger than was announced")
                    digest.update(data)
                    await file.write(data)
            if size != head.size or _read(data, _Tail).sha256 != digest.hexdigest():
                raise ConnectionClosed(None, "the file is not what was announced")
            await anyio.Path(partial).replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        await channel.send(msgspec.json.encode(_Receipt(digest.hexdigest())).decode())
        return ReceivedFile(name, path, size, digest.hexdigest())
    finally:
        channel.close()


def _malformed() -> ConnectionClosed:
    return ConnectionClosed(None, "the other side does not keep to the protocol for files")


def _read(message: str | bytes, kind: type[StructT]) -> StructT:
    if isinstance(message, bytes):
        raise _malformed()
    try:
        return msgspec.json.decode(message, type=kind)
    except msgspec.DecodeError as error:
        raise _malformed() from error


async def _next(channel: DataChannel) -> str | bytes:
    async for message in channel:
        return message
    raise ConnectionClosed(None, "the data channel was closed before the file had arrived")
