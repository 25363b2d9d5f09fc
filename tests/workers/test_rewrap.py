"""After a rotation all data keys are wrapped anew, whatever races or stops, and no data moves."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.kv.interface import Unavailable
from s3gw.metadata import keys
from s3gw.metadata.key_records import RewrapJob
from s3gw.metadata.records import BlobRef, Description
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects.encrypted import framing_of
from s3gw.objects.keyring.master import BadMasterKeys, MasterKeys
from s3gw.objects.keyring.named import DISABLED, ENABLED, PENDING
from s3gw.objects.keyring.ring import Ring, Sources, keys_in_use, require_master_keys
from s3gw.objects.multipart import create_upload, find_upload, upload_part
from s3gw.objects.publish import read_target
from s3gw.workers import rewrap
from s3gw.workers.rewrap import DONE, Rewrapper
from tests.stores import encrypted, operations
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.encrypted import ALL, KMS, OWN, S3
from tests.stores.memory_store import BUCKET, MASTER_KEY, Bytes, MemoryCluster, Process

NEW_KEY = b"n" * 32
BODY = random.Random(9).randbytes(100_000)
SEEDS = itertools.count(1)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


async def process_with(cluster: MemoryCluster, *master: bytes) -> Process:
    """A process that has these master keys, the first of them the present one."""
    process = await cluster.process(seed=next(SEEDS))
    sources = Sources(master=MasterKeys(master))
    process.storage.ring = Ring(process.kv, sources, process.storage.clock_ms)
    return process


async def run(process: Process, *, units: int = 1000, page: int = 3) -> RewrapJob:
    worker = Rewrapper(process.storage, records_per_unit=page)
    for _ in range(units):
        if not await worker.work():
            break
    job = (await rewrap.status(process.storage)).record
    assert job is not None
    return job


async def fill(process: Process) -> None:
    for name, wanted in ALL.items():
        for number in range(3):
            await encrypted.put(process, f"{name}-{number}", BODY, wanted)
    await encrypted.put(process, "plain", BODY, None)
    await encrypted.multipart(process, "parts", [BODY, b"end"], KMS)
    await operations.set_versioning(process, "Enabled")
    for _ in range(3):
        await encrypted.put(process, "versions", BODY, S3)


async def check(process: Process) -> None:
    for name, wanted in ALL.items():
        for number in range(3):
            assert await encrypted.get(process, f"{name}-{number}", wanted=wanted) == BODY
    assert await encrypted.get(process, "plain", wanted=None) == BODY
    assert await encrypted.get(process, "parts", wanted=KMS) == BODY + b"end"
    target = await read_target(process.storage, BUCKET, "versions")
    assert target.visible is not None
    assert await encrypted.get(process, "versions") == BODY


async def test_everything_is_under_the_new_master_key_and_the_old_one_can_go(
    memory_cluster: MemoryCluster,
) -> None:
    await fill(await process_with(memory_cluster, MASTER_KEY))
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await check(both)
    shards = {name: dict(drive.shards) for name, drive in memory_cluster.drives.items()}
    await rewrap.start(both.storage)
    job = await run(both)
    # Of SSE-S3, whole and in versions, and the named key, under which the others are.
    assert (job.state, job.failed, job.rewrapped) == (DONE, 0, 3 + 1 + 3)
    assert (await keys_in_use(both.kv))[0] == (MasterKeys([NEW_KEY]).present,)
    new = await process_with(memory_cluster, NEW_KEY)
    await check(new)
    await require_master_keys(new.kv, new.storage.ring.sources.master)
    assert {name: dict(drive.shards) for name, drive in memory_cluster.drives.items()} == shards
    old = await process_with(memory_cluster, MASTER_KEY)
    with pytest.raises(BadMasterKeys):
        await require_master_keys(old.kv, old.storage.ring.sources.master)
    with pytest.raises(errors.ServiceUnavailable):
        await encrypted.get(old, "S3-0")


async def test_a_job_goes_on_where_another_process_stopped(
    memory_cluster: MemoryCluster,
) -> None:
    await fill(await process_with(memory_cluster, MASTER_KEY))
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    seen = set()
    for _ in range(100):
        other = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
        job = await run(other, units=1, page=2)
        seen.add((job.stage, job.cursor))
        if job.state == DONE:
            break
    assert job.state == DONE
    assert len(seen) > 8
    await check(await process_with(memory_cluster, NEW_KEY))


async def test_what_is_written_and_copied_meanwhile_is_not_missed(
    memory_cluster: MemoryCluster,
) -> None:
    await fill(await process_with(memory_cluster, MASTER_KEY))
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    late = await process_with(memory_cluster, MASTER_KEY, NEW_KEY)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage, records_per_unit=2)
    for number in range(12):
        await worker.work()
        await encrypted.put(late, f"a-{number}", BODY)
        await encrypted.copy(late, "versions", f"b-{number}")
    assert (await run(both)).state == DONE
    new = await process_with(memory_cluster, NEW_KEY)
    for number in range(12):
        assert await encrypted.get(new, f"a-{number}") == BODY
        assert await encrypted.get(new, f"b-{number}") == BODY


@pytest.mark.parametrize("how", ["rename", "copy", "restore", "undelete"])
@pytest.mark.parametrize("units", range(1, 14))
async def test_what_goes_behind_the_back_of_the_walk_is_not_missed(
    memory_cluster: MemoryCluster, how: str, units: int
) -> None:
    """An object leaves a place that the walk has not come to, for one that it has left."""
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    for number in range(4):
        await encrypted.put(both, f"b-{number}", BODY)
    old = await process_with(memory_cluster, MASTER_KEY)
    if how == "restore":
        await operations.set_trash(old, 86_400)
    if how == "undelete":
        await operations.set_versioning(old, "Enabled")
    key = "z" if how in ("rename", "copy") else "a"
    record = await encrypted.put(old, key, BODY)
    if how == "restore":
        await operations.delete(old, key)
    newest = await encrypted.put(both, key, b"newest") if how == "undelete" else None
    await rewrap.start(both.storage)
    await run(both, units=units, page=1)
    if how == "rename":
        await operations.rename(old, "z", "a")
    elif how == "copy":
        await encrypted.copy(old, "z", "a")
        await operations.delete(old, "z")
    elif how == "restore":
        await operations.untrash(old, "a", record.sequence)
    else:
        assert newest is not None
        await operations.remove(old, "a", newest.sequence)
    assert (await run(both, page=1)).state == DONE
    assert (await keys_in_use(both.kv))[0] == (MasterKeys([NEW_KEY]).present,)
    assert await encrypted.get(await process_with(memory_cluster, NEW_KEY), "a") == BODY


async def test_a_rotated_named_key_is_used_for_all(memory_store: Process) -> None:
    before = await encrypted.put(memory_store, "k", BODY, KMS)
    ring = memory_store.storage.ring
    await ring.named.rotate("default", await ring.usable_master())
    await rewrap.start(memory_store.storage)
    assert (await run(memory_store)).rewrapped == 1
    after = await operations.record(memory_store, "k")
    assert after is not None
    assert after.description.encryption is not None
    assert before.description.encryption is not None
    key_id = (await ring.named.find("default"))[0].key_id
    assert len(key_id) == 8
    for record, version in ((before, b"\x01"), (after, b"\x02")):
        assert record.description.encryption is not None
        wrapped = record.description.encryption.wrapped_key
        assert wrapped[:13] == b"\x02" + key_id + b"\x00\x00\x00" + version
    assert isinstance(before.data, BlobRef)
    assert (after.data, after.etag, after.sequence) == (before.data, before.etag, before.sequence)
    assert await encrypted.get(memory_store, "k", wanted=KMS) == BODY


async def test_what_cannot_be_wrapped_anew_keeps_the_old_master_key_in_use(
    memory_cluster: MemoryCluster,
) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    record = await encrypted.put(old, "k", BODY)
    damaged = record.description.encryption
    assert damaged is not None
    damaged = msgspec.structs.replace(damaged, wrapped_key=damaged.wrapped_key[:-1] + b"?")
    description = msgspec.structs.replace(record.description, encryption=damaged)
    await encrypted.overwrite(old, "k", msgspec.structs.replace(record, description=description))
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    job = await run(both)
    assert (job.state, job.failed) == (DONE, 1)
    assert "a data key" in job.note
    assert MasterKeys([MASTER_KEY]).present in (await keys_in_use(both.kv))[0]


@pytest.mark.parametrize("state", [DISABLED, PENDING])
async def test_a_named_key_that_may_not_be_used_holds_no_master_key_back(
    memory_cluster: MemoryCluster, state: str
) -> None:
    """What is under its former version stays there; the key itself is wrapped anew."""
    old = await process_with(memory_cluster, MASTER_KEY)
    named = old.storage.ring.named
    await encrypted.put(old, "k", BODY, KMS)
    await named.rotate("default", await old.storage.ring.usable_master())
    await named.set_state("default", state, days=7)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    job = await run(both)
    assert (job.state, job.failed, job.kept) == (DONE, 0, 1)
    assert "default" in job.note
    assert (await keys_in_use(both.kv))[0] == (MasterKeys([NEW_KEY]).present,)
    new = await process_with(memory_cluster, NEW_KEY)
    await new.storage.ring.named.set_state("default", ENABLED)
    assert await encrypted.get(new, "k", wanted=KMS) == BODY


async def test_a_process_with_other_master_keys_leaves_the_job_alone(
    memory_cluster: MemoryCluster,
) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "k", BODY)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    assert not await Rewrapper(old.storage).work()
    assert (await run(both)).state == DONE


async def test_open_uploads_are_wrapped_anew(
    memory_cluster: MemoryCluster,
) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    upload_id = b"u" * 16
    data_key, encryption, _ = await old.storage.ring.new_key(S3, upload_id)
    description = Description(encryption=encryption)
    await create_upload(
        old.storage,
        BUCKET,
        "k",
        "owner",
        description,
        checksum_algorithm="",
        checksum_type="",
        upload_id=upload_id,
    )
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    assert (await run(both)).state == DONE
    new = await process_with(memory_cluster, NEW_KEY)
    upload = await find_upload(new.storage, BUCKET, "k", upload_id, 1)
    framing = await framing_of(new.storage, upload.record.description, upload_id)
    assert framing.data_key == data_key
    await upload_part(new.storage, upload, 1, Bytes(BODY), framing)
    await operations.complete(new, "k", upload_id)
    assert await encrypted.get(new, "k") == BODY


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("at", [0, 1, 2, 5, 9, 14])
async def test_a_crash_at_any_commit_loses_no_key(
    memory_cluster: MemoryCluster, mode: Mode, at: int
) -> None:
    await fill(await process_with(memory_cluster, MASTER_KEY))
    fuse = Fuse()
    crashing = await memory_cluster.process(CrashingKV(memory_cluster.kv(), fuse), seed=next(SEEDS))
    sources = Sources(master=MasterKeys([NEW_KEY, MASTER_KEY]))
    crashing.storage.ring = Ring(crashing.kv, sources, crashing.storage.clock_ms)
    fuse.arm(at, mode)
    try:
        await rewrap.start(crashing.storage)
        await run(crashing, page=2)
    except (Crashed, Unavailable, OutcomeUnknown):
        pass
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await check(both)
    await rewrap.start(both.storage)
    assert (await run(both)).state == DONE
    await check(await process_with(memory_cluster, NEW_KEY))


async def test_without_a_master_key_there_is_nothing_to_wrap_under(
    memory_cluster: MemoryCluster,
) -> None:
    process = await memory_cluster.process()
    process.storage.ring = Ring(process.kv, Sources(), process.storage.clock_ms)
    with pytest.raises(errors.NotImplementedS3):
        await rewrap.start(process.storage)
    with pytest.raises(errors.NotImplementedS3):
        await encrypted.put(process, "k", BODY)
    await encrypted.put(process, "c", BODY, OWN)
    assert await encrypted.get(process, "c", wanted=OWN) == BODY
    assert not [key for key in memory_cluster.engine.items if key.startswith(keys.MASTER_KEYS)]


async def test_a_record_that_moves_behind_the_walk_is_found(memory_cluster: MemoryCluster) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    for key in "bcd":
        await encrypted.put(old, key, BODY, None)
    await encrypted.put(old, "z", BODY)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage, records_per_unit=1)
    while (job := (await rewrap.status(both.storage)).record) is None or job.walked < 3:
        await worker.work()
    await operations.rename(both, "z", "a")
    assert (await run(both)).state == DONE
    assert (await keys_in_use(both.kv))[0] == (MasterKeys([NEW_KEY]).present,)
    new = await process_with(memory_cluster, NEW_KEY)
    assert await encrypted.get(new, "a") == BODY


async def test_objects_of_a_named_key_that_was_deleted_do_not_keep_a_master_key(
    memory_cluster: MemoryCluster,
) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "lost", BODY, KMS)
    await encrypted.put(old, "k", BODY)
    await old.storage.ring.named.set_state("default", PENDING, days=7)
    memory_cluster.clock.advance(8 * 86_400.0)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    job = await run(both)
    assert (job.state, job.failed, job.rewrapped) == (DONE, 0, 1)
    assert (await keys_in_use(both.kv))[0] == (MasterKeys([NEW_KEY]).present,)
    assert await encrypted.get(await process_with(memory_cluster, NEW_KEY), "k") == BODY
