"""What readers find damaged, on its way into the repair queue.

A reader must not wait for the queue: it calls, and goes on. Each blob is queued once; when more
blobs than fit are reported at a time the rest is dropped, since shard verification finds it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from s3gw.cluster.topology import Topology, UnknownProfile
from s3gw.kv.interface import Conflict, EngineError
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Repair
from s3gw.metadata.store import OutcomeUnknown, Store, Transaction
from s3gw.workers.contract import Claim

log = logging.getLogger(__name__)

URGENCY_DAMAGED = 2
PENDING_MAX = 1024
REMEMBERED_MAX = 4096
REMEMBERED_MS = 10 * 60 * 1000
ENTRIES_PER_COMMIT = 50


async def queue_repairs(store: Store, repairs: list[Repair], urgency: int) -> int:
    """Queue blobs for repair that are not queued yet; how many were new.

    An entry that is there stays as it is: it may carry the state of a repair in progress.
    """
    added = 0
    for first in range(0, len(repairs), ENTRIES_PER_COMMIT):
        chunk = {
            keys.repair(urgency, repair.profile, repair.pg, repair.blob): repair
            for repair in repairs[first : first + ENTRIES_PER_COMMIT]
        }
        items = (await store.kv.get_many(list(chunk))).items
        tx = Transaction()
        for (key, repair), item in zip(chunk.items(), items, strict=True):
            if item is None:
                tx.expect(key, 0)
                tx.put(key, repair)
        if tx.writes:
            await store.apply(tx)
            added += len(tx.writes)
    return added


class DamageQueue:
    """The reader's callback, and the worker of every process that writes the entries."""

    name = "damage"
    exclusive = False

    def __init__(self, store: Store, topology: Topology, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._topology = topology
        self._clock_ms = clock_ms
        self._pending: dict[tuple[str, bytes], Repair] = {}
        self._queued: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        self._reported = asyncio.Event()
        self.dropped = 0

    def __call__(self, ref: BlobRef, index: int, reason: str) -> None:
        """Note that shard `index` of a blob is missing or damaged."""
        blob = (ref.profile, ref.blob)
        now = self._clock_ms()
        if blob in self._pending or now - self._queued.get(blob, -REMEMBERED_MS) < REMEMBERED_MS:
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
        self._pending[blob] = Repair(ref.profile, group.number, ref.blob, reason, now)
        self._reported.set()

    async def work(self, claim: Claim) -> bool:
        """Write what was reported."""
        self._reported.clear()
        reported, self._pending = self._pending, {}
        if not reported:
            return False
        try:
            await queue_repairs(self._store, list(reported.values()), URGENCY_DAMAGED)
        except (Conflict, EngineError, OutcomeUnknown):
            self._pending = reported | self._pending
            raise
        now = self._clock_ms()
        for blob in reported:
            self._queued[blob] = now
        while len(self._queued) > REMEMBERED_MAX:
            self._queued.popitem(last=False)
        return bool(self._pending)

    async def wait(self) -> None:
        await self._reported.wait()
