"""Metadata found on the drives: snapshots among the blobs, and metadata journals.

What is found is loaded into a scratch database, all of it, before any of it is used. The newest by
incarnation and revision is the base that a recovery starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_format import (
    HEADER_BYTES,
    JournalDamaged,
    NotContinued,
    Position,
    Row,
    Tail,
    read_tail,
)
from s3gw.kv.sqlite_scratch import Scratch
from s3gw.metadata import keys
from s3gw.metadata.records import StoreRecord, decode
from s3gw.metadata.sequences import last_at
from s3gw.rescue.catalog import Catalog
from s3gw.rescue.decode import NotReadable, read_blob
from s3gw.rescue.drives import RescueDrive, RescueError
from s3gw.rescue.snapshot_format import SnapshotDamaged, SnapshotHeader, read_snapshot

JOURNAL = "journal"
SET_ASIDE = "journal.before-"
PIECE_BYTES = 1024 * 1024


@dataclass(slots=True)
class Base:
    """Metadata to start from. `rows` are all keys with their values; `moment_ms` is when it was
    taken, or when the journal was last written; `sequence` the highest that a version can have."""

    name: str
    store_id: str
    incarnation: int
    revision: int
    sequence: int
    moment_ms: int
    rows: Scratch

    @property
    def age(self) -> tuple[int, int]:
        return self.incarnation, self.revision

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The rows under a prefix, or all."""
        end = keys.after_prefix(prefix) if prefix else b"\xff"
        return self.rows.scan(prefix or b"\x00", end)

    def has(self, prefix: bytes) -> bool:
        return self.rows.first(prefix, keys.after_prefix(prefix)) is not None


def newest(
    catalog: Catalog, store_id: str, warn: Callable[[str], None], *, journals: bool = True
) -> Base | None:
    """The newest metadata on the drives that can be read. Blocks."""
    best: Base | None = None
    for found in _candidates(catalog, warn, journals=journals):
        if found.store_id != store_id:
            warn(f"{found.name} is of store {found.store_id}, and not used")
            found.rows.close()
        elif best is None or found.age > best.age:
            if best is not None:
                best.rows.close()
            best = found
        else:
            found.rows.close()
    return best


def _candidates(catalog: Catalog, warn: Callable[[str], None], *, journals: bool) -> Iterator[Base]:
    snapshot = _newest_snapshot(catalog, warn)
    if snapshot is not None:
        yield snapshot
    if journals:
        for drive in catalog.drives:
            yield from _journals(drive, warn)


def _newest_snapshot(catalog: Catalog, warn: Callable[[str], None]) -> Base | None:
    """The newest snapshot that is whole; an older one is tried when it is not."""
    for blob in catalog.snapshots():
        assert blob.footer is not None
        name = f"snapshot {blob.footer.key}"
        coding = catalog.coding(blob)
        try:
            if coding is None:
                raise NotReadable("its scheme is not known")
            return load_snapshot(name, read_blob(blob, coding))
        except (NotReadable, SnapshotDamaged) as error:
            warn(f"{name} cannot be used: {error}")
    return None


def load_snapshot(name: str, pieces: Iterable[bytes | bytearray | memoryview]) -> Base:
    """Load a snapshot. Raises SnapshotDamaged, and what reading the pieces raises."""
    header, frames = read_snapshot(pieces)
    rows = Scratch()
    try:
        for frame in frames:
            for key, value in frame:
                rows.put(key, value)
    except BaseException:
        rows.close()
        raise
    return _of_snapshot(name, header, rows)


def _of_snapshot(name: str, header: SnapshotHeader, rows: Scratch) -> Base:
    return Base(
        name,
        header.store,
        header.incarnation,
        header.revision,
        header.sequence,
        header.created_ms,
        rows,
    )


def load_file(path: str) -> Base:
    """Load a snapshot from a file. Raises RescueError."""
    try:
        with open(path, "rb") as file:
            return load_snapshot(path, iter(lambda: file.read(PIECE_BYTES), b""))
    except OSError as error:
        raise RescueError(f"{path} cannot be read: {error.strerror}") from error
    except SnapshotDamaged as error:
        raise RescueError(f"{path} cannot be used: {error}") from error


class _JournalFolder(Folder):
    """A journal's folder under any name."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self.path = path


def journal_folders(drive: Path) -> list[Path]:
    """The journal of a drive, and those that earlier recoveries have set aside."""
    found = [drive / JOURNAL, *sorted(drive.glob(f"{SET_ASIDE}*"))]
    return [path for path in found if path.is_dir()]


def _journals(drive: RescueDrive, warn: Callable[[str], None]) -> Iterator[Base]:
    for path in journal_folders(drive.path):
        try:
            found = _read_journal(_JournalFolder(path))
        except (OSError, JournalDamaged, NotContinued, msgspec.MsgspecError) as error:
            warn(f"{path} cannot be used: {error}")
            continue
        if found is not None:
            yield found


def _read_journal(folder: _JournalFolder) -> Base | None:
    """The state at the end of one folder's chain, from its newest snapshot that is whole."""
    for start in folder.snapshots():
        rows = Scratch()
        try:
            for row in folder.snapshot_rows(start.segment):
                _keep(rows, row)
        except JournalDamaged:
            rows.close()
            continue
        end, moment_ms = _follow(folder, start, rows)
        stored = rows.get(keys.STORE)
        if stored is None:
            rows.close()
            return None  # of a store whose making was interrupted
        store = decode(StoreRecord, stored)
        return Base(
            str(folder.path),
            store.store_id,
            store.incarnation,
            end.revision,
            last_at(end.revision + store.sequence_offset),
            moment_ms,
            rows,
        )
    return None


def _keep(rows: Scratch, row: Row) -> None:
    key, value, _, lease = row
    if not lease:
        rows.put(key, value)


def _follow(folder: _JournalFolder, start: Position, rows: Scratch) -> tuple[Position, int]:
    """Apply the segments behind a snapshot, as far as they are whole; where that ends, and when
    the last was written."""
    at, moment_ms = start, 0
    while True:
        path = folder.segment(at.segment)
        try:
            tail = read_tail(path, at)
            moment_ms = path.stat().st_mtime_ns // 1_000_000
        except (FileNotFoundError, NotContinued, JournalDamaged):
            return at, moment_ms
        _apply(tail, rows)
        if tail.damaged:
            return tail.end, moment_ms
        end = tail.end
        at = Position(
            end.chain, end.set_number, end.segment + 1, HEADER_BYTES, end.revision, end.checksum
        )


def _apply(tail: Tail, rows: Scratch) -> None:
    for _, changes in tail.commits():
        for key, value, lease in changes:
            if value is None or lease:
                rows.delete(key)
            else:
                rows.put(key, value)


def store_of(drives: Sequence[RescueDrive]) -> str:
    """The store that the drives belong to."""
    return drives[0].store_id
