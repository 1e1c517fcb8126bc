"""The heads of requests, read more strictly than h11 reads them.

What two servers in a row understand differently is how requests are smuggled past the first of them. So what RFC 9112
leaves to the recipient, for the sake of senders that are decades old, is refused.
"""

from __future__ import annotations

import h11

from rtcore import Refusal

__all__ = ["check_head", "head_too_large"]


def head_too_large(max_head: int) -> Refusal:
    """Return how a head of more than `max_head` bytes is refused."""
    return Refusal("header_too_large", f"the request's head has more than {max_head} bytes", 431)


def check_head(head: bytes, request: h11.Request, *, max_head: int) -> Refusal | None:
    """Check the head of a request that h11 has taken.

    Args:
        head: Its bytes, to the empty line and with it.
        request: What h11 has made of it.
        max_head: The most bytes it may have.

    Returns:
        Why the request is refused, and the connection with it; ``None`` if it is not.
    """
    if len(head) > max_head:
        # h11 asks only while a head is incomplete.
        return head_too_large(max_head)
    if head.count(b"\n") != head.count(b"\r\n"):
        # "a recipient MAY recognize a single LF as a line terminator" (RFC 9112, section 2.2)
        return _malformed("its lines must end with CR LF")
    if b"\n " in head or b"\n\t" in head:
        # "A server that receives an obs-fold in a request message that is not within a "message/http" container MUST
        # either reject the message [...] or replace" it (RFC 9112, section 5.2)
        return _malformed("a header goes over several lines")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            # "A server MAY reject a request that contains both Content-Length and Transfer-Encoding" (section 6.1)
            return _malformed("it has both Content-Length and Transfer-Encoding")
        if request.http_version == b"1.0":
            # "A server [...] that receives an HTTP/1.0 message containing a Transfer-Encoding header field MUST treat
            # the message as if the framing is faulty" (section 6.1)
            return _malformed("HTTP/1.0 has no Transfer-Encoding")
    if names.count(b"content-length") != head.lower().count(b"\ncontent-length:"):
        # h11 takes repeated ones that agree for one (section 6.3, item 5).
        return _malformed("it has Content-Length more than once")
    return None


def _malformed(why: str) -> Refusal:
    return Refusal("malformed_request", f"this is no HTTP/1.1 request: {why}", 400)
