"""An engine in the memory of one process: the contract in its plainest form, for tests and for
`s3gw` as a test server. Nothing survives the process.

A `MemoryStore` is the data; any number of `MemoryKV` engines may be opened on it, as gateways on
one cluster. Everything happens in one event loop without an `await` in between, which makes each
call atomic. `changes` holds every change since the last compaction, with what the key was before.
Leases end when their deadline has passed on `clock`: every call ends the due ones first, and a
timer does where no call comes.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from s3gw.kv.checks import check_commit, check_scan, check_ttl
from s3gw.kv.interface import (
    At,
    Compacted,
    Conflict,
    Delete,
    Empty,
    Event,
    EventKind,
    Guard,
    Item,
    Key,
    LeaseLost,
    Page,
    Put,
    Reading,
    Space,
    Unavailable,
    Write,
)


@dataclass(frozen=True, slots=True)
class _Change:
    revision: int
    key: Key
    before: Item | None
    after: Item | None


@dataclass(slots=True)
class _Lease:
    ttl_seconds: int
    deadline: float


class MemoryStore:
    """The data that engines share. `clock` gives seconds, for leases."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.revision = 1
        self.compacted = 0
        self.items: dict[Key, Item] = {}
        self.order: list[Key] = []
        self.changes: list[_Change] = []
        self.leases: dict[int, _Lease] = {}
        self.lease_last = 0
        self.watching: set[asyncio.Event] = set()

    def expire(self) -> None:
        """End the leases whose time is over."""
        now = self.clock()
        for number in [n for n, lease in self.leases.items() if lease.deadline <= now]:
            self.end_lease(number)

    def end_lease(self, number: int) -> None:
        if self.leases.pop(number, None) is None:
            return
        doomed: list[Write] = [
            Delete(item.key) for item in self.items.values() if item.lease == number
        ]
        if doomed:
            self.apply(doomed)

    def apply(self, writes: Sequence[Write]) -> int:
        """Do the writes at the next revision."""
        self.revision += 1
        for write in writes:
            before = self.items.get(write.key)
            after = None
            if type(write) is Put:
                after = Item(write.key, write.value, self.revision, write.lease)
            if before is None and after is None:
                continue
            if after is not None:
                self.items[write.key] = after
                if before is None:
                    insort(self.order, write.key)
            else:
                del self.items[write.key]
                del self.order[bisect_left(self.order, write.key)]
            self.changes.append(_Change(self.revision, write.key, before, after))
        for signal in self.watching:
            signal.set()
        return self.revision

    def keys(self, start: Key, end: Key) -> list[Key]:
        return self.order[bisect_left(self.order, start) : bisect_left(self.order, end)]

    def holds(self, guard: Guard) -> bool:
        if type(guard) is At:
            item = self.items.get(guard.key)
            return (item.revision if item else 0) == guard.revision
        if type(guard) is Empty:
            return not self.keys(guard.start, guard.end)
        assert not isinstance(guard, At | Empty)
        return all(
            self.items[key].revision <= guard.revision for key in self.keys(guard.start, guard.end)
        )

    def changes_after(self, revision: int) -> list[_Change]:
        return self.changes[bisect_left(self.changes, revision + 1, key=_revision_of) :]

    def range_at(self, start: Key, end: Key, revision: int) -> list[Item]:
        """The items of [start, end) as they were at `revision`."""
        state: dict[Key, Item | None] = {key: self.items[key] for key in self.keys(start, end)}
        for change in reversed(self.changes_after(revision)):
            if start <= change.key < end:
                state[change.key] = change.before
        return [item for _, item in sorted(state.items()) if item is not None]


def _revision_of(change: _Change) -> int:
    return change.revision


class MemoryKV:
    """An engine over a `MemoryStore`; see `s3gw.kv.interface.KV` for the contract."""

    range_costs_its_size = False
    disturbances = 0

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store or MemoryStore()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._signals: set[asyncio.Event] = set()

    def _ready(self) -> MemoryStore:
        if self._closed:
            raise Unavailable("the engine is closed")
        self._store.expire()
        return self._store

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        store = self._ready()
        return Reading([store.items.get(key) for key in keys], store.revision)

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        check_scan(limit)
        store = self._ready()
        if revision is None:
            keys = store.keys(start, end)
            items = [store.items[key] for key in keys[: limit + 1]]
        else:
            if not store.compacted <= revision <= store.revision:
                raise Compacted(f"revision {revision}")
            items = store.range_at(start, end, revision)
        page = items[:limit]
        if keys_only:
            page = [Item(item.key, b"", item.revision, item.lease) for item in page]
        return Page(page, len(items) > limit, store.revision if revision is None else revision)

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        check_commit(guards, writes)
        store = self._ready()
        for write in writes:
            if type(write) is Put and write.lease and write.lease not in store.leases:
                raise LeaseLost(f"lease {write.lease}")
        for guard in guards:
            if not store.holds(guard):
                raise Conflict(guard)
        return store.apply(writes)

    async def watch(self, prefix: Key, *, after_revision: int) -> AsyncIterator[Event]:
        signal = asyncio.Event()
        self._signals.add(signal)
        self._store.watching.add(signal)
        try:
            while True:
                signal.clear()
                store = self._ready()
                if after_revision < store.compacted:
                    after_revision = store.revision
                    yield Event(EventKind.RELIST, b"", b"", after_revision)
                    continue
                for change in store.changes_after(after_revision):
                    if change.key.startswith(prefix):
                        yield _event(change)
                    after_revision = change.revision
                await signal.wait()
        finally:
            self._signals.discard(signal)
            self._store.watching.discard(signal)

    async def grant_lease(self, ttl_seconds: int) -> int:
        check_ttl(ttl_seconds)
        store = self._ready()
        store.lease_last += 1
        store.leases[store.lease_last] = _Lease(ttl_seconds, store.clock() + ttl_seconds)
        self._arm()
        return store.lease_last

    async def renew_lease(self, lease: int) -> None:
        store = self._ready()
        if lease not in store.leases:
            raise LeaseLost(f"lease {lease}")
        held = store.leases[lease]
        held.deadline = store.clock() + held.ttl_seconds

    async def revoke_lease(self, lease: int) -> None:
        self._ready().end_lease(lease)

    async def compact(self, revision: int) -> None:
        store = self._ready()
        store.compacted = max(store.compacted, min(revision, store.revision))
        store.changes = store.changes_after(store.compacted)

    async def space(self) -> Space:
        items = self._ready().items.values()
        return Space(sum(len(item.key) + len(item.value) for item in items), 0)

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for signal in self._signals:
            signal.set()

    def _arm(self) -> None:
        """Wake at the next deadline, for watchers of a store that nobody else calls."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._store.leases and not self._closed:
            due = min(lease.deadline for lease in self._store.leases.values())
            delay = max(due - self._store.clock(), 0.001)
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._store.expire()
        self._arm()


def _event(change: _Change) -> Event:
    if change.after is None:
        return Event(EventKind.DELETE, change.key, b"", change.revision)
    return Event(EventKind.PUT, change.key, change.after.value, change.revision)
