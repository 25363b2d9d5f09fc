"""Blobs that are written anew while their placement groups move, and what the repair queue knows of
blobs of which only some holders went over."""

from __future__ import annotations

import random

import pytest

from s3gw.cluster.layouts import DRAINING, SetState
from s3gw.cluster.topology import Profile
from s3gw.cluster.writer import Written
from s3gw.metadata.records import BlobRef
from s3gw.objects.storage import Storage
from s3gw.workers import on_demand, reencode
from tests.stores.audit import Audit
from tests.stores.operations import put
from tests.workers.moving import World, rebalancer, start

DATA = random.Random(11).randbytes(300_000)


async def test_a_copy_whose_group_has_moved_is_not_published_as_lying_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World.make(8)
    process = world.process
    world.fail("d0", process)
    for number in range(12):
        await put(process, f"k{number}", DATA)
        world.objects[f"k{number}"] = DATA
    world.heal("d0", process)
    other = await start(world.cluster)
    plain = reencode._write
    moved = False

    async def writing(storage: Storage, profile: Profile, old: BlobRef, placement: str) -> Written:
        nonlocal moved
        new = await plain(storage, profile, old, placement)
        if not moved:
            moved = True
            await world.change(SetState("d3", DRAINING), SetState("d4", DRAINING), follow=False)
            await other.follow()
            assert await rebalancer(other).run_once()
            await process.follow()
        return new

    monkeypatch.setattr(reencode, "_write", writing)
    await on_demand.repair_all(process.storage)
    assert moved
    audit = Audit(world.cluster, process)
    for ref in audit.held().values():
        audit.check_whole(ref)
