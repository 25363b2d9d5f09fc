"""Long reads: announced to the collector, and going on when the same content moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from nodes.protocol import Buffer
from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import Delete, Guard, Unavailable, Write
from s3gw.kv.memory import MemoryKV
from s3gw.limits import PART_BYTES_MIN
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, ManifestPage
from s3gw.metadata.store import Transaction
from s3gw.objects import publish
from s3gw.objects.reading import Reading, keep_withdrawing, read_version
from tests.stores.memory_store import BUCKET, GARBAGE_AFTER_MS, STRIPE_BYTES, MemoryCluster, Process
from tests.stores.operations import (
    blob_of,
    complete,
    copy,
    part,
    put,
    record,
    set_versioning,
    start,
)
from tests.stores.virtual_time import run_virtual

SIZE = 20 * STRIPE_BYTES


def readings(process: Process) -> list[bytes]:
    return [key for key in process.cluster.engine.items if key.startswith(b"reading/")]


def joined(buffers: list[Buffer]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


async def test_a_read_older_than_half_the_delay_announces_itself_until_it_ends(
    memory_store: Process,
) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    await put(memory_store, "k", data)
    found = await record(memory_store, "k")
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    assert found is not None
    stream = read_version(memory_store.storage, target, found, 0, SIZE)
    got = joined(await anext(stream))
    assert readings(memory_store) == []
    memory_store.cluster.clock.advance(GARBAGE_AFTER_MS / 1000 / 2 + 1)
    got += joined(await anext(stream))
    assert len(readings(memory_store)) == 1
    async for buffers in stream:
        got += joined(buffers)
    assert got == data
    assert readings(memory_store) == []


async def test_a_read_that_is_given_up_takes_its_announcement_back(memory_store: Process) -> None:
    await put(memory_store, "k", bytes(SIZE))
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    assert target.visible is not None
    stream = read_version(memory_store.storage, target, target.visible, 0, SIZE)
    await anext(stream)
    memory_store.cluster.clock.advance(GARBAGE_AFTER_MS / 1000)
    await anext(stream)
    assert len(readings(memory_store)) == 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert readings(memory_store) == []


async def test_a_read_goes_on_when_the_same_content_lies_elsewhere(memory_store: Process) -> None:
    """What re-encoding does: the record names another blob with the same content."""
    data = bytes(range(256)) * (SIZE // 256)
    await put(memory_store, "k", data)
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    found = target.visible
    assert found is not None
    stream = read_version(memory_store.storage, target, found, 0, SIZE)
    got = joined(await anext(stream))
    await put(memory_store, "other", data)
    moved = await record(memory_store, "other")
    assert moved is not None
    await _replace_data(memory_store, moved.data, found.content_id)
    _forget_shards(memory_store, found.data.blob)  # type: ignore[union-attr]
    async for buffers in stream:
        got += joined(buffers)
    assert got == data


async def test_a_read_goes_on_when_the_version_is_noncurrent_by_then_and_lies_elsewhere(
    memory_store: Process,
) -> None:
    await set_versioning(memory_store, "Enabled")
    data = bytes(range(256)) * (SIZE // 256)
    version = await put(memory_store, "k", data)
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    stream = read_version(memory_store.storage, target, version, 0, SIZE)
    got = joined(await anext(stream))
    await put(memory_store, "k", b"newer")
    await put(memory_store, "other", data)
    tx = Transaction()
    moved = msgspec.structs.replace(version, data=await blob_of(memory_store, "other"))
    tx.put(keys.version(BUCKET, "k", version.sequence), moved)
    await memory_store.storage.store.apply(tx)
    _forget_shards(memory_store, version.data.blob)  # type: ignore[union-attr]
    async for buffers in stream:
        got += joined(buffers)
    assert got == data


async def test_a_read_of_replaced_content_ends_in_an_error_not_in_other_bytes(
    memory_store: Process,
) -> None:
    await put(memory_store, "k", bytes(SIZE))
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    found = target.visible
    assert found is not None
    stream = read_version(memory_store.storage, target, found, 0, SIZE)
    await anext(stream)
    await put(memory_store, "k", b"\x01" * SIZE)
    _forget_shards(memory_store, found.data.blob)  # type: ignore[union-attr]
    with pytest.raises(BlobUnreadable):
        async for _ in stream:
            pass


async def test_a_copy_reads_like_its_source_after_the_source_is_gone(memory_store: Process) -> None:
    data = bytes(range(256)) * 1000
    await put(memory_store, "k", data)
    copied = await copy(memory_store, "k", "c")
    target = await publish.read_target(memory_store.storage, BUCKET, "c")
    stream = read_version(memory_store.storage, target, copied, 5, 1005)
    assert b"".join([joined(buffers) async for buffers in stream]) == data[5:1005]


async def _replace_data(process: Process, data: object, content_id: bytes) -> None:
    found = await record(process, "k")
    assert found is not None
    tx = Transaction()
    changed = msgspec.structs.replace(found, data=data, content_id=content_id)
    tx.put(keys.object_(BUCKET, "k"), changed)
    await process.storage.store.apply(tx)


def _forget_shards(process: Process, blob: bytes) -> None:
    for drive in process.cluster.drives.values():
        for name in [name for name in drive.shards if name.blob == blob]:
            del drive.shards[name]


async def test_a_read_of_parts_goes_on_when_a_part_has_moved_to_another_blob(
    memory_store: Process,
) -> None:
    """What re-encoding does to a part of a completed upload: its page names another blob."""
    first, second = b"\x01" * PART_BYTES_MIN, bytes(range(256)) * 1000
    upload_id = await start(memory_store, "k")
    await part(memory_store, "k", upload_id, 1, first)
    await part(memory_store, "k", upload_id, 2, second)
    await complete(memory_store, "k", upload_id)
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    found = target.visible
    assert found is not None
    stream = read_version(memory_store.storage, target, found, 0, found.size)
    got = joined(await anext(stream))
    await put(memory_store, "other", second)
    page_key = keys.manifest_page(upload_id, 0)
    page = (await memory_store.storage.store.get(ManifestPage, page_key)).record
    assert page is not None
    old = page.parts[1].blob
    moved = msgspec.structs.replace(page.parts[1], blob=await blob_of(memory_store, "other"))
    tx = Transaction()
    tx.put(page_key, ManifestPage((page.parts[0], moved)))
    await memory_store.storage.store.apply(tx)
    _forget_shards(memory_store, old.blob)
    async for buffers in stream:
        got += joined(buffers)
    assert got == first + second


async def test_a_part_that_cannot_be_read_ends_the_read(memory_store: Process) -> None:
    upload_id = await start(memory_store, "k")
    await part(memory_store, "k", upload_id, 1, bytes(SIZE))
    await complete(memory_store, "k", upload_id)
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    found = target.visible
    assert found is not None
    for drive in memory_store.cluster.drives.values():
        drive.shards.clear()
    with pytest.raises(BlobUnreadable):
        async for _ in read_version(memory_store.storage, target, found, 0, found.size):
            pass


async def test_a_read_goes_on_while_the_engine_is_away_and_announces_itself_later(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    await put(memory_store, "k", data)
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    assert target.visible is not None
    stream = read_version(memory_store.storage, target, target.visible, 0, SIZE)
    got = joined(await anext(stream))
    memory_store.cluster.clock.advance(GARBAGE_AFTER_MS / 1000 / 2 + 1)

    async def away(guards: object, writes: object) -> int:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(memory_store.kv, "commit", away)
        got += joined(await anext(stream))
    assert readings(memory_store) == []
    memory_store.cluster.clock.advance(11)
    got += joined(await anext(stream))
    assert len(readings(memory_store)) == 1
    async for buffers in stream:
        got += joined(buffers)
    assert got == data
    assert readings(memory_store) == []


class UnevenKV(MemoryKV):
    """A removal takes two seconds to get to the engine, anything else one."""

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        await asyncio.sleep(1 + isinstance(writes[0], Delete))
        return await super().commit(guards, writes)


Scenario = Callable[[Process, BlobRef], Awaitable[None]]


def announcing(scenario: Scenario) -> None:
    """Run a scenario with what an object is made of, when a read of it is old enough."""

    async def run() -> None:
        cluster = MemoryCluster()
        await cluster.found()
        process = await cluster.process(UnevenKV(cluster.engine))
        await put(process, "k", b"content")
        await scenario(process, await blob_of(process, "k"))

    run_virtual(run())


def old_read(process: Process) -> Reading:
    reading = Reading(process.storage)
    process.cluster.clock.advance(GARBAGE_AFTER_MS / 1000)
    return reading


def test_the_end_of_a_read_does_not_take_back_what_the_next_announces() -> None:
    async def scenario(process: Process, data: BlobRef) -> None:
        first, second = old_read(process), old_read(process)
        await first.going_on(data)
        ending = asyncio.ensure_future(first.ended())
        await asyncio.sleep(0.5)
        await second.going_on(data)
        await ending
        assert len(readings(process)) == 1
        await second.ended()
        assert readings(process) == []

    announcing(scenario)


@pytest.mark.parametrize("others", [0, 1])
def test_a_read_cancelled_while_it_announces_itself_leaves_nothing(others: int) -> None:
    async def scenario(process: Process, data: BlobRef) -> None:
        first, second = old_read(process), old_read(process)
        for other in [first] * others:
            await other.going_on(data)
        announcing = asyncio.ensure_future(second.going_on(data))
        await asyncio.sleep(0.5)
        announcing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await announcing
        await asyncio.gather(second.ended(), first.ended())
        await process.storage.store.settle()
        assert readings(process) == []

    announcing(scenario)


def test_each_of_many_reads_is_announced_until_the_last_ends() -> None:
    async def scenario(process: Process, data: BlobRef) -> None:
        chosen = random.Random(5)
        under_way = 0

        async def read() -> None:
            nonlocal under_way
            reading = Reading(process.storage)
            await asyncio.sleep(chosen.uniform(0, 60))
            await reading.going_on(data)
            under_way += 1
            for _ in range(3):
                assert len(readings(process)) == 1
                await asyncio.sleep(chosen.uniform(0, 2))
            under_way -= 1
            await reading.ended()

        reads = [asyncio.ensure_future(read()) for _ in range(60)]
        await asyncio.sleep(0)
        process.cluster.clock.advance(GARBAGE_AFTER_MS / 1000)
        await asyncio.gather(*reads)
        assert (under_way, readings(process), dict(process.storage.readings)) == (0, [], {})

    announcing(scenario)


def test_a_read_announces_what_it_goes_on_with_and_again_under_another_lease() -> None:
    async def scenario(process: Process, data: BlobRef) -> None:
        await put(process, "other", b"content")
        elsewhere = await blob_of(process, "other")
        reading = old_read(process)
        for announced in (data, elsewhere):
            await reading.going_on(announced)
            lease = process.storage.lease()
            assert readings(process) == [keys.reading(announced.blob, lease)]
        await process.take_lease()
        await reading.going_on(elsewhere)
        assert process.storage.lease() != lease
        assert readings(process) == [keys.reading(elsewhere.blob, process.storage.lease())]
        await reading.ended()
        assert readings(process) == []

    announcing(scenario)


@pytest.mark.parametrize("read_again", [False, True])
def test_a_removal_that_the_engine_did_not_take_is_sent_again(
    read_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was read would be kept for as long as this process lives."""

    async def away(guards: object, writes: object) -> int:
        raise Unavailable("away")

    async def scenario(process: Process, data: BlobRef) -> None:
        keeping = asyncio.ensure_future(keep_withdrawing(process.storage))
        first, second = old_read(process), old_read(process)
        await first.going_on(data)
        with monkeypatch.context() as patch:
            patch.setattr(process.kv, "commit", away)
            await first.ended()
            await asyncio.sleep(25)
        assert len(readings(process)) == 1
        if read_again:
            await second.going_on(data)
        await asyncio.sleep(15)
        assert len(readings(process)) == int(read_again), "one that is read again stays"
        await second.ended()
        assert readings(process) == []
        assert not process.storage.to_withdraw
        keeping.cancel()

    announcing(scenario)


def test_an_announcement_that_the_engine_takes_late_does_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(process: Process, data: BlobRef) -> None:
        keeping = asyncio.ensure_future(keep_withdrawing(process.storage))
        reading, commit = old_read(process), process.kv.commit
        late: list[Awaitable[int]] = []

        async def under_way(guards: Sequence[Guard], writes: Sequence[Write]) -> int:
            late.append(commit(guards, writes))
            raise Unavailable("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(process.kv, "commit", under_way)
            await reading.going_on(data)
            await reading.ended()
        await asyncio.gather(*late)
        assert len(readings(process)) == 1
        await asyncio.sleep(15)
        assert readings(process) == []
        assert not process.storage.to_withdraw
        keeping.cancel()

    announcing(scenario)
