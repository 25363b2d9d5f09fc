"""Merge-and-repair, verification and the repair queue, on demand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec
import pytest

from nodes.memory import Fault
from nodes.protocol import DriveUnreachable, ShardName
from s3gw.cluster.ledger import read_merge_alarms
from s3gw.kv.interface import Conflict, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    LayoutRecord,
    ManifestRef,
    PgRecord,
    Repair,
    Slot,
    decode,
    encode,
)
from s3gw.objects.multipart import change_record, find_upload
from s3gw.workers import on_demand, reencode
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.merge import MergeAndRepair
from s3gw.workers.verify import ShardVerifier
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import blob_of, complete, copy, delete, get, part, put, record, start

DAY = 24 * 3600.0
REFUSED = Fault(error=DriveUnreachable("refused"))
BIG = random.Random(3).randbytes(300_000)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from s3gw import limits

    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


def all_shards(cluster: MemoryCluster) -> dict[tuple[str, ShardName], bytes]:
    return {
        (node, name): data
        for node, drive in cluster.drives.items()
        for name, data in drive.shards.items()
    }


def set_live(process: Process, name: str, *, live: bool) -> None:
    node = process.directory.get(name)
    assert node is not None
    node.live = live


def repairs(cluster: MemoryCluster) -> int:
    return sum(key.startswith(keys.REPAIRS) for key in cluster.engine.items)


def entries(cluster: MemoryCluster) -> list[Repair]:
    return [
        decode(Repair, item.value)
        for key, item in cluster.engine.items.items()
        if key.startswith(keys.REPAIRS)
    ]


async def fill(process: Process, count: int = 20) -> dict[str, bytes]:
    chosen = random.Random(1)
    data = {f"k{n}": chosen.randbytes(chosen.choice((0, 900, 70_000))) for n in range(count)}
    for key, content in data.items():
        await put(process, key, content)
    return data


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
async def test_one_scrub_finds_and_repairs_every_flipped_bit(
    memory_cluster: MemoryCluster, memory_store: Process, share: float
) -> None:
    data = await fill(memory_store)
    before = all_shards(memory_cluster)
    chosen = random.Random(share)
    rotten = chosen.sample(sorted(memory_cluster.drives), 2)
    flipped = 0
    for (node, name), shard in before.items():
        if node in rotten and (chosen.random() < share * 4 or not flipped):
            bits = bytearray(shard)
            for _ in range(chosen.randrange(1, 65)):
                bits[chosen.randrange(len(bits))] ^= 1 << chosen.randrange(8)
            flipped += bytes(bits) != shard
            memory_cluster.drives[node].shards[name] = bytes(bits)
    for key, content in data.items():
        assert await get(memory_store, key) == content
    report = await on_demand.verify_all(memory_store.storage)
    assert (report.shards, report.damaged) == (len(before), flipped)
    repaired = await on_demand.repair_all(memory_store.storage)
    assert (repaired.rebuilt, repaired.later) == (flipped, 0)
    assert all_shards(memory_cluster) == before
    assert repairs(memory_cluster) == 0


def cut(shard: bytes) -> bytes:
    return shard[: len(shard) // 2]


def empty(shard: bytes) -> bytes:
    return b""


def extend(shard: bytes) -> bytes:
    return shard + b"more"


@pytest.mark.parametrize("harm", [cut, empty, extend])
async def test_shards_of_another_size_are_repaired_bit_by_bit(
    memory_cluster: MemoryCluster, memory_store: Process, harm: Callable[[bytes], bytes]
) -> None:
    await put(memory_store, "k", BIG)
    before = all_shards(memory_cluster)
    for node, name in list(before)[:2]:
        memory_cluster.drives[node].shards[name] = harm(before[node, name])
    await on_demand.verify_all(memory_store.storage)
    assert (await on_demand.repair_all(memory_store.storage)).rebuilt == 2
    assert all_shards(memory_cluster) == before


async def test_swapped_and_foreign_shards_are_repaired(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    before = all_shards(memory_cluster)
    (a_node, a), (b_node, b) = list(before)[:2]
    memory_cluster.drives[a_node].shards[a] = before[b_node, b]
    memory_cluster.drives[b_node].shards[b] = before[a_node, a]
    assert await get(memory_store, "k") == BIG
    await on_demand.verify_all(memory_store.storage)
    await on_demand.repair_all(memory_store.storage)
    assert all_shards(memory_cluster) == before


async def test_too_much_damage_is_an_error_and_nothing_is_removed(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    for (node, name), shard in list(all_shards(memory_cluster).items())[:3]:
        memory_cluster.drives[node].shards[name] = bytes(len(shard))
    damaged = all_shards(memory_cluster)
    await on_demand.verify_all(memory_store.storage)
    report = await on_demand.repair_all(memory_store.storage)
    assert (report.unreadable, report.later, report.settled) == (1, 1, 0)
    memory_cluster.clock.advance(10 * DAY)
    await on_demand.merge_all(memory_store.storage)
    assert all_shards(memory_cluster) == damaged


async def test_a_blob_with_a_damaged_block_in_every_shard_is_written_anew(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    data = random.Random(5).randbytes(6 * 128 * 1024)
    await put(memory_store, "k", data)
    old = await blob_of(memory_store, "k")
    block = 128 * 1024 // 4 + 8
    for (node, name), shard in all_shards(memory_cluster).items():
        bits = bytearray(shard)
        bits[64 + name.index * block + 9] ^= 4
        memory_cluster.drives[node].shards[name] = bytes(bits)
    await on_demand.verify_all(memory_store.storage)
    assert (await on_demand.repair_all(memory_store.storage)).moved == 1
    assert (await blob_of(memory_store, "k")).blob != old.blob
    assert await get(memory_store, "k") == data
    memory_cluster.clock.advance(3600)
    await on_demand.collect_garbage(memory_store.storage)
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_what_a_reader_finds_is_repaired(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    before = all_shards(memory_cluster)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    name = ShardName(ref.profile, group.number, ref.blob, 0)
    memory_cluster.drives[group.nodes[0]].shards.pop(name)
    for _ in range(3):
        assert await get(memory_store, "k") == BIG
    assert await memory_store.damage.work(UNCLAIMED) is False
    assert repairs(memory_cluster) == 1
    assert (await on_demand.repair_all(memory_store.storage)).rebuilt == 1
    assert all_shards(memory_cluster) == before


async def test_a_wiped_drive_is_filled_again(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await fill(memory_store)
    before = all_shards(memory_cluster)
    lost = len(memory_cluster.drives["d3"].shards)
    memory_cluster.drives["d3"].shards.clear()
    report = await on_demand.merge_all(memory_store.storage)
    assert report.missing == lost
    assert (await on_demand.repair_all(memory_store.storage)).rebuilt == lost
    assert all_shards(memory_cluster) == before


async def test_an_orphan_goes_a_day_after_it_was_seen_and_only_when_all_nodes_are_there(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    storage = memory_store.storage
    await put(memory_store, "kept", BIG)
    before = all_shards(memory_cluster)
    profile = memory_store.profile()
    blob, group = memory_store.blobs.draw(profile, lambda group: False)
    writer = memory_store.blobs.open_writer(blob, group)
    await writer.write(b"x" * 1000)
    await writer.finish(b"\x80")
    assert (await on_demand.merge_all(storage)).orphans == 1
    memory_cluster.clock.advance(DAY - 1)
    assert (await on_demand.merge_all(storage)).orphans_removed == 0
    memory_cluster.clock.advance(2)
    memory_cluster.drives["d0"].inject(REFUSED, "list")
    report = await on_demand.merge_all(storage)
    assert (report.orphans_removed, report.unlisted) == (0, {"d0"})
    memory_cluster.drives["d0"].heal()
    memory_cluster.clock.advance(60)
    assert (await on_demand.merge_all(storage)).orphans_removed == 6
    assert all_shards(memory_cluster) == before


async def give_up(cluster: MemoryCluster, process: Process, node: str) -> None:
    """Mark a node as out in the layout."""
    key = keys.layout(process.storage.layout_epoch())
    layout = decode(LayoutRecord, cluster.engine.items[key].value)
    nodes = tuple(
        msgspec.structs.replace(each, state="out") if each.node == node else each
        for each in layout.nodes
    )
    given_up = msgspec.structs.replace(layout, nodes=nodes)
    await process.kv.commit([], [Put(key, encode(given_up))])


async def test_a_node_that_is_given_up_is_not_asked_for_and_holds_up_no_orphan(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    """Whether a blob is an orphan is said by references. While the node still answers it is asked
    as any other is."""
    storage = memory_store.storage
    blob, group = memory_store.blobs.draw(memory_store.profile(), lambda group: False)
    writer = memory_store.blobs.open_writer(blob, group)
    await writer.write(b"x" * 1000)
    await writer.finish(b"\x80")
    lost, name = group.nodes[0], ShardName(group.profile.name, group.number, blob, 0)
    assert (await on_demand.merge_all(storage)).orphans == 1
    memory_cluster.clock.advance(DAY + 1)
    set_live(memory_store, lost, live=False)
    report = await on_demand.merge_all(storage)
    assert (report.orphans_removed, report.unlisted) == (0, {lost})
    await give_up(memory_cluster, memory_store, lost)
    report = await on_demand.merge_all(storage)
    assert (report.orphans_removed, report.unlisted) == (5, set())
    assert list(all_shards(memory_cluster)) == [(lost, name)]
    set_live(memory_store, lost, live=True)
    memory_cluster.drives[lost].inject(REFUSED, "list")
    assert (await on_demand.merge_all(storage)).unlisted == {lost}
    memory_cluster.drives[lost].heal()
    memory_cluster.clock.advance(DAY + 1)
    await on_demand.merge_all(storage)
    memory_cluster.clock.advance(DAY + 1)
    await on_demand.merge_all(storage)
    assert all_shards(memory_cluster) == {}


async def test_many_orphans_are_an_alarm_and_nothing_is_removed(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    group = memory_store.topology.group(memory_store.profile(), 0)
    drive = memory_cluster.drives[group.nodes[0]]
    for number in range(101):
        drive.shards[ShardName(group.profile.name, 0, number.to_bytes(16, "big"), 0)] = b"shard"
    worker = MergeAndRepair(memory_store.storage)
    await worker.run_once()
    memory_cluster.clock.advance(2 * DAY)
    report = await worker.run_once()
    assert report.orphans_removed == 0
    (alarm,) = await read_merge_alarms(memory_store.kv)
    assert alarm.reason == "101 of 101 blobs of group 4+2/0 have no reference"
    assert alarm.since_ms == memory_cluster.clock.ms() - 2 * DAY * 1000  # of the first look
    assert len(drive.shards) == 101
    for number in range(5):
        drive.shards.pop(ShardName(group.profile.name, 0, number.to_bytes(16, "big"), 0))
    memory_cluster.drives[group.nodes[1]].inject(REFUSED, "list")
    assert (await worker.run_once()).orphans_removed == 0
    assert await read_merge_alarms(memory_store.kv)  # that node may have more of them
    memory_cluster.drives[group.nodes[1]].heal()
    memory_cluster.clock.advance(DAY)
    assert (await worker.run_once()).orphans_removed == 96
    assert not await read_merge_alarms(memory_store.kv)


async def test_a_surplus_copy_goes_when_the_right_one_is_whole(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    before = all_shards(memory_cluster)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    name = ShardName(ref.profile, group.number, ref.blob, 0)
    right = memory_cluster.drives[group.nodes[0]]
    spare = next(drive for node, drive in memory_cluster.drives.items() if node not in group.nodes)
    spare.shards[name] = right.shards[name]
    right.shards[name] = bytes(len(spare.shards[name]))
    await on_demand.merge_all(memory_store.storage)
    memory_cluster.clock.advance(3601)
    assert (await on_demand.merge_all(memory_store.storage)).surplus_removed == 0
    assert name in spare.shards
    right.shards[name] = spare.shards[name]
    assert (await on_demand.merge_all(memory_store.storage)).surplus_removed == 1
    assert all_shards(memory_cluster) == before


async def test_a_copy_that_the_group_may_still_need_is_no_surplus(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    spare = next(node for node in memory_cluster.drives if node not in group.nodes)
    slots = (Slot(spare, (group.nodes[0],)), *group.record.slots[1:])
    await memory_store.kv.commit([], [Put(group.key, encode(PgRecord(2, slots)))])
    before = all_shards(memory_cluster)
    memory_cluster.clock.advance(2 * DAY)
    report = await on_demand.merge_all(memory_store.storage)
    assert (report.surplus, report.missing, report.orphans) == (0, 0, 0)
    assert all_shards(memory_cluster) == before


async def test_narrowed_objects_parts_and_manifests_go_home(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    down = ["d0", "d1", "d2", "d3"]
    for name in down:
        set_live(memory_store, name, live=False)
    await put(memory_store, "k", BIG)
    await copy(memory_store, "k", "copy")
    done = await start(memory_store, "done")
    for number in (1, 2, 3):
        await part(memory_store, "done", done, number, BIG[: number * 40_000])
    await complete(memory_store, "done", done)
    await copy(memory_store, "done", "done copy")
    still_open = await start(memory_store, "open")
    await part(memory_store, "open", still_open, 7, BIG)
    assert (await blob_of(memory_store, "k")).scheme == "2+2"
    report = await on_demand.repair_all(memory_store.storage)
    assert report.moved == 0
    assert report.later > 0
    for name in down:
        set_live(memory_store, name, live=True)
    report = await on_demand.repair_all(memory_store.storage)
    assert report.later == 0
    assert repairs(memory_cluster) == 0
    audit = Audit(memory_cluster, memory_store)
    for ref in audit.held().values():
        assert not ref.nodes
        audit.check_whole(ref)
    memory_cluster.clock.advance(3600)
    await on_demand.collect_garbage(memory_store.storage)
    Audit(memory_cluster, memory_store).check_at_rest()
    assert await get(memory_store, "k") == await get(memory_store, "copy") == BIG
    joined = BIG[:40_000] + BIG[:80_000] + BIG[:120_000]
    assert await get(memory_store, "done") == await get(memory_store, "done copy") == joined
    await complete(memory_store, "open", still_open)
    assert await get(memory_store, "open") == BIG


@pytest.mark.parametrize("half_moved", [False, True])
async def test_a_manifest_that_no_version_holds_is_not_repaired_and_does_not_wait(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    monkeypatch: pytest.MonkeyPatch,
    half_moved: bool,
) -> None:
    """Written around nodes that were down, then overwritten, before or in its move home: what is
    left of it until it is collected is no reason to call the store not healed."""
    down = ["d0", "d1", "d2", "d3"]
    for name in down:
        set_live(memory_store, name, live=False)
    upload = await start(memory_store, "k")
    await part(memory_store, "k", upload, 1, BIG)
    await complete(memory_store, "k", upload)
    found = await record(memory_store, "k")
    assert found is not None
    assert isinstance(found.data, ManifestRef)
    assert found.data.blob.nodes
    for name in down:
        set_live(memory_store, name, live=True)
    if half_moved:
        with monkeypatch.context() as patch:
            patch.setattr(reencode, "ROUNDS_MAX", 0)
            await on_demand.repair_all(memory_store.storage)
        assert sum(entry.copy is not None for entry in entries(memory_cluster)) == 2
    await put(memory_store, "k", b"another")
    memory_cluster.clock.advance(3600)
    report = await on_demand.repair_all(memory_store.storage)
    assert (report.later, report.unreadable) == (0, 0)
    merged = await on_demand.merge_all(memory_store.storage)
    assert (merged.missing, merged.queued, repairs(memory_cluster)) == (0, 0, 0)
    memory_cluster.clock.advance(2 * DAY)
    await on_demand.collect_garbage(memory_store.storage)
    Audit(memory_cluster, memory_store).check_at_rest()
    assert await get(memory_store, "k") == b"another"


async def test_a_part_is_left_alone_as_long_as_its_upload_is_being_completed(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for name in ("d0", "d1", "d2"):
        set_live(memory_store, name, live=False)
    upload_id = await start(memory_store, "k")
    await part(memory_store, "k", upload_id, 1, BIG)
    for name in ("d0", "d1", "d2"):
        set_live(memory_store, name, live=True)
    upload = await find_upload(memory_store.storage, BUCKET, "k", upload_id)

    lease, attempt = memory_store.storage.lease(), b"attempt"
    memory_store.storage.completing[attempt] = asyncio.Event()
    upload = await change_record(
        memory_store.storage,
        upload,
        lambda found: msgspec.structs.replace(
            found, state="completing", owner_lease=lease, attempt=attempt
        ),
    )
    part_key = keys.part(upload_id, 1)
    before = memory_cluster.engine.items[part_key]
    assert (await on_demand.repair_all(memory_store.storage)).later == 1
    assert memory_cluster.engine.items[part_key] == before
    # Its process gives up and cannot say so: the upload is given back, and the part goes home. A
    # commit that is still on its way from there fails, as it names what the part was.
    del memory_store.storage.completing[attempt]
    assert (await on_demand.repair_all(memory_store.storage)).moved == 1
    with pytest.raises(Conflict):
        await change_record(memory_store.storage, upload, lambda found: found)
    assert memory_cluster.engine.items[part_key] != before
    await complete(memory_store, "k", upload_id)
    assert await get(memory_store, "k") == BIG


async def test_a_dead_manifest_frees_its_own_blob(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    upload = await start(memory_store, "k")
    await part(memory_store, "k", upload, 1, b"part")
    await complete(memory_store, "k", upload)
    found = await record(memory_store, "k")
    assert found is not None
    assert isinstance(found.data, ManifestRef)
    manifest: BlobRef = found.data.blob
    await delete(memory_store, "k")
    memory_cluster.clock.advance(3600)
    await on_demand.collect_garbage(memory_store.storage)
    await on_demand.merge_all(memory_store.storage)
    await on_demand.collect_garbage(memory_store.storage)
    assert manifest.blob not in {name.blob for _, name in all_shards(memory_cluster)}
    await on_demand.expire_completed(memory_store.storage)
    Audit(memory_cluster, memory_store).check_at_rest()


async def test_walking_workers_go_on_where_the_last_one_stopped(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await fill(memory_store)
    for kind in (ShardVerifier, MergeAndRepair):
        units = 0
        while await kind(memory_store.storage).work(UNCLAIMED):
            units += 1
        assert units == 16
        assert keys.cursor(kind.name) not in memory_cluster.engine.items
