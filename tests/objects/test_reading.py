"""Long reads: announced to the collector, and going on when the same content moves."""

from __future__ import annotations

import msgspec
import pytest

from nodes.protocol import Buffer
from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import Unavailable
from s3gw.limits import PART_BYTES_MIN
from s3gw.metadata import keys
from s3gw.metadata.records import ManifestPage
from s3gw.metadata.store import Transaction
from s3gw.objects import publish
from s3gw.objects.reading import read_version
from tests.stores.memory_store import BUCKET, GARBAGE_AFTER_MS, STRIPE_BYTES, Process
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
