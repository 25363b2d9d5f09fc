"""The watching thread of the SQLite engine.

A watch asks for its next events behind a place in the history, and gets them as soon as there are
any; between two questions nothing can be lost, and nothing piles up for a slow watcher. While
somebody waits the thread looks every `POLL_SECONDS` whether any process has committed (PRAGMA
data_version, some microseconds); a commit of this process under a watched prefix wakes it at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from s3gw.kv import sqlite_schema
from s3gw.kv.checks import prefix_end
from s3gw.kv.interface import Event, EventKind, Key, Unavailable
from s3gw.kv.journal_format import Commit
from s3gw.kv.sqlite_thread import Answer, Request, Worker

POLL_SECONDS = 0.02
EVENTS_MAX = 1_000

# By revision; NOT INDEXED keeps the index by key out.
_CHANGES = """
SELECT revision, key FROM history NOT INDEXED
WHERE (revision, key) >= (?1, ?2) AND key >= ?3 AND (?4 IS NULL OR key < ?4)
ORDER BY revision, key LIMIT ?5
"""
_NEXT_CHANGE = """
SELECT old_revision, old_value FROM history INDEXED BY history_by_key
WHERE key = ? AND revision > ? ORDER BY revision LIMIT 1
"""
_PRESENT = "SELECT revision, value FROM kv WHERE key = ?"


class Place(NamedTuple):
    """Before the change of `key` at `revision`, or of the first key after it."""

    revision: int
    key: Key


def behind(revision: int) -> Place:
    """The place behind all changes of a revision."""
    return Place(revision + 1, b"")


class WatchRequest(Request):
    """The next events under `prefix` from `place` on. The answer: events and the next place."""

    __slots__ = ("end", "place", "prefix")

    def __init__(self, loop: asyncio.AbstractEventLoop, prefix: Key, place: Place) -> None:
        super().__init__(loop)
        self.prefix = prefix
        self.end = prefix_end(prefix)
        self.place = place


class Watcher(Worker[WatchRequest]):
    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        super().__init__(loop, "sqlite-watch")
        self._connection = sqlite_schema.connect(directory, read_only=True)
        self._waiting: list[WatchRequest] = []
        self._prefixes: tuple[Key, ...] = ()
        self._data_version = 0

    def committed(self, commits: Sequence[Commit]) -> None:
        """Wake when somebody waits for one of these changes; from the writer's thread."""
        prefixes = self._prefixes
        if prefixes and any(
            key.startswith(prefixes) for _, changes in commits for key, _, _ in changes
        ):
            self.wake()

    def idle_seconds(self) -> float | None:
        return POLL_SECONDS if self._waiting else None

    def serve(self, batch: list[WatchRequest]) -> Sequence[Answer]:
        self._waiting = [request for request in self._waiting if not request.future.done()]
        self._waiting += batch
        answers: list[Answer] = []
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if batch or version != self._data_version:
                self._data_version = version
                answers = self._examine()
        except sqlite3.Error as error:
            answers = sqlite_schema.unavailable(self._connection, error, self._waiting)
        answered = {request for request, _ in answers}
        self._waiting = [request for request in self._waiting if request not in answered]
        self._prefixes = tuple({request.prefix for request in self._waiting})
        return answers

    def _examine(self) -> list[Answer]:
        execute = self._connection.execute
        execute("BEGIN")
        revision, compacted = execute("SELECT revision, compacted FROM state").fetchone()
        answers: list[Answer] = []
        for request in self._waiting:
            if request.place.revision <= compacted:
                relist = Event(EventKind.RELIST, b"", b"", revision)
                answers.append((request, ([relist], behind(revision))))
            elif events := self._events(request):
                last = events[-1]
                whole = len(events) < EVENTS_MAX
                place = behind(revision) if whole else Place(last.revision, last.key + b"\x00")
                answers.append((request, (events, place)))
            else:
                request.place = max(request.place, behind(revision))
        execute("COMMIT")
        return answers

    def _events(self, request: WatchRequest) -> list[Event]:
        bounds = (*request.place, request.prefix, request.end, EVENTS_MAX)
        rows = self._connection.execute(_CHANGES, bounds).fetchall()
        return [self._event(revision, key) for revision, key in rows]

    def _event(self, revision: int, key: Key) -> Event:
        """What the change of `key` at `revision` made of it: what its next change found, or what
        is there now."""
        execute = self._connection.execute
        found = execute(_NEXT_CHANGE, (key, revision)).fetchone()
        if found is None:
            found = execute(_PRESENT, (key,)).fetchone()
        if found is None or found[0] == 0:
            return Event(EventKind.DELETE, key, b"", revision)
        return Event(EventKind.PUT, key, found[1], revision)

    def ended(self) -> Sequence[Answer]:
        self._connection.close()
        return [(request, Unavailable("the engine is closed")) for request in self._waiting]
