"""Merge-and-repair: what the nodes hold of a placement group against what is referred to.

All nodes are listed first, then the group's references are read, in slices of the blob id. One
pass over both, ordered by blob, gives

* missing shards: a node should hold one and does not. They go into the repair queue;
* surplus copies: a node holds one that it should not. It goes after a while, when the right one is
  there and whole;
* orphan candidates: no reference at all, live or dropped. An orphan goes when its own drive saw it
  first long ago, every node was listed that the layout has not given up, and the references, read
  again, have none.

Since nodes are listed before references are read, a blob written in between is never a candidate;
and before a shard counts as missing its node is asked again. More candidates than a store in order
can have mean that the metadata is not the drives': nothing is removed then, and an alarm is kept in
the metadata, which makes health red at every gateway until a whole look at the group is clean.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Unpack

from nodes.protocol import DriveError, DriveRefused, ShardEntry, ShardMissing, ShardName
from s3gw.cluster.topology import Group
from s3gw.kv.interface import Conflict, Empty, Item
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, MergeAlarm, Repair
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects.references import URGENCY_MISPLACED, URGENCY_REDUCED, is_held
from s3gw.objects.storage import Storage
from s3gw.workers import compare, placing
from s3gw.workers.compare import Copy
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
)
from s3gw.workers.damage import URGENCY_DAMAGED, queue_repairs
from s3gw.workers.manifests import drop_now
from s3gw.workers.walk import Listings, Walk, all_groups, list_group

log = logging.getLogger(__name__)

ORPHAN_AFTER_SECONDS = 24 * 3600.0
SURPLUS_AFTER_SECONDS = 3600.0
ORPHANS_ALARM_SHARE = 0.05
ORPHANS_ALARM_MIN = 100
QUEUED_TOGETHER = 1000


@dataclass(slots=True)
class MergeReport:
    """What a run found and did. `alarms` name the groups where nothing was removed because too
    many blobs have no reference; `unlisted` the nodes that could not be asked."""

    groups: int = 0
    blobs: int = 0
    missing: int = 0
    queued: int = 0
    orphans: int = 0
    orphans_removed: int = 0
    surplus: int = 0
    surplus_removed: int = 0
    unlisted: set[str] = field(default_factory=set)
    alarms: list[str] = field(default_factory=list)


class MergeAndRepair(PeriodicWorker):
    """The worker. One unit is one placement group."""

    name = "merge"
    interval_seconds = 3600.0

    def __init__(
        self,
        storage: Storage,
        *,
        orphan_after_seconds: float = ORPHAN_AFTER_SECONDS,
        surplus_after_seconds: float = SURPLUS_AFTER_SECONDS,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(storage, **timing)
        self._orphan_after_seconds = orphan_after_seconds
        self._surplus_after_seconds = surplus_after_seconds
        self._walk = Walk(storage, self.name)

    async def work(self, claim: Claim) -> bool:
        group = await self._walk.next()
        if group is not None:
            try:
                await self.merge_group(claim, group, MergeReport())
            except (*SHARED_TROUBLE, Conflict):
                raise
            except Exception:
                # The walk must come to the other groups all the same.
                log.exception("group %r cannot be merged", group.key)
        await self._walk.passed(claim, group)
        return group is not None

    async def run_once(self, claim: Claim = UNCLAIMED) -> MergeReport:
        """Go over all groups."""
        report = MergeReport()
        for group in all_groups(self._storage):
            await self.merge_group(claim, group, report)
        return report

    async def merge_group(self, claim: Claim, group: Group, report: MergeReport) -> None:
        """Compare one group's listings with its references, and put right what differs."""
        group = await self._storage.blobs.topology.reread(group)
        listings = await list_group(self._storage, group)
        merge = _GroupMerge(self, claim, group, listings, report)
        await merge.run()
        report.groups += 1
        report.unlisted |= listings.unlisted

    @property
    def storage(self) -> Storage:
        return self._storage

    def old_enough(self, entry: ShardEntry, *, orphan: bool) -> bool:
        limit = self._orphan_after_seconds if orphan else self._surplus_after_seconds
        return entry.age_seconds >= limit


class _GroupMerge:
    """The merge of one group."""

    def __init__(
        self,
        worker: MergeAndRepair,
        claim: Claim,
        group: Group,
        listings: Listings,
        report: MergeReport,
    ) -> None:
        self._worker = worker
        self._storage = worker.storage
        self._claim = claim
        self._group = group
        self._listings = listings
        self._report = report
        self._blobs = 0
        self._candidates: list[tuple[bytes, list[Copy]]] = []
        self._found: defaultdict[int, list[Repair]] = defaultdict(list)

    async def run(self) -> None:
        held = compare.by_blob(self._listings)
        waiting = next(held, None)
        async for blob, references in compare.references_of(self._storage, self._group):
            while waiting is not None and waiting[0] < blob:
                self._note_candidate(*waiting)
                waiting = next(held, None)
            copies: list[Copy] = []
            if waiting is not None and waiting[0] == blob:
                copies = waiting[1]
                waiting = next(held, None)
            self._blobs += 1
            await self._examine(blob, references, copies)
        while waiting is not None:
            self._note_candidate(*waiting)
            waiting = next(held, None)
        self._report.blobs += self._blobs
        await self._queue_found()
        await self._remove_orphans()

    def _note_candidate(self, blob: bytes, copies: list[Copy]) -> None:
        self._blobs += 1
        self._candidates.append((blob, copies))

    async def _examine(self, blob: bytes, items: Sequence[Item], copies: Sequence[Copy]) -> None:
        """A blob that something refers to."""
        live = []
        for item, reference in compare.live(items):
            if await is_held(self._storage, item.key):
                live.append((item, reference))
            else:
                await self._check_manifest(item)
        if not live:
            return  # the collector's
        ref = compare.blob_ref(self._group, blob, live[0][1])
        await self._check_shards(ref, copies)
        await self._check_surplus(ref, copies)

    async def _check_manifest(self, item: Item) -> None:
        """Drop the reference of a manifest's own blob when no version holds the manifest any
        more: nothing can hold it again."""
        prefix = keys.manifest_holders(keys.split_reference(item.key)[3][1:])
        end = keys.after_prefix(prefix)
        if (await self._storage.store.kv.scan(prefix, end, limit=1)).items:
            return
        tx = Transaction()
        tx.guards.append(Empty(prefix, end))
        drop_now(self._storage, tx, item)
        try:
            await commit(self._storage.store, self._claim, tx)
        except (Conflict, OutcomeUnknown):
            return  # somebody else dropped it, or the next round sees it again

    async def _check_shards(self, ref: BlobRef, copies: Sequence[Copy]) -> None:
        """Queue what is missing of a blob, and a blob that is not at home."""
        missing = await compare.missing(self._storage, self._listings, ref, copies)
        self._report.missing += len(missing)
        if missing:
            self._found[URGENCY_DAMAGED].append(compare.missing_repair(self._storage, ref, missing))
        if ref.nodes:
            urgency = URGENCY_REDUCED if "" in ref.nodes else URGENCY_MISPLACED
            now_ms = self._storage.clock_ms()
            repair = Repair(
                ref.profile, self._group.number, ref.blob, "not on its group's slots", now_ms
            )
            self._found[urgency].append(repair)
        if sum(map(len, self._found.values())) >= QUEUED_TOGETHER:
            await self._queue_found()

    async def _queue_found(self) -> None:
        blobs = self._storage.blobs
        for urgency, repairs in self._found.items():
            self._report.queued += await queue_repairs(
                self._storage.store, blobs.topology, repairs, urgency
            )
        self._found.clear()

    async def _check_surplus(self, ref: BlobRef, copies: Sequence[Copy]) -> None:
        """Remove copies on nodes that should not hold them, when the right ones are whole."""
        _, nodes, group = self._storage.blobs.topology.location(ref)
        right = dict(enumerate(nodes))
        expected = placing.places(group, ()) if not ref.nodes else set()
        expected |= {(node, index) for index, node in right.items()}
        held = {copy.place for copy in copies}
        for copy in copies:
            index = copy.entry.index
            if copy.place in expected:
                continue
            self._report.surplus += 1
            if not self._worker.old_enough(copy.entry, orphan=False):
                continue
            if (right.get(index, ""), index) not in held:
                continue
            if await self._is_whole(right[index], self._name(ref.blob, index)):
                self._report.surplus_removed += await self._delete(copy, ref.blob)

    async def _is_whole(self, node_id: str, name: ShardName) -> bool:
        node = self._storage.blobs.directory.get(node_id)
        if node is None:
            return False
        try:
            return (await node.drive.verify(name)).whole
        except (DriveError, DriveRefused, ShardMissing):
            return False

    async def _remove_orphans(self) -> None:
        name = f"{self._group.profile.name}/{self._group.number}"
        count = len(self._candidates)
        self._report.orphans += count
        if count > ORPHANS_ALARM_MIN and count > ORPHANS_ALARM_SHARE * self._blobs:
            reason = f"{count} of {self._blobs} blobs of group {name} have no reference"
            log.error("%s: nothing is removed there", reason)
            await self._alarm(reason)
            return
        if count and await self._is_held_back():
            await self._alarm(f"{count} blobs of group {name} are not in the restored metadata")
            return
        if self._listings.unlisted:
            return  # they may be what the alarm is about
        await self._end_alarm()
        for blob, copies in self._candidates:
            old = [copy for copy in copies if self._worker.old_enough(copy.entry, orphan=True)]
            if old and not await self._is_referred_to(blob):
                for copy in old:
                    self._report.orphans_removed += await self._delete(copy, blob)

    async def _alarm(self, reason: str) -> None:
        """Have every gateway know that nothing is removed here, and since when."""
        self._report.alarms.append(reason)
        found = await self._storage.store.get(MergeAlarm, self._alarm_key)
        if found.record is not None and found.record.reason == reason:
            return
        since_ms = found.record.since_ms if found.record else self._storage.clock_ms()
        tx = Transaction()
        tx.expect(self._alarm_key, found.revision)
        tx.put(self._alarm_key, MergeAlarm(reason, since_ms))
        await self._note(tx)

    async def _end_alarm(self) -> None:
        found = await self._storage.store.get(MergeAlarm, self._alarm_key)
        if found.record is not None:
            tx = Transaction()
            tx.expect(self._alarm_key, found.revision)
            tx.delete(self._alarm_key)
            await self._note(tx)

    async def _note(self, tx: Transaction) -> None:
        try:
            await commit(self._storage.store, self._claim, tx)
        except (Conflict, OutcomeUnknown) as error:
            # Another has looked as well, or it is noted by the next look.
            log.info("the alarm of group %s is noted later: %r", self._group.key, error)

    @property
    def _alarm_key(self) -> bytes:
        return keys.alarm(self._group.profile.name, self._group.number)

    async def _is_held_back(self) -> bool:
        """Whether the metadata was restored and nobody has confirmed it yet: what was written after
        the moment it is of looks like an orphan. `s3gw rescue confirm` ends that."""
        (item,) = (await self._storage.store.kv.get_many([keys.RESTORED])).items
        return item is not None

    async def _is_referred_to(self, blob: bytes) -> bool:
        prefix = keys.blob(self._group.profile.name, self._group.number, blob)
        page = await self._storage.store.kv.scan(prefix, keys.after_prefix(prefix), limit=1)
        return bool(page.items)

    async def _delete(self, copy: Copy, blob: bytes) -> bool:
        """Delete a copy; refused by a drive that knows a later state of the group than ours."""
        answer = await placing.delete_shard(
            self._storage,
            copy.node,
            self._name(blob, copy.entry.index),
            self._group.record.revision,
            self._listings.members | {copy.node},
        )
        return answer is placing.Deletion.CONFIRMED

    def _name(self, blob: bytes, index: int) -> ShardName:
        return ShardName(self._group.profile.name, self._group.number, blob, index)
