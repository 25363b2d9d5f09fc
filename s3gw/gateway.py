"""A gateway process: storage, the S3 port, the admin port and background work, put together.

Knows no engine and no kind of drive: those are handed in by the composition root (s3gw.app).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from nodes.http_guard import GuardOptions, serve
from nodes.http_share import SHARE, Share
from s3gw import __version__, pki
from s3gw.admin.app import build_app as build_admin_app
from s3gw.admin.port import AdminPort
from s3gw.admin.survey import Signals, Surveyor
from s3gw.cluster.blobs import BlobStore
from s3gw.cluster.directory import Directory
from s3gw.cluster.founding import profile_name, scheme_of
from s3gw.cluster.lease import ProcessLease
from s3gw.cluster.membership import Membership
from s3gw.cluster.topology import Topology
from s3gw.cluster.tunables import LiveTunables, Throttle, rebuild_throttle
from s3gw.config import Config, ConfigError
from s3gw.iam.call import Services
from s3gw.identities.root import Root
from s3gw.identities.store import IdentityStore
from s3gw.identities.view import Identities
from s3gw.identities.web_identity import HttpFetch, WebIdentities
from s3gw.key_sources import sources_of
from s3gw.kv.interface import KV, EngineError
from s3gw.metadata import keys
from s3gw.metadata.counters import Counters
from s3gw.metadata.records import BlobRef, StoreRecord
from s3gw.metadata.store import Store
from s3gw.metrics import Metrics, Samples, SharedMetrics
from s3gw.objects.keyring.ring import process_record
from s3gw.objects.reading import keep_withdrawing
from s3gw.objects.storage import Storage
from s3gw.operations.call import Settings
from s3gw.operator_jobs import OperatorJobs
from s3gw.port_tls import open_ports, url_of
from s3gw.rescue.snapshot import SnapshotWorker
from s3gw.server.error_body import refusal
from s3gw.server.pipeline import Edge, S3App
from s3gw.server.query_api import QueryApi, QueryEdge
from s3gw.server.resolve import Domains
from s3gw.server.website import App, WebsiteApp
from s3gw.serving import cancel, serve_beside
from s3gw.supervisor import StartLater, WorkerContext
from s3gw.transport import keep_port_certificate
from s3gw.workers import departures, rebalance
from s3gw.workers.access_logs import OUTCOMES as LOG_OUTCOMES
from s3gw.workers.access_logs import AccessLogs
from s3gw.workers.compaction import Compaction, SpaceState, SpaceWatch
from s3gw.workers.completed import CompletedExpiry
from s3gw.workers.contract import Worker
from s3gw.workers.damage import DamageQueue
from s3gw.workers.departures import Departures, drives_live, leases_live
from s3gw.workers.garbage import GarbageCollector
from s3gw.workers.inventory import InventoryWorker
from s3gw.workers.lifecycle import ACTIONS as LIFECYCLE_ACTIONS
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from s3gw.workers.merge import MergeAndRepair
from s3gw.workers.names import Names
from s3gw.workers.rebalance import Rebalancer
from s3gw.workers.repair import RepairWorker
from s3gw.workers.reprofile import Reprofiler
from s3gw.workers.rewrap import Rewrapper
from s3gw.workers.runner import Runner
from s3gw.workers.stale_uploads import StaleUploads
from s3gw.workers.trash import TrashPurge
from s3gw.workers.undo import Undoer
from s3gw.workers.verify import ShardVerifier

# Of who was told no zone.
DEFAULT_ZONE = "default"
THREADS_PER_PROCESS = 8


async def stop_at(shutdown: asyncio.Event, runner: Runner) -> None:
    """Stop background work while requests in flight are finished: one after the other might take
    longer than the supervisor waits."""
    await shutdown.wait()
    await runner.stop()


class Gateway:
    """One gateway process."""

    def __init__(self, config: Config, kv: KV, identity: StoreRecord) -> None:
        self.config = config
        self.kv = kv
        self.identity = identity
        try:
            self.ports = open_ports(config, started=True)
        except ConfigError as error:  # who started this process could use them
            raise StartLater(str(error)) from error
        self.metrics = Metrics()
        self.space = SpaceState()
        root = Root(config.root_access_key, config.root_secret_key)
        self.identities = Identities(kv, root, identity)
        self.provider_keys = HttpFetch()
        self.sources = sources_of(config)
        self.executor = ThreadPoolExecutor(THREADS_PER_PROCESS, "data")
        self.lease = ProcessLease(
            kv,
            ttl_seconds=config.lease_seconds,
            heartbeat_seconds=config.heartbeat_seconds,
            record=process_record(self.sources),
        )
        self.directory = Directory()
        self.topology = Topology(kv)
        self.tunables = LiveTunables(kv)
        self.blobs = BlobStore(self.topology, self.directory, self.executor, self._damaged)
        self.blobs.zone = config.zone if config.zone != DEFAULT_ZONE else ""
        self._damage: DamageQueue | None = None
        self._departures: Departures | None = None
        self._lifecycle: Lifecycle | None = None
        self._access_logs: AccessLogs | None = None
        self.metrics.collect(self._figures)

    def _damaged(self, ref: BlobRef, index: int, reason: str) -> None:
        """A reader met a missing or damaged shard."""
        self.metrics.count("s3gw_damaged_fragments_total")
        if self._damage is not None:
            self._damage(ref, index, reason)

    async def start(self, membership: Membership) -> Storage:
        """Take the lease and read the topology."""
        await self.lease.take()
        await membership.load()
        await self.tunables.refresh()
        await self.identities.load()
        storage = Storage(
            store=Store(self.kv, self.identity, Counters(self.kv, self.lease.block)),
            blobs=self.blobs,
            executor=self.executor,
            garbage_after_ms=int(self.config.garbage_after_seconds * 1000),
            layout_epoch=membership.layout_epoch,
            refresh_layout=membership.refresh,
            lease=self.lease.current,
            lifecycle_day_ms=self.config.lifecycle_day_seconds * 1000,
            sources=self.sources,
        )
        self._damage = DamageQueue(storage.store, self.topology, storage.clock_ms)
        self._access_logs = AccessLogs(
            storage,
            region=self.config.region,
            interval_seconds=self.config.access_log_seconds,
            buffer_bytes=self.config.access_log_buffer_bytes,
            growth_refused=self.space.growth_refused,
        )
        return storage

    def workers(self, storage: Storage, membership: Membership) -> list[Worker]:
        """The background work of this process; with `workers` off only what is its own."""
        assert self._damage is not None
        assert self._access_logs is not None
        own: list[Worker] = [self._damage, SpaceWatch(self.kv, self.space), self._access_logs]
        if not self.config.workers:
            return own
        interval = self.config.worker_interval_seconds
        tunables = self.tunables
        rebuild = rebuild_throttle(tunables)
        scrub = Throttle(lambda: tunables.current.scrub_bytes_per_second)
        merge = MergeAndRepair(storage, orphan_after_seconds=self.config.orphan_after_seconds)
        self._departures = Departures(
            storage,
            tunables,
            leases_live(self.kv) if membership.leases_tell else drives_live(self.directory),
            lease_seconds=self.config.lease_seconds,
            look_seconds=min(departures.LOOK_SECONDS, interval),
        )
        self._lifecycle = Lifecycle(
            storage,
            throttle=rebuild,
            interval_seconds=self.config.lifecycle_interval_seconds,
        )
        workers: list[Worker] = [
            *own,
            GarbageCollector(storage, interval_seconds=interval),
            RepairWorker(storage, throttle=rebuild, interval_seconds=interval),
            Reprofiler(
                storage,
                throttle=rebuild,
                space_short=self.space.red,
                interval_seconds=interval,
            ),
            merge,
            Rebalancer(
                storage,
                tunables,
                merge=merge,
                throttle=rebuild,
                look_seconds=min(rebalance.LOOK_SECONDS, interval),
            ),
            ShardVerifier(
                storage,
                throttle=scrub,
                interval_seconds=lambda: tunables.current.scrub_interval_seconds,
            ),
            self._departures,
            CompletedExpiry(storage),
            Names(storage, interval_seconds=interval),
            TrashPurge(storage, interval_seconds=interval),
            Undoer(storage, interval_seconds=interval),
            Rewrapper(storage, interval_seconds=interval),
            StaleUploads(storage, self.config.stale_upload_seconds),
            self._lifecycle,
            LifecycleWalk(storage, interval_seconds=interval),
            InventoryWorker(
                storage, interval_seconds=interval, growth_refused=self.space.growth_refused
            ),
            SnapshotWorker(storage, interval_seconds=self.config.snapshot_interval_seconds),
        ]
        if self.kv.range_costs_its_size:  # etcd: it does not compact itself
            workers.append(Compaction(self.kv, self.config.history_window_seconds))
        return workers

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
                identities=self.identities,
                settings=Settings(
                    config.region,
                    profile_name(config.profile),
                    url_of(config.s3, self.ports.s3),
                    config.allow_ssec_over_http,
                ),
                domains=Domains(config.domains),
                metrics=self.metrics,
                growth_refused=self.space.growth_refused,
                explain_signatures=config.explain_signatures,
                access_log=self._access_logs,
            )
        )

    def s3_port(self, storage: Storage) -> App:
        """The S3 port: websites, if there are any, in front of all else."""
        s3 = self.s3_app(storage)
        port = self.query_api(storage, s3)
        if not self.config.website_domains:
            return port
        return WebsiteApp(s3.edge, Domains(self.config.website_domains), port)

    def query_api(self, storage: Storage, s3: S3App) -> QueryApi:
        """IAM and STS in front of S3."""
        services = Services(
            IdentityStore(storage.store, storage.clock_ms, self.identities.catch_up),
            self.identities,
            WebIdentities(self.provider_keys),
            self.config.region,
        )
        edge = QueryEdge(
            services, Domains(self.config.domains), self.metrics, self.space.growth_refused
        )
        return QueryApi(edge, s3)

    def _figures(self) -> Samples:
        """Figures of this process that are kept where they arise."""
        now = self.directory.clock()
        figures: dict[tuple[str, tuple[str, ...]], float] = {
            ("s3gw_hedged_reads_total", ()): self.blobs.hedges,
            ("s3gw_rebuild_held_down", ()): int(
                self._departures is not None and time.monotonic() < self._departures.hold_down_until
            ),
        }
        lines = self._access_logs.lines if self._access_logs is not None else {}
        for outcome in LOG_OUTCOMES:
            figures["s3gw_access_log_lines_total", (outcome,)] = lines.get(outcome, 0)
        done = self._lifecycle.actions if self._lifecycle is not None else {}
        for action in LIFECYCLE_ACTIONS:
            figures["s3gw_lifecycle_actions_total", (action,)] = done.get(action, 0)
        for node in self.directory.all():
            figures["s3gw_node_failures_total", (node.id,)] = node.failures_total
            figures["s3gw_node_suspect", (node.id,)] = int(node.suspect(now))
        return figures

    async def _certificate_days_left(self) -> float | None:
        """Days until the first certificate of this gateway ends; None when it has none."""

        def ends() -> list[float]:
            infos = [pki.inspect_file(port.certificate) for port in self.ports.certificates]
            if self.config.tls_dir:
                infos.append(pki.inspect(Path(self.config.tls_dir)))
            return [info.not_after for info in infos]

        try:
            found = await asyncio.to_thread(ends)
        except pki.PkiError:
            return 0.0  # as urgent as one that has ended; the log has the reason
        return (min(found) - time.time()) / 86_400 if found else None

    def admin_port(self, storage: Storage, shared: SharedMetrics) -> AdminPort:
        jobs = OperatorJobs(storage, orphan_after_seconds=self.config.orphan_after_seconds)
        needed = scheme_of(self.config).tolerance + 1
        signals = Signals(
            hold_down=lambda: shared.gauge("s3gw_rebuild_held_down") > 0,
            certificate_days_left=self._certificate_days_left,
            rebalance=jobs.rebalance,
        )
        return AdminPort(
            storage=storage,
            surveyor=Surveyor(storage, needed, signals),
            tunables=self.tunables,
            ready=self.not_ready,
            metrics=shared,
            identities=self.identities,
            identity_store=IdentityStore(storage.store, storage.clock_ms, self.identities.catch_up),
            region=self.config.region,
            version=__version__,
            nodes_needed=needed,
            jobs=jobs,
        )

    async def run(
        self,
        context: WorkerContext,
        membership: Membership,
        tasks: Sequence[Coroutine[Any, Any, None]] = (),
        *,
        serves_s3: bool = True,
    ) -> None:
        """Serve until shutdown, with `tasks` in the background: the S3 port on the first socket if
        `serves_s3`, the admin port on the next one if there is one."""
        storage = await self.start(membership)
        sockets = list(context.sockets)
        shared = SharedMetrics(self.metrics, context.index, context.fds)
        guard = GuardOptions(
            head_seconds=self.config.head_seconds,
            body_idle_seconds=self.config.idle_seconds,
            send_idle_seconds=self.config.idle_seconds,
        )
        background = [
            asyncio.create_task(self.lease.keep()),
            asyncio.create_task(membership.follow()),
            asyncio.create_task(self.tunables.follow()),
            asyncio.create_task(self.identities.follow()),
            asyncio.create_task(keep_withdrawing(storage)),
            asyncio.create_task(shared.keep_publishing()),
            *(asyncio.create_task(task) for task in tasks),
            *(
                asyncio.create_task(keep_port_certificate(certificate))
                for certificate in self.ports.certificates
            ),
        ]
        runner = Runner(storage.store, self.lease.current, self.workers(storage, membership))
        runner.start()
        servers: list[Awaitable[object]] = [stop_at(context.shutdown, runner)]
        if serves_s3:
            s3_tls = self.ports.s3.context if self.ports.s3 else None
            s3_guard = replace(guard, refusal=refusal, tls=s3_tls)
            share = Share(context.fds[SHARE], context.index) if SHARE in context.fds else None
            servers.append(
                serve(self.s3_port(storage), [sockets.pop(0)], s3_guard, context.shutdown, share)
            )
        if sockets:
            admin_app = build_admin_app(self.admin_port(storage, shared))
            admin_tls = self.ports.admin.context if self.ports.admin else None
            admin_guard = replace(guard, tls=admin_tls)
            servers.append(serve(admin_app, sockets, admin_guard, context.shutdown))
        context.ready()
        try:
            await serve_beside(asyncio.gather(*servers), background, context.shutdown)
        finally:
            await runner.stop()
            if self._access_logs is not None:
                await self._access_logs.flush()
            await cancel(background)
            await self.provider_keys.close()
            await storage.store.settle()
            await self.lease.release()
            self.executor.shutdown(wait=False)
