"""Sequences: they order the versions of a key, and each is the version's id.

    sequence   moment << 20 | drawn, 8 bytes wherever it is part of a key
    moment     the revision of the reading that the version was decided on, and the store's offset
    drawn      20 bits that the deciding process counts up, from a random number on

**Order.** A commit's revision is above that of the reading which it was decided on, and a reading's
is not below that of what it shows. So whatever a reading shows has an earlier moment, a new version
a later one than all that are there at its commit, and the drawn bits never order two of them.

**Uniqueness.** Two versions of a key have one moment only where both were decided while the key had
none, the first was committed, and every trace of it removed before the second was. The drawn bits
tell these apart: within a process they repeat after a million readings, of two processes they are
the same once in a million such races. The offset is raised by a restore above every sequence that
was ever given out (`s3gw.rescue.rebuild`).

Moments have 43 bits, so that no sequence needs a sign: at 10,000 commits per second, day and night,
they last for 27 years.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

DRAWN_BITS = 20
_DRAWN_MASK = (1 << DRAWN_BITS) - 1


def sequence_at(moment: int, drawn: int = 0) -> int:
    """The sequence of a version decided at a moment; without `drawn` the first that it can have.

    >>> sequence_at(1, 5), moment_of(sequence_at(1, 5))
    (1048581, 1)
    """
    return moment << DRAWN_BITS | drawn & _DRAWN_MASK


def last_at(moment: int) -> int:
    """The last sequence of a moment."""
    return sequence_at(moment, _DRAWN_MASK)


def moment_of(sequence: int) -> int:
    """The moment that a version was decided at."""
    return sequence >> DRAWN_BITS


def draws() -> Iterator[int]:
    """What a process draws from, one number for each reading that may decide."""
    return count(int.from_bytes(os.urandom(4), "big"))
