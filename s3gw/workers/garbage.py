"""The collector: takes away what nothing refers to any more.

The queue is ordered by due time and read by steps that cost what they find. An entry names a
dropped reference, or a manifest whose parts are to be looked at (`s3gw.workers.manifests`).

**A dropped reference.** Everything under the blob's prefix is read at one revision:

* another reference is there, live or dropped: this one and its entry are removed. The commit is
  guarded by the other one too, so that of two dropped references that see each other only one
  goes: the last one always finds itself alone.
* a long read is registered: the entry waits.
* nothing else: no live reference can appear any more (one is only ever made from a live one), so
  the shards are unlinked on every node that may hold one. Only when all of these have confirmed,
  or have left the layout, reference and entry go. A node that is down makes the entry wait; the
  entries behind it do not.

**What waits for a node** is put off, longer each time (`s3gw.workers.due`), so that a million
entries of a node that is away for a week are not written over and over. When such a node is back,
the entries that were put off are looked at before their time, once; so they are by a process that
takes over the work, which does not know who is back. What still cannot go stays as it is then.

While a drive is below its reserve, nothing waits for its time or for a reader: a read may break, an
acknowledged write never.

A crash anywhere leaves the entry, and everything here may be done twice. The count of a group
falls with the entry that raised it, so that it is exact whoever dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Unpack

import msgspec

from nodes.protocol import DriveError, DriveRefused
from s3gw.cluster.directory import Node
from s3gw.kv.interface import Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.everything import Steps
from s3gw.metadata.records import Garbage, Reference, decode
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects.storage import Storage
from s3gw.workers import due, manifests, placing
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
)

log = logging.getLogger(__name__)

BATCH_ENTRIES = 100
ENTRIES_PER_COMMIT = 24
RETRY_MS = 10 * 60 * 1000
PAUSE_DAY_MS = 24 * 3600 * 1000
PAUSE_MS_MAX = PAUSE_DAY_MS // due.PAUSE_PARTS_LAST * 5 // 4
EARLY_ITEMS = 200
EARLY_READS = 20
STATS_SECONDS_MAX = 10.0


@dataclass(slots=True)
class GarbageReport:
    """What a run did: queue entries removed, blobs unlinked, manifests freed; entries that wait
    for a node or a reader; entries left because others changed them."""

    entries: int = 0
    blobs: int = 0
    manifests: int = 0
    waiting: int = 0
    lost: int = 0


@dataclass(slots=True)
class Entry:
    """A queue entry as read; `early` before its time, since a node is back."""

    key: bytes
    revision: int
    garbage: Garbage
    early: bool = False

    @property
    def due_ms(self) -> int:
        return keys.garbage_parts(self.key)[0]

    @property
    def identity(self) -> bytes:
        """The blob or manifest."""
        return keys.garbage_parts(self.key)[1]

    @property
    def holder(self) -> bytes:
        return keys.garbage_parts(self.key)[2]


@dataclass(slots=True)
class Verdict:
    """What is to be committed for an entry: nothing for one that goes nowhere before its time.
    `seen` are keys that must still be as read."""

    entry: Entry
    seen: dict[bytes, int] = field(default_factory=dict)
    deletes: list[bytes] = field(default_factory=list)
    puts: dict[bytes, msgspec.Struct] = field(default_factory=dict)
    count: tuple[bytes, int] | None = None
    unlinked: bool = False
    waits: bool = False

    def add_to(self, tx: Transaction) -> None:
        for key, revision in self.seen.items():
            tx.expect(key, revision)
        for key in self.deletes:
            tx.delete(key)
        for key, record in self.puts.items():
            tx.put(key, record)
        if self.count is not None:
            key, size = self.count
            tx.count(key, -1, -size)


class GarbageCollector(PeriodicWorker):
    """The worker. One unit is one batch of due entries."""

    name = "garbage"
    interval_seconds = 10.0

    def __init__(self, storage: Storage, **timing: Unpack[Timing]) -> None:
        super().__init__(storage, **timing)
        self._due = Steps(storage.store.kv, keys.GARBAGE, keys.garbage_due(0))
        self._in_round = False
        self._pressed = False
        self._claim: Claim | None = None
        # Nodes that were down when an entry was put off because of them.
        self._awaited: set[str] = set()
        self._early: Steps | None = None

    async def work(self, claim: Claim) -> bool:
        if await self._batch(claim, GarbageReport()):
            return True
        return await self._early_batch(claim)

    async def run_once(self, claim: Claim = UNCLAIMED) -> GarbageReport:
        """Collect all that is due, and what that makes due."""
        report = GarbageReport()
        self._in_round = False
        while True:
            before = report.entries + report.waiting
            while await self._batch(claim, report):
                pass
            if report.entries + report.waiting == before:
                return report

    async def _batch(self, claim: Claim, report: GarbageReport) -> bool:
        """Work on the next due entries; False at the end of what is due."""
        items = await self._next_items()
        if not items:
            return False
        entries = [entry for item in items if (entry := _entry(item)) is not None]
        for wave in one_per_blob(entry for entry in entries if not entry.garbage.manifest):
            await self._collect_apart(claim, wave, report)
        for entry in entries:
            if entry.garbage.manifest:
                await self._free_manifest(claim, entry, report)
        return True

    async def _early_batch(self, claim: Claim) -> bool:
        """Look at more of what was put off, if nodes are back that it may wait for; whether more
        is left of that."""
        early = self._early or self._begin_early(claim)
        if early is None:
            return False
        self._claim, self._early = None, None  # should this fail, all is begun anew
        for _ in range(EARLY_READS):
            found = [_entry(item) for item in await early.next(EARLY_ITEMS)]
            entries = [entry for entry in found if entry is not None and entry.garbage.attempts]
            for entry in entries:
                entry.early = True
            for wave in one_per_blob(entries):
                for first in range(0, len(wave), BATCH_ENTRIES):
                    some = wave[first : first + BATCH_ENTRIES]
                    await self._collect_apart(claim, some, GarbageReport())
            if entries or early.ended:
                break
        self._claim = claim
        self._early = None if early.ended else early
        return self._early is not None

    def _begin_early(self, claim: Claim) -> Steps | None:
        """Begin to look at what was put off, if nodes are back, or this process has taken over."""
        live = {node.id for node in self._storage.blobs.directory.all() if node.live}
        if claim == self._claim and self._awaited.isdisjoint(live):
            return None
        self._awaited -= live
        storage = self._storage
        begin_ms = storage.clock_ms() + (storage.garbage_after_ms if self._pressed else 0)
        last_ms = storage.clock_ms() + storage.garbage_after_ms + PAUSE_MS_MAX
        start, end = keys.garbage_due(begin_ms), keys.garbage_due(max(begin_ms, last_ms))
        return Steps(storage.store.kv, start, end)

    async def _collect_apart(
        self, claim: Claim, entries: Sequence[Entry], report: GarbageReport
    ) -> None:
        """Collect entries; if that fails each on its own, so that one holds up no other."""
        try:
            await self._collect(claim, entries, report)
        except SHARED_TROUBLE:
            raise
        except Exception:
            if len(entries) == 1:
                log.exception("the entry %r of the collector's queue stays", entries[0].key)
                report.lost += 1
                return
            for entry in entries:
                await self._collect_apart(claim, [entry], report)

    async def _is_pressed(self) -> bool:
        """Whether a drive takes no shards for want of space."""
        directory = self._storage.blobs.directory

        async def is_full(node: Node) -> bool:
            try:
                async with asyncio.timeout(STATS_SECONDS_MAX):
                    return not (await node.drive.stats()).writable
            except (DriveError, DriveRefused, TimeoutError):
                return False

        return any(await asyncio.gather(*map(is_full, directory.usable_nodes())))

    async def _next_items(self) -> Sequence[Item]:
        """The next entries that are due; none at the end of a round."""
        if not self._in_round:
            self._pressed = await self._is_pressed()
            ahead_ms = self._storage.garbage_after_ms if self._pressed else 0
            self._due.restart(keys.garbage_due(self._storage.clock_ms() + ahead_ms))
        items = await self._due.next(BATCH_ENTRIES)
        self._in_round = bool(items)
        return items

    async def _collect(self, claim: Claim, entries: Sequence[Entry], report: GarbageReport) -> None:
        """Decide on entries of different blobs side by side, and commit the verdicts."""
        storage = self._storage
        reading = await storage.store.kv.get_many([entry.garbage.reference for entry in entries])
        members = await placing.layout_nodes(storage)
        topology = storage.blobs.topology
        names = [keys.split_reference(entry.garbage.reference) for entry in entries]
        await placing.refresh_groups(
            storage, [topology.group_of(profile, blob) for profile, _, blob, _ in names]
        )
        decided = await asyncio.gather(
            *(
                self._decide(entry, item, members)
                for entry, item in zip(entries, reading.items, strict=True)
            )
        )
        verdicts = [verdict for verdict in decided if verdict.deletes]
        for first in range(0, len(verdicts), ENTRIES_PER_COMMIT):
            await self._settle(claim, verdicts[first : first + ENTRIES_PER_COMMIT], report)

    async def _decide(self, entry: Entry, item: Item | None, members: frozenset[str]) -> Verdict:
        verdict = Verdict(entry, {entry.key: entry.revision}, [entry.key])
        if item is None:
            return verdict
        reference = decode(Reference, item.value)
        profile, pg, blob, _ = keys.split_reference(item.key)
        verdict.count = keys.count(profile, pg, reference.bucket), reference.size
        verdict.seen[item.key] = item.revision
        if reference.dropped_due_ms != entry.due_ms:
            # The same holder took the blob again (a copy onto a key that was free at the same
            # revision): two raises of the count, one reference. Only this entry's raise goes.
            return verdict
        kv = self._storage.store.kv
        prefix = keys.blob(profile, pg, blob)
        page = await kv.scan(prefix, keys.after_prefix(prefix), limit=2)
        others = [other for other in page.items if other.key != item.key]
        if others:
            verdict.seen[others[0].key] = others[0].revision
            verdict.deletes.append(item.key)
            return verdict
        if not self._pressed and await self._is_read(blob, page.revision):
            return self._postponed(entry, item, reference)
        if not await placing.unlink(self._storage, profile, blob, reference.nodes, members):
            group = self._storage.blobs.topology.group_of(profile, blob)
            named = {node for node, _ in placing.places(group, reference.nodes)}
            self._awaited |= {node for node in named & members if not self._is_live(node)}
            return self._postponed(entry, item, reference, waits=True)
        verdict.deletes.append(item.key)
        verdict.unlinked = True
        return verdict

    async def _is_read(self, identity: bytes, revision: int) -> bool:
        """Whether a long read of a blob or manifest was registered at a revision."""
        prefix = keys.readings(identity)
        page = await self._storage.store.kv.scan(
            prefix, keys.after_prefix(prefix), limit=1, revision=revision
        )
        return bool(page.items)

    def _is_live(self, name: str) -> bool:
        node = self._storage.blobs.directory.get(name)
        return node is not None and node.live

    def _later_ms(self, pause_ms: int) -> int:
        """When to look again; behind all that is collected in this round."""
        ahead_ms = self._storage.garbage_after_ms if self._pressed else 0
        return self._storage.clock_ms() + ahead_ms + pause_ms

    def _postponed(
        self, entry: Entry, item: Item, reference: Reference, *, waits: bool = False
    ) -> Verdict:
        """Another time: of one that `waits` for nodes later each time."""
        if entry.early:
            return Verdict(entry, waits=True)  # it has a time
        garbage, pause_ms = entry.garbage, RETRY_MS
        if waits:
            pause_ms = due.pause_ms(entry.identity + entry.holder, garbage.attempts, PAUSE_DAY_MS)
            attempts = min(garbage.attempts + 1, 16)
            garbage = msgspec.structs.replace(garbage, attempts=attempts)
        due_ms = self._later_ms(pause_ms)
        later = keys.garbage(due_ms, entry.identity, entry.holder)
        return Verdict(
            entry,
            {entry.key: entry.revision, item.key: item.revision},
            [entry.key],
            {
                later: garbage,
                item.key: msgspec.structs.replace(reference, dropped_due_ms=due_ms),
            },
            waits=True,
        )

    async def _settle(
        self, claim: Claim, verdicts: Sequence[Verdict], report: GarbageReport
    ) -> None:
        """Commit verdicts together; when somebody else changed one, each on its own."""
        tx = Transaction()
        for verdict in verdicts:
            verdict.add_to(tx)
        try:
            await commit(self._storage.store, claim, tx)
        except (Conflict, OutcomeUnknown):
            if len(verdicts) == 1:
                report.lost += 1
                return
            for verdict in verdicts:
                await self._settle(claim, [verdict], report)
            return
        for verdict in verdicts:
            report.waiting += verdict.waits
            report.entries += not verdict.waits
            report.blobs += verdict.unlinked

    async def _free_manifest(self, claim: Claim, entry: Entry, report: GarbageReport) -> None:
        """Free what an entry about a manifest allows."""
        storage = self._storage
        freeing = manifests.Freeing(storage, claim, entry.garbage, entry.identity, entry.holder)
        try:
            state = await freeing.free()
            verdict = Verdict(entry, {entry.key: entry.revision}, [entry.key])
            verdict.seen |= freeing.seen
            verdict.deletes += freeing.deletes
            if state is manifests.State.READ:
                later = keys.garbage(self._later_ms(RETRY_MS), entry.identity, entry.holder)
                verdict = Verdict(entry, {entry.key: entry.revision}, [entry.key], waits=True)
                verdict.puts[later] = entry.garbage
        except (Conflict, OutcomeUnknown):
            report.lost += 1
            return
        except SHARED_TROUBLE:
            raise
        except Exception:
            log.exception("the entry %r of the collector's queue stays", entry.key)
            report.lost += 1
            return
        await self._settle(claim, [verdict], report)
        report.manifests += state is manifests.State.FREED


def _entry(item: Item) -> Entry | None:
    """The entry; None, and a line of the log, when it cannot be read."""
    try:
        return Entry(item.key, item.revision, decode(Garbage, item.value))
    except Exception:
        log.exception("the entry %r of the collector's queue cannot be read", item.key)
        return None


def one_per_blob(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The entries in rounds, so that no blob is twice in a round: references of one blob that are
    due together must see each other go."""
    waves: list[dict[bytes, Entry]] = []
    for entry in entries:
        for wave in waves:
            if entry.identity not in wave:
                wave[entry.identity] = entry
                break
        else:
            waves.append({entry.identity: entry})
    return [list(wave.values()) for wave in waves]
