"""The delivery of access logs: when, where to, how much is kept, and what is counted as lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from s3gw import errors
from s3gw.buckets.settings import LOGGING
from s3gw.kv.interface import Unavailable
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord
from s3gw.objects.buckets import create_bucket, delete_bucket
from s3gw.objects.listing import objects_of, page
from s3gw.objects.publish import read_target
from s3gw.objects.read import read_data
from s3gw.workers import access_logs
from s3gw.workers.access_logs import ATTEMPTS_MAX, BATCH_BYTES, AccessLogs
from tests.stores.memory_store import BUCKET, START_MS, Process

TARGET = "logs"
NOW = START_MS / 1000


async def make_target(process: Process) -> None:
    await create_bucket(
        process.storage,
        TARGET,
        owner="owner",
        region="us-east-1",
        profile=process.profile().name,
        object_lock=False,
        tags={},
    )


def status(more: str = "", target: str = TARGET) -> bytes:
    body = (
        f"<BucketLoggingStatus><LoggingEnabled><TargetBucket>{target}</TargetBucket>"
        f"<TargetPrefix>of/</TargetPrefix>{more}</LoggingEnabled></BucketLoggingStatus>"
    )
    return LOGGING.render(LOGGING.parse(body.encode()))


async def source(process: Process, document: bytes | None = None) -> BucketRecord:
    found = await process.storage.store.get(BucketRecord, keys.bucket(BUCKET))
    assert found.record is not None
    return msgspec.structs.replace(found.record, documents={"logging": document or status()})


def make_logs(process: Process, **more: Any) -> AccessLogs:
    settings: dict[str, Any] = {"interval_seconds": 60.0, "buffer_bytes": 1 << 20, **more}
    return AccessLogs(process.storage, region="us-east-1", **settings)


async def delivered(process: Process) -> dict[str, bytes]:
    listing = await page(
        process.storage, objects_of(TARGET), prefix="", delimiter="", after="", most=1000
    )
    found = {}
    for entry in listing.entries:
        record = (await read_target(process.storage, TARGET, entry.key)).visible
        assert record is not None
        pieces = read_data(process.storage, record.data, 0, record.size)
        found[entry.key] = b"".join([bytes(b) async for buffers in pieces for b in buffers])
    return found


async def test_lines_are_delivered_once_they_are_old_enough(memory_store: Process) -> None:
    await make_target(memory_store)
    logs, bucket = make_logs(memory_store), await source(memory_store)
    logs.add(BUCKET, bucket, NOW, b"one\n")
    logs.add(BUCKET, bucket, NOW, b"two\n")
    assert not await logs.work()
    memory_store.cluster.clock.advance(60)
    assert await logs.work()
    assert not await logs.work()
    ((name, data),) = (await delivered(memory_store)).items()
    assert data == b"one\ntwo\n"
    day, unique = name.removeprefix("of/").rsplit("-", 1)
    assert (day, len(unique)) == ("2023-11-14-22-14-20", 16)
    assert logs.lines == {"delivered": 2, "dropped": 0}


async def test_many_lines_are_delivered_at_once(memory_store: Process) -> None:
    await make_target(memory_store)
    logs = make_logs(memory_store, buffer_bytes=2 * BATCH_BYTES)
    line = b"x" * (BATCH_BYTES // 2)
    for _ in range(2):
        logs.add(BUCKET, await source(memory_store), NOW, line)
    assert await logs.work()
    assert [len(data) for data in (await delivered(memory_store)).values()] == [BATCH_BYTES]


async def test_what_the_buffer_does_not_take_is_counted(memory_store: Process) -> None:
    await make_target(memory_store)
    logs, bucket = make_logs(memory_store, buffer_bytes=10), await source(memory_store)
    for _ in range(3):
        logs.add(BUCKET, bucket, NOW, b"12345")
    assert logs.lines["dropped"] == 1
    await logs.flush()
    logs.add(BUCKET, bucket, NOW, b"12345")
    await logs.flush()
    assert logs.lines == {"delivered": 3, "dropped": 1}


async def test_partitioned_names_have_the_day_of_their_events(memory_store: Process) -> None:
    await make_target(memory_store)
    form = (
        "<TargetObjectKeyFormat><PartitionedPrefix><PartitionDateSource>EventTime"
        "</PartitionDateSource></PartitionedPrefix></TargetObjectKeyFormat>"
    )
    logs, bucket = make_logs(memory_store), await source(memory_store, status(form))
    for seconds in (NOW, NOW + 3600, NOW + 7200):  # 22:13, 23:13, 00:13
        logs.add(BUCKET, bucket, seconds, b"line\n")
    await logs.flush()
    found = sorted((await delivered(memory_store)).items())
    assert [(name.rsplit("-", 1)[0], data) for name, data in found] == [
        (f"of/000000000000/us-east-1/{BUCKET}/2023/11/14/2023-11-14-00-00-00", b"line\n" * 2),
        (f"of/000000000000/us-east-1/{BUCKET}/2023/11/15/2023-11-15-00-00-00", b"line\n"),
    ]


async def test_a_target_that_is_gone_costs_its_lines_and_no_more(memory_store: Process) -> None:
    await make_target(memory_store)
    logs, bucket = make_logs(memory_store), await source(memory_store)
    logs.add(BUCKET, bucket, NOW, b"line\n")
    await delete_bucket(memory_store.storage, TARGET)
    for _ in range(ATTEMPTS_MAX):
        memory_store.cluster.clock.advance(60)
        assert await logs.work()
        assert not await logs.work()
    memory_store.cluster.clock.advance(60)
    assert not await logs.work()
    assert logs.lines == {"delivered": 0, "dropped": 1}


async def test_an_unknown_outcome_is_tried_again_under_the_same_name(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_target(memory_store)
    logs = make_logs(memory_store)
    logs.add(BUCKET, await source(memory_store), NOW, b"line\n")
    real, failed = access_logs.send, False

    async def lost_answer(*arguments: Any) -> None:
        nonlocal failed
        await real(*arguments)
        if not failed:
            failed = True
            raise Unavailable("no answer")

    monkeypatch.setattr(access_logs, "send", lost_answer)
    for _ in range(2):
        memory_store.cluster.clock.advance(60)
        await logs.work()
    assert list((await delivered(memory_store)).values()) == [b"line\n"]
    assert logs.lines == {"delivered": 1, "dropped": 0}


async def test_a_nearly_full_engine_gets_no_log_objects(memory_store: Process) -> None:
    await make_target(memory_store)
    logs = make_logs(memory_store, growth_refused=lambda: True)
    logs.add(BUCKET, await source(memory_store), NOW, b"line\n")
    await logs.flush()
    assert await delivered(memory_store) == {}
    assert logs.lines["dropped"] == 1


async def test_a_bucket_that_wants_no_log_any_more_gets_none(memory_store: Process) -> None:
    logs = make_logs(memory_store)
    record = await source(memory_store, LOGGING.render({}))
    logs.add(BUCKET, record, NOW, b"line\n")
    await logs.flush()
    assert logs.lines == {"delivered": 0, "dropped": 0}
    with pytest.raises(errors.NoSuchBucket):
        await read_target(memory_store.storage, TARGET, "x")
