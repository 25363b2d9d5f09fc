"""Moves beside writers, readers, deleters and each other, in an order drawn from a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from nodes.check import check_bytes
from nodes.memory import Fault
from nodes.protocol import Buffer, ShardName
from s3gw.cluster.layouts import OUT, Add, SetState
from s3gw.errors import OperationAborted, SlowDown
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata.records import Description, PgRecord, decode
from s3gw.objects import publish
from s3gw.objects.publish import no_check
from s3gw.objects.write import put_object
from s3gw.workers import group_move, on_demand
from s3gw.workers.contract import UNCLAIMED
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Bytes, Process
from tests.stores.operations import blob_of, delete, get, put, record
from tests.stores.virtual_time import run_virtual
from tests.workers.moving import REFUSED, World, rebalancer, start

DATA = random.Random(7).randbytes(300_000)


class Jitter:
    """Makes every call of a drive or the engine take a random time, so that tasks interleave."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    async def pause(self) -> None:
        await asyncio.sleep(self.random.random() * 0.01)

    def on_drives(self, world: World) -> None:
        for drive in world.cluster.drives.values():
            drive.enter = self._slow(drive.enter)  # type: ignore[method-assign]

    def _slow(self, enter: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        async def entering(operation: str, name: ShardName | None = None) -> bool:
            await self.pause()
            return await enter(operation, name)

        return entering

    def kv(self, world: World) -> MemoryKV:
        engine = world.cluster.kv()
        for call in ("get_many", "scan", "commit"):
            setattr(engine, call, self._slow_call(getattr(engine, call)))
        return engine

    def _slow_call(self, plain: Callable[..., Awaitable[object]]) -> Callable[..., object]:
        async def calling(*args: object, **more: object) -> object:
            await self.pause()
            return await plain(*args, **more)

        return calling


def watch_deletions(world: World) -> list[ShardName]:
    """Fail at once when the last good copy of a shard goes that a live reference needs; the
    deletions seen."""
    seen: list[ShardName] = []

    def watching(node: str) -> Callable[[ShardName, int], Awaitable[None]]:
        drive = world.drive(node)
        plain = drive.delete

        async def deleting(name: ShardName, pg_revision: int) -> None:
            had = name in drive.shards
            await plain(name, pg_revision)
            if not had:
                return
            seen.append(name)
            audit = Audit(world.cluster, world.process)
            refs = [
                ref
                for ref in audit.held().values()
                if (ref.profile, ref.blob) == (name.profile, name.blob) and not ref.nodes
            ]
            if refs:
                stored = world.cluster.engine.items[keys.pg(name.profile, name.pg)].value
                right = decode(PgRecord, stored).slots[name.index].node
                data = world.drive(right).shards.get(name) if right else None
                assert data is not None, f"{name} was deleted on {node}, {right} has none"
                assert check_bytes(name, data).whole

        return deleting

    for node, drive in world.cluster.drives.items():
        drive.delete = watching(node)  # type: ignore[method-assign]
    return seen


class Clients:
    """Writes, overwrites, copies nothing, deletes and reads, until told to stop."""

    def __init__(self, world: World, process: Process, prefix: str, seed: int) -> None:
        self.world = world
        self.process = process
        self.prefix = prefix
        self.random = random.Random(seed)
        self.mine: dict[str, bytes] = {}
        self.stopping = False
        self.done = 0

    async def run(self) -> None:
        while not self.stopping:
            key = f"{self.prefix}{self.random.randrange(6)}"
            try:
                if key in self.mine and self.random.random() < 0.3:
                    await delete(self.process, key)
                    del self.mine[key]
                else:
                    data = self.random.randbytes(self.random.choice((10, 5_000, 200_000)))
                    await put(self.process, key, data)
                    self.mine[key] = data
            except (SlowDown, OperationAborted):
                found = await record(self.process, key)
                assert found is None or key in self.mine
                continue
            self.done += 1
            for known, content in sorted(self.mine.items())[:2]:
                assert await get(self.process, known) == content
            steady = self.random.choice(sorted(self.world.objects))
            assert await get(self.process, steady) == self.world.objects[steady]


async def follow_all(processes: list[Process], jitter: Jitter) -> None:
    """What membership does: every process learns of layouts and groups, sooner or later."""
    while True:
        await asyncio.sleep(0.05 + jitter.random.random() * 0.3)
        await jitter.random.choice(processes).follow()


async def race(seed: int) -> None:
    world = await World.make(9, nodes=7, pg_count=3)
    await world.fill(9, seed)
    jitter = Jitter(seed)
    movers = [await start(world.cluster, jitter.kv(world), seed=seed + n) for n in (1, 2)]
    fresh = await start(world.cluster, jitter.kv(world), seed=seed + 3)
    stale = await start(world.cluster, jitter.kv(world), seed=seed + 4)  # hears of nothing
    jitter.on_drives(world)
    deletions = watch_deletions(world)
    clients = [Clients(world, fresh, "f", seed + 5), Clients(world, stale, "s", seed + 6)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    following = asyncio.create_task(follow_all([*movers, fresh], jitter))
    workers = [rebalancer(mover) for mover in movers]
    for change in (
        (Add("d7", "z7", 1),),
        (SetState("d0", "draining"), Add("d8", "z8", 1)),
        (SetState("d3", "draining"),),
    ):
        await world.change(*change)
        for mover in movers:
            await mover.follow()
        await asyncio.gather(*(worker.run_once() for worker in workers))
        await asyncio.sleep(0.3)
    for client in clients:
        client.stopping = True
    await asyncio.gather(*tasks)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    for worker, mover in zip(workers, movers, strict=True):
        await mover.follow()
        await worker.run_once()
    for client in clients:
        assert client.done > 5
        world.objects |= client.mine
    assert deletions
    await world.process.follow()
    await world.check_reads()
    await world.tidy()
    assert await workers[0].run_once()
    await world.check_settled()
    await world.check_reads()
    Audit(world.cluster, world.process).check_at_rest()
    world.check_no_surplus()
    assert not world.drive("d0").shards
    assert not world.drive("d3").shards


@pytest.mark.parametrize("seed", range(6))
def test_moves_beside_writers_and_deleters_lose_nothing(seed: int) -> None:
    run_virtual(race(seed))


class MovesMeanwhile(Bytes):
    """A body during which a node is drained and its groups move."""

    def __init__(self, world: World, node: str) -> None:
        super().__init__(DATA)
        self._world = world
        self._node = node

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        async for data in Bytes.__aiter__(self):
            yield data
        await self._world.change(SetState(self._node, "draining"), follow=False)
        assert await rebalancer(await start(self._world.cluster)).run_once()


def test_a_writer_that_was_overtaken_by_a_move_publishes_what_can_be_read() -> None:
    async def scenario() -> None:
        world = await World.make(8, pg_count=1)
        await world.fill(3)
        node = world.process.topology.group(world.process.profile(), 0).nodes[2]
        target = await publish.read_target(world.process.storage, BUCKET, "late")
        body = MovesMeanwhile(world, node)
        await put_object(world.process.storage, target, "owner", Description(), body, no_check)
        world.objects["late"] = DATA
        await world.check_reads()
        await world.process.follow()
        await on_demand.repair_all(world.process.storage)
        ref = await blob_of(world.process, "late")
        assert not ref.nodes
        await world.tidy()
        await world.check_settled()
        await world.check_reads()
        assert not world.drive(node).shards

    run_virtual(scenario())


def test_while_shards_are_on_their_way_reads_and_rebuilds_find_them_where_they_were() -> None:
    async def scenario() -> None:
        world = await World.make(10, nodes=8, pg_count=1)
        await world.fill(6)
        for name in ("d8", "d9"):
            world.drive(name).inject(REFUSED, "write", "append", "commit")
        before = world.process.topology.group(world.process.profile(), 0).nodes
        leaving, lost = before[0], before[1]
        spare = sorted({f"d{n}" for n in range(8)} - set(before))
        await world.change(
            Add("d8", "z8", 1),
            Add("d9", "z9", 1),
            SetState(leaving, "draining"),
            *(SetState(name, "draining") for name in spare),
        )
        assert not await rebalancer(world.process).run_once()
        slots = world.process.topology.group(world.process.profile(), 0).record.slots
        assert slots[0].holders_before == (leaving,)  # begun, but the target takes nothing
        await world.check_reads()
        assert not [key for key in world.cluster.engine.items if key.startswith(keys.REPAIRS)]
        world.fail(lost)
        await world.check_reads()
        world.drive("d8").heal()
        world.drive("d9").heal()
        for node in world.process.directory.all():
            if node.id != lost:
                node.answered()
        await world.change(SetState(lost, OUT))
        assert await rebalancer(world.process).run_once()
        await world.check_settled()
        await world.check_reads()

    run_virtual(scenario())


def test_a_target_that_dies_in_the_move_is_replaced_by_the_next_layout() -> None:
    async def scenario() -> None:
        world = await World.make(9, nodes=7, pg_count=8)
        await world.fill(8)
        writes = 0
        drive = world.drive("d7")
        plain = drive.enter

        async def dying(operation: str, name: ShardName | None = None) -> bool:
            nonlocal writes
            writes += operation in ("write", "commit")
            if writes > 3:
                world.fail("d7")
            return await plain(operation, name)

        drive.enter = dying  # type: ignore[method-assign]
        await world.change(Add("d7", "z7", 1), SetState("d0", "draining"))
        mover = rebalancer(world.process)
        assert not await mover.run_once()
        assert writes > 3
        await world.check_reads()
        await world.change(Add("d8", "z8", 1), SetState("d7", OUT))
        while await mover.work(UNCLAIMED):
            pass  # at once: another layout ends the groups' rests
        await world.check_settled()
        await world.check_reads()
        assert not world.drive("d0").shards
        drive.__dict__.pop("enter")
        world.heal("d7")
        await world.tidy()
        assert not drive.shards
        world.check_no_surplus()

    run_virtual(scenario())


@pytest.mark.parametrize("piece_bytes", [group_move.COPY_BYTES, 10_000])
def test_damage_on_the_way_is_noticed_and_what_arrives_is_whole(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(group_move, "COPY_BYTES", piece_bytes)

    async def scenario() -> None:
        world = await World.make(9, nodes=8)
        await world.fill()
        world.drive("d8").inject(Fault(corrupt=True, times=3), "write", "commit")
        world.drive("d0").inject(Fault(corrupt=True, times=4), "read")
        await world.change(Add("d8", "z8", 1), SetState("d0", "draining"))
        mover = rebalancer(world.process)
        if not await mover.run_once():
            assert await mover.run_once()
        await world.check_settled()
        await world.check_reads()
        assert len(world.drive("d8").quarantined) == 3

    run_virtual(scenario())


def test_large_shards_travel_in_pieces_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_move, "COPY_BYTES", 10_000)

    async def scenario() -> None:
        world = await World.make(9, nodes=8)
        await world.fill()
        before = world.whole_shards()
        for drive in world.cluster.drives.values():
            drive.calls.clear()
        await world.change(Add("d8", "z8", 1), SetState("d0", "draining"))
        mover = rebalancer(world.process)
        assert await mover.run_once()
        assert world.whole_shards() == before
        assert mover.meter.record().bytes_rebuilt == 0
        pieces = [call for drive in world.cluster.drives.values() for call, _ in drive.calls]
        assert pieces.count("append") > 2 * pieces.count("commit") > 0
        await world.check_settled()
        await world.check_reads()

    run_virtual(scenario())
