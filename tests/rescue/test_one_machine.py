"""A recovery into a data directory that dies at its last steps, and is run again."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nodes.identity import DriveIdentity
from s3gw.cluster.founding import Founder, Scheme, found_layout, found_store
from s3gw.kv.interface import KV, Put
from s3gw.kv.journal import Journal
from s3gw.kv.sqlite import SqliteKV
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord, StoreRecord, decode, encode
from s3gw.rescue import commands, one_machine

COPIES = 3


async def bare(directory: Path) -> KV:
    return await SqliteKV.open(directory, None)


async def embedded(data: str, drives: Sequence[Path]) -> KV:
    return await SqliteKV.open(Path(data) / "metadata", Journal(drives, COPIES))


async def no_etcd(urls: Sequence[str]) -> KV:
    raise AssertionError(f"{urls} are not asked for")


ENGINES = commands.Engines(bare, embedded, no_etcd)


def rescue(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args([*arguments, "--json"]), ENGINES)


@pytest.fixture
def drives(tmp_path: Path) -> list[Path]:
    """Drives of a store with one bucket, whose database is gone."""
    paths = [tmp_path / f"drive-{number}" for number in range(6)]
    names = [DriveIdentity.claim(path, "ab" * 8).identity.drive_id for path in paths]

    async def make() -> None:
        kv = await SqliteKV.open(tmp_path / "gone", Journal(paths, COPIES))
        await found_store(kv, 1000, "ab" * 8)
        founders = [Founder(name, name, 1) for name in names]
        scheme = Scheme.parse("4+2")
        await found_layout(kv, "4+2", scheme, founders, pg_count=8, stripe_bytes=65536, now_ms=1000)
        bucket = BucketRecord(5, "root", "us-east-1", "4+2", b"b" * 16, tags={"kept": "yes"})
        await kv.commit([], [Put(keys.bucket("bucket"), encode(bucket))])
        await kv.close()

    asyncio.run(make())
    return paths


def metadata(data: Path, drives: Sequence[Path]) -> tuple[BucketRecord, StoreRecord]:
    async def read() -> tuple[BucketRecord, StoreRecord]:
        kv = await embedded(str(data), drives)
        bucket, store = (await kv.get_many([keys.bucket("bucket"), keys.STORE])).items
        await kv.close()
        assert bucket is not None
        assert store is not None
        return decode(BucketRecord, bucket.value), decode(StoreRecord, store.value)

    return asyncio.run(read())


@pytest.mark.parametrize("step", range(9))
def test_it_may_die_at_every_rename(
    step: int,
    drives: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Six journals may have to be set aside, then the database takes its place."""
    renamed = 0
    rename = os.rename

    class Died(BaseException):
        """The process is gone."""

    def dying(source: Any, target: Any) -> None:
        nonlocal renamed
        if renamed == step:
            raise Died
        renamed += 1
        rename(source, target)

    data = tmp_path / "data"
    rebuild = ("rebuild", "--into", "sqlite", "--data", str(data), *map(str, drives))
    monkeypatch.setattr(one_machine.os, "rename", dying)
    try:
        died = rescue(*rebuild) != 0
    except Died:
        died = True
    monkeypatch.setattr(one_machine.os, "rename", rename)
    assert died == (step < 7)
    capsys.readouterr()
    if died:
        assert rescue(*rebuild) == 0
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert "journal" in summary["source"]
    assert rescue(*rebuild) == 2
    bucket, store = metadata(data, drives)
    assert bucket.tags == {"kept": "yes"}
    assert store.incarnation == (3 if died else 2)
    assert metadata(data, drives)[1] == store
    assert rescue("confirm", "--data", str(data), *map(str, drives)) == 0


def test_a_database_that_is_there_is_left_alone(
    drives: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "metadata").mkdir(parents=True)
    (data / "metadata" / "s3gw.sqlite").write_bytes(b"whatever it is")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    rebuild = ("rebuild", "--into", "sqlite", "--data", str(data), *map(str, drives))
    assert rescue(*rebuild) == 2
    assert "holds metadata" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


async def test_metadata_is_private_to_its_owner(tmp_path: Path) -> None:
    """Database and journal have the secrets of the store."""
    before = os.umask(0)
    try:
        drives = [tmp_path / f"drive{number}" for number in range(COPIES)]
        for drive in drives:
            drive.mkdir()
        kv = await embedded(str(tmp_path / "data"), drives)
        await kv.close()
    finally:
        os.umask(before)
    for directory in (tmp_path / "data" / "metadata", *(drive / "journal" for drive in drives)):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
