"""A simulated etcd: the engine in memory behind the network, and what can happen to it.

A call may be lost on its way, or its answer; then the caller has `Unavailable`, and the commit may
have been done, or be done long afterwards. Leases end in virtual time. Watches lag, break, miss an
event, and relist after a compaction, which their contract allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar
from zlib import crc32

from s3gw.kv.interface import (
    Event,
    EventKind,
    Guard,
    Key,
    Page,
    Put,
    Reading,
    Space,
    Unavailable,
    Write,
)
from s3gw.kv.memory import MemoryKV, MemoryStore
from tests.simulation.machines import Lost, Machine, Network, Unreachable
from tests.simulation.trace import Trace

T = TypeVar("T")

NAME = "etcd"
DEADLINE_SECONDS = 5.0
TICK_SECONDS = 0.5
WATCH_LAG_SECONDS = 0.02
WATCH_RETRY_SECONDS = 1.0
EVENTS_MISSED = 0.02
QUOTA_BYTES = 8 * 1024**3


class _WatchedStore(MemoryStore):
    """Wakes who watches what has changed, always in the same order, and tells the trace."""

    def __init__(self, clock: Callable[[], float], trace: Trace) -> None:
        super().__init__(clock)
        self.watchers: dict[asyncio.Event, Key] = {}
        self._trace = trace

    def apply(self, writes: Sequence[Write]) -> int:
        revision = super().apply(writes)
        values = [write.value for write in writes if isinstance(write, Put)]
        self._trace.note("commit", revision, crc32(b"".join(values)), *(w.key for w in writes))
        for signal, prefix in self.watchers.items():
            if any(write.key.startswith(prefix) for write in writes):
                signal.set()
        return revision


class SimulatedEtcd:
    """The service. `disturbances` grows when it was away or changed its leader."""

    def __init__(self, network: Network, chance: Random, trace: Trace) -> None:
        self.network = network
        self.chance = chance
        self.store = _WatchedStore(asyncio.get_running_loop().time, trace)
        self.engine = MemoryKV(self.store)
        self.disturbances = 0
        self._start()

    def _start(self) -> None:
        self.network.boot(NAME).spawn(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.store.expire()

    def stop(self) -> None:
        """It is away: no lease ends meanwhile."""
        self.network.kill(NAME)

    def start(self) -> None:
        """It is back, with a new leader: every lease has its full time again."""
        self.disturbances += 1
        for lease in self.store.leases.values():
            lease.deadline = self.store.clock() + lease.ttl_seconds
        self._start()

    def client(self, name: str) -> EtcdClient:
        """An engine for a machine."""
        return EtcdClient(self, name)


class EtcdClient:
    """Implements `s3gw.kv.interface.KV` for one machine."""

    range_costs_its_size = True

    def __init__(self, etcd: SimulatedEtcd, name: str) -> None:
        self._etcd = etcd
        self._name = name

    @property
    def disturbances(self) -> int:
        return self._etcd.disturbances

    async def _call(self, work: Callable[[MemoryKV], Awaitable[T]]) -> T:
        async def serve(_: Machine) -> T:
            return await work(self._etcd.engine)

        try:
            return await self._etcd.network.call(self._name, NAME, serve, seconds=DEADLINE_SECONDS)
        except (Lost, Unreachable) as error:
            raise Unavailable(str(error)) from error

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        return await self._call(lambda engine: engine.get_many(keys))

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        return await self._call(
            lambda engine: engine.scan(
                start, end, limit=limit, revision=revision, keys_only=keys_only
            )
        )

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        sent = list(guards), list(writes)
        return await self._call(lambda engine: engine.commit(*sent))

    async def watch(self, prefix: Key, *, after_revision: int) -> AsyncIterator[Event]:
        store, chance = self._etcd.store, self._etcd.chance
        signal = asyncio.Event()
        store.watchers[signal] = prefix
        try:
            while True:
                await asyncio.sleep(chance.expovariate(1 / WATCH_LAG_SECONDS))
                if not self._connected():
                    await asyncio.sleep(WATCH_RETRY_SECONDS)
                    continue
                signal.clear()
                if after_revision < store.compacted:
                    after_revision = store.revision
                    yield Event(EventKind.RELIST, b"", b"", after_revision)
                    continue
                for change in store.changes_after(after_revision):
                    after_revision = change.revision
                    missed = chance.random() < EVENTS_MISSED
                    if not change.key.startswith(prefix) or missed:
                        continue
                    if change.after is None:
                        yield Event(EventKind.DELETE, change.key, b"", change.revision)
                    else:
                        value = change.after.value
                        yield Event(EventKind.PUT, change.key, value, change.revision)
                await signal.wait()
        finally:
            store.watchers.pop(signal, None)

    def _connected(self) -> bool:
        network = self._etcd.network
        return network.machines[NAME].alive and (NAME, self._name) not in network.cut

    async def grant_lease(self, ttl_seconds: int) -> int:
        return await self._call(lambda engine: engine.grant_lease(ttl_seconds))

    async def renew_lease(self, lease: int) -> None:
        await self._call(lambda engine: engine.renew_lease(lease))

    async def revoke_lease(self, lease: int) -> None:
        await self._call(lambda engine: engine.revoke_lease(lease))

    async def compact(self, revision: int) -> None:
        await self._call(lambda engine: engine.compact(revision))

    async def space(self) -> Space:
        used = (await self._call(lambda engine: engine.space())).used_bytes
        return Space(used, QUOTA_BYTES)

    async def close(self) -> None:
        """Nothing is kept open."""
