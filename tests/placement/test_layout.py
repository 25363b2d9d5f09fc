from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cluster_map import Node, NodeState
from placement.layout import compute
from placement.moves import Assignment, load_of, moves_between
from placement.shares import effective_zone_limit, fair_shares

PG_COUNT = 64

nodes_lists = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 16)), min_size=1, max_size=16
).map(lambda rows: [Node(f"n{i:02}", f"z{zone}", weight) for i, (zone, weight) in enumerate(rows)])
shapes = st.sampled_from([(6, 2), (3, 2), (3, 1), (11, 3)])


def equal(count: int, zones: int) -> list[Node]:
    return [Node(f"n{i:02}", f"z{i % zones}", 100) for i in range(count)]


def zone_counts(nodes: list[Node], row: tuple[str | None, ...]) -> Counter[str]:
    zone = {node.id: node.zone for node in nodes}
    return Counter(zone[node] for node in row if node is not None)


def check_rules(nodes: list[Node], layout: Assignment, width: int, zone_limit: int) -> None:
    """Everything that holds for clusters of active nodes, whatever came before."""
    limit = effective_zone_limit(nodes, width=width, zone_limit=zone_limit)
    for row in layout:
        placed = [node for node in row if node is not None]
        assert len(placed) == min(width, len(nodes))
        assert len(set(placed)) == len(placed)
        assert max(zone_counts(nodes, row).values(), default=0) <= limit
    shares = fair_shares(nodes, pg_count=len(layout), width=width, zone_limit=zone_limit)
    loads = load_of(layout)
    assert set(loads) <= set(shares)
    for node, share in shares.items():
        off = abs(loads[node] - share)
        assert off < 1 or off <= share / 40, (node, loads[node], share)


@settings(max_examples=60, deadline=None)
@given(nodes_lists, shapes)
def test_a_first_layout_is_exactly_balanced_and_evenly_spread(
    nodes: list[Node], shape: tuple[int, int]
) -> None:
    width, zone_limit = shape
    layout = compute(nodes, pg_count=PG_COUNT, width=width, zone_limit=zone_limit)
    check_rules(nodes, layout, width, zone_limit)
    shares = fair_shares(nodes, pg_count=PG_COUNT, width=width, zone_limit=zone_limit)
    loads = load_of(layout)
    assert all(abs(loads[node] - share) < 1 for node, share in shares.items())
    totals: Counter[str] = Counter()
    for node in nodes:
        totals[node.zone] += loads[node.id]
    for row in layout:
        counts = zone_counts(nodes, row)
        for zone, total in totals.items():
            assert total // PG_COUNT <= counts[zone] <= -(-total // PG_COUNT)


@settings(max_examples=60, deadline=None)
@given(nodes_lists, shapes, st.data())
def test_rules_hold_through_joins_leaves_and_resizes(
    nodes: list[Node], shape: tuple[int, int], data: st.DataObject
) -> None:
    width, zone_limit = shape
    layout = None
    for step in range(4):
        layout = compute(
            nodes, pg_count=PG_COUNT, width=width, zone_limit=zone_limit, previous=layout
        )
        check_rules(nodes, layout, width, zone_limit)
        change = data.draw(st.sampled_from(["join", "leave", "resize"]))
        at = data.draw(st.integers(0, len(nodes) - 1))
        weight = data.draw(st.integers(1, 16))
        if change == "join":
            nodes = [*nodes, Node(f"new{step}", f"z{data.draw(st.integers(0, 5))}", weight)]
        elif change == "leave" and len(nodes) > 1:
            nodes = [*nodes[:at], *nodes[at + 1 :]]
        else:
            nodes = [*nodes[:at], replace(nodes[at], weight=weight), *nodes[at + 1 :]]


@settings(max_examples=40, deadline=None)
@given(nodes_lists, shapes, st.randoms(use_true_random=False))
def test_an_unchanged_cluster_moves_nothing_in_whatever_order_it_is_listed(
    nodes: list[Node], shape: tuple[int, int], rng: random.Random
) -> None:
    width, zone_limit = shape
    layout = compute(nodes, pg_count=PG_COUNT, width=width, zone_limit=zone_limit)
    shuffled = list(nodes)
    rng.shuffle(shuffled)
    for previous in (None, layout):
        again = compute(
            shuffled, pg_count=PG_COUNT, width=width, zone_limit=zone_limit, previous=previous
        )
        assert again == layout


@settings(max_examples=40, deadline=None)
@given(nodes_lists, shapes, st.data())
def test_drained_nodes_lose_all_and_cordoned_ones_get_nothing(
    nodes: list[Node], shape: tuple[int, int], data: st.DataObject
) -> None:
    width, zone_limit = shape
    before = compute(nodes, pg_count=PG_COUNT, width=width, zone_limit=zone_limit)
    states = data.draw(st.lists(st.sampled_from(NodeState), min_size=16, max_size=16))
    changed = [replace(node, state=state) for node, state in zip(nodes, states, strict=False)]
    after = compute(changed, pg_count=PG_COUNT, width=width, zone_limit=zone_limit, previous=before)
    state = {node.id: node.state for node in changed}
    active = {node for node, one in state.items() if one is NodeState.ACTIVE}
    for old, new in zip(before, after, strict=True):
        placed = [node for node in new if node is not None]
        assert len(set(placed)) == len(placed)
        assert not any(state[node] is NodeState.DRAINING for node in placed)
        for slot, node in enumerate(new):
            if node is not None and state[node] is NodeState.CORDONED:
                assert old[slot] == node
        # A hole is left only when there is nobody to fill it.
        assert None not in new or active <= set(placed)
    # Within the same zone limit a cordoned node also keeps everything.
    limits = [
        effective_zone_limit(group, width=width, zone_limit=zone_limit)
        for group in (nodes, changed)
    ]
    if limits[0] <= limits[1]:
        kept = load_of(after)
        for node, count in load_of(before).items():
            assert state[node] is not NodeState.CORDONED or kept[node] == count


def test_a_cluster_grown_one_node_at_a_time_stays_full_and_balanced() -> None:
    nodes: list[Node] = []
    layout = None
    rng = random.Random(5)
    for i in range(30):
        nodes.append(Node(f"n{i}", f"z{i % 4}", rng.randint(1, 12)))
        layout = compute(nodes, pg_count=256, width=6, zone_limit=2, previous=layout)
        check_rules(nodes, layout, 6, 2)


def test_a_node_that_stays_keeps_its_slots() -> None:
    nodes = equal(12, 4)
    before = compute(nodes, pg_count=256, width=6, zone_limit=2)
    after = compute(nodes[1:], pg_count=256, width=6, zone_limit=2, previous=before)
    for old, new in zip(before, after, strict=True):
        for node in set(old) & set(new):
            assert old.index(node) == new.index(node)


def test_too_few_nodes_leave_slots_empty_until_one_joins() -> None:
    nodes = equal(6, 3)
    before = compute(nodes[:5], pg_count=256, width=6, zone_limit=2)
    assert all(row.count(None) == 1 for row in before)
    after = compute(nodes, pg_count=256, width=6, zone_limit=2, previous=before)
    moves = moves_between(before, after)
    assert {(move.source, move.target) for move in moves} == {(None, "n05")}
    assert len(moves) == 256


def test_no_nodes_give_an_empty_layout() -> None:
    assert compute([], pg_count=2, width=3, zone_limit=2) == ((None,) * 3,) * 2
    off = [Node("a", "z", 0), Node("b", "z", 5, NodeState.DRAINING)]
    assert compute(off, pg_count=2, width=3, zone_limit=2) == ((None,) * 3,) * 2


def test_every_slot_is_spread_evenly_over_the_nodes() -> None:
    layout = compute(equal(30, 5), pg_count=1024, width=6, zone_limit=2)
    for slot in range(6):
        counts = Counter(row[slot] for row in layout)
        assert len(counts) == 30
        # 1024 / 30 = 34 expected.
        assert max(counts.values()) - min(counts.values()) <= 4


def test_the_groups_of_a_lost_node_are_shared_with_nearly_all_others() -> None:
    nodes = equal(40, 10)
    layout = compute(nodes, pg_count=1024, width=6, zone_limit=2)
    shared: Counter[tuple[str, str]] = Counter()
    for row in layout:
        members = [node for node in row if node is not None]
        shared.update((a, b) for a in members for b in members if a < b)
    zone = {node.id: node.zone for node in nodes}
    pairs = [(a.id, b.id) for a in nodes for b in nodes if a.id < b.id and a.zone != b.zone]
    counts = [shared[pair] for pair in pairs]
    mean = sum(counts) / len(counts)
    assert min(counts) > 0
    assert max(counts) < 2.5 * mean
    assert all(zone[a] != zone[b] for a, b in shared)  # ten zones, six shards


def test_a_layout_of_others_is_brought_within_the_rules() -> None:
    nodes = equal(9, 3)
    rng = random.Random(3)
    names: list[str | None] = [*(node.id for node in nodes), "gone", None]
    wild = tuple(tuple(rng.choice(names) for _ in range(6)) for _ in range(256))
    layout = compute(nodes, pg_count=256, width=6, zone_limit=2, previous=wild)
    check_rules(nodes, layout, 6, 2)


def test_arguments_that_make_no_sense_are_refused() -> None:
    nodes = equal(3, 3)
    with pytest.raises(ValueError, match="twice"):
        compute([*nodes, nodes[0]], pg_count=4, width=2, zone_limit=1)
    for previous in ((("n00", "n01"),), (("n00",),) * 4):
        with pytest.raises(ValueError, match="previous"):
            compute(nodes, pg_count=4, width=2, zone_limit=1, previous=previous)
    for pg_count, width, zone_limit in ((0, 2, 1), (4, 0, 1), (4, 2, -1)):
        with pytest.raises(ValueError, match="at least"):
            compute(nodes, pg_count=pg_count, width=width, zone_limit=zone_limit)


_DIGEST = """
import hashlib
from placement.cluster_map import Node
from placement.layout import compute
nodes = [Node(f"n{i}", f"z{i % 7}", 3 + i % 11) for i in range(60)]
first = compute(nodes, pg_count=256, width=6, zone_limit=2)
second = compute(nodes[5:], pg_count=256, width=6, zone_limit=2, previous=first)
print(hashlib.sha256(repr((first, second)).encode()).hexdigest())
"""


def test_every_process_computes_the_same_layout() -> None:
    """Python salts the hashes of strings per process; nothing may depend on them."""
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("0", "1", "4711")
    }
    assert len(digests) == 1
    assert len(digests.pop()) == hashlib.sha256().digest_size * 2
