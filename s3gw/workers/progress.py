"""How far the moves of placement groups have come.

Each process counts what it does itself, and what it sees to be left in the whole store, and shows
both under its lease: `progress/<lease>`. Whoever asks reads the records of all living processes and
adds up (`total`): work done is a sum, what is left is the largest figure of any.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nodes.protocol import PG_MAX
from s3gw import limits
from s3gw.cluster.topology import Group
from s3gw.kv.interface import KV, EngineError, Put
from s3gw.metadata import keys
from s3gw.metadata.records import Count, MoveProgress, decode, encode
from s3gw.objects.storage import Storage

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 2.0
RATE_SECONDS = 30.0
GROUPS_TOGETHER = 64

GroupId = tuple[str, int]
"""Profile and number."""


@dataclass(frozen=True, slots=True)
class Total:
    """The figures of all processes together. `eta_seconds` is None while nothing moves."""

    epoch: int
    groups_left: int
    groups_done: int
    bytes_left: int
    bytes_moved: int
    bytes_rebuilt: int
    bytes_read: int
    bytes_per_second: float

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the rest is done, at the present rate; 0 when there is none."""
        if not self.groups_left:
            return 0.0
        return self.bytes_left / self.bytes_per_second if self.bytes_per_second else None


async def read_progress(kv: KV) -> list[MoveProgress]:
    """What every living process says. Raises EngineError."""
    page = await kv.scan(
        keys.PROGRESS, keys.after_prefix(keys.PROGRESS), limit=limits.SCAN_ITEMS_MAX
    )
    return [decode(MoveProgress, item.value) for item in page.items]


def total(records: Sequence[MoveProgress]) -> Total:
    """The records of the latest epoch, added up.

    >>> total([MoveProgress(2, 5, 1, 10, 3, 4, 8, 2.0), MoveProgress(2, 4, 2, 9, 1, 0, 0, 3.0)])
    ... # doctest: +NORMALIZE_WHITESPACE
    Total(epoch=2, groups_left=5, groups_done=3, bytes_left=10, bytes_moved=4, bytes_rebuilt=4,
          bytes_read=8, bytes_per_second=5.0)
    """
    epoch = max((record.epoch for record in records), default=0)
    latest = [record for record in records if record.epoch == epoch]
    return Total(
        epoch,
        max((record.groups_left for record in latest), default=0),
        sum(record.groups_done for record in latest),
        max((record.bytes_left for record in latest), default=0),
        sum(record.bytes_moved for record in latest),
        sum(record.bytes_rebuilt for record in latest),
        sum(record.bytes_read for record in latest),
        sum(record.bytes_per_second for record in latest),
    )


class Meter:
    """Counts for one process. All figures but what is left are of the epoch that `look` named."""

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._clock = clock
        self._epoch = 0
        self._groups_done = 0
        self._moved = self._rebuilt = self._read = 0
        self._left: dict[GroupId, int] = {}
        self._finished: set[GroupId] = set()
        self._recent: deque[tuple[float, int]] = deque()
        self._published_at = -PUBLISH_SECONDS
        self._shown: MoveProgress | None = None

    async def look(self, epoch: int, pending: Iterable[tuple[Group, int]]) -> None:
        """Note what is left to be done for a layout: groups, and how many of their slots."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._groups_done = self._moved = self._rebuilt = self._read = 0
            self._left.clear()
        self._finished.clear()
        slots = {(group.profile.name, group.number): (group, count) for group, count in pending}
        unknown = {name: slots[name] for name in slots.keys() - self._left.keys()}
        estimates = await self._estimates(unknown)
        # Moves went on meanwhile.
        self._left = {
            name: self._left.get(name, estimates.get(name, 0))
            for name in slots
            if name not in self._finished
        }
        await self.publish()

    async def _estimates(self, groups: Mapping[GroupId, tuple[Group, int]]) -> dict[GroupId, int]:
        """Bytes of so many shards of every blob of each group, as far as `count/` knows. Groups of
        close numbers are asked for together."""
        stored: Counter[GroupId] = Counter()
        for profile, part in sorted({(name, n // GROUPS_TOGETHER) for name, n in groups}):
            first = part * GROUPS_TOGETHER
            position = keys.counts(profile, first)
            last = keys.counts(profile, min(first + GROUPS_TOGETHER - 1, PG_MAX))
            end, more = keys.after_prefix(last), True
            while more:
                page = await self._storage.store.kv.scan(position, end, limit=limits.SCAN_ITEMS_MAX)
                for item in page.items:
                    stored[profile, keys.split_count(item.key)] += decode(Count, item.value).bytes
                more = page.more
                position = page.items[-1].key + b"\x00" if more else position
        return {
            name: group.profile.scheme.fragment_bytes(stored[name]) * slots
            for name, (group, slots) in groups.items()
        }

    def read(self, count: int) -> None:
        """Bytes were read to rebuild shards from."""
        self._read += count

    def placed(self, group: Group, count: int, *, rebuilt: bool) -> None:
        """A shard of `count` bytes is on its new node."""
        if rebuilt:
            self._rebuilt += count
        else:
            self._moved += count
        name = (group.profile.name, group.number)
        if name in self._left:
            self._left[name] = max(0, self._left[name] - count)
        self._recent.append((self._clock(), count))

    def finished(self, group: Group) -> None:
        """A group is where the layout wants it."""
        self._groups_done += 1
        name = (group.profile.name, group.number)
        self._finished.add(name)
        self._left.pop(name, None)

    def record(self) -> MoveProgress:
        """The figures as they are now."""
        now = self._clock()
        while self._recent and self._recent[0][0] <= now - RATE_SECONDS:
            self._recent.popleft()
        seconds = max(1.0, now - self._recent[0][0]) if self._recent else 1.0
        return MoveProgress(
            self._epoch,
            len(self._left),
            self._groups_done,
            sum(self._left.values()),
            self._moved,
            self._rebuilt,
            self._read,
            sum(count for _, count in self._recent) / seconds,
        )

    async def publish(self) -> None:
        """Show the figures to the other processes, when they changed, and not too often. They are
        for people: an engine that cannot take them is no reason to stop the work."""
        lease, now = self._storage.lease(), self._clock()
        if not lease or now - self._published_at < PUBLISH_SECONDS:
            return
        record = self.record()
        if record == self._shown:
            return
        self._published_at = now
        key = keys.progress(lease)
        try:
            await self._storage.store.kv.commit([], [Put(key, encode(record), lease)])
        except EngineError as error:
            log.info("the progress of moves could not be noted: %s", error)
            return
        self._shown = record
