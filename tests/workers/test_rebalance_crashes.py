"""A rebalancer that dies, or loses an answer, at every step of a move; another finishes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nodes.protocol import ShardName
from s3gw.cluster.layouts import OUT, Add, SetState
from s3gw.metadata import keys
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Mode
from tests.stores.virtual_time import run_virtual
from tests.workers.moving import World, rebalancer, start
from tests.workers.test_failpoints import Failpoint

STEPS_MAX = 1000


async def drain_and_add(world: World) -> None:
    await world.change(Add("d7", "z7", 1), SetState("d0", "draining"))


async def lose(world: World) -> None:
    world.fail("d1")
    await world.change(SetState("d1", OUT))


async def crash_at(change: str, failpoint: Failpoint) -> bool:
    """One run; whether the process died in it."""
    world = await World.make(8, nodes=7, pg_count=1)
    await world.fill(5)
    await (lose if change == "lose" else drain_and_add)(world)
    lost = set(world.drive("d1").shards) if change == "lose" else set()
    before = set(world.whole_shards()) - lost
    mortal = await start(world.cluster, CrashingKV(world.cluster.kv(), failpoint.fuse))
    if change == "lose":
        world.set_live("d1", mortal, live=False)
    failpoint.arm(world.cluster)
    try:
        await rebalancer(mortal).run_once()
    except Crashed:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
    failpoint.disarm(world.cluster)
    assert before <= set(world.whole_shards()), "a shard is gone"
    await world.process.follow()
    Audit(world.cluster, world.process).check_counts()
    await world.check_reads()
    await world.cluster.kv().revoke_lease(mortal.storage.lease())
    successor = await start(world.cluster)
    if change == "lose":
        world.set_live("d1", successor, live=False)
    assert await rebalancer(successor).run_once()
    await world.check_settled()
    await world.check_reads()
    if change == "lose":
        world.heal("d1", successor, world.process)
    await world.tidy()
    await world.check_settled()
    world.check_no_surplus()
    Audit(world.cluster, world.process).check_at_rest()
    assert not any(key.startswith(b"lock/") for key in world.cluster.engine.items)
    return failpoint.fuse.blown


@pytest.mark.parametrize("mode", [Mode.DIE_BEFORE, Mode.DIE_AFTER])
@pytest.mark.parametrize("change", ["drain", "lose"])
def test_death_at_every_commit_leaves_a_move_that_another_finishes(change: str, mode: Mode) -> None:
    step = 0
    while run_virtual(crash_at(change, Failpoint(step, mode))):
        step += 1
        assert step < STEPS_MAX
    assert step >= 8  # two groups: lock, record, record, lock given back


@pytest.mark.parametrize("change", ["drain", "lose"])
def test_death_at_any_drive_call_leaves_a_move_that_another_finishes(change: str) -> None:
    step = 0
    while run_virtual(crash_at(change, Failpoint(step, None))):
        step += 1
        assert step < STEPS_MAX
    assert step > 30


@pytest.mark.parametrize("mode", [Mode.LOSE_BEFORE, Mode.LOSE_AFTER])
def test_a_lost_answer_at_any_commit_loses_nothing(mode: Mode) -> None:
    for step in range(14):
        run_virtual(crash_at("drain", Failpoint(step, mode)))


def test_a_move_whose_lock_is_lost_changes_nothing_more() -> None:
    async def scenario() -> None:
        world = await World.make(8, nodes=7, pg_count=1)
        await world.fill(5)
        await drain_and_add(world)
        stale = await start(world.cluster)
        before = set(world.whole_shards())

        def losing(enter: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
            async def entering(operation: str, name: ShardName | None = None) -> bool:
                if operation in ("write", "commit"):
                    await world.cluster.kv().revoke_lease(stale.storage.lease())
                return await enter(operation, name)

            return entering

        for drive in world.cluster.drives.values():
            drive.enter = losing(drive.enter)  # type: ignore[method-assign]
        assert not await rebalancer(stale).run_once()
        for drive in world.cluster.drives.values():
            drive.__dict__.pop("enter")
        moving = [
            group
            for profile in stale.topology.profiles()
            for group in [await stale.topology.reread(stale.topology.group(profile, 0))]
            if any(slot.holders_before for slot in group.record.slots)
        ]
        assert moving  # begun, and not ended without the lock
        assert world.drive("d0").shards
        assert await rebalancer(await start(world.cluster)).run_once()
        assert set(world.whole_shards()) == before
        await world.process.follow()
        await world.check_settled()
        assert keys.group_lock("4+2", 0) not in world.cluster.engine.items

    run_virtual(scenario())
