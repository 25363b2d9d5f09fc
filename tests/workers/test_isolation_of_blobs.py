"""One blob, entry or group that fails unexpectedly, or cannot even be read, holds up no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from s3gw.cluster.ledger import read_scrub
from s3gw.kv.interface import Put, Unavailable
from s3gw.metadata import keys
from s3gw.workers import garbage, manifests
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.garbage import GarbageCollector
from s3gw.workers.merge import MergeAndRepair
from s3gw.workers.repair import RepairWorker
from s3gw.workers.verify import ShardVerifier
from s3gw.workers.walk import all_groups
from tests.stores.memory_store import GARBAGE_AFTER_MS, MemoryCluster, Process
from tests.stores.operations import abort, blob_of, delete, part, put, start
from tests.workers.test_isolation import JUNK, Poison, fails_if, logged

BIG = b"x" * 200_000
Injected = pytest.MonkeyPatch


async def write(process: Process, key: bytes, value: bytes = JUNK) -> None:
    await process.kv.commit([], [Put(key, value)])


def shards(cluster: MemoryCluster) -> int:
    return sum(len(drive.shards) for drive in cluster.drives.values())


# The collector.


async def test_garbage_goes_beside_a_blob_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    for name in ("a", "poison", "z"):
        await put(process, name, BIG)
    poison = await blob_of(process, "poison")
    for name in ("a", "poison", "z"):
        await delete(process, name)
    process.cluster.clock.advance(GARBAGE_AFTER_MS / 1000)
    poisoned = fails_if(garbage.placing.unlink, lambda _, __, blob, *rest: blob == poison.blob)
    monkeypatch.setattr(garbage.placing, "unlink", poisoned)
    report = await GarbageCollector(process.storage).run_once()
    assert (report.blobs, report.entries) == (2, 2)
    assert report.lost
    assert logged(caplog)
    assert shards(process.cluster) == 6
    monkeypatch.undo()
    assert (await GarbageCollector(process.storage).run_once()).blobs == 1
    assert not shards(process.cluster)


async def test_garbage_goes_beside_an_entry_that_cannot_be_read(
    memory_store: Process, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await put(process, "k", BIG)
    await delete(process, "k")
    junk = keys.garbage(process.storage.clock_ms(), b"b" * 16, b"holder")
    await write(process, junk)
    process.cluster.clock.advance(GARBAGE_AFTER_MS / 1000)
    report = await GarbageCollector(process.storage).run_once()
    assert (report.blobs, report.entries) == (1, 1)
    assert logged(caplog)
    assert junk in process.cluster.engine.items


async def test_manifests_are_freed_beside_one_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    uploads = {name: await start(process, name) for name in ("a", "poison", "z")}
    for name, upload in uploads.items():
        await part(process, name, upload, 1, BIG)
        await abort(process, name, upload)
    process.cluster.clock.advance(GARBAGE_AFTER_MS / 1000)
    freed = manifests.Freeing.free
    poison = uploads["poison"]

    async def free(freeing: Any) -> Any:
        if freeing._manifest == poison:
            raise Poison
        return await freed(freeing)

    monkeypatch.setattr(manifests.Freeing, "free", free)
    report = await GarbageCollector(process.storage).run_once()
    assert report.manifests == 2
    assert logged(caplog)
    assert shards(process.cluster) == 6


async def test_an_engine_that_does_not_answer_is_no_failure_of_an_entry(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await put(process, "k", BIG)
    await delete(process, "k")
    process.cluster.clock.advance(GARBAGE_AFTER_MS / 1000)

    async def silent(*_: Any) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr(garbage.placing, "layout_nodes", silent)
    with pytest.raises(Unavailable):
        await GarbageCollector(process.storage).run_once()
    assert not logged(caplog)


# Repair.


@pytest.mark.parametrize("urgency", [0, 2])
async def test_blobs_are_repaired_beside_an_entry_that_cannot_be_read(
    memory_store: Process, urgency: int, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await put(process, "k", BIG)
    ref = await blob_of(process, "k")
    group = process.topology.group_of(ref.profile, ref.blob)
    process.cluster.drives[group.nodes[0]].shards.clear()
    await ShardVerifier(process.storage).run_once()
    await write(process, keys.repair(urgency, ref.profile, 0, b"b" * 16))
    worker = RepairWorker(process.storage)
    while await worker.work(UNCLAIMED):
        pass
    assert logged(caplog)
    assert shards(process.cluster) == 6


# Walks over groups.


def one_group_fails(process: Process, monkeypatch: Injected, module: str) -> Callable[[], int]:
    """Poison the second group for a walk; a count of the groups that were looked at."""
    poisoned = list(all_groups(process.storage))[1].key
    seen: set[bytes] = set()
    from s3gw.workers import merge, verify

    listed = {"merge": merge, "verify": verify}[module]
    plain = listed.list_group

    async def listing(storage: Any, group: Any) -> Any:
        if group.key == poisoned:
            raise Poison
        seen.add(group.key)
        return await plain(storage, group)

    monkeypatch.setattr(listed, "list_group", listing)
    return lambda: len(seen)


async def walk(process: Process, worker: MergeAndRepair | ShardVerifier) -> int:
    """Have a worker look at every group, one a unit; how many there are."""
    groups = len(list(all_groups(process.storage)))
    for _ in range(groups):
        assert await worker.work(UNCLAIMED)
    assert not await worker.work(UNCLAIMED)
    return groups


async def test_groups_are_merged_beside_one_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    seen = one_group_fails(memory_store, monkeypatch, "merge")
    groups = await walk(memory_store, MergeAndRepair(memory_store.storage))
    assert seen() == groups - 1
    assert logged(caplog)


async def test_groups_are_verified_beside_one_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    seen = one_group_fails(memory_store, monkeypatch, "verify")
    groups = await walk(memory_store, ShardVerifier(memory_store.storage))
    assert seen() == groups - 1
    assert logged(caplog)
    # What was not looked at is not said to have been.
    assert (await read_scrub(memory_store.kv)).last_round.groups == groups - 1


async def test_a_walk_does_not_pass_a_group_because_the_engine_is_silent(
    memory_store: Process, monkeypatch: Injected
) -> None:
    from s3gw.workers import merge

    async def silent(*_: Any) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr(merge, "list_group", silent)
    worker = MergeAndRepair(memory_store.storage)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await worker.work(UNCLAIMED)
    monkeypatch.undo()
    seen = one_group_fails(memory_store, monkeypatch, "merge")
    while await worker.work(UNCLAIMED):
        pass
    assert seen() == len(list(all_groups(memory_store.storage))) - 1
