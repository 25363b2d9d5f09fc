"""PutObject when nodes or placement change between the write and its commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from nodes.memory import Fault
from nodes.protocol import Buffer, DriveUnreachable
from s3gw import errors
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Description, PgRecord, Slot, encode
from s3gw.objects import publish
from s3gw.objects.publish import no_check
from s3gw.objects.write import put_object
from s3gw.workers import on_demand
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster, Process
from tests.stores.operations import blob_of, get, put, record

DATA = bytes(range(256)) * 1200
REFUSED = Fault(error=DriveUnreachable("refused"))


class ChangesPlacement(Bytes):
    """A body during which every group's record changes: `swap` replaces the node of slot 0."""

    def __init__(self, process: Process, *, swap: bool) -> None:
        super().__init__(DATA)
        self._process = process
        self._swap = swap

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        async for data in Bytes.__aiter__(self):
            yield data
        profile = self._process.profile()
        for number in range(profile.pg_count):
            group = self._process.topology.group(profile, number)
            slots = list(group.record.slots)
            if self._swap:
                spare = next(n for n in self._process.cluster.drives if n not in group.nodes)
                slots[0] = Slot(spare, (group.nodes[0],))
            changed = PgRecord(group.record.revision + 1, tuple(slots))
            await self._process.kv.commit([], [Put(group.key, encode(changed))])


def take_down(process: Process, names: Sequence[str]) -> None:
    """Nodes whose leases have ended, and that refuse connections."""
    for name in names:
        process.cluster.drives[name].inject(REFUSED)
        node = process.directory.get(name)
        assert node is not None
        node.live = False


async def put_changing(process: Process, *, swap: bool) -> BlobRef:
    target = await publish.read_target(process.storage, BUCKET, "k")
    body = ChangesPlacement(process, swap=swap)
    await put_object(process.storage, target, "owner", Description(), body, no_check)
    return await blob_of(process, "k")


async def test_a_record_that_changed_without_moving_the_blob_gives_a_plain_reference(
    memory_store: Process,
) -> None:
    ref = await put_changing(memory_store, swap=False)
    assert ref.nodes == ()
    assert await get(memory_store, "k") == DATA


async def test_a_blob_that_is_not_on_the_present_slots_is_explicit_and_queued(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    ref = await put_changing(memory_store, swap=True)
    assert len(ref.nodes) == 6
    assert ref.scheme == "4+2"
    other = await memory_cluster.process()
    assert await get(other, "k") == DATA
    assert any(key.startswith(keys.REPAIRS) for key in memory_cluster.engine.items)
    assert (await on_demand.repair_all(memory_store.storage)).moved == 1
    assert (await blob_of(memory_store, "k")).nodes == ()
    assert await get(other, "k") == DATA


async def test_a_put_that_too_few_nodes_take_is_refused_and_publishes_nothing(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await put(memory_store, "before", b"old")
    take_down(memory_store, list(memory_cluster.drives)[2:])
    for data in (b"small", DATA):
        with pytest.raises(errors.SlowDown):
            await put(memory_store, "k", data)
    assert await record(memory_store, "k") is None
    audit = Audit(memory_cluster, memory_store)
    assert len(audit.references()) == 1
    audit.check_usage()


async def test_a_put_in_which_too_many_nodes_fail_is_refused_and_leaves_no_reference(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for name in list(memory_cluster.drives)[:6]:
        memory_cluster.drives[name].inject(REFUSED)
    with pytest.raises(errors.SlowDown):
        await put(memory_store, "k", DATA)
    assert await record(memory_store, "k") is None
    assert not Audit(memory_cluster, memory_store).references()


@pytest.mark.parametrize("live", [5, 4, 3])
async def test_puts_go_on_while_three_nodes_live(
    memory_cluster: MemoryCluster, memory_store: Process, live: int
) -> None:
    take_down(memory_store, list(memory_cluster.drives)[live:])
    for key, data in (("small", b"x"), ("large", DATA)):
        await put(memory_store, key, data)
        assert await get(memory_store, key) == data
    assert len((await blob_of(memory_store, "large")).nodes) == live
    Audit(memory_cluster, memory_store).check_held()
