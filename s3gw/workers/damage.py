"""What readers and scrubs find damaged, on its way into the repair queue.

A blob has one entry. What is found later is added to it: the shards known as lost are united, and
an entry moves up when so many are lost that one more might be too many. The rest of the entry stays
as it is, since it may carry the state of a repair in progress; that repair's next commit fails on
the changed entry and it begins again with what is known now.

A reader must not wait for the queue: it calls, and goes on. When more blobs than fit are reported
at a time the rest is dropped, since shard verification finds it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import msgspec

from s3gw import limits
from s3gw.cluster.ledger import joined, union
from s3gw.cluster.topology import Topology, UnknownProfile
from s3gw.kv.interface import Conflict, EngineError, Item
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Repair, decode
from s3gw.metadata.store import OutcomeUnknown, Store, Transaction
from s3gw.objects.references import URGENCY_MISPLACED, URGENCY_REDUCED
from s3gw.workers.contract import Claim

log = logging.getLogger(__name__)

URGENCY_CRITICAL = 0
URGENCY_DAMAGED = 2
URGENCIES = (URGENCY_CRITICAL, URGENCY_REDUCED, URGENCY_DAMAGED, URGENCY_MISPLACED)
PENDING_MAX = 1024
REMEMBERED_MAX = 16_384
REMEMBERED_MS = 10 * 60 * 1000
# An entry is looked for under every urgency, and a read has as many keys as a commit.
ENTRIES_PER_COMMIT = limits.COMMIT_OPERATIONS_MAX // len(URGENCIES)


async def queue_repairs(
    store: Store, topology: Topology, repairs: Sequence[Repair], urgency: int
) -> int:
    """Queue blobs for repair, or add to their entries what is new; how many were not queued yet.

    Raises UnknownProfile, EngineError, OutcomeUnknown.
    """
    united: dict[tuple[str, bytes], Repair] = {}
    for repair in repairs:
        blob = repair.profile, repair.blob
        united[blob] = joined(united[blob], repair) if blob in united else repair
    waiting = list(united.values())
    added = 0
    for first in range(0, len(waiting), ENTRIES_PER_COMMIT):
        chunk = waiting[first : first + ENTRIES_PER_COMMIT]
        added += await _queue_chunk(store, topology, chunk, urgency)
    return added


async def _queue_chunk(
    store: Store, topology: Topology, repairs: Sequence[Repair], urgency: int
) -> int:
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        wanted = [
            keys.repair(known, repair.profile, repair.pg, repair.blob)
            for repair in repairs
            for known in URGENCIES
        ]
        items = (await store.kv.get_many(wanted)).items
        tx = Transaction()
        added = 0
        for row, repair in enumerate(repairs):
            found = items[row * len(URGENCIES) : (row + 1) * len(URGENCIES)]
            first = next((place for place, item in enumerate(found) if item is not None), None)
            added += first is None
            present = None if first is None else (URGENCIES[first], found[first])
            _merge(tx, topology, repair, urgency, present)
        if not tx.writes:
            return 0
        try:
            await store.apply(tx)
        except Conflict:
            continue  # an entry was changed or settled meanwhile
        return added
    raise Conflict(None)


def _merge(
    tx: Transaction,
    topology: Topology,
    repair: Repair,
    urgency: int,
    present: tuple[int, Item | None] | None,
) -> None:
    """Write a new entry, or what a present one (its urgency and item) becomes by it."""
    known_urgency, item = present or (urgency, None)
    known = decode(Repair, item.value) if item is not None else None
    lost = union(known.lost if known else (), repair.lost)
    entry = msgspec.structs.replace(known or repair, lost=lost)
    tolerance = topology.profile(repair.profile).scheme.tolerance
    if lost and len(lost) >= tolerance:
        urgency = URGENCY_CRITICAL
    urgency = min(urgency, known_urgency)
    if entry == known and urgency == known_urgency:
        return
    if known is not None and lost != known.lost:
        entry = msgspec.structs.replace(entry, not_before_ms=0)  # there is something new to do
    key = keys.repair(urgency, repair.profile, repair.pg, repair.blob)
    if item is not None:
        tx.expect(item.key, item.revision)
        if item.key != key:
            tx.delete(item.key)
            tx.expect(key, 0)
    else:
        tx.expect(key, 0)
    tx.put(key, entry)


class DamageQueue:
    """The reader's callback, and the worker of every process that writes the entries."""

    name = "damage"
    exclusive = False

    def __init__(self, store: Store, topology: Topology, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._topology = topology
        self._clock_ms = clock_ms
        self._pending: dict[tuple[str, bytes], Repair] = {}
        self._placed_by: dict[tuple[str, bytes], int] = {}
        self._queued: OrderedDict[tuple[str, bytes, int], int] = OrderedDict()
        self._reported = asyncio.Event()
        self.dropped = 0

    def __call__(self, ref: BlobRef, index: int, reason: str) -> None:
        """Note that shard `index` of a blob is missing or damaged."""
        now = self._clock_ms()
        if now - self._queued.get((ref.profile, ref.blob, index), -REMEMBERED_MS) < REMEMBERED_MS:
            return
        blob = (ref.profile, ref.blob)
        known = self._pending.get(blob)
        if known is not None:
            self._pending[blob] = msgspec.structs.replace(known, lost=union(known.lost, (index,)))
            return
        if len(self._pending) >= PENDING_MAX:
            self.dropped += 1
            return
        try:
            group = self._topology.group_of(ref.profile, ref.blob)
        except UnknownProfile:
            log.warning("a shard of profile %s is damaged, which is not known", ref.profile)
            return
        reason = f"shard {index}: {reason}"
        self._pending[blob] = Repair(
            ref.profile, group.number, ref.blob, reason, now, lost=(index,)
        )
        if not ref.nodes:
            self._placed_by[blob] = group.revision
        self._reported.set()

    async def work(self, claim: Claim) -> bool:
        """Write what was reported."""
        self._reported.clear()
        reported, self._pending = self._pending, {}
        placed_by, self._placed_by = self._placed_by, {}
        if not reported:
            return False
        try:
            repairs = await self._of_the_present(reported, placed_by)
            await queue_repairs(self._store, self._topology, repairs, URGENCY_DAMAGED)
        except (EngineError, OutcomeUnknown):
            self._placed_by |= placed_by
            for blob, repair in reported.items():
                again = self._pending.get(blob)
                self._pending[blob] = joined(repair, again) if again is not None else repair
            raise
        now = self._clock_ms()
        for repair in repairs:
            for index in repair.lost:
                self._queued[repair.profile, repair.blob, index] = now
        while len(self._queued) > REMEMBERED_MAX:
            self._queued.popitem(last=False)
        return bool(self._pending)

    async def _of_the_present(
        self,
        reported: Mapping[tuple[str, bytes], Repair],
        placed_by: Mapping[tuple[str, bytes], int],
    ) -> list[Repair]:
        """Those reports whose placement groups were known as they are. Who looked for a shard where
        it was before a move has not seen that it is lost; the next who looks will."""
        topology = self._topology
        groups = {group.key: group for group in (topology.group_of(*blob) for blob in placed_by)}
        for group in groups.values():
            await topology.reread(group)
        return [
            repair
            for blob, repair in reported.items()
            if placed_by.get(blob, 0) in (0, topology.group_of(*blob).revision)
        ]

    async def wait(self) -> None:
        await self._reported.wait()
