"""Where the blobs of a bucket should rather lie, among the places that are equally safe.

A blob's placement group fixes its nodes, and its random id fixes the group. So a policy chooses
among ids: of a few that are drawn, the one whose group suits best.

    balanced    any group: load is spread evenly
    latency     most of the data shards in the gateway's own zone, so that a read stays there
    spread      shards in as many zones as can be

A policy never costs safety: every group keeps the rules of its profile. It costs balance: groups
that suit get more blobs than others.
"""

from __future__ import annotations

from collections.abc import Callable

from s3gw.cluster.directory import Directory
from s3gw.cluster.topology import Group

BALANCED, LATENCY, SPREAD = "balanced", "latency", "spread"
PLACEMENTS = (BALANCED, LATENCY, SPREAD)

Preference = Callable[[Group], float]
"""How well a group suits, from 0 to 1, which no other can surpass."""


def preference(placement: str, directory: Directory, zone: str) -> Preference | None:
    """What a policy wants of a group; None when any will do. `zone` is the gateway's ("": none)."""
    if placement == SPREAD:
        return lambda group: _zones_covered(group, directory)
    if placement == LATENCY and zone:
        return lambda group: _data_in_zone(group, directory, zone)
    return None


def _zone_of(directory: Directory, node_id: str) -> str | None:
    node = directory.get(node_id)
    return node.zone if node is not None else None


def _data_in_zone(group: Group, directory: Directory, zone: str) -> float:
    """The part of the shards that a read takes which lie in the zone; of copies it takes any."""
    scheme = group.profile.scheme
    if scheme.data == 1:
        return float(any(_zone_of(directory, node) == zone for node in group.nodes))
    data = group.nodes[: scheme.data]
    return sum(_zone_of(directory, node) == zone for node in data) / scheme.data


def _zones_covered(group: Group, directory: Directory) -> float:
    """The part of the zones that have a shard, of those that could have one."""
    zones = {node.zone for node in directory.all()}
    covered = {_zone_of(directory, node) for node in group.nodes} - {None}
    return len(covered) / max(1, min(len(zones), group.profile.scheme.width))
