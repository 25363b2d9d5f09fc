"""The scrub: its schedule and throttle, its place that survives restarts, what it finds and what
is no damage."""

from __future__ import annotations

import pytest

from nodes.memory import Fault, MemoryDrive
from nodes.protocol import DriveUnreachable, ShardName, Verdict
from s3gw.cluster.ledger import read_scrub
from s3gw.cluster.tunables import LiveTunables, Throttle
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import PgRecord, Repair, Slot, decode, encode
from s3gw.metadata.store import Transaction
from s3gw.workers import on_demand, verify
from s3gw.workers.contract import UNCLAIMED, Claim, ClaimLost, commit
from s3gw.workers.verify import ShardVerifier
from tests.stores.memory_store import MemoryCluster, Process
from tests.stores.operations import blob_of, delete, get, put

BIG = bytes(range(256)) * 1000
GROUPS = 16
WEEK = 7 * 24 * 3600.0


async def no_sleep(seconds: float) -> None:
    """Waits are the test's."""


def entries(cluster: MemoryCluster) -> list[Repair]:
    return [
        decode(Repair, item.value)
        for key, item in cluster.engine.items.items()
        if key.startswith(keys.REPAIRS)
    ]


async def place(process: Process, key: str, index: int) -> tuple[str, ShardName]:
    """The node and name of a shard of an object."""
    ref = await blob_of(process, key)
    _, nodes, group = process.topology.location(ref)
    return nodes[index], ShardName(ref.profile, group.number, ref.blob, index)


def flip(cluster: MemoryCluster, node: str, name: ShardName) -> None:
    data = bytearray(cluster.drives[node].shards[name])
    data[len(data) // 2] ^= 1
    cluster.drives[node].shards[name] = bytes(data)


async def run_due(worker: ShardVerifier) -> int:
    """All units that are due."""
    units = 0
    while await worker.work(UNCLAIMED):
        units += 1
    return units


async def test_a_round_is_paced_evenly_over_the_interval(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    worker = ShardVerifier(memory_store.storage, interval_seconds=lambda: WEEK, sleep=sleep)
    started_ms = memory_cluster.clock.ms()
    for number in range(GROUPS):
        assert await run_due(worker) == 1, number
        await worker.wait()
        if number < GROUPS - 1:
            memory_cluster.clock.advance(WEEK / GROUPS)
    assert waits == [verify.WAIT_SECONDS_MAX] * (GROUPS - 1) + [verify.WAIT_SECONDS_MIN]
    state = await read_scrub(memory_store.kv)
    assert state.current.started_ms == 0
    assert (state.last_round.started_ms, state.last_round.groups) == (started_ms, GROUPS)
    assert state.last_round.finished_ms == memory_cluster.clock.ms()
    # The next one begins an interval after this one began.
    assert await run_due(worker) == 0
    memory_cluster.clock.advance(WEEK / GROUPS)
    assert await run_due(worker) == 1


async def test_what_was_missed_is_made_up_for_and_a_shorter_interval_takes_effect_at_once(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    interval = WEEK
    worker = ShardVerifier(memory_store.storage, interval_seconds=lambda: interval)
    assert await run_due(worker) == 1
    memory_cluster.clock.advance(WEEK / 2)
    assert await run_due(worker) == GROUPS // 2
    interval = WEEK / 2
    assert await run_due(worker) == GROUPS // 2 - 1
    state = await read_scrub(memory_store.kv)
    assert state.last_round.groups == GROUPS


async def test_a_clock_that_was_set_back_holds_nothing_up(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    worker = ShardVerifier(memory_store.storage, interval_seconds=lambda: WEEK)
    assert await run_due(worker) == 1
    memory_cluster.clock.advance(-3 * WEEK)
    assert await worker.work(UNCLAIMED)


async def test_a_round_goes_on_in_another_process_where_it_was(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for number in range(12):
        await put(memory_store, f"k{number}", BIG)
    node, name = await place(memory_store, "k3", 1)
    flip(memory_cluster, node, name)
    verified: list[ShardName] = []

    def watched(process: Process) -> ShardVerifier:
        for drive in memory_cluster.drives.values():
            drive.calls.clear()
        return ShardVerifier(process.storage)

    more = True
    while more:
        process = await memory_cluster.process()
        more = await watched(process).work(UNCLAIMED)
        verified += [
            shard
            for drive in memory_cluster.drives.values()
            for call, shard in drive.calls
            if call == "verify" and shard is not None
        ]
    assert len(verified) == len(set(verified)) == 12 * 6
    done = (await read_scrub(memory_store.kv)).last_round
    assert (done.groups, done.shards, done.damaged, done.missing) == (GROUPS, 72, 1, 0)
    sizes = [
        len(data) for drive in memory_cluster.drives.values() for data in drive.shards.values()
    ]
    assert done.bytes == sum(sizes)


async def test_a_group_is_done_in_pieces(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the runner looks at the lock, and at a stop, in between."""
    monkeypatch.setattr(verify, "UNIT_SHARDS", 4)
    await put(memory_store, "k", BIG)
    assert await run_due(ShardVerifier(memory_store.storage)) == GROUPS + 1
    assert (await read_scrub(memory_store.kv)).last_round.shards == 6
    # Who takes over begins the group again, and counts it once.
    worker, units = ShardVerifier(memory_store.storage), 0
    while await worker.work(UNCLAIMED):
        units += 1
        if worker._group is not None:
            worker = ShardVerifier(memory_store.storage)
            monkeypatch.setattr(verify, "UNIT_SHARDS", 6)
    assert units == GROUPS + 1
    assert (await read_scrub(memory_store.kv)).last_round.shards == 6


async def test_nothing_is_noted_without_the_lock(memory_store: Process) -> None:
    key = keys.lock("verify")
    mine = await memory_store.kv.commit([], [Put(key, b"mine")])
    worker = ShardVerifier(memory_store.storage)
    assert await worker.work(Claim(key, mine))
    before = await read_scrub(memory_store.kv)
    await memory_store.kv.commit([], [Put(key, b"theirs")])
    with pytest.raises(ClaimLost):
        await worker.work(Claim(key, mine))
    assert await read_scrub(memory_store.kv) == before


async def test_bytes_are_throttled_by_the_tunable_which_changes_at_once(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for number in range(8):
        await put(memory_store, f"k{number}", BIG)
    total = sum(len(d) for drive in memory_cluster.drives.values() for d in drive.shards.values())
    tunables = LiveTunables(memory_store.kv)
    clock = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    throttle = Throttle(
        lambda: tunables.current.scrub_bytes_per_second, clock=lambda: clock, sleep=sleep
    )
    worker = ShardVerifier(memory_store.storage, throttle=throttle)
    await tunables.change({"scrub_bytes_per_second": 10_000})
    await run_due(worker)
    # What one shard may borrow, and the burst.
    slack = (
        1.0 + max(len(d) for v in memory_cluster.drives.values() for d in v.shards.values()) / 1e4
    )
    assert total / 10_000 - 2 * slack < clock <= total / 10_000 + slack
    clock = 1e6
    await tunables.change({"scrub_bytes_per_second": 0})
    await run_due(worker)
    assert clock == 1e6


async def test_a_shard_file_that_someone_deleted_is_found_and_put_back(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "large", BIG)
    await put(memory_store, "small", b"x")
    gone = {}
    for key, index in (("large", 0), ("large", 4), ("small", 1)):
        node, name = await place(memory_store, key, index)
        gone[node, name] = memory_cluster.drives[node].shards.pop(name)
    worker = ShardVerifier(memory_store.storage)
    await run_due(worker)
    assert sorted(entry.lost for entry in entries(memory_cluster)) == [(0, 4), (1,)]
    assert (await read_scrub(memory_store.kv)).last_round.missing == 3
    assert (await on_demand.repair_all(memory_store.storage)).rebuilt == 3
    for (node, name), data in gone.items():
        assert memory_cluster.drives[node].shards[name] == data
    assert entries(memory_cluster) == []


async def test_shards_removed_meanwhile_are_no_damage(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(memory_store, "k", BIG)
    original = MemoryDrive.verify
    calls = 0

    async def verify_late(self: MemoryDrive, name: ShardName) -> Verdict:
        """The object is deleted and collected while its shards are looked at."""
        nonlocal calls
        calls += 1
        if calls == 1:
            await delete(memory_store, "k")
            memory_cluster.clock.advance(3600)
            await on_demand.collect_garbage(memory_store.storage)
        return await original(self, name)

    monkeypatch.setattr(MemoryDrive, "verify", verify_late)
    report = await on_demand.verify_all(memory_store.storage)
    assert calls == 6
    assert (report.damaged, report.missing, report.queued) == (0, 0, 0)


async def test_what_nothing_refers_to_is_not_looked_at(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    node, name = await place(memory_store, "k", 2)
    spare = next(d for d in memory_cluster.drives if name not in memory_cluster.drives[d].shards)
    memory_cluster.drives[spare].shards[name] = b"a surplus copy, damaged"
    orphan = ShardName(name.profile, name.pg, bytes(16), 0)
    memory_cluster.drives[node].shards[orphan] = b"an orphan"
    report = await on_demand.verify_all(memory_store.storage)
    assert (report.shards, report.damaged, report.missing) == (6, 0, 0)
    await delete(memory_store, "k")
    flip(memory_cluster, node, name)
    assert (await on_demand.verify_all(memory_store.storage)).shards == 0
    assert entries(memory_cluster) == []


async def test_a_node_that_cannot_be_asked_is_no_damage_either(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    node, _ = await place(memory_store, "k", 0)
    memory_cluster.drives[node].inject(Fault(error=DriveUnreachable("reset")), "verify")
    report = await on_demand.verify_all(memory_store.storage)
    assert (report.shards, report.unanswered, report.damaged) == (5, 1, 0)
    memory_cluster.drives[node].inject(Fault(error=DriveUnreachable("refused")), "list")
    report = await on_demand.verify_all(memory_store.storage)
    assert (report.missing, report.unlisted) == (0, {node})


async def test_a_slot_that_is_being_moved_is_the_movers(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    node, name = await place(memory_store, "k", 0)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    spare = next(d for d in memory_cluster.drives if d not in group.nodes)
    moving = PgRecord(2, (Slot(spare, (node,)), *group.record.slots[1:]))
    await memory_store.kv.commit([], [Put(group.key, encode(moving))])
    report = await on_demand.verify_all(memory_store.storage)
    assert (report.shards, report.missing) == (6, 0)
    flip(memory_cluster, node, name)
    assert (await on_demand.verify_all(memory_store.storage)).damaged == 1
    await on_demand.repair_all(memory_store.storage)
    assert name in memory_cluster.drives[spare].shards
    assert entries(memory_cluster) == []


async def test_one_damaged_shard_that_a_get_meets_is_repaired_without_a_scrub(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    """The workers run as in a gateway: the queue is written, and looked at again."""
    from s3gw.workers.repair import RepairWorker

    await put(memory_store, "k", BIG)
    node, name = await place(memory_store, "k", 1)
    whole = memory_cluster.drives[node].shards[name]
    flip(memory_cluster, node, name)
    assert await get(memory_store, "k") == BIG
    await memory_store.damage.wait()
    await memory_store.damage.work(UNCLAIMED)
    assert [entry.lost for entry in entries(memory_cluster)] == [(1,)]
    await RepairWorker(memory_store.storage, sleep=no_sleep).work(UNCLAIMED)
    assert memory_cluster.drives[node].shards[name] == whole
    assert entries(memory_cluster) == []


async def test_a_run_on_demand_counts_as_the_last_round_and_leaves_the_present_one_alone(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    worker = ShardVerifier(memory_store.storage, interval_seconds=lambda: WEEK)
    assert await run_due(worker) == 1
    current = (await read_scrub(memory_store.kv)).current
    memory_cluster.clock.advance(60)
    await on_demand.verify_all(memory_store.storage)
    state = await read_scrub(memory_store.kv)
    assert state.current == current
    assert (state.last_round.groups, state.last_round.shards) == (GROUPS, 6)
    assert state.last_round.started_ms == memory_cluster.clock.ms()


async def test_two_records_of_the_scrub_at_once_lose_nothing(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    """A run on demand that ends while a group is noted: both are in the record."""
    worker = ShardVerifier(memory_store.storage)
    passed = worker._walk.passed

    async def late(claim: Claim, group: object, tx: Transaction | None = None) -> None:
        worker._walk.passed = passed  # type: ignore[method-assign]
        await on_demand.verify_all(memory_store.storage)
        await passed(claim, group, tx)  # type: ignore[arg-type]

    worker._walk.passed = late  # type: ignore[method-assign,assignment]
    assert await worker.work(UNCLAIMED)
    state = await read_scrub(memory_store.kv)
    assert (state.current.groups, state.last_round.groups) == (1, GROUPS)
    tx = Transaction()
    tx.delete(keys.SCRUB)
    await commit(memory_store.storage.store, UNCLAIMED, tx)
