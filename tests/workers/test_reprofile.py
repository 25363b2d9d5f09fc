"""A bucket goes over into another profile while it is used: everything readable at any moment,
nothing lost whatever stops or races, nothing left behind."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from s3gw.cluster.profiles import create_profile
from s3gw.kv.interface import At, Put, Unavailable
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BucketRecord,
    Description,
    ManifestPage,
    ManifestRef,
    PartRecord,
    ReprofileJob,
    UploadRecord,
    decode,
    encode,
)
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects import publish
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.multipart import Upload, give_back
from s3gw.objects.publish import no_check
from s3gw.objects.storage import Storage
from s3gw.objects.write import put_object
from s3gw.workers import on_demand, reencode, reprofile
from s3gw.workers.reencode import Entry, write_copy
from s3gw.workers.reprofile import Reprofiler, ReprofileRefused
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, PROFILE, Bytes, MemoryCluster, Process
from tests.stores.operations import (
    abort,
    blob_of,
    complete,
    copy,
    delete,
    get,
    part,
    put,
    remove,
    set_versioning,
    start,
)

WIDE = "wide"
STRIPE = 192 * 1024
SIZES = (0, 1, 900, 65_536, 65_537, 200_000, 400_001)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from s3gw import limits

    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


@pytest.fixture
async def process(memory_store: Process) -> Process:
    await make_wide(memory_store)
    return memory_store


async def make_wide(process: Process) -> None:
    """Another profile, with stripes of another length."""
    await create_profile(
        process.kv, process.topology, WIDE, "5+3", pg_count=16, stripe_bytes=STRIPE, now_ms=1
    )


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(size * 31 + seed).randbytes(size)


async def fill(process: Process) -> dict[str, bytes]:
    """Objects of all sizes, a copy, an object of parts and a copy of it."""
    data = {f"k{size}": content(size) for size in SIZES}
    for key, body in data.items():
        await put(process, key, body)
    await copy(process, "k200000", "copied")
    data["copied"] = data["k200000"]
    upload = await start(process, "parts")
    for number, size in ((1, 70_000), (2, 300_000), (3, 10)):
        await part(process, "parts", upload, number, content(size, number))
    await complete(process, "parts", upload)
    data["parts"] = b"".join(content(size, n) for n, size in ((1, 70_000), (2, 300_000), (3, 10)))
    await copy(process, "parts", "parts-copied")
    data["parts-copied"] = data["parts"]
    return data


async def check(process: Process, data: dict[str, bytes]) -> None:
    for key, body in data.items():
        assert await get(process, key) == body, key


def homes(process: Process, bucket: str = BUCKET) -> set[str]:
    """The profiles that the blobs of a bucket's versions, manifests and parts are in."""
    found: set[str] = set()
    audit = Audit(process.cluster, process)
    records = [record for name, _, record in audit.versions() if name == bucket]
    for data in (record.data for record in records):
        if isinstance(data, ManifestRef):
            found.add(data.blob.profile)
            for page in audit.under(keys.manifest(data.manifest)).values():
                found |= {part.blob.profile for part in decode(ManifestPage, page).parts}
        elif data is not None:
            found.add(data.profile)
    return found


async def job_of(process: Process, bucket: str = BUCKET) -> ReprofileJob:
    job = await reprofile.status(process.cluster.kv(), bucket)
    assert job is not None
    return job


async def run(process: Process, *, units: int = 200, per_unit: int = 3) -> int:
    """Work until the job is at its end; how many units it took."""
    worker = Reprofiler(process.storage, records_per_unit=per_unit)
    for unit in range(units):
        if (await job_of(process)).state != reprofile.WALKING:
            return unit
        await worker.work()
    raise AssertionError(f"not done: {await job_of(process)}")


async def at_rest(process: Process) -> None:
    """Repair and collect what is due; nothing may be left over."""
    process.cluster.clock.advance(2 * 3600)
    await on_demand.repair_all(process.storage)
    for _ in range(3):
        process.cluster.clock.advance(2 * 3600)
        await on_demand.collect_garbage(process.storage)
    audit = Audit(process.cluster, process)
    audit.check_at_rest()
    assert not audit.under(keys.REPAIRS)


async def test_everything_goes_over_and_is_readable_all_the_time(process: Process) -> None:
    data = await fill(process)
    assert homes(process) == {PROFILE, f"{PROFILE}.small"}
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage, records_per_unit=2)
    for _ in range(60):
        if (await job_of(process)).state == reprofile.DONE:
            break
        await worker.work()
        await check(process, data)
    job = await job_of(process)
    assert job.state == reprofile.DONE
    assert homes(process) == {WIDE, f"{WIDE}.small"}
    assert job.blobs_done == len(SIZES) + 3 + 1  # the parts, and the manifest's own blob
    assert job.bytes_done >= sum(map(len, (data[f"k{size}"] for size in SIZES)))
    await at_rest(process)
    await check(process, data)
    assert not await worker.work()


async def test_noncurrent_versions_go_over_too(process: Process) -> None:
    await set_versioning(process, "Enabled")
    await fill(process)
    for _ in range(2):
        await fill(process)
    await delete(process, "parts")
    await delete(process, "k900")
    await reprofile.start(process.kv, BUCKET, WIDE)
    await run(process)
    assert homes(process) == {WIDE, f"{WIDE}.small"}
    audit = Audit(process.cluster, process)
    audit.check_versions()
    audit.check_held()
    await at_rest(process)


async def test_a_version_that_becomes_visible_behind_the_walk_goes_over_too(
    process: Process,
) -> None:
    """The walk is past the visible versions, and not yet at the noncurrent ones."""
    await set_versioning(process, "Enabled")
    version = await put(process, "k", content(900))
    await delete(process, "k")
    marker = await publish.read_target(process.storage, BUCKET, "k")
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage)
    while (await job_of(process)).stage != reprofile.VERSIONS:
        await worker.work()
    await remove(process, "k", marker.newest)
    visible = (await publish.read_target(process.storage, BUCKET, "k")).visible
    assert visible == version
    await run(process)
    assert homes(process) == {f"{WIDE}.small"}
    await check(process, {"k": content(900)})


async def test_new_objects_go_into_the_new_profile_at_once(process: Process) -> None:
    await reprofile.start(process.kv, BUCKET, WIDE)
    await put(process, "large", content(200_000))
    await put(process, "small", content(10))
    assert (await blob_of(process, "large")).profile == WIDE
    assert (await blob_of(process, "small")).profile == f"{WIDE}.small"


async def test_a_writer_that_began_before_has_its_blob_moved(process: Process) -> None:
    target = await publish.read_target(process.storage, BUCKET, "late")
    await reprofile.start(process.kv, BUCKET, WIDE)
    await run(process)
    body = content(200_000)
    await put_object(process.storage, target, "owner", Description(), Bytes(body), no_check)
    assert (await blob_of(process, "late")).profile == PROFILE
    await at_rest(process)
    assert (await blob_of(process, "late")).profile == WIDE
    assert await get(process, "late") == body


async def test_open_uploads_go_over_and_their_next_parts_are_new(process: Process) -> None:
    upload = await start(process, "open")
    first = content(100_000, 1)
    await part(process, "open", upload, 1, first)
    await reprofile.start(process.kv, BUCKET, WIDE)
    await run(process)
    second = content(150_000, 2)
    await part(process, "open", upload, 2, second)
    await complete(process, "open", upload)
    assert homes(process) == {WIDE, f"{WIDE}.small"}
    assert await get(process, "open") == first + second
    await at_rest(process)


async def test_an_upload_that_is_being_completed_keeps_the_job_walking(process: Process) -> None:
    upload = await start(process, "open")
    await part(process, "open", upload, 1, content(100_000))
    key = keys.upload(BUCKET, "open", upload)
    (item,) = (await process.kv.get_many([key])).items
    assert item is not None
    record = decode(UploadRecord, item.value)
    completing = msgspec.structs.replace(record, state="completing", owner_lease=7)
    await process.kv.commit([At(key, item.revision)], [Put(key, encode(completing))])
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage)
    for _ in range(12):
        await worker.work()
    job = await job_of(process)
    assert (job.state, job.rounds > 1) == (reprofile.WALKING, True)
    await process.kv.commit([], [Put(key, item.value)])
    await run(process)
    await complete(process, "open", upload)
    assert homes(process) == {WIDE, f"{WIDE}.small"}


async def test_the_part_of_an_upload_goes_over_whose_completion_died_however_often_it_is_changed(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is wrapped anew, say, each time that it is to be given back."""
    upload = await start(process, "open")
    await part(process, "open", upload, 1, content(100_000))
    key = keys.upload(BUCKET, "open", upload)
    (item,) = (await process.kv.get_many([key])).items
    assert item is not None
    taken = msgspec.structs.replace(
        decode(UploadRecord, item.value), state="completing", owner_lease=7
    )
    tries = 0

    async def taken_meanwhile(*args: Any) -> Entry:
        copied = await write_copy(*args)
        await process.kv.commit([], [Put(key, encode(taken))])
        return copied

    async def changed_before(storage: Storage, upload: Upload) -> Upload:
        nonlocal tries
        tries += 1
        if tries <= 2 * reencode.ROUNDS_MAX:
            await process.kv.commit([], [Put(key, encode(taken))])
        return await give_back(storage, upload)

    monkeypatch.setattr(reencode, "write_copy", taken_meanwhile)
    monkeypatch.setattr(reencode, "give_back", changed_before)
    await reprofile.start(process.kv, BUCKET, WIDE)
    assert await Reprofiler(process.storage).work()
    (moved,) = (await process.kv.get_many([keys.part(upload, 1)])).items
    assert moved is not None
    assert decode(PartRecord, moved.value).blob.profile == WIDE
    assert tries == 2 * reencode.ROUNDS_MAX + 1


async def test_another_bucket_that_shares_a_blob_keeps_it(process: Process) -> None:
    other = BucketRecord(1, "owner", "us-east-1", PROFILE, b"o" * 16)
    await process.kv.commit([], [Put(keys.bucket("other"), encode(other))])
    body = content(200_000)
    await put(process, "shared", body)
    await copy_object(
        process.storage,
        await publish.read_target(process.storage, BUCKET, "shared"),
        await publish.read_target(process.storage, "other", "kept"),
        Copying("owner", lambda found: found.description, "", no_check, lambda found: None),
    )
    before = await blob_of(process, "shared")
    await reprofile.start(process.kv, BUCKET, WIDE)
    await run(process)
    kept = (await publish.read_target(process.storage, "other", "kept")).visible
    assert kept is not None
    assert kept.data == before
    assert homes(process) == {WIDE}
    assert await get(process, "shared") == body
    process.cluster.clock.advance(2 * 3600)
    await on_demand.collect_garbage(process.storage)
    Audit(process.cluster, process).check_held()


async def test_objects_of_a_claimed_storage_class_go_to_its_profile(process: Process) -> None:
    await create_profile(
        process.kv,
        process.topology,
        "cold",
        "3+2",
        pg_count=16,
        now_ms=1,
        storage_classes=("GLACIER",),
    )
    cold = Description(storage_class="GLACIER")
    target = await publish.read_target(process.storage, BUCKET, "cold")
    await put_object(process.storage, target, "owner", cold, Bytes(content(200_000)), no_check)
    await put(process, "warm", content(200_000, 1))
    assert (await blob_of(process, "cold")).profile == "cold"
    await reprofile.start(process.kv, BUCKET, "cold")
    await run(process)
    assert (await blob_of(process, "warm")).profile == "cold"
    await reprofile.start(process.kv, BUCKET, WIDE)
    await run(process)
    assert (await blob_of(process, "warm")).profile == WIDE
    assert (await blob_of(process, "cold")).profile == "cold"


async def test_each_unit_may_be_done_by_another_process(process: Process) -> None:
    data = await fill(process)
    await reprofile.start(process.kv, BUCKET, WIDE)
    for number in range(60):
        if (await job_of(process)).state == reprofile.DONE:
            break
        other = await process.cluster.process(seed=number + 50)
        await Reprofiler(other.storage, records_per_unit=1).work()
    assert (await job_of(process)).state == reprofile.DONE
    assert homes(process) == {WIDE, f"{WIDE}.small"}
    await check(process, data)
    await at_rest(process)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("first", [0, 1, 2])
async def test_a_crash_at_any_commit_loses_nothing(mode: Mode, first: int) -> None:
    for commits in range(first, 36, 6):
        cluster = MemoryCluster(9)
        await cluster.found()
        process = await cluster.process()
        await make_wide(process)
        data = await fill(process)
        fuse = Fuse()
        crashing = await cluster.process(CrashingKV(cluster.kv(), fuse), seed=1)
        await reprofile.start(cluster.kv(), BUCKET, WIDE)
        fuse.arm(commits, mode)
        try:
            await run(crashing)
        except (Crashed, Unavailable, OutcomeUnknown):
            pass
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        survivor = await cluster.process(seed=2)
        await check(survivor, data)
        await run(survivor)
        assert homes(survivor) == {WIDE, f"{WIDE}.small"}
        await check(survivor, data)
        # What was written and never published is an orphan: the merge's work, after a day.
        cluster.clock.advance(26 * 3600)
        await on_demand.merge_all(survivor.storage, orphan_after_seconds=24 * 3600.0)
        cluster.clock.advance(26 * 3600)
        await on_demand.merge_all(survivor.storage, orphan_after_seconds=24 * 3600.0)
        await at_rest(survivor)
        await check(survivor, data)


async def test_writers_that_change_everything_meanwhile(process: Process) -> None:
    chosen = random.Random(5)
    data = await fill(process)
    await reprofile.start(process.kv, BUCKET, WIDE)
    other = await process.cluster.process(seed=9)

    async def writing() -> None:
        for turn in range(60):
            key = f"k{chosen.choice(SIZES)}"
            action = chosen.randrange(4)
            if action == 0 and key in data:
                await delete(other, key)
                del data[key]
            elif action == 1 and "copied" in data and key in data:
                await copy(other, key, "copied")
                data["copied"] = data[key]
            else:
                body = content(chosen.choice(SIZES), turn)
                await put(other, key, body)
                data[key] = body
            upload = await start(other, "open")
            await part(other, "open", upload, 1, content(70_000, turn))
            if turn % 2:
                await abort(other, "open", upload)
            else:
                await complete(other, "open", upload)
                data["open"] = content(70_000, turn)

    working = asyncio.create_task(run(process, units=2000))
    await writing()
    await working
    await check(process, data)
    await at_rest(process)
    assert homes(process) == {WIDE, f"{WIDE}.small"}
    await check(process, data)


async def test_while_nodes_are_missing_it_waits_and_then_goes_on(process: Process) -> None:
    data = await fill(process)
    await reprofile.start(process.kv, BUCKET, WIDE)
    nodes = [process.directory.get(name) for name in ("d0", "d1")]
    for node in nodes:
        assert node is not None
        node.live = False
    worker = Reprofiler(process.storage)
    rests = 0
    for _ in range(8):
        rests += not await worker.work()
    job = await job_of(process)
    assert job.state == reprofile.WALKING
    assert PROFILE in homes(process)  # every group of the new profile needs all eight nodes
    assert "nodes" in job.note
    assert rests >= 1
    await check(process, data)
    for node in nodes:
        assert node is not None
        node.live = True
    await run(process)
    assert (await job_of(process)).note == ""
    assert homes(process) == {WIDE, f"{WIDE}.small"}


async def test_a_cancelled_job_stops_and_everything_can_be_taken_back(process: Process) -> None:
    data = await fill(process)
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage, records_per_unit=3)
    for _ in range(3):
        await worker.work()
    await reprofile.cancel(process.kv, BUCKET)
    assert not await worker.work()
    both = homes(process)
    assert both & {WIDE, f"{WIDE}.small"}
    assert both & {PROFILE, f"{PROFILE}.small"}
    with pytest.raises(ReprofileRefused, match="no change"):
        await reprofile.cancel(process.kv, BUCKET)
    await check(process, data)
    await reprofile.start(process.kv, BUCKET, PROFILE)
    await run(process)
    assert homes(process) == {PROFILE, f"{PROFILE}.small"}
    await check(process, data)
    await at_rest(process)


async def test_a_cancelled_job_that_is_started_again_takes_up_what_it_left(
    process: Process,
) -> None:
    await fill(process)
    await reprofile.start(process.kv, BUCKET, WIDE)
    await reprofile.cancel(process.kv, BUCKET)
    job = await reprofile.start(process.kv, BUCKET, WIDE)
    assert job.sources == (PROFILE,)
    await run(process)
    assert homes(process) == {WIDE, f"{WIDE}.small"}


async def test_what_cannot_be_started_is_refused(process: Process) -> None:
    for bucket, profile, why in (
        ("none", WIDE, "no bucket"),
        (BUCKET, "none", "no profile"),
        (BUCKET, f"{WIDE}.small", "no profile"),
        (BUCKET, PROFILE, "already"),
    ):
        before = dict(process.cluster.engine.items)
        with pytest.raises(ReprofileRefused, match=why):
            await reprofile.start(process.kv, bucket, profile)
        assert process.cluster.engine.items == before
    job = await reprofile.start(process.kv, BUCKET, WIDE, now_ms=5)
    assert await reprofile.start(process.kv, BUCKET, WIDE, now_ms=6) == job
    assert await reprofile.list_jobs(process.kv) == {BUCKET: job}
    assert await reprofile.status(process.kv, "none") is None


async def test_a_job_whose_bucket_is_gone_ends(process: Process) -> None:
    await reprofile.start(process.kv, BUCKET, WIDE)
    tx = Transaction()
    tx.delete(keys.bucket(BUCKET))
    await process.kv.commit([], list(tx.writes.values()))
    worker = Reprofiler(process.storage)
    await worker.work()
    assert (await job_of(process)).state == reprofile.CANCELLED
    assert not await worker.work()


async def test_moves_are_throttled(process: Process) -> None:
    taken: list[int] = []

    class Counting:
        async def take(self, count: int) -> None:
            taken.append(count)

    await put(process, "k", content(200_000))
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage, throttle=Counting())  # type: ignore[arg-type]
    for _ in range(4):
        await worker.work()
    assert taken == [400_000]
