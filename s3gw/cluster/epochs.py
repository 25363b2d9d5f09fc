"""The layout as it is: one record per epoch, `layout/<epoch>`, and the states of its nodes.

    active      holds its share
    cordoned    keeps what it holds, gets nothing new
    draining    gives up all it holds
    out         was down for too long: as draining, but nobody waits for it

A layout holds the target of every slot of every profile. The first has none: its groups were made
as it wants them. The target of a profile that was made after a layout is its groups as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from erasure.scheme import Scheme
from placement.moves import Assignment
from s3gw import limits
from s3gw.kv.interface import KV, Item
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutNode, LayoutRecord, ProfileRecord, decode

ACTIVE, CORDONED, DRAINING, OUT = "active", "cordoned", "draining", "out"
STATES = (ACTIVE, CORDONED, DRAINING, OUT)
KEEPS_SHARDS = frozenset({ACTIVE, CORDONED})

SLOT_BYTES = 2
NO_NODE = 0xFFFF
NAME_CHARACTERS_MAX = 128
WEIGHT_MAX = 2**62


class NoLayout(LookupError):
    """The store has no layout yet."""


class LayoutConflict(Exception):
    """Another layout, or another draft, was made meanwhile: look again, then decide again."""


class LayoutRefused(ValueError):
    """The change makes no sense, or would give up data; the text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One epoch as read. `revision` is the engine's, of its record; `widths` gives the number of
    slots of a group by profile."""

    epoch: int
    record: LayoutRecord
    revision: int
    widths: Mapping[str, int]

    def target(self, profile: str, number: int) -> tuple[str, ...] | None:
        """The node of every slot of a group ("" for none), by the name of its profile; None when
        the group is to stay as it is. Raises IndexError when there is no such group."""
        packed = self.record.assignments.get(profile)
        if packed is None:
            return None
        width = self.widths[profile]
        row = packed[number * width * SLOT_BYTES : (number + 1) * width * SLOT_BYTES]
        if number < 0 or len(row) != width * SLOT_BYTES:
            raise IndexError(f"profile {profile} has no group {number} in epoch {self.epoch}")
        return tuple(_unpacked(row, self.record.nodes))

    def node(self, node_id: str) -> LayoutNode | None:
        """The node of that id, or None."""
        return next((node for node in self.record.nodes if node.node == node_id), None)


async def current(kv: KV) -> Layout:
    """The last layout. Raises NoLayout, EngineError."""
    item = await latest(kv)
    if item is None:
        raise NoLayout("the store has no layout yet")
    return await layout_of(kv, item)


async def latest(kv: KV) -> Item | None:
    """The record of the last layout; None when there is none yet. Raises EngineError."""
    while True:
        epochs = await kv.scan(
            keys.LAYOUTS,
            keys.after_prefix(keys.LAYOUTS),
            limit=limits.SCAN_ITEMS_MAX,
            keys_only=True,
        )
        if not epochs.items:
            return None
        (item,) = (await kv.get_many([epochs.items[-1].key])).items
        if item is not None:  # else so many were made meanwhile that this one is gone
            return item


async def layout_of(kv: KV, item: Item) -> Layout:
    """The layout of an item under `layout/`. Raises EngineError."""
    record = decode(LayoutRecord, item.value)
    names = sorted(record.assignments)
    found = (await kv.get_many([keys.profile(name) for name in names])).items if names else []
    widths = {
        name: Scheme.parse(decode(ProfileRecord, profile.value).scheme).width
        for name, profile in zip(names, found, strict=True)
        if profile is not None
    }
    return Layout(epoch_of(item.key), record, item.revision, widths)


def epoch_of(key: bytes) -> int:
    """The epoch of a layout's key."""
    return int.from_bytes(key[len(keys.LAYOUTS) :], "big")


async def registered(kv: KV) -> set[str]:
    """The nodes whose leases live, by the engine. Raises EngineError."""
    prefix = keys.NODES
    page = await kv.scan(
        prefix, keys.after_prefix(prefix), limit=limits.SCAN_ITEMS_MAX, keys_only=True
    )
    return {item.key[len(prefix) :].decode() for item in page.items}


def eligible(nodes: Iterable[LayoutNode]) -> list[str]:
    """The nodes that may hold shards."""
    return [
        node.node
        for node in nodes
        if node.state == CORDONED or (node.state == ACTIVE and node.weight > 0)
    ]


def check_nodes(nodes: Sequence[LayoutNode]) -> None:
    """Raise LayoutRefused unless every node is well formed and there once."""
    if len(nodes) >= NO_NODE:
        raise LayoutRefused(f"{len(nodes)} nodes, at most {NO_NODE - 1}")
    for node_id, count in Counter(node.node for node in nodes).items():
        if count > 1:
            raise LayoutRefused(f"node {node_id} is there {count} times")
    for node in nodes:
        for what, name in (("id", node.node), ("zone", node.zone)):
            if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
                raise LayoutRefused(
                    f"the {what} {name!r} of a node must have 1 to {NAME_CHARACTERS_MAX} "
                    "printable characters"
                )
        if len(node.host) > NAME_CHARACTERS_MAX:
            raise LayoutRefused(f"the host of node {node.node} has too long a name")
        if node.state not in STATES:
            raise LayoutRefused(
                f"{node.state!r} is no state of a node; there are {', '.join(STATES)}"
            )
        if not 0 <= node.weight <= WEIGHT_MAX:
            raise LayoutRefused(f"the weight of node {node.node} must be 0 to {WEIGHT_MAX}")


def packed(assignment: Assignment, nodes: Sequence[LayoutNode]) -> bytes:
    """An assignment as `LayoutRecord.assignments` has it.

    >>> packed((("b", None),), (LayoutNode("a", "z", 1), LayoutNode("b", "z", 1))).hex()
    '0001ffff'
    """
    number = {node.node: index for index, node in enumerate(nodes)}
    return b"".join(
        (NO_NODE if node is None else number[node]).to_bytes(SLOT_BYTES, "big")
        for row in assignment
        for node in row
    )


def _unpacked(row: bytes, nodes: Sequence[LayoutNode]) -> Iterable[str]:
    for first in range(0, len(row), SLOT_BYTES):
        index = int.from_bytes(row[first : first + SLOT_BYTES], "big")
        yield "" if index == NO_NODE else nodes[index].node
