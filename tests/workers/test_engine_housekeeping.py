"""Compaction of the engine's history, the watch over its space, records past their day."""

from __future__ import annotations

import pytest

from s3gw import limits
from s3gw.kv.interface import Compacted, Put, Space
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.workers import on_demand
from s3gw.workers.compaction import Compaction, SpaceState, SpaceWatch
from s3gw.workers.contract import UNCLAIMED, Claim, ClaimLost
from tests.stores.memory_store import Clock, MemoryCluster, Process
from tests.stores.operations import complete, part, start


async def test_history_is_kept_for_the_window_and_not_much_longer() -> None:
    kv, clock = MemoryKV(), Clock()
    worker = Compaction(kv, 3600.0, clock=clock.monotonic)
    revisions = []
    for _ in range(100):
        revisions.append(await kv.commit([], [Put(b"k", b"v")]))
        await worker.work(UNCLAIMED)
        clock.advance(60)
    await kv.scan(b"a", b"z", limit=1, revision=revisions[-60])
    with pytest.raises(Compacted):
        await kv.scan(b"a", b"z", limit=1, revision=revisions[-63])


async def test_nothing_is_compacted_without_the_lock() -> None:
    kv, clock = MemoryKV(), Clock()
    worker = Compaction(kv, 60.0, clock=clock.monotonic)
    key = keys.lock("compaction")
    first = await kv.commit([], [Put(key, b"mine")])
    await worker.work(Claim(key, first))
    clock.advance(61)
    await kv.commit([], [Put(key, b"theirs")])
    with pytest.raises(ClaimLost):
        await worker.work(Claim(key, first))
    await kv.scan(b"a", b"z", limit=1, revision=first)


@pytest.mark.parametrize(
    ("used", "quota", "red", "refused"),
    [(10, 0, False, False), (79, 100, False, False), (80, 100, True, False), (95, 100, True, True)],
)
async def test_a_full_engine_is_red_and_then_refuses_growth(
    used: int, quota: int, red: bool, refused: bool
) -> None:
    class Filled(MemoryKV):
        async def space(self) -> Space:
            return Space(used, quota)

    state = SpaceState()
    assert not state.growth_refused()
    await SpaceWatch(Filled(), state).work(UNCLAIMED)
    assert (state.red(), state.growth_refused()) == (red, refused)


async def test_answers_to_retries_of_complete_go_after_a_day(
    memory_cluster: MemoryCluster, memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)
    upload = await start(memory_store, "k")
    await part(memory_store, "k", upload, 1, b"part")
    await complete(memory_store, "k", upload)
    memory_cluster.clock.advance(24 * 3600 - 1)
    assert (await on_demand.expire_completed(memory_store.storage)).removed == 0
    memory_cluster.clock.advance(1)
    assert (await on_demand.expire_completed(memory_store.storage)).removed == 1
