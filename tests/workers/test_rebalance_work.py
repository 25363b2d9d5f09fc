"""How the rebalancer's work is ordered, shared, limited and shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nodes.protocol import ShardName
from s3gw.cluster.layouts import OUT, Add, SetState
from s3gw.cluster.tunables import REBUILT_SHARD_BYTES_MIN, LiveTunables
from s3gw.kv.interface import Guard, Page, Put, Write
from s3gw.metadata import keys
from s3gw.metadata.records import Count, PgRecord, decode
from s3gw.workers.contract import UNCLAIMED, take_lock
from s3gw.workers.progress import read_progress, total
from s3gw.workers.rebalance import LOOK_SECONDS, changes
from tests.stores.memory_store import STRIPE_BYTES, Process
from tests.stores.operations import put
from tests.stores.virtual_time import run_virtual
from tests.workers.moving import World, placed, rebalancer, start


def moves_begun(process: Process) -> list[tuple[str, int]]:
    """The groups whose records get former holders from now on, in that order."""
    begun: list[tuple[str, int]] = []
    plain = process.kv.commit

    async def commit(guards: list[Guard], writes: list[Write]) -> int:
        revision = await plain(guards, writes)
        for write in writes:
            if isinstance(write, Put) and write.key.startswith(keys.PGS):
                record = decode(PgRecord, write.value)
                if any(slot.holders_before for slot in record.slots):
                    begun.append(keys.split_pg(write.key))
        return revision

    process.kv.commit = commit  # type: ignore[method-assign,assignment]
    return begun


def test_the_most_endangered_groups_are_moved_first() -> None:
    async def scenario() -> None:
        world = await World.make(10, pg_count=16)
        await world.fill(8)
        world.fail("d1")
        world.fail("d2")
        lost = {
            (profile.name, number): sum(
                node in ("d1", "d2") for node in world.process.topology.group(profile, number).nodes
            )
            for profile in world.process.topology.profiles()
            for number in range(profile.pg_count)
        }
        assert set(lost.values()) >= {0, 1, 2}
        begun = moves_begun(world.process)
        tunables = LiveTunables(world.process.kv)
        await tunables.change({"rebuild_groups_at_once": 1})
        worker = rebalancer(world.process, tunables)
        await world.change(SetState("d1", OUT), SetState("d2", OUT), SetState("d3", "draining"))
        assert await worker.run_once()
        assert [lost[group] for group in begun] == sorted(
            (lost[group] for group in begun), reverse=True
        )
        assert {lost[group] for group in begun} == {0, 1, 2}
        await world.check_settled()

    run_virtual(scenario())


def test_two_processes_share_the_groups_and_the_figures_add_up() -> None:
    async def scenario() -> None:
        world = await World.make(9, nodes=7, pg_count=8)
        await world.fill()
        await world.change(Add("d7", "z7", 1), Add("d8", "z8", 1))
        processes = [await start(world.cluster) for _ in range(2)]
        workers = [rebalancer(process) for process in processes]
        for drive in world.cluster.drives.values():
            drive.enter = yielding(drive.enter)  # type: ignore[method-assign]
        await asyncio.gather(*(worker.run_once() for worker in workers))
        world.cluster.clock.advance(60)
        for worker, process in zip(workers, processes, strict=True):
            await process.follow()
            assert await worker.run_once()
        await world.process.follow()
        await world.check_settled()
        assert all(placed(worker.meter) for worker in workers)
        records = await read_progress(world.cluster.kv())
        assert len(records) == 2
        figures = total(records)
        arrived = sum(len(data) for n in (7, 8) for data in world.drive(f"d{n}").shards.values())
        assert figures.bytes_moved == arrived
        assert (figures.groups_left, figures.bytes_left, figures.eta_seconds) == (0, 0, 0.0)
        assert figures.groups_done >= 8
        await world.cluster.kv().revoke_lease(processes[0].storage.lease())
        assert len(await read_progress(world.cluster.kv())) == 1

    run_virtual(scenario())


def yielding(enter: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
    async def entering(operation: str, name: ShardName | None = None) -> bool:
        await asyncio.sleep(0.001)
        return await enter(operation, name)

    return entering


def test_a_group_that_another_has_locked_is_passed_over_until_it_is_free() -> None:
    async def scenario() -> None:
        world = await World.make(8, nodes=7, pg_count=4)
        await world.fill(8)
        await world.change(SetState("d0", "draining"), Add("d7", "z7", 1))
        other = await start(world.cluster)
        profile = world.process.profile()
        locked = next(n for n in range(4) if "d0" in world.process.topology.group(profile, n).nodes)
        key = keys.group_lock(profile.name, locked)
        claim = await take_lock(other.storage.store, key, b"other", other.storage.lease())
        assert claim is not None
        worker = rebalancer(world.process)
        assert not await worker.run_once()
        assert "d0" in world.process.topology.group(profile, locked).nodes
        assert worker.meter.record().groups_left == 1
        await world.cluster.kv().revoke_lease(other.storage.lease())
        assert await worker.run_once()
        await world.check_settled()

    run_virtual(scenario())


def test_without_a_lease_nothing_is_moved() -> None:
    async def scenario() -> None:
        world = await World.make(8, nodes=7, pg_count=4)
        await world.change(SetState("d0", "draining"), Add("d7", "z7", 1))
        world.process.storage.lease = lambda: 0
        begun = moves_begun(world.process)
        assert not await rebalancer(world.process).run_once()
        assert not begun

    run_virtual(scenario())


@pytest.mark.parametrize("lost", [False, True])
def test_the_bandwidth_is_obeyed_and_may_be_changed_meanwhile(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These shards stand for large ones, whose bytes are what they cost.
    monkeypatch.setattr("s3gw.cluster.tunables.REBUILT_SHARD_BYTES_MIN", 1000)

    async def scenario() -> None:
        world = await World.make(9, nodes=8)
        await world.fill(24 if lost else 120)
        clock = world.cluster.clock
        tunables = LiveTunables(world.process.kv)
        slow, fast = 100_000, 1_000_000
        await tunables.change({"rebuild_bytes_per_second": slow, "rebuild_groups_at_once": 3})
        worker = rebalancer(world.process, tunables)
        history: list[tuple[float, int]] = []
        read = 0

        def counting(plain: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
            async def reading(name: ShardName, offset: int, length: int) -> bytes:
                nonlocal read
                data = await plain(name, offset, length)
                read += len(data)
                history.append((clock.seconds, read))
                if read > 600_000 and tunables.current.rebuild_bytes_per_second == slow:
                    await tunables.change({"rebuild_bytes_per_second": fast})
                    switched.append((clock.seconds, read))
                return data

            return reading

        switched: list[tuple[float, int]] = []
        for drive in world.cluster.drives.values():
            drive.read = counting(drive.read)  # type: ignore[method-assign]
        if lost:
            world.fail("d0")
        await world.change(SetState("d0", OUT if lost else "draining"), Add("d8", "z8", 1))
        began = clock.seconds
        assert await worker.run_once()
        (changed_at, changed_read), *_ = switched
        # One second's burst, and what the pieces that are let through at once are larger than it.
        spare = 400_000
        for at, count in history:
            if at <= changed_at:
                assert count <= slow * (at - began + 1) + spare
            else:
                assert count - changed_read <= fast * (at - changed_at + 1) + spare
        assert changed_at - began >= (changed_read - spare) / slow - 1
        assert changed_at - began >= 1.0
        rest = read - changed_read
        assert rest > 1_000_000
        assert clock.seconds - changed_at < 3 * rest / fast + 2  # not at the old rate any more
        await world.check_settled()

    run_virtual(scenario())


def test_a_rebuild_of_many_small_shards_obeys_the_limit() -> None:
    async def scenario() -> None:
        world = await World.make(9, nodes=8)
        for number in range(120):
            world.objects[f"small{number}"] = b"%d" % number
            await put(world.process, f"small{number}", world.objects[f"small{number}"])
        lost = len(world.drive("d0").shards)
        tunables = LiveTunables(world.process.kv)
        per_second = 8
        rate = per_second * REBUILT_SHARD_BYTES_MIN
        await tunables.change({"rebuild_bytes_per_second": rate})
        worker = rebalancer(world.process, tunables)
        world.fail("d0")
        await world.change(SetState("d0", OUT), Add("d8", "z8", 1))
        began = world.cluster.clock.seconds
        assert await worker.run_once()
        await world.check_settled()
        # What moved is far below the rate, which all of these bytes would pass within the burst.
        assert lost > 5 * per_second
        assert placed(worker.meter) + worker.meter.record().bytes_read < rate
        assert world.cluster.clock.seconds - began >= lost / per_second - 2

    run_virtual(scenario())


def test_a_rebuilt_shard_of_many_stripes_costs_its_bytes() -> None:
    """However small the pieces are in which they are read."""

    async def scenario() -> None:
        world = await World.make(9, nodes=8)
        for number in range(8):
            world.objects[f"large{number}"] = bytes(16 * STRIPE_BYTES)
            await put(world.process, f"large{number}", world.objects[f"large{number}"])
        tunables = LiveTunables(world.process.kv)
        await tunables.change({"rebuild_bytes_per_second": REBUILT_SHARD_BYTES_MIN})
        worker = rebalancer(world.process, tunables)
        world.fail("d0")
        await world.change(SetState("d0", OUT), Add("d8", "z8", 1))
        began = world.cluster.clock.seconds
        assert await worker.run_once()
        await world.check_settled()
        read = worker.meter.record().bytes_read
        assert read > 4 * 16 * STRIPE_BYTES
        assert world.cluster.clock.seconds - began < 2 * read / REBUILT_SHARD_BYTES_MIN

    run_virtual(scenario())


def test_a_node_that_returns_before_it_is_out_has_its_groups_merged_soon() -> None:
    async def scenario() -> None:
        world = await World.make(8)
        await world.fill()
        worker = rebalancer(world.process)
        assert not await worker.work(UNCLAIMED)
        world.fail("d4")
        assert not await worker.work(UNCLAIMED)
        gone = sorted(world.drive("d4").shards, key=str)[:5]
        for name in gone:
            del world.drive("d4").shards[name]
        world.heal("d4")
        world.cluster.clock.advance(LOOK_SECONDS)
        while await worker.work(UNCLAIMED):
            pass
        queued = {key[-16:] for key in world.cluster.engine.items if key.startswith(keys.REPAIRS)}
        assert queued == {name.blob for name in gone}
        assert not any(key.startswith(b"lock/") for key in world.cluster.engine.items)

    run_virtual(scenario())


def test_a_local_reconstruction_code_reads_only_the_local_group() -> None:
    async def scenario() -> None:
        world = await World.make(14, scheme="8+4/2", pg_count=2)
        await world.fill(8)
        name = next(found.name for found in world.process.topology.profiles() if found.companion)
        group = world.process.topology.group(world.process.profile(name), 0)
        lost = group.nodes[0]
        shards = world.drive(lost).shards
        world.fail(lost)
        await world.change(SetState(lost, OUT))
        worker = rebalancer(world.process)
        assert await worker.run_once()
        await world.check_settled()
        stored = sum(len(data) for shard, data in shards.items() if shard.profile == name)
        copies = sum(len(data) for shard, data in shards.items() if shard.profile != name)
        has_local_group = all(
            shard.index in (*range(8), 10, 11) for shard in shards if shard.profile == name
        )
        read = worker.meter.record().bytes_read
        assert has_local_group
        assert read <= 4 * stored + copies  # 8 with Reed-Solomon

    run_virtual(scenario())


def test_what_is_left_is_estimated_with_few_questions() -> None:
    """Stores have tens of thousands of groups."""

    async def scenario() -> None:
        world = await World.make(8, nodes=7, pg_count=128)
        await world.fill(40)
        await world.change(SetState("d0", "draining"), Add("d7", "z7", 1))
        plain, asked = world.process.kv.scan, []

        async def scan(start: bytes, end: bytes, **options: Any) -> Page:
            asked.append(start)
            return await plain(start, end, **options)

        world.process.kv.scan = scan  # type: ignore[method-assign]
        worker = rebalancer(world.process)
        layout = await worker._look()
        assert len(worker._queue) > 50
        assert 0 < sum(start.startswith(keys.COUNTS) for start in asked) <= 4
        expected = 0
        for group in worker._pending(layout):
            prefix = keys.counts(group.profile.name, group.number)
            page = await plain(prefix, keys.after_prefix(prefix), limit=100)
            stored = sum(decode(Count, item.value).bytes for item in page.items)
            expected += group.profile.scheme.fragment_bytes(stored) * changes(group, layout)
        assert worker.meter.record().bytes_left == expected > 0
        asked.clear()
        await worker._look()
        assert not any(start.startswith(keys.COUNTS) for start in asked)

    run_virtual(scenario())


def test_units_of_work_move_all_groups_and_end() -> None:
    async def scenario() -> None:
        world = await World.make(9, nodes=8)
        await world.fill()
        worker = rebalancer(world.process)
        await world.change(SetState("d0", "draining"), Add("d8", "z8", 1))
        units = 0
        while await worker.work(UNCLAIMED):
            units += 1
            assert units < 50
        await world.check_settled()
        assert not world.drive("d0").shards

    run_virtual(scenario())


@pytest.mark.parametrize("late", [True, False])
def test_a_node_that_comes_after_the_first_look_is_merged_soon(late: bool) -> None:
    """A drive that was absent when the process started: what it lacks is not left to the hourly
    merge. Those that are there at the first look are."""

    async def scenario() -> None:
        world = await World.make(6, pg_count=4)
        await world.fill(8)
        world.drive("d1").shards.clear()
        away = world.process.directory.get("d1")
        assert away is not None
        worker = rebalancer(world.process)
        if late:
            world.process.directory.remove("d1")
            await worker.work(UNCLAIMED)
            world.process.directory.add(away)
        while await worker.work(UNCLAIMED):
            pass
        page = await world.process.kv.scan(keys.REPAIRS, keys.after_prefix(keys.REPAIRS), limit=10)
        assert bool(page.items) is late

    run_virtual(scenario())
