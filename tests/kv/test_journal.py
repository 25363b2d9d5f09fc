"""The SQLite engine with its journal: disks and databases are lost, processes die."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from s3gw.kv.interface import Item, LeaseLost, NoSpace, Put, Unavailable
from s3gw.kv.journal import Journal, JournalLost
from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_threads import PATIENCE_SECONDS, DriveThreads
from s3gw.kv.sqlite import SqliteKV
from s3gw.kv.sqlite_database import Database
from tests.kv.test_sqlite import SECONDS_MAX, start_hammer

COPIES = 3


class Host:
    """One machine: a metadata folder and six drives."""

    def __init__(self, root: Path) -> None:
        self.metadata = root / "metadata"
        self.drives = [root / f"drive-{number}" for number in range(6)]
        for drive in self.drives:
            drive.mkdir()

    @asynccontextmanager
    async def up(
        self, *, segment_bytes: int = 10**8, patience_seconds: float = PATIENCE_SECONDS
    ) -> AsyncIterator[SqliteKV]:
        present = [drive for drive in self.drives if drive.is_dir()]
        journal = Journal(
            present, COPIES, segment_bytes=segment_bytes, patience_seconds=patience_seconds
        )
        engine = await SqliteKV.open(self.metadata, journal)
        try:
            yield engine
        finally:
            await engine.close()

    def journals(self) -> list[Path]:
        """The drives that have a segment."""
        return [d for d in self.drives if list((d / "journal").glob("segment-*"))]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def everything(engine: SqliteKV) -> list[Item]:
    return (await engine.scan(b"", b"\xff", limit=10_000)).items


async def fill(engine: SqliteKV, name: str, count: int = 20) -> None:
    for number in range(count):
        await engine.commit([], [Put(f"{name}/{number}".encode(), bytes(30))])


@pytest.mark.parametrize("lost", [*itertools.combinations(range(COPIES), COPIES - 1)])
async def test_metadata_and_any_m_drives_can_be_deleted(host: Host, lost: tuple[int, ...]) -> None:
    async with host.up() as engine:
        await fill(engine, "first")
        expected = await everything(engine)
        revision = (await engine.get_many([])).revision
    journals = host.journals()
    assert len(journals) == COPIES
    shutil.rmtree(host.metadata)
    for number in lost:
        shutil.rmtree(journals[number])
    async with host.up() as engine:
        assert await everything(engine) == expected
        assert await engine.commit([], [Put(b"next", b"")]) > revision
        expected = await everything(engine)
    shutil.rmtree(host.metadata)
    for drive in [d for d in host.journals() if d.is_dir()][: COPIES - 1]:
        shutil.rmtree(drive)
    async with host.up() as engine:
        assert await everything(engine) == expected


async def test_an_older_copy_of_the_database_catches_up(host: Host, tmp_path: Path) -> None:
    async with host.up() as engine:
        await fill(engine, "first")
    shutil.copytree(host.metadata, tmp_path / "backup")
    async with host.up() as engine:
        await fill(engine, "second")
        expected = await everything(engine)
    shutil.rmtree(host.metadata)
    shutil.copytree(tmp_path / "backup", host.metadata)
    async with host.up() as engine:
        assert await everything(engine) == expected


async def test_a_power_cut_between_journal_and_database_keeps_the_commit(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(database: Database) -> None:
        raise sqlite3.OperationalError("power cut")

    async with host.up() as engine:
        revision = await engine.commit([], [Put(b"key", b"1")])
        with monkeypatch.context() as patched:
            patched.setattr(Database, "commit", cut)
            with pytest.raises(Unavailable):
                await engine.commit([], [Put(b"key", b"2")])
    async with host.up() as engine:
        assert await everything(engine) == [Item(b"key", b"2", revision + 1)]
        assert await engine.commit([], [Put(b"key", b"3")]) == revision + 2


async def test_the_same_process_also_applies_what_its_database_missed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(database: Database) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with host.up() as engine:
        with monkeypatch.context() as patched:
            patched.setattr(Database, "commit", cut)
            with pytest.raises(Unavailable):
                await engine.commit([], [Put(b"key", b"unknown")])
        revision = await engine.commit([], [Put(b"other", b"")])
        assert await everything(engine) == [
            Item(b"key", b"unknown", revision - 1),
            Item(b"other", b"", revision),
        ]


async def test_leases_and_their_keys_do_not_outlive_the_database(host: Host) -> None:
    async with host.up() as engine:
        lease = await engine.grant_lease(3600)
        await engine.commit([], [Put(b"held", b"", lease), Put(b"free", b"")])
        revision = (await engine.get_many([])).revision
    shutil.rmtree(host.metadata)
    async with host.up() as engine:
        assert [item.key for item in await everything(engine)] == [b"free"]
        assert (await engine.get_many([])).revision > revision
        with pytest.raises(LeaseLost):
            await engine.renew_lease(lease)


async def test_a_rebuilt_database_has_no_history_before_its_snapshot(host: Host) -> None:
    async with host.up() as engine:
        await fill(engine, "first")
    shutil.rmtree(host.metadata)
    async with host.up() as engine:
        relist = await anext(engine.watch(b"first/", after_revision=0))
        assert relist.kind.value == "relist"
        events = engine.watch(b"first/", after_revision=1)
        assert [(await anext(events)).key for _ in range(20)] == [
            f"first/{number}".encode() for number in range(20)
        ]


async def test_journals_stay_bounded_and_snapshots_carry_the_rest(host: Host) -> None:
    async with host.up(segment_bytes=5_000) as engine:
        for round_ in range(300):
            await engine.commit([], [Put(b"key-%d" % (round_ % 10), bytes(100))])
        expected = await everything(engine)
    for drive in host.journals():
        size = sum(path.stat().st_size for path in (drive / "journal").iterdir())
        assert size < 60_000
    shutil.rmtree(host.metadata)
    for drive in host.journals()[: COPIES - 1]:
        shutil.rmtree(drive)
    async with host.up() as engine:
        assert await everything(engine) == expected


async def test_a_failing_drive_is_replaced_without_failing_the_commit(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Folder.append
    async with host.up() as engine:
        await fill(engine, "first", 3)
        failing = host.journals()[0]

        def broken(folder: Folder, entry: bytes, offset: int) -> None:
            if folder.path.parent == failing:
                raise OSError(5, "Input/output error")
            append(folder, entry, offset)

        monkeypatch.setattr(Folder, "append", broken)
        await fill(engine, "second", 3)
        expected = await everything(engine)
    await require_all_on_one_drive(host, expected, replaced=failing)


async def require_all_on_one_drive(host: Host, expected: list[Item], *, replaced: Path) -> None:
    """The set is complete without a drive that was replaced, and one of its drives has all."""
    others = [path for path in host.journals() if path != replaced]
    assert len(others) == COPIES
    shutil.rmtree(host.metadata)
    for path in others[: COPIES - 1]:
        shutil.rmtree(path)
    async with host.up() as engine:
        assert await everything(engine) == expected


@contextmanager
def hanging(drive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No write to a drive's journal returns; in the end all do what they were to."""
    goes_on = threading.Event()
    append, replace = Folder.append, Folder._replace

    def late_append(folder: Folder, entry: bytes, offset: int) -> None:
        if folder.path.parent == drive:
            goes_on.wait()
        append(folder, entry, offset)

    def late_replace(folder: Folder, name: str, data: Iterable[bytes]) -> None:
        if folder.path.parent == drive:
            goes_on.wait()
        replace(folder, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "append", late_append)
        patched.setattr(Folder, "_replace", late_replace)
        try:
            yield
        finally:
            goes_on.set()


async def test_a_drive_that_hangs_is_replaced_and_what_it_does_late_is_no_harm(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host.up(patience_seconds=0.2) as engine, host.up(patience_seconds=0.2) as other:
        await fill(engine, "first", 3)
        drive = host.journals()[0]
        with hanging(drive, monkeypatch):
            async with asyncio.timeout(60):
                await fill(engine, "second", 3)
                await fill(other, "third", 3)
                await fill(engine, "fourth", 3)
        await fill(engine, "fifth", 3)
        await fill(other, "sixth", 3)
        expected = await everything(engine)
        assert len(expected) == 18
    await require_all_on_one_drive(host, expected, replaced=drive)


@pytest.mark.parametrize("kept", range(COPIES))
async def test_without_a_drive_in_place_of_one_that_hangs_writes_fail_until_it_is_back(
    host: Host, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    for drive in host.drives[COPIES:]:
        shutil.rmtree(drive)
    async with host.up(patience_seconds=0.2) as engine:
        await fill(engine, "first", 3)
        with hanging(host.drives[1], monkeypatch):
            async with asyncio.timeout(60):
                for _ in range(3):
                    with pytest.raises(Unavailable):
                        await engine.commit([], [Put(b"key", b"1")])
                assert len(await everything(engine)) == 3
        async with asyncio.timeout(60):
            while True:
                try:
                    await engine.commit([], [Put(b"key", b"2")])
                except Unavailable:
                    await asyncio.sleep(0.01)
                else:
                    break
        expected = await everything(engine)
    shutil.rmtree(host.metadata)
    for number in {*range(COPIES)} - {kept}:
        shutil.rmtree(host.drives[number])
    async with host.up() as engine:
        assert await everything(engine) == expected


def test_drives_that_are_all_slow_are_waited_for(host: Host) -> None:
    """Nobody is late before one has answered, however impatient the journal is."""
    threads = DriveThreads(patience_seconds=0)
    folders = [Folder(drive) for drive in host.drives]
    answer = threading.Event()
    asking = threading.Thread(target=threads.on_all, args=(folders, lambda _: answer.wait()))
    asking.start()
    asking.join(0.2)
    assert asking.is_alive()
    answer.set()
    asking.join()
    threads.close()


def test_a_drive_that_nobody_waits_for_gives_nothing_a_name(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.left_behind = True
    with pytest.raises(OSError, match="hung"):
        folder.write_record(b"c" * 16, 1, ["a"])
    assert folder.survey() is None


async def test_full_journal_drives_are_no_space(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Folder, entry: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    async with host.up() as engine:
        revision = await engine.commit([], [Put(b"key", b"1")])
        with monkeypatch.context() as patched:
            patched.setattr(Folder, "append", full)
            with pytest.raises(NoSpace):
                await engine.commit([], [Put(b"key", b"2")])
        assert await everything(engine) == [Item(b"key", b"1", revision)]
        assert await engine.commit([], [Put(b"key", b"3")]) == revision + 1


async def test_too_few_drives_serve_reads_only(host: Host) -> None:
    async with host.up() as engine:
        await fill(engine, "first")
        expected = await everything(engine)
    shutil.rmtree(host.metadata)
    keep = host.journals()[0]
    for drive in host.drives:
        if drive != keep:
            shutil.rmtree(drive)
    async with host.up() as engine:
        assert await everything(engine) == expected
        with pytest.raises(Unavailable):
            await engine.commit([], [Put(b"key", b"")])


async def test_without_any_journal_drive_opening_is_refused(host: Host) -> None:
    async with host.up() as engine:
        await fill(engine, "first")
    shutil.rmtree(host.metadata)
    for drive in host.journals():
        shutil.rmtree(drive)
    with pytest.raises(JournalLost):
        async with host.up():
            pass


async def test_a_database_with_a_journal_is_not_opened_without(host: Host) -> None:
    async with host.up() as engine:
        await fill(engine, "first", 1)
    with pytest.raises(JournalLost):
        await SqliteKV.open(host.metadata, None)


async def test_a_journal_is_added_to_a_database_that_had_none(host: Host) -> None:
    plain = await SqliteKV.open(host.metadata, None)
    await fill(plain, "first")
    expected = await everything(plain)
    await plain.close()
    async with host.up() as engine:
        assert await everything(engine) == expected
    shutil.rmtree(host.metadata)
    async with host.up() as engine:
        assert await everything(engine) == expected


async def test_processes_share_the_journal_and_a_killed_one_loses_nothing(host: Host) -> None:
    arguments = (host.metadata, 90, host.drives, COPIES)
    killed = start_hammer(host.metadata, 100_000, host.drives, COPIES)
    others = [start_hammer(*arguments) for _ in range(2)]
    assert killed.stdout is not None
    seen = [int(await asyncio.to_thread(killed.stdout.readline)) for _ in range(25)]
    killed.send_signal(signal.SIGKILL)
    rest, _ = await asyncio.to_thread(killed.communicate, timeout=SECONDS_MAX)
    acknowledged = seen + [int(line) for line in rest.split("\n")[:-1]]
    for process in others:
        output, _ = await asyncio.to_thread(process.communicate, timeout=SECONDS_MAX)
        assert process.returncode == 0
        acknowledged += [int(line) for line in output.split()]
    assert len(set(acknowledged)) == len(acknowledged)
    async with host.up() as engine:
        expected = await everything(engine)
    assert {b"by/%d" % value for value in acknowledged} <= {item.key for item in expected}
    shutil.rmtree(host.metadata)
    for drive in host.journals()[: COPIES - 1]:
        shutil.rmtree(drive)
    async with host.up() as engine:
        assert await everything(engine) == expected


async def test_a_database_that_cannot_commit_does_not_let_the_journal_run_ahead(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(database: Database) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with host.up() as engine:
        revision = await engine.commit([], [Put(b"key", b"0")])
        with monkeypatch.context() as patched:
            patched.setattr(Database, "commit", full)
            for _ in range(4):
                with pytest.raises(Unavailable):
                    await engine.commit([], [Put(b"key", b"unknown")])
        assert await engine.commit([], [Put(b"other", b"")]) == revision + 2
        assert (await everything(engine))[0] == Item(b"key", b"unknown", revision + 1)
