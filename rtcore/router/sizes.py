"""How large a publication may be."""

from __future__ import annotations

from rtcore.binary import Bytes
from rtcore.errors import Refusal
from rtcore.messages import Message, encode
from rtcore.namespaces import Namespace

__all__ = ["fitted"]


def fitted(namespace: Namespace, message: Message, data: Bytes | None) -> Bytes | Refusal | None:
    """Return the file that is published within a message, or why the message is too large for its channel.

    Args:
        namespace: What holds for the channel.
        message: The message.
        data: The file in it, or ``None``.

    Returns:
        `data`; or ``None`` where that would be too much and there is a ``url``, at which whoever wants it reads it.

    Raises:
        LocalProtocolError: If `message` is no JSON.
    """
    limit = namespace.max_message_size
    if limit is None:
        return data
    size = encode(message).size
    if data is not None and size + len(data) > limit and "url" in message:
        data = None
    if size + (0 if data is None else len(data)) > limit:
        return Refusal("message_too_large", f"a message to this channel has at most {limit} bytes", status=413)
    return data
