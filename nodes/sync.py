"""Group commit: the durable steps of many shards, shared.

A shard becomes durable in four steps, each over the whole batch before the next one begins:

    1. write    bytes into a file without a name
    2. sync     fdatasync of every file
    3. publish  link: the name appears
    4. sync     fsync of every directory, once

Step 2 before 3: a name that survives a power cut never leads to torn bytes. Step 4 after 3: an
fsync that began before the link does not count, so a directory is synced once per batch and never
shared with an earlier batch. The acknowledgement comes after 4. When 4 fails, the shard is not
acknowledged and its name stays: by then somebody may have counted on it, or removed it and put it
there again; and what is there under a name is whole. On a journalling file system the first fsync
of each round commits for all files and directories of the batch; the others find little left to do.
A shard larger than `SMALL_SHARD_BYTES` does 1 and 2 by itself, so that it does not keep small ones
waiting, and joins a batch for 3 and 4.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from nodes.disk_threads import DiskThreads
from nodes.filesystem import Filesystem
from nodes.protocol import Buffer, DriveError

SMALL_SHARD_BYTES = 128 * 1024
BATCH_SHARDS_MAX = 64
BATCHES_IN_FLIGHT_MAX = 2
# The kernel marks files with a clock that is up to 10 ms late.
CLOCK_SECONDS_MAX = 1.0
DATA = "data"


class Directories:
    """The directory of a placement group, made on first use.

    A name is durable only when all its parents are. Another process may have made a directory and
    not synced the parent yet, so each process syncs the parents itself before its first use.
    """

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        self._known: set[str] = set()
        self._synced: dict[str, float] = {}

    def open(self, path: str) -> int:
        """Open `data/<profile>/<pg>` for publishing. Raises OSError."""
        try:
            if path in self._known:
                return self._filesystem.open_directory(path)
        except FileNotFoundError:  # someone emptied the drive: begin again
            self._known.clear()
        self._make(path.rpartition("/")[0])
        self._make(path)
        return self._filesystem.open_directory(path)

    def require_durable(self, path: str, name: str) -> None:
        """Make a name durable that is seen in a directory, whoever gave it: its writer may not have
        synced the directory yet, have failed to, or have died. That needs no sync when one of this
        process began after the file got its name: a scrub of many old shards takes one per
        directory. (One per process and directory would not do: the writer that failed may be
        another process.) Raises OSError."""
        synced, now = self._synced.get(path, 0.0), self._filesystem.now()
        named = self._filesystem.changed(f"{path}/{name}")
        # A sync of the future is no measure: the clock was put back.
        if named < synced - CLOCK_SECONDS_MAX and synced <= now:
            return
        directory = self._filesystem.open_directory(path)
        try:
            self._filesystem.sync_directory(directory)
        finally:
            self._filesystem.close(directory)
        self._synced[path] = now

    def _make(self, path: str) -> None:
        if path in self._known:
            return
        self._filesystem.make_directory(path)
        parent = self._filesystem.open_directory(path.rpartition("/")[0])
        try:
            self._filesystem.sync_directory(parent)
        finally:
            self._filesystem.close(parent)
        self._known.add(path)


@dataclass(slots=True, eq=False)
class Pending:
    """A shard to be published as `directory`/`name`: either `buffers` still to be written, or a
    `file` already written and synced. `error` is set when a step failed."""

    directory: str
    name: str
    done: asyncio.Future[None]
    buffers: Sequence[Buffer] = ()
    file: int = -1
    handle: int = -1
    unsynced: bool = False
    error: Exception | None = None

    def require_wanted(self) -> None:
        """Raises DriveError when its writer has given up."""
        if self.done.cancelled():
            raise DriveError("nobody waits for the shard any more")


class Batch:
    """The four steps over some pending shards; runs in a thread."""

    def __init__(
        self,
        filesystem: Filesystem,
        directories: Directories,
        admit: Callable[[int], None],
        shards: list[Pending],
    ) -> None:
        self._filesystem = filesystem
        self._directories = directories
        self._admit = admit
        self._shards = shards
        self._handles: dict[str, int] = {}

    def run(self) -> None:
        """Never raises OSError: each shard has its `error`."""
        try:
            self._write()
            self._sync_data()
            self._publish()
            self._sync_directories()
        finally:
            self._close()

    def _write(self) -> None:
        for shard in self._shards:
            try:
                shard.require_wanted()
                handle = self._handles.get(shard.directory)
                if handle is None:
                    handle = self._directories.open(shard.directory)
                    self._handles[shard.directory] = handle
                shard.handle = handle
                if shard.file < 0:
                    self._admit(sum(map(len, shard.buffers)))
                    shard.file = self._filesystem.create(handle)
                    shard.unsynced = True
                    self._filesystem.write(shard.file, shard.buffers)
            except (OSError, DriveError) as error:
                shard.error = error

    def _sync_data(self) -> None:
        for shard in self._shards:
            if shard.error is None and shard.unsynced:
                try:
                    self._filesystem.sync_data(shard.file)
                except OSError as error:
                    shard.error = error

    def _publish(self) -> None:
        for shard in self._shards:
            if shard.error is None:
                try:
                    shard.require_wanted()
                    self._filesystem.publish(shard.file, shard.handle, shard.name)
                except (OSError, DriveError) as error:
                    shard.error = error

    def _sync_directories(self) -> None:
        for handle in self._handles.values():
            published = [s for s in self._shards if s.error is None and s.handle == handle]
            if not published:
                continue
            try:
                self._filesystem.sync_directory(handle)
            except OSError as error:
                for shard in published:
                    shard.error = error

    def _close(self) -> None:
        for shard in self._shards:
            if shard.file >= 0:
                try:
                    self._filesystem.close(shard.file)
                except OSError as error:
                    shard.error = shard.error or error
        for handle in self._handles.values():
            self._filesystem.close(handle)


class GroupCommit:
    """Collects pending shards of one drive and runs them in batches."""

    def __init__(
        self,
        filesystem: Filesystem,
        directories: Directories,
        admit: Callable[[int], None],
        threads: DiskThreads,
    ) -> None:
        """`admit(bytes)` raises DriveFull when so many bytes may not be written."""
        self._filesystem = filesystem
        self._directories = directories
        self._admit = admit
        self._threads = threads
        self._queue: deque[Pending] = deque()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def commit(self, directory: str, name: str, buffers: Sequence[Buffer], file: int) -> None:
        """Publish a shard; durable on return. Raises OSError, DriveError. A cancelled caller
        leaves nothing, unless the name was published already. That one stays: others may have
        listed and verified the shard since, and a removal carries a revision. If nothing refers
        to it, it is an orphan."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        shard = Pending(directory, name, done, buffers, file)
        self._queue.append(shard)
        self._start()
        try:
            await done
        except asyncio.CancelledError:
            self._forget(shard)
            raise

    def _forget(self, shard: Pending) -> None:
        """Let a shard that waits for its turn go at once: on a disk that hangs that may be long."""
        if shard in self._queue:
            self._queue.remove(shard)
            if shard.file >= 0:
                self._threads.start(self._filesystem.close, shard.file)

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()

    def _start(self) -> None:
        while self._queue and self._in_flight < BATCHES_IN_FLIGHT_MAX:
            count = min(len(self._queue), BATCH_SHARDS_MAX)
            shards = [self._queue.popleft() for _ in range(count)]
            batch = Batch(self._filesystem, self._directories, self._admit, shards)
            try:
                running = self._threads.start(batch.run)
            except DriveError as error:
                for shard in shards:
                    shard.done.set_exception(error)
                continue
            self._in_flight += 1
            self._idle.clear()
            running.add_done_callback(partial(self._finish, shards))

    def _finish(self, shards: list[Pending], run: asyncio.Future[None]) -> None:
        self._in_flight -= 1
        failure = run.exception()
        for shard in shards:
            error = shard.error or failure
            if shard.done.cancelled():
                continue
            if error is not None:
                shard.done.set_exception(error)
            else:
                shard.done.set_result(None)
        self._start()
        if not self._in_flight:
            self._idle.set()
