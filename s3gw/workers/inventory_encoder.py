"""The process that makes a file of an inventory report from records: `python -m` this module.

A process of its own, and of low priority, because this is nearly all of a report's work and, for
Parquet, of its memory: gateways only pass bytes through. It reads frames (a length of four bytes,
big-endian, and so many bytes) from standard input: one of a `Header`, then of `Rows`, then an empty
one. Without that the report is not whole, and neither is what was written: the process fails. It
writes the file to standard output, as far as it can be written. A version whose record cannot be
read is left out; how many these are is said on standard error at the end, by a line of an
`Omitted`.

pyarrow is imported here alone, and only for Parquet.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Protocol

import msgspec

from s3gw.metadata.records import BucketRecord, ObjectRecord, RecordFormatError, decode
from s3gw.workers.inventory_rows import (
    EXPIRY,
    FLAG,
    NUMBER,
    REQUIRED,
    TIME,
    Cell,
    column_of,
    csv_line,
    row_of,
)

LENGTH = struct.Struct(">I")
GZIP = 16 + zlib.MAX_WBITS
# Rows that Parquet puts side by side; what the process keeps in memory.
ROW_GROUP_ROWS = 20_000
NICENESS = 10
Expiry = Callable[[str, ObjectRecord], int]


class Header(msgspec.Struct, array_like=True):
    """What is made: `bucket` and its record, `columns`, and how long a day of lifecycle rules
    lasts."""

    bucket: str
    record: bytes
    columns: tuple[str, ...]
    parquet: bool
    day_ms: int


class Row(msgspec.Struct, array_like=True):
    """A version: the object's key, its record as it is stored, and whether it is the newest."""

    key: str
    record: bytes
    latest: bool


Rows = list[Row]


class Omitted(msgspec.Struct):
    """How many versions a file lacks because their records cannot be read, and the first's key."""

    count: int = 0
    first: str = ""

    def add(self, count: int, first: str) -> None:
        self.first = self.first or first
        self.count += count


def frame(value: object) -> bytes:
    """A frame; that of None is the empty one, which ends the rows."""
    body = b"" if value is None else msgspec.msgpack.encode(value)
    return LENGTH.pack(len(body)) + body


class Cut(Exception):
    """The input ended before the rows did."""


def read_frame(source: BinaryIO) -> bytes:
    """The next frame. Raises Cut."""
    head = source.read(LENGTH.size)
    if len(head) != LENGTH.size:
        raise Cut
    (length,) = LENGTH.unpack(head)
    body = source.read(length)
    if len(body) != length:
        raise Cut
    return body


class Writer(Protocol):
    """A format."""

    def add(self, row: Sequence[Cell]) -> None: ...

    def finish(self) -> None: ...


class CsvWriter:
    """Lines, compressed by gzip."""

    def __init__(self, sink: BinaryIO, columns: Sequence[str]) -> None:
        self._sink = sink
        self._columns = columns
        self._gzip = zlib.compressobj(wbits=GZIP)

    def add(self, row: Sequence[Cell]) -> None:
        self._sink.write(self._gzip.compress(csv_line(self._columns, row)))

    def finish(self) -> None:
        self._sink.write(self._gzip.flush())


class ParquetWriter:
    """Row groups of ROW_GROUP_ROWS, compressed by Snappy."""

    def __init__(self, sink: BinaryIO, columns: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        kinds = {
            NUMBER: pyarrow.int64(),
            FLAG: pyarrow.bool_(),
            TIME: pyarrow.timestamp("ms", tz="UTC"),
        }
        fields = []
        for name in columns:
            spelled, kind = column_of(name)
            of = kinds.get(kind, pyarrow.string())
            fields.append(pyarrow.field(spelled, of, nullable=name not in REQUIRED))
        self._schema = pyarrow.schema(fields)
        self._pyarrow = pyarrow
        self._parquet = parquet.ParquetWriter(sink, self._schema, compression="snappy")
        self._rows: list[Sequence[Cell]] = []

    def add(self, row: Sequence[Cell]) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self._parquet.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        arrays = [
            self._pyarrow.array(column, field.type)
            for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._rows.clear()
        self._parquet.write_batch(self._pyarrow.record_batch(arrays, schema=self._schema))


def _expiry(header: Header) -> Expiry:
    """When lifecycle rules remove a version; 0 for never."""
    from s3gw.buckets.lifecycle_due import expiry
    from s3gw.objects.lifecycle import as_seen, configuration_of

    bucket = decode(BucketRecord, header.record)
    configuration = configuration_of(bucket)

    def expires(key: str, record: ObjectRecord) -> int:
        if configuration is None or record.marker:
            return 0
        action = expiry(configuration, as_seen(bucket, key, record), header.day_ms)
        return action.due_ms if action is not None else 0

    return expires


def rows_of(source: BinaryIO, header: Header, omitted: Omitted) -> Iterator[list[Cell]]:
    """The rows of the input, but for those `omitted`. Raises Cut."""
    expires = _expiry(header) if EXPIRY in header.columns else None
    while body := read_frame(source):
        for each in msgspec.msgpack.decode(body, type=Rows):
            try:
                record = decode(ObjectRecord, each.record)
            except RecordFormatError:
                omitted.add(1, each.key)
                continue
            expiry_ms = expires(each.key, record) if expires is not None and each.latest else 0
            yield row_of(
                header.columns,
                header.bucket,
                each.key,
                record,
                latest=each.latest,
                expiry_ms=expiry_ms,
            )


def encode_report(source: BinaryIO, sink: BinaryIO) -> Omitted:
    """Read all frames, write the file; what it lacks. Raises Cut."""
    omitted = Omitted()
    header = msgspec.msgpack.decode(read_frame(source), type=Header)
    writer: Writer
    if header.parquet:
        writer = ParquetWriter(sink, header.columns)
    else:
        writer = CsvWriter(sink, header.columns)
    for row in rows_of(source, header, omitted):
        writer.add(row)
    writer.finish()
    sink.flush()
    return omitted


def main() -> int:
    """The process."""
    os.nice(NICENESS)
    try:
        omitted = encode_report(sys.stdin.buffer, sys.stdout.buffer)
    except (Cut, BrokenPipeError):
        # Whoever wanted the report is gone. Nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if omitted.count:
        sys.stderr.buffer.write(b"\n" + msgspec.json.encode(omitted) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
