"""A copy is of one version: its bytes and its description were never of two."""

from __future__ import annotations

from dataclasses import replace

from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Description, ObjectRecord
from s3gw.objects import publish
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.publish import Target, no_check
from s3gw.objects.write import put_object
from tests.stores.memory_store import BUCKET, Bytes, Process
from tests.stores.operations import get

AS_SOURCE = Copying("owner", lambda found: found.description, "", no_check, lambda found: None)


async def read(process: Process, key: str) -> Target:
    return await publish.read_target(process.storage, BUCKET, key)


async def put_described(process: Process, data: bytes, word: str) -> ObjectRecord:
    description = Description(user={"word": word})
    target = await read(process, "k")
    return await put_object(process.storage, target, "owner", description, Bytes(data), no_check)


async def test_a_copy_of_a_source_replaced_meanwhile_has_the_new_ones_description(
    memory_store: Process,
) -> None:
    await put_described(memory_store, b"old", "old")
    source = await read(memory_store, "k")
    await put_described(memory_store, b"new", "new")
    target = await read(memory_store, "c")
    copied = await copy_object(memory_store.storage, source, target, AS_SOURCE)
    assert await get(memory_store, "c") == b"new"
    assert copied.description.user == {"word": "new"}


async def test_a_copy_onto_itself_never_refers_to_a_blob_that_was_let_go(
    memory_store: Process,
) -> None:
    """The source was read before it was replaced, the target after."""
    old = await put_described(memory_store, b"old", "old")
    source = await read(memory_store, "k")
    await put_described(memory_store, b"new", "new")
    target = await read(memory_store, "k")
    await copy_object(memory_store.storage, source, target, AS_SOURCE)
    assert await get(memory_store, "k") == b"new"
    assert isinstance(old.data, BlobRef)
    items = memory_store.cluster.engine.items
    holders = [key for key in items if key.startswith(keys.BLOBS) and old.data.blob in key]
    assert len(holders) == 1


async def test_a_copy_that_writes_the_bytes_anew_has_the_sources_description(
    memory_store: Process,
) -> None:
    """Here because of a checksum that is not known yet."""
    await put_described(memory_store, b"old", "old")
    source, target = await read(memory_store, "k"), await read(memory_store, "c")
    with_checksum = replace(AS_SOURCE, checksum_algorithm="CRC32")
    copied = await copy_object(memory_store.storage, source, target, with_checksum)
    assert await get(memory_store, "c") == b"old"
    assert copied.description.user == {"word": "old"}
    assert "CRC32" in copied.checksums.values
