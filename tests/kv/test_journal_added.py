"""Drives that come while the journal is open, in place of one of the set; and that a thread which
was left behind leaves their segments alone."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from s3gw.kv.interface import Put
from s3gw.kv.journal import Journal
from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_format import HEADER_BYTES, Position
from s3gw.kv.sqlite import SqliteKV
from tests.kv.test_journal import COPIES, Host, everything, fill


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_a_member_that_comes_again_at_its_path_is_one_drive(host: Host) -> None:
    journal = Journal(host.drives[: COPIES + 1], COPIES)
    engine = await SqliteKV.open(host.metadata, journal)
    try:
        await fill(engine, "first", 3)
        again, lost, *_ = host.journals()
        await asyncio.to_thread(journal.add, again)
        shutil.rmtree(lost)
        await fill(engine, "second", 3)
        await fill(engine, "third", 3)
        expected = await everything(engine)
    finally:
        await engine.close()
    ends = {drive: Folder(drive).survey() for drive in host.journals()}
    assert len(ends) == COPIES
    for record in ends.values():
        assert record is not None
        assert len(set(record.members)) == COPIES
        assert record.set <= 3
    shutil.rmtree(host.metadata)
    for drive in host.journals()[1:]:
        shutil.rmtree(drive)
    engine = await SqliteKV.open(host.metadata, Journal(host.journals(), 1))
    try:
        assert await everything(engine) == expected
    finally:
        await engine.close()


async def test_a_member_that_comes_again_is_settled_as_one_drive(host: Host) -> None:
    journal = Journal(host.drives, COPIES)
    engine = await SqliteKV.open(host.metadata, journal)
    other = await SqliteKV.open(host.metadata, Journal(host.drives, COPIES))
    try:
        await fill(engine, "first", 3)
        await asyncio.to_thread(journal.add, host.journals()[0])
        for number in range(3):  # each settles what the other wrote
            await other.commit([], [Put(b"other%d" % number, b"")])
            await engine.commit([], [Put(b"one%d" % number, b"")])
    finally:
        await engine.close()
        await other.close()
    record = Folder(host.drives[0]).survey()
    assert record is not None
    assert len(set(record.members)) == COPIES
    assert record.set <= 2


def test_a_late_thread_neither_cuts_nor_writes_a_segment(tmp_path: Path) -> None:
    """A drive hangs while it is completed for one process; then another has it in the set."""
    at = Position(bytes(16), 1, 3, HEADER_BYTES, 7, bytes(8))
    late, other = Folder(tmp_path), Folder(tmp_path)
    late.create_segment(at)
    late.attach(at.segment)
    late.left_behind = True
    other.attach(at.segment)
    other.append(b"acknowledged", HEADER_BYTES)
    with pytest.raises(OSError, match="hung"):
        late.cut(HEADER_BYTES)
    with pytest.raises(OSError, match="hung"):
        late.append(b"late", HEADER_BYTES)
    assert other.segment(at.segment).read_bytes()[HEADER_BYTES:] == b"acknowledged"
    late.detach()
    other.detach()
