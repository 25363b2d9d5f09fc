"""How far the metadata has come is noted on the drives."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from nodes.identity import DriveIdentity
from s3gw import app
from s3gw.drives import DriveAt
from s3gw.kv.interface import Put
from s3gw.kv.memory import MemoryKV, MemoryStore


async def test_a_drive_that_fails_does_not_keep_the_others_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is gone; where another was, a disk of another store is mounted by now, which would refuse
    its own, older metadata if it were told."""
    monkeypatch.setattr(app, "NOTE_SECONDS", 0)
    kv = MemoryKV(MemoryStore())
    revision = await kv.commit([], [Put(b"k", b"")])
    good = DriveIdentity.claim(tmp_path / "good", "store", drive_id="d2")
    foreign = DriveIdentity.claim(tmp_path / "foreign", "another store")
    drives = [
        DriveAt(str(tmp_path / "gone"), "d1"),
        DriveAt(str(foreign.path), "d3"),
        DriveAt(str(good.path), "d2"),
    ]
    noting = asyncio.create_task(app.note_revisions(kv, 1, drives))
    async with asyncio.timeout(10):
        while DriveIdentity.open(good.path).identity.revision < revision:
            await asyncio.sleep(0.001)
    noting.cancel()
    await asyncio.wait([noting])
    found = DriveIdentity.open(good.path).identity
    assert (found.incarnation, found.revision) == (1, revision)
    assert DriveIdentity.open(foreign.path).identity == foreign.identity


async def test_a_drive_that_hangs_keeps_no_other_from_being_told_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "NOTE_SECONDS", 0.001)
    kv = MemoryKV(MemoryStore())
    hung, good = (DriveIdentity.claim(tmp_path / name, "s", drive_id=name) for name in ("a", "b"))
    goes_on, opened, asked = threading.Event(), DriveIdentity.open, []

    def slowly(path: str, **expected: str) -> DriveIdentity:
        if path == str(hung.path):
            asked.append(path)
            goes_on.wait()
        return opened(path, **expected)

    monkeypatch.setattr(DriveIdentity, "open", slowly)
    drives = [DriveAt(str(drive.path), drive.identity.drive_id) for drive in (hung, good)]
    noting = asyncio.create_task(app.note_revisions(kv, 1, drives))
    try:
        async with asyncio.timeout(30):
            for _ in range(3):
                revision = await kv.commit([], [Put(b"k", b"")])
                while opened(good.path).identity.revision < revision:
                    await asyncio.sleep(0.001)
            assert len(asked) == 1
            goes_on.set()
            while opened(hung.path).identity.revision < revision:
                await asyncio.sleep(0.001)
    finally:
        goes_on.set()
        noting.cancel()
        await asyncio.wait([noting])
