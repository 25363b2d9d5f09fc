"""The durability ledger: how many references, and bytes, are at full, reduced and critical
redundancy, and how many are lost; per bucket and profile.

It is the sum of `count/` by the state of each placement group, corrected by the repair queue, all
read at one revision of the engine:

* the state of a group is which of its slots are on live nodes. A slot that is being moved counts
  as there only when its new node and all nodes that held it before live, since nobody has written
  down which shards have come over: a blob counts as full when its group's moves are finished.
* a blob in the repair queue is taken out of its group and judged by what is known of it: its own
  nodes and scheme if it has some, without the shards that its entry says are missing or damaged.

So the ledger says what is *known*: damage that nobody has met yet becomes known by the next read
or scrub. Of what is known it never says more than is true; where it cannot know (the engine does
not answer, a record names a profile that is not there) it raises.

    class       the shards that are there
    full        all of them, each where it belongs
    reduced     not all, but they survive the loss of any one more
    critical    they decode; after some one more loss they would not
    lost        they do not decode (a stripe may still be readable: damage is counted by shard)

`count/` counts references: a blob that two objects share counts twice, and a dropped reference
counts until the collector has removed it. A blob in the queue that has only dropped references
stays in its group's class.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from erasure.scheme import Scheme
from s3gw import limits
from s3gw.cluster.directory import Directory
from s3gw.cluster.layouts import Layout
from s3gw.cluster.topology import Profile, UnknownProfile, profile_in
from s3gw.kv.interface import KV, Item
from s3gw.metadata import keys
from s3gw.metadata.everything import Steps
from s3gw.metadata.records import (
    Count,
    MergeAlarm,
    PgRecord,
    Reference,
    Repair,
    ScrubState,
    decode,
)

READS_AT_ONCE = 16
ENTRIES_AT_ONCE = 1000
SCRUB_ROUNDS_OVERDUE = 3


class Redundancy(StrEnum):
    """The classes, from best to worst."""

    FULL = "full"
    REDUCED = "reduced"
    CRITICAL = "critical"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Amount:
    """References to blobs, and their bytes as stored (before coding)."""

    blobs: int = 0
    bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.blobs + other.blobs, self.bytes + other.bytes)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.blobs - other.blobs, self.bytes - other.bytes)


@dataclass(frozen=True, slots=True)
class Row:
    """One bucket's references in one profile (a companion counts as its profile); `amounts` has
    every class. Dropped references that are not collected yet are among them."""

    bucket: str
    profile: str
    amounts: dict[Redundancy, Amount]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was known at an engine revision.

    `repairs_waiting` counts blobs in the queue, `oldest_repair_ms` is when the oldest entry was
    made (0: none). `groups_moving` counts groups with a slot whose move is not finished,
    `groups_degraded` those (moving or not) that are not at full redundancy; `nodes_down` are the
    nodes with slots, by record or by layout, that do not live.
    """

    revision: int
    rows: tuple[Row, ...]
    repairs_waiting: int
    oldest_repair_ms: int
    groups: int
    groups_moving: int
    groups_degraded: int
    nodes_down: tuple[str, ...]

    def total(self, redundancy: Redundancy) -> Amount:
        """The sum of all rows."""
        return sum((row.amounts[redundancy] for row in self.rows), Amount())

    @property
    def healed(self) -> bool:
        """Nothing is known to be less than full, and nothing is under way that says otherwise."""
        worse = (self.total(redundancy) for redundancy in Redundancy if redundancy != "full")
        return not (
            any(amount.blobs or amount.bytes for amount in worse)
            or self.repairs_waiting
            or self.groups_moving
            or self.groups_degraded
            or self.nodes_down
        )


def classify(scheme: Scheme, present: Collection[int], settled: Collection[int]) -> Redundancy:
    """The class of a blob with the shards `present`, of which `settled` are where they belong.

    >>> scheme = Scheme.parse("4+2")
    >>> [str(classify(scheme, range(n), range(n))) for n in (6, 5, 4, 3)]
    ['full', 'reduced', 'critical', 'lost']
    >>> str(classify(scheme, range(6), range(5)))
    'reduced'
    """
    there = set(present)
    if set(settled) >= set(range(scheme.width)):
        return Redundancy.FULL
    if not scheme.decodable(there):
        return Redundancy.LOST
    survives = all(scheme.decodable(there - {index}) for index in there)
    return Redundancy.REDUCED if survives else Redundancy.CRITICAL


@dataclass(frozen=True, slots=True)
class GroupState:
    """A placement group: which slots' shards are there for certain, and which of them have no
    move left to be finished."""

    scheme: Scheme
    present: frozenset[int]
    settled: frozenset[int]
    moving: bool
    redundancy: Redundancy


def state_of(scheme: Scheme, record: PgRecord, live: Collection[str]) -> GroupState:
    """The state of a group, given which nodes live."""
    present, settled = set(), set()
    for index, slot in enumerate(record.slots):
        if slot.node in live and all(node in live for node in slot.holders_before):
            present.add(index)
            if not slot.holders_before:
                settled.add(index)
    moving = any(slot.holders_before for slot in record.slots)
    redundancy = classify(scheme, present, settled)
    return GroupState(scheme, frozenset(present), frozenset(settled), moving, redundancy)


async def read_ledger(kv: KV, directory: Directory, layout: Layout) -> Ledger:
    """The ledger as of now.

    Raises EngineError, and UnknownProfile or LookupError when records name a profile or group
    that is not there: no figure would be right then.
    """
    live = frozenset(node.id for node in directory.all() if node.live)
    revision = (await kv.get_many([keys.STORE])).revision
    return await _Reading(kv, live, layout, revision).run()


async def read_scrub(kv: KV) -> ScrubState:
    """How far shard verification has come. Raises EngineError."""
    (item,) = (await kv.get_many([keys.SCRUB])).items
    return decode(ScrubState, item.value) if item is not None else ScrubState()


async def read_merge_alarms(kv: KV) -> list[MergeAlarm]:
    """Why no orphans are removed, one for each group where that is so, the newest last. Raises
    EngineError."""
    alarms: list[MergeAlarm] = []
    start, end = keys.ALARMS, keys.after_prefix(keys.ALARMS)
    while True:
        page = await kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX)
        alarms += (decode(MergeAlarm, item.value) for item in page.items)
        if not page.more:
            return sorted(alarms, key=lambda alarm: alarm.since_ms)
        start = page.items[-1].key + b"\x00"


async def degraded_reasons(
    ledger: Ledger, kv: KV, *, now_ms: int, scrub_interval_seconds: float
) -> list[str]:
    """Why the store is not as it should be, worst first; empty when it is. Raises EngineError."""
    reasons = []
    meaning = {
        Redundancy.LOST: "cannot be decoded from the shards that are there",
        Redundancy.CRITICAL: "would not survive one more loss",
        Redundancy.REDUCED: "have reduced redundancy",
    }
    for redundancy, text in meaning.items():
        amount = ledger.total(redundancy)
        if amount.blobs:
            reasons.append(f"{amount.blobs} blobs ({amount.bytes} bytes) {text}")
    if ledger.nodes_down:
        reasons.append(f"down: {', '.join(ledger.nodes_down)}")
    if ledger.groups_degraded:
        reasons.append(
            f"{ledger.groups_degraded} of {ledger.groups} placement groups are not whole, "
            f"{ledger.groups_moving} are being moved"
        )
    if ledger.repairs_waiting:
        oldest = span(now_ms - ledger.oldest_repair_ms)
        reasons.append(f"{ledger.repairs_waiting} blobs wait for repair, the oldest for {oldest}")
    scrub = await read_scrub(kv)
    finished_ms = scrub.last_round.finished_ms
    if finished_ms and now_ms - finished_ms > SCRUB_ROUNDS_OVERDUE * scrub_interval_seconds * 1000:
        late = span(now_ms - finished_ms)
        reasons.append(f"no round of shard verification has ended for {late}")
    return reasons


def span(milliseconds: int) -> str:
    """A time in the unit that suits it, rounded down.

    >>> span(-1), span(119_999), span(7_200_000), span(200_000_000)
    ('0 s', '119 s', '2 h', '2 days')
    """
    seconds = max(0, milliseconds) // 1000
    for name, size in (("days", 24 * 3600), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"


class _Reading:
    """One ledger in the making."""

    def __init__(self, kv: KV, live: frozenset[str], layout: Layout, revision: int) -> None:
        self._kv = kv
        self._live = live
        self._layout = layout
        self._revision = revision
        self._at_once = asyncio.Semaphore(READS_AT_ONCE)
        self._groups: dict[tuple[str, int], GroupState] = {}
        self._slots: set[str] = set()
        self._sums: dict[tuple[str, str], dict[Redundancy, Amount]] = defaultdict(
            lambda: dict.fromkeys(Redundancy, Amount())
        )

    async def run(self) -> Ledger:
        profiles = await self._profiles()
        family = {profile.companion: profile.name for profile in profiles if profile.companion}
        for profile in profiles:
            await self._read_groups(profile)
        await self._refuse_strangers([profile.name for profile in profiles])
        for profile in profiles:
            await self._read_counts(profile, family.get(profile.name, profile.name))
        entries = await self._entries()
        waiting: list[Repair] = []
        for first in range(0, len(entries), ENTRIES_AT_ONCE):
            some = entries[first : first + ENTRIES_AT_ONCE]
            judged = await asyncio.gather(
                *(self._correct(entry, family.get(entry.profile, entry.profile)) for entry in some)
            )
            waiting += [entry for entry, waits in zip(some, judged, strict=True) if waits]
        states = self._groups.values()
        return Ledger(
            self._revision,
            tuple(
                Row(bucket, profile, amounts)
                for (bucket, profile), amounts in sorted(self._sums.items())
                if any(amount != Amount() for amount in amounts.values())
            ),
            len(waiting),
            min((entry.queued_ms for entry in waiting), default=0),
            len(states),
            sum(state.moving for state in states),
            sum(state.redundancy is not Redundancy.FULL for state in states),
            tuple(sorted(self._slots - self._live - {""})),
        )

    async def _scan(self, start: bytes, end: bytes) -> AsyncIterator[Item]:
        """All items of a range, at the revision of this reading."""
        while True:
            page = await self._kv.scan(
                start, end, limit=limits.SCAN_ITEMS_MAX, revision=self._revision
            )
            for item in page.items:
                yield item
            if not page.more:
                return
            start = page.items[-1].key + b"\x00"

    async def _under(self, prefix: bytes) -> list[Item]:
        async with self._at_once:
            return [item async for item in self._scan(prefix, keys.after_prefix(prefix))]

    async def _profiles(self) -> list[Profile]:
        return [profile_in(item) for item in await self._under(keys.PROFILES)]

    async def _read_groups(self, profile: Profile) -> None:
        for item in await self._under(keys.pgs(profile.name)):
            _, number = keys.split_pg(item.key)
            record = decode(PgRecord, item.value)
            self._groups[profile.name, number] = state_of(profile.scheme, record, self._live)
            self._slots |= {slot.node for slot in record.slots}
            self._slots |= set(self._layout.target(profile.name, number) or ())

    async def _refuse_strangers(self, names: Sequence[str]) -> None:
        """Raise UnknownProfile when something is counted for a profile that has no record."""
        known = sorted(keys.COUNTS + name.encode() + b"/" for name in names)
        starts = [keys.COUNTS, *(keys.after_prefix(prefix) for prefix in known)]
        for start, end in zip(starts, [*known, keys.after_prefix(keys.COUNTS)], strict=True):
            page = await self._kv.scan(start, end, limit=1, revision=self._revision)
            if page.items:
                raise UnknownProfile(repr(page.items[0].key))

    async def _read_counts(self, profile: Profile, name: str) -> None:
        """Add a profile's counts, group by group: a tight range each."""
        prefixes = [keys.counts(profile.name, number) for number in range(profile.pg_count)]
        pages = await asyncio.gather(*map(self._under, prefixes))
        for number, (prefix, items) in enumerate(zip(prefixes, pages, strict=True)):
            for item in items:
                count = decode(Count, item.value)
                bucket = item.key[len(prefix) :].decode()
                state = self._state(profile.name, number)
                sums = self._sums[bucket, name]
                sums[state.redundancy] += Amount(count.references, count.bytes)

    def _state(self, profile: str, number: int) -> GroupState:
        try:
            return self._groups[profile, number]
        except KeyError:
            raise LookupError(f"there is no placement group {profile}/{number}") from None

    async def _entries(self) -> list[Repair]:
        """The repair queue, one entry per blob, with all shards that any entry knows as lost."""
        found: dict[tuple[str, bytes], Repair] = {}
        steps = Steps(self._kv, keys.REPAIRS, keys.after_prefix(keys.REPAIRS))
        while items := await steps.next(limits.SCAN_ITEMS_MAX, revision=self._revision):
            for item in items:
                entry = decode(Repair, item.value)
                blob = entry.profile, entry.blob
                found[blob] = joined(found[blob], entry) if blob in found else entry
        return list(found.values())

    async def _correct(self, entry: Repair, profile: str) -> bool:
        """Move a queued blob's references from its group's class to its own; whether it waits for
        repair. One that is whole and only to go to another profile does not."""
        group = self._state(entry.profile, entry.pg)
        items = await self._under(keys.blob(entry.profile, entry.pg, entry.blob))
        references = [decode(Reference, item.value) for item in items]
        live = [reference for reference in references if not reference.dropped_due_ms]
        if not live:
            return True
        if entry.target and not entry.lost and not live[0].nodes:
            return False
        own = self._redundancy(group, entry, live[0])
        for reference in references:
            sums = self._sums[reference.bucket, profile]
            sums[group.redundancy] -= Amount(1, reference.size)
            sums[own] += Amount(1, reference.size)
        return True

    def _redundancy(self, group: GroupState, entry: Repair, reference: Reference) -> Redundancy:
        lost = set(entry.lost)
        if reference.nodes:
            there = {index for index, node in enumerate(reference.nodes) if node in self._live}
            return classify(Scheme.parse(reference.scheme), there - lost, there - lost)
        # What is queued for a reason that names no shard is not known to be whole.
        settled = group.settled - lost if lost else frozenset[int]()
        return classify(group.scheme, group.present - lost, settled)


def joined(entry: Repair, other: Repair) -> Repair:
    """Two entries of one blob as one: queued when the older one was, and lost what either says."""
    older, newer = sorted((entry, other), key=lambda repair: repair.queued_ms)
    return msgspec.structs.replace(
        older, copy=older.copy or newer.copy, lost=union(older.lost, newer.lost)
    )


def union(lost: Iterable[int], more: Iterable[int]) -> tuple[int, ...]:
    """Shard indexes of both, in order."""
    return tuple(sorted({*lost, *more}))
