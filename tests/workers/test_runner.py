"""The runner: one process at a time per worker, takeover, failures, stopping."""

from __future__ import annotations

import asyncio

import pytest

from nodes.http_guard import GuardOptions
from s3gw.gateway import stop_at
from s3gw.kv.interface import Delete, Put
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.counters import Counters
from s3gw.metadata.records import Cursor, StoreRecord
from s3gw.metadata.store import Store, Transaction
from s3gw.serving import serve_beside
from s3gw.supervisor import GRACEFUL_SECONDS
from s3gw.workers.contract import Claim, ClaimLost, commit
from s3gw.workers.runner import Runner
from tests.stores.virtual_time import run_virtual

IDENTITY = StoreRecord("store", 0, 1, 0, b"f" * 32, b"t" * 32, b"c" * 32)
TTL = 15


class Counting:
    """Counts its units; fails in some."""

    exclusive = True

    def __init__(self, name: str = "count", *, fails: int = 0, seconds: float = 0.0) -> None:
        self.name = name
        self.units = 0
        self.ended = 0
        self.claims: list[Claim] = []
        self._fails = fails
        self._seconds = seconds

    async def work(self, claim: Claim) -> bool:
        self.units += 1
        self.claims.append(claim)
        await asyncio.sleep(self._seconds)
        if self.units <= self._fails:
            raise RuntimeError("on purpose")
        self.ended += 1
        return False

    async def wait(self) -> None:
        await asyncio.sleep(1.0)


class OneProcess:
    """A process with a lease that it renews until it dies."""

    def __init__(self, engine: MemoryStore) -> None:
        self.kv = MemoryKV(engine)
        self.store = Store(self.kv, IDENTITY, Counters(self.kv))
        self.lease = 0

    async def live(self) -> None:
        self.lease = await self.kv.grant_lease(TTL)
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(5)
            await self.kv.renew_lease(self.lease)

    def die(self) -> None:
        self._renewing.cancel()

    def runner(self, *workers: Counting) -> Runner:
        return Runner(self.store, lambda: self.lease, workers)


async def two_processes() -> tuple[OneProcess, OneProcess]:
    engine = MemoryStore(asyncio.get_running_loop().time)
    first, second = OneProcess(engine), OneProcess(engine)
    await first.live()
    await second.live()
    return first, second


def test_of_two_processes_one_works_and_the_other_takes_over_when_its_lease_ends() -> None:
    async def scenario() -> None:
        first, second = await two_processes()
        one, other = Counting(), Counting()
        running, waiting = first.runner(one), second.runner(other)
        running.start()
        await asyncio.sleep(0.5)
        waiting.start()
        await asyncio.sleep(60)
        assert one.units > 50
        assert other.units == 0
        first.die()
        await asyncio.sleep(TTL + 15)
        assert other.units > 5
        before = one.units
        await asyncio.sleep(20)
        assert one.units == before
        await waiting.stop()
        await running.stop()
        second.die()

    run_virtual(scenario())


def test_a_worker_that_fails_is_tried_again_later_and_the_traceback_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        first, _ = await two_processes()
        worker = Counting(fails=4)
        runner = first.runner(worker)
        runner.start()
        await asyncio.sleep(14.9)
        assert worker.units == 4
        await asyncio.sleep(10)
        assert worker.ended > 3
        await runner.stop()

    run_virtual(scenario())
    assert sum("on purpose" in (record.exc_text or "") for record in caplog.records) == 4


def test_stopping_waits_for_the_unit_in_progress_and_gives_the_lock_back() -> None:
    async def scenario() -> None:
        first, second = await two_processes()
        worker = Counting(seconds=3.0)
        runner = first.runner(worker)
        runner.start()
        await asyncio.sleep(1.0)
        started = asyncio.get_running_loop().time()
        await runner.stop()
        assert worker.ended == worker.units == 1
        assert asyncio.get_running_loop().time() - started < 2.5
        (lock,) = (await second.kv.get_many([keys.lock("count")])).items
        assert lock is None

    run_virtual(scenario())


def test_stopping_does_not_wait_for_idle_workers() -> None:
    async def scenario() -> None:
        first, _ = await two_processes()
        runner = first.runner(Counting("a"), Counting("b"))
        runner.start()
        await asyncio.sleep(0.5)
        started = asyncio.get_running_loop().time()
        await runner.stop()
        assert asyncio.get_running_loop().time() - started < 0.01

    run_virtual(scenario())


def test_a_worker_whose_units_are_long_is_told_to_stop() -> None:
    class Long(Counting):
        def __init__(self) -> None:
            super().__init__()
            self._told = asyncio.Event()

        def stop(self) -> None:
            self._told.set()

        async def work(self, claim: Claim) -> bool:
            await self._told.wait()
            self.ended += 1
            return False

    async def scenario() -> None:
        first, _ = await two_processes()
        worker = Long()
        runner = first.runner(worker)
        runner.start()
        await asyncio.sleep(100.0)
        assert worker.ended == 0
        started = asyncio.get_running_loop().time()
        await runner.stop()
        assert worker.ended == 1
        assert asyncio.get_running_loop().time() - started < 0.01

    run_virtual(scenario())


def test_a_unit_that_does_not_end_is_cancelled() -> None:
    async def scenario() -> None:
        first, _ = await two_processes()
        worker = Counting(seconds=10_000.0)
        runner = first.runner(worker)
        runner.start()
        await asyncio.sleep(1.0)
        await runner.stop()
        assert worker.ended == 0
        assert asyncio.get_running_loop().time() < 40

    run_virtual(scenario())


def test_background_work_stops_while_requests_in_flight_are_finished() -> None:
    """One after the other would take longer than the supervisor waits."""

    async def scenario() -> None:
        first, _ = await two_processes()
        runner = first.runner(Counting(seconds=10_000.0))
        runner.start()
        shutdown = asyncio.Event()

        async def requests() -> None:
            await shutdown.wait()
            await asyncio.sleep(GuardOptions().graceful_seconds)

        loop = asyncio.get_running_loop()
        begun = loop.time() + 1.0
        loop.call_at(begun, shutdown.set)
        await serve_beside(asyncio.gather(requests(), stop_at(shutdown, runner)), [], shutdown)
        await runner.stop()
        assert loop.time() - begun < GRACEFUL_SECONDS - 5

    run_virtual(scenario())


async def test_a_commit_under_a_lost_lock_fails() -> None:
    process = OneProcess(MemoryStore())
    key = keys.lock("count")
    revision = await process.kv.commit([], [Put(key, b"mine")])
    claim = Claim(key, revision)
    tx = Transaction()
    tx.put(keys.cursor("count"), Cursor("4+2", 1))
    await commit(process.store, claim, tx)
    await process.kv.commit([], [Delete(key)])
    await process.kv.commit([], [Put(key, b"theirs")])
    with pytest.raises(ClaimLost):
        await commit(process.store, claim, tx)


def test_a_process_without_a_lease_does_not_work() -> None:
    async def scenario() -> None:
        engine = MemoryStore(asyncio.get_running_loop().time)
        process = OneProcess(engine)
        worker = Counting()
        runner = process.runner(worker)
        runner.start()
        await asyncio.sleep(60)
        assert worker.units == 0
        await runner.stop()

    run_virtual(scenario())
