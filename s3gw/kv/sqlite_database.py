"""What a writer does to the database, inside a transaction that its caller begins and ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from s3gw.kv.interface import At, Empty, Guard, Key
from s3gw.kv.journal_format import Change, Commit, Position, Row

# The old row, or zeros for an absent one, goes to the history.
_REMEMBER_PUT = """
INSERT INTO history
SELECT ?1, ?2, ifnull(kv.revision, 0), ifnull(kv.lease, 0), ifnull(kv.value, x'')
FROM (SELECT 1) LEFT JOIN kv ON kv.key = ?2
"""
_REMEMBER_DELETE = """
INSERT INTO history SELECT ?1, key, revision, lease, value FROM kv WHERE key = ?2
"""
_PUT = "INSERT OR REPLACE INTO kv (key, revision, lease, value) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM kv WHERE key = ?"
_AT = "SELECT revision FROM kv WHERE key = ?"
_EMPTY = "SELECT 1 FROM kv WHERE key >= ? AND key < ? LIMIT 1"
_NONE_NEWER = "SELECT 1 FROM kv WHERE key >= ? AND key < ? AND revision > ? LIMIT 1"
_STATE = """
SELECT revision, compacted, trimmed, ticked,
       journal_chain, journal_set, journal_segment, journal_offset, journal_checksum
FROM state
"""
_SAVE = """
UPDATE state SET revision = ?, compacted = ?, trimmed = ?, ticked = ?, journal_chain = ?,
                 journal_set = ?, journal_segment = ?, journal_offset = ?, journal_checksum = ?
"""


@dataclass(slots=True)
class State:
    """The row of `state`. `position` is None without a journal."""

    revision: int
    compacted: int
    trimmed: int
    ticked: float
    position: Position | None


class Database:
    """The writer's side. Satisfies `s3gw.kv.journal.Database`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._many = connection.executemany

    # Transactions

    def begin(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    @property
    def rows_written(self) -> int:
        """Grows with every row that is inserted, changed or removed."""
        return self._connection.total_changes

    def savepoint(self) -> None:
        self._execute("SAVEPOINT request")

    def keep(self) -> None:
        self._execute("RELEASE request")

    def undo(self) -> None:
        self._execute("ROLLBACK TO request")
        self._execute("RELEASE request")

    def state(self) -> State:
        revision, compacted, trimmed, ticked, chain, *journal = self._execute(_STATE).fetchone()
        position = None
        if chain is not None:
            number, segment, offset, checksum = journal
            position = Position(chain, number, segment, offset, revision, checksum)
        return State(revision, compacted, trimmed, ticked, position)

    def save(self, state: State) -> None:
        at = state.position
        journal = (
            (at.chain, at.set_number, at.segment, at.offset, at.checksum) if at else (None,) * 5
        )
        self._execute(
            _SAVE, (state.revision, state.compacted, state.trimmed, state.ticked, *journal)
        )

    # Commits

    def first_failed(self, guards: Sequence[Guard]) -> Guard | None:
        for guard in guards:
            if type(guard) is At:
                row = self._execute(_AT, (guard.key,)).fetchone()
                holds = (row[0] if row else 0) == guard.revision
            elif type(guard) is Empty:
                holds = self._execute(_EMPTY, (guard.start, guard.end)).fetchone() is None
            else:
                assert not isinstance(guard, At | Empty)
                bounds = (guard.start, guard.end, guard.revision)
                holds = self._execute(_NONE_NEWER, bounds).fetchone() is None
            if not holds:
                return guard
        return None

    def write(self, revision: int, changes: Sequence[Change]) -> None:
        """Do the changes and remember what they replace."""
        puts, old_puts, deletes, old_deletes = [], [], [], []
        for key, value, lease in changes:
            if value is None:
                deletes.append((key,))
                old_deletes.append((revision, key))
            else:
                puts.append((key, revision, lease, value))
                old_puts.append((revision, key))
        if puts:
            self._many(_REMEMBER_PUT, old_puts)
            self._many(_PUT, puts)
        if deletes:
            self._many(_REMEMBER_DELETE, old_deletes)
            self._many(_DELETE, deletes)

    # The journal's needs

    def rows(self) -> Iterator[Row]:
        return iter(self._execute("SELECT key, value, revision, lease FROM kv ORDER BY key"))

    def apply(self, commits: Iterable[Commit]) -> None:
        for revision, changes in commits:
            self.write(revision, changes)

    def replace(self, rows: Iterable[Row], revision: int) -> None:
        """Start anew from a snapshot: no history, no leases. What hangs on a lease that is gone is
        removed by the next group, see `orphans`."""
        for table in ("kv", "history", "leases", "ticks"):
            self._execute(f"DELETE FROM {table}")  # noqa: S608 - the names are above
        self._many("INSERT INTO kv (key, value, revision, lease) VALUES (?, ?, ?, ?)", rows)
        self._execute("UPDATE state SET compacted = ?, trimmed = ?", (revision, revision))

    # Leases

    def grant(self, lease: int, ttl_seconds: int, deadline: float, boot: str) -> None:
        row = (lease, ttl_seconds, deadline, boot)
        self._execute(
            "INSERT INTO leases (id, ttl_seconds, deadline, boot) VALUES (?, ?, ?, ?)", row
        )

    def lease_ttl(self, lease: int) -> int | None:
        row = self._execute("SELECT ttl_seconds FROM leases WHERE id = ?", (lease,)).fetchone()
        return int(row[0]) if row else None

    def renew(self, lease: int, deadline: float) -> None:
        self._execute("UPDATE leases SET deadline = ? WHERE id = ?", (deadline, lease))

    def revoke(self, lease: int) -> None:
        self._execute("DELETE FROM leases WHERE id = ?", (lease,))

    def due_leases(self, now: float, boot: str) -> list[int]:
        """The leases whose time is over, or that an earlier boot of the machine granted."""
        sql = "SELECT id FROM leases WHERE deadline <= ? OR boot != ?"
        return [int(row[0]) for row in self._execute(sql, (now, boot))]

    def keys_of_lease(self, lease: int) -> list[Key]:
        sql = "SELECT key FROM kv WHERE lease = ? AND lease != 0 ORDER BY key"
        return [row[0] for row in self._execute(sql, (lease,))]

    def orphans(self) -> list[Key]:
        """The keys whose lease is gone, which only a rebuilt database has."""
        sql = "SELECT key FROM kv WHERE lease != 0 AND lease NOT IN (SELECT id FROM leases)"
        return [row[0] for row in self._execute(sql)]

    # History

    def tick(self, state: State, now: float, window_seconds: float) -> None:
        """Remember when this revision was reached; compact to what is older than the window."""
        state.ticked = now
        self._execute("INSERT OR REPLACE INTO ticks VALUES (?, ?)", (state.revision, now))
        sql = "SELECT max(revision) FROM ticks WHERE at <= ?"
        (revision,) = self._execute(sql, (now - window_seconds,)).fetchone()
        if revision is not None:
            state.compacted = max(state.compacted, revision)
            self._execute("DELETE FROM ticks WHERE revision <= ?", (revision,))

    def trim(self, state: State, revisions_max: int) -> None:
        """Remove history of at most so many revisions that is not served any more."""
        if state.trimmed < state.compacted:
            state.trimmed = min(state.compacted, state.trimmed + revisions_max)
            self._execute("DELETE FROM history WHERE revision <= ?", (state.trimmed,))
