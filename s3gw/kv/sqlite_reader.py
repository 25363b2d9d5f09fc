"""The reading threads of the SQLite engine.

`PointReader` answers `get_many`. Python's sqlite3 gives up the interpreter's lock in every step of
a statement, and under load gets it back late, so the fewest steps win: all keys of a batch of
requests are looked up by one statement that returns one row, with the store's revision in it. One
statement is one transaction: a request queued after a commit returned sees it.

`ScanReader` answers scans, which take longer, and does not hold up the point reads.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path

from s3gw.kv import sqlite_schema
from s3gw.kv.interface import Compacted, Item, Key, Page, Reading
from s3gw.kv.sqlite_thread import Answer, Request, Worker

JOIN_KEYS_MAX = 32
"""SQLite joins at most 64 tables."""

_SCAN = """
SELECT key, {value}, revision, lease FROM kv WHERE key >= ? AND key < ? ORDER BY key LIMIT ?
"""
# What was not changed since, and the old values of what was: of all changes of a key after the
# revision, the first one has an old value that is not newer than the revision.
_SCAN_AT = """
SELECT key, {value}, revision, lease FROM kv
WHERE key >= ?1 AND key < ?2 AND revision <= ?4
UNION ALL
SELECT key, {old_value}, old_revision, old_lease FROM history INDEXED BY history_by_key
WHERE key >= ?1 AND key < ?2 AND revision > ?4 AND old_revision BETWEEN 1 AND ?4
ORDER BY key LIMIT ?3
"""


@cache
def _join(count: int) -> str:
    """One row: the revision, then value, revision and lease of each of `count` keys."""
    columns = "".join(f", k{n}.value, k{n}.revision, k{n}.lease" for n in range(count))
    joins = "".join(f" LEFT JOIN kv k{n} ON k{n}.key = ?" for n in range(count))
    return f"SELECT state.revision{columns} FROM state{joins}"  # noqa: S608 - only numbers


@cache
def _scan(*, keys_only: bool, pinned: bool) -> str:
    names = ("x''", "x''") if keys_only else ("value", "old_value")
    return (_SCAN_AT if pinned else _SCAN).format(value=names[0], old_value=names[1])


class GetRequest(Request):
    __slots__ = ("keys",)

    def __init__(self, loop: asyncio.AbstractEventLoop, keys: Sequence[Key]) -> None:
        super().__init__(loop)
        self.keys = keys


class ScanRequest(Request):
    __slots__ = ("end", "keys_only", "limit", "revision", "start")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        start: Key,
        end: Key,
        limit: int,
        revision: int | None,
        keys_only: bool,
    ) -> None:
        super().__init__(loop)
        self.start = start
        self.end = end
        self.limit = limit
        self.revision = revision
        self.keys_only = keys_only


class PointReader(Worker[GetRequest]):
    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        super().__init__(loop, "sqlite-points")
        self._connection = sqlite_schema.connect(directory, read_only=True)

    def serve(self, batch: list[GetRequest]) -> Sequence[Answer]:
        keys = [key for request in batch for key in request.keys]
        try:
            revision, items = self._read(keys)
        except sqlite3.Error as error:
            return sqlite_schema.unavailable(self._connection, error, batch)
        rest = iter(items)
        return [
            (request, Reading(list(islice(rest, len(request.keys))), revision)) for request in batch
        ]

    def _read(self, keys: Sequence[Key]) -> tuple[int, list[Item | None]]:
        if len(keys) <= JOIN_KEYS_MAX:
            return self._join(keys)
        self._connection.execute("BEGIN")
        items: list[Item | None] = []
        for start in range(0, len(keys), JOIN_KEYS_MAX):
            revision, some = self._join(keys[start : start + JOIN_KEYS_MAX])
            items += some
        self._connection.execute("COMMIT")
        return revision, items

    def _join(self, keys: Sequence[Key]) -> tuple[int, list[Item | None]]:
        row = self._connection.execute(_join(len(keys)), keys).fetchone()
        items: list[Item | None] = []
        column = 1
        for key in keys:
            revision = row[column + 1]
            items.append(
                None if revision is None else Item(key, row[column], revision, row[column + 2])
            )
            column += 3
        return row[0], items

    def ended(self) -> Sequence[Answer]:
        self._connection.close()
        return ()


class ScanReader(Worker[ScanRequest]):
    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        super().__init__(loop, "sqlite-scans")
        self._connection = sqlite_schema.connect(directory, read_only=True)

    def serve(self, batch: list[ScanRequest]) -> Sequence[Answer]:
        if not batch:
            return ()
        try:
            self._connection.execute("BEGIN")
            answers = [(request, self._page(request)) for request in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            return sqlite_schema.unavailable(self._connection, error, batch)
        return answers

    def _page(self, request: ScanRequest) -> Page | Compacted:
        execute = self._connection.execute
        revision, compacted = execute("SELECT revision, compacted FROM state").fetchone()
        bounds = [request.start, request.end, request.limit + 1]
        if request.revision is not None:
            if not compacted <= request.revision <= revision:
                return Compacted(f"revision {request.revision}")
            revision = request.revision
            bounds.append(revision)
        sql = _scan(keys_only=request.keys_only, pinned=request.revision is not None)
        rows = execute(sql, bounds).fetchall()
        more = len(rows) > request.limit
        if more:
            rows.pop()
        return Page([Item(*row) for row in rows], more, revision)

    def ended(self) -> Sequence[Answer]:
        self._connection.close()
        return ()
