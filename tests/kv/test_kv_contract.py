"""The contract of `s3gw.kv.interface.KV`, over every engine in the table of conftest.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import pytest

from s3gw import limits
from s3gw.kv.interface import (
    KV,
    At,
    CommitTooLarge,
    Compacted,
    Conflict,
    Delete,
    Empty,
    Event,
    EventKind,
    Guard,
    Item,
    Key,
    LeaseLost,
    NoneNewer,
    Put,
    Unavailable,
)
from tests.kv.conftest import Store

EVENT_SECONDS_MAX = 20
TTL = 2


async def value_of(engine: KV, key: Key) -> bytes | None:
    (item,) = (await engine.get_many([key])).items
    return item.value if item else None


async def put(engine: KV, key: Key, value: bytes = b"v") -> int:
    return await engine.commit([], [Put(key, value)])


@asynccontextmanager
async def watching(engine: KV, prefix: Key, after: int) -> AsyncIterator[AsyncIterator[Event]]:
    iterator = cast("Any", engine.watch(prefix, after_revision=after))
    async with aclosing(iterator):
        yield iterator


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    async with asyncio.timeout(EVENT_SECONDS_MAX):
        return [await anext(events) for _ in range(count)]


# Reads


async def test_an_item_is_read_with_the_revision_that_wrote_it(engine: KV) -> None:
    first = await put(engine, b"a", b"1")
    second = await put(engine, b"b", b"2")
    reading = await engine.get_many([b"b", b"missing", b"a", b"b"])
    newer = Item(b"b", b"2", second)
    assert reading.items == [newer, None, Item(b"a", b"1", first), newer]
    assert reading.revision >= second


async def test_reading_no_keys_still_tells_the_revision(engine: KV) -> None:
    revision = await put(engine, b"a")
    reading = await engine.get_many([])
    assert (reading.items, reading.revision >= revision) == ([], True)


async def test_many_keys_are_read_in_one_call_and_in_the_order_asked(engine: KV) -> None:
    keys = [b"k%03d" % number for number in range(100)]
    await engine.commit([], [Put(key, key[::-1]) for key in keys])
    backwards = keys[::-1]
    reading = await engine.get_many([*backwards, b"none"])
    assert [item.value if item else None for item in reading.items] == [
        *(key[::-1] for key in backwards),
        None,
    ]


async def test_get_many_reads_all_keys_at_one_revision(pair: tuple[KV, KV]) -> None:
    writer, reader = pair
    await writer.commit([], [Put(b"left", b"0"), Put(b"right", b"0")])

    async def write() -> None:
        for number in range(30):
            value = b"%d" % number
            await writer.commit([], [Put(b"left", value), Put(b"right", value)])

    task = asyncio.create_task(write())
    while not task.done():
        left, right = (await reader.get_many([b"left", b"right"])).items
        assert left is not None
        assert right is not None
        assert (left.value, left.revision) == (right.value, right.revision)
        await asyncio.sleep(0)
    await task


async def test_binary_keys_and_values_come_back_exactly(engine: KV) -> None:
    key, value = bytes(range(1, 256)) + b"\x00", bytes(range(256)) * 40
    await engine.commit([], [Put(key, value), Put(b"empty", b"")])
    assert await value_of(engine, key) == value
    assert await value_of(engine, b"empty") == b""


async def test_keys_are_ordered_by_their_bytes(engine: KV) -> None:
    keys = [b"a", b"a\x00", b"a\x00b", b"a/", b"a\x7f", b"a\x80", b"a\xff", b"a\xff\xff", b"b"]
    await engine.commit([], [Put(key, b"") for key in reversed(keys)])
    page = await engine.scan(b"a", b"c", limit=100)
    assert ([item.key for item in page.items], page.more) == (keys, False)


@pytest.mark.parametrize(
    ("start", "end", "limit", "keys", "more"),
    [
        (b"k0", b"k9", 10, [b"k1", b"k2", b"k3"], False),
        (b"k0", b"k9", 3, [b"k1", b"k2", b"k3"], False),
        (b"k0", b"k9", 2, [b"k1", b"k2"], True),
        (b"k1", b"k3", 2, [b"k1", b"k2"], False),
        (b"k1\x00", b"k4", 1, [b"k2"], True),
        (b"", b"\xff", 10, [b"k1", b"k2", b"k3"], False),
        (b"k3", b"k1", 10, [], False),
        (b"k1", b"k1", 10, [], False),
    ],
)
async def test_a_scan_returns_a_page_and_says_whether_more_follows(
    engine: KV, start: Key, end: Key, limit: int, keys: list[Key], more: bool
) -> None:
    revision = await engine.commit([], [Put(b"k%d" % n, b"v%d" % n) for n in (3, 1, 2)])
    page = await engine.scan(start, end, limit=limit)
    assert page.items == [Item(key, b"v" + key[1:], revision) for key in keys]
    assert page.more is more
    assert page.revision >= revision


async def test_a_scan_for_keys_alone_leaves_the_values_empty(engine: KV) -> None:
    revision = await put(engine, b"k", b"value")
    page = await engine.scan(b"k", b"l", limit=1, keys_only=True)
    assert page.items == [Item(b"k", b"", revision)]
    pinned = await engine.scan(b"k", b"l", limit=1, keys_only=True, revision=revision)
    assert pinned.items == page.items


@pytest.mark.parametrize("limit", [0, -1, limits.SCAN_ITEMS_MAX + 1])
async def test_a_scan_outside_its_limits_is_refused(engine: KV, limit: int) -> None:
    with pytest.raises(ValueError):
        await engine.scan(b"a", b"b", limit=limit)


# Commits and guards


async def test_revisions_grow_with_every_commit_that_puts(pair: tuple[KV, KV]) -> None:
    revisions = [await put(pair[number % 2], b"key") for number in range(10)]
    assert all(earlier < later for earlier, later in pairwise(revisions))
    assert revisions[0] > 0


async def test_all_writes_of_a_commit_share_its_revision(engine: KV) -> None:
    await put(engine, b"old")
    revision = await engine.commit([], [Put(b"x", b"1"), Delete(b"old"), Put(b"y", b"2")])
    reading = await engine.get_many([b"x", b"y", b"old"])
    assert reading.items == [Item(b"x", b"1", revision), Item(b"y", b"2", revision), None]


async def test_removing_an_absent_key_is_no_error(engine: KV) -> None:
    revision = await put(engine, b"there")
    await engine.commit([], [Delete(b"absent")])
    assert await engine.commit([], [Delete(b"absent"), Delete(b"there")]) > revision
    assert (await engine.get_many([b"there"])).items == [None]


HOLDING: list[list[Guard]] = [
    [At(b"k2", 0)],
    [Empty(b"k2", b"k3"), Empty(b"k1\x00", b"k3"), Empty(b"k0", b"k1")],
    [NoneNewer(b"k2", b"k3", 0)],
]


@pytest.mark.parametrize("guards", HOLDING)
async def test_a_commit_happens_when_its_guards_hold(engine: KV, guards: list[Guard]) -> None:
    revision = await engine.commit([], [Put(b"k1", b""), Put(b"k3", b"")])
    await engine.commit(
        [*guards, At(b"k1", revision), NoneNewer(b"k1", b"k9", revision)], [Put(b"new", b"1")]
    )
    assert await value_of(engine, b"new") == b"1"


@pytest.mark.parametrize(
    "failing",
    [
        lambda revision: At(b"k1", 0),
        lambda revision: At(b"k1", revision + 1),
        lambda revision: At(b"absent", revision),
        lambda revision: Empty(b"k1", b"k1\x00"),
        lambda revision: Empty(b"k", b"l"),
        lambda revision: NoneNewer(b"k1", b"k2", revision - 1),
        lambda revision: NoneNewer(b"k", b"l", 0),
    ],
)
async def test_a_failed_guard_is_named_and_nothing_is_written(engine: KV, failing: Any) -> None:
    revision = await engine.commit([], [Put(b"k1", b"old"), Put(b"k3", b"old")])
    guard = failing(revision)
    with pytest.raises(Conflict) as conflict:
        await engine.commit(
            [At(b"k3", revision), guard, At(b"k2", 0)], [Put(b"k1", b"new"), Put(b"x", b"new")]
        )
    assert conflict.value.guard == guard
    reading = await engine.get_many([b"k1", b"x"])
    assert reading.items == [Item(b"k1", b"old", revision), None]


async def test_the_first_of_several_failed_guards_is_named(engine: KV) -> None:
    await put(engine, b"k")
    with pytest.raises(Conflict) as conflict:
        await engine.commit([Empty(b"k", b"l"), At(b"k", 0)], [Put(b"x", b"")])
    assert conflict.value.guard == Empty(b"k", b"l")


async def test_none_newer_ignores_removed_keys(engine: KV) -> None:
    await put(engine, b"k1")
    revision = await put(engine, b"k2")
    await put(engine, b"k3")
    await engine.commit([], [Delete(b"k3")])
    await engine.commit([NoneNewer(b"k", b"l", revision)], [Put(b"done", b"")])
    assert await value_of(engine, b"done") == b""


async def test_guards_look_at_the_state_before_the_writes(engine: KV) -> None:
    revision = await put(engine, b"k")
    again = await engine.commit([At(b"k", revision), At(b"n", 0)], [Put(b"k", b""), Put(b"n", b"")])
    with pytest.raises(Conflict):
        await engine.commit([At(b"k", revision)], [Put(b"k", b"")])
    assert await engine.commit([At(b"n", again)], [Delete(b"n")]) > again


async def test_of_100_racing_creators_over_two_engines_one_wins(pair: tuple[KV, KV]) -> None:
    outcomes = await asyncio.gather(
        *(pair[n % 2].commit([At(b"key", 0)], [Put(b"key", b"%d" % n)]) for n in range(100)),
        return_exceptions=True,
    )
    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert (len(winners), len(losers)) == (1, 99)
    assert all(loser.guard == At(b"key", 0) for loser in losers)
    assert await value_of(pair[0], b"key") == b"%d" % winners[0]


async def test_racing_counters_over_two_engines_lose_no_increment(pair: tuple[KV, KV]) -> None:
    async def count(engine: KV, times: int) -> None:
        while times:
            (item,) = (await engine.get_many([b"count"])).items
            value, revision = (int(item.value), item.revision) if item else (0, 0)
            try:
                await engine.commit([At(b"count", revision)], [Put(b"count", b"%d" % (value + 1))])
            except Conflict:
                continue
            times -= 1

    await asyncio.gather(*(count(engine, 10) for engine in pair for _ in range(2)))
    assert await value_of(pair[0], b"count") == b"40"


async def test_a_commit_is_seen_at_once_by_the_other_engine(pair: tuple[KV, KV]) -> None:
    for number in range(20):
        writer, reader = pair if number % 2 else pair[::-1]
        revision = await put(writer, b"key", b"%d" % number)
        assert (await reader.get_many([b"key"])).items == [Item(b"key", b"%d" % number, revision)]
        page = await reader.scan(b"key", b"kez", limit=1)
        assert [item.revision for item in page.items] == [revision]


async def test_a_cancelled_caller_does_not_undo_its_commit(engine: KV) -> None:
    task = asyncio.create_task(put(engine, b"key", b"1"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await put(engine, b"other")
    assert await value_of(engine, b"key") in {b"1", None}
    await engine.commit([], [Put(b"key", b"2")])
    assert await value_of(engine, b"key") == b"2"


# Limits


async def test_the_largest_commit_is_accepted(engine: KV) -> None:
    count = limits.COMMIT_OPERATIONS_MAX
    value = bytes(limits.COMMIT_BYTES_MAX // count - 64)
    guards = [At(b"key-%04d" % number, 0) for number in range(limits.COMMIT_GUARDS_MAX)]
    await engine.commit(guards, [Put(b"key-%04d" % number, value) for number in range(count)])
    page = await engine.scan(b"key", b"kez", limit=count + 1)
    assert [len(item.value) for item in page.items] == [len(value)] * count


TOO_LARGE: dict[str, tuple[list[Guard], list[Put | Delete]]] = {
    "writes": ([], [Delete(b"%d" % n) for n in range(limits.COMMIT_OPERATIONS_MAX + 1)]),
    "guards": ([At(b"k", 0)] * (limits.COMMIT_GUARDS_MAX + 1), [Put(b"k", b"")]),
    "bytes": ([], [Put(b"k", bytes(limits.COMMIT_BYTES_MAX + 1))]),
}


@pytest.mark.parametrize("what", TOO_LARGE)
async def test_a_commit_over_the_limits_is_refused(engine: KV, what: str) -> None:
    guards, writes = TOO_LARGE[what]
    with pytest.raises(CommitTooLarge):
        await engine.commit(guards, writes)
    assert await value_of(engine, b"k") is None


@pytest.mark.parametrize(
    "writes",
    [[Put(b"k", b"1"), Put(b"k", b"2")], [Put(b"k", b"1"), Delete(b"k")], [], [Put(b"", b"")]],
)
async def test_a_commit_that_makes_no_sense_is_refused(
    engine: KV, writes: Sequence[Put | Delete]
) -> None:
    with pytest.raises(ValueError):
        await engine.commit([], writes)
    assert await value_of(engine, b"k") is None


# Reads at a revision


async def test_a_scan_at_a_revision_sees_the_past(engine: KV) -> None:
    first = await engine.commit([], [Put(b"k1", b"a"), Put(b"k2", b"a"), Put(b"k4", b"a")])
    second = await engine.commit([], [Put(b"k1", b"b"), Delete(b"k2"), Put(b"k3", b"b")])
    third = await engine.commit([], [Put(b"k1", b"c"), Put(b"k2", b"c"), Delete(b"k4")])
    expected = {
        first: [Item(b"k1", b"a", first), Item(b"k2", b"a", first), Item(b"k4", b"a", first)],
        second: [Item(b"k1", b"b", second), Item(b"k3", b"b", second), Item(b"k4", b"a", first)],
        third: [Item(b"k1", b"c", third), Item(b"k2", b"c", third), Item(b"k3", b"b", second)],
    }
    for revision, items in expected.items():
        page = await engine.scan(b"k", b"l", limit=10, revision=revision)
        assert (page.items, page.more, page.revision) == (items, False, revision)
        cut = await engine.scan(b"k1\x00", b"l", limit=1, revision=revision)
        assert (cut.items, cut.more) == (items[1:2], True)


async def test_a_scan_below_the_compaction_is_refused(engine: KV) -> None:
    revisions = [await put(engine, b"key", b"%d" % number) for number in range(5)]
    await engine.compact(revisions[2])
    await engine.compact(revisions[2])
    with pytest.raises(Compacted):
        await engine.scan(b"k", b"l", limit=1, revision=revisions[1])
    for number in (2, 3, 4):
        page = await engine.scan(b"k", b"l", limit=1, revision=revisions[number])
        assert page.items == [Item(b"key", b"%d" % number, revisions[number])]


# Watches


async def test_a_watch_tells_changes_under_its_prefix_in_order(engine: KV) -> None:
    before = await put(engine, b"w/old")
    async with watching(engine, b"w/", before) as events:
        first = await engine.commit([], [Put(b"w/a", b"1"), Put(b"x", b"1"), Put(b"v", b"1")])
        second = await engine.commit([], [Put(b"w/a", b"2")])
        third = await engine.commit([], [Delete(b"w/a"), Delete(b"w/absent"), Delete(b"x")])
        fourth = await engine.commit([], [Put(b"w/\xff", b"")])
        assert await take(events, 4) == [
            Event(EventKind.PUT, b"w/a", b"1", first),
            Event(EventKind.PUT, b"w/a", b"2", second),
            Event(EventKind.DELETE, b"w/a", b"", third),
            Event(EventKind.PUT, b"w/\xff", b"", fourth),
        ]


async def test_a_watch_of_the_empty_prefix_sees_everything(engine: KV) -> None:
    before = await put(engine, b"start")
    async with watching(engine, b"", before) as events:
        await put(engine, b"\xff\xff")
        await put(engine, b"a")
        assert [event.key for event in await take(events, 2)] == [b"\xff\xff", b"a"]


async def test_a_watch_resumes_after_a_revision_in_the_past(engine: KV) -> None:
    revisions = [await put(engine, b"w/key", b"%d" % number) for number in range(6)]
    async with watching(engine, b"w/", revisions[2]) as events:
        seen = await take(events, 3)
    assert [(event.value, event.revision) for event in seen] == [
        (b"%d" % number, revisions[number]) for number in (3, 4, 5)
    ]


async def test_a_waiting_watch_is_woken_by_the_other_engine(pair: tuple[KV, KV]) -> None:
    before = await put(pair[0], b"start")
    async with watching(pair[0], b"w/", before) as events:
        waiting = asyncio.create_task(take(events, 1))
        for number in range(5):
            await put(pair[1], b"other/%d" % number)
        revision = await put(pair[1], b"w/key", b"value")
        assert await waiting == [Event(EventKind.PUT, b"w/key", b"value", revision)]


async def test_two_watches_each_see_their_own_prefix(engine: KV) -> None:
    before = await put(engine, b"start")
    async with (
        watching(engine, b"a/", before) as first,
        watching(engine, b"b/", before) as second,
    ):
        tasks = [asyncio.create_task(take(events, 3)) for events in (first, second)]
        for number in range(3):
            await put(engine, b"b/%d" % number)
            await put(engine, b"a/%d" % number)
        keys = [[event.key for event in await task] for task in tasks]
    assert keys == [[b"a/%d" % n for n in range(3)], [b"b/%d" % n for n in range(3)]]


async def test_a_watch_from_before_the_compaction_says_relist_and_goes_on(engine: KV) -> None:
    revisions = [await put(engine, b"w/key", b"%d" % number) for number in range(6)]
    await engine.compact(revisions[4])
    async with watching(engine, b"w/", revisions[0]) as events:
        (relist,) = await take(events, 1)
        assert (relist.kind, relist.key, relist.value) == (EventKind.RELIST, b"", b"")
        assert relist.revision >= revisions[4]
        revision = await put(engine, b"w/new")
        while (event := (await take(events, 1))[0]).revision < revision:
            assert event.revision > relist.revision
        assert event == Event(EventKind.PUT, b"w/new", b"v", revision)


async def test_a_watch_can_be_closed_while_others_go_on(engine: KV) -> None:
    before = await put(engine, b"start")
    async with watching(engine, b"w/", before) as kept:
        async with watching(engine, b"w/", before) as closed:
            await put(engine, b"w/1")
            await take(closed, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(closed)
        await put(engine, b"w/2")
        assert [event.key for event in await take(kept, 2)] == [b"w/1", b"w/2"]


async def test_a_waiting_watch_ends_when_its_task_is_cancelled(engine: KV) -> None:
    before = await put(engine, b"start")

    async def follow() -> None:
        async with watching(engine, b"w/", before) as events:
            async for _ in events:
                pass

    task = asyncio.create_task(follow())
    await put(engine, b"w/1")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await put(engine, b"w/2") > before


async def test_a_watch_delivers_many_changes_without_gaps(engine: KV) -> None:
    before = await put(engine, b"start")
    total = 40 * limits.COMMIT_OPERATIONS_MAX
    async with watching(engine, b"w/", before) as events:
        for batch in range(40):
            await engine.commit(
                [],
                [
                    Put(b"w/%03d/%03d" % (batch, n), b"")
                    for n in range(limits.COMMIT_OPERATIONS_MAX)
                ],
            )
        seen = await take(events, total)
    assert len({event.key for event in seen}) == total
    assert all(earlier.revision <= later.revision for earlier, later in pairwise(seen))


# Leases


async def test_keys_of_a_lease_die_with_it(store: Store, pair: tuple[KV, KV]) -> None:
    holder, other = pair
    lease = await holder.grant_lease(TTL)
    assert lease != 0
    revision = await holder.commit(
        [], [Put(b"l/held", b"v", lease), Put(b"l/free", b"v"), Put(b"l/was", b"v", lease)]
    )
    latest = await holder.commit([], [Put(b"l/was", b"free")])
    (held,) = (await other.get_many([b"l/held"])).items
    assert held == Item(b"l/held", b"v", revision, lease)
    async with watching(other, b"l/", latest) as events:
        await store.let_pass(TTL + 0.1)
        (event,) = await take(events, 1)
    assert (event.kind, event.key, event.value) == (EventKind.DELETE, b"l/held", b"")
    assert event.revision > latest
    reading = await other.get_many([b"l/held", b"l/free", b"l/was"])
    assert [item is None for item in reading.items] == [True, False, False]
    with pytest.raises(LeaseLost):
        await holder.renew_lease(lease)
    with pytest.raises(LeaseLost):
        await holder.commit([], [Put(b"l/held", b"again", lease)])
    assert await value_of(holder, b"l/held") is None


async def test_a_renewed_lease_lives_on(store: Store, engine: KV) -> None:
    lease = await engine.grant_lease(TTL)
    await engine.commit([], [Put(b"held", b"v", lease)])
    for _ in range(3):
        await store.let_pass(TTL / 2)
        await engine.renew_lease(lease)
    assert await value_of(engine, b"held") == b"v"


async def test_a_revoked_lease_takes_its_keys_at_once(pair: tuple[KV, KV]) -> None:
    lease = await pair[0].grant_lease(60)
    await pair[0].commit([], [Put(b"held", b"v", lease)])
    await pair[1].revoke_lease(lease)
    assert await value_of(pair[0], b"held") is None
    await pair[0].revoke_lease(lease)
    with pytest.raises(LeaseLost):
        await pair[0].renew_lease(lease)


async def test_a_put_under_an_unknown_lease_is_refused(engine: KV) -> None:
    with pytest.raises(LeaseLost):
        await engine.commit([], [Put(b"free", b""), Put(b"held", b"", 123_456_789)])
    assert (await engine.get_many([b"free", b"held"])).items == [None, None]


async def test_leases_have_their_own_ids(pair: tuple[KV, KV]) -> None:
    leases = [await pair[number % 2].grant_lease(60) for number in range(6)]
    assert len(set(leases)) == 6


async def test_a_lease_without_time_is_refused(engine: KV) -> None:
    with pytest.raises(ValueError):
        await engine.grant_lease(0)


# The rest


async def test_space_is_told(engine: KV) -> None:
    await put(engine, b"key", bytes(100_000))
    space = await engine.space()
    assert space.used_bytes >= 100_000
    assert space.quota_bytes >= 0


async def test_a_closed_engine_is_unavailable(engine: KV) -> None:
    await put(engine, b"key")
    await engine.close()
    await engine.close()
    with pytest.raises(Unavailable):
        await engine.get_many([b"key"])
    with pytest.raises(Unavailable):
        await put(engine, b"key")


async def test_an_engine_says_whether_a_range_costs_its_size(engine: KV) -> None:
    assert engine.range_costs_its_size in {True, False}


async def test_work_in_peace_is_no_disturbance(engine: KV) -> None:
    before = engine.disturbances
    await put(engine, b"key")
    await engine.get_many([b"key"])
    with pytest.raises(Conflict):
        await engine.commit([At(b"key", 0)], [Put(b"key", b"")])
    assert engine.disturbances == before
