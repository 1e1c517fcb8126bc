"""Why a server cannot be started."""

from __future__ import annotations

from rtcore import RtcoreError

__all__ = ["HostingError"]


class HostingError(RtcoreError):
    """The server cannot be started; the message says why."""
