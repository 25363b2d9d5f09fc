"""Multipart uploads that nobody ends: aborted when they are old, given back when the process that
was completing them is gone."""

from __future__ import annotations

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import UploadRecord, decode
from s3gw.objects.multipart import change_record, find_upload
from s3gw.workers import on_demand, stale_uploads
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.stale_uploads import StaleUploads
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import complete, get, part, start

WEEK = 7 * 24 * 3600.0


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


async def take(process: Process, key: str, upload_id: bytes, lease: int) -> None:
    """A process with that lease begins to complete the upload."""
    upload = await find_upload(process.storage, BUCKET, key, upload_id)
    await change_record(
        process.storage,
        upload,
        lambda found: msgspec.structs.replace(
            found, state="completing", owner_lease=lease, attempt=b"attempt"
        ),
    )


def state(cluster: MemoryCluster, key: str, upload_id: bytes) -> str | None:
    item = cluster.engine.items.get(keys.upload(BUCKET, key, upload_id))
    return decode(UploadRecord, item.value).state if item is not None else None


async def test_an_old_upload_is_aborted_and_its_parts_are_freed(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    old = await start(memory_store, "a\x00/key")
    for number in (1, 2):
        await part(memory_store, "a\x00/key", old, number, b"x" * 1000)
    memory_cluster.clock.advance(WEEK - 1)
    young = await start(memory_store, "k")
    await part(memory_store, "k", young, 1, b"young")
    report = await on_demand.end_stale_uploads(memory_store.storage, WEEK)
    assert (report.seen, report.aborted) == (2, 0)
    memory_cluster.clock.advance(1)
    report = await on_demand.end_stale_uploads(memory_store.storage, WEEK)
    assert (report.seen, report.aborted) == (2, 1)
    with pytest.raises(errors.NoSuchUpload):
        await part(memory_store, "a\x00/key", old, 3, b"late")
    await on_demand.collect_garbage(memory_store.storage)
    await complete(memory_store, "k", young)
    await on_demand.collect_garbage(memory_store.storage)
    Audit(memory_cluster, memory_store).check_at_rest()
    assert await get(memory_store, "k") == b"young"


async def test_with_0_none_is_ever_aborted(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    upload = await start(memory_store, "k")
    memory_cluster.clock.advance(100 * WEEK)
    report = await on_demand.end_stale_uploads(memory_store.storage, 0)
    assert (report.seen, report.aborted) == (1, 0)
    assert state(memory_cluster, "k", upload) == "open"


async def test_a_clock_that_is_set_ahead_aborts_nothing(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    clock, ahead_ms = memory_cluster.clock, 0
    memory_store.storage.clock_ms = lambda: clock.ms() + ahead_ms
    upload = await start(memory_store, "k")
    worker = StaleUploads(memory_store.storage, WEEK)
    ahead_ms = int(2 * WEEK * 1000)
    assert (await worker.run_once()).aborted == 0
    clock.advance(60)
    assert (await worker.run_once()).aborted == 0
    assert state(memory_cluster, "k", upload) == "open"
    ahead_ms = 0
    clock.advance(WEEK)
    assert (await worker.run_once()).aborted == 1


async def test_an_upload_whose_completing_process_is_gone_is_given_back(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    upload = await start(memory_store, "k")
    await part(memory_store, "k", upload, 1, b"one")
    lease = await memory_store.kv.grant_lease(60)
    await memory_store.kv.commit([], [Put(keys.process(lease), b"", lease)])
    await take(memory_store, "k", upload, lease)
    report = await on_demand.end_stale_uploads(memory_store.storage, WEEK)
    assert (report.given_back, state(memory_cluster, "k", upload)) == (0, "completing")
    await memory_store.kv.revoke_lease(lease)
    report = await on_demand.end_stale_uploads(memory_store.storage, WEEK)
    assert (report.given_back, state(memory_cluster, "k", upload)) == (1, "open")
    await part(memory_store, "k", upload, 2, b"two")
    await complete(memory_store, "k", upload)
    assert await get(memory_store, "k") == b"onetwo"


async def test_an_old_upload_is_left_to_the_process_that_completes_it(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    upload = await start(memory_store, "k")
    await part(memory_store, "k", upload, 1, b"one")
    lease = await memory_store.kv.grant_lease(1000 * int(WEEK))
    await memory_store.kv.commit([], [Put(keys.process(lease), b"", lease)])
    await take(memory_store, "k", upload, lease)
    memory_cluster.clock.advance(2 * WEEK)
    assert (await on_demand.end_stale_uploads(memory_store.storage, WEEK)).aborted == 0
    await memory_store.kv.revoke_lease(lease)
    assert (await on_demand.end_stale_uploads(memory_store.storage, WEEK)).aborted == 1


async def test_all_pages_are_looked_at_and_a_lost_race_stops_nothing(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stale_uploads, "PAGE_RECORDS", 3)
    uploads = [await start(memory_store, f"k{number}") for number in range(8)]
    memory_cluster.clock.advance(WEEK)
    abort = stale_uploads.abort_upload

    async def raced(storage, upload):  # type: ignore[no-untyped-def]
        if upload.upload_id == uploads[2]:
            await abort(storage, upload)  # the client was faster
        await abort(storage, upload)

    monkeypatch.setattr(stale_uploads, "abort_upload", raced)
    worker, units = StaleUploads(memory_store.storage, WEEK), 1
    while await worker.work(UNCLAIMED):
        units += 1
    assert units == 3
    assert not Audit(memory_cluster, memory_store).uploads()
    assert Audit(memory_cluster, memory_store).usage().uploads == 0
    Audit(memory_cluster, memory_store).check_usage()
