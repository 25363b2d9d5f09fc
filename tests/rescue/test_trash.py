"""The trash, renames and shared parts in metadata that is rebuilt from a snapshot and shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3gw.metadata import keys
from s3gw.rescue.snapshot import take_snapshot
from tests.rescue.disks import put_on_disks, recovered
from tests.stores import operations
from tests.stores.memory_store import MemoryCluster, Process

DAY = 24 * 3600.0
DATA = b"content " * 20_000


async def test_what_was_in_the_trash_can_still_be_restored(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "FENCE_INTERVAL", 2)
    await operations.set_trash(memory_store, DAY)
    for number in range(6):
        await operations.put(memory_store, f"k{number}", DATA + b"%d" % number)
        await operations.delete(memory_store, f"k{number}")
    await operations.put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    upload = await operations.start(memory_store, "parts")
    await operations.copy_part(memory_store, "new", "parts", upload, 1)
    await operations.complete(memory_store, "parts", upload)
    await take_snapshot(memory_store.storage)
    # Blobs of what is in the trash are followed when their group has moved since.
    for drive in memory_cluster.drives.values():
        for name in list(drive.shards):
            group = memory_store.topology.group(memory_store.profile(name.profile), name.pg)
            spare = next(one for one in memory_cluster.drives if one not in group.nodes)
            if name.index == 0 and memory_cluster.drives[group.nodes[0]] is drive:
                memory_cluster.drives[spare].shards[name] = drive.shards.pop(name)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    result.check()
    process, audit = result.process, result.audit()
    audit.check_held()
    audit.check_fences()
    audit.check_trash()
    assert [await operations.record(process, key) for key in ("old", "k0")] == [None, None]
    for key in ("new", "parts"):
        assert await operations.get(process, key) == DATA
    for record_key, entry in audit.trash():
        key = keys.split_trashed(record_key)[1]
        await operations.untrash(process, key, entry.record.sequence)
        assert await operations.get(process, key) == DATA + key[1:].encode()
