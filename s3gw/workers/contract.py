"""What a background worker is, and how its commits are tied to its lock.

A worker does bounded units of work. Safety never rests on its lock: every commit is guarded by
the records it was decided on, and deletions carry the placement group's revision. The lock keeps
two processes from doing the same work twice; the commits of a worker that has lost it fail.

A lock is a key under the process's own lease, so it is free again when the process dies. The
lock's value names its owner: a lock whose taking had an unknown outcome is found again by it.

What goes wrong with one entry of a queue or walk must not hold up the others: a worker lets
SHARED_TROUBLE through, since the others would meet it as well, and logs and leaves behind whatever
else an entry raises.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict, runtime_checkable

from s3gw.kv.interface import At, Conflict, EngineError, LeaseLost, NoSpace, Put, Unavailable
from s3gw.metadata.store import OutcomeUnknown, Store, Transaction
from s3gw.objects.storage import Storage

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[object]]


class ClaimLost(Exception):
    """Another process holds the worker's lock by now, or nobody does."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The lock of a worker as this process took it; without a key, no lock at all."""

    key: bytes = b""
    revision: int = 0


UNCLAIMED = Claim()

SHARED_TROUBLE = (Unavailable, NoSpace, LeaseLost, OutcomeUnknown, ClaimLost)
"""What is not about one entry, but about the engine or the worker's lock."""


async def take_lock(store: Store, key: bytes, identity: bytes, lease: int) -> Claim | None:
    """The lock at `key`, held before or taken now under `lease`; None while another has it, or
    without a lease. Raises EngineError."""
    (item,) = (await store.kv.get_many([key])).items
    if item is not None:
        return Claim(key, item.revision) if item.value == identity else None
    if not lease:
        return None
    tx = Transaction()
    tx.expect(key, 0)
    tx.writes[key] = Put(key, identity, lease)
    tx.witness = key
    try:
        return Claim(key, await store.apply(tx))
    except (Conflict, LeaseLost, OutcomeUnknown):
        return None  # another was faster; or ours is found by its value next time


async def give_back(store: Store, claim: Claim) -> None:
    """Let others have a lock. One that cannot be given back ends with its lease."""
    tx = Transaction()
    tx.expect(claim.key, claim.revision)
    tx.delete(claim.key)
    try:
        await store.apply(tx)
    except (EngineError, OutcomeUnknown) as error:
        log.info("lock %r was not given back: %s", claim.key, error)


async def commit(store: Store, claim: Claim, tx: Transaction) -> int:
    """Commit a worker's transaction under its lock. Raises ClaimLost, and what `apply` raises."""
    if claim.key:
        tx.guards.insert(0, At(claim.key, claim.revision))
    try:
        return await store.apply(tx)
    except Conflict as conflict:
        if claim.key and isinstance(conflict.guard, At) and conflict.guard.key == claim.key:
            raise ClaimLost(claim.key.decode()) from conflict
        raise


class _ClaimedStore(Store):
    """A store whose every commit is one under a lock."""

    def __init__(self, store: Store, claim: Claim) -> None:
        super().__init__(store.kv, store.identity, store.counters)
        self._in_flight = store._in_flight
        self._claim = claim
        self._plain = store

    async def apply(self, tx: Transaction) -> int:
        return await commit(self._plain, self._claim, tx)


def under(storage: Storage, claim: Claim) -> Storage:
    """The same storage for what is also done for requests (a delete, an abort): a commit of that
    is then one of a worker under its lock, and raises ClaimLost as `commit` does."""
    if not claim.key:
        return storage
    claimed = copy.copy(storage)
    claimed.store = _ClaimedStore(storage.store, claim)
    return claimed


class Worker(Protocol):
    """Background work of one kind. `name` names its lock, and `exclusive` says that only one
    process at a time does it; others keep something of their own process in step."""

    name: str
    exclusive: bool

    async def work(self, claim: Claim) -> bool:
        """Do one bounded unit; say whether there may be more at once. Whoever stops the worker
        waits for it. May raise anything: the runner logs it and tries again later."""
        ...

    async def wait(self) -> None:
        """Return when it is time to look again. Cancelled at will."""
        ...


@runtime_checkable
class Stoppable(Protocol):
    """A worker whose units may be long: `stop` has the unit in progress end soon."""

    def stop(self) -> None: ...


class Timing(TypedDict, total=False):
    """How a worker waits between its rounds: for so long, and by what."""

    interval_seconds: float
    sleep: Sleep


class PeriodicWorker:
    """What workers have in common that look again after a while: a store, and the time between two
    rounds. `interval_seconds` of the class holds unless an instance is told otherwise."""

    exclusive = True
    interval_seconds = 60.0

    def __init__(
        self,
        storage: Storage,
        *,
        interval_seconds: float | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._storage = storage
        if interval_seconds is not None:
            self.interval_seconds = interval_seconds
        self._sleep = sleep

    async def wait(self) -> None:
        """Return after the time between two rounds."""
        await self._sleep(self.interval_seconds)
