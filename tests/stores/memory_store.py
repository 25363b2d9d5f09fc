"""A whole store in one process: engine and drives in memory, clock and randomness under control.

`MemoryCluster` is what survives a crash (metadata and drives); `Process` is one process on it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from erasure.scheme import Scheme
from nodes.memory import MemoryDrive
from nodes.protocol import Buffer
from s3gw.cluster.blobs import BlobStore
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.founding import Founder, found_layout, found_store, profile_name
from s3gw.cluster.membership import Membership
from s3gw.cluster.reader import Damage
from s3gw.cluster.topology import Profile, Topology
from s3gw.kv.interface import KV
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.counters import Counters
from s3gw.metadata.records import BucketRecord, Checksums, StoreRecord
from s3gw.metadata.store import Store, Transaction
from s3gw.objects.keyring.master import MasterKeys
from s3gw.objects.keyring.ring import Sources
from s3gw.objects.storage import Storage
from s3gw.workers.damage import DamageQueue

PROFILE = "4+2"
BUCKET = "bucket"
START_MS = 1_700_000_000_000
GARBAGE_AFTER_MS = 3600 * 1000
STRIPE_BYTES = 128 * 1024
MASTER_KEY = b"m" * 32


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def ms(self) -> int:
        return START_MS + int(self.seconds * 1000)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class InlineExecutor(Executor):
    """Runs what is submitted at once, so that a test has one order of events."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Bytes:
    """A request's body without framing, as `s3gw.objects.ingest.Payload`."""

    algorithms: Collection[str] = ()

    def __init__(self, data: bytes, piece: int = 50_000) -> None:
        self._data = data
        self._piece = piece

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        for first in range(0, len(self._data), self._piece):
            yield self._data[first : first + self._piece]

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        return Checksums()


class MemoryCluster:
    """Metadata and drives. `drives` are named d0, d1, …, each in a zone of its own by default."""

    def __init__(self, drives: int = 8, *, zones: int = 0, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.engine = MemoryStore(self.clock.monotonic)
        self.drives = {
            f"d{number}": MemoryDrive(drive_id=f"d{number}", clock=self.clock.monotonic)
            for number in range(drives)
        }
        self.zone_of = {
            name: f"z{number % (zones or drives)}" for number, name in enumerate(self.drives)
        }
        self.identity: StoreRecord | None = None

    def kv(self) -> MemoryKV:
        return MemoryKV(self.engine)

    async def found(
        self,
        scheme: str = PROFILE,
        *,
        pg_count: int = 8,
        stripe_bytes: int = STRIPE_BYTES,
        nodes: Collection[str] = (),
    ) -> None:
        """Make the store, its profile, and a bucket; the layout has `nodes` (all by default)."""
        kv, name = self.kv(), profile_name(scheme)
        self.identity = await found_store(kv, self.clock.ms())
        founders = [
            Founder(name, self.zone_of[name], 1)
            for name in self.drives
            if not nodes or name in nodes
        ]
        await found_layout(
            kv,
            name,
            Scheme.parse(scheme),
            founders,
            pg_count=pg_count,
            stripe_bytes=stripe_bytes,
            now_ms=self.clock.ms(),
        )
        tx = Transaction()
        bucket = BucketRecord(self.clock.ms(), "owner", "us-east-1", name, b"b" * 16)
        tx.put(keys.bucket(BUCKET), bucket)
        await kv.commit([], list(tx.writes.values()))

    async def process(
        self, kv: KV | None = None, *, seed: int = 0, damaged: Damage | None = None
    ) -> Process:
        """A new process on this cluster."""
        assert self.identity is not None
        engine = kv or self.kv()
        process = Process(self, engine, self.identity, seed, damaged)
        await process.topology.load()
        return process


class Process:
    """One process: its view of the nodes, and `storage`, with which operations are called."""

    def __init__(
        self,
        cluster: MemoryCluster,
        kv: KV,
        identity: StoreRecord,
        seed: int,
        damaged: Damage | None,
    ) -> None:
        self.cluster = cluster
        self.kv = kv
        self.executor = InlineExecutor()
        self.directory = Directory(cluster.clock.monotonic)
        for name, drive in cluster.drives.items():
            self.directory.add(Node(name, cluster.zone_of[name], drive))
        self.topology = Topology(kv)
        store = Store(kv, identity, Counters(kv))
        self.damage = DamageQueue(store, self.topology, cluster.clock.ms)
        self.random = random.Random(seed)
        self.blobs = BlobStore(
            self.topology,
            self.directory,
            self.executor,
            damaged or self.damage,
            self.random.randbytes,
        )
        self.storage = Storage(
            store=store,
            blobs=self.blobs,
            executor=self.executor,
            garbage_after_ms=GARBAGE_AFTER_MS,
            layout_epoch=lambda: 1,
            lease=lambda: 0,
            clock_ms=cluster.clock.ms,
            monotonic=cluster.clock.monotonic,
            sources=Sources(master=MasterKeys([MASTER_KEY])),
        )

    def profile(self, name: str = PROFILE) -> Profile:
        return self.topology.profile(name)

    async def take_lease(self, ttl_seconds: int = 10**6) -> int:
        """Give this process a lease of its own, as the locks of workers need."""
        lease = await self.kv.grant_lease(ttl_seconds)
        self.storage.lease = lambda: lease
        return lease

    async def follow(self) -> None:
        """See layout and placement groups as they are now, and drives that were added."""
        for name, drive in self.cluster.drives.items():
            if self.directory.get(name) is None:
                self.directory.add(Node(name, self.cluster.zone_of[name], drive))
        membership = Membership(self.kv, self.directory, self.topology, None)
        await membership.load()
        self.storage.layout_epoch = membership.layout_epoch
        self.storage.refresh_layout = membership.refresh
