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
