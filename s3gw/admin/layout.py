"""The layout: what it is, staging changes, seeing what they cost, applying them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from s3gw.admin import models
from s3gw.admin.nodes import slots_of
from s3gw.admin.port import AdminPort, bad_request, conflict, not_found
from s3gw.admin.survey import drive_stats
from s3gw.cluster import layouts
from s3gw.cluster.layouts import Draft, LayoutConflict, LayoutRefused
from s3gw.kv.interface import At
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutNode, NodeRecord, decode


def _node_views(nodes: Iterable[LayoutNode]) -> list[models.LayoutNodeView]:
    return [
        models.LayoutNodeView(node.node, node.zone, node.weight, node.state, node.host)
        for node in nodes
    ]


def _draft_view(draft: Draft) -> models.DraftView:
    return models.DraftView(draft.epoch, draft.stale, _node_views(draft.nodes), draft.revision)


async def show(port: AdminPort) -> models.LayoutView:
    """The layout as it is."""
    layout = await layouts.current(port.storage.store.kv)
    record = layout.record
    return models.LayoutView(
        layout.epoch,
        record.created_ms,
        record.reason,
        list(record.profiles),
        _node_views(record.nodes),
    )


async def show_draft(port: AdminPort) -> models.DraftView:
    """The staged changes."""
    return _draft_view(await _draft(port))


async def _draft(port: AdminPort) -> Draft:
    draft = await layouts.draft(port.storage.store.kv)
    if draft is None:
        raise not_found("NoDraft", "nothing is staged")
    return draft


async def stage(port: AdminPort, body: models.StageRequest) -> models.DraftView:
    """Add changes to the draft, all or none."""
    candidates = await _candidates(port, body.changes)
    changes = [_change(change, candidates) for change in body.changes]
    try:
        return _draft_view(await layouts.stage(port.storage.store.kv, changes))
    except LayoutRefused as error:
        raise bad_request(str(error)) from error
    except LayoutConflict as error:
        raise conflict(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What is known of a node that is to be added."""

    zone: str
    host: str
    weight: int


async def _candidates(
    port: AdminPort, changes: Iterable[models.NodeChange]
) -> Mapping[str, _Candidate]:
    """What is known of the nodes that are to be added: of registered ones by their records, of
    drives of this machine, which have none, by themselves."""
    names = [change.node for change in changes if isinstance(change, models.AddNode)]
    if not names:
        return {}
    kv, directory = port.storage.store.kv, port.storage.blobs.directory
    draft = await layouts.draft(kv)
    nodes = draft.nodes if draft is not None else (await layouts.current(kv)).record.nodes
    # Stores on one machine were founded with weights that count drives as equals.
    equals = all(node.weight <= 1 for node in nodes)
    found = await kv.get_many([keys.node(name) for name in names])
    stats = await drive_stats(port.storage)
    candidates = {}
    for name, item in zip(names, found.items, strict=True):
        node = directory.get(name)
        if item is not None:
            record = decode(NodeRecord, item.value)
            candidates[name] = _Candidate(record.zone, record.host, record.capacity_bytes)
        elif node is not None and name in stats:
            weight = 1 if equals else stats[name].capacity_bytes
            candidates[name] = _Candidate(node.zone, node.host, weight)
    return candidates


def _change(change: models.NodeChange, candidates: Mapping[str, _Candidate]) -> layouts.Change:
    match change:
        case models.AddNode():
            known = candidates.get(change.node)
            zone = change.zone or (known.zone if known else "")
            weight = change.weight or (known.weight if known else 0)
            if not zone or not weight:
                raise bad_request(
                    f"node {change.node} is not registered: give its zone and its weight"
                )
            host = change.host or (known.host if known else "")
            return layouts.Add(change.node, zone, weight, host)
        case models.RemoveNode():
            return layouts.Remove(change.node)
        case models.SetNodeState():
            return layouts.SetState(change.node, change.state)
        case models.SetNodeWeight():
            return layouts.SetWeight(change.node, change.weight)
        case models.SetNodeZone():
            return layouts.SetZone(change.node, change.zone)


async def discard(port: AdminPort) -> models.Done:
    """Forget the staged changes."""
    await layouts.discard(port.storage.store.kv)
    return models.Done()


async def plan(port: AdminPort) -> models.PlanView:
    """What applying the staged changes would mean."""
    draft = await _draft(port)
    found = await _plan(port, draft)
    return models.PlanView(
        found.epoch,
        found.moves,
        found.bytes,
        found.tolerance_during,
        found.tolerance_after,
        [
            models.ProfileMoves(
                profile.profile,
                profile.moves,
                profile.bytes,
                profile.empty_slots,
                profile.tolerance_during,
                profile.tolerance_after,
            )
            for profile in found.profiles
        ],
        list(found.warnings),
        list(found.refusals),
        draft.revision,
        await _gives_up(port, draft),
    )


async def _plan(port: AdminPort, draft: Draft) -> layouts.Plan:
    live = {node.id for node in port.storage.blobs.directory.all() if node.live}
    storage = port.storage
    try:
        return await layouts.plan(storage.store.kv, storage.blobs.topology, draft.nodes, live=live)
    except LayoutRefused as error:
        raise conflict(str(error)) from error


async def _gives_up(port: AdminPort, draft: Draft) -> int:
    """Slots with shards on the nodes that the draft removes."""
    layout = await layouts.current(port.storage.store.kv)
    kept = {node.node for node in draft.nodes}
    await port.storage.blobs.topology.load()
    return sum(slots_of(port, node.node) for node in layout.record.nodes if node.node not in kept)


async def apply(port: AdminPort, body: models.ApplyRequest) -> models.Applied:
    """Make the staged changes the next layout."""
    draft = await _draft(port)
    if body.epoch is not None and body.epoch != draft.epoch:
        raise conflict(f"the changes are staged on epoch {draft.epoch}, not {body.epoch}")
    if body.draft is not None and body.draft != draft.revision:
        raise conflict(
            f"the staged changes are draft {draft.revision}, not {body.draft}: look at them again"
        )
    if body.force:
        await _require_confirmed(port, draft, body.confirm)
    storage = port.storage
    try:
        epoch = await layouts.apply(
            storage.store.kv,
            storage.blobs.topology,
            draft.nodes,
            reason=body.reason or "applied by an operator",
            now_ms=storage.clock_ms(),
            expected_epoch=draft.epoch,
            force=body.force,
            also=[At(keys.DRAFT, draft.revision)],
        )
    except (LayoutConflict, LayoutRefused) as error:
        raise conflict(str(error)) from error
    return models.Applied(epoch)


async def _require_confirmed(port: AdminPort, draft: Draft, confirm: int | None) -> None:
    """Raises Refusal unless who forces has seen what that gives up."""
    refusals = (await _plan(port, draft)).refusals
    if not refusals:
        return
    given_up = await _gives_up(port, draft)
    if confirm != given_up:
        raise conflict(
            f"forced, this gives up {given_up} slots ({'; '.join(refusals)}): "
            f"repeat it with confirm {given_up} if that is what you want"
        )
