"""Journal drives that hang while they take a lot: a snapshot, a seed, what a chain has beyond them.
That a single entry or name is not taken is in test_journal.py."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from s3gw.kv.interface import Put
from s3gw.kv.journal import Journal
from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_format import Position
from s3gw.kv.journal_snapshot import put_snapshot
from s3gw.kv.journal_threads import DriveThreads
from s3gw.kv.sqlite import SqliteKV
from tests.kv.test_journal import Host, everything, fill

PATIENCE = 0.1
"""A drive that takes a lot is left behind after six times as long."""
NEVER = threading.Event()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@contextmanager
def hanging_at_snapshots(drive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A drive takes the first piece of a snapshot, then hangs; all else it does. In the end it goes
    on. The event says that it hangs."""
    goes_on, hangs = threading.Event(), threading.Event()
    put = Folder.put_snapshot

    def slowly(pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            hangs.set()
            goes_on.wait()

    def late_put(folder: Folder, number: int, pieces: Iterable[bytes]) -> None:
        put(folder, number, slowly(pieces) if folder.path.parent == drive else pieces)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "put_snapshot", late_put)
        try:
            yield hangs
        finally:
            goes_on.set()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        NEVER.wait(0.01)


def snapshots(drive: Path) -> list[str]:
    found = (drive / "journal").glob("snapshot-*")
    return sorted(path.name for path in found if not path.suffix)


async def recovers(host: Host, drive: Path, expected: object) -> None:
    """From a journal drive alone."""
    aside = host.metadata.with_name("aside")
    host.metadata.rename(aside)
    moved = [other for other in host.drives if other != drive and other.is_dir()]
    for other in moved:
        other.rename(other.with_suffix(".aside"))
    async with host.up() as engine:
        assert await everything(engine) == expected
    for other in moved:
        other.with_suffix(".aside").rename(other)
    shutil.rmtree(host.metadata)
    aside.rename(host.metadata)


async def test_a_spare_that_hangs_while_it_is_seeded_is_passed_over(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Folder.append
    async with host.up(patience_seconds=PATIENCE) as engine:
        await fill(engine, "first", 3)
        members = host.journals()
        spares = [drive for drive in host.drives if drive not in members]

        def broken(folder: Folder, entry: bytes, offset: int) -> None:
            if folder.path.parent == members[0]:
                raise OSError(5, "Input/output error")
            append(folder, entry, offset)

        monkeypatch.setattr(Folder, "append", broken)
        with hanging_at_snapshots(spares[0], monkeypatch) as hangs:
            async with asyncio.timeout(60):
                await fill(engine, "second", 3)
                assert hangs.is_set()
                await fill(engine, "third", 3)
        expected = await everything(engine)
        assert len(expected) == 9
        await until(lambda: not list((spares[0] / "journal").glob("*.tmp")))
    assert snapshots(spares[0]) == []
    others = [drive for drive in host.journals() if drive != members[0]]
    assert others == sorted([*members[1:], spares[1]])
    for drive in others:
        await recovers(host, drive, expected)


async def test_a_member_that_hangs_at_a_snapshot_holds_up_nobody_else(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host.up(segment_bytes=3_000, patience_seconds=PATIENCE) as engine:
        await fill(engine, "first", 3)
        drive, *others = host.journals()
        with hanging_at_snapshots(drive, monkeypatch) as hangs:
            await fill(engine, "second", 40)
            await until(hangs.is_set)
            started = {other: snapshots(other) for other in others}

            async def replaced() -> bool:
                await engine.commit([], [Put(b"key", bytes(300))])
                return all(snapshots(other) > started[other] for other in others)

            async with asyncio.timeout(60):
                while not await replaced():
                    pass
                started |= {other: snapshots(other) for other in others}
                while not await replaced():  # the next one does not wait for it either
                    pass
            assert snapshots(drive) < snapshots(others[0])
        expected = await everything(engine)
        await until(lambda: not list((drive / "journal").glob("*.tmp")))
    assert sorted(host.journals()) == sorted([drive, *others])
    for member in (drive, *others):
        await recovers(host, member, expected)


async def test_the_engine_is_closed_while_a_snapshot_hangs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host.up(segment_bytes=3_000) as engine:
        await fill(engine, "first", 3)
        with hanging_at_snapshots(host.journals()[0], monkeypatch) as hangs:
            await fill(engine, "second", 40)
            await until(hangs.is_set)
            begun = time.monotonic()
            await engine.close()
            assert time.monotonic() - begun < 5  # patience with a snapshot is 30 s


async def test_the_engine_is_closed_while_all_journal_drives_hang(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()
    append = Folder.append

    def late(folder: Folder, entry: bytes, offset: int) -> None:
        goes_on.wait()
        append(folder, entry, offset)

    async with host.up() as engine:
        await fill(engine, "first", 3)
        with monkeypatch.context() as patched:
            patched.setattr(Folder, "append", late)
            commit = asyncio.ensure_future(engine.commit([], [Put(b"key", b"")]))
            await asyncio.sleep(0)
            await engine.close(seconds_max=0.2)
            (line,) = (each.getMessage() for each in caplog.records if "hangs:" in each.message)
            assert set(line.split(": ")[1].split(", ")) == set(map(str, host.journals()))
            goes_on.set()
            await commit
    async with host.up() as engine:
        assert len(await everything(engine)) == 4


def test_who_is_slow_and_goes_on_is_not_late(host: Host) -> None:
    threads = DriveThreads(PATIENCE)
    folders = [Folder(drive) for drive in host.drives]
    slow = folders[0]

    def work(folder: Folder) -> None:
        begun = time.monotonic()
        while folder is slow and time.monotonic() - begun < 5 * PATIENCE:
            folder.steps += 1
            NEVER.wait(PATIENCE / 20)

    assert threads.on_all(folders, work) == {}
    assert not threads.hangs(slow)
    threads.close()


def test_a_drive_that_is_asked_alone_is_not_waited_for_beyond_a_limit(host: Host) -> None:
    threads = DriveThreads(PATIENCE)
    folder = Folder(host.drives[0])
    goes_on = threading.Event()
    assert list(threads.on_all([folder], lambda _: goes_on.wait(), seconds=PATIENCE)) == [folder]
    assert threads.hangs(folder)
    assert list(threads.on_all([folder], Folder.probe)) == [folder]  # at once
    goes_on.set()
    wait_until(lambda: not threads.hangs(folder))
    assert threads.answers(folder)
    threads.close()


def test_rows_that_fail_leave_no_file_and_no_drive_busy(host: Host) -> None:
    def rows() -> Iterator[tuple[bytes, bytes, int, int]]:
        yield from ((b"%d" % number, b"", 1, 0) for number in range(5_000))
        raise RuntimeError("no more")

    threads = DriveThreads(PATIENCE)
    folders = [Folder(drive) for drive in host.drives]
    at = Position(bytes(16), 1, 7, 72, 1, bytes(8))
    with pytest.raises(RuntimeError):
        put_snapshot(threads, folders, at, rows())
    for folder in folders:
        assert not threads.hangs(folder)
        assert list(folder.path.iterdir()) == []
    threads.close()


def test_what_a_late_thread_writes_is_in_no_file_of_another_process(tmp_path: Path) -> None:
    """Both write the same name; the late one had begun before."""
    late, other = Folder(tmp_path), Folder(tmp_path)

    def pieces() -> Iterator[bytes]:
        yield b"late"
        other.put_snapshot(3, [b"right"])
        late.left_behind = True
        yield b"later"

    with pytest.raises(OSError):
        late.put_snapshot(3, pieces())
    assert [path.read_bytes() for path in late.path.iterdir()] == [b"right"]


def test_a_late_thread_removes_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put_snapshot(3, [b""])
    folder.left_behind = True
    with pytest.raises(OSError, match="hung"):
        folder.forget(4)
    with pytest.raises(OSError, match="hung"):
        folder.prune(4)
    assert snapshots(tmp_path) == ["snapshot-000000000003"]


def test_threads_end_and_are_used_again(host: Host) -> None:
    def alive() -> int:
        return sum(thread.name == "journal" for thread in threading.enumerate())

    before = alive()
    threads = DriveThreads(PATIENCE)
    folders = [Folder(drive) for drive in host.drives]
    for _ in range(20):
        assert threads.on_all(folders, Folder.probe) == {}
        assert alive() - before <= len(folders)
    threads.close()
    wait_until(lambda: alive() == before)


async def test_who_is_cancelled_while_it_opens_keeps_the_lock_until_its_thread_has_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else that one would write to the journal beside another process."""
    begins, goes_on = threading.Event(), threading.Event()
    begin = Journal.begin

    def late(self: Journal, *arguments: Any) -> Position:
        begins.set()
        goes_on.wait()
        return begin(self, *arguments)

    def is_free() -> bool:
        with (host.metadata / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    monkeypatch.setattr(Journal, "begin", late)
    opening = asyncio.create_task(SqliteKV.open(host.metadata, Journal(host.drives, 3)))
    try:
        await until(begins.is_set)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert not is_free()
    finally:
        goes_on.set()
    await until(is_free)
    async with host.up() as engine:
        assert await everything(engine) == []
