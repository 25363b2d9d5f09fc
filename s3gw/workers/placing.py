"""Where the shards of a blob may lie, and deleting them there.

A deletion carries its placement group's revision, and a drive that has seen a higher one refuses:
whoever deletes then reads the group's record again and decides again. A drive whose note of that
was damaged refuses with a seal (nodes.pg_revisions): the group's record is raised above it, which
makes all that was decided on before outdated everywhere, and deletes of the group go on. A node
that the latest layout does not name has left for good; any other must confirm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from nodes.pg_revisions import is_seal
from nodes.protocol import DriveError, DriveRefused, ShardName, StalePgRevision
from s3gw import limits
from s3gw.cluster.topology import Group
from s3gw.kv.interface import At, Conflict, EngineError, Put
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutRecord, decode, encode
from s3gw.objects.storage import Storage

log = logging.getLogger(__name__)

DELETE_SECONDS_MAX = 10.0
STALE_ATTEMPTS_MAX = 3

Place = tuple[str, int]
"""A node and the index of the shard it may hold."""


class Deletion(Enum):
    """What a node said to the deletion of a shard."""

    CONFIRMED = "confirmed"
    STALE = "stale"
    UNKNOWN = "unknown"


async def layout_nodes(storage: Storage) -> frozenset[str]:
    """The nodes of the latest layout."""
    return frozenset(node.node for node in (await latest_layout(storage)).nodes)


async def latest_layout(storage: Storage) -> LayoutRecord:
    """The latest layout, as it is in the engine now. Raises LookupError, EngineError."""
    page = await storage.store.kv.scan(
        keys.layout(storage.layout_epoch()),
        keys.after_prefix(keys.LAYOUTS),
        limit=limits.SCAN_ITEMS_MAX,
    )
    if not page.items:
        raise LookupError("the layout that this process knows is gone")
    return decode(LayoutRecord, page.items[-1].value)


async def refresh_groups(storage: Storage, groups: Iterable[Group]) -> None:
    """Read placement group records again, in one round trip."""
    wanted = sorted({group.key for group in groups})
    if wanted:
        for item in (await storage.store.kv.get_many(wanted)).items:
            if item is not None:
                storage.blobs.topology.learn_group(item)


def places(group: Group, explicit: Sequence[str]) -> set[Place]:
    """Every node that may hold a shard of a blob of this group: the slots', those that held it
    before a move, and those that the blob's own reference names."""
    found = {(node, index) for index, node in enumerate(explicit)}
    for index, slot in enumerate(group.record.slots):
        found |= {(node, index) for node in (slot.node, *slot.holders_before)}
    return {(node, index) for node, index in found if node}


async def unlink(
    storage: Storage, profile: str, blob: bytes, explicit: Sequence[str], members: frozenset[str]
) -> bool:
    """Delete all shards of a blob; whether every node that may hold one has confirmed.

    `members` are the nodes of the layout.
    """
    topology = storage.blobs.topology
    for _ in range(STALE_ATTEMPTS_MAX):
        group = topology.group_of(profile, blob)
        answers = await asyncio.gather(
            *(
                delete_shard(
                    storage,
                    node,
                    ShardName(profile, group.number, blob, index),
                    group.record.revision,
                    members,
                )
                for node, index in sorted(places(group, explicit))
            )
        )
        if Deletion.STALE not in answers:
            return all(answer is Deletion.CONFIRMED for answer in answers)
        await topology.reread(group)
    return False


async def delete_shard(
    storage: Storage, node_id: str, name: ShardName, pg_revision: int, members: frozenset[str]
) -> Deletion:
    """Delete a shard from one node."""
    directory = storage.blobs.directory
    node = directory.get(node_id)
    unanswered = Deletion.UNKNOWN if node_id in members else Deletion.CONFIRMED
    if node is None or not node.usable(directory.clock()):
        return unanswered
    try:
        async with asyncio.timeout(DELETE_SECONDS_MAX):
            await node.drive.delete(name, pg_revision)
    except StalePgRevision as stale:
        if is_seal(stale.seen):
            await _raise_above(storage, node_id, name, stale.seen)
        return Deletion.STALE
    except (DriveError, DriveRefused, TimeoutError):
        node.failed(directory.clock())
        return unanswered
    node.answered()
    return Deletion.CONFIRMED


async def _raise_above(storage: Storage, node_id: str, name: ShardName, seal: int) -> None:
    """Raise the revision of a shard's group above a drive's seal. What cannot be done now the next
    refusal asks for again."""
    topology = storage.blobs.topology
    try:
        group = await topology.reread(topology.group(topology.profile(name.profile), name.pg))
        if group.record.revision > seal:
            return  # another was faster
        raised = msgspec.structs.replace(group.record, revision=seal + 1)
        guard = At(group.key, group.revision)
        await storage.store.kv.commit([guard], [Put(group.key, encode(raised))])
    except (Conflict, EngineError) as error:
        log.info("the revision of group %s/%d is raised later: %r", name.profile, name.pg, error)
        return
    log.warning(
        "drive %s had lost which revision of group %s/%d it has seen: the group goes on from %d",
        node_id,
        name.profile,
        name.pg,
        seal + 1,
    )
