"""Groups that cannot be finished are tried ever more rarely, and not verified again; a large one
holds up no other; a stop ends moves at once."""

from __future__ import annotations

import asyncio

from nodes.protocol import DriveFull, ShardEntry, ShardName
from s3gw.cluster.layouts import DRAINING, Add, SetState, SetWeight
from s3gw.cluster.topology import Group
from s3gw.cluster.tunables import LiveTunables
from s3gw.kv.interface import At, Put
from s3gw.metadata import keys
from s3gw.metadata.records import PgRecord, encode
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.progress import GroupId
from s3gw.workers.rebalance import LOOK_SECONDS, PAUSE_SECONDS, REST_SECONDS_MAX, Rebalancer
from s3gw.workers.verified import SECONDS_MAX, VerifiedShards
from tests.stores.virtual_time import run_virtual
from tests.workers.moving import World, placed, rebalancer

VERIFY = "verify"


class FullNode:
    """One group, drained from d0 to d8, which has no room for one of its blobs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.worker = rebalancer(world.process)
        self.refused = b""
        self.tries: list[float] = []

    @classmethod
    async def make(cls) -> FullNode:
        world = await World.make(9, nodes=8, scheme="6+2", pg_count=1)
        await world.fill(24)
        full = cls(world)
        full.refused = max(name.blob for name in world.drive("d0").shards)
        drive = world.drive("d8")
        plain = drive.store

        def store(name: ShardName, data: bytes, corrupt: bool) -> None:
            if name.blob == full.refused:
                raise DriveFull("no room")
            plain(name, data, corrupt)

        drive.store = store  # type: ignore[method-assign]
        await world.change(SetState("d0", DRAINING), Add("d8", "z8", 1))
        return full

    @property
    def group(self) -> Group:
        topology = self.world.process.topology
        return topology.group(topology.profile("6+2"), 0)

    async def pass_time(self, seconds: float) -> None:
        """Work every second; note when the group was tried."""
        end = self.world.cluster.clock.seconds + seconds
        while self.world.cluster.clock.seconds < end:
            self.world.cluster.clock.advance(1)
            await self.look()

    async def look(self) -> bool:
        """Work once; whether the group was tried."""
        drive = self.world.drive("d8")
        before = sum(operation == "list" for operation, _ in drive.calls)
        await self.worker.work(UNCLAIMED)
        tried = sum(operation == "list" for operation, _ in drive.calls) > before
        if tried:
            self.tries.append(self.world.cluster.clock.seconds)
        return tried

    def verified(self) -> list[ShardName]:
        """What the new node was told to verify of what it has."""
        calls = self.world.drive("d8").calls
        return [n for operation, n in calls if operation == VERIFY and n and n.blob != self.refused]

    def gaps(self) -> list[float]:
        return [later - one for one, later in zip(self.tries, self.tries[1:], strict=False)]


def test_a_group_that_cannot_be_finished_is_tried_ever_more_rarely() -> None:
    async def scenario() -> None:
        full = await FullNode.make()
        await full.pass_time(3000)
        gaps = full.gaps()
        stuck = gaps.index(10) - 1
        assert set(gaps[:stuck]) <= {5}  # while there is progress
        assert gaps[stuck : stuck + 8] == [5, 10, 20, 40, 80, 160, 320, 600]
        assert max(gaps) == REST_SECONDS_MAX
        begun = len(full.world.drive("d8").shards)
        assert begun
        full.refused = b"none"
        await full.pass_time(REST_SECONDS_MAX + 1)
        await full.world.check_settled()
        assert len(full.world.drive("d8").shards) > begun

    run_virtual(scenario())


def test_what_was_verified_is_not_verified_at_every_try() -> None:
    async def scenario() -> None:
        full = await FullNode.make()
        drive = full.world.drive("d8")
        await full.pass_time(100)
        assert len(full.tries) >= 4
        verified = full.verified()
        assert len(verified) == len(set(verified)) == len(drive.shards)
        lost = next(iter(drive.shards))
        del drive.shards[lost]  # and what is gone meanwhile is noticed
        await full.pass_time(200)
        again = full.verified()[len(verified) :]
        assert again == [lost]
        assert lost in drive.shards

    run_virtual(scenario())


def test_what_is_found_on_a_new_node_is_verified_at_the_rate_of_the_rebuild() -> None:
    async def scenario() -> None:
        full = await FullNode.make()
        await full.pass_time(20)
        tunables = LiveTunables(full.world.process.kv)
        await tunables.change({"rebuild_bytes_per_second": 50_000})
        full.worker = rebalancer(full.world.process, tunables)  # it knows nothing of before
        clock, drive = full.world.cluster.clock, full.world.drive("d8")
        stored = sum(map(len, drive.shards.values()))
        began = clock.seconds
        assert await full.look()
        assert stored > 200_000
        assert clock.seconds - began >= (stored - 100_000) / 50_000 - 1

    run_virtual(scenario())


async def resting() -> FullNode:
    """A group that will not be tried for minutes."""
    full = await FullNode.make()
    await full.pass_time(400)
    assert not await full.look()
    return full


def test_a_group_is_tried_at_once_when_another_layout_is_made() -> None:
    async def scenario() -> None:
        full = await resting()
        await full.world.change(SetWeight("d1", 2))
        assert await full.look()

    run_virtual(scenario())


def test_a_group_is_tried_at_once_when_a_node_returns() -> None:
    async def scenario() -> None:
        full = await resting()
        full.world.set_live("d2", live=False)
        assert not await full.look()
        full.world.set_live("d2", live=True)
        assert await full.look()

    run_virtual(scenario())


def test_a_group_is_tried_at_once_when_its_record_has_changed() -> None:
    async def scenario() -> None:
        full = await resting()
        group = full.group
        record = PgRecord(group.record.revision + 1, group.record.slots)
        kv = full.world.cluster.kv()
        await kv.commit([At(group.key, group.revision)], [Put(group.key, encode(record))])
        await full.world.process.follow()
        assert await full.look()

    run_virtual(scenario())


def test_what_is_remembered_is_bounded_and_ends() -> None:
    now = 0.0
    shards = VerifiedShards(lambda: now, shards_max=10)

    def verify(group: GroupId, revision: int, count: int) -> None:
        known = shards.take(group, revision)
        for number in range(count):
            known.add(number.to_bytes(16, "big"), 3)
        shards.keep(group, known)

    def known(group: GroupId, revision: int) -> int:
        found = shards.take(group, revision)
        shards.keep(group, found)
        return len(found.shards)

    verify(("p", 1), 5, 4)
    verify(("p", 2), 5, 4)
    assert (known(("p", 1), 5), known(("p", 2), 5)) == (4, 4)
    verify(("p", 3), 5, 4)  # of which the oldest is forgotten
    assert [known(("p", n), 5) for n in (1, 2, 3)] == [0, 4, 4]
    verify(("p", 4), 5, 100)
    assert [known(("p", n), 5) for n in (1, 2, 3, 4)] == [0, 0, 0, 10]
    assert known(("p", 4), 6) == 0
    verify(("p", 5), 1, 3)
    now = SECONDS_MAX - 1
    verify(("p", 5), 1, 4)
    assert known(("p", 5), 1) == 4
    now = SECONDS_MAX  # after the first of them was verified
    assert known(("p", 5), 1) == 0


class Held:
    """A store with two lanes, one of which moves a group that hangs."""

    def __init__(self, world: World, worker: Rebalancer) -> None:
        self.world = world
        self.worker = worker
        self.begun: list[GroupId] = []
        self.hung: GroupId | None = None
        self.freed = asyncio.Event()

    @classmethod
    async def make(cls, *, pace: float = 0.0) -> Held:
        world = await World.make(10, nodes=9, pg_count=16)
        await world.fill(8)
        tunables = LiveTunables(world.process.kv)
        await tunables.change({"rebuild_groups_at_once": 2})
        held = cls(world, rebalancer(world.process, tunables))
        plain = held.worker._move

        async def move(*given: object) -> None:
            layout, group = given
            assert isinstance(group, Group)
            name = group.profile.name, group.number
            held.begun.append(name)
            held.hung = held.hung or name
            await asyncio.sleep(pace)
            await plain(layout, group)  # type: ignore[arg-type]

        drive = world.drive("d0")
        listing = drive.list

        async def hanging(profile: str, pg: int) -> list[ShardEntry]:
            if (profile, pg) == held.hung:
                await held.freed.wait()
            return await listing(profile, pg)

        drive.list = hanging  # type: ignore[method-assign]
        held.worker._move = move  # type: ignore[method-assign,assignment]
        await world.change(SetState("d0", DRAINING), Add("d9", "z9", 1))
        return held


def test_a_group_that_takes_long_leaves_the_other_lanes_to_others() -> None:
    async def scenario() -> None:
        held = await Held.make()
        await held.worker._look()
        wanted = len(held.worker._queue)
        assert wanted > 4
        unit = asyncio.create_task(held.worker.work(UNCLAIMED))
        await asyncio.sleep(4 * LOOK_SECONDS)
        assert not unit.done()
        assert len(held.begun) == len(set(held.begun)) == wanted
        assert held.worker.meter.record().groups_left == 1
        held.freed.set()
        assert not await unit
        await held.world.check_settled()

    run_virtual(scenario())


def test_newly_endangered_groups_come_next() -> None:
    async def scenario() -> None:
        held = await Held.make(pace=1.0)
        unit = asyncio.create_task(held.worker.work(UNCLAIMED))
        while len(held.begun) < 3:
            await asyncio.sleep(0.1)
        topology = held.world.process.topology
        held.world.set_live("d5", live=False)
        endangered = {
            name
            for _, _, name in held.worker._queue
            if "d5" in topology.group(topology.profile(name[0]), name[1]).nodes
        }
        assert 0 < len(endangered) < len(held.worker._queue)
        begun = len(held.begun)
        await asyncio.sleep(40)
        assert set(held.begun[begun : begun + len(endangered)]) == endangered
        held.world.set_live("d5", live=True)
        held.freed.set()
        await unit

    run_virtual(scenario())


def test_a_stop_ends_the_unit_and_gives_the_locks_back() -> None:
    async def scenario() -> None:
        held = await Held.make(pace=0.5)
        unit = asyncio.create_task(held.worker.work(UNCLAIMED))
        while len(held.begun) < 4:
            await asyncio.sleep(0.1)
        assert held.hung is not None
        items = held.world.cluster.engine.items
        assert keys.group_lock(*held.hung) in items
        loop = asyncio.get_running_loop()
        began = loop.time()
        held.worker.stop()
        await unit
        assert loop.time() - began <= PAUSE_SECONDS + 0.5
        assert not any(key.startswith(b"lock/") for key in items)
        assert not await held.worker.work(UNCLAIMED)
        held.freed.set()
        another = rebalancer(held.world.process)
        assert await another.run_once()
        assert placed(another.meter)
        await held.world.check_settled()

    run_virtual(scenario())
