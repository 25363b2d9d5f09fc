"""Reading all keys of the store at one revision, without holding up what else goes on.

Where a range costs what is in it, whatever its limit, each page of one that goes on to the end of
all keys costs all that is left, and writes wait meanwhile: for 4 s with 1.5 million keys in
etcd 3.4. So every read ends a little ahead:

* among records that have fences, at the next fence;
* among others of which there may be many, so far ahead, keys taken as numbers, as the last full
  page reached; and further where little or nothing was found. A read that reaches into the next
  kind of keys would meet that as a whole: it stops before, and begins anew with next to nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from s3gw.kv.interface import KV, Item, Page
from s3gw.metadata import keys
from s3gw.metadata.store import Store

# As numbers keys have so many bytes, with zeros behind; what of a longer one is beyond them counts
# for nothing.
NUMBER_BYTES = 2304
PROFILES_PER_READ = 100
FIRST_STEP_PART = 2**52
STEP_MORE = 16
NUMBER_MAX = (1 << 8 * NUMBER_BYTES) - 1


async def all_keys(
    store: Store, start: bytes, end: bytes, *, revision: int, limit: int
) -> AsyncIterator[Sequence[Item]]:
    """All items of [start, end) at a revision, in order, up to `limit` at a time. `fence/` is left
    out where a range costs its size. Raises Compacted and other errors of the engine."""
    if not store.kv.range_costs_its_size:
        async for items in _paged(store.kv.scan, start, end, revision, limit):
            yield items
        return
    many = await _kinds(store, revision)
    kinds = [*keys.LISTED, *many, keys.FENCES]
    borders = {start, end, *kinds, *map(keys.after_prefix, kinds)}
    within = sorted(border for border in borders if start <= border <= end)
    for first, last in itertools.pairwise(within):
        if first == keys.FENCES:
            continue
        if first in many:
            pages = _close(store, first, last, revision, limit)
        else:
            scan = store.scan_listed if first in keys.LISTED else store.kv.scan
            pages = _paged(scan, first, last, revision, limit)
        async for items in pages:
            yield items


async def _kinds(store: Store, revision: int) -> list[bytes]:
    """What keys begin with of which there may be many, and that have no fences."""
    kinds = [keys.PARTS, keys.MANIFESTS, keys.HOLDERS, keys.REPAIRS, keys.NAMES, keys.NAMINGS]
    kinds += [keys.GARBAGE, keys.DUE, keys.PURGES]
    kinds += [keys.BUCKETS, keys.USAGES, keys.CONFIGURATIONS, keys.IDENTITIES]
    profiles = (keys.PROFILES, keys.after_prefix(keys.PROFILES))
    async for items in _paged(store.kv.scan, *profiles, revision, PROFILES_PER_READ):
        for name in (item.key[len(keys.PROFILES) :] for item in items):
            kinds += [keys.BLOBS + name + b"/", keys.COUNTS + name + b"/"]
    return kinds


async def _paged(
    scan: Callable[..., Awaitable[Page]], start: bytes, end: bytes, revision: int, limit: int
) -> AsyncIterator[Sequence[Item]]:
    """A range, page by page to its end, as `scan` reads it: of the engine, or along fences."""
    more = True
    while more:
        page = await scan(start, end, limit=limit, revision=revision)
        yield page.items
        more = page.more
        if more:
            start = page.items[-1].key + b"\x00"


async def _close(
    store: Store, start: bytes, end: bytes, revision: int, limit: int
) -> AsyncIterator[Sequence[Item]]:
    """Any range, by steps that are as long as suits what is there."""
    steps = Steps(store.kv, start, end)
    while items := await steps.next(limit, revision=revision):
        yield items


class Steps:
    """Reads a range on and on, each read at a cost of about what it finds. The length of a step is
    kept from round to round: an empty range, or a short one, is soon read at once."""

    def __init__(self, kv: KV, start: bytes, end: bytes) -> None:
        self._kv = kv
        self._start = self._position = start
        self._end = end
        self._step = NUMBER_MAX
        if kv.range_costs_its_size:
            self._step = max(1, (_number(end) - _number(start)) // FIRST_STEP_PART)

    def restart(self, end: bytes = b"") -> None:
        """Begin a new round with the next read, to another end if one is given."""
        self._position = self._start
        self._end = end or self._end

    @property
    def ended(self) -> bool:
        """Whether nothing of the round is left to be read."""
        return self._position >= self._end

    async def next(self, limit: int, *, revision: int | None = None) -> Sequence[Item]:
        """The next items, `limit` at most; none at the end. Raises EngineError."""
        while self._position < self._end:
            start = self._position
            stop = min(self._end, _ahead(start, self._step))
            page = await self._kv.scan(start, stop, limit=limit, revision=revision)
            if page.more:
                last = page.items[-1].key
                self._position = last + b"\x00"
                if self._kv.range_costs_its_size:
                    self._step = max(1, _number(last) - _number(page.items[0].key))
            else:
                self._position = stop
                if not page.items:
                    self._step *= STEP_MORE
                elif 2 * len(page.items) < limit:
                    self._step *= 2
            self._step = min(self._step, NUMBER_MAX)
            if page.items:
                return page.items
        return []


def _number(key: bytes) -> int:
    """A key as a number; of two keys the later one has no smaller number."""
    return int.from_bytes(key[:NUMBER_BYTES].ljust(NUMBER_BYTES, b"\x00"), "big")


def _ahead(key: bytes, step: int) -> bytes:
    """A key that is `step` (1 at least) ahead, or the end of all keys."""
    number = min(_number(key) + step, NUMBER_MAX)
    return number.to_bytes(NUMBER_BYTES, "big").rstrip(b"\x00")
