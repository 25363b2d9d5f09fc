"""Blobs that are written anew while their placement groups move, and what the repair queue knows of
blobs of which only some holders went over."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator

import pytest

from nodes.format import block_offset
from nodes.protocol import ShardName
from s3gw.cluster.layouts import DRAINING, SetState
from s3gw.cluster.profiles import create_profile
from s3gw.cluster.topology import Profile
from s3gw.cluster.tunables import Throttle
from s3gw.cluster.writer import Written
from s3gw.kv.interface import At, Item, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    PgRecord,
    Reference,
    Repair,
    Slot,
    decode,
    encode,
)
from s3gw.objects import publish
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.publish import no_check
from s3gw.objects.storage import Storage
from s3gw.workers import on_demand, reencode, reprofile
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.group_move import GroupMove
from s3gw.workers.repair import RepairWorker
from s3gw.workers.reprofile import Reprofiler
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, PROFILE, Process
from tests.stores.operations import copy, delete, get, put
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


async def test_what_another_bucket_still_holds_stays_in_the_repair_queue() -> None:
    """Only one of two buckets that share a blob goes over to another profile. The blob was written
    around a node: the other bucket's object keeps it, and the queue knows of it."""
    world = await World.make(10)
    process = world.process
    await create_profile(
        process.kv, process.topology, "wide", "5+3", pg_count=16, stripe_bytes=128 * 1024, now_ms=1
    )
    world.fail("d0", process)
    for number in range(12):
        await put(process, f"k{number}", DATA)
        await copy_to(process, f"k{number}", "other")
    world.heal("d0", process)
    await reprofile.start(process.kv, BUCKET, "wide")
    worker = Reprofiler(process.storage)
    while await worker.work():
        pass
    audit = Audit(world.cluster, process)
    explicit = {
        keys.split_reference(key)[2]
        for key, reference in audit.references().items()
        if reference.nodes and not reference.dropped_due_ms
    }
    queued = {decode(Repair, value).blob for value in audit.under(keys.REPAIRS).values()}
    assert explicit
    assert explicit <= queued
    await on_demand.repair_all(process.storage)
    audit = Audit(world.cluster, process)
    assert not audit.under(keys.REPAIRS)
    for ref in audit.held().values():
        assert not ref.nodes
        audit.check_whole(ref)


async def test_a_blob_of_many_holders_goes_home_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More references than one read has, of which those that are dropped come first."""
    monkeypatch.setattr(reencode, "REFERENCES_PER_READ", 3)
    world = await World.make(8)
    process = world.process
    world.fail("d0", process)
    for number in range(6):
        await put(process, f"k{number}", DATA)
        for copied in range(10):
            await copy(process, f"k{number}", f"k{number}/{copied}")
        for dropped in range(4):
            await delete(process, f"k{number}/{dropped}")
    world.heal("d0", process)
    assert any(ref.nodes for ref in Audit(world.cluster, process).held().values())
    await on_demand.repair_all(process.storage)
    audit = Audit(world.cluster, process)
    assert not audit.under(keys.REPAIRS)
    for ref in audit.held().values():
        assert not ref.nodes
        audit.check_whole(ref)


async def copy_to(process: Process, key: str, bucket: str) -> None:
    """Copy an object into another bucket, which is made if it is not there."""
    (item,) = (await process.kv.get_many([keys.bucket(bucket)])).items
    if item is None:
        record = BucketRecord(0, "owner", "us-east-1", PROFILE, b"c" * 16)
        await process.kv.commit([], [Put(keys.bucket(bucket), encode(record))])
    await copy_object(
        process.storage,
        await publish.read_target(process.storage, BUCKET, key),
        await publish.read_target(process.storage, bucket, key),
        Copying("owner", lambda found: found.description, "", no_check, lambda found: None),
    )


async def test_a_repair_looks_where_the_shards_are_now() -> None:
    """A worker that has not heard of a move does not settle an entry by the old slots."""
    world = await World.make(8)
    process = world.process
    await world.fill(8)
    other = await start(world.cluster)
    await world.change(SetState("d3", DRAINING), follow=False)
    await other.follow()
    assert await rebalancer(other).run_once()
    before = Audit(world.cluster, process)
    damaged: list[BlobRef] = []
    for ref in before.held().values():
        group = other.topology.group_of(ref.profile, ref.blob)
        old = process.topology.group_of(ref.profile, ref.blob)
        for index, node in enumerate(group.nodes):
            name = ShardName(ref.profile, group.number, ref.blob, index)
            if node != old.nodes[index]:
                del world.drive(node).shards[name]
                other.damage(ref, index, "missing")
                damaged.append(ref)
    assert damaged
    await other.damage.work(UNCLAIMED)
    await on_demand.repair_all(process.storage)
    after = Audit(world.cluster, other)
    assert not after.under(keys.REPAIRS)
    for ref in damaged:
        after.check_whole(ref)


async def test_a_move_takes_no_damaged_shard_away_that_nothing_can_replace() -> None:
    """A blob of which too few shards are whole is read stripe by stripe. The shard on the node that
    a slot moves to has a bad block, too, and is needed for the other stripes."""
    world = await World.make(8)
    process = world.process
    world.objects["damaged"] = DATA
    await put(process, "damaged", DATA)
    (ref,) = Audit(world.cluster, process).held().values()
    group = process.topology.group_of(ref.profile, ref.blob)
    spare = min(set(world.cluster.drives) - set(group.nodes))
    slots = (Slot(group.nodes[0], (spare,)), *group.record.slots[1:])
    later = PgRecord(group.record.revision + 1, slots)
    await process.kv.commit([At(group.key, group.revision)], [Put(group.key, encode(later))])
    await process.follow()
    names = [ShardName(ref.profile, group.number, ref.blob, index) for index in range(6)]
    block = process.profile().scheme.fragment_bytes(process.profile().stripe_bytes)
    for index in (0, 1):
        shard = bytearray(world.drive(group.nodes[index]).shards[names[index]])
        shard[block_offset(block, index) + 7] ^= 1
        world.drive(group.nodes[index]).shards[names[index]] = bytes(shard)
    del world.drive(group.nodes[5]).shards[names[5]]
    await world.check_reads()
    assert not await rebalancer(process).run_once()
    await world.check_reads()
    await on_demand.repair_all(process.storage)
    assert await rebalancer(process).run_once()
    await world.check_settled()
    await world.check_reads()


async def test_a_shard_that_was_replaced_meanwhile_is_not_set_aside() -> None:
    """A repair waits for its share of the bandwidth between looking and acting; another one is
    faster."""
    world = await World.make(8)
    process = world.process
    await put(process, "damaged", DATA)
    (ref,) = Audit(world.cluster, process).held().values()
    group = process.topology.group_of(ref.profile, ref.blob)
    name, drive = ShardName(ref.profile, group.number, ref.blob, 0), world.drive(group.nodes[0])
    drive.shards[name] = drive.shards[name][:-1]
    process.damage(ref, 0, "cut")
    await process.damage.work(UNCLAIMED)
    waited = 0

    async def sleep(seconds: float) -> None:
        nonlocal waited
        waited += 1
        await on_demand.repair_all(world.process.storage)
        del drive.quarantined[name]
        world.cluster.clock.advance(seconds)

    throttle = Throttle(lambda: 300_000, clock=world.cluster.clock.monotonic, sleep=sleep)
    worker = RepairWorker(process.storage, throttle=throttle)
    await throttle.take(600_000)
    await worker.run_once()
    assert waited
    assert not drive.quarantined
    assert drive.calls.count(("quarantine", name)) == 1
    Audit(world.cluster, process).check_whole(ref)


async def test_a_group_that_cannot_be_moved_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World.make(8)
    await world.fill()
    worker = rebalancer(world.process)
    await world.change(SetState("d3", DRAINING))
    first = await worker._next(await world.layout())
    assert first is not None
    plain = GroupMove.run

    async def run(move: GroupMove) -> bool:
        if move._group.key == first.key:
            raise RuntimeError("a bug")
        return await plain(move)

    monkeypatch.setattr(GroupMove, "run", run)
    assert not await worker.run_once()
    left = list(worker._pending(await world.layout()))
    assert [group.key for group in left] == [first.key]


async def test_a_blob_that_cannot_be_repaired_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World.make(8)
    process = world.process
    await world.fill(4)
    refs = list(Audit(world.cluster, process).held().values())
    for ref in refs:
        group = process.topology.group_of(ref.profile, ref.blob)
        for index in (0, 1):  # critical
            name = ShardName(ref.profile, group.number, ref.blob, index)
            del world.drive(group.nodes[index]).shards[name]
            process.damage(ref, index, "missing")
    await process.damage.work(UNCLAIMED)
    plain, bad = reencode.live_references, refs[0].blob

    async def reading(
        storage: Storage, profile: str, pg: int, blob: bytes
    ) -> AsyncGenerator[tuple[Item, Reference], None]:
        if blob == bad:
            raise RuntimeError("a bug")
        async for held in plain(storage, profile, pg, blob):
            yield held

    monkeypatch.setattr(reencode, "live_references", reading)
    await RepairWorker(process.storage).work(UNCLAIMED)
    audit = Audit(world.cluster, process)
    (left,) = audit.under(keys.REPAIRS).values()
    assert decode(Repair, left).blob == bad
    assert decode(Repair, left).not_before_ms > world.cluster.clock.ms()
    for ref in refs[1:]:
        audit.check_whole(ref)


async def test_a_shard_that_has_moved_is_not_reported_as_lost() -> None:
    """A reader that has not heard of a move looks on the old node."""
    world = await World.make(8)
    process = world.process
    await world.fill(8)
    other = await start(world.cluster)
    await world.change(SetState("d3", DRAINING), follow=False)
    await other.follow()
    assert await rebalancer(other).run_once()

    async def read_all() -> set[bytes]:
        for key, data in world.objects.items():
            assert await get(process, key) == data
        await process.damage.work(UNCLAIMED)
        entries = Audit(world.cluster, process).under(keys.REPAIRS).values()
        return {decode(Repair, entry).blob for entry in entries}

    assert not await read_all()
    (ref, *_) = (ref for ref in Audit(world.cluster, process).held().values() if ref.size)
    group = process.topology.group_of(ref.profile, ref.blob)
    assert group.record.revision > 1
    for index, node in enumerate(group.nodes[:2]):
        del world.drive(node).shards[ShardName(ref.profile, group.number, ref.blob, index)]
    assert ref.blob in await read_all()
