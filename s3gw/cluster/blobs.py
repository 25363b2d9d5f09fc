"""Blobs over the cluster's shards: draw an id, write, read, rebuild a shard, write anew.

The one entrance of the layers above to the data path. It knows placement, coding and nodes;
publication (the commit that makes a blob referred to) is the business of `s3gw.objects`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing

from nodes.protocol import Buffer
from placement.groups import pg_of
from s3gw import limits
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.policies import preference
from s3gw.cluster.reader import BlobReader, BlobUnreadable, Damage, HedgeBudget
from s3gw.cluster.rebuild import BeforeRead, Rebuilder, at_once
from s3gw.cluster.targets import TooFewNodes, choose
from s3gw.cluster.topology import Group, Profile, Topology
from s3gw.cluster.writer import (
    BlobWriter,
    NotWritten,
    Written,
    fill_holes,
    survives_one_more,
)
from s3gw.metadata.records import BlobRef

log = logging.getLogger(__name__)

DRAWS_MAX = 8
WINDOW_BUDGET_BYTES = 24 * limits.MIB


class BlobStore:
    """Reads and writes blobs. One per process."""

    def __init__(
        self,
        topology: Topology,
        directory: Directory,
        executor: Executor,
        damaged: Damage,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.topology = topology
        self.directory = directory
        self._executor = executor
        self._damaged = damaged
        self._random_bytes = random_bytes
        self._rebuilder = Rebuilder(topology, directory, executor)
        self._budget = HedgeBudget()
        self._readers = 0
        self.zone = ""
        """The zone of this gateway: reads and the latency policy prefer it. "": none."""

    @property
    def hedges(self) -> int:
        """Shards asked for because another was late, since this process started."""
        return self._budget.hedges

    def draw(
        self, profile: Profile, avoid: Callable[[Group], bool], *, placement: str = ""
    ) -> tuple[bytes, Group]:
        """A new blob id and its group; of a few draws the first whose group is not to be avoided
        (because a commit of this process holds its counter), or of such the one that suits the
        placement policy best."""
        prefer = preference(placement, self.directory, self.zone)
        best: tuple[float, bytes, Group] | None = None
        for _ in range(DRAWS_MAX):
            blob = self._random_bytes(16)
            group = self.topology.group(profile, pg_of(blob, profile.pg_count))
            if avoid(group):
                continue
            score = 1.0 if prefer is None else prefer(group)
            if best is None or score > best[0]:
                best = score, blob, group
            if score >= 1:
                break
        return best[1:] if best is not None else (blob, group)

    def open_writer(self, blob: bytes, group: Group) -> BlobWriter:
        """A writer onto the best nodes of the moment. Raises TooFewNodes."""
        usable = self.directory.writable_nodes()
        targets = choose(
            group.profile.scheme,
            group.nodes,
            {node.id: node.zone for node in usable},
            leaving=[node.id for node in usable if not node.counts],
            spares={node.id for node in self.directory.spare_nodes()},
        )
        return BlobWriter(group, blob, targets, self.directory, self._executor)

    async def complete(self, written: Written, footer_map: bytes) -> Written:
        """Give a blob that lost nodes while it was written its redundancy back, as far as the
        deadline allows. Raises NotWritten when it cannot be made to survive one more loss."""
        if not written.missing:
            return written
        source = written.ref
        written = await self._rebuild_missing(written)
        held = [index for index, node in enumerate(written.nodes) if node]
        if survives_one_more(written.scheme, held):
            return written
        return await self._write_anew(written.group.profile, source, footer_map)

    async def _rebuild_missing(self, written: Written) -> Written:
        """Rebuild the missing shards onto spare nodes, as many as can be before the deadline."""
        source, nodes = written.ref, list(written.nodes)

        async def rebuild(index: int, node: Node) -> bool:
            return await self.rebuild_shard(source, index, node.id)

        try:
            await fill_holes(nodes, (), self.directory, written.scheme.tolerance, rebuild)
        except BlobUnreadable as error:
            log.info("blob %s: a missing shard was not rebuilt: %s", source.blob.hex(), error)
        missing = tuple(index for index, node in enumerate(nodes) if not node)
        ref = _explicit(written, nodes) if tuple(nodes) != written.group.nodes else written.ref
        return Written(ref, written.group, tuple(nodes), written.scheme, missing)

    async def _write_anew(self, profile: Profile, source: BlobRef, footer_map: bytes) -> Written:
        """Write the same bytes as a new blob onto the nodes that live now."""
        blob, group = self.draw(profile, lambda group: False)
        try:
            writer = self.open_writer(blob, group)
        except TooFewNodes as error:
            raise NotWritten(str(error)) from error
        try:
            stripe_bytes = group.profile.stripe_bytes
            async for buffers in self.read(source, 0, source.size, window_stripes=1):
                stripe = b"".join(buffers)
                assert len(stripe) <= stripe_bytes
                await writer.write(stripe)
            again = await writer.finish(footer_map)
        except BlobUnreadable as error:
            await writer.abort()
            raise NotWritten(str(error)) from error
        except BaseException:
            await writer.abort()
            raise
        held = [index for index, node in enumerate(again.nodes) if node]
        if not survives_one_more(again.scheme, held):
            raise NotWritten("nodes keep failing")
        return again

    async def read(
        self, ref: BlobRef, first: int, stop: int, *, window_stripes: int = 0
    ) -> AsyncIterator[list[Buffer]]:
        """Bytes [first, stop) of a blob, verified, as lists of buffers.

        Raises BlobUnreadable, but goes on from where it is when the placement group has moved.
        """
        if first >= stop:
            return
        await self.topology.know(ref.profile)
        self._readers += 1
        position = first
        try:
            while position < stop:
                tried = self.topology.group_of(ref.profile, ref.blob)
                reader = self._reader(ref)
                try:
                    windows = reader.read(position, stop, window_stripes or self._window(ref))
                    async with aclosing(windows):
                        async for buffers in windows:
                            position += sum(map(len, buffers))
                            yield buffers
                except BlobUnreadable:
                    # The watch, or another reader, may have learned of a move before us.
                    if (await self.topology.reread(tried)).revision == tried.revision:
                        raise
        finally:
            self._readers -= 1

    def _window(self, ref: BlobRef) -> int:
        """Stripes per window, so that all readers together stay within the memory budget."""
        stripe_bytes = self.topology.profile(ref.profile).stripe_bytes
        return max(1, min(4, WINDOW_BUDGET_BYTES // (2 * self._readers * stripe_bytes)))

    def _reader(self, ref: BlobRef) -> BlobReader:
        scheme, nodes, group = self.topology.location(ref)
        if ref.nodes:
            before: Sequence[Sequence[str]] = [()] * len(nodes)
        else:
            before = [slot.holders_before for slot in group.record.slots]
        return BlobReader(
            ref,
            group.number,
            scheme,
            group.profile.stripe_bytes,
            nodes,
            before,
            self.directory,
            self._executor,
            self._budget,
            self._damaged,
            zone=self.zone,
        )

    async def rebuild_shard(
        self, ref: BlobRef, index: int, target: str, before_read: BeforeRead = at_once
    ) -> bool:
        """Rebuild shard `index` from the others onto node `target`; say whether it was written.
        Raises BlobUnreadable."""
        return await self._rebuilder.rebuild_shard(ref, index, target, before_read)

    async def footer_map(self, ref: BlobRef, *, skip: int = -1) -> bytes:
        """The footer map of a blob, from any good shard but `skip`. Raises BlobUnreadable."""
        return await self._rebuilder.footer_map(ref, skip=skip)


def _explicit(written: Written, nodes: Sequence[str]) -> BlobRef:
    ref = written.ref
    return BlobRef(ref.profile, ref.blob, ref.size, ref.crc64, tuple(nodes), str(written.scheme))
