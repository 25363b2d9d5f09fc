"""What the admin port knows of the whole store, gathered at most every few seconds.

Health checks, scrapes and summaries come often and from many sides; each is answered from one
gathering, and those that come while it goes on wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Generic, TypeVar

from nodes.protocol import DriveError, DriveRefused, DriveStats
from s3gw import limits
from s3gw.admin import models
from s3gw.admin.health import DRIVE_FULL_SHARE, Facts, score
from s3gw.cluster import layouts
from s3gw.cluster.layouts import Layout, NoLayout
from s3gw.cluster.ledger import Ledger, Redundancy, read_ledger, read_merge_alarms, read_scrub
from s3gw.cluster.topology import UnknownProfile
from s3gw.kv.interface import EngineError, Space
from s3gw.metadata import keys
from s3gw.metadata.counters import total
from s3gw.metadata.records import MergeAlarm, ScrubState, Usage
from s3gw.metrics import Samples
from s3gw.objects.storage import Storage

FRESH_SECONDS = 5.0
DRIVE_SECONDS_MAX = 2.0
ENGINE_SECONDS_MAX = 5.0
LEDGER_SECONDS_MAX = 3.0
LEDGER_TIMES_COST = 10.0

T = TypeVar("T")


class Cached(Generic[T]):
    """A value that takes an effort to make, made again when it is older than `seconds`, or than
    `times_cost` times as long as it took to make. One making serves all who ask meanwhile, and
    goes on when some of them leave. `last` is the last that was made, however old."""

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        seconds: float = FRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        *,
        times_cost: float = 0.0,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._clock = clock
        self._times_cost = times_cost
        self._fresh_until = 0.0
        self.last: T | None = None
        self._begun = -inf
        self._making: asyncio.Task[T] | None = None
        self._making_begun = -inf

    async def get(self, within: float = inf) -> T:
        """The value; one whose making has begun `within` so many seconds, whatever it takes. Raises
        what its making raises; failures are not kept."""
        oldest = self._clock() - within
        while True:
            fresh = self._clock() < self._fresh_until and self._begun >= oldest
            if self.last is not None and fresh:
                return self.last
            if self._making is None or self._making.done():
                self._making_begun = self._clock()
                self._making = asyncio.ensure_future(self._make_anew())
                self._making.add_done_callback(_seen)
            if self._making_begun >= oldest:
                return await asyncio.shield(self._making)
            await asyncio.wait([self._making])

    def forget(self) -> None:
        """Make it anew for the next who asks: something has changed."""
        self.last = None

    async def _make_anew(self) -> T:
        started = self._clock()
        value = await self._make()
        ended = self._clock()
        self._fresh_until = ended + max(self._seconds, self._times_cost * (ended - started))
        self.last, self._begun = value, started
        return value


def _seen(task: asyncio.Task[T]) -> None:
    """Look at the outcome: the one who asked may have gone."""
    if not task.cancelled():
        task.exception()


async def no_certificate() -> float | None:
    """For a process without certificates."""
    return None


async def no_moves() -> models.Rebalance:
    """For a process without a rebalancer."""
    return models.Rebalance()


@dataclass(frozen=True, slots=True)
class Signals:
    """What other parts of the gateway know, asked at each gathering: whether the rebuild is held
    down, days until this gateway's certificate ends (None without one), and how far moves have
    come."""

    hold_down: Callable[[], bool] = lambda: False
    certificate_days_left: Callable[[], Awaitable[float | None]] = no_certificate
    rebalance: Callable[[], Awaitable[models.Rebalance]] = no_moves


@dataclass(frozen=True, slots=True)
class Survey:
    """The store at one moment. What the engine would have said is empty while it does not answer,
    and `engine_error` says so. The ledger may be older, or None while the first is being made."""

    stats: Mapping[str, DriveStats] = field(default_factory=dict)
    engine_error: str = ""
    layout: Layout | None = None
    ledger: Ledger | None = None
    ledger_error: str = ""
    space: Space = field(default_factory=lambda: Space(0, 0))
    scrub: ScrubState = field(default_factory=ScrubState)
    rebalance: models.Rebalance = field(default_factory=models.Rebalance)
    merge_alarms: Sequence[MergeAlarm] = ()
    facts: Facts = field(default_factory=Facts)
    now_ms: int = 0

    @property
    def capacity_bytes(self) -> int:
        return sum(stats.capacity_bytes for stats in self.stats.values())

    @property
    def free_bytes(self) -> int:
        return sum(stats.free_bytes for stats in self.stats.values())

    @property
    def damaged_revisions(self) -> int:
        return sum(stats.damaged_revisions for stats in self.stats.values())

    @property
    def repair_oldest_seconds(self) -> float:
        if self.ledger is None or not self.ledger.oldest_repair_ms:
            return 0.0
        return max(0, self.now_ms - self.ledger.oldest_repair_ms) / 1000


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all buckets."""

    buckets: int
    usage: Usage


class Surveyor:
    """Gathers surveys, and keeps the last one for FRESH_SECONDS."""

    def __init__(self, storage: Storage, nodes_needed: int, signals: Signals | None = None) -> None:
        self._storage = storage
        self._nodes_needed = nodes_needed
        self.signals = signals or Signals()
        self.survey = Cached(self._survey)
        # A range per group and one per queued blob: with many of those it takes a while.
        self.ledger = Cached(self._ledger, times_cost=LEDGER_TIMES_COST)
        self.totals = Cached(self._totals)

    async def _survey(self) -> Survey:
        storage = self._storage
        stats = await drive_stats(storage)
        try:
            async with asyncio.timeout(ENGINE_SECONDS_MAX):
                layout = await layouts.current(storage.store.kv)
                space = await storage.store.kv.space()
                scrub = await read_scrub(storage.store.kv)
                alarms = await read_merge_alarms(storage.store.kv)
                rebalance = await self.signals.rebalance()
        except TimeoutError:
            return await self._judged(Survey(stats, f"not within {ENGINE_SECONDS_MAX:g} seconds"))
        except (EngineError, NoLayout) as error:
            return await self._judged(Survey(stats, str(error) or type(error).__name__))
        ledger, ledger_error = await self._ledger_soon()
        now_ms = storage.clock_ms()
        return await self._judged(
            Survey(
                stats,
                layout=layout,
                ledger=ledger,
                ledger_error=ledger_error,
                space=space,
                scrub=scrub,
                rebalance=rebalance,
                merge_alarms=alarms,
                now_ms=now_ms,
            )
        )

    async def _ledger(self) -> Ledger:
        storage = self._storage
        layout = await layouts.current(storage.store.kv)
        blobs = storage.blobs
        return await read_ledger(storage.store.kv, blobs.directory, layout)

    async def _ledger_soon(self) -> tuple[Ledger | None, str]:
        """The ledger, the last one if the next takes long, or None and why there is none."""
        try:
            async with asyncio.timeout(LEDGER_SECONDS_MAX):
                return await self.ledger.get(), ""
        except TimeoutError:
            return self.ledger.last, "" if self.ledger.last else "it is being made"
        except (EngineError, LookupError, UnknownProfile) as error:
            return None, str(error) or type(error).__name__

    async def _judged(self, survey: Survey) -> Survey:
        """The survey with the facts that the health score is made of."""
        directory, ledger = self._storage.blobs.directory, survey.ledger
        members = {node.node for node in survey.layout.record.nodes} if survey.layout else set()
        live = {node.id for node in directory.all() if node.live}
        space = survey.space

        def blobs(redundancy: Redundancy) -> int:
            return ledger.total(redundancy).blobs if ledger is not None else 0

        facts = Facts(
            engine_error=survey.engine_error,
            ledger_error=survey.ledger_error,
            writable_nodes=len(directory.writable_nodes()),
            nodes_needed=self._nodes_needed,
            nodes_down=len(members - live),
            drives_full=sum(1 for stats in survey.stats.values() if full(stats)),
            damaged_revisions=survey.damaged_revisions,
            lost_blobs=blobs(Redundancy.LOST),
            critical_blobs=blobs(Redundancy.CRITICAL),
            reduced_blobs=blobs(Redundancy.REDUCED),
            repair_oldest_seconds=survey.repair_oldest_seconds,
            hold_down=self.signals.hold_down(),
            merge_alarms=len(survey.merge_alarms),
            merge_alarm=survey.merge_alarms[0].reason if survey.merge_alarms else "",
            engine_share=space.used_bytes / space.quota_bytes if space.quota_bytes else 0.0,
            certificate_days_left=await self.signals.certificate_days_left(),
        )
        return replace(survey, facts=facts)

    async def _totals(self) -> Totals:
        kv = self._storage.store.kv
        usage, buckets = Usage(), 0
        for prefix, keys_only in ((keys.BUCKETS, True), (keys.USAGES, False)):
            start, end = prefix, keys.after_prefix(prefix)
            while True:
                page = await kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX, keys_only=keys_only)
                if keys_only:
                    buckets += len(page.items)
                else:
                    usage += total(page.items)
                if not page.more:
                    break
                start = page.items[-1].key + b"\x00"
        return Totals(buckets, usage)

    async def samples(self) -> Samples:
        """The gauges of the whole store, for /metrics."""
        survey = await self.survey.get()
        directory = self._storage.blobs.directory
        known = {node.id for node in directory.all()}
        values: dict[tuple[str, tuple[str, ...]], float] = {
            ("s3gw_health_score", ()): score(survey.facts)[0],
            ("s3gw_nodes_live", ()): sum(1 for node in directory.all() if node.live),
            ("s3gw_capacity_bytes", ()): survey.capacity_bytes,
            ("s3gw_free_bytes", ()): survey.free_bytes,
            ("s3gw_damaged_revisions", ()): survey.damaged_revisions,
        }
        if survey.layout is not None:
            known |= {node.node for node in survey.layout.record.nodes}
            values["s3gw_layout_epoch", ()] = survey.layout.epoch
            values["s3gw_engine_used_bytes", ()] = survey.space.used_bytes
            values["s3gw_engine_quota_bytes", ()] = survey.space.quota_bytes
            values["s3gw_merge_alarms", ()] = len(survey.merge_alarms)
        values["s3gw_nodes_known", ()] = len(known)
        if survey.ledger is not None:
            values["s3gw_repairs_waiting", ()] = survey.ledger.repairs_waiting
            values["s3gw_repair_oldest_seconds", ()] = survey.repair_oldest_seconds
            values["s3gw_groups_moving", ()] = survey.ledger.groups_moving
            values["s3gw_groups_degraded", ()] = survey.ledger.groups_degraded
            moves = survey.rebalance
            values["s3gw_rebalance_groups_left", ()] = moves.groups_left
            values["s3gw_rebalance_bytes_left", ()] = moves.bytes_left
            values["s3gw_rebalance_bytes_per_second", ()] = moves.bytes_per_second
            values["s3gw_scrub_groups_done", ()] = survey.scrub.current.groups
            last = survey.scrub.last_round
            values["s3gw_scrub_finished_timestamp_seconds", ()] = last.finished_ms / 1000
            values["s3gw_scrub_damaged", ()] = sum(
                one.damaged + one.missing for one in (survey.scrub.current, last)
            )
            for redundancy in Redundancy:
                amount = survey.ledger.total(redundancy)
                values["s3gw_ledger_blobs", (str(redundancy),)] = amount.blobs
                values["s3gw_ledger_bytes", (str(redundancy),)] = amount.bytes
        return values


def full(stats: DriveStats) -> bool:
    """Whether a drive is so full that an operator must act."""
    used = stats.capacity_bytes - stats.free_bytes
    return not stats.writable or used >= DRIVE_FULL_SHARE * stats.capacity_bytes


async def drive_stats(storage: Storage) -> dict[str, DriveStats]:
    """Space of every live drive that answers soon, by node."""
    nodes = [node for node in storage.blobs.directory.all() if node.live]

    async def ask(node_id: str) -> DriveStats | None:
        node = storage.blobs.directory.get(node_id)
        if node is None:
            return None
        try:
            async with asyncio.timeout(DRIVE_SECONDS_MAX):
                return await node.drive.stats()
        except (DriveError, DriveRefused, TimeoutError):
            return None

    answers = await asyncio.gather(*(ask(node.id) for node in nodes))
    return {node.id: stats for node, stats in zip(nodes, answers, strict=True) if stats is not None}
