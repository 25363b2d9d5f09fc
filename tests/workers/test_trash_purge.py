"""What is due in the trash is read at a cost in proportion to it, by a clock that does not jump."""

from __future__ import annotations

import pytest

from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord, Description, ObjectRecord
from s3gw.metadata.store import Transaction
from s3gw.objects import trash
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.trash import TrashPurge
from tests.stores import operations
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.workers.test_lifecycle_cost import CostingKV

DAY = 86_400.0


async def fill(process: Process, entries: int) -> None:
    """So many versions in the trash, as 300 deletes in a second leave them."""
    found = await process.storage.store.get(BucketRecord, keys.bucket(BUCKET))
    assert found.record is not None
    for first in range(0, entries, 30):
        tx = Transaction()
        for number in range(first, min(first + 30, entries)):
            one = ObjectRecord(
                number + 1, process.storage.clock_ms(), "owner", 1, "e", None, Description()
            )
            trash.put(process.storage, tx, BUCKET, found.record, f"k{number:06}", one)
        await process.storage.store.apply(tx)
        process.cluster.clock.advance(0.1)


async def cost(entries: int) -> int:
    """Keys read by the purge of so many versions that are due together."""
    cluster = MemoryCluster(8)
    await cluster.found()
    process = await cluster.process()
    await operations.set_trash(process, DAY)
    await fill(process, entries)
    cluster.clock.advance(DAY + 1)
    kv = CostingKV(cluster.kv(), cluster)
    report = await TrashPurge((await cluster.process(kv, seed=1)).storage).run_once()
    assert report.objects == entries
    assert not [key for key in cluster.engine.items if key.startswith(keys.PURGES)]
    return kv.keys


async def test_what_falls_due_together_is_not_read_over_and_over() -> None:
    assert await cost(3000) < 12 * await cost(300)


async def test_entries_that_come_behind_what_was_read_are_found(memory_store: Process) -> None:
    await operations.set_trash(memory_store, DAY)
    worker = TrashPurge(memory_store.storage)
    memory_store.cluster.clock.advance(5 * DAY)
    assert not await worker.work(UNCLAIMED)
    await operations.put(memory_store, "k", b"data")
    await operations.set_trash(memory_store, 0.001)
    await operations.delete(memory_store, "k")
    memory_store.cluster.clock.advance(1)
    assert await worker.work(UNCLAIMED)
    assert not (await trash.list_trash(memory_store.storage, BUCKET, "", most=1))[0]


async def test_a_clock_that_is_set_ahead_empties_no_trash(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await operations.set_trash(memory_store, 7 * DAY)
    await operations.put(memory_store, "k", b"data")
    await operations.delete(memory_store, "k")
    worker = TrashPurge(memory_store.storage)
    right = memory_store.storage.clock_ms
    ahead_ms = int(30 * DAY * 1000)
    monkeypatch.setattr(memory_store.storage, "clock_ms", lambda: right() + ahead_ms)
    assert not await worker.work(UNCLAIMED)
    memory_store.cluster.clock.advance(1800)
    assert not await worker.work(UNCLAIMED)
    monkeypatch.undo()
    memory_store.cluster.clock.advance(1800)
    assert not await worker.work(UNCLAIMED)
    assert (await trash.list_trash(memory_store.storage, BUCKET, "", most=1))[0]
    memory_store.cluster.clock.advance(7 * DAY)
    assert await worker.work(UNCLAIMED)
    assert not (await trash.list_trash(memory_store.storage, BUCKET, "", most=1))[0]
