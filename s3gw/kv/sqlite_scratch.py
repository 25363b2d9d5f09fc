"""An ordered map on disk for work that must not depend on memory: sorted bytes to bytes.

Not an engine: one process, one thread, no durability. The file has no name and goes with the
object. Writes are collected in one transaction that is never meant to survive.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

CACHE_KIB = 64 * 1024
PAGE_ROWS = 1000


class Scratch:
    """The map. SQLite spills it to its temporary directory (SQLITE_TMPDIR, else TMPDIR)."""

    def __init__(self) -> None:
        # The empty name is SQLite's private temporary database: on disk, deleted when closed.
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(
            "CREATE TABLE map (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
        )

    def put(self, key: bytes, value: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO map VALUES (?, ?)", (key, value))

    def delete(self, key: bytes) -> None:
        self._connection.execute("DELETE FROM map WHERE key = ?", (key,))

    def get(self, key: bytes) -> bytes | None:
        row = self._connection.execute("SELECT value FROM map WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, end) with their values, in order; the map may be changed meanwhile."""
        position = start
        while True:
            rows = self._connection.execute(
                "SELECT key, value FROM map WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
                (position, end, PAGE_ROWS),
            ).fetchall()
            for key, value in rows:
                yield bytes(key), bytes(value)
            if len(rows) < PAGE_ROWS:
                return
            position = bytes(rows[-1][0]) + b"\x00"

    def first(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The first key of a range."""
        row = self._connection.execute(
            "SELECT key, value FROM map WHERE key >= ? AND key < ? ORDER BY key LIMIT 1",
            (start, end),
        ).fetchone()
        return None if row is None else (bytes(row[0]), bytes(row[1]))

    def close(self) -> None:
        self._connection.close()
