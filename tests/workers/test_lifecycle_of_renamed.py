"""Lifecycle rules beside renames, the trash and undo: what is queued is what is there."""

from __future__ import annotations

import pytest

from s3gw.metadata import keys
from s3gw.objects.restore import Restored
from s3gw.workers import on_demand, undo
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Process
from tests.workers.lifecycle_rules import carry_out, expires, queue, removes, rule, set_rules

DAY = 24 * 3600.0


def queued(process: Process) -> list[tuple[str, int]]:
    return sorted({(key, sequence) for _, key, sequence in queue(process) if sequence > 0})


@pytest.mark.parametrize("versioning", ["", "Enabled", "Suspended"])
async def test_the_queue_follows_a_rename(memory_store: Process, versioning: str) -> None:
    if versioning:
        await operations.set_versioning(memory_store, versioning)
    await set_rules(memory_store, rule(expires(10) + removes(5)))
    await operations.put(memory_store, "old", b"content")
    await operations.put(memory_store, "new", b"replaced")
    await operations.rename(memory_store, "old", "new")
    there = {
        (key, record.sequence)
        for _, key, record in Audit(memory_store.cluster, memory_store).versions()
        if not record.marker
    }
    assert {entry for entry in queued(memory_store) if entry in there} == there
    if not versioning:
        assert set(queued(memory_store)) == there
    memory_store.cluster.clock.advance(12 * DAY)
    await carry_out(memory_store)
    assert await operations.record(memory_store, "new") is None


async def test_what_a_rule_removes_can_be_restored_and_its_turn_comes_again(
    memory_store: Process,
) -> None:
    await operations.set_trash(memory_store, 30 * DAY)
    await set_rules(memory_store, rule(expires(10)))
    await carry_out(memory_store)
    await operations.put(memory_store, "k", b"content")
    memory_store.cluster.clock.advance(12 * DAY)
    await carry_out(memory_store)
    [(record_key, entry)] = Audit(memory_store.cluster, memory_store).trash()
    assert keys.split_trashed(record_key)[1] == "k"
    assert queued(memory_store) == []
    restored = await operations.untrash(memory_store, "k", entry.record.sequence)
    assert restored is Restored.DONE
    assert [key for key, _ in queued(memory_store)] == ["k"]


async def test_an_undo_queues_what_it_makes(memory_store: Process) -> None:
    await operations.set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(expires(10) + removes(5)))
    await operations.put(memory_store, "k", b"then")
    memory_store.cluster.clock.advance(1.0)
    moment = memory_store.storage.clock_ms()
    memory_store.cluster.clock.advance(1.0)
    await operations.put(memory_store, "k", b"now")
    await undo.start(memory_store.storage, BUCKET, "", moment)
    await on_demand.finish_undos(memory_store.storage)
    assert await operations.get(memory_store, "k") == b"then"
    versions = Audit(memory_store.cluster, memory_store).versions()
    assert {(key, record.sequence) for _, key, record in versions} <= set(queued(memory_store))
