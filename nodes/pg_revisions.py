"""The highest revision per placement group that a drive has seen, kept in `revisions/<profile>`.

Deletes carry a revision; one below the highest is refused, since whoever sent it decided on a
record that has changed. The file is an array that all processes of the drive share, 16 bytes per
group: the revision (8 bytes, big-endian) and its bitwise complement. An entry lies within one disk
sector, so a power cut leaves the old or the new one; anything else is damage and refuses deletes.
Its space is reserved when it is made, so that deletes work on a full disk.

A delete holds the lock shared, a raise holds it exclusively: when `show` has returned, no delete
with a lower revision is under way or comes later, in any process. The lock belongs to the open
file; processes must open it themselves, and threads of one process take turns with a mutex.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nodes.filesystem import Filesystem
from nodes.protocol import PG_MAX, DriveError, StalePgRevision

_ENTRY = struct.Struct(">QQ")
_COMPLEMENT = 2**64 - 1
REVISION_MAX = 2**63 - 1
REVISIONS = "revisions"


class PgRevisions:
    """Blocking; called from threads. Raises OSError beside what is named."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        self._mutex = threading.Lock()
        self._tables: dict[str, int] = {}

    def seen(self, profile: str, pg: int) -> int:
        """The highest revision, 0 for none. Raises DriveError when the entry is damaged."""
        with self._mutex:
            return self._read(self._table(profile), pg)

    def show(self, profile: str, pg: int, revision: int) -> None:
        """Keep a revision if it is higher; durable on return."""
        with self._mutex:
            table = self._table(profile)
            if self._read(table, pg) < revision:
                self._raise(table, pg, revision)

    @contextmanager
    def allowing(self, profile: str, pg: int, revision: int) -> Iterator[None]:
        """Hold off higher revisions during a delete with `revision`. Raises StalePgRevision."""
        with self._mutex:
            table = self._table(profile)
            if self._read(table, pg) < revision:
                self._raise(table, pg, revision)
            self._filesystem.lock(table, exclusive=False)
            try:
                seen = self._read(table, pg)
                if seen > revision:
                    raise StalePgRevision(seen)
                yield
            finally:
                self._filesystem.unlock(table)

    def close(self) -> None:
        with self._mutex:
            for table in self._tables.values():
                self._filesystem.close(table)
            self._tables.clear()

    def _table(self, profile: str) -> int:
        table = self._tables.get(profile)
        if table is None:
            self._filesystem.make_directory(REVISIONS)
            size = (PG_MAX + 1) * _ENTRY.size
            table = self._filesystem.open_table(f"{REVISIONS}/{profile}", size)
            for path in (REVISIONS, "."):
                directory = self._filesystem.open_directory(path)
                try:
                    self._filesystem.sync_directory(directory)
                finally:
                    self._filesystem.close(directory)
            self._tables[profile] = table
        return table

    def _read(self, table: int, pg: int) -> int:
        data = self._filesystem.read_at(table, pg * _ENTRY.size, _ENTRY.size)
        if not any(data):
            return 0
        if len(data) == _ENTRY.size:
            revision, complement = _ENTRY.unpack(data)
            if revision ^ complement == _COMPLEMENT:
                return int(revision)
        raise DriveError(f"the revision of placement group {pg} is damaged")

    def _raise(self, table: int, pg: int, revision: int) -> None:
        self._filesystem.lock(table, exclusive=True)
        try:
            if self._read(table, pg) < revision:
                entry = _ENTRY.pack(revision, revision ^ _COMPLEMENT)
                self._filesystem.write_at(table, pg * _ENTRY.size, entry)
                self._filesystem.sync_data(table)
        finally:
            self._filesystem.unlock(table)
