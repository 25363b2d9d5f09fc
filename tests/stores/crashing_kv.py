"""An engine that dies, or loses its answer, at a commit chosen beforehand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum

from s3gw.kv.interface import KV, Event, Guard, Key, Page, Reading, Space, Unavailable, Write


class Crashed(Exception):
    """The process is dead from here on."""


class Mode(Enum):
    """What happens at the chosen commit."""

    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"
    LOSE_BEFORE = "lose the request"
    LOSE_AFTER = "lose the answer"


@dataclass
class Fuse:
    """Burns one commit at a time; at 0 the mode happens. `left` below 0: never."""

    left: int = -1
    mode: Mode = Mode.DIE_BEFORE
    blown: bool = False
    commits: int = 0

    def arm(self, commits: int, mode: Mode) -> None:
        self.left, self.mode = commits, mode

    def burn(self) -> bool:
        self.commits += 1
        self.left -= 1
        return self.left == -1 if self.left >= -1 else False


class CrashingKV:
    """Delegates to an engine until its fuse blows."""

    range_costs_its_size = False
    disturbances = 0

    def __init__(self, kv: KV, fuse: Fuse) -> None:
        self._kv = kv
        self.fuse = fuse

    def _alive(self) -> None:
        if self.fuse.blown:
            raise Crashed

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        self._alive()
        return await self._kv.get_many(keys)

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        self._alive()
        return await self._kv.scan(start, end, limit=limit, revision=revision, keys_only=keys_only)

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        self._alive()
        if not self.fuse.burn():
            return await self._kv.commit(guards, writes)
        mode = self.fuse.mode
        self.fuse.blown = mode in (Mode.DIE_BEFORE, Mode.DIE_AFTER)
        if mode in (Mode.DIE_AFTER, Mode.LOSE_AFTER):
            await self._kv.commit(guards, writes)
        raise Crashed if self.fuse.blown else Unavailable("lost")

    def watch(self, prefix: Key, *, after_revision: int) -> AsyncIterator[Event]:
        return self._kv.watch(prefix, after_revision=after_revision)

    async def grant_lease(self, ttl_seconds: int) -> int:
        return await self._kv.grant_lease(ttl_seconds)

    async def renew_lease(self, lease: int) -> None:
        await self._kv.renew_lease(lease)

    async def revoke_lease(self, lease: int) -> None:
        await self._kv.revoke_lease(lease)

    async def compact(self, revision: int) -> None:
        await self._kv.compact(revision)

    async def space(self) -> Space:
        return await self._kv.space()

    async def close(self) -> None:
        await self._kv.close()
