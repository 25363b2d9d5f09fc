"""What has been in the trash for long enough leaves it: its references are dropped, and the
collector does the rest. The queue `purge/` is ordered by time, so that this costs in proportion to
what is due. A clock that is set ahead empties no trash (`s3gw.objects.steady_clock`).

An entry whose version cannot be let go is put off, and keeps its version's own time in the record:
it is found to have no version when that was restored meanwhile, or let go at last.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Unpack

from s3gw.buckets.lifecycle import DAY_MS
from s3gw.kv.interface import Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.store import Transaction
from s3gw.objects import trash
from s3gw.objects.restore import Emptied, take_away
from s3gw.objects.steady_clock import SteadyClock
from s3gw.objects.storage import Storage
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
    under,
)
from s3gw.workers.due import DueQueue, pause_ms, put_off

log = logging.getLogger(__name__)

ATTEMPTS_MAX = 255


class TrashPurge(PeriodicWorker):
    """The worker. One unit is one batch of what is due."""

    name = "trash"

    def __init__(self, storage: Storage, **timing: Unpack[Timing]) -> None:
        super().__init__(storage, **timing)
        self._queue = DueQueue(storage.store.kv, queue=keys.PURGES)
        self._clock = SteadyClock(storage.clock_ms, storage.monotonic)

    async def work(self, claim: Claim) -> bool:
        return await self._batch(claim, Emptied())

    async def run_once(self, claim: Claim = UNCLAIMED) -> Emptied:
        """Empty the trash of all that is due."""
        report = Emptied()
        self._queue.restart()
        while await self._batch(claim, report):
            pass
        return report

    async def _batch(self, claim: Claim, report: Emptied) -> bool:
        """The next due entries; False at the end of what is due."""
        now_ms = self._clock.now_ms()
        items = await self._queue.next(now_ms)
        try:
            await self._let_go(claim, items, report)
        except SHARED_TROUBLE:
            raise
        except Exception:
            log.info("what is due in the trash is taken one by one", exc_info=True)
            for item in items:
                await self._alone(claim, item, now_ms, report)
        return bool(items)

    async def _let_go(self, claim: Claim, items: Sequence[Item], report: Emptied) -> None:
        record_keys = []
        for item in items:
            _, holder = keys.split_purge(item.key)
            record_keys.append(keys.trashed(*keys.split_object_holder(holder)))
        reading = await self._storage.store.kv.get_many(record_keys)
        found = [trash.of_item(record) for record in reading.items if record is not None]
        await take_away(under(self._storage, claim), found, report)
        for item, record in zip(items, reading.items, strict=True):
            if record is None:
                await self._forget(claim, item)

    async def _forget(self, claim: Claim, item: Item) -> None:
        """Remove an entry without a version: its commit has removed it as well, unless it was put
        off."""
        tx = Transaction()
        tx.expect(item.key, item.revision)
        tx.delete(item.key)
        try:
            await commit(self._storage.store, claim, tx)
        except Conflict:
            log.debug("%r has gone meanwhile", item.key)

    async def _alone(self, claim: Claim, item: Item, now_ms: int, report: Emptied) -> None:
        """One entry, which is put off if that fails."""
        try:
            await self._let_go(claim, [item], report)
        except SHARED_TROUBLE:
            raise
        except Exception:
            log.exception("what is due at %r stays in the trash", item.key)
            attempts = item.value[0] if item.value else 0
            due_ms = now_ms + pause_ms(item.key[len(keys.PURGES) + 8 :], attempts, DAY_MS)
            value = bytes([min(attempts + 1, ATTEMPTS_MAX)])
            store = self._storage.store
            await put_off(store, claim, keys.PURGES, item, due_ms, value)
