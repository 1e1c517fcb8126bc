"""A server to attack, in a process of its own: the realtime system, and an application with a behaviour for each path.

Prints its port, and serves until it is told to end. Its limits are short, so that attacks need not be long.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import socket
import ssl
from pathlib import Path

import anyio
import attrs

from rtcore_adapters import RealtimeApp, Settings
from rtcore_adapters.hosting import Beside
from rtcore_adapters.settings import BinarySettings, RealtimeSettings, WebSocketSettings
from rtcore_transports import ServerLimits, serve
from tests.transports.applications import Application

_MAX_MESSAGE = 2**17


async def run(options: argparse.Namespace) -> None:
    patience: float = options.patience
    settings = Settings(
        realtime=RealtimeSettings(max_connections=100_000, shutdown_timeout=0.5),
        websocket=WebSocketSettings(
            max_message_size=_MAX_MESSAGE,
            handshake_timeout=patience,
            heartbeat_interval=patience,
            disconnect_timeout=2 * patience,
            message_queue_size=100,
        ),
        binary=BinarySettings(data_enabled=False)
        if options.folder is None
        else BinarySettings(store_url=options.folder.as_uri(), max_file_size=options.max_file, quota=options.quota),
    )
    realtime = RealtimeApp(settings)
    websocket = attrs.evolve(realtime.config.websocket, message_timeout=patience, close_timeout=patience)
    limits = ServerLimits(
        body_timeout=patience,
        write_timeout=patience,
        keep_alive_timeout=patience,
        max_sockets=options.sockets,
        max_sockets_per_address=options.per_address,
    )
    context: ssl.SSLContext | None = None
    if options.tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls)
    shutdown = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    shutdown.set()
                    return

        tasks.start_soon(stop)
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock:
            # What comes before the server listens waits for it.
            print(sock.getsockname()[1], flush=True)
            await serve(
                realtime.driver,
                app=Beside(realtime, Application()),
                sockets=[sock],
                config=attrs.evolve(realtime.config, websocket=websocket, limits=limits),
                ssl_context=context,
                shutdown=shutdown,
                shutdown_timeout=0.5,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="asyncio")
    parser.add_argument("--patience", type=float, default=1.0, help="seconds, for everything that must end")
    parser.add_argument("--files", type=int, help="file descriptors that it may have")
    parser.add_argument("--sockets", type=int, help="connections that it may have; default: by its descriptors")
    parser.add_argument("--per-address", type=int)
    parser.add_argument("--tls", help="a file with a certificate and its key")
    parser.add_argument("--core", type=int, help="the processor to run on")
    parser.add_argument("--folder", type=Path, help="where files are kept; default: none are taken")
    parser.add_argument("--max-file", type=int, default=2**20, help="bytes of a file")
    parser.add_argument("--quota", type=int, help="bytes of all files")
    parser.add_argument("--disk", type=int, help="bytes of a file that the system lets it write")
    options = parser.parse_args()
    # What a store complains of is what the tests do to it.
    logging.getLogger("rtcore.stores").setLevel(logging.CRITICAL)
    if options.disk is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.disk, options.disk))
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    if options.files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.files, options.files))
    anyio.run(run, options, backend=options.backend)


if __name__ == "__main__":
    main()
