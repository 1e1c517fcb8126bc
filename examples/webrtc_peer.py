"""A Python program in a video call: it prints what it sees and hears, and sends and takes files.

Start a server with ``make serve``, enter the room ``lobby`` on its test page, and then, for as long as you like::

    python -m examples.webrtc_peer --room lobby --send README.md

Another program of the same kind may be the other side::

    python -m examples.webrtc_peer --room lobby --pattern --receive /tmp

It needs the extra ``webrtc``, and runs on asyncio alone.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from aiortc import AudioStreamTrack, MediaStreamTrack, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from rtcore import ConnectionClosed
from rtcore_adapters.webrtc import (
    FILE_PROTOCOL,
    ChannelReceived,
    DataChannel,
    PeerConnected,
    PeerJoined,
    PeerLeft,
    RemotePeer,
    TrackReceived,
    WebRTCPeer,
    receive_file,
    send_file,
)
from rtcore_transports import WSClient

MAX_FILE_SIZE = 100_000_000


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


async def watch(peer: RemotePeer, track: MediaStreamTrack) -> None:
    """Take the frames of a track; print what they are when that changes, and in the end how many there were."""
    frames, described = 0, ""
    with suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            frames += 1
            described, before = track.kind, described
            if isinstance(frame, VideoFrame):
                described += f" {frame.width}x{frame.height}"
            if described != before:
                say(f"{peer.peer_id}: {described}")
    say(f"{peer.peer_id}: {track.kind} ended after {frames} frames")


async def send(peer: RemotePeer, path: Path) -> None:
    """Send a file to one peer."""
    with suppress(ConnectionClosed):
        digest = await send_file(peer, path)
        say(f"{peer.peer_id}: has {path.name}, SHA-256 {digest}")


async def receive(peer: RemotePeer, channel: DataChannel, folder: Path) -> None:
    """Take the file, or the messages, of a data channel."""
    with suppress(ConnectionClosed):
        if channel.protocol == FILE_PROTOCOL:
            file = await receive_file(channel, folder, max_size=MAX_FILE_SIZE)
            say(f"{peer.peer_id}: sent {file.path}, {file.size} bytes, SHA-256 {file.sha256}")
            return
        async for message in channel:
            say(f"{peer.peer_id}: {channel.label}: {message!r}")


async def call(
    url: str, room: str, *, name: str | None, tracks: Sequence[MediaStreamTrack], file: Path | None, folder: Path | None
) -> None:
    """Be in the room until cancelled, or until the room is closed."""
    async with (
        WSClient(url, user_id=name) as client,
        WebRTCPeer(client, room, metadata={"name": name or "Python"}, tracks=tracks) as peer,
        asyncio.TaskGroup() as tasks,
    ):
        say(f"in the room {room} as {peer.peer_id}")
        async for event in peer:
            match event:
                case PeerJoined(other):
                    say(f"{other.peer_id}: is here")
                    if file is not None:
                        tasks.create_task(send(other, file))
                case PeerConnected(other):
                    say(f"{other.peer_id}: connected")
                case TrackReceived(other, track):
                    tasks.create_task(watch(other, track))
                case ChannelReceived(other, channel):
                    if folder is not None:
                        tasks.create_task(receive(other, channel, folder))
                    else:
                        channel.close()
                case PeerLeft(other):
                    say(f"{other.peer_id}: has left")


def main() -> None:
    """Read the command line, and take part."""
    parser = argparse.ArgumentParser(description="Take part in a video call.")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/realtime/ws")
    parser.add_argument("--room", default="lobby")
    parser.add_argument("--name", help="who you are")
    parser.add_argument("--pattern", action="store_true", help="send a green picture, and silence")
    parser.add_argument("--send", type=Path, metavar="FILE", help="send a file to everybody who comes")
    parser.add_argument("--receive", type=Path, metavar="FOLDER", help="take the files that others send")
    options = parser.parse_args()

    async def run() -> None:
        tracks = [VideoStreamTrack(), AudioStreamTrack()] if options.pattern else []
        await call(
            options.url,
            options.room,
            name=options.name,
            tracks=tracks,
            file=options.send,
            folder=options.receive,
        )

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
