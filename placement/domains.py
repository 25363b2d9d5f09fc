"""What a profile spreads its shards over: drives, machines or zones. A pure function.

`placement.layout` puts at most one shard of a group on a node, which is one drive, and keeps the
zone rule. A failure domain asks for more:

    drive    nothing more: two shards of a group may lie on two drives of one machine
    node     one shard of a group per machine ("host") while there are as many as shards
    zone     as node, and as few shards of a group in one zone as the zones allow

**Enough hosts.** The layout is computed over hosts, each with the weight of its drives; then each
host deals its slots to its drives by weight. A slot stays on its drive as long as its host keeps
it and the drive has not more than its share, so little moves. A host has one slot of a group at
most, so any of its drives may take it.

**Fewer hosts than shards.** Some host must have several shards of a group, on different drives. The
layout is computed over drives with hosts in the place of zones and the smallest limit that fits: no
host has more than it must, which stays within the tolerance as long as that is possible. When that
breaks the rule for real zones, which an even spread over hosts can do with zones of unequal size,
the zone rule comes first and hosts are not looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from heapq import heapify, heapreplace

from placement.cluster_map import Node, NodeState
from placement.layout import compute
from placement.moves import Assignment
from placement.shares import effective_zone_limit, whole_targets

DRIVE, NODE, ZONE = "drive", "node", "zone"
FAILURE_DOMAINS = (DRIVE, NODE, ZONE)

Place = tuple[int, int]
"""A slot: number of the group, index in it."""


def place(
    nodes: Sequence[Node],
    *,
    pg_count: int,
    width: int,
    zone_limit: int,
    failure_domain: str,
    previous: Assignment | None = None,
) -> Assignment:
    """The layout as `placement.layout.compute` makes it, under a failure domain. Raises ValueError
    as that does, and for another failure domain.

    >>> drives = [Node(f"{h}{n}", "z", 1, host=h) for h in "ab" for n in (1, 2)]
    >>> rows = place(drives, pg_count=8, width=2, zone_limit=1, failure_domain="node")
    >>> all(first[0] != second[0] for first, second in rows)
    True
    """
    if failure_domain not in FAILURE_DOMAINS:
        raise ValueError(
            f"{failure_domain!r} is no failure domain; there are {', '.join(FAILURE_DOMAINS)}"
        )
    if len({node.id for node in nodes}) != len(nodes):
        raise ValueError("a node id is there twice")
    if failure_domain == ZONE:
        zone_limit = 1  # the layout takes the smallest limit from here on that fits
    hosts = hosts_of(nodes)
    if failure_domain == DRIVE or all(len(drives) == 1 for drives in hosts.values()):
        return compute(
            nodes, pg_count=pg_count, width=width, zone_limit=zone_limit, previous=previous
        )
    usable = [drives for drives in hosts.values() if any(_usable(drive) for drive in drives)]
    if len(usable) >= width:
        return _over_hosts(hosts, pg_count, width, zone_limit, previous)
    return _over_few_hosts(nodes, pg_count, width, zone_limit, previous)


def host_of(node: Node) -> str:
    """A name for what fails together with a node; unlike `Node.host` never empty.

    >>> host_of(Node("a", "z", 1)) == host_of(Node("b", "z", 1))
    False
    """
    return f"{node.zone}\0host\0{node.host}" if node.host else f"{node.zone}\0node\0{node.id}"


def hosts_of(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """The drives of every host, in order of their names."""
    hosts: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.id):
        hosts.setdefault(host_of(node), []).append(node)
    return hosts


def most_per_host(assignment: Assignment, nodes: Iterable[Node]) -> int:
    """The most shards of one group that lie on one host."""
    return _most_per({node.id: host_of(node) for node in nodes}, assignment)


def _most_per(domain_of: Mapping[str, str], assignment: Assignment) -> int:
    return max(
        (
            count
            for row in assignment
            for count in Counter(domain_of[node] for node in row if node is not None).values()
        ),
        default=0,
    )


def _usable(node: Node) -> bool:
    if node.state is NodeState.ACTIVE:
        return node.weight > 0
    return node.state is NodeState.CORDONED


def _over_few_hosts(
    nodes: Sequence[Node],
    pg_count: int,
    width: int,
    zone_limit: int,
    previous: Assignment | None,
) -> Assignment:
    as_zones = [Node(node.id, host_of(node), node.weight, node.state) for node in nodes]
    spread = compute(as_zones, pg_count=pg_count, width=width, zone_limit=1, previous=previous)
    limit = effective_zone_limit(nodes, width=width, zone_limit=zone_limit)
    if _most_per({node.id: node.zone for node in nodes}, spread) <= limit:
        return spread
    return compute(nodes, pg_count=pg_count, width=width, zone_limit=zone_limit, previous=previous)


def _over_hosts(
    hosts: Mapping[str, list[Node]],
    pg_count: int,
    width: int,
    zone_limit: int,
    previous: Assignment | None,
) -> Assignment:
    wholes = [_as_one(name, drives) for name, drives in hosts.items()]
    takes = {whole.id for whole in wholes if whole.state is NodeState.ACTIVE}
    # A slot on a drive that must give it up stays with its host if that has another drive for it.
    stays = {
        drive.id: name
        for name, drives in hosts.items()
        for drive in drives
        if name in takes or drive.state is NodeState.CORDONED
    }
    before = previous and tuple(tuple(stays.get(node or "") for node in row) for row in previous)
    rows = compute(wholes, pg_count=pg_count, width=width, zone_limit=zone_limit, previous=before)
    places: dict[str, list[Place]] = defaultdict(list)
    for number, row in enumerate(rows):
        for slot, name in enumerate(row):
            if name is not None:
                places[name].append((number, slot))
    result: list[list[str | None]] = [[None] * width for _ in rows]
    for name, mine in places.items():
        for (number, slot), drive in _deal(hosts[name], mine, previous).items():
            result[number][slot] = drive
    return tuple(tuple(row) for row in result)


def _as_one(name: str, drives: Sequence[Node]) -> Node:
    """A host as the layout sees it: a node of the weight of all drives that may hold shards."""
    active = [d for d in drives if d.state is NodeState.ACTIVE and d.weight > 0]
    cordoned = [d for d in drives if d.state is NodeState.CORDONED]
    weight = sum(drive.weight for drive in active + cordoned)
    state = NodeState.ACTIVE if active else NodeState.CORDONED if cordoned else NodeState.DRAINING
    return Node(name, drives[0].zone, weight, state)


def _deal(
    drives: Sequence[Node], places: Sequence[Place], previous: Assignment | None
) -> dict[Place, str]:
    """The drive of each of a host's slots: the one before as long as that has no more than its
    share, else the one that has the least of its weight. Cordoned drives keep what they hold."""
    held: dict[str, list[Place]] = {drive.id: [] for drive in drives}
    free: list[Place] = []
    for number, slot in places:
        before = previous[number][slot] if previous is not None else None
        held.get(before or "", free).append((number, slot))
    dealt: dict[Place, str] = {}
    active = [d for d in drives if d.state is NodeState.ACTIVE and d.weight > 0]
    for drive in drives:
        if drive.state is NodeState.CORDONED:
            dealt.update(dict.fromkeys(held[drive.id], drive.id))
        elif drive not in active:
            free += held[drive.id]
    weight, slots = sum(drive.weight for drive in active), len(places) - len(dealt)
    shares = {drive.id: Fraction(slots * drive.weight, weight) for drive in active}
    targets = whole_targets(active, shares, {name: len(mine) for name, mine in held.items()})
    lightest: list[tuple[Fraction, str, int]] = []
    for drive in active:
        keeps = targets[drive.id]
        mine = sorted(held[drive.id], key=_scattered)
        free += mine[keeps:]
        dealt.update(dict.fromkeys(mine[:keeps], drive.id))
        load = len(mine[:keeps])
        lightest.append((Fraction(load + 1, drive.weight), drive.id, drive.weight))
    heapify(lightest)
    for where in sorted(free, key=lambda place: (place[1], place[0])):
        filled, drive_id, its_weight = lightest[0]
        dealt[where] = drive_id
        heapreplace(lightest, (filled + Fraction(1, its_weight), drive_id, its_weight))
    return dealt


def _scattered(where: Place) -> int:
    """An order of slots without a pattern, the same everywhere (Knuth's multiplicative hash)."""
    number, slot = where
    return (number * 2654435761 + slot * 40503) % 2**32
