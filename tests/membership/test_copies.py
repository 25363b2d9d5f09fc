"""Two processes that claim one node id: at most one is registered, whatever is copied when."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nodes.identity import DriveIdentity
from s3gw.app import Task, nonces_of
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import NodeIdTaken, NonceUnavailable, Registration
from s3gw.config import Config
from s3gw.drives import DriveAt
from s3gw.kv.interface import Unavailable
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.records import NodeRecord, decode
from tests.nodes.drives import Clock

TTL = 15
HERE, THERE = "127.0.0.1:1", "127.0.0.1:2"


class Cluster:
    """An engine whose leases end when the test moves the clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.kv = MemoryKV(MemoryStore(self.clock))

    def process(self, path: Path, address: str = HERE) -> Process:
        return Process(self, path, address)

    async def registered(self, drive_id: str) -> NodeRecord | None:
        (item,) = (await self.kv.get_many([keys.node(drive_id)])).items
        return decode(NodeRecord, item.value) if item is not None else None


class Process:
    """A start of `s3gw node` on a drive."""

    def __init__(self, cluster: Cluster, path: Path, address: str) -> None:
        self.cluster = cluster
        self.drive_id = DriveIdentity.open(path).identity.drive_id
        record = NodeRecord(address, "z", "h", 1, 1, "", "0", 0)
        self.lease = ProcessLease(
            cluster.kv, ttl_seconds=TTL, heartbeat_seconds=5, clock=cluster.clock
        )
        task = Task(Config(), "s", (DriveAt(str(path), self.drive_id),))
        self.registration = Registration(
            cluster.kv, self.lease, {self.drive_id: record}, nonces_of(task)
        )

    async def start(self, *others: Process) -> None:
        """As `s3gw node` starts, while the leases of `others` are kept alive."""

        async def sleep(seconds: float) -> None:
            self.cluster.clock.now += seconds
            for other in others:
                await other.lease.renew()

        await self.registration.wait_for_former(TTL + 5, clock=self.cluster.clock, sleep=sleep)
        await self.lease.take()
        await self.registration.register()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    DriveIdentity.claim(tmp_path / "drive", "s")
    return tmp_path / "drive"


def copy_of(drive: Path) -> Path:
    return Path(shutil.copytree(drive, drive.with_name("copy")))


async def test_a_restart_takes_over_at_once(cluster: Cluster, drive: Path) -> None:
    before = cluster.clock.now
    await cluster.process(drive).start()
    again = cluster.process(drive)
    await again.start()
    assert cluster.clock.now == before
    assert again.registration.writes_allowed()


async def test_a_restart_at_another_address_waits_for_the_old_lease_to_end(
    cluster: Cluster, drive: Path
) -> None:
    before = cluster.clock.now
    await cluster.process(drive).start()
    moved = cluster.process(drive, THERE)
    await moved.start()
    assert TTL <= cluster.clock.now - before <= TTL + 1
    found = await cluster.registered(moved.drive_id)
    assert found is not None
    assert found.address == THERE


async def test_a_copy_of_a_live_node_is_refused(cluster: Cluster, drive: Path) -> None:
    """Also one that was made while the node ran and so knows its nonce."""
    live = cluster.process(drive)
    await live.start()
    copy = cluster.process(copy_of(drive), THERE)
    with pytest.raises(NodeIdTaken, match=f"{live.drive_id} lives at {HERE}"):
        await copy.start(live)
    found = await cluster.registered(live.drive_id)
    assert found is not None
    assert found.address == HERE
    assert live.registration.writes_allowed()
    assert not copy.registration.writes_allowed()


async def test_a_copy_that_was_started_since_keeps_the_original_out(
    cluster: Cluster, drive: Path
) -> None:
    """And the other way round: who registered last is the node, the other must be wiped."""
    await cluster.process(drive).start()
    copied = copy_of(drive)
    cluster.clock.now += TTL + 1
    copy = cluster.process(copied)
    await copy.start()
    with pytest.raises(NodeIdTaken, match="outdated copy"):
        await cluster.process(drive).start()
    assert copy.registration.writes_allowed()


async def test_a_node_that_slept_while_its_copy_was_started_does_not_come_back(
    cluster: Cluster, drive: Path
) -> None:
    live = cluster.process(drive)
    await live.start()
    copied = copy_of(drive)
    cluster.clock.now += TTL + 1
    await cluster.process(copied, THERE).start()
    await live.lease.renew()
    assert not live.registration.writes_allowed()
    with pytest.raises(NodeIdTaken):
        await live.registration.register()
    assert not live.registration.writes_allowed()


async def test_a_lost_lease_is_made_good_by_registering_again(
    cluster: Cluster, drive: Path
) -> None:
    live = cluster.process(drive)
    await live.start()
    for _ in range(3):
        cluster.clock.now += TTL + 1
        assert not live.registration.writes_allowed()
        await live.lease.renew()
        await live.registration.register()
        assert live.registration.writes_allowed()


@pytest.mark.parametrize("applied", [False, True])
async def test_a_start_whose_commit_has_an_unknown_outcome_is_repeated(
    cluster: Cluster, drive: Path, applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.process(drive).start()
    commit = cluster.kv.commit

    async def lost(guards: object, writes: object) -> int:
        if applied:
            await commit(guards, writes)  # type: ignore[arg-type]
        raise Unavailable("no answer")

    broken = cluster.process(drive)
    await broken.lease.take()
    monkeypatch.setattr(cluster.kv, "commit", lost)
    with pytest.raises(Unavailable):
        await broken.registration.register()
    monkeypatch.undo()
    again = cluster.process(drive)
    await again.start()
    assert again.registration.writes_allowed()


async def test_a_commit_that_is_applied_late_does_not_lock_the_node_out(
    cluster: Cluster, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died with its commit under way; the next one has read the registration before
    the commit arrives."""
    await cluster.process(drive).start()
    commit = cluster.kv.commit
    late: list[tuple[object, object]] = []

    async def hold(guards: object, writes: object) -> int:
        late.append((guards, writes))
        raise Unavailable("no answer")

    async def let_the_late_one_pass(guards: object, writes: object) -> int:
        if late:
            await commit(*late.pop())  # type: ignore[arg-type]
        return await commit(guards, writes)  # type: ignore[arg-type]

    died = cluster.process(drive)
    await died.lease.take()
    monkeypatch.setattr(cluster.kv, "commit", hold)
    with pytest.raises(Unavailable):
        await died.registration.register()
    monkeypatch.undo()
    again = cluster.process(drive)
    await again.lease.take()
    monkeypatch.setattr(cluster.kv, "commit", let_the_late_one_pass)
    await again.registration.register()
    assert late == []
    assert again.registration.writes_allowed()


async def test_a_drive_whose_id_file_fails_does_not_keep_the_others_from_registering(
    cluster: Cluster, drive: Path, tmp_path: Path
) -> None:
    DriveIdentity.claim(tmp_path / "other", "s")
    paths = {p: DriveIdentity.open(p).identity.drive_id for p in (drive, tmp_path / "other")}
    task = Task(Config(), "s", tuple(DriveAt(str(p), i) for p, i in paths.items()))
    record = NodeRecord(HERE, "z", "h", 1, 1, "", "0", 0)
    lease = ProcessLease(cluster.kv, ttl_seconds=TTL, heartbeat_seconds=5, clock=cluster.clock)
    await lease.take()
    registration = Registration(
        cluster.kv, lease, dict.fromkeys(paths.values(), record), nonces_of(task)
    )
    (drive / "id.json").write_text("{")
    await registration.register()
    assert registration.writes_allowed()
    assert await cluster.registered(paths[drive]) is None
    assert await cluster.registered(paths[tmp_path / "other"]) is not None
    (tmp_path / "other" / "id.json").write_text("{")
    with pytest.raises(NonceUnavailable):
        await registration.register()
