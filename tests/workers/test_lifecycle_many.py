"""Lifecycle rules over keys with more versions than one look at them takes in."""

from __future__ import annotations

from typing import Any

import pytest

from s3gw import errors
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord, decode
from s3gw.workers import key_versions
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.lifecycle import Lifecycle
from tests.stores.memory_store import BUCKET, Process
from tests.stores.operations import get, put, remove, set_versioning
from tests.workers.lifecycle_rules import (
    DAY,
    ROUNDED,
    at_rest,
    carry_out,
    check,
    put_tagged,
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


OLD = "<Filter><Tag><Key>old</Key><Value>yes</Value></Tag></Filter>"
TAGGED = {"old": "yes"}


async def put_many(
    process: Process, count: int, tags: dict[str, str] | None = None, *, seconds: float = 0.01
) -> list[int]:
    """So many versions of a key, so long one after the other; their sequences."""
    found = []
    for _ in range(count):
        found.append((await put_tagged(process, "k", b"x", tags)).sequence)
        process.cluster.clock.advance(seconds)
    return found


async def tagged_left(process: Process) -> int:
    records = [
        decode(ObjectRecord, item.value)
        for name, item in process.cluster.engine.items.items()
        if name.startswith((keys.objects(BUCKET), keys.versions(BUCKET)))
    ]
    return sum(record.description.tags == TAGGED for record in records)


@pytest.mark.parametrize("seconds", [0, 0.01])
@pytest.mark.parametrize("burst", [3, 17, 40, 250])
async def test_a_version_behind_many_that_no_rule_is_about_is_found(
    memory_store: Process, burst: int, seconds: float
) -> None:
    """It had its time, and stayed as there were not enough younger ones. Entries of one millisecond
    are one entry."""
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=2), chosen=OLD))
    await carry_out(memory_store)
    await put_many(memory_store, 1, TAGGED)
    await put_many(memory_store, 2)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 0
    assert queue(memory_store) == []
    await put_many(memory_store, burst, seconds=seconds)
    report = await carry_out(memory_store)
    assert (report.removed, await tagged_left(memory_store)) == (1, 0)
    check(memory_store)
    await at_rest(memory_store)


@pytest.mark.parametrize("one_goes_meanwhile", [False, True])
async def test_more_of_them_than_one_look_takes_in_are_found_across_any_gap(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch, one_goes_meanwhile: bool
) -> None:
    """Also when the one that was to lead on to the others is removed by somebody else."""
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=100), chosen=OLD))
    await carry_out(memory_store)
    behind = await put_many(memory_store, 5, TAGGED)
    await put_many(memory_store, 40)
    await put_many(memory_store, 17, TAGGED)
    await put_many(memory_store, 30)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 0
    await put_many(memory_store, 80)
    looks = 0
    plain = key_versions.pushed_out

    async def counted(*arguments: Any, **more: Any) -> key_versions.PushedOut:
        nonlocal looks
        looks += 1
        return await plain(*arguments, **more)

    monkeypatch.setattr(key_versions, "pushed_out", counted)
    worker = Lifecycle(memory_store.storage)
    while not worker.actions["removed"]:
        await worker.work(UNCLAIMED)
    assert (worker.actions["removed"], await tagged_left(memory_store)) == (17, 5)
    ((key, sequence),) = [(key, sequence) for _, key, sequence in queue(memory_store) if sequence]
    assert (key, sequence) == ("k", behind[-1])
    if one_goes_meanwhile:
        await remove(memory_store, "k", sequence)
    await worker.run_once()
    assert await tagged_left(memory_store) == 0
    assert looks <= 3  # of eighty entries of one key
    check(memory_store)
    await at_rest(memory_store)


async def test_a_look_that_had_to_wait_goes_as_far_as_it_would_have_then(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=2), chosen=OLD))
    await carry_out(memory_store)
    await put_many(memory_store, 1, TAGGED)
    await put_many(memory_store, 2)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    await carry_out(memory_store)
    await put_many(memory_store, 30)
    plain = key_versions.pushed_out

    async def failing(*arguments: Any, **more: Any) -> key_versions.PushedOut:
        raise errors.SlowDown()

    worker = Lifecycle(memory_store.storage)
    monkeypatch.setattr(key_versions, "pushed_out", failing)
    for _ in range(3):
        await worker.run_once()
        assert 1 <= len(queue(memory_store)) <= 2
        memory_store.cluster.clock.advance(DAY / 4)
    monkeypatch.setattr(key_versions, "pushed_out", plain)
    await worker.run_once()
    assert await tagged_left(memory_store) == 0


async def test_a_version_that_cannot_be_read_keeps_no_other_of_its_key(
    memory_store: Process,
) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=2), chosen=OLD))
    await carry_out(memory_store)
    await put_many(memory_store, 1, TAGGED)
    (damaged, *_) = await put_many(memory_store, 2)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    await carry_out(memory_store)
    await put_many(memory_store, 30)
    await memory_store.kv.commit([], [Put(keys.version(BUCKET, "k", damaged), b"\xff")])
    report = await carry_out(memory_store)
    assert (report.removed, report.waiting, queue(memory_store)) == (1, 0, [])
