"""Snapshots: what is in one, how many are kept, and that a damaged one is never used."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from s3gw.cluster.founding import found_store
from s3gw.kv.interface import Conflict, Put
from s3gw.metadata import keys
from s3gw.metadata.records import SnapshotRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects.references import key_of
from s3gw.rescue import snapshot as snapshots
from s3gw.rescue import snapshot_format
from s3gw.rescue.snapshot import NoSuchSnapshot, SnapshotWorker, export, take_snapshot
from s3gw.rescue.snapshot_format import (
    FrameWriter,
    Row,
    SnapshotDamaged,
    SnapshotHeader,
    read_snapshot,
)
from s3gw.workers import on_demand
from s3gw.workers.contract import UNCLAIMED, Claim
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import MemoryCluster, Process

HEADER = SnapshotHeader("store", 1, 9, 9, 1000)
ROWS: list[Row] = [(b"key%d" % number, b"value" * number) for number in range(20)]


def file_of(rows: list[Row]) -> bytes:
    writer = FrameWriter()
    pieces = [writer.header(HEADER)]
    pieces += [writer.frame(rows[first : first + 7]) for first in range(0, len(rows), 7)]
    return b"".join([*pieces, writer.frame(())])


def rows_of(data: bytes, piece: int = 13) -> list[Row]:
    pieces: Iterator[bytes] = (data[first : first + piece] for first in range(0, len(data), piece))
    header, frames = read_snapshot(pieces)
    assert header == HEADER
    return [row for frame in frames for row in frame]


def test_what_is_written_is_read() -> None:
    assert rows_of(file_of(ROWS)) == ROWS
    assert rows_of(file_of([])) == []


def test_a_snapshot_that_is_cut_or_changed_anywhere_is_refused() -> None:
    data = file_of(ROWS)
    for length in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            rows_of(data[:length])
    chance = random.Random(7)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        with pytest.raises(SnapshotDamaged):
            rows_of(bytes(changed))


def test_a_frame_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(ROWS)
    monkeypatch.setattr(snapshot_format, "ROWS_BYTES_MAX", 100)
    with pytest.raises(SnapshotDamaged, match="too much"):
        rows_of(data)


def test_frames_in_another_order_are_refused() -> None:
    writer = FrameWriter()
    head, one, two = writer.header(HEADER), writer.frame(ROWS[:5]), writer.frame(ROWS[5:])
    with pytest.raises(SnapshotDamaged):
        rows_of(head + two + one + writer.frame(()))


async def exported(process: Process, revision: int) -> bytes:
    return b"".join([piece async for piece in export(process.storage, revision)])


async def test_it_has_every_key_of_one_revision(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to while it is read."""
    monkeypatch.setattr(snapshots, "PAGE_ITEMS", 4)
    for number in range(10):
        await operations.put(memory_store, f"k{number}", b"1")
    items = {key: item.value for key, item in memory_store.cluster.engine.items.items()}
    scan = memory_store.kv.scan
    pages = 0

    async def scan_and_write(start, end, **options):  # type: ignore[no-untyped-def]
        nonlocal pages
        page = await scan(start, end, **options)
        if "revision" in options and pages < 5:
            pages += 1
            await operations.put(memory_store, f"k{pages}", b"later")
        return page

    monkeypatch.setattr(memory_store.kv, "scan", scan_and_write)
    info = await take_snapshot(memory_store.storage)
    assert pages
    _, frames = read_snapshot([await exported(memory_store, info.revision)])
    rows = {key: value for frame in frames for key, value in frame}
    assert info.items == len(rows)
    assert set(rows) == {key for key in items if not key.startswith(keys.fence(b""))}
    assert all(rows[key] == items[key] for key in rows if key != keys.STORE)


async def test_the_last_three_are_kept_and_the_books_are_in_order(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    taken = []
    for number in range(5):
        await operations.put(memory_store, "k", b"%d" % number)
        memory_cluster.clock.advance(60)
        taken.append(await take_snapshot(memory_store.storage))
    kept = await snapshots.list_snapshots(memory_store.storage)
    assert [record.revision for record in kept] == [info.revision for info in taken[-3:]]
    memory_cluster.clock.advance(7200)
    await on_demand.collect_garbage(memory_store.storage)
    audit = Audit(memory_cluster, memory_store)
    audit.check_counts()
    held = {
        key_of(memory_store.topology, record.blob, keys.snapshot_holder(record.revision))
        for record in kept
    }
    assert held <= set(audit.references())
    blobs = {record.blob.blob for record in kept} | {ref.blob for ref in audit.held().values()}
    for drive in memory_cluster.drives.values():
        assert {shard.blob for shard in drive.shards} <= blobs
    for record in kept:
        assert len(await exported(memory_store, record.revision)) == record.size
    with pytest.raises(NoSuchSnapshot):
        await exported(memory_store, taken[0].revision)


async def test_one_written_around_lost_nodes_is_brought_home(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    away = [memory_store.directory.get(name) for name in ("d0", "d1", "d2")]
    for node in away:
        assert node is not None
        node.live = False
    for number in range(400):  # large enough for the profile of fragments
        tx = Transaction()
        tx.writes[b"x/%d" % number] = Put(b"x/%d" % number, random.Random(number).randbytes(300))
        await memory_store.kv.commit([], list(tx.writes.values()))
    info = await take_snapshot(memory_store.storage)
    (before,) = await snapshots.list_snapshots(memory_store.storage)
    assert before.blob.scheme == "3+2"
    data = await exported(memory_store, info.revision)
    for node in away:
        assert node is not None
        node.live = True
    memory_cluster.clock.advance(3600)
    await on_demand.repair_all(memory_store.storage)
    (after,) = await snapshots.list_snapshots(memory_store.storage)
    assert after.blob.nodes == ()
    assert await exported(memory_store, info.revision) == data
    memory_cluster.clock.advance(7200)
    await on_demand.collect_garbage(memory_store.storage)
    Audit(memory_cluster, memory_store).check_counts()


async def test_the_worker_takes_one_when_it_is_due(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    worker = SnapshotWorker(memory_store.storage, interval_seconds=100)

    async def count() -> int:
        await worker.work(UNCLAIMED)
        return len(await snapshots.list_snapshots(memory_store.storage))

    assert await count() == 0
    memory_cluster.clock.advance(101)
    assert await count() == 1
    assert await count() == 1
    memory_cluster.clock.advance(101)
    assert await count() == 2
    never = SnapshotWorker(memory_store.storage, interval_seconds=0)
    memory_cluster.clock.advance(1000)
    await never.work(UNCLAIMED)
    assert await count() == 3  # the other worker's


async def test_a_new_store_has_its_first_one_within_minutes(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    """One each time that its age has doubled, then one a day."""
    worker = SnapshotWorker(memory_store.storage, interval_seconds=24 * 3600)
    taken: dict[int, int] = {}
    for minute in range(5, 3 * 24 * 60, 5):
        memory_cluster.clock.advance(300)
        await worker.work(UNCLAIMED)
        for record in await snapshots.list_snapshots(memory_store.storage):
            taken.setdefault(record.revision, minute)
    first = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560]
    assert sorted(taken.values()) == [*first, 2560 + 24 * 60]


async def test_a_clock_that_was_ahead_holds_no_snapshot_back(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    clock, ahead_ms = memory_cluster.clock, 365 * 24 * 3600 * 1000
    memory_store.storage.clock_ms = lambda: clock.ms() + ahead_ms
    worker = SnapshotWorker(memory_store.storage, interval_seconds=24 * 3600)
    await worker.work(UNCLAIMED)
    assert len(await snapshots.list_snapshots(memory_store.storage)) == 1
    ahead_ms = 0
    clock.advance(24 * 3600)
    for _ in range(3):
        await worker.work(UNCLAIMED)
    assert len(await snapshots.list_snapshots(memory_store.storage)) == 2


async def test_a_cluster_without_nodes_waits_with_its_first() -> None:
    empty = MemoryCluster(0)
    empty.identity = await found_store(empty.kv(), empty.clock.ms())
    process = await empty.process()
    empty.clock.advance(3600)
    assert not await SnapshotWorker(process.storage, interval_seconds=60).work(UNCLAIMED)
    assert not await snapshots.list_snapshots(process.storage)


async def test_a_worker_that_has_lost_its_lock_names_no_snapshot(memory_store: Process) -> None:
    with pytest.raises(Conflict):
        await take_snapshot(memory_store.storage, Claim(keys.lock("snapshot"), 5))
    assert not Audit(memory_store.cluster, memory_store).under(keys.SNAPSHOTS)


async def test_two_processes_at_one_revision_make_one_snapshot(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await memory_cluster.process(seed=1)
    publish = snapshots._publish

    async def raced(storage, claim, info, ingested):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(snapshots, "_publish", publish)
        await take_snapshot(other.storage)
        await publish(storage, claim, info, ingested)

    monkeypatch.setattr(snapshots, "_publish", raced)
    with pytest.raises(Conflict):
        await take_snapshot(memory_store.storage)
    audit = Audit(memory_cluster, memory_store)
    (stored,) = audit.under(keys.SNAPSHOTS).values()
    assert decode(SnapshotRecord, stored).items
    audit.check_counts()
