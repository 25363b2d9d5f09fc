"""A read that meets a placement group in the moment it moves."""

from __future__ import annotations

from nodes.protocol import ShardName
from s3gw.kv.interface import Item, Put
from s3gw.metadata.records import BlobRef, PgRecord, Slot, encode
from tests.stores.memory_store import MemoryCluster, Process
from tests.stores.operations import blob_of, get, put


async def move(process: Process, ref: BlobRef) -> Item:
    """Every shard of the blob to another slot's node, and the group's record with them."""
    group = process.topology.group_of(ref.profile, ref.blob)
    nodes = list(reversed(group.nodes))
    drives = process.cluster.drives
    names = [ShardName(ref.profile, group.number, ref.blob, index) for index in range(len(nodes))]
    shards = [drives[node].shards.pop(name) for node, name in zip(group.nodes, names, strict=True)]
    for node, name, shard in zip(nodes, names, shards, strict=True):
        drives[node].shards[name] = shard
    record = PgRecord(group.record.revision + 1, tuple(Slot(node) for node in nodes))
    await process.kv.commit([], [Put(group.key, encode(record))])
    (item,) = (await process.kv.get_many([group.key])).items
    assert item is not None
    return item


async def test_a_read_goes_on_when_the_watch_told_of_the_move_while_it_looked(
    memory_cluster: MemoryCluster,
) -> None:
    told: list[Item] = []

    def damaged(ref: BlobRef, index: int, reason: str) -> None:
        for item in told:  # what the watch does, between the reader's first and second look
            process.topology.learn_group(item)

    process = await memory_cluster.process(damaged=damaged)
    data = bytes(range(256)) * 1000
    await put(process, "k", data)
    told.append(await move(process, await blob_of(process, "k")))
    assert await get(process, "k") == data


async def test_a_read_that_has_begun_goes_on_after_a_move(memory_store: Process) -> None:
    data = bytes(range(256)) * 8000
    await put(memory_store, "k", data)
    ref = await blob_of(memory_store, "k")
    got = b""
    moved = False
    async for buffers in memory_store.blobs.read(ref, 0, ref.size, window_stripes=1):
        got += b"".join(map(bytes, buffers))
        if not moved:
            moved = True
            await move(memory_store, ref)
    assert got == data
