"""Turns: many writers of one key, in one process.

Commits are optimistic: who loses one reads again and decides again. Of N who do so at once one wins
each round, whichever it is. Of a hundred copies to one key a third lost as often as there are
attempts, and every attempt was work for nothing. So who has lost once waits until those of its
process who lost before are done, and reads again then. Who comes meanwhile waits behind them, for a
shorter time: else they would go on losing to whoever comes next.

A turn guards nothing and decides nothing: commits do, also against other processes. Who waits too
long goes on without.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakValueDictionary

# Longer than a hundred writers of one key take, and shorter than clients wait for an answer.
WAIT_SECONDS_MAX: Final = 5.0
# For those who have not lost: they may well not have to wait.
BEHIND_SECONDS_MAX: Final = 1.0


class Turns:
    """Those of one process, by the key of the record that is written."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: bytes) -> Turn:
        """The turn of one writer, which ends with the block that it is the context of. Whoever
        writes within this block under a turn of its own must not take the same key."""
        return Turn(self, key)

    def lock(self, key: bytes) -> asyncio.Lock:
        """The lock of a key; it lasts as long as somebody has it or waits for it."""
        return self._locks.setdefault(key, asyncio.Lock())

    def taken(self, key: bytes) -> bool:
        """Whether somebody has it."""
        lock = self._locks.get(key)
        return lock is not None and lock.locked()


class Turn:
    """One writer's."""

    __slots__ = ("_held", "_key", "_turns", "_waited")

    def __init__(self, turns: Turns, key: bytes) -> None:
        self._turns = turns
        self._key = key
        self._held: asyncio.Lock | None = None
        self._waited = False

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None

    async def behind_others(self) -> bool:
        """Before the first commit: wait behind those who have lost theirs, if there are any.
        Whether there were: what was read before is to be read again."""
        if not self._turns.taken(self._key):
            return False
        await self._take(BEHIND_SECONDS_MAX)
        return True

    async def wait(self) -> None:
        """After a lost commit, and before reading again: the first time, until it is one's turn."""
        if not self._waited and self._held is None:
            self._waited = True
            await self._take(WAIT_SECONDS_MAX)

    async def _take(self, seconds_max: float) -> None:
        lock = self._turns.lock(self._key)
        try:
            async with asyncio.timeout(seconds_max):
                await lock.acquire()
        except TimeoutError:
            return
        self._held = lock
