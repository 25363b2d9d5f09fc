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
    not possible now          the entry moves by some minutes, and by more each time (nodes for
                              another class are missing; or what nobody expected, which is logged)

What waits is brought forward when a node lives that did not: entries ahead in the queue that could
not be done are looked at again, but for those that wait for a profile which still has no opening.

Where rules count the younger versions, one that has had its time may have stayed and have no entry
any more. The entry of its key finds it, among as many versions as others may have pushed it behind
since that was written (`s3gw.workers.key_versions.pushed_out`); of entries of one key the oldest
does that for all. Whatever is dealt with leads on to the next such version behind it. Locked ones
on that way get their entry and are passed over. One that has its entry was passed before, with all
that is behind it, so that many locked versions are not walked over again and again.

The cost of a round is in proportion to the entries that are due. A crash anywhere leaves the entry,
and everything here may be done twice.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, fields
from typing import Unpack

from s3gw import errors
from s3gw.buckets.lifecycle import Configuration
from s3gw.buckets.lifecycle_due import Action, Kind, abort, judge
from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import Conflict, Guard, Item
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import Due, LifecycleRun
from s3gw.metadata.records import RecordFormatError, decode
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects import lifecycle
from s3gw.objects.delete import delete_object
from s3gw.objects.multipart import OPEN, abort_upload, find_upload, owner_lives
from s3gw.objects.publish import Check, Found, Target, read_target
from s3gw.objects.steady_clock import SteadyClock
from s3gw.objects.storage import Storage
from s3gw.workers import key_versions
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
    under,
)
from s3gw.workers.due import BATCH_ENTRIES, DueQueue, pause_ms, put_off
from s3gw.workers.due_ahead import entries_between, put_off_until
from s3gw.workers.key_versions import PUSHED_VERSIONS, SINCE_VERSIONS
from s3gw.workers.lanes import Lanes
from s3gw.workers.lifecycle_entries import Entry, Next, Settled, about_version, entry_of
from s3gw.workers.transition import Changed, NotMoved, Openings, change_class

log = logging.getLogger(__name__)

ENTRIES_AT_ONCE = 8
WRITES_PER_COMMIT = 100
LOCKED_PER_LOOK = 32


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


class Lifecycle(PeriodicWorker):
    """The worker. One unit is one batch of due entries."""

    name = "lifecycle"

    def __init__(
        self, storage: Storage, *, throttle: Throttle | None = None, **timing: Unpack[Timing]
    ) -> None:
        super().__init__(storage, **timing)
        self._throttle = throttle or Throttle(lambda: 0)
        self._openings = Openings(storage)
        self._queue = DueQueue(storage.store.kv)
        self._clock = SteadyClock(storage.clock_ms, storage.monotonic)
        self._report = LifecycleReport()
        self._last = LifecycleReport()
        self._started_ms = 0
        self._goes_on = False
        # The nodes that lived when the queue was last read ahead, and the reading while it lasts.
        self._lived: frozenset[str] = frozenset()
        self._ahead: AsyncGenerator[list[Item], None] | None = None
        # Entries for the ends of locks that this batch makes.
        self._promised: set[bytes] = set()
        self.actions: Counter[str] = Counter()

    async def work(self, claim: Claim) -> bool:
        """One batch; False at the end of a round."""
        now_ms = self._clock.now_ms()
        if not self._report.looked:
            self._started_ms = now_ms
        if await self._bring_forward(claim, now_ms):
            return True
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
            self._goes_on = False
            while await self.work(claim):
                pass
            for field in fields(LifecycleReport):
                value = getattr(total, field.name) + getattr(self._last, field.name)
                setattr(total, field.name, value)
            if not self._goes_on and not any(getattr(self._last, name) for name in ACTIONS):
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

    # What waits for nodes.

    async def _bring_forward(self, claim: Claim, now_ms: int) -> bool:
        """A page of what is put off, if nodes have come since that was last looked through; whether
        there may be more. What was put off before this process had the work is looked through at
        first."""
        if self._ahead is None:
            nodes = self._storage.blobs.directory.all()
            before, self._lived = self._lived, frozenset(node.id for node in nodes if node.live)
            if self._lived <= before:
                return False
            self._openings.forget()
            until_ms = put_off_until(now_ms, self._storage.lifecycle_day_ms)
            kv = self._storage.store.kv
            self._ahead = entries_between(kv, keys.DUE, now_ms, until_ms)
        try:
            items = await anext(self._ahead, None)
            waiting = [item for item in items or () if self._may_go(item)]
            for start in range(0, len(waiting), BATCH_ENTRIES):
                await self._batch(claim, waiting[start : start + BATCH_ENTRIES], now_ms)
        except BaseException:
            self._ahead, self._lived = None, frozenset()  # it is looked through once more
            raise
        if items is None:
            self._ahead = None
        return items is not None

    def _may_go(self, item: Item) -> bool:
        """Whether an entry was put off because it could not be done, and might be by now."""
        try:
            due = decode(Due, item.value)
        except RecordFormatError:
            return False  # told when it is due
        return due.attempts > 0 and (not due.waits or self._openings.may_be(due.waits))

    # A batch.

    async def _batch(self, claim: Claim, items: Sequence[Item], now_ms: int) -> None:
        settled: list[Settled] = []
        self._promised.clear()
        first: dict[bytes, Entry] = {}
        same: list[Entry] = []
        for item in items:
            entry = await self._read(claim, item, now_ms)
            if entry is None:
                continue
            name = entry.about if entry.since else item.key
            older = first.setdefault(name, entry)
            if older is not entry:  # of one key: the oldest looks for all of them
                first[name] = older.with_since_of(entry)
                same.append(entry)
        async with Lanes(lambda: ENTRIES_AT_ONCE) as lanes:
            for entry in first.values():
                await lanes.start(self._look(claim, entry, now_ms, settled))
            await lanes.done()
        looked_at = {one.entry.about for one in settled}
        settled += [Settled(entry) for entry in same if entry.about in looked_at]
        together: list[Settled] = []
        for one in await self._left(settled):
            writes = sum(other.writes for other in together)
            if together and writes + one.writes > WRITES_PER_COMMIT:
                await self._settle(claim, together)
                together = []
            together.append(one)
        if together:
            await self._settle(claim, together)

    async def _read(self, claim: Claim, item: Item, now_ms: int) -> Entry | None:
        """An entry; one that cannot be read is put off until tomorrow."""
        try:
            return entry_of(item)
        except Exception:
            log.exception("the entry %r cannot be read", item.key)
        tomorrow = now_ms + self._storage.lifecycle_day_ms
        await put_off(self._storage.store, claim, keys.DUE, item, tomorrow, item.value)
        return None

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
                again = await self._upload(claim, entry, now_ms)
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
        except SHARED_TROUBLE:
            raise
        except Exception:
            log.exception("what is due of %s/%s failed", entry.bucket_name, entry.key)
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
            for following in one.again:
                tx.put(following.key, following.record(one.entry.bucket_name))
        try:
            await commit(self._storage.store, claim, tx)
        except (Conflict, OutcomeUnknown):
            if len(settled) == 1:
                self._report.lost += 1
                return
            for one in settled:
                await self._settle(claim, [one])

    def _again(self, target: Target, entry: Entry, look_ms: int | None) -> list[Next]:
        if look_ms is None:
            return []
        return [Next(lifecycle.entry_at(self._storage, target.bucket, look_ms, entry.subject))]

    def _later(self, entry: Entry, now_ms: int, waits: str = "") -> Next:
        """For what is not possible now, because the profile `waits` has no opening or for whatever
        reason."""
        self._report.waiting += 1
        pause = pause_ms(entry.subject, entry.attempts, self._storage.lifecycle_day_ms)
        key = keys.due(now_ms + pause, entry.bucket_id, entry.subject)
        since_ms = entry.since_ms if entry.since else 0
        return Next(key, entry.attempts + 1, waits, entry.since, since_ms, entry.through)

    # Versions.

    async def _version(self, claim: Claim, entry: Entry, now_ms: int) -> list[Next]:
        """Do what rules want of a version. Returns the entries for the next looks."""
        target = await read_target(self._storage, entry.bucket_name, entry.key, entry.sequence)
        configuration, found = _rules(target, entry), target.found
        if configuration is None:
            return []
        again, dealt_with = list[Next](), False
        if found is not None:
            alone = dataclasses.replace(entry, through=0)
            again, dealt_with = await self._judged(
                claim, alone, target, found, configuration, now_ms
            )
        if dealt_with or entry.through:
            again += await self._behind(entry, target, now_ms)
        return again

    async def _judged(
        self,
        claim: Claim,
        entry: Entry,
        target: Target,
        found: Found,
        configuration: Configuration,
        now_ms: int,
    ) -> tuple[list[Next], bool]:
        """Do what rules want of a version as read. Returns the entries for the next looks at it,
        and whether it was dealt with, so that one behind it may come next."""
        storage = self._storage
        version, guards = await key_versions.seen(storage, target, found, configuration)
        verdict = judge(configuration, version, now_ms, storage.lifecycle_day_ms)
        action = verdict.action
        if action is not None and action.kind is Kind.MOVE:
            wanted, throttle = action.storage_class, self._throttle
            try:
                await change_class(storage, claim, target, found, wanted, throttle, self._openings)
            except NotMoved as reason:
                action = verdict.hide
                if action is None:
                    return [self._later(entry, now_ms, reason.profile)], False
            else:
                self._count("moved")
                if verdict.hide is not None:
                    return [Next(keys.due(now_ms, entry.bucket_id, entry.subject))], False
                return self._again(target, entry, verdict.look_ms), True
        if action is None:
            return self._again(target, entry, verdict.look_ms), False
        return await self._remove(claim, entry, target, found, action, guards, now_ms)

    async def _remove(
        self,
        claim: Claim,
        entry: Entry,
        target: Target,
        found: Found,
        action: Action,
        guards: Sequence[Guard],
        now_ms: int,
    ) -> tuple[list[Next], bool]:
        """Remove the version, or hide it behind a marker; as `_judged`."""
        hides = action.kind is Kind.HIDE
        if not hides and key_versions.is_locked(found.record, now_ms):
            # A clock that is set ahead ends no lock here: nobody could bring the version back.
            return [self._locked(target, found, now_ms)], True
        if hides:
            target = dataclasses.replace(target, asked=None)
        storage, owner = under(self._storage, claim), target.bucket.owner
        try:
            await delete_object(storage, target, _only(target), owner=owner, guards=guards)
        except errors.AccessDenied:
            return [self._locked(target, found, now_ms)], True
        self._count("hidden" if hides else "markers" if found.record.marker else "removed")
        log.info("%s/%s: rule %s", entry.bucket_name, entry.key, action.rule_id)
        return [], not hides

    def _locked(self, target: Target, found: Found, now_ms: int) -> Next:
        """The entry for the end of a version's lock."""
        self._report.waiting += 1
        unlocked = key_versions.unlocked_entry(self._storage, target, found.record, now_ms)
        self._promised.add(unlocked)
        return Next(unlocked)

    async def _behind(self, entry: Entry, target: Target, now_ms: int) -> list[Next]:
        """Entries for what is behind the version of an entry that is dealt with: for the next older
        one that has had its time, and for locked ones before it. It is looked for as far as the
        entry says, or until a page has none."""
        configuration, visible = lifecycle.configuration_of(target.bucket), target.visible
        if configuration is None or not entry.leads_on:
            return []
        if visible is not None and visible.sequence == entry.sequence:
            return []
        if not configuration.newer_kept(entry.key)[0]:
            return []
        storage, again = self._storage, list[Next]()
        limit, through = PUSHED_VERSIONS, entry.through
        position = keys.version(entry.bucket_name, entry.key, entry.sequence) + b"\x00"
        end = keys.after_prefix(keys.versions_of(entry.bucket_name, entry.key))
        if through:
            end = keys.version(entry.bucket_name, entry.key, through) + b"\x00"
        while position < end:
            page = await storage.store.scan_listed(
                position, end, limit=limit, revision=target.revision
            )
            due = await key_versions.due_now(storage, target, configuration, page.items, now_ms)
            for one in due:
                if one.held is None:
                    return [*again, self._at_once(entry, one.found, now_ms)]
                if one.passed or one.held in self._promised:
                    if through:
                        continue
                    return again
                if len(again) == LOCKED_PER_LOOK:  # that one's own look goes on
                    return [*again, self._at_once(entry, one.found, now_ms)]
                self._promised.add(one.held)
                again.append(Next(one.held))
            if not page.more or not (due or through):
                return again
            position = page.items[-1].key + b"\x00"
            limit = min(2 * limit, SINCE_VERSIONS) if through else limit
        return again

    def _at_once(self, entry: Entry, found: Found, now_ms: int) -> Next:
        self._goes_on = True
        subject = keys.due_version(entry.key, found.record.sequence)
        key = keys.due(now_ms, entry.bucket_id, subject)
        return Next(key, through=entry.through)

    # Keys and uploads.

    async def _key(self, claim: Claim, entry: Entry, now_ms: int) -> list[Next]:
        """Look at what of a key may have become due because of its other versions: a marker that
        may be alone, and versions that have enough younger ones by now. Those that have not had
        their time have entries of their own."""
        storage = self._storage
        target = await read_target(storage, entry.bucket_name, entry.key)
        configuration = _rules(target, entry)
        if configuration is None:
            return []
        again: list[Next] = []
        latest = target.latest
        if latest is not None and latest.marker:
            again += await self._version(claim, about_version(entry, latest.sequence), now_ms)
        if not configuration.newer_kept(entry.key)[0] or not target.bucket.versioning:
            return again
        pushed = await key_versions.pushed_out(
            storage,
            target,
            configuration,
            now_ms,
            since=entry.since,
            since_ms=entry.since_ms,
            most=PUSHED_VERSIONS + 1,
        )
        for one in pushed.due:
            last = one is pushed.due[-1]  # it says what is behind it
            through = pushed.through if last else 0
            sequence = one.found.record.sequence
            version = about_version(entry, sequence, leads_on=last, through=through)
            if one.held is None:
                again += await self._version(claim, version, now_ms)
            else:
                self._report.waiting += 1
                again.append(Next(one.held))
                again += await self._behind(version, target, now_ms)
        return again

    async def _upload(self, claim: Claim, entry: Entry, now_ms: int) -> list[Next]:
        storage = self._storage
        upload = await find_upload(storage, entry.bucket_name, entry.key, entry.upload_id)
        configuration = lifecycle.configuration_of(upload.bucket)
        if configuration is None or upload.bucket.bucket_id != entry.bucket_id:
            return []
        day_ms = storage.lifecycle_day_ms
        action = abort(configuration, entry.key, upload.record.initiated_ms, day_ms)
        if action is None:
            return []
        if action.due_ms > now_ms:
            key = lifecycle.entry_at(storage, upload.bucket, action.due_ms, entry.subject)
            return [Next(key)]
        if upload.record.state != OPEN and await owner_lives(storage, upload.record):
            return [self._later(entry, now_ms)]
        try:
            await abort_upload(under(storage, claim), upload, attempts=1)
        except errors.NoSuchUpload:  # it is being completed, which may fail
            return [self._later(entry, now_ms)]
        self._count("aborted")
        log.info("%s/%s: rule %s", entry.bucket_name, entry.key, action.rule_id)
        return []


def _rules(target: Target, entry: Entry) -> Configuration | None:
    """The rules of an entry's bucket; None when it has none, or when it is gone and another bucket
    has its name."""
    if target.bucket.bucket_id != entry.bucket_id:
        return None
    return lifecycle.configuration_of(target.bucket)


def _only(decided: Target) -> Check:
    """A check that lets a change through only as it was decided: on this reading, no later one."""

    def check(target: Target) -> None:
        if target is not decided:
            raise Changed

    return check
