"""rtcore's native server, under the event loop that the first argument names.

Two more arguments make it one for slow consumers: their policy in the channel ``bench``, and the size in bytes of the
sockets' send buffers, which the kernel doubles.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import anyio

from rtcore import NodeConfig, RouterConfig, WebSocketConfig
from rtcore.namespaces import Namespace, Namespaces, SlowConsumer
from rtcore.signaling import SignalingConfig
from rtcore_transports import Driver, EndpointConfig, GateConfig, serve


async def main() -> None:
    """Serve until killed; what is not the realtime protocol is answered with the statistics."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    namespaces = Namespaces()
    if len(sys.argv) > 2:
        policy, send_buffer = SlowConsumer(sys.argv[2]), int(sys.argv[3])
        namespaces = Namespaces((Namespace(pattern="bench", slow_consumer=policy),))
        # What is accepted inherits it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    # As for the others: no pings, no heartbeats, so that nothing but the messages is measured.
    router = RouterConfig(namespaces=namespaces)
    signaling = SignalingConfig(max_rooms=20_000)
    gate = GateConfig(allow_anonymous=True)
    limits = NodeConfig(max_connections=20_000, websocket_heartbeat=None, router=router, signaling=signaling)
    driver = Driver(limits, gate=gate)
    config = EndpointConfig(gate=gate, websocket=WebSocketConfig(ping_interval=None))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            body = json.dumps(driver.stats()).encode()
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async with anyio.create_task_group() as tasks:
        host_and_port = await tasks.start(
            lambda *, task_status: serve(driver, app=app, sockets=[listener], config=config, task_status=task_status)
        )
        print(host_and_port[1], flush=True)


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1])
