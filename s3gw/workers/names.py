"""Notes of the names that renamed versions have, on the drives, for a recovery without metadata.

What is noted and why is in `s3gw.objects.names`. The queue is looked at all the time, an entry
being a commit and a small blob; the notes once an hour, for those whose version is gone.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Unpack

from s3gw import errors
from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import Conflict, Item
from s3gw.metadata import keys
from s3gw.objects import names
from s3gw.objects.storage import Storage
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    under,
)

log = logging.getLogger(__name__)

PAGE_NAMES = 200
PAUSE_SECONDS_MIN = 30.0
PAUSE_SECONDS_MAX = 3600.0
PUT_OFF_MAX = 10_000
WALK_MS = 3600 * 1000


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
        self._queued = keys.NAMINGS
        self._walked = keys.NAMES
        self._walk_ms = 0
        # What cannot be noted now: how often that was tried, and until when it is passed over.
        # Another worker, after this one, begins anew.
        self._put_off: dict[bytes, tuple[int, float]] = {}

    async def work(self, claim: Claim) -> bool:
        report = NamesReport()
        if await self._write_page(claim, report):
            return True
        if self._storage.clock_ms() < self._walk_ms:
            return False
        if await self._walk_page(claim, report):
            return True
        self._walk_ms = self._storage.clock_ms() + WALK_MS
        return False

    async def run_once(self, claim: Claim = UNCLAIMED) -> NamesReport:
        """Go over the whole queue, then over all notes, then over what that has queued."""
        report = NamesReport()
        self._queued, self._walked = keys.NAMINGS, keys.NAMES
        self._put_off.clear()
        for page in (self._write_page, self._walk_page, self._write_page):
            while await page(claim, report):
                pass
        return report

    async def _write_page(self, claim: Claim, report: NamesReport) -> bool:
        """The next names of the queue; False at its end."""
        items, self._queued = await self._page(self._queued, keys.NAMINGS)
        storage = under(self._storage, claim)
        now = self._storage.monotonic()
        for item in items:
            attempts, not_before = self._put_off.pop(item.key, (0, 0.0))
            if now < not_before:
                self._put_off[item.key] = attempts, not_before
                continue
            try:
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
            self._pass_over(item.key, attempts, now)
        return self._queued != keys.NAMINGS

    def _pass_over(self, key: bytes, attempts: int, now: float) -> None:
        """Leave an entry that failed alone for a while, longer each time."""
        if len(self._put_off) >= PUT_OFF_MAX:
            del self._put_off[next(iter(self._put_off))]
        pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2**attempts)
        self._put_off[key] = min(attempts + 1, 16), now + pause

    async def _walk_page(self, claim: Claim, report: NamesReport) -> bool:
        """The next notes, of which those without a version go; False at their end."""
        items, self._walked = await self._page(self._walked, keys.NAMES)
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
        return self._walked != keys.NAMES

    async def _page(self, position: bytes, prefix: bytes) -> tuple[list[Item], bytes]:
        """A page from a position on, and where the next one begins."""
        end = keys.after_prefix(prefix)
        page = await self._storage.store.kv.scan(position, end, limit=PAGE_NAMES)
        return list(page.items), page.items[-1].key + b"\x00" if page.more else prefix
