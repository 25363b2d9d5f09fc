"""Typed reads and guarded commits over an engine.

A change of S3 state is one `Transaction`: what it expects, what it writes, and what it adds to
counters. `Store.apply` sends it and settles what can be settled without a new decision:

* a conflict on a counter alone: that counter is read again and the commit sent again;
* `Unavailable`: the same guards and writes are sent again. Every transaction guards a record that
  it changes, so at most one sending takes effect. If a later sending is refused, the outcome is
  looked up at the transaction's `witness` (a key whose new value no other commit can write).
  Found means done; not found proves nothing, and `OutcomeUnknown` is raised.

Every other conflict is the caller's to decide: re-read, decide again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from s3gw import limits
from s3gw.kv.interface import (
    KV,
    At,
    Conflict,
    Delete,
    Guard,
    Item,
    LeaseLost,
    NoSpace,
    Page,
    Put,
    Unavailable,
    Write,
)
from s3gw.metadata import keys
from s3gw.metadata.counters import Counters, Held
from s3gw.metadata.records import Count, StoreRecord, Usage, decode, encode

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")

RESEND_MAX = 3
RESEND_PAUSE_SECONDS = 0.2
FENCES_AHEAD = 2


class OutcomeUnknown(Exception):
    """A commit was sent and nobody can say whether it took effect. Nothing that it may have
    published may be cleaned up."""


@dataclass(frozen=True, slots=True)
class Versioned(Generic[R]):
    """A record and the revision it was read at its key with (0: the key is absent)."""

    record: R | None
    revision: int


def versioned(kind: type[R], item: Item | None) -> Versioned[R]:
    """Decode an item."""
    if item is None:
        return Versioned(None, 0)
    return Versioned(decode(kind, item.value), item.revision)


class Transaction:
    """Guards, writes and counter changes that take effect together."""

    __slots__ = ("counts", "guards", "usages", "witness", "writes")

    def __init__(self) -> None:
        self.guards: list[Guard] = []
        self.writes: dict[bytes, Write] = {}
        self.usages: dict[str, Usage] = {}
        self.counts: dict[bytes, Count] = {}
        self.witness: bytes | None = None

    def expect(self, key: bytes, revision: int) -> None:
        """Guard: `key` is still as it was read (0: still absent)."""
        self.guards.append(At(key, revision))

    def put(self, key: bytes, record: msgspec.Struct, *, lease: int = 0) -> None:
        self.writes[key] = Put(key, encode(record), lease)

    def delete(self, key: bytes) -> None:
        self.writes[key] = Delete(key)

    def use(self, bucket: str, delta: Usage) -> None:
        """Add to a bucket's usage."""
        self.usages[bucket] = self.usages.get(bucket, Usage()) + delta

    def count(self, key: bytes, references: int, size: int) -> None:
        """Add to a placement group's count."""
        before = self.counts.get(key, Count())
        self.counts[key] = Count(before.references + references, before.bytes + size)


class Store:
    """The metadata of one store, as one process uses it."""

    def __init__(self, kv: KV, identity: StoreRecord, counters: Counters) -> None:
        self.kv = kv
        self.identity = identity
        self.counters = counters
        self._in_flight: set[asyncio.Task[Any]] = set()

    def moment(self, revision: int) -> int:
        """The moment of what is decided on a reading at `revision` (`s3gw.metadata.sequences`)."""
        return revision + self.identity.sequence_offset

    async def get(self, kind: type[R], key: bytes) -> Versioned[R]:
        reading = await self.kv.get_many([key])
        return versioned(kind, reading.items[0])

    def put_listed(self, tx: Transaction, key: bytes, record: msgspec.Struct) -> None:
        """Write a record that listings page over, with its fence if it carries one."""
        tx.put(key, record)
        if keys.carries_fence(key, self.identity.fence_secret):
            fence = keys.fence(key)
            tx.writes[fence] = Put(fence, b"")

    def delete_listed(self, tx: Transaction, key: bytes) -> None:
        """Remove such a record, and its fence."""
        tx.delete(key)
        if keys.carries_fence(key, self.identity.fence_secret):
            tx.delete(keys.fence(key))

    async def scan_listed(
        self, start: bytes, end: bytes, *, limit: int, revision: int | None = None
    ) -> Page:
        """Read on in a listed range: up to `limit` items, maybe fewer with `more` True.

        Where a range costs its size, the read ends at a fence a little ahead; `more` then says
        that the range goes on behind the fence. The next read starts behind the last item; a page
        without items has `more` False.
        """
        if not self.kv.range_costs_its_size:
            return await self.kv.scan(start, end, limit=limit, revision=revision)
        position = start
        while True:
            fences = await self.kv.scan(
                keys.fence(position) + b"\x00",
                keys.fence(end),
                limit=FENCES_AHEAD,
                revision=revision,
                keys_only=True,
            )
            last = fences.items[-1].key[len(keys.fence(b"")) :] if fences.items else end
            page = await self.kv.scan(
                position, last, limit=limit, revision=revision or fences.revision
            )
            if page.items or last == end:
                return Page(page.items, page.more or last != end, page.revision)
            position, revision = last, page.revision

    async def apply(self, tx: Transaction) -> int:
        """Commit a transaction; return its revision. Raises Conflict, OutcomeUnknown and what
        `KV.commit` raises, but for Unavailable.

        Runs on when the caller is cancelled: what was sent is always followed to its end.
        """
        return await self.shielded(self._apply(tx))

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end, also when the caller is cancelled."""
        task = asyncio.ensure_future(work)
        self._in_flight.add(task)
        task.add_done_callback(self._landed)
        return await asyncio.shield(task)

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that has gone leaves nobody else to look at it

    async def settle(self) -> None:
        """Wait for the commits in flight; for shutdown."""
        while self._in_flight:
            await asyncio.wait(set(self._in_flight))

    async def _apply(self, tx: Transaction) -> int:
        if not tx.usages and not tx.counts:
            return await self._send(tx, tx.guards, list(tx.writes.values()))
        held = await self.counters.hold(tx.usages, tx.counts)
        try:
            return await self._apply_counting(tx, held)
        finally:
            held.release()

    async def _apply_counting(self, tx: Transaction, held: Held) -> int:
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            guards: list[Guard] = [*tx.guards, *held.guards()]
            writes: list[Write] = [*tx.writes.values(), *held.writes()]
            try:
                revision = await self._send(tx, guards, writes)
            except Conflict as conflict:
                if conflict.guard is None:
                    held.forget()  # it may have been one of these
                if not isinstance(conflict.guard, At) or not held.covers(conflict.guard.key):
                    raise
                await held.load(again=conflict.guard.key)
            except BaseException:
                held.forget()
                raise
            else:
                held.committed(revision)
                return revision
        raise Unavailable("counters of this commit are changed too often by others")

    async def _send(self, tx: Transaction, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        unknown = False
        for attempt in range(RESEND_MAX + 1):
            try:
                return await self.kv.commit(guards, writes)
            except Unavailable:
                unknown = True
                if attempt < RESEND_MAX:
                    await asyncio.sleep(RESEND_PAUSE_SECONDS * 2**attempt)
            except (Conflict, NoSpace, LeaseLost):
                if not unknown:
                    raise
                break  # it says nothing of the sendings before
        revision = await self._witnessed(tx)
        if revision is None:
            raise OutcomeUnknown
        return revision

    async def _witnessed(self, tx: Transaction) -> int | None:
        """The revision at which the transaction took effect, if its witness still shows it."""
        write = tx.writes.get(tx.witness) if tx.witness else None
        if not isinstance(write, Put):
            return None
        try:
            (item,) = (await self.kv.get_many([write.key])).items
        except Unavailable:
            return None
        return item.revision if item and item.value == write.value else None
