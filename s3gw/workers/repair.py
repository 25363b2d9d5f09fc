"""The repair worker: takes blobs from the repair queue, most urgent first.

A blob on its group's slots: its shards are verified where they lie. As long as the whole ones give
the others, each damaged one is set aside and rebuilt in place. With too few whole shards the
blob may still be readable (a stripe needs only its own fragments); then its bytes are written as a
new blob. What cannot be read stays as it is: nothing is deleted, and it is looked at again later.

A blob that lies elsewhere, or was written narrowed, is moved home (`s3gw.workers.reencode`); while
nodes are missing for that, its shards are kept whole where they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

import msgspec

from nodes.protocol import DriveError, DriveRefused, ShardMissing, ShardName
from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Repair, decode
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects.storage import Storage
from s3gw.workers import reencode
from s3gw.workers.contract import UNCLAIMED, Claim, commit
from s3gw.workers.reencode import ContentChanged, Entry, NotPossibleNow

log = logging.getLogger(__name__)

BATCH_ENTRIES = 100
BLOBS_AT_ONCE = 4
RETRY_MS_MIN = 30_000
RETRY_MS_MAX = 3600 * 1000
INTERVAL_SECONDS = 10.0
VERIFY_SECONDS_MAX = 300.0


class State(Enum):
    """A shard as its node sees it."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class RepairReport:
    """What a run did: entries settled and put off, shards rebuilt, blobs moved home, blobs of
    which too little is left to read."""

    settled: int = 0
    later: int = 0
    rebuilt: int = 0
    moved: int = 0
    unreadable: int = 0


class RepairWorker:
    """The worker. One unit is one page of the queue."""

    name = "repair"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._position = keys.REPAIRS
        self._at_once = asyncio.Semaphore(BLOBS_AT_ONCE)

    async def wait(self) -> None:
        await self._sleep(self._interval_seconds)

    async def work(self, claim: Claim) -> bool:
        return await self._page(claim, RepairReport(), self._storage.clock_ms())

    async def run_once(self, claim: Claim = UNCLAIMED) -> RepairReport:
        """Take every entry of the queue in hand once, those that wait for their time too."""
        report = RepairReport()
        self._position = keys.REPAIRS
        while await self._page(claim, report, None):
            pass
        return report

    async def _page(self, claim: Claim, report: RepairReport, now_ms: int | None) -> bool:
        """Work on the next entries; those not due at `now_ms` are passed over."""
        page = await self._storage.store.kv.scan(
            self._position, keys.after_prefix(keys.REPAIRS), limit=BATCH_ENTRIES
        )
        self._position = page.items[-1].key + b"\x00" if page.more else keys.REPAIRS
        blobs: dict[bytes, Entry] = {}
        for item in page.items:
            entry = Entry(item.key, item.revision, decode(Repair, item.value))
            if now_ms is None or entry.record.not_before_ms <= now_ms:
                blobs.setdefault(entry.record.blob, entry)
        await asyncio.gather(*(self._repair(claim, entry, report) for entry in blobs.values()))
        return page.more

    async def _repair(self, claim: Claim, entry: Entry, report: RepairReport) -> None:
        async with self._at_once:
            try:
                done = await self._try(claim, entry, report)
                await (self._settle if done else self._put_off)(claim, entry, report)
            except (Conflict, OutcomeUnknown):
                report.later += 1  # somebody else has changed the entry or the blob: next time

    async def _try(self, claim: Claim, entry: Entry, report: RepairReport) -> bool:
        try:
            return await _BlobRepair(self._storage, claim, report).run(entry)
        except (BlobUnreadable, ContentChanged) as error:
            blob = entry.record.blob.hex()
            log.warning("blob %s cannot be repaired: %s", blob, error)
            report.unreadable += 1
            return False

    async def _settle(self, claim: Claim, entry: Entry, report: RepairReport) -> None:
        found = await self._storage.store.get(Repair, entry.key)
        if found.revision:
            tx = Transaction()
            tx.expect(entry.key, entry.revision)
            tx.delete(entry.key)
            await commit(self._storage.store, claim, tx)
        report.settled += 1

    async def _put_off(self, claim: Claim, entry: Entry, report: RepairReport) -> None:
        found = await self._storage.store.get(Repair, entry.key)
        report.later += 1
        if found.record is None:
            return
        delay_ms = min(RETRY_MS_MAX, RETRY_MS_MIN * 2**found.record.attempts)
        tx = Transaction()
        tx.expect(entry.key, found.revision)
        later = msgspec.structs.replace(
            found.record,
            not_before_ms=self._storage.clock_ms() + delay_ms,
            attempts=min(found.record.attempts + 1, 16),
        )
        tx.put(entry.key, later)
        await commit(self._storage.store, claim, tx)


class _BlobRepair:
    """The repair of one blob."""

    def __init__(self, storage: Storage, claim: Claim, report: RepairReport) -> None:
        self._storage = storage
        self._claim = claim
        self._report = report

    async def run(self, entry: Entry) -> bool:
        """Do what can be done; whether the blob needs nothing more."""
        record = entry.record
        old = BlobRef(record.profile, record.blob, 0, 0)
        if record.copy is not None and await self._move(entry, old):
            return True
        holders = await reencode.live_references(
            self._storage, record.profile, record.pg, record.blob
        )
        if not holders:
            return record.copy is None
        reference = holders[0][1]
        ref = msgspec.structs.replace(
            old, size=reference.size, nodes=reference.nodes, scheme=reference.scheme
        )
        whole = await self._make_whole(ref)
        if record.copy is not None:
            return False  # some holders must wait; what they hold is kept whole meanwhile
        if whole and not ref.nodes:
            return True
        return await self._rewrite(entry, ref)

    async def _rewrite(self, entry: Entry, ref: BlobRef) -> bool:
        """Write the blob anew: one that is not at home, or has too few whole shards."""
        if not ref.nodes and not await self._is_beyond_rebuilding(ref):
            return False
        try:
            entry = await reencode.write_copy(self._storage, self._claim, entry, ref)
        except NotPossibleNow as reason:
            log.info("blob %s stays where it is: %s", ref.blob.hex(), reason)
            return False
        return await self._move(entry, ref)

    async def _move(self, entry: Entry, old: BlobRef) -> bool:
        done = await reencode.Swap(self._storage, self._claim, entry, old).run()
        self._report.moved += done
        return done

    async def _make_whole(self, ref: BlobRef) -> bool:
        """Rebuild what is damaged or missing; whether every shard is whole afterwards."""
        states = await self._states(ref)
        scheme, nodes, _ = self._storage.blobs.topology.location(ref)
        whole = {index for index, state in states.items() if state is State.WHOLE}
        if not scheme.decodable(whole):
            return False
        for index, state in states.items():
            if state not in (State.DAMAGED, State.MISSING) or not nodes[index]:
                continue
            if await self._rebuild(ref, index, nodes[index], state):
                whole.add(index)
        return len(whole) == scheme.width

    async def _is_beyond_rebuilding(self, ref: BlobRef) -> bool:
        """Whether too few shards are whole although every node has answered."""
        states = await self._states(ref)
        scheme, _, _ = self._storage.blobs.topology.location(ref)
        whole = [index for index, state in states.items() if state is State.WHOLE]
        return State.UNKNOWN not in states.values() and not scheme.decodable(whole)

    async def _rebuild(self, ref: BlobRef, index: int, node_id: str, state: State) -> bool:
        name = self._name(ref, index)
        node = self._storage.blobs.directory.get(node_id)
        assert node is not None
        if state is State.DAMAGED:
            try:
                await node.drive.quarantine(name)
            except (DriveError, DriveRefused):
                return False
        if not await self._storage.blobs.rebuild_shard(ref, index, node_id):
            return False
        self._report.rebuilt += 1
        return await self._state(ref, index, node_id) is State.WHOLE

    async def _states(self, ref: BlobRef) -> dict[int, State]:
        _, nodes, _ = self._storage.blobs.topology.location(ref)
        states = await asyncio.gather(
            *(self._state(ref, index, node) for index, node in enumerate(nodes))
        )
        return dict(enumerate(states))

    async def _state(self, ref: BlobRef, index: int, node_id: str) -> State:
        if not node_id:
            return State.MISSING
        directory = self._storage.blobs.directory
        node = directory.get(node_id)
        if node is None or not node.usable(directory.clock()):
            return State.UNKNOWN
        try:
            async with asyncio.timeout(VERIFY_SECONDS_MAX):
                verdict = await node.drive.verify(self._name(ref, index))
        except ShardMissing:
            return State.MISSING
        except (DriveError, DriveRefused, TimeoutError):
            node.failed(directory.clock())
            return State.UNKNOWN
        return State.WHOLE if verdict.whole else State.DAMAGED

    def _name(self, ref: BlobRef, index: int) -> ShardName:
        group = self._storage.blobs.topology.group_of(ref.profile, ref.blob)
        return ShardName(ref.profile, group.number, ref.blob, index)
