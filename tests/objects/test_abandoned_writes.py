"""Writes that nobody waits for any more let go of what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from nodes.memory import Fault
from nodes.protocol import Buffer
from s3gw.kv.interface import Guard, Put, Write
from s3gw.metadata import keys
from s3gw.metadata.counters import SLOTS_PER_PROCESS, Counters
from s3gw.metadata.records import Description, Usage
from s3gw.objects import publish
from s3gw.objects.write import put_object
from tests.stores.memory_store import BUCKET, STRIPE_BYTES, Bytes, MemoryCluster, Process
from tests.stores.operations import complete, get, part, start


class Stalled(Bytes):
    """A body of which one stripe comes, and no more."""

    def __init__(self) -> None:
        super().__init__(bytes(STRIPE_BYTES))

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        async for data in super().__aiter__():
            yield data
        await asyncio.Event().wait()


async def test_an_upload_cancelled_twice_lets_go_of_its_shards(
    memory_cluster: MemoryCluster,
) -> None:
    process = await memory_cluster.process()
    aborted: list[bytes] = []
    opened = process.blobs.open_writer

    def watched(blob, group):  # type: ignore[no-untyped-def]
        writer = opened(blob, group)
        abort = writer.abort

        async def noted() -> None:
            aborted.append(blob)
            await abort()

        writer.abort = noted  # type: ignore[method-assign]
        return writer

    process.blobs.open_writer = watched  # type: ignore[method-assign]
    fault = Fault(hang=True)
    for drive in memory_cluster.drives.values():
        drive.inject(fault, "append")
    target = await publish.read_target(process.storage, BUCKET, "k")
    task = asyncio.create_task(
        put_object(process.storage, target, "owner", Description(), Stalled(), publish.no_check)
    )
    for _ in range(20):
        await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    for drive in memory_cluster.drives.values():
        drive.heal()
    await asyncio.wait([task])
    await process.storage.store.settle()
    assert task.cancelled()
    assert len(aborted) == 1


async def test_commits_that_wait_for_a_slot_wait_for_different_ones(memory_store: Process) -> None:
    counters = Counters(memory_store.kv)
    held = [await counters.hold({BUCKET: Usage(objects=1)}, {}) for _ in range(SLOTS_PER_PROCESS)]
    waiting = [
        asyncio.create_task(counters.hold({BUCKET: Usage(objects=1)}, {}))
        for _ in range(SLOTS_PER_PROCESS)
    ]
    await asyncio.sleep(0)
    for one in held:
        one.release()
    for _ in range(4):
        await asyncio.sleep(0)
    assert all(task.done() for task in waiting)
    slots = {guard.key for task in waiting for guard in task.result().guards()}
    assert slots == {keys.usage(BUCKET, slot) for slot in range(SLOTS_PER_PROCESS)}


async def test_an_upload_is_open_again_when_nobody_waits_for_its_completion_any_more(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone while the upload is taken: another process does not wait for the end of this one."""
    other = await memory_cluster.process()
    for process in (memory_store, other):
        lease = await process.take_lease()
        await process.kv.commit([], [Put(keys.process(lease), b"", lease)])
    upload = await start(memory_store, "k")
    await part(memory_store, "k", upload, 1, b"one")
    plain, reached, going_on = memory_store.kv.commit, asyncio.Event(), asyncio.Event()

    async def slow(guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        reached.set()
        await going_on.wait()
        return await plain(guards, writes)

    monkeypatch.setattr(memory_store.kv, "commit", slow)
    completing = asyncio.ensure_future(complete(memory_store, "k", upload))
    await reached.wait()
    completing.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    going_on.set()
    with pytest.raises(asyncio.CancelledError):
        await completing
    await complete(other, "k", upload)
    assert await get(other, "k") == b"one"
