"""Slow nodes: a reader asks another in time, within its budget, and remembers."""

from __future__ import annotations

import asyncio

import pytest

from nodes.memory import Fault
from s3gw.cluster.reader import READ_SECONDS_MAX, BlobUnreadable
from tests.stores.blob_path import STRIPE, BlobPath, payload
from tests.stores.virtual_time import run_virtual

DATA = payload(2 * STRIPE)


async def timed_read(path: BlobPath, ref, first: int = 0, stop: int | None = None) -> float:  # type: ignore[no-untyped-def]
    clock = path.cluster.clock
    started = clock.monotonic()
    end = len(DATA) if stop is None else stop
    assert await path.read(ref, first, end) == DATA[first:end]
    return clock.monotonic() - started


@pytest.mark.parametrize("delay", [2.0, 60.0])
@pytest.mark.parametrize("index", range(4))
def test_one_slow_node_costs_less_than_its_delay(index: int, delay: float) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(DATA)).ref
        path.drive(ref, index).inject(Fault(delay_seconds=delay), "read")
        assert await timed_read(path, ref) < 0.2

    run_virtual(scenario())


def test_two_slow_nodes_cost_no_more_than_ten_times_what_is_usual() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(DATA)).ref
        for index in (0, 3):
            path.drive(ref, index).inject(Fault(hang=True), "read")
        assert await timed_read(path, ref) < 1.0

    run_virtual(scenario())


@pytest.mark.parametrize("index", range(4))
def test_a_short_range_on_a_slow_node_is_decoded_from_the_others(index: int) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(DATA)).ref
        path.drive(ref, index).inject(Fault(hang=True), "read")
        first = index * STRIPE // 4 + 10
        assert await timed_read(path, ref, first, first + 100) < 1.0

    run_virtual(scenario())


def test_a_slow_node_is_not_asked_first_again() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(DATA)).ref
        slow = path.drive(ref, 0)
        slow.inject(Fault(delay_seconds=1.0), "read")
        times = [await timed_read(path, ref) for _ in range(10)]
        assert max(times[2:]) < 0.001
        assert sum(call == "read" for call, _ in slow.calls) <= 3

    run_virtual(scenario())


def test_hedges_stay_within_their_budget_when_all_nodes_are_slow() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(DATA)).ref
        for drive in path.cluster.drives.values():
            drive.inject(Fault(delay_seconds=0.1), "read")
        reads = 200
        for _ in range(reads):
            await timed_read(path, ref)
        asked = sum(
            call == "read" for drive in path.cluster.drives.values() for call, _ in drive.calls
        )
        assert asked <= 4 * reads * 1.1 + 25

    run_virtual(scenario())


def test_when_no_node_answers_the_read_ends_by_its_deadline() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(DATA)).ref
        for drive in path.cluster.drives.values():
            drive.inject(Fault(hang=True), "read")
        clock = path.cluster.clock
        started = clock.monotonic()
        with pytest.raises(BlobUnreadable):
            await path.read(ref)
        assert clock.monotonic() - started < 2 * READ_SECONDS_MAX

    run_virtual(scenario())


def test_a_missing_shard_is_replaced_at_once_without_waiting() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(DATA)).ref
        path.lose(ref, 1)
        path.lose(ref, 2)
        assert await timed_read(path, ref) < 0.001

    run_virtual(scenario())


def test_a_reader_that_goes_away_leaves_no_task_behind() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(6)
        ref = (await path.write(payload(30 * STRIPE))).ref
        reading = path.process.blobs.read(ref, 0, ref.size)
        await anext(reading)
        await reading.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(scenario())
