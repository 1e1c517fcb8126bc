"""What servers and clients tell whoever watches them: the invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import Grant, Identity, Revocation
from rtcore.router import Published
from rtcore.uploads import FileEffect

if TYPE_CHECKING:
    from .client import SimulatedClient
    from .keeper import FileNews
    from .sending import SimulatedUpload
    from .server import SimulatedServer

__all__ = ["Observer"]


class Observer:
    """Is told what happens, as it happens; does nothing about it unless a method is overridden.

    What servers tell comes from the edge of the machine `rtcore.Node`, and what clients tell is what their users see.
    """

    # Servers

    def server_grants(
        self, server: SimulatedServer, connection_id: str, identity: Identity, channels: tuple[str, ...]
    ) -> None:
        """The node is about to have a new connection, of somebody who is allowed this, and wants to join `channels`."""

    def server_renews(self, server: SimulatedServer, connection_id: str, identity: Identity | Refusal) -> None:
        """The node is about to learn what the token is worth with which a connection wants to go on."""

    def server_regrants(self, server: SimulatedServer, connection_ids: tuple[str, ...], grant: Grant) -> None:
        """The application is about to allow connections something else."""

    def server_revokes(self, server: SimulatedServer, revocation: Revocation) -> None:
        """The node is about to learn that some tokens are no longer to be accepted."""

    def server_connected(
        self,
        server: SimulatedServer,
        connection_id: str,
        user_id: str | None,
        channels: tuple[str, ...],
        *,
        last_event_id: str | None,
    ) -> None:
        """The node has a new connection, and what it says to it is about to be written.

        Args:
            server: Whose.
            connection_id: As what.
            user_id: Whose it is.
            channels: What it has joined by connecting.
            last_event_id: The token that it came with.
        """

    def server_received(self, server: SimulatedServer, connection_id: str, text: str) -> None:
        """The node is about to get a message of a connection; of one that is a file, this is all but the file."""

    def server_asks_keeper(self, server: SimulatedServer, effect: FileEffect) -> None:
        """The node wants something done with a file that comes in chunks."""

    def server_hears_of_file(self, server: SimulatedServer, key: str, news: FileNews) -> None:
        """The node is about to learn what has become of such a file."""

    def server_published(self, server: SimulatedServer, published: Published, message: Message) -> None:
        """The application has published `message`."""

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """The node has something to say to connections."""

    def server_overflowed(self, server: SimulatedServer, connection_id: str) -> None:
        """A connection reads too slowly, and is about to be ended."""

    def server_stopped(self, server: SimulatedServer) -> None:
        """A life has ended, and with it all that the server knew."""

    # Clients

    def client_connected(self, client: SimulatedClient, connection_id: str, *, resumes: bool) -> None:
        """A server has welcomed a client with its ``connected`` message.

        Args:
            client: Whom.
            connection_id: As what.
            resumes: Whether the client has named a token to resume after.
        """

    def client_disconnected(self, client: SimulatedClient) -> None:
        """A client has lost its connection, or closed it."""

    def client_joined(self, client: SimulatedClient, channel: str, answer: Message, *, again: bool) -> None:
        """A server has joined a client to a channel.

        Args:
            client: Whom.
            channel: Which.
            answer: What the server says of it.
            again: Whether the client was a member on its last connection.
        """

    def client_left(self, client: SimulatedClient, channel: str) -> None:
        """A client no longer wants to hear a channel, or was not let in again."""

    def client_removed(self, client: SimulatedClient, channel: str) -> None:
        """A server has taken a client out of a channel, or has not joined it to one that its URL names."""

    def client_asks(self, client: SimulatedClient, channel: str) -> None:
        """A user wants to join a channel."""

    def client_says(self, client: SimulatedClient, text: str) -> None:
        """A client sends a message."""

    def client_publishes(self, client: SimulatedClient, message: Message, data: bytes | None = None) -> None:
        """A user publishes a message, which carries its number as ``n``, with the file in it."""

    def client_published(self, client: SimulatedClient, number: int, receipt: Message) -> None:
        """A publication is acknowledged."""

    def client_refused(self, client: SimulatedClient, number: int, code: str) -> None:
        """A publication has failed, or may have."""

    def client_heard(self, client: SimulatedClient, message: Message) -> None:
        """A message has come to a user: a publication, a ``gap``, or anything else but answers."""

    def client_sends_file(self, client: SimulatedClient, upload: SimulatedUpload) -> None:
        """A user sends a file in chunks."""

    def client_sends_chunk(self, client: SimulatedClient, upload: SimulatedUpload, offset: int, size: int) -> None:
        """A client sends so many bytes of a file."""

    def client_file_ends(self, client: SimulatedClient, upload: SimulatedUpload) -> None:
        """A user is told what has become of a file: `SimulatedUpload.outcome`."""
