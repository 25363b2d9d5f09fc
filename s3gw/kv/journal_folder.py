"""The journal's folder on one drive: its set record, segments and snapshots. All calls block and
raise OSError when the drive is in trouble.

The record `set` is JSON: `{"version": 1, "chain": hex, "set": number, "members": [drive names],
"drive": this drive's own name}`. A drive gets its random name with its first record and keeps it,
whatever path it is mounted at; a new drive at an old path is another drive. Every drive of the
store has the record, also those outside of the set: with it a drive that comes back knows that it
is stale, and the others can tell that the newest set is missing.
"""

from __future__ import annotations

import copy
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from s3gw.files import sync_directory
from s3gw.kv.journal_format import (
    HEADER_BYTES,
    SEGMENT_MAGIC,
    SNAPSHOT_MAGIC,
    JournalDamaged,
    Position,
    Row,
    build_header,
    parse_header,
    read_snapshot,
    segment_name,
    snapshot_name,
)

RECORD_VERSION = 1
RECORD = "set"
PROBE = "probe"
SYNC_BYTES = 8 * 1024 * 1024
"""Long files are synced as they grow: one sync of it all might look like a drive that hangs."""


class Record(msgspec.Struct, frozen=True):
    """Who is in the set, as one drive knows it."""

    version: int
    chain: str
    set: int
    members: list[str]
    drive: str


class Signature(NamedTuple):
    """What changes when the record is written anew: a rename makes another inode."""

    inode: int
    changed_ns: int


class Folder:
    """One drive's part. `record` is the last read or written, None before there is one."""

    def __init__(self, drive: Path) -> None:
        self.path = drive / "journal"
        self.record: Record | None = None
        self._record_path = str(self.path / RECORD)
        self._new_name = secrets.token_hex(16)
        self._signature: Signature | None = None
        self._drive_seen = _directory_seen(drive)
        self._fd = -1
        self.surveyed = False
        """Whether `record` is known: else the drive may have the journal of another store."""
        self.snapshot_bytes = 0
        """The size of the newest snapshot when the segment was attached."""
        self.left_behind = False
        """Whether nobody waits any more for what a thread does here (journal_threads.py)."""
        self.steps = 0
        """Grows while a thread does something long here."""

    def twin(self) -> Folder:
        """The same drive for another thread."""
        twin = copy.copy(self)
        twin._fd, twin.left_behind = -1, False
        return twin

    @property
    def drive(self) -> str:
        """The drive's name; a drive without a record gets a new one."""
        return self.record.drive if self.record else self._new_name

    def survey(self) -> Record | None:
        """Read the record. Raises JournalDamaged when it cannot be understood."""
        self.require_drive()
        try:
            self._signature = self._stat_record()
            self.record = msgspec.json.decode((self.path / RECORD).read_bytes(), type=Record)
        except FileNotFoundError:
            self.record = self._signature = None
            self._new_name = secrets.token_hex(16)
        except msgspec.DecodeError as error:
            self.surveyed = True
            raise JournalDamaged(f"{self._record_path}: {error}") from error
        self.surveyed = True
        if self.record is not None and self.record.version != RECORD_VERSION:
            raise JournalDamaged(f"{self._record_path}: unknown version {self.record.version}")
        return self.record

    def require_drive(self) -> None:
        """Raises FileNotFoundError when the drive's directory is gone, or is not the one that it
        was when this object was made: below a disk that is not mounted any more lies its mount
        point."""
        seen = _directory_seen(self.path.parent)
        if seen is None or (self._drive_seen is not None and seen != self._drive_seen):
            raise FileNotFoundError(f"drive {self.path.parent} is not there")

    def write_record(self, chain: bytes, number: int, members: Sequence[str]) -> None:
        """Durably replace the record."""
        record = Record(RECORD_VERSION, chain.hex(), number, list(members), self.drive)
        self._replace(RECORD, [msgspec.json.encode(record)])
        self.record = record
        self._signature = self._stat_record()

    def _stat_record(self) -> Signature:
        found = os.stat(self._record_path)
        return Signature(found.st_ino, found.st_mtime_ns)

    # Appending

    def attach(self, segment: int) -> None:
        """Open the segment for appending."""
        self.detach()
        self._fd = os.open(self.path / segment_name(segment), os.O_WRONLY)
        newest = max((p for p in self.path.glob("snapshot-*") if not p.suffix), default=None)
        self.snapshot_bytes = newest.stat().st_size if newest else 0

    def detach(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def unchanged(self, offset: int) -> bool:
        """Whether the attached segment ends at `offset` and nobody wrote another record."""
        return os.fstat(self._fd).st_size == offset and self._stat_record() == self._signature

    def append(self, entry: bytes, offset: int) -> None:
        """Write durably at `offset` of the attached segment."""
        view = memoryview(entry)
        while view:
            self._require_asker()
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written
        os.fdatasync(self._fd)
        self.steps += 1

    def cut(self, offset: int) -> None:
        """Remove, durably, what lies behind `offset` of the attached segment."""
        if os.fstat(self._fd).st_size != offset:
            self._require_asker()
            os.ftruncate(self._fd, offset)
            os.fdatasync(self._fd)

    # Segments and snapshots

    def create_segment(self, at: Position) -> None:
        """Durably make an empty segment; one of this number was never used and is replaced."""
        self._replace(segment_name(at.segment), [build_header(SEGMENT_MAGIC, at)])

    def put_snapshot(self, number: int, pieces: Iterable[bytes]) -> None:
        """Durably write the snapshot that segment `number` continues."""
        self._replace(snapshot_name(number), pieces)

    def segment(self, number: int) -> Path:
        return self.path / segment_name(number)

    def snapshots(self) -> list[Position]:
        """The snapshots whose header is whole, newest first; where segments continue them."""
        found = []
        for path in sorted(self.path.glob("snapshot-*"), reverse=True):
            if path.suffix:
                continue
            try:
                with path.open("rb") as file:
                    found.append(parse_header(file.read(HEADER_BYTES), SNAPSHOT_MAGIC))
            except JournalDamaged:
                continue
        return found

    def snapshot_rows(self, number: int) -> Iterable[Row]:
        """The rows of a snapshot. Raises JournalDamaged on the way when it is not whole."""
        with (self.path / snapshot_name(number)).open("rb") as file:
            for row in read_snapshot(file):
                self.steps += 1
                yield row

    def prune(self, before: int) -> None:
        """Remove segments and snapshots with a number below `before`, which a snapshot of that
        number has made superfluous, and unfinished files."""
        for path, number in self._numbered():
            if number < before:
                self._require_asker()
                path.unlink(missing_ok=True)

    def forget(self, keep: int) -> None:
        """Remove every segment and snapshot but the snapshot `keep`: the drive was not in the set,
        what it has is stale."""
        for path, _ in self._numbered():
            if path.name != snapshot_name(keep):
                self._require_asker()
                path.unlink(missing_ok=True)

    def _numbered(self) -> list[tuple[Path, int]]:
        """All segments and snapshots with their numbers, unfinished ones (`.tmp`) among them."""
        paths = [*self.path.glob("segment-*"), *self.path.glob("snapshot-*")]
        return [(path, int(path.name.partition("-")[2].partition(".")[0])) for path in paths]

    def _replace(self, name: str, pieces: Iterable[bytes]) -> None:
        """Durably write a file, whole or not at all."""
        self.make_folder()
        for unfinished in self.path.glob(f"{name}.*tmp"):  # of a writer that died or hung
            self._require_asker()
            unfinished.unlink(missing_ok=True)
        temporary = self.path / f"{name}.{secrets.token_hex(4)}.tmp"
        try:
            with temporary.open("xb") as file:
                unsynced = 0
                for piece in pieces:
                    file.write(piece)
                    unsynced += len(piece)
                    if unsynced >= SYNC_BYTES:
                        file.flush()
                        os.fdatasync(file.fileno())
                        unsynced = 0
                    self.steps += 1
                file.flush()
                os.fsync(file.fileno())
            self._require_asker()
            os.rename(temporary, self.path / name)
        except BaseException:
            with suppress(OSError):  # what failed is what matters; it is removed with the next one
                temporary.unlink(missing_ok=True)
            raise
        sync_directory(self.path)

    def _require_asker(self) -> None:
        """Raises OSError when nobody waits any more: others may be at work here by now."""
        if self.left_behind:
            raise OSError(errno.ETIMEDOUT, "the drive hung")

    def probe(self) -> None:
        """Raises OSError when the drive does not take a file."""
        self._replace(PROBE, [])
        (self.path / PROBE).unlink()

    def make_folder(self) -> None:
        """Raises OSError."""
        self.require_drive()
        if not self.path.is_dir():
            self.path.mkdir(mode=0o700)  # it has the secrets of the store
            sync_directory(self.path.parent)


def _directory_seen(path: Path) -> tuple[int, int] | None:
    """Which directory is there, by device and inode; None when none is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
