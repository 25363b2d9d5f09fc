"""The highest revision per placement group that a drive has seen, kept in `revisions/<profile>`.

Deletes carry a revision; one below the highest is refused, since whoever sent it decided on a
record that has changed. The file is an array that all processes of the drive share, 16 bytes per
group: the revision (8 bytes, big-endian) and its bitwise complement. An entry lies within one disk
sector, so a power cut leaves the old or the new one; anything else is damage. Its space is reserved
when it is made, so that deletes work on a full disk.

**Damage.** What a damaged entry said is not known, and the revision r that is shown next, or that a
delete carries, is no bound of it: whoever sends r may have read the record before it was changed.
So the entry is sealed: it becomes the next multiple of SEAL (2**60) above r. No older delete is
allowed by that:

* the revisions of a group's record begin at 1 and grow by one with each change, and by 2**32 with
  each rescue (s3gw.rescue), beginning above all that any drive has seen. So only a rescue that
  finds a sealed entry takes them over a multiple of SEAL;
* a rescue is made while nothing of the store runs, so that what is sent afterwards carries a
  revision from after it. Hence r and the lost one, v, lie between the same two multiples of SEAL,
  or v lies below those of r: v is below the seal in either case;
* a delete that carries at most v is thus below the seal, and refused.

Later shows succeed, so moves of the group end. Its deletes on this drive are refused until the
drive is replaced, or a rescue is made: shards stay that could go, in one group. A drive whose table
was damaged is better replaced.

A delete holds the lock shared, a raise holds it exclusively: when `show` has returned, no delete
with a lower revision is under way or comes later, in any process. The lock belongs to the open
file; processes must open it themselves, and threads of one process take turns with a mutex.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nodes.filesystem import Filesystem
from nodes.protocol import PG_MAX, DriveError, StalePgRevision

log = logging.getLogger(__name__)

_ENTRY = struct.Struct(">QQ")
_COMPLEMENT = 2**64 - 1
REVISION_MAX = 2**63 - 1
SEAL = 2**60
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
        """Keep a revision if it is higher, or seal a damaged entry; durable on return."""
        with self._mutex:
            table = self._table(profile)
            if self._is_below(table, pg, revision):
                self._raise(table, pg, revision)

    @contextmanager
    def allowing(self, profile: str, pg: int, revision: int) -> Iterator[None]:
        """Hold off higher revisions during a delete with `revision`. Raises StalePgRevision."""
        with self._mutex:
            table = self._table(profile)
            if self._is_below(table, pg, revision):
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
        revision = self._entry(table, pg)
        if revision is None:
            raise DriveError(f"the revision of placement group {pg} is damaged")
        return revision

    def _entry(self, table: int, pg: int) -> int | None:
        """The revision in the table, None when it is damaged."""
        data = self._filesystem.read_at(table, pg * _ENTRY.size, _ENTRY.size)
        if not any(data):
            return 0
        if len(data) == _ENTRY.size:
            revision, complement = _ENTRY.unpack(data)
            if revision ^ complement == _COMPLEMENT:
                return int(revision)
        return None

    def _is_below(self, table: int, pg: int, revision: int) -> bool:
        """Whether the entry is to be raised to a revision, or is damaged."""
        seen = self._entry(table, pg)
        return seen is None or seen < revision

    def _raise(self, table: int, pg: int, revision: int) -> None:
        self._filesystem.lock(table, exclusive=True)
        try:
            seen = self._entry(table, pg)
            if seen is None:
                revision = min(REVISION_MAX, (revision // SEAL + 1) * SEAL)
                log.error(
                    "the revision of placement group %d was damaged: "
                    "this drive deletes nothing more of the group",
                    pg,
                )
            if seen is None or seen < revision:
                entry = _ENTRY.pack(revision, revision ^ _COMPLEMENT)
                self._filesystem.write_at(table, pg * _ENTRY.size, entry)
                self._filesystem.sync_data(table)
        finally:
            self._filesystem.unlock(table)
