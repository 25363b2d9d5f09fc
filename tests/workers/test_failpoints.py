"""A gateway that dies at every step of every operation: each commit before and after it takes
effect, and each call to a drive. Afterwards the key is old or new, and after the workers' rounds
nothing is left that nothing refers to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nodes.memory import MemoryDrive
from nodes.protocol import ShardName
from s3gw import limits
from s3gw.workers import on_demand
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.virtual_time import run_virtual

OLD = b"old" * 30_000
NEW = b"new" * 50_000
STEPS_MAX = 200
DAY = 24 * 3600.0

Operation = Callable[[Process, bytes], Awaitable[object]]


async def put(process: Process, upload: bytes) -> None:
    await operations.put(process, "k", NEW)


async def delete(process: Process, upload: bytes) -> None:
    await operations.delete(process, "k")


async def copy(process: Process, upload: bytes) -> None:
    await operations.copy(process, "source", "k")


async def complete(process: Process, upload: bytes) -> None:
    await operations.complete(process, "k", upload)


async def replace_part(process: Process, upload: bytes) -> None:
    await operations.part(process, "k", upload, 1, NEW)


async def abort(process: Process, upload: bytes) -> None:
    await operations.abort(process, "k", upload)


async def collect(process: Process, upload: bytes) -> None:
    await operations.delete(process, "k")
    process.cluster.clock.advance(3600)
    await on_demand.collect_garbage(process.storage)


OPERATIONS: list[Operation] = [put, delete, copy, complete, replace_part, abort, collect]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


class Failpoint:
    """A process that dies at step `step` of what it does next: a commit, or a call to a drive."""

    def __init__(self, step: int, mode: Mode | None) -> None:
        self.fuse = Fuse()
        self._step = step
        self._mode = mode

    def arm(self, cluster: MemoryCluster) -> None:
        if self._mode is not None:
            self.fuse.arm(self._step, self._mode)
            return
        left = self._step

        def guard(enter: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
            async def entering(call: str, name: ShardName | None = None) -> bool:
                nonlocal left
                left -= 1
                self.fuse.blown |= left < 0
                if self.fuse.blown:
                    raise Crashed
                return await enter(call, name)

            return entering

        for drive in cluster.drives.values():
            drive.enter = guard(drive.enter)  # type: ignore[method-assign,assignment]

    def disarm(self, cluster: MemoryCluster) -> None:
        for drive in cluster.drives.values():
            drive.__dict__.pop("enter", None)
            assert isinstance(drive, MemoryDrive)


async def crash_at(operation: Operation, failpoint: Failpoint) -> bool:
    """One run; whether the process died in it."""
    cluster = MemoryCluster(8)
    await cluster.found()
    process = await cluster.process(CrashingKV(cluster.kv(), failpoint.fuse))
    await operations.put(process, "k", OLD)
    await operations.put(process, "source", NEW)
    upload = await operations.start(process, "k")
    for number in (1, 2):
        await operations.part(process, "k", upload, number, NEW[: len(NEW) // 2])
    failpoint.arm(cluster)
    try:
        await operation(process, upload)
    except Crashed:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
    failpoint.disarm(cluster)
    await check_after(cluster, await cluster.process())
    return failpoint.fuse.blown


async def check_after(cluster: MemoryCluster, process: Process) -> None:
    audit = Audit(cluster, process)
    audit.check_held()
    audit.check_usage()
    audit.check_counts()
    found = await operations.record(process, "k")
    if found is not None:
        assert await operations.get(process, "k") in (OLD, NEW)
    assert await operations.get(process, "source") == NEW
    for record_key in audit.under(b"upload/" + BUCKET.encode()):
        await operations.abort(process, "k", record_key[-16:])
    for _ in range(3):
        await on_demand.merge_all(process.storage)
        cluster.clock.advance(2 * DAY)
        await on_demand.collect_garbage(process.storage)
    Audit(cluster, process).check_at_rest()


@pytest.mark.parametrize("mode", [Mode.DIE_BEFORE, Mode.DIE_AFTER, None])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_death_at_every_step_leaves_old_or_new_and_no_garbage(
    operation: Operation, mode: Mode | None
) -> None:
    step = 0
    while run_virtual(crash_at(operation, Failpoint(step, mode))):
        step += 1
        assert step < STEPS_MAX
    drives_unused = operation in (delete, copy, abort) and mode is None
    assert step > 0 or drives_unused
