"""The SQLite database: its tables, its connections, and how its errors are translated.

`kv` is the present, `history` what each key was before each change, so that the past can be read
backwards from the present: a key at revision R is the old value of its first change after R, or,
without one, its row in `kv`. `history` is ordered by revision (watches, and appending is cheap),
its index by key (scans at a revision).
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from s3gw.kv.interface import EngineError, NoSpace, Unavailable
from s3gw.kv.sqlite_thread import Answer, Request

FORMAT = 1
FILE = "s3gw.sqlite"
BUSY_SECONDS_MAX = 30
CACHE_KIB = 16 * 1024
CHECKPOINT_PAGES = 2_000
WAL_BYTES_KEPT = 64 * 1024 * 1024
CACHED_STATEMENTS = 256

SCHEMA = """
CREATE TABLE kv (
    key BLOB PRIMARY KEY,
    revision INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    value BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX kv_by_lease ON kv (lease) WHERE lease != 0;

-- old_revision 0: the key was absent before.
CREATE TABLE history (
    revision INTEGER NOT NULL,
    key BLOB NOT NULL,
    old_revision INTEGER NOT NULL,
    old_lease INTEGER NOT NULL,
    old_value BLOB NOT NULL,
    PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE INDEX history_by_key ON history (key, revision);

-- deadline: seconds of the boot clock of the boot that `boot` names.
CREATE TABLE leases (
    id INTEGER PRIMARY KEY,
    ttl_seconds INTEGER NOT NULL,
    deadline REAL NOT NULL,
    boot TEXT NOT NULL
);

-- When revisions were reached (wall clock), coarsely: what history may be dropped.
CREATE TABLE ticks (
    revision INTEGER PRIMARY KEY,
    at REAL NOT NULL
);

-- One row. History up to `compacted` is not served any more, up to `trimmed` it is gone. The
-- journal's position (journal.py) that belongs to `revision`; NULL without a journal.
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    trimmed INTEGER NOT NULL,
    ticked REAL NOT NULL,
    journal_chain BLOB,
    journal_set INTEGER,
    journal_segment INTEGER,
    journal_offset INTEGER,
    journal_checksum BLOB
);
INSERT INTO state VALUES (1, 1, 0, 0, 0, NULL, NULL, NULL, NULL, NULL);
"""


def connect(directory: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection for one thread at a time. A reader cannot write, and sees at each transaction
    all that was committed before it began."""
    connection = sqlite3.connect(
        directory / FILE,
        timeout=BUSY_SECONDS_MAX,
        isolation_level=None,
        cached_statements=CACHED_STATEMENTS,
        check_same_thread=False,
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


def value_of(directory: Path, key: bytes) -> bytes | None:
    """The value of one key of a database that may be in use; None without the key, or without a
    database. Raises EngineError."""
    if not (directory / FILE).exists():
        return None
    try:
        connection = connect(directory, read_only=True)
        try:
            row = connection.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise translate(error) from error
    return bytes(row[0]) if row is not None else None


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty database; the caller holds the writers' lock."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT"
        )
    elif found != FORMAT:
        raise Unavailable(f"the metadata database has format {found}, this version knows {FORMAT}")


def translate(error: sqlite3.Error | OSError) -> EngineError:
    """The engine's error for one of SQLite or of the file system, when nothing was written."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return NoSpace(str(error))
        return Unavailable(str(error))
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
        return NoSpace(str(error))
    return Unavailable(str(error))


def unavailable(
    connection: sqlite3.Connection, error: sqlite3.Error, requests: Sequence[Request]
) -> list[Answer]:
    """The answers to a batch of reads that failed; ends the transaction if one is open."""
    if connection.in_transaction:
        connection.rollback()
    return [(request, Unavailable(str(error))) for request in requests]
