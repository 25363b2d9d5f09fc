"""Doing away with a master key: that nothing is under it any more is proven, not assumed."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from s3gw import errors
from s3gw.kv.interface import KV, Put, Reading
from s3gw.metadata import keys
from s3gw.metadata.key_records import NamedKey, ProcessKeys, RewrapJob
from s3gw.metadata.records import (
    Description,
    Encryption,
    ObjectRecord,
    TrashRecord,
    UploadRecord,
    decode,
    encode,
)
from s3gw.objects.encrypted import frame
from s3gw.objects.keyring.master import ID_BYTES, BadMasterKeys, MasterKeys
from s3gw.objects.keyring.ring import (
    Ring,
    Sources,
    Wanted,
    keys_in_use,
    master_key_of,
    master_keys_known,
    require_master_keys,
)
from s3gw.objects.publish import no_check, read_target
from s3gw.objects.write import put_object
from s3gw.workers import rewrap
from s3gw.workers.rewrap import DONE, PROCESSES, Rewrapper
from tests.kv.conftest import EtcdUnderTest, SqliteUnderTest
from tests.stores import encrypted, operations
from tests.stores.encrypted import KMS, S3
from tests.stores.memory_store import BUCKET, MASTER_KEY, Bytes, MemoryCluster, Process

NEW_KEY = b"n" * 32
OLD_ID, NEW_ID = (MasterKeys([key]).present for key in (MASTER_KEY, NEW_KEY))
BODY = b"body"
SEEDS = itertools.count(1)


async def process_with(cluster: MemoryCluster, *master: bytes) -> Process:
    """A process that has these master keys, the first of them the present one."""
    process = await cluster.process(seed=next(SEEDS))
    storage, sources = process.storage, Sources(master=MasterKeys(master))
    storage.ring = Ring(process.kv, sources, storage.clock_ms, storage.monotonic)
    return process


async def job_of(process: Process) -> RewrapJob:
    job = (await rewrap.status(process.storage)).record
    assert job is not None
    return job


async def finish(process: Process, worker: Rewrapper) -> RewrapJob:
    for _ in range(500):
        if not await worker.work():
            break
    return await job_of(process)


def masters_of(cluster: MemoryCluster) -> Iterator[bytes]:
    """The ids of master keys that anything stored is under."""
    held: list[Encryption | None] = []
    for key, item in cluster.engine.items.items():
        if key.startswith(keys.NAMED_KEYS):
            yield from (version[:ID_BYTES] for version in decode(NamedKey, item.value).versions)
        elif key.startswith((keys.OBJECTS, keys.VERSIONS)):
            held.append(decode(ObjectRecord, item.value).description.encryption)
        elif key.startswith(keys.UPLOADS):
            held.append(decode(UploadRecord, item.value).description.encryption)
        elif key.startswith(keys.TRASH):
            held.append(decode(TrashRecord, item.value).record.description.encryption)
    yield from (master_key_of(encryption) for encryption in held)


async def check_known(cluster: MemoryCluster, process: Process) -> None:
    known, _ = await keys_in_use(process.kv)
    assert set(masters_of(cluster)) - {b""} <= set(known)


async def act(process: Process, dice: random.Random) -> None:
    """One of all the ways in which a wrapped key comes into being or moves."""
    one, other = (f"k{dice.randrange(6)}" for _ in range(2))
    wanted = dice.choice([S3, S3, KMS])
    match dice.randrange(7):
        case 0:
            await encrypted.put(process, one, BODY, wanted)
        case 1:
            await operations.delete(process, one)
        case 2 if await operations.record(process, one) and one != other:
            await operations.rename(process, one, other)
        case 3 if await operations.record(process, one) and one != other:
            await encrypted.copy(process, one, other, wanted)
        case 4:
            await encrypted.begin(process, one, wanted)
        case 5:
            await encrypted.multipart(process, one, [BODY], wanted)
        case _:
            ring = process.storage.ring
            await ring.named.set_state("default", "enabled")
            await ring.named.rotate("default", await ring.usable_master())


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_meanwhile_a_key_that_is_done_with_is_under_nothing(
    memory_cluster: MemoryCluster, seed: int
) -> None:
    """Processes of both keys write and move all kinds of records while the job goes over them."""
    dice = random.Random(seed)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    late = await process_with(memory_cluster, MASTER_KEY, NEW_KEY)
    if dice.randrange(2):
        await operations.set_versioning(late, "Enabled")
    else:
        await operations.set_trash(late, 86_400)
    await encrypted.put(late, "named", BODY, KMS)
    for _ in range(10):
        await act(late, dice)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage, records_per_unit=2)
    until = dice.randrange(10, 60)
    for _ in range(until):
        await worker.work()
        await act(dice.choice([both, late]), dice)
        await check_known(memory_cluster, both)
    for _ in range(dice.randrange(30)):
        await worker.work()
        await act(both, dice)
    job = await finish(both, worker)
    assert (job.state, job.failed) == (DONE, 0)
    assert set(masters_of(memory_cluster)) - {b""} <= {NEW_ID}
    assert (await keys_in_use(both.kv))[0] == (NEW_ID,)


async def test_a_record_that_moves_behind_every_round_is_found_in_the_end(
    memory_cluster: MemoryCluster,
) -> None:
    """Each time that the walk has passed one of its names it goes there, in every round."""
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "z", BODY)
    for number in range(6):
        await encrypted.put(old, f"m{number}", BODY, None)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage, records_per_unit=1)
    place, moves = "z", 0
    while moves < 8:
        job = await job_of(both)
        assert job.state != DONE
        if job.stage == "objects":
            at = job.cursor[len(keys.objects(BUCKET)) :]
            if place == "z" and b"m2" <= at < b"m5":
                await operations.rename(both, "z", "a")
                place, moves = "a", moves + 1
            elif place == "a" and at < b"a":
                await operations.rename(both, "a", "z")
                place, moves = "z", moves + 1
        await worker.work()
    assert (await finish(both, worker)).state == DONE
    assert set(masters_of(memory_cluster)) - {b""} == {NEW_ID}


async def test_an_object_that_was_wrapped_before_and_is_stored_after_is_refused(
    memory_cluster: MemoryCluster,
) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "k", BODY)
    target = await read_target(old.storage, BUCKET, "late")
    description, framing = await frame(old.storage, target.bucket, Description(), S3)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    assert (await finish(both, Rewrapper(both.storage))).state == DONE

    async def store() -> ObjectRecord:
        return await put_object(
            old.storage, target, "owner", description, Bytes(BODY), no_check, framing
        )

    with pytest.raises(errors.ServiceUnavailable, match="replaced for good"):
        await store()
    for wanted in (S3, KMS):
        with pytest.raises(errors.ServiceUnavailable, match="replaced for good"):
            await encrypted.put(old, "later", BODY, wanted)
    assert await operations.record(both, "late") is None
    assert set(masters_of(memory_cluster)) - {b""} == {NEW_ID}
    assert (await keys_in_use(both.kv))[0] == (NEW_ID,)
    with pytest.raises(BadMasterKeys, match="replaced for good"):
        await require_master_keys(both.kv, MasterKeys([MASTER_KEY, NEW_KEY]))
    await require_master_keys(both.kv, MasterKeys([NEW_KEY, MASTER_KEY]))


@pytest.mark.parametrize("wanted", [S3, KMS], ids=["S3", "KMS"])
async def test_what_is_under_way_under_the_new_key_is_not_disturbed(
    memory_cluster: MemoryCluster, wanted: Wanted
) -> None:
    """The record of master keys changes between wrapping and storing."""
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "k", BODY)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    target = await read_target(both.storage, BUCKET, "under-way")
    description, framing = await frame(both.storage, target.bucket, Description(), wanted)
    other = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(other.storage)
    assert (await finish(other, Rewrapper(other.storage))).state == DONE
    await put_object(both.storage, target, "owner", description, Bytes(BODY), no_check, framing)
    assert await encrypted.get(both, "under-way", wanted=wanted) == BODY
    upload = await encrypted.begin(both, "upload", wanted)
    await encrypted.finish(both, "upload", upload, [BODY], wanted)
    assert await encrypted.get(other, "upload", wanted=wanted) == BODY


async def test_requests_at_once_all_learn_that_the_master_keys_have_changed(
    memory_cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one of them reads the record again the others wait for it, and fail neither."""
    process = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await encrypted.put(process, "k", BODY)
    engine = process.kv
    reading = engine.get_many

    async def slowly(wanted: Sequence[bytes]) -> Reading:
        for _ in range(50 if list(wanted) == [keys.MASTER_KEYS] else 0):
            await asyncio.sleep(0)
        return await reading(wanted)

    monkeypatch.setattr(engine, "get_many", slowly)
    for round_number in range(5):
        await Ring(memory_cluster.kv(), Sources(), process.storage.clock_ms).note_found(
            [bytes((round_number,)) * ID_BYTES]
        )
        names = [f"{round_number}-{number}" for number in range(12)]
        await asyncio.gather(*(encrypted.put(process, name, BODY) for name in names))
    assert await encrypted.get(process, "4-11") == BODY


async def test_a_process_that_was_not_started_again_begins_no_job(
    memory_cluster: MemoryCluster,
) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "k", BODY)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    done = await finish(both, Rewrapper(both.storage))
    assert done.state == DONE
    with pytest.raises(errors.ServiceUnavailable, match="replaced for good"):
        await rewrap.start(old.storage)
    with pytest.raises(errors.ServiceUnavailable, match="replaced for good"):
        await old.storage.ring.bar_others()
    assert await job_of(both) == done
    assert (await master_keys_known(both.kv))[0].barred == (OLD_ID,)


async def test_a_key_that_was_done_away_with_since_it_was_noted_bars_no_other(
    memory_cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was held up between noting its key as in use and reading who else is."""
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "k", BODY)
    note = old.storage.ring.note_in_use

    async def held_up(name: bytes) -> int:
        revision = await note(name)
        both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
        await rewrap.start(both.storage)
        assert (await finish(both, Rewrapper(both.storage))).state == DONE
        return revision

    monkeypatch.setattr(old.storage.ring, "note_in_use", held_up)
    with pytest.raises(errors.ServiceUnavailable, match="replaced for good"):
        await old.storage.ring.bar_others()
    known, _ = await master_keys_known(old.kv)
    assert (known.ids, known.barred) == ((NEW_ID,), (OLD_ID,))


async def test_who_wraps_under_the_old_key_after_the_bar_makes_another_proof_necessary(
    memory_cluster: MemoryCluster,
) -> None:
    late = await process_with(memory_cluster, MASTER_KEY, NEW_KEY)
    await encrypted.put(late, "k", BODY)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage)
    while not (await job_of(both)).proving:
        await worker.work()
    known, _ = await master_keys_known(both.kv)
    assert (set(known.ids), known.barred) == ({OLD_ID, NEW_ID}, (OLD_ID,))
    await encrypted.put(late, "late", BODY)
    known, _ = await master_keys_known(both.kv)
    assert known.barred == ()
    for _ in range(len(rewrap.STAGES)):
        await worker.work()
    job = await job_of(both)
    assert (job.state, job.stage) == (rewrap.WALKING, PROCESSES)
    assert (await finish(both, worker)).state == DONE
    assert set(masters_of(memory_cluster)) - {b""} == {NEW_ID}


async def test_it_waits_for_processes_that_do_not_know_the_new_key_and_names_them(
    memory_cluster: MemoryCluster,
) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    await encrypted.put(old, "k", BODY)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    lease = await both.kv.grant_lease(10**6)
    told = encode(ProcessKeys("host-2 77", (OLD_ID,)))
    node = await both.kv.grant_lease(10**6)
    writes = [Put(keys.process(lease), told, lease), Put(keys.process(node), b"", node)]
    await both.kv.commit([], writes)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage)
    job = await finish(both, worker)
    assert (job.state, job.stage) == (rewrap.WALKING, PROCESSES)
    assert job.note.endswith(": host-2 77")
    assert OLD_ID in (await keys_in_use(both.kv))[0]
    assert not await worker.work()
    assert await job_of(both) == job
    await both.kv.revoke_lease(lease)
    job = await finish(both, worker)
    assert (job.state, job.note) == (DONE, "")
    assert (await keys_in_use(both.kv))[0] == (NEW_ID,)


async def test_a_proof_whose_history_is_gone_begins_again(memory_cluster: MemoryCluster) -> None:
    old = await process_with(memory_cluster, MASTER_KEY)
    for number in range(4):
        await encrypted.put(old, f"k{number}", BODY)
    both = await process_with(memory_cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage, records_per_unit=1)
    while not ((job := await job_of(both)).proving and job.stage == "objects"):
        await worker.work()
    pin = (await both.kv.get_many([keys.pin("rewrap")])).items[0]
    assert pin is not None
    assert pin.revision == job.revision
    await operations.rename(both, "k3", "a")
    await both.kv.compact((await both.kv.get_many([])).revision)
    await worker.work()
    job = await job_of(both)
    assert job.stage == PROCESSES
    assert "raise history_window_seconds" in job.note
    job = await finish(both, worker)
    assert (job.state, job.note) == (DONE, "")
    assert (await both.kv.get_many([keys.pin("rewrap")])).items == [None]
    assert set(masters_of(memory_cluster)) - {b""} == {NEW_ID}


async def test_a_key_is_rotated_again_and_again(memory_cluster: MemoryCluster) -> None:
    chain = [bytes((number,)) * 32 for number in range(65, 69)]
    first = await process_with(memory_cluster, chain[0])
    await encrypted.put(first, "k", BODY)
    await encrypted.put(first, "n", BODY, KMS)
    for before, after in itertools.pairwise(chain):
        process = await process_with(memory_cluster, after, before)
        await rewrap.start(process.storage)
        assert (await finish(process, Rewrapper(process.storage))).state == DONE
        present = MasterKeys([after]).present
        assert set(masters_of(memory_cluster)) - {b""} == {present}
    last = await process_with(memory_cluster, chain[-1])
    assert await encrypted.get(last, "k") == BODY
    assert await encrypted.get(last, "n", wanted=KMS) == BODY


@pytest.fixture(scope="module")
def etcd_server() -> Iterator[None]:
    """The server that the tests of engines share in this process ends with the tests here."""
    yield
    if EtcdUnderTest.server is not None:
        EtcdUnderTest.server.close()
        EtcdUnderTest.server = None


@pytest.mark.usefixtures("etcd_server")
@pytest.mark.parametrize("engine", [SqliteUnderTest, EtcdUnderTest], ids=["sqlite", "etcd"])
async def test_the_engines_of_real_stores_serve_the_proof(
    engine: type[SqliteUnderTest] | type[EtcdUnderTest], tmp_path: Path
) -> None:
    """The reading at one revision is theirs: a record that moves after it is met where it was."""
    under_test = engine(tmp_path)
    kv = await under_test.open()
    cluster = CommonEngine(kv)
    await cluster.found()
    old = await process_with(cluster, MASTER_KEY)
    for number in range(4):
        await encrypted.put(old, f"k{number}", BODY)
    both = await process_with(cluster, NEW_KEY, MASTER_KEY)
    await rewrap.start(both.storage)
    worker = Rewrapper(both.storage, records_per_unit=1)
    place = 0
    while not (job := await job_of(both)).proving or job.stage != "objects":
        if job.stage == "objects" and not place and job.cursor.endswith(b"/k1"):
            await operations.rename(both, "k3", "a0")  # behind the walk, under the old key
            place = 1
        await worker.work()
    await operations.rename(both, "a0", "z")
    await operations.rename(both, "z", "a1")
    assert (await finish(both, worker)).state == DONE
    assert place
    assert (await keys_in_use(kv))[0] == (NEW_ID,)
    new = await process_with(cluster, NEW_KEY)
    for key in ("k0", "k1", "k2", "a1"):
        assert await encrypted.get(new, key) == BODY
    await kv.close()


class CommonEngine(MemoryCluster):
    """A cluster whose processes share one client of an engine."""

    def __init__(self, engine: KV) -> None:
        super().__init__(8)
        self._common = engine

    def kv(self) -> KV:  # type: ignore[override]
        return self._common
