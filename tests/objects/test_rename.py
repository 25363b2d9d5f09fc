"""RenameObject in terms of storage: one commit, no byte moved, and what races and retries see."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Lock, ManifestRef, ObjectRecord
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects import publish
from s3gw.objects.change import change_version
from s3gw.objects.delete import delete_object
from s3gw.objects.rename import RENAMED_MS, Renaming, rename_object
from s3gw.workers import on_demand
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

DATA = b"content " * 20_000


def shards(process: Process) -> set[tuple[str, object]]:
    return {
        (name, shard) for name, drive in process.cluster.drives.items() for shard in drive.shards
    }


def check(process: Process) -> Audit:
    audit = Audit(process.cluster, process)
    audit.check_held()
    audit.check_counts()
    audit.check_usage()
    audit.check_versions()
    audit.check_fences()
    audit.check_trash()
    return audit


async def at_rest(process: Process) -> None:
    process.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(process.storage)
    Audit(process.cluster, process).check_at_rest()


async def multipart(process: Process, key: str, *parts: bytes) -> None:
    upload = await operations.start(process, key)
    for number, data in enumerate(parts, 1):
        await operations.part(process, key, upload, number, data)
    await operations.complete(process, key, upload)


async def test_an_object_has_its_new_name_and_all_that_it_was(memory_store: Process) -> None:
    before = await operations.put(memory_store, "old", DATA)
    stored = shards(memory_store)
    memory_store.cluster.clock.advance(100.0)
    revision = memory_store.cluster.engine.revision
    await operations.rename(memory_store, "old", "new")
    assert memory_store.cluster.engine.revision == revision + 1
    assert shards(memory_store) == stored
    assert await operations.record(memory_store, "old") is None
    after = await operations.record(memory_store, "new")
    assert after is not None
    same = msgspec.structs.replace(
        after, sequence=before.sequence, null_sequence=before.null_sequence
    )
    assert same == before
    assert after.sequence > before.sequence
    assert await operations.get(memory_store, "new") == DATA
    check(memory_store)
    await at_rest(memory_store)
    assert shards(memory_store) == stored
    assert await operations.get(memory_store, "new") == DATA


async def test_what_has_the_new_name_is_replaced(memory_store: Process) -> None:
    await operations.put(memory_store, "old", DATA)
    await operations.put(memory_store, "new", b"replaced" * 9000)
    await operations.rename(memory_store, "old", "new")
    assert await operations.get(memory_store, "new") == DATA
    check(memory_store)
    await at_rest(memory_store)
    blob = await operations.blob_of(memory_store, "new")
    assert {shard.blob for _, shard in shards(memory_store)} == {blob.blob}  # type: ignore[attr-defined]


async def test_an_object_of_parts_takes_its_manifest_along(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)
    await multipart(memory_store, "old", DATA, b"tail")
    before = await operations.record(memory_store, "old")
    for source, key in (("old", "new"), ("new", "newer"), ("newer", "old")):
        await operations.rename(memory_store, source, key)
        check(memory_store)
    await at_rest(memory_store)
    after = await operations.record(memory_store, "old")
    assert before is not None
    assert after is not None
    assert isinstance(after.data, ManifestRef)
    assert after.data == before.data
    assert await operations.get(memory_store, "old") == DATA + b"tail"
    await operations.delete(memory_store, "old")
    await at_rest(memory_store)
    assert not shards(memory_store)


async def test_with_versioning_a_marker_stays_behind_and_a_version_comes(
    memory_store: Process,
) -> None:
    await operations.set_versioning(memory_store, "Enabled")
    first = await operations.put(memory_store, "old", DATA)
    replaced = await operations.put(memory_store, "new", b"replaced")
    memory_store.cluster.clock.advance(60.0)
    version_id = await operations.rename(memory_store, "old", "new")
    source = await publish.read_target(memory_store.storage, BUCKET, "old")
    assert source.visible is None
    assert source.latest is not None
    assert source.latest.marker
    kept = await operations.version(memory_store, "old", first.sequence)
    assert kept == operations.noncurrent(memory_store, first)
    now_noncurrent = operations.noncurrent(memory_store, replaced)
    assert await operations.version(memory_store, "new", replaced.sequence) == now_noncurrent
    after = await operations.record(memory_store, "new")
    assert after is not None
    bucket = (await publish.read_target(memory_store.storage, BUCKET, "new")).bucket
    assert publish.version_id_of(bucket, after) == version_id
    assert after.data == first.data
    assert after.modified_ms == memory_store.storage.clock_ms()
    check(memory_store)
    # The versions hold the blob independently of each other.
    await operations.remove(memory_store, "old", first.sequence)
    await at_rest(memory_store)
    assert await operations.get(memory_store, "new") == DATA


async def test_suspended_both_are_null_versions(memory_store: Process) -> None:
    await operations.set_versioning(memory_store, "Enabled")
    old = await operations.put(memory_store, "old", b"with an id")
    await operations.put(memory_store, "new", b"also")
    await operations.set_versioning(memory_store, "Suspended")
    await operations.put(memory_store, "old", DATA)
    await operations.put(memory_store, "new", b"null, replaced")
    assert await operations.rename(memory_store, "old", "new") == "null"
    source = await publish.read_target(memory_store.storage, BUCKET, "old")
    assert source.latest is not None
    assert (source.latest.marker, source.latest.null_version) == (True, True)
    now_noncurrent = operations.noncurrent(memory_store, old)
    assert await operations.version(memory_store, "old", old.sequence) == now_noncurrent
    after = await operations.record(memory_store, "new")
    assert after is not None
    assert after.null_version
    assert await operations.get(memory_store, "new") == DATA
    check(memory_store)
    await at_rest(memory_store)


async def test_a_lock_comes_along_and_the_version_that_it_kept_stays(
    memory_store: Process,
) -> None:
    await operations.set_versioning(memory_store, "Enabled")
    before = await operations.put(memory_store, "old", DATA)
    until_ms = memory_store.storage.clock_ms() + 86_400_000
    lock = Lock("COMPLIANCE", until_ms, legal_hold=True)

    def locked(record: ObjectRecord) -> ObjectRecord:
        description = msgspec.structs.replace(record.description, lock=lock)
        return msgspec.structs.replace(record, description=description)

    target = await publish.read_target(memory_store.storage, BUCKET, "old")
    await change_version(memory_store.storage, target, locked)
    await operations.rename(memory_store, "old", "new")
    after = await operations.record(memory_store, "new")
    assert after is not None
    assert after.description.lock == lock
    for key, sequence in (("old", before.sequence), ("new", after.sequence)):
        with pytest.raises(errors.AccessDenied):
            await operations.remove(memory_store, key, sequence)


async def test_of_two_renames_of_one_source_one_wins(memory_store: Process) -> None:
    await operations.put(memory_store, "old", DATA)
    other = await memory_store.cluster.process(seed=7)
    results = await asyncio.gather(
        operations.rename(memory_store, "old", "a"),
        operations.rename(other, "old", "b"),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["NoSuchKey", "str"]
    names = [
        key for key in ("old", "a", "b") if await operations.record(memory_store, key) is not None
    ]
    assert len(names) == 1
    assert await operations.get(memory_store, names[0]) == DATA
    check(memory_store)
    await at_rest(memory_store)


async def test_a_rename_decided_before_an_overwrite_takes_what_is_there_now(
    memory_store: Process,
) -> None:
    """The source is replaced, the target written, after both were read."""
    await operations.put(memory_store, "old", b"first")
    storage = memory_store.storage
    source = await publish.read_target(storage, BUCKET, "old")
    target = await publish.read_target(storage, BUCKET, "new")
    await operations.put(memory_store, "old", DATA)
    await operations.put(memory_store, "new", b"came meanwhile")
    seen: list[bool] = []
    renaming = Renaming(
        "o", lambda found: None, lambda found: seen.append(found.visible is not None)
    )
    await rename_object(storage, source, target, renaming)
    assert seen == [False, True]
    assert await operations.get(memory_store, "new") == DATA
    assert await operations.record(memory_store, "old") is None
    check(memory_store)
    await at_rest(memory_store)


async def test_a_condition_on_the_target_holds_at_the_commit(memory_store: Process) -> None:
    await operations.put(memory_store, "old", DATA)
    storage = memory_store.storage
    source = await publish.read_target(storage, BUCKET, "old")
    target = await publish.read_target(storage, BUCKET, "new")
    await operations.put(memory_store, "new", b"came meanwhile")

    def absent(target: publish.Target) -> None:
        if target.visible is not None:
            raise errors.PreconditionFailed(Condition="If-None-Match")

    with pytest.raises(errors.PreconditionFailed):
        await rename_object(storage, source, target, Renaming("o", lambda found: None, absent))
    assert await operations.get(memory_store, "old") == DATA
    assert await operations.get(memory_store, "new") == b"came meanwhile"


async def test_a_token_answers_a_retry_for_a_day(memory_store: Process) -> None:
    await operations.put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new", b"t" * 16)
    await operations.put(memory_store, "old", b"another")
    revision = memory_store.cluster.engine.revision
    await operations.rename(memory_store, "old", "new", b"t" * 16)
    assert memory_store.cluster.engine.revision == revision
    assert await operations.get(memory_store, "new") == DATA
    with pytest.raises(errors.IdempotencyParameterMismatch):
        await operations.rename(memory_store, "old", "other", b"t" * 16)
    assert Audit(memory_store.cluster, memory_store).under(keys.RENAMED)
    memory_store.cluster.clock.advance(RENAMED_MS / 1000 + 1)
    await operations.rename(memory_store, "old", "new", b"t" * 16)
    assert await operations.get(memory_store, "new") == b"another"
    memory_store.cluster.clock.advance(RENAMED_MS / 1000 + 1)
    await on_demand.expire_completed(memory_store.storage)
    assert not Audit(memory_store.cluster, memory_store).under(keys.RENAMED)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("versioning", ["", "Enabled", "Suspended"])
async def test_a_crash_at_the_commit_leaves_one_name_or_the_other(
    mode: Mode, versioning: str
) -> None:
    cluster = MemoryCluster()
    await cluster.found()
    setup = await cluster.process()
    if versioning:
        await operations.set_versioning(setup, versioning)
    await operations.put(setup, "old", DATA)
    fuse = Fuse()
    dying = await cluster.process(CrashingKV(cluster.kv(), fuse), seed=3)
    fuse.arm(0, mode)
    with suppress(Crashed, OutcomeUnknown):
        await operations.rename(dying, "old", "new")
    process = await cluster.process(seed=4)
    there = [key for key in ("old", "new") if await operations.record(process, key) is not None]
    assert len(there) == 1
    assert await operations.get(process, there[0]) == DATA
    check(process)


async def test_a_missing_source_is_told(memory_store: Process) -> None:
    with pytest.raises(errors.NoSuchKey):
        await operations.rename(memory_store, "missing", "new")


async def test_a_delete_between_renames_sees_the_object_once(memory_store: Process) -> None:
    """Conditional deletes of both names race a rename: the object goes once, or stays."""
    before = await operations.put(memory_store, "old", DATA)
    assert isinstance(before.data, BlobRef)
    other = await memory_store.cluster.process(seed=5)

    def same(target: publish.Target) -> None:
        found = target.shown
        if found is None or found.etag != before.etag:
            raise errors.PreconditionFailed(Condition="If-Match")

    async def delete(key: str) -> None:
        target = await publish.read_target(other.storage, BUCKET, key)
        await delete_object(other.storage, target, same)

    results = await asyncio.gather(
        operations.rename(memory_store, "old", "new"),
        delete("old"),
        delete("new"),
        return_exceptions=True,
    )
    deleted = [result for result in results[1:] if result is None]
    left = [key for key in ("old", "new") if await operations.record(memory_store, key) is not None]
    assert len(deleted) + len(left) == 1
    check(memory_store)
    await at_rest(memory_store)
