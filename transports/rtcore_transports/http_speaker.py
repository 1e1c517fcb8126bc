"""What the clients say over HTTP, beside their stream, in the same words."""

from __future__ import annotations

from rtcore import Message
from rtcore.messages import NotificationType

from .http_publisher import HttpPublisher

__all__ = ["HttpSpeaker"]


class HttpSpeaker:
    """The part of the clients that is the same for both.

    All of it returns ``{"id", "offset", "epoch"}``, connected or not.

    Args:
        http: What publishes.
    """

    def __init__(self, http: HttpPublisher) -> None:
        self._http = http

    async def broadcast(self, message: object) -> Message:
        """Publish to everybody, over HTTP. A message that is not an object becomes ``{"data": message}``.

        Raises:
            CommandError: The server refused it.
            ConnectionFailed: There was no answer, or no token.
            LocalProtocolError: JSON cannot express it.
        """
        return await self._http.broadcast(message)

    async def send_notification(
        self,
        title: str,
        content: str,
        type: NotificationType = "info",
        channel: str | None = None,
        user_id: str | int | None = None,
        *,
        auto_hide: bool = True,
        duration: int | None = None,
    ) -> Message:
        """Publish a notification, over HTTP, to a channel or to a user, or else to everybody.

        Args:
            title: Its headline.
            content: Its text.
            type: How to show it.
            channel: Whom to.
            user_id: Whom to.
            auto_hide: Whether it goes away by itself.
            duration: Milliseconds until it does.

        Raises:
            CommandError: The server refused it.
            ConnectionFailed: There was no answer, or no token.
            LocalProtocolError: It is not a notification, or names both a channel and a user.
        """
        return await self._http.send_notification(
            title=title,
            content=content,
            type=type,
            channel=channel,
            user_id=user_id,
            auto_hide=auto_hide,
            duration=duration,
        )
