"""Locked versions on the way hide no older one that has had its time, and are not walked over again
each time that a version comes."""

from __future__ import annotations

import msgspec
import pytest

from s3gw.buckets.lifecycle import DAY_MS
from s3gw.metadata import keys
from s3gw.metadata.records import Lock, ObjectRecord, decode
from s3gw.objects.change import change_version
from s3gw.objects.publish import read_target
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.lifecycle import Lifecycle
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import put, set_versioning
from tests.workers.lifecycle_rules import (
    DAY,
    ROUNDED,
    carry_out,
    check,
    put_tagged,
    queue,
    removes,
    rule,
    set_rules,
)
from tests.workers.test_lifecycle_cost import CostingKV

YEAR_MS = 365 * DAY_MS


async def put_locked(process: Process, number: int, until_ms: int) -> None:
    for _ in range(number):
        await put_tagged(process, "k", b"locked", locked_until_ms=until_ms)


async def hold_all(process: Process, sequences: list[int], *, on: bool) -> None:
    for sequence in sequences:
        target = await read_target(process.storage, BUCKET, "k", sequence)
        await change_version(process.storage, target, lambda found: held(found, on=on))


def held(found: ObjectRecord, *, on: bool) -> ObjectRecord:
    description = msgspec.structs.replace(found.description, lock=Lock(legal_hold=on))
    return msgspec.structs.replace(found, description=description)


def sequences(process: Process) -> list[int]:
    """Of the noncurrent versions, newest first."""
    prefix = keys.versions(BUCKET)
    items = sorted(process.cluster.engine.items.items())
    return [decode(ObjectRecord, item.value).sequence for k, item in items if k.startswith(prefix)]


@pytest.mark.parametrize("locked", [17, 60])
async def test_an_older_version_goes_whose_younger_ones_are_locked(
    memory_store: Process, locked: int
) -> None:
    """It had its time while it was one of the versions that stay, like the locked ones."""
    process, now_ms = memory_store, memory_store.storage.clock_ms()
    await set_versioning(process, "Enabled")
    await set_rules(process, rule(removes(1, newer=100)))
    await carry_out(process)
    old = await put(process, "k", b"old")
    await put_locked(process, locked, now_ms + YEAR_MS)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).removed == 0
    assert queue(process) == []
    for _ in range(102):
        await put(process, "k", b"new")
    assert (await carry_out(process)).removed == 1
    assert old.sequence not in sequences(process)
    assert len(sequences(process)) == locked + 101
    unlocked = [due for due, _, _ in queue(process) if due >= now_ms + YEAR_MS]
    # Each of them is looked at when its lock ends; the last one has not had its time.
    assert len(unlocked) == locked - 1
    process.cluster.clock.advance(YEAR_MS / 1000)
    assert (await carry_out(process)).removed == locked + 1
    assert len(sequences(process)) == 100
    check(process)


async def test_an_older_version_goes_behind_ones_under_a_legal_hold(memory_store: Process) -> None:
    process = memory_store
    await set_versioning(process, "Enabled")
    await set_rules(process, rule(removes(1, newer=5)))
    await carry_out(process)
    for number in range(4):
        await put(process, "k", b"%d" % number)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).removed == 0
    for number in range(40):
        await put(process, "k", b"%d" % number)
    newest = sequences(process)[:-4]
    await hold_all(process, newest, on=True)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).removed == 4
    assert sequences(process) == newest
    process.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(process)
    assert (report.removed, report.waiting) == (0, len(newest) - 5)
    await hold_all(process, newest, on=False)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).removed == len(newest) - 5
    assert sequences(process) == newest[:5]


async def test_a_clock_that_is_set_ahead_ends_no_lock(memory_store: Process) -> None:
    clock, ahead_ms, year_s = memory_store.cluster.clock, 0, YEAR_MS / 1000
    memory_store.storage.clock_ms = lambda: clock.ms() + ahead_ms
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1)))
    await put_locked(memory_store, 1, clock.ms() + YEAR_MS)
    await put(memory_store, "k", b"newest")
    worker = Lifecycle(memory_store.storage)
    clock.advance(DAY + ROUNDED)
    ahead_ms = 2 * YEAR_MS
    report = await worker.run_once()
    assert (report.removed, report.waiting, len(sequences(memory_store))) == (0, 1, 1)
    ahead_ms = 0
    clock.advance(year_s)
    assert (await worker.run_once()).removed == 1


async def cost_of_a_version_more(locked: int) -> tuple[int, int]:
    """Calls, and versions decoded or keys asked for, when one version comes before so many locked
    ones that have had their time."""
    cluster = MemoryCluster(8)
    await cluster.found()
    process = await cluster.process()
    await set_versioning(process, "Enabled")
    await set_rules(process, rule(removes(1, newer=2)))
    await carry_out(process)
    await put_locked(process, locked, process.storage.clock_ms() + YEAR_MS)
    cluster.clock.advance(DAY + ROUNDED)
    await carry_out(process)
    await put(process, "k", b"one more")
    cluster.clock.advance(DAY + ROUNDED)
    await carry_out(process)
    kv = CostingKV(cluster.kv(), cluster)
    kv.range_costs_its_size = False
    worker = Lifecycle((await cluster.process(kv, seed=1)).storage)
    while await worker.work(UNCLAIMED):
        pass
    await put(process, "k", b"another")
    kv.calls = kv.keys = 0
    cluster.clock.advance(60)
    while await worker.work(UNCLAIMED):
        pass
    assert worker.actions.total() == 0
    return kv.calls, len(sequences(process))


async def test_locked_versions_are_not_walked_over_again_for_each_that_comes() -> None:
    few, many = await cost_of_a_version_more(30), await cost_of_a_version_more(120)
    assert (few[1], many[1]) == (31, 121)
    assert many[0] == few[0] < 20


async def test_many_locked_versions_behind_a_gap_are_taken_a_commit_at_a_time(
    memory_store: Process,
) -> None:
    """Far behind what goes, where versions are read by the hundred, lie more locked ones than one
    commit holds entries for."""
    old = {"age": "old"}
    tag = "<Filter><Tag><Key>age</Key><Value>old</Value></Tag></Filter>"
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=2), chosen=tag))
    await carry_out(memory_store)
    until_ms = memory_store.storage.clock_ms() + YEAR_MS
    locked = [
        (await put_tagged(memory_store, "k", b"x", old, locked_until_ms=until_ms)).sequence
        for _ in range(140)
    ]
    for tags, number in ((None, 112), (old, 17), (None, 3)):
        for _ in range(number):
            await put_tagged(memory_store, "k", b"x", tags)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    worker = Lifecycle(memory_store.storage)
    while len(sequences(memory_store)) == 140 + 112 + 17 + 2:
        assert await worker.work(UNCLAIMED)
    await worker.run_once()
    assert len(sequences(memory_store)) == 140 + 112 + 2
    ends = [(due, sequence) for due, _, sequence in queue(memory_store) if due >= until_ms]
    assert sorted(sequence for _, sequence in ends) == sorted(locked)
    check(memory_store)
