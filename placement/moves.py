"""The difference of two layouts, and the least that any change must move.

An assignment has one tuple per placement group, with a node id (or None, an empty slot) per slot.
A slot is a shard index, so a node that keeps its group but changes its slot moves data, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

Assignment = tuple[tuple[str | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Slot `slot` of group `pg` goes from `source` to `target`. `source` None fills an empty slot
    (a rebuild); `target` None empties one."""

    pg: int
    slot: int
    source: str | None
    target: str | None


def moves_between(before: Assignment, after: Assignment) -> list[Move]:
    """Every slot that changes, by group and slot. Raises ValueError when the two assignments do
    not have the same groups and slots.

    >>> moves_between((("a", "b"), ("b", None)), (("a", "c"), ("b", "a")))
    ... # doctest: +NORMALIZE_WHITESPACE
    [Move(pg=0, slot=1, source='b', target='c'), Move(pg=1, slot=1, source=None, target='a')]
    """
    return [
        Move(pg, slot, source, target)
        for pg, (old, new) in enumerate(zip(before, after, strict=True))
        for slot, (source, target) in enumerate(zip(old, new, strict=True))
        if source != target
    ]


def load_of(assignment: Assignment) -> Counter[str]:
    """How many slots each node has; nodes without any are not there."""
    return Counter(node for row in assignment for node in row if node is not None)


def minimum_moves(before: Assignment, shares: Mapping[str, Fraction]) -> int:
    """The fewest slots that any layout with these fair shares (see `layout.fair_shares`), each
    rounded up or down as suits best, must change.

    Every node must receive what it lacks of its share rounded down. And what a node holds beyond
    its share rounded up must leave it (all of it when it has no share) and arrive elsewhere. Each
    is a lower bound on the moves, so the larger one is.

    >>> minimum_moves((("a",), ("a",), ("b",), ("b",)), {"a": Fraction(2), "c": Fraction(2)})
    2
    """
    held = load_of(before)
    arrive = sum(max(0, floor(share) - held[node]) for node, share in shares.items())
    leave = sum(max(0, count - ceil(shares.get(node, 0))) for node, count in held.items())
    return max(arrive, leave)
