"""Many writers of one key, part or bucket: all of them are done in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket
from s3gw.objects.change import change_version
from s3gw.objects.turns import Turns
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import copy, delete, put
from tests.stores.virtual_time import run_virtual

WRITERS = 200
ENABLED = "Enabled"


def tagged(value: str) -> Callable[[ObjectRecord], ObjectRecord]:
    def change(record: ObjectRecord) -> ObjectRecord:
        description = msgspec.structs.replace(record.description, tags={"a": value})
        return msgspec.structs.replace(record, description=description)

    return change


async def tag(process: Process, key: str, value: str) -> None:
    target = await publish.read_target(process.storage, BUCKET, key)
    await change_version(process.storage, target, tagged(value))


async def tag_bucket(process: Process, value: str) -> None:
    await change_bucket(
        process.storage, BUCKET, lambda bucket: msgspec.structs.replace(bucket, tags={"a": value})
    )


WRITES: dict[str, Callable[[Process, int], Awaitable[Any]]] = {
    "put": lambda process, number: put(process, "k", b"%d" % number),
    "copy": lambda process, number: copy(process, "source", "k"),
    "delete": lambda process, number: delete(process, "k"),
    "tags": lambda process, number: tag(process, "source", str(number)),
    "bucket": lambda process, number: tag_bucket(process, str(number)),
}


@pytest.mark.parametrize("versioning", ["", ENABLED])
@pytest.mark.parametrize("write", WRITES)
async def test_nobody_loses_for_ever(
    memory_cluster: MemoryCluster, write: str, versioning: str
) -> None:
    processes = [await memory_cluster.process(), await memory_cluster.process()]
    await change_bucket(
        processes[0].storage,
        BUCKET,
        lambda bucket: msgspec.structs.replace(bucket, versioning=versioning),
    )
    await put(processes[0], "source", b"s")
    await put(processes[0], "k", b"k")
    writes = (WRITES[write](processes[number % 2], number) for number in range(WRITERS))
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [each for each in results if isinstance(each, BaseException)] == []


# Turns.


Writer = tuple[str, bytes, float]


def ended(*writers: Writer) -> list[tuple[str, int]]:
    """Names of writers, who have a turn of so many seconds of a key, and when they were done."""

    async def scenario() -> list[tuple[str, int]]:
        turns, done = Turns(), []

        async def write(name: str, key: bytes, seconds: float) -> None:
            with turns.of(key) as turn:
                await turn.wait()
                await turn.wait()  # it has the turn already
                await asyncio.sleep(seconds)
                done.append((name, round(asyncio.get_running_loop().time())))

        await asyncio.gather(*(write(*writer) for writer in writers))
        return done

    return run_virtual(scenario())


def test_who_lost_first_goes_first() -> None:
    writers: list[Writer] = [("first", b"k", 2), ("second", b"k", 2), ("third", b"k", 1)]
    found = ended(*writers, ("of another key", b"other", 1))
    assert found == [("of another key", 1), ("first", 2), ("second", 4), ("third", 5)]


def test_who_waits_too_long_goes_on_without_a_turn() -> None:
    assert ended(("slow", b"k", 60), ("quick", b"k", 1)) == [("quick", 6), ("slow", 60)]


async def test_a_turn_ends_with_its_block_however_that_ends() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.of(b"k") as turn:
        await turn.wait()
        raise KeyError
    with turns.of(b"k") as held:
        await held.wait()
        with turns.of(b"k") as turn:
            waiting = asyncio.ensure_future(turn.wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert not turns.lock(b"k").locked()
    with turns.of(b"k") as turn:
        await turn.wait()
        assert turns.lock(b"k").locked()


def test_who_comes_waits_behind_those_who_have_lost_but_not_for_long() -> None:
    async def scenario() -> list[tuple[str, bool, float]]:
        turns, done = Turns(), []
        clock = asyncio.get_running_loop().time

        async def lost(name: str, seconds: float) -> None:
            with turns.of(b"k") as turn:
                await turn.wait()
                await asyncio.sleep(seconds)
                done.append((name, True, round(clock(), 3)))

        async def newcomer(name: str, key: bytes) -> None:
            with turns.of(key) as turn:
                waited = await turn.behind_others()
                done.append((name, waited, round(clock(), 3)))
                await turn.wait()

        losers = [asyncio.ensure_future(lost("first", 0.2)), asyncio.ensure_future(lost("long", 9))]
        await asyncio.sleep(0.1)
        await asyncio.gather(newcomer("new", b"k"), newcomer("elsewhere", b"other"), *losers)
        return done

    assert run_virtual(scenario()) == [
        ("elsewhere", False, 0.1),
        ("first", True, 0.2),
        ("new", True, 1.1),
        ("long", True, 9.2),
    ]


async def test_what_was_read_before_others_were_done_is_read_again(memory_store: Process) -> None:
    """Its first commit is its only one."""
    await put(memory_store, "source", b"s")
    commits = memory_store.kv.commit
    conflicts = 0

    async def counted(*arguments: Any) -> int:
        nonlocal conflicts
        try:
            return await commits(*arguments)
        except Conflict:
            conflicts += 1
            raise

    target = await publish.read_target(memory_store.storage, BUCKET, "source")
    lock = memory_store.storage.turns.lock(keys.object_(BUCKET, "source"))
    await lock.acquire()
    memory_store.kv.commit = counted  # type: ignore[method-assign]
    late = asyncio.ensure_future(change_version(memory_store.storage, target, tagged("late")))
    await asyncio.sleep(0)
    await put(await memory_store.cluster.process(seed=9), "source", b"newer")
    lock.release()
    record = await late
    assert (record.size, record.description.tags, conflicts) == (5, {"a": "late"}, 0)
