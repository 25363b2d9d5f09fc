"""Notes of the names that renamed versions have, on the drives, for a recovery without metadata.

What is noted and why is in `s3gw.objects.names`. The queue is looked at all the time, an entry
being a commit and a small blob; the notes once an hour, for those whose version is gone. A name
that cannot be noted now is put off, longer each time, in its own entry.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Unpack

import msgspec

from s3gw import errors
from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.everything import Steps
from s3gw.metadata.records import NameRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects import names
from s3gw.objects.storage import Storage
from s3gw.workers import due
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
    under,
)

log = logging.getLogger(__name__)

PAGE_NAMES = 200
WALK_MS = 3600 * 1000
# As `due.pause_ms` takes it: the first pause is about a minute, none is longer than an hour.
PAUSE_DAY_MS = 3 * 3600 * 1000


@dataclass(slots=True)
class NamesReport:
    """Names that were noted, and notes that were dropped."""

    noted: int = 0
    dropped: int = 0


class Names(PeriodicWorker):
    """The worker. One unit is one page of the queue, or of the notes."""

    name = "names"
    interval_seconds = 10.0

    def __init__(self, storage: Storage, **timing: Unpack[Timing]) -> None:
        super().__init__(storage, **timing)
        self._queued = self._steps(keys.NAMINGS)
        self._walked = self._steps(keys.NAMES)
        self._walk_ms = 0

    def _steps(self, prefix: bytes) -> Steps:
        return Steps(self._storage.store.kv, prefix, keys.after_prefix(prefix))

    async def work(self, claim: Claim) -> bool:
        report = NamesReport()
        if await self._write_page(claim, report, self._storage.clock_ms()):
            return True
        if self._storage.clock_ms() < self._walk_ms:
            return False
        if await self._walk_page(claim, report):
            return True
        self._walk_ms = self._storage.clock_ms() + WALK_MS
        return False

    async def run_once(self, claim: Claim = UNCLAIMED) -> NamesReport:
        """Go over the whole queue, what was put off too, then over all notes, then over what that
        has queued."""
        report = NamesReport()
        for steps in (self._queued, self._walked):
            steps.restart()
        while await self._write_page(claim, report, None):
            pass
        while await self._walk_page(claim, report):
            pass
        while await self._write_page(claim, report, None):
            pass
        return report

    async def _write_page(self, claim: Claim, report: NamesReport, now_ms: int | None) -> bool:
        """The next names of the queue; False at its end. Those put off beyond `now_ms` are passed
        over."""
        storage = under(self._storage, claim)
        for item in await self._queued.next(PAGE_NAMES):
            name: NameRecord | None = None
            try:
                name = decode(NameRecord, item.value)
                if now_ms is not None and name.not_before_ms > now_ms:
                    continue
                named = await names.look(self._storage, item)
                report.noted += await names.write(storage, named)
                continue
            except SHARED_TROUBLE:
                raise
            except Conflict as error:
                log.info("the name at %r has changed: %s", item.key, error)
                continue
            except (BlobUnreadable, errors.S3Error) as error:
                log.info("the name at %r is noted later: %s", item.key, error)
            except Exception:
                log.exception("the name at %r cannot be noted", item.key)
            if name is not None:
                await self._put_off(claim, item, name)
        return _goes_on(self._queued)

    async def _put_off(self, claim: Claim, item: Item, name: NameRecord) -> None:
        """Leave an entry that failed alone for a while, longer each time."""
        pause_ms = due.pause_ms(item.key, name.attempts, PAUSE_DAY_MS)
        later = msgspec.structs.replace(
            name,
            not_before_ms=self._storage.clock_ms() + pause_ms,
            attempts=min(name.attempts + 1, 16),
        )
        tx = Transaction()
        tx.expect(item.key, item.revision)
        tx.put(item.key, later)
        try:
            await commit(self._storage.store, claim, tx)
        except Conflict as error:
            log.info("the name at %r has changed: %s", item.key, error)

    async def _walk_page(self, claim: Claim, report: NamesReport) -> bool:
        """The next notes, of which those without a version go; False at their end."""
        items = await self._walked.next(PAGE_NAMES)
        storage = under(self._storage, claim)
        # Reads of one turn of the loop go to the engine together.
        looks = [asyncio.ensure_future(names.look(self._storage, item)) for item in items]
        await asyncio.gather(*looks, return_exceptions=True)
        for item, look in zip(items, looks, strict=True):
            try:
                named = look.result()
                if named.record is None:
                    await names.drop(storage, named)
                    report.dropped += 1
            except SHARED_TROUBLE:
                raise
            except Conflict:
                continue  # the next walk sees what it has become
            except Exception:
                log.exception("the note at %r cannot be looked at", item.key)
        return _goes_on(self._walked)


def _goes_on(steps: Steps) -> bool:
    """Whether more of a round is to be read; the next one begins anew."""
    if steps.ended:
        steps.restart()
        return False
    return True
