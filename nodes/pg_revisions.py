"""The highest revision per placement group that a drive has seen, kept in `revisions/<profile>`.

Deletes carry a revision; one below the highest is refused, since whoever sent it decided on a
record that has changed. The file is an array that all processes of the drive share, 16 bytes per
group: the revision (8 bytes, big-endian) and its bitwise complement. An entry lies within one disk
sector, so a power cut leaves the old or the new one; anything else is damage. Its space is reserved
when it is made, so that deletes work on a full disk.

**Damage.** What a damaged entry said is not known, and the revision that is shown next, or that a
delete carries, is no bound of it: whoever sends it may have read the record before it was changed.
So the entry is *sealed*: it becomes a multiple of SEAL (2**40) above all that it can have said.
That is known from the *ceiling* at the end of the table, in three copies, each in a sector of its
own: a multiple of SEAL, raised and synced before an entry is written that is SEAL above it or more.
No entry was ever SEAL above the ceiling, therefore

    the seal, next multiple of SEAL above the ceiling and above what is sent  >=  what was lost

and deletes with at most what was lost are refused. Damage to all copies of the ceiling is damage to
every bound: such an entry is sealed for good, with the highest revision that there is.

A seal refuses deletes with the revision that the group's record has, too. Who is refused by one
raises the record above it (s3gw.workers.placing): deletes decided on before stay refused, and the
group is healed. Only a seal is a multiple of SEAL: records begin at 1 and grow by one with each
change, by 2**32 with each rescue (s3gw.rescue), and to one more than a seal.

A delete holds the lock shared, a raise holds it exclusively: when `show` has returned, no delete
with a lower revision is under way or comes later, in any process. The lock belongs to the open
file; processes must open it themselves, and threads of one process take turns with a mutex.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nodes.filesystem import Filesystem
from nodes.protocol import PG_MAX, DriveError, StalePgRevision

log = logging.getLogger(__name__)

_ENTRY = struct.Struct(">QQ")
_COMPLEMENT = 2**64 - 1
REVISION_MAX = 2**63 - 1
SEAL = 2**40
REVISIONS = "revisions"
# Behind the entries.
CEILING_COPIES = 3
CEILING_MAX = REVISION_MAX // SEAL * SEAL
SECTOR_BYTES = 4096
_CEILING_AT = (PG_MAX + 1) * _ENTRY.size
TABLE_BYTES = _CEILING_AT + CEILING_COPIES * SECTOR_BYTES


def is_seal(revision: int) -> bool:
    """Whether a revision that a drive has seen is a seal over a damaged entry, which the record of
    the group may be raised above."""
    return revision > 0 and not revision % SEAL


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

    def damaged(self) -> int:
        """How many entries are damaged, or sealed over damage, and not yet healed."""
        files = [f"{REVISIONS}/{name}" for name, _ in self._filesystem.entries(REVISIONS)]
        return sum(len(self._damaged_in(file)) for file in files)

    def _damaged_in(self, file: str) -> set[int]:
        """The groups of such entries."""
        found = self._suspect(file)
        return found & self._suspect(file) if found else found  # one may be written this moment

    def _suspect(self, file: str) -> set[int]:
        try:
            data = self._filesystem.read(file, 0, _CEILING_AT).rstrip(b"\0")
        except FileNotFoundError:
            return set()  # the drive was emptied this moment
        data += bytes(-len(data) % _ENTRY.size)
        return {
            group
            for group, (number, complement) in enumerate(_ENTRY.iter_unpack(data))
            if (number or complement)
            and (number ^ complement != _COMPLEMENT or is_seal(number) or number == REVISION_MAX)
        }

    def close(self) -> None:
        with self._mutex:
            for table in self._tables.values():
                self._filesystem.close(table)
            self._tables.clear()

    def _table(self, profile: str) -> int:
        table = self._tables.get(profile)
        if table is None:
            self._filesystem.make_directory(REVISIONS)
            table = self._filesystem.open_table(f"{REVISIONS}/{profile}", TABLE_BYTES)
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
        return self._number(table, pg * _ENTRY.size)

    def _number(self, table: int, offset: int) -> int | None:
        data = self._filesystem.read_at(table, offset, _ENTRY.size)
        if len(data) < _ENTRY.size:
            return None
        if not any(data):
            return 0
        number, complement = _ENTRY.unpack(data)
        return int(number) if number ^ complement == _COMPLEMENT else None

    def _is_below(self, table: int, pg: int, revision: int) -> bool:
        """Whether the entry is to be raised to a revision, or is damaged."""
        seen = self._entry(table, pg)
        return seen is None or seen < revision

    def _raise(self, table: int, pg: int, revision: int) -> None:
        self._filesystem.lock(table, exclusive=True)
        try:
            seen = self._entry(table, pg)
            if seen is None:
                revision = self._seal(table, revision)
                log.error(
                    "the revision of placement group %d was damaged: sealed at %d, which refuses "
                    "deletes until the group's record is raised above it",
                    pg,
                    revision,
                )
            if seen is None or seen < revision:
                self._raise_ceiling(table, revision // SEAL * SEAL)
                self._write(table, [pg * _ENTRY.size], revision)
        finally:
            self._filesystem.unlock(table)

    def _seal(self, table: int, revision: int) -> int:
        """What a damaged entry becomes, when `revision` is sent."""
        whole = [ceiling for ceiling in self._ceilings(table) if ceiling is not None]
        if not whole:
            return REVISION_MAX
        return min(REVISION_MAX, max(*whole, revision // SEAL * SEAL) + SEAL)

    def _ceilings(self, table: int) -> list[int | None]:
        """The copies of the ceiling, None where one is damaged."""
        return [self._number(table, offset) for offset in _CEILINGS]

    def _raise_ceiling(self, table: int, ceiling: int) -> None:
        """See to it that all copies say at least so much; durable on return."""
        copies = self._ceilings(table)
        whole = [copy for copy in copies if copy is not None] or [CEILING_MAX]
        if len(whole) < len(copies) or min(whole) < ceiling:
            self._write(table, _CEILINGS, max(*whole, ceiling))

    def _write(self, table: int, offsets: Sequence[int], number: int) -> None:
        for offset in offsets:
            self._filesystem.write_at(table, offset, _ENTRY.pack(number, number ^ _COMPLEMENT))
        self._filesystem.sync_data(table)


_CEILINGS = tuple(_CEILING_AT + copy * SECTOR_BYTES for copy in range(CEILING_COPIES))
