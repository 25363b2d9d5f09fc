"""The file of a metadata snapshot, format version 1. Integers are big-endian.

    offset  bytes
         0      8  magic "S3GWMETA"
         8      2  format version (1)
        10      4  h: bytes of the header map
        14      h  header map, MessagePack: store, incarnation, revision, sequence, created_ms
      14+h      8  CRC64NVME of all before

then frames:

         0      4  b: bytes of the body
         4      8  CRC64NVME of the body, continued from that of the frame before (the header's)
        12      b  zlib-compressed MessagePack [[key, value], …], in the order of keys

The body of the last frame is an empty list: the snapshot is whole. `sequence` is the highest that
a version can have in it.

**Left out:** keys under a lease, which end with their processes; fences and the secrets of the
`store` record. The drives must not hold a secret by which somebody could pass for a gateway; a
restore makes new ones, and the fences anew, since they depend on one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

import msgspec
from awscrt import checksums

from nodes.protocol import Buffer

MAGIC = b"S3GWMETA"
VERSION = 1
LEVEL = 3
FRAME_BYTES_MAX = 256 * 1024 * 1024
# Checksums are no proof of origin: a frame must not unpack to more than memory holds.
ROWS_BYTES_MAX = 1024 * 1024 * 1024
HEADER_BYTES_MAX = 64 * 1024
_FIXED = struct.Struct(">8sHI")
_FRAME = struct.Struct(">IQ")
_CHECKSUM = struct.Struct(">Q")

Row = tuple[bytes, bytes]
"""A key and its value."""

_encode = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[Row]).decode


class SnapshotDamaged(Exception):
    """Not a snapshot, not whole, or of a version that is not known."""


class SnapshotHeader(msgspec.Struct, frozen=True):
    """What a snapshot is of."""

    store: str
    incarnation: int
    revision: int
    sequence: int
    created_ms: int


_decode_header = msgspec.msgpack.Decoder(SnapshotHeader).decode


class FrameWriter:
    """Makes the bytes of a snapshot, frame after frame."""

    def __init__(self) -> None:
        self._checksum = 0

    def header(self, header: SnapshotHeader) -> bytes:
        """The beginning of the file."""
        body = _encode(header)
        data = _FIXED.pack(MAGIC, VERSION, len(body)) + body
        self._checksum = int(checksums.crc64nvme(data))
        return data + _CHECKSUM.pack(self._checksum)

    def frame(self, rows: Sequence[Row]) -> bytes:
        """One frame; without rows the last."""
        body = zlib.compress(_encode(rows), LEVEL)
        self._checksum = int(checksums.crc64nvme(body, self._checksum))
        return _FRAME.pack(len(body), self._checksum) + body


async def frames(
    header: SnapshotHeader, pages: AsyncIterator[Sequence[Row]]
) -> AsyncIterator[bytes]:
    """The snapshot's bytes; no page may be empty."""
    writer = FrameWriter()
    yield writer.header(header)
    async for rows in pages:
        yield writer.frame(rows)
    yield writer.frame(())


class _Bytes:
    """Takes exact lengths from pieces of any size."""

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self._pieces = iter(pieces)
        self._held = bytearray()

    def take(self, count: int) -> bytes:
        while len(self._held) < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise SnapshotDamaged("the snapshot is cut")
            self._held += piece
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken


def read_snapshot(pieces: Iterable[Buffer]) -> tuple[SnapshotHeader, Iterator[list[Row]]]:
    """The header, and the frames' rows. Raises SnapshotDamaged, also on the way: use no row before
    all were read."""
    source = _Bytes(pieces)
    fixed = source.take(_FIXED.size)
    magic, version, length = _FIXED.unpack(fixed)
    if magic != MAGIC or version != VERSION or length > HEADER_BYTES_MAX:
        raise SnapshotDamaged(f"magic {magic!r} or format version {version} is not known")
    body = source.take(length)
    (checksum,) = _CHECKSUM.unpack(source.take(_CHECKSUM.size))
    if checksum != checksums.crc64nvme(fixed + body):
        raise SnapshotDamaged("the snapshot's header is damaged")
    try:
        header = _decode_header(body)
    except msgspec.MsgspecError as error:
        raise SnapshotDamaged(f"the snapshot's header cannot be read: {error}") from error
    return header, _read_frames(source, checksum)


def _unpacked(body: bytes) -> bytes:
    """Raises SnapshotDamaged, zlib.error."""
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(body, ROWS_BYTES_MAX)
    if not unpacking.eof or unpacking.unused_data:
        raise SnapshotDamaged("a frame of the snapshot is cut, or unpacks to too much")
    return data


def _read_frames(source: _Bytes, checksum: int) -> Iterator[list[Row]]:
    while True:
        length, expected = _FRAME.unpack(source.take(_FRAME.size))
        if length > FRAME_BYTES_MAX:
            raise SnapshotDamaged("a frame of the snapshot is damaged")
        body = source.take(length)
        checksum = checksums.crc64nvme(body, checksum)
        if checksum != expected:
            raise SnapshotDamaged("a frame of the snapshot is damaged")
        try:
            rows = _decode_rows(_unpacked(body))
        except (zlib.error, msgspec.MsgspecError) as error:
            raise SnapshotDamaged(f"a frame of the snapshot cannot be read: {error}") from error
        if not rows:
            return
        yield rows
