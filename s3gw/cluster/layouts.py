"""Changes of the layout: staged in a draft, then applied as the next epoch.

A layout is never changed: every change of nodes is the next epoch (`s3gw.cluster.epochs`), and the
placement group records move towards it. An operator gathers changes in a draft, sees with `plan`
what they cost, and applies them; a worker that takes a lost node out applies without a draft.

Epochs between the first and the last `EPOCHS_KEPT` are removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from s3gw import limits
from s3gw.cluster.epochs import (
    ACTIVE,
    CORDONED,
    DRAINING,
    OUT,
    Layout,
    LayoutConflict,
    LayoutRefused,
    NoLayout,
    check_nodes,
    current,
    packed,
    registered,
)
from s3gw.cluster.layout_plan import Plan, ProfilePlan, assignments, plan, read, refusals, removed
from s3gw.cluster.topology import Topology
from s3gw.kv.interface import (
    KV,
    At,
    Conflict,
    Delete,
    Empty,
    Guard,
    NoneNewer,
    Put,
    Unavailable,
    Write,
)
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutDraft, LayoutNode, LayoutRecord, decode, encode

__all__ = [
    "ACTIVE",
    "CORDONED",
    "DRAINING",
    "OUT",
    "Add",
    "Change",
    "Draft",
    "Layout",
    "LayoutConflict",
    "LayoutRefused",
    "NoLayout",
    "Plan",
    "ProfilePlan",
    "Remove",
    "SetState",
    "SetWeight",
    "SetZone",
    "apply",
    "changed",
    "current",
    "discard",
    "draft",
    "plan",
    "registered",
    "stage",
]

EPOCHS_KEPT = 32
# A record this large still leaves room in its commit for the guards and the draft's removal.
RECORD_BYTES_MAX = limits.COMMIT_BYTES_MAX - 16 * limits.KIB
SENDINGS_MAX = 4
SENDING_PAUSE_SECONDS = 0.2
CHECKS_MAX = 5


@dataclass(frozen=True, slots=True)
class Draft:
    """Staged changes: the nodes as they are to be, on top of layout `epoch`. `revision` is the
    engine's, of the record; `stale` says that another layout was made since."""

    epoch: int
    nodes: tuple[LayoutNode, ...]
    revision: int
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Add:
    """A node that the layout does not have. `weight` is its capacity in bytes."""

    node: str
    zone: str
    weight: int
    host: str = ""
    state: str = ACTIVE


@dataclass(frozen=True, slots=True)
class Remove:
    """Strike a node off."""

    node: str


@dataclass(frozen=True, slots=True)
class SetState:
    """Cordon, drain, take out, or make active again."""

    node: str
    state: str


@dataclass(frozen=True, slots=True)
class SetWeight:
    node: str
    weight: int


@dataclass(frozen=True, slots=True)
class SetZone:
    node: str
    zone: str


Change = Add | Remove | SetState | SetWeight | SetZone


async def draft(kv: KV) -> Draft | None:
    """The staged changes, or None. Raises EngineError."""
    (item,) = (await kv.get_many([keys.DRAFT])).items
    if item is None:
        return None
    record = decode(LayoutDraft, item.value)
    (later,) = (await kv.get_many([keys.layout(record.epoch + 1)])).items
    return Draft(record.epoch, record.nodes, item.revision, stale=later is not None)


async def stage(kv: KV, changes: Sequence[Change]) -> Draft:
    """Add changes to the draft, all or none. Raises LayoutRefused, LayoutConflict (the draft is
    based on an older layout, or was changed by others meanwhile), EngineError."""
    layout = await current(kv)
    before = await draft(kv)
    if before is not None and before.epoch != layout.epoch:
        raise LayoutConflict(
            f"the draft is based on epoch {before.epoch}, the layout is at {layout.epoch}: "
            "discard it and stage again"
        )
    nodes = changed(before.nodes if before is not None else layout.record.nodes, changes)
    value = encode(LayoutDraft(layout.epoch, nodes))
    if len(value) > RECORD_BYTES_MAX:
        raise LayoutRefused(f"a draft of {len(nodes)} nodes is too large")
    guards: list[Guard] = [
        At(keys.DRAFT, before.revision if before is not None else 0),
        _no_later(layout.epoch),
    ]
    try:
        revision = await kv.commit(guards, [Put(keys.DRAFT, value)])
    except Conflict:
        raise LayoutConflict("the draft or the layout was changed by another") from None
    return Draft(layout.epoch, nodes, revision)


async def discard(kv: KV) -> None:
    """Forget the staged changes; without any this is no error. Raises EngineError."""
    await kv.commit([], [Delete(keys.DRAFT)])


def changed(nodes: Iterable[LayoutNode], changes: Iterable[Change]) -> tuple[LayoutNode, ...]:
    """The nodes after the changes, in order. Raises LayoutRefused.

    >>> [node.node for node in changed((), [Add("a", "z", 1), Add("b", "z", 1), Remove("a")])]
    ['b']
    """
    by_id = {node.node: node for node in nodes}
    for change in changes:
        if isinstance(change, Add):
            if change.node in by_id:
                raise LayoutRefused(f"the layout has a node {change.node} already")
            by_id[change.node] = LayoutNode(
                change.node, change.zone, change.weight, change.state, change.host
            )
            continue
        if change.node not in by_id:
            raise LayoutRefused(f"the layout has no node {change.node}")
        if isinstance(change, Remove):
            del by_id[change.node]
        else:
            by_id[change.node] = _with(by_id[change.node], change)
    result = tuple(by_id.values())
    check_nodes(result)
    return result


def _with(node: LayoutNode, change: SetState | SetWeight | SetZone) -> LayoutNode:
    match change:
        case SetState(state=state):
            return msgspec.structs.replace(node, state=state)
        case SetWeight(weight=weight):
            return msgspec.structs.replace(node, weight=weight)
        case SetZone(zone=zone):
            return msgspec.structs.replace(node, zone=zone)


async def apply(
    kv: KV,
    topology: Topology,
    nodes: Sequence[LayoutNode],
    *,
    reason: str,
    now_ms: int,
    expected_epoch: int,
    force: bool = False,
    also: Sequence[Guard] = (),
) -> int:
    """Make these nodes the next layout and return its epoch. A draft of just this goes with it.

    `force` gives up what lies on removed nodes, and allows fewer nodes than blobs need. `also` are
    guards of the caller. Raises LayoutRefused; LayoutConflict when another epoch than
    `expected_epoch` is the last, or a guard failed again and again; EngineError. After Unavailable
    the epoch may or may not be there.
    """
    check_nodes(nodes)
    for _ in range(CHECKS_MAX):
        reading = await read(kv, topology)
        layout = reading.layout
        if layout.epoch != expected_epoch:
            raise LayoutConflict(f"the layout is at epoch {layout.epoch}, not {expected_epoch}")
        reasons = [] if force else await refusals(kv, reading, nodes)
        if reasons:
            raise LayoutRefused("; ".join(reasons))
        targets = await assignments(reading, nodes)
        record = LayoutRecord(
            now_ms,
            tuple(nodes),
            tuple(sorted(targets)),
            {name: packed(rows, nodes) for name, rows in sorted(targets.items())},
            reason,
        )
        guards: list[Guard] = [
            *also,
            At(keys.layout(layout.epoch), layout.revision),
            _no_later(layout.epoch),
            NoneNewer(keys.PROFILES, keys.after_prefix(keys.PROFILES), reading.revision),
        ]
        if removed(layout, nodes) and not force:
            # A group that is moved at this moment must not come to name a removed node.
            guards.append(NoneNewer(keys.PGS, keys.after_prefix(keys.PGS), reading.revision))
        if await _commit(kv, layout.epoch + 1, record, guards):
            return layout.epoch + 1
    raise LayoutConflict("profiles or placement groups changed all the time; try again later")


async def _commit(kv: KV, epoch: int, record: LayoutRecord, guards: list[Guard]) -> bool:
    """Write a layout; False when a guard failed."""
    value = encode(record)
    if len(value) > RECORD_BYTES_MAX:
        raise LayoutRefused(
            f"a layout of {len(value)} bytes does not fit a commit of {limits.COMMIT_BYTES_MAX}: "
            "there are too many placement groups in all"
        )
    key = keys.layout(epoch)
    writes: list[Write] = [Put(key, value)]
    if epoch - EPOCHS_KEPT > 1:
        writes.append(Delete(keys.layout(epoch - EPOCHS_KEPT)))
    (item,) = (await kv.get_many([keys.DRAFT])).items
    if item is not None and decode(LayoutDraft, item.value) == LayoutDraft(epoch - 1, record.nodes):
        guards.append(At(keys.DRAFT, item.revision))
        writes.append(Delete(keys.DRAFT))
    for sending in range(SENDINGS_MAX):
        try:
            await kv.commit(guards, writes)
        except Unavailable:
            # The guards let at most one sending take effect, so it may be sent again.
            if sending == SENDINGS_MAX - 1:
                raise
            await asyncio.sleep(SENDING_PAUSE_SECONDS * 2**sending)
        except Conflict:
            (found,) = (await kv.get_many([key])).items
            return sending > 0 and found is not None and found.value == value
        else:
            return True
    raise AssertionError("unreachable")


def _no_later(epoch: int) -> Guard:
    return Empty(keys.layout(epoch + 1), keys.after_prefix(keys.LAYOUTS))
