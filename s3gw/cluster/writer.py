"""Writing one blob: stripes in, durable shards out.

Every stripe is encoded and its fragments go to all target nodes in parallel. A node that fails or
stalls during the write is left behind; the request goes on. At the end each missing shard is
rebuilt onto another node from what was written, when that fits the deadline. Otherwise the blob
is accepted if it survives any one more loss, and is queued for repair; if it merely decodes, it
is written anew on the nodes that live; if it does not decode, the write fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from awscrt import checksums

from erasure.codec import codec_of
from erasure.scheme import Scheme
from nodes import format as shard_format
from nodes.protocol import Buffer, DriveError, DriveFull, DriveRefused, ShardName, ShardWriter
from s3gw.cluster.coding_note import noted
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.targets import Targets, substitute
from s3gw.cluster.topology import Group
from s3gw.metadata.records import BlobRef

log = logging.getLogger(__name__)

STALL_SECONDS = 10.0
SPARES_SECONDS_MAX = 10.0


Call = Callable[[], Awaitable[None]]
Result = TypeVar("Result")


class NotWritten(Exception):
    """Too many nodes failed: the blob is not durable and nothing refers to it."""


@dataclass(frozen=True, slots=True)
class Written:
    """A durable blob: the reference to publish, the group it was placed by, and the shards that
    are missing from it (to be queued for repair in the publishing commit)."""

    ref: BlobRef
    group: Group
    nodes: tuple[str, ...]
    scheme: Scheme
    missing: tuple[int, ...]


class BlobWriter:
    """Writes the stripes of one blob in order; then exactly one of `finish` and `abort`."""

    def __init__(
        self, group: Group, blob: bytes, targets: Targets, directory: Directory, executor: Executor
    ) -> None:
        self.group = group
        self.blob = blob
        self.targets = targets
        self._directory = directory
        self._executor = executor
        self._codec = codec_of(targets.scheme)
        self._stripes = 0
        self._size = 0
        self._crc = 0
        self._shard_payload = 0
        self._names = [
            ShardName(group.profile.name, group.number, blob, index)
            for index in range(targets.scheme.width)
        ]
        self._block_bytes = targets.scheme.fragment_bytes(group.profile.stripe_bytes)
        self._writers: list[ShardWriter | None] = [None] * targets.scheme.width

    async def write_whole(self, payload: Buffer, footer_map: bytes) -> Written:
        """Write a blob of at most one stripe in one call to every node."""
        shards = [self._open_shard(name) for name in self._names]
        if len(payload):
            for shard, blocks in zip(shards, self._prepare(payload), strict=True):
                shard += blocks
        footer_map = self._noted(footer_map)
        for name, shard in zip(self._names, shards, strict=True):
            shard.append(shard_format.build_footer(name, footer_map, self._shard_payload))
        written = await together(
            [self._write_one(index, shard) for index, shard in enumerate(shards)]
        )
        nodes = list(self.targets.nodes)
        if not all(written):
            nodes = [node if done else "" for node, done in zip(nodes, written, strict=True)]
            await self._write_elsewhere(nodes, shards)
        return self._accept(nodes)

    async def write(self, stripe: Buffer) -> None:
        """Encode and send one stripe: full, but for the last. Backpressure is in the wait.

        Raises NotWritten as soon as too few nodes are left.
        """
        if not self._stripes:
            await self._start()
        loop = asyncio.get_running_loop()
        blocks = await loop.run_in_executor(self._executor, self._prepare, stripe)
        await self._each(
            [
                (index, partial(writer.append, blocks[index]))
                for index, writer in enumerate(self._writers)
                if writer is not None
            ]
        )
        self._require_decodable()

    async def finish(self, footer_map: bytes) -> Written:
        """Write footers and make all shards durable. Raises NotWritten."""
        if not self._stripes:
            return await self.write_whole(b"", footer_map)
        footer_map = self._noted(footer_map)
        await self._each(
            [
                (index, partial(self._finish_one, index, writer, footer_map))
                for index, writer in enumerate(self._writers)
                if writer is not None
            ]
        )
        self._require_decodable()
        nodes = [
            node if writer is not None else ""
            for node, writer in zip(self.targets.nodes, self._writers, strict=True)
        ]
        return self._accept(nodes)

    async def abort(self) -> None:
        """Leave nothing behind. For a blob whose reference was never sent in a commit."""
        writers, self._writers = self._writers, [None] * len(self._writers)
        await asyncio.gather(
            *(writer.abort() for writer in writers if writer is not None), return_exceptions=True
        )

    def _prepare(self, stripe: Buffer) -> list[list[Buffer]]:
        """Per shard, the block of this stripe: payload and checksum."""
        number = self._stripes
        payloads = self._codec.encode(stripe)
        self._crc = checksums.crc64nvme(stripe, self._crc)
        self._size += len(stripe)
        self._stripes += 1
        self._shard_payload += len(payloads[0])
        return [
            [payload, shard_format.seal_block(name, number, payload)]
            for name, payload in zip(self._names, payloads, strict=True)
        ]

    def _noted(self, footer_map: bytes) -> bytes:
        return noted(footer_map, self.group.profile, self.targets.scheme, self._size, self._crc)

    def _open_shard(self, name: ShardName) -> list[Buffer]:
        return [shard_format.build_header(name, self._block_bytes)]

    async def _start(self) -> None:
        for index, node_id in enumerate(self.targets.nodes):
            node = self._directory.get(node_id)
            if node is not None:
                self._writers[index] = node.drive.writer(self._names[index])
        await self._each(
            [
                (index, partial(writer.append, self._open_shard(self._names[index])))
                for index, writer in enumerate(self._writers)
                if writer is not None
            ]
        )

    async def _finish_one(self, index: int, writer: ShardWriter, footer_map: bytes) -> None:
        name = self._names[index]
        await writer.append([shard_format.build_footer(name, footer_map, self._shard_payload)])
        await writer.commit()

    async def _each(self, calls: Sequence[tuple[int, Call]]) -> None:
        """Make the calls in parallel; a shard whose call fails is given up."""
        results = await together([self._guarded(index, call) for index, call in calls])
        for (index, _), done in zip(calls, results, strict=True):
            if not done:
                writer, self._writers[index] = self._writers[index], None
                if writer is not None:
                    await asyncio.gather(writer.abort(), return_exceptions=True)

    async def _guarded(self, index: int, call: Call) -> bool:
        node = self._directory.get(self.targets.nodes[index])
        return node is not None and await attempt(node, call(), self._directory)

    async def _write_one(self, index: int, shard: Sequence[Buffer]) -> bool:
        node = self._directory.get(self.targets.nodes[index])
        if node is None:
            return False
        return await attempt(node, node.drive.write(self._names[index], shard), self._directory)

    async def _write_elsewhere(self, nodes: list[str], shards: Sequence[Sequence[Buffer]]) -> None:
        """Put the shards that failed on nodes without one."""

        async def write(index: int, node: Node) -> bool:
            shard = node.drive.write(self._names[index], shards[index])
            return await attempt(node, shard, self._directory)

        tolerance = self.targets.scheme.tolerance
        await fill_holes(nodes, self.targets.nodes, self._directory, tolerance, write)

    def _require_decodable(self) -> None:
        held = [index for index, writer in enumerate(self._writers) if writer is not None]
        if not self.targets.scheme.decodable(held):
            raise NotWritten(f"{len(held)} of {len(self._writers)} shards could be written")

    def _accept(self, nodes: Sequence[str]) -> Written:
        scheme = self.targets.scheme
        held = [index for index, node in enumerate(nodes) if node]
        if not scheme.decodable(held):
            raise NotWritten(f"{len(held)} of {len(nodes)} shards could be written")
        explicit = tuple(nodes) != self.group.nodes
        ref = BlobRef(
            self.group.profile.name,
            self.blob,
            self._size,
            self._crc,
            tuple(nodes) if explicit else (),
            str(scheme) if explicit else "",
        )
        missing = tuple(index for index, node in enumerate(nodes) if not node)
        return Written(ref, self.group, tuple(nodes), scheme, missing)


async def together(calls: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """What calls return that are made at once. However this ends, none of them is under way then:
    who is cancelled here goes on to clean up after them. Raises what the first one raised."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    results = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


def survives_one_more(scheme: Scheme, held: Sequence[int]) -> bool:
    """Whether a blob of which these shards exist still decodes after losing any one of them."""
    return all(
        scheme.decodable([index for index in held if index != lost]) for lost in held
    ) and bool(held)


async def fill_holes(
    nodes: list[str],
    avoid: Collection[str],
    directory: Directory,
    zone_limit: int,
    put: Callable[[int, Node], Awaitable[bool]],
) -> None:
    """Let `put` bring the shards that have no node ("") to spare nodes, all at once, within the
    zone rule; where that fails, to others, until the deadline. `nodes` is filled in as they
    arrive. No node is tried twice, and none of `avoid` at all. Raises what `put` raises.
    """
    tried = {*nodes, *avoid}

    async def bring(index: int, node: Node) -> None:
        if await put(index, node):
            nodes[index] = node.id

    try:
        async with asyncio.timeout(SPARES_SECONDS_MAX):
            while "" in nodes:
                spares = {n.id: n for n in directory.spare_nodes() if n.id not in tried}
                holders = [node for node_id in nodes if (node := directory.get(node_id))]
                zones = {node.id: node.zone for node in (*holders, *spares.values())}
                wanted = substitute(nodes, zones, zone_limit=zone_limit, spares=spares)
                holes = [(i, n) for i, n in enumerate(wanted) if n and not nodes[i]]
                if not holes:
                    return
                tried.update(node_id for _, node_id in holes)
                calls = [bring(index, spares[node_id]) for index, node_id in holes]
                await together(calls)
    except TimeoutError:
        log.info("%d shards could not be brought to spare nodes in time", nodes.count(""))


async def attempt(node: Node, call: Awaitable[None], directory: Directory) -> bool:
    """Make a call to a node under the stall deadline; say whether it worked, and let the node's
    breaker know."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await call
    except DriveFull:
        node.full(directory.clock())
        return False
    except DriveRefused:
        return False  # it answers: the call was wrong, or another has written this shard
    except (DriveError, TimeoutError):
        node.failed(directory.clock())
        return False
    node.answered()
    return True
