"""What is particular to a drive in this process: files, processes, full disks, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nodes.filesystem import PosixFilesystem, Space
from nodes.identity import MARK, DriveIdentity
from nodes.pg_revisions import PgRevisions
from nodes.protocol import (
    Buffer,
    DriveError,
    DriveFull,
    DriveLost,
    DriveRefused,
    ShardMissing,
    ShardName,
    StalePgRevision,
)
from nodes.store import LocalDrive, shard_path
from nodes.sync import CLOCK_SECONDS_MAX
from tests.nodes.drives import Clock, make_shard

NAME = ShardName("p", 1, bytes(range(16)), 2)


class FaultyFilesystem(PosixFilesystem):
    """Fails or changes chosen calls."""

    free_bytes: int | None = None
    named = False

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.failing: dict[str, int] = {}
        self.hanging: dict[str, threading.Event] = {}
        self.calls: list[str] = []

    def _maybe_fail(self, call: str) -> None:
        self.calls.append(call)
        if call in self.hanging:
            self.hanging[call].wait()
        if call in self.failing:
            raise OSError(self.failing[call], os.strerror(self.failing[call]))

    def create(self, directory: int) -> int:
        self._unnamed = self._unnamed and not self.named
        self._maybe_fail("create")
        return super().create(directory)

    def write(self, file: int, buffers: object) -> None:
        super().write(file, list(buffers)[:1])  # type: ignore[call-overload]
        self._maybe_fail("write")
        super().write(file, list(buffers)[1:])  # type: ignore[call-overload]

    def sync_data(self, file: int) -> None:
        self._maybe_fail("sync_data")
        super().sync_data(file)

    def publish(self, file: int, directory: int, name: str) -> None:
        self._maybe_fail("publish")
        super().publish(file, directory, name)

    def sync_directory(self, directory: int) -> None:
        self._maybe_fail("sync_directory")
        super().sync_directory(directory)

    def read(self, path: str, offset: int, length: int) -> bytes:
        self._maybe_fail("read")
        return super().read(path, offset, length)

    def remove(self, path: str) -> None:
        self._maybe_fail("remove")
        super().remove(path)

    def space(self) -> Space:
        self._maybe_fail("space")
        space = super().space()
        if self.free_bytes is not None:
            return Space(1_000_000_000, self.free_bytes)
        return space


@pytest.fixture
def path(tmp_path: Path) -> Path:
    DriveIdentity.claim(tmp_path / "drive", "store")
    return tmp_path / "drive"


@pytest.fixture
def filesystem(path: Path) -> FaultyFilesystem:
    return FaultyFilesystem(str(path))


@pytest.fixture
async def drive(filesystem: FaultyFilesystem, clock: Clock) -> AsyncIterator[LocalDrive]:
    drive = LocalDrive(filesystem, store_id="s", drive_id="d", clock=clock)
    yield drive
    await drive.close()


def shards_on(path: Path) -> list[str]:
    return [f for _, _, files in os.walk(path / "data") for f in files if f != Path(MARK).name]


async def write_whole(drive: LocalDrive, name: ShardName, buffers: list[bytes]) -> None:
    await drive.write(name, buffers)


async def write_by_writer(drive: LocalDrive, name: ShardName, buffers: list[bytes]) -> None:
    writer = drive.writer(name)
    try:
        for buffer in buffers:
            await writer.append([buffer])
        await writer.commit()
    finally:
        await writer.abort()


WRITES = [write_whole, write_by_writer]
SIZES = [100, 300_000, 3_000_000]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("call", ["create", "write", "sync_data", "publish"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, DriveFull), (errno.EIO, DriveError), (errno.EROFS, DriveError)],
)
async def test_a_failing_disk_stores_nothing_and_leaks_nothing(
    drive: LocalDrive,
    filesystem: FaultyFilesystem,
    path: Path,
    write: Callable[..., object],
    size: int,
    call: str,
    code: int,
    expected: type[Exception],
) -> None:
    warm = ShardName("p", 1, bytes(16), 0)
    await drive.write(warm, make_shard(warm, b""))
    before = len(os.listdir("/proc/self/fd"))
    filesystem.failing[call] = code
    with pytest.raises(expected):
        await write(drive, NAME, make_shard(NAME, b"x" * size, 100_000))  # type: ignore[misc]
    filesystem.failing.clear()
    assert await drive.list("p", 1) == await drive.list("p", 1)
    assert shards_on(path) == [f"{bytes(16).hex()}.0"]
    assert os.listdir(path / "tmp") == []
    assert len(os.listdir("/proc/self/fd")) == before
    await write(drive, NAME, make_shard(NAME, b"x" * size, 100_000))  # type: ignore[misc]
    assert (await drive.verify(NAME)).whole


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("size", SIZES)
async def test_where_the_directory_cannot_be_synced_a_whole_shard_stays_unacknowledged(
    drive: LocalDrive,
    filesystem: FaultyFilesystem,
    path: Path,
    write: Callable[..., object],
    size: int,
) -> None:
    """Others may have counted on it: it is no more removed than one whose writer gave up."""
    warm = ShardName("p", 1, bytes(16), 0)
    await drive.write(warm, make_shard(warm, b""))
    before = len(os.listdir("/proc/self/fd"))
    filesystem.failing["sync_directory"] = errno.EIO
    with pytest.raises(DriveError):
        await write(drive, NAME, make_shard(NAME, b"x" * size, 100_000))  # type: ignore[misc]
    with pytest.raises(DriveError):
        await drive.verify(NAME)
    filesystem.failing.clear()
    assert (await drive.verify(NAME)).whole
    with pytest.raises(DriveRefused):
        await write(drive, NAME, make_shard(NAME, b"x" * size, 100_000))  # type: ignore[misc]
    assert len(shards_on(path)) == 2
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("size", SIZES)
async def test_the_reserve_is_kept_free_and_deletes_work_below_it(
    drive: LocalDrive,
    filesystem: FaultyFilesystem,
    clock: Clock,
    write: Callable[..., object],
    size: int,
) -> None:
    kept = ShardName("p", 1, bytes(16), 0)
    await drive.write(kept, make_shard(kept, b"x"))
    clock.now += 2
    filesystem.free_bytes = 10_000_000
    assert not (await drive.stats()).writable
    with pytest.raises(DriveFull):
        await write(drive, NAME, make_shard(NAME, b"x" * size, 100_000))  # type: ignore[misc]
    await drive.delete(kept, 1)
    filesystem.free_bytes = 500_000_000
    await write(drive, NAME, make_shard(NAME, b"x" * size, 100_000))  # type: ignore[misc]
    assert (await drive.stats()).writable


async def test_a_read_error_is_a_drive_error_not_a_missing_shard(
    drive: LocalDrive, filesystem: FaultyFilesystem
) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    filesystem.failing["read"] = errno.EIO
    with pytest.raises(DriveError):
        await drive.read(NAME, 0, 1)


async def test_without_unnamed_files_temporary_names_are_used_and_removed(
    drive: LocalDrive, filesystem: FaultyFilesystem, path: Path
) -> None:
    filesystem.named = True
    for write in WRITES:
        for size in SIZES:
            name = ShardName("p", 1, os.urandom(16), 0)
            await write(drive, name, make_shard(name, b"x" * size, 100_000))
            assert (await drive.verify(name)).whole
    writer = drive.writer(NAME)
    await writer.append([b"x" * 2_000_000])
    await writer.abort()
    assert os.listdir(path / "tmp") == []


async def test_concurrent_writers_share_the_directory_sync(
    drive: LocalDrive, filesystem: FaultyFilesystem
) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    filesystem.calls.clear()
    names = [ShardName("p", 1, os.urandom(16), 0) for _ in range(60)]
    await asyncio.gather(*(drive.write(name, make_shard(name, b"x")) for name in names))
    assert filesystem.calls.count("sync_data") == 60
    assert filesystem.calls.count("sync_directory") < 20
    last_link = len(filesystem.calls) - filesystem.calls[::-1].index("publish")
    assert "sync_directory" in filesystem.calls[last_link:]


async def test_what_is_verified_is_synced_once_unless_it_may_be_newer(
    drive: LocalDrive, filesystem: FaultyFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [ShardName("p", 1, bytes([n] * 16), 0) for n in range(8)]
    for name in names:
        await drive.write(name, make_shard(name, b"x"))
    times = {"changed": 1_000.0, "now": 2_000.0}
    monkeypatch.setattr(filesystem, "changed", lambda path: times["changed"])
    monkeypatch.setattr(filesystem, "now", lambda: times["now"])

    async def syncs(**now: float) -> int:
        times.update(now)
        filesystem.calls.clear()
        for name in names:
            assert (await drive.verify(name)).whole
        return filesystem.calls.count("sync_directory")

    filesystem.failing["sync_directory"] = errno.EIO
    with pytest.raises(DriveError):
        await syncs()
    filesystem.failing.clear()
    assert await syncs() == 1  # the one that failed does not count
    assert await syncs(now=3_000.0) == 0
    assert await syncs(changed=2_500.0) == 1  # named since then, perhaps by another process
    assert await syncs(changed=3_000.0) == len(names)  # or just then
    assert await syncs(changed=500.0, now=600.0) == 1  # the clock was put back
    assert await syncs(changed=599.5) == len(names)


async def test_the_file_system_says_when_a_file_got_its_name(
    drive: LocalDrive, filesystem: FaultyFilesystem
) -> None:
    before = filesystem.now()
    await drive.write(NAME, make_shard(NAME, b"x"))
    named = filesystem.changed(shard_path(NAME))
    assert before - CLOCK_SECONDS_MAX < named <= filesystem.now()


async def test_a_cancelled_write_leaves_nothing_or_a_whole_shard(
    drive: LocalDrive, filesystem: FaultyFilesystem, path: Path
) -> None:
    for size in SIZES:
        for turns in range(6):
            name = ShardName("p", 1, os.urandom(16), turns)
            task = asyncio.create_task(drive.write(name, make_shard(name, b"x" * size, 100_000)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(result, asyncio.CancelledError)
    await drive.close()
    assert os.listdir(path / "tmp") == []
    other = LocalDrive.open(path)
    for entry in await other.list("p", 1):
        assert (await other.verify(ShardName("p", 1, entry.blob, entry.index))).whole
    await other.close()


async def called(filesystem: FaultyFilesystem, call: str) -> None:
    """Return when a call has begun since the calls were forgotten."""
    async with asyncio.timeout(10):
        while call not in filesystem.calls:
            await asyncio.sleep(0.001)


async def cancelled_at(
    drive: LocalDrive, filesystem: FaultyFilesystem, call: str, size: int
) -> threading.Event:
    """Give up writing NAME while a call hangs; what lets it go on."""
    other = ShardName("p", 1, os.urandom(16), 0)
    await drive.write(other, make_shard(other, b"x"))  # which makes the directories
    await drive.delete(other, 1)
    filesystem.calls.clear()
    hanging = filesystem.hanging[call] = threading.Event()
    task = asyncio.create_task(drive.write(NAME, make_shard(NAME, b"x" * size, 100_000)))
    await called(filesystem, call)
    if call == "sync_directory":  # by now others see it
        assert await drive.size(NAME)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], BaseException)
    return hanging


@pytest.mark.parametrize("size", SIZES)
async def test_a_shard_that_others_may_have_seen_stays_though_its_writer_gave_up(
    drive: LocalDrive, filesystem: FaultyFilesystem, path: Path, size: int
) -> None:
    hanging = await cancelled_at(drive, filesystem, "sync_directory", size)
    hanging.set()
    await drive.close()
    assert len(shards_on(path)) == 1


@pytest.mark.parametrize("size", SIZES)
async def test_a_shard_whose_writer_gave_up_gets_no_name(
    drive: LocalDrive, filesystem: FaultyFilesystem, path: Path, size: int
) -> None:
    hanging = await cancelled_at(drive, filesystem, "sync_data", size)
    hanging.set()
    await drive.close()
    assert shards_on(path) == []
    assert "publish" not in filesystem.calls
    assert os.listdir(path / "tmp") == []


async def test_a_disk_that_hangs_keeps_nothing_of_writes_that_were_given_up(
    drive: LocalDrive, filesystem: FaultyFilesystem, path: Path
) -> None:
    hanging = filesystem.hanging["create"] = threading.Event()

    async def write(shard: memoryview) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await drive.write(ShardName("p", 1, os.urandom(16), 0), [shard])

    tasks, held = [], []
    for _ in range(8):
        shard = memoryview(b"".join(make_shard(NAME, b"x" * 1000)))
        held.append(weakref.ref(shard))
        tasks.append(asyncio.create_task(write(shard)))
        del shard
        await asyncio.sleep(0)
    await called(filesystem, "create")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)
    gc.collect()
    kept = sum(reference() is not None for reference in held)
    hanging.set()
    await drive.close()
    assert kept <= 2  # of those that were begun
    assert filesystem.calls.count("create") <= 2
    assert shards_on(path) == []


async def test_a_shard_written_before_a_restart_is_there_after_it(path: Path) -> None:
    first = LocalDrive.open(path)
    await first.write(NAME, make_shard(NAME, b"x" * 5000))
    await first.show_pg_revision("p", 1, 7)
    await first.close()
    second = LocalDrive.open(path)
    assert (await second.verify(NAME)).whole
    with pytest.raises(StalePgRevision):
        await second.delete(NAME, 6)
    await second.close()
    with pytest.raises(DriveError):
        await second.read(NAME, 0, 1)


async def test_a_drive_emptied_below_us_misses_its_shards_and_takes_new_ones(
    drive: LocalDrive, path: Path
) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    shutil.rmtree(path / "data" / "p")
    with pytest.raises(ShardMissing):
        await drive.read(NAME, 0, 1)
    await drive.write(NAME, make_shard(NAME, b"x"))
    assert (await drive.verify(NAME)).whole
    shutil.rmtree(path / "data")
    with pytest.raises(DriveError):
        await drive.write(NAME, make_shard(NAME, b"x"))


async def test_a_drive_that_its_path_does_not_lead_to_says_so(path: Path) -> None:
    """Moved away, or its file system unmounted while files of it are open: it still takes writes,
    and a next start would not find them."""
    drive = LocalDrive.open(path)
    await drive.write(NAME, make_shard(NAME, b"x"))
    away = path.rename(path.with_name("away"))
    with pytest.raises(DriveLost, match="does not lead to drive"):
        await drive.stats()
    shutil.copytree(away, path)
    with pytest.raises(DriveLost, match="does not lead to drive"):
        await drive.stats()
    shutil.rmtree(path)
    away.rename(path)
    assert (await drive.stats()).capacity_bytes
    assert (await drive.verify(NAME)).whole
    await drive.close()


async def test_a_huge_length_reads_what_is_there(drive: LocalDrive) -> None:
    whole = b"".join(make_shard(NAME, b"x" * 3000))
    await drive.write(NAME, [whole])
    assert await drive.read(NAME, 10, 1 << 62) == whole[10:]
    assert await drive.read(NAME, 1 << 40, 1 << 62) == b""


async def test_other_files_in_a_drive_are_not_listed(drive: LocalDrive, path: Path) -> None:
    await drive.write(NAME, make_shard(NAME, b"x"))
    for stray in ("x", "ab.1", f"{'0' * 32}.999", f"{'0' * 32}.01", f"{'0' * 32}.1.tmp"):
        (path / "data" / "p" / "1" / stray).touch()
    assert [entry.blob for entry in await drive.list("p", 1)] == [NAME.blob]


async def test_damage_on_the_disk_is_told_by_block(drive: LocalDrive, path: Path) -> None:
    await drive.write(NAME, make_shard(NAME, os.urandom(500_000), 1000))
    file = path / "data" / "p" / "1" / f"{NAME.blob.hex()}.2"
    data = bytearray(file.read_bytes())
    data[64 + 3 * 1008 + 5] ^= 1
    data[64 + 400 * 1008 + 1001] ^= 1
    file.write_bytes(data)
    assert (await drive.verify(NAME)).damaged_blocks == [3, 400]
    file.write_bytes(data[:-1])
    assert "footer" in (await drive.verify(NAME)).reason
    file.write_bytes(b"")
    assert not (await drive.verify(NAME)).whole


async def test_quarantined_shards_are_kept(drive: LocalDrive, path: Path) -> None:
    for payload in (b"one", b"two"):
        await drive.write(NAME, make_shard(NAME, payload))
        await drive.quarantine(NAME)
    kept = sorted((path / "quarantine").iterdir())
    assert [b"one" in f.read_bytes() for f in kept] == [True, False]
    assert [b"two" in f.read_bytes() for f in kept] == [False, True]
    with pytest.raises(ShardMissing):
        await drive.size(NAME)


def test_a_damaged_revision_refuses_deletes(path: Path) -> None:
    revisions = PgRevisions(PosixFilesystem(str(path)))
    revisions.show("p", 3, 12)
    with open(path / "revisions" / "p", "r+b") as table:
        table.seek(3 * 16 + 7)
        table.write(b"\xff")
    with pytest.raises(StalePgRevision), revisions.allowing("p", 3, 2**62):
        pass
    with pytest.raises(StalePgRevision), revisions.allowing("p", 3, 13):
        pass
    with revisions.allowing("p", 4, 1):
        assert revisions is not None
    revisions.close()


def test_processes_of_a_drive_share_revisions(path: Path) -> None:
    """Four processes raise and delete at once: none may delete below what it has been shown."""
    code = """
import sys
from nodes.filesystem import PosixFilesystem
from nodes.pg_revisions import PgRevisions
from nodes.protocol import StalePgRevision
revisions = PgRevisions(PosixFilesystem(sys.argv[1]))
for n in range(60):
    own = n * 4 + int(sys.argv[2])
    revisions.show('p', 1, own)
    try:
        with revisions.allowing('p', 1, own - 1):
            sys.exit('a stale delete was allowed')
    except StalePgRevision as error:
        assert error.seen >= own
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    revisions = PgRevisions(PosixFilesystem(str(path)))
    assert revisions.seen("p", 1) == 59 * 4 + 3
    revisions.close()


async def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.writev

    def short(file: int, buffers: list[Buffer]) -> int:
        return genuine(file, [b"".join(buffers)[:7]])

    monkeypatch.setattr(os, "writev", short)
    drive = LocalDrive.open(path)
    buffers = make_shard(NAME, b"x" * 5000, 3)
    await drive.write(NAME, buffers)
    assert await drive.read(NAME, 0, 1_000_000) == b"".join(buffers)
    await drive.close()


async def test_what_is_remembered_of_listed_shards_is_small(
    drive: LocalDrive, path: Path, clock: Clock
) -> None:
    """A drive has millions; when each was seen first is remembered for as long as it is there."""
    directory = path / "data" / "4+2" / "0"
    directory.mkdir(parents=True)
    count = 2000
    for _ in range(count):
        (directory / f"{os.urandom(16).hex()}.3").touch()
    assert len(await drive.list("4+2", 0)) == count
    kept = drive._first_seen["4+2", 0]
    assert sum(map(sys.getsizeof, kept)) < 20 * count
    clock.now += 50
    assert {entry.age_seconds for entry in await drive.list("4+2", 0)} == {50}


async def test_a_drive_that_hangs_is_closed_without_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    DriveIdentity.claim(tmp_path, "store")
    drive = LocalDrive.open(tmp_path)
    assert drive.busy_at == ""
    goes_on = threading.Event()
    closed: list[PosixFilesystem] = []
    name = ShardName("4+2", 0, bytes(16), 0)
    monkeypatch.setattr(PosixFilesystem, "size", lambda *_: goes_on.wait() and 7)
    monkeypatch.setattr(PosixFilesystem, "shut", closed.append)
    asked = asyncio.ensure_future(drive.size(name))
    try:
        await asyncio.sleep(0)
        assert drive.busy_at == str(tmp_path)
        await drive.close(seconds_max=0.05)
        assert f"drive {tmp_path} hangs" in caplog.text
        assert closed == []  # its thread has the files in use
        with pytest.raises(DriveError, match="closed"):
            await drive.size(name)
    finally:
        goes_on.set()
    assert await asked == 7
    assert drive.busy_at == ""
