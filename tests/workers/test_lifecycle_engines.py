"""The same rules over each engine, carried out by two processes at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from s3gw import limits
from s3gw.kv.interface import KV
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord, decode
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from tests.kv.etcd_server import EtcdServer
from tests.stores.memory_store import BUCKET, MemoryCluster
from tests.stores.operations import get, part, put, remove, set_versioning, start
from tests.workers.lifecycle_rules import (
    MARKERS,
    aborts,
    expires,
    removes,
    rule,
    set_rules,
)


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path, memory_cluster: MemoryCluster
) -> AsyncIterator[KV]:
    server = None
    kv: KV
    if request.param == "sqlite":
        from s3gw.kv.sqlite import SqliteKV

        kv = await SqliteKV.open(tmp_path / "metadata", None)
    elif request.param == "etcd":
        from s3gw.kv.etcd import EtcdKV

        server = await asyncio.to_thread(EtcdServer().start)
        kv = await EtcdKV.connect([server.url])
    else:
        kv = MemoryCluster(8).kv()
    yield kv
    await kv.close()
    if server is not None:
        await asyncio.to_thread(server.close)


async def under(kv: KV, prefix: bytes) -> dict[bytes, bytes]:
    page = await kv.scan(prefix, keys.after_prefix(prefix), limit=10_000)
    return {item.key: item.value for item in page.items}


async def test_two_processes_carry_out_every_kind_of_rule(
    engine: KV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)
    cluster = MemoryCluster(8)
    cluster.kv = lambda: engine  # type: ignore[assignment,method-assign,return-value]
    await cluster.found()
    processes = [await cluster.process(engine, seed=number) for number in range(2)]
    first = processes[0]
    for process in processes:
        process.storage.lifecycle_day_ms = 10_000
    await set_versioning(first, "Enabled")
    for number in range(30):
        await put(first, f"early/{number}", b"before the rules")
    await set_rules(
        first,
        rule(expires(2) + removes(1) + aborts(1), chosen="<Filter/>", id_="all"),
        rule(MARKERS, id_="markers"),
    )
    await LifecycleWalk(first.storage).run_once()
    for number in range(30):
        await put(first, f"early/{number}", b"replaced")
        await put(first, f"late/{number}", b"after the rules")
    upload = await start(first, "upload")
    await part(first, "upload", upload, 1, b"part")

    async def both() -> None:
        workers = (Lifecycle(process.storage).run_once() for process in processes)
        await asyncio.gather(*workers)

    await both()
    assert len(await under(engine, keys.objects(BUCKET))) == 60
    cluster.clock.advance(11)
    await both()
    assert await under(engine, keys.uploads(BUCKET)) == {}
    assert await under(engine, keys.versions(BUCKET)) == {}
    assert len(await under(engine, keys.objects(BUCKET))) == 60
    cluster.clock.advance(10)
    await put(first, "kept", b"kept")
    await both()
    versions = await under(engine, keys.versions(BUCKET))
    markers = [decode(ObjectRecord, value).marker for value in versions.values()]
    assert (markers.count(True), markers.count(False)) == (60, 60)
    assert [key[-4:] for key in await under(engine, keys.objects(BUCKET))] == [b"kept"]
    cluster.clock.advance(11)
    await both()
    await both()
    assert await under(engine, keys.versions(BUCKET)) == {}
    assert await get(first, "kept") == b"kept"
    (entry,) = await under(engine, keys.DUE)
    assert keys.split_subject(keys.split_due(entry)[2])[0] == "kept"
    await remove(first, "kept", None)
