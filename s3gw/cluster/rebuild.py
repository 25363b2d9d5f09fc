"""Rebuilding one shard of a blob from the others, stripe by stripe.

Which shards are read is the scheme's to say (`Scheme.repair_sets`, the cheapest first): for a local
reconstruction code that is a local group. Of shards on nodes that are well any set is better than
one that needs a node in trouble. A fragment that is missing or damaged is no more asked for in its
stripe, and another set is taken; shards that move are looked for where they were, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Executor
from itertools import islice

from erasure.codec import codec_of
from erasure.scheme import Scheme
from nodes import format as shard_format
from nodes.protocol import Buffer, DriveError, DriveRefused, ShardMissing, ShardName, ShardWriter
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.reader import BlobUnreadable, open_blocks
from s3gw.cluster.topology import Topology
from s3gw.cluster.writer import attempt, together
from s3gw.metadata.records import BlobRef

READ_SECONDS_MAX = 10.0
# There may be millions of sets; behind these any set does that the scheme finds.
SETS_TRIED_MAX = 64

BeforeRead = Callable[[int], Awaitable[None]]
"""Called with the number of bytes that are about to be read, for a limit of bandwidth."""


async def at_once(count: int) -> None:
    """No limit."""


class Rebuilder:
    """Rebuilds shards and reads footers. One per process."""

    def __init__(self, topology: Topology, directory: Directory, executor: Executor) -> None:
        self._topology = topology
        self._directory = directory
        self._executor = executor

    async def rebuild_shard(
        self, ref: BlobRef, index: int, target: str, before_read: BeforeRead = at_once
    ) -> bool:
        """Rebuild shard `index` from the others onto node `target`; say whether it was written.

        Raises BlobUnreadable. The blob's footer is taken from another shard.
        """
        node = self._directory.get(target)
        if node is None:
            return False
        return await self._shard(ref, index, before_read).write_to(node)

    async def footer_map(self, ref: BlobRef, *, skip: int = -1) -> bytes:
        """The footer map of a blob, from any good shard but `skip`. Raises BlobUnreadable."""
        return await self._shard(ref, skip, at_once).footer_map()

    def _shard(self, ref: BlobRef, index: int, before_read: BeforeRead) -> _Shard:
        return _Shard(self._topology, self._directory, self._executor, ref, index, before_read)


class _Shard:
    """A shard to be rebuilt. `ref.size` must be right: it says where everything lies."""

    def __init__(
        self,
        topology: Topology,
        directory: Directory,
        executor: Executor,
        ref: BlobRef,
        index: int,
        before_read: BeforeRead,
    ) -> None:
        self._topology = topology
        self._directory = directory
        self._executor = executor
        self._ref = ref
        self._index = index
        self._before_read = before_read
        self._scheme, _, self._group = topology.location(ref)
        self._codec = codec_of(self._scheme)
        stripe_bytes = self._group.profile.stripe_bytes
        full, rest = divmod(ref.size, stripe_bytes)
        self._lengths = [stripe_bytes] * full + [rest] * bool(rest)
        self._block_bytes = self._scheme.fragment_bytes(stripe_bytes)
        self._payload_bytes = sum(map(self._scheme.fragment_bytes, self._lengths))
        self._absent: set[int] = set()

    async def write_to(self, node: Node) -> bool:
        name = self._name(self._index)
        footer_map = await self.footer_map()
        header = shard_format.build_header(name, self._block_bytes)
        footer = shard_format.build_footer(name, footer_map, self._payload_bytes)
        if len(self._lengths) <= 1:
            blocks = [await self._block(number) for number in range(len(self._lengths))]
            shard = [header, *(buffer for block in blocks for buffer in block), footer]
            return await attempt(node, node.drive.write(name, shard), self._directory)
        writer = node.drive.writer(name)
        sent = False
        try:
            sent = await self._send(node, writer, header, footer)
        finally:
            if not sent:
                await asyncio.gather(writer.abort(), return_exceptions=True)
        return sent and await attempt(node, writer.commit(), self._directory)

    async def _send(self, node: Node, writer: ShardWriter, header: bytes, footer: bytes) -> bool:
        """Send the shard, stripe by stripe; False when its node fails."""
        if not await attempt(node, writer.append([header]), self._directory):
            return False
        for number in range(len(self._lengths)):
            block = await self._block(number)
            if not await attempt(node, writer.append(block), self._directory):
                return False
        return await attempt(node, writer.append([footer]), self._directory)

    async def _block(self, number: int) -> list[Buffer]:
        """The shard's block of one stripe: payload and checksum."""
        fragments = await self._fragments(number)
        loop = asyncio.get_running_loop()
        payload = await loop.run_in_executor(
            self._executor, self._codec.reconstruct, fragments, self._index, self._lengths[number]
        )
        return [payload, shard_format.seal_block(self._name(self._index), number, payload)]

    async def _fragments(self, number: int) -> dict[int, memoryview]:
        """Verified fragments of a stripe that rebuild the one that is wanted."""
        size = self._scheme.fragment_bytes(self._lengths[number])
        good: dict[int, memoryview] = {}
        bad: set[int] = set()
        while True:
            chosen = self._choose(bad)
            if chosen is None:
                raise BlobUnreadable(f"{len(good)} good fragments of stripe {number}")
            asked = [index for index in chosen if index not in good]
            if not asked:
                return {index: good[index] for index in chosen}
            await self._before_read(len(asked) * (size + shard_format.CHECKSUM_BYTES))
            found = await together(self._fragment(i, number, size) for i in asked)
            for index, fragment in zip(asked, found, strict=True):
                if fragment is None:
                    bad.add(index)
                else:
                    good[index] = fragment

    def _choose(self, bad: Collection[int]) -> tuple[int, ...] | None:
        """The cheapest set without the `bad`: of shards on nodes that are well, then without those
        that were absent in an earlier stripe, then of whatever may be there."""
        now = self._directory.clock()
        others = [i for i in range(self._scheme.width) if i != self._index and i not in bad]
        there = [i for i in others if any(node.live for node in self._nodes(i))]
        present = [i for i in there if i not in self._absent]
        well = [i for i in present if any(node.usable(now) for node in self._nodes(i))]
        for candidates in (well, present, there):
            chosen = cheapest_set(self._scheme, self._index, candidates)
            if chosen is not None:
                return chosen
        return None

    def _nodes(self, index: int) -> list[Node]:
        """The nodes that may hold a shard, by the group's record as known now."""
        _, nodes, group = self._topology.location(self._ref)
        before = () if self._ref.nodes else group.record.slots[index].holders_before
        found = [self._directory.get(node_id) for node_id in (nodes[index], *before)]
        return [node for node in found if node is not None]

    def _name(self, index: int) -> ShardName:
        return ShardName(self._ref.profile, self._group.number, self._ref.blob, index)

    async def _fragment(self, index: int, number: int, size: int) -> memoryview | None:
        """A verified fragment, or None when no node can give it."""
        name = self._name(index)
        offset = shard_format.block_offset(self._block_bytes, number)
        damaged = False
        for node in self._nodes(index):
            data = await read_shard(
                self._directory, node, name, offset, size + shard_format.CHECKSUM_BYTES
            )
            if data is None:
                continue
            try:
                return open_blocks(name, number, [size], data)[0]
            except shard_format.ShardCorrupt:
                damaged = True
        if not damaged:
            self._absent.add(index)
        return None

    async def footer_map(self) -> bytes:
        """The footer map, from another shard: footers lie at one place in all shards."""
        blocks = self._payload_bytes + len(self._lengths) * shard_format.CHECKSUM_BYTES
        offset = shard_format.HEADER_BYTES + blocks
        length = shard_format.FOOTER_MAP_BYTES_MAX + shard_format.FOOTER_TAIL_BYTES
        for index in range(self._scheme.width):
            if index == self._index:
                continue
            name = self._name(index)
            for node in self._nodes(index):
                data = await read_shard(self._directory, node, name, offset, length)
                if data is None:
                    continue
                try:
                    return shard_format.parse_footer(name, data).map_bytes
                except shard_format.ShardCorrupt:
                    continue
        raise BlobUnreadable("no shard has a good footer")


async def read_shard(
    directory: Directory,
    node: Node,
    name: ShardName,
    offset: int,
    length: int,
    *,
    seconds_max: float = READ_SECONDS_MAX,
) -> bytes | None:
    """Bytes of a shard, None when the node does not have it or cannot say. A node that fails is
    noted in the directory."""
    if not node.live:
        return None
    try:
        async with asyncio.timeout(seconds_max):
            return await node.drive.read(name, offset, length)
    except (ShardMissing, DriveRefused):
        return None
    except (DriveError, TimeoutError):
        node.failed(directory.clock())
        return None


def cheapest_set(scheme: Scheme, wanted: int, there: Sequence[int]) -> tuple[int, ...] | None:
    """The first of the scheme's repair sets for shard `wanted` that is `there`, or None.

    >>> cheapest_set(Scheme.parse("4+2"), 0, [1, 2, 4, 5])
    (1, 2, 4, 5)
    >>> cheapest_set(Scheme.parse("4+2"), 0, [1, 2, 4]) is None
    True
    """
    present = frozenset(there)
    for repair_set in islice(scheme.repair_sets(wanted), SETS_TRIED_MAX):
        if present.issuperset(repair_set):
            return repair_set
    found = scheme.minimal_read(there, [wanted])
    return tuple(found) if found is not None else None
