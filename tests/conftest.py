"""Fixtures for all tests."""

from __future__ import annotations

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
    if isinstance(item, pytest.Function):
        for shared in item._fixtureinfo.name2fixturedefs.get("server", ()):
            if nextitem is None or not nextitem.nodeid.startswith(f"{shared.baseid}/"):
                shared.finish(item._request)  # type: ignore[arg-type]
