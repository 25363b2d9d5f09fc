"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.stores.memory_store import MemoryCluster, Process


@pytest.fixture
async def memory_cluster() -> MemoryCluster:
    """Profile 4+2 with its companion on eight drives in memory, with an empty bucket."""
    cluster = MemoryCluster(8)
    await cluster.found()
    return cluster


@pytest.fixture
async def memory_store(memory_cluster: MemoryCluster) -> Process:
    """One process on `memory_cluster`; its `storage` is what operations are called with."""
    return await memory_cluster.process()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A store that the tests of a folder share ends with the last of them, not with the run: a
    cluster takes a sixth of a core also while nobody uses it."""
    for store in stores_of(item):
        if nextitem is None:
            wanted = False
        elif hasattr(item.config, "workerinput"):  # all its tests come together (tests.scheduling)
            wanted = store in stores_of(nextitem)
        else:
            wanted = nextitem.nodeid.startswith(f"{store.baseid}/")
        if not wanted:
            store.finish(item._request)  # type: ignore[attr-defined]


def stores_of(item: pytest.Item) -> Sequence[pytest.FixtureDef[Any]]:
    """What pytest itself would keep to the end of the run."""
    if not isinstance(item, pytest.Function):
        return ()
    servers = item._fixtureinfo.name2fixturedefs.get("server", ())
    return [server for server in servers if server.scope == "session"]
