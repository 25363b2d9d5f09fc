"""Simulated storage nodes: the real shard store on a simulated disk, registered as a real node.

What reaches the drive passes the node as in `nodes.server`: the lease is asked before a write, and
the shard checked. The disk loses unsynced writes with the power, is slow or hangs, is full, and
rots. Its jobs run one after the other as a thread's would: at a later moment drawn from the seed.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from random import Random
from typing import Any

from nodes.check import StreamCheck
from nodes.filesystem import Space
from nodes.format import ShardCorrupt
from nodes.protocol import (
    Buffer,
    DriveError,
    DriveRefused,
    DriveStats,
    DriveUnreachable,
    ShardEntry,
    ShardName,
    Verdict,
)
from nodes.store import LocalDrive
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import Registration
from s3gw.kv.interface import EngineError
from s3gw.metadata.records import NodeRecord
from tests.nodes.simulated_filesystem import Directory, File, PowerCut, SimulatedFilesystem
from tests.simulation.etcd import SimulatedEtcd
from tests.simulation.machines import Lost, Machine, Network, Unreachable
from tests.simulation.trace import Trace

CAPACITY_BYTES = 1 << 40
LEASE_SECONDS = 15
HEARTBEAT_SECONDS = 5.0
DEADLINE_SECONDS = 30.0
START_RETRY_SECONDS = 1.0
DISK_SECONDS = 0.0005
POWER_SECONDS_MAX = 0.05
SLOW_FACTOR = 400
NEVER = 1 << 60


class SimulatedDisk(SimulatedFilesystem):
    """A file system that may also be full, or fail to read. `trace` hears of names."""

    def __init__(self, name: str, chance: Random, trace: Trace) -> None:
        super().__init__(chance, NEVER)
        self._name = name
        self._trace = trace
        self.full = False
        self.failing = 0.0

    def space(self) -> Space:
        return Space(CAPACITY_BYTES, 0 if self.full else CAPACITY_BYTES // 2)

    def write(self, file: int, buffers: Sequence[Buffer]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space is left")
        super().write(file, buffers)

    def read(self, path: str, offset: int, length: int) -> bytes:
        if self.failing and self._random.random() < self.failing:
            raise OSError(errno.EIO, "a sector cannot be read")
        return super().read(path, offset, length)

    def publish(self, file: int, directory: int, name: str) -> None:
        self._trace.note("publish", self._name, name)
        super().publish(file, directory, name)

    def remove(self, path: str) -> None:
        self._trace.note("remove", self._name, path)
        super().remove(path)

    def forget(self) -> None:
        """Free what it holds, after a run."""
        self.root = Directory()
        self._open.clear()

    def shard_files(self) -> dict[ShardName, File]:
        """The shards as programs see them."""
        found: dict[ShardName, File] = {}
        for profile, groups in _directories(self.root.seen["data"]):
            for number, group in _directories(groups):
                for file, content in group.seen.items():
                    blob, _, index = file.partition(".")
                    if isinstance(content, File):
                        name = ShardName(profile, int(number), bytes.fromhex(blob), int(index))
                        found[name] = content
        return found

    def lose(self, name: ShardName) -> None:
        """A file that someone removed behind the store's back."""
        group = self.root
        for part in ("data", name.profile, str(name.pg)):
            below = group.seen[part]
            assert isinstance(below, Directory)
            group = below
        file = f"{name.blob.hex()}.{name.index}"
        group.change(file, None)
        group.stored.pop(file, None)
        group.changes = [change for change in group.changes if change[0] != file]


def _directories(item: File | Directory) -> list[tuple[str, Directory]]:
    assert isinstance(item, Directory)
    return [(name, below) for name, below in item.seen.items() if isinstance(below, Directory)]


class DiskExecutor(Executor):
    """Runs jobs on the loop, each at its own moment; when the power goes in one, `cut` is called.
    While `hangs` no job ends."""

    def __init__(self, machine: Machine, chance: Random, cut: Callable[[Machine], None]) -> None:
        self._machine = machine
        self._chance = chance
        self._cut = cut
        self._held: list[Callable[[], None]] = []
        self.seconds = DISK_SECONDS
        self.hangs = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def job() -> None:
            if self.hangs:
                self._held.append(job)
                return
            try:
                function(*args, **kwargs)
            except PowerCut:
                self._cut(self._machine)

        delay = self._chance.expovariate(1 / self.seconds)
        self._machine.loop.call_later(delay, job, context=self._machine.context())
        return Future()

    def go_on(self) -> None:
        self.hangs, self.seconds = False, DISK_SECONDS
        held, self._held = self._held, []
        for job in held:
            self._machine.loop.call_later(0, job, context=self._machine.context())


class SimulatedNode:
    """One node through all its lives."""

    def __init__(
        self,
        name: str,
        zone: str,
        network: Network,
        etcd: SimulatedEtcd,
        chance: Random,
        trace: Trace,
    ) -> None:
        self.name = name
        self.zone = zone
        self.disk = SimulatedDisk(name, chance, trace)
        self._network = network
        self._etcd = etcd
        self._chance = chance
        self._trace = trace
        self._drive: LocalDrive
        self._registration: Registration | None = None
        self.executor: DiskExecutor

    @property
    def up(self) -> bool:
        machine = self._network.machines.get(self.name)
        return machine is not None and machine.alive

    def start(self) -> None:
        machine = self._network.boot(self.name)
        self.executor = DiskExecutor(machine, self._chance, self._power_gone)
        self._drive = LocalDrive(
            self.disk,
            store_id="store",
            drive_id=self.name,
            clock=machine.loop.time,
            executor=self.executor,
        )
        self._registration = None
        machine.spawn(self._live())

    def cut_power(self) -> None:
        """Now, or, if there is work under way, in one of its next steps."""
        machine = self._network.machines[self.name]
        self.disk.cut_at = self.disk.steps + self._chance.randint(1, 12)
        machine.loop.call_later(POWER_SECONDS_MAX, self._power_gone, machine)

    def _power_gone(self, machine: Machine) -> None:
        if machine.alive:
            self._trace.note("dark", self.name)
            self._network.kill(self.name, silent=self._chance.random() < 0.5)
            self.disk.off = True
            self.disk.restart()

    async def _live(self) -> None:
        """What `s3gw.app.node_worker` does beside serving."""
        kv = self._etcd.client(self.name)
        lease = ProcessLease(kv, ttl_seconds=LEASE_SECONDS, heartbeat_seconds=HEARTBEAT_SECONDS)
        record = NodeRecord(
            self.name, self.zone, self.name, CAPACITY_BYTES, CAPACITY_BYTES // 2, self.name, "1", 0
        )
        registration = Registration(kv, lease, {self.name: record})
        while True:
            try:
                await lease.take()
                await registration.register()
            except EngineError:
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                break
        self._registration = registration
        await registration.keep(HEARTBEAT_SECONDS)

    def _require_lease(self) -> None:
        if self._registration is None or not self._registration.writes_allowed():
            raise DriveError("the node's lease may have ended")

    async def write(self, name: ShardName, data: bytes) -> None:
        self._require_lease()
        check = StreamCheck(name)
        try:
            check.feed(data)
            check.finish()
        except ShardCorrupt as error:
            raise DriveRefused(f"not a whole shard: {error}") from error
        await self._drive.write(name, [data])

    async def call(self, method: str, *arguments: Any) -> Any:
        if method == "write":
            return await self.write(*arguments)
        return await getattr(self._drive, method)(*arguments)


class NodeDrive:
    """Implements `nodes.protocol.Drive`: a node as `client` reaches it."""

    def __init__(self, network: Network, client: str, node: SimulatedNode) -> None:
        self._network = network
        self._client = client
        self._node = node

    async def _call(self, method: str, *arguments: Any) -> Any:
        async def serve(_: Machine) -> Any:
            return await self._node.call(method, *arguments)

        try:
            return await self._network.call(
                *(self._client, self._node.name, serve), seconds=DEADLINE_SECONDS, repeats=True
            )
        except Unreachable as error:
            raise DriveUnreachable(str(error)) from error
        except Lost as error:
            raise DriveError(str(error)) from error

    async def write(self, name: ShardName, buffers: Sequence[Buffer]) -> None:
        await self._call("write", name, b"".join(buffers))

    def writer(self, name: ShardName) -> NodeShardWriter:
        return NodeShardWriter(self, name)

    async def read(self, name: ShardName, offset: int, length: int) -> bytes:
        return bytes(await self._call("read", name, offset, length))

    async def size(self, name: ShardName) -> int:
        return int(await self._call("size", name))

    async def delete(self, name: ShardName, pg_revision: int) -> None:
        await self._call("delete", name, pg_revision)

    async def list(self, profile: str, pg: int) -> list[ShardEntry]:
        return [*await self._call("list", profile, pg)]

    async def show_pg_revision(self, profile: str, pg: int, revision: int) -> None:
        await self._call("show_pg_revision", profile, pg, revision)

    async def verify(self, name: ShardName) -> Verdict:
        verdict: Verdict = await self._call("verify", name)
        return verdict

    async def quarantine(self, name: ShardName) -> None:
        await self._call("quarantine", name)

    async def stats(self) -> DriveStats:
        stats: DriveStats = await self._call("stats")
        return stats

    async def close(self) -> None:
        """Nothing is kept open."""


class NodeShardWriter:
    """Sends a shard whole at its commit, as `nodes.client.RemoteShardWriter` does with small
    ones."""

    def __init__(self, drive: NodeDrive, name: ShardName) -> None:
        self._drive = drive
        self._name = name
        self._gathered: list[bytes] = []

    async def append(self, buffers: Sequence[Buffer]) -> None:
        self._gathered.append(b"".join(buffers))

    async def commit(self) -> None:
        await self._drive.write(self._name, self._gathered)

    async def abort(self) -> None:
        self._gathered.clear()
