from __future__ import annotations

import doctest
import random
from collections import Counter
from types import ModuleType

import pytest

import placement.cluster_map
import placement.groups
import placement.moves
import placement.shares
from placement.cluster_map import ClusterMap, Node
from placement.groups import PG_COUNT_DEFAULT, minimum_pg_count, pg_of
from placement.moves import Assignment, Move, load_of, moves_between


@pytest.mark.parametrize(
    "module",
    [placement.cluster_map, placement.groups, placement.moves, placement.shares],
    ids=lambda module: module.__name__,
)
def test_worked_examples_hold(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_random_blob_ids_fill_the_groups_evenly() -> None:
    rng = random.Random(1)
    counts = Counter(pg_of(rng.randbytes(16), PG_COUNT_DEFAULT) for _ in range(256_000))
    assert set(counts) == set(range(PG_COUNT_DEFAULT))
    # 1,000 expected in each; the deviation of a fair hash is about 32.
    assert max(abs(count - 1000) for count in counts.values()) < 5 * 32


def test_the_group_of_a_blob_never_changes() -> None:
    blob = bytes(range(16))
    assert pg_of(blob, 256) == 7
    assert pg_of(blob, 4096) == 0x607
    assert pg_of(blob, 1000) == 0x0001020304050607 % 1000


def test_the_minimum_of_groups_gives_each_node_25_slots() -> None:
    for nodes in (1, 6, 9, 40, 1000):
        for width in (3, 6, 11):
            count = minimum_pg_count(nodes, width)
            assert count * width / nodes >= 25
            assert (count - 1) * width / nodes < 25


def test_a_cluster_map_finds_nodes_and_sorts_zones() -> None:
    nodes = (Node("c", "y", 1), Node("a", "y", 2), Node("b", "x", 3))
    cluster = ClusterMap(7, nodes)
    assert cluster.get("a") is nodes[1]
    assert cluster.get("d") is None
    assert cluster.zones() == {"x": (nodes[2],), "y": (nodes[1], nodes[0])}
    with pytest.raises(ValueError, match="twice"):
        ClusterMap(7, (*nodes, Node("a", "z", 1)))


def test_a_node_without_id_or_with_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        Node("", "z", 1)
    with pytest.raises(ValueError, match="weight"):
        Node("a", "z", -1)


def test_moves_lead_from_one_layout_to_the_other() -> None:
    rng = random.Random(2)
    before, after = (
        tuple(tuple(rng.choice(["a", "b", "c", None]) for _ in range(4)) for _ in range(50))
        for _ in range(2)
    )
    moves = moves_between(before, after)
    rows = [list(row) for row in before]
    for move in moves:
        assert rows[move.pg][move.slot] == move.source
        assert move.source != move.target
        rows[move.pg][move.slot] = move.target
    assert tuple(tuple(row) for row in rows) == after
    assert moves_between(after, after) == []


def test_exchanging_slots_moves_both_shards() -> None:
    assert moves_between((("a", "b"),), (("b", "a"),)) == [
        Move(0, 0, "a", "b"),
        Move(0, 1, "b", "a"),
    ]


def test_layouts_of_different_shape_have_no_moves_but_an_error() -> None:
    one: Assignment = (("a", "b"),)
    with pytest.raises(ValueError, match="zip"):
        moves_between(one, (("a", "b"), ("a", "b")))
    with pytest.raises(ValueError, match="zip"):
        moves_between(one, (("a",),))


def test_load_counts_slots_and_not_holes() -> None:
    assert load_of((("a", "b"), ("a", None))) == {"a": 2, "b": 1}
