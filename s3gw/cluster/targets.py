"""Where the shards of a new blob go. Pure: decides, does no I/O (design: full redundancy from
the first moment).

With every slot's node usable, the blob lies on its placement group's slots. Else a node that is
down or suspect is replaced by another usable one within the zone rule; with fewer usable nodes
than shards, fewer data shards are made with the same parity. A blob that does not lie exactly on
its group's slots is `explicit`: its record names its nodes and scheme.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from erasure.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Targets:
    """The scheme to encode with and the node of each shard."""

    scheme: Scheme
    nodes: tuple[str, ...]
    explicit: bool


class TooFewNodes(Exception):
    """Fewer nodes are usable than can hold a blob that survives a loss."""


def choose(
    scheme: Scheme,
    slots: Sequence[str],
    usable: Mapping[str, str],
    *,
    leaving: Collection[str] = (),
    spares: Collection[str] | None = None,
) -> Targets:
    """Targets for a blob of a group with these slots; `usable` maps node id to zone.

    `leaving`: the usable nodes that an explicit blob cannot count on, because the layout empties
    them; `spares`: those that take shards of others' slots (None: all). Raises TooFewNodes.
    """
    if all(node in usable for node in slots):
        return Targets(scheme, tuple(slots), explicit=False)
    staying = {node: zone for node, zone in usable.items() if node not in leaving}
    nodes = substitute(slots, staying, zone_limit=scheme.tolerance, spares=spares)
    present = [node for node in nodes if node]
    if len(present) == len(slots):
        return Targets(scheme, tuple(nodes), explicit=True)
    narrowed = scheme.narrowed(len(present))
    if narrowed is None:
        raise TooFewNodes(f"{len(present)} nodes are usable, {scheme.tolerance + 1} are needed")
    return Targets(narrowed, tuple(present[: narrowed.width]), explicit=True)


def substitute(
    slots: Sequence[str],
    usable: Mapping[str, str],
    *,
    zone_limit: int,
    spares: Collection[str] | None = None,
) -> list[str]:
    """The slots with each unusable node replaced by a usable one that is in no slot and among the
    `spares` (None: all are), or by "".

    Zones with the fewest shards come first; a zone is filled above `zone_limit` only when no
    other has a node left. Ties go by node id, so that equal inputs give equal answers.

    >>> substitute(["a", "b"], {"a": "z1", "c": "z1", "d": "z2"}, zone_limit=1)
    ['a', 'd']
    """
    nodes = [node if node in usable else "" for node in slots]
    shards_in_zone = Counter(usable[node] for node in nodes if node)
    spare = {
        node: zone
        for node, zone in usable.items()
        if node not in nodes and (spares is None or node in spares)
    }
    for index, node in enumerate(nodes):
        if node or not spare:
            continue
        chosen = min(
            spare,
            key=lambda n: (
                shards_in_zone[spare[n]] >= zone_limit,
                shards_in_zone[spare[n]],
                n,
            ),
        )
        nodes[index] = chosen
        shards_in_zone[spare.pop(chosen)] += 1
    return nodes
