"""A worker whose lock has gone to another process changes nothing any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from s3gw import limits
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.workers import undo
from s3gw.workers.contract import Claim, ClaimLost, Worker, take_lock, under
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from s3gw.workers.stale_uploads import StaleUploads
from s3gw.workers.trash import TrashPurge
from s3gw.workers.undo import Undoer
from tests.stores.memory_store import BUCKET, Process
from tests.stores.operations import (
    complete,
    delete,
    get,
    part,
    put,
    record,
    set_trash,
    set_versioning,
    start,
)
from tests.workers.lifecycle_rules import DAY, ROUNDED, aborts, expires, removes, rule, set_rules
from tests.workers.test_transition import DATA, TO_COLD, make_cold


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


async def to_expire(process: Process) -> Worker:
    await set_rules(process, rule(expires(1)))
    await put(process, "k", b"data")
    return await due(process)


async def to_hide(process: Process) -> Worker:
    await set_versioning(process, "Enabled")
    return await to_expire(process)


async def to_remove(process: Process) -> Worker:
    await set_versioning(process, "Enabled")
    await set_rules(process, rule(removes(1)))
    for body in (b"old", b"new"):
        await put(process, "k", body)
    return await due(process)


async def to_abort(process: Process) -> Worker:
    await set_rules(process, rule(aborts(1)))
    await part(process, "k", await start(process, "k"), 1, b"part")
    return await due(process)


async def to_move(process: Process) -> Worker:
    await make_cold(process)
    await set_rules(process, TO_COLD)
    await put(process, "k", DATA)
    return await due(process)


async def to_move_parts(process: Process) -> Worker:
    await make_cold(process)
    await set_rules(process, TO_COLD)
    upload = await start(process, "k")
    await part(process, "k", upload, 1, DATA)
    await complete(process, "k", upload)
    return await due(process)


async def due(process: Process) -> Worker:
    await LifecycleWalk(process.storage).run_once()
    worker = Lifecycle(process.storage)
    process.cluster.clock.advance(DAY + ROUNDED)
    return worker


async def to_purge(process: Process) -> Worker:
    await set_trash(process, DAY)
    for key in ("a", "b"):
        await put(process, key, b"data")
        await delete(process, key)
    worker = TrashPurge(process.storage)
    process.cluster.clock.advance(DAY + 1)
    return worker


async def to_end_uploads(process: Process) -> Worker:
    await start(process, "k")
    process.cluster.clock.advance(DAY)
    return StaleUploads(process.storage, DAY / 2)


async def to_undo(process: Process) -> Worker:
    await set_versioning(process, "Enabled")
    await put(process, "k", b"then")
    at_ms = process.storage.clock_ms()
    process.cluster.clock.advance(1)
    await put(process, "k", b"now")
    process.cluster.clock.advance(1)
    await undo.start(process.storage, BUCKET, "", at_ms)
    return Undoer(process.storage)


WORK = (
    to_expire,
    to_hide,
    to_remove,
    to_abort,
    to_move,
    to_move_parts,
    to_purge,
    to_end_uploads,
    to_undo,
)


async def claim_of(process: Process, worker: Worker) -> Claim:
    claim = await take_lock(
        process.storage.store, keys.lock(worker.name), b"this", await process.take_lease()
    )
    assert claim is not None
    return claim


def stored(process: Process) -> dict[bytes, bytes]:
    return {key: item.value for key, item in process.cluster.engine.items.items()}


@pytest.mark.parametrize("prepare", WORK)
async def test_a_worker_that_lost_its_lock_changes_nothing(
    memory_store: Process, prepare: Callable[[Process], Awaitable[Worker]]
) -> None:
    process = memory_store
    worker = await prepare(process)
    claim = await claim_of(process, worker)
    await process.kv.commit([], [Put(claim.key, b"another")])
    before = stored(process)
    with pytest.raises(ClaimLost):
        while await worker.work(claim):
            pass
    assert stored(process) == before


@pytest.mark.parametrize("prepare", WORK)
async def test_a_worker_that_holds_its_lock_does_its_work(
    memory_store: Process, prepare: Callable[[Process], Awaitable[Worker]]
) -> None:
    process = memory_store
    worker = await prepare(process)
    claim = await claim_of(process, worker)
    before = stored(process)
    while await worker.work(claim):
        pass
    assert stored(process) != before


async def test_what_is_done_for_requests_is_done_for_a_worker_under_its_lock(
    memory_store: Process,
) -> None:
    process = memory_store
    worker = await to_purge(process)
    claim = await claim_of(process, worker)
    claimed = await process.cluster.process(seed=1)
    claimed.storage = under(claimed.storage, claim)
    await put(claimed, "k", b"one")
    await process.kv.commit([], [Put(claim.key, b"another")])
    with pytest.raises(ClaimLost):
        await put(claimed, "k", b"two")
    with pytest.raises(ClaimLost):
        await delete(claimed, "k")
    assert await get(process, "k") == b"one"
    await put(process, "k", b"three")
    assert await record(process, "k") is not None
