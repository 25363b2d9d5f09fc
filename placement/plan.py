"""A layout in the making, as a flow, and the one step that improves it: an augmenting path.

The network: one unit per slot flows from group ("row") to zone-in-group ("pair", with a lower and
an upper bound) to node (at most 1 of a group) to the node's target. What a plan holds is a flow
that respects the upper bounds; a row with a hole has a unit that has not arrived, and a node with
more than its target passes on too much. `augment` moves one such unit along the residual network,
that is, over as many exchanges in other rows as it takes, to a node that wants more. Paths are
simple, so the bounds hold after each.

Nodes, rows and zones are numbers here, and sets of nodes have no slots. All iteration is over lists
and insertion-ordered dicts, so the outcome is the same everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from placement.cluster_map import Node, NodeState
from placement.moves import Assignment

Bounds = tuple[list[int], list[int]]  # lower and upper, by zone


class Plan:
    """rows[row]: the nodes of a group; count[row].get(zone, 0): its shards in a zone;
    rows_of[node]: the groups of a node; fresh: how many shards are where they were not before."""

    def __init__(self, nodes: Sequence[Node], before: Assignment, width: int) -> None:
        self.ids = [node.id for node in nodes]
        self.number = {node_id: number for number, node_id in enumerate(self.ids)}
        names = sorted({node.zone for node in nodes})
        zone_number = {name: number for number, name in enumerate(names)}
        self.zone = [zone_number[node.zone] for node in nodes]
        self.takes = [node.state is NodeState.ACTIVE and node.weight > 0 for node in nodes]
        self.takers: list[list[int]] = [[] for _ in names]
        for node, takes in enumerate(self.takes):
            if takes:
                self.takers[self.zone[node]].append(node)
        self.pg_count, self.width = len(before), width
        self.rows: list[set[int]] = [set() for _ in before]
        self.count: list[dict[int, int]] = [{} for _ in before]
        self.rows_of: list[dict[int, None]] = [{} for _ in nodes]
        for row, kept in enumerate(before):
            for node_id in kept:
                if node_id is not None:
                    node = self.number[node_id]
                    zone = self.zone[node]
                    self.rows[row].add(node)
                    self.rows_of[node][row] = None
                    self.count[row][zone] = self.count[row].get(zone, 0) + 1
        self.old_rows_of = [frozenset(rows) for rows in self.rows_of]
        self.fresh = 0
        self.enter(([0] * len(names), [0] * len(names)), [0] * len(nodes))

    def enter(self, bounds: Bounds, takes_below: Sequence[int], *, detours: bool = False) -> None:
        """Choose the bounds of zones, the load below which a node wants more, and whether a path
        may take detours: move shards that are where they were before, besides the first."""
        self.low, self.high = bounds
        self.takes_below = takes_below
        self.detours = detours
        self.wanting: list[dict[int, None]] = [{} for _ in self.low]  # by zone
        for zone, members in enumerate(self.takers):
            for node in members:
                if self.load(node) < takes_below[node]:
                    self.wanting[zone][node] = None
        # What cannot reach a wanting node now never will: no path leads through it.
        self.dead: set[int] = set()

    def load(self, node: int) -> int:
        return len(self.rows_of[node])

    def holes(self, row: int) -> int:
        return self.width - len(self.rows[row])

    def in_zone(self, row: int, zone: int) -> int:
        return self.count[row].get(zone, 0)

    def add(self, row: int, node: int) -> None:
        zone = self.zone[node]
        self.rows[row].add(node)
        self.rows_of[node][row] = None
        self.count[row][zone] = self.in_zone(row, zone) + 1
        self.fresh += row not in self.old_rows_of[node]
        if self.load(node) >= self.takes_below[node]:
            self.wanting[zone].pop(node, None)

    def remove(self, row: int, node: int) -> None:
        zone = self.zone[node]
        self.rows[row].remove(node)
        del self.rows_of[node][row]
        self.count[row][zone] -= 1
        self.fresh -= row not in self.old_rows_of[node]
        if self.takes[node] and self.load(node) < self.takes_below[node]:
            self.wanting[zone][node] = None

    def fill(self, row: int, zone: int | None = None) -> bool:
        """Give a row with a hole one more node (of one zone). False when no path was found."""
        return self._augment(len(self.ids) + row if zone is None else self._pair(row, zone))

    def relieve(self, node: int) -> bool:
        """Let a node give up one of its rows. False when no path was found."""
        return self._augment(node)

    def _pair(self, row: int, zone: int) -> int:
        return len(self.ids) + self.pg_count + row * len(self.low) + zone

    def _augment(self, start: int) -> bool:
        """Move one unit from `start` to a wanting node, by a path with the fewest detours: breadth
        first, with steps of length 0 and, for a detour, 1.

        Vertices are nodes (give up one row), rows (take one more node), and pairs of row and zone
        (take one more node of that zone), in this order of numbers.
        """
        nodes, zones = len(self.ids), len(self.low)
        pairs = nodes + self.pg_count
        came_from: dict[int, int] = {}
        unseen: dict[int, list[int]] = {}
        near, far = deque([(start, -1)]), deque[tuple[int, int]]()
        while any(self.wanting) and (near or (far and self.detours)):
            if not near:
                near, far = far, near
            vertex, parent = near.popleft()
            if vertex in came_from or (vertex in self.dead and vertex != start):
                continue
            came_from[vertex] = parent
            if vertex < nodes:
                zone = self.zone[vertex]
                old = self.old_rows_of[vertex] if vertex != start else ()
                for row in self.rows_of[vertex]:
                    (far if row in old else near).append((self._pair(row, zone), vertex))
            elif vertex < pairs:
                row = vertex - nodes
                for zone, high in enumerate(self.high):
                    if self.in_zone(row, zone) < high:
                        near.append((self._pair(row, zone), vertex))
            else:
                row, zone = divmod(vertex - pairs, zones)
                members = self.rows[row]
                goal = next((node for node in self.wanting[zone] if node not in members), -1)
                if goal >= 0:
                    came_from[goal] = vertex
                    self._apply(goal, came_from)
                    return True
                near.extend((step, vertex) for step in self._leave_pair(row, zone, unseen))
        self.dead.update(came_from)
        return False

    def _leave_pair(self, row: int, zone: int, unseen: dict[int, list[int]]) -> list[int]:
        """Another zone of the row, when this one can do with less; and the zone's nodes that are
        not in the row, each once per search."""
        members = self.rows[row]
        candidates = unseen.get(zone, self.takers[zone])
        unseen[zone] = [node for node in candidates if node in members]
        steps = [len(self.ids) + row] if self.in_zone(row, zone) > self.low[zone] else []
        steps += [node for node in candidates if node not in members]
        return steps

    def _apply(self, goal: int, came_from: dict[int, int]) -> None:
        nodes, zones = len(self.ids), len(self.low)
        path = [goal]
        while came_from[path[-1]] >= 0:
            path.append(came_from[path[-1]])
        path.reverse()
        for here, there in pairwise(path):
            if here < nodes:
                self.remove((there - nodes - self.pg_count) // zones, here)
            elif there < nodes:
                self.add((here - nodes - self.pg_count) // zones, there)
