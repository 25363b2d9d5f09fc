"""Undo of a prefix of a bucket with versioning: a model of what each key showed at each moment."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from nodes.protocol import Buffer
from s3gw import errors
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import Description, Lock, UndoJob
from s3gw.metadata.sequences import sequence_at
from s3gw.objects import publish, undo
from s3gw.objects.undo import Moment, NotVersioned, Verdict
from s3gw.objects.write import put_object
from s3gw.wire.version_ids import NULL_VERSION
from s3gw.workers import on_demand
from s3gw.workers import undo as job
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster, Process


@pytest.fixture
async def versioned(memory_store: Process) -> Process:
    await operations.set_versioning(memory_store, "Enabled")
    return memory_store


def now(process: Process) -> int:
    return process.storage.clock_ms()


def tick(process: Process) -> None:
    process.cluster.clock.advance(1.0)


async def run(process: Process, prefix: str, at_ms: int) -> UndoJob:
    await job.start(process.storage, BUCKET, prefix, at_ms)
    await on_demand.finish_undos(process.storage)
    found = await job.status(process.kv, BUCKET)
    assert found is not None
    return found


async def shown(process: Process, *names: str) -> list[bytes | None]:
    return [
        None
        if await operations.record(process, name) is None
        else await operations.get(process, name)
        for name in names
    ]


def check(process: Process) -> None:
    audit = Audit(process.cluster, process)
    audit.check_held()
    audit.check_counts()
    audit.check_usage()
    audit.check_versions()
    audit.check_fences()


async def test_each_key_shows_what_it_showed(versioned: Process) -> None:
    for key in ("p/same", "p/replaced", "p/deleted", "other"):
        await operations.put(versioned, key, b"then")
    await operations.put(versioned, "p/hidden", b"gone then")
    await operations.remove(versioned, "p/hidden")
    tick(versioned)
    moment = now(versioned)
    tick(versioned)
    await operations.put(versioned, "p/replaced", b"now")
    await operations.put(versioned, "p/replaced", b"and now")
    await operations.put(versioned, "other", b"now")
    await operations.remove(versioned, "p/deleted")
    await operations.put(versioned, "p/hidden", b"back again")
    await operations.put(versioned, "p/new", b"new")
    stored = {shard for drive in versioned.cluster.drives.values() for shard in drive.shards}
    before = now(versioned)
    tick(versioned)
    done = await run(versioned, "p/", moment)
    assert (done.state, done.keys) == ("done", 5)
    assert (done.restored, done.hidden, done.left) == (2, 2, 0)
    names = ("p/same", "p/replaced", "p/deleted", "p/hidden", "p/new", "other")
    assert await shown(versioned, *names) == [b"then", b"then", b"then", None, None, b"now"]
    assert stored == {
        shard for drive in versioned.cluster.drives.values() for shard in drive.shards
    }
    check(versioned)
    # Nothing was removed, and an undo can be undone.
    tick(versioned)
    after = await run(versioned, "p/", before)
    assert (after.restored, after.hidden) == (3, 1)
    assert await shown(versioned, *names) == [
        b"then",
        b"and now",
        None,
        b"back again",
        b"new",
        b"now",
    ]
    check(versioned)


class SlowBytes(Bytes):
    """A body during whose upload a moment passes, which it notes."""

    def __init__(self, data: bytes, process: Process) -> None:
        super().__init__(data)
        self._process = process
        self.moment = 0

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        tick(self._process)
        self.moment = now(self._process)
        tick(self._process)
        async for piece in super().__aiter__():
            yield piece


@pytest.mark.parametrize("then", [b"then", None])
@pytest.mark.parametrize("later", [0, 1, 5])
async def test_what_was_on_its_way_at_the_moment_came_after_it(
    versioned: Process, then: bytes | None, later: int
) -> None:
    """A version that was begun before the moment and was published after it."""
    await operations.put(versioned, "p/k", b"then")
    if then is None:
        tick(versioned)
        await operations.remove(versioned, "p/k")
    tick(versioned)
    slow = SlowBytes(b"slow" * 30_000, versioned)
    target = await publish.read_target(versioned.storage, BUCKET, "p/k")
    await put_object(versioned.storage, target, "owner", Description(), slow, publish.no_check)
    await operations.put(versioned, "p/other", b"other")
    for number in range(later):
        tick(versioned)
        await operations.put(versioned, "p/k", b"later %d" % number)
    tick(versioned)
    before = now(versioned)
    tick(versioned)
    done = await run(versioned, "p/", slow.moment)
    assert (done.restored, done.hidden) == (then is not None, 1 + (then is None))
    assert await shown(versioned, "p/k", "p/other") == [then, None]
    tick(versioned)
    await run(versioned, "p/", before)
    latest = b"later %d" % (later - 1) if later else b"slow" * 30_000
    assert await shown(versioned, "p/k", "p/other") == [latest, b"other"]
    check(versioned)


@pytest.mark.parametrize("page", [1, 2, 3, 5])
async def test_what_was_on_its_way_is_found_wherever_a_page_ends(
    versioned: Process, page: int
) -> None:
    for key in ("a", "b", "c"):
        await operations.put(versioned, key, b"then")
    tick(versioned)
    slow = SlowBytes(b"slow" * 30_000, versioned)
    target = await publish.read_target(versioned.storage, BUCKET, "b")
    await put_object(versioned.storage, target, "owner", Description(), slow, publish.no_check)
    tick(versioned)
    await job.start(versioned.storage, BUCKET, "", slow.moment)
    worker = job.Undoer(versioned.storage, versions_per_unit=page)
    while await worker.work():
        pass
    assert await shown(versioned, "a", "b", "c") == [b"then"] * 3


async def test_a_plan_says_what_would_be_done_and_does_nothing(versioned: Process) -> None:
    for number in range(7):
        await operations.put(versioned, f"k{number}", b"then")
    tick(versioned)
    moment = now(versioned)
    tick(versioned)
    for number in range(4):
        await operations.put(versioned, f"k{number}", b"now")
    await operations.put(versioned, "new", b"now")
    revision = versioned.cluster.engine.revision
    totals, after, pages = [0, 0, 0], "", 0
    while True:
        page = await job.plan(versioned.storage, BUCKET, "", moment, after=after, most=3)
        totals = [
            total + more
            for total, more in zip(totals, (page.keys, page.restored, page.hidden), strict=True)
        ]
        pages += 1
        after = page.last
        if not after:
            break
    assert totals == [8, 4, 1]
    assert pages > 1
    assert versioned.cluster.engine.revision == revision


@pytest.mark.parametrize("page", [1, 2, 3, 500])
async def test_what_cannot_be_read_holds_up_nothing_else(versioned: Process, page: int) -> None:
    """An older version of one key and the visible one of another: both keys are left, and told."""
    names = ("a", "b", "c", "d", "e")
    for name in names:
        await operations.put(versioned, name, b"then")
    older = await operations.record(versioned, "b")
    assert older is not None
    tick(versioned)
    moment = now(versioned)
    tick(versioned)
    for name in names:
        await operations.put(versioned, name, b"now")
    damaged = [keys.version(BUCKET, "b", older.sequence), keys.object_(BUCKET, "d")]
    await versioned.kv.commit([], [Put(key, b"\xff") for key in damaged])
    planned = await job.plan(versioned.storage, BUCKET, "", moment, after="", most=500)
    assert (planned.keys, planned.restored, planned.left) == (5, 3, 2)
    await job.start(versioned.storage, BUCKET, "", moment)
    worker = job.Undoer(versioned.storage, versions_per_unit=page)
    while await worker.work():
        pass
    done = await job.status(versioned.kv, BUCKET)
    assert done is not None
    assert (done.state, done.restored, done.left) == (job.DONE, 3, 2)
    assert done.note in {f"{key}: a version of it cannot be read" for key in "bd"} | {
        f"b: {errors.InternalError().message}"
    }
    assert await shown(versioned, "a", "b", "c", "e") == [b"then", b"now", b"then", b"then"]


async def test_who_writes_after_it_began_wins(versioned: Process) -> None:
    await operations.put(versioned, "a", b"then")
    await operations.put(versioned, "b", b"then")
    tick(versioned)
    moment = now(versioned)
    tick(versioned)
    await operations.put(versioned, "a", b"now")
    await operations.put(versioned, "b", b"now")
    await job.start(versioned.storage, BUCKET, "", moment)
    tick(versioned)
    await operations.put(versioned, "b", b"written meanwhile")
    await on_demand.finish_undos(versioned.storage)
    done = await job.status(versioned.kv, BUCKET)
    assert done is not None
    assert (done.restored, done.left) == (1, 1)
    assert await shown(versioned, "a", "b") == [b"then", b"written meanwhile"]


async def test_a_write_between_reading_and_the_commit_wins(versioned: Process) -> None:
    await operations.put(versioned, "k", b"then")
    tick(versioned)
    moment = Moment(now(versioned), 0)
    tick(versioned)
    await operations.put(versioned, "k", b"now")
    begun = await publish.read_target(versioned.storage, BUCKET, "k")
    moment = Moment(moment.at_ms, sequence_at(versioned.storage.store.moment(begun.revision)))
    original = versioned.storage.store.kv.commit
    raced: list[bool] = []

    async def commit(guards, writes):  # type: ignore[no-untyped-def]
        if not raced:
            raced.append(True)
            other = await versioned.cluster.process(seed=9)
            await operations.put(other, "k", b"raced")
        return await original(guards, writes)

    versioned.storage.store.kv.commit = commit  # type: ignore[method-assign]
    assert await undo.undo_key(versioned.storage, BUCKET, "k", moment) is Verdict.LEAVE
    assert raced
    assert await shown(versioned, "k") == [b"raced"]


async def test_a_version_under_lock_stays_and_is_copied_without_its_lock(
    versioned: Process,
) -> None:
    first = await operations.put(versioned, "k", b"then")
    import msgspec

    from s3gw.objects.change import change_version

    target = await publish.read_target(versioned.storage, BUCKET, "k")
    lock = Lock("COMPLIANCE", now(versioned) + 10**9)
    await change_version(
        versioned.storage,
        target,
        lambda record: msgspec.structs.replace(
            record, description=msgspec.structs.replace(record.description, lock=lock)
        ),
    )
    tick(versioned)
    moment = now(versioned)
    tick(versioned)
    await operations.remove(versioned, "k")
    assert (await run(versioned, "", moment)).restored == 1
    after = await operations.record(versioned, "k")
    kept = await operations.version(versioned, "k", first.sequence)
    assert after is not None
    assert kept is not None
    assert (after.description.lock, kept.description.lock) == (None, lock)


async def test_only_a_bucket_that_keeps_versions_is_undone(memory_store: Process) -> None:
    for state in ("", "Enabled"):
        if state:
            await operations.set_versioning(memory_store, state)
        await operations.put(memory_store, "k", b"then")
        tick(memory_store)
    moment = now(memory_store)
    await operations.set_versioning(memory_store, "Suspended")
    tick(memory_store)
    await operations.put(memory_store, "k", b"now")
    with pytest.raises(job.UndoRefused, match="versioning"):
        await job.start(memory_store.storage, BUCKET, "", moment)
    with pytest.raises(NotVersioned):
        await undo.undo_key(memory_store.storage, BUCKET, "k", Moment(moment, 10**9))
    assert await operations.version(memory_store, "k", NULL_VERSION) is not None


async def test_a_job_ends_when_versioning_does(versioned: Process) -> None:
    await operations.put(versioned, "k", b"then")
    tick(versioned)
    moment = now(versioned)
    tick(versioned)
    await operations.put(versioned, "k", b"now")
    await job.start(versioned.storage, BUCKET, "", moment)
    await operations.set_versioning(versioned, "Suspended")
    await on_demand.finish_undos(versioned.storage)
    ended = await job.status(versioned.kv, BUCKET)
    assert ended is not None
    assert ended.state == "cancelled"
    assert await shown(versioned, "k") == [b"now"]


async def test_one_at_a_time_not_into_the_future_and_it_can_be_stopped(
    versioned: Process,
) -> None:
    await operations.put(versioned, "k", b"then")
    with pytest.raises(job.UndoRefused, match="not come yet"):
        await job.start(versioned.storage, BUCKET, "", now(versioned) + 1)
    await job.start(versioned.storage, BUCKET, "", now(versioned))
    with pytest.raises(job.UndoRefused, match="under way"):
        await job.start(versioned.storage, BUCKET, "", now(versioned))
    assert (await job.cancel(versioned.storage, BUCKET)).state == "cancelled"
    with pytest.raises(job.UndoRefused, match="no undo"):
        await job.cancel(versioned.storage, BUCKET)
    assert await job.Undoer(versioned.storage).work() is False
    with pytest.raises(job.UndoRefused, match="no bucket"):
        await job.start(versioned.storage, "missing", "", 0)


@pytest.mark.parametrize("seed", range(20))
async def test_a_job_that_dies_anywhere_is_finished_by_the_next(seed: int) -> None:
    """Random histories; the truth is what each key showed when the moment was."""
    chance = random.Random(seed)
    cluster = MemoryCluster()
    await cluster.found()
    process = await cluster.process(seed=1)
    await operations.set_versioning(process, "Enabled")
    names = [f"dir/{number}" for number in range(6)]

    async def change() -> None:
        name = chance.choice(names)
        tick(process)
        if chance.random() < 0.4:
            await operations.remove(process, name)
        else:
            await operations.put(process, name, chance.randbytes(20))

    for _ in range(12):
        await change()
    truth = await shown(process, *names)
    tick(process)
    moment = now(process)
    for _ in range(12):
        await change()
    tick(process)
    await job.start(process.storage, BUCKET, "dir/", moment)
    for _ in range(40):
        fuse = Fuse()
        dying = await cluster.process(CrashingKV(cluster.kv(), fuse), seed=chance.randrange(99))
        fuse.arm(chance.randrange(4), chance.choice([Mode.DIE_BEFORE, Mode.DIE_AFTER]))
        try:
            if not await job.Undoer(dying.storage, versions_per_unit=5).work():
                break
        except Crashed:
            continue
    await on_demand.finish_undos(process.storage)
    done = await job.status(process.kv, BUCKET)
    assert done is not None
    assert (done.state, done.left) == ("done", 0)
    assert await shown(process, *names) == truth
    check(process)
    assert keys.undo(BUCKET) in cluster.engine.items
