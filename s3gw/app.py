"""The composition root: what a gateway, a node and `up` are made of. The only module that names
an engine.

Each `…_worker` is the entry point of a worker process (s3gw.supervisor); it builds the process
from its configuration, serves until the shutdown event, and takes it down in reverse order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erasure.scheme import Scheme
from nodes.client import RemoteDrive, open_session
from nodes.http_guard import GuardOptions, serve
from nodes.identity import DriveIdentity, IdentityError, adopt
from nodes.protocol import Drive
from nodes.server import build_app as build_node_app
from nodes.store import LocalDrive
from s3gw import limits
from s3gw.admin.app import build_app as build_admin_app
from s3gw.cluster.blobs import BlobStore
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.founding import Founder, found_layout, found_store, layout_exists
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import Membership, Registration
from s3gw.cluster.topology import Topology
from s3gw.config import Config, host_and_port
from s3gw.drives import metadata_directory
from s3gw.identities.root import Root
from s3gw.kv.etcd import EtcdKV
from s3gw.kv.interface import KV, At, Conflict, EngineError, Put
from s3gw.kv.journal import Journal
from s3gw.kv.sqlite import SqliteKV
from s3gw.logs import configure
from s3gw.metadata import keys
from s3gw.metadata.counters import Counters
from s3gw.metadata.records import BlobRef, LayoutRecord, NodeRecord, StoreRecord, decode
from s3gw.metadata.store import Store
from s3gw.metrics import Metrics
from s3gw.objects.storage import Storage
from s3gw.operations.call import Settings
from s3gw.server.pipeline import Edge, S3App
from s3gw.server.resolve import Domains
from s3gw.supervisor import WorkerContext

log = logging.getLogger(__name__)

THREADS_PER_PROCESS = 8
NOTE_SECONDS = 60.0
VERSION = "0.1.0"
FOUNDING_LOCK = "founding"
FOUNDING_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class DriveAt:
    """A drive of this machine: where it is and who it is."""

    path: str
    drive_id: str
    nonce: str


@dataclass(frozen=True)
class Task:
    """What a worker process gets from its supervisor."""

    config: Config
    store_id: str
    drives: tuple[DriveAt, ...] = ()

    @property
    def paths(self) -> list[Path]:
        return [Path(drive.path) for drive in self.drives]


def scheme_of(config: Config) -> Scheme:
    return Scheme.parse(config.profile)


async def open_sqlite(config: Config, drive_paths: Sequence[Path], metadata: Path) -> SqliteKV:
    """The embedded engine with its journal on the drives."""
    journal = Journal(drive_paths, scheme_of(config).tolerance + 1)
    return await SqliteKV.open(
        metadata, journal, history_seconds=float(config.history_window_seconds)
    )


async def open_etcd(config: Config) -> EtcdKV:
    return await EtcdKV.connect(config.etcd, quota_bytes=config.etcd_quota_bytes)


async def found_on_drives(
    kv: KV, config: Config, drives: Sequence[DriveAt], store_id: str
) -> StoreRecord:
    """Make the store on the drives of this machine if it is not made yet."""
    record = await found_store(kv, time.time_ns() // 1_000_000, store_id)
    if not await layout_exists(kv):
        founders = [Founder(drive.drive_id, drive.drive_id, 1) for drive in drives]
        await found_layout(
            kv,
            config.profile,
            scheme_of(config),
            founders,
            pg_count=config.pg_count,
            stripe_bytes=config.stripe_bytes,
            now_ms=time.time_ns() // 1_000_000,
        )
    return record


async def layout_nodes(kv: KV) -> dict[str, str]:
    """Node id to zone of the first layout; empty when there is none yet."""
    (item,) = (await kv.get_many([keys.layout(1)])).items
    if item is None:
        return {}
    return {node.node: node.zone for node in decode(LayoutRecord, item.value).nodes}


async def note_revisions(kv: KV, incarnation: int, drives: Sequence[DriveAt]) -> None:
    """Note on the drives, for ever, how far the metadata has come; a start with older metadata is
    refused then."""
    while True:
        await asyncio.sleep(NOTE_SECONDS)
        try:
            revision = (await kv.get_many([])).revision
            for drive in drives:
                identity = await asyncio.to_thread(DriveIdentity.open, drive.path)
                await asyncio.to_thread(identity.raise_seen, incarnation, revision)
        except (EngineError, IdentityError) as error:
            log.warning("the metadata's revision could not be noted on the drives: %s", error)


class Gateway:
    """One gateway process: storage, S3 port, admin port, background tasks."""

    def __init__(self, task: Task, kv: KV, identity: StoreRecord) -> None:
        config = task.config
        self.config = config
        self.kv = kv
        self.metrics = Metrics()
        self.executor = ThreadPoolExecutor(THREADS_PER_PROCESS, "data")
        self.lease = ProcessLease(
            kv, ttl_seconds=config.lease_seconds, heartbeat_seconds=config.heartbeat_seconds
        )
        self.directory = Directory()
        self.topology = Topology(kv)
        self.blobs = BlobStore(self.topology, self.directory, self.executor, self._damaged)
        self.identity = identity

    def _damaged(self, ref: BlobRef, index: int, reason: str) -> None:
        self.metrics.count("s3gw_damaged_fragments_total")

    async def start(self, membership: Membership) -> Storage:
        """Take the lease and read the topology."""
        await self.lease.take()
        await membership.load()
        store = Store(self.kv, self.identity, Counters(self.kv, self.lease.block))
        return Storage(
            store=store,
            blobs=self.blobs,
            executor=self.executor,
            garbage_after_ms=int(self.config.garbage_after_seconds * 1000),
            layout_epoch=membership.layout_epoch,
            lease=self.lease.current,
        )

    async def not_ready(self) -> str:
        """Why requests cannot be served now; "" when they can."""
        try:
            await self.kv.get_many([keys.STORE])
        except EngineError as error:
            return f"the metadata engine does not answer: {error}"
        usable = len(self.directory.usable_nodes())
        needed = scheme_of(self.config).tolerance + 1
        return "" if usable >= needed else f"{usable} nodes are usable, {needed} are needed"

    def s3_app(self, storage: Storage) -> S3App:
        config = self.config
        return S3App(
            Edge(
                storage=storage,
                root=Root(config.root_access_key, config.root_secret_key),
                settings=Settings(config.region, config.profile, f"http://{config.s3}"),
                domains=Domains(config.domains),
                metrics=self.metrics,
            )
        )

    async def run(
        self,
        context: WorkerContext,
        membership: Membership,
        tasks: Sequence[Coroutine[Any, Any, None]] = (),
    ) -> None:
        """Serve both ports until shutdown, with `tasks` in the background."""
        storage = await self.start(membership)
        s3, admin = context.sockets
        guard = GuardOptions(
            head_seconds=self.config.head_seconds,
            body_idle_seconds=self.config.idle_seconds,
            send_idle_seconds=self.config.idle_seconds,
        )
        background = [
            asyncio.create_task(self.lease.keep()),
            asyncio.create_task(membership.follow()),
            *(asyncio.create_task(task) for task in tasks),
        ]
        servers = asyncio.gather(
            serve(self.s3_app(storage), [s3], guard, context.shutdown),
            serve(build_admin_app(self.not_ready, self.metrics), [admin], guard, context.shutdown),
        )
        context.ready()
        try:
            await servers
        finally:
            await _cancel(background)
            await storage.store.settle()
            await self.lease.release()
            self.executor.shutdown(wait=False)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def up_worker(context: WorkerContext) -> None:
    """A process of `s3gw up`: a gateway with the drives in it."""
    task: Task = context.payload
    configure(task.config.log_level)
    async with AsyncExitStack() as stack:
        metadata = metadata_directory(task.config)
        kv = await open_sqlite(task.config, task.paths, metadata)
        stack.push_async_callback(kv.close)
        identity = await found_store(kv, 0)
        gateway = Gateway(task, kv, identity)
        zones = await layout_nodes(kv)
        for place, drive in zip(task.drives, open_local_drives(task, context), strict=True):
            stack.push_async_callback(drive.close)
            zone = zones.get(place.drive_id, place.drive_id)
            gateway.directory.add(Node(place.drive_id, zone, drive))
        membership = Membership(kv, gateway.directory, gateway.topology, None)
        tasks = []
        if context.index == 0:
            tasks.append(note_revisions(kv, identity.incarnation, task.drives))
        await gateway.run(context, membership, tasks)


def open_local_drives(task: Task, context: WorkerContext) -> list[LocalDrive]:
    """The drives of this machine, whose locks the supervisor holds."""
    drives = []
    for drive in task.drives:
        adopt(drive.path, context.fds[drive.drive_id])
        drives.append(LocalDrive.open(drive.path, reserve_ratio=task.config.reserve_percent / 100))
    return drives


async def gateway_worker(context: WorkerContext) -> None:
    """A process of `s3gw gateway`: stateless, on etcd and remote nodes."""
    task: Task = context.payload
    configure(task.config.log_level)
    async with AsyncExitStack() as stack:
        kv = await open_etcd(task.config)
        stack.push_async_callback(kv.close)
        identity = await found_store(kv, time.time_ns() // 1_000_000)
        session = open_session()
        stack.push_async_callback(session.close)

        def make_drive(node_id: str, record: NodeRecord) -> Drive:
            return RemoteDrive(
                session, f"http://{record.address}", node_id, identity.cluster_secret
            )

        gateway = Gateway(task, kv, identity)
        membership = Membership(kv, gateway.directory, gateway.topology, make_drive)
        await found_on_nodes(kv, task.config)
        await gateway.run(context, membership)


async def found_on_nodes(kv: KV, config: Config) -> None:
    """Wait until the store has a layout; make it when enough nodes are there and no more come."""
    lease = await kv.grant_lease(config.lease_seconds)
    try:
        seen, since = -1, time.monotonic()
        while not await layout_exists(kv):
            page = await kv.scan(
                keys.NODES, keys.after_prefix(keys.NODES), limit=limits.SCAN_ITEMS_MAX
            )
            await kv.renew_lease(lease)
            if len(page.items) != seen:
                seen, since = len(page.items), time.monotonic()
            settled = time.monotonic() - since >= config.settle_seconds
            if seen >= scheme_of(config).width and settled and await _lock(kv, lease):
                nodes = {
                    item.key[len(keys.NODES) :].decode(): decode(NodeRecord, item.value)
                    for item in page.items
                }
                await found_layout(
                    kv,
                    config.profile,
                    scheme_of(config),
                    [Founder(n, r.zone, r.capacity_bytes) for n, r in nodes.items()],
                    pg_count=config.pg_count,
                    stripe_bytes=config.stripe_bytes,
                    now_ms=time.time_ns() // 1_000_000,
                )
            await asyncio.sleep(FOUNDING_POLL_SECONDS)
    finally:
        await kv.revoke_lease(lease)


async def _lock(kv: KV, lease: int) -> bool:
    key = keys.lock(FOUNDING_LOCK)
    try:
        await kv.commit([At(key, 0)], [Put(key, b"", lease)])
    except Conflict:
        return False
    return True


async def node_worker(context: WorkerContext) -> None:
    """The process of `s3gw node`: its drives over HTTP, registered under a lease."""
    task: Task = context.payload
    configure(task.config.log_level)
    config = task.config
    async with AsyncExitStack() as stack:
        kv = await open_etcd(config)
        stack.push_async_callback(kv.close)
        identity = await found_store(kv, time.time_ns() // 1_000_000)
        drives: dict[str, Drive] = {}
        records: dict[str, NodeRecord] = {}
        for place, drive in zip(task.drives, open_local_drives(task, context), strict=True):
            stack.push_async_callback(drive.close)
            drives[place.drive_id] = drive
            stats = await drive.stats()
            records[place.drive_id] = NodeRecord(
                address=advertised(config.listen),
                zone=config.zone,
                host=advertised(config.listen),
                capacity_bytes=stats.capacity_bytes,
                free_bytes=stats.free_bytes,
                nonce=place.nonce,
                version=VERSION,
                registered_ms=time.time_ns() // 1_000_000,
            )
        lease = ProcessLease(
            kv, ttl_seconds=config.lease_seconds, heartbeat_seconds=config.heartbeat_seconds
        )
        registration = Registration(kv, lease, records)
        app = build_node_app(drives, identity.cluster_secret, registration)
        await lease.take()
        await registration.register()
        keeping = asyncio.create_task(registration.keep(config.heartbeat_seconds))
        context.ready()
        try:
            await serve(app, context.sockets, GuardOptions(), context.shutdown)
        finally:
            await _cancel([keeping])
            await lease.release()


def advertised(listen: str) -> str:
    """The address that gateways reach this node at."""
    host, port = host_and_port(listen)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
