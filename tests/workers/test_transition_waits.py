"""Moves to a class whose profile lacks nodes: what they cost while they wait."""

from __future__ import annotations

from typing import Any

import pytest

from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import Page, Unavailable
from s3gw.metadata import keys
from s3gw.workers import lifecycle
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from tests.stores.memory_store import Process
from tests.stores.operations import put
from tests.workers.lifecycle_rules import DAY, ROUNDED, queue, set_rules
from tests.workers.test_transition import TO_COLD, make_cold

OBJECTS = 40
ROUNDS_OF_A_DAY = 144
BODY = bytes(70_000)  # more than what is kept as whole copies


def set_live(process: Process, *, live: bool) -> None:
    process.cluster.drives["d0"].down = not live
    for node in process.directory.all():
        if node.id == "d0":
            node.live = live


async def test_what_waits_for_nodes_is_looked_at_ever_more_seldom_and_goes_when_they_are_back(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = memory_store
    await make_cold(process)
    await set_rules(process, TO_COLD)
    for number in range(OBJECTS):
        await put(process, f"k{number}", BODY)
    await LifecycleWalk(process.storage).run_once()
    tried = 0
    plain = lifecycle.change_class

    async def counting(*arguments: Any) -> bool:
        nonlocal tried
        tried += 1
        return await plain(*arguments)

    monkeypatch.setattr(lifecycle, "change_class", counting)
    asked: list[int] = []

    class Asked(Throttle):
        async def take(self, size: int) -> None:
            asked.append(size)

    worker = Lifecycle(process.storage, throttle=Asked(lambda: 0))
    set_live(process, live=False)
    process.cluster.clock.advance(DAY + ROUNDED)
    rounds = 0
    for _ in range(ROUNDS_OF_A_DAY):
        before = worker._openings.looks
        while await worker.work(UNCLAIMED):
            pass
        assert worker._openings.looks - before <= 1  # however many want to go there
        rounds += worker._openings.looks - before
        process.cluster.clock.advance(DAY / ROUNDS_OF_A_DAY)
    # Ten minutes, twenty, … up to a quarter of a day, more or less a quarter: not each round.
    assert 6 * OBJECTS < tried < 12 * OBJECTS
    assert rounds <= ROUNDS_OF_A_DAY
    assert asked == []  # nor does what is not done take of the bandwidth
    times = [due for due, _, _ in queue(process)]
    assert len(times) == OBJECTS
    assert max(times) - min(times) > 30 * 60_000  # what failed together does not come together
    set_live(process, live=True)
    for _ in range(ROUNDS_OF_A_DAY // 2):
        process.cluster.clock.advance(DAY / ROUNDS_OF_A_DAY)
        while await worker.work(UNCLAIMED):
            pass
    assert worker.actions["moved"] == OBJECTS
    assert queue(process) == []


async def test_an_opening_is_looked_at_again_after_a_minute(memory_store: Process) -> None:
    from s3gw.workers.reencode import NotPossibleNow
    from s3gw.workers.transition import Openings

    openings, profile = Openings(memory_store.storage), memory_store.profile()
    set_live(memory_store, live=False)
    for node in memory_store.directory.all():
        node.live = False
    for _ in range(2):
        with pytest.raises(NotPossibleNow):
            openings.require(profile)
    for node in memory_store.directory.all():
        node.live = True
    with pytest.raises(NotPossibleNow):
        openings.require(profile)
    assert openings.looks == 1
    memory_store.cluster.clock.advance(60)
    openings.require(profile)
    assert openings.looks == 2


async def tried_for_days(process: Process, worker: Lifecycle, days: int) -> None:
    """Rounds of ten minutes."""
    for _ in range(days * ROUNDS_OF_A_DAY):
        process.cluster.clock.advance(DAY / ROUNDS_OF_A_DAY)
        while await worker.work(UNCLAIMED):
            pass


async def with_all_due(process: Process) -> Lifecycle:
    """A worker, at a time when all of many objects are due to be moved."""
    await make_cold(process)
    await set_rules(process, TO_COLD)
    for number in range(OBJECTS):
        await put(process, f"k{number}", BODY)
    await LifecycleWalk(process.storage).run_once()
    process.cluster.clock.advance(DAY + ROUNDED)
    return Lifecycle(process.storage)


@pytest.mark.parametrize("same_worker", [True, False])
async def test_what_waits_for_nodes_goes_within_minutes_of_their_return(
    memory_store: Process, same_worker: bool
) -> None:
    """Also where another process has the work by then."""
    process = memory_store
    worker = await with_all_due(process)
    set_live(process, live=False)
    await tried_for_days(process, worker, 2)
    now_ms = process.storage.clock_ms()
    assert min(due for due, _, _ in queue(process)) > now_ms  # none would go by itself
    assert max(due for due, _, _ in queue(process)) > now_ms + 3 * 3600 * 1000
    set_live(process, live=True)
    if not same_worker:
        worker = Lifecycle(process.storage)
    while await worker.work(UNCLAIMED):
        pass
    assert (worker.actions["moved"], queue(process)) == (OBJECTS, [])


async def test_what_waits_for_another_profile_is_not_looked_at_for_a_node_that_does_not_help(
    memory_store: Process,
) -> None:
    process = memory_store
    worker = await with_all_due(process)
    others = [node for node in process.directory.all() if node.id != "d0"]
    set_live(process, live=False)
    others[0].live = False
    await tried_for_days(process, worker, 1)
    before = queue(process)
    assert len(before) == OBJECTS
    others[0].live = True
    assert min(due for due, _, _ in before) > process.storage.clock_ms()
    while await worker.work(UNCLAIMED):
        pass
    assert queue(process) == before
    set_live(process, live=True)
    while await worker.work(UNCLAIMED):
        pass
    assert worker.actions["moved"] == OBJECTS


async def test_a_reading_ahead_that_the_engine_cut_short_begins_again(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = memory_store
    await make_cold(process)
    await set_rules(process, TO_COLD)
    await put(process, "k", BODY)
    await LifecycleWalk(process.storage).run_once()
    process.cluster.clock.advance(DAY + ROUNDED)
    worker = Lifecycle(process.storage)
    set_live(process, live=False)
    await tried_for_days(process, worker, 1)
    set_live(process, live=True)
    plain, failures = process.kv.scan, 1

    async def scan(start: bytes, end: bytes, **options: Any) -> Page:
        nonlocal failures
        if start.startswith(keys.DUE) and failures:
            failures -= 1
            raise Unavailable("no answer")
        return await plain(start, end, **options)

    monkeypatch.setattr(process.kv, "scan", scan)
    with pytest.raises(Unavailable):
        await worker.work(UNCLAIMED)
    while await worker.work(UNCLAIMED):
        pass
    assert (worker.actions["moved"], queue(process)) == (1, [])
