"""What was verified of groups whose move could not be finished.

A shard that is on its new node is verified there, which reads it, before copies elsewhere go. A
group may be tried many times before it can be finished, because one of its new nodes is full, or
one blob cannot be read: what was verified at one try counts at the next, for as long as the group's
record is the same. It does not count for ever: shards decay. Memory is bounded; groups that were
not tried for longest are forgotten first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from s3gw.workers.progress import GroupId

SHARDS_MAX = 100_000
"""About 110 bytes each."""
SECONDS_MAX = 6 * 3600.0


@dataclass(slots=True)
class Verified:
    """Shards of moving slots that are whole on their nodes, as the record `revision` names them;
    the first was verified at `since`."""

    revision: int
    since: float
    shards: set[bytes] = field(default_factory=set)

    def has(self, blob: bytes, index: int) -> bool:
        return blob + bytes((index,)) in self.shards

    def add(self, blob: bytes, index: int) -> None:
        self.shards.add(blob + bytes((index,)))

    def discard(self, blob: bytes, index: int) -> None:
        self.shards.discard(blob + bytes((index,)))

    def discard_slots(self, indexes: frozenset[int]) -> None:
        self.shards = {shard for shard in self.shards if shard[-1] not in indexes}


class VerifiedShards:
    """What one process remembers."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, shards_max: int = SHARDS_MAX
    ) -> None:
        self._clock = clock
        self._shards_max = shards_max
        self._groups: dict[GroupId, Verified] = {}
        self._count = 0

    def take(self, group: GroupId, revision: int) -> Verified:
        """What is known of a group with this record, to be added to and given back (`keep`)."""
        known = self._groups.pop(group, None)
        if known is not None:
            self._count -= len(known.shards)
            if known.revision == revision and self._clock() - known.since < SECONDS_MAX:
                return known
        return Verified(revision, self._clock())

    def keep(self, group: GroupId, verified: Verified) -> None:
        """Remember it, as much of it as there is room for."""
        if len(verified.shards) > self._shards_max:
            verified.shards = set(itertools.islice(verified.shards, self._shards_max))
        if not verified.shards:
            return
        self._groups[group] = verified
        self._count += len(verified.shards)
        while self._count > self._shards_max:
            oldest = next(iter(self._groups))
            self._count -= len(self._groups.pop(oldest).shards)
