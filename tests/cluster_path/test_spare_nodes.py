"""Shards without a node go to spare nodes: which, how many at once, and for how long."""

from __future__ import annotations

import asyncio
from itertools import combinations

import pytest

from erasure.scheme import Scheme
from nodes.memory import Fault
from nodes.protocol import DriveError, DriveUnreachable
from s3gw.cluster.directory import Node
from s3gw.cluster.targets import Targets, TooFewNodes, choose, substitute
from s3gw.cluster.writer import SPARES_SECONDS_MAX, fill_holes
from tests.stores.blob_path import STRIPE, BlobPath, payload
from tests.stores.virtual_time import run_virtual

REFUSED = Fault(error=DriveUnreachable("refused"))
DATA = payload(3 * STRIPE + 17)
SIX = tuple("abcdef")
ZONES = {node: node for node in "abcdefgh"}
SCHEME = Scheme.parse("4+2")


def node_of(path: BlobPath, name: str) -> Node:
    node = path.process.directory.get(name)
    assert node is not None
    return node


def test_a_blob_lies_on_its_slots_when_all_take_shards_even_those_that_are_emptied() -> None:
    assert choose(SCHEME, SIX, ZONES, leaving=["a"], spares=["g"]) == Targets(SCHEME, SIX, False)


def test_an_explicit_blob_counts_on_no_node_that_is_emptied() -> None:
    usable = {node: zone for node, zone in ZONES.items() if node != "b"}
    chosen = choose(SCHEME, SIX, usable, leaving=["a"])
    assert chosen == Targets(SCHEME, ("g", "h", "c", "d", "e", "f"), explicit=True)


def test_only_spares_take_the_shards_of_other_nodes() -> None:
    usable = {node: zone for node, zone in ZONES.items() if node != "b"}
    chosen = choose(SCHEME, SIX, usable, spares=["h"])
    assert chosen.nodes == ("a", "h", "c", "d", "e", "f")
    narrowed = choose(SCHEME, SIX, usable, spares=[])
    assert (str(narrowed.scheme), narrowed.nodes) == ("3+2", ("a", "c", "d", "e", "f"))


def test_nodes_that_are_emptied_are_not_enough_to_write_on() -> None:
    usable = {node: node for node in "abcd"}
    with pytest.raises(TooFewNodes):
        choose(SCHEME, SIX, usable, leaving=["a", "b"], spares=[])


def test_of_the_spares_one_in_the_emptiest_zone_is_taken() -> None:
    usable = {"a": "x", "b": "x", "c": "y", "s": "x", "t": "y", "u": "z"}
    assert substitute(["a", "b", "c", "", ""], usable, zone_limit=2) == ["a", "b", "c", "u", "t"]
    spares = ["s", "t"]
    assert substitute(["a", "b", "c", ""], usable, zone_limit=2, spares=spares)[3] == "t"


@pytest.mark.parametrize("small", [True, False])
def test_missing_shards_are_brought_to_spare_nodes_all_at_once(small: bool) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(10)
        profile, data = ("4+2.small", b"small") if small else ("4+2", DATA)
        blob, group = path.draw(profile)
        lost = group.nodes[:2]
        path.fail(lost, REFUSED, "write", "commit")
        spares = [name for name in path.cluster.drives if name not in group.nodes]
        path.fail(spares, Fault(delay_seconds=3), "write", "commit")
        clock = path.cluster.clock
        started = clock.monotonic()
        written = await path.write(data, profile=profile, place=(blob, group))
        assert clock.monotonic() - started < 4
        assert not written.missing
        assert set(lost).isdisjoint(written.nodes)
        path.heal()
        assert await path.read(written.ref) == data

    run_virtual(scenario())


@pytest.mark.parametrize("dead", list(combinations(range(3), 2)))
def test_a_spare_node_that_fails_is_replaced_by_another(dead: tuple[int, int]) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(9)
        blob, group = path.draw()
        path.fail(group.nodes[:1], REFUSED, "commit")
        spares = sorted(set(path.cluster.drives) - set(group.nodes))
        path.fail([spares[index] for index in dead], Fault(error=DriveError("EIO")), "append")
        written = await path.write(DATA, place=(blob, group))
        (left,) = set(range(3)) - set(dead)
        assert written.nodes[0] == spares[left]

    run_virtual(scenario())


def test_spare_nodes_that_hang_do_not_hold_the_write_up_beyond_one_deadline() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(12)
        blob, group = path.draw()
        path.fail(group.nodes[:1], REFUSED, "commit")
        spares = set(path.cluster.drives) - set(group.nodes)
        path.fail(spares, Fault(hang=True), "append", "write")
        clock = path.cluster.clock
        started = clock.monotonic()
        written = await path.write(DATA, place=(blob, group))
        assert clock.monotonic() - started < SPARES_SECONDS_MAX + 1
        assert written.missing == (0,)
        path.heal()
        assert await path.read(written.ref) == DATA

    run_virtual(scenario())


def test_what_arrived_before_the_deadline_is_kept() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        nodes = ["", "", "d2", "d3"]

        async def put(index: int, node: Node) -> bool:
            await asyncio.sleep(0 if index == 0 else 1000)
            return True

        await fill_holes(nodes, ("d0",), path.process.directory, 2, put)
        assert nodes == ["d1", "", "d2", "d3"]

    run_virtual(scenario())


def test_an_error_of_one_shard_does_not_lose_another() -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        nodes = ["", "", "d2", "d3"]

        async def put(index: int, node: Node) -> bool:
            if index == 0:
                raise ValueError("broken")
            await asyncio.sleep(1)
            return True

        with pytest.raises(ValueError, match="broken"):
            await fill_holes(nodes, (), path.process.directory, 2, put)
        assert nodes == ["", "d1", "d2", "d3"]

    run_virtual(scenario())


@pytest.mark.parametrize("state", ["cordoned", "draining", "out"])
def test_a_node_that_is_not_active_takes_no_shard_of_others(state: str) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(7)
        blob, group = path.draw()
        (spare,) = set(path.cluster.drives) - set(group.nodes)
        node_of(path, spare).state = state
        path.fail(group.nodes[:1], REFUSED, "commit")
        written = await path.write(DATA, place=(blob, group))
        assert written.missing == (0,)
        assert not path.cluster.drives[spare].shards

    run_virtual(scenario())


@pytest.mark.parametrize(("state", "explicit"), [("cordoned", 0), ("draining", 0), ("out", 1)])
def test_a_node_takes_the_shards_of_its_own_slots_unless_it_is_out(
    state: str, explicit: bool
) -> None:
    async def scenario() -> None:
        path = await BlobPath.open(8)
        blob, group = path.draw()
        node_of(path, group.nodes[0]).state = state
        written = await path.write(DATA, place=(blob, group))
        assert bool(written.ref.nodes) == explicit
        assert (group.nodes[0] in written.nodes) != explicit

    run_virtual(scenario())


def test_shards_are_rebuilt_within_the_zone_rule() -> None:
    """Six nodes in three zones of two; the spare in the zone of the lost node is taken although
    others come first by name."""

    async def scenario() -> None:
        path = await BlobPath.open(10)
        blob, group = path.draw()
        for number, name in enumerate(group.nodes):
            node_of(path, name).zone = f"z{number // 2}"
        spares = sorted(set(path.cluster.drives) - set(group.nodes))
        for name, zone in zip(spares, ("z1", "z1", "z2", "z0"), strict=True):
            node_of(path, name).zone = zone
        path.fail(group.nodes[:1], REFUSED, "commit")
        written = await path.write(DATA, place=(blob, group))
        assert written.nodes[0] == spares[3]

    run_virtual(scenario())
