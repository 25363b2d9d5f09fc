"""One key that is deleted several times in a row, in as few commits as can be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from s3gw import errors
from s3gw.kv.interface import Guard, Write
from s3gw.kv.memory import MemoryKV
from s3gw.objects import publish
from s3gw.objects.delete import MARKERS_PER_COMMIT, Deleted, delete_again
from s3gw.objects.publish import Check, Target, no_check
from s3gw.wire.version_ids import decode_version_id
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import put, record, remove, set_versioning, version


class CountingKV(MemoryKV):
    commits = 0

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        self.commits += 1
        return await super().commit(guards, writes)


@pytest.fixture
async def process(memory_cluster: MemoryCluster) -> Process:
    return await memory_cluster.process(CountingKV(memory_cluster.engine))


async def again(
    process: Process, times: int, *, asked: int | None = None, check: Check = no_check
) -> tuple[list[Deleted], int]:
    """What was done, and in how many commits."""
    kv = process.kv
    assert isinstance(kv, CountingKV)
    before, done = kv.commits, []
    while len(done) < times:
        target = await publish.read_target(process.storage, BUCKET, "k", asked)
        done += await delete_again(process.storage, target, check, times=times - len(done))
    return done, kv.commits - before


async def test_with_versioning_each_time_makes_a_marker(
    memory_cluster: MemoryCluster, process: Process
) -> None:
    await set_versioning(process, "Enabled")
    first = await put(process, "k", b"content")
    done, commits = await again(process, 100)
    ids = [decode_version_id(deleted.version_id) for deleted in done]
    assert all(deleted.marker for deleted in done)
    assert len(set(ids)) == 100
    assert commits == 1 + -(-99 // MARKERS_PER_COMMIT)
    target = await publish.read_target(process.storage, BUCKET, "k")
    assert target.newest == max(ids)
    assert target.visible is None
    noncurrent = [await version(process, "k", sequence) for sequence in sorted(ids)]
    assert [bool(marker and marker.noncurrent_ms) for marker in noncurrent] == [True] * 99 + [False]
    Audit(memory_cluster, process).check_at_rest()
    for sequence in ids:
        await remove(process, "k", sequence)
    assert await record(process, "k") is not None
    assert (await publish.read_target(process.storage, BUCKET, "k")).visible is not None
    assert first.sequence < min(ids)
    Audit(memory_cluster, process).check_at_rest()


@pytest.mark.parametrize("versioning", ["", "Suspended"])
async def test_without_versions_once_does_for_all(
    memory_cluster: MemoryCluster, process: Process, versioning: str
) -> None:
    await set_versioning(process, versioning)
    await put(process, "k", b"content")
    done, commits = await again(process, 100)
    assert set(done) == {Deleted("null", marker=True) if versioning else Deleted()}
    assert commits == (2 if versioning else 1)
    audit = Audit(memory_cluster, process)
    audit.check_held()
    audit.check_usage()
    audit.check_counts()


async def test_a_version_is_removed_once(memory_cluster: MemoryCluster, process: Process) -> None:
    await set_versioning(process, "Enabled")
    await put(process, "k", b"older")
    made = await put(process, "k", b"newer")
    done, commits = await again(process, 100, asked=made.sequence)
    assert (len(done), len(set(done)), commits) == (100, 1, 1)
    now = await record(process, "k")
    assert now is not None
    assert now.sequence < made.sequence
    audit = Audit(memory_cluster, process)
    audit.check_held()
    audit.check_usage()
    audit.check_counts()


async def test_what_the_first_may_do_is_not_what_the_next_may_do(process: Process) -> None:
    """They are decided on the same facts only once the key is hidden."""
    await set_versioning(process, "Enabled")
    await put(process, "k", b"content")

    def only_what_is_there(target: Target) -> None:
        if target.visible is None:
            raise errors.AccessDenied()

    with pytest.raises(errors.AccessDenied):
        await again(process, 5, check=only_what_is_there)
    target = await publish.read_target(process.storage, BUCKET, "k")
    assert list(target.noncurrent) == [target.newest]
