"""What is referred to in a placement group, and what its nodes hold of it.

All nodes are listed first, then the group's references are read, in slices of the blob id. Since
that is the order, a blob written in between is never taken for an orphan; and before a shard counts
as missing its node is asked again.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from nodes.protocol import DriveError, DriveRefused, ShardEntry, ShardMissing, ShardName
from s3gw import limits
from s3gw.cluster.topology import Group
from s3gw.kv.interface import Item
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Count, Reference, Repair, decode
from s3gw.objects.storage import Storage
from s3gw.workers import placing
from s3gw.workers.walk import Listings

SLICE_REFERENCES = 2000
ASK_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Copy:
    """A shard as a node lists it."""

    node: str
    entry: ShardEntry

    @property
    def place(self) -> placing.Place:
        return self.node, self.entry.index


def by_blob(listings: Listings) -> Iterator[tuple[bytes, list[Copy]]]:
    """All nodes' sorted listings as one, blob by blob."""
    streams = [
        [Copy(node, entry) for entry in entries] for node, entries in listings.entries.items()
    ]
    merged = heapq.merge(*streams, key=lambda copy: copy.entry.blob)
    for blob, copies in itertools.groupby(merged, key=lambda copy: copy.entry.blob):
        yield blob, list(copies)


async def references_of(storage: Storage, group: Group) -> AsyncIterator[tuple[bytes, list[Item]]]:
    """Blob by blob, the references of a group, live and dropped."""
    kv = storage.store.kv
    gathered: list[Item] = []
    for start, end in await _slices(storage, group):
        position, more = start, True
        while more:
            page = await kv.scan(position, end, limit=SLICE_REFERENCES)
            for item in page.items:
                if gathered and _blob_of(gathered[0]) != _blob_of(item):
                    yield _blob_of(gathered[0]), gathered
                    gathered = []
                gathered.append(item)
            more = page.more
            if more:
                position = page.items[-1].key + b"\x00"
    if gathered:
        yield _blob_of(gathered[0]), gathered


async def _slices(storage: Storage, group: Group) -> list[tuple[bytes, bytes]]:
    """Ranges of the group's prefix with about SLICE_REFERENCES references each."""
    counts = keys.counts(group.profile.name, group.number)
    page = await storage.store.kv.scan(
        counts, keys.after_prefix(counts), limit=limits.SCAN_ITEMS_MAX
    )
    total = sum(decode(Count, item.value).references for item in page.items)
    pieces = max(1, -(-total // SLICE_REFERENCES))
    prefix = keys.pg_blobs(group.profile.name, group.number)
    bounds = [prefix + (piece * 2**64 // pieces).to_bytes(8, "big") for piece in range(pieces)]
    return list(zip(bounds, [*bounds[1:], keys.after_prefix(prefix)], strict=True))


def _blob_of(item: Item) -> bytes:
    return keys.split_reference(item.key)[2]


def live(items: Sequence[Item]) -> list[tuple[Item, Reference]]:
    """The references that are not dropped."""
    decoded = [(item, decode(Reference, item.value)) for item in items]
    return [(item, reference) for item, reference in decoded if not reference.dropped_due_ms]


def blob_ref(group: Group, blob: bytes, reference: Reference) -> BlobRef:
    """A blob as one of its references describes it, without its checksum."""
    return BlobRef(group.profile.name, blob, reference.size, 0, reference.nodes, reference.scheme)


async def missing(
    storage: Storage, listings: Listings, ref: BlobRef, copies: Sequence[Copy]
) -> list[int]:
    """Indexes of shards that the right nodes do not hold, by their own word.

    A slot that is being moved is left to whoever moves it: it is not done before every shard has
    come over."""
    _, nodes, group = storage.blobs.topology.location(ref)
    held = {copy.place for copy in copies}
    found = []
    for index, node in enumerate(nodes):
        moving = not ref.nodes and group.record.slots[index].holders_before
        if moving or node not in listings.entries or (node, index) in held:
            continue
        if await _is_missing(storage, ShardName(ref.profile, group.number, ref.blob, index), node):
            found.append(index)
    return found


async def _is_missing(storage: Storage, name: ShardName, node_id: str) -> bool:
    """Ask the node again: the blob may have been written after it was listed."""
    node = storage.blobs.directory.get(node_id)
    if node is None:
        return False
    try:
        async with asyncio.timeout(ASK_SECONDS_MAX):
            await node.drive.size(name)
    except ShardMissing:
        return True
    except (DriveError, DriveRefused, TimeoutError):
        return False
    return False


def missing_repair(storage: Storage, ref: BlobRef, lost: Sequence[int]) -> Repair:
    """The queue entry for missing shards."""
    group = storage.blobs.topology.group_of(ref.profile, ref.blob)
    reason = f"missing: shard {', '.join(map(str, lost))}"
    return Repair(ref.profile, group.number, ref.blob, reason, storage.clock_ms(), lost=tuple(lost))
