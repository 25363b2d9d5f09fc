"""What comes back begins its days anew: lifecycle rules that took it away do not take it again at
once."""

from __future__ import annotations

from s3gw.objects.restore import Restored, restore
from s3gw.workers import on_demand, undo
from tests.stores.memory_store import BUCKET, Process
from tests.stores.operations import get, put, record, set_trash, set_versioning
from tests.workers.lifecycle_rules import DAY, ROUNDED, carry_out, expires, queue, rule, set_rules


async def test_what_is_restored_from_the_trash_expires_so_many_days_later(
    memory_store: Process,
) -> None:
    process = memory_store
    await set_trash(process, 30 * DAY)
    await set_rules(process, rule(expires(3)))
    await carry_out(process)
    written = await put(process, "k", b"data")
    process.cluster.clock.advance(3 * DAY + ROUNDED)
    assert (await carry_out(process)).removed == 1
    process.cluster.clock.advance(10 * DAY)
    restored_ms = process.storage.clock_ms()
    assert await restore(process.storage, BUCKET, "k", None, replace=False) is Restored.DONE
    found = await record(process, "k")
    assert found is not None
    assert (found.modified_ms, found.etag) == (restored_ms, written.etag)
    process.cluster.clock.advance(3 * DAY - 1)
    assert (await carry_out(process)).removed == 0
    assert await get(process, "k") == b"data"
    process.cluster.clock.advance(ROUNDED + 3600)
    assert (await carry_out(process)).removed == 1
    assert queue(process) == []


async def test_what_an_undo_shows_again_expires_so_many_days_later(memory_store: Process) -> None:
    process = memory_store
    await set_versioning(process, "Enabled")
    await set_rules(process, rule(expires(3)))
    await carry_out(process)
    await put(process, "k", b"data")
    at_ms = process.storage.clock_ms()
    process.cluster.clock.advance(3 * DAY + ROUNDED)
    assert (await carry_out(process)).hidden == 1
    assert await record(process, "k") is None
    process.cluster.clock.advance(10 * DAY)
    await undo.start(process.storage, BUCKET, "", at_ms)
    await on_demand.finish_undos(process.storage)
    assert await get(process, "k") == b"data"
    process.cluster.clock.advance(3 * DAY - 1)
    assert (await carry_out(process)).hidden == 0
    assert await get(process, "k") == b"data"
    process.cluster.clock.advance(ROUNDED + 3600)
    assert (await carry_out(process)).hidden == 1
