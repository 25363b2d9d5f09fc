"""Metadata rebuilt from shards and snapshots: what is read afterwards, and that the books agree."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from s3gw.cluster.ledger import read_merge_alarms
from s3gw.errors import PreconditionFailed
from s3gw.metadata import keys
from s3gw.metadata.records import Description, RestoredRecord, StoreRecord
from s3gw.metadata.sequences import moment_of
from s3gw.metadata.store import Transaction
from s3gw.objects import publish
from s3gw.objects.write import put_object
from s3gw.rescue import sources
from s3gw.rescue.drives import RescueError
from s3gw.rescue.rebuild import Plan, Rebuild, confirm
from s3gw.rescue.snapshot import take_snapshot
from s3gw.workers import on_demand
from s3gw.workers.merge import MergeAndRepair
from tests.rescue.disks import Recovered, catalog_of, put_on_disks, recovered
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster, Process
from tests.workers.lifecycle_rules import carry_out, expires, queue, rule, set_rules

PART = 5 * 1024 * 1024
DAY = 24 * 3600.0


def data_of(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


async def multipart(process: Process, key: str, *sizes: int) -> bytes:
    upload = await operations.start(process, key)
    bodies = [data_of(f"{key}{number}", size) for number, size in enumerate(sizes)]
    for number, body in enumerate(bodies, 1):
        await operations.part(process, key, upload, number, body)
    await operations.complete(process, key, upload)
    return b"".join(bodies)


async def filled(process: Process) -> dict[str, bytes]:
    """Objects of every kind: the keys, with what they read as."""
    kept = {f"k/{size}": data_of(str(size), size) for size in (0, 1, 5_000, 66_000, 300_000)}
    for key, data in kept.items():
        await operations.put(process, key, data)
    await operations.put(process, "twice", b"first")
    await operations.put(process, "twice", b"second")
    kept["twice"] = b"second"
    kept["parts"] = await multipart(process, "parts", PART, 70_000)
    kept["../../hostile\x00\n"] = b"hostile"
    await operations.put(process, "../../hostile\x00\n", b"hostile")
    left = await operations.start(process, "unfinished")
    await operations.part(process, "unfinished", left, 1, b"part of nothing")
    return kept


async def check_content(process: Process, expected: dict[str, bytes]) -> None:
    for key, data in expected.items():
        assert await operations.get(process, key) == data, key


async def check_lives(result: Recovered) -> None:
    """The store takes writes, newer than all that it has, and its collector finds all in order."""
    process = result.process
    before = await operations.record(process, "twice")
    written = await operations.put(process, "twice", b"third")
    assert before is None or written.sequence > before.sequence
    assert await operations.get(process, "twice") == b"third"
    await operations.delete(process, "twice")
    process.cluster.clock.advance(2 * DAY)
    await on_demand.collect_garbage(process.storage)
    result.check()


async def test_from_shards_alone(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = await filled(memory_store)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    result.check()
    await check_content(result.process, expected)
    assert ("older", "twice") in result.kinds()
    assert ("upload", "unfinished") in result.kinds()
    assert await operations.record(result.process, "unfinished") is None
    assert result.report.incarnation == 2
    await check_lives(result)


@pytest.mark.parametrize("seed", range(3))
async def test_with_as_many_drives_lost_as_parity_covers(
    seed: int, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = await filled(memory_store)
    lost = random.Random(seed).sample(sorted(memory_cluster.drives), 2)
    paths = put_on_disks(memory_cluster, tmp_path, without=lost)
    for name in lost:
        memory_cluster.drives[name].shards.clear()
    result = await recovered(memory_cluster, paths)
    result.check()
    await check_content(result.process, expected)


async def test_with_more_drives_lost_the_loss_is_told_and_the_rest_is_there(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = await filled(memory_store)
    lost = ["d0", "d1", "d2", "d3"]
    paths = put_on_disks(memory_cluster, tmp_path, without=lost)
    for name in lost:
        memory_cluster.drives[name].shards.clear()
    result = await recovered(memory_cluster, paths)
    result.check()
    told = {key for kind, key in result.kinds() if kind == "lost"}
    assert "k/300000" in told
    for key, data in expected.items():
        if await operations.record(result.process, key) is not None:
            found = await operations.get(result.process, key)
            assert found == data or (key == "twice" and found == b"first")
        else:
            whole = not any(
                shard.profile == "4+2.small"
                for d in memory_cluster.drives.values()
                for shard in d.shards
            )
            assert key in told or whole


async def test_a_blob_written_around_lost_nodes_is_found(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    away = [memory_store.directory.get(name) for name in ("d0", "d1", "d2")]
    for node in away:
        assert node is not None
        node.live = False
    narrowed = data_of("narrowed", 200_000)
    await operations.put(memory_store, "narrowed", data_of("other", 200_000))
    await operations.put(memory_store, "narrowed", narrowed)
    for node in away:
        assert node is not None
        node.live = True
    assert (await operations.blob_of(memory_store, "narrowed")).scheme == "3+2"
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    result.check()
    assert await operations.get(result.process, "narrowed") == narrowed
    ref = await operations.blob_of(result.process, "narrowed")
    assert ref.scheme == "3+2"
    assert result.audit().under(keys.REPAIRS)


async def test_a_snapshot_and_what_is_newer(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Uploads that were open then and are completed since, objects replaced, made and deleted."""
    expected = await filled(memory_store)
    await operations.copy(memory_store, "k/300000", "copied")
    await operations.put(memory_store, "deleted-before", b"x" * 100)
    await operations.delete(memory_store, "deleted-before")
    await operations.put(memory_store, "deleted-after", b"y" * 100)
    upload = await operations.start(memory_store, "across")
    first, second = data_of("a1", PART), data_of("a2", 1000)
    await operations.part(memory_store, "across", upload, 1, first)
    await operations.part(memory_store, "across", upload, 2, b"replaced later")
    memory_cluster.clock.advance(60)

    await take_snapshot(memory_store.storage)

    memory_cluster.clock.advance(60)
    await operations.delete(memory_store, "deleted-after")
    await operations.part(memory_store, "across", upload, 2, second)
    await operations.complete(memory_store, "across", upload)
    await operations.put(memory_store, "k/1", b"newer")
    await operations.put(memory_store, "made-after", data_of("m", 90_000))
    expected |= {
        "copied": expected["k/300000"],
        "k/1": b"newer",
        "made-after": data_of("m", 90_000),
        "across": first + second,
    }
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    assert result.report.source.startswith("snapshot")
    result.check()
    await check_content(result.process, expected)
    assert await operations.record(result.process, "deleted-before") is None
    assert await operations.get(result.process, "deleted-after") == b"y" * 100  # cannot be known
    assert not [key for key in result.audit().uploads() if key == upload]
    await check_lives(result)


async def test_lifecycle_rules_look_at_what_was_found_as_well(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await set_rules(memory_store, rule(expires(3)))
    await operations.put(memory_store, "before", b"in the snapshot")
    await take_snapshot(memory_store.storage)
    memory_cluster.clock.advance(60)
    await operations.put(memory_store, "after", b"on the drives alone")
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    process = result.process
    await carry_out(process)
    assert sorted({key for _, key, _ in queue(process)}) == ["after", "before"]
    process.cluster.clock.advance(4 * DAY + 7200)
    assert (await carry_out(process)).removed == 2
    result.check()


async def test_versions_of_the_base_and_newer_ones_are_all_there_in_order(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.set_versioning(memory_store, "Enabled")
    kept = [await operations.put(memory_store, "k", b"%d" % number) for number in range(2)]
    await operations.put(memory_store, "hidden", b"h")
    await operations.delete(memory_store, "hidden")
    await take_snapshot(memory_store.storage)
    memory_cluster.clock.advance(60)
    kept += [await operations.put(memory_store, "k", b"%d" % number) for number in (2, 3)]
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    result.check()
    process = result.process
    for version in kept:
        found = await operations.version(process, "k", version.sequence)
        assert found is not None
        assert (found.etag, found.null_version) == (version.etag, False)
    assert await operations.get(process, "k") == b"3"
    assert await operations.record(process, "hidden") is None
    Audit(process.cluster, process).check_versions()
    await operations.remove(process, "k", kept[3].sequence)
    assert await operations.get(process, "k") == b"2"


async def test_what_the_base_names_and_the_drives_lack_is_told(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.put(memory_store, "collected", b"z" * 100)
    await operations.put(memory_store, "kept", b"z" * 100)
    await take_snapshot(memory_store.storage)
    await operations.delete(memory_store, "collected")
    memory_cluster.clock.advance(2 * DAY)
    await on_demand.collect_garbage(memory_store.storage)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    assert ("gone", "collected") in result.kinds()
    assert ("gone", "kept") not in result.kinds()


async def test_leftovers_from_long_before_the_base_stay_out(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """A shard that a drive brings back from before it was deleted."""
    await operations.put(memory_store, "gone", b"g" * 100)
    paths = put_on_disks(memory_cluster, tmp_path)
    await operations.delete(memory_store, "gone")
    memory_cluster.clock.advance(2 * DAY)
    await on_demand.collect_garbage(memory_store.storage)
    await take_snapshot(memory_store.storage)
    for path in put_on_disks(memory_cluster, tmp_path / "now"):
        for file in Path(path).rglob("*.*"):
            if file.parent.name.isdecimal():
                target = tmp_path / file.relative_to(tmp_path / "now")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    result = await recovered(memory_cluster, paths)
    assert await operations.record(result.process, "gone") is None
    assert ("uncertain", "gone") in result.kinds()


async def test_groups_that_have_moved_since_the_snapshot(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = {"k": data_of("k", 200_000), "small": b"s" * 100}
    for key, data in expected.items():
        await operations.put(memory_store, key, data)
    await take_snapshot(memory_store.storage)
    for key in expected:
        ref = await operations.blob_of(memory_store, key)
        group = memory_store.topology.group_of(ref.profile, ref.blob)
        spare = next(name for name in memory_cluster.drives if name not in group.nodes)
        for drive in memory_cluster.drives.values():
            for name in list(drive.shards):
                if (name.profile, name.pg, name.index) == (ref.profile, group.number, 0):
                    memory_cluster.drives[spare].shards[name] = drive.shards.pop(name)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    result.check()
    await check_content(result.process, expected)
    for key in expected:
        result.audit().check_whole(await operations.blob_of(result.process, key))


async def test_one_blob_beside_its_group_names_its_nodes(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    bodies = {f"k{number}": data_of(str(number), 100_000) for number in range(40)}
    for key, data in bodies.items():
        await operations.put(memory_store, key, data)
    ref = await operations.blob_of(memory_store, "k7")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    spare = next(name for name in memory_cluster.drives if name not in group.nodes)
    home = memory_cluster.drives[group.nodes[1]].shards
    (name,) = [name for name in home if name.blob == ref.blob]
    memory_cluster.drives[spare].shards[name] = home.pop(name)
    await take_snapshot(memory_store.storage)
    paths = put_on_disks(memory_cluster, tmp_path)
    for metadata in (True, False):
        result = await recovered(memory_cluster, paths, metadata=metadata)
        result.check()
        moved = await operations.blob_of(result.process, "k7")
        assert moved.nodes[1] == spare
        result.audit().check_whole(moved)
        await check_content(result.process, bodies)


async def test_revisions_rise_above_what_drives_have_seen(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.put(memory_store, "k", b"1" * 100)
    ref = await operations.blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    paths = put_on_disks(memory_cluster, tmp_path)
    seen = 2**40
    table = tmp_path / "d3" / "revisions" / ref.profile
    table.parent.mkdir()
    entries = bytearray(16 * 256)
    entry = seen.to_bytes(8, "big") + (seen ^ (2**64 - 1)).to_bytes(8, "big")
    entries[16 * group.number : 16 * group.number + 16] = entry
    table.write_bytes(bytes(entries))
    result = await recovered(memory_cluster, paths)
    found = result.process.topology.group_of(ref.profile, ref.blob)
    assert found.record.revision > seen


async def test_a_restore_holds_back_the_removal_of_orphans_until_it_is_confirmed(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.put(memory_store, "old", b"o" * 100)
    await take_snapshot(memory_store.storage)
    await operations.put(memory_store, "newer", b"n" * 100)
    newer = (await operations.blob_of(memory_store, "newer")).blob
    paths = put_on_disks(memory_cluster, tmp_path)
    result = await recovered(memory_cluster, paths, add_newer=False)
    process = result.process
    assert await operations.record(process, "newer") is None
    assert await operations.get(process, "old") == b"o" * 100
    merge = MergeAndRepair(process.storage, orphan_after_seconds=0.0)

    def shards() -> int:
        return sum(n.blob == newer for d in memory_cluster.drives.values() for n in d.shards)

    report = await merge.run_once()
    assert report.orphans
    assert report.alarms
    assert await read_merge_alarms(process.kv)
    assert (report.orphans_removed, shards()) == (0, 3)
    assert await confirm(process.kv)
    assert not await confirm(process.kv)
    await merge.run_once()
    assert shards() == 0
    assert not await read_merge_alarms(process.kv)


async def test_metadata_that_is_there_is_never_overwritten(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.put(memory_store, "k", b"1" * 100)
    catalog = catalog_of(put_on_disks(memory_cluster, tmp_path))
    before = dict(memory_cluster.engine.items)
    plan = Plan("store", "us-east-1", 256, 0)
    with pytest.raises(RescueError, match="not empty"):
        await Rebuild(memory_store.kv, catalog, None, plan, print).begin()
    assert memory_cluster.engine.items == before
    other = MemoryCluster(0)
    await Rebuild(other.kv(), catalog, None, plan, print).begin()
    with pytest.raises(RescueError, match="interrupted recovery"):
        await Rebuild(other.kv(), catalog, None, plan, print).begin()
    with pytest.raises(RescueError, match="has not ended"):
        await confirm(other.kv())


async def test_secrets_are_new_and_what_is_under_a_lease_is_gone(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    old = memory_cluster.identity
    assert old is not None
    await operations.put(memory_store, "k", b"1" * 100)
    lease = await memory_store.kv.grant_lease(1000)
    tx = Transaction()
    tx.put(keys.node("d0"), RestoredRecord("", 0, 0, 0), lease=lease)
    await memory_store.kv.commit([], list(tx.writes.values()))
    await take_snapshot(memory_store.storage)
    paths = put_on_disks(memory_cluster, tmp_path)
    for file in tmp_path.rglob("*.*"):
        if file.is_file():
            assert old.cluster_secret not in file.read_bytes()
    result = await recovered(memory_cluster, paths)
    new = memory_cluster.identity
    assert isinstance(new, StoreRecord)
    assert (new.store_id, new.incarnation) == (old.store_id, old.incarnation + 1)
    assert len({old.cluster_secret, new.cluster_secret, b""}) == 3
    assert not result.audit().under(keys.NODES)


async def test_fences_are_those_of_the_new_secret(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "FENCE_INTERVAL", 3)
    for number in range(30):
        await operations.put(memory_store, f"k{number:02}", b"1" * 10)
        if number == 15:
            await take_snapshot(memory_store.storage)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    new = memory_cluster.identity
    assert new is not None
    audit = result.audit()
    listed = [*audit.under(keys.OBJECTS), *audit.under(keys.UPLOADS)]
    wanted = {keys.fence(key) for key in listed if keys.carries_fence(key, new.fence_secret)}
    assert set(audit.under(keys.fence(b""))) == wanted
    assert len(listed) == 30
    assert wanted


async def test_a_racing_writer_that_may_have_lost_does_not_replace_the_base(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The same moment in the footer of a blob that nothing refers to, and the higher sequence."""
    targets = [await publish.read_target(memory_store.storage, BUCKET, "k") for _ in range(2)]
    first, second = (publish.sequence_of(memory_store.storage, target) for target in targets)
    assert first < second
    assert moment_of(first) == moment_of(second)

    def must_be_absent(target: publish.Target) -> None:
        if target.visible is not None:
            raise PreconditionFailed()

    async def create(target: publish.Target, data: bytes) -> None:
        await put_object(
            memory_store.storage, target, "owner", Description(), Bytes(data), must_be_absent
        )

    await create(targets[0], b"winner")
    memory_store.cluster.clock.advance(1.0)
    with pytest.raises(PreconditionFailed):
        await create(targets[1], b"loser")
    await take_snapshot(memory_store.storage)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    assert await operations.get(result.process, "k") == b"winner"
    assert ("uncertain", "k") in result.kinds()


async def test_a_base_of_another_store_is_not_used(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await take_snapshot(memory_store.storage)
    catalog = catalog_of(put_on_disks(memory_cluster, tmp_path))
    warnings: list[str] = []
    assert sources.newest(catalog, "another", warnings.append) is None
    assert len(warnings) == 1


async def test_a_file_in_a_wrong_directory_does_not_stop_a_recovery(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    for number in range(5):
        await operations.put(memory_store, f"k{number}", data_of(str(number), 100))
    ref = await operations.blob_of(memory_store, "k3")
    paths = put_on_disks(memory_cluster, tmp_path)
    for file in tmp_path.rglob(f"{ref.blob.hex()}.*"):
        wrong = file.parent.parent / str((int(file.parent.name) + 1) % 8)
        wrong.mkdir(exist_ok=True)
        file.rename(wrong / file.name)
    result = await recovered(memory_cluster, paths)
    result.check()
    assert ("uncertain", "k3") in result.kinds()
    assert await operations.record(result.process, "k3") is None
    assert await operations.get(result.process, "k2") == data_of("2", 100)
