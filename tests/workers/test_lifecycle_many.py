"""Lifecycle rules over keys with more versions than one look at them takes in."""

from __future__ import annotations

from tests.stores.memory_store import Process
from tests.stores.operations import get, put, set_versioning
from tests.workers.lifecycle_rules import (
    DAY,
    ROUNDED,
    at_rest,
    carry_out,
    check,
    queue,
    removes,
    rule,
    set_rules,
    stored,
)


async def test_a_batch_of_keys_with_many_versions_that_have_to_wait_is_settled(
    memory_store: Process,
) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(30, newer=1)))
    for number in range(20):
        for key in range(10):
            await put(memory_store, f"k{key}", b"%d" % number)
    await carry_out(memory_store)
    assert all(sequence for _, _, sequence in queue(memory_store))
    memory_store.cluster.clock.advance(30 * DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 10 * 18
    assert set(map(len, stored(memory_store).values())) == {2}
    check(memory_store)
    await at_rest(memory_store)


async def test_versions_that_waited_for_younger_ones_go_with_those_after_a_burst(
    memory_store: Process,
) -> None:
    """Two versions have had their time, and stay as there are no younger ones. Then so many come
    at once that no look at the key reaches them."""
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=2)))
    await carry_out(memory_store)
    for number in range(3):
        await put(memory_store, "k", b"old %d" % number)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 0
    for number in range(60):
        await put(memory_store, "k", b"%d" % number)
    await carry_out(memory_store)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    await carry_out(memory_store)
    assert stored(memory_store) == {"k": [False] * 3}
    assert await get(memory_store, "k") == b"59"
    check(memory_store)
    await at_rest(memory_store)


async def test_what_has_had_its_time_goes_when_the_last_younger_one_comes(
    memory_store: Process,
) -> None:
    """All but one of many versions are pushed out by one that comes."""
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=100)), rule(removes(2, newer=60), id_="s"))
    await carry_out(memory_store)
    for number in range(101):
        await put(memory_store, "k", b"%d" % number)
        await put(memory_store, "l", b"%d" % number)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 0
    await put(memory_store, "k", b"last")
    assert (await carry_out(memory_store)).removed == 1
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    await carry_out(memory_store)
    assert {key: len(found) for key, found in stored(memory_store).items()} == {"k": 61, "l": 61}
    check(memory_store)
    await at_rest(memory_store)
