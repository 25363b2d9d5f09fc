"""A drive in this process: shard files below one directory.

    <drive>/id.json                                     who the drive is (nodes.identity)
    <drive>/data/<profile>/<pg>/<blob hex>.<index>      shards
    <drive>/data/.drive                                 whose shards they are
    <drive>/revisions/<profile>                         highest revisions (nodes.pg_revisions)
    <drive>/quarantine/<profile>~<pg>~<blob hex>.<index>[~n]   damaged shards set aside
    <drive>/tmp/                                        unfinished files, where O_TMPFILE is missing

Several processes may use one drive; each makes its own LocalDrive. Writes are durable before they
are acknowledged (nodes.sync). Deletes are not synced: a shard that a power cut brings back is an
orphan like any other and goes the same way again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from nodes.check import check_shard
from nodes.disk_threads import DiskThreads
from nodes.filesystem import Filesystem, PosixFilesystem, Space
from nodes.identity import DriveEmptied, DriveIdentity, check_contents
from nodes.pg_revisions import PgRevisions
from nodes.protocol import (
    BLOB_ID_BYTES,
    INDEX_MAX,
    PG_MAX,
    PROFILE_PATTERN,
    Buffer,
    DriveError,
    DriveFull,
    DriveLost,
    DriveRefused,
    DriveStats,
    ShardEntry,
    ShardMissing,
    ShardName,
    Verdict,
)
from nodes.sync import DATA, SMALL_SHARD_BYTES, Directories, GroupCommit

log = logging.getLogger(__name__)

RESERVE_RATIO = 0.01
THREADS_PER_DRIVE = 4
# A writer hops to a thread once per so many bytes, and syncs once per so many.
FLUSH_BYTES = 1024 * 1024
SYNC_BYTES = 64 * 1024 * 1024
SPACE_SECONDS = 1.0
# Damaged revisions are counted by reading all of them: a MiB per profile.
COUNT_SECONDS = 60.0
DROP_SECONDS_MAX = 1.0
CLOSE_SECONDS_MAX = 5.0
QUARANTINE = "quarantine"
QUARANTINED_TWINS_MAX = 100
_SHARD_FILE = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,2})")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Result = TypeVar("Result")
Clock = Callable[[], float]


def translate(error: OSError) -> Exception:
    """The protocol's exception for what the file system raised."""
    if error.errno in _FULL:
        return DriveFull(str(error))
    if isinstance(error, FileNotFoundError):
        return ShardMissing(str(error))
    if isinstance(error, FileExistsError):
        return DriveRefused("the shard exists already")
    return DriveError(str(error))


def translate_write(error: OSError) -> Exception:
    """`translate` for writes, where a missing directory means a broken drive, not a missing
    shard."""
    return DriveError(str(error)) if isinstance(error, FileNotFoundError) else translate(error)


def check_name(profile: str, pg: int) -> None:
    """Raises DriveRefused unless both can be names of directories."""
    if not PROFILE_PATTERN.fullmatch(profile) or not 0 <= pg <= PG_MAX:
        raise DriveRefused("profile or placement group is out of range")


def _directory(profile: str, pg: int) -> str:
    check_name(profile, pg)
    return f"{DATA}/{profile}/{pg}"


def _file(name: ShardName) -> str:
    if len(name.blob) != BLOB_ID_BYTES or not 0 <= name.index <= INDEX_MAX:
        raise DriveRefused("blob id or index is out of range")
    return f"{name.blob.hex()}.{name.index}"


def shard_path(name: ShardName) -> str:
    """Where a shard lies below the drive. Raises DriveRefused when a part is out of range."""
    return f"{_directory(name.profile, name.pg)}/{_file(name)}"


class Reserve:
    """Refuses writes that would leave less than a share of the disk. Space is asked for once a
    second; between, what was admitted is taken off. Called from threads."""

    def __init__(self, filesystem: Filesystem, ratio: float, clock: Clock) -> None:
        self._filesystem = filesystem
        self._ratio = ratio
        self._clock = clock
        self._mutex = threading.Lock()
        self._asked: float | None = None
        self._left = 0

    def admit(self, count: int) -> None:
        """Raises DriveFull, OSError."""
        with self._mutex:
            now = self._clock()
            if self._asked is None or not 0 <= now - self._asked < SPACE_SECONDS:
                space = self._filesystem.space()
                self._left = space.free_bytes - int(space.capacity_bytes * self._ratio)
                self._asked = now
            if count > self._left:
                self._asked = None
                raise DriveFull("the write would go below the drive's reserve")
            self._left -= count


class LocalDrive:
    """Implements `nodes.protocol.Drive` on a file system, for one event loop.

    `clock` is monotonic, in seconds. `executor` is shut down by `close` when it is the drive's own
    (None). `reserve_ratio` is the share of the disk that writes leave free. With `path` the drive
    looks after its id file and mark, and whether the path still leads to it.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        *,
        store_id: str,
        drive_id: str,
        reserve_ratio: float = RESERVE_RATIO,
        clock: Clock = time.monotonic,
        executor: Executor | None = None,
        path: str = "",
    ) -> None:
        self._filesystem = filesystem
        self._path = path
        self._place = os.stat(path) if path else None
        self._store_id = store_id
        self._drive_id = drive_id
        self._clock = clock
        self._own_executor = executor is None
        self._executor = executor or ThreadPoolExecutor(
            THREADS_PER_DRIVE, thread_name_prefix=f"drive-{drive_id}"
        )
        self._threads = DiskThreads(self._executor)
        self._reserve_ratio = reserve_ratio
        self._reserve = Reserve(filesystem, reserve_ratio, clock)
        self._directories = Directories(filesystem)
        self._group = GroupCommit(filesystem, self._directories, self._reserve.admit, self._threads)
        self._revisions = PgRevisions(filesystem)
        self._first_seen: dict[tuple[str, int], tuple[array[int], array[float]]] = {}
        self._counted_at: float | None = None
        self._damaged_revisions = 0
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        reserve_ratio: float = RESERVE_RATIO,
        clock: Clock = time.monotonic,
        executor: Executor | None = None,
    ) -> LocalDrive:
        """The drive at `path`, already claimed (nodes.identity) and locked by this instance.
        Raises IdentityError. Blocks."""
        identity = DriveIdentity.open(path).identity
        return cls(
            PosixFilesystem(os.fspath(path)),
            store_id=identity.store_id,
            drive_id=identity.drive_id,
            reserve_ratio=reserve_ratio,
            clock=clock,
            executor=executor,
            path=os.fspath(path),
        )

    async def write(self, name: ShardName, buffers: Sequence[Buffer]) -> None:
        directory, file = _directory(name.profile, name.pg), _file(name)
        if sum(map(len, buffers)) > SMALL_SHARD_BYTES:
            writer = LocalShardWriter(self, name)
            writer.gather(buffers)
            await writer.commit()
            return
        await self._publish(directory, file, buffers)

    def writer(self, name: ShardName) -> LocalShardWriter:
        return LocalShardWriter(self, name)

    async def read(self, name: ShardName, offset: int, length: int) -> bytes:
        return await self._run(self._filesystem.read, shard_path(name), offset, length)

    async def size(self, name: ShardName) -> int:
        return await self._run(self._filesystem.size, shard_path(name))

    async def delete(self, name: ShardName, pg_revision: int) -> None:
        await self._run(self._delete, name, pg_revision)

    async def list(self, profile: str, pg: int) -> list[ShardEntry]:
        return [*await self._run(self._entries, profile, pg)]

    async def show_pg_revision(self, profile: str, pg: int, revision: int) -> None:
        check_name(profile, pg)
        await self._run(self._revisions.show, profile, pg, revision)

    async def verify(self, name: ShardName) -> Verdict:
        return await self._run(self._verify, name)

    async def quarantine(self, name: ShardName) -> None:
        await self._run(self._quarantine, name)

    async def stats(self) -> DriveStats:
        """Also says, by DriveLost, that the drive's id file or mark is gone: the directory was
        removed or emptied, which reads alone would take for missing shards; or that it is not at
        its path any more, where the next start would look for it in vain."""
        space = await self._run(self._space)
        now = self._clock()
        if self._counted_at is None or not 0 <= now - self._counted_at < COUNT_SECONDS:
            self._damaged_revisions = await self._run(self._revisions.damaged)
            self._counted_at = now
        return DriveStats(
            store_id=self._store_id,
            drive_id=self._drive_id,
            capacity_bytes=space.capacity_bytes,
            free_bytes=space.free_bytes,
            writable=space.free_bytes > space.capacity_bytes * self._reserve_ratio,
            damaged_revisions=self._damaged_revisions,
        )

    @property
    def busy_at(self) -> str:
        """The drive's path while anything is under way there, else ""."""
        return self._path if self._threads.busy else ""

    async def close(self, *, seconds_max: float = CLOSE_SECONDS_MAX) -> None:
        """Wait for what is in flight, then release files and threads; on a disk that hangs neither,
        since they are in use. What was in flight there may happen or not, as in a crash."""
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(seconds_max):
                await self._group.idle()
                await self._threads.close()
        except TimeoutError:
            self._threads.refuse()
            where = self._path or self._drive_id
            log.warning("drive %s hangs: nobody waits for it any more", where)
            return
        finally:
            if self._own_executor:
                self._executor.shutdown(wait=False)
        self._revisions.close()
        self._filesystem.shut()

    def _space(self) -> Space:
        if self._place is not None:
            self._check_place(self._place)
            try:
                check_contents(
                    self._path,
                    self._drive_id,
                    lambda file, length: self._filesystem.read(file, 0, length),
                )
            except DriveEmptied as error:
                raise DriveLost(str(error)) from error
        return self._filesystem.space()

    def _check_place(self, place: os.stat_result) -> None:
        """Raises DriveLost where the directory was moved away or its file system unmounted. What is
        open works all the same; that is why nothing else would notice."""
        try:
            if os.path.samestat(os.stat(self._path), place):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        raise DriveLost(f"{self._path} does not lead to drive {self._drive_id} any more")

    async def _run(self, function: Callable[..., Result], *arguments: object) -> Result:
        try:
            return await self._threads.run(function, *arguments)
        except OSError as error:
            raise translate(error) from error

    async def _publish(
        self, directory: str, file: str, buffers: Sequence[Buffer], descriptor: int = -1
    ) -> None:
        try:
            await self._group.commit(directory, file, buffers, descriptor)
        except OSError as error:
            raise translate_write(error) from error

    def _delete(self, name: ShardName, pg_revision: int) -> None:
        path = shard_path(name)
        with self._revisions.allowing(name.profile, name.pg, pg_revision):
            try:
                self._filesystem.remove(path)
            except FileNotFoundError:
                return

    def _entries(self, profile: str, pg: int) -> Sequence[ShardEntry]:
        found = self._filesystem.entries(_directory(profile, pg))
        now = self._clock()
        known = dict(zip(*self._first_seen.get((profile, pg), ((), ())), strict=True))
        # Kept for every shard of the drive: 16 bytes each, half a (random) blob id and the index.
        sightings, times = array("Q"), array("d")
        entries = []
        for file, size in found:
            match = _SHARD_FILE.fullmatch(file)
            if match is None or int(match[2]) > INDEX_MAX:
                continue  # not a shard; `rescue` reports what else lies on a drive
            sighting = int(match[1][:16], 16) ^ int(match[2])
            first = known.get(sighting, now)
            sightings.append(sighting)
            times.append(first)
            entries.append(ShardEntry(bytes.fromhex(match[1]), int(match[2]), size, now - first))
        self._first_seen[profile, pg] = sightings, times
        entries.sort(key=lambda entry: (entry.blob, entry.index))
        return entries

    def _verify(self, name: ShardName) -> Verdict:
        path = shard_path(name)
        size = self._filesystem.size(path)
        verdict = check_shard(
            name, size, lambda at, length: self._filesystem.read(path, at, length)
        )
        if verdict.whole:
            # Who hears so counts on it.
            self._directories.require_durable(_directory(name.profile, name.pg), _file(name))
        return verdict

    def _quarantine(self, name: ShardName) -> None:
        target = f"{QUARANTINE}/{name.profile}~{name.pg}~{_file(name)}"
        self._filesystem.make_directory(QUARANTINE)
        for twin in range(QUARANTINED_TWINS_MAX):
            try:
                self._filesystem.move(shard_path(name), f"{target}~{twin}" if twin else target)
            except FileExistsError:
                continue
            except FileNotFoundError:
                return
            return
        raise DriveError("too many quarantined copies of one shard")


class LocalShardWriter:
    """Writes a shard of any size: bytes are gathered and written about 1 MiB at a time, one piece
    being written while the next is gathered. What is small at `commit` goes as a whole write.

    The file belongs to the threads: `_flush` and `_drop` take turns with a mutex, so that an abort,
    even of a cancelled writer, closes it after the write under way.
    """

    def __init__(self, drive: LocalDrive, name: ShardName) -> None:
        self._drive = drive
        self._directory = _directory(name.profile, name.pg)
        self._name = _file(name)
        self._gathered: list[Buffer] = []
        self._gathered_bytes = 0
        self._flushing: asyncio.Future[None] | None = None
        self._ended = False
        self._mutex = threading.Lock()
        self._file = -1
        self._unsynced_bytes = 0
        self._dropped = False

    def gather(self, buffers: Sequence[Buffer]) -> None:
        """`append` without writing yet."""
        self._gathered.extend(buffers)
        self._gathered_bytes += sum(map(len, buffers))

    async def append(self, buffers: Sequence[Buffer]) -> None:
        if self._ended:
            raise DriveError("the writer has ended")
        self.gather(buffers)
        if self._gathered_bytes >= FLUSH_BYTES:
            await self._flushed()
            self._start_flush(last=False)

    async def commit(self) -> None:
        if self._ended:
            raise DriveError("the writer has ended")
        self._ended = True
        if self._flushing is None and self._gathered_bytes <= SMALL_SHARD_BYTES:
            await self._drive._publish(self._directory, self._name, self._gathered)
            return
        try:
            await self._flushed()
            self._start_flush(last=True)
            await self._flushed()
        except asyncio.CancelledError:
            self._drive._threads.start(self._drop)
            raise
        except Exception:
            await self._give_up()
            raise
        await self._drive._publish(self._directory, self._name, (), self._file)

    async def abort(self) -> None:
        """Drop what was written. No error when the writer has ended already."""
        if not self._ended:
            self._ended = True
            self._gathered.clear()
            await self._give_up()

    async def _give_up(self) -> None:
        """Drop the file; on a disk that hangs, without waiting for it."""
        dropping = self._drive._threads.start(self._drop)
        await asyncio.wait((dropping,), timeout=DROP_SECONDS_MAX)

    def _start_flush(self, *, last: bool) -> None:
        buffers, self._gathered = self._gathered, []
        count, self._gathered_bytes = self._gathered_bytes, 0
        self._flushing = self._drive._threads.start(self._flush, buffers, count, last)

    async def _flushed(self) -> None:
        """Wait for the write under way, without ever cancelling it, and raise its error."""
        if self._flushing is not None:
            await asyncio.wait((self._flushing,))
            error = self._flushing.exception()
            if isinstance(error, OSError):
                raise translate_write(error) from error
            if error is not None:
                raise error

    def _flush(self, buffers: Sequence[Buffer], count: int, last: bool) -> None:
        drive = self._drive
        with self._mutex:
            if self._dropped:
                return
            drive._reserve.admit(count)
            if self._file < 0:
                directory = drive._directories.open(self._directory)
                try:
                    self._file = drive._filesystem.create(directory)
                finally:
                    drive._filesystem.close(directory)
            drive._filesystem.write(self._file, buffers)
            self._unsynced_bytes += count
            if last or self._unsynced_bytes >= SYNC_BYTES:
                drive._filesystem.sync_data(self._file)
                self._unsynced_bytes = 0

    def _drop(self) -> None:
        with self._mutex:
            self._dropped = True
            file, self._file = self._file, -1
            if file >= 0:
                self._drive._filesystem.close(file)
