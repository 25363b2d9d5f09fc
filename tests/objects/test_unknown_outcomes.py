"""What a client can do after an answer that says nothing: try again, and it works."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from s3gw import errors
from s3gw.kv.interface import (
    Conflict,
    EngineError,
    Guard,
    LeaseLost,
    NoSpace,
    Put,
    Unavailable,
    Write,
)
from s3gw.kv.memory import MemoryKV
from s3gw.metadata import keys
from s3gw.metadata import store as metadata_store
from s3gw.metadata.store import OutcomeUnknown
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import (
    abort,
    complete,
    get,
    part,
    put,
    record,
    remove,
    rename,
    set_versioning,
    start,
)


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


@pytest.mark.parametrize("token", [b"", b"t" * 16])
async def test_a_rename_without_an_answer_is_not_taken_for_the_delete_that_overtook_it(
    losing: Process, monkeypatch: pytest.MonkeyPatch, token: bytes
) -> None:
    """Both make the same delete marker, of one owner and moment."""
    await set_versioning(losing, "Enabled")
    await put(losing, "old", b"content")
    other = await losing.cluster.process()
    plain = engine(losing).commit

    async def lost(guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        monkeypatch.setattr(engine(losing), "commit", plain)
        await remove(other, "old")
        raise Unavailable("lost")

    monkeypatch.setattr(engine(losing), "commit", lost)
    with pytest.raises(OutcomeUnknown):
        await rename(losing, "old", "new", token)
    assert await record(losing, "new") is None


@pytest.mark.parametrize("token", [b"", b"t" * 16])
@pytest.mark.parametrize("versioning", ["", "Enabled", "Suspended"])
async def test_a_rename_whose_answer_was_lost_is_known_to_be_done(
    losing: Process, token: bytes, versioning: str
) -> None:
    if versioning:
        await set_versioning(losing, versioning)
    await put(losing, "old", b"content")
    engine(losing).away = keys.object_(BUCKET, "new")
    engine(losing).applies = True
    await rename(losing, "old", "new", token)
    engine(losing).away = b""
    assert await get(losing, "new") == b"content"
    assert await record(losing, "old") is None


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("refusal", [NoSpace, LeaseLost])
async def test_a_refusal_says_nothing_of_a_sending_before(
    losing: Process, monkeypatch: pytest.MonkeyPatch, refusal: type[EngineError], applied: bool
) -> None:
    """One that had no answer may have been applied, or be applied later: SQLite's journal has it,
    and the database is full."""
    plain = engine(losing).commit
    late: list[tuple[Sequence[Guard], Sequence[Write]]] = []

    async def lost(guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        if not any(write.key == keys.object_(BUCKET, "k") for write in writes):
            return await plain(guards, writes)
        if not late:
            late.append((guards, writes))
            if applied:
                await plain(guards, writes)
            raise Unavailable("lost")
        raise refusal("no more")

    monkeypatch.setattr(engine(losing), "commit", lost)
    if applied:
        await put(losing, "k", b"content")
    else:
        with pytest.raises(OutcomeUnknown):
            await put(losing, "k", b"content")
        await plain(*late[0])
    monkeypatch.setattr(engine(losing), "commit", plain)
    assert await get(losing, "k") == b"content"


async def test_counters_are_read_again_when_nobody_says_which_guard_failed(
    losing: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of etcd when the guards of a large commit leave no room for the question."""
    other = await losing.cluster.process()
    await put(losing, "k", b"one")
    for number in range(64):  # in all slots
        await put(other, f"other{number}", b"two")
    plain = engine(losing).commit

    async def nameless(guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        try:
            return await plain(guards, writes)
        except Conflict:
            raise Conflict(None) from None

    monkeypatch.setattr(engine(losing), "commit", nameless)
    await put(losing, "k", b"three")
    assert await get(losing, "k") == b"three"


async def _nobody_knows(tx: object) -> None:
    return None
