"""The bytes of a blob from its shard files, verified block by block and as a whole.

Each stripe is decoded from those of its fragments that pass their checksums, whichever they are, so
that shards damaged in different places still give the whole. One stripe is in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

from awscrt import checksums

from erasure.codec import NotDecodable, codec_of
from nodes.format import CHECKSUM_BYTES, ShardCorrupt, block_offset, open_block
from nodes.protocol import Buffer, ShardName
from s3gw.rescue.coding import Coding
from s3gw.rescue.drives import READ_FLAGS, Blob, Shard


class NotReadable(Exception):
    """Too few good fragments of a stripe are on these drives, or the whole is not what was
    written."""


def read_blob(blob: Blob, coding: Coding) -> Iterator[Buffer]:
    """The stored bytes in order. Raises NotReadable, also at the end, when the CRC64NVME of the
    whole is known and another one."""
    crc = 0
    with ExitStack() as stack:
        files = _open(stack, blob)
        geometry = coding.geometry
        for stripe in range(geometry.stripe_count):
            good: dict[int, Buffer] = {}
            length = geometry.block_length(stripe)
            offset = block_offset(blob.block_bytes, stripe)
            for shard, descriptor in files:
                if coding.scheme.decodable(list(good)):
                    break
                if shard.index not in good and shard.index < coding.scheme.width:
                    payload = _block(blob, shard, descriptor, stripe, offset, length)
                    if payload is not None:
                        good[shard.index] = payload
            try:
                buffers = codec_of(coding.scheme).decode(good, geometry.stripe_length(stripe))
            except NotDecodable as error:
                raise NotReadable(
                    f"stripe {stripe} of blob {blob.blob.hex()} has only the good shards "
                    f"{sorted(good)}"
                ) from error
            for buffer in buffers:
                crc = checksums.crc64nvme(buffer, crc)
                yield buffer
    if coding.crc64 >= 0 and crc != coding.crc64:
        raise NotReadable(f"blob {blob.blob.hex()} is not what was written")


def checksum(blob: Blob, coding: Coding) -> int:
    """The CRC64NVME of the stored bytes, all of which are read. Raises NotReadable."""
    crc = 0
    for buffer in read_blob(blob, coding):
        crc = checksums.crc64nvme(buffer, crc)
    return crc


def _open(stack: ExitStack, blob: Blob) -> list[tuple[Shard, int]]:
    files = []
    for shard in blob.shards:
        try:
            descriptor = os.open(shard.path, READ_FLAGS)
        except OSError:
            continue  # a drive that fails now is one shard less
        stack.callback(os.close, descriptor)
        files.append((shard, descriptor))
    return files


def _block(
    blob: Blob, shard: Shard, descriptor: int, stripe: int, offset: int, length: int
) -> memoryview | None:
    """The payload of one block; None when it is damaged or cannot be read."""
    name = ShardName(blob.profile, blob.pg, blob.blob, shard.index)
    try:
        data = os.pread(descriptor, length + CHECKSUM_BYTES, offset)
        payload = open_block(name, stripe, data)
    except (OSError, ShardCorrupt):
        return None
    return payload if len(payload) == length else None
