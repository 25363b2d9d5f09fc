"""The shard file, format version 1. Integers are big-endian.

    offset  bytes  header (64)
         0      8  magic "S3GWSHRD"
         8      2  format version (1)
        10      1  index of the shard
        11      1  zero
        12      4  block_bytes: payload bytes of every block but the last, which may be shorter
        16     16  blob id
        32     24  zero
        56      8  CRC64NVME of bytes 0..55

    then, for each block, in order and without gaps:
         0      n  payload (n = block_bytes; in the last block 1..block_bytes)
         n      8  checksum: CRC64NVME over payload, blob id, index (1 byte), block number (8)

    footer:
         0      f  footer map (opaque here; MessagePack in the gateway)
         f      4  f
       f+4      8  payload bytes of all blocks together
      f+12      4  zero
      f+16      8  CRC64NVME over footer map, blob id, index (1) and bytes f..f+15
      f+24      8  magic "S3GWFOOT"

The checksum of a block is bound to blob, index and number: a block of another blob, index or
place, although whole in itself, fails it. The footer is written last; a file without one was
never acknowledged. The payload of block i starts at `block_offset(block_bytes, i)`.

A shard of a blob without bytes has no blocks: header and footer only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from awscrt import checksums

from nodes.protocol import BLOB_ID_BYTES, Buffer, ShardName

VERSION = 1
MAGIC = b"S3GWSHRD"
FOOTER_MAGIC = b"S3GWFOOT"
HEADER_BYTES = 64
CHECKSUM_BYTES = 8
FOOTER_TAIL_BYTES = 32
FOOTER_MAP_BYTES_MAX = 64 * 1024
BLOCK_BYTES_MAX = 8 * 1024 * 1024

_HEADER = struct.Struct(">8sHBBI16s24x")
_BINDING = struct.Struct(">16sBQ")
_FOOTER_BINDING = struct.Struct(">16sBIQ4x")
_FOOTER_SIZES = struct.Struct(">IQ4x")
_CHECKSUM = struct.Struct(">Q")


class ShardCorrupt(Exception):
    """Bytes do not match their checksum, or are not where the format puts them."""


@dataclass(frozen=True, slots=True)
class Header:
    version: int
    index: int
    block_bytes: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class Footer:
    map_bytes: bytes
    payload_bytes: int


def _crc(data: Buffer, previous: int = 0) -> int:
    return int(checksums.crc64nvme(data, previous))


def build_header(name: ShardName, block_bytes: int) -> bytes:
    """The 64 header bytes of a shard."""
    if len(name.blob) != BLOB_ID_BYTES or not 0 < block_bytes <= BLOCK_BYTES_MAX:
        raise ValueError("blob id or block size out of range")
    head = _HEADER.pack(MAGIC, VERSION, name.index, 0, block_bytes, name.blob)
    return head + _CHECKSUM.pack(_crc(head))


def parse_header(data: Buffer) -> Header:
    """Read and check a header. Raises ShardCorrupt."""
    if len(data) < HEADER_BYTES:
        raise ShardCorrupt("header is cut")
    head = bytes(data[: HEADER_BYTES - CHECKSUM_BYTES])
    (checksum,) = _CHECKSUM.unpack(data[HEADER_BYTES - CHECKSUM_BYTES : HEADER_BYTES])
    magic, version, index, _, block_bytes, blob = _HEADER.unpack(head)
    if magic != MAGIC or checksum != _crc(head):
        raise ShardCorrupt("header is damaged")
    if version != VERSION or not 0 < block_bytes <= BLOCK_BYTES_MAX:
        raise ShardCorrupt(f"format version {version} or block size is not known")
    return Header(version, index, block_bytes, blob)


def seal_block(name: ShardName, number: int, payload: Buffer) -> bytes:
    """The 8 checksum bytes that follow the payload of block `number`."""
    return seal_checksum(name, number, _crc(payload))


def seal_checksum(name: ShardName, number: int, payload_crc: int) -> bytes:
    """`seal_block` when the CRC64NVME of the payload is known, computed piece by piece."""
    binding = _BINDING.pack(name.blob, name.index, number)
    return _CHECKSUM.pack(_crc(binding, payload_crc))


def open_block(name: ShardName, number: int, block: Buffer) -> memoryview:
    """The payload of a block read as payload and checksum. Raises ShardCorrupt."""
    view = memoryview(block)
    if len(view) <= CHECKSUM_BYTES:
        raise ShardCorrupt(f"block {number} is cut")
    payload = view[:-CHECKSUM_BYTES]
    if view[-CHECKSUM_BYTES:] != seal_block(name, number, payload):
        raise ShardCorrupt(f"block {number} is damaged")
    return payload


def build_footer(name: ShardName, map_bytes: bytes, payload_bytes: int) -> bytes:
    """The footer: map, sizes, checksum and magic."""
    if len(map_bytes) > FOOTER_MAP_BYTES_MAX:
        raise ValueError("footer map is too large")
    sizes = _FOOTER_SIZES.pack(len(map_bytes), payload_bytes)
    return b"".join(
        (
            map_bytes,
            sizes,
            _CHECKSUM.pack(_footer_crc(name, map_bytes, payload_bytes)),
            FOOTER_MAGIC,
        )
    )


def _footer_crc(name: ShardName, map_bytes: Buffer, payload_bytes: int) -> int:
    binding = _FOOTER_BINDING.pack(name.blob, name.index, len(map_bytes), payload_bytes)
    return _crc(binding, _crc(map_bytes))


def footer_map_length(tail: Buffer) -> int:
    """The length of the footer map, from the last 32 bytes of a shard. Raises ShardCorrupt."""
    if len(tail) != FOOTER_TAIL_BYTES or bytes(tail[24:]) != FOOTER_MAGIC:
        raise ShardCorrupt("footer is missing")
    length = int(_FOOTER_SIZES.unpack(tail[:16])[0])
    if length > FOOTER_MAP_BYTES_MAX:
        raise ShardCorrupt("footer is damaged")
    return length


def parse_footer(name: ShardName, data: Buffer) -> Footer:
    """Read and check a footer (map and 32 tail bytes, exactly). Raises ShardCorrupt."""
    view = memoryview(data)
    length = footer_map_length(view[-FOOTER_TAIL_BYTES:])
    if len(view) != length + FOOTER_TAIL_BYTES:
        raise ShardCorrupt("footer is cut")
    _, payload_bytes = _FOOTER_SIZES.unpack(view[length : length + 16])
    (checksum,) = _CHECKSUM.unpack(view[length + 16 : length + 24])
    zeros = view[length + 12 : length + 16]  # covered by the checksum as zeros
    if any(zeros) or checksum != _footer_crc(name, view[:length], payload_bytes):
        raise ShardCorrupt("footer is damaged")
    return Footer(bytes(view[:length]), payload_bytes)


def block_offset(block_bytes: int, number: int) -> int:
    """Where block `number` starts in the file.

    >>> block_offset(262144, 0), block_offset(262144, 1)
    (64, 262216)
    """
    return HEADER_BYTES + number * (block_bytes + CHECKSUM_BYTES)


def block_count(block_bytes: int, payload_bytes: int) -> int:
    """How many blocks hold `payload_bytes`.

    >>> block_count(10, 0), block_count(10, 10), block_count(10, 11)
    (0, 1, 2)
    """
    return -(-payload_bytes // block_bytes)


def shard_bytes(block_bytes: int, payload_bytes: int, map_bytes: int) -> int:
    """The size of the whole file.

    >>> shard_bytes(10, 11, 5) == 64 + 11 + 2 * 8 + 5 + 32
    True
    """
    blocks = block_count(block_bytes, payload_bytes)
    return HEADER_BYTES + payload_bytes + blocks * CHECKSUM_BYTES + map_bytes + FOOTER_TAIL_BYTES
