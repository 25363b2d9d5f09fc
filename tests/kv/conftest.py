"""The engines that the contract suite runs over.

`STORES` is the table: one row per engine. A row makes a `Store`: data that outlives the engines
opened on it, with a way to let time pass for leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from s3gw.kv.interface import KV, Delete
from s3gw.kv.memory import MemoryKV, MemoryStore


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Store(Protocol):
    async def open(self) -> KV:
        """One more engine on the same data, as one more gateway would open it."""
        ...

    async def let_pass(self, seconds: float) -> None:
        """Let so much time pass for leases; what is due then ends soon, not necessarily at once."""
        ...

    async def close(self) -> None: ...


class MemoryUnderTest:
    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.data = MemoryStore(self.clock)

    async def open(self) -> KV:
        return MemoryKV(self.data)

    async def let_pass(self, seconds: float) -> None:
        self.clock.now += seconds
        self.data.expire()

    async def close(self) -> None:
        """Nothing outlives the test."""


class SqliteUnderTest:
    drives = 0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()

    async def open(self) -> KV:
        from s3gw.kv.journal import Journal
        from s3gw.kv.sqlite import SqliteKV

        journal = None
        if self.drives:
            drives = [self.directory / f"drive-{n}" for n in range(self.drives)]
            for drive in drives:
                drive.mkdir(parents=True, exist_ok=True)
            journal = Journal(drives, copies=self.drives - 1)
        return await SqliteKV.open(self.directory / "metadata", journal, clock=self.clock)

    async def let_pass(self, seconds: float) -> None:
        self.clock.now += seconds

    async def close(self) -> None:
        """The test's folder goes with the test."""


class SqliteWithJournalUnderTest(SqliteUnderTest):
    drives = 3


class EtcdUnderTest:
    """One server for the whole run, emptied before each test."""

    server: Any = None

    def __init__(self, directory: Path) -> None:
        self.cleaned = False

    async def open(self) -> KV:
        from s3gw.kv.etcd import EtcdKV
        from tests.kv.etcd_server import EtcdServer

        if EtcdUnderTest.server is None:
            EtcdUnderTest.server = await asyncio.to_thread(EtcdServer().start)
        engine: KV = await EtcdKV.connect([EtcdUnderTest.server.url])
        if not self.cleaned:
            await _remove_everything(engine)
            self.cleaned = True
        return engine

    async def let_pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """The server stays for the next test."""


async def _remove_everything(engine: KV) -> None:
    while True:
        page = await engine.scan(b"\x00", b"\xff" * 16, limit=128, keys_only=True)
        if not page.items:
            return
        await engine.commit([], [Delete(item.key) for item in page.items])


STORES: dict[str, Callable[[Path], Store]] = {
    "memory": MemoryUnderTest,
    "sqlite": SqliteUnderTest,
    "sqlite-with-journal": SqliteWithJournalUnderTest,
    "etcd": EtcdUnderTest,
}


@pytest.fixture(scope="session", autouse=True)
def _etcd_ends_with_the_run() -> Iterator[None]:
    yield
    if EtcdUnderTest.server is not None:
        EtcdUnderTest.server.close()
        EtcdUnderTest.server = None


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made = STORES[request.param](tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def engine(store: Store) -> AsyncIterator[KV]:
    """One engine on an empty store."""
    opened = await store.open()
    yield opened
    await opened.close()


@pytest.fixture
async def pair(store: Store) -> AsyncIterator[tuple[KV, KV]]:
    """Two engines on the same empty store, as two gateways have them."""
    first, second = await store.open(), await store.open()
    yield first, second
    await first.close()
    await second.close()
