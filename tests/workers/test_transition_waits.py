"""Moves to a class whose profile lacks nodes: what they cost while they wait."""

from __future__ import annotations

from typing import Any

import pytest

from s3gw.cluster.tunables import Throttle
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
