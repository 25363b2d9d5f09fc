"""Writes that nobody waits for any more let go of what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nodes.memory import Fault
from nodes.protocol import Buffer
from s3gw.metadata import keys
from s3gw.metadata.counters import SLOTS_PER_PROCESS, Counters
from s3gw.metadata.records import Description, Usage
from s3gw.objects import publish
from s3gw.objects.write import put_object
from tests.stores.memory_store import BUCKET, STRIPE_BYTES, Bytes, MemoryCluster, Process


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
