"""The writer thread of the SQLite engine: group commit.

All requests that are queued when the thread is free become one group: one transaction, one append
to the journal, one sync. Each commit has its own revision and a savepoint, so that a group is no
more than its commits one after another. The order of a group is what makes it safe:

1. flock on `lock` in the database's folder: one writer of all processes. It also orders the
   journal. (SQLite's own wait for a lock sleeps and polls, up to 100 ms.)
2. BEGIN IMMEDIATE; make journal and database agree (journal.py); end the leases that are due.
3. The requests, each in a savepoint.
4. Append to the journal and sync it. From here on the group may survive a crash.
5. COMMIT, which syncs the database; unlock; answer.

An error before step 4 means that nothing was written, one after it that the outcome is unknown:
the next writer finds the group in the journal and applies it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from s3gw.files import sync_directory
from s3gw.kv import sqlite_schema
from s3gw.kv.interface import (
    Conflict,
    EngineError,
    Guard,
    LeaseLost,
    NoSpace,
    Put,
    Unavailable,
    Write,
)
from s3gw.kv.journal import Journal, JournalError, JournalFull, JournalLost, JournalShort
from s3gw.kv.journal_format import Change, Commit, Position, Row
from s3gw.kv.sqlite_database import Database, State
from s3gw.kv.sqlite_thread import Answer, Request, Worker

log = logging.getLogger(__name__)

GROUP_BYTES_MAX = 8 * 1024 * 1024
LEASE_BITS = 62
SWEEP_SECONDS = 1.0
TICKS_PER_WINDOW = 60
TRIM_REVISIONS_MIN = 64
TRIM_REVISIONS_IDLE = 4096


class Group:
    """What the requests of one transaction share."""

    def __init__(self, database: Database, state: State, now: float, boot: str) -> None:
        self.database = database
        self.state = state
        self.now = now
        self.boot = boot
        self.commits: list[Commit] = []

    def commit(self, changes: list[Change]) -> int:
        """Apply changes at the next revision."""
        revision = self.state.revision + 1
        self.database.write(revision, changes)
        self.state.revision = revision
        self.commits.append((revision, changes))
        return revision

    def end_lease(self, lease: int) -> None:
        """Remove a lease and its keys."""
        self.database.revoke(lease)
        keys = self.database.keys_of_lease(lease)
        if keys:
            self.commit([(key, None, 0) for key in keys])


class WriteRequest(Request, ABC):
    """Something for the writer. `run` is undone as a whole when it raises EngineError."""

    __slots__ = ()

    @abstractmethod
    def run(self, group: Group) -> int | None:
        """Apply it to the group; the revision, if it makes one."""


class CommitRequest(WriteRequest):
    __slots__ = ("guards", "writes")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, guards: Sequence[Guard], writes: Sequence[Write]
    ) -> None:
        super().__init__(loop)
        self.guards = guards
        self.writes = writes

    def run(self, group: Group) -> int:
        failed = group.database.first_failed(self.guards)
        if failed is not None:
            raise Conflict(failed)
        changes: list[Change] = []
        for write in self.writes:
            if type(write) is Put:
                if write.lease and group.database.lease_ttl(write.lease) is None:
                    raise LeaseLost(f"lease {write.lease}")
                changes.append((write.key, write.value, write.lease))
            else:
                changes.append((write.key, None, 0))
        return group.commit(changes)


class GrantRequest(WriteRequest):
    __slots__ = ("ttl_seconds",)

    def __init__(self, loop: asyncio.AbstractEventLoop, ttl_seconds: int) -> None:
        super().__init__(loop)
        self.ttl_seconds = ttl_seconds

    def run(self, group: Group) -> int:
        lease = secrets.randbits(LEASE_BITS) or 1
        group.database.grant(lease, self.ttl_seconds, group.now + self.ttl_seconds, group.boot)
        return lease


class RenewRequest(WriteRequest):
    __slots__ = ("lease",)

    def __init__(self, loop: asyncio.AbstractEventLoop, lease: int) -> None:
        super().__init__(loop)
        self.lease = lease

    def run(self, group: Group) -> None:
        ttl_seconds = group.database.lease_ttl(self.lease)
        if ttl_seconds is None:
            raise LeaseLost(f"lease {self.lease}")
        group.database.renew(self.lease, group.now + ttl_seconds)


class RevokeRequest(RenewRequest):
    __slots__ = ()

    def run(self, group: Group) -> None:
        group.end_lease(self.lease)


class CompactRequest(WriteRequest):
    __slots__ = ("revision",)

    def __init__(self, loop: asyncio.AbstractEventLoop, revision: int) -> None:
        super().__init__(loop)
        self.revision = revision

    def run(self, group: Group) -> None:
        state = group.state
        state.compacted = max(state.compacted, min(self.revision, state.revision))


class Writer(Worker[WriteRequest]):
    """One per engine. `clock` gives seconds since boot, `boot` names the boot; `committed`, when
    set, is called in the thread with the commits of each group."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Path,
        journal: Journal | None,
        *,
        clock: Callable[[], float],
        boot: str,
        history_seconds: float,
    ) -> None:
        super().__init__(loop, "sqlite-writer")
        self._directory = directory
        self._journal = journal
        self._clock = clock
        self._boot = boot
        self._history_seconds = history_seconds
        self.committed: Callable[[Sequence[Commit]], None] = _nobody_watches
        self._may_be_applied = False
        self._recovered = True
        self._snapshots: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock_fd = self._snapshot_lock_fd = -1

    def open(self) -> None:
        """Make or recover the database, before the thread is started. Raises EngineError, and
        JournalLost when the drives do not hold what was acknowledged."""
        if not self._directory.is_dir():
            # It has the secrets of the store. Another process may make it at the same moment.
            self._directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            sync_directory(self._directory.parent)
        self._lock_fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._snapshot_lock_fd = os.open(
            self._directory / "snapshot.lock", os.O_RDWR | os.O_CREAT, 0o600
        )
        with self._locked():
            self._connection = sqlite_schema.connect(self._directory, read_only=False)
            sqlite_schema.create(self._connection)
            self._database = Database(self._connection)
            self._settle()
            try:
                self._transact([])
            except (sqlite3.Error, OSError, JournalError) as error:
                # Reads are right already; leases are ended by the next group that succeeds.
                log.warning("the metadata can be read, but not written now: %s", error)

    def _settle(self) -> None:
        """Recover the database from the journal. With too few drives to write it is still right
        to read when it has all of the journal."""
        database = self._database
        database.begin()
        try:
            self._settled_state()
        except JournalShort as short:
            if short.settled is None:
                raise Unavailable(str(short)) from short
            self._keep_settled(short.settled)
        finally:
            database.rollback()

    # The thread

    def idle_seconds(self) -> float:
        return SWEEP_SECONDS

    def serve(self, batch: list[WriteRequest]) -> Sequence[Answer]:
        if not batch and not self._something_is_due():
            return ()
        answers: list[Answer] = []
        for group in _groups(batch):
            self._may_be_applied = False
            try:
                with self._locked():
                    answers += self._transact(group)
            except (sqlite3.Error, OSError, JournalError) as error:
                log.warning("a group of %d requests failed: %s", len(group), error)
                answers += [(request, self._translate(error)) for request in group]
        return answers

    def ended(self) -> Sequence[Answer]:
        if self._snapshots is not None and self._journal is not None:
            self._journal.interrupt()
            self._snapshots.join()
        self.release()
        return ()

    def hanging(self) -> list[str]:
        """The disks that hang, if this thread hangs."""
        drives = self._journal.hanging() if self._journal is not None else []
        return [str(path) for path in drives or [self._directory]]

    def release(self) -> None:
        """Close what `open` opened, also when it failed midway."""
        if self._journal is not None:
            self._journal.close()
        if self._connection is not None:
            self._connection.close()
        for fd in (self._lock_fd, self._snapshot_lock_fd):
            if fd >= 0:
                os.close(fd)

    def _something_is_due(self) -> bool:
        """Whether there are leases to end or history to remove, without the writers' lock."""
        try:
            state = self._database.state()
            due = self._database.due_leases(self._clock(), self._boot)
        except sqlite3.Error as error:
            log.warning("the metadata database cannot be read: %s", error)
            return False
        return bool(due) or state.trimmed < state.compacted

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _translate(self, error: Exception) -> EngineError:
        if self._may_be_applied and not isinstance(error, JournalFull):
            return Unavailable(f"outcome unknown: {error}")
        if isinstance(error, JournalFull):
            return NoSpace(str(error))
        if isinstance(error, sqlite3.Error | OSError):
            return sqlite_schema.translate(error)
        return Unavailable(str(error))

    # A group

    def _transact(self, requests: Sequence[WriteRequest]) -> list[Answer]:
        database = self._database
        rotated = None
        database.begin()
        try:
            state = self._settled_state()
            written = database.rows_written
            before = replace(state)
            group = Group(database, state, self._clock(), self._boot)
            self._expire(group)
            answers = [self._served(request, group) for request in requests]
            self._keep_history(group, idle=not requests)
            if self._journal is not None and group.commits:
                rotated = self._append(self._journal, group)
            if state != before or database.rows_written != written:
                database.save(state)
                database.commit()
        except BaseException:
            self._unlock_snapshots()
            raise
        finally:
            database.rollback()
        self._recovered = False
        if rotated is not None:
            self._start_snapshot(rotated)
        self.committed(group.commits)
        return answers

    def _settled_state(self) -> State:
        """The state after journal and database agree, which is committed before anything else:
        else a database that cannot grow would let the journal run ahead of it with each group."""
        state = self._database.state()
        if self._journal is None:
            if state.position is not None:
                raise JournalLost("this metadata database has a journal: name its drives")
            return state
        position = self._journal.begin(state.position, state.revision, self._database)
        if position != state.position:
            self._recovered = True
            state = self._keep_settled(position)
            self._database.begin()
        return state

    def _keep_settled(self, position: Position) -> State:
        state = self._database.state()
        state.position = position
        state.revision = position.revision
        self._database.save(state)
        self._database.commit()
        return state

    def _expire(self, group: Group) -> None:
        for lease in group.database.due_leases(group.now, group.boot):
            group.end_lease(lease)
        orphans = group.database.orphans() if self._recovered else []
        if orphans:
            group.commit([(key, None, 0) for key in orphans])

    def _served(self, request: WriteRequest, group: Group) -> Answer:
        database = group.database
        database.savepoint()
        try:
            answer = request.run(group)
        except EngineError as error:
            database.undo()
            return request, error
        database.keep()
        return request, answer

    def _keep_history(self, group: Group, *, idle: bool) -> None:
        state, wall = group.state, time.time()
        if abs(wall - state.ticked) >= self._history_seconds / TICKS_PER_WINDOW:
            group.database.tick(state, wall, self._history_seconds)
        done = TRIM_REVISIONS_IDLE if idle else TRIM_REVISIONS_MIN + 2 * len(group.commits)
        group.database.trim(state, done)

    def _append(self, journal: Journal, group: Group) -> Position | None:
        """Append the group; the start of the next segment when one was begun."""
        assert group.state.position is not None
        self._may_be_applied = True
        position = journal.append(group.state.position, group.commits, group.database)
        rotated = None
        if journal.rotation_due(position) and self._lock_snapshots():
            position = rotated = journal.rotate(position, group.database)
        group.state.position = position
        return rotated

    # Snapshots

    def _snapshot_runs(self) -> bool:
        return self._snapshots is not None and self._snapshots.is_alive()

    def _lock_snapshots(self) -> bool:
        """Whether no process writes a snapshot; if so this one may."""
        if self._snapshot_runs():
            return False
        try:
            fcntl.flock(self._snapshot_lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock_snapshots(self) -> None:
        if not self._snapshot_runs():
            fcntl.flock(self._snapshot_lock_fd, fcntl.LOCK_UN)

    def _start_snapshot(self, start: Position) -> None:
        """Pin a reader's view of just this revision, while the writers' lock is held, and let a
        thread write it to the journal drives."""
        try:
            connection = sqlite_schema.connect(self._directory, read_only=True)
            connection.execute("BEGIN")
            connection.execute("SELECT revision FROM state").fetchone()
        except sqlite3.Error as error:
            log.warning("no snapshot at revision %d: %s", start.revision, error)
            self._unlock_snapshots()
            return
        self._snapshots = threading.Thread(
            target=self._write_snapshot,
            args=(connection, start),
            name="journal-snapshot",
            daemon=True,
        )
        self._snapshots.start()

    def _write_snapshot(self, connection: sqlite3.Connection, start: Position) -> None:
        assert self._journal is not None
        try:
            self._journal.snapshot(start, self._until_closed(Database(connection).rows()))
        except (OSError, sqlite3.Error) as error:
            log.warning("no snapshot at revision %d, the journal grows: %s", start.revision, error)
        finally:
            connection.close()
            fcntl.flock(self._snapshot_lock_fd, fcntl.LOCK_UN)

    def _until_closed(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if self._closing:
                raise InterruptedError("the engine is being closed")
            yield row


def _nobody_watches(commits: Sequence[Commit]) -> None:
    """Until a watcher is there."""


def _groups(batch: list[WriteRequest]) -> Iterator[list[WriteRequest]]:
    """Cut a batch so that no group holds much more than GROUP_BYTES_MAX."""
    group: list[WriteRequest] = []
    size = 0
    for request in batch:
        group.append(request)
        if isinstance(request, CommitRequest):
            size += sum(len(w.value) for w in request.writes if type(w) is Put)
        if size > GROUP_BYTES_MAX:
            yield group
            group, size = [], 0
    if group or not batch:
        yield group
