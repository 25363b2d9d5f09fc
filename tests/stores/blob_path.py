"""Writing and reading blobs without S3: the data path alone, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from nodes.memory import Fault, MemoryDrive
from nodes.protocol import ShardName
from s3gw.cluster.topology import Group
from s3gw.cluster.writer import Written
from s3gw.metadata.records import BlobRef
from tests.stores.memory_store import PROFILE, Clock, MemoryCluster, Process

STRIPE = 4096
FOOTER = b"\x80"


class LoopClock(Clock):
    """The event loop's time."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class BlobPath:
    """A store with small stripes, and one process on it. `reports` are damaged shards."""

    def __init__(self, cluster: MemoryCluster, process: Process) -> None:
        self.cluster = cluster
        self.process = process
        self.reports: list[tuple[bytes, int]] = []

    @classmethod
    async def open(cls, drives: int = 8, *, scheme: str = PROFILE) -> BlobPath:
        cluster = MemoryCluster(drives, clock=LoopClock())
        await cluster.found(scheme, pg_count=4, stripe_bytes=STRIPE)
        reports: list[tuple[bytes, int]] = []
        process = await cluster.process(
            damaged=lambda ref, index, reason: reports.append((ref.blob, index))
        )
        path = cls(cluster, process)
        path.reports = reports
        return path

    def draw(self, profile: str = PROFILE) -> tuple[bytes, Group]:
        return self.process.blobs.draw(self.process.profile(profile), lambda group: False)

    async def write(
        self, data: bytes, *, profile: str = PROFILE, place: tuple[bytes, Group] | None = None
    ) -> Written:
        """Write a blob as a request does. Raises NotWritten, TooFewNodes."""
        blob, group = place or self.draw(profile)
        writer = self.process.blobs.open_writer(blob, group)
        try:
            for first in range(0, len(data), STRIPE):
                await writer.write(data[first : first + STRIPE])
            written = await writer.finish(FOOTER)
        except BaseException:
            await writer.abort()
            raise
        return await self.process.blobs.complete(written, FOOTER)

    async def read(self, ref: BlobRef, first: int = 0, stop: int | None = None) -> bytes:
        end = ref.size if stop is None else stop
        return b"".join(
            [
                bytes(buffer)
                async for buffers in self.process.blobs.read(ref, first, end)
                for buffer in buffers
            ]
        )

    def name(self, ref: BlobRef, index: int) -> ShardName:
        group = self.process.topology.group_of(ref.profile, ref.blob)
        return ShardName(ref.profile, group.number, ref.blob, index)

    def drive(self, ref: BlobRef, index: int) -> MemoryDrive:
        _, nodes, _ = self.process.topology.location(ref)
        return self.cluster.drives[nodes[index]]

    def shard(self, ref: BlobRef, index: int) -> bytes:
        return self.drive(ref, index).shards[self.name(ref, index)]

    def replace(self, ref: BlobRef, index: int, data: bytes) -> None:
        self.drive(ref, index).shards[self.name(ref, index)] = data

    def lose(self, ref: BlobRef, index: int) -> None:
        del self.drive(ref, index).shards[self.name(ref, index)]

    def flip(self, ref: BlobRef, index: int, place: int) -> None:
        data = bytearray(self.shard(ref, index))
        data[place % len(data)] ^= 1
        self.replace(ref, index, bytes(data))

    def fail(self, names: Iterable[str], fault: Fault, *calls: str) -> None:
        for name in names:
            self.cluster.drives[name].inject(fault, *calls)

    def heal(self) -> None:
        for drive in self.cluster.drives.values():
            drive.heal()
        for node in self.process.directory.all():
            node.answered()


def payload(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)
