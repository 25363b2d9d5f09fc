"""The collector on its own: what it removes, what it waits for, what it leaves alone."""

from __future__ import annotations

import msgspec
import pytest

from nodes.memory import Fault, MemoryDrive
from nodes.pg_revisions import SEAL
from nodes.protocol import DriveUnreachable, ShardName, StalePgRevision
from s3gw import limits
from s3gw.kv.interface import Delete, Put
from s3gw.metadata import keys
from s3gw.metadata.records import Garbage, PgRecord, Slot, decode, encode
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.garbage import RETRY_MS, Entry, GarbageCollector, GarbageReport
from tests.rescue.test_everything import CostlyKV
from tests.stores.audit import Audit
from tests.stores.memory_store import GARBAGE_AFTER_MS, MemoryCluster, Process
from tests.stores.operations import (
    abort,
    blob_of,
    complete,
    copy,
    delete,
    get,
    part,
    put,
    start,
)

AN_HOUR = GARBAGE_AFTER_MS / 1000


@pytest.fixture
def collector(memory_store: Process) -> GarbageCollector:
    return GarbageCollector(memory_store.storage)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


def shards(cluster: MemoryCluster) -> int:
    return sum(len(drive.shards) for drive in cluster.drives.values())


async def test_a_deleted_blob_goes_after_an_hour_and_not_before(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await put(memory_store, "k", b"x" * 200_000)
    await delete(memory_store, "k")
    memory_cluster.clock.advance(AN_HOUR - 1)
    assert (await collector.run_once()).entries == 0
    assert shards(memory_cluster) == 6
    memory_cluster.clock.advance(1)
    report = await collector.run_once()
    assert (report.entries, report.blobs) == (1, 1)
    assert shards(memory_cluster) == 0
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_a_blob_lives_as_long_as_its_last_copy(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await put(memory_store, "a", b"x" * 200_000)
    await copy(memory_store, "a", "b")
    await delete(memory_store, "a")
    memory_cluster.clock.advance(AN_HOUR)
    report = await collector.run_once()
    assert (report.entries, report.blobs) == (1, 0)
    assert await get(memory_store, "b") == b"x" * 200_000
    Audit(memory_cluster, memory_store).check_at_rest()
    await delete(memory_store, "b")
    memory_cluster.clock.advance(AN_HOUR)
    assert (await collector.run_once()).blobs == 1
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_two_references_that_fall_due_together_leave_nothing_behind(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await put(memory_store, "a", b"x" * 1000)
    await copy(memory_store, "a", "b")
    await delete(memory_store, "a")
    await delete(memory_store, "b")
    memory_cluster.clock.advance(AN_HOUR)
    report = await collector.run_once()
    assert (report.entries, report.blobs) == (2, 1)
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_a_node_that_is_down_keeps_only_its_own_entries_waiting(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    for number in range(8):
        await put(memory_store, f"k{number}", bytes(1000))
    down = (memory_store.topology.location(await blob_of(memory_store, "k0")))[1][0]
    for number in range(8):
        await delete(memory_store, f"k{number}")
    memory_cluster.drives[down].inject(Fault(error=DriveUnreachable("refused")))
    memory_cluster.clock.advance(AN_HOUR)
    report = await collector.run_once()
    assert report.waiting >= 1
    assert report.waiting + report.blobs == 8
    Audit(memory_cluster, memory_store).check_counts()
    memory_cluster.drives[down].heal()
    memory_cluster.clock.advance(2 * RETRY_MS / 1000)
    assert (await collector.run_once()).blobs == report.waiting
    Audit(memory_cluster, memory_store).check_at_rest()


def set_live(process: Process, name: str, *, live: bool) -> None:
    node = process.directory.get(name)
    assert node is not None
    node.live = live


async def settle(collector: GarbageCollector) -> None:
    while await collector.work(UNCLAIMED):
        pass


async def waiting(process: Process, down: str) -> list[str]:
    """Deletes objects, of which these keep shards on a node that is down."""
    kept = []
    for number in range(8):
        await put(process, f"k{number}", bytes(1000))
        _, nodes, _ = process.topology.location(await blob_of(process, f"k{number}"))
        kept += [f"k{number}"] if down in nodes else []
    set_live(process, down, live=False)
    for number in range(8):
        await delete(process, f"k{number}")
    return kept


async def test_what_waits_for_a_node_is_put_off_further_each_time(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    kept = await waiting(memory_store, "d0")
    assert kept
    memory_cluster.clock.advance(AN_HOUR)
    days = 7
    before = memory_cluster.engine.revision
    for _ in range(days * 24 * 6):
        await settle(collector)
        memory_cluster.clock.advance(600)
    written = memory_cluster.engine.revision - before
    assert len(kept) < written < len(kept) * (6 + days * 6)  # 1000 each, every ten minutes
    Audit(memory_cluster, memory_store).check_counts()


@pytest.mark.parametrize("taken_over", [False, True])
async def test_what_waited_long_goes_at_once_when_its_node_is_back(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    collector: GarbageCollector,
    *,
    taken_over: bool,
) -> None:
    kept = await waiting(memory_store, "d0")
    memory_cluster.clock.advance(AN_HOUR)
    for _ in range(24 * 6):
        await settle(collector)
        memory_cluster.clock.advance(600)
    await put(memory_store, "fresh", bytes(1000))
    await delete(memory_store, "fresh")
    assert shards(memory_cluster) == len(kept) + 3
    if taken_over:
        other = await memory_cluster.process(seed=1)
        await settle(GarbageCollector(other.storage))
    else:
        set_live(memory_store, "d0", live=True)
        await settle(collector)
    assert shards(memory_cluster) == 3, "what readers may still want has its hour"
    memory_cluster.clock.advance(AN_HOUR)
    await collector.run_once()
    set_live(memory_store, "d0", live=True)
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_what_waits_for_another_node_stays_as_it_is(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await waiting(memory_store, "d0")
    set_live(memory_store, "d1", live=False)
    memory_cluster.clock.advance(AN_HOUR)
    for _ in range(24 * 6):
        await settle(collector)
        memory_cluster.clock.advance(600)
    set_live(memory_store, "d1", live=True)
    await settle(collector)
    before = memory_cluster.engine.revision
    left = shards(memory_cluster)
    assert left
    for live in (False, True):  # back and forth: nothing is written for it
        set_live(memory_store, "d1", live=live)
        await settle(collector)
    assert (memory_cluster.engine.revision, shards(memory_cluster)) == (before, left)
    set_live(memory_store, "d0", live=True)
    await settle(collector)
    assert shards(memory_cluster) == 0
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_a_node_that_left_the_layout_is_not_waited_for(memory_store: Process) -> None:
    cluster = MemoryCluster(8)
    await cluster.found(nodes=[f"d{number}" for number in range(7)])
    process = await cluster.process()
    await put(process, "k", bytes(1000))
    ref = await blob_of(process, "k")
    group = process.topology.group_of(ref.profile, ref.blob)
    slots = (Slot(group.nodes[0], ("d7", "gone")), *group.record.slots[1:])
    await process.kv.commit([], [Put(group.key, encode(PgRecord(2, slots)))])
    cluster.drives["d7"].inject(Fault(error=DriveUnreachable("refused")))
    await delete(process, "k")
    cluster.clock.advance(AN_HOUR)
    assert (await GarbageCollector(process.storage).run_once()).blobs == 1


async def test_a_stale_placement_is_read_again_and_the_old_holder_cleared(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await put(memory_store, "k", bytes(1000))
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    spare = next(name for name in memory_cluster.drives if name not in group.nodes)
    old = group.nodes[0]
    moved = PgRecord(2, (Slot(spare, (old,)), *group.record.slots[1:]))
    await delete(memory_store, "k")
    memory_cluster.clock.advance(AN_HOUR)
    drive = memory_cluster.drives[group.nodes[1]]

    class Moves(MemoryDrive):
        """Moves the group just before the first deletion."""

        async def delete(self, name, pg_revision):  # type: ignore[no-untyped-def]
            if pg_revision == 1:
                await memory_store.kv.commit([], [Put(group.key, encode(moved))])
                await drive.show_pg_revision(ref.profile, group.number, 2)
            await MemoryDrive.delete(self, name, pg_revision)

    drive.__class__ = Moves
    report = await collector.run_once()
    assert report.blobs == 1
    assert ("delete" in {call for call, _ in memory_cluster.drives[spare].calls}) is True
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_a_long_read_is_waited_for(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await put(memory_store, "k", bytes(1000))
    ref = await blob_of(memory_store, "k")
    await delete(memory_store, "k")
    reading = keys.reading(ref.blob, 7)
    await memory_store.kv.commit([], [Put(reading, b"")])
    memory_cluster.clock.advance(AN_HOUR)
    assert (await collector.run_once()).waiting == 1
    assert shards(memory_cluster) == 3
    await memory_store.kv.commit([], [Delete(reading)])
    memory_cluster.clock.advance(RETRY_MS / 1000)
    assert (await collector.run_once()).blobs == 1
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_an_aborted_upload_frees_all_its_parts(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    upload = await start(memory_store, "k")
    for number in range(1, 66):
        await part(memory_store, "k", upload, number, bytes([number]) * 100)
    await part(memory_store, "k", upload, 3, b"again")
    await abort(memory_store, "k", upload)
    report = await collector.run_once()
    assert report.blobs == 65
    memory_cluster.clock.advance(AN_HOUR)
    assert (await collector.run_once()).blobs == 1
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_a_completed_upload_frees_only_the_parts_that_are_not_listed(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    upload = await start(memory_store, "k")
    for number in range(1, 6):
        await part(memory_store, "k", upload, number, bytes([number]) * 100)
    await complete(memory_store, "k", upload, leave_out=(2, 4))
    report = await collector.run_once()
    assert (report.manifests, report.blobs) == (1, 2)
    Audit(memory_cluster, memory_store).check_at_rest()
    expected = b"".join(bytes([number]) * 100 for number in (1, 3, 5))
    assert await get(memory_store, "k") == expected


async def test_a_manifest_lives_as_long_as_its_last_copy(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    upload = await start(memory_store, "k")
    for number in (1, 2):
        await part(memory_store, "k", upload, number, bytes([number]) * 100)
    await complete(memory_store, "k", upload)
    await copy(memory_store, "k", "copy")
    await delete(memory_store, "k")
    memory_cluster.clock.advance(AN_HOUR)
    await collector.run_once()
    assert await get(memory_store, "copy") == b"\x01" * 100 + b"\x02" * 100
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_on_a_full_drive_nothing_waits_for_its_time_or_for_a_reader(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await put(memory_store, "k", bytes(1000))
    ref = await blob_of(memory_store, "k")
    await delete(memory_store, "k")
    await memory_store.kv.commit([], [Put(keys.reading(ref.blob, 7), b"")])
    assert (await collector.run_once()).blobs == 0
    memory_cluster.drives["d5"]._capacity_bytes = 0
    assert (await collector.run_once()).blobs == 1
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_more_entries_than_one_batch_are_collected_in_order_of_time(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    for number in range(130):
        await put(memory_store, f"k{number}", b"v")
        if number % 40 == 0:
            memory_cluster.clock.advance(60)
        await delete(memory_store, f"k{number}")
    memory_cluster.clock.advance(AN_HOUR)
    assert (await collector.run_once()).blobs == 130
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_two_collectors_that_each_see_the_other_reference_do_not_both_leave(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    await put(memory_store, "a", bytes(1000))
    await copy(memory_store, "a", "b")
    await delete(memory_store, "a")
    await delete(memory_store, "b")
    memory_cluster.clock.advance(AN_HOUR)
    kv = memory_store.kv
    page = await kv.scan(keys.GARBAGE, keys.after_prefix(keys.GARBAGE), limit=10)
    entries = [Entry(item.key, item.revision, decode(Garbage, item.value)) for item in page.items]
    reading = await kv.get_many([entry.garbage.reference for entry in entries])
    members = frozenset(memory_cluster.drives)
    verdicts = [
        await collector._decide(entry, item, members)
        for entry, item in zip(entries, reading.items, strict=True)
    ]
    report = GarbageReport()
    for verdict in verdicts:
        await collector._settle(UNCLAIMED, [verdict], report)
    assert (report.entries, report.lost) == (1, 1)
    assert shards(memory_cluster) == 3
    assert (await collector.run_once()).blobs == 1
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_a_drive_that_lost_a_revision_is_healed_by_the_first_delete(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    """Its seal refuses what the record says; the record goes above it, and what was decided on
    before is refused everywhere."""
    await put(memory_store, "k", b"x" * 200_000)
    blob = await blob_of(memory_store, "k")
    topology = memory_store.storage.blobs.topology
    group = topology.group_of(blob.profile, blob.blob)
    sealed = memory_cluster.drives[group.nodes[2]]
    await sealed.show_pg_revision(blob.profile, group.number, SEAL)
    await delete(memory_store, "k")
    memory_cluster.clock.advance(AN_HOUR)
    report = await collector.run_once()
    assert (report.entries, report.blobs) == (1, 1)
    assert shards(memory_cluster) == 0
    raised = await topology.reread(group)
    assert raised.record == msgspec.structs.replace(group.record, revision=SEAL + 1)
    for node, drive in memory_cluster.drives.items():
        if node in group.nodes:
            with pytest.raises(StalePgRevision):
                await drive.delete(
                    ShardName(blob.profile, group.number, blob.blob, 0), group.record.revision
                )
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_metadata_older_than_the_drives_is_no_reason_to_raise_a_revision(
    memory_cluster: MemoryCluster, memory_store: Process, collector: GarbageCollector
) -> None:
    """A revision that no record has had yet, and that is no seal, is of a later state."""
    await put(memory_store, "k", b"x" * 200_000)
    blob = await blob_of(memory_store, "k")
    topology = memory_store.storage.blobs.topology
    group = topology.group_of(blob.profile, blob.blob)
    later = memory_cluster.drives[group.nodes[2]]
    await later.show_pg_revision(blob.profile, group.number, SEAL + 7)
    await delete(memory_store, "k")
    memory_cluster.clock.advance(AN_HOUR)
    assert (await collector.run_once()).blobs == 0
    assert (await topology.reread(group)).record == group.record
    assert shards(memory_cluster) == 1


async def test_a_long_backlog_is_read_at_a_cost_of_what_is_in_it() -> None:
    """And not, for each little time in it, at that of all that is due."""
    cluster = MemoryCluster()
    await cluster.found()
    engine = CostlyKV(cluster.engine)
    engine.costs = []
    process = await cluster.process(engine)
    count, day_ms = 2000, 24 * 3600 * 1000
    for number in range(count):
        due_ms = cluster.clock.ms() + number * day_ms // count
        blob = number.to_bytes(16, "big")
        gone = Garbage(reference=keys.reference("4+2", 1, blob, b"o"), bucket="bucket")
        await engine.commit([], [Put(keys.garbage(due_ms, blob, b"o"), encode(gone))])
    cluster.clock.advance(day_ms / 1000)
    collector = GarbageCollector(process.storage)
    before = sum(engine.costs)
    while await collector.work(UNCLAIMED):
        pass
    assert not any(key.startswith(keys.GARBAGE) for key in cluster.engine.items)
    assert sum(engine.costs) - before < 8 * count
