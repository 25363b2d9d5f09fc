"""Walking over all placement groups, one at a time, in an order that survives restarts.

The place is kept in the engine under the worker's name, so that whoever holds the lock next goes
on where the last one stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from nodes.protocol import DriveError, DriveRefused, ShardEntry
from s3gw.cluster.epochs import OUT
from s3gw.cluster.topology import Group
from s3gw.metadata import keys
from s3gw.metadata.records import Cursor
from s3gw.metadata.store import Transaction
from s3gw.objects.storage import Storage
from s3gw.workers import placing
from s3gw.workers.contract import Claim, commit

LIST_SECONDS_MAX = 60.0


class Walk:
    """The walk of one worker."""

    def __init__(self, storage: Storage, worker: str) -> None:
        self._storage = storage
        self._key = keys.cursor(worker)

    async def next(self) -> Group | None:
        """The group to work on; None at the end of a round."""
        cursor = await self._storage.store.get(Cursor, self._key)
        start = (cursor.record.profile, cursor.record.pg) if cursor.record else ("", 0)
        for group in all_groups(self._storage):
            if (group.profile.name, group.number) >= start:
                return group
        return None

    async def passed(
        self, claim: Claim, group: Group | None, tx: Transaction | None = None
    ) -> None:
        """Note that a group is done, or (None) that a round is; in one commit with `tx`."""
        tx = tx or Transaction()
        if group is None:
            tx.delete(self._key)
        else:
            tx.put(self._key, Cursor(group.profile.name, group.number + 1))
        await commit(self._storage.store, claim, tx)


def all_groups(storage: Storage) -> Iterator[Group]:
    """All placement groups, by profile and number."""
    topology = storage.blobs.topology
    for profile in sorted(topology.profiles(), key=lambda profile: profile.name):
        for number in range(profile.pg_count):
            try:
                group = topology.group(profile, number)
            except KeyError:
                break  # the profile is being made, and not in use yet
            yield group


@dataclass(slots=True)
class Listings:
    """What the nodes hold of one group. `members` are the nodes of the layout, `unlisted` those of
    them that should have said and could not. A node that the layout has given up (`out`) and that
    does not answer is not among them: it may be gone for good, and what it holds is looked at when
    it comes back. Whether a blob is an orphan is said by references, not by that node."""

    entries: dict[str, list[ShardEntry]] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    members: frozenset[str] = frozenset()


async def list_group(storage: Storage, group: Group) -> Listings:
    """Ask every node for its shards of a group; one may be on any of them."""
    directory = storage.blobs.directory
    layout = await placing.latest_layout(storage)
    listings = Listings(members=frozenset(node.node for node in layout.nodes))
    expected = {node.node for node in layout.nodes if node.state != OUT}
    names = sorted(listings.members | {node.id for node in directory.all()})
    answers = await asyncio.gather(*(_list_node(storage, name, group) for name in names))
    for name, entries in zip(names, answers, strict=True):
        if entries is not None:
            listings.entries[name] = entries
        elif name in expected or (name in listings.members and _is_live(storage, name)):
            listings.unlisted.add(name)
    return listings


def _is_live(storage: Storage, name: str) -> bool:
    node = storage.blobs.directory.get(name)
    return node is not None and node.live


async def _list_node(storage: Storage, name: str, group: Group) -> list[ShardEntry] | None:
    directory = storage.blobs.directory
    node = directory.get(name)
    if node is None or not node.usable(directory.clock()):
        return None
    try:
        async with asyncio.timeout(LIST_SECONDS_MAX):
            entries = await node.drive.list(group.profile.name, group.number)
    except (DriveError, DriveRefused, TimeoutError):
        node.failed(directory.clock())
        return None
    node.answered()
    return entries
