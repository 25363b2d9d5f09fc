"""Lifecycle rules about noncurrent versions and delete markers, and under object lock."""

from __future__ import annotations

import msgspec
import pytest

from s3gw.buckets.lifecycle import DAY_MS
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import Lock, ObjectRecord, decode, encode
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket
from s3gw.objects.change import change_version
from tests.stores.memory_store import BUCKET, Process
from tests.stores.operations import (
    delete,
    get,
    put,
    remove,
    set_versioning,
)
from tests.workers.lifecycle_rules import (
    DAY,
    MARKERS,
    ROUNDED,
    at_rest,
    carry_out,
    check,
    expires,
    put_tagged,
    queue,
    removes,
    rule,
    set_rules,
    stored,
)

# Noncurrent versions.


async def test_noncurrent_versions_go_so_long_after_they_became_that(
    memory_store: Process,
) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(2)))
    await put(memory_store, "k", b"one")
    memory_store.cluster.clock.advance(100 * DAY)
    await put(memory_store, "k", b"two")
    assert (await carry_out(memory_store)).removed == 0
    memory_store.cluster.clock.advance(2 * DAY - 1)
    assert (await carry_out(memory_store)).removed == 0
    memory_store.cluster.clock.advance(ROUNDED)
    assert (await carry_out(memory_store)).removed == 1
    assert stored(memory_store) == {"k": [False]}
    assert await get(memory_store, "k") == b"two"
    await at_rest(memory_store)


async def test_a_version_that_became_visible_again_starts_anew(memory_store: Process) -> None:
    """The time since which a version is noncurrent is that of the last time."""
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(3)))
    await put(memory_store, "k", b"one")
    two = await put(memory_store, "k", b"two")
    memory_store.cluster.clock.advance(2 * DAY)
    await remove(memory_store, "k", two.sequence)
    assert await get(memory_store, "k") == b"one"
    await put(memory_store, "k", b"three")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 0
    memory_store.cluster.clock.advance(2 * DAY)
    assert (await carry_out(memory_store)).removed == 1
    assert await get(memory_store, "k") == b"three"


async def test_so_many_newer_versions_stay(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=2)))
    for number in range(6):
        await put(memory_store, "k", b"%d" % number)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 3
    assert len(stored(memory_store)["k"]) == 3
    # Another one pushes the oldest out, which is old enough already: at once.
    await put(memory_store, "k", b"6")
    assert (await carry_out(memory_store)).removed == 1
    # A marker makes the visible one noncurrent, and pushes the next one out.
    await delete(memory_store, "k")
    assert (await carry_out(memory_store)).removed == 1
    assert stored(memory_store)["k"] == [True, False, False]
    check(memory_store)


async def test_newer_versions_that_go_meanwhile_save_an_older_one(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1, newer=1)))
    await put(memory_store, "k", b"0")
    newer = await put(memory_store, "k", b"1")
    await put(memory_store, "k", b"2")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    from s3gw.workers import lifecycle as module

    plain = module.delete_object

    async def raced(*arguments, **more):  # type: ignore[no-untyped-def]
        await remove(memory_store, "k", newer.sequence)
        return await plain(*arguments, **more)

    monkeypatch.setattr(module, "delete_object", raced)
    report = await carry_out(memory_store)
    assert (report.removed, report.lost) == (0, 1)
    monkeypatch.undo()
    assert (await carry_out(memory_store)).removed == 0
    assert stored(memory_store)["k"] == [False, False]


async def test_versions_of_older_stores_count_from_the_one_after_them(
    memory_store: Process,
) -> None:
    """A record that does not say since when it is noncurrent."""
    await set_versioning(memory_store, "Enabled")
    await put(memory_store, "k", b"one")
    memory_store.cluster.clock.advance(50 * DAY)
    await put(memory_store, "k", b"two")
    memory_store.cluster.clock.advance(DAY)
    await put(memory_store, "k", b"three")
    for key, item in list(memory_store.cluster.engine.items.items()):
        if key.startswith(keys.VERSIONS):
            unstamped = msgspec.structs.replace(decode(ObjectRecord, item.value), noncurrent_ms=0)
            await memory_store.kv.commit([], [Put(key, encode(unstamped))])
    await set_rules(memory_store, rule(removes(3)))
    await carry_out(memory_store)
    memory_store.cluster.clock.advance(DAY + 3600)
    assert (await carry_out(memory_store)).removed == 0
    memory_store.cluster.clock.advance(ROUNDED + 3600)
    assert (await carry_out(memory_store)).removed == 1
    memory_store.cluster.clock.advance(DAY)
    assert (await carry_out(memory_store)).removed == 1
    assert await get(memory_store, "k") == b"three"


# Delete markers.


async def test_a_marker_goes_at_once_when_nothing_is_behind_it(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(MARKERS))
    first = await put(memory_store, "k", b"data")
    await delete(memory_store, "k")
    memory_store.cluster.clock.advance(3600)
    assert (await carry_out(memory_store)).markers == 0
    assert stored(memory_store) == {"k": [True, False]}
    await remove(memory_store, "k", first.sequence)
    assert (await carry_out(memory_store)).markers == 1
    assert stored(memory_store) == {}
    await at_rest(memory_store)


async def test_rules_clean_a_key_up_to_the_end(memory_store: Process) -> None:
    """Expired, the version removed, the marker that is left removed."""
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(expires(1) + removes(1)), rule(MARKERS, id_="m"))
    await put(memory_store, "k", b"data")
    seen = []
    for _ in range(6):
        memory_store.cluster.clock.advance(DAY)
        await carry_out(memory_store)
        seen.append(stored(memory_store).get("k"))
    assert seen[-1] is None
    assert [True, False] in seen
    assert queue(memory_store) == []
    await at_rest(memory_store)


async def test_a_lonely_marker_is_as_old_as_what_expires(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(expires(5)))
    await delete(memory_store, "k")
    memory_store.cluster.clock.advance(5 * DAY - 1)
    assert (await carry_out(memory_store)).markers == 0
    memory_store.cluster.clock.advance(ROUNDED)
    assert (await carry_out(memory_store)).markers == 1
    assert stored(memory_store) == {}


async def test_markers_that_became_noncurrent_go_like_versions(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(removes(1)))
    await delete(memory_store, "k")
    await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).markers == 1
    assert stored(memory_store) == {"k": [False]}
    check(memory_store)


# Object lock.


async def lock_on(process: Process) -> None:
    await change_bucket(
        process.storage, BUCKET, lambda bucket: msgspec.structs.replace(bucket, object_lock=True)
    )


async def test_a_locked_version_stays_until_its_lock_ends(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await lock_on(memory_store)
    await set_rules(memory_store, rule(removes(1)))
    until_ms = memory_store.storage.clock_ms() + 30 * DAY_MS
    await put_tagged(memory_store, "k", b"locked", locked_until_ms=until_ms)
    await put(memory_store, "k", b"newer")
    for _ in range(29):
        memory_store.cluster.clock.advance(DAY)
        report = await carry_out(memory_store)
        assert report.removed == 0
    assert len(stored(memory_store)["k"]) == 2
    assert [due >= until_ms for due, _, _ in queue(memory_store)] == [True]
    memory_store.cluster.clock.advance(DAY + 3600)
    assert (await carry_out(memory_store)).removed == 1
    assert await get(memory_store, "k") == b"newer"


async def test_a_legal_hold_is_asked_for_every_day(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await lock_on(memory_store)
    await set_rules(memory_store, rule(removes(1)))
    first = await put(memory_store, "k", b"held")

    async def hold(on: bool) -> None:
        target = await publish.read_target(memory_store.storage, BUCKET, "k", first.sequence)
        await change_version(
            memory_store.storage,
            target,
            lambda found: msgspec.structs.replace(
                found,
                description=msgspec.structs.replace(found.description, lock=Lock(legal_hold=on)),
            ),
        )

    await hold(True)
    await put(memory_store, "k", b"newer")
    for _ in range(5):
        memory_store.cluster.clock.advance(DAY + 3600)
        report = await carry_out(memory_store)
        assert report.removed == 0
    await hold(False)
    memory_store.cluster.clock.advance(DAY + 3600)
    assert (await carry_out(memory_store)).removed == 1


async def test_a_locked_visible_version_is_hidden_and_kept(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await lock_on(memory_store)
    await set_rules(memory_store, rule(expires(1)))
    until_ms = memory_store.storage.clock_ms() + 300 * DAY_MS
    await put_tagged(memory_store, "k", b"locked", locked_until_ms=until_ms)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).hidden == 1
    assert stored(memory_store) == {"k": [True, False]}


async def test_a_locked_version_that_is_pushed_out_comes_back(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await lock_on(memory_store)
    await set_rules(memory_store, rule(removes(1, newer=1)))
    until_ms = memory_store.storage.clock_ms() + 10 * DAY_MS
    await put_tagged(memory_store, "k", b"locked", locked_until_ms=until_ms)
    await put(memory_store, "k", b"1")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    await carry_out(memory_store)
    await put(memory_store, "k", b"2")
    assert (await carry_out(memory_store)).waiting == 1
    memory_store.cluster.clock.advance(10 * DAY)
    assert (await carry_out(memory_store)).removed == 1
    assert len(stored(memory_store)["k"]) == 2
