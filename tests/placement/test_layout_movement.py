"""How much a change moves: against the exact optimum on small clusters, found by an independent
minimum-cost flow, and against the lower bound from loads in a simulation of up to 1,000 nodes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import pytest

from placement.cluster_map import Node
from placement.layout import compute
from placement.moves import Assignment, load_of, minimum_moves, moves_between
from placement.shares import effective_zone_limit, fair_shares


class Flow:
    """Minimum-cost maximum flow by successive shortest paths (Bellman-Ford with a queue)."""

    def __init__(self, vertices: int) -> None:
        self.out: list[list[int]] = [[] for _ in range(vertices)]
        self.to: list[int] = []
        self.room: list[int] = []
        self.cost: list[int] = []

    def edge(self, source: int, target: int, room: int, cost: int = 0) -> None:
        for a, b, r, c in ((source, target, room, cost), (target, source, 0, -cost)):
            self.out[a].append(len(self.to))
            self.to.append(b)
            self.room.append(r)
            self.cost.append(c)

    def path(self, source: int, sink: int) -> list[int] | None:
        far = 1 << 40
        distance = [far] * len(self.out)
        by = [-1] * len(self.out)
        distance[source] = 0
        queue = deque([source])
        queued = {source}
        while queue:
            here = queue.popleft()
            queued.discard(here)
            for edge in self.out[here]:
                there, length = self.to[edge], distance[here] + self.cost[edge]
                if self.room[edge] and length < distance[there]:
                    distance[there], by[there] = length, edge
                    if there not in queued:
                        queued.add(there)
                        queue.append(there)
        if distance[sink] == far:
            return None
        edges = []
        while sink != source:
            edges.append(by[sink])
            sink = self.to[by[sink] ^ 1]
        return edges

    def run(self, source: int, sink: int) -> tuple[int, int]:
        amount = cost = 0
        while (edges := self.path(source, sink)) is not None:
            for edge in edges:
                self.room[edge] -= 1
                self.room[edge ^ 1] += 1
                cost += self.cost[edge]
            amount += 1
        return amount, cost


def optimum(
    nodes: list[Node],
    before: Assignment,
    zone_limit: int,
    allowed: Callable[[str], tuple[int, int]],
) -> int:
    """The fewest new shards of any layout within the zone limit whose loads are `allowed`."""
    zones = sorted({node.zone for node in nodes})
    groups, width = len(before), len(before[0])
    pairs = 1 + groups
    first_node = pairs + groups * len(zones)
    sink = first_node + len(nodes)
    flow = Flow(sink + 1)
    for group, row in enumerate(before):
        flow.edge(0, 1 + group, width)
        for zone in range(len(zones)):
            flow.edge(1 + group, pairs + group * len(zones) + zone, zone_limit)
        for number, node in enumerate(nodes):
            pair = pairs + group * len(zones) + zones.index(node.zone)
            flow.edge(pair, first_node + number, 1, int(node.id not in row))
    must = 1 << 20  # a reward for the least load of a node, above any cost
    least_total = 0
    for number, node in enumerate(nodes):
        least, most = allowed(node.id)
        flow.edge(first_node + number, sink, least, -must)
        flow.edge(first_node + number, sink, most - least)
        least_total += least
    amount, cost = flow.run(0, sink)
    assert amount == groups * width
    return cost + must * least_total


@dataclass
class Change:
    nodes: list[Node]
    before: Assignment
    after: Assignment
    shares: dict[str, Fraction]
    same_limit: bool

    @property
    def moved(self) -> int:
        return len(moves_between(self.before, self.after))


def changes(
    seed: int, *, count: int, zones: int, pg_count: int, width: int, zone_limit: int, steps: int
) -> list[Change]:
    """Joins and leaves of one node at a time; sizes from 1 to 16, zones of random size."""
    rng = random.Random(seed)
    serial = iter(range(10**6))

    def node() -> Node:
        return Node(f"n{next(serial):05}", f"z{rng.randrange(zones)}", rng.randint(1, 16) * 10**12)

    def limit(group: list[Node]) -> int:
        return effective_zone_limit(group, width=width, zone_limit=zone_limit)

    nodes = [node() for _ in range(count)]
    layout = compute(nodes, pg_count=pg_count, width=width, zone_limit=zone_limit)
    found = []
    for _ in range(steps):
        if len(nodes) > width and rng.random() < 0.5:
            gone = rng.randrange(len(nodes))
            changed = [*nodes[:gone], *nodes[gone + 1 :]]
        else:
            changed = [*nodes, node()]
        after = compute(
            changed, pg_count=pg_count, width=width, zone_limit=zone_limit, previous=layout
        )
        shares = fair_shares(changed, pg_count=pg_count, width=width, zone_limit=zone_limit)
        found.append(Change(changed, layout, after, shares, limit(nodes) == limit(changed)))
        nodes, layout = changed, after
    return found


def check(change: Change, width: int, zone_limit: int) -> None:
    """Load, one shard of a group per node, zones."""
    limit = effective_zone_limit(change.nodes, width=width, zone_limit=zone_limit)
    zone = {node.id: node.zone for node in change.nodes}
    for row in change.after:
        assert None not in row
        assert len(set(row)) == width
        zones = [zone[node] for node in row if node is not None]
        assert max(zones.count(one) for one in set(zones)) <= limit
    loads = load_of(change.after)
    for node, share in change.shares.items():
        assert abs(loads[node] - share) <= max(Fraction(1), share / 20)


@pytest.mark.parametrize(
    ("seed", "count", "zones", "width", "zone_limit"),
    [(1, 9, 3, 6, 2), (2, 12, 4, 6, 2), (3, 8, 2, 3, 2), (4, 14, 5, 3, 1), (5, 14, 4, 9, 3)],
)
def test_small_clusters_move_close_to_the_exact_optimum(
    seed: int, count: int, zones: int, width: int, zone_limit: int
) -> None:
    for change in changes(
        seed,
        count=count,
        zones=zones,
        pg_count=32,
        width=width,
        zone_limit=zone_limit,
        steps=5,
    ):
        limit = effective_zone_limit(change.nodes, width=width, zone_limit=zone_limit)
        shares = change.shares
        least = optimum(
            change.nodes,
            change.before,
            limit,
            lambda node, shares=shares: (floor(shares[node]), ceil(shares[node])),  # type: ignore[misc]
        )
        assert change.moved <= max(1.2 * least, least + 1)


@pytest.mark.parametrize(
    ("seed", "count", "zones", "pg_count", "width", "zone_limit", "steps"),
    [
        (11, 20, 5, 256, 6, 2, 12),
        (12, 40, 7, 512, 11, 3, 12),
        (13, 100, 10, 1024, 6, 2, 12),
        (14, 100, 1, 1024, 6, 2, 8),
        (15, 300, 3, 1300, 6, 2, 6),
        (16, 1000, 20, 4096, 6, 2, 6),
        (17, 1000, 1000, 4096, 6, 2, 3),
    ],
)
def test_one_join_or_leave_moves_within_a_fifth_of_the_lower_bound(
    seed: int, count: int, zones: int, pg_count: int, width: int, zone_limit: int, steps: int
) -> None:
    compared = 0
    for change in changes(
        seed,
        count=count,
        zones=zones,
        pg_count=pg_count,
        width=width,
        zone_limit=zone_limit,
        steps=steps,
    ):
        check(change, width, zone_limit)
        if change.same_limit:
            least = minimum_moves(change.before, change.shares)
            assert change.moved <= max(1.2 * least, least + 1)
            compared += 1
    assert compared >= steps / 2


def test_a_thousand_nodes_replaced_over_time_keep_the_rules() -> None:
    """Half of the nodes change at once, in a new zone too; then the zones even out."""
    rng = random.Random(21)
    nodes = [Node(f"a{i:04}", f"z{i % 16}", rng.randint(4, 16)) for i in range(1000)]
    layout = compute(nodes, pg_count=4096, width=6, zone_limit=2)
    changed = nodes[500:] + [Node(f"b{i:04}", f"z{i % 20}", rng.randint(4, 16)) for i in range(500)]
    after = compute(changed, pg_count=4096, width=6, zone_limit=2, previous=layout)
    shares = fair_shares(changed, pg_count=4096, width=6, zone_limit=2)
    change = Change(changed, layout, after, shares, same_limit=True)
    check(change, 6, 2)
    assert change.moved <= 1.2 * minimum_moves(layout, shares)
