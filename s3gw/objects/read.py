"""GetObject in terms of storage: the content of a version, verified.

A blob read from first to last byte is also checked against the CRC64NVME of the whole, before the
last window is handed out: an error then closes the connection, and the client sees a short body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

from awscrt import checksums

from nodes.protocol import Buffer
from s3gw.cluster.reader import BlobUnreadable
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Data,
    ManifestPage,
    ManifestRef,
    PartRecord,
    decode,
)
from s3gw.objects.content.framing import PLAIN, ContentDamaged, Framing
from s3gw.objects.content.sealing import NotAuthentic
from s3gw.objects.content.source import framed
from s3gw.objects.storage import Storage


async def read_data(
    storage: Storage,
    data: Data | None,
    first: int,
    stop: int,
    framing: Framing = PLAIN,
    size: int = 0,
) -> AsyncIterator[list[Buffer]]:
    """Bytes [first, stop) of a version, whose content has `size` bytes if it is framed. Raises
    BlobUnreadable, ContentDamaged."""
    if first >= stop or data is None:
        return
    if isinstance(data, BlobRef):
        async for buffers in _read_content(storage, data, first, stop, framing, size):
            yield buffers
        return
    async for part, offset in parts_from(storage, data, first):
        if offset >= stop:
            return
        begin, end = max(first - offset, 0), min(stop - offset, part.size)
        try:
            own = framing.of_part(part.content)
        except NotAuthentic as error:
            raise ContentDamaged(f"part {part.number}: {error}") from error
        async for buffers in _read_content(storage, part.blob, begin, end, own, part.size):
            yield buffers


def _read_content(
    storage: Storage, ref: BlobRef, first: int, stop: int, framing: Framing, size: int
) -> AsyncIterator[list[Buffer]]:
    """Bytes [first, stop) of a content of `size` bytes that is stored as one blob."""
    if framing is PLAIN:
        return read_blob(storage, ref, first, stop)
    source = partial(read_blob, storage, ref)
    return framed(source, framing, size, ref.size, storage.executor)(first, stop)


async def read_blob(
    storage: Storage, ref: BlobRef, first: int, stop: int
) -> AsyncGenerator[list[Buffer], None]:
    """Bytes [first, stop) of a blob; a whole one is checked as such."""
    whole = first == 0 and stop == ref.size
    crc = 0
    left = stop - first
    async for buffers in storage.blobs.read(ref, first, stop):
        for buffer in buffers:
            left -= len(buffer)
            if whole:
                crc = checksums.crc64nvme(buffer, crc)
        if whole and left == 0 and crc != ref.crc64:
            raise ContentDamaged(ref.blob.hex())
        yield buffers


async def parts_from(
    storage: Storage, manifest: ManifestRef, first: int
) -> AsyncIterator[tuple[PartRecord, int]]:
    """The parts from the one that holds byte `first` on, each with its offset in the object."""
    page = max(index for index, offset in enumerate(manifest.page_offsets) if offset <= first)
    for number in range(page, len(manifest.page_offsets)):
        offset = manifest.page_offsets[number]
        for part in await manifest_page(storage, manifest.manifest, number):
            if offset + part.size > first:
                yield part, offset
            offset += part.size


async def manifest_page(storage: Storage, manifest: bytes, page: int) -> tuple[PartRecord, ...]:
    """One page of parts. Raises BlobUnreadable if it is gone: the version was replaced."""
    key = keys.manifest_page(manifest, page)
    (item,) = (await storage.store.kv.get_many([key])).items
    if item is None:
        raise BlobUnreadable(f"page {page} of manifest {manifest.hex()} is gone")
    return decode(ManifestPage, item.value).parts


async def part_at(storage: Storage, manifest: ManifestRef, position: int) -> tuple[PartRecord, int]:
    """The part at a position (0 is the first), and its offset in the object."""
    page, row = divmod(position, manifest.page_parts)
    parts = await manifest_page(storage, manifest.manifest, page)
    offset = manifest.page_offsets[page] + sum(part.size for part in parts[:row])
    return parts[row], offset
