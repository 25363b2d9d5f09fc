"""Shard verification (scrub): every shard is read by its own node and checked against its
checksums, and every shard that should be there is looked for. What is damaged or missing goes into
the repair queue.

A round goes over all placement groups, one after the other, evenly paced over the interval: group n
of N is not begun before n/N of the interval is over. Within that, bytes are throttled. Where the
round is, and what it and the last one found, is one record (`scrub`), written with each group that
is done: whoever holds the lock next goes on there, and every process can show it.

A unit of work is a bounded piece of a group, so that the lock is looked at again every few seconds
and a stop need not wait for long. Nodes work side by side, each on one shard at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from nodes.protocol import DriveError, DriveRefused, ShardMissing, ShardName
from s3gw.cluster.topology import Group
from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import Repair, ScrubRound, ScrubState
from s3gw.metadata.store import Transaction, Versioned
from s3gw.objects.storage import Storage
from s3gw.workers import compare, placing
from s3gw.workers.compare import Copy
from s3gw.workers.contract import SHARED_TROUBLE, UNCLAIMED, Claim, commit
from s3gw.workers.damage import URGENCY_DAMAGED, queue_repairs
from s3gw.workers.walk import Walk, all_groups, list_group

log = logging.getLogger(__name__)

VERIFY_SECONDS_MAX = 300.0
UNIT_SHARDS = 256
UNIT_BYTES = 64 * 1024 * 1024
WAIT_SECONDS_MIN = 1.0
WAIT_SECONDS_MAX = 60.0
STATE_ATTEMPTS_MAX = 8


@dataclass(slots=True)
class VerifyReport:
    """What a run saw: shards and bytes verified, shards that are not whole or not there, blobs
    newly queued for repair, shards that could not be asked for, nodes that could not be listed."""

    groups: int = 0
    shards: int = 0
    bytes: int = 0
    damaged: int = 0
    missing: int = 0
    queued: int = 0
    unanswered: int = 0
    unlisted: set[str] = field(default_factory=set)


def no_pause() -> float:
    """The interval of a verifier that goes on at once."""
    return 0.0


class ShardVerifier:
    """The worker. `interval_seconds` is read anew for every group; 0 is as fast as it goes."""

    name = "verify"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        *,
        throttle: Throttle | None = None,
        interval_seconds: Callable[[], float] = no_pause,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._throttle = throttle or Throttle(no_pause)
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._walk = Walk(storage, self.name)
        self._claim = UNCLAIMED
        self._group: _GroupScrub | None = None
        self._wait_seconds = WAIT_SECONDS_MAX

    async def wait(self) -> None:
        await self._sleep(self._wait_seconds)

    async def work(self, claim: Claim) -> bool:
        scrub = self._group if claim == self._claim else None
        self._group, self._claim = None, claim
        if scrub is None:
            group = await self._next(claim)
            if group is None:
                return False
            scrub = _GroupScrub(self._storage, self._throttle, group, VerifyReport())
        try:
            more = await scrub.go_on()
        except (*SHARED_TROUBLE, Conflict):
            raise
        except Exception:
            # The round must come to the other groups all the same.
            log.exception("group %r cannot be verified", scrub.group.key)
            more = False
        if more:
            self._group = scrub
        else:
            await self._passed(claim, scrub)
        return True

    async def run_once(self, claim: Claim = UNCLAIMED) -> VerifyReport:
        """Verify every shard of the store, at once."""
        report = VerifyReport()
        started_ms = self._storage.clock_ms()
        for group in all_groups(self._storage):
            await self.verify_group(group, report)
        done = msgspec.structs.replace(
            _added(ScrubRound(started_ms), report), finished_ms=self._storage.clock_ms()
        )

        async def write(state: ScrubState, tx: Transaction) -> None:
            tx.put(keys.SCRUB, msgspec.structs.replace(state, last_round=done))
            await commit(self._storage.store, claim, tx)

        await self._change(write)
        return report

    async def verify_group(self, group: Group, report: VerifyReport) -> None:
        """Verify all shards of a group, wherever they lie."""
        scrub = _GroupScrub(self._storage, self._throttle, group, report)
        while await scrub.go_on():
            pass

    async def _state(self) -> Versioned[ScrubState]:
        return await self._storage.store.get(ScrubState, keys.SCRUB)

    async def _change(self, write: Callable[[ScrubState, Transaction], Awaitable[None]]) -> None:
        """Write the record, guarded by how it was read."""
        for _ in range(STATE_ATTEMPTS_MAX):
            found = await self._state()
            tx = Transaction()
            tx.expect(keys.SCRUB, found.revision)
            try:
                await write(found.record or ScrubState(), tx)
            except Conflict:
                continue  # a run on demand has ended meanwhile
            return
        raise Conflict(None)

    async def _next(self, claim: Claim) -> Group | None:
        """The group whose time has come; None when there is none yet, or a round has ended."""
        state = (await self._state()).record or ScrubState()
        group = await self._walk.next()
        if group is None:
            await self._finish(claim)
            self._wait_seconds = WAIT_SECONDS_MIN
            return None
        now_ms, interval_ms = self._storage.clock_ms(), self._interval_seconds() * 1000
        current = state.current
        if current.started_ms:
            total = sum(profile.pg_count for profile in self._storage.blobs.topology.profiles())
            start_ms = current.started_ms
            due_ms = start_ms + interval_ms * min(1.0, current.groups / total)
        else:
            start_ms = state.last_round.started_ms
            due_ms = start_ms + interval_ms if start_ms else now_ms
        # A start in the future is a clock that was set back: nothing to wait for.
        if start_ms <= now_ms < due_ms:
            wait_seconds = (due_ms - now_ms) / 1000
            self._wait_seconds = min(WAIT_SECONDS_MAX, max(WAIT_SECONDS_MIN, wait_seconds))
            return None
        return group

    async def _passed(self, claim: Claim, scrub: _GroupScrub) -> None:
        async def write(state: ScrubState, tx: Transaction) -> None:
            current = state.current
            if not current.started_ms:
                current = msgspec.structs.replace(current, started_ms=scrub.started_ms)
            current = _added(current, scrub.report)
            tx.put(keys.SCRUB, msgspec.structs.replace(state, current=current))
            await self._walk.passed(claim, scrub.group, tx)

        await self._change(write)

    async def _finish(self, claim: Claim) -> None:
        async def write(state: ScrubState, tx: Transaction) -> None:
            if state.current.started_ms:
                finished_ms = self._storage.clock_ms()
                done = msgspec.structs.replace(state.current, finished_ms=finished_ms)
                tx.put(keys.SCRUB, ScrubState(last_round=done))
            await self._walk.passed(claim, None, tx)

        await self._change(write)


def _added(done: ScrubRound, report: VerifyReport) -> ScrubRound:
    return msgspec.structs.replace(
        done,
        groups=done.groups + report.groups,
        shards=done.shards + report.shards,
        bytes=done.bytes + report.bytes,
        damaged=done.damaged + report.damaged,
        missing=done.missing + report.missing,
        unanswered=done.unanswered + report.unanswered,
    )


class _GroupScrub:
    """The verification of one group: `go_on` until it says that nothing is left."""

    def __init__(
        self, storage: Storage, throttle: Throttle, group: Group, report: VerifyReport
    ) -> None:
        self._storage = storage
        self._throttle = throttle
        self._waiting: deque[Copy] = deque()
        self.group = group
        self.report = report
        self.started_ms = storage.clock_ms()
        self._is_open = False

    async def go_on(self) -> bool:
        """Do a piece of it; whether there is more."""
        if not self._is_open:
            await self._open()
            self._is_open = True
        return await self._step()

    async def _open(self) -> None:
        """List the group, and queue what is missing. Only shards of blobs that something refers
        to are looked at, where they may be looked for: other copies are merge's to remove."""
        self.group = await self._storage.blobs.topology.reread(self.group)
        listings = await list_group(self._storage, self.group)
        self.report.unlisted |= listings.unlisted
        held = dict(compare.by_blob(listings))
        queue: list[Repair] = []
        async for blob, items in compare.references_of(self._storage, self.group):
            live = compare.live(items)
            if not live:
                continue
            ref = compare.blob_ref(self.group, blob, live[0][1])
            copies = held.get(blob, [])
            lost = await compare.missing(self._storage, listings, ref, copies)
            if lost:
                self.report.missing += len(lost)
                queue.append(compare.missing_repair(self._storage, ref, lost))
            places = placing.places(self.group, ())
            if ref.nodes:
                places = {(node, index) for index, node in enumerate(ref.nodes)}
            self._waiting.extend(copy for copy in copies if copy.place in places)
        await self._queue(queue)
        self.report.groups += 1

    async def _step(self) -> bool:
        """Verify the next shards; whether there are more."""
        by_node: defaultdict[str, list[Copy]] = defaultdict(list)
        shards = size = 0
        while self._waiting and shards < UNIT_SHARDS and size < UNIT_BYTES:
            copy = self._waiting.popleft()
            by_node[copy.node].append(copy)
            shards += 1
            size += copy.entry.bytes_stored
        found = await asyncio.gather(
            *(self._verify_on(node, copies) for node, copies in by_node.items())
        )
        await self._queue([repair for repairs in found for repair in repairs])
        return bool(self._waiting)

    async def _queue(self, repairs: Sequence[Repair]) -> None:
        store, topology = self._storage.store, self._storage.blobs.topology
        self.report.queued += await queue_repairs(store, topology, repairs, URGENCY_DAMAGED)

    async def _verify_on(self, node_id: str, copies: Sequence[Copy]) -> list[Repair]:
        bad: list[Repair] = []
        profile, number = self.group.profile.name, self.group.number
        for entry in (copy.entry for copy in copies):
            await self._throttle.take(entry.bytes_stored)
            node = self._storage.blobs.directory.get(node_id)
            if node is None:
                self.report.unanswered += 1
                continue
            try:
                async with asyncio.timeout(VERIFY_SECONDS_MAX):
                    verdict = await node.drive.verify(
                        ShardName(profile, number, entry.blob, entry.index)
                    )
            except ShardMissing:
                continue  # removed since it was listed
            except (DriveError, DriveRefused, TimeoutError):
                self.report.unanswered += 1
                continue
            self.report.shards += 1
            self.report.bytes += entry.bytes_stored
            if not verdict.whole:
                self.report.damaged += 1
                what = verdict.reason or f"{len(verdict.damaged_blocks)} blocks are damaged"
                reason = f"shard {entry.index} on {node_id}: {what}"
                now_ms = self._storage.clock_ms()
                lost = (entry.index,)
                bad.append(Repair(profile, number, entry.blob, reason, now_ms, lost=lost))
        return bad
