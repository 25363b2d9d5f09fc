from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor

from hypothesis import given
from hypothesis import strategies as st

from placement.cluster_map import Node, NodeState
from placement.shares import effective_zone_limit, fair_shares, whole_targets

nodes_lists = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=14
).map(lambda rows: [Node(f"n{i}", f"z{zone}", weight) for i, (zone, weight) in enumerate(rows)])


def zone_sums(nodes: list[Node], counts: Mapping[str, Fraction | int]) -> dict[str, Fraction]:
    return {
        zone: sum((Fraction(counts[node.id]) for node in nodes if node.zone == zone), Fraction(0))
        for zone in {node.zone for node in nodes}
    }


@given(nodes_lists, st.integers(1, 64), st.integers(1, 8), st.integers(1, 3))
def test_shares_keep_the_caps_and_lie_at_one_level(
    nodes: list[Node], pg_count: int, width: int, zone_limit: int
) -> None:
    shares = fair_shares(nodes, pg_count=pg_count, width=width, zone_limit=zone_limit)
    limit = effective_zone_limit(nodes, width=width, zone_limit=zone_limit)
    assert sum(shares.values()) == pg_count * min(width, len(nodes))
    assert all(share <= pg_count for share in shares.values())
    sums = zone_sums(nodes, shares)
    assert all(total <= limit * pg_count for total in sums.values())
    # Max-min fairness: whoever is below another per weight is full, or the zone of both is not
    # the same and its zone is full.
    for one in nodes:
        for other in nodes:
            if shares[one.id] / one.weight < shares[other.id] / other.weight:
                full_zone = sums[one.zone] == limit * pg_count and one.zone != other.zone
                assert shares[one.id] == pg_count or full_zone


@given(
    nodes_lists, st.integers(1, 64), st.integers(1, 8), st.lists(st.integers(0, 99), min_size=14)
)
def test_targets_round_nodes_and_zones_and_keep_the_sum(
    nodes: list[Node], pg_count: int, width: int, held: list[int]
) -> None:
    shares = fair_shares(nodes, pg_count=pg_count, width=width, zone_limit=2)
    holding = {node.id: count for node, count in zip(nodes, held, strict=False)}
    targets = whole_targets(nodes, shares, holding)
    assert sum(targets.values()) == sum(shares.values())
    for node, target in targets.items():
        assert floor(shares[node]) <= target <= ceil(shares[node])
    totals = zone_sums(nodes, targets)
    for zone, total in zone_sums(nodes, shares).items():
        assert floor(total) <= totals[zone] <= ceil(total)


def test_rounding_favours_who_holds_the_larger_number() -> None:
    nodes = [Node(f"n{i}", "z", 1) for i in range(4)]
    shares = fair_shares(nodes, pg_count=10, width=1, zone_limit=1)
    assert set(shares.values()) == {Fraction(5, 2)}
    for lucky in (("n0", "n1"), ("n1", "n3"), ("n2", "n3")):
        held = {node.id: 3 if node.id in lucky else 2 for node in nodes}
        assert whole_targets(nodes, shares, held) == held


def test_the_zone_limit_holds_when_zones_allow_it_and_else_grows_least() -> None:
    def limit(*sizes: int, width: int = 6) -> int:
        nodes = [
            Node(f"{zone}.{i}", f"{zone}", 1) for zone, n in enumerate(sizes) for i in range(n)
        ]
        return effective_zone_limit(nodes, width=width, zone_limit=2)

    assert limit(3, 3, 3) == 2
    assert limit(2, 2, 2) == 2
    assert limit(9, 9) == 3
    assert limit(1, 1, 10) == 4
    assert limit(10) == 6
    assert limit(2, 1, 1) == 2  # too few nodes: slots stay empty, the limit does not grow
    assert limit(4) == 4
    assert limit() == 2


def test_states_and_weights_decide_who_has_a_share() -> None:
    nodes = [
        Node("a", "x", 10),
        Node("b", "y", 10),
        Node("c", "z", 10, NodeState.CORDONED),
        Node("d", "z", 10, NodeState.DRAINING),
        Node("e", "z", 0),
    ]
    shares = fair_shares(nodes, pg_count=100, width=1, zone_limit=1, held={"c": 30, "d": 20})
    assert shares == {"a": 35, "b": 35, "c": 30, "e": 0}


def test_capacities_in_bytes_are_divided_exactly() -> None:
    nodes = [Node(f"n{i}", f"z{i}", 10**16 + i) for i in range(7)]
    shares = fair_shares(nodes, pg_count=4096, width=6, zone_limit=1)
    assert sum(shares.values()) == 4096 * 6
    assert len({shares[node.id] / node.weight for node in nodes}) == 1
