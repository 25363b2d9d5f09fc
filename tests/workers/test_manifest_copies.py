"""A manifest's own blob is moved in several commits: nothing is left of a move that dies between
them, whatever becomes of the versions, and no second move of it begins."""

from __future__ import annotations

import pytest

from s3gw import limits
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, ManifestRef, Repair, encode
from s3gw.workers import blob_move, on_demand, reencode
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.damage import URGENCY_DAMAGED
from s3gw.workers.reencode import Entry, NotPossibleNow, Swap
from tests.stores.memory_store import BUCKET, Process
from tests.stores.operations import copy, delete, get
from tests.workers.test_repair_queue import entries
from tests.workers.test_reprofile import WIDE, make_wide
from tests.workers.test_transition import DATA, SMALL, at_rest, known, upload


class Killed(Exception):
    """The process that moves ends here."""


@pytest.fixture
async def process(memory_store: Process, monkeypatch: pytest.MonkeyPatch) -> Process:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)
    await make_wide(memory_store)
    await upload(memory_store, "k")
    return memory_store


async def manifest_blob(process: Process, key: str) -> BlobRef:
    data = (await known(process, key)).data
    assert isinstance(data, ManifestRef)
    return data.blob


async def begin(process: Process) -> tuple[Entry, BlobRef]:
    """An entry with a copy, and the blob that it moves."""
    ref = await manifest_blob(process, "k")
    entry = await blob_move._entry(process.storage, BUCKET, ref, WIDE, "a test")
    return await reencode.write_copy(process.storage, UNCLAIMED, entry, ref), ref


async def move_until_killed(
    process: Process, monkeypatch: pytest.MonkeyPatch, *, commits: int
) -> BlobRef:
    """A move that dies after so many commits; the blob that it moved."""
    entry, ref = await begin(process)
    plain, made = reencode.commit, 0

    async def dying(*arguments):  # type: ignore[no-untyped-def]
        nonlocal made
        if made == commits:
            raise Killed
        made += 1
        return await plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(reencode, "commit", dying)
        with pytest.raises(Killed):
            await Swap(process.storage, UNCLAIMED, entry, ref).run()
    return ref


async def come_to_rest(process: Process) -> None:
    for _ in range(4):
        process.cluster.clock.advance(7200)
        await on_demand.repair_all(process.storage)
    await at_rest(process)


@pytest.mark.parametrize("commits", range(5))
async def test_a_move_that_died_goes_on(
    process: Process, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """One commit for the reference, one for each of two versions, one for the former reference."""
    await copy(process, "k", "l")
    former = await move_until_killed(process, monkeypatch, commits=commits)
    await come_to_rest(process)
    for key in ("k", "l"):
        moved = await manifest_blob(process, key)
        assert moved.blob != former.blob
        assert moved.profile.startswith(WIDE)
        assert await get(process, key) == DATA + SMALL


@pytest.mark.parametrize("order", ["kl", "lk"])
@pytest.mark.parametrize("commits", range(5))
async def test_versions_that_go_while_a_move_is_dead_leave_nothing(
    process: Process, monkeypatch: pytest.MonkeyPatch, commits: int, order: str
) -> None:
    await copy(process, "k", "l")
    await move_until_killed(process, monkeypatch, commits=commits)
    for key in order:
        await delete(process, key)
        process.cluster.clock.advance(60)
    await come_to_rest(process)


async def test_a_blob_has_one_copy_at_a_time(process: Process) -> None:
    entry, ref = await begin(process)
    record = entry.record
    other = keys.repair(URGENCY_DAMAGED, record.profile, record.pg, record.blob)
    damaged = Repair(record.profile, record.pg, record.blob, "a test", 0, target=WIDE)
    revision = await process.kv.commit([], [Put(other, encode(damaged))])
    with pytest.raises(NotPossibleNow, match="another entry"):
        await reencode.write_copy(process.storage, UNCLAIMED, Entry(other, revision, damaged), ref)
    found = await blob_move._entry(process.storage, BUCKET, ref, WIDE, "a test")
    assert found.key == entry.key, "who moves it goes on with the copy that is there"
    await come_to_rest(process)
    assert await get(process, "k") == DATA + SMALL


@pytest.mark.parametrize("commits", [1, 2, 3])
async def test_a_copy_that_is_moved_itself_meanwhile_is_not_lost(
    process: Process, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """A move dies when the manifest has its reference to the copy, which not all versions name yet.
    Then the copy is moved on, and lets go of that."""
    await copy(process, "k", "l")
    await move_until_killed(process, monkeypatch, commits=commits)
    (moving,) = entries(process.cluster).values()
    copied = moving.copy
    assert copied is not None
    onward = await blob_move._entry(process.storage, BUCKET, copied, "", "a test")
    onward = await reencode.write_copy(process.storage, UNCLAIMED, onward, copied)
    assert onward.record.copy is not None
    assert not await Swap(process.storage, UNCLAIMED, onward, copied).run(), "a job has it"
    await come_to_rest(process)
    for key in ("k", "l"):
        assert (await manifest_blob(process, key)).blob == onward.record.copy.blob
        assert await get(process, key) == DATA + SMALL
