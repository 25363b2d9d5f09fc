"""A store whose layout changes under test: helpers and checks of the rebalancer's tests."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from nodes.check import check_bytes
from nodes.memory import Fault, MemoryDrive
from nodes.protocol import DriveUnreachable, ShardName
from s3gw.cluster import layouts
from s3gw.cluster.layouts import Change, Layout
from s3gw.cluster.tunables import LiveTunables
from s3gw.kv.interface import KV
from s3gw.workers import on_demand
from s3gw.workers.progress import Meter
from s3gw.workers.rebalance import Rebalancer
from tests.stores.audit import Audit
from tests.stores.memory_store import MemoryCluster, Process
from tests.stores.operations import get, put

REFUSED = Fault(error=DriveUnreachable("refused"))
DAY = 24 * 3600.0
SIZES = (0, 900, 70_000, 300_000)


@dataclass
class World:
    """A cluster, what its keys hold, and one process on it."""

    cluster: MemoryCluster
    process: Process
    objects: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    async def make(
        cls, drives: int = 8, *, nodes: int = 0, scheme: str = "4+2", pg_count: int = 8
    ) -> World:
        """`nodes` of the drives are in the first layout, all by default."""
        cluster = MemoryCluster(drives)
        members = [f"d{number}" for number in range(nodes or drives)]
        await cluster.found(scheme, nodes=members, pg_count=pg_count)
        return cls(cluster, await start(cluster))

    async def fill(self, count: int = 16, seed: int = 1) -> None:
        chosen = random.Random(seed)
        for number in range(count):
            key = f"k{number}"
            self.objects[key] = chosen.randbytes(SIZES[number % len(SIZES)])
            await put(self.process, key, self.objects[key])

    async def layout(self) -> Layout:
        return await layouts.current(self.cluster.kv())

    async def change(self, *changes: Change, follow: bool = True) -> int:
        """Apply changes as the next layout."""
        layout = await self.layout()
        epoch = await layouts.apply(
            self.cluster.kv(),
            (await self.cluster.process()).topology,
            layouts.changed(layout.record.nodes, changes),
            reason="test",
            now_ms=self.cluster.clock.ms(),
            expected_epoch=layout.epoch,
            force=True,
        )
        if follow:
            await self.process.follow()
        return epoch

    def fail(self, name: str, *processes: Process) -> None:
        """A node whose lease has ended, and that refuses connections."""
        self.cluster.drives[name].inject(REFUSED)
        self.set_live(name, *processes, live=False)

    def heal(self, name: str, *processes: Process) -> None:
        self.cluster.drives[name].heal()
        self.set_live(name, *processes, live=True)

    def set_live(self, name: str, *processes: Process, live: bool) -> None:
        for process in processes or (self.process,):
            node = process.directory.get(name)
            assert node is not None
            node.live = live
            node.answered()

    def drive(self, name: str) -> MemoryDrive:
        return self.cluster.drives[name]

    async def check_reads(self) -> None:
        """Every object reads as it was written, by a process that knows only the records."""
        reader = await self.cluster.process()
        for node in self.process.directory.all():
            known = reader.directory.get(node.id)
            assert known is not None
            known.live = node.live
        await reader.follow()
        for key, data in self.objects.items():
            assert await get(reader, key) == data, key

    async def check_settled(self) -> None:
        """Every group is where the layout wants it, every blob has all its shards there, whole."""
        layout = await self.layout()
        process = await start(self.cluster)
        audit = Audit(self.cluster, process)
        for profile in process.topology.profiles():
            for number in range(profile.pg_count):
                group = process.topology.group(profile, number)
                target = layout.target(profile.name, number)
                assert target in (None, group.nodes), f"group {profile.name}/{number}"
                assert not any(slot.holders_before for slot in group.record.slots)
        for ref in audit.held().values():
            audit.check_whole(ref)
        audit.check_held()
        audit.check_counts()

    def check_no_surplus(self, *, but: tuple[str, ...] = ()) -> None:
        """No node has a shard of a blob that lies elsewhere."""
        process = self.process
        for name, drive in self.cluster.drives.items():
            for shard in drive.shards:
                group = process.topology.group_of(shard.profile, shard.blob)
                right = group.nodes[shard.index] == name
                assert right or name in but, f"{name} has {shard}"

    def shards(self) -> set[tuple[str, ShardName]]:
        return {
            (name, shard) for name, drive in self.cluster.drives.items() for shard in drive.shards
        }

    def whole_shards(self) -> Counter[ShardName]:
        return Counter(
            shard
            for drive in self.cluster.drives.values()
            for shard, data in drive.shards.items()
            if check_bytes(shard, data).whole
        )

    async def tidy(self) -> None:
        """What merging, repair and collection do in the days after."""
        for _ in range(3):
            await on_demand.merge_all(self.process.storage)
            await on_demand.repair_all(self.process.storage)
            self.cluster.clock.advance(2 * DAY)
            await on_demand.collect_garbage(self.process.storage)
        await on_demand.merge_all(self.process.storage)
        await self.process.topology.load()


async def start(cluster: MemoryCluster, kv: KV | None = None, *, seed: int = 0) -> Process:
    """A process as it is after its start: with a lease, and up to date."""
    process = await cluster.process(kv, seed=seed)
    await process.take_lease()
    await process.follow()
    return process


def rebalancer(process: Process, tunables: LiveTunables | None = None) -> Rebalancer:
    """The worker on a process, in the cluster's time."""
    clock = process.cluster.clock

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    return Rebalancer(
        process.storage, tunables or LiveTunables(process.kv), sleep=sleep, clock=clock.monotonic
    )


def placed(meter: Meter) -> int:
    """Bytes that a process has brought to their new nodes."""
    record = meter.record()
    return record.bytes_moved + record.bytes_rebuilt
