"""Notes of names: written after the rename, dropped with their version, and in order whatever
dies between."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest

from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import NameRecord, decode
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects import footer, names, publish
from s3gw.objects.change import change_version
from s3gw.objects.names import look, write
from s3gw.objects.storage import Storage
from s3gw.workers import on_demand
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.names import WALK_MS, Names
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

DATA = b"content " * 10_000
DAY = 24 * 3600.0


def check(process: Process) -> Audit:
    audit = Audit(process.cluster, process)
    audit.check_held()
    audit.check_counts()
    audit.check_usage()
    return audit


async def at_rest(process: Process) -> None:
    process.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(process.storage)
    Audit(process.cluster, process).check_at_rest()


def queued(process: Process) -> list[tuple[str, str]]:
    found = Audit(process.cluster, process).under(keys.NAMINGS)
    return [keys.split_name(key)[:2] for key in found]


def noted(process: Process) -> dict[tuple[str, str], NameRecord]:
    found = Audit(process.cluster, process).under(keys.NAMES)
    return {keys.split_name(key)[:2]: decode(NameRecord, value) for key, value in found.items()}


async def said(process: Process, key: str) -> footer.Footer:
    """What the note of a key's version says."""
    blob = noted(process)[BUCKET, key].blob
    assert blob is not None
    return footer.parse(await process.blobs.footer_map(blob))


async def renamed(process: Process, source: str = "old", target: str = "new") -> None:
    await operations.put(process, source, DATA)
    await operations.rename(process, source, target)


async def test_a_note_says_all_that_the_version_is(memory_store: Process) -> None:
    await renamed(memory_store)
    target = await publish.read_target(memory_store.storage, BUCKET, "new")
    await change_version(
        memory_store.storage,
        target,
        lambda found: msgspec.structs.replace(
            found, description=msgspec.structs.replace(found.description, tags={"since": "then"})
        ),
    )
    record = await operations.record(memory_store, "new")
    assert record is not None
    assert queued(memory_store) == [(BUCKET, "new")]
    report = await Names(memory_store.storage).run_once()
    assert (report.noted, report.dropped, queued(memory_store)) == (1, 0, [])
    note = await said(memory_store, "new")
    assert (note.kind, note.bucket, note.key, note.former) == ("name", BUCKET, "new", ["old"])
    assert (note.sequence, note.content_id) == (record.sequence, record.content_id)
    assert note.description == record.description
    check(memory_store)


@pytest.mark.parametrize("how", ["delete", "put", "rename"])
async def test_a_note_goes_with_its_version(how: str, memory_store: Process) -> None:
    await renamed(memory_store)
    worker = Names(memory_store.storage)
    await worker.run_once()
    if how == "delete":
        await operations.delete(memory_store, "new")
    elif how == "put":
        await operations.put(memory_store, "new", b"another")
    else:
        await operations.rename(memory_store, "new", "newer")
    assert (await worker.run_once()).dropped == 1
    assert set(noted(memory_store)) == ({(BUCKET, "newer")} if how == "rename" else set())
    check(memory_store)
    await at_rest(memory_store)


async def test_an_entry_whose_version_is_gone_is_forgotten(memory_store: Process) -> None:
    await renamed(memory_store)
    await operations.delete(memory_store, "new")
    await Names(memory_store.storage).run_once()
    assert (queued(memory_store), noted(memory_store)) == ([], {})
    await at_rest(memory_store)


async def test_a_copy_onto_itself_is_noted_again(memory_store: Process) -> None:
    """The version is another one, the content is the same, and its shards say the old name."""
    await renamed(memory_store)
    worker = Names(memory_store.storage)
    await worker.run_once()
    copy = await operations.copy(memory_store, "new", "new")
    await worker.run_once()
    note = await said(memory_store, "new")
    assert (note.sequence, note.former) == (copy.sequence, ["old"])
    await worker.run_once()
    check(memory_store)
    await at_rest(memory_store)


async def test_what_is_in_the_trash_keeps_its_name(memory_store: Process) -> None:
    await operations.set_trash(memory_store, 10 * DAY)
    await renamed(memory_store)
    worker = Names(memory_store.storage)
    await worker.run_once()
    sequence = noted_sequence(memory_store)
    await operations.delete(memory_store, "new")
    assert (await worker.run_once()).dropped == 0
    await operations.untrash(memory_store, "new", sequence)
    assert queued(memory_store) == [(BUCKET, "new")]
    report = await worker.run_once()
    assert (report.noted, report.dropped) == (1, 1)
    assert (await said(memory_store, "new")).former == ["old"]
    check(memory_store)


def noted_sequence(process: Process) -> int:
    (key,) = Audit(process.cluster, process).under(keys.NAMES)
    return keys.split_name(key)[2]


async def test_a_version_that_changes_meanwhile_is_noted_the_next_time(
    memory_store: Process,
) -> None:
    await renamed(memory_store)
    (item,) = (
        await memory_store.kv.scan(keys.NAMINGS, keys.after_prefix(keys.NAMINGS), limit=2)
    ).items
    seen = await look(memory_store.storage, item)
    await operations.rename(memory_store, "new", "newer")
    with pytest.raises(Conflict):
        await write(memory_store.storage, seen)
    await Names(memory_store.storage).run_once()
    assert set(noted(memory_store)) == {(BUCKET, "newer")}
    assert (await said(memory_store, "newer")).former == ["new", "old"]
    check(memory_store)


async def test_two_workers_note_a_name_once(memory_cluster: MemoryCluster) -> None:
    one, other = await memory_cluster.process(), await memory_cluster.process(seed=1)
    await renamed(one)
    (item,) = (await one.kv.scan(keys.NAMINGS, keys.after_prefix(keys.NAMINGS), limit=2)).items
    seen = await look(one.storage, item)
    await Names(other.storage).run_once()
    with pytest.raises(Conflict):
        await write(one.storage, seen)
    assert len(noted(one)) == 1
    check(one)


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_worker_that_dies_at_any_commit(mode: Mode) -> None:
    """Whatever it left, the next one ends with one note, and the books are right."""
    for steps in range(6):
        cluster = MemoryCluster(8)
        await cluster.found()
        process = await cluster.process()
        await renamed(process)
        await renamed(process, "gone", "soon")
        await Names(process.storage).run_once()
        await operations.delete(process, "soon")
        await operations.rename(process, "new", "newer")
        dying = await cluster.process(CrashingKV(cluster.kv(), Fuse(steps, mode)), seed=steps)
        with suppress(Crashed, OutcomeUnknown):
            await Names(dying.storage).run_once()
        await Names(process.storage).run_once()
        assert set(noted(process)) == {(BUCKET, "newer")}
        assert queued(process) == []
        check(process)


async def test_a_note_that_cannot_be_written_does_not_hold_up_the_others(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await renamed(memory_store, f"old{number}", f"new{number}")
    writing = names.write

    async def failing(storage, named):  # type: ignore[no-untyped-def]
        if named.key == "new1":
            raise ValueError("damaged")
        return await writing(storage, named)

    monkeypatch.setattr(names, "write", failing)
    await Names(memory_store.storage).run_once()
    assert {key for _, key in noted(memory_store)} == {"new0", "new2"}
    assert queued(memory_store) == [(BUCKET, "new1")]


async def test_what_cannot_be_noted_is_tried_less_often_each_time(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await renamed(memory_store)
    worker = Names(memory_store.storage)
    tried = 0
    plain = names.write

    async def failing(storage: Storage, named: names.Named) -> bool:
        nonlocal tried
        tried += 1
        raise BlobUnreadable("its nodes are away")

    monkeypatch.setattr(names, "write", failing)
    for _ in range(6 * 60):
        await worker.work(UNCLAIMED)
        memory_cluster.clock.advance(10.0)
    assert 5 <= tried <= 8
    monkeypatch.setattr(names, "write", plain)
    memory_cluster.clock.advance(3600.0)
    await worker.work(UNCLAIMED)
    assert (BUCKET, "new") in noted(memory_store)


async def test_notes_are_walked_once_an_hour(memory_store: Process) -> None:
    await renamed(memory_store)
    worker = Names(memory_store.storage)
    assert not await worker.work(UNCLAIMED)
    await operations.delete(memory_store, "new")
    assert not await worker.work(UNCLAIMED)
    assert noted(memory_store)
    memory_store.cluster.clock.advance(WALK_MS / 1000)
    assert not await worker.work(UNCLAIMED)
    assert not noted(memory_store)


async def test_a_note_that_lies_elsewhere_is_brought_home(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    away = [memory_store.directory.get(name) for name in ("d0", "d1", "d2", "d3")]
    for node in away:
        assert node is not None
        node.live = False
    for number in range(4):
        await renamed(memory_store, f"old{number}", f"new{number}")
    await Names(memory_store.storage).run_once()
    assert any(name.blob.nodes for name in noted(memory_store).values() if name.blob)
    for node in away:
        assert node is not None
        node.live = True
    memory_cluster.clock.advance(3600)
    await on_demand.repair_all(memory_store.storage)
    assert not any(name.blob.nodes for name in noted(memory_store).values() if name.blob)
    assert (await said(memory_store, "new0")).former == ["old0"]
    check(memory_store)
    await at_rest(memory_store)
