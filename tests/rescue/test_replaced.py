"""A version that shards alone know of may never have been published: what it replaces is told and
stays on the drives for a while."""

from __future__ import annotations

from pathlib import Path

from s3gw.rescue.rebuild import REPLACED_KEPT_MS
from s3gw.rescue.snapshot import take_snapshot
from s3gw.workers import on_demand
from tests.rescue.disks import put_on_disks, recovered
from tests.stores import operations
from tests.stores.memory_store import MemoryCluster, Process


def shards_of(cluster: MemoryCluster, blob: bytes) -> int:
    return sum(name.blob == blob for drive in cluster.drives.values() for name in drive.shards)


async def test_what_a_newer_version_replaces_is_told_and_kept_for_a_week(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.put(memory_store, "k", b"acknowledged")
    await operations.put(memory_store, "same", b"same")
    old = (await operations.blob_of(memory_store, "k")).blob
    await take_snapshot(memory_store.storage)
    await operations.put(memory_store, "k", b"perhaps never published")
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    assert await operations.get(result.process, "k") == b"perhaps never published"
    assert ("older", "k") in result.kinds()
    assert not {kind for kind, key in result.kinds() if key == "same"}
    before = shards_of(memory_cluster, old)
    memory_cluster.clock.advance(REPLACED_KEPT_MS / 1000 - 3600)
    await on_demand.collect_garbage(result.process.storage)
    assert shards_of(memory_cluster, old) == before > 0
    memory_cluster.clock.advance(2 * 3600)
    await on_demand.collect_garbage(result.process.storage)
    assert shards_of(memory_cluster, old) == 0
    result.check()
