"""What a change of the layout means before it is made: who moves where, how much, how safe it is,
and what speaks against it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from placement.cluster_map import Node, NodeState
from placement.domains import place
from placement.moves import Assignment
from s3gw import limits
from s3gw.cluster.epochs import (
    ACTIVE,
    KEEPS_SHARDS,
    OUT,
    SLOT_BYTES,
    Layout,
    check_nodes,
    current,
    eligible,
    registered,
)
from s3gw.cluster.topology import Group, Profile, Topology
from s3gw.kv.interface import KV
from s3gw.metadata import keys
from s3gw.metadata.records import Count, LayoutNode, Reference, Repair, decode

# A computation takes about 10 µs per slot; a longer one must not hold up the event loop.
SLOTS_ON_LOOP_MAX = 4096
QUEUE_CHECKED_MAX = 1000
REFERENCES_PER_READ = 1000


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What a layout means for one profile.

    `moves` counts slots that change, `bytes` estimates what is copied for them. `zone_rule` says
    that no zone has more shards of a group than the scheme tolerates. The tolerances are how many
    more losses every blob survives: now and while the moves go on, and after them.
    """

    profile: str
    assignment: Assignment
    moves: int
    bytes: int
    zone_rule: bool
    empty_slots: int
    tolerance_during: int
    tolerance_after: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A layout on top of `epoch` as `apply` would make it. `refusals` are the reasons for which
    `apply` would refuse it unless forced."""

    epoch: int
    nodes: tuple[LayoutNode, ...]
    profiles: tuple[ProfilePlan, ...]
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]

    @property
    def moves(self) -> int:
        return sum(profile.moves for profile in self.profiles)

    @property
    def bytes(self) -> int:
        return sum(profile.bytes for profile in self.profiles)

    @property
    def tolerance_during(self) -> int:
        return min((profile.tolerance_during for profile in self.profiles), default=0)

    @property
    def tolerance_after(self) -> int:
        return min((profile.tolerance_after for profile in self.profiles), default=0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a plan is made from; the groups by profile. All but the layout was read at `revision` or
    later."""

    layout: Layout
    profiles: dict[str, Profile]
    groups: dict[str, list[Group]]
    revision: int


async def plan(
    kv: KV,
    topology: Topology,
    draft_nodes: Sequence[LayoutNode],
    *,
    live: Collection[str] | None = None,
) -> Plan:
    """What it would mean to apply these nodes. `live` are the nodes that answer; None: those that
    are registered (all of the layout, on a machine of its own). Raises LayoutRefused, EngineError.
    """
    check_nodes(draft_nodes)
    reading = await read(kv, topology)
    if live is None:
        live = await registered(kv) or {node.node for node in draft_nodes}
    targets = await assignments(reading, draft_nodes)
    sizes = await _group_bytes(kv, reading.profiles)
    profiles = tuple(
        _profile_plan(
            profile,
            reading.groups[profile.name],
            targets[profile.name],
            {node.node: node.zone for node in draft_nodes},
            live,
            sizes,
        )
        for profile in reading.profiles.values()
    )
    return Plan(
        reading.layout.epoch,
        tuple(draft_nodes),
        profiles,
        tuple(_warnings(profiles, reading.profiles, draft_nodes, live)),
        tuple(await refusals(kv, reading, draft_nodes)),
    )


async def read(kv: KV, topology: Topology) -> Reading:
    """Read the layout, all profiles and all groups. Raises NoLayout, EngineError."""
    layout = await current(kv)
    revision = (await kv.get_many([keys.layout(layout.epoch)])).revision
    await topology.load()
    profiles: dict[str, Profile] = {}
    groups: dict[str, list[Group]] = {}
    for profile in topology.profiles():
        try:
            rows = [topology.group(profile, number) for number in range(profile.pg_count)]
        except KeyError:
            continue  # it is being made, on the present layout, and not in use yet
        profiles[profile.name], groups[profile.name] = profile, rows
    return Reading(layout, profiles, groups, revision)


async def assignments(reading: Reading, nodes: Sequence[LayoutNode]) -> dict[str, Assignment]:
    """The targets of all profiles, as close to the present slots as may be."""
    result = {}
    for name, profile in reading.profiles.items():
        previous = tuple(
            tuple(node or None for node in group.nodes) for group in reading.groups[name]
        )
        if profile.pg_count * profile.scheme.width <= SLOTS_ON_LOOP_MAX:
            result[name] = _assign(profile, nodes, previous)
        else:
            result[name] = await asyncio.to_thread(_assign, profile, nodes, previous)
    return result


def _assign(profile: Profile, nodes: Sequence[LayoutNode], previous: Assignment) -> Assignment:
    """The targets of one profile."""
    return place(
        [
            Node(node.node, node.zone, node.weight, NodeState(node.state), node.host)
            for node in nodes
            if node.state != OUT
        ],
        pg_count=profile.pg_count,
        width=profile.scheme.width,
        zone_limit=profile.scheme.tolerance,
        failure_domain=profile.failure_domain,
        previous=previous,
    )


async def _group_bytes(kv: KV, profiles: Iterable[str]) -> Counter[tuple[str, int]]:
    """Bytes of the blobs of every group, by profile and number."""
    sizes: Counter[tuple[str, int]] = Counter()
    for profile in profiles:
        prefix = keys.counts(profile, 0)[:-SLOT_BYTES]
        start, end = prefix, keys.after_prefix(prefix)
        while True:
            page = await kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX)
            for item in page.items:
                number = int.from_bytes(item.key[len(prefix) : len(prefix) + SLOT_BYTES], "big")
                sizes[profile, number] += max(0, decode(Count, item.value).bytes)
            if not page.more:
                break
            start = page.items[-1].key + b"\x00"
    return sizes


def _profile_plan(
    profile: Profile,
    groups: Sequence[Group],
    assignment: Assignment,
    zones: Mapping[str, str],
    live: Collection[str],
    sizes: Mapping[tuple[str, int], int],
) -> ProfilePlan:
    scheme = profile.scheme
    moves = moved_bytes = empty = 0
    lost_during = lost_after = most_in_zone = 0
    for group, row in zip(groups, assignment, strict=True):
        new = sum(1 for old, node in zip(group.nodes, row, strict=True) if node and node != old)
        moves += sum(1 for old, node in zip(group.nodes, row, strict=True) if (node or "") != old)
        moved_bytes += new * scheme.fragment_bytes(sizes.get((profile.name, group.number), 0))
        empty += row.count(None)
        lost_during = max(lost_during, lost_slots(group, live))
        lost_after = max(lost_after, sum(1 for node in row if node not in live))
        in_zone = Counter(zones[node] for node in row if node is not None)
        most_in_zone = max(most_in_zone, *in_zone.values(), 0)
    return ProfilePlan(
        profile.name,
        assignment,
        moves,
        moved_bytes,
        most_in_zone <= max(1, scheme.tolerance),
        empty,
        scheme.tolerance - lost_during,
        scheme.tolerance - lost_after,
    )


def lost_slots(group: Group, live: Collection[str]) -> int:
    """How many slots of a group have shards that no live node is known to hold: the slot's node is
    down or not there, or the shards are on their way to it from nodes that are all down."""
    return sum(
        1
        for slot in group.record.slots
        if slot.node not in live
        or (slot.holders_before and not any(node in live for node in slot.holders_before))
    )


def _warnings(
    plans: Iterable[ProfilePlan],
    profiles: Mapping[str, Profile],
    nodes: Sequence[LayoutNode],
    live: Collection[str],
) -> Iterable[str]:
    count = len(eligible(nodes))
    for profile_plan in plans:
        name, scheme = profile_plan.profile, profiles[profile_plan.profile].scheme
        if profile_plan.empty_slots:
            yield (
                f"{name}: {count} nodes for {scheme.width} shards, {profile_plan.empty_slots} "
                "slots stay empty: add nodes"
            )
        if not profile_plan.zone_rule:
            yield (
                f"{name}: some groups have more than {scheme.tolerance} shards in one zone, whose "
                "loss would lose data: add zones"
            )
        if profile_plan.tolerance_during <= 0:
            yield f"{name}: while shards move, some blobs do not survive one more loss"
        if uneven := _uneven(profile_plan.assignment, nodes):
            yield f"{name}: {uneven}"
    for node in nodes:
        if node.state in KEEPS_SHARDS and node.node not in live:
            yield f"node {node.node} is {node.state} and does not answer"


def _uneven(assignment: Assignment, nodes: Sequence[LayoutNode]) -> str:
    """Which active node gets far less than its weight asks for: one shard per node and group, and
    the zone rule, limit what it can take."""
    load = Counter(node for row in assignment for node in row if node is not None)
    active = [node for node in nodes if node.state == ACTIVE and node.weight]
    weight = sum(node.weight for node in active)
    slots = sum(load[node.node] for node in active)
    for node in active:
        share = slots * node.weight / weight
        if load[node.node] < 0.9 * share - 1:
            return (
                f"node {node.node} can take {load[node.node]} slots of the {share:.0f} that its "
                "weight asks for: it is larger than the others"
            )
    return ""


def removed(layout: Layout, nodes: Sequence[LayoutNode]) -> set[str]:
    return {node.node for node in layout.record.nodes} - {node.node for node in nodes}


async def refusals(kv: KV, reading: Reading, nodes: Sequence[LayoutNode]) -> list[str]:
    """Why these nodes may not be the next layout."""
    reasons = []
    tolerance = max((p.scheme.tolerance for p in reading.profiles.values()), default=0)
    if len(eligible(nodes)) <= tolerance:
        reasons.append(f"{len(eligible(nodes))} nodes may hold shards, {tolerance + 1} are needed")
    gone = removed(reading.layout, nodes)
    for node in reading.layout.record.nodes:
        if node.node not in gone:
            continue
        if held := _slots_naming(reading, node.node):
            reasons.append(
                f"node {node.node} holds shards of {held} slots: drain it and wait, or force its "
                "removal if it is lost for good"
            )
        elif node.state in KEEPS_SHARDS:
            # Until it is draining, writers may put shards on it at any moment.
            reasons.append(f"node {node.node} is {node.state}: drain it first")
    if gone and not reasons:
        reasons += await _explicit_shards(kv, gone)
    return reasons


def _slots_naming(reading: Reading, node_id: str) -> int:
    return sum(
        1
        for groups in reading.groups.values()
        for group in groups
        for slot in group.record.slots
        if node_id in (slot.node, *slot.holders_before)
    )


async def _explicit_shards(kv: KV, gone: Collection[str]) -> list[str]:
    """Which of these nodes hold blobs that were written around other nodes and have not moved home
    yet. All such blobs are in the repair queue; their references name their nodes."""
    page = await kv.scan(keys.REPAIRS, keys.after_prefix(keys.REPAIRS), limit=QUEUE_CHECKED_MAX + 1)
    if len(page.items) > QUEUE_CHECKED_MAX:
        return [
            f"more than {QUEUE_CHECKED_MAX} blobs wait for repair, and some may lie on a node that "
            "is to be removed: wait for the repair queue"
        ]
    found: Counter[str] = Counter()
    for item in page.items:
        found.update(await _nodes_named(kv, decode(Repair, item.value)) & set(gone))
    return [
        f"node {node} holds shards of {blobs} blobs that were written around other nodes and have "
        "not moved home yet: wait for the repair queue"
        for node, blobs in sorted(found.items())
    ]


async def _nodes_named(kv: KV, entry: Repair) -> set[str]:
    """The nodes that the live references to an entry's blob name."""
    position = keys.blob(entry.profile, entry.pg, entry.blob)
    end = keys.after_prefix(position)
    named: set[str] = set()
    while True:
        page = await kv.scan(position, end, limit=REFERENCES_PER_READ)
        for item in page.items:
            reference = decode(Reference, item.value)
            if not reference.dropped_due_ms:
                named.update(reference.nodes)
        if not page.more:
            return named
        position = page.items[-1].key + b"\x00"
