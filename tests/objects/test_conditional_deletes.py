"""Deletes with conditions beside writers: what is deleted is what the condition was about."""

from __future__ import annotations

import asyncio
import random

import pytest

from s3gw import errors
from s3gw.metadata.records import ObjectRecord
from s3gw.objects import publish
from s3gw.objects.delete import delete_object
from s3gw.objects.publish import Target
from s3gw.operations.present import current_of
from s3gw.wire.conditions import WriteConditions
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process


async def delete_if(process: Process, key: str, headers: dict[str, str]) -> str:
    """What becomes of a conditional delete: "done" or an error's code."""
    conditions = WriteConditions.of_delete(headers)
    seen: list[ObjectRecord | None] = []

    def check(target: Target) -> None:
        seen.append(target.shown)
        conditions.check(current_of(target.shown))

    target = await publish.read_target(process.storage, BUCKET, key)
    try:
        await delete_object(process.storage, target, check)
    except errors.S3Error as error:
        return error.code
    return "done"


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("versioning", ["", "Enabled", "Suspended"])
async def test_a_put_that_raced_is_never_deleted_for_the_one_before(
    seed: int, versioning: str
) -> None:
    """One put is to go, another comes meanwhile: either the first was deleted before it came, or
    the condition failed; the second is there in both cases."""
    chance = random.Random(seed)
    cluster = MemoryCluster()
    await cluster.found()
    first, second = await cluster.process(seed=1), await cluster.process(seed=2)
    if versioning:
        await operations.set_versioning(first, versioning)
    old = await operations.put(first, "k", b"old")

    async def put() -> ObjectRecord:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        return await operations.put(second, "k", b"newer")

    async def delete() -> str:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        header = chance.choice([{"if-match": old.etag}, {"x-amz-if-match-size": str(old.size)}])
        return await delete_if(first, "k", header)

    outcome, _ = await asyncio.gather(delete(), put())
    assert outcome in ("done", "PreconditionFailed")
    assert await operations.get(first, "k") == b"newer"
    audit = Audit(cluster, first)
    audit.check_held()
    audit.check_usage()
    audit.check_versions()


async def test_of_two_deletes_of_one_state_one_finds_it(memory_store: Process) -> None:
    old = await operations.put(memory_store, "k", b"old")
    other = await memory_store.cluster.process(seed=3)
    outcomes = await asyncio.gather(
        delete_if(memory_store, "k", {"if-match": old.etag}),
        delete_if(other, "k", {"if-match": old.etag}),
    )
    assert sorted(outcomes) == ["NoSuchKey", "done"]


async def test_a_key_behind_a_marker_fails_otherwise_than_one_that_never_was(
    memory_store: Process,
) -> None:
    await operations.set_versioning(memory_store, "Enabled")
    await operations.put(memory_store, "k", b"x")
    await operations.remove(memory_store, "k")
    revision = memory_store.cluster.engine.revision
    assert await delete_if(memory_store, "k", {"if-match": "*"}) == "PreconditionFailed"
    assert await delete_if(memory_store, "never", {"if-match": "*"}) == "NoSuchKey"
    assert memory_store.cluster.engine.revision == revision
