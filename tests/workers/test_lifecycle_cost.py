"""What a round over the queue costs follows from what is due, not from what exists, also where a
read costs as much as there is in its range."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import pytest

from s3gw.buckets.lifecycle import DAY_MS
from s3gw.kv.interface import KV, Key, Page, Reading
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord, Description, ObjectRecord
from s3gw.metadata.store import Transaction
from s3gw.objects import lifecycle
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.due import DueQueue
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from tests.stores.crashing_kv import CrashingKV, Fuse
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.workers.lifecycle_rules import DAY, ROUNDED, expires, queue, rule, set_rules

DUE = 10
RULES = (
    rule(expires(1), chosen="<Prefix>due/</Prefix>", id_="soon"),
    rule(expires(1000), chosen="<Prefix>stays/</Prefix>", id_="late"),
)


class CostingKV(CrashingKV):
    """Counts calls, and keys read: of a scan all that are in its range, as etcd does."""

    range_costs_its_size = True

    def __init__(self, kv: KV, cluster: MemoryCluster) -> None:
        super().__init__(kv, Fuse())
        self._cluster = cluster
        self.calls = 0
        self.keys = 0

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        self.calls += 1
        self.keys += len(keys)
        return await super().get_many(keys)

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        names = sorted(self._cluster.engine.items)
        self.calls += 1
        self.keys += 1 + bisect.bisect_left(names, end) - bisect.bisect_left(names, start)
        return await super().scan(start, end, limit=limit, revision=revision, keys_only=keys_only)


async def fill(process: Process, stay: int) -> None:
    """So many objects that stay, and DUE that are due tomorrow, as puts would leave them."""
    found = await process.storage.store.get(BucketRecord, keys.bucket(BUCKET))
    assert found.record is not None
    names = [f"stays/{number:06}" for number in range(stay)]
    names += [f"due/{number}" for number in range(DUE)]
    for first in range(0, len(names), 40):
        tx = Transaction()
        for sequence, name in enumerate(names[first : first + 40], first + 1):
            one = ObjectRecord(
                sequence, process.storage.clock_ms(), "owner", 1, "e", None, Description()
            )
            process.storage.store.put_listed(tx, keys.object_(BUCKET, name), one)
            lifecycle.schedule(process.storage, tx, BUCKET, found.record, name, one)
        await process.storage.store.apply(tx)


async def cost_of_a_day(stay: int) -> tuple[int, int]:
    """Calls and keys read by the rounds of the day on which DUE objects are due."""
    cluster = MemoryCluster(8)
    await cluster.found()
    process = await cluster.process()
    await set_rules(process, *RULES)
    await LifecycleWalk(process.storage).run_once()
    await fill(process, stay)
    kv = CostingKV(cluster.kv(), cluster)
    measured = await cluster.process(kv, seed=1)
    worker = Lifecycle(measured.storage)
    while await worker.work(UNCLAIMED):
        pass
    kv.calls = kv.keys = 0
    cluster.clock.advance(DAY + ROUNDED)
    while await worker.work(UNCLAIMED):
        pass
    assert worker.actions["removed"] == DUE
    assert len(queue(process)) == stay
    return kv.calls, kv.keys


async def test_a_round_costs_what_is_due_and_not_what_exists() -> None:
    few = await cost_of_a_day(100)
    many = await cost_of_a_day(10_000)
    assert many == few
    assert many[1] < 40 * DUE


async def test_a_round_without_anything_due_costs_next_to_nothing() -> None:
    cluster = MemoryCluster(8)
    await cluster.found()
    process = await cluster.process()
    await set_rules(process, *RULES)
    await fill(process, 1000)
    kv = CostingKV(cluster.kv(), cluster)
    worker = Lifecycle((await cluster.process(kv, seed=1)).storage)
    kv.calls = kv.keys = 0
    cluster.clock.advance(60)
    while await worker.work(UNCLAIMED):  # the first time it looks for what others have put off
        pass
    assert kv.calls <= 8
    assert kv.keys <= 8


async def test_a_bucket_without_rules_queues_nothing(memory_store: Process) -> None:
    await fill(memory_store, 10)
    assert queue(memory_store) == []


@pytest.mark.parametrize("spread_ms", [0, 3, 1000, 3_600_000, DAY_MS])
async def test_the_queue_is_read_in_order_and_whole(memory_store: Process, spread_ms: int) -> None:
    """Whatever lies close together or far apart, is added behind, or comes later."""
    process, base = memory_store, memory_store.storage.clock_ms()
    times = [base + number * spread_ms for number in range(250)]
    times += [base + 250 * spread_ms + 10 * DAY_MS]

    async def add(due_ms: int, sequence: int) -> None:
        tx = Transaction()
        key = keys.due(due_ms, b"b" * 16, keys.due_version("k", sequence))
        tx.put(key, BucketRecord(0, "", "", "", b""))
        await process.storage.store.apply(tx)

    for sequence, due_ms in enumerate(times, 1):
        await add(due_ms, sequence)
    reader = DueQueue(process.kv, batch=7)

    async def round_at(now_ms: int) -> list[int]:
        found: list[int] = []
        while items := await reader.next(now_ms):
            found += [keys.split_subject(keys.split_due(item.key)[2])[1] for item in items]
        return found

    assert await round_at(base - 1) == []
    half = times[125]
    expected = [number for number, due in enumerate(times, 1) if due <= half]
    assert await round_at(half) == expected
    assert await round_at(times[-1]) == list(range(1, 252))
    await add(base - 5, 1000)
    assert (await round_at(times[-1]))[0] == 1000
