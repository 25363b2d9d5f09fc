"""Drives to test: local, behind a real HTTP server on loopback, and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodes.identity import DriveIdentity
from nodes.memory import MemoryDrive
from nodes.protocol import Drive
from nodes.store import LocalDrive
from tests.nodes.drives import Clock, remote


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def local(tmp_path: Path, clock: Clock) -> AsyncIterator[LocalDrive]:
    path = tmp_path / "drive"
    DriveIdentity.claim(path, "store", drive_id="d1")
    drive = LocalDrive.open(path, clock=clock)
    yield drive
    await drive.close()


@pytest.fixture(params=["local", "remote", "remote-memory", "memory"])
async def drive(
    request: pytest.FixtureRequest, local: LocalDrive, clock: Clock
) -> AsyncIterator[Drive]:
    """Every implementation of the interface; the contract must hold for each."""
    memory = MemoryDrive(store_id="store", drive_id="d1", clock=clock)
    if request.param == "local":
        yield local
    elif request.param == "memory":
        yield memory
    else:
        async with remote(local if request.param == "remote" else memory) as client:
            yield client
