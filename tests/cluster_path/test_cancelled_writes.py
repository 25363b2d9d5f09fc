"""A write that is cancelled: nothing of it goes on, and no shard of it is removed."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Sequence

import pytest

from nodes.memory import MemoryDrive, MemoryShardWriter
from nodes.protocol import Buffer, DriveError, ShardName
from s3gw.cluster.blobs import BlobStore
from tests.stores.blob_path import FOOTER, STRIPE, BlobPath, payload
from tests.stores.virtual_time import run_virtual

DATA = payload(3 * STRIPE + 17)
STEPS = 40


class SlowWriter(MemoryShardWriter):
    """Every call takes a while, also to be given up. Shards whose index is `failing` fail."""

    failing: Sequence[int] = ()

    async def append(self, buffers: Sequence[Buffer]) -> None:
        await _slowly(self._name)
        await super().append(buffers)

    async def commit(self) -> None:
        await _slowly(self._name)
        if self._name.index in self.failing:
            raise DriveError("it fails")
        await super().commit()


async def _slowly(name: ShardName) -> None:
    try:
        await asyncio.sleep(0.1 * (name.index + 1))
    except asyncio.CancelledError:
        await asyncio.sleep(0.1 * (name.index + 1))
        raise


class SlowDrive(MemoryDrive):
    def writer(self, name: ShardName) -> SlowWriter:
        return SlowWriter(self, name)

    async def write(self, name: ShardName, buffers: Sequence[Buffer]) -> None:
        await _slowly(name)
        await super().write(name, buffers)


async def large(path: BlobPath) -> None:
    await path.write(DATA)


async def small(path: BlobPath) -> None:
    blob, group = path.draw("4+2.small")
    writer = path.process.blobs.open_writer(blob, group)
    await path.process.blobs.complete(await writer.write_whole(b"small", FOOTER), FOOTER)


async def rebuilt(path: BlobPath) -> None:
    """The shards that fail are rebuilt elsewhere in the end."""
    SlowWriter.failing = (1, 4)
    await path.write(DATA)


async def opened(monkeypatch: pytest.MonkeyPatch) -> BlobPath:
    monkeypatch.setattr("tests.stores.memory_store.MemoryDrive", SlowDrive)
    return await BlobPath.open(8)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("write", [large, small, rebuilt])
def test_when_it_has_ended_nothing_of_it_is_under_way(
    write: Callable[[BlobPath], Awaitable[None]], twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowWriter, "failing", ())

    async def scenario(after: float) -> bool:
        path = await opened(monkeypatch)
        writing = asyncio.ensure_future(write(path))
        await asyncio.sleep(after)
        stored = {
            (drive_id, name)
            for drive_id, drive in path.cluster.drives.items()
            for name in drive.shards
        }
        done = writing.done()
        for _ in range(1 + twice):
            writing.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([writing])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for drive_id, name in stored:
            assert name in path.cluster.drives[drive_id].shards
        assert not any(
            call[0] == "delete" for d in path.cluster.drives.values() for call in d.calls
        )
        return done

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ended = [run_virtual(scenario(0.06 * step)) for step in range(STEPS)]
        gc.collect()
    assert [str(each.message) for each in warned] == []
    assert not ended[0]
    assert write is not small or ended[-1]


async def test_a_write_that_is_cancelled_before_it_is_sent_makes_no_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = await opened(monkeypatch)
    store: BlobStore = path.process.blobs
    writer = store.open_writer(*path.draw())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        finishing = asyncio.ensure_future(writer.write(DATA[:STRIPE]))
        await asyncio.sleep(0)
        finishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finishing
        gc.collect()
    assert [str(each.message) for each in warned] == []
