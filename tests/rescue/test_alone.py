"""What comes back from drives alone, without any metadata, and what does not: the table in
docs/operations.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from s3gw.buckets import lock as lock_rules
from s3gw.errors import AccessDenied
from s3gw.metadata.records import BucketRecord, Checksums, Description, Lock, ObjectRecord
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket, find_bucket
from s3gw.objects.change import change_version
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.multipart import create_upload
from s3gw.objects.publish import no_check
from s3gw.objects.version_listing import list_versions
from s3gw.objects.write import put_object
from s3gw.rescue.rebuild import confirm
from s3gw.rescue.snapshot import SnapshotWorker, list_snapshots, take_snapshot
from s3gw.workers import on_demand
from s3gw.workers.contract import UNCLAIMED
from tests.rescue.disks import Recovered, put_on_disks, recovered
from tests.rescue.test_rebuild import PART, data_of
from tests.stores import operations
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster, Process

DAY_MS = 24 * 3600 * 1000
PUBLIC = b'[["http://acs.amazonaws.com/groups/global/AllUsers","READ"]]'
DESCRIBED = Description(
    headers={"content-type": "image/png", "cache-control": "no-store", "content-language": "de"},
    user={"camera": "α7", "place": "Łódź"},
    tags={"project": "x", "état": "fini"},
    storage_class="STANDARD_IA",
    redirect="/elsewhere",
)


async def put(
    process: Process, key: str, data: bytes, description: Description = DESCRIBED
) -> ObjectRecord:
    target = await publish.read_target(process.storage, BUCKET, key)
    return await put_object(process.storage, target, "owner", description, Bytes(data), no_check)


async def uploaded(process: Process, key: str, *bodies: bytes) -> ObjectRecord:
    upload = await create_upload(
        process.storage, BUCKET, key, "owner", DESCRIBED, checksum_algorithm="", checksum_type=""
    )
    for number, body in enumerate(bodies, 1):
        await operations.part(process, key, upload, number, body)
    await operations.complete(process, key, upload)
    return await visible(process, key)


async def visible(process: Process, key: str) -> ObjectRecord:
    found = await operations.record(process, key)
    assert found is not None
    return found


async def bucket_of(process: Process) -> BucketRecord:
    record = (await find_bucket(process.storage, BUCKET)).record
    assert record is not None
    return record


async def alone(cluster: MemoryCluster, root: Path) -> Recovered:
    result = await recovered(cluster, put_on_disks(cluster, root))
    assert not result.report.source
    result.check()
    return result


async def lock_bucket(process: Process, retention: lock_rules.DefaultRetention | None) -> None:
    documents = {}
    if retention is not None:
        documents[lock_rules.DOCUMENT] = lock_rules.encode_default(retention)
    await change_bucket(
        process.storage,
        BUCKET,
        lambda bucket: msgspec.structs.replace(
            bucket, versioning=publish.ENABLED, object_lock=True, documents=documents
        ),
    )


def same(before: ObjectRecord, after: ObjectRecord) -> bool:
    names = ("modified_ms", "owner", "size", "etag", "description", "checksums", "content_id")
    return all(getattr(before, name) == getattr(after, name) for name in names)


@pytest.mark.parametrize("size", [0, 5_000, 300_000])
async def test_what_a_write_says_of_an_object(
    size: int, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Headers, metadata, tags, storage class, redirect, checksums, owner, time and ETag."""
    data = data_of("k", size)
    target = await publish.read_target(memory_store.storage, BUCKET, "k")

    class Checked(Bytes):
        def verify(self, digests: object) -> Checksums:
            return Checksums({"SHA256": "b64"}, "FULL_OBJECT")

    before = await put_object(
        memory_store.storage, target, "owner", DESCRIBED, Checked(data), no_check
    )
    memory_cluster.clock.advance(3600)
    result = await alone(memory_cluster, tmp_path)
    after = await visible(result.process, "k")
    assert after.checksums.values == {"SHA256": "b64"}
    assert same(before, after)
    assert await operations.get(result.process, "k") == data


async def test_an_upload_in_parts_with_its_parts(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    bodies = (data_of("1", PART), data_of("2", 70_000))
    before = await uploaded(memory_store, "k", *bodies)
    result = await alone(memory_cluster, tmp_path)
    after = await visible(result.process, "k")
    assert same(before, after)
    assert after.etag.endswith("-2")
    assert await operations.get(result.process, "k") == b"".join(bodies)


async def test_versions_in_their_order_and_with_their_ids(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.set_versioning(memory_store, publish.ENABLED)
    kept = [await put(memory_store, "k", b"%d" % number) for number in range(4)]
    result = await alone(memory_cluster, tmp_path)
    assert (await bucket_of(result.process)).versioning == publish.ENABLED
    for before in kept:
        after = await operations.version(result.process, "k", before.sequence)
        assert after is not None
        assert same(before, after)
        assert not after.null_version
    assert await operations.get(result.process, "k") == b"3"


async def test_versions_of_writers_who_raced_are_all_there(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.set_versioning(memory_store, publish.ENABLED)
    await put(memory_store, "k", b"before")
    readings = [await publish.read_target(memory_store.storage, BUCKET, "k") for _ in range(3)]
    raced = [
        await operations.put_on(memory_store, reading, b"%d" % number)
        for number, reading in enumerate(readings)
    ]
    await put(memory_store, "k", b"after")
    result = await alone(memory_cluster, tmp_path)
    found = await list_versions(result.process.storage, BUCKET, prefix="", delimiter="", most=10)
    etags = [entry.record.etag for entry in found.entries]
    assert len(etags) == 5
    assert {record.etag for record in raced} == set(etags[1:4])
    assert await operations.get(result.process, "k") == b"after"
    told = [finding.text for finding in result.findings if finding.key == "k"]
    assert len(told) == 2
    assert all("at the same time" in text for text in told)


async def test_versions_of_a_bucket_whose_versioning_is_suspended(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The null version comes back as one with an id, in a bucket that has versioning."""
    await operations.set_versioning(memory_store, publish.ENABLED)
    first = await put(memory_store, "k", b"first")
    await operations.set_versioning(memory_store, publish.SUSPENDED)
    null = await put(memory_store, "k", b"null")
    assert null.null_version
    result = await alone(memory_cluster, tmp_path)
    found = await operations.version(result.process, "k", first.sequence)
    assert found is not None
    assert await operations.get(result.process, "k") == b"null"
    assert (await bucket_of(result.process)).versioning == publish.ENABLED


async def test_a_bucket_that_never_had_versioning_does_not_get_it(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "k", b"first")
    await put(memory_store, "k", b"second")
    result = await alone(memory_cluster, tmp_path)
    bucket = await bucket_of(result.process)
    assert (bucket.versioning, bucket.object_lock) == ("", False)
    assert (await visible(result.process, "k")).null_version
    assert ("older", "k") in result.kinds()


LOCKS: Sequence[Lock] = (
    Lock("COMPLIANCE", 1_900_000_000_000),
    Lock("GOVERNANCE", 1_900_000_000_000),
    Lock("", 0, legal_hold=True),
)


@pytest.mark.parametrize("lock", LOCKS, ids=["compliance", "governance", "hold"])
async def test_a_lock_that_a_write_asked_for(
    lock: Lock, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await lock_bucket(memory_store, None)
    await put(memory_store, "k", b"kept", msgspec.structs.replace(DESCRIBED, lock=lock))
    await put(memory_store, "k", b"newer")
    result = await alone(memory_cluster, tmp_path)
    await check_locked(result, b"kept", lock)


async def check_locked(result: Recovered, data: bytes, lock: Lock) -> None:
    """One version of the key is under the lock, and can be neither removed nor written over."""
    process = result.process
    bucket = await bucket_of(process)
    assert (bucket.versioning, bucket.object_lock) == (publish.ENABLED, True)
    audit = result.audit()
    records = [record for _, key, record in audit.versions() if key == "k"]
    locked = [record for record in records if record.description.lock == lock]
    (record,) = [record for record in locked if record.size == len(data)]
    with pytest.raises(AccessDenied):
        await operations.remove(process, "k", record.sequence)
    await operations.delete(process, "k")
    await operations.put(process, "k", b"over it")
    kept = await operations.version(process, "k", record.sequence)
    assert kept is not None
    assert kept.description.lock == lock


@pytest.mark.parametrize("how", ["put", "complete", "copy"])
@pytest.mark.parametrize(
    "retention",
    [
        lock_rules.DefaultRetention("COMPLIANCE", days=30),
        lock_rules.DefaultRetention("GOVERNANCE", years=2),
    ],
    ids=["days", "years"],
)
async def test_the_default_retention_of_the_bucket(
    how: str,
    retention: lock_rules.DefaultRetention,
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
) -> None:
    """Objects that asked for no lock of their own are as locked as they were, to the second."""
    await lock_bucket(memory_store, retention)
    memory_cluster.clock.advance(7.5)
    data = data_of("k", 90_000)
    if how == "put":
        before = await put(memory_store, "k", data)
    elif how == "complete":
        data = data_of("k", PART) + b"end"
        before = await uploaded(memory_store, "k", data[:PART], data[PART:])
    else:
        await put(memory_store, "source", data)
        memory_cluster.clock.advance(3600)
        storage = memory_store.storage
        before = await copy_object(  # writes the bytes anew, for the checksum
            storage,
            await publish.read_target(storage, BUCKET, "source"),
            await publish.read_target(storage, BUCKET, "k"),
            Copying("owner", lambda found: DESCRIBED, "SHA256", no_check, lambda found: None),
        )
    lock = before.description.lock
    assert lock is not None
    assert lock == Lock(retention.mode, retention.until_ms(before.modified_ms))
    result = await alone(memory_cluster, tmp_path)
    assert await operations.get(result.process, "k") == data
    await check_locked(result, data, lock)


async def test_what_is_in_the_trash_is_an_object(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.set_trash(memory_store, 30 * DAY_MS / 1000)
    before = await put(memory_store, "k", data_of("k", 70_000))
    await operations.delete(memory_store, "k")
    memory_cluster.clock.advance(10 * DAY_MS / 1000)
    await on_demand.collect_garbage(memory_store.storage)
    result = await alone(memory_cluster, tmp_path)
    assert same(before, await visible(result.process, "k"))
    assert await operations.get(result.process, "k") == data_of("k", 70_000)


def retagged(record: ObjectRecord, tags: dict[str, str]) -> ObjectRecord:
    description = msgspec.structs.replace(record.description, tags=tags)
    return msgspec.structs.replace(record, description=description)


async def test_what_does_not_come_back(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Settings of the bucket, access control lists, copies that share bytes, new names, changes
    behind a write, and what was deleted."""
    public = msgspec.structs.replace(DESCRIBED, acl=PUBLIC)
    await put(memory_store, "listed", b"1", public)
    await put(memory_store, "original", data_of("o", 70_000))
    await operations.copy(memory_store, "original", "copy")
    await put(memory_store, "old", b"2" * 100)
    await operations.rename(memory_store, "old", "new")
    await put(memory_store, "retagged", b"4")
    target = await publish.read_target(memory_store.storage, BUCKET, "retagged")
    await change_version(memory_store.storage, target, lambda found: retagged(found, {"new": "1"}))
    await put(memory_store, "deleted", b"3")
    await operations.delete(memory_store, "deleted")
    await change_bucket(
        memory_store.storage,
        BUCKET,
        lambda bucket: msgspec.structs.replace(
            bucket, tags={"a": "b"}, documents={"policy": b"{}"}, trash_ms=DAY_MS
        ),
    )
    result = await alone(memory_cluster, tmp_path)
    process = result.process
    bucket = await bucket_of(process)
    assert (bucket.tags, bucket.documents, bucket.trash_ms) == ({}, {}, 0)
    assert (await visible(process, "listed")).description.acl == b""
    assert (await visible(process, "retagged")).description.tags == DESCRIBED.tags
    assert await operations.record(process, "copy") is None
    assert await operations.get(process, "old") == b"2" * 100
    assert await operations.record(process, "new") is None
    assert await operations.get(process, "deleted") == b"3"


async def test_a_snapshot_is_taken_as_soon_as_a_recovery_is_confirmed(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Not before: who is not content with it wants to begin where it began."""
    memory_cluster.clock.advance(10 * DAY_MS / 1000)
    await take_snapshot(memory_store.storage)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    process = result.process
    worker = SnapshotWorker(process.storage, interval_seconds=DAY_MS / 1000)
    memory_cluster.clock.advance(3600)
    await worker.work(UNCLAIMED)
    assert await list_snapshots(process.storage) == []
    assert await confirm(process.kv)
    for _ in range(3):
        await worker.work(UNCLAIMED)
    assert [each.incarnation for each in await list_snapshots(process.storage)] == [2]
    result.check()
