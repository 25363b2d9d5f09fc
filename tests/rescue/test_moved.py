"""Blobs that were written anew after the base: the base's objects are read from the new ones."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from nodes.protocol import ShardName
from s3gw.cluster.profiles import create_profile
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Garbage,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    ReprofileJob,
    SnapshotRecord,
    decode,
    encode,
)
from s3gw.operator_jobs import OperatorJobs
from s3gw.rescue import sources
from s3gw.rescue.rebuild import confirm
from s3gw.rescue.snapshot import export, list_snapshots, take_snapshot
from s3gw.workers import on_demand
from s3gw.workers.merge import MergeAndRepair
from s3gw.workers.reencode import Swap
from s3gw.workers.reprofile import Reprofiler
from tests.rescue.disks import Recovered, catalog_of, put_on_disks, recovered
from tests.stores import operations
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

PART = 5 * 1024 * 1024
HOURS = 3600.0


def data_of(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


async def move_all(
    cluster: MemoryCluster, process: Process, profile: str = "copies", *, collect: bool = True
) -> None:
    """Move the bucket into a new profile, and collect the blobs that it had."""
    await create_profile(
        process.kv,
        process.topology,
        profile,
        "1+2",
        pg_count=4,
        stripe_bytes=65536,
        failure_domain="node",
        now_ms=1,
    )
    await OperatorJobs(process.storage, orphan_after_seconds=HOURS).change_profile(BUCKET, profile)
    await run_reprofiler(process)
    if collect:
        cluster.clock.advance(3 * HOURS)
        await on_demand.collect_garbage(process.storage)


async def run_reprofiler(process: Process) -> None:
    """Until the bucket's job has ended."""
    worker = Reprofiler(process.storage)
    for _ in range(40):
        await worker.work()
    job = await process.storage.store.get(ReprofileJob, keys.reprofile(BUCKET))
    assert job.record is not None
    assert job.record.state == "done"


async def filled(process: Process) -> dict[str, bytes]:
    """Objects, copies of them, an object of parts and its copy; what they read as."""
    whole, small = data_of("k", 200_000), data_of("small", 900)
    parts = [data_of("p1", PART), data_of("p2", 70_000)]
    await operations.put(process, "k", whole)
    await operations.copy(process, "k", "k2")
    await operations.put(process, "small", small)
    upload = await operations.start(process, "parts")
    for number, body in enumerate(parts, 1):
        await operations.part(process, "parts", upload, number, body)
    await operations.complete(process, "parts", upload)
    await operations.copy(process, "parts", "parts2")
    joined = b"".join(parts)
    return {"k": whole, "k2": whole, "small": small, "parts": joined, "parts2": joined}


async def check_content(process: Process, expected: dict[str, bytes]) -> None:
    for key, data in expected.items():
        assert await operations.get(process, key) == data, key


async def check_lasts(result: Recovered, expected: dict[str, bytes]) -> None:
    """All is there and in order, and still when what nothing refers to has been removed."""
    assert not [each for each in result.findings if each.kind in ("gone", "lost")]
    result.check()
    await check_content(result.process, expected)
    process = result.process
    assert await confirm(process.kv)
    process.cluster.clock.advance(24 * 8 * HOURS)
    await on_demand.collect_garbage(process.storage)
    await MergeAndRepair(process.storage, orphan_after_seconds=0.0).run_once()
    result.check()
    await check_content(process, expected)
    for key in expected:
        await operations.delete(process, key)
    process.cluster.clock.advance(24 * 8 * HOURS)
    await on_demand.collect_garbage(process.storage)
    left = [keys.split_reference(key)[3] for key in result.audit().references()]
    assert all(holder.startswith(b"s") for holder in left)
    result.check()


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("collected", [False, True])
@pytest.mark.parametrize("missing", [0, 2])
async def test_after_a_change_of_profile(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    missing: int,
    collected: bool,
    deleted: bool,
    newer: bool,
) -> None:
    """Also the copies of originals that had been deleted, which do not come back."""
    expected = await filled(memory_store)
    if deleted:
        for key in ("k", "parts"):
            await operations.delete(memory_store, key)
            del expected[key]
    await take_snapshot(memory_store.storage)
    before = await operations.blob_of(memory_store, "k2")
    await move_all(memory_cluster, memory_store, collect=collected)
    after = await operations.blob_of(memory_store, "k2")
    assert after.blob != before.blob
    lost = random.Random(missing).sample(sorted(memory_cluster.drives), missing)
    paths = put_on_disks(memory_cluster, tmp_path, without=lost)
    for name in lost:
        memory_cluster.drives[name].shards.clear()
    result = await recovered(memory_cluster, paths, add_newer=newer)
    found = await operations.blob_of(result.process, "k2")
    assert found.blob == (after.blob if collected else before.blob)
    assert (result.report.moved > 0) == collected
    audited = result.audit().references()
    for key in {"k", "parts"} - set(expected):
        assert await operations.record(result.process, key) is None
        assert (("uncertain", key) in result.kinds()) == newer
    for entry in result.audit().under(keys.GARBAGE).values():
        named = decode(Garbage, entry)
        assert not named.manifest or not named.reference or named.reference in audited
    if not deleted:
        assert not {(kind, key) for kind, key in result.kinds() if key in expected}
    await check_lasts(result, expected)


@pytest.mark.parametrize("newer", [False, True])
async def test_after_blobs_were_brought_home(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path, newer: bool
) -> None:
    """Objects and a snapshot that were written around lost nodes; a part of an open upload too."""
    away = [memory_store.directory.get(name) for name in ("d0", "d1", "d2")]
    for node in away:
        assert node is not None
        node.live = False
    expected = await filled(memory_store)
    upload = await operations.start(memory_store, "open")
    await operations.part(memory_store, "open", upload, 1, data_of("open", 90_000))
    await take_snapshot(memory_store.storage)
    first = (await list_snapshots(memory_store.storage))[0]
    await take_snapshot(memory_store.storage)
    for node in away:
        assert node is not None
        node.live = True
    memory_cluster.clock.advance(HOURS)
    await on_demand.repair_all(memory_store.storage)
    memory_cluster.clock.advance(3 * HOURS)
    await on_demand.collect_garbage(memory_store.storage)
    moved = (await list_snapshots(memory_store.storage))[0]
    result = await recovered(
        memory_cluster, put_on_disks(memory_cluster, tmp_path), add_newer=newer
    )
    (kept,) = await list_snapshots(result.process.storage)
    assert isinstance(kept, SnapshotRecord)
    assert kept.revision == first.revision
    assert kept.blob.blob == moved.blob.blob
    data = b"".join([piece async for piece in export(result.process.storage, kept.revision)])
    assert len(data) == kept.size
    await operations.complete(result.process, "open", upload)
    await check_lasts(result, expected | {"open": data_of("open", 90_000)})


@pytest.mark.parametrize("step", ["run", "_move_manifest_of", "_finish"])
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("twice", [False, True])
async def test_from_a_snapshot_in_the_middle_of_a_move(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    twice: bool,
    which: int,
    step: str,
) -> None:
    """A job's own reference, and a manifest that has the references of both blobs; afterwards the
    same bytes may have been moved once more, so that neither is there. The job then ends."""
    expected = await filled(memory_store)
    original = getattr(Swap, step)
    calls = 0

    async def after_a_snapshot(self, *arguments, **options):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == which + 1:
            await take_snapshot(self._storage)
        return await original(self, *arguments, **options)

    monkeypatch.setattr(Swap, step, after_a_snapshot)
    await move_all(memory_cluster, memory_store)
    if twice:
        monkeypatch.setattr(Swap, step, original)
        await move_all(memory_cluster, memory_store, "others")
    if not await list_snapshots(memory_store.storage):
        assert step == "_move_manifest_of"  # there are two versions of one manifest
        assert which == 2
        return
    result = await recovered(
        memory_cluster, put_on_disks(memory_cluster, tmp_path), add_newer=False
    )
    assert result.report.moved
    assert not [each for each in result.findings if each.kind in ("gone", "lost")]
    result.check()
    await run_reprofiler(result.process)
    memory_cluster.clock.advance(3 * HOURS)
    await on_demand.repair_all(result.process.storage)
    assert not result.audit().under(keys.REPAIRS)
    moved_to = "others" if twice else "copies"
    for key in ("k", "k2", "small"):
        ref = await operations.blob_of(result.process, key)
        assert ref.profile in (moved_to, f"{moved_to}.small")
    await check_lasts(result, expected)


async def test_shards_that_are_left_of_the_first_blob_do_not_hide_the_second(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = await filled(memory_store)
    await take_snapshot(memory_store.storage)
    old = await operations.blob_of(memory_store, "k")
    left = [
        (drive, name, data)
        for drive in memory_cluster.drives.values()
        for name, data in drive.shards.items()
        if name.blob == old.blob and name.index in (1, 4)
    ]
    await move_all(memory_cluster, memory_store)
    for drive, name, data in left:
        assert name not in drive.shards
        drive.shards[name] = data
    assert len(left) == 2
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    await check_lasts(result, expected)


async def test_what_lies_beside_its_group_is_queued(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = await filled(memory_store)
    for number in range(40):  # so that the group is known by other blobs
        await operations.put(memory_store, f"more{number}", data_of("more", 100_000))
    await take_snapshot(memory_store.storage)
    await move_all(memory_cluster, memory_store)
    ref = await operations.blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    spare = next(name for name in memory_cluster.drives if name not in group.nodes)
    name = ShardName(ref.profile, group.number, ref.blob, 1)
    held = memory_cluster.drives[group.nodes[1]].shards
    memory_cluster.drives[spare].shards[name] = held.pop(name)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    result.check()
    found = await operations.blob_of(result.process, "k2")
    assert found.nodes[1] == spare
    result.audit().check_whole(found)
    number = result.process.topology.group_of(found.profile, found.blob).number
    queued = keys.repair(5, found.profile, number, found.blob)
    assert queued in result.audit().under(keys.REPAIRS)
    for reference in (r for k, r in result.audit().references().items() if found.blob in k):
        assert reference.nodes == found.nodes
    await check_content(result.process, expected)


@pytest.mark.parametrize("field", ["crc64", "size"])
async def test_only_a_blob_with_the_checksum_and_size_of_the_record_is_taken(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path, field: str
) -> None:
    assert memory_cluster.identity is not None
    await filled(memory_store)
    await take_snapshot(memory_store.storage)
    old = await operations.blob_of(memory_store, "k")
    await move_all(memory_cluster, memory_store)
    paths = put_on_disks(memory_cluster, tmp_path)
    warnings: list[str] = []
    base = sources.newest(catalog_of(paths), memory_cluster.identity.store_id, warnings.append)
    assert base is not None
    for key in ("k", "k2"):
        name = keys.object_(BUCKET, key)
        record = decode(ObjectRecord, base.rows.get(name) or b"")
        assert isinstance(record.data, BlobRef)
        other = msgspec.structs.replace(record.data, **{field: getattr(record.data, field) + 1})
        base.rows.put(name, encode(msgspec.structs.replace(record, data=other)))
    result = await recovered(memory_cluster, paths, base=base, add_newer=False)
    assert {("gone", "k"), ("gone", "k2")} <= result.kinds()
    assert (await operations.blob_of(result.process, "k")).blob == old.blob
    assert await operations.get(result.process, "small") == data_of("small", 900)


async def test_parts_and_manifest_are_found_one_by_one(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Every blob of an object of parts is another one afterwards."""
    expected = await filled(memory_store)
    before = await operations.record(memory_store, "parts")
    await take_snapshot(memory_store.storage)
    await move_all(memory_cluster, memory_store)
    result = await recovered(
        memory_cluster, put_on_disks(memory_cluster, tmp_path), add_newer=False
    )
    after = await operations.record(result.process, "parts")
    assert before is not None
    assert after is not None
    assert isinstance(before.data, ManifestRef)
    assert isinstance(after.data, ManifestRef)
    assert after.data.blob.blob != before.data.blob.blob
    pages = result.audit().under(keys.manifest(after.data.manifest)).values()
    parts = [part for page in pages for part in decode(ManifestPage, page).parts]
    assert {part.blob.profile for part in parts} <= {"copies", "copies.small"}
    await check_lasts(result, expected)


async def test_a_copy_that_was_written_anew_while_the_base_was_taken_is_still_published(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """It has the content id of its source, and is later than that."""
    await operations.put(memory_store, "k", data_of("k", 90_000))
    source = await operations.record(memory_store, "k")
    assert source is not None
    await operations.put(memory_store, "copy", data_of("k", 90_000))
    copy = await operations.blob_of(memory_store, "copy")
    await take_snapshot(memory_store.storage)
    paths = put_on_disks(memory_cluster, tmp_path)
    catalog = catalog_of(paths)
    assert memory_cluster.identity is not None
    base = sources.newest(catalog, memory_cluster.identity.store_id, print)
    assert base is not None
    # The base as if the copy had been under way: with the content id that its shards have.
    copied = decode(ObjectRecord, base.rows.get(keys.object_(BUCKET, "copy")) or b"")
    base.rows.delete(keys.object_(BUCKET, "copy"))
    for key, _ in list(base.scan(keys.BLOBS)):
        if copy.blob in key:
            base.rows.delete(key)
    same = msgspec.structs.replace(source, content_id=copied.content_id)
    base.rows.put(keys.object_(BUCKET, "k"), encode(same))
    result = await recovered(memory_cluster, paths, base=base)
    assert await operations.get(result.process, "copy") == data_of("k", 90_000)
    assert ("uncertain", "copy") in result.kinds()
