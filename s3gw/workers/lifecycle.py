"""Does what lifecycle rules want, when it is due.

The queue `due/` is kept by the commits of requests (`s3gw.objects.lifecycle`) and, when rules
change, by a walk over the bucket (`s3gw.workers.lifecycle_walk`). An entry is a hint. What is done
follows from the version and the rules as they are when the entry is due, and is one commit of the
kind that a client's request would make, guarded by both: versioning, object lock, counters and
garbage are as right as there. Whoever removes or disables a rule changes the bucket's record; no
commit that was decided before takes effect after that. A commit that loses a race is not decided
again here: its entry stays, and the next round looks.

    due, and done             the entry goes, or moves to when the next action is due
    not due, or no rule       the same
    locked by object lock     the entry moves to the end of the retention, a legal hold to tomorrow
    not possible now          the entry moves by some minutes (nodes for another class are missing)

The cost of a round is in proportion to the entries that are due. A crash anywhere leaves the entry,
and everything here may be done twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields

import msgspec

from s3gw import errors
from s3gw.buckets.lifecycle import NEWER_VERSIONS_MAX, Configuration
from s3gw.buckets.lifecycle_due import Action, Kind, Version, abort, judge
from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import At, Conflict, Guard, Item
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import Due, LifecycleRun
from s3gw.metadata.records import ObjectRecord, decode
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects import lifecycle
from s3gw.objects.delete import delete_object
from s3gw.objects.multipart import OPEN, abort_upload, find_upload, owner_lives
from s3gw.objects.publish import Found, Target, read_target
from s3gw.objects.storage import Storage
from s3gw.workers.contract import UNCLAIMED, Claim, commit
from s3gw.workers.due import DueQueue, SteadyClock
from s3gw.workers.lanes import Lanes
from s3gw.workers.transition import Changed, change_class

log = logging.getLogger(__name__)

ENTRIES_AT_ONCE = 8
WRITES_PER_COMMIT = 100
INTERVAL_SECONDS = 60.0
RETRY_PARTS = 144  # of a day: ten minutes of one that lasts 24 hours
PUSHED_VERSIONS = 16
SINCE_VERSIONS = 1000


@dataclass(slots=True)
class LifecycleReport:
    """What a run did: entries looked at; versions removed, hidden behind a marker, and moved to
    another class; markers removed; uploads aborted; entries that wait for a lock or for nodes, and
    those that others changed meanwhile."""

    looked: int = 0
    removed: int = 0
    hidden: int = 0
    markers: int = 0
    moved: int = 0
    aborted: int = 0
    waiting: int = 0
    lost: int = 0


ACTIONS = ("removed", "hidden", "markers", "moved", "aborted")


@dataclass(frozen=True, slots=True)
class Entry:
    """A queue entry as read. Its subject is a version (`sequence`; 0: the key as a whole) or an
    upload (`upload_id`)."""

    item: Item
    bucket_name: str
    bucket_id: bytes
    subject: bytes
    key: str
    sequence: int
    upload_id: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry that was dealt with. It goes, unless it is `gone`, and these come in its place."""

    entry: Entry
    again: Sequence[bytes] = ()
    gone: bool = False

    @property
    def writes(self) -> int:
        return len(self.again) + (not self.gone)


class Lifecycle:
    """The worker. One unit is one batch of due entries."""

    name = "lifecycle"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        *,
        throttle: Throttle | None = None,
        interval_seconds: float = INTERVAL_SECONDS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._throttle = throttle or Throttle(lambda: 0)
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._queue = DueQueue(storage.store.kv)
        self._clock = SteadyClock(storage.clock_ms, storage.monotonic)
        self._report = LifecycleReport()
        self._last = LifecycleReport()
        self._started_ms = 0
        self.actions: Counter[str] = Counter()

    async def wait(self) -> None:
        await self._sleep(self._interval_seconds)

    async def work(self, claim: Claim) -> bool:
        """One batch; False at the end of a round."""
        now_ms = self._clock.now_ms()
        if not self._report.looked:
            self._started_ms = now_ms
        items = await self._queue.next(now_ms)
        if items:
            await self._batch(claim, items, now_ms)
            return True
        self._last, self._report = self._report, LifecycleReport()
        if self._last.looked:
            await self._save_run(claim, now_ms)
        return False

    async def run_once(self, claim: Claim = UNCLAIMED) -> LifecycleReport:
        """Look at all that is due, and what that makes due."""
        total = LifecycleReport()
        while True:
            self._queue.restart()
            self._report = LifecycleReport()
            while await self.work(claim):
                pass
            for field in fields(LifecycleReport):
                value = getattr(total, field.name) + getattr(self._last, field.name)
                setattr(total, field.name, value)
            if not any(getattr(self._last, name) for name in ACTIONS):
                return total

    async def _save_run(self, claim: Claim, now_ms: int) -> None:
        """Keep what this round did, for operators."""
        tx = Transaction()
        figures = dataclasses.asdict(self._last)
        tx.put(keys.LIFECYCLE_RUN, LifecycleRun(self._started_ms, now_ms, **figures))
        try:
            await commit(self._storage.store, claim, tx)
        except OutcomeUnknown:
            log.info("the figures of a round were not kept")

    def _count(self, name: str) -> None:
        setattr(self._report, name, getattr(self._report, name) + 1)
        self.actions[name] += 1

    # A batch.

    async def _batch(self, claim: Claim, items: Sequence[Item], now_ms: int) -> None:
        settled: list[Settled] = []
        async with Lanes(lambda: ENTRIES_AT_ONCE) as lanes:
            for item in items:
                await lanes.start(self._look(claim, _entry(item), now_ms, settled))
            await lanes.done()
        together: list[Settled] = []
        for one in await self._left(settled):
            if sum(other.writes for other in together) + one.writes > WRITES_PER_COMMIT:
                await self._settle(claim, together)
                together = []
            together.append(one)
        if together:
            await self._settle(claim, together)

    async def _left(self, settled: Sequence[Settled]) -> list[Settled]:
        """Those of which something is to be written. Most of what was done removed its entry
        itself; one that is not as it was read is somebody else's."""
        names = [one.entry.item.key for one in settled]
        reading = await self._storage.store.kv.get_many(names)
        left: list[Settled] = []
        for one, item in zip(settled, reading.items, strict=True):
            if item is not None and item.revision == one.entry.item.revision:
                left.append(one)
            elif one.again:
                left.append(dataclasses.replace(one, gone=True))
        return left

    async def _look(self, claim: Claim, entry: Entry, now_ms: int, settled: list[Settled]) -> None:
        """Deal with one entry; one that is not added to `settled` stays where it is."""
        self._report.looked += 1
        try:
            if entry.upload_id:
                again = _listed(await self._upload(entry, now_ms))
            elif entry.sequence:
                again = await self._version(claim, entry, now_ms)
            else:
                again = await self._key(claim, entry, now_ms)
        except (errors.NoSuchBucket, errors.NoSuchUpload):
            again = []
        except (Changed, OutcomeUnknown, errors.OperationAborted) as error:
            log.info("%s of %s is looked at again: %r", entry.key, entry.bucket_name, error)
            self._report.lost += 1
            return
        except errors.S3Error as error:
            log.info("%s of %s has to wait: %s", entry.key, entry.bucket_name, error)
            again = [self._later(entry, now_ms)]
        settled.append(Settled(entry, again))

    async def _settle(self, claim: Claim, settled: Sequence[Settled]) -> None:
        """Commit what becomes of entries together; when somebody wrote one of them anew, each on
        its own."""
        tx = Transaction()
        for one in settled:
            if not one.gone:
                tx.expect(one.entry.item.key, one.entry.item.revision)
                tx.delete(one.entry.item.key)
        for one in settled:
            for key in one.again:
                tx.put(key, Due(one.entry.bucket_name))
        try:
            await commit(self._storage.store, claim, tx)
        except (Conflict, OutcomeUnknown):
            if len(settled) == 1:
                self._report.lost += 1
                return
            for one in settled:
                await self._settle(claim, [one])

    def _again(self, target: Target, entry: Entry, look_ms: int | None) -> bytes | None:
        if look_ms is None:
            return None
        return lifecycle.entry_at(self._storage, target.bucket, look_ms, entry.subject)

    def _later(self, entry: Entry, now_ms: int) -> bytes:
        """For what is not possible now."""
        self._report.waiting += 1
        retry_ms = max(1, self._storage.lifecycle_day_ms // RETRY_PARTS)
        return keys.due(now_ms + retry_ms, entry.bucket_id, entry.subject)

    # Versions.

    async def _version(self, claim: Claim, entry: Entry, now_ms: int) -> list[bytes]:
        """Do what rules want of a version. Returns the keys of entries for the next looks."""
        storage = self._storage
        target = await read_target(storage, entry.bucket_name, entry.key, entry.sequence)
        configuration = _rules(target, entry)
        found = target.found
        if configuration is None or found is None:
            return []
        version, guards = await self._seen(target, found, configuration)
        verdict = judge(configuration, version, now_ms, storage.lifecycle_day_ms)
        action = verdict.action
        if action is not None and action.kind is Kind.MOVE:
            moved = await change_class(
                storage, claim, target, found, action.storage_class, self._throttle
            )
            if moved:
                self._count("moved")
                if verdict.hide is not None:
                    return [keys.due(now_ms, entry.bucket_id, entry.subject)]
                behind = await self._behind(entry, target, found, now_ms)
                return _listed(self._again(target, entry, verdict.look_ms)) + behind
            action = verdict.hide
            if action is None:
                return [self._later(entry, now_ms)]
        if action is None:
            return _listed(self._again(target, entry, verdict.look_ms))
        return await self._remove(entry, target, found, action, guards, now_ms)

    async def _remove(
        self,
        entry: Entry,
        target: Target,
        found: Found,
        action: Action,
        guards: Sequence[Guard],
        now_ms: int,
    ) -> list[bytes]:
        """Remove the version, or hide it behind a marker."""
        hides = action.kind is Kind.HIDE
        if hides:
            target = dataclasses.replace(target, asked=None)
        try:
            await delete_object(
                self._storage, target, _once(), owner=target.bucket.owner, guards=guards
            )
        except errors.AccessDenied:
            return _listed(self._when_unlocked(entry, target, found.record, now_ms))
        self._count("hidden" if hides else "markers" if found.record.marker else "removed")
        log.info("%s/%s: rule %s", entry.bucket_name, entry.key, action.rule_id)
        return [] if hides else await self._behind(entry, target, found, now_ms)

    async def _behind(self, entry: Entry, target: Target, found: Found, now_ms: int) -> list[bytes]:
        """The key of an entry for the next older version that has had its time, now that one is
        dealt with. It may have stayed for want of younger ones, and have no entry any more."""
        configuration = lifecycle.configuration_of(target.bucket)
        if configuration is None or found.record is target.visible:
            return []
        if not configuration.newer_kept(entry.key)[0]:
            return []
        end = keys.after_prefix(keys.versions_of(target.bucket_name, target.key))
        page = await self._storage.store.scan_listed(
            found.key + b"\x00", end, limit=PUSHED_VERSIONS, revision=target.revision
        )
        for item in page.items:
            record = decode(ObjectRecord, item.value)
            if self._is_due(target, configuration, record, now_ms):
                subject = keys.due_version(entry.key, record.sequence)
                return [keys.due(now_ms, entry.bucket_id, subject)]
        return []

    def _is_due(
        self,
        target: Target,
        configuration: Configuration,
        record: ObjectRecord,
        now_ms: int,
        newer: int = NEWER_VERSIONS_MAX,
    ) -> bool:
        """Whether rules want something of a noncurrent version now that has so many younger ones.
        Where its record does not say since when it is noncurrent, it may have been from the first
        moment on."""
        if not record.noncurrent_ms:
            record = msgspec.structs.replace(record, noncurrent_ms=record.modified_ms)
        version = lifecycle.as_seen(target.bucket, target.key, record, newer=newer)
        day_ms = self._storage.lifecycle_day_ms
        return judge(configuration, version, now_ms, day_ms).action is not None

    def _when_unlocked(
        self, entry: Entry, target: Target, record: ObjectRecord, now_ms: int
    ) -> bytes | None:
        """For a version that object lock keeps."""
        self._report.waiting += 1
        lock = record.description.lock
        tomorrow = now_ms + self._storage.lifecycle_day_ms
        held = lock is None or lock.legal_hold or lock.until_ms <= now_ms
        return self._again(target, entry, tomorrow if held or lock is None else lock.until_ms)

    async def _seen(
        self, target: Target, found: Found, configuration: Configuration
    ) -> tuple[Version, list[Guard]]:
        """A version as rules see it, and what of that its own record does not guard."""
        record, latest = found.record, target.latest
        if latest is not None and latest.sequence == record.sequence:
            alone = record.marker and not await self._has_older(target, found)
            current = msgspec.structs.replace(record, noncurrent_ms=0)
            return lifecycle.as_seen(target.bucket, target.key, current, alone=alone), []
        if not record.noncurrent_ms:
            since_ms = await self._since(target, found)
            record = msgspec.structs.replace(record, noncurrent_ms=since_ms)
        _, most = configuration.newer_kept(target.key)
        newer = await self._youngest(target, found.key, most) if most else []
        guards: list[Guard] = [At(item.key, item.revision) for item in newer]
        version = lifecycle.as_seen(target.bucket, target.key, record, newer=len(newer))
        return version, guards

    async def _has_older(self, target: Target, found: Found) -> bool:
        end = keys.after_prefix(keys.versions_of(target.bucket_name, target.key))
        page = await self._storage.store.scan_listed(
            found.key + b"\x00", end, limit=1, revision=target.revision
        )
        return bool(page.items)

    async def _youngest(self, target: Target, end: bytes, most: int) -> list[Item]:
        """The youngest noncurrent versions whose keys lie before `end`, `most` at most."""
        start = _first_noncurrent(target)
        found: list[Item] = []
        while len(found) < most and start < end:
            page = await self._storage.store.scan_listed(
                start, end, limit=most - len(found), revision=target.revision
            )
            found += page.items
            if not page.more:
                break
            start = page.items[-1].key + b"\x00"
        return found

    async def _since(self, target: Target, found: Found) -> int:
        """When a version became noncurrent whose record does not say it: when the one that came
        after it was made."""
        start = keys.versions_of(target.bucket_name, target.key)
        after = target.visible
        while start < found.key:
            page = await self._storage.store.scan_listed(
                start, found.key, limit=SINCE_VERSIONS, revision=target.revision
            )
            if page.items:
                after = decode(ObjectRecord, page.items[-1].value)
                start = page.items[-1].key + b"\x00"
            if not page.more:
                break
        return after.modified_ms if after is not None else found.record.modified_ms

    # Keys and uploads.

    async def _key(self, claim: Claim, entry: Entry, now_ms: int) -> list[bytes]:
        """Look at what of a key may have become due because of its other versions: a marker that
        may be alone, and versions that have enough younger ones by now. Those that have not had
        their time have entries of their own."""
        target = await read_target(self._storage, entry.bucket_name, entry.key)
        configuration = _rules(target, entry)
        if configuration is None:
            return []
        sequences: list[int] = []
        latest = target.latest
        if latest is not None and latest.marker:
            sequences.append(latest.sequence)
        kept, most = configuration.newer_kept(entry.key)
        if kept and target.bucket.versioning:
            end = keys.after_prefix(keys.versions_of(entry.bucket_name, entry.key))
            items = await self._youngest(target, end, most + PUSHED_VERSIONS)
            for newer, item in enumerate(items):
                record = decode(ObjectRecord, item.value)
                if self._is_due(target, configuration, record, now_ms, newer):
                    sequences.append(record.sequence)
        again: list[bytes] = []
        for sequence in sequences[: PUSHED_VERSIONS + 1]:  # the last one says what is behind it
            subject = keys.due_version(entry.key, sequence)
            one = dataclasses.replace(entry, sequence=sequence, subject=subject)
            again += await self._version(claim, one, now_ms)
        return again

    async def _upload(self, entry: Entry, now_ms: int) -> bytes | None:
        storage = self._storage
        upload = await find_upload(storage, entry.bucket_name, entry.key, entry.upload_id)
        configuration = lifecycle.configuration_of(upload.bucket)
        if configuration is None or upload.bucket.bucket_id != entry.bucket_id:
            return None
        day_ms = storage.lifecycle_day_ms
        action = abort(configuration, entry.key, upload.record.initiated_ms, day_ms)
        if action is None:
            return None
        if action.due_ms > now_ms:
            return lifecycle.entry_at(storage, upload.bucket, action.due_ms, entry.subject)
        if upload.record.state != OPEN and await owner_lives(storage, upload.record):
            return self._later(entry, now_ms)
        try:
            await abort_upload(storage, upload, attempts=1)
        except errors.NoSuchUpload:  # it is being completed, which may fail
            return self._later(entry, now_ms)
        self._count("aborted")
        log.info("%s/%s: rule %s", entry.bucket_name, entry.key, action.rule_id)
        return None


def _listed(key: bytes | None) -> list[bytes]:
    return [] if key is None else [key]


def _entry(item: Item) -> Entry:
    _, bucket_id, subject = keys.split_due(item.key)
    key, sequence, upload_id = keys.split_subject(subject)
    return Entry(item, decode(Due, item.value).bucket, bucket_id, subject, key, sequence, upload_id)


def _rules(target: Target, entry: Entry) -> Configuration | None:
    """The rules of an entry's bucket; None when it has none, or when it is gone and another bucket
    has its name."""
    if target.bucket.bucket_id != entry.bucket_id:
        return None
    return lifecycle.configuration_of(target.bucket)


def _first_noncurrent(target: Target) -> bytes:
    """Where the key's noncurrent versions begin: behind the marker that is its newest version, if
    there is one."""
    if target.visible is None and target.newest:
        return target.noncurrent[target.newest].key + b"\x00"
    return keys.versions_of(target.bucket_name, target.key)


def _once() -> Callable[[ObjectRecord | None], None]:
    """A check that lets a change through only as it was decided: at the first attempt."""
    tried = False

    def check(record: ObjectRecord | None) -> None:
        nonlocal tried
        if tried:
            raise Changed
        tried = True

    return check
