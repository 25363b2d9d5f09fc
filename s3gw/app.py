"""The composition root: what a gateway, a node and `up` are made of. The only module that names
an engine.

Each `…_worker` is the entry point of a worker process (s3gw.supervisor); it builds the process
from its configuration, serves until the shutdown event, and takes it down in reverse order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from nodes.client import RemoteDrive, open_session
from nodes.http_guard import GuardOptions, serve
from nodes.identity import DriveIdentity, IdentityError, adopt
from nodes.protocol import Drive
from nodes.server import build_app as build_node_app
from nodes.store import LocalDrive
from s3gw import limits
from s3gw.cluster.directory import Node
from s3gw.cluster.founding import (
    Founder,
    found_layout,
    found_store,
    layout_exists,
    profile_name,
)
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import Membership, NodeIdTaken, Registration
from s3gw.config import Config, ConfigError, host_and_port
from s3gw.drives import metadata_directory
from s3gw.gateway import Gateway, cancel, scheme_of, serve_beside
from s3gw.kv.etcd import EtcdKV
from s3gw.kv.interface import KV, At, Conflict, EngineError, Put
from s3gw.kv.journal import Journal
from s3gw.kv.sqlite import SqliteKV
from s3gw.logs import configure
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutRecord, NodeRecord, StoreRecord, decode
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
            profile_name(config.profile),
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
        except EngineError as error:
            log.warning("the metadata's revision could not be read: %s", error)
            continue
        for drive in drives:  # one that fails is no reason to leave out those behind it
            try:
                identity = await asyncio.to_thread(DriveIdentity.open, drive.path)
                await asyncio.to_thread(identity.raise_seen, incarnation, revision)
            except IdentityError as error:
                log.warning("the metadata's revision could not be noted: %s", error)


async def up_worker(context: WorkerContext) -> None:
    """A process of `s3gw up`: a gateway with the drives in it."""
    task: Task = context.payload
    configure(task.config.log_level)
    async with AsyncExitStack() as stack:
        metadata = metadata_directory(task.config)
        kv = await open_sqlite(task.config, task.paths, metadata)
        stack.push_async_callback(kv.close)
        identity = await found_store(kv, 0)
        gateway = Gateway(task.config, kv, identity)
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

        gateway = Gateway(task.config, kv, identity)
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
                    profile_name(config.profile),
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
                address=advertised(config),
                zone=config.zone,
                host=advertised(config),
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
        try:
            await registration.register()
        except NodeIdTaken as error:
            raise SystemExit(f"s3gw: {error}") from error
        keeping = asyncio.create_task(registration.keep(config.heartbeat_seconds))
        context.ready()
        try:
            servers = serve(app, context.sockets, GuardOptions(), context.shutdown)
            await serve_beside(servers, [keeping], context.shutdown)
        finally:
            await cancel([keeping])
            await lease.release()


def advertised(config: Config) -> str:
    """The address that gateways reach this node at. Raises ConfigError when it listens on all
    addresses and none is named."""
    host, port = host_and_port(config.advertise or config.listen)
    if ip_address_is_any(host):
        raise ConfigError(
            f"the node listens on {config.listen}: name the address that gateways reach it at "
            "with --advertise HOST:PORT"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_address_is_any(host: str) -> bool:
    """Whether the host is 0.0.0.0 or ::."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
