"""Identity stores and views over every engine; a pair is what two gateways of one store have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3gw.cluster.founding import found_store
from s3gw.identities.root import Root
from s3gw.identities.store import IdentityStore
from s3gw.identities.view import Identities
from s3gw.kv.interface import KV
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata.counters import Counters
from s3gw.metadata.store import Store
from tests.kv.conftest import STORES, EtcdUnderTest

ROOT = Root("ROOTACCESSKEY", "root-secret-key")
START_MS = 1_700_000_000_000


class Clock:
    """Milliseconds that move when told to."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Gateway:
    """What one process has of identities. Its view learns of its own changes only as others do."""

    kv: KV
    store: IdentityStore
    view: Identities
    clock: Clock


async def make_gateway(kv: KV, clock: Clock) -> Gateway:
    identity = await found_store(kv, START_MS)
    store = IdentityStore(Store(kv, identity, Counters(kv)), clock)
    view = Identities(kv, ROOT, identity, clock_ms=clock)
    await view.load()
    return Gateway(kv, store, view, clock)


@pytest.fixture(scope="session", autouse=True)
def _etcd_ends_with_the_run() -> Iterator[None]:
    yield
    if EtcdUnderTest.server is not None:
        EtcdUnderTest.server.close()
        EtcdUnderTest.server = None


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def gateways(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two gateways of one empty store, on each engine."""
    data = STORES[request.param](tmp_path)
    clock = Clock()
    pair = (
        await make_gateway(await data.open(), clock),
        await make_gateway(await data.open(), clock),
    )
    yield pair
    for gateway in pair:
        await gateway.kv.close()
    await data.close()


@pytest.fixture
def anywhere(gateways: tuple[Gateway, Gateway]) -> Gateway:
    """One gateway, on each engine."""
    return gateways[0]


@pytest.fixture
async def gateway() -> Gateway:
    """One gateway in memory."""
    return await make_gateway(MemoryKV(MemoryStore()), Clock())


@pytest.fixture
def identities(gateway: Gateway) -> IdentityStore:
    return gateway.store
