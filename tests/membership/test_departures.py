"""Nodes that stay away leave the layout and come back into it: with engine, leases and clock under
the test's control."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

import pytest

from s3gw.cluster import layouts
from s3gw.cluster.tunables import LiveTunables
from s3gw.kv.interface import Conflict, Put, Unavailable
from s3gw.metadata import keys
from s3gw.metadata.records import NodeRecord, PgRecord, Slot, Tunables, encode
from s3gw.workers.contract import UNCLAIMED, Claim, ClaimLost
from s3gw.workers.departures import Departures, drives_live, leases_live, read_departures
from tests.stores.memory_store import MemoryCluster, Process

LOOK = 5.0
LEASE = 15.0
AFTER = 600.0
HOLD = 1800.0


class Watch:
    """A store with one worker. `up` are the nodes with leases."""

    def __init__(self, cluster: MemoryCluster, process: Process) -> None:
        self.cluster = cluster
        self.process = process
        self.up = set(cluster.drives)
        self.away = False
        self.looks = 0
        self.tunables = LiveTunables(process.kv)
        self.tunables.current = Tunables(rebuild_after_seconds=AFTER, hold_down_seconds=HOLD)
        self.worker = self.another()

    @classmethod
    async def open(cls, nodes: int = 8) -> Watch:
        cluster = MemoryCluster(nodes)
        await cluster.found()
        return cls(cluster, await cluster.process())

    def another(self) -> Departures:
        """A worker that knows nothing but what is written."""
        return Departures(
            self.process.storage,
            self.tunables,
            self._live,
            lease_seconds=LEASE,
            look_seconds=LOOK,
            clock=self.cluster.clock.monotonic,
        )

    async def _live(self) -> Collection[str]:
        self.looks += 1
        if self.away:
            raise Unavailable("away")
        return self.up

    async def pass_time(self, seconds: float, claim: Claim = UNCLAIMED) -> None:
        """Look, wait, look, … for that long."""
        end = self.cluster.clock.seconds + seconds
        while self.cluster.clock.seconds < end:
            self.cluster.clock.advance(LOOK)
            try:
                await self.worker.work(claim)
            except Unavailable:
                assert self.away

    def lose(self, *nodes: str) -> None:
        self.up -= set(nodes)

    async def states(self) -> dict[str, str]:
        """The states of the nodes that are not active."""
        layout = await layouts.current(self.process.kv)
        return {node.node: node.state for node in layout.record.nodes if node.state != "active"}

    async def until_out(self, node: str, most: float = 10_000) -> float:
        """Seconds until a node is out."""
        start = self.cluster.clock.seconds
        while (await self.states()).get(node) != "out":
            await self.pass_time(LOOK)
            assert self.cluster.clock.seconds - start <= most, self.worker.held_back
        return self.cluster.clock.seconds - start

    async def change(self, changes: Iterable[layouts.Change]) -> None:
        layout = await layouts.current(self.process.kv)
        await layouts.apply(
            self.process.kv,
            self.process.topology,
            layouts.changed(layout.record.nodes, changes),
            reason="test",
            now_ms=1,
            expected_epoch=layout.epoch,
        )


@pytest.fixture
async def watch() -> Watch:
    return await Watch.open()


async def test_a_node_that_stays_away_leaves_the_layout_after_its_time(watch: Watch) -> None:
    await watch.pass_time(60)
    watch.lose("d3")
    took = await watch.until_out("d3")
    assert AFTER <= took <= AFTER + 3 * LOOK
    layout = await layouts.current(watch.process.kv)
    assert layout.epoch == 2
    assert layout.record.reason == "d3 was down for 600 s"
    for profile in watch.process.topology.profiles():
        for number in range(profile.pg_count):
            target = layout.target(profile.name, number)
            assert target is not None
            assert "d3" not in target
            assert "" not in target
    await watch.pass_time(3600)
    assert (await layouts.current(watch.process.kv)).epoch == 2


async def test_a_node_that_returns_in_time_only_catches_up(watch: Watch) -> None:
    watch.lose("d3")
    await watch.pass_time(AFTER - 20)
    watch.up.add("d3")
    await watch.pass_time(2 * AFTER)
    assert await watch.states() == {}
    assert (await layouts.current(watch.process.kv)).epoch == 1
    assert await read_departures(watch.process.kv) == {}


async def test_a_flapping_node_leaves_because_its_time_down_adds_up(watch: Watch) -> None:
    for _ in range(8):
        watch.lose("d3")
        await watch.pass_time(120)
        watch.up.add("d3")
        await watch.pass_time(60)
    assert await watch.states() == {"d3": "out"}


async def test_a_node_that_is_well_most_of_the_time_is_forgiven(watch: Watch) -> None:
    for _ in range(20):
        watch.lose("d3")
        await watch.pass_time(60)
        watch.up.add("d3")
        await watch.pass_time(180)
    assert await watch.states() == {}


async def test_another_worker_counts_on(watch: Watch) -> None:
    watch.lose("d3")
    for _ in range(6):
        await watch.pass_time(AFTER / 6)
        watch.worker = watch.another()
    took = await watch.until_out("d3")
    assert took <= 8 * 2 * LOOK


async def test_a_worker_that_gets_its_lock_back_does_not_count_the_time_of_another(
    watch: Watch,
) -> None:
    watch.lose("d3")
    await watch.pass_time(100, Claim(b"", 1))
    before = (await read_departures(watch.process.kv))["d3"].record
    await watch.pass_time(LOOK, Claim(b"", 2))
    assert (await read_departures(watch.process.kv))["d3"].record == before


async def test_time_in_which_nobody_looked_is_not_counted(watch: Watch) -> None:
    watch.lose("d3")
    await watch.pass_time(100)
    watch.cluster.clock.advance(100_000)
    await watch.pass_time(LOOK)
    assert await watch.states() == {}
    found = (await read_departures(watch.process.kv))["d3"].record
    assert found is not None
    assert found.down_seconds <= 100 + 3 * LOOK + LOOK


async def test_a_node_that_was_out_and_lives_again_for_a_while_is_taken_back(watch: Watch) -> None:
    watch.lose("d3")
    await watch.until_out("d3")
    watch.up.add("d3")
    await watch.pass_time(55)
    assert await watch.states() == {"d3": "out"}
    await watch.pass_time(4 * LOOK)
    assert await watch.states() == {}
    layout = await layouts.current(watch.process.kv)
    assert (layout.epoch, layout.record.reason) == (3, "d3 is back")
    # Its past does not count any more: it has its whole time again.
    await watch.pass_time(4 * LOOK)
    watch.lose("d3")
    assert await watch.until_out("d3") >= AFTER


async def test_a_node_that_flaps_while_it_is_out_stays_out(watch: Watch) -> None:
    watch.lose("d3")
    await watch.until_out("d3")
    for _ in range(20):
        watch.up.add("d3")
        await watch.pass_time(50)
        watch.lose("d3")
        await watch.pass_time(LOOK)
    assert await watch.states() == {"d3": "out"}


async def test_with_a_short_time_a_node_returns_after_a_quarter_of_it(watch: Watch) -> None:
    watch.tunables.current = Tunables(rebuild_after_seconds=40)
    watch.lose("d3")
    assert await watch.until_out("d3") <= 40 + 3 * LOOK
    watch.up.add("d3")
    await watch.pass_time(4 * LOOK)
    assert await watch.states() == {}


async def test_a_node_that_an_operator_took_out_is_not_taken_back(watch: Watch) -> None:
    await watch.change([layouts.SetState("d3", "out")])
    await watch.pass_time(AFTER)
    assert await watch.states() == {"d3": "out"}


async def test_a_cordoned_node_returns_as_such_and_a_draining_one_stays_so(watch: Watch) -> None:
    await watch.change([layouts.SetState("d3", "cordoned"), layouts.SetState("d4", "draining")])
    watch.lose("d3", "d4")
    await watch.until_out("d3")
    assert await watch.states() == {"d3": "out", "d4": "draining"}
    watch.up |= {"d3", "d4"}
    await watch.pass_time(120)
    assert await watch.states() == {"d3": "cordoned", "d4": "draining"}


async def test_as_many_as_blobs_survive_may_go_at_once(watch: Watch) -> None:
    watch.lose("d3", "d4")
    took = await watch.until_out("d3")
    assert took <= AFTER + 3 * LOOK
    assert await watch.states() == {"d3": "out", "d4": "out"}


async def test_when_more_go_at_once_nothing_is_taken_out_for_a_while(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    await watch.pass_time(60)
    with caplog.at_level(logging.ERROR):
        watch.lose("d1")
        await watch.pass_time(2 * LOOK)
        watch.lose("d2")
        await watch.pass_time(LOOK)
        assert not watch.worker.held_back
        watch.lose("d3")
        await watch.pass_time(LOOK)
    assert "3 nodes went down together" in watch.worker.held_back
    assert watch.worker.hold_down_until >= watch.cluster.clock.seconds + HOLD - LOOK
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1
    await watch.pass_time(HOLD - 4 * LOOK)
    assert await watch.states() == {}
    await watch.pass_time(6 * LOOK)
    assert set(await watch.states()) == {"d1", "d2", "d3"}
    assert not watch.worker.held_back


async def test_a_hold_down_outlives_its_worker(watch: Watch) -> None:
    watch.lose("d1", "d2", "d3")
    await watch.pass_time(HOLD / 2)
    watch.worker = watch.another()
    await watch.pass_time(HOLD / 2 - 4 * LOOK)
    assert await watch.states() == {}
    assert watch.worker.held_back
    await watch.pass_time(8 * LOOK)
    assert set(await watch.states()) == {"d1", "d2", "d3"}


async def test_nodes_that_go_one_after_another_are_not_held_back(watch: Watch) -> None:
    await watch.pass_time(60)
    for node in ("d1", "d2", "d3"):
        watch.lose(node)
        await watch.pass_time(LEASE + 3 * LOOK)
    await watch.until_out("d3", AFTER + 3 * LOOK)
    assert set(await watch.states()) == {"d1", "d2", "d3"}


async def test_the_drives_of_one_machine_are_one_loss(watch: Watch) -> None:
    layout = await layouts.current(watch.process.kv)
    same = [
        layouts.Add(node.node, node.zone, node.weight, host="h" if node.node < "d3" else "")
        for node in layout.record.nodes
    ]
    nodes = layouts.changed([], same)
    await layouts.apply(
        watch.process.kv,
        watch.process.topology,
        nodes,
        reason="test",
        now_ms=1,
        expected_epoch=1,
    )
    watch.lose("d0", "d1", "d2")
    assert await watch.until_out("d0") <= AFTER + 3 * LOOK


async def test_a_node_that_goes_while_the_engine_is_away_is_held_back(watch: Watch) -> None:
    await watch.pass_time(60)
    watch.away = True
    await watch.pass_time(2 * LOOK)
    watch.lose("d3")
    watch.away = False
    await watch.pass_time(LOOK)
    assert "the metadata engine was away" in watch.worker.held_back
    took = await watch.until_out("d3")
    assert HOLD - 3 * LOOK <= took <= HOLD + 3 * LOOK


async def test_a_node_that_went_shortly_before_the_engine_did_is_held_back(watch: Watch) -> None:
    await watch.pass_time(60)
    watch.lose("d3")
    await watch.pass_time(LOOK)
    assert not watch.worker.held_back
    watch.away = True
    await watch.pass_time(300)
    watch.away = False
    await watch.pass_time(LOOK)
    assert watch.worker.held_back
    assert await watch.until_out("d3") >= HOLD - 3 * LOOK


async def test_a_node_that_went_long_after_the_engine_was_away_is_not_held_back(
    watch: Watch,
) -> None:
    watch.away = True
    await watch.pass_time(60)
    watch.away = False
    await watch.pass_time(60)
    watch.lose("d3")
    assert await watch.until_out("d3") <= AFTER + 3 * LOOK


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_node_that_goes_about_when_the_engine_changes_its_leader_is_held_back(
    watch: Watch, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks before the node is lost; and none is missed."""
    await watch.pass_time(60)
    monkeypatch.setattr(watch.process.kv, "disturbances", 1)
    await watch.pass_time(before * LOOK)
    watch.lose("d3")
    await watch.pass_time(LOOK)
    assert "changed its leader" in watch.worker.held_back
    assert await watch.until_out("d3") >= HOLD - 5 * LOOK


async def test_a_change_of_the_leader_long_before_holds_back_nothing(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.process.kv, "disturbances", 7)
    await watch.pass_time(60)
    monkeypatch.setattr(watch.process.kv, "disturbances", 8)
    await watch.pass_time(60)
    watch.lose("d3")
    assert await watch.until_out("d3") <= AFTER + 3 * LOOK
    watch.lose("d4")
    watch.worker = watch.another()  # it begins with what has been
    assert await watch.until_out("d4") <= AFTER + 3 * LOOK


async def test_a_pause_of_the_worker_counts_as_the_engine_being_away(watch: Watch) -> None:
    await watch.pass_time(60)
    watch.cluster.clock.advance(90)
    watch.lose("d3")
    await watch.pass_time(LOOK)
    assert watch.worker.held_back


async def test_a_layout_never_gets_fewer_nodes_than_blobs_need() -> None:
    watch = await Watch.open(6)
    for node in ("d0", "d1", "d2", "d3", "d4"):
        watch.lose(node)
        await watch.pass_time(LEASE + 3 * LOOK)
    await watch.pass_time(4 * AFTER)
    assert await watch.states() == {"d0": "out", "d1": "out", "d2": "out"}
    assert "add nodes" in watch.worker.held_back


async def test_a_worker_without_its_lock_changes_nothing(watch: Watch) -> None:
    lost = Claim(keys.lock("departures"), 77)
    watch.lose("d3")
    watch.cluster.clock.advance(LOOK)
    with pytest.raises(ClaimLost):
        await watch.worker.work(lost)
    assert await read_departures(watch.process.kv) == {}


async def test_a_layout_that_was_made_meanwhile_is_looked_at_again(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = layouts.apply
    calls = 0

    async def after_another(*arguments: object, **options: object) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            monkeypatch.setattr(layouts, "apply", apply)
            await watch.change([layouts.SetWeight("d0", 9)])
            monkeypatch.setattr(layouts, "apply", after_another)
        return await apply(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(layouts, "apply", after_another)
    watch.lose("d3")
    await watch.until_out("d3")
    layout = await layouts.current(watch.process.kv)
    assert (layout.epoch, calls) == (3, 2)
    node = layout.node("d0")
    assert node is not None
    assert node.weight == 9


async def test_records_of_nodes_that_left_the_layout_go(watch: Watch) -> None:
    watch.lose("d3")
    await watch.pass_time(60)
    await watch.change([layouts.SetState("d3", "draining")])
    layout = await layouts.current(watch.process.kv)
    for profile in watch.process.topology.profiles():
        for number in range(profile.pg_count):
            target = layout.target(profile.name, number)
            assert target is not None
            group = watch.process.topology.group(profile, number)
            record = PgRecord(group.record.revision + 1, tuple(map(Slot, target)))
            await watch.process.kv.commit([], [Put(group.key, encode(record))])
    await watch.change([layouts.Remove("d3")])
    await watch.pass_time(LOOK)
    assert await read_departures(watch.process.kv) == {}


async def test_another_that_counts_at_the_same_time_is_no_trouble_of_the_engine(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conflict(guards: object, writes: object) -> int:
        raise Conflict(None)

    watch.lose("d3")
    with monkeypatch.context() as patch:
        patch.setattr(watch.process.kv, "commit", conflict)
        with pytest.raises(Conflict):
            await watch.worker.work(UNCLAIMED)
    await watch.pass_time(LOOK)
    assert not watch.worker.held_back


async def test_a_store_that_is_being_made_is_left_alone() -> None:
    cluster = MemoryCluster()
    await cluster.found()
    process = await cluster.process()
    del cluster.engine.items[keys.layout(1)]
    cluster.engine.order.remove(keys.layout(1))
    assert not await Watch(cluster, process).worker.work(UNCLAIMED)


async def test_who_lives_is_what_the_engine_says_now(watch: Watch) -> None:
    kv = watch.process.kv
    live = leases_live(kv)
    assert await live() == set()
    lease = await kv.grant_lease(15)
    for node in ("d1", "d2"):
        value = encode(NodeRecord("a", "z", "h", 1, 1, "n", "0", 0))
        await kv.commit([], [Put(keys.node(node), value, lease if node == "d1" else 0)])
    assert await live() == {"d1", "d2"}
    watch.cluster.clock.advance(16)
    assert await live() == {"d2"}
    await kv.commit([], [Put(keys.FAILURES + b"d2", b"")])
    assert await live() == set()


async def test_drives_of_this_machine_live_as_the_directory_says(watch: Watch) -> None:
    directory = watch.process.directory
    node = directory.get("d3")
    assert node is not None
    node.live = False
    assert await drives_live(directory)() == set(watch.cluster.drives) - {"d3"}
