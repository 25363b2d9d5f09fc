"""What a background worker is, and how its commits are tied to its lock.

A worker does bounded units of work. Safety never rests on its lock: every commit is guarded by
the records it was decided on, and deletions carry the placement group's revision. The lock keeps
two processes from doing the same work twice; the commits of a worker that has lost it fail.

A lock is a key under the process's own lease, so it is free again when the process dies. The
lock's value names its owner: a lock whose taking had an unknown outcome is found again by it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from s3gw.kv.interface import At, Conflict, EngineError, LeaseLost, Put
from s3gw.metadata.store import OutcomeUnknown, Store, Transaction

log = logging.getLogger(__name__)


class ClaimLost(Exception):
    """Another process holds the worker's lock by now, or nobody does."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The lock of a worker as this process took it; without a key, no lock at all."""

    key: bytes = b""
    revision: int = 0


UNCLAIMED = Claim()


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
