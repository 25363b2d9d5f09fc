"""Writers that decided on the same reading of a key, one after the other, with a delete between."""

from __future__ import annotations

import pytest

from s3gw.metadata import keys
from s3gw.metadata.counters import total
from s3gw.metadata.records import Description, Usage
from s3gw.objects import publish, trash
from s3gw.objects.publish import no_check
from s3gw.objects.write import put_object
from s3gw.workers import on_demand
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Bytes, Process

DAY = 86_400.0
LONG = b"long " * 30_000
LONGER = b"longer " * 30_000


async def write(process: Process, target: publish.Target, data: bytes) -> None:
    await put_object(process.storage, target, "owner", Description(), Bytes(data), no_check)


@pytest.mark.parametrize("bring_back", [False, True])
async def test_a_write_that_began_before_another_was_deleted_has_a_place_of_its_own_in_the_trash(
    memory_store: Process, bring_back: bool
) -> None:
    """Both were decided when the key was free, at one revision of the store."""
    await operations.set_trash(memory_store, 2 * DAY)
    slow = await publish.read_target(memory_store.storage, BUCKET, "k")
    quick = await publish.read_target(memory_store.storage, BUCKET, "k")
    assert slow.revision == quick.revision
    await write(memory_store, quick, LONG)
    await operations.delete(memory_store, "k")
    memory_store.cluster.clock.advance(DAY)
    await write(memory_store, slow, LONGER)
    assert await operations.get(memory_store, "k") == LONGER
    await operations.delete(memory_store, "k")
    found, _ = await trash.list_trash(memory_store.storage, BUCKET, "k", most=10)
    assert [one.record.record.size for one in found] == [len(LONGER), len(LONG)]
    audit = Audit(memory_store.cluster, memory_store)
    audit.check_held()
    audit.check_usage()
    audit.check_trash()
    if bring_back:
        sequence = found[-1].record.record.sequence
        await operations.untrash(memory_store, "k", sequence)
        assert await operations.get(memory_store, "k") == LONG
        await operations.delete(memory_store, "k")
    memory_store.cluster.clock.advance(DAY + 1)
    await on_demand.purge_trash(memory_store.storage)
    kept, _ = await trash.list_trash(memory_store.storage, BUCKET, "k", most=10)
    assert len(kept) == 1 + bring_back  # the second is there for a day more
    memory_store.cluster.clock.advance(3 * DAY)
    await on_demand.purge_trash(memory_store.storage)
    memory_store.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(memory_store.storage)
    Audit(memory_store.cluster, memory_store).check_at_rest()
    prefix = keys.usages(BUCKET)
    page = await memory_store.kv.scan(prefix, keys.after_prefix(prefix), limit=64)
    assert total(page.items) == Usage()
    assert not [key for key in memory_store.cluster.engine.items if key.startswith(keys.PURGES)]
