"""The journal's files, format version 1. Integers are big-endian.

A drive of the journal set has, in its folder `journal/`:

    set                     who is in the set, JSON (journal_set.py)
    segment-<n, 12 digits>  groups of commits, in order
    snapshot-<n>            all rows as they were where segment n begins

Segment and snapshot begin with a header (72 bytes):

    offset  bytes
         0      8  magic "S3GWJSEG" or "S3GWJSNP"
         8      2  format version (1)
        10      6  zero
        16     16  chain: random name of this journal, made with its first segment
        32      8  number n of the segment
        40      8  revision: that of the last commit before it
        48      8  checksum of the last entry before it
        56      8  zero
        64      8  CRC64NVME of bytes 0..63

then, in both, entries:

         0      4  magic "JENT"
         4      4  b: bytes of the body
         8      8  first revision of the entry
        16      8  last revision
        24      8  checksum of the previous entry (in the first one: the header's)
        32      b  body
      32+b      8  checksum: CRC64NVME of chain and bytes 0..32+b-1

The body of a segment's entry is one group: MessagePack `[[revision, [[key, value or nil, lease],
…]], …]`, nil for a removal. That of a snapshot's entry is `[[key, value, revision, lease], …]`; its
revisions are both the snapshot's, and the last entry has an empty list: the snapshot is whole.

Entries form a chain: each is bound to all before it, across segments, and to this journal. Bytes
that a client stored cannot pass for an entry, since the checksum begins with the chain's secret
name. A segment is only appended to. Its last entry may be torn by a crash: it fails its checksum
and was never acknowledged. A valid entry *behind* an invalid one is no tear but damage.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from awscrt import checksums

from s3gw.kv.interface import Key

VERSION = 1
SEGMENT_MAGIC = b"S3GWJSEG"
SNAPSHOT_MAGIC = b"S3GWJSNP"
ENTRY_MAGIC = b"JENT"
CHAIN_BYTES = 16
HEADER_BYTES = 72
ENTRY_HEAD_BYTES = 32
ENTRY_PREVIOUS = slice(24, 32)
CHECKSUM_BYTES = 8
SNAPSHOT_ENTRY_ROWS = 1_000
PIECE_BYTES = 8 * 1024 * 1024
TORN_BYTES_MAX = 64 * 1024 * 1024
"""More than any entry: the writer bounds its groups."""

NO_CHECKSUM = bytes(CHECKSUM_BYTES)

Change = tuple[Key, bytes | None, int]
"""Key, new value or None for a removal, lease."""
Commit = tuple[int, Sequence[Change]]
"""A revision and what it changed."""
Row = tuple[Key, bytes, int, int]
"""Key, value, revision, lease."""

_HEADER = struct.Struct(">8sH6x16sQQ8s8x")
_ENTRY = struct.Struct(">4sIQQ8s")
_CHECKSUM = struct.Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode
_decode_group = msgspec.msgpack.Decoder(list[Commit]).decode
_decode_rows = msgspec.msgpack.Decoder(list[Row]).decode


class JournalDamaged(Exception):
    """A file of the journal is not what was written there."""


class NotContinued(Exception):
    """A segment does not continue the chain: it was begun by a writer that died then."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the journal, behind the entry with `checksum` that ends at `revision`; also what
    the database remembers of the journal."""

    chain: bytes
    set_number: int
    segment: int
    offset: int
    revision: int
    checksum: bytes


def segment_name(number: int) -> str:
    return f"segment-{number:012d}"


def snapshot_name(number: int) -> str:
    return f"snapshot-{number:012d}"


def build_header(magic: bytes, at: Position) -> bytes:
    """The header of segment or snapshot `at.segment`, which continues the chain from `at`."""
    head = _HEADER.pack(magic, VERSION, at.chain, at.segment, at.revision, at.checksum)
    return head + _CHECKSUM.pack(checksums.crc64nvme(head))


def parse_header(data: bytes, magic: bytes) -> Position:
    """The position at the end of the header (set number 0). Raises JournalDamaged."""
    if len(data) < HEADER_BYTES:
        raise JournalDamaged("header is cut")
    head = data[: HEADER_BYTES - CHECKSUM_BYTES]
    if data[HEADER_BYTES - CHECKSUM_BYTES : HEADER_BYTES] != _CHECKSUM.pack(
        checksums.crc64nvme(head)
    ):
        raise JournalDamaged("header is damaged")
    found, version, chain, number, revision, checksum = _HEADER.unpack(head)
    if found != magic or version != VERSION:
        raise JournalDamaged(f"magic {found!r} or format version {version} is not known")
    return Position(chain, 0, number, HEADER_BYTES, revision, checksum)


def _seal(at: Position, first: int, last: int, body: bytes) -> bytes:
    entry = _ENTRY.pack(ENTRY_MAGIC, len(body), first, last, at.checksum) + body
    return entry + _CHECKSUM.pack(checksums.crc64nvme(entry, checksums.crc64nvme(at.chain)))


def build_entry(at: Position, commits: Sequence[Commit]) -> tuple[bytes, Position]:
    """One group as an entry to be written at `at`, and the position behind it."""
    last = commits[-1][0]
    entry = _seal(at, commits[0][0], last, _encode(commits))
    behind = Position(
        at.chain, at.set_number, at.segment, at.offset + len(entry), last, entry[-CHECKSUM_BYTES:]
    )
    return entry, behind


class Entry(NamedTuple):
    """A whole and valid entry. `previous` is the checksum of the one before."""

    first: int
    last: int
    previous: bytes
    body: memoryview
    checksum: bytes
    length: int


def parse_entry(data: memoryview, chain: bytes) -> Entry | None:
    """The entry at the start of `data`; None when there is no whole and valid one."""
    if len(data) < ENTRY_HEAD_BYTES + CHECKSUM_BYTES:
        return None
    magic, size, first, last, previous = _ENTRY.unpack_from(data)
    end = ENTRY_HEAD_BYTES + size
    if magic != ENTRY_MAGIC or end + CHECKSUM_BYTES > len(data):
        return None
    checksum = checksums.crc64nvme(data[:end], checksums.crc64nvme(chain))
    found = bytes(data[end : end + CHECKSUM_BYTES])
    if found != _CHECKSUM.pack(checksum):
        return None
    return Entry(first, last, previous, data[ENTRY_HEAD_BYTES:end], found, end + CHECKSUM_BYTES)


def _read_entries(file: BinaryIO, chain: bytes) -> Iterator[Entry]:
    """The valid entries from where the file stands, up to the first that is not."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    while left >= ENTRY_HEAD_BYTES + CHECKSUM_BYTES:
        head = file.read(ENTRY_HEAD_BYTES)
        size = _ENTRY.unpack(head)[1] + CHECKSUM_BYTES
        if len(head) + size > left:
            return
        entry = parse_entry(memoryview(head + file.read(size)), chain)
        if entry is None:
            return
        yield entry
        left -= entry.length


@dataclass(frozen=True, slots=True)
class Tail:
    """What lies behind `start` in one segment's file: valid entries up to `end`. `damaged`: a valid
    entry lies behind an invalid one."""

    path: Path
    start: Position
    end: Position
    damaged: bool

    def entries(self) -> Iterator[Entry]:
        with self.path.open("rb") as file:
            file.seek(self.start.offset)
            at = self.start.offset
            for entry in _read_entries(file, self.start.chain):
                at += entry.length
                if at > self.end.offset:
                    return
                yield entry

    def commits(self) -> Iterator[Commit]:
        """The commits of all entries, in order."""
        for entry in self.entries():
            yield from _decode_group(entry.body)

    def missing_from(self, end: Position) -> Iterator[bytes]:
        """The bytes behind `end`, a position in the same segment, in pieces. Raises
        JournalDamaged when they do not continue it."""
        if end.offset < self.start.offset:
            raise JournalDamaged(f"the entries behind revision {end.revision} are gone")
        with self.path.open("rb") as file:
            file.seek(end.offset)
            left = self.end.offset - end.offset
            while left > 0:
                piece = file.read(min(left, PIECE_BYTES))
                if left == self.end.offset - end.offset and piece[ENTRY_PREVIOUS] != end.checksum:
                    raise JournalDamaged(f"the chain at revision {end.revision} is another one")
                left -= len(piece)
                yield piece


def _nobody_counts() -> None:
    """Until somebody wants to know that a long work goes on."""


def read_tail(path: Path, at: Position, step: Callable[[], None] = _nobody_counts) -> Tail:
    """Read the segment's file from `at.offset` to its end and check the chain from `at`; `step` is
    called for each entry. Raises OSError; NotContinued; JournalDamaged when what `at` names is not
    there."""
    with path.open("rb") as file:
        header = parse_header(file.read(HEADER_BYTES), SEGMENT_MAGIC)
        if (header.chain, header.segment) != (at.chain, at.segment):
            raise JournalDamaged(f"{path} is of another journal or segment")
        if at.offset == HEADER_BYTES and header.revision > at.revision:
            raise JournalDamaged(f"entries between {at.revision} and {header.revision} are missing")
        if at.offset == HEADER_BYTES and header.checksum != at.checksum:
            raise NotContinued
        size = os.fstat(file.fileno()).st_size
        if size < at.offset:
            raise JournalDamaged(f"{path} ends at {size}, before {at.offset}")
        file.seek(at.offset)
        end = at
        for entry in _read_entries(file, at.chain):
            if entry.previous != end.checksum or entry.first <= end.revision:
                break
            step()
            offset = end.offset + entry.length
            end = replace(end, offset=offset, revision=entry.last, checksum=entry.checksum)
        return Tail(path, at, end, _is_damaged(file, end, size))


def _is_damaged(file: BinaryIO, end: Position, size: int) -> bool:
    """Whether more than one torn entry lies behind `end`."""
    if size - end.offset > TORN_BYTES_MAX:
        return True
    file.seek(end.offset)
    rest = file.read()
    found = rest.find(ENTRY_MAGIC)
    while found >= 0:
        if parse_entry(memoryview(rest)[found:], end.chain) is not None:
            return True
        found = rest.find(ENTRY_MAGIC, found + 1)
    return False


def snapshot_pieces(at: Position, rows: Iterable[Row]) -> Iterator[bytes]:
    """The bytes of the snapshot that belongs to the start of segment `at.segment`."""
    yield build_header(SNAPSHOT_MAGIC, at)
    link = replace(at, offset=0)
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == SNAPSHOT_ENTRY_ROWS:
            entry = _seal(link, at.revision, at.revision, _encode(batch))
            yield entry
            link = replace(link, checksum=entry[-CHECKSUM_BYTES:])
            batch.clear()
    if batch:
        entry = _seal(link, at.revision, at.revision, _encode(batch))
        yield entry
        link = replace(link, checksum=entry[-CHECKSUM_BYTES:])
    yield _seal(link, at.revision, at.revision, _encode([]))


def read_snapshot(file: BinaryIO) -> Iterator[Row]:
    """The rows of a snapshot, from behind its header. Raises JournalDamaged at the first entry
    that is not whole, or when the last one is missing: use no row before all were read."""
    file.seek(0)
    at = parse_header(file.read(HEADER_BYTES), SNAPSHOT_MAGIC)
    checksum = at.checksum
    for entry in _read_entries(file, at.chain):
        if entry.previous != checksum:
            break
        checksum = entry.checksum
        rows = _decode_rows(entry.body)
        if not rows:
            return
        yield from rows
    raise JournalDamaged("snapshot is cut or damaged")
