"""The ledger: classes of groups and queued blobs, what keeps it from saying healed, and when it
refuses to say anything."""

from __future__ import annotations

from itertools import combinations

import msgspec
import pytest

from erasure.scheme import Scheme
from nodes.protocol import ShardName
from s3gw.cluster import layouts
from s3gw.cluster.ledger import (
    Amount,
    Ledger,
    Redundancy,
    classify,
    degraded_reasons,
    read_ledger,
    read_scrub,
    state_of,
)
from s3gw.cluster.topology import UnknownProfile
from s3gw.kv.interface import Delete, Put, Unavailable
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata.records import (
    Count,
    PgRecord,
    Repair,
    ScrubRound,
    ScrubState,
    Slot,
    encode,
)
from s3gw.workers import on_demand
from tests.stores.memory_store import BUCKET, PROFILE, MemoryCluster, Process
from tests.stores.operations import blob_of, copy, put

BIG = bytes(range(256)) * 1000


async def ledger_of(process: Process) -> Ledger:
    layout = await layouts.current(process.kv)
    return await read_ledger(process.kv, process.directory, layout)


def set_live(process: Process, name: str, *, live: bool) -> None:
    node = process.directory.get(name)
    assert node is not None
    node.live = live


@pytest.mark.parametrize("text", ["4+2", "8+3", "1+2", "1+0", "8+4/2"])
def test_a_class_is_what_a_further_loss_would_do(text: str) -> None:
    scheme = Scheme.parse(text)
    everything = set(range(scheme.width))
    for losses in range(scheme.width + 1):
        for gone in list(combinations(range(scheme.width), losses))[:60]:
            there = everything - set(gone)
            found = classify(scheme, there, there)
            if not gone:
                assert found is Redundancy.FULL
            elif not scheme.decodable(there):
                assert found is Redundancy.LOST
            else:
                survives = all(scheme.decodable(there - {index}) for index in there)
                assert (found is Redundancy.REDUCED) == survives
                assert (found is Redundancy.CRITICAL) != survives
            if losses <= scheme.tolerance:
                assert found is not Redundancy.LOST


def test_a_slot_that_moves_is_there_only_when_nobody_who_may_hold_it_is_down() -> None:
    scheme = Scheme.parse("4+2")
    still = [Slot(name) for name in "abcd"]
    everyone = set("abcdefgh")

    def redundancy(slots: list[Slot], live: set[str]) -> Redundancy:
        return state_of(scheme, PgRecord(1, tuple(slots)), live).redundancy

    moving = [*still, Slot("e", ("g",)), Slot("f")]
    assert redundancy(moving, everyone) is Redundancy.REDUCED  # not finished: never full
    assert redundancy(moving, everyone - {"g"}) is Redundancy.REDUCED
    assert redundancy(moving, everyone - {"g", "f"}) is Redundancy.CRITICAL
    both = [*still, Slot("e", ("g",)), Slot("f", ("h",))]
    assert redundancy(both, everyone - {"g", "h"}) is Redundancy.CRITICAL
    assert redundancy(both, everyone - {"g", "h", "a"}) is Redundancy.LOST
    assert redundancy([*still, Slot("e"), Slot("")], everyone) is Redundancy.REDUCED


async def test_an_empty_store_is_healed_until_a_node_with_slots_is_down(
    memory_store: Process,
) -> None:
    ledger = await ledger_of(memory_store)
    assert ledger.healed
    assert (ledger.groups, ledger.groups_degraded, ledger.rows) == (16, 0, ())
    set_live(memory_store, "d3", live=False)
    ledger = await ledger_of(memory_store)
    assert not ledger.healed
    assert ledger.nodes_down == ("d3",)


async def test_references_are_counted_by_bucket_and_a_companion_as_its_profile(
    memory_store: Process,
) -> None:
    await put(memory_store, "small", b"x" * 10)
    await put(memory_store, "large", BIG)
    await copy(memory_store, "large", "copy")
    (row,) = (await ledger_of(memory_store)).rows
    assert (row.bucket, row.profile) == (BUCKET, PROFILE)
    assert row.amounts[Redundancy.FULL] == Amount(3, 10 + 2 * len(BIG))


async def test_a_queued_blob_is_judged_by_its_lost_shards_and_the_nodes_that_are_down(
    memory_store: Process,
) -> None:
    await put(memory_store, "k", BIG)
    await copy(memory_store, "k", "copy")
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    key = keys.repair(2, ref.profile, group.number, ref.blob)
    record = Repair(ref.profile, group.number, ref.blob, "found", 17)
    both = Amount(2, 2 * len(BIG))
    for lost, redundancy in (
        ((), Redundancy.REDUCED),  # queued, and nobody knows why
        ((5,), Redundancy.REDUCED),
        ((0, 5), Redundancy.CRITICAL),
        ((0, 1, 5), Redundancy.LOST),
    ):
        entry = msgspec.structs.replace(record, lost=lost)
        await memory_store.kv.commit([], [Put(key, encode(entry))])
        ledger = await ledger_of(memory_store)
        assert ledger.total(redundancy) == both
        assert ledger.total(Redundancy.FULL) == Amount()
        assert (ledger.repairs_waiting, ledger.oldest_repair_ms) == (1, 17)
    # Two entries of one blob, and a node down: all of it counts together.
    more = keys.repair(5, ref.profile, group.number, ref.blob)
    await memory_store.kv.commit(
        [],
        [
            Put(key, encode(msgspec.structs.replace(record, lost=(5,)))),
            Put(more, encode(msgspec.structs.replace(record, queued_ms=9, lost=(4, 5)))),
        ],
    )
    ledger = await ledger_of(memory_store)
    assert ledger.total(Redundancy.CRITICAL) == both
    assert (ledger.repairs_waiting, ledger.oldest_repair_ms) == (1, 9)
    set_live(memory_store, group.nodes[0], live=False)
    assert (await ledger_of(memory_store)).total(Redundancy.LOST) == both


async def test_a_whole_blob_that_only_goes_to_another_profile_is_no_repair(
    memory_store: Process,
) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    key = keys.repair(5, ref.profile, group.number, ref.blob)
    entry = Repair(ref.profile, group.number, ref.blob, "to 8+3", 17, target="8+3", bucket=BUCKET)
    await memory_store.kv.commit([], [Put(key, encode(entry))])
    assert (await ledger_of(memory_store)).healed
    damaged = msgspec.structs.replace(entry, lost=(2,))
    await memory_store.kv.commit([], [Put(key, encode(damaged))])
    ledger = await ledger_of(memory_store)
    assert (ledger.repairs_waiting, ledger.total(Redundancy.REDUCED).blobs) == (1, 1)


async def test_a_blob_written_around_lost_nodes_is_judged_by_its_own_nodes_and_scheme(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    for name in ("d0", "d1", "d2", "d3"):
        set_live(memory_store, name, live=False)
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    assert ref.scheme == "2+2"
    ledger = await ledger_of(memory_store)
    assert ledger.total(Redundancy.FULL).blobs == 1  # all of its own shards are there
    assert not ledger.healed
    for number, redundancy in enumerate((Redundancy.REDUCED, Redundancy.CRITICAL, Redundancy.LOST)):
        set_live(memory_store, ref.nodes[number], live=False)
        assert (await ledger_of(memory_store)).total(redundancy).blobs == 1
    for name in memory_cluster.drives:
        set_live(memory_store, name, live=True)
    await on_demand.repair_all(memory_store.storage)
    ledger = await ledger_of(memory_store)
    assert ledger.healed
    assert ledger.total(Redundancy.FULL) == Amount(
        3, 3 * len(BIG)
    )  # the old one and the job's are dropped


async def test_an_unfinished_move_is_not_healed(memory_store: Process) -> None:
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    spare = next(n.id for n in memory_store.directory.all() if n.id not in group.nodes)
    slots = (Slot(spare, (group.nodes[0],)), *group.record.slots[1:])
    await memory_store.kv.commit([], [Put(group.key, encode(PgRecord(2, slots)))])
    ledger = await ledger_of(memory_store)
    assert (ledger.groups_moving, ledger.groups_degraded, ledger.healed) == (1, 1, False)
    assert ledger.total(Redundancy.REDUCED).blobs == 1
    done = PgRecord(3, (Slot(spare), *slots[1:]))
    await memory_store.kv.commit([], [Put(group.key, encode(done))])
    assert (await ledger_of(memory_store)).healed


async def test_it_refuses_to_say_what_it_cannot_know(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    stranger = keys.count("9+9", 0, BUCKET)
    await memory_store.kv.commit([], [Put(stranger, encode(Count(1, 1)))])
    with pytest.raises(UnknownProfile):
        await ledger_of(memory_store)
    await memory_store.kv.commit([], [Delete(stranger)])
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    await memory_store.kv.commit([], [Delete(group.key)])
    with pytest.raises(LookupError):
        await ledger_of(memory_store)


@pytest.mark.parametrize("prefix", [keys.PGS, keys.COUNTS, keys.REPAIRS, keys.PROFILES])
async def test_a_slice_that_does_not_answer_is_an_error_and_no_figure(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch, prefix: bytes
) -> None:
    await put(memory_store, "k", BIG)
    layout = await layouts.current(memory_store.kv)
    scan = MemoryKV.scan

    async def failing(self, start, end, **options):  # type: ignore[no-untyped-def]
        if start.startswith(prefix):
            raise Unavailable("no answer")
        return await scan(self, start, end, **options)

    monkeypatch.setattr(MemoryKV, "scan", failing)
    with pytest.raises(Unavailable):
        await read_ledger(memory_store.kv, memory_store.directory, layout)


async def test_all_of_it_is_read_at_one_revision(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes that come in between the reads do not tear it."""
    await put(memory_store, "k", BIG)
    layout = await layouts.current(memory_store.kv)
    scan = MemoryKV.scan
    number = 0

    async def busy(self, start, end, **options):  # type: ignore[no-untyped-def]
        nonlocal number
        if start.startswith((keys.PGS, keys.COUNTS, keys.REPAIRS)) and options.get("revision"):
            number += 1
            monkeypatch.setattr(MemoryKV, "scan", scan)
            await put(memory_store, f"new {number}", BIG)
            monkeypatch.setattr(MemoryKV, "scan", busy)
        return await scan(self, start, end, **options)

    monkeypatch.setattr(MemoryKV, "scan", busy)
    ledger = await read_ledger(memory_store.kv, memory_store.directory, layout)
    assert number > 5
    assert ledger.total(Redundancy.FULL) == Amount(1, len(BIG))


async def test_reasons_name_what_is_wrong_worst_first(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    async def reasons() -> list[str]:
        return await degraded_reasons(
            await ledger_of(memory_store),
            memory_store.kv,
            now_ms=memory_cluster.clock.ms(),
            scrub_interval_seconds=100.0,
        )

    assert await reasons() == []
    await put(memory_store, "k", BIG)
    ref = await blob_of(memory_store, "k")
    group = memory_store.topology.group_of(ref.profile, ref.blob)
    for index in range(3):
        name = ShardName(ref.profile, group.number, ref.blob, index)
        del memory_cluster.drives[group.nodes[index]].shards[name]
    await on_demand.verify_all(memory_store.storage)
    memory_cluster.clock.advance(50)
    found = await reasons()
    assert found[0].startswith(f"1 blobs ({len(BIG)} bytes) cannot be decoded")
    assert found[1:] == ["1 blobs wait for repair, the oldest for 50 s"]
    set_live(memory_store, "d1", live=False)
    assert "down: d1" in await reasons()
    memory_cluster.clock.advance(300)
    assert (await reasons())[-1] == "no round of shard verification has ended for 5 min"


async def test_the_state_of_the_scrub_is_read_by_any_process(memory_store: Process) -> None:
    assert await read_scrub(memory_store.kv) == ScrubState()
    state = ScrubState(ScrubRound(5), ScrubRound(1, 2, 3))
    await memory_store.kv.commit([], [Put(keys.SCRUB, encode(state))])
    assert await read_scrub(memory_store.kv) == state
