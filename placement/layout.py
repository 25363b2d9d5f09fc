"""The layout: which node holds which shard of every placement group. A pure function.

**What is wanted**, in this order:

1. never two shards of a group on one node; at most `zone_limit` in one zone whenever the zones
   allow it; no slot empty that some node could fill within these rules;
2. every node holds its fair share (`placement.shares`) rounded up or down, or, where that saves
   moves, within 2.5 % of it (a node that holds that much already gives nothing up);
3. as few slots as possible differ from the previous layout;
4. every group is spread over the zones as evenly as the shares allow: a zone that holds s slots of
   P groups has floor(s/P) or ceil(s/P) shards of each ("even bounds").

**That 1, 2 and 4 can be had exactly**, with rounding only, is a theorem. Shares divided by P are a
fractional layout that keeps every bound; the bounds (group, zone in group, node) form two nested
families, and flows in such a network have whole-number solutions wherever they have fractional
ones. A layout from scratch is exact. A changed one prefers even bounds for the slots it places, but
pays for them, and for older slots outside them, at most a tenth more moves.

**How.** Start from the previous layout without what breaks the zone limit; deal free slots to
nodes below their target; then repair what is left by augmenting paths (`placement.plan`), at first
without detours, then with wider bounds, then with detours: the table in `_repair`.

Cordoned nodes are outside the theorem, because they keep what they hold and get nothing. Where they
make targets impossible, the last step fills the slots beyond the targets.

**Slots.** A node that stays in a group keeps its slot, for the slot is the shard's index. New nodes
take the slots that each has least, so that data shards, which are read more, are as even as parity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from math import ceil, floor

from placement.cluster_map import Node, NodeState
from placement.moves import Assignment, load_of
from placement.plan import Bounds, Plan
from placement.shares import effective_zone_limit, fair_shares, whole_targets

# How far ahead the dealer looks for a node that fits a group; what it leaves is repaired by paths.
LOOK_AHEAD_MAX = 512
# How far from its share a node may stay when coming closer would take extra moves.
SLACK = Fraction(1, 40)
# Moves that only spread groups better, as a part of the moves that had to be.
SPREAD_PART = Fraction(1, 10)


@dataclass(frozen=True, slots=True)
class _Wants:
    """By node: the load to reach, and the least and the most that will do. By zone: the bounds
    that spread a group evenly, and those that the zone limit sets."""

    target: list[int]
    least: list[int]
    most: list[int]
    even: Bounds
    loose: Bounds


def compute(
    nodes: Sequence[Node],
    *,
    pg_count: int,
    width: int,
    zone_limit: int,
    previous: Assignment | None = None,
) -> Assignment:
    """The layout of `pg_count` groups of `width` slots over the nodes, as close to `previous` as
    the rules allow. A slot is None only when no node could take it.

    The same arguments give the same layout on every machine, whatever the order of `nodes`.
    Raises ValueError when `previous` has other groups or slots, a node id is there twice, or a
    number is not positive.
    """
    if pg_count < 1 or width < 1 or zone_limit < 0:
        raise ValueError("groups and width are at least 1, the zone limit at least 0")
    nodes = sorted(nodes, key=lambda node: node.id)
    if len({node.id for node in nodes}) != len(nodes):
        raise ValueError("a node id is there twice")
    before = previous if previous is not None else ((None,) * width,) * pg_count
    if len(before) != pg_count or any(len(row) != width for row in before):
        raise ValueError("the previous layout has other groups or slots")
    limit = effective_zone_limit(nodes, width=width, zone_limit=zone_limit)
    kept = {node.id for node in nodes if node.state is not NodeState.DRAINING}
    before = tuple(_without(row, kept) for row in before)
    held = load_of(before)
    shares = fair_shares(nodes, pg_count=pg_count, width=width, zone_limit=zone_limit, held=held)
    plan = Plan([node for node in nodes if node.id in kept], before, width)
    wants = _wants(plan, shares, whole_targets(nodes, shares, held), limit)
    plan.enter(wants.even, wants.target)
    _evict(plan, wants)
    _deal(plan)
    _repair(plan, wants)
    _spread(plan, wants)
    _fill_beyond_targets(plan, limit)
    return _slots(plan, before)


def _without(row: Sequence[str | None], keeps: set[str]) -> tuple[str | None, ...]:
    """The row with only nodes that may stay, each once."""
    seen: set[str] = set()
    kept: list[str | None] = []
    for node in row:
        stays = node is not None and node in keeps and node not in seen
        kept.append(node if stays else None)
        if node is not None:
            seen.add(node)
    return tuple(kept)


def _wants(
    plan: Plan, shares: Mapping[str, Fraction], targets: Mapping[str, int], limit: int
) -> _Wants:
    target = [targets[node_id] for node_id in plan.ids]
    exact = [shares[node_id] for node_id in plan.ids]
    totals = [0] * len(plan.takers)
    for node, count in enumerate(target):
        totals[plan.zone[node]] += count
    return _Wants(
        target,
        [min(floor(share), ceil(share * (1 - SLACK))) for share in exact],
        [max(ceil(share), floor(share * (1 + SLACK))) for share in exact],
        even=([t // plan.pg_count for t in totals], [-(-t // plan.pg_count) for t in totals]),
        loose=([0] * len(totals), [limit] * len(totals)),
    )


def _evict(plan: Plan, wants: _Wants) -> None:
    """Take out what breaks the zone limit."""
    _, high = wants.loose
    for row in range(plan.pg_count):
        for zone, shards in list(plan.count[row].items()):
            for _ in range(shards - high[zone]):
                plan.remove(row, _dispensable(plan, wants, row, zone))


def _dispensable(plan: Plan, wants: _Wants, row: int, zone: int) -> int:
    """The row's node in that zone which is furthest above its target."""
    members = sorted(node for node in plan.rows[row] if plan.zone[node] == zone)
    return max(members, key=lambda node: (plan.load(node) - wants.target[node], plan.takes[node]))


def _deal(plan: Plan) -> None:
    """Give free slots to nodes that want more. Each shard that a node lacks is a ticket. A node's
    tickets lie at random places in equal parts of the deck, so that loads grow in step and any two
    nodes share about as many groups as any others (a lost node is then rebuilt by all)."""
    deck = _deck(plan)
    following = [*range(1, len(deck)), -1]  # a linked list: tickets are taken from its middle
    first = 0 if deck else -1
    lower = [(zone, low) for zone, low in enumerate(plan.low) if low]
    for row in range(plan.pg_count):
        count, holes = plan.count[row], plan.holes(row)
        # Shards that must still go to zones below their lower bound.
        lacks = sum(max(0, low - count.get(zone, 0)) for zone, low in lower) if holes else 0
        behind, ticket, looked = -1, first, 0
        while ticket >= 0 and holes and looked < LOOK_AHEAD_MAX:
            node = deck[ticket]
            zone = plan.zone[node]
            shards = count.get(zone, 0)
            high = plan.low[zone] if lacks >= holes else plan.high[zone]
            if shards < high and node not in plan.rows[row]:
                lacks -= shards < plan.low[zone]
                holes -= 1
                plan.add(row, node)
                if behind < 0:
                    first = following[ticket]
                else:
                    following[behind] = following[ticket]
            else:
                behind = ticket
                looked += 1
            ticket = following[ticket]


def _deck(plan: Plan) -> list[int]:
    tickets: list[tuple[float, int]] = []
    for zone in plan.wanting:
        for node in zone:
            lacking = plan.takes_below[node] - plan.load(node)
            seed = int.from_bytes(blake2b(plan.ids[node].encode(), digest_size=8).digest())
            for part in range(lacking):
                # Knuth's MMIX generator: pseudorandom, the same everywhere.
                seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
                tickets.append(((part + seed / 2**64) / lacking, node))
    return [node for _, node in sorted(tickets)]


def _repair(plan: Plan, wants: _Wants) -> None:
    """Fill holes, lower bounds of zones first, and relieve nodes that have too much; the cheap and
    even ways first."""
    target, least, most = wants.target, wants.least, wants.most
    for bounds, takes_below, gives_above, detours in (
        (wants.even, target, most, False),
        (wants.loose, target, most, False),
        (wants.loose, most, most, False),
        (wants.loose, target, most, True),
        (wants.even, least, target, False),
        (wants.loose, least, target, True),
    ):
        plan.enter(bounds, takes_below, detours=detours)
        for row in range(plan.pg_count):
            if plan.holes(row):
                for zone, low in enumerate(plan.low):
                    while plan.holes(row) and plan.in_zone(row, zone) < low:
                        if not plan.fill(row, zone):
                            break
                while plan.holes(row) and plan.fill(row):
                    pass
        for node, enough in enumerate(gives_above):
            while plan.load(node) > enough and plan.relieve(node):
                pass


def _spread(plan: Plan, wants: _Wants) -> None:
    """Bring groups within the even bounds by exchanges that leave every load as it is, as far as
    the moves made so far allow more."""
    fresh_max = plan.fresh + int(plan.fresh * SPREAD_PART)
    loads = [plan.load(node) for node in range(len(plan.ids))]
    for row in range(plan.pg_count):
        for zone, high in enumerate(wants.even[1]):
            # An exchange of two shards is the least that it takes.
            if plan.in_zone(row, zone) > high and plan.fresh + 2 <= fresh_max:
                node = _dispensable(plan, wants, row, zone)
                plan.remove(row, node)
                plan.enter(wants.even, loads, detours=True)  # only this node wants more
                if not plan.fill(row):
                    plan.add(row, node)


def _fill_beyond_targets(plan: Plan, limit: int) -> None:
    """Fill the holes that targets leave because of cordoned nodes, within the zone limit, then
    beyond it (for such a group the zones do not allow it)."""
    takers = [node for members in plan.takers for node in members]
    for bound in range(limit, plan.width + 1):
        open_rows = [
            row
            for row in range(plan.pg_count)
            if plan.holes(row) and any(node not in plan.rows[row] for node in takers)
        ]
        if not open_rows:
            return
        zones = len(plan.takers)
        plan.enter(([0] * zones, [bound] * zones), [plan.pg_count] * len(plan.ids), detours=True)
        for row in open_rows:
            while plan.holes(row) and plan.fill(row):
                pass


def _slots(plan: Plan, before: Assignment) -> Assignment:
    """Give each group's nodes their slots."""
    has = [[0] * plan.width for _ in plan.ids]  # how often each node has each slot
    rows: list[list[int | None]] = []
    for members, old in zip(plan.rows, before, strict=True):
        row: list[int | None] = [None] * plan.width
        for slot, node_id in enumerate(old):
            if node_id is not None and (node := plan.number[node_id]) in members:
                has[node][slot] += 1
                row[slot] = node
        rows.append(row)
    for pg, (row, members) in enumerate(zip(rows, plan.rows, strict=True)):
        new = sorted(members.difference(row))
        for turn in range(plan.width):
            slot = (pg + turn) % plan.width  # no slot always chooses last
            if row[slot] is None and new:
                # How much more often than its other slots a node has this one.
                node = min(new, key=lambda node: has[node][slot] * plan.width - sum(has[node]))
                new.remove(node)
                row[slot] = node
                has[node][slot] += 1
    return tuple(tuple(None if node is None else plan.ids[node] for node in row) for row in rows)
