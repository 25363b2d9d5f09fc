"""Reading a queue in order of time: `due/`, of what lifecycle rules want to be looked at, or
`purge/`, of what leaves the trash.

Where a range of keys costs what is in it, so does every look at the queue: it is read in slices of
time, each of them twice as long as the one before as long as they are empty, and as short as can be
where much is due. A round begins with what was left of the time that earlier rounds have passed,
which is next to nothing.

Whether an entry is due is said by a clock that does not jump ahead (`s3gw.objects.steady_clock`).
What cannot be done is put off: its entry moves to a later time, further ahead at each attempt.
"""

from __future__ import annotations

import logging
from hashlib import blake2b

from s3gw.kv.interface import KV, Conflict, Item, Put
from s3gw.metadata import keys
from s3gw.metadata.store import Store, Transaction
from s3gw.workers.contract import Claim, commit

log = logging.getLogger(__name__)

BATCH_ENTRIES = 100
SLICE_MS = 1000
SLICE_MS_MAX = 24 * 3600 * 1000
PAUSE_PARTS_FIRST = 144  # of a day: ten minutes of one that lasts 24 hours
PAUSE_PARTS_LAST = 4


def pause_ms(subject: bytes, attempts: int, day_ms: int) -> int:
    """For how long something is put off that could not be done so often before: twice as long each
    time, up to a quarter of a day, and a quarter more or less, so that what failed together does
    not come back together.

    >>> [pause_ms(b"k", attempts, 86_400_000) // 60_000 for attempts in (0, 1, 3, 20)]
    [7, 24, 73, 423]
    """
    pause = min(day_ms // PAUSE_PARTS_LAST, (day_ms // PAUSE_PARTS_FIRST) << min(attempts, 16))
    digest = blake2b(subject + attempts.to_bytes(8, "big"), digest_size=4).digest()
    return max(1, pause * 3 // 4 + pause * int.from_bytes(digest, "big") // 2**33)


async def put_off(
    store: Store, claim: Claim, queue: bytes, item: Item, due_ms: int, value: bytes
) -> None:
    """Move an entry to a later time, unless somebody else has changed it. Raises OutcomeUnknown,
    EngineError, ClaimLost."""
    tx = Transaction()
    tx.expect(item.key, item.revision)
    tx.delete(item.key)
    later = keys.put_off(queue, item.key, due_ms)
    tx.writes[later] = Put(later, value)
    try:
        await commit(store, claim, tx)
    except Conflict:
        log.info("%r was changed meanwhile", item.key)


class DueQueue:
    """One reader of the queue; it keeps its place in memory."""

    def __init__(self, kv: KV, *, queue: bytes = keys.DUE, batch: int = BATCH_ENTRIES) -> None:
        self._kv = kv
        self._queue = queue
        self._batch = batch
        self._passed_ms = 0
        self._end_ms = -1
        self._position = queue
        self._slice_end_ms = 0
        self._slice_ms = SLICE_MS

    def restart(self) -> None:
        """Begin a new round with the next read."""
        self._end_ms = -1

    async def next(self, now_ms: int) -> list[Item]:
        """The next entries that are due, in order; none at the end of a round."""
        if self._end_ms < 0:
            self._begin(now_ms)
        end = keys.due_until(self._queue, self._end_ms)
        while self._position < end:
            slice_end = min(end, keys.due_until(self._queue, self._slice_end_ms))
            if self._position < slice_end:
                page = await self._kv.scan(self._position, slice_end, limit=self._batch)
                if page.items:
                    self._slice_ms = SLICE_MS
                    self._position = slice_end
                    if page.more:
                        last = page.items[-1].key
                        self._position = last + b"\x00"
                        near_ms = keys.due_time(self._queue, last) + SLICE_MS
                        self._slice_end_ms = min(self._slice_end_ms, near_ms)
                    return page.items
                self._position = slice_end
            elif not self._slice_end_ms:
                first = await self._kv.scan(self._position, end, limit=1, keys_only=True)
                if not first.items:
                    break
                self._slice_end_ms = keys.due_time(self._queue, first.items[0].key)
            else:
                self._slice_end_ms += self._slice_ms
                self._slice_ms = min(2 * self._slice_ms, SLICE_MS_MAX)
        self._passed_ms = self._end_ms
        self._end_ms = -1
        return []

    def _begin(self, now_ms: int) -> None:
        """A round: what was left, then what has become due since; of a first one the beginning is
        looked up."""
        self._end_ms = now_ms
        self._position = self._queue
        self._slice_end_ms = min(self._passed_ms, now_ms)
        self._slice_ms = SLICE_MS
