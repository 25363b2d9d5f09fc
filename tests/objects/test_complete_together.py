"""Many requests to complete one upload at once: one is at it, the others wait and are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from s3gw import errors
from s3gw.kv.interface import Guard, Put, Write
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.objects import complete as complete_module
from s3gw.objects.complete import Completion, PartChoice, complete_upload
from s3gw.objects.multipart import change_record, find_upload
from s3gw.objects.publish import no_check
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import abort, complete, get, part, start
from tests.stores.virtual_time import run_virtual

DATA = b"x" * 100_000


class SlowKV(MemoryKV):
    """Commits take a tenth of a second."""

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        await asyncio.sleep(0.1)
        return await super().commit(guards, writes)


Scenario = Callable[[MemoryCluster, list[Process], bytes], Awaitable[None]]


def together(scenario: Scenario, processes: int = 1) -> float:
    """Run a scenario with an upload of one part, in virtual time; the seconds that it took. Each
    process has a lease, which lives."""

    async def run() -> float:
        cluster = MemoryCluster()
        await cluster.found()
        many = []
        for seed in range(processes):
            process = await cluster.process(SlowKV(cluster.engine), seed=seed)
            lease = await process.take_lease()
            await process.kv.commit([], [Put(keys.process(lease), b"", lease)])
            many.append(process)
        upload = await start(many[0], "k")
        await part(many[0], "k", upload, 1, DATA)
        clock = asyncio.get_running_loop().time
        started = clock()
        await scenario(cluster, many, upload)
        return clock() - started

    return run_virtual(run())


@pytest.mark.parametrize("processes", [1, 3])
def test_all_who_ask_for_the_same_parts_get_the_same_answer(processes: int) -> None:
    async def scenario(cluster: MemoryCluster, many: list[Process], upload: bytes) -> None:
        answers = await asyncio.gather(
            *(complete(many[number % processes], "k", upload) for number in range(40))
        )
        first = answers[0]
        assert all(answer.etag == first.etag for answer in answers)
        assert all(answer.checksums == first.checksums for answer in answers)
        assert sum(answer.record is not None for answer in answers) == 1
        assert await get(many[0], "k") == DATA
        assert not any(process.storage.completing for process in many)

    assert together(scenario, processes) < 1.5


def test_who_waited_for_another_list_of_parts_is_told_that_the_upload_is_gone() -> None:
    async def scenario(cluster: MemoryCluster, many: list[Process], upload: bytes) -> None:
        await part(many[0], "k", upload, 2, b"end")
        results = await asyncio.gather(
            complete(many[0], "k", upload, leave_out=(2,)),
            complete(many[0], "k", upload, leave_out=(1,)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            complete_module.Completed,
            errors.NoSuchUpload,
        ]

    together(scenario)


def test_when_the_one_under_way_fails_another_goes_on() -> None:
    async def scenario(cluster: MemoryCluster, many: list[Process], upload: bytes) -> None:
        (found,) = ((await find_upload(many[0].storage, BUCKET, "k", upload, 1)).part.record,)
        assert found is not None
        choices = [PartChoice(1, found.etag, {})]

        async def of_size(size: int) -> complete_module.Completed:
            completion = Completion(choices, no_check, {}, "", size)
            return await complete_upload(many[0].storage, BUCKET, "k", upload, completion)

        wrong, right = await asyncio.gather(of_size(1), of_size(len(DATA)), return_exceptions=True)
        assert isinstance(wrong, errors.InvalidRequest)
        assert isinstance(right, complete_module.Completed)

    together(scenario)


def test_a_cancelled_one_lets_the_next_go_on() -> None:
    async def scenario(cluster: MemoryCluster, many: list[Process], upload: bytes) -> None:
        first = asyncio.ensure_future(complete(many[0], "k", upload))
        second = asyncio.ensure_future(complete(many[0], "k", upload))
        await asyncio.sleep(0.15)
        first.cancel()
        await second
        assert await get(many[0], "k") == DATA

    together(scenario)


def test_an_upload_that_is_aborted_meanwhile_is_not_waited_for() -> None:
    async def scenario(cluster: MemoryCluster, many: list[Process], upload: bytes) -> None:
        aborting = asyncio.ensure_future(abort(many[0], "k", upload))
        with pytest.raises(errors.NoSuchUpload):
            await complete(many[0], "k", upload)
        await aborting

    assert together(scenario) < 1


async def taken(process: Process, upload_id: bytes, lease: int) -> None:
    upload = await find_upload(process.storage, BUCKET, "k", upload_id)
    await change_record(
        process.storage,
        upload,
        lambda found: msgspec.structs.replace(
            found, state="completing", owner_lease=lease, attempt=b"attempt"
        ),
    )


def test_one_that_does_not_end_is_waited_for_as_long_as_clients_wait() -> None:
    async def scenario(cluster: MemoryCluster, many: list[Process], upload: bytes) -> None:
        many[0].storage.completing[b"attempt"] = asyncio.Event()
        await taken(many[0], upload, many[0].storage.lease())
        results = await asyncio.gather(
            *(complete(process, "k", upload) for process in many), return_exceptions=True
        )
        assert [type(result) for result in results] == [errors.SlowDown] * 2

    assert together(scenario, 2) == pytest.approx(complete_module.WAIT_SECONDS_MAX, abs=0.2)


def test_the_upload_of_a_process_that_dies_is_taken_over() -> None:
    async def scenario(cluster: MemoryCluster, many: list[Process], upload: bytes) -> None:
        dying = many[0].storage.lease()
        await taken(many[0], upload, dying)
        completing = asyncio.ensure_future(complete(many[1], "k", upload))
        await asyncio.sleep(15)
        await many[0].kv.revoke_lease(dying)
        await completing
        assert await get(many[1], "k") == DATA

    assert together(scenario, 2) < 17
