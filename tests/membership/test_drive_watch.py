"""Drives of the process that stop working are down until they have worked again for a while."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from nodes.identity import DriveIdentity
from nodes.memory import Fault, MemoryDrive
from nodes.protocol import DriveError, DriveLost, ShardName
from nodes.store import LocalDrive
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.drive_watch import (
    DOWN_SECONDS,
    PROBE_SECONDS,
    UP_SECONDS,
    UP_SECONDS_MAX,
    DriveWatch,
)
from tests.stores.memory_store import Clock
from tests.stores.virtual_time import run_virtual

BROKEN = Fault(error=DriveError("EIO"))


class Machine:
    """Two drives and their watch."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.directory = Directory(self.clock.monotonic)
        self.drives = {name: MemoryDrive(drive_id=name) for name in ("a", "b")}
        for name, drive in self.drives.items():
            self.directory.add(Node(name, "z", drive))
        self.watch = DriveWatch(self.directory)

    def node(self, name: str = "a") -> Node:
        node = self.directory.get(name)
        assert node is not None
        return node

    async def pass_time(self, seconds: float, *, reads_fail: bool = False) -> list[bool]:
        """Probe for so long; whether drive a was up after each probe."""
        ups = []
        for _ in range(int(seconds / PROBE_SECONDS)):
            self.clock.advance(PROBE_SECONDS)
            node = self.node()
            if reads_fail and node.usable(self.clock.seconds):
                node.failed(self.clock.seconds)
            await self.watch.probe()
            ups.append(node.live)
        return ups


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_a_drive_whose_figures_cannot_be_read_is_down_until_they_can(
    machine: Machine,
) -> None:
    await machine.pass_time(60)
    assert machine.node().live
    machine.drives["a"].inject(BROKEN)
    await machine.pass_time(DOWN_SECONDS)
    assert machine.node().live
    await machine.pass_time(2 * PROBE_SECONDS)
    assert not machine.node().live
    assert machine.node("b").live
    await machine.pass_time(600)
    assert not machine.node().live
    machine.drives["a"].heal()
    await machine.pass_time(UP_SECONDS)
    assert not machine.node().live
    await machine.pass_time(2 * PROBE_SECONDS)
    assert machine.node().live
    assert machine.directory.usable("a")


async def test_one_error_makes_no_drive_down(machine: Machine) -> None:
    await machine.pass_time(PROBE_SECONDS)
    machine.node().failed(machine.clock.seconds)
    assert all(await machine.pass_time(600))


async def test_calls_that_fail_make_a_drive_down_although_its_figures_can_be_read(
    machine: Machine,
) -> None:
    ups = await machine.pass_time(120, reads_fail=True)
    assert ups[0]
    assert not all(ups)


async def test_a_drive_that_falls_back_waits_longer_each_time(machine: Machine) -> None:
    ups = await machine.pass_time(4 * 3600, reads_fail=True)
    downs = "".join("u" if up else "d" for up in ups).split("u")
    lengths = [len(down) * PROBE_SECONDS for down in downs if down]
    assert lengths[0] <= UP_SECONDS + 2 * PROBE_SECONDS
    assert lengths[1] > lengths[0]
    assert lengths == sorted(lengths) or lengths[-1] < lengths[-2]  # the last may be cut off
    assert max(lengths) <= UP_SECONDS_MAX + 2 * PROBE_SECONDS
    assert ups.count(True) < 0.2 * len(ups)


async def test_a_drive_that_answers_for_another_is_down(machine: Machine) -> None:
    machine.node().drive = MemoryDrive(drive_id="other")
    await machine.pass_time(60)
    assert not machine.node().live


def test_a_drive_that_hangs_is_down_and_the_others_are_watched_on() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        directory = Directory(loop.time)
        drives = {name: MemoryDrive(drive_id=name) for name in ("a", "b")}
        for name, drive in drives.items():
            directory.add(Node(name, "z", drive))
        reported: list[tuple[str, bool]] = []

        async def report(node: Node, up: bool) -> None:
            reported.append((node.id, up))

        watch = asyncio.create_task(DriveWatch(directory, report).follow())
        drives["a"].inject(Fault(hang=True), "stats")
        await asyncio.sleep(60)
        assert reported == [("a", False)]
        drives["a"].heal()
        await asyncio.sleep(60)
        assert reported == [("a", False), ("a", True)]
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    run_virtual(scenario())


@pytest.mark.parametrize("emptied", [True, False])
async def test_a_drive_whose_directory_is_removed_or_emptied_says_so(
    tmp_path: Path, emptied: bool
) -> None:
    path = tmp_path / "drive"
    DriveIdentity.claim(path, "store", drive_id="d1")
    drive = LocalDrive.open(path)
    assert (await drive.stats()).drive_id == "d1"
    if emptied:
        for entry in path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    else:
        shutil.rmtree(path)
    said = "was drive d1 and is emptied" if emptied else "does not lead to drive d1 any more"
    with pytest.raises(DriveLost, match=said):
        await drive.stats()
    await drive.close()


@pytest.mark.parametrize("copied_id", [True, False])
async def test_a_drive_swapped_for_an_empty_one_is_down_at_the_next_look(
    tmp_path: Path, copied_id: bool
) -> None:
    """Its directory takes writes; no call fails. With another's id, or its own and no shards."""
    path, clock = tmp_path / "drive", Clock()
    DriveIdentity.claim(path, "store", drive_id="d1")
    drive = LocalDrive.open(path)
    directory = Directory(clock.monotonic)
    directory.add(Node("d1", "z", drive))
    watch = DriveWatch(directory)
    node = directory.get("d1")
    assert node is not None
    await watch.probe()
    assert node.live
    shutil.rmtree(path / "data")
    if not copied_id:
        shutil.copytree(swapped_in(tmp_path), path, dirs_exist_ok=True)
    else:
        (path / "data").mkdir()
    clock.advance(PROBE_SECONDS)
    await drive.write(ShardName("p", 1, bytes(16), 0), [b"x"])
    node.answered()
    await watch.probe()
    assert not node.live
    await drive.close()


def swapped_in(tmp_path: Path) -> Path:
    """An empty drive of the same store."""
    DriveIdentity.claim(tmp_path / "other", "store", drive_id="d2")
    return tmp_path / "other"
