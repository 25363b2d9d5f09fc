"""Simulated gateways: the real one (`s3gw.gateway.Gateway`) with storage, membership and workers,
on a simulated machine. What its sockets would do, clients do here through the network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import TypeVar

from nodes.protocol import Drive, DriveError, DriveRefused, ShardMissing, StalePgRevision
from s3gw.cluster.epochs import LayoutConflict, LayoutRefused
from s3gw.cluster.founding import found_store
from s3gw.cluster.membership import Membership
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.targets import TooFewNodes
from s3gw.cluster.topology import UnknownProfile
from s3gw.cluster.writer import NotWritten
from s3gw.config import Config
from s3gw.gateway import Gateway
from s3gw.kv.interface import EngineError
from s3gw.metadata.records import NodeRecord
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects.reading import keep_withdrawing
from s3gw.objects.storage import Storage
from s3gw.workers.merge import MergeAndRepair
from s3gw.workers.reprofile import ReprofileRefused
from s3gw.workers.runner import Runner
from tests.simulation.etcd import SimulatedEtcd
from tests.simulation.machines import Machine, Network
from tests.simulation.nodes import HEARTBEAT_SECONDS, LEASE_SECONDS, NodeDrive, SimulatedNode
from tests.simulation.trace import Trace

T = TypeVar("T")

GARBAGE_AFTER_SECONDS = 8.0
# A write that is older is not published, and a blob without a reference is an orphan only after
# that and after the longest time that a commit may be under way.
WRITE_AGE_SECONDS = 25.0
ORPHAN_AFTER_SECONDS = 90.0
MERGE_SECONDS = 20.0
SURPLUS_AFTER_SECONDS = 20.0
START_RETRY_SECONDS = 1.0

# What a worker may fail with while engine and nodes are in trouble; all else is a fault of its own.
EXPECTED = (
    EngineError,
    OutcomeUnknown,
    DriveError,
    DriveRefused,
    ShardMissing,
    StalePgRevision,
    BlobUnreadable,
    NotWritten,
    TooFewNodes,
    UnknownProfile,
    LayoutConflict,
    LayoutRefused,
    ReprofileRefused,
    TimeoutError,
)


def config() -> Config:
    return Config(
        root_access_key="simulated",
        root_secret_key="simulated",
        lease_seconds=LEASE_SECONDS,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        garbage_after_seconds=GARBAGE_AFTER_SECONDS,
        orphan_after_seconds=ORPHAN_AFTER_SECONDS,
        worker_interval_seconds=5.0,
        snapshot_interval_seconds=0,
        history_window_seconds=120,
    )


class Unforeseen(logging.Handler):
    """Collects exceptions that the product logs and nobody expects."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, EXPECTED):
            self.found.append(f"{record.getMessage()}: {type(error).__name__}: {error}")


class SimulatedGateway:
    """One gateway through all its lives. `storage` is None until it serves."""

    def __init__(
        self,
        name: str,
        network: Network,
        etcd: SimulatedEtcd,
        nodes: Mapping[str, SimulatedNode],
        chance: Random,
        trace: Trace,
        complain: Callable[[str], None],
    ) -> None:
        self.name = name
        self.storage: Storage | None = None
        self.gateway: Gateway
        self.machine: Machine
        self._network = network
        self._etcd = etcd
        self._nodes = nodes
        self._chance = chance
        self._trace = trace
        self._complain = complain

    @property
    def up(self) -> bool:
        return self.name in self._network.machines and self.machine.alive

    def start(self) -> None:
        self.machine = self._network.boot(self.name)
        self.storage = None
        self._trace.note("start", self.name)
        self.machine.spawn(self._live())

    def kill(self) -> None:
        self._trace.note("kill", self.name)
        self.storage = None
        self._network.kill(self.name)

    async def _live(self) -> None:
        kv = self._etcd.client(self.name)
        while True:
            try:
                gateway = Gateway(config(), kv, await found_store(kv, 0))
                membership = Membership(kv, gateway.directory, gateway.topology, self._make_drive)
                storage = await gateway.start(membership)
            except EngineError:
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                break
        workers = gateway.workers(storage, membership)
        for worker in workers:
            if isinstance(worker, MergeAndRepair):
                worker.interval_seconds = MERGE_SECONDS
                worker._surplus_after_seconds = SURPLUS_AFTER_SECONDS
        Runner(storage.store, gateway.lease.current, workers).start()
        self.gateway, self.storage = gateway, storage
        endless = [
            gateway.lease.keep(),
            membership.follow(),
            gateway.tunables.follow(),
            keep_withdrawing(storage),
        ]
        ended = await asyncio.gather(*endless, return_exceptions=True)
        self._complain(f"{self.name}: what never ends has ended: {ended}")

    def _make_drive(self, node_id: str, record: NodeRecord) -> Drive:
        return NodeDrive(self._network, self.name, self._nodes[node_id])

    async def ask(
        self, client: str, work: Callable[[Storage], Awaitable[T]], *, seconds: float
    ) -> T:
        """Have a request served. Raises Lost, Unreachable, and what `work` raises."""

        async def serve(machine: Machine) -> T:
            while self.storage is None:  # its port is not open yet
                await asyncio.sleep(0.1)
            return await work(self.storage)

        return await self._network.call(client, self.name, serve, seconds=seconds, leaves=True)
