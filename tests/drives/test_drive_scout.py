"""Drives that come while `s3gw up` runs are found, locked and used; what only looks like one is
left alone."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nodes.identity import DriveIdentity, DriveInUse, lock
from nodes.protocol import DriveError, DriveStats
from nodes.store import LocalDrive
from s3gw import app, drives
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.membership import Membership
from s3gw.cluster.topology import Topology
from s3gw.config import Config
from s3gw.drive_scout import DriveScout
from s3gw.drives import DriveAt, StartError, add_drive, open_drives, release
from s3gw.kv.interface import Put
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.supervisor import Grant, WorkerContext


class Machine:
    """The drives of a store whose processes are not running, and its scout."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = Config(data=str(directory), drives=6)
        made = open_drives(self.config)
        for drive in made.drives:
            (drive.path / "data" / "4+2").mkdir()
        release(made)
        self.ids = {drive.path.name: drive.identity.drive_id for drive in made.drives}
        self.store_id = made.store_id

    def start(self) -> None:
        self.found = open_drives(self.config)
        self.scout = DriveScout(self.config, self.store_id, self.found.locks)

    def look(self) -> dict[str, str]:
        """What a look finds: drive id to path, each locked."""
        found = {}
        for grant in self.scout():
            with pytest.raises(DriveInUse):
                os.close(lock(grant.value.path))
            assert self.found.locks[grant.name] == grant.fd
            found[grant.name] = grant.value.path
        return found

    def path(self, name: str) -> Path:
        return self.directory / name


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "store")
    made.start()
    yield made
    release(made.found)


def test_what_is_open_is_not_opened_again(machine: Machine) -> None:
    assert machine.look() == {}


def test_a_drive_that_was_added_is_found_once(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere"
    made = add_drive(machine.config, path, "")
    assert machine.look() == {made.identity.drive_id: str(path)}
    assert machine.look() == {}


@pytest.mark.parametrize("failed", ["absent", "broken", "empty id"])
def test_a_drive_that_was_lost_at_the_start_is_found_when_it_is_back(
    machine: Machine, tmp_path: Path, failed: str
) -> None:
    release(machine.found)
    path, aside = machine.path("drive-2"), tmp_path / "aside"
    path.rename(aside)
    if failed == "broken":
        shutil.copytree(aside, path)
        (path / "id.json").unlink()
        (path / "id.json").symlink_to("/proc/self/mem")
    machine.start()
    assert len(machine.found.drives) == 5
    assert machine.look() == {}
    if failed == "broken":
        shutil.rmtree(path)
    if failed == "empty id":  # the mount point comes before the disk
        path.mkdir()
        assert machine.look() == {}
        path.rmdir()
    aside.rename(path)
    assert machine.look() == {machine.ids["drive-2"]: str(path)}
    assert machine.look() == {}


@pytest.mark.parametrize("name", ["drive-2", "drive-7"])
def test_a_drive_that_was_pulled_is_found_where_it_is_back(
    machine: Machine, tmp_path: Path, name: str
) -> None:
    """A copy stands in for the disk that is back: it has another inode."""
    shutil.copytree(machine.path("drive-2"), tmp_path / "back")
    shutil.rmtree(machine.path("drive-2"))
    assert machine.look() == {}
    before = machine.found.locks[machine.ids["drive-2"]]
    (tmp_path / "back").rename(machine.path(name))
    if name == "drive-7":
        (machine.directory / "drives.json").write_text(f'{{"added": ["{machine.path(name)}"]}}')
    assert machine.look() == {machine.ids["drive-2"]: str(machine.path(name))}
    os.close(before)  # as the supervisor does
    assert machine.look() == {}


def test_a_copy_of_a_drive_that_works_is_left_alone(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the drive was, when that was only moved aside."""
    shutil.copytree(machine.path("drive-2"), tmp_path / "copy")
    machine.path("drive-2").rename(tmp_path / "aside")
    (tmp_path / "copy").rename(machine.path("drive-2"))
    for _ in range(3):
        assert machine.look() == {}
    assert caplog.text.count("is a copy of drive") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_drive_is_not_replaced_by_its_copy(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As one that fails is."""
    shutil.copytree(machine.path("drive-2"), machine.path("drive-7"))
    (machine.directory / "drives.json").write_text(f'{{"added": ["{machine.path("drive-7")}"]}}')
    really = os.open

    def fail(path: str, flags: int, *arguments: int, dir_fd: int | None = None) -> int:
        if dir_fd is not None and flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return really(path, flags, *arguments, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", fail)
    found = {machine.ids["drive-2"]: str(machine.path("drive-7"))}
    assert machine.look() == (found if number == errno.EIO else {})


def foreign(path: Path) -> None:
    DriveIdentity.claim(path, "f" * 16)


def files(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").touch()


def emptied(path: Path) -> None:
    DriveIdentity.claim(path, "")
    shutil.rmtree(path / "data")


def broken(path: Path) -> None:
    path.mkdir()
    (path / "id.json").symlink_to("/proc/self/mem")


@pytest.mark.parametrize("make", [foreign, files, emptied, broken, Path.touch, Path.mkdir])
def test_what_is_no_drive_of_this_store_is_left_alone_and_hides_no_other(
    machine: Machine, tmp_path: Path, make: object
) -> None:
    assert callable(make)
    path, good = tmp_path / "path", tmp_path / "zz"
    made = add_drive(machine.config, path, "")
    added = add_drive(machine.config, good, "")
    shutil.rmtree(made.path)
    make(path)
    before = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    assert machine.look() == {added.identity.drive_id: str(good)}
    assert (sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []) == before


def test_a_note_that_cannot_be_read_is_said_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    (machine.directory / "drives.json").write_text("{")
    for _ in range(3):
        assert machine.look() == {}
    assert caplog.text.count("drives.json cannot be read") == 1


@contextmanager
def hanging_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Who opens the drive there waits until the event is set, at the latest in the end."""
    goes_on, opened = threading.Event(), DriveIdentity.open

    def slowly(at: Path, **expected: str) -> DriveIdentity:
        if at == path:
            goes_on.wait()
        return opened(at, **expected)

    with monkeypatch.context() as patched:
        patched.setattr(DriveIdentity, "open", slowly)
        try:
            yield goes_on
        finally:
            goes_on.set()


def looking() -> int:
    return sum(thread.name == "disk" for thread in threading.enumerate())


def test_a_disk_that_hangs_hides_no_other_and_is_found_when_it_answers(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hung = add_drive(machine.config, tmp_path / "hung", "")
    good = add_drive(machine.config, tmp_path / "zz", "")
    later = add_drive(machine.config, tmp_path / "zzz", "")
    later.path.rename(tmp_path / "aside")
    machine.scout = DriveScout(
        machine.config, machine.store_id, machine.found.locks, look_seconds_max=1
    )
    with hanging_at(hung.path, monkeypatch) as goes_on:
        assert machine.look() == {good.identity.drive_id: str(good.path)}
        (tmp_path / "aside").rename(later.path)
        assert machine.look() == {later.identity.drive_id: str(later.path)}
        for _ in range(3):
            assert machine.look() == {}
        assert looking() == 1
        assert caplog.text.count(f"{hung.path} is left alone: it hangs") == 1
        goes_on.set()
        while not (found := machine.look()):
            pass
        assert found == {hung.identity.drive_id: str(hung.path)}
    assert machine.look() == {}


def test_a_start_goes_on_without_a_disk_that_hangs_which_is_found_when_it_answers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(machine.found)
    hung = machine.path("drive-2")
    monkeypatch.setattr(drives, "LOOK_SECONDS_MAX", 1.0)
    with hanging_at(hung, monkeypatch) as goes_on:
        machine.start()
        assert machine.found.failed == {hung: f"{hung} hangs"}
        assert [drive.path.name for drive in machine.found.drives] == [
            f"drive-{number}" for number in (1, 3, 4, 5, 6)
        ]
        goes_on.set()
    assert machine.look() == {machine.ids["drive-2"]: str(hung)}


def test_no_store_is_made_while_a_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drives, "LOOK_SECONDS_MAX", 0.2)
    config = Config(data=str(tmp_path), drives=6)
    hung = DriveIdentity.claim(tmp_path / "drive-3", "s").path
    with hanging_at(hung, monkeypatch), pytest.raises(StartError, match="drive-3 hangs"):
        open_drives(config)
    assert [path.name for path in tmp_path.iterdir()] == ["drive-3"]


def test_a_drive_that_hung_and_was_found_elsewhere_meanwhile_is_not_taken(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = add_drive(machine.config, tmp_path / "hung", "")
    shutil.copytree(hung.path, tmp_path / "back")
    (machine.directory / "drives.json").write_text(
        f'{{"added": ["{hung.path}", "{tmp_path / "back"}"]}}'
    )
    machine.scout = DriveScout(
        machine.config, machine.store_id, machine.found.locks, look_seconds_max=1
    )
    drive_id = hung.identity.drive_id
    with hanging_at(hung.path, monkeypatch) as goes_on:
        assert machine.look() == {drive_id: str(tmp_path / "back")}
        # It passed the question whether it is open before that one was.
        monkeypatch.setattr("s3gw.drive_scout._works", lambda lock: False)
        machine.found.locks[drive_id], kept = -1, machine.found.locks[drive_id]
        goes_on.set()
        while looking():
            pass
        machine.found.locks[drive_id] = kept
        assert machine.look() == {}
    os.close(lock(hung.path))  # nobody holds it


class Process:
    """A process of `up` with one drive in use, and the grants that it gets."""

    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self.root = root
        self.kv = MemoryKV(MemoryStore())
        self.directory = Directory(asyncio.get_running_loop().time)
        self.journal = app.journal_on(Config(), [self.claim("d1")])
        task = app.Task(Config(), "s", (self.place("d1"),))
        fds = {"d1": lock(root / "d1")}
        self.context = WorkerContext(0, 1, task, [], fds, asyncio.Event(), -1)
        membership = Membership(self.kv, self.directory, Topology(self.kv), None)
        self.late = app.LateDrives(self.context, stack, self.directory, membership, self.journal)
        self.late.retry_seconds = 0.01

    def claim(self, name: str) -> Path:
        return DriveIdentity.claim(self.root / name, "s", drive_id=name).path

    def place(self, name: str) -> DriveAt:
        return DriveAt(str(self.root / name), name)

    def grant(self, name: str) -> None:
        self.context.fds[name] = lock(self.root / name)
        self.context.grants.put_nowait(Grant(name, self.context.fds[name], self.place(name)))

    def live(self) -> dict[str, bool]:
        return {node.id: node.live for node in self.directory.all()}


async def test_a_process_uses_what_comes_and_tries_again_what_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        process = Process(tmp_path, stack)
        await process.kv.commit([], [Put(b"k", b"v")])
        process.claim("d3").joinpath("id.json").rename(tmp_path / "kept")
        process.claim("d2")
        process.grant("d3")
        process.grant("d2")
        following = asyncio.create_task(process.late.follow(process.kv, 1))
        while "d2" not in process.live():
            await asyncio.sleep(0.01)
        assert process.live() == {"d2": True}
        assert caplog.text.count("cannot be used") == 1
        (tmp_path / "kept").rename(tmp_path / "d3" / "id.json")
        while "d3" not in process.live():
            await asyncio.sleep(0.01)
        assert process.late.places == [process.place("d2"), process.place("d3")]
        assert caplog.text.count("cannot be used") == 1
        following.cancel()


async def test_a_drive_that_hangs_keeps_no_other_from_being_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not used when it answers at last, having come again elsewhere in between."""
    hanging, opened = threading.Event(), DriveIdentity.open

    def slowly(path: str, **expected: str) -> DriveIdentity:
        if path == str(tmp_path / "d2") and not expected:  # with its lock, as the one to be used
            hanging.wait(30)
        return opened(path, **expected)

    async with AsyncExitStack() as stack, asyncio.timeout(60):
        process = Process(tmp_path, stack)
        shutil.copytree(process.claim("d2"), tmp_path / "back")
        process.claim("d3")
        monkeypatch.setattr(DriveIdentity, "open", slowly)
        process.grant("d2")
        following = asyncio.create_task(process.late.follow(process.kv, 1))
        idle = len(asyncio.all_tasks())
        try:
            process.grant("d3")
            while "d3" not in process.live():
                await asyncio.sleep(0.01)
            back = DriveAt(str(tmp_path / "back"), "d2")
            process.context.fds["d2"] = lock(back.path)
            process.context.grants.put_nowait(Grant("d2", process.context.fds["d2"], back))
            while "d2" not in process.live():
                await asyncio.sleep(0.01)
            hanging.set()
            while len(asyncio.all_tasks()) > idle:
                await asyncio.sleep(0.01)
            assert process.late.places == [process.place("d3"), back]
        finally:
            hanging.set()
            following.cancel()


async def test_a_process_starts_without_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "OPEN_SECONDS_MAX", 0.5)
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        process = Process(tmp_path, stack)
        hung = process.claim("d2")
        process.context.fds["d2"] = lock(hung)
        task = app.Task(Config(), "s", (process.place("d1"), process.place("d2")))
        process.context.payload = task
        opened, goes_on = DriveIdentity.open, threading.Event()

        def slowly(path: str, **expected: str) -> DriveIdentity:
            if path == str(hung):
                goes_on.wait()
            return opened(path, **expected)

        monkeypatch.setattr(DriveIdentity, "open", slowly)
        try:
            assert list(await app.open_served_drives(task, process.context, stack)) == ["d1"]
            assert f"{hung} hangs" in caplog.text
            process.late.places.append(process.place("d1"))
            process.late.await_others(task.drives)
            following = asyncio.create_task(process.late.follow(process.kv, 1))
        finally:
            goes_on.set()
        while "d2" not in process.live():
            await asyncio.sleep(0.01)
        following.cancel()


async def test_a_drive_that_fails_when_it_is_opened_keeps_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again every few seconds, for as long as it fails."""

    async def failing(self: LocalDrive) -> DriveStats:
        await stats(self)  # in a thread
        raise DriveError("Input/output error")

    def held() -> tuple[int, int]:
        threads = sum(thread.name.startswith("drive-d1") for thread in threading.enumerate())
        return len(os.listdir("/proc/self/fd")), threads

    stats = LocalDrive.stats
    monkeypatch.setattr(LocalDrive, "stats", failing)
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        process = Process(tmp_path, stack)
        before = held()
        for _ in range(5):
            with pytest.raises(DriveError, match="output error"):
                await app.open_drive(process.context, process.place("d1"), stack)
        while held() != before:  # the threads end by themselves
            await asyncio.sleep(0.01)


async def test_a_drive_that_is_back_takes_the_place_of_its_dead_handle(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        process = Process(tmp_path, stack)
        before = await app.open_drive(process.context, process.place("d1"), stack)
        node = Node("d1", "d1", before)
        process.directory.add(node)
        shutil.copytree(tmp_path / "d1", tmp_path / "back")
        shutil.rmtree(tmp_path / "d1")
        (tmp_path / "back").rename(tmp_path / "d1")
        process.context.fds["d1"] = lock(tmp_path / "d1")
        await process.late.use(process.place("d1"), (1, 1))
        assert process.directory.get("d1") is node
        assert node.drive is not before
        assert (await node.drive.stats()).drive_id == "d1"


async def test_a_drive_that_has_seen_newer_metadata_is_not_used(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        process = Process(tmp_path, stack)
        DriveIdentity.open(tmp_path / "d1").raise_seen(1, 8)
        with pytest.raises(app.IdentityError, match="newer metadata"):
            await process.late.use(process.place("d1"), (1, 7))
        await process.late.use(process.place("d1"), (1, 8))


async def test_a_process_that_starts_again_has_what_came_before(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        process = Process(tmp_path, stack)
        process.claim("d2")
        process.grant("d2")
        moved = replace(process.place("d1"), path=str(tmp_path / "elsewhere"))
        process.context.grants.put_nowait(Grant("d1", process.context.fds["d1"], moved))
        task = app.with_grants(process.context)
        assert task.drives == (moved, process.place("d2"))
        assert process.context.grants.empty()


async def test_the_journal_goes_on_with_a_drive_that_came_later(tmp_path: Path) -> None:
    """Three drives hold it; none but the one that came can take the place of one that is lost. The
    lost one is back after that, as another directory at its path."""
    config = Config()
    paths = [DriveIdentity.claim(tmp_path / f"d{n}", "s").path for n in range(3)]
    journal = app.journal_on(config, paths)
    kv = await app.open_sqlite(config, paths, tmp_path / "metadata", journal)
    try:
        await kv.commit([], [Put(b"k", b"1")])
        late = DriveIdentity.claim(tmp_path / "late", "s").path
        journal.add(late)
        shutil.copytree(paths[0], tmp_path / "back")
        shutil.rmtree(paths[0])
        await kv.commit([], [Put(b"k", b"2")])
        assert any((late / "journal").glob("segment-*"))
        (tmp_path / "back").rename(paths[0])
        journal.add(paths[0])
        shutil.rmtree(paths[1])
        revision = await kv.commit([], [Put(b"k", b"3")])
    finally:
        await kv.close()
    shutil.rmtree(tmp_path / "metadata")
    shutil.rmtree(paths[2])
    kv = await app.open_sqlite(
        config,
        [paths[0], late, DriveIdentity.claim(tmp_path / "new", "s").path],
        tmp_path / "metadata",
    )
    try:
        (item,) = (await kv.get_many([b"k"])).items
        assert item is not None
        assert (item.value, item.revision) == (b"3", revision)
    finally:
        await kv.close()
