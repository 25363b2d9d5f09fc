"""Nodes: what they are, changing their state, and whether one may be stopped."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from s3gw import limits
from s3gw.admin import models
from s3gw.admin.port import AdminPort, conflict, not_found
from s3gw.cluster import layouts
from s3gw.cluster.directory import Directory
from s3gw.cluster.directory import Node as KnownNode
from s3gw.cluster.layouts import Layout, LayoutConflict, LayoutRefused
from s3gw.cluster.ledger import Ledger, Redundancy, read_ledger, state_of
from s3gw.kv.interface import Conflict, Delete, NoneNewer, Put
from s3gw.metadata import keys
from s3gw.metadata.records import FailSimulation, LayoutNode, NodeRecord, decode, encode

LEAVING = (layouts.DRAINING, layouts.OUT)
"""States of a node that is to hold nothing."""


async def list_nodes(port: AdminPort) -> models.Nodes:
    """All nodes: those registered and those of the layout."""
    return models.Nodes(await _views(port))


async def show_node(port: AdminPort, path: models.NodePath) -> models.Node:
    """One node."""
    for view in await _views(port):
        if view.node == path.node:
            return view
    raise _unknown(path.node)


def _unknown(node: str) -> Exception:
    return not_found("NoSuchNode", f"there is no node {node}")


def _not_in_layout(node: str) -> Exception:
    return not_found("NoSuchNode", f"there is no node {node} in the layout")


async def _views(port: AdminPort) -> list[models.Node]:
    directory = port.storage.blobs.directory
    survey = await port.surveyor.survey.get()
    layout = await layouts.current(port.storage.store.kv)
    members = {node.node: node for node in layout.record.nodes}
    known = {node.id: node for node in directory.all()}
    names = sorted(members.keys() | known.keys())
    found = await port.storage.store.kv.get_many([keys.node(name) for name in names])
    records = {
        name: decode(NodeRecord, item.value)
        for name, item in zip(names, found.items, strict=True)
        if item is not None
    }
    now = directory.clock()
    views = []
    for name in names:
        member, node, record = members.get(name), known.get(name), records.get(name)
        stats = survey.stats.get(name)
        views.append(
            models.Node(
                node=name,
                state=member.state if member else "",
                zone=member.zone if member else (node.zone if node else ""),
                host=(node.host if node else "") or (member.host if member else ""),
                weight=member.weight if member else 0,
                live=node is not None and node.live,
                suspect=node is not None and node.suspect(now),
                full=node is not None and node.is_full(now),
                failing=node is not None and node.failing,
                slots=slots_of(port, name),
                capacity_bytes=stats.capacity_bytes if stats else 0,
                free_bytes=stats.free_bytes if stats else 0,
                read_seconds_average=round(node.latency.average, 6) if node else 0.0,
                read_seconds_p95=round(node.latency.p95, 6) if node else 0.0,
                address=record.address if record else "",
                version=record.version if record else "",
                stranded=stranded_on(port, name, layout)
                if member and member.state in LEAVING
                else 0,
            )
        )
    return views


def slots_of(port: AdminPort, node: str) -> int:
    """Placement group slots that name the node, as holder of the shard or as one that held it."""
    topology = port.storage.blobs.topology
    return sum(
        1
        for profile in topology.profiles()
        for number in range(profile.pg_count)
        for slot in topology.group(profile, number).record.slots
        if node in (slot.node, *slot.holders_before)
    )


def stranded_on(port: AdminPort, node: str, layout: Layout) -> int:
    """Placement group slots that have to leave the node and that the layout has no place for:
    fewer nodes may hold shards than the profile is wide."""
    topology = port.storage.blobs.topology
    return sum(
        1
        for profile in topology.profiles()
        for number in range(profile.pg_count)
        for slot, target in zip(
            topology.group(profile, number).record.slots,
            layout.target(profile.name, number) or (),
            strict=False,
        )
        if slot.node == node and not target
    )


# States


async def cordon(port: AdminPort, path: models.NodePath) -> models.StateAnswer:
    """Give the node no new shards; it keeps what it holds."""
    return await _set_state(port, path.node, layouts.CORDONED, {layouts.ACTIVE})


async def uncordon(port: AdminPort, path: models.NodePath) -> models.StateAnswer:
    """Take a cordon back."""
    return await _set_state(port, path.node, layouts.ACTIVE, {layouts.CORDONED})


async def drain(port: AdminPort, path: models.NodePath) -> models.StateAnswer:
    """Move everything off the node; it stays in the layout."""
    return await _set_state(
        port, path.node, layouts.DRAINING, {layouts.ACTIVE, layouts.CORDONED, layouts.OUT}
    )


async def activate(port: AdminPort, path: models.NodePath) -> models.StateAnswer:
    """Let the node hold its share again: after a drain, or after it was taken out."""
    return await _set_state(
        port, path.node, layouts.ACTIVE, {layouts.CORDONED, layouts.DRAINING, layouts.OUT}
    )


async def decommission(port: AdminPort, path: models.NodePath) -> models.StateAnswer:
    """Drain the node, and when nothing is left on it remove it from the layout: to be called again
    until it answers `done`."""
    layout = await layouts.current(port.storage.store.kv)
    member = layout.node(path.node)
    if member is None:
        raise _not_in_layout(path.node)
    if member.state not in LEAVING:
        return await drain(port, path)
    await port.storage.blobs.topology.load()
    slots = slots_of(port, path.node)
    if slots:
        stranded = stranded_on(port, path.node, layout)
        return models.StateAnswer(
            path.node, member.state, layout.epoch, slots, done=False, stranded=stranded
        )
    left = [node for node in layout.record.nodes if node.node != path.node]
    epoch = await _apply(port, left, f"decommission {path.node}", layout.epoch)
    return models.StateAnswer(path.node, "", epoch, 0, done=True)


async def _set_state(
    port: AdminPort, node_id: str, state: str, allowed: Collection[str]
) -> models.StateAnswer:
    """The next layout with this node in `state`; nothing to do when it is so already."""
    layout = await layouts.current(port.storage.store.kv)
    member = layout.node(node_id)
    if member is None:
        raise _not_in_layout(node_id)
    epoch = layout.epoch
    if member.state != state:
        if member.state not in allowed:
            raise conflict(f"node {node_id} is {member.state}")
        nodes = [
            msgspec.structs.replace(node, state=state) if node.node == node_id else node
            for node in layout.record.nodes
        ]
        epoch = await _apply(port, nodes, f"{node_id} {state}", epoch)
    slots = slots_of(port, node_id)
    if state != layouts.DRAINING:
        return models.StateAnswer(node_id, state, epoch, slots, done=True)
    layout = await layouts.current(port.storage.store.kv)
    stranded = stranded_on(port, node_id, layout)
    return models.StateAnswer(node_id, state, epoch, slots, done=not slots, stranded=stranded)


async def _apply(port: AdminPort, nodes: list[LayoutNode], reason: str, epoch: int) -> int:
    storage = port.storage
    try:
        return await layouts.apply(
            storage.store.kv,
            storage.blobs.topology,
            nodes,
            reason=reason,
            now_ms=storage.clock_ms(),
            expected_epoch=epoch,
        )
    except (LayoutConflict, LayoutRefused) as error:
        raise conflict(str(error)) from error


# Failure on demand


async def fail(
    port: AdminPort, path: models.NodePath, body: models.FailRequest
) -> models.FailAnswer:
    """Let all processes treat the node as down for a while, to see what would happen. The wish is
    a record under a lease, so that it ends by itself. Refused, unless forced, when too few nodes
    for writes would be left."""
    directory = port.storage.blobs.directory
    if directory.get(path.node) is None:
        raise _unknown(path.node)
    kv = port.storage.store.kv
    prefix, end = keys.FAILURES, keys.after_prefix(keys.FAILURES)
    page = await kv.scan(prefix, end, limit=limits.SCAN_ITEMS_MAX, keys_only=True)
    down = {item.key[len(prefix) :].decode() for item in page.items} | {path.node}
    left = sum(1 for node in directory.writable_nodes() if node.id not in down)
    if left < port.nodes_needed and not body.force:
        raise conflict(
            f"{left} nodes would take writes, {port.nodes_needed} are needed: the store would "
            "refuse to write; force it if that is what you want to see"
        )
    lease = await kv.grant_lease(body.seconds)
    record = FailSimulation(path.node, body.seconds)
    try:
        # Two at once must not each count on the node of the other.
        await kv.commit(
            [NoneNewer(prefix, end, page.revision)],
            [Put(keys.failing(path.node), encode(record), lease)],
        )
    except Conflict:
        await kv.revoke_lease(lease)
        raise conflict("another simulation began at this moment: look again") from None
    return models.FailAnswer(path.node, body.seconds)


async def end_fail(port: AdminPort, path: models.NodePath) -> models.FailAnswer:
    """End the simulation at once; without one this is no error."""
    kv = port.storage.store.kv
    key = keys.failing(path.node)
    (item,) = (await kv.get_many([key])).items
    if item is None and port.storage.blobs.directory.get(path.node) is None:
        raise _unknown(path.node)
    await kv.commit([], [Delete(key)])
    return models.FailAnswer(path.node, 0)


# May it stop?


async def may_stop(port: AdminPort, path: models.NodePath) -> models.MayStop:
    """What would happen if the node stopped now, with all drives of its host."""
    storage = port.storage
    directory, topology = storage.blobs.directory, storage.blobs.topology
    node = directory.get(path.node)
    layout = await layouts.current(storage.store.kv)
    if node is None:
        if layout.node(path.node) is None:
            raise _unknown(path.node)
        host = path.node
    else:
        host = node.host
    stopping = {other.id for other in directory.all() if other.host == host} | {path.node}
    without = _without(directory, stopping)
    await topology.load()
    before = await read_ledger(storage.store.kv, directory, layout)
    after = await read_ledger(storage.store.kv, without, layout)
    profiles = _profiles_without(port, without)
    writable = sum(1 for other in directory.writable_nodes() if other.id not in stopping)
    reasons = [*_why_not(before, after, profiles)]
    if writable < port.nodes_needed:
        reasons.append(f"{writable} nodes would take writes, {port.nodes_needed} are needed")
    return models.MayStop(
        may_stop=not reasons,
        nodes=sorted(stopping),
        reasons=reasons,
        profiles=profiles,
        writable_nodes_left=writable,
        nodes_needed=port.nodes_needed,
    )


def _without(directory: Directory, stopping: Collection[str]) -> Directory:
    """The directory as it would be with these nodes down."""
    changed = Directory(directory.clock)
    for node in directory.all():
        copy = KnownNode(node.id, node.zone, node.drive, node.host)
        copy.live = node.live and node.id not in stopping
        changed.add(copy)
    return changed


def _profiles_without(port: AdminPort, directory: Directory) -> list[models.Stopping]:
    """What becomes of the placement groups of every profile."""
    topology = port.storage.blobs.topology
    live = frozenset(node.id for node in directory.all() if node.live)
    rows = []
    for profile in sorted(topology.profiles(), key=lambda profile: profile.name):
        classes = [
            state_of(profile.scheme, topology.group(profile, number).record, live).redundancy
            for number in range(profile.pg_count)
        ]
        rows.append(
            models.Stopping(
                profile.name,
                groups=len(classes),
                affected=sum(1 for found in classes if found is not Redundancy.FULL),
                critical=classes.count(Redundancy.CRITICAL),
                unreadable=classes.count(Redundancy.LOST),
            )
        )
    return rows


def _why_not(before: Ledger, after: Ledger, profiles: list[models.Stopping]) -> list[str]:
    reasons = []
    for row in profiles:
        if row.unreadable:
            reasons.append(
                f"{row.profile}: {row.unreadable} of {row.groups} groups could not be read"
            )
        if row.critical:
            reasons.append(
                f"{row.profile}: {row.critical} of {row.groups} groups would not survive "
                "one more loss"
            )
    for redundancy, text in (
        (Redundancy.LOST, "could not be read"),
        (Redundancy.CRITICAL, "would not survive one more loss"),
    ):
        blobs = after.total(redundancy).blobs
        if blobs:
            now = before.total(redundancy).blobs
            reasons.append(f"{blobs} blobs {text} ({now} at present)")
    return reasons
