"""What a move is guarded by: the record, the layout, the revision that drives have seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from nodes.protocol import ShardName, StalePgRevision
from s3gw.cluster.layouts import SetState
from s3gw.cluster.topology import Group
from s3gw.kv.interface import Guard, Put, Write
from s3gw.metadata import keys
from s3gw.metadata.records import PgRecord, decode, encode
from tests.stores.operations import blob_of, put
from tests.stores.virtual_time import run_virtual
from tests.workers.moving import World, rebalancer


async def draining(world: World) -> tuple[Group, str]:
    """Drain the node of the first slot of the only large group."""
    group = world.process.topology.group(world.process.profile(), 0)
    await world.change(SetState(group.nodes[0], "draining"))
    return group, group.nodes[0]


def at_first_write(world: World, profile: str, act: Callable[[ShardName], Awaitable[None]]) -> None:
    """Do something when the first shard of a profile is about to arrive anywhere."""
    acted = False

    def hooked(enter: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        async def entering(operation: str, name: ShardName | None = None) -> bool:
            nonlocal acted
            arrives = operation in ("write", "append") and name is not None
            if arrives and not acted and name is not None and name.profile == profile:
                acted = True
                await act(name)
            return await enter(operation, name)

        return entering

    for drive in world.cluster.drives.values():
        drive.enter = hooked(drive.enter)  # type: ignore[method-assign]


def record_of(world: World, group: Group) -> PgRecord:
    return decode(PgRecord, world.cluster.engine.items[group.key].value)


def test_a_record_that_another_changed_during_the_move_is_left_as_it_is() -> None:
    async def scenario() -> None:
        world = await World.make(8, pg_count=1)
        await world.fill(8)
        group, left = await draining(world)

        async def change(name: ShardName) -> None:
            record = record_of(world, group)
            raised = msgspec.structs.replace(record, revision=record.revision + 100)
            await world.cluster.kv().commit([], [Put(group.key, encode(raised))])

        at_first_write(world, "4+2", change)
        assert not await rebalancer(world.process).run_once()
        found = record_of(world, group)
        assert found.revision == group.record.revision + 101
        assert found.slots[0].holders_before == (left,)
        assert world.drive(left).shards
        assert await rebalancer(world.process).run_once()
        assert record_of(world, group).revision == group.record.revision + 102
        await world.check_settled()
        await world.check_reads()

    run_virtual(scenario())


def test_no_move_begins_towards_a_layout_that_was_replaced() -> None:
    async def scenario() -> None:
        world = await World.make(8, pg_count=1)
        await world.fill(4)
        group, left = await draining(world)
        plain = world.process.kv.commit
        lock = keys.group_lock("4+2", 0)

        async def commit(guards: list[Guard], writes: list[Write]) -> int:
            if any(isinstance(write, Put) and write.key == lock for write in writes):
                await world.change(SetState(left, "active"), follow=False)
            return await plain(guards, writes)

        world.process.kv.commit = commit  # type: ignore[method-assign,assignment]
        assert not await rebalancer(world.process).run_once()
        world.process.kv.commit = plain  # type: ignore[method-assign]
        assert record_of(world, group) == group.record
        await world.process.follow()
        await rebalancer(world.process).run_once()
        await world.check_settled()

    run_virtual(scenario())


def test_once_a_move_has_begun_no_deletion_decided_before_reaches_a_holder() -> None:
    async def scenario() -> None:
        world = await World.make(8, pg_count=1)
        await world.fill(8)
        group, left = await draining(world)
        refused: list[str] = []

        async def delete(name: ShardName) -> None:
            moving = record_of(world, group)
            for node in {left, *(slot.node for slot in moving.slots)}:
                try:
                    await world.drive(node).delete(name, group.record.revision)
                except StalePgRevision:
                    refused.append(node)

        at_first_write(world, "4+2", delete)
        assert await rebalancer(world.process).run_once()
        assert left in refused
        assert len(refused) == 7
        await world.check_settled()

    run_virtual(scenario())


def test_a_blob_on_nodes_of_its_own_is_not_touched() -> None:
    async def scenario() -> None:
        world = await World.make(8, pg_count=1)
        await world.fill(4)
        group, left = await draining(world)
        around = group.nodes[1]
        world.fail(around)
        data = b"around" * 50_000
        await put(world.process, "around", data)
        world.objects["around"] = data
        ref = await blob_of(world.process, "around")
        assert ref.nodes
        world.heal(around)
        before = {place for place in world.shards() if place[1].blob == ref.blob}
        assert len(before) == 6
        assert await rebalancer(world.process).run_once()
        assert {place for place in world.shards() if place[1].blob == ref.blob} == before
        await world.tidy()
        await world.check_settled()
        await world.check_reads()
        assert not world.drive(left).shards

    run_virtual(scenario())
