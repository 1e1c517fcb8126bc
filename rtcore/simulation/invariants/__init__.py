"""What must hold in every simulation, whatever happens.

`Ledger` knows what was published. `Sequences` compares with it what subscribers hear, `Publishing` what publishers are
told. `PresenceTruth` compares rosters with who is there, `Pages` what histories show with what they must hold.
`Justification` asks of each gap why it is one, `RateLimits` of each refusal for its rate, and `Rights` of everything
whether it is allowed. `Contents` and `Keeping` are about files. `Bounds` and `Emptiness` are about memory.
"""

from __future__ import annotations

from .bounds import Bounds, Emptiness
from .files import Contents, Keeping
from .gaps import Justification
from .invariant import Invariant
from .ledger import Ledger, Line, Publication
from .pages import Pages
from .presence import PresenceTruth
from .publishing import Publishing
from .rate_limits import RateLimits
from .rights import Rights
from .sequences import Sequences

__all__ = [
    "Bounds",
    "Contents",
    "Emptiness",
    "Invariant",
    "Justification",
    "Keeping",
    "Ledger",
    "Line",
    "Pages",
    "PresenceTruth",
    "Publication",
    "Publishing",
    "RateLimits",
    "Rights",
    "Sequences",
]
