"""Records that answer retries are removed at a cost in proportion to them."""

from __future__ import annotations

import msgspec
import pytest

from s3gw.metadata import keys
from s3gw.metadata.records import RenamedRecord
from s3gw.metadata.store import Transaction
from s3gw.workers.completed import CompletedExpiry
from tests.stores import operations
from tests.stores.memory_store import MemoryCluster, Process
from tests.workers.test_lifecycle_cost import CostingKV

DAY = 86_400.0


async def fill(process: Process, records: int) -> None:
    expires_ms = process.storage.clock_ms() + 1
    for first in range(0, records, 100):
        tx = Transaction()
        for number in range(first, first + 100):
            key = keys.renamed(b"b" * 16, number.to_bytes(16, "big"))
            process.storage.store.put_listed(tx, key, RenamedRecord(b"", expires_ms))
        await process.storage.store.apply(tx)


async def cost(records: int) -> int:
    """Keys read by one run over so many records, which all stay."""
    cluster = MemoryCluster(8)
    await cluster.found()
    assert cluster.identity is not None
    # Where fences lie, and with them what a read costs, follows from the secret: always the same.
    cluster.identity = msgspec.structs.replace(cluster.identity, fence_secret=bytes(32))
    process = await cluster.process()
    await fill(process, records)
    kv = CostingKV(cluster.kv(), cluster)
    worker = CompletedExpiry((await cluster.process(kv, seed=1)).storage)
    kv.keys = 0
    report = await worker.run_once()
    assert (report.seen, report.removed) == (records, 0)
    spent = kv.keys
    cluster.clock.advance(DAY)
    report = await worker.run_once()
    assert (report.seen, report.removed) == (records, records)
    assert not [key for key in cluster.engine.items if key.startswith(keys.RENAMED)]
    assert not [key for key in cluster.engine.items if key.startswith(keys.fence(keys.RENAMED))]
    return spent


async def test_a_run_costs_what_is_there_and_not_its_square() -> None:
    for records in (3000, 30_000):
        assert await cost(records) < 3 * records


async def test_a_rename_leaves_a_record_with_the_fence_that_it_carries(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which records carry one follows from a random secret: of so many some do.
    monkeypatch.setattr(keys, "FENCE_INTERVAL", 100)
    await operations.put(memory_store, "k0", b"data")
    for number in range(3000):
        token = number.to_bytes(16, "big")
        await operations.rename(memory_store, f"k{number % 2}", f"k{(number + 1) % 2}", token)
    items = memory_store.cluster.engine.items
    secret = memory_store.storage.store.identity.fence_secret
    fenced = {keys.fence(key) for key in items if keys.carries_fence(key, secret)}
    kept = {key for key in items if key.startswith(keys.fence(keys.RENAMED))}
    assert kept
    assert kept == {key for key in fenced if key.startswith(keys.fence(keys.RENAMED))}
    memory_store.cluster.clock.advance(DAY + 1)
    await CompletedExpiry(memory_store.storage).run_once()
    assert not [key for key in items if key.startswith(keys.fence(keys.RENAMED))]
