"""The metadata engine seam: ordered keys, revisions, guarded commits, watches and leases.

The model is etcd's. The store has one revision, a positive integer that every successful commit
raises by at least one. Every key carries the revision of the commit that last wrote it. Keys
order by their bytes. Reads are linearizable. A commit is a list of guards and a list of writes:
all writes happen, at one revision, if and only if every guard holds.

Outcomes of a commit:

* it returns: the writes are durable and visible to every later read of every process;
* `Conflict`: a guard did not hold, nothing was written;
* `Unavailable`: **unknown**. The writes may have happened, may still happen, or may never happen.

One contract suite (tests/kv/) runs over every engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

Key = bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One key as stored. `revision` is that of the commit that last wrote it."""

    key: Key
    value: bytes
    revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer of `get_many`: items in the order asked, and the store's revision read at."""

    items: list[Item | None]
    revision: int


@dataclass(frozen=True, slots=True)
class Page:
    """The answer of `scan`. `more` says that keys in the range follow the last item."""

    items: list[Item]
    more: bool
    revision: int


@dataclass(frozen=True, slots=True)
class At:
    """Holds when `key` was last written at `revision`; 0 means that the key is absent."""

    key: Key
    revision: int


@dataclass(frozen=True, slots=True)
class Empty:
    """Holds when no key lies in [start, end)."""

    start: Key
    end: Key


@dataclass(frozen=True, slots=True)
class NoneNewer:
    """Holds when no key now in [start, end) was written after `revision`."""

    start: Key
    end: Key
    revision: int


Guard = At | Empty | NoneNewer


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value`. A key attached to a `lease` (not 0) is deleted when the lease ends."""

    key: Key
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key; removing an absent key is no error."""

    key: Key


Write = Put | Delete


class EventKind(Enum):
    PUT = "put"
    DELETE = "delete"
    RELIST = "relist"


@dataclass(frozen=True, slots=True)
class Event:
    """A change seen by a watch, in order of revision.

    `RELIST` (key and value empty) says that changes were or may have been missed, for example
    after a compaction: the watcher must read the prefix again at `revision` or later. A watch
    is a hint: callers also relist periodically.
    """

    kind: EventKind
    key: Key
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Space:
    """How full the engine is, in bytes. `quota_bytes` is 0 when only the disk limits it."""

    used_bytes: int
    quota_bytes: int


class EngineError(Exception):
    """Base of what an engine raises."""


class Conflict(EngineError):
    """A guard did not hold; nothing was written. `guard` is the first that failed, or None if
    the engine knows only that one did."""

    def __init__(self, guard: Guard | None) -> None:
        super().__init__(f"guard does not hold: {guard!r}")
        self.guard = guard


class Unavailable(EngineError):
    """The engine did not answer in time or lost the connection: a read may be tried again, the
    outcome of a commit is unknown."""


class Compacted(EngineError):
    """The revision asked for is no longer in the history."""


class LeaseLost(EngineError):
    """The lease does not exist (any more)."""


class NoSpace(EngineError):
    """The engine refuses writes that grow it (quota reached, disk full); nothing was written."""


class CommitTooLarge(EngineError):
    """A commit is over the limits of limits.py: a bug of the caller, nothing was written."""


class KV(Protocol):
    """An engine. All methods may raise `Unavailable`."""

    range_costs_its_size: bool
    """True where a limited scan costs in proportion to the keys of the whole range (etcd), so
    that callers look up tight bounds first."""

    @property
    def disturbances(self) -> int:
        """Grows when this client sees that the engine was away or has another leader: leases may
        have ended that could not be renewed. Constant for an engine within the process."""
        ...

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        """Read keys at one revision, in one round trip."""
        ...

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        """Read up to `limit` (1..SCAN_ITEMS_MAX) items of [start, end) in byte order, at
        `revision` or now. Raises `Compacted`. With `keys_only` the values are empty."""
        ...

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        """Apply all writes at one new revision if all guards hold; return that revision.

        A key may be written once in a commit. Raises `Conflict`, `Unavailable` (outcome
        unknown), `NoSpace`, `LeaseLost` (a Put names a lease that is gone), `CommitTooLarge`.
        """
        ...

    def watch(self, prefix: Key, *, after_revision: int) -> AsyncIterator[Event]:
        """Changes of keys under `prefix` with a revision above `after_revision`, without end.
        Reconnects by itself; close the iterator (`aclose`) to stop."""
        ...

    async def grant_lease(self, ttl_seconds: int) -> int:
        """A new lease id, never 0. It ends `ttl_seconds` after the last renewal."""
        ...

    async def renew_lease(self, lease: int) -> None:
        """Start the lease's time anew. Raises `LeaseLost`."""
        ...

    async def revoke_lease(self, lease: int) -> None:
        """End the lease and delete its keys; a lease already gone is no error."""
        ...

    async def compact(self, revision: int) -> None:
        """Drop history older than `revision`."""
        ...

    async def space(self) -> Space:
        """Bytes used and allowed."""
        ...

    async def close(self) -> None:
        """Release connections and threads. Idempotent."""
        ...
