"""What happens in a scenario with files: within messages, and in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from rtcore.errors import QueueFull
from rtcore.uploads import FileConfig

from .scenario_rights import RightsInScenario
from .sending import SimulatedUpload
from .server import ServerConfig
from .simulation import Simulation
from .websocket_client import SimulatedWebSocketClient

__all__ = ["FilesInScenario"]

_USERS: Final = ("ann", "bob", "cyd")
_CONTENT_TYPES: Final = (None, "text/plain", "image/png", "Image/PNG; a=b")
_FILENAMES: Final = (None, "note.txt", "a b.png")


class FilesInScenario:
    """Who sends files, and how large ones.

    Args:
        simulation: In which it takes place.
        channels: The names of the channels that there are.
        rights: Who may do what, where people may do different things.

    Attributes:
        actions: What may happen, by weight.
    """

    def __init__(self, simulation: Simulation, channels: Sequence[str], rights: RightsInScenario | None) -> None:
        self._simulation = simulation
        self._choices = simulation.world.choices
        self._channels = channels
        self._rights = rights
        self.actions: tuple[tuple[int, Callable[[], None]], ...] = (
            (25, self.publish_file),
            (25, self.send_file),
            (5, self.send_several_files),
            (8, self.come_back_while_it_is_sent),
            (6, self.ask_in_another_order),
            (6, self.restart_while_it_is_sent),
            (12 if rights is not None else 0, self.restrict_while_it_is_sent),
            (5, self.cancel_file),
            (2, self.change_file),
        )

    def configure(self, config: ServerConfig) -> ServerConfig:
        """Return the limits and times of servers that take files."""
        choices = self._choices
        chunk_size = choices.pick((200, 64, 500))
        files = FileConfig(
            max_binary_size=1500,
            max_file_size=4000,
            allowed_types=choices.pick((("*/*",), ("image/*", "application/octet-stream"))),
            chunk_size=chunk_size,
            window=chunk_size * choices.pick((4, 2, 8)) + choices.pick((0, 30)),
            max_uploads=choices.pick((6, 3)),
            max_uploads_per_connection=choices.pick((3, 2, 1)),
            resume_timeout=choices.pick((8.0, 3.0)),
            idle_timeout=choices.pick((600.0, 6.0)),
        )
        return attrs.evolve(
            config, node=attrs.evolve(config.node, files=files), inline_max_size=choices.pick((400, 0, 2000))
        )

    # What may happen

    def publish_file(self) -> None:
        """Send a file, or several, each in one message."""
        client, choices = self._client(), self._choices
        if client is None:
            return
        for _ in range(choices.weighted(((4, 1), (1, 5)))):
            fields = self._draw_head()
            for name in ("persistent", "echo"):
                if choices.chance(20):
                    fields[name] = name == "persistent"
            message = self._simulation.numbered(client.name, **fields)
            try:
                client.publish(message, self._draw_content(message, choices.weighted(((5, 60), (3, 400), (1, 1600)))))
            except QueueFull:
                client.note("has too much to say while offline")

    def send_file(self) -> None:
        """Send a file in chunks."""
        client = self._client()
        if client is not None:
            self._send_by(client)

    def send_several_files(self) -> None:
        """Send some at once, maybe more than are taken at a time."""
        client = self._client()
        if client is not None:
            for _ in range(self._choices.between(2, 4)):
                self._send_by(client)

    def come_back_while_it_is_sent(self) -> None:
        """Lose the connection while a file is under way, so that the server may think that it stands."""
        client, choices = self._client(), self._choices
        if client is None:
            return
        upload = self._send_by(client)
        for _ in range(choices.between(1, 3)):
            self._simulation.run_for(choices.seconds(0.05, 1.0))
            if choices.chance(80):
                self._run_until(lambda: upload.under_way)
            if client.ended or client.frozen:
                return
            if choices.chance(25):
                upload.change()
            if choices.chance(50):
                client.change_address()
                continue
            # What was sent on it comes when another one stands already.
            self._leave(client, 3.0)

    def ask_in_another_order(self) -> None:
        """Ask for a file on two connections, and have the server be asked on the first of them last."""
        client = self._client()
        if client is not None:
            self._send_by(client, 300)
            self._simulation.run_for(0.01)
            self._leave(client, 1.0)

    def restart_while_it_is_sent(self) -> None:
        """Have the server forget a file that it has, or may have published, and be asked for it several times."""
        client, choices = self._client(), self._choices
        if client is None:
            return
        upload = self._send_by(client)
        if choices.chance(70):
            # Its sender is not told any more.
            self._run_until(lambda: upload.number in self._simulation.ledger.by_number)
        else:
            self._run_until(lambda: bool(upload.announced))
        if client.server is not None and client.server.running:
            client.server.crash(silently=False)
            client.server.start()
        for _ in range(choices.between(0, 2)):
            self._run_until(lambda: client.connected)
            self._simulation.run_for(choices.pick((0.01, 0.03)))
            client.change_address()

    def restrict_while_it_is_sent(self) -> None:
        """Allow somebody something else while a file is under way, where people may do different things."""
        client, choices = self._client(), self._choices
        if client is None or self._rights is None:
            return
        upload = self._send_by(client)
        if choices.chance(80):
            # Until it is on its way to the disk.
            self._run_until(lambda: bool(upload.announced))
        self._rights.regrant_client(client, sends=choices.chance(50))

    def cancel_file(self) -> None:
        """Do not want a file to be sent any more."""
        uploads = self._under_way()
        if uploads:
            self._choices.pick(uploads).cancel()

    def change_file(self) -> None:
        """Write to a file while it is being sent."""
        uploads = self._under_way()
        if uploads:
            self._choices.pick(uploads).change()

    # Inside

    def _run_until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until something is the case, which may never be."""
        for _ in range(300):
            if condition():
                return
            self._simulation.run_for(0.005)

    def _leave(self, client: SimulatedWebSocketClient, most: float) -> None:
        """End the connection for its client, whose last words come so many seconds later at most."""
        for link in self._simulation.network.links(client):
            self._simulation.network.leave(link, self._choices.seconds(0.15, most))

    def _send_by(self, client: SimulatedWebSocketClient, most: int | None = None) -> SimulatedUpload:
        choices = self._choices
        fields = self._draw_head()
        if choices.chance(20):
            fields["persistent"] = True
        message = self._simulation.numbered(client.name, **fields)
        if most is None:
            most = choices.weighted(((4, 300), (4, 1500), (1, 4000), (1, 0), (1, 4500)))
        return client.send_file(message, self._draw_content(message, most))

    def _draw_head(self) -> dict[str, object]:
        choices = self._choices
        fields: dict[str, object] = {"type": "binary"}
        if choices.chance(15):
            fields["recipient_id"] = choices.pick(_USERS)
        else:
            fields["channel"] = choices.pick(self._channels)
        content_type, filename = choices.pick(_CONTENT_TYPES), choices.pick(_FILENAMES)
        if content_type is not None:
            fields["content_type"] = content_type
        if filename is not None:
            fields["filename"] = filename
        return fields

    def _draw_content(self, message: dict[str, object], most: int) -> bytes:
        """Return what is in a file: nothing like it is in any other, unless it is tiny."""
        size = self._choices.between(0, most)
        return (f"{message['n']}|".encode() + self._simulation.world.choices.entropy(size))[:size]

    def _client(self) -> SimulatedWebSocketClient | None:
        awake = [
            client
            for client in self._simulation.clients
            if isinstance(client, SimulatedWebSocketClient) and not client.ended and not client.frozen
        ]
        return self._choices.pick(awake) if awake else None

    def _under_way(self) -> list[SimulatedUpload]:
        return [
            upload
            for client in self._simulation.clients
            if isinstance(client, SimulatedWebSocketClient) and not client.frozen
            for upload in client.uploads
        ]
