"""What a client can do after an answer that says nothing: try again, and it works."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from s3gw import errors
from s3gw.kv.interface import Guard, Put, Unavailable, Write
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata import store as metadata_store
from s3gw.metadata.store import OutcomeUnknown
from tests.stores.memory_store import MemoryCluster, Process
from tests.stores.operations import abort, complete, get, part, start


class LosingKV(MemoryKV):
    """Loses requests, or their answers, that write a key with some prefix, while `away`."""

    away = b""
    applies = False

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        if self.away and any(write.key.startswith(self.away) for write in writes):
            if self.applies:
                await super().commit(guards, writes)
                self.applies = False
            raise Unavailable("lost")
        return await super().commit(guards, writes)


@pytest.fixture
async def losing(memory_cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> Process:
    """A process whose lease lives on, whatever its commits do."""
    monkeypatch.setattr(metadata_store, "RESEND_PAUSE_SECONDS", 0)
    kv = LosingKV(memory_cluster.engine)
    process = await memory_cluster.process(kv)
    await kv.commit([], [Put(keys.process(0), b"")])
    return process


def engine(process: Process) -> LosingKV:
    assert isinstance(process.kv, LosingKV)
    return process.kv


@pytest.mark.parametrize("step", [b"manifest/", b"object/", b"upload/"])
async def test_complete_can_be_tried_again_when_the_engine_was_away(
    losing: Process, step: bytes
) -> None:
    upload_id = await start(losing, "k")
    await part(losing, "k", upload_id, 1, b"x" * 100_000)
    engine(losing).away = step
    with pytest.raises(OutcomeUnknown):
        await complete(losing, "k", upload_id)
    engine(losing).away = b""
    await complete(losing, "k", upload_id)
    assert await get(losing, "k") == b"x" * 100_000


async def test_an_upload_whose_taking_had_no_answer_can_be_aborted(losing: Process) -> None:
    upload_id = await start(losing, "k")
    await part(losing, "k", upload_id, 1, b"x")
    engine(losing).away = b"upload/"
    engine(losing).applies = True
    losing.storage.store._witnessed = _nobody_knows  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await complete(losing, "k", upload_id)
    engine(losing).away = b""
    await abort(losing, "k", upload_id)
    with pytest.raises(errors.NoSuchUpload):
        await complete(losing, "k", upload_id)


async def test_a_complete_under_way_in_this_process_is_not_taken_over(losing: Process) -> None:
    upload_id = await start(losing, "k")
    await part(losing, "k", upload_id, 1, b"x")
    results = await asyncio.gather(
        complete(losing, "k", upload_id),
        complete(losing, "k", upload_id),
        return_exceptions=True,
    )
    assert sum(isinstance(result, errors.SlowDown) for result in results) == 1
    assert await get(losing, "k") == b"x"


async def _nobody_knows(tx: object) -> None:
    return None
