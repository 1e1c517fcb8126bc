"""Who hears what: connections, users and channels, and the publications that flow between them.

Everything that is delivered is a publication of a channel. Messages to one connection, to one user and to
everybody are publications of built-in channels, whose names begin with ``$`` and which nobody joins. So is who comes
and goes: beside each channel there is a stream of its changes.

`machine` has the machine, `commands` what it is told to do and the effects that it answers with, `connections` who is
connected, `registry` the channels that there are and for how long, `rights` who may do what in them, `numbering` the
numbers of all publications, `repetition` those that were made before, `presence` what is said of who is there,
`recovery` what somebody who comes back has missed, `paging` the history, and `sizes` how large a publication may be.
"""

from __future__ import annotations

from .commands import (
    Command,
    Deliver,
    Effect,
    Joined,
    Left,
    Publish,
    Published,
    Recovered,
    Refused,
    Request,
    Roster,
    Since,
    Subscribe,
    Unsubscribe,
)
from .config import RouterConfig
from .machine import Router
from .paging import Page
from .recovery import Gap, Resumption

__all__ = [
    "Command",
    "Deliver",
    "Effect",
    "Gap",
    "Joined",
    "Left",
    "Page",
    "Publish",
    "Published",
    "Recovered",
    "Refused",
    "Request",
    "Resumption",
    "Roster",
    "Router",
    "RouterConfig",
    "Since",
    "Subscribe",
    "Unsubscribe",
]
