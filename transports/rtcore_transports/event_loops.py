"""Which event loop this runs on, for the few things that each is asked in its own words."""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["runs_on_asyncio"]


def runs_on_asyncio() -> bool:
    """Tell whether the event loop that runs is asyncio's, uvloop among them: otherwise it is trio's."""
    # What cancelled is called is all that anyio tells of it.
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError
