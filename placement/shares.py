"""How many shards each node should hold: the fair share, and whole numbers near it.

**Fair share.** pg_count * width slots are shared in proportion to weight, except that a node can
hold no more than one shard of a group (pg_count slots) and a zone no more than `limit` of a group
(limit * pg_count slots). What a full node or zone cannot take, the others share by weight: all
shares lie at one water level, below it only where a limit binds. This is the weighted max-min fair
division. Arithmetic is exact, so every process computes the same layout.

**Zone limit.** At most `zone_limit` (the scheme's tolerance) shards of a group lie in one zone, so
that losing a zone loses no data, whenever the zones allow it: with too few zones to place the full
width so, the limit is the smallest one with which they can. Losing a few more shards together is
better than leaving slots empty.

**Whole numbers.** Every node gets its share rounded up or down, and so does every zone as a whole.
Who is rounded up is free; nodes that already hold the larger number come first, so that
rounding by itself moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor

from placement.cluster_map import Node, NodeState


def effective_zone_limit(nodes: Sequence[Node], *, width: int, zone_limit: int) -> int:
    """The most shards of a group that one zone gets: `zone_limit`, or the smallest larger number
    with which the zones can take the width (or, when there are too few nodes, all nodes).

    >>> three = [Node(f"{zone}{i}", zone, 1) for zone in "abc" for i in range(3)]
    >>> effective_zone_limit(three, width=6, zone_limit=2)
    2
    >>> effective_zone_limit(three[:6], width=6, zone_limit=2)
    3
    """
    sizes: dict[str, int] = {}
    for node in nodes:
        if _usable(node):
            sizes[node.zone] = sizes.get(node.zone, 0) + 1
    fits = min(width, sum(sizes.values()))
    limit = max(1, zone_limit)
    while sum(min(limit, size) for size in sizes.values()) < fits:
        limit += 1
    return limit


def fair_shares(
    nodes: Sequence[Node],
    *,
    pg_count: int,
    width: int,
    zone_limit: int,
    held: Mapping[str, int] | None = None,
) -> dict[str, Fraction]:
    """The fair share of every node, in slots, by node id. Draining nodes have none and are left
    out; a cordoned node's share is what it holds (`held`, slots by node id).

    >>> nodes = [Node("a", "x", 1), Node("b", "y", 2), Node("c", "z", 9)]
    >>> shares = fair_shares(nodes, pg_count=12, width=2, zone_limit=1)
    >>> {node: int(share) for node, share in shares.items()}
    {'a': 4, 'b': 8, 'c': 12}
    """
    limit = effective_zone_limit(nodes, width=width, zone_limit=zone_limit)
    shares: dict[str, Fraction] = {}
    zones: dict[str, list[Node]] = {}
    room: dict[str, int] = {}
    rest = pg_count * width
    for node in sorted(nodes, key=lambda node: node.id):
        room.setdefault(node.zone, limit * pg_count)
        if node.state is NodeState.ACTIVE:
            zones.setdefault(node.zone, []).append(node)
        elif node.state is NodeState.CORDONED:
            count = (held or {}).get(node.id, 0)
            shares[node.id] = Fraction(count)
            room[node.zone] = max(0, room[node.zone] - count)
            rest -= count
    while zones:
        level = _fill([node for zone in zones.values() for node in zone], pg_count, Fraction(rest))
        full = [
            zone
            for zone, members in zones.items()
            if sum(level[node.id] for node in members) > room[zone]
        ]
        # Taking full zones out raises the level for the others, so a full zone stays full.
        for zone in full:
            inner = _fill(zones.pop(zone), pg_count, Fraction(room[zone]))
            shares.update(inner)
            rest -= int(sum(inner.values()))
        if not full:
            shares.update(level)
            break
    return dict(sorted(shares.items()))


def whole_targets(
    nodes: Sequence[Node], shares: Mapping[str, Fraction], held: Mapping[str, int]
) -> dict[str, int]:
    """Every share rounded up or down to whole slots, with the sum of all unchanged."""
    zones: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda node: node.id):
        if node.id in shares:
            zones.setdefault(node.zone, []).append(node.id)
    totals = _apportion(
        [sum((shares[node] for node in zone), Fraction(0)) for zone in zones.values()],
        [sum(held.get(node, 0) for node in zone) for zone in zones.values()],
        round(sum(shares.values())),
    )
    targets: dict[str, int] = {}
    for zone, total in zip(zones.values(), totals, strict=True):
        counts = _apportion(
            [shares[node] for node in zone], [held.get(node, 0) for node in zone], total
        )
        targets.update(zip(zone, counts, strict=True))
    return targets


def _usable(node: Node) -> bool:
    if node.state is NodeState.ACTIVE:
        return node.weight > 0
    return node.state is NodeState.CORDONED


def _fill(nodes: Sequence[Node], cap: int, total: Fraction) -> dict[str, Fraction]:
    """`total` shared by weight with at most `cap` each; less than `total` when all are full."""
    shares: dict[str, Fraction] = {}
    weight = sum(node.weight for node in nodes)
    for node in sorted(nodes, key=lambda node: -node.weight):
        share = node.weight * total / weight if weight else Fraction(0)
        if share >= cap:
            shares[node.id] = Fraction(cap)
            total -= cap
            weight -= node.weight
        else:
            # The heaviest of the rest is not full, so none of the rest is.
            shares[node.id] = share
            total -= share
            weight -= node.weight
    return shares


def _apportion(values: Sequence[Fraction], held: Sequence[int], total: int) -> list[int]:
    counts = [floor(value) for value in values]
    order = sorted(
        (index for index, value in enumerate(values) if value.denominator > 1),
        key=lambda index: (held[index] < ceil(values[index]), counts[index] - values[index]),
    )
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return counts
