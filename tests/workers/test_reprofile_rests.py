"""A change of a bucket's profile where something cannot be moved: it takes nothing from others, and
holds up nothing else."""

from __future__ import annotations

import pytest

from nodes.protocol import ShardName
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, ObjectRecord, decode
from s3gw.workers import reprofile
from s3gw.workers.reprofile import Reprofiler
from tests.stores.memory_store import BUCKET, PROFILE, Process
from tests.stores.operations import blob_of, get, put
from tests.workers.test_reprofile import WIDE, check, content, homes, job_of, make_wide, run

JUNK = b"\x01 this is no record"


@pytest.fixture
async def process(memory_store: Process) -> Process:
    await make_wide(memory_store)
    return memory_store


def set_live(process: Process, name: str, *, live: bool) -> None:
    node = process.directory.get(name)
    assert node is not None
    node.live = live


def homes_of(process: Process, *names: str) -> set[str]:
    """The profiles that the blobs of some objects are in."""
    found = set()
    for name in names:
        item = process.cluster.engine.items[keys.object_(BUCKET, name)]
        data = decode(ObjectRecord, item.value).data
        assert isinstance(data, BlobRef)
        found.add(data.profile)
    return found


async def test_where_nothing_can_be_written_nothing_is_waited_for(process: Process) -> None:
    """The throttle is that of the rebuild: what cannot be done must not use it up."""
    taken: list[int] = []

    class Counting:
        async def take(self, count: int) -> None:
            taken.append(count)

    await put(process, "k", content(200_000))
    await reprofile.start(process.kv, BUCKET, WIDE)
    set_live(process, "d0", live=False)  # every group of the new profile needs all eight nodes
    worker = Reprofiler(process.storage, throttle=Counting())  # type: ignore[arg-type]
    for _ in range(8):
        await worker.work()
    assert "all its nodes" in (await job_of(process)).note
    assert taken == []


async def test_what_can_never_be_moved_is_looked_at_less_and_less_often(process: Process) -> None:
    """One blob of which too little is left must not have a large bucket walked over for ever."""
    await put(process, "k", content(200_000))
    await put(process, "lost", content(200_000, 1))
    ref = await blob_of(process, "lost")
    group = process.topology.group_of(ref.profile, ref.blob)
    for index, node in enumerate(group.nodes[:3]):
        process.cluster.drives[node].shards.pop(
            ShardName(ref.profile, group.number, ref.blob, index)
        )
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage)
    clock = process.cluster.clock

    async def rounds(seconds: int) -> int:
        before = (await job_of(process)).rounds
        for _ in range(seconds // 10):
            while await worker.work():
                pass
            clock.advance(10)
        return (await job_of(process)).rounds - before

    assert await rounds(600) <= 8
    assert await rounds(6 * 3600) <= 12
    assert (await job_of(process)).state == reprofile.WALKING
    assert await get(process, "k") == content(200_000)
    # Nodes that come back may have what was missing.
    while await rounds(600):
        pass
    set_live(process, "d0", live=False)
    assert await rounds(60) >= 1


async def test_another_job_of_a_bucket_does_not_rest(process: Process) -> None:
    await put(process, "k", content(200_000))
    await reprofile.start(process.kv, BUCKET, WIDE, now_ms=1)
    set_live(process, "d0", live=False)
    worker = Reprofiler(process.storage)
    for _ in range(20):
        await worker.work()
    assert not await worker.work()
    rounds = (await job_of(process)).rounds
    await reprofile.cancel(process.kv, BUCKET)
    await reprofile.start(process.kv, BUCKET, PROFILE, now_ms=2)
    while await worker.work():
        pass
    assert rounds
    assert (await job_of(process)).state == reprofile.DONE


@pytest.mark.parametrize(
    "record",
    [
        keys.object_(BUCKET, "junk"),
        keys.version(BUCKET, "junk", 7),
        keys.upload(BUCKET, "junk", b"u" * 16),
        keys.trashed(BUCKET, "junk", 7),
    ],
)
async def test_a_record_that_cannot_be_read_holds_up_nothing(
    process: Process, record: bytes
) -> None:
    data = {f"k{number}": content(200_000, number) for number in range(3)}
    for key, body in data.items():
        await put(process, key, body)
    await process.kv.commit([], [Put(record, JUNK)])
    await reprofile.start(process.kv, BUCKET, WIDE)
    worker = Reprofiler(process.storage, records_per_unit=1)
    for _ in range(30):
        await worker.work()
    job = await job_of(process)
    assert job.state == reprofile.WALKING
    assert "cannot be read" in job.note
    assert homes_of(process, *data) == {WIDE}
    await check(process, data)


async def test_a_job_that_cannot_be_read_holds_up_no_other(process: Process) -> None:
    await put(process, "k", content(200_000))
    await process.kv.commit([], [Put(keys.reprofile("another"), JUNK)])
    await reprofile.start(process.kv, BUCKET, WIDE)
    await run(process)
    assert homes(process) == {WIDE}


async def test_while_the_engine_is_short_of_space_nothing_is_moved(process: Process) -> None:
    await put(process, "k", content(200_000))
    await reprofile.start(process.kv, BUCKET, WIDE)
    short = True
    worker = Reprofiler(process.storage, space_short=lambda: short)
    assert not await worker.work()
    assert (await job_of(process)).note == reprofile.NO_SPACE
    revision = process.cluster.engine.revision
    for _ in range(5):
        assert not await worker.work()
    assert process.cluster.engine.revision == revision
    assert homes_of(process, "k") == {PROFILE}
    short = False
    while await worker.work():
        pass
    assert homes_of(process, "k") == {WIDE}
    assert ((await job_of(process)).state, (await job_of(process)).note) == (reprofile.DONE, "")
