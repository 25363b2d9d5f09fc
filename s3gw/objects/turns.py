"""Turns: many writers of one key, in one process.

Commits are optimistic: who loses one reads again and decides again. Of N who do so at once one wins
each round, whichever it is. Of a hundred copies to one key a third lost as often as there are
attempts, and every attempt was work for nothing. So who has lost once waits until those of its
process who lost before are done, and reads again then.

A turn guards nothing and decides nothing: commits do, against other processes and against writers
who have not lost yet. Who waits too long goes on without.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakValueDictionary

# Longer than a hundred writers of one key take, and shorter than clients wait for an answer.
WAIT_SECONDS_MAX: Final = 5.0


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

    async def wait(self) -> None:
        """After a lost commit, and before reading again: the first time, until it is one's turn."""
        if self._waited:
            return
        self._waited = True
        lock = self._turns.lock(self._key)
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await lock.acquire()
        except TimeoutError:
            return
        self._held = lock
