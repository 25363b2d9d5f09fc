"""The composition root: what a gateway, a node and `up` are made of. The only module that names
an engine.

Each `…_worker` is the entry point of a worker process (s3gw.supervisor); it builds the process
from its configuration, serves until the shutdown event, and takes it down in reverse order.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from nodes.disk_threads import alone
from nodes.http_guard import GuardOptions, serve
from nodes.identity import DriveIdentity, IdentityError, NonceOutdated, adopt
from nodes.protocol import Drive, DriveError
from nodes.server import build_app as build_node_app
from nodes.store import LocalDrive
from nodes.tls import GATEWAY, GATEWAY_CALLS, NODE, NODE_SERVES, TlsCredentials, TlsError
from s3gw import __version__, limits
from s3gw.cluster.directory import Directory, Node
from s3gw.cluster.drive_watch import DriveWatch
from s3gw.cluster.epochs import latest
from s3gw.cluster.founding import (
    Founder,
    found_layout,
    found_store,
    layout_exists,
    profile_name,
    scheme_of,
)
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import (
    Membership,
    NextNonce,
    NodeIdTaken,
    NonceUnavailable,
    Registration,
)
from s3gw.config import Config, ConfigError, host_and_port
from s3gw.drives import DriveAt, metadata_directory
from s3gw.key_sources import master_keys
from s3gw.kv import sqlite_schema
from s3gw.kv.etcd import EtcdKV
from s3gw.kv.interface import (
    KV,
    At,
    Conflict,
    EngineError,
    LeaseLost,
    NoSpace,
    Put,
    Unavailable,
)
from s3gw.kv.journal import Journal
from s3gw.kv.sqlite import CLOSE_SECONDS_MAX, SqliteKV
from s3gw.logs import configure
from s3gw.metadata import keys
from s3gw.metadata.records import LayoutRecord, NodeRecord, StoreRecord, decode
from s3gw.objects.keyring.master import BadMasterKeys
from s3gw.objects.keyring.ring import require_master_keys
from s3gw.serving import cancel, serve_beside
from s3gw.supervisor import Grant, StartLater, WorkerContext, WorkerMain
from s3gw.transport import keep_certificates, open_credentials

log = logging.getLogger(__name__)

THREADS_PER_PROCESS = 8
NOTE_SECONDS = 60.0
VERSION = __version__
EXIT_REFUSED = 2
FOUNDING_LOCK = "founding"
FOUNDING_POLL_SECONDS = 0.25
GRANT_RETRY_SECONDS = 5.0
# As long as a disk that stood still may take.
OPEN_SECONDS_MAX = 30.0
# Beyond the lease's time: etcd ends leases a little late.
FORMER_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """What a worker process gets from its supervisor."""

    config: Config
    store_id: str
    drives: tuple[DriveAt, ...] = ()
    host: str = ""

    @property
    def paths(self) -> list[Path]:
        return [Path(drive.path) for drive in self.drives]


def started_when_etcd_answers(main: WorkerMain) -> WorkerMain:
    """Of a process of a cluster: when etcd does not answer while it starts, it is started again,
    as often as need be."""

    @functools.wraps(main)
    async def started(context: WorkerContext) -> None:
        try:
            await main(context)
        except (Unavailable, LeaseLost, NoSpace) as error:
            if context.is_ready:
                raise
            raise StartLater(f"the metadata engine does not answer: {error}") from error

    return started


def journal_on(config: Config, drive_paths: Sequence[Path]) -> Journal:
    """The metadata journal on these drives."""
    return Journal(drive_paths, max(scheme_of(config).tolerance + 1, config.journal_drives))


async def open_sqlite(
    config: Config, drive_paths: Sequence[Path], metadata: Path, journal: Journal | None = None
) -> SqliteKV:
    """The embedded engine with its journal, on the drives if none is given."""
    return await SqliteKV.open(
        metadata,
        journal or journal_on(config, drive_paths),
        history_seconds=float(config.history_window_seconds),
    )


async def open_bare_sqlite(directory: Path) -> SqliteKV:
    """The embedded engine without a journal, for a recovery that makes a new database."""
    return await SqliteKV.open(directory, None)


def store_of_metadata(directory: Path) -> str:
    """The id of the store whose embedded database is there; "" when there is none. Only reads, also
    while the store runs. Raises EngineError."""
    value = sqlite_schema.value_of(directory, keys.STORE)
    return decode(StoreRecord, value).store_id if value is not None else ""


async def open_etcd(config: Config, credentials: TlsCredentials | None = None) -> EtcdKV:
    """The engine on etcd, with certificates where its URLs are https. Raises ConfigError."""
    try:
        return await EtcdKV.connect(
            config.etcd, quota_bytes=config.etcd_quota_bytes, tls=credentials
        )
    except (ValueError, TlsError) as error:
        raise ConfigError(str(error)) from error


async def found_on_drives(
    kv: KV, config: Config, drives: Sequence[DriveAt], store_id: str
) -> StoreRecord:
    """Make the store on the drives of this machine if it is not made yet. Each drive is a zone of
    its own; its weight is its capacity, as a node's is."""
    record = await found_store(kv, time.time_ns() // 1_000_000, store_id)
    if not await layout_exists(kv):
        founders = [
            Founder(drive.drive_id, drive.drive_id, max(1, shutil.disk_usage(drive.path).total))
            for drive in drives
        ]
        await found_layout(
            kv,
            profile_name(config.profile),
            scheme_of(config),
            founders,
            pg_count=config.pg_count,
            failure_domain=config.failure_domain,
            stripe_bytes=config.stripe_bytes,
            now_ms=time.time_ns() // 1_000_000,
        )
    return record


async def layout_nodes(kv: KV) -> dict[str, str]:
    """Node id to zone of the last layout; empty when there is none yet. Raises EngineError."""
    item = await latest(kv)
    if item is None:
        return {}
    return {node.node: node.zone for node in decode(LayoutRecord, item.value).nodes}


async def note_revisions(kv: KV, incarnation: int, drives: Sequence[DriveAt]) -> None:
    """Note on the drives, for ever, how far the metadata has come; a start with older metadata is
    refused then. One that fails or hangs is no reason to leave out the others."""
    noting: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as tasks:
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            try:
                revision = (await kv.get_many([])).revision
            except EngineError as error:
                log.warning("the metadata's revision could not be read: %s", error)
                continue
            for drive in drives:
                before = noting.get(drive.path)
                if before is None or before.done():
                    note = alone(_note_revision, drive, incarnation, revision)
                    noting[drive.path] = tasks.create_task(note)


def _note_revision(drive: DriveAt, incarnation: int, revision: int) -> None:
    try:
        # Another disk may be mounted there by now, even that of another store.
        identity = DriveIdentity.open(drive.path, drive_id=drive.drive_id)
        identity.raise_seen(incarnation, revision)
    except IdentityError as error:
        log.warning("the metadata's revision could not be noted: %s", error)


def busy_disks(directory: Directory) -> list[str]:
    """The drives of this process that something is under way on."""
    drives = [node.drive for node in directory.all()]
    return [drive.busy_at for drive in drives if isinstance(drive, LocalDrive) and drive.busy_at]


async def up_worker(context: WorkerContext) -> None:
    """A process of `s3gw up`: a gateway with the drives in it."""
    from s3gw.gateway import Gateway  # see `_serve_cluster`

    task = with_grants(context)
    configure(task.config.log_level)
    async with AsyncExitStack() as stack:
        drives = await open_served_drives(task, context, stack)
        # The path of a lost drive may be a bare mount point by now: no place for the journal.
        paths = [Path(place.path) for place in task.drives if place.drive_id in drives]
        journal = journal_on(task.config, paths)
        kv = await open_sqlite(task.config, paths, metadata_directory(task.config), journal)
        stack.push_async_callback(kv.close, seconds_max=CLOSE_SECONDS_MAX)
        identity = await found_store(kv, 0)
        gateway = Gateway(task.config, kv, identity)
        context.busy_disks = lambda: busy_disks(gateway.directory) + kv.busy_disks()
        zones = await layout_nodes(kv)
        for drive_id, drive in drives.items():
            gateway.directory.add(Node(drive_id, zones.get(drive_id, drive_id), drive))
        membership = Membership(kv, gateway.directory, gateway.topology, None)
        late = LateDrives(context, stack, gateway.directory, membership, journal)
        late.places += [place for place in task.drives if place.drive_id in drives]
        late.await_others(task.drives)
        tasks = [DriveWatch(gateway.directory).follow(), late.follow(kv, identity.incarnation)]
        if context.index == 0:
            tasks.append(note_revisions(kv, identity.incarnation, late.places))
        await gateway.run(context, membership, tasks)


def with_grants(context: WorkerContext) -> Task:
    """The task of a process, with the drives that the supervisor has opened since the start."""
    task: Task = context.payload
    places = {place.drive_id: place for place in task.drives}
    while not context.grants.empty():
        place: DriveAt = context.grants.get_nowait().value
        places[place.drive_id] = place
    return replace(task, drives=tuple(places.values()))


class LateDrives:
    """Uses drives that come while a process of `up` runs: those that the supervisor opens, and
    those that failed when the process started. `places` are the drives in use."""

    def __init__(
        self,
        context: WorkerContext,
        stack: AsyncExitStack,
        directory: Directory,
        membership: Membership,
        journal: Journal,
    ) -> None:
        self._context = context
        self._stack = stack
        self._directory = directory
        self._membership = membership
        self._journal = journal
        self.places: list[DriveAt] = []
        self.retry_seconds = GRANT_RETRY_SECONDS
        self._said: dict[str, str] = {}

    def await_others(self, places: Sequence[DriveAt]) -> None:
        """Try those again that are not in use."""
        for place in places:
            if place not in self.places:
                lock = self._context.fds[place.drive_id]
                self._try_again(Grant(place.drive_id, lock, place))

    def _try_again(self, grant: Grant) -> None:
        again = self._context.grants.put_nowait
        asyncio.get_running_loop().call_later(self.retry_seconds, again, grant)

    async def follow(self, kv: KV, incarnation: int) -> None:
        """Use what comes, for ever, one beside the other, since a disk may hang. What fails is
        tried again as long as it is the newest."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                grant = await self._context.grants.get()
                tasks.create_task(self._take(grant, kv, incarnation))

    async def _take(self, grant: Grant, kv: KV, incarnation: int) -> None:
        place: DriveAt = grant.value
        if self._context.fds[grant.name] != grant.fd:
            return
        try:
            await self.use(place, (incarnation, (await kv.get_many([])).revision))
        except (IdentityError, DriveError, OSError, EngineError) as error:
            if self._said.get(place.path) != str(error):
                self._said[place.path] = str(error)
                log.warning("drive %s cannot be used: %s", place.path, error)
            self._try_again(grant)

    async def use(self, place: DriveAt, newest: tuple[int, int]) -> None:
        """Use a drive, unless it has seen newer metadata than the `newest` (incarnation and
        revision). Raises IdentityError, DriveError, OSError."""
        lock = self._context.fds[place.drive_id]
        known = functools.partial(DriveIdentity.open, drive_id=place.drive_id)
        found = await alone(known, place.path)
        if (found.identity.incarnation, found.identity.revision) > newest:
            raise IdentityError(f"drive {place.path} has seen newer metadata than there is")
        drive = await open_drive(self._context, place, self._stack)
        await alone(self._journal.add, Path(place.path))
        if self._context.fds[place.drive_id] != lock:
            return  # it has come again meanwhile, perhaps elsewhere
        self.places[:] = [other for other in self.places if other.drive_id != place.drive_id]
        self.places.append(place)
        node = self._directory.get(place.drive_id)
        if node is None:
            self._membership.add(Node(place.drive_id, place.drive_id, drive))
        else:
            node.drive = drive  # the one before is closed with the process
        log.warning("drive %s at %s is used from now on", place.drive_id, place.path)


@started_when_etcd_answers
async def gateway_worker(context: WorkerContext) -> None:
    """A process of `s3gw gateway`: stateless, on etcd and remote nodes."""
    await _serve_cluster(context, serves_s3=True)


@started_when_etcd_answers
async def background_worker(context: WorkerContext) -> None:
    """A process of `s3gw worker`: a gateway without an S3 port."""
    await _serve_cluster(context, serves_s3=False)


async def _serve_cluster(context: WorkerContext, *, serves_s3: bool) -> None:
    # Half a second and half of the memory of a process: nodes and supervisors do without.
    from nodes.client import RemoteDrive, open_session
    from s3gw.gateway import Gateway

    task: Task = context.payload
    configure(task.config.log_level)
    async with AsyncExitStack() as stack:
        credentials = open_credentials(task.config, GATEWAY, started=True)
        kv = await open_etcd(task.config, credentials)
        stack.push_async_callback(kv.close)
        identity = await found_store(kv, time.time_ns() // 1_000_000)
        session = open_session(credentials.client(GATEWAY_CALLS) if credentials else None)
        stack.push_async_callback(session.close)
        scheme = "http" if credentials is None else "https"

        def make_drive(node_id: str, record: NodeRecord) -> Drive:
            return RemoteDrive(
                session,
                f"{scheme}://{record.address}",
                node_id,
                identity.cluster_secret,
                plain_allowed=task.config.insecure_listen,
            )

        await refuse_without_master_keys(kv, task.config)
        gateway = Gateway(task.config, kv, identity)
        membership = Membership(kv, gateway.directory, gateway.topology, make_drive)
        if serves_s3:
            await found_on_nodes(kv, task.config)
        else:
            await wait_for_layout(kv)
        watching = [keep_certificates(credentials, kv.reconnect)] if credentials else []
        await gateway.run(context, membership, watching, serves_s3=serves_s3)


async def refuse_without_master_keys(kv: KV, config: Config) -> None:
    """End a process that lacks a master key which something is encrypted under."""
    try:
        await require_master_keys(kv, master_keys(config))
    except BadMasterKeys as error:
        print(f"s3gw: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_REFUSED) from error


async def wait_for_layout(kv: KV) -> None:
    """Until a gateway has made the first layout."""
    while True:
        if await layout_exists(kv):
            return
        await asyncio.sleep(FOUNDING_POLL_SECONDS)


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
                    [Founder(n, r.zone, r.capacity_bytes, r.host) for n, r in nodes.items()],
                    pg_count=config.pg_count,
                    failure_domain=config.failure_domain,
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


@started_when_etcd_answers
async def node_worker(context: WorkerContext) -> None:
    """The process of `s3gw node`: its drives over HTTP, registered under a lease."""
    task: Task = context.payload
    configure(task.config.log_level)
    config = task.config
    async with AsyncExitStack() as stack:
        credentials = open_credentials(config, NODE, started=True)
        kv = await open_etcd(config, credentials)
        stack.push_async_callback(kv.close)
        identity = await found_store(kv, time.time_ns() // 1_000_000)
        drives = await open_served_drives(task, context, stack)
        records = {
            place.drive_id: await node_record(task, drives[place.drive_id])
            for place in task.drives
            if place.drive_id in drives
        }
        lease = ProcessLease(
            kv, ttl_seconds=config.lease_seconds, heartbeat_seconds=config.heartbeat_seconds
        )
        registration = Registration(kv, lease, records, nonces_of(task))
        directory = node_directory(task, drives)
        context.busy_disks = lambda: busy_disks(directory)
        watch = DriveWatch(directory, registration.drive_changed)
        app = build_node_app(drives, identity.cluster_secret, registration)
        try:
            await registration.wait_for_former(config.lease_seconds + FORMER_SECONDS)
            await lease.take()
            await registration.register()
        except NodeIdTaken as error:
            print(f"s3gw: {error}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_REFUSED) from error
        background = [
            asyncio.create_task(registration.keep(config.heartbeat_seconds)),
            asyncio.create_task(registration.keep_drives(config.heartbeat_seconds)),
            asyncio.create_task(watch.follow()),
        ]
        options = GuardOptions()
        if credentials is not None:
            options = GuardOptions(tls=credentials.server(NODE_SERVES))
            watching = keep_certificates(credentials, kv.reconnect)
            background.append(asyncio.create_task(watching))
        context.ready()
        try:
            servers = serve(app, context.sockets, options, context.shutdown)
            await serve_beside(servers, background, context.shutdown)
        finally:
            await cancel(background)
            await lease.release()


async def open_served_drives(
    task: Task, context: WorkerContext, stack: AsyncExitStack
) -> dict[str, Drive]:
    """The drives of a process that work, by id; the supervisor holds their locks. One that does
    not, or hangs, is left out: its node is down. If none works, raises what the last fails with."""

    async def opened(place: DriveAt) -> Drive | Exception:
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                return await open_drive(context, place, stack)
        except TimeoutError:
            return DriveError(f"{place.path} hangs")
        except (IdentityError, DriveError, OSError) as error:
            return error

    drives: dict[str, Drive] = {}
    outcomes = await asyncio.gather(*(opened(place) for place in task.drives))
    for place, outcome in zip(task.drives, outcomes, strict=True):
        if isinstance(outcome, Exception):
            log.warning("drive %s cannot be used: %s", place.path, outcome)
            if not drives and place is task.drives[-1]:
                raise outcome
        else:
            drives[place.drive_id] = outcome
    return drives


async def open_drive(context: WorkerContext, place: DriveAt, stack: AsyncExitStack) -> Drive:
    """A locked drive; `stack` closes it. Raises IdentityError, DriveError, OSError."""
    lock = context.fds[place.drive_id]
    ratio = context.payload.config.reserve_percent / 100

    def opened() -> LocalDrive:
        adopt(place.path, lock)
        return LocalDrive.open(place.path, reserve_ratio=ratio)

    drive = await alone(opened)
    try:
        await drive.stats()
    except BaseException:  # and it may be tried again for ever
        await drive.close()
        raise
    stack.push_async_callback(drive.close)
    return drive


def node_directory(task: Task, drives: Mapping[str, Drive]) -> Directory:
    """The drives of a node process, to be watched."""
    directory = Directory()
    for drive_id, drive in drives.items():
        directory.add(Node(drive_id, task.config.zone, drive, task.host))
    return directory


async def node_record(task: Task, drive: Drive) -> NodeRecord:
    """What a drive of this node is registered with; its nonce is drawn when it registers."""
    stats = await drive.stats()
    return NodeRecord(
        address=advertised(task.config),
        zone=task.config.zone,
        host=task.host,
        capacity_bytes=stats.capacity_bytes,
        free_bytes=stats.free_bytes,
        nonce="",
        version=VERSION,
        registered_ms=time.time_ns() // 1_000_000,
    )


def nonces_of(task: Task) -> NextNonce:
    """The nonces that the drives of this node keep in their id files."""
    paths = {place.drive_id: place.path for place in task.drives}

    def draw(drive_id: str, registered: str | None) -> str:
        drive = DriveIdentity.open(paths[drive_id], drive_id=drive_id)
        return drive.next_nonce(registered)

    async def next_nonce(node_id: str, registered: str | None) -> str:
        try:
            return await asyncio.to_thread(draw, node_id, registered)
        except NonceOutdated as error:
            raise NodeIdTaken(str(error)) from error
        except IdentityError as error:
            raise NonceUnavailable(str(error)) from error

    return next_nonce


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
