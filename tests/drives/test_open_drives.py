"""Drives are claimed for the store that they serve, and found again by it alone."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from nodes.identity import DriveIdentity
from s3gw import app, drives, launch
from s3gw.config import Config
from s3gw.drives import (
    DriveSet,
    StartError,
    add_drive,
    metadata_directory,
    open_drives,
    paths_of,
    release,
)
from s3gw.kv.interface import Put
from s3gw.supervisor import WorkerContext

STORE = "0123456789abcdef"


def node_config(tmp_path: Path) -> Config:
    path = str(tmp_path / "drive")
    return Config(data=path, drive=(path,))


def test_a_new_drive_belongs_to_the_store_that_its_cluster_has(tmp_path: Path) -> None:
    config = node_config(tmp_path)
    found = open_drives(config, STORE)
    release(found)
    assert found.new
    assert [drive.identity.store_id for drive in found.drives] == [STORE]
    (found.paths[0] / "data" / "4+2").mkdir()
    again = open_drives(config, STORE)
    release(again)
    assert not again.new
    assert again.drives[0].identity == found.drives[0].identity


def opened_by_two(config: Config, before: Callable[[], None]) -> list[str]:
    """What became of two who look for the drives of a new store at once: "" or why not. `before`
    is called before each claim."""
    claim = DriveIdentity.claim

    def started() -> str:
        try:
            found.append(open_drives(config))
        except StartError as error:
            return str(error)
        return ""

    def claimed(path: Path, store_id: str) -> DriveIdentity:
        before()
        return claim(path, store_id)

    found: list[DriveSet] = []
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(DriveIdentity, "claim", claimed)
        said = list(threads.map(lambda _: started(), range(2)))
    for each in found:
        release(each)
    return sorted(said)


def test_of_two_who_make_a_store_at_once_one_does_and_the_other_says_why_not(
    tmp_path: Path,
) -> None:
    config = Config(data=str(tmp_path / "data"))
    first, second = opened_by_two(config, lambda: None)
    assert first == ""
    assert second.endswith("drive-1 is in use by another process")
    found = open_drives(config)
    release(found)
    assert len({drive.identity.store_id for drive in found.drives}) == 1
    assert len(found.drives) == len(paths_of(config))


def test_whoever_makes_a_store_for_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(data=str(tmp_path / "data"))
    monkeypatch.setattr(drives, "ALONE_SECONDS_MAX", 0.1)
    hanging, told = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        told.wait(10)

    said: list[str] = []
    making = threading.Thread(target=lambda: said.extend(opened_by_two(config, hang)))
    making.start()
    try:
        assert hanging.wait(10)
        with pytest.raises(StartError, match=r"another process is starting on .*data"):
            open_drives(config)
    finally:
        told.set()
        making.join()
    assert said[0] == ""


@pytest.mark.parametrize("used", [False, True])
def test_a_drive_of_another_store_is_refused(tmp_path: Path, used: bool) -> None:
    config = node_config(tmp_path)
    found = open_drives(config, STORE)
    release(found)
    if used:
        (found.paths[0] / "data" / "4+2").mkdir()
    with pytest.raises(StartError, match=f"is a drive of store {STORE}, but etcd holds store"):
        open_drives(config, "f" * 16)


async def test_a_store_is_never_laid_out_without_a_drive_that_it_is_to_have(tmp_path: Path) -> None:
    """The first start was killed between its journal and its layout; then a drive was lost."""
    config = Config(data=str(tmp_path), drives=6)
    found = open_drives(config)
    release(found)
    kv = await app.open_sqlite(config, found.paths, metadata_directory(config))
    await kv.close()
    shutil.rmtree(found.paths[5])
    again = open_drives(config)
    release(again)
    assert again.absent == [found.paths[5]]
    with pytest.raises(StartError, match="never finished"):
        await launch._prepare_store(config, again, launch._places(again))


def on_machine(tmp_path: Path) -> Config:
    return Config(data=str(tmp_path), drives=6)


async def made_store(config: Config) -> str:
    """A store on this machine, stopped; its id."""
    found = open_drives(config)
    await launch._prepare_store(config, found, launch._places(found))
    release(found)
    return found.store_id


async def test_a_drive_is_added_to_the_store_that_its_database_names(tmp_path: Path) -> None:
    config = on_machine(tmp_path)
    store = await made_store(config)
    kv = await app.open_sqlite(config, open_paths(config), metadata_directory(config))
    try:  # also while the store runs
        named = app.store_of_metadata(metadata_directory(config))
        added = add_drive(Config(data=str(tmp_path), drive=("/nowhere",)), tmp_path / "new", named)
    finally:
        await kv.close()
    assert added.identity.store_id == store
    named_too = tuple(str(path) for path in (*paths_of(config), tmp_path / "new"))
    for settings in (config, Config(data=str(tmp_path), drive=named_too)):
        again = open_drives(settings)
        release(again)
        ids = [drive.identity.drive_id for drive in again.drives]
        assert (len(ids), ids[-1]) == (7, added.identity.drive_id)


def open_paths(config: Config) -> list[Path]:
    found = open_drives(config)
    release(found)
    return found.paths


async def test_a_drive_is_added_to_the_store_of_the_other_drives_when_its_database_is_lost(
    tmp_path: Path,
) -> None:
    config = on_machine(tmp_path)
    store = await made_store(config)
    assert add_drive(config, tmp_path / "drive-7", "").identity.store_id == store


async def test_drives_added_at_once_are_all_found(tmp_path: Path) -> None:
    config = on_machine(tmp_path)
    store = await made_store(config)
    paths = [tmp_path / f"new-{number}" for number in range(8)]
    await asyncio.gather(*(asyncio.to_thread(add_drive, config, path, store) for path in paths))
    assert set(open_paths(config)[6:]) == set(paths)


async def test_a_drive_whose_adding_died_before_its_path_was_noted_is_noted_by_the_next_try(
    tmp_path: Path,
) -> None:
    config = on_machine(tmp_path)
    store = await made_store(config)
    DriveIdentity.claim(tmp_path / "new", store)
    assert tmp_path / "new" not in open_paths(config)
    with pytest.raises(StartError, match="already"):
        add_drive(config, tmp_path / "new", store)
    assert open_paths(config)[-1] == tmp_path / "new"


def io_errors(drive: Path) -> None:
    """Its id file gives EIO, as a disk does whose sectors cannot be read."""
    (drive / "id.json").unlink()
    (drive / "id.json").symlink_to("/proc/self/mem")


def no_shards(drive: Path) -> None:
    shutil.rmtree(drive / "data")


FAILURES = [(io_errors, "Input/output error"), (no_shards, "without its shards")]


@pytest.mark.parametrize(("fail", "reason"), FAILURES)
async def test_a_start_leaves_out_drives_that_cannot_be_used(
    fail: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    config = on_machine(tmp_path)
    await made_store(config)
    drives = open_paths(config)
    kv = await app.open_sqlite(config, drives, metadata_directory(config))
    await kv.commit([], [Put(b"k", b"v")])
    await kv.close()
    for drive in drives[:2]:
        fail(drive)
    found = open_drives(config)
    try:
        assert found.paths == drives[2:]
        assert set(found.failed) == set(drives[:2])
        assert all(reason in text for text in found.failed.values())
        await launch._prepare_store(config, found, launch._places(found))
    finally:
        release(found)


async def test_no_store_is_made_or_started_on_drives_that_all_fail(tmp_path: Path) -> None:
    config = on_machine(tmp_path)
    await made_store(config)
    for number in range(1, 7):
        io_errors(tmp_path / f"drive-{number}")
    with pytest.raises(StartError, match="Input/output error"):
        open_drives(config)


def test_a_store_that_was_never_finished_waits_for_the_drive_that_fails(tmp_path: Path) -> None:
    config = on_machine(tmp_path)
    release(open_drives(config))
    io_errors(tmp_path / "drive-2")
    with pytest.raises(StartError, match="Input/output error"):
        open_drives(config)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("drive-1", "is drive [0-9a-f]+ of this store already"),
        ("full", "is not empty and not a drive"),
        ("foreign", "is a drive of store f+, not of"),
        ("full/file", "is not a directory"),
    ],
)
async def test_a_directory_that_cannot_be_a_new_drive_is_refused(
    tmp_path: Path, path: str, message: str
) -> None:
    config = on_machine(tmp_path)
    store = await made_store(config)
    DriveIdentity.claim(tmp_path / "foreign", "f" * 16)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "full").iterdir()}
    with pytest.raises(StartError, match=message):
        add_drive(config, tmp_path / path, store)
    assert before == {each: each.stat().st_mtime_ns for each in (tmp_path / "full").iterdir()}


def test_without_a_store_no_drive_is_added(tmp_path: Path) -> None:
    assert app.store_of_metadata(metadata_directory(on_machine(tmp_path))) == ""
    with pytest.raises(StartError, match="there is no store in"):
        add_drive(on_machine(tmp_path), tmp_path / "new", "")
    assert not (tmp_path / "new").exists()


async def test_a_new_drive_holds_the_journal_when_others_are_lost(tmp_path: Path) -> None:
    """Three drives hold it; of those two are lost, then the database and the third."""
    config = on_machine(tmp_path)
    store = await made_store(config)
    paths = open_paths(config)[:3]
    for old in open_paths(config)[3:]:
        shutil.rmtree(old)
    added = [add_drive(config, tmp_path / f"new-{n}", store).path for n in range(2)]
    for path in paths[:2]:
        shutil.rmtree(path)
    database = metadata_directory(config)
    kv = await app.open_sqlite(config, [paths[2], *added], database)
    revision = await kv.commit([], [Put(b"k", b"v")])
    await kv.close()
    shutil.rmtree(paths[2])
    shutil.rmtree(database)
    spare = add_drive(config, tmp_path / "spare", store).path
    kv = await app.open_sqlite(config, [*added, spare], database)
    reading = await kv.get_many([b"k"])
    await kv.close()
    assert [(item.value, item.revision) for item in reading.items if item] == [(b"v", revision)]


async def test_the_journal_is_never_written_to_the_mount_point_of_a_lost_drive(
    tmp_path: Path,
) -> None:
    config = on_machine(tmp_path)
    await made_store(config)
    paths = open_paths(config)
    kv = await app.open_sqlite(config, paths, metadata_directory(config))
    try:
        for path in paths[:3]:  # one after the other all that it was on at first
            path.rename(path.with_name(f"{path.name}-gone"))
            path.mkdir()
            await kv.commit([], [Put(b"k", b"v")])
    finally:
        await kv.close()
    assert not any(any(path.iterdir()) for path in paths[:3])


async def test_a_process_that_starts_again_goes_on_without_the_drives_that_are_gone(
    tmp_path: Path,
) -> None:
    """One drive was removed, of one only the mount point is left: neither is touched."""
    config = on_machine(tmp_path)
    await made_store(config)
    found = open_drives(config)
    try:
        shutil.rmtree(found.paths[0])
        found.paths[1].rename(tmp_path / "unmounted")
        found.paths[1].mkdir()
        task = app.Task(config, found.store_id, launch._places(found))
        context = WorkerContext(0, 1, task, [], found.locks, asyncio.Event(), -1)
        async with AsyncExitStack() as stack:
            drives = await app.open_served_drives(task, context, stack)
            assert list(drives) == [drive.identity.drive_id for drive in found.drives[2:]]
        assert not found.paths[0].exists()
        assert not any(found.paths[1].iterdir())
    finally:
        release(found)
