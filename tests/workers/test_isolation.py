"""One entry that fails unexpectedly, or cannot even be read, holds up no other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from s3gw.buckets.configurations import INVENTORY
from s3gw.buckets.lifecycle import DAY_MS
from s3gw.kv.interface import Put, Unavailable
from s3gw.metadata import keys
from s3gw.metadata.inventory_records import InventoryRun
from s3gw.metadata.lifecycle_records import Due
from s3gw.metadata.records import Checksums, CompletedRecord, RenamedRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects import trash
from s3gw.objects.buckets import change_configurations
from s3gw.workers import access_logs, inventory, lifecycle, on_demand, rewrap, stale_uploads, undo
from s3gw.workers.access_logs import ATTEMPTS_MAX
from s3gw.workers.inventory import InventoryWorker
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from s3gw.workers.stale_uploads import StaleUploads
from s3gw.workers.trash import TrashPurge
from s3gw.workers.undo import Undoer
from tests.stores import encrypted
from tests.stores.encrypted import S3
from tests.stores.memory_store import BUCKET, Process
from tests.stores.operations import (
    delete,
    get,
    part,
    put,
    set_trash,
    set_versioning,
    start,
    untrash,
)
from tests.workers import test_access_logs, test_rewrap
from tests.workers.inventories import configuration, make_reports
from tests.workers.lifecycle_rules import (
    DAY,
    ROUNDED,
    at_rest,
    carry_out,
    expires,
    queue,
    rule,
    set_rules,
    stored,
)

JUNK = b"\x01 this is no record"
Injected = pytest.MonkeyPatch


class Poison(Exception):
    """What nobody expects."""


def fails_if(plain: Callable[..., Any], poisoned: Callable[..., bool]) -> Callable[..., Any]:
    """A coroutine function that fails where `poisoned` says so of its arguments."""

    async def failing(*arguments: Any, **more: Any) -> Any:
        if poisoned(*arguments, **more):
            raise Poison("injected")
        return await plain(*arguments, **more)

    return failing


async def write(process: Process, key: bytes, value: bytes = JUNK) -> None:
    await process.kv.commit([], [Put(key, value)])


def logged(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a traceback was logged."""
    return any(one.exc_info and one.levelno == logging.ERROR for one in caplog.records)


# Lifecycle.


async def expiring(process: Process, *names: str) -> None:
    await set_rules(process, rule(expires(1)))
    for name in names:
        await put(process, name, b"data")
    await LifecycleWalk(process.storage).run_once()


async def test_what_is_due_goes_beside_a_version_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await expiring(process, "a", "poison", "z")
    poisoned = fails_if(
        lifecycle.delete_object, lambda storage, target, *_, **__: target.key == "poison"
    )
    monkeypatch.setattr(lifecycle, "delete_object", poisoned)
    process.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(process)
    assert (report.removed, report.waiting) == (2, 1)
    assert list(stored(process)) == ["poison"]
    assert logged(caplog)
    pauses = []
    for attempt in range(2, 12):
        ((due_ms, key, _),) = queue(process)
        assert key == "poison"
        pauses.append(due_ms - process.storage.clock_ms())
        process.cluster.clock.advance(pauses[-1] / 1000 + 1)
        assert (await Lifecycle(process.storage).run_once()).waiting == 1
        (entry,) = [
            item for key, item in process.cluster.engine.items.items() if key.startswith(keys.DUE)
        ]
        assert decode(Due, entry.value).attempts == attempt
    assert pauses[0] < 15 * 60_000
    assert all(after > 1.1 * before for before, after in pairwise(pauses[:6]))
    assert 4 * 3600_000 < pauses[-1] < 8 * 3600_000
    monkeypatch.undo()
    process.cluster.clock.advance(DAY / 2)
    assert (await Lifecycle(process.storage).run_once()).removed == 1
    await at_rest(process)


async def test_rules_are_walked_beside_a_job_that_cannot_be_read(
    memory_store: Process, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    for other in ("a-bucket", "z-bucket"):
        await process.kv.commit([], [Put(keys.lifecycle(other), b"\xff")])
    await expiring(process, "a", "b")
    assert len(queue(process)) == 2
    (job,) = (await process.kv.get_many([keys.lifecycle(BUCKET)])).items
    assert job is None
    assert logged(caplog)


async def test_an_engine_that_does_not_answer_is_no_failure_of_an_entry(
    memory_store: Process, monkeypatch: Injected
) -> None:
    process = memory_store
    await expiring(process, "a")
    process.cluster.clock.advance(DAY + ROUNDED)
    before = queue(process)

    async def unavailable(*arguments: Any, **more: Any) -> None:
        raise Unavailable

    monkeypatch.setattr(lifecycle, "delete_object", unavailable)
    with pytest.raises(Unavailable):
        await Lifecycle(process.storage).run_once()
    assert queue(process) == before


async def test_a_due_entry_that_cannot_be_read_is_put_off(
    memory_store: Process, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await expiring(process, "a", "b")
    now_ms = process.storage.clock_ms()
    broken = [keys.due(now_ms, b"b" * 16, keys.due_version("k", 1)), keys.due(now_ms, b"", b"")]
    for key in broken:
        await write(process, key)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).removed == 2
    assert logged(caplog)
    left = sorted(key for key in process.cluster.engine.items if key.startswith(keys.DUE))
    now_ms = process.storage.clock_ms()
    assert left == sorted(keys.put_off(keys.DUE, key, now_ms + DAY_MS) for key in broken)


async def test_a_walk_over_changed_rules_passes_a_record_that_cannot_be_read(
    memory_store: Process, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await put(process, "a", b"data")
    await put(process, "z", b"data")
    await write(process, keys.object_(BUCKET, "m"))
    await set_rules(process, rule(expires(1)))
    assert (await LifecycleWalk(process.storage).run_once()).queued == 2
    assert logged(caplog)


# The trash.


async def trashed(process: Process, *names: str) -> TrashPurge:
    await set_trash(process, DAY)
    for name in names:
        await put(process, name, b"data")
        await delete(process, name)
    worker = TrashPurge(process.storage)
    process.cluster.clock.advance(DAY + 1)
    return worker


def purges(process: Process) -> list[bytes]:
    return [key for key in process.cluster.engine.items if key.startswith(keys.PURGES)]


def poison_trash(monkeypatch: Injected) -> None:
    plain = trash.take_out

    def failing(storage: Any, tx: Any, one: Any, bucket: Any) -> None:
        if one.key == "poison":
            raise Poison("injected")
        plain(storage, tx, one, bucket)

    monkeypatch.setattr(trash, "take_out", failing)


async def test_the_trash_is_emptied_beside_a_version_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    worker = await trashed(process, "a", "poison", "z")
    with monkeypatch.context() as injected:
        poison_trash(injected)
        assert (await worker.run_once()).objects == 2
        assert logged(caplog)
        left, _ = await trash.list_trash(process.storage, BUCKET, "", most=10)
        assert [one.key for one in left] == ["poison"]
        (first,) = purges(process)
        assert not (await worker.run_once()).objects
        assert purges(process) == [first]  # not tried again at once
        process.cluster.clock.advance(900)
        assert not (await worker.run_once()).objects
        (second,) = purges(process)
        assert keys.split_purge(second)[0] > keys.split_purge(first)[0] + 900_000
    process.cluster.clock.advance(DAY)
    assert (await worker.run_once()).objects == 1
    await worker.run_once()
    assert purges(process) == []
    await at_rest(process)


async def test_a_version_that_was_put_off_in_the_trash_can_be_restored(
    memory_store: Process, monkeypatch: Injected
) -> None:
    process = memory_store
    worker = await trashed(process, "poison")
    (entry,) = (await trash.list_trash(process.storage, BUCKET, "", most=10))[0]
    with monkeypatch.context() as injected:
        poison_trash(injected)
        await worker.run_once()
    await untrash(process, "poison", entry.record.record.sequence)
    process.cluster.clock.advance(DAY)
    assert not (await worker.run_once()).objects
    assert purges(process) == []
    assert await get(process, "poison") == b"data"
    await at_rest(process)


async def test_what_cannot_be_read_in_the_trash_stays_there(
    memory_store: Process, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    worker = await trashed(process, "a", "poison", "z")
    ((key, good),) = [
        (key, item.value)
        for key, item in process.cluster.engine.items.items()
        if key.startswith(keys.trash_of(BUCKET, "poison"))
    ]
    await write(process, key)
    await write(process, keys.purge(process.storage.clock_ms() - 1, b"no holder"))
    assert (await worker.run_once()).objects == 2
    assert logged(caplog)
    assert len(purges(process)) == 2
    await write(process, key, good)
    process.cluster.clock.advance(DAY)
    assert (await worker.run_once()).objects == 1


# Uploads and answers for retries.


async def test_stale_uploads_end_beside_one_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    for name in ("a", "poison", "z"):
        await part(process, name, await start(process, name), 1, b"part")
    await write(process, keys.upload(BUCKET, "b", b"u" * 16))
    process.cluster.clock.advance(DAY)
    poisoned = fails_if(stale_uploads.abort_upload, lambda _, upload: upload.key == "poison")
    monkeypatch.setattr(stale_uploads, "abort_upload", poisoned)
    report = await StaleUploads(process.storage, 1).run_once()
    assert (report.seen, report.aborted, report.lost) == (4, 2, 2)
    assert logged(caplog)


@pytest.mark.parametrize("prefix", [keys.COMPLETED, keys.RENAMED])
async def test_answers_for_retries_go_beside_one_that_cannot_be_read(
    memory_store: Process, prefix: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    process, tx = memory_store, Transaction()
    now_ms = process.storage.clock_ms()
    answer = CompletedRecord("k", b"", "e", "", Checksums(), now_ms)
    for number in (1, 3):
        key = prefix + b"b" * 16 + bytes([number]) * 16
        other = RenamedRecord(b"", now_ms)
        process.storage.store.put_listed(tx, key, answer if prefix == keys.COMPLETED else other)
    await process.storage.store.apply(tx)
    await write(process, prefix + b"b" * 16 + b"\x02" * 16)
    report = await on_demand.expire_completed(process.storage)
    assert (report.seen, report.removed) == (3, 2)
    assert logged(caplog)


# Jobs that go over keys.


async def test_an_undo_goes_on_beside_a_key_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await set_versioning(process, "Enabled")
    names = ("a", "poison", "z")
    for name in names:
        await put(process, name, b"then")
    at_ms = process.storage.clock_ms()
    process.cluster.clock.advance(1)
    for name in names:
        await put(process, name, b"now")
    process.cluster.clock.advance(1)
    await undo.start(process.storage, BUCKET, "", at_ms)
    await write(process, keys.undo("aaa"))  # the job of another bucket, which cannot be read
    poisoned = fails_if(undo.undo.undo_key, lambda _, __, key, ___: key == "poison")
    monkeypatch.setattr(undo.undo, "undo_key", poisoned)
    worker = Undoer(process.storage)
    while await worker.work():
        pass
    job = await undo.status(process.kv, BUCKET)
    assert job is not None
    assert (job.state, job.restored, job.left) == ("done", 2, 1)
    assert "poison" in job.note
    assert [await get(process, name) for name in names] == [b"then", b"now", b"then"]
    assert logged(caplog)


async def test_wrapping_anew_goes_on_beside_a_record_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = memory_store.cluster
    old = await test_rewrap.process_with(cluster, test_rewrap.MASTER_KEY)
    for name in ("a", "poison", "z"):
        await encrypted.put(old, name, b"data", S3)
    both = await test_rewrap.process_with(cluster, test_rewrap.NEW_KEY, test_rewrap.MASTER_KEY)
    key = keys.object_(BUCKET, "poison")
    changed = rewrap.Rewrapper._changed
    poisoned = fails_if(changed, lambda _, __, item: item.key == key)
    monkeypatch.setattr(rewrap.Rewrapper, "_changed", poisoned)
    await rewrap.start(both.storage)
    job = await test_rewrap.run(both)
    assert (job.state, job.rewrapped, job.failed > 0) == ("done", 2, True)
    assert logged(caplog)


# Reports and logs.


async def test_inventories_are_made_beside_one_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await make_reports(process)
    named = {
        name: configuration().replace(b"<Id>one</Id>", b"<Id>%s</Id>" % name.encode())
        for name in ("broken", "good", "poison")
    }
    shape = INVENTORY.document
    fragments = {name: shape.fragment(shape.parse(xml)).encode() for name, xml in named.items()}
    await change_configurations(process.storage, BUCKET, INVENTORY.name, lambda held: fragments)
    await write(process, keys.inventory(BUCKET, "broken"))
    plain = inventory._Report._write
    poisoned = fails_if(plain, lambda report: report._inventory.id == "poison")
    monkeypatch.setattr(inventory._Report, "_write", poisoned)
    assert await InventoryWorker(process.storage).run_once() == 2
    for name, state in (("good", "done"), ("poison", "failed")):
        found = await process.storage.store.get(InventoryRun, keys.inventory(BUCKET, name))
        assert found.record is not None
        assert found.record.state == state
    assert logged(caplog)


async def test_access_logs_are_delivered_beside_one_that_fails(
    memory_store: Process, monkeypatch: Injected, caplog: pytest.LogCaptureFixture
) -> None:
    process = memory_store
    await test_access_logs.make_target(process)
    logs = test_access_logs.make_logs(process, buffer_bytes=10)
    bucket = await test_access_logs.source(process)
    poisoned = fails_if(access_logs.send, lambda _, delivery, *__: delivery.source == "poison")
    monkeypatch.setattr(access_logs, "send", poisoned)
    logs.add("poison", bucket, test_access_logs.NOW, b"12345")
    logs.add(BUCKET, bucket, test_access_logs.NOW, b"12345")
    for _ in range(2 * ATTEMPTS_MAX):
        process.cluster.clock.advance(60)
        while await logs.work():
            pass
    assert logs.lines == {"delivered": 1, "dropped": 1}
    assert logged(caplog)
    logs.add(BUCKET, bucket, test_access_logs.NOW, b"1234567890")  # the buffer is free again
    await logs.flush()
    assert logs.lines["delivered"] == 2
