"""Data that several holders share: the last one frees it, and all of them are moved with it."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.cluster.profiles import create_profile
from s3gw.metadata import keys
from s3gw.metadata.records import TrashRecord, decode
from s3gw.objects import complete, publish
from s3gw.objects.buckets import change_bucket
from s3gw.objects.multipart import list_parts
from s3gw.workers import on_demand, reprofile
from s3gw.workers.reprofile import Reprofiler
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

DATA = b"content " * 20_000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)


async def collect(process: Process) -> None:
    process.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(process.storage)


@pytest.mark.parametrize("order", list(permutations("abcd"))[::5])
async def test_a_manifest_of_many_holders_is_freed_by_the_last(
    memory_store: Process, order: tuple[str, ...]
) -> None:
    upload = await operations.start(memory_store, "a")
    await operations.part(memory_store, "a", upload, 1, DATA)
    await operations.complete(memory_store, "a", upload)
    for key in "bcd":
        await operations.copy(memory_store, "a", key)
    for number, key in enumerate(order):
        await operations.delete(memory_store, key)
        await collect(memory_store)
        for left in order[number + 1 :]:
            assert await operations.get(memory_store, left) == DATA
    memory_store.cluster.clock.advance(2 * 86_400.0)
    await on_demand.expire_completed(memory_store.storage)
    Audit(memory_store.cluster, memory_store).check_at_rest()
    assert not any(drive.shards for drive in memory_store.cluster.drives.values())


async def test_two_parts_with_one_blob_of_which_one_is_left_out(memory_store: Process) -> None:
    await operations.put(memory_store, "source", DATA)
    upload = await operations.start(memory_store, "k")
    for number in (1, 2):
        await operations.copy_part(memory_store, "source", "k", upload, number)
    await operations.complete(memory_store, "k", upload, leave_out=(2,))
    await operations.delete(memory_store, "source")
    await collect(memory_store)
    memory_store.cluster.clock.advance(2 * 86_400.0)
    await on_demand.expire_completed(memory_store.storage)
    Audit(memory_store.cluster, memory_store).check_at_rest()
    assert await operations.get(memory_store, "k") == DATA


async def test_a_part_that_only_an_attempt_before_has_listed_is_freed(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one came to its last commit, and had a page more."""
    monkeypatch.setattr(complete, "PAGE_PARTS", 2)
    upload = await operations.start(memory_store, "k")
    for number in range(1, 5):
        await operations.part(memory_store, "k", upload, number, DATA[number:])
    parts, _ = await list_parts(memory_store.storage, upload)
    choices = [complete.PartChoice(part.number, part.etag, {}) for part in parts.records]
    checks = iter((None, errors.AccessDenied()))

    def check(target: publish.Target) -> None:
        if (error := next(checks)) is not None:
            raise error

    completion = complete.Completion(choices, check, {}, "", -1)
    with pytest.raises(errors.AccessDenied):
        await complete.complete_upload(memory_store.storage, BUCKET, "k", upload, completion)
    audit = Audit(memory_store.cluster, memory_store)
    assert len(audit.under(keys.manifest(upload))) == 2
    await operations.complete(memory_store, "k", upload, leave_out=(3, 4))
    await collect(memory_store)
    audit = Audit(memory_store.cluster, memory_store)
    assert len(audit.under(keys.manifest(upload))) == 1
    assert set(audit.references()) == set(audit.held())
    assert await operations.get(memory_store, "k") == DATA[1:] + DATA[2:]


async def test_what_is_in_the_trash_or_a_part_of_another_key_goes_to_a_new_profile_too() -> None:
    cluster = MemoryCluster()
    await cluster.found()
    process = await cluster.process()
    await operations.set_trash(process, 86_400.0)
    await operations.put(process, "trashed", DATA)
    await operations.delete(process, "trashed")
    upload = await operations.start(process, "of-parts")
    await operations.part(process, "of-parts", upload, 1, DATA)
    await operations.complete(process, "of-parts", upload)
    await operations.delete(process, "of-parts")
    await operations.put(process, "source", DATA[::-1])
    upload = await operations.start(process, "other")
    await operations.copy_part(process, "source", "other", upload, 1)
    await operations.delete(process, "source")
    await make_profile(process)
    await reprofile.start(process.kv, BUCKET, "2+1")
    worker = Reprofiler(process.storage)
    for _ in range(60):
        job = await reprofile.status(process.kv, BUCKET)
        assert job is not None
        if job.state == "done":
            break
        await worker.work()
        await collect(process)
    assert job.state == "done", job
    audit = Audit(cluster, process)
    audit.check_held()
    audit.check_counts()
    assert {ref.profile for ref in audit.held().values()} <= {"2+1", "2+1.small"}
    entries = [decode(TrashRecord, value) for value in audit.under(keys.TRASH).values()]
    assert len(entries) == 3
    for _, entry in audit.trash():
        assert entry.record.data is not None
    await operations.complete(process, "other", upload)
    assert await operations.get(process, "other") == DATA[::-1]
    for key in ("trashed", "of-parts"):
        found = [
            (keys.split_trashed(record_key)[1], entry.record.sequence)
            for record_key, entry in audit.trash()
            if keys.split_trashed(record_key)[1] == key
        ]
        await operations.untrash(process, *found[0])
        assert await operations.get(process, key) == DATA


async def make_profile(process: Process) -> None:
    await create_profile(
        process.kv,
        process.topology,
        "2+1",
        "2+1",
        pg_count=8,
        stripe_bytes=128 * 1024,
        failure_domain="drive",
        now_ms=process.storage.clock_ms(),
    )


async def test_a_rename_behind_a_walk_to_another_profile_is_seen(memory_store: Process) -> None:
    """The walk has passed `a` when `z`, which it has not come to, is given that name."""
    for number in range(5):
        await operations.put(memory_store, f"m{number}", DATA)
    await operations.put(memory_store, "z", DATA[::-1])
    await make_profile(memory_store)
    await reprofile.start(memory_store.kv, BUCKET, "2+1")
    worker = Reprofiler(memory_store.storage, records_per_unit=2)
    for _ in range(3):
        await worker.work()
    await operations.rename(memory_store, "z", "a")
    for _ in range(60):
        job = await reprofile.status(memory_store.kv, BUCKET)
        assert job is not None
        if job.state == "done":
            break
        await worker.work()
    assert job.state == "done"
    assert (await operations.blob_of(memory_store, "a")).profile == "2+1"
    assert await operations.get(memory_store, "a") == DATA[::-1]


async def test_the_window_is_of_the_bucket(memory_store: Process) -> None:
    await change_bucket(
        memory_store.storage, BUCKET, lambda bucket: msgspec.structs.replace(bucket, trash_ms=1000)
    )
    await operations.put(memory_store, "k", DATA)
    await operations.delete(memory_store, "k")
    await on_demand.purge_trash(memory_store.storage)
    assert len(Audit(memory_store.cluster, memory_store).trash()) == 1
    memory_store.cluster.clock.advance(1.1)
    await on_demand.purge_trash(memory_store.storage)
    await collect(memory_store)
    Audit(memory_store.cluster, memory_store).check_at_rest()
