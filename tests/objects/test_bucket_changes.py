"""Settings of buckets and tags of objects: a change is one commit, guarded by what it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.kv.interface import Guard, Unavailable, Write
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata import store as metadata_store
from s3gw.metadata.records import BucketRecord, ObjectRecord
from s3gw.metadata.store import OutcomeUnknown, Transaction
from s3gw.objects import publish
from s3gw.objects.buckets import (
    change_bucket,
    change_configurations,
    create_bucket,
    delete_bucket,
    find_bucket,
    read_configurations,
)
from s3gw.objects.change import change_version
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import delete, get, put, record


def adding(name: str, document: bytes = b"x") -> Callable[[BucketRecord], BucketRecord]:
    def change(bucket: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(bucket, documents={**bucket.documents, name: document})

    return change


async def documents(process: Process) -> dict[str, bytes]:
    found = await find_bucket(process.storage, BUCKET)
    assert found.record is not None
    return found.record.documents


async def test_changes_at_once_are_all_kept(memory_cluster: MemoryCluster) -> None:
    processes = [await memory_cluster.process(), await memory_cluster.process()]
    names = [f"d{number}" for number in range(12)]
    await asyncio.gather(
        *(
            change_bucket(processes[number % 2].storage, BUCKET, adding(name))
            for number, name in enumerate(names)
        )
    )
    assert sorted(await documents(processes[0])) == sorted(names)


async def test_a_bucket_deleted_meanwhile_does_not_come_back(memory_store: Process) -> None:
    async def delete_it(tx: Transaction) -> None:
        await delete_bucket(memory_store.storage, BUCKET)

    with pytest.raises(errors.NoSuchBucket):
        await change_bucket(memory_store.storage, BUCKET, adding("d"), guard=delete_it)
    with pytest.raises(errors.NoSuchBucket):
        await find_bucket(memory_store.storage, BUCKET)


async def test_what_a_guard_has_seen_must_still_be_so_at_the_commit(memory_store: Process) -> None:
    """As a bucket that logs are to go to, which is deleted between the look and the commit."""
    storage = memory_store.storage
    await create_bucket(
        storage,
        "target",
        owner="owner",
        region="us-east-1",
        profile="4+2",
        object_lock=False,
        tags={},
    )
    looks = 0

    async def guard(tx: Transaction) -> None:
        nonlocal looks
        looks += 1
        found = await find_bucket(storage, "target")
        tx.expect(keys.bucket("target"), found.revision)
        await delete_bucket(storage, "target")

    with pytest.raises(errors.NoSuchBucket):
        await change_bucket(storage, BUCKET, adding("logging"), guard=guard)
    assert looks == 2
    assert await documents(memory_store) == {}


async def test_a_change_that_changes_nothing_is_no_commit(memory_store: Process) -> None:
    await change_bucket(memory_store.storage, BUCKET, adding("d"))
    before = await find_bucket(memory_store.storage, BUCKET)
    await change_bucket(memory_store.storage, BUCKET, adding("d"))
    assert (await find_bucket(memory_store.storage, BUCKET)).revision == before.revision


class LosingKV(MemoryKV):
    """Applies the next commit, or not, and loses the answer to it and to all that follow."""

    losing = False
    applies = False

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        if not self.losing:
            return await super().commit(guards, writes)
        if self.applies:
            self.applies = False
            await super().commit(guards, writes)
        raise Unavailable("lost")


@pytest.mark.parametrize("applies", [True, False])
async def test_a_lost_answer_is_looked_up(
    memory_cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, applies: bool
) -> None:
    monkeypatch.setattr(metadata_store, "RESEND_PAUSE_SECONDS", 0)
    kv = LosingKV(memory_cluster.engine)
    process = await memory_cluster.process(kv)
    kv.losing, kv.applies = True, applies
    if applies:
        await change_bucket(process.storage, BUCKET, adding("d"))
    else:
        with pytest.raises(OutcomeUnknown):
            await change_bucket(process.storage, BUCKET, adding("d"))
    kv.losing = False
    assert ("d" in await documents(process)) is applies


def with_id(id_: str, document: bytes = b"x") -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda by_id: {**by_id, id_: document}


async def test_configurations_set_at_once_are_all_kept_in_order(
    memory_cluster: MemoryCluster,
) -> None:
    processes = [await memory_cluster.process(), await memory_cluster.process()]
    ids = [f"i{number}" for number in range(12)]
    await asyncio.gather(
        *(
            change_configurations(processes[number % 2].storage, BUCKET, "metrics", with_id(id_))
            for number, id_ in enumerate(reversed(ids))
        )
    )
    held = await read_configurations(processes[0].storage, BUCKET, "metrics")
    assert list(held.by_id) == sorted(ids)
    assert (await read_configurations(processes[0].storage, BUCKET, "inventory")).by_id == {}


async def test_configurations_have_bounds(memory_store: Process) -> None:
    storage = memory_store.storage
    full = {f"{number:04}": b"x" for number in range(limits.CONFIGURATIONS_MAX)}
    await change_configurations(storage, BUCKET, "metrics", lambda _: full)
    for change in (
        with_id("one-more"),
        lambda _: {"large": bytes(limits.CONFIGURATIONS_BYTES_MAX + 1)},
    ):
        with pytest.raises(errors.TooManyConfigurations):
            await change_configurations(storage, BUCKET, "metrics", change)
    await change_configurations(storage, BUCKET, "metrics", with_id("0000", b"replaced"))
    held = await read_configurations(storage, BUCKET, "metrics")
    assert (len(held.by_id), held.by_id["0000"]) == (limits.CONFIGURATIONS_MAX, b"replaced")


async def test_a_deleted_bucket_leaves_no_configurations(memory_store: Process) -> None:
    storage = memory_store.storage
    for kind in ("inventory", "analytics", "metrics", "intelligent-tiering"):
        await change_configurations(storage, BUCKET, kind, with_id("one"))
    await delete_bucket(storage, BUCKET)
    left = [key for key in memory_store.cluster.engine.items if key.startswith(b"configuration/")]
    assert left == []
    with pytest.raises(errors.NoSuchBucket):
        await change_configurations(storage, BUCKET, "metrics", with_id("one"))


async def test_a_change_of_configurations_does_not_outlive_its_bucket(
    memory_store: Process,
) -> None:
    """The bucket is deleted between the reading and the commit."""
    storage = memory_store.storage
    deleting: list[asyncio.Task[None]] = []

    class Deleting(MemoryKV):
        async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
            if not deleting:
                deleting.append(asyncio.create_task(delete_bucket(storage, BUCKET)))
                await deleting[0]
            return await super().commit(guards, writes)

    other = await memory_store.cluster.process(Deleting(memory_store.cluster.engine))
    with pytest.raises(errors.NoSuchBucket):
        await change_configurations(other.storage, BUCKET, "metrics", with_id("one"))
    left = [key for key in memory_store.cluster.engine.items if key.startswith(b"configuration/")]
    assert left == []


async def target_of(process: Process) -> publish.Target:
    return await publish.read_target(process.storage, BUCKET, "k")


def tagged(version: ObjectRecord) -> ObjectRecord:
    description = msgspec.structs.replace(version.description, tags={"a": "1"})
    return msgspec.structs.replace(version, description=description)


async def test_new_tags_leave_the_version_as_it_is(memory_store: Process) -> None:
    before = await put(memory_store, "k", b"x" * 100_000)
    await change_version(memory_store.storage, await target_of(memory_store), tagged)
    after = await record(memory_store, "k")
    assert after is not None
    assert after.description.tags == {"a": "1"}
    plain = msgspec.structs.replace(after.description, tags={})
    assert msgspec.structs.replace(after, description=plain) == before
    assert await get(memory_store, "k") == b"x" * 100_000
    audit = Audit(memory_store.cluster, memory_store)
    audit.check_held()
    audit.check_usage()
    audit.check_counts()


async def test_tags_go_to_the_version_that_is_visible_at_the_commit(memory_store: Process) -> None:
    await put(memory_store, "k", b"old")
    stale = await target_of(memory_store)
    new = await put(memory_store, "k", b"new")
    await change_version(memory_store.storage, stale, tagged)
    found = await record(memory_store, "k")
    assert found is not None
    assert (found.etag, found.sequence) == (new.etag, new.sequence)
    assert found.description.tags == {"a": "1"}
    assert await get(memory_store, "k") == b"new"


async def test_a_key_deleted_meanwhile_does_not_come_back(memory_store: Process) -> None:
    await put(memory_store, "k", b"x")
    stale = await target_of(memory_store)
    await delete(memory_store, "k")
    with pytest.raises(errors.NoSuchKey):
        await change_version(memory_store.storage, stale, tagged)
    assert await record(memory_store, "k") is None
