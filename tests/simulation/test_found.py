"""Seeds that have found something once, in the machines or in the invariants themselves."""

from __future__ import annotations

import pytest

from rtcore.simulation import run

FOUND = [
    # A gap reached to the present, and some of what it had announced as missing came after all.
    *(3, 15, 30, 42, 53),
    # A session was known from an attempt whose welcome was lost, and so was not what had been published.
    *(6, 9, 48),
    # An event stream was told of gaps by another server, and went back to its own: what the other keeps is not owed.
    5795,
    # A channel was left before the answer to its join came, which made it count as joined.
    2632,
    # A leave was refused because its user talked too fast, and nobody asked again.
    148,
    # A publication that was sent again was refused, and its publisher told that it was not carried out.
    *(155, 167),
    # A channel of the URL was left before the first connection, which had no effect.
    215,
    # What was dropped of a channel that the URL names came on the next connection.
    21553,
    # A join that a leave had overtaken was answered, and taken for the one that followed.
    2010261,
    # What had been said before a client came to a channel of its URL was taken for what was kept for it.
    3027422,
    # A publication of the client's own passed over what was missed, before its channel was joined again.
    4003508,
    # What is kept was dropped on its way with a gap, while all that had been missed was replayed.
    *(5001197, 5012998),
    # A leave was refused for now, and overtaken by another join: to the server its user was there all along.
    6082968,
]

FOUND_WITH_RIGHTS = [
    # A channel of the URL was left and joined by hand, beyond the token, and the next connection told of a gap before.
    101564,
]


FOUND_WITH_FILES = [
    # A server had forgotten a file that it had published, began it anew, and knew it when it was asked once more.
    (79, True),
    # What was asked on the old connection came when the file had come on the new one, and the rest was told there.
    (77, False),
]


@pytest.mark.parametrize("seed", FOUND)
def test_found(seed: int) -> None:
    run(seed, rights=False, files=False)


@pytest.mark.parametrize("seed", FOUND_WITH_RIGHTS)
def test_found_with_rights(seed: int) -> None:
    run(seed, rights=True, files=False)


@pytest.mark.parametrize(("seed", "rights"), FOUND_WITH_FILES)
def test_found_with_files(seed: int, rights: bool) -> None:
    run(seed, rights=rights, files=True)
