"""The repair worker: takes blobs from the repair queue, most urgent first, and of those the ones
with the most shards gone.

A blob on its group's slots: its shards are verified where they lie. As long as the whole ones give
the others, each damaged one is set aside and rebuilt in place. With too few whole shards the
blob may still be readable (a stripe needs only its own fragments); then its bytes are written as a
new blob. What cannot be read stays as it is: nothing is deleted, and it is looked at again later.

A blob that lies elsewhere, or was written narrowed, is moved home (`s3gw.workers.reencode`); while
nodes are missing for that, its shards are kept whole where they are.

An entry goes when all damage that is known is mended, or nothing holds the blob any more. Else it
stays, with what is known of the blob's shards by then. A shard on a node that does not answer is
not damage: if it was not known to be lost, its entry does not wait for the node.

An entry that can go on only when nodes are back is put off once by a commit; from then on it is
remembered that it waits for them (`s3gw.workers.waiting`).

What is read and written for it is throttled; each step has a deadline by its size, so that a node
that hangs holds up nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Unpack

import msgspec

from nodes.protocol import DriveError, DriveRefused, ShardMissing, ShardName
from s3gw.cluster.ledger import union
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.topology import UnknownProfile
from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import Conflict, EngineError, Item, Page
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Repair, decode
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects.storage import Storage
from s3gw.workers import reencode
from s3gw.workers.contract import (
    UNCLAIMED,
    Claim,
    ClaimLost,
    PeriodicWorker,
    Timing,
    commit,
)
from s3gw.workers.damage import URGENCY_CRITICAL
from s3gw.workers.reencode import ContentChanged, Entry, NotPossibleNow
from s3gw.workers.waiting import Obstacle, Waiting, has_opening, is_live

log = logging.getLogger(__name__)

BATCH_ENTRIES = 100
BLOBS_AT_ONCE = 4
RETRY_MS_MIN = 30_000
RETRY_MS_MAX = 60_000
# Of what every node has answered for and cannot be mended.
HOPELESS_RETRY_MS_MAX = 3600 * 1000
VERIFY_SECONDS_MAX = 300.0
STEP_SECONDS_MIN = 120.0
STEP_BYTES_PER_SECOND_MIN = 1024 * 1024


class _Stopped(Exception):
    """The worker is to end: the entry is left as it is."""


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


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of an entry: it waits for an obstacle, or is due again at a time; neither: it is
    gone."""

    obstacle: Obstacle | None = None
    again_ms: int = 0


class RepairWorker(PeriodicWorker):
    """The worker. One unit is one page of the queue."""

    name = "repair"
    interval_seconds = 10.0

    def __init__(
        self, storage: Storage, *, throttle: Throttle | None = None, **timing: Unpack[Timing]
    ) -> None:
        super().__init__(storage, **timing)
        self._throttle = throttle or Throttle(lambda: 0)
        self._position = self._group_end = keys.REPAIRS
        self._waiting = Waiting(storage)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin with no other blob, and with no other shard that has to wait for bandwidth."""
        self._stopping.set()

    async def work(self, claim: Claim) -> bool:
        now_ms = self._storage.clock_ms()
        self._waiting.look()
        await self._look_first(claim, now_ms)
        return await self._page(claim, RepairReport(), now_ms)

    async def run_once(self, claim: Claim = UNCLAIMED) -> RepairReport:
        """Take every entry of the queue in hand once, those that wait for their time too."""
        report = RepairReport()
        self._position = self._group_end = keys.REPAIRS
        while await self._page(claim, report, None):
            pass
        return report

    async def _page(self, claim: Claim, report: RepairReport, now_ms: int | None) -> bool:
        """Work on the next entries; those not due at `now_ms` are passed over."""
        page, more = await self._next(everything=now_ms is None)
        await self._take(claim, page.items, report, now_ms, walked_at=page.revision)
        if not more:
            self._waiting.walked()
        return more

    async def _next(self, *, everything: bool) -> tuple[Page, bool]:
        """The next entries of the walk, and whether it goes on behind them. A range may cost what
        is in it: a long queue is read group by group, its rest only to find the next one. What is
        known to wait is left out, unless `everything` is wanted."""
        kv, end = self._storage.store.kv, keys.after_prefix(keys.REPAIRS)
        if self._position < self._group_end:
            page = await kv.scan(self._position, self._group_end, limit=BATCH_ENTRIES)
            if page.items:
                self._position = page.items[-1].key + b"\x00"
                return page, True
            self._position = self._group_end
        while True:
            stop, behind = (end, end) if everything else self._waiting.unread(self._position)
            page = await kv.scan(self._position, stop, limit=BATCH_ENTRIES)
            if page.more:
                last = page.items[-1].key
                self._position = last + b"\x00"
                self._group_end = keys.after_repairs_of_group(last)
                return page, True
            self._position = behind
            if stop == end:
                self._position = self._group_end = keys.REPAIRS
                return page, False
            if page.items:
                return page, True

    async def _look_first(self, claim: Claim, now_ms: int) -> None:
        """What has become critical is not made to wait until the walk over a long queue is back,
        nor behind what waits for nodes."""
        position = keys.repairs(URGENCY_CRITICAL)
        end = keys.after_prefix(position)
        while position < end:
            stop, behind = self._waiting.unread(position)
            page = await self._storage.store.kv.scan(position, min(stop, end), limit=BATCH_ENTRIES)
            if page.items:
                await self._take(claim, page.items, RepairReport(), now_ms)
                return
            position = behind

    async def _take(
        self,
        claim: Claim,
        items: Sequence[Item],
        report: RepairReport,
        now_ms: int | None,
        *,
        walked_at: int = 0,
    ) -> None:
        """Work on entries, a few at a time, the most endangered first; those not due at `now_ms`
        (None: all are) are passed over. `walked_at` is the revision at which the walk read them."""
        known = [entry for item in items if (entry := _entry(item)) is not None]
        notes = self._waiting if walked_at and now_ms is not None else None
        if notes is not None and now_ms is not None and known:
            notes.read(known, walked_at, now_ms)
        blobs: dict[bytes, Entry] = {}
        for entry in known:
            if now_ms is None:
                _choose(blobs, entry)
            elif entry.record.not_before_ms > now_ms:
                if notes is not None:
                    notes.note(entry.key, again_ms=entry.record.not_before_ms)
            elif self._waiting.holds(entry):
                if notes is not None:
                    notes.note_held(entry)
            else:
                _choose(blobs, entry)
        entries = sorted(blobs.values(), key=lambda entry: (-self._gone(entry), entry.key))
        left = deque(entries)

        async def lane() -> None:
            try:
                while left and not self._stopping.is_set():
                    entry = left.popleft()
                    outcome = await self._repair(claim, entry, report, now_ms is not None)
                    if notes is not None and outcome is not None:
                        notes.note(entry.key, outcome.obstacle, outcome.again_ms)
            except BaseException:
                left.clear()  # the other lanes end with what they have in hand
                raise

        ended = await asyncio.gather(
            *(lane() for _ in range(BLOBS_AT_ONCE)), return_exceptions=True
        )
        for error in ended:
            if error is not None:
                raise error

    def _gone(self, entry: Entry) -> int:
        """About how many shards of a blob are gone: known as lost, or their nodes are down."""
        directory = self._storage.blobs.directory
        record = entry.record
        try:
            group = self._storage.blobs.topology.group_of(record.profile, record.blob)
        except UnknownProfile:
            return 0
        down = {index for index, node in enumerate(group.nodes) if not directory.usable(node)}
        return len(down | set(record.lost))

    async def _repair(
        self, claim: Claim, entry: Entry, report: RepairReport, quietly: bool
    ) -> _Outcome | None:
        """Repair a blob; what became of its entry, None when that is not known. With `quietly` one
        that waits for nodes, as it did before, is not written again."""
        job = _BlobRepair(
            self._storage, claim, self._throttle, report, entry.record.lost, self._stopping
        )
        try:
            if await self._try(job, entry, report):
                await self._settle(claim, entry, report)
                return _Outcome()
            if quietly and job.only_waits(entry):
                report.later += 1
                return _Outcome(job.obstacle)
            return await self._put_off(claim, entry, job, report)
        except _Stopped:
            return None
        except (Conflict, OutcomeUnknown):
            report.later += 1  # somebody else has changed the entry or the blob: next time
            return None

    async def _try(self, job: _BlobRepair, entry: Entry, report: RepairReport) -> bool:
        try:
            done = await job.run(entry)
            job.ran = True
            return done
        except (BlobUnreadable, ContentChanged, UnknownProfile) as error:
            blob = entry.record.blob.hex()
            log.warning("blob %s cannot be repaired: %s", blob, error)
            report.unreadable += 1
            job.hopeless = not job.lacks_nodes()
        except TimeoutError:
            log.warning("the repair of blob %s took too long", entry.record.blob.hex())
        except (EngineError, OutcomeUnknown, ClaimLost, _Stopped):
            raise
        except Exception:
            # One blob, always among the first, must not hold up the repair of all others.
            log.exception("blob %s cannot be repaired", entry.record.blob.hex())
            job.hopeless = True
        return False

    async def _settle(self, claim: Claim, entry: Entry, report: RepairReport) -> None:
        found = await self._storage.store.get(Repair, entry.key)
        if found.revision:
            tx = Transaction()
            tx.expect(entry.key, entry.revision)
            tx.delete(entry.key)
            await commit(self._storage.store, claim, tx)
        report.settled += 1

    async def _put_off(
        self, claim: Claim, entry: Entry, job: _BlobRepair, report: RepairReport
    ) -> _Outcome | None:
        found = await self._storage.store.get(Repair, entry.key)
        report.later += 1
        if found.record is None:
            return None
        most = HOPELESS_RETRY_MS_MAX if job.hopeless else RETRY_MS_MAX
        delay_ms = min(most, RETRY_MS_MIN * 2**found.record.attempts)
        # What was added to the entry meanwhile is not known to this job.
        added = set(found.record.lost) - set(entry.record.lost)
        tx = Transaction()
        tx.expect(entry.key, found.revision)
        later = msgspec.structs.replace(
            found.record,
            not_before_ms=0 if added else self._storage.clock_ms() + delay_ms,
            attempts=min(found.record.attempts + 1, 16),
            lost=union(job.lost, added),
        )
        tx.put(entry.key, later)
        await commit(self._storage.store, claim, tx)
        again_ms = later.not_before_ms or self._storage.clock_ms()
        return _Outcome(job.obstacle if job.ran else None, again_ms)


def _choose(blobs: dict[bytes, Entry], entry: Entry) -> None:
    """Take one entry of each blob in hand: of several the one that has a copy, for which the others
    wait, else the most urgent."""
    chosen = blobs.setdefault(entry.record.blob, entry)
    if chosen.record.copy is None and entry.record.copy is not None:
        blobs[entry.record.blob] = entry


class _BlobRepair:
    """The repair of one blob. `lost` are the shards known to be missing or damaged, as far as it
    has come; `waits_for_nodes` says that it may go on when nodes are back, `hopeless` that nothing
    but what nobody expects would help. `obstacle` is what it waits for, `stuck` that something else
    keeps it from going on, which may end at any time; both are complete once it `ran`."""

    def __init__(
        self,
        storage: Storage,
        claim: Claim,
        throttle: Throttle,
        report: RepairReport,
        lost: tuple[int, ...],
        stopping: asyncio.Event,
    ) -> None:
        self._storage = storage
        self._stopping = stopping
        self._claim = claim
        self._throttle = throttle
        self._report = report
        self.lost = lost
        self.waits_for_nodes = False
        self.hopeless = False
        self.obstacle = Obstacle()
        self.stuck = False
        self.ran = False
        self._ref: BlobRef | None = None

    async def run(self, entry: Entry) -> bool:
        """Do what can be done; whether the blob needs nothing more."""
        record = entry.record
        old = BlobRef(record.profile, record.blob, 0, 0)
        if record.copy is not None and await self._move(entry, old):
            return True
        self.stuck = record.copy is not None
        reference = await reencode.first_holder(self._storage, record)
        if reference is None:
            return record.copy is None
        ref = msgspec.structs.replace(
            old, size=reference.size, nodes=reference.nodes, scheme=reference.scheme
        )
        self._ref = ref
        self.waits_for_nodes = self.lacks_nodes()
        elsewhere = bool(ref.nodes or record.target)
        if elsewhere and record.copy is None and await self._rewrite(entry, ref):
            return True
        if ref.nodes and record.attempts and not record.lost:
            return False  # it was looked at before, and nothing new is known
        # What is whole on the slots of a record that has changed says nothing about the present.
        topology = self._storage.blobs.topology
        await topology.reread(topology.group_of(ref.profile, ref.blob))
        beyond = await self._make_whole(ref)
        if record.copy is not None or elsewhere:
            return False  # some holders, or the move home, must wait; it is kept whole meanwhile
        if beyond:
            return await self._rewrite(entry, ref)
        return not self.lost

    def only_waits(self, entry: Entry) -> bool:
        """Whether its entry waits for nodes that are down and for nothing else, after nothing has
        become known that the entry does not say."""
        nothing_new = entry.record.attempts > 0 and self.lost == entry.record.lost
        return nothing_new and self.ran and bool(self.obstacle) and not self.stuck

    def lacks_nodes(self) -> bool:
        """Whether nodes that have shards of it are away, or have failed on the way."""
        if self.waits_for_nodes or self._ref is None:
            return self.waits_for_nodes
        _, nodes, _ = self._storage.blobs.topology.location(self._ref)
        return not all(self._storage.blobs.directory.usable(node) for node in nodes if node)

    async def _take_turn(self, size: int) -> None:
        """Wait until so many bytes may be moved. Raises _Stopped when the worker is stopped first:
        of what would follow nothing has begun."""
        turn = asyncio.ensure_future(self._throttle.take(size))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([turn, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                raise _Stopped
            turn.result()
        finally:
            turn.cancel()
            stopping.cancel()
            await asyncio.gather(turn, stopping, return_exceptions=True)

    async def _rewrite(self, entry: Entry, ref: BlobRef) -> bool:
        """Write the blob anew: one that is not at home, or has too few whole shards."""
        topology = self._storage.blobs.topology
        goal = reencode.destination(topology, ref.profile, entry.record.target)
        try:
            reencode.require_opening(self._storage, goal)
            await self._take_turn(2 * ref.size)
            async with asyncio.timeout(_step_seconds(2 * ref.size)):
                entry = await reencode.write_copy(self._storage, self._claim, entry, ref)
        except NotPossibleNow as reason:
            log.info("blob %s stays where it is: %s", ref.blob.hex(), reason)
            self.waits_for_nodes = True
            if has_opening(self._storage, goal):
                self.stuck = True
            else:
                self.obstacle.profiles.add(goal.name)
            return False
        self.stuck = not await self._move(entry, ref)
        return not self.stuck

    async def _move(self, entry: Entry, old: BlobRef) -> bool:
        done = await reencode.Swap(self._storage, self._claim, entry, old).run()
        self._report.moved += done
        return done

    async def _make_whole(self, ref: BlobRef) -> bool:
        """Rebuild what is damaged or missing, and note what is still lost; whether too few shards
        are whole for that although every node has answered."""
        topology = self._storage.blobs.topology
        scheme, nodes, _ = topology.location(ref)
        states = await asyncio.gather(*(self._states(ref, index) for index in range(scheme.width)))
        whole = {index for index, found in enumerate(states) if State.WHOLE in found}
        unknown = {
            index
            for index, found in enumerate(states)
            if index not in whole and State.UNKNOWN in found
        }
        bad = [i for i in range(scheme.width) if i not in whole | unknown and nodes[i]]
        rebuildable = scheme.decodable(whole)
        if rebuildable:
            for index in bad:
                if await self._rebuild(ref, index, nodes[index]):
                    whole.add(index)
        self.waits_for_nodes |= bool(unknown)
        self.stuck |= rebuildable and not whole.issuperset(bad)
        for index in unknown:
            for node in self._holders(ref, index):
                if is_live(self._storage, node):
                    self.stuck = True  # it has failed just now
                elif node:
                    self.obstacle.nodes.add(node)
        self.lost = union(set(bad) - whole, unknown & set(self.lost))
        return not rebuildable and not unknown

    async def _rebuild(self, ref: BlobRef, index: int, node_id: str) -> bool:
        """Rebuild a shard on its node; whether it is whole there."""
        scheme, _, _ = self._storage.blobs.topology.location(ref)
        directory = self._storage.blobs.directory
        node = directory.get(node_id)
        if node is not None and node.is_full(directory.clock()):
            return False  # known before anything is read for it
        size = ref.size + scheme.fragment_bytes(ref.size)
        await self._take_turn(size)
        # Another worker may have replaced it while this one waited: a whole one is not set aside.
        state = await self._state(ref, index, node_id)
        if node is None or state in (State.WHOLE, State.UNKNOWN):
            return state is State.WHOLE
        async with asyncio.timeout(_step_seconds(size)):
            if state is State.DAMAGED:
                try:
                    await node.drive.quarantine(self._name(ref, index))
                except (DriveError, DriveRefused):
                    return False
            if not await self._storage.blobs.rebuild_shard(ref, index, node_id):
                return False
        self._report.rebuilt += 1
        return await self._state(ref, index, node_id) is State.WHOLE

    async def _states(self, ref: BlobRef, index: int) -> list[State]:
        """A shard as each node that may hold it sees it."""
        return [await self._state(ref, index, node) for node in self._holders(ref, index)]

    def _holders(self, ref: BlobRef, index: int) -> tuple[str, ...]:
        """A shard's node, then, while its slot is moved, those before it."""
        _, nodes, group = self._storage.blobs.topology.location(ref)
        before = () if ref.nodes else group.record.slots[index].holders_before
        return (nodes[index], *before)

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


def _entry(item: Item) -> Entry | None:
    """The entry; None, and a line of the log, when it cannot be read."""
    try:
        return Entry(item.key, item.revision, decode(Repair, item.value))
    except Exception:
        log.exception("the entry %r of the repair queue cannot be read", item.key)
        return None


def _step_seconds(size: int) -> float:
    """The deadline of a step that reads and writes so many bytes."""
    return STEP_SECONDS_MIN + size / STEP_BYTES_PER_SECOND_MIN
