"""The trash of buckets without versioning."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.counters import total
from s3gw.metadata.records import Usage
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects import publish, trash
from s3gw.objects.buckets import create_bucket, delete_bucket
from s3gw.objects.restore import Emptied, Restored, restore, take_away
from s3gw.workers import on_demand
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, PROFILE, MemoryCluster, Process

DAY = 86_400.0
DATA = b"content " * 20_000


@pytest.fixture
async def kept(memory_store: Process) -> Process:
    """A store whose bucket keeps what is deleted for two days."""
    await operations.set_trash(memory_store, 2 * DAY)
    return memory_store


async def usage(process: Process) -> Usage:
    prefix = keys.usages(BUCKET)
    page = await process.kv.scan(prefix, keys.after_prefix(prefix), limit=64)
    return total(page.items)


async def entries(process: Process, prefix: str = "") -> list[tuple[str, int]]:
    found, more = await trash.list_trash(process.storage, BUCKET, prefix, most=1000)
    assert not more
    return [(one.key, one.record.record.size) for one in found]


async def back(process: Process, key: str, sequence: int | None = None, *, replace: bool = False):  # type: ignore[no-untyped-def]
    return await restore(process.storage, BUCKET, key, sequence, replace=replace)


def check(process: Process) -> None:
    audit = Audit(process.cluster, process)
    audit.check_held()
    audit.check_counts()
    audit.check_usage()
    audit.check_fences()
    audit.check_trash()
    audit.check_versions()


async def test_what_is_deleted_comes_back_as_it_was(kept: Process) -> None:
    before = await operations.put(kept, "k", DATA)
    await operations.delete(kept, "k")
    assert await operations.record(kept, "k") is None
    assert await entries(kept) == [("k", len(DATA))]
    assert await usage(kept) == Usage(trash_objects=1, trash_bytes=len(DATA))
    kept.cluster.clock.advance(DAY)
    await on_demand.collect_garbage(kept.storage)
    await on_demand.purge_trash(kept.storage)
    assert await back(kept, "k") is Restored.DONE
    after = await operations.record(kept, "k")
    assert after is not None
    same = msgspec.structs.replace(
        after,
        sequence=before.sequence,
        null_sequence=before.null_sequence,
        modified_ms=before.modified_ms,
    )
    assert same == before
    assert after.modified_ms == kept.storage.clock_ms()
    assert await operations.get(kept, "k") == DATA
    assert await usage(kept) == Usage(objects=1, bytes=len(DATA))
    check(kept)
    kept.cluster.clock.advance(3 * DAY)
    await on_demand.purge_trash(kept.storage)
    await on_demand.collect_garbage(kept.storage)
    Audit(kept.cluster, kept).check_at_rest()
    assert await operations.get(kept, "k") == DATA


async def test_what_is_replaced_is_kept_too_whoever_replaces_it(
    kept: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)
    await operations.put(kept, "other", b"other")
    await operations.put(kept, "k", b"1")
    await operations.put(kept, "k", b"22")
    upload = await operations.start(kept, "k")
    await operations.part(kept, "k", upload, 1, b"333")
    await operations.complete(kept, "k", upload)
    await operations.copy(kept, "other", "k")
    await operations.rename(kept, "other", "k")
    await operations.remove(kept, "k", publish.NULL_VERSION)
    assert await entries(kept) == [("k", 5), ("k", 5), ("k", 3), ("k", 2), ("k", 1)]
    check(kept)
    kept.cluster.clock.advance(2 * DAY + 1)
    await on_demand.purge_trash(kept.storage)
    assert await entries(kept) == []
    assert await usage(kept) == Usage()
    kept.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(kept.storage)
    Audit(kept.cluster, kept).check_at_rest()


async def test_a_rename_is_no_delete(kept: Process) -> None:
    await operations.put(kept, "old", DATA)
    await operations.rename(kept, "old", "new")
    assert await entries(kept) == []


async def test_without_a_window_nothing_is_kept(memory_store: Process) -> None:
    await operations.put(memory_store, "k", DATA)
    await operations.delete(memory_store, "k")
    assert await entries(memory_store) == []


async def test_a_version_of_several_is_chosen_and_another_replaced_only_if_asked(
    kept: Process,
) -> None:
    first = await operations.put(kept, "k", b"first")
    await operations.put(kept, "k", b"second")
    await operations.put(kept, "k", b"third")
    assert await back(kept, "k", first.sequence) is Restored.OCCUPIED
    assert await back(kept, "k", first.sequence + 10**6) is Restored.MISSING
    assert await back(kept, "never") is Restored.MISSING
    assert await back(kept, "k", first.sequence, replace=True) is Restored.DONE
    assert await operations.get(kept, "k") == b"first"
    assert await entries(kept) == [("k", 5), ("k", 6)]
    check(kept)


async def test_an_object_of_parts_comes_back(
    kept: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)
    upload = await operations.start(kept, "k")
    await operations.part(kept, "k", upload, 1, DATA)
    await operations.part(kept, "k", upload, 2, b"tail")
    await operations.complete(kept, "k", upload)
    await operations.delete(kept, "k")
    kept.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(kept.storage)
    check(kept)
    assert await back(kept, "k") is Restored.DONE
    kept.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(kept.storage)
    assert await operations.get(kept, "k") == DATA + b"tail"
    Audit(kept.cluster, kept).check_at_rest()


async def test_it_is_emptied_by_prefix(kept: Process) -> None:
    for key in ("a/1", "a/2", "b"):
        await operations.put(kept, key, key.encode())
        await operations.delete(kept, key)
    emptied = Emptied()
    found, _ = await trash.list_trash(kept.storage, BUCKET, "a/", most=10)
    await take_away(kept.storage, found, emptied)
    assert (emptied.objects, emptied.bytes) == (2, 6)
    assert await entries(kept) == [("b", 1)]
    await take_away(kept.storage, found, emptied)
    assert (emptied.objects, emptied.lost) == (2, 2)
    check(kept)


async def test_pages_of_the_trash(kept: Process) -> None:
    for number in range(25):
        await operations.put(kept, f"k{number % 5}", b"%d" % number)
    for number in range(5):
        await operations.delete(kept, f"k{number}")
    whole = await entries(kept)
    assert len(whole) == 25
    paged: list[tuple[str, int]] = []
    after, more = b"", True
    while more:
        found, more = await trash.list_trash(kept.storage, BUCKET, "", after=after, most=4)
        paged += [(one.key, one.record.record.size) for one in found]
        after = found[-1].record_key
    assert paged == whole


@pytest.mark.parametrize("page", [1, 2, 1000])
async def test_what_cannot_be_read_hides_nothing_else_in_the_trash(
    kept: Process, page: int
) -> None:
    sequences = {}
    for key in ("a", "b", "c", "d"):
        sequences[key] = (await operations.put(kept, key, DATA)).sequence
        await operations.delete(kept, key)
    damaged = [keys.trashed(BUCKET, key, sequences[key]) for key in ("b", "d")]
    await kept.kv.commit([], [Put(key, b"\xff") for key in damaged])
    listed, after, more = [], b"", True
    while more:
        found, more = await trash.list_trash(kept.storage, BUCKET, "", after=after, most=page)
        listed += [one.key for one in found]
        after = found[-1].record_key if found else after
    assert listed == ["a", "c"]


async def test_a_bucket_with_trash_alone_can_be_deleted_and_what_was_in_it_restored(
    kept: Process,
) -> None:
    await operations.put(kept, "k", DATA)
    await operations.delete(kept, "k")
    await delete_bucket(kept.storage, BUCKET)
    check(kept)
    with pytest.raises(errors.NoSuchBucket):
        await back(kept, "k")
    await create_bucket(
        kept.storage,
        BUCKET,
        owner="owner",
        region="us-east-1",
        profile=PROFILE,
        object_lock=False,
        tags={},
    )
    assert await usage(kept) == Usage()
    assert await back(kept, "k") is Restored.DONE
    assert await usage(kept) == Usage(objects=1, bytes=len(DATA))
    assert await operations.get(kept, "k") == DATA
    check(kept)


async def test_what_a_deleted_bucket_left_goes_when_it_is_due(kept: Process) -> None:
    await operations.put(kept, "k", DATA)
    await operations.delete(kept, "k")
    await delete_bucket(kept.storage, BUCKET)
    kept.cluster.clock.advance(2 * DAY + 1)
    assert (await on_demand.purge_trash(kept.storage)).objects == 1
    kept.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(kept.storage)
    Audit(kept.cluster, kept).check_at_rest()


async def test_in_a_bucket_that_got_versioning_it_comes_back_as_the_newest_version(
    kept: Process,
) -> None:
    await operations.put(kept, "k", b"trashed")
    await operations.delete(kept, "k")
    await operations.set_versioning(kept, "Enabled")
    await operations.put(kept, "k", b"version")
    assert await back(kept, "k", replace=True) is Restored.DONE
    assert await operations.get(kept, "k") == b"trashed"
    assert await usage(kept) == Usage(objects=1, versions=1, bytes=14)
    check(kept)


async def test_a_restore_races_a_put_and_the_purge(kept: Process) -> None:
    await operations.put(kept, "k", DATA)
    await operations.delete(kept, "k")
    kept.cluster.clock.advance(2 * DAY + 1)
    others = [await kept.cluster.process(seed=seed) for seed in (1, 2)]
    restored, emptied, _ = await asyncio.gather(
        back(kept, "k"),
        on_demand.purge_trash(others[0].storage),
        operations.put(others[1], "k", b"put"),
    )
    assert (restored is Restored.DONE) + emptied.objects <= 1
    assert await operations.get(kept, "k") in (b"put", DATA)
    check(kept)


@pytest.mark.parametrize("mode", Mode)
async def test_a_crash_of_a_restore_leaves_it_in_the_trash_or_in_the_bucket(mode: Mode) -> None:
    cluster = MemoryCluster()
    await cluster.found()
    setup = await cluster.process()
    await operations.set_trash(setup, DAY)
    await operations.put(setup, "k", DATA)
    await operations.delete(setup, "k")
    fuse = Fuse()
    dying = await cluster.process(CrashingKV(cluster.kv(), fuse), seed=3)
    fuse.arm(0, mode)
    with suppress(Crashed, OutcomeUnknown):
        await back(dying, "k")
    process = await cluster.process(seed=4)
    there = await operations.record(process, "k") is not None
    assert there == (await entries(process) == [])
    check(process)
