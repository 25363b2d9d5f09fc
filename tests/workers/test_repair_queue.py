"""The repair queue and its worker: one entry per blob that knows what is lost, the most endangered
first, throttled, and nothing deleted of what cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from nodes.memory import Fault, MemoryDrive
from nodes.protocol import DriveUnreachable, ShardName
from s3gw.cluster import layouts
from s3gw.cluster.blobs import BlobStore
from s3gw.cluster.ledger import Redundancy, read_ledger
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import Conflict, Item, Page, Put
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Repair, decode, encode
from s3gw.metadata.store import Transaction
from s3gw.objects.references import URGENCY_MISPLACED
from s3gw.workers import on_demand, repair
from s3gw.workers.contract import UNCLAIMED, Claim, ClaimLost
from s3gw.workers.damage import URGENCY_CRITICAL, URGENCY_DAMAGED, DamageQueue, queue_repairs
from s3gw.workers.repair import HOPELESS_RETRY_MS_MAX, RETRY_MS_MAX, RepairWorker
from tests.stores.memory_store import MemoryCluster, Process
from tests.stores.operations import blob_of, delete, get, put
from tests.stores.virtual_time import run_virtual
from tests.workers.moving import REFUSED, World

BIG = bytes(range(256)) * 1000


def entries(cluster: MemoryCluster) -> dict[bytes, Repair]:
    return {
        key: decode(Repair, item.value)
        for key, item in sorted(cluster.engine.items.items())
        if key.startswith(keys.REPAIRS)
    }


def repair_of(process: Process, ref: BlobRef, *lost: int) -> Repair:
    group = process.topology.group_of(ref.profile, ref.blob)
    return Repair(ref.profile, group.number, ref.blob, "found", 1, lost=lost)


async def queue(process: Process, *repairs: Repair, urgency: int = URGENCY_DAMAGED) -> int:
    return await queue_repairs(process.storage.store, process.topology, repairs, urgency)


def place(process: Process, ref: BlobRef, index: int) -> tuple[str, ShardName]:
    _, nodes, group = process.topology.location(ref)
    return nodes[index], ShardName(ref.profile, group.number, ref.blob, index)


def flip(cluster: MemoryCluster, process: Process, ref: BlobRef, *indexes: int) -> None:
    for index in indexes:
        node, name = place(process, ref, index)
        data = bytearray(cluster.drives[node].shards[name])
        data[len(data) // 2] ^= 1
        cluster.drives[node].shards[name] = bytes(data)


def set_live(process: Process, name: str, *, live: bool) -> None:
    node = process.directory.get(name)
    assert node is not None
    node.live = live


async def test_damage_found_later_is_united_with_what_is_known_and_the_rest_is_kept(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    state = msgspec.structs.replace(
        repair_of(memory_store, ref, 3), attempts=4, not_before_ms=9**15, copy=ref
    )
    assert await queue(memory_store, state) == 1
    assert await queue(memory_store, repair_of(memory_store, ref, 3)) == 0
    ((key, entry),) = entries(memory_cluster).items()
    assert entry == state
    # The second lost shard of 4+2: a third might be too many. It moves up and is due at once.
    assert await queue(memory_store, repair_of(memory_store, ref, 1)) == 0
    ((moved, entry),) = entries(memory_cluster).items()
    assert (key[7], moved[7]) == (URGENCY_DAMAGED, URGENCY_CRITICAL)
    assert entry == msgspec.structs.replace(state, lost=(1, 3), not_before_ms=0)
    # Less urgent news does not bring it down again.
    await queue(memory_store, repair_of(memory_store, ref), urgency=URGENCY_MISPLACED)
    assert list(entries(memory_cluster)) == [moved]


async def test_reports_of_one_blob_in_one_batch_are_one_entry(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    assert await queue(memory_store, *(repair_of(memory_store, ref, i) for i in (5, 0, 5))) == 1
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(0, 5)]


async def test_two_processes_that_find_different_damage_at_once_lose_neither(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for number in range(70):
        await put(memory_store, f"k{number}", b"x")
    refs = [await blob_of(memory_store, f"k{number}") for number in range(70)]
    others = [await memory_cluster.process() for _ in range(3)]
    await asyncio.gather(
        *(
            queue(process, *(repair_of(process, ref, index) for ref in refs))
            for index, process in enumerate(others)
        )
    )
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(0, 1, 2)] * 70


async def test_a_reader_that_meets_two_damaged_shards_reports_both(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    flip(memory_cluster, memory_store, ref, 0, 2)
    assert await get(memory_store, "k") == BIG
    await memory_store.damage.work(UNCLAIMED)
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(0, 2)]
    # A third one, found in the ten minutes in which the first two are not reported again.
    flip(memory_cluster, memory_store, ref, 1)
    with pytest.raises(BlobUnreadable):
        await get(memory_store, "k")
    await memory_store.damage.work(UNCLAIMED)
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(0, 1, 2)]


async def test_reports_that_could_not_be_written_are_kept(
    memory_store: Process, memory_cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    damage = DamageQueue(memory_store.storage.store, memory_store.topology, memory_cluster.clock.ms)
    damage(ref, 1, "flipped")
    apply = type(memory_store.storage.store).apply

    async def fails(self: object, tx: Transaction) -> int:
        damage(ref, 4, "flipped, too")  # found while the first is being written
        raise Conflict(None)

    monkeypatch.setattr(type(memory_store.storage.store), "apply", fails)
    with pytest.raises(Conflict):
        await damage.work(UNCLAIMED)
    monkeypatch.setattr(type(memory_store.storage.store), "apply", apply)
    await damage.work(UNCLAIMED)
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(1, 4)]


async def test_the_blob_with_the_fewest_shards_left_comes_first(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"one": 1, "two": 2, "none": 0, "another one": 1}
    refs = {}
    for key, count in losses.items():
        await put(memory_store, key, BIG)
        refs[key] = await blob_of(memory_store, key)
        flip(memory_cluster, memory_store, refs[key], *range(count))
        await queue(memory_store, repair_of(memory_store, refs[key], *range(count)))
    order: list[bytes] = []
    rebuild = BlobStore.rebuild_shard

    async def watched(self: BlobStore, ref: BlobRef, *rest: object) -> bool:
        order.append(ref.blob)
        return await rebuild(self, ref, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(BlobStore, "rebuild_shard", watched)
    monkeypatch.setattr("s3gw.workers.repair.BLOBS_AT_ONCE", 1)
    worker = RepairWorker(memory_store.storage)
    while await worker.work(UNCLAIMED):
        pass
    assert order[:2] == [refs["two"].blob] * 2
    assert set(order[2:]) == {refs["one"].blob, refs["another one"].blob}
    assert entries(memory_cluster) == {}


async def test_what_becomes_critical_does_not_wait_for_the_end_of_a_long_queue(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3gw.workers.repair.BATCH_ENTRIES", 2)
    for number in range(9):
        await put(memory_store, f"k{number}", BIG)
        await queue(
            memory_store, repair_of(memory_store, await blob_of(memory_store, f"k{number}"))
        )
    worker = RepairWorker(memory_store.storage)
    assert await worker.work(UNCLAIMED)
    await put(memory_store, "endangered", BIG)
    ref = await blob_of(memory_store, "endangered")
    flip(memory_cluster, memory_store, ref, 0, 1)
    await queue(memory_store, repair_of(memory_store, ref, 0, 1))
    assert await worker.work(UNCLAIMED)
    left = {entry.blob for entry in entries(memory_cluster).values()}
    assert ref.blob not in left
    assert len(left) >= 5


async def test_an_entry_whose_blob_nobody_holds_goes(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    await queue(memory_store, repair_of(memory_store, ref, 1))
    await delete(memory_store, "k")
    report = await on_demand.repair_all(memory_store.storage)
    assert (report.settled, report.rebuilt) == (1, 0)
    assert entries(memory_cluster) == {}


async def test_an_entry_remembers_damage_on_a_node_that_has_gone_down(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    flip(memory_cluster, memory_store, ref, 1, 4)
    await on_demand.verify_all(memory_store.storage)
    away, _ = place(memory_store, ref, 4)
    set_live(memory_store, away, live=False)
    report = await on_demand.repair_all(memory_store.storage)
    assert (report.rebuilt, report.later) == (1, 1)
    ((_, entry),) = entries(memory_cluster).items()
    assert entry.lost == (4,)
    set_live(memory_store, away, live=True)
    layout = await layouts.current(memory_store.kv)
    ledger = await read_ledger(memory_store.kv, memory_store.directory, layout)
    assert ledger.total(Redundancy.REDUCED).blobs == 1
    memory_cluster.clock.advance(RETRY_MS_MAX / 1000)
    assert not await RepairWorker(memory_store.storage).work(UNCLAIMED)
    assert entries(memory_cluster) == {}


async def test_a_shard_that_is_whole_on_a_node_that_is_down_does_not_keep_an_entry(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    flip(memory_cluster, memory_store, ref, 1)
    await queue(memory_store, repair_of(memory_store, ref, 1))
    set_live(memory_store, place(memory_store, ref, 4)[0], live=False)
    assert (await on_demand.repair_all(memory_store.storage)).settled == 1
    assert entries(memory_cluster) == {}


async def test_damage_found_during_a_repair_is_not_settled_with_it(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    flip(memory_cluster, memory_store, ref, 1)
    await queue(memory_store, repair_of(memory_store, ref, 1))
    rebuild = BlobStore.rebuild_shard

    async def late(self: BlobStore, blob: BlobRef, *rest: object) -> bool:
        done = await rebuild(self, blob, *rest)  # type: ignore[arg-type]
        flip(memory_cluster, memory_store, ref, 3)
        await queue(memory_store, repair_of(memory_store, ref, 3))
        return done

    monkeypatch.setattr(BlobStore, "rebuild_shard", late)
    assert (await on_demand.repair_all(memory_store.storage)).rebuilt == 1
    monkeypatch.setattr(BlobStore, "rebuild_shard", rebuild)
    assert [3 in entry.lost for entry in entries(memory_cluster).values()] == [True]
    assert (await on_demand.repair_all(memory_store.storage)).rebuilt == 1
    assert entries(memory_cluster) == {}


async def test_more_bad_shards_than_parity_delete_nothing_and_the_ledger_says_lost(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    flip(memory_cluster, memory_store, ref, 0, 1, 2)
    before = {name: dict(drive.shards) for name, drive in memory_cluster.drives.items()}
    await on_demand.verify_all(memory_store.storage)
    for _ in range(3):
        assert (await on_demand.repair_all(memory_store.storage)).settled == 0
        await on_demand.merge_all(memory_store.storage)
        memory_cluster.clock.advance(7 * 24 * 3600)
    assert {name: dict(drive.shards) for name, drive in memory_cluster.drives.items()} == before
    assert not any(drive.quarantined for drive in memory_cluster.drives.values())
    layout = await layouts.current(memory_store.kv)
    ledger = await read_ledger(memory_store.kv, memory_store.directory, layout)
    assert ledger.total(Redundancy.LOST).blobs == 1
    with pytest.raises(BlobUnreadable):
        await get(memory_store, "k")


@pytest.mark.parametrize(
    ("away", "pause_ms"), [(False, HOPELESS_RETRY_MS_MAX), (True, RETRY_MS_MAX)]
)
async def test_only_what_all_nodes_have_answered_for_waits_long(
    memory_cluster: MemoryCluster, memory_store: Process, *, away: bool, pause_ms: int
) -> None:
    """Whose shards lie on nodes that are away is looked at soon after these are back."""
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    flip(memory_cluster, memory_store, ref, 0, 1, 2)
    set_live(memory_store, place(memory_store, ref, 3)[0], live=not away)
    await queue(memory_store, repair_of(memory_store, ref, 0, 1, 2))
    for _ in range(10):
        assert (await on_demand.repair_all(memory_store.storage)).later == 1
    ((_, entry),) = entries(memory_cluster).items()
    assert entry.not_before_ms == memory_cluster.clock.ms() + pause_ms


async def test_what_fails_to_be_read_since_nodes_fail_again_does_not_wait_long() -> None:
    """They were away for long, are said to be back, and refuse the first read."""
    world = await World.make(8)
    process = world.process
    world.fail("d0", process)
    for number in range(10):
        await put(process, f"k{number}", BIG)
        if (ref := await blob_of(process, f"k{number}")).nodes:
            break
    world.heal("d0", process)
    for node in ref.nodes[:3]:
        world.set_live(node, live=False)
    for _ in range(10):
        await on_demand.repair_all(process.storage)
    for node in ref.nodes[:3]:
        world.set_live(node, live=True)
        world.drive(node).inject(REFUSED)
    assert (await on_demand.repair_all(process.storage)).unreadable == 1
    ((_, entry),) = entries(world.cluster).items()
    assert entry.not_before_ms == world.cluster.clock.ms() + RETRY_MS_MAX
    for node in ref.nodes[:3]:
        world.heal(node)
    assert (await on_demand.repair_all(process.storage)).moved == 1


async def test_for_a_drive_that_is_full_nothing_is_read(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    flip(memory_cluster, memory_store, ref, 0)
    await queue(memory_store, repair_of(memory_store, ref, 0))
    node = memory_store.directory.get(place(memory_store, ref, 0)[0])
    assert node is not None
    node.full(memory_store.directory.clock())
    taken: list[float] = []

    class Counting(Throttle):
        async def take(self, size: float) -> None:
            taken.append(size)

    worker = RepairWorker(memory_store.storage, throttle=Counting(lambda: 0))
    assert (await worker.run_once()).later == 1
    assert taken == []
    memory_cluster.clock.advance(RETRY_MS_MAX / 1000)
    assert (await worker.run_once()).settled == 1
    assert taken


async def test_for_a_blob_that_cannot_go_home_now_nothing_is_waited_for(
    memory_store: Process,
) -> None:
    """The throttle is that of the rebuild: what cannot be done must not use it up."""
    down = ("d0", "d1", "d2")  # every group has one of them
    for name in down:
        set_live(memory_store, name, live=False)
    await put(memory_store, "k", BIG)
    assert (await blob_of(memory_store, "k")).nodes
    taken: list[float] = []

    class Counting(Throttle):
        async def take(self, count: int, *, before: int = 0) -> None:
            taken.append(count)

    worker = RepairWorker(memory_store.storage, throttle=Counting(lambda: 0))
    assert (await worker.run_once()).later == 1
    assert taken == []
    for name in down:
        set_live(memory_store, name, live=True)
    assert (await worker.run_once()).moved == 1
    assert taken == [2 * len(BIG)]


async def test_bytes_read_and_written_are_throttled(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for number in range(6):
        await put(memory_store, f"k{number}", BIG)
        ref = await blob_of(memory_store, f"k{number}")
        flip(memory_cluster, memory_store, ref, number)
        await queue(memory_store, repair_of(memory_store, ref, number))
    clock = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    throttle = Throttle(lambda: 100_000.0, clock=lambda: clock, sleep=sleep)
    worker = RepairWorker(memory_store.storage, throttle=throttle)
    while await worker.work(UNCLAIMED):
        pass
    assert entries(memory_cluster) == {}
    moved = 6 * (len(BIG) + len(BIG) // 4)
    assert clock >= moved / 100_000 - 1 - (len(BIG) * 1.25) / 100_000


def test_a_node_that_hangs_holds_up_one_repair_until_its_deadline() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(8)
        await cluster.found()
        process = await cluster.process()
        await put(process, "stuck", BIG)
        ref = await blob_of(process, "stuck")
        flip(cluster, process, ref, 0)
        node, _ = place(process, ref, 0)
        await queue(process, repair_of(process, ref, 0))
        cluster.drives[node].inject(Fault(hang=True), "quarantine")
        started = asyncio.get_running_loop().time()
        report = await on_demand.repair_all(process.storage)
        assert asyncio.get_running_loop().time() - started < 200
        assert (report.later, report.settled) == (1, 0)
        cluster.drives[node].heal()
        cluster.clock.advance(60)
        assert (await on_demand.repair_all(process.storage)).settled == 1

    run_virtual(scenario())


async def test_a_target_that_refuses_leaves_the_entry_with_what_is_lost(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    node, name = place(memory_store, ref, 2)
    flip(memory_cluster, memory_store, ref, 2)
    await queue(memory_store, repair_of(memory_store, ref, 2))
    memory_cluster.drives[node].inject(Fault(error=DriveUnreachable("refused")), "append", "write")
    report = await on_demand.repair_all(memory_store.storage)
    assert (report.rebuilt, report.later) == (0, 1)
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(2,)]
    drive: MemoryDrive = memory_cluster.drives[node]
    assert name in drive.quarantined  # set aside, not deleted
    drive.heal()
    memory_cluster.clock.advance(60)
    assert (await on_demand.repair_all(memory_store.storage)).rebuilt == 1
    assert entries(memory_cluster) == {}


async def test_a_long_queue_is_read_group_by_group(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range costs what is in it, whatever its limit: that of the rest of the queue is read once
    for each group, not for each page."""
    monkeypatch.setattr(repair, "BATCH_ENTRIES", 5)
    wanted = set()
    for urgency in (1, 5):
        for number in (0, 3, 255):
            for blob in range(17):
                entry = Repair("4+2", number, bytes([urgency, number, blob]) * 5, "x", 1, 10**15)
                key = keys.repair(urgency, "4+2", number, entry.blob + b"0")
                await memory_store.kv.commit([], [Put(key, encode(entry))])
                wanted.add(key)
    costs: list[int] = []
    seen: list[bytes] = []
    scan = memory_store.kv.scan

    async def counting(start: bytes, end: bytes, *, limit: int, **more: Any) -> Page:
        costs.append(sum(start <= key < end for key in wanted))
        return await scan(start, end, limit=limit, **more)

    worker = RepairWorker(memory_store.storage)

    async def take(claim: Claim, items: Sequence[Item], *_: object, **__: object) -> None:
        seen.extend(item.key for item in items)

    monkeypatch.setattr(memory_store.kv, "scan", counting)
    monkeypatch.setattr(worker, "_take", take)
    await worker.run_once()
    assert seen == sorted(wanted)
    assert sum(cost > 17 for cost in costs) == 5
    seen.clear()
    await worker.run_once()
    assert seen == sorted(wanted)


async def test_when_the_lock_is_lost_no_repair_goes_on(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process works on the same entries by then."""
    for number in range(6):
        await put(memory_store, f"k{number}", BIG)
        ref = await blob_of(memory_store, f"k{number}")
        await queue(memory_store, repair_of(memory_store, ref, 0))
    under_way = begun = 0

    async def run(job: object, entry: object) -> bool:
        nonlocal under_way, begun
        begun += 1
        under_way += 1
        try:
            if begun == 4:
                raise ClaimLost("lock/repair")
            for _ in range(10):
                await asyncio.sleep(0)
        finally:
            under_way -= 1
        return True

    monkeypatch.setattr(repair._BlobRepair, "run", run)
    with pytest.raises(ClaimLost):
        await RepairWorker(memory_store.storage).run_once()
    assert (begun, under_way) == (4, 0), "none is begun, and none is left running"
