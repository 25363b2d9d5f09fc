"""How identities change: read, decide, and commit what was decided if nothing has changed since.

Every change of any identity writes `identity/generation` and is guarded by the revision that it had
before the first read. So changes of identities happen one after the other, each decided on all that
was there: a policy cannot be attached while it is deleted, nor a user get a third key from two
requests at once. They are rare, so that order costs nothing that matters.

The new value of the generation is random: who does not learn the outcome of a commit looks for it
there. Found means done; else `OutcomeUnknown` is raised, and nothing is undone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from s3gw import limits
from s3gw.identities.errors import ConcurrentModification
from s3gw.identities.sealing import Seal
from s3gw.kv.interface import At, Conflict, Put
from s3gw.metadata import keys
from s3gw.metadata.records import decode
from s3gw.metadata.store import Store, Transaction

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")

ACCESS_KEY_SECRETS = b"secrets of access keys"


class Change:
    """One change while it is decided: reads of what is there, and what is to be written."""

    def __init__(self, store: Store, generation: int) -> None:
        self._store = store
        self.tx = Transaction()
        self.tx.guards.append(At(keys.IDENTITY_GENERATION, generation))

    async def get(self, kind: type[R], key: bytes) -> R | None:
        """The record at a key."""
        return (await self._store.get(kind, key)).record

    async def all(self, kind: type[R], prefix: bytes) -> list[R]:
        """All records below a prefix."""
        return await read_all(self._store, kind, prefix)

    def put(self, key: bytes, record: msgspec.Struct) -> None:
        self.tx.put(key, record)

    def delete(self, key: bytes) -> None:
        self.tx.delete(key)


async def read_all(store: Store, kind: type[R], prefix: bytes) -> list[R]:
    """All records below a prefix, by key, at one revision."""
    found: list[R] = []
    start, end, revision = prefix, keys.after_prefix(prefix), None
    while True:
        page = await store.kv.scan(start, end, limit=limits.SCAN_ITEMS_MAX, revision=revision)
        found += (decode(kind, item.value) for item in page.items)
        if not page.more:
            return found
        start, revision = page.items[-1].key + b"\x00", page.revision


async def no_listener() -> None:
    """Nobody wants to know of changes."""


class Changes:
    """The base of the stores of each kind of identity. `changed` is awaited after each change of
    this process, so that its own view has it at once."""

    def __init__(
        self,
        store: Store,
        clock_ms: Callable[[], int],
        changed: Callable[[], Awaitable[None]] = no_listener,
    ) -> None:
        self.store = store
        self.clock_ms = clock_ms
        self.seal = Seal(store.identity.cluster_secret, ACCESS_KEY_SECRETS)
        self._changed = changed
        # Only for speed: changes of one process need not meet each other at the guard.
        self._one_at_a_time = asyncio.Lock()

    async def change(self, decide: Callable[[Change], Awaitable[T]]) -> T:
        """Commit what `decide` writes, in one commit with a new generation; `decide` is called
        again when other identities changed meanwhile. Raises what `decide` raises,
        ConcurrentModification, OutcomeUnknown, EngineError."""
        async with self._one_at_a_time:
            result = await self._changed_once(decide)
        await self._changed()
        return result

    async def _changed_once(self, decide: Callable[[Change], Awaitable[T]]) -> T:
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            (item,) = (await self.store.kv.get_many([keys.IDENTITY_GENERATION])).items
            change = Change(self.store, item.revision if item is not None else 0)
            result = await decide(change)
            if not change.tx.writes:
                return result
            generation = Put(keys.IDENTITY_GENERATION, os.urandom(8))
            change.tx.writes[keys.IDENTITY_GENERATION] = generation
            change.tx.witness = keys.IDENTITY_GENERATION
            try:
                await self.store.apply(change.tx)
            except Conflict:
                continue
            return result
        raise ConcurrentModification
