"""The embedded engine: SQLite on one machine, for any number of processes, with a journal on
several drives (journal.py) so that it outlives its disk.

One thread writes (sqlite_writer.py), two read (sqlite_reader.py), one watches (sqlite_watch.py);
the event loop never touches the database. Local file systems only: WAL needs shared memory, and
the writers' lock is a flock.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Self

from s3gw.kv import sqlite_schema
from s3gw.kv.checks import check_commit, check_scan, check_ttl
from s3gw.kv.interface import Event, Guard, Key, Page, Reading, Space, Unavailable, Write
from s3gw.kv.journal import Journal
from s3gw.kv.sqlite_reader import GetRequest, PointReader, ScanReader, ScanRequest
from s3gw.kv.sqlite_thread import Worker
from s3gw.kv.sqlite_watch import Watcher, WatchRequest, behind
from s3gw.kv.sqlite_writer import (
    CommitRequest,
    CompactRequest,
    GrantRequest,
    RenewRequest,
    RevokeRequest,
    Writer,
)

log = logging.getLogger(__name__)

HISTORY_SECONDS = 3600.0
CLOSE_SECONDS_MAX = 8.0
"""For a process that ends after it: what a thread did not do by then is as after a crash."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_clock() -> float:
    """Seconds since boot, also those that the machine was suspended; the same in all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _LeftOpening(Exception):
    """Nobody waits any more for the thread that opens; what it has open goes when it ends."""


async def _opened(loop: asyncio.AbstractEventLoop, writer: Writer) -> None:
    """Open it. Who is cancelled meanwhile leaves the thread what it works with, the writers' lock
    above all: else it would write to the journal beside another process."""
    # No task, which a loop that ends would cancel.
    opening = loop.run_in_executor(None, writer.open)
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:

        def release(ended: asyncio.Future[None]) -> None:
            ended.exception()  # nobody is there to be told
            writer.release()

        opening.add_done_callback(release)
        raise _LeftOpening from None


class SqliteKV:
    """See `s3gw.kv.interface.KV` for the contract. Made by `open`."""

    range_costs_its_size = False
    disturbances = 0

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop, writer: Writer) -> None:
        self.journal_copies = 0
        """On how many drives the journal is (0: there is none)."""
        self._directory = directory
        self._loop = loop
        self._writer = writer
        self._watcher = Watcher(loop, directory)
        self._points = PointReader(loop, directory)
        self._scans = ScanReader(loop, directory)

    @classmethod
    async def open(
        cls,
        metadata_dir: Path,
        journal: Journal | None,
        *,
        clock: Callable[[], float] = boot_clock,
        boot_id: str | None = None,
        history_seconds: float = HISTORY_SECONDS,
    ) -> Self:
        """Open, make, or recover from the journal the database in `metadata_dir`. The engine
        belongs to the running event loop and owns the journal. `clock` is the boot's, in seconds.
        Raises JournalLost when the drives do not hold what was acknowledged, Unavailable, NoSpace.
        """
        loop = asyncio.get_running_loop()
        boot = boot_id or (await asyncio.to_thread(_BOOT_ID.read_text)).strip()
        writer = Writer(
            loop,
            metadata_dir,
            journal,
            clock=clock,
            boot=boot,
            history_seconds=history_seconds,
        )

        try:
            await _opened(loop, writer)
            engine = await asyncio.to_thread(cls, metadata_dir, loop, writer)
        except _LeftOpening:
            raise asyncio.CancelledError from None
        except (sqlite3.Error, OSError) as error:
            writer.release()
            raise sqlite_schema.translate(error) from error
        except BaseException:
            writer.release()
            raise
        engine.journal_copies = journal.copies if journal is not None else 0
        engine._start()
        return engine

    def _start(self) -> None:
        self._writer.committed = self._watcher.committed
        for worker in self._workers():
            worker.start()

    def _workers(self) -> list[Worker[Any]]:
        return [self._writer, self._points, self._scans, self._watcher]

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        reading: Reading = await self._points.submit(GetRequest(self._loop, keys))
        return reading

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        check_scan(limit)
        request = ScanRequest(self._loop, start, end, limit, revision, keys_only)
        page: Page = await self._scans.submit(request)
        return page

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        check_commit(guards, writes)
        request = CommitRequest(self._loop, guards, writes)
        revision: int = await self._writer.submit(request)
        return revision

    async def watch(self, prefix: Key, *, after_revision: int) -> AsyncIterator[Event]:
        place = behind(after_revision)
        while True:
            request = WatchRequest(self._loop, prefix, place)
            events, place = await self._watcher.submit(request)
            for event in events:
                yield event

    async def grant_lease(self, ttl_seconds: int) -> int:
        check_ttl(ttl_seconds)
        lease: int = await self._writer.submit(GrantRequest(self._loop, ttl_seconds))
        return lease

    async def renew_lease(self, lease: int) -> None:
        await self._writer.submit(RenewRequest(self._loop, lease))

    async def revoke_lease(self, lease: int) -> None:
        await self._writer.submit(RevokeRequest(self._loop, lease))

    async def compact(self, revision: int) -> None:
        await self._writer.submit(CompactRequest(self._loop, revision))

    async def space(self) -> Space:
        try:
            return Space(await asyncio.to_thread(self._used_bytes), 0)
        except OSError as error:
            raise Unavailable(str(error)) from error

    def _used_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._directory.glob(f"{sqlite_schema.FILE}*"))

    def busy_disks(self) -> list[str]:
        """The disks that are waited for, drives of the journal or the directory of the database."""
        if self._writer.serving:
            return self._writer.hanging()
        return [str(self._directory)] if any(each.serving for each in self._workers()) else []

    async def close(self, *, seconds_max: float | None = None) -> None:
        """Serve what is queued and end. With a limit also while a disk hangs: its thread is left
        behind then."""
        for worker in self._workers():
            worker.stop()
        begun = time.monotonic()
        for worker in self._workers():
            left = None if seconds_max is None else max(0.0, begun + seconds_max - time.monotonic())
            if not await asyncio.to_thread(worker.join, left):
                disks = ", ".join(self._writer.hanging())
                log.warning("the metadata is closed while a disk hangs: %s", disks)
                return
