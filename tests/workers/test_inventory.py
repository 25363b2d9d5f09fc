"""Inventory reports over a store: what is in them, of which moment, and what a crash leaves."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pyarrow.parquet
import pytest

from s3gw.buckets.configurations import INVENTORY
from s3gw.buckets.inventory import DAY_MS
from s3gw.kv.interface import KV, Delete, Put
from s3gw.metadata import keys
from s3gw.metadata.inventory_records import InventoryRun
from s3gw.metadata.records import BucketRecord, encode
from s3gw.objects import inventories
from s3gw.objects.buckets import change_bucket, change_configurations
from s3gw.objects.encrypted import framing_of_version
from s3gw.objects.listing import objects_of, page
from s3gw.objects.publish import read_target
from s3gw.objects.read import read_data
from s3gw.operations import delivery
from s3gw.workers.compaction import PIN_WINDOWS_MAX, Compaction
from s3gw.workers.inventory import InventoryWorker
from tests.kv.etcd_server import EtcdServer
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import delete, put, set_versioning
from tests.workers.inventories import REPORTS, configuration, configure, make_reports

KEYS = ["a", 'b "q", \n', "c/d e+f%", "é", "～", "😀"]


async def read(process: Process, key: str) -> bytes:
    target = await read_target(process.storage, REPORTS, key)
    assert target.visible is not None, key
    record = target.visible
    framing = await framing_of_version(process.storage, record)
    data = read_data(process.storage, record.data, 0, record.size, framing, record.size)
    return b"".join([bytes(buffer) async for buffers in data for buffer in buffers])


async def names(process: Process) -> list[str]:
    listing = await page(
        process.storage, objects_of(REPORTS), prefix="", delimiter="", after="", most=1000
    )
    return [entry.key for entry in listing.entries]


async def run_of(process: Process) -> InventoryRun:
    found = await process.storage.store.get(InventoryRun, keys.inventory(BUCKET, "one"))
    assert found.record is not None
    return found.record


async def manifest(process: Process) -> dict[str, Any]:
    run = await run_of(process)
    assert run.state == "done", run.note
    text = await read(process, run.manifest)
    checksum = await read(process, run.manifest.replace(".json", ".checksum"))
    assert checksum.decode() == hashlib.md5(text).hexdigest()
    found = json.loads(text)
    for file in found["files"]:
        data = await read(process, file["key"])
        assert (len(data), hashlib.md5(data).hexdigest()) == (file["size"], file["MD5checksum"])
    return dict(found)


async def rows(process: Process) -> list[dict[str, str]]:
    """The rows of the last report in CSV, keys decoded."""
    found = await manifest(process)
    columns = found["fileSchema"].split(", ")
    rows = []
    for file in found["files"]:
        text = gzip.decompress(await read(process, file["key"])).decode()
        assert text.count("\n") == len(text.splitlines())
        for cells in csv.reader(io.StringIO(text), strict=True):
            row = dict(zip(columns, cells, strict=True))
            rows.append({**row, "Key": unquote(row["Key"])})
    return rows


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def process(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Process]:
    server = None
    cluster = MemoryCluster(8)
    kv: KV
    if request.param == "sqlite":
        from s3gw.kv.sqlite import SqliteKV

        kv = await SqliteKV.open(tmp_path / "metadata", None)
    elif request.param == "etcd":
        from s3gw.kv.etcd import EtcdKV

        server = await asyncio.to_thread(EtcdServer().start)
        kv = await EtcdKV.connect([server.url])
    else:
        kv = cluster.kv()
    cluster.kv = lambda: kv  # type: ignore[assignment,method-assign,return-value]
    await cluster.found()
    process = await cluster.process(kv)
    await process.take_lease(600)
    await make_reports(process)
    yield process
    await kv.close()
    if server is not None:
        await asyncio.to_thread(server.close)


@pytest.fixture
async def store(memory_store: Process) -> Process:
    await memory_store.take_lease(10**9)
    await make_reports(memory_store)
    return memory_store


async def test_a_report_lists_every_object_of_one_moment(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS:
        await put(process, key, key.encode())
    await configure(process, configuration())
    held = delivery.deliver

    async def written_to_meanwhile(*arguments: Any) -> None:
        await put(process, "a", b"replaced")
        await put(process, "new", b"")
        await delete(process, "é")
        await held(*arguments)

    monkeypatch.setattr("s3gw.workers.inventory.deliver", written_to_meanwhile)
    assert await InventoryWorker(process.storage).run_once() == 1
    found = await rows(process)
    assert [row["Key"] for row in found] == sorted(KEYS)
    assert {row["Bucket"] for row in found} == {BUCKET}
    assert {row["Key"]: row["Size"] for row in found} == {
        key: str(len(key.encode())) for key in KEYS
    }
    assert found[0]["ETag"] == hashlib.md5(b"a").hexdigest()
    assert (await run_of(process)).rows == len(KEYS)
    assert (await process.kv.get_many([keys.pin("inventory")])).items == [None]


async def test_all_versions_say_which_is_the_latest(process: Process) -> None:
    await set_versioning(process, "Enabled")
    for key in ("a", "b", "b\x00", "c"):
        await put(process, key, b"first")
    await put(process, "b", b"second version")
    await delete(process, "c")
    await configure(process, configuration(versions="All"))
    await InventoryWorker(process.storage, rows_per_file=2).run_once()
    found = [
        (row["Key"], row["IsLatest"], row["IsDeleteMarker"], row["Size"])
        for row in await rows(process)
    ]
    assert found == [
        ("a", "true", "false", "5"),
        ("b", "true", "false", "14"),
        ("b", "false", "false", "5"),
        ("b\x00", "true", "false", "5"),
        ("c", "true", "true", ""),
        ("c", "false", "false", "5"),
    ]
    assert len((await manifest(process))["files"]) == 3


async def test_parquet_has_the_same_rows_with_types(store: Process) -> None:
    for key in KEYS:
        await put(store, key, key.encode())
    every = "".join(f"<Field>{name}</Field>" for name in INVENTORY_FIELDS)
    await configure(store, configuration("Parquet", fields=every))
    await InventoryWorker(store.storage).run_once()
    found = await manifest(store)
    (file,) = found["files"]
    assert file["key"].startswith(f"out/{BUCKET}/one/data/")
    assert file["key"].endswith(".parquet")
    table = pyarrow.parquet.read_table(io.BytesIO(await read(store, file["key"])))
    assert table.column("key").to_pylist() == sorted(KEYS)
    assert table.column("size").to_pylist() == [len(key.encode()) for key in sorted(KEYS)]
    assert table.column("encryption_status").to_pylist() == ["NOT-SSE"] * len(KEYS)
    assert str(table.schema.field("last_modified_date").type) == "timestamp[ms, tz=UTC]"
    assert table.column("is_multipart_uploaded").to_pylist() == [False] * len(KEYS)
    named = [line.split()[2] for line in found["fileSchema"].split("{ ")[1].split("; ")]
    assert [name.strip(";}") for name in named] == table.schema.names


INVENTORY_FIELDS = (
    "Size", "LastModifiedDate", "StorageClass", "ETag", "IsMultipartUploaded",
    "ReplicationStatus", "EncryptionStatus", "ObjectLockRetainUntilDate", "ObjectLockMode",
    "ObjectLockLegalHoldStatus", "IntelligentTieringAccessTier", "BucketKeyStatus",
    "ChecksumAlgorithm", "ObjectAccessControlList", "ObjectOwner", "LifecycleExpirationDate",
)  # fmt: skip


async def test_only_keys_under_the_prefix_are_listed(store: Process) -> None:
    for key in ("a/1", "b/1", "b/2", "c"):
        await put(store, key, b"")
    await configure(store, configuration(more="<Filter><Prefix>b/</Prefix></Filter>"))
    await InventoryWorker(store.storage).run_once()
    assert [row["Key"] for row in await rows(store)] == ["b/1", "b/2"]


async def test_an_empty_bucket_has_a_manifest_without_files(store: Process) -> None:
    await configure(store, configuration())
    await InventoryWorker(store.storage).run_once()
    assert (await manifest(store))["files"] == []


async def test_reports_are_made_when_they_are_due(store: Process) -> None:
    clock, worker = store.cluster.clock, InventoryWorker(store.storage)
    await put(store, "a", b"")
    await configure(store, configuration())
    assert await worker.run_once() == 1
    assert await worker.run_once() == 0
    clock.advance((DAY_MS - clock.ms() % DAY_MS) / 1000 - 1)
    assert await worker.run_once() == 0
    clock.advance(1)
    assert await worker.run_once() == 1
    await configure(store, configuration(frequency="Weekly"))
    for _ in range(7):
        clock.advance(DAY_MS / 1000)
        await worker.run_once()
    started = (await run_of(store)).started_ms
    assert started % DAY_MS == 0
    assert (started // DAY_MS + 4) % 7 == 0  # a Sunday
    await configure(store, configuration(enabled="false"))
    clock.advance(30 * DAY_MS / 1000)
    assert await worker.run_once() == 0
    job = await inventories.find_job(store.kv, BUCKET, "one")
    assert job is not None
    await inventories.ask(store.storage, job)
    assert await worker.run_once() == 1


async def test_what_cannot_be_delivered_is_noted_and_tried_again(store: Process) -> None:
    await put(store, "a", b"")
    await configure(store, configuration(bucket="nowhere"))
    worker = InventoryWorker(store.storage)
    assert await worker.run_once() == 1
    run = await run_of(store)
    assert (run.state, run.files, run.pending) == ("failed", (), "")
    assert "bucket" in run.note
    assert await worker.run_once() == 0
    await make_reports(store, "nowhere")
    store.cluster.clock.advance(3600)
    assert await worker.run_once() == 1
    assert (await run_of(store)).state == "done"


async def test_a_policy_that_denies_the_service_is_obeyed(store: Process) -> None:
    await put(store, "a", b"")
    statement = {
        "Effect": "Deny", "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{REPORTS}/*",
        "Condition": {"StringEquals": {"aws:SourceArn": f"arn:aws:s3:::{BUCKET}"}},
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()

    def change(bucket: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(bucket, documents={"policy": policy})

    await change_bucket(store.storage, REPORTS, change)
    await configure(store, configuration())
    await InventoryWorker(store.storage).run_once()
    assert (await run_of(store)).state == "failed"
    assert await names(store) == []


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("dies_at", range(6))
async def test_a_crash_leaves_no_half_report(
    store: Process, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Dies behind the n-th object: two files, symlink, manifest, checksum; the last one not."""
    for key in ("a", "b", "c", "d"):
        await put(store, key, b"")
    await configure(store, configuration())
    real = delivery.put_object
    written = 0

    async def put_object(*arguments: Any) -> Any:
        nonlocal written
        record = await real(*arguments)
        written += 1
        if written == dies_at + 1:
            raise Died
        return record

    monkeypatch.setattr(delivery, "put_object", put_object)
    worker = InventoryWorker(store.storage, rows_per_file=2)
    try:
        await worker.run_once()
    except Died:
        assert dies_at < 5
    else:
        assert dies_at == 5
    for key in await names(store):
        if key.endswith("manifest.json"):  # it is whole from the moment that it is there
            for file in json.loads(await read(store, key))["files"]:
                await read(store, file["key"])
    await put(store, "e", b"")
    heir = await store.cluster.process(seed=1)
    await heir.take_lease()
    await InventoryWorker(heir.storage, rows_per_file=2).run_once()
    found = await manifest(heir)
    expected = ["a", "b", "c", "d"] + (["e"] if dies_at < 2 else [])
    assert [row["Key"] for row in await rows(heir)] == expected
    data = [key for key in await names(heir) if "/data/" in key]
    assert sorted(data) == sorted(file["key"] for file in found["files"])


async def test_a_report_that_history_ran_away_from_is_noted(
    store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await put(store, f"{number}", b"")
    await configure(store, configuration())
    real = delivery.deliver

    async def compacted_before(*arguments: Any) -> None:
        await put(store, "x", b"")
        await store.kv.compact((await store.kv.get_many([])).revision)
        await real(*arguments)

    monkeypatch.setattr("s3gw.workers.inventory.deliver", compacted_before)
    await InventoryWorker(store.storage, rows_per_file=2).run_once()
    run = await run_of(store)
    assert (run.state, run.files) == ("failed", ())
    assert [key for key in await names(store) if "out/" in key] == []


async def test_an_encoder_that_fails_says_so(
    store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, "a", b"")
    await configure(store, configuration())
    monkeypatch.setattr("s3gw.workers.inventory.ENCODER", "s3gw.no_such_module")
    await InventoryWorker(store.storage).run_once()
    run = await run_of(store)
    assert run.state == "failed"
    assert "no_such_module" in run.note


async def test_a_stop_leaves_the_report_to_another_process(store: Process) -> None:
    await put(store, "a", b"")
    await configure(store, configuration())
    worker = InventoryWorker(store.storage)
    real = worker._is_stopping
    worker._is_stopping = lambda: True  # type: ignore[method-assign]
    assert await worker.work()
    assert (await run_of(store)).state == "writing"
    worker._is_stopping = real  # type: ignore[method-assign]
    assert await worker.run_once() == 1
    assert [row["Key"] for row in await rows(store)] == ["a"]


async def test_a_configuration_that_is_gone_leaves_no_record(store: Process) -> None:
    await configure(store, configuration())
    worker = InventoryWorker(store.storage)
    await worker.run_once()
    await change_configurations(store.storage, BUCKET, INVENTORY.name, lambda held: {})
    await worker.run_once()
    assert (await store.kv.get_many([keys.inventory(BUCKET, "one")])).items == [None]


async def test_a_report_is_encrypted_as_its_configuration_says(store: Process) -> None:
    await put(store, "a", b"")
    document = configuration().replace(
        b"<Prefix>out/</Prefix>",
        b"<Prefix>out/</Prefix><Encryption><SSE-S3></SSE-S3></Encryption>",
    )
    await configure(store, document)
    await InventoryWorker(store.storage).run_once()
    assert [row["Key"] for row in await rows(store)] == ["a"]
    for key in await names(store):
        found = (await read_target(store.storage, REPORTS, key)).visible
        assert found is not None
        assert found.description.encryption is not None
        assert found.description.encryption.kind == "AES256"


async def test_a_pin_holds_history_up_to_a_bound(store: Process) -> None:
    window, now = 100.0, 0.0
    compaction = Compaction(store.kv, window, clock=lambda: now)
    engine = store.cluster.engine

    async def later(seconds: float) -> int:
        nonlocal now
        now += seconds
        await put(store, "x", b"")
        await compaction.run_once()
        return engine.compacted

    await later(0)
    pinned = await store.kv.commit([], [Put(keys.pin("inventory"), b"")])
    for _ in range(5):
        assert await later(window) <= pinned
    assert await later(window * PIN_WINDOWS_MAX) > pinned


async def test_two_processes_at_once_make_one_whole_report(process: Process) -> None:
    for number in range(6):
        await put(process, f"{number}", b"")
    await configure(process, configuration())
    other = await process.cluster.process(process.kv, seed=1)
    await other.take_lease(600)
    workers = [InventoryWorker(each.storage, rows_per_file=2) for each in (process, other)]
    await asyncio.gather(*(worker.work() for worker in workers))
    while await workers[0].work():
        pass
    assert [row["Key"] for row in await rows(process)] == [f"{number}" for number in range(6)]


async def test_nothing_is_made_while_the_engine_is_nearly_full(store: Process) -> None:
    await configure(store, configuration())
    worker = InventoryWorker(store.storage, growth_refused=lambda: True)
    assert not await worker.work()
    assert (await store.kv.get_many([keys.inventory(BUCKET, "one")])).items == [None]


async def test_one_configuration_of_former_times_does_not_stop_the_others(store: Process) -> None:
    await put(store, "a", b"")
    await configure(store, configuration())

    def change(held: dict[str, bytes]) -> dict[str, bytes]:
        old = held["one"].replace(b"CSV", b"ORC").replace(b"<Id>one<", b"<Id>before<")
        return {"before": old, **held}

    await change_configurations(store.storage, BUCKET, INVENTORY.name, change)
    assert await InventoryWorker(store.storage).run_once() == 1
    assert [row["Key"] for row in await rows(store)] == ["a"]


async def test_a_report_lacks_only_what_cannot_be_read_and_says_so(store: Process) -> None:
    for key in KEYS:
        await put(store, key, b"x")
    damaged = [Put(keys.object_(BUCKET, key), b"\xff") for key in (KEYS[1], KEYS[4])]
    await store.kv.commit([], damaged)
    await configure(store, configuration())
    await InventoryWorker(store.storage, rows_per_file=2).run_once()
    assert {row["Key"] for row in await rows(store)} == {*KEYS} - {KEYS[1], KEYS[4]}
    run = await run_of(store)
    expected = f"versions that cannot be read are left out (2), the first of key {KEYS[1]}"
    assert (run.state, run.rows, run.note) == ("done", len(KEYS) - 2, expected)
    # The next one, without them, lacks nothing.
    await store.kv.commit([], [Delete(write.key) for write in damaged])
    job = await inventories.find_job(store.kv, BUCKET, "one")
    assert job is not None
    await inventories.ask(store.storage, job)
    await InventoryWorker(store.storage).run_once()
    assert ((await run_of(store)).rows, (await run_of(store)).note) == (len(KEYS) - 2, "")


NOISY = """
import atexit, sys
from s3gw.workers.inventory_encoder import main
sys.stderr.write("the size of the cache is not known")
atexit.register(sys.stderr.write, "bye")
sys.exit(main())
"""


async def test_what_libraries_write_in_the_process_fails_no_report_and_hides_nothing(
    store: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "noisy_encoder.py").write_text(NOISY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("s3gw.workers.inventory.ENCODER", "noisy_encoder")
    for key in KEYS:
        await put(store, key, b"x")
    await store.kv.commit([], [Put(keys.object_(BUCKET, KEYS[1]), b"\xff")])
    await configure(store, configuration())
    await InventoryWorker(store.storage, rows_per_file=2).run_once()
    run = await run_of(store)
    assert (run.state, run.rows) == ("done", len(KEYS) - 1)
    assert "left out (1)" in run.note


async def test_configurations_that_cannot_be_read_stop_no_other_bucket(store: Process) -> None:
    await make_reports(store, "broken")
    begun = encode(InventoryRun(b"b" * 16, "done", manifest="kept"))
    unreadable = keys.configurations("broken", INVENTORY.name)
    record = keys.inventory("broken", "one")
    await store.kv.commit([], [Put(unreadable, b"\xff"), Put(record, begun)])
    await put(store, "a", b"x")
    await configure(store, configuration())
    await InventoryWorker(store.storage).run_once()
    assert [row["Key"] for row in await rows(store)] == ["a"]
    (item,) = (await store.kv.get_many([record])).items
    assert item is not None
    assert item.value == begun
