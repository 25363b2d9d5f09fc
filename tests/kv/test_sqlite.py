"""What the contract suite cannot say of the SQLite engine: several processes, restarts of the
machine, full disks, and the history's bounds."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from s3gw.kv import sqlite_watch
from s3gw.kv.interface import (
    At,
    Compacted,
    Conflict,
    EventKind,
    LeaseLost,
    NoSpace,
    Put,
    Unavailable,
)
from s3gw.kv.sqlite import SqliteKV
from s3gw.kv.sqlite_database import Database
from tests.kv.conftest import Clock

SECONDS_MAX = 60


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteKV]:
    opened = await SqliteKV.open(tmp_path / "metadata", None)
    yield opened
    await opened.close()


def start_hammer(
    metadata_dir: Path, times: int, drives: list[Path], copies: int
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.kv.sqlite_hammer",
            metadata_dir,
            str(copies),
            str(times),
            *drives,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


async def count_of(metadata_dir: Path) -> int:
    engine = await SqliteKV.open(metadata_dir, None)
    (item,) = (await engine.get_many([b"count"])).items
    await engine.close()
    assert item is not None
    return int(item.value)


async def test_processes_lose_no_increment(tmp_path: Path) -> None:
    processes = [start_hammer(tmp_path / "metadata", 60, [], 0) for _ in range(3)]
    acknowledged: list[int] = []
    for process in processes:
        output, _ = await asyncio.to_thread(process.communicate, timeout=SECONDS_MAX)
        assert process.returncode == 0
        acknowledged += [int(line) for line in output.split()]
    assert sorted(acknowledged) == list(range(1, 181))
    assert await count_of(tmp_path / "metadata") == 180


async def test_a_killed_process_takes_nothing_with_it(tmp_path: Path) -> None:
    killed = start_hammer(tmp_path / "metadata", 100_000, [], 0)
    other = start_hammer(tmp_path / "metadata", 90, [], 0)
    assert killed.stdout is not None
    seen = [int(await asyncio.to_thread(killed.stdout.readline)) for _ in range(20)]
    killed.send_signal(signal.SIGKILL)
    rest, _ = await asyncio.to_thread(killed.communicate, timeout=SECONDS_MAX)
    output, _ = await asyncio.to_thread(other.communicate, timeout=SECONDS_MAX)
    assert other.returncode == 0
    acknowledged = seen + [int(n) for n in rest.split("\n")[:-1]] + [int(n) for n in output.split()]
    assert len(set(acknowledged)) == len(acknowledged)
    total = await count_of(tmp_path / "metadata")
    assert max(acknowledged) <= total <= len(acknowledged) + 3


async def test_what_is_queued_together_shares_a_transaction(engine: SqliteKV) -> None:
    begun: list[int] = []
    engine._writer._connection.set_trace_callback(  # type: ignore[union-attr]
        lambda sql: begun.append(1) if sql == "BEGIN IMMEDIATE" else None
    )
    revisions = await asyncio.gather(
        *(engine.commit([At(b"k%d" % n, 0)], [Put(b"k%d" % n, b"")]) for n in range(100))
    )
    assert len(set(revisions)) == 100
    assert len(begun) < 20


async def test_a_conflict_in_a_group_leaves_its_neighbours_alone(engine: SqliteKV) -> None:
    outcomes = await asyncio.gather(
        *(
            engine.commit([At(b"same", 0)], [Put(b"same", b""), Put(b"%d" % n, b"")])
            for n in range(5)
        ),
        *(engine.commit([], [Put(b"own-%d" % n, b"")]) for n in range(5)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [int] + [Conflict] * 4 + [int] * 5
    page = await engine.scan(b"0", b"own-9", limit=100)
    assert [item.key for item in page.items] == [b"0", *(b"own-%d" % n for n in range(5))]


async def test_leases_of_an_earlier_boot_are_over(tmp_path: Path) -> None:
    clock = Clock()
    before = await SqliteKV.open(tmp_path, None, clock=clock, boot_id="first")
    lease = await before.grant_lease(3600)
    await before.commit([], [Put(b"held", b"", lease)])
    await before.close()
    again = await SqliteKV.open(tmp_path, None, clock=clock, boot_id="first")
    assert (await again.get_many([b"held"])).items != [None]
    await again.renew_lease(lease)
    await again.close()
    after = await SqliteKV.open(tmp_path, None, clock=clock, boot_id="second")
    assert (await after.get_many([b"held"])).items == [None]
    with pytest.raises(LeaseLost):
        await after.renew_lease(lease)
    await after.close()


async def test_a_full_disk_is_no_space_and_nothing_is_written(engine: SqliteKV) -> None:
    await engine.commit([], [Put(b"key", b"old")])
    connection = engine._writer._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(NoSpace):
        await engine.commit([], [Put(b"key", b"new"), Put(b"large", bytes(100_000))])
    (item,) = (await engine.get_many([b"key"])).items
    assert item is not None
    assert item.value == b"old"
    connection.execute("PRAGMA max_page_count = 1000000")
    await engine.commit([], [Put(b"large", bytes(100_000))])


async def test_a_read_only_database_is_no_space(engine: SqliteKV) -> None:
    connection = engine._writer._connection
    assert connection is not None
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(NoSpace):
        await engine.commit([], [Put(b"key", b"value")])


async def test_a_failed_database_commit_leaves_the_outcome_unknown(
    engine: SqliteKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(database: Database) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "commit", fail)
        with pytest.raises(Unavailable):
            await engine.commit([], [Put(b"key", b"value")])
    revision = await engine.commit([], [Put(b"key", b"again")])
    assert (await engine.get_many([b"key"])).revision == revision


async def test_history_older_than_its_window_goes(tmp_path: Path) -> None:
    engine = await SqliteKV.open(tmp_path, None, history_seconds=0)
    first = await engine.commit([], [Put(b"key", b"0")])
    for number in range(200):
        await engine.commit([], [Put(b"key", b"%d" % number)])
    with pytest.raises(Compacted):
        await engine.scan(b"a", b"z", limit=1, revision=first)
    with sqlite3.connect(tmp_path / "s3gw.sqlite") as connection:
        (rows,) = connection.execute("SELECT count(*) FROM history").fetchone()
    connection.close()
    assert rows < 10
    await engine.close()


async def test_a_watch_that_stops_inside_a_large_commit_goes_on_there(
    engine: SqliteKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "EVENTS_MAX", 7)
    keys = [b"w/%03d" % number for number in range(50)]
    await engine.commit([], [Put(key, b"") for key in keys])
    events = engine.watch(b"w/", after_revision=0)
    seen = [await anext(events) for _ in keys]
    assert [(event.kind, event.key) for event in seen] == [(EventKind.PUT, key) for key in keys]


async def test_closing_ends_a_waiting_watch(engine: SqliteKV) -> None:
    waiting = asyncio.ensure_future(anext(engine.watch(b"w/", after_revision=1)))
    await engine.commit([], [Put(b"other", b"")])
    await engine.close()
    with pytest.raises(Unavailable):
        await waiting


async def test_an_unusable_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable):
        await SqliteKV.open(tmp_path / "file", None)


async def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "s3gw.sqlite").write_bytes(b"something else entirely" * 500)
    with pytest.raises(Unavailable):
        await SqliteKV.open(tmp_path, None)
