"""The nodes as the layout sees them: who there is, in which zone, how large, and in which state.

A cluster map is a value: membership makes a new one whenever leases or settings change it. The
states say what the layout may do with a node; whether it answers at the moment is not its concern
(a node that has been down for too long is simply not in the map).

    state      keeps the shards it holds    gets new ones
    active     as its share says            yes
    cordoned   yes                          no
    draining   no                           no
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class NodeState(StrEnum):
    """The values are stored in the layout record."""

    ACTIVE = "active"
    CORDONED = "cordoned"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Node:
    """One drive. `zone` is the failure domain, `weight` the capacity in units that are the same for
    all nodes (bytes); a node of weight 0 gets nothing. Nodes of one zone with the same `host` fail
    together as the drives of a machine do; "" is a host of its own."""

    id: str
    zone: str
    weight: int
    state: NodeState = NodeState.ACTIVE
    host: str = ""

    def __post_init__(self) -> None:
        if not self.id or self.weight < 0:
            raise ValueError("a node needs an id and a weight of 0 or more")


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """The nodes of one epoch. Raises ValueError when an id is there twice."""

    epoch: int
    nodes: tuple[Node, ...]
    _by_id: dict[str, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_id", {node.id: node for node in self.nodes})
        if len(self._by_id) != len(self.nodes):
            raise ValueError("a node id is in the cluster map twice")

    def get(self, node_id: str) -> Node | None:
        """The node of that id, or None."""
        return self._by_id.get(node_id)

    def zones(self) -> dict[str, tuple[Node, ...]]:
        """The nodes by zone, zones and nodes in order of their names.

        >>> [*ClusterMap(1, (Node("b", "z1", 1), Node("a", "z1", 1))).zones()]
        ['z1']
        """
        by_zone: dict[str, list[Node]] = {}
        for node in sorted(self.nodes, key=lambda node: (node.zone, node.id)):
            by_zone.setdefault(node.zone, []).append(node)
        return {zone: tuple(nodes) for zone, nodes in by_zone.items()}
