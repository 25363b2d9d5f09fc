"""What of the repair queue waits for nodes: it costs next to nothing, and goes on at once when they
are back."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import Page, Put
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, PgRecord, Repair, Slot, decode, encode
from s3gw.workers import repair, waiting
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.damage import URGENCY_CRITICAL
from s3gw.workers.reencode import Entry
from s3gw.workers.repair import RepairWorker
from s3gw.workers.waiting import UNREAD_SECONDS_PER_ENTRY, Obstacle, Waiting
from tests.stores.memory_store import PROFILE, MemoryCluster, Process
from tests.stores.operations import blob_of, get, put
from tests.workers.test_repair_queue import BIG, entries, flip, place, queue, repair_of, set_live

DOWN = ("d0", "d1", "d2")  # every group has one of them
NUMBER = 12


class Counted:
    """What the engine was asked for."""

    def __init__(self, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = process.cluster
        self.calls = self.items = 0
        self.revision = self.cluster.engine.revision
        for name in ("scan", "get_many"):
            self._count(process, name, monkeypatch)

    def _count(self, process: Process, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = getattr(process.kv, name)

        async def counting(*args: Any, **more: Any) -> Any:
            answer = await plain(*args, **more)
            self.calls += 1
            self.items += len(answer.items) if isinstance(answer, Page) else 0
            return answer

        monkeypatch.setattr(process.kv, name, counting)

    def take(self) -> tuple[int, int, int]:
        """Commits, calls and items read since the last time."""
        found = self.cluster.engine.revision - self.revision, self.calls, self.items
        self.revision, self.calls, self.items = self.cluster.engine.revision, 0, 0
        return found


async def rounds(process: Process, worker: RepairWorker, number: int = 1) -> None:
    for _ in range(number):
        while await worker.work(UNCLAIMED):
            pass
        process.cluster.clock.advance(10.0)


async def narrowed(process: Process) -> None:
    """Blobs that were written around nodes that are down, and can go home only with these."""
    for name in DOWN:
        set_live(process, name, live=False)
    for number in range(NUMBER):
        await put(process, f"k{number}", BIG)
    assert len(entries(process.cluster)) == NUMBER


async def test_what_cannot_go_home_is_written_once_and_then_hardly_looked_at(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await narrowed(memory_store)
    worker = RepairWorker(memory_store.storage)
    counted = Counted(memory_store, monkeypatch)
    await rounds(memory_store, worker, 20)
    commits, _, _ = counted.take()
    assert commits == NUMBER, "each has been looked at"
    assert {entry.attempts for entry in entries(memory_cluster).values()} == {1}
    await rounds(memory_store, worker, 360)
    commits, calls, items = counted.take()
    assert commits == 0
    assert items <= 360 * NUMBER
    assert calls <= 360 * (2 + len(entries(memory_cluster)))


async def test_what_waits_goes_on_in_the_round_after_its_node_is_back(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await narrowed(memory_store)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 100)
    assert len(entries(memory_cluster)) == NUMBER
    for name in DOWN[:-1]:
        set_live(memory_store, name, live=True)
    await rounds(memory_store, worker)
    left = len(entries(memory_cluster))
    assert left < NUMBER, "some groups have all their nodes by now"
    set_live(memory_store, DOWN[-1], live=True)
    await rounds(memory_store, worker)
    assert entries(memory_cluster) == {}
    for number in range(NUMBER):
        assert not (await blob_of(memory_store, f"k{number}")).nodes
        assert await get(memory_store, f"k{number}") == BIG


async def test_a_long_part_is_not_even_read_until_it_is_time_or_its_node_is_back(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "BATCH_ENTRIES", 3)
    monkeypatch.setattr("s3gw.workers.waiting.UNREAD_SECONDS_PER_ENTRY", 300.0)
    await narrowed(memory_store)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 10)
    counted = Counted(memory_store, monkeypatch)
    await rounds(memory_store, worker, 20)
    assert counted.take()[::2] == (0, 0)
    # Damage that is found meanwhile is another part of the queue: here, of what nobody holds.
    blob = b"\xff" * 16
    number = memory_store.topology.group_of(PROFILE, blob).number
    await queue(memory_store, Repair(PROFILE, number, blob, "found", 1, lost=(0,)))
    assert len(entries(memory_cluster)) == NUMBER + 1
    await rounds(memory_store, worker)
    assert len(entries(memory_cluster)) == NUMBER
    for name in DOWN:
        set_live(memory_store, name, live=True)
    await rounds(memory_store, worker)
    assert entries(memory_cluster) == {}


async def test_what_comes_into_an_unread_part_is_seen_after_a_while(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    """The pause grows with the number of entries that wait."""
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    away = group.nodes[5]
    flip(memory_cluster, memory_store, ref, 5)
    await queue(memory_store, repair_of(memory_store, ref, 5))
    set_live(memory_store, away, live=False)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 10)
    (key,) = entries(memory_cluster)
    # What is queued behind it in the same part can be settled: nobody holds it.
    other = Repair(ref.profile, group.number, b"\xff" * 16, "found", 1, lost=(0,))
    wanted = keys.repair(key[len(keys.REPAIRS)], other.profile, other.pg, other.blob)
    await memory_store.kv.commit([], [Put(wanted, encode(other))])
    await rounds(memory_store, worker, 1 + int(UNREAD_SECONDS_PER_ENTRY))
    assert list(entries(memory_cluster)) == [key]


async def test_damage_on_a_node_that_is_down_waits_for_it_or_for_another_slot(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    flip(memory_cluster, memory_store, ref, 4)
    await queue(memory_store, repair_of(memory_store, ref, 4))
    set_live(memory_store, group.nodes[4], live=False)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 20)
    counted = Counted(memory_store, monkeypatch)
    await rounds(memory_store, worker, 100)
    assert counted.take()[0] == 0
    ((_, entry),) = entries(memory_cluster).items()
    assert (entry.lost, entry.attempts) == ((4,), 1)
    # The slot is given to a node that lives.
    spare = next(name for name in memory_cluster.drives if name not in group.nodes)
    slots = list(group.record.slots)
    slots[4] = Slot(spare)
    record = PgRecord(group.record.revision + 1, tuple(slots))
    await memory_store.kv.commit([], [Put(group.key, encode(record))])
    await memory_store.topology.reread(group)
    await rounds(memory_store, worker)
    assert entries(memory_cluster) == {}
    assert await get(memory_store, "k") == BIG


async def lost_with_its_node(cluster: MemoryCluster, process: Process, *damaged: int) -> BlobRef:
    """A blob of which these shards are damaged, and shard 4 is known to be, whose node is down."""
    await put(process, "k", BIG)
    ref = await blob_of(process, "k")
    away, _ = place(process, ref, 4)
    flip(cluster, process, ref, *damaged)
    await queue(process, repair_of(process, ref, 4))
    set_live(process, away, live=False)
    return ref


async def test_news_of_what_waits_is_acted_on(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    """An entry that is written again is another one."""
    ref = await lost_with_its_node(memory_cluster, memory_store, 1, 4)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 20)
    flip(memory_cluster, memory_store, ref, 1)  # it was mended when the entry was tried
    await queue(memory_store, repair_of(memory_store, ref, 1))
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(1, 4)]
    await rounds(memory_store, worker)
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(4,)]


async def test_what_becomes_known_while_a_blob_is_tried_is_acted_on_in_the_next_round(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long what waits for nodes is not read."""
    monkeypatch.setattr(waiting, "UNREAD_SECONDS_PER_ENTRY", 1000.0)
    ref = await lost_with_its_node(memory_cluster, memory_store, 4)
    plain, told = repair._BlobRepair.run, False

    async def told_of_more(job: repair._BlobRepair, entry: Any) -> bool:
        nonlocal told
        done = await plain(job, entry)
        if not told:
            told = True
            flip(memory_cluster, memory_store, ref, 1)
            more = msgspec.structs.replace(entry.record, lost=(1, 4))
            await memory_store.kv.commit([], [Put(entry.key, encode(more))])
        return done

    monkeypatch.setattr(repair._BlobRepair, "run", told_of_more)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker)
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(1, 4)]
    await rounds(memory_store, worker)
    assert [entry.lost for entry in entries(memory_cluster).values()] == [(4,)]


async def test_what_becomes_critical_is_seen_behind_many_that_wait(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the walk over the rest of the queue takes."""
    monkeypatch.setattr(repair, "BATCH_ENTRIES", 3)
    monkeypatch.setattr("s3gw.workers.waiting.UNREAD_SECONDS_PER_ENTRY", 300.0)
    for number in range(NUMBER):
        await put(memory_store, f"k{number}", BIG)
        ref = await blob_of(memory_store, f"k{number}")
        lost = [i for i in range(6) if place(memory_store, ref, i)[0] in DOWN]
        flip(memory_cluster, memory_store, ref, *lost)
        await queue(memory_store, repair_of(memory_store, ref, *lost), urgency=URGENCY_CRITICAL)
    for name in DOWN:
        set_live(memory_store, name, live=False)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 20)
    left = set(entries(memory_cluster))
    assert len(left) > 3
    last = Repair(PROFILE, 2**16 - 1, b"\xff" * 16, "found", 1, lost=(0, 1))  # nobody holds it
    key = keys.repair(URGENCY_CRITICAL, last.profile, last.pg, last.blob)
    await memory_store.kv.commit([], [Put(key, encode(last))])
    monkeypatch.setattr(worker, "_page", no_walk)
    await worker.work(UNCLAIMED)
    assert set(entries(memory_cluster)) == left


async def no_walk(*_: object) -> bool:
    return False


async def test_what_could_not_be_put_off_is_tried_again(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was passed over is not taken for one that waits."""
    await narrowed(memory_store)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 10)
    wanted, entry = next(iter(entries(memory_cluster).items()))
    again = msgspec.structs.replace(entry, attempts=0)
    await memory_store.kv.commit([], [Put(wanted, encode(again))])
    plain = RepairWorker._put_off
    failures = 0

    async def failing(self: RepairWorker, *args: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures < 4:
            raise repair.Conflict(None)
        return await plain(self, *args)

    monkeypatch.setattr(RepairWorker, "_put_off", failing)
    await rounds(memory_store, worker, 10)
    assert failures == 4
    assert decode(Repair, memory_cluster.engine.items[wanted].value).attempts == 1


async def test_another_process_that_takes_over_tries_all_once(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await narrowed(memory_store)
    await rounds(memory_store, RepairWorker(memory_store.storage), 20)
    tried: list[bytes] = []
    run = repair._BlobRepair.run

    async def noting(job: Any, entry: Any) -> bool:
        tried.append(entry.key)
        return await run(job, entry)

    monkeypatch.setattr(repair._BlobRepair, "run", noting)
    worker = RepairWorker(memory_store.storage)
    await rounds(memory_store, worker, 30)
    assert sorted(tried) == sorted(entries(memory_cluster))


async def test_a_worker_that_is_stopped_begins_with_no_other_blob(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(NUMBER):
        await put(memory_store, f"k{number}", BIG)
        ref = await blob_of(memory_store, f"k{number}")
        flip(memory_cluster, memory_store, ref, 0)
        await queue(memory_store, repair_of(memory_store, ref, 0))
    worker = RepairWorker(memory_store.storage)
    begun = 0
    run = repair._BlobRepair.run

    async def stopping(job: Any, entry: Any) -> bool:
        nonlocal begun
        begun += 1
        if begun == 2:
            worker.stop()
        return await run(job, entry)

    monkeypatch.setattr(repair._BlobRepair, "run", stopping)
    await worker.work(UNCLAIMED)
    assert begun <= repair.BLOBS_AT_ONCE
    assert len(entries(memory_cluster)) == NUMBER - begun, "what was begun is done"


async def test_a_worker_that_is_stopped_does_not_wait_for_bandwidth(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for number in range(NUMBER):
        await put(memory_store, f"k{number}", BIG)
        ref = await blob_of(memory_store, f"k{number}")
        flip(memory_cluster, memory_store, ref, 0)
        await queue(memory_store, repair_of(memory_store, ref, 0))
    waits = asyncio.Event()

    async def forever(seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    throttle = Throttle(lambda: 1.0, clock=lambda: 0.0, sleep=forever)
    worker = RepairWorker(memory_store.storage, throttle=throttle)
    before = entries(memory_cluster)
    working = asyncio.create_task(worker.work(UNCLAIMED))
    await waits.wait()
    worker.stop()
    await asyncio.wait_for(working, 30)
    left = entries(memory_cluster)
    assert left.items() <= before.items(), "none is put off for it"
    assert len(left) >= NUMBER - 1
    assert len(asyncio.all_tasks()) == 1


def test_what_is_not_read_of_neighbouring_groups_is_one_range(memory_store: Process) -> None:
    """A walk over thousands of groups that wait takes a few reads, not one for each."""
    groups = 256
    waits = Waiting(memory_store.storage)
    blob, end = b"b" * 16, keys.after_prefix(keys.REPAIRS)
    for name in ("a", "b"):
        for number in range(groups):
            record = Repair(name, number, blob, "found", 1)
            entry = Entry(keys.repair(2, name, number, blob), 1, record)
            waits.read([entry], 1, 1)
            waits.note(entry.key, Obstacle(nodes={"gone"}))
    waits.walked()
    for name in ("a", "b"):
        first = keys.repair(2, name, 0, b"")
        assert waits.unread(first) == (first, keys.after_prefix(keys.repair(2, name, 255, b"")))
    middle = keys.repair(2, "a", 100, blob)
    assert waits.unread(middle)[0] == keys.repair(2, "a", 101, b"")
    memory_store.cluster.clock.advance(waiting.UNREAD_SECONDS_PER_ENTRY * 2)
    assert waits.unread(keys.REPAIRS) == (end, end)
