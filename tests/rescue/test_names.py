"""Objects that were renamed: they come back from drives alone under their new name, once, and with
all that they were."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from s3gw.metadata import keys
from s3gw.metadata.records import NameRecord, decode
from s3gw.objects import publish
from s3gw.rescue.snapshot import take_snapshot
from s3gw.workers import on_demand
from s3gw.workers.names import Names
from tests.rescue.disks import Recovered, put_on_disks, recovered, shards_of
from tests.rescue.test_alone import DESCRIBED, put, same, visible
from tests.rescue.test_moved import move_all
from tests.rescue.test_rebuild import PART, data_of, multipart
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import MemoryCluster, Process

DAY = 24 * 3600.0
DATA = data_of("content", 70_000)


async def noted(process: Process) -> None:
    await Names(process.storage).run_once()


async def alone(cluster: MemoryCluster, root: Path, **options: bool) -> Recovered:
    result = await recovered(cluster, put_on_disks(cluster, root), **options)
    result.check()
    return result


async def names_of(process: Process, *names: str) -> set[str]:
    """Which of the keys there are."""
    return {key for key in names if await operations.record(process, key) is not None}


async def test_an_object_comes_back_under_its_new_name(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    before = await visible(memory_store, "new")
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    after = await visible(result.process, "new")
    assert same(before, after)
    assert after.sequence == before.sequence
    assert await operations.get(result.process, "new") == DATA
    assert await names_of(result.process, "old", "new") == {"new"}


async def test_and_a_second_time(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The recovered store notes the name itself: the first note is an orphan there."""
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    first = await alone(memory_cluster, tmp_path / "1")
    await noted(first.process)
    first.check()
    second = await alone(memory_cluster, tmp_path / "2")
    assert await names_of(second.process, "old", "new") == {"new"}


async def test_one_that_is_not_noted_yet_has_its_old_name(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "old", "new") == {"old"}


@pytest.mark.parametrize("between", [True, False], ids=["noted-between", "noted-at-the-end"])
async def test_the_last_of_several_names_counts(
    between: bool, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    chain = ["a", "z", "m", "b"]
    await put(memory_store, "a", DATA)
    for source, target in pairwise(chain):
        await operations.rename(memory_store, source, target)
        if between:
            await noted(memory_store)
    await noted(memory_store)
    if between:  # notes of names that are gone have themselves been collected
        memory_cluster.clock.advance(2 * DAY)
        await on_demand.collect_garbage(memory_store.storage)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, *chain) == {"b"}
    assert await operations.get(result.process, "b") == DATA


async def test_there_and_back(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "a", DATA)
    for source, target in (("a", "b"), ("b", "a")):
        await operations.rename(memory_store, source, target)
        await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "a", "b") == {"a"}


async def test_keys_that_others_have_taken_since(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The old name has another object; the new name of another was written over."""
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    await put(memory_store, "old", b"another")
    await put(memory_store, "lost", data_of("l", 70_000))
    await operations.rename(memory_store, "lost", "over")
    await noted(memory_store)
    await put(memory_store, "over", b"over it")
    result = await alone(memory_cluster, tmp_path)
    assert await operations.get(result.process, "old") == b"another"
    assert await operations.get(result.process, "new") == DATA
    assert await operations.get(result.process, "over") == b"over it"
    assert await names_of(result.process, "lost") == set()


async def test_an_object_in_parts(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    data = await multipart(memory_store, "old", PART, 90_000)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert await operations.get(result.process, "new") == data
    assert await names_of(result.process, "old", "new") == {"new"}


@pytest.mark.parametrize("in_parts", [False, True])
async def test_a_copy_that_is_renamed_leaves_the_original_its_name(
    in_parts: bool, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    data = DATA
    if in_parts:
        data = await multipart(memory_store, "original", 90_000)
    else:
        await put(memory_store, "original", data)
    await operations.copy(memory_store, "original", "copy")
    await operations.rename(memory_store, "copy", "a-copy")
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "original", "copy", "a-copy") == {"original", "a-copy"}
    for key in ("original", "a-copy"):
        assert await operations.get(result.process, key) == data
        await operations.delete(result.process, key)
    memory_cluster.clock.advance(30 * DAY)
    await on_demand.collect_garbage(result.process.storage)
    result.check()


async def test_a_renamed_object_that_was_deleted_is_no_more_there_than_any_other(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    for key in ("old", "plain", "kept"):
        await put(memory_store, key, DATA)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    for key in ("new", "plain"):
        await operations.delete(memory_store, key)
    memory_cluster.clock.advance(2 * DAY)
    await on_demand.collect_garbage(memory_store.storage)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "old", "new", "plain", "kept") == {"kept"}


async def test_with_versioning_the_new_name_is_added(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The old name keeps its versions, and its delete marker is not on the drives."""
    await operations.set_versioning(memory_store, publish.ENABLED)
    old = await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    new = await visible(memory_store, "new")
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    for key, sequence in (("old", old.sequence), ("new", new.sequence)):
        found = await operations.version(result.process, key, sequence)
        assert found is not None
        assert await operations.get(result.process, key) == DATA


async def test_versioning_that_began_behind_the_rename(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    await operations.set_versioning(memory_store, publish.ENABLED)
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "old", "new") == {"new"}


@pytest.mark.parametrize("begins_after", [1, 2, 3])
async def test_versioning_that_began_between_renames_none_of_which_was_noted(
    begins_after: int, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """Names that were left before it are not there any more, those left since are."""
    await put(memory_store, "a", DATA)
    for number, (source, target) in enumerate(pairwise("abcd"), 1):
        await operations.rename(memory_store, source, target)
        if number == begins_after:
            await operations.set_versioning(memory_store, publish.ENABLED)
    await noted(memory_store)
    kept = "abcd"[begins_after:]
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, *"abcd") == set(kept)


async def test_versioning_that_began_before_a_note_went_over_to_a_copy(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    await operations.copy(memory_store, "new", "new")
    await operations.set_versioning(memory_store, publish.ENABLED)
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "old", "new") == {"new"}


async def test_a_name_that_a_copy_has_by_an_older_version_is_kept(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The original was written over since, when it had versions."""
    await put(memory_store, "original", DATA)
    await operations.copy(memory_store, "original", "copy")
    await operations.rename(memory_store, "copy", "new")
    await operations.set_versioning(memory_store, publish.ENABLED)
    await operations.put(memory_store, "original", b"later")
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "original", "copy", "new") == {"original", "new"}
    (older,) = [
        version
        for _, _, version in Audit(memory_cluster, result.process).versions()
        if version.size == len(DATA) and version.noncurrent_ms
    ]
    assert older.sequence


async def test_a_rename_that_is_newer_than_the_snapshot(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "old", DATA)
    await put(memory_store, "old-2", b"replaced")
    parts = await multipart(memory_store, "parts", 90_000)
    await put(memory_store, "new", b"what the snapshot knows")
    await take_snapshot(memory_store.storage)
    memory_cluster.clock.advance(60)
    await operations.rename(memory_store, "old", "between")
    await operations.rename(memory_store, "between", "new")
    await operations.rename(memory_store, "old-2", "new-2")
    await operations.rename(memory_store, "parts", "new-parts")
    await noted(memory_store)
    await put(memory_store, "new-2", b"written over")
    before = await visible(memory_store, "new")
    result = await alone(memory_cluster, tmp_path)
    assert result.report.source.startswith("snapshot")
    process = result.process
    assert same(before, await visible(process, "new"))
    assert await operations.get(process, "new") == DATA
    assert await operations.get(process, "new-parts") == parts
    assert await operations.get(process, "new-2") == b"written over"
    assert await names_of(process, "old", "old-2", "between", "parts") == set()
    assert ("older", "new-2") in result.kinds()
    assert before.description == (await visible(process, "new")).description
    assert before.description.tags == DESCRIBED.tags


@pytest.mark.parametrize("parts", [False, True])
async def test_a_rename_of_bytes_that_were_written_anew_since_the_snapshot(
    parts: bool, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """They are new to the recovery under the new name; the base's record leaves the old one."""
    if parts:
        data = await multipart(memory_store, "old", 90_000)
    else:
        data, _ = DATA, await put(memory_store, "old", DATA)
    await take_snapshot(memory_store.storage)
    memory_cluster.clock.advance(60)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    await move_all(memory_cluster, memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert result.report.moved
    assert await names_of(result.process, "old", "new") == {"new"}
    assert await operations.get(result.process, "new") == data
    assert not {kind for kind, _ in result.kinds()}


async def test_a_name_that_was_written_anew_behind_the_rename(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """As logs are turned over: what had the name is not taken for what was replaced."""
    await put(memory_store, "log", DATA)
    await put(memory_store, "log.1", b"older")
    await take_snapshot(memory_store.storage)
    memory_cluster.clock.advance(60)
    await operations.rename(memory_store, "log.1", "log.2")
    await operations.rename(memory_store, "log", "log.1")
    await put(memory_store, "log", b"new")
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    for key, data in {"log": b"new", "log.1": DATA, "log.2": b"older"}.items():
        assert await operations.get(result.process, key) == data
    assert not {kind for kind, _ in result.kinds()}


async def test_versions_that_were_named_since_the_snapshot_are_told(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """With versioning nothing is taken away for a name: it is a copy, and listed."""
    await operations.set_versioning(memory_store, publish.ENABLED)
    await put(memory_store, "old", DATA)
    await take_snapshot(memory_store.storage)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    result = await alone(memory_cluster, tmp_path)
    assert await operations.get(result.process, "old") == DATA
    assert ("uncertain", "new") in result.kinds()


async def test_a_note_that_the_snapshot_knows_and_the_drives_lack_is_written_again(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    (value,) = Audit(memory_cluster, memory_store).under(keys.NAMES).values()
    note = decode(NameRecord, value).blob
    assert note is not None
    await take_snapshot(memory_store.storage)
    paths = put_on_disks(memory_cluster, tmp_path)
    for file in shards_of(paths, note.blob):
        file.unlink()
    for drive in memory_cluster.drives.values():
        for name in [name for name in drive.shards if name.blob == note.blob]:
            del drive.shards[name]
    result = await recovered(memory_cluster, paths)
    result.check()
    assert (await Names(result.process.storage).run_once()).noted == 1
    result.check()
    second = await recovered(
        memory_cluster, put_on_disks(memory_cluster, tmp_path / "2"), metadata=False
    )
    assert await names_of(second.process, "old", "new") == {"new"}


async def test_a_rename_that_the_snapshot_knows_stays_as_it_is(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await put(memory_store, "old", DATA)
    await operations.rename(memory_store, "old", "new")
    await noted(memory_store)
    await take_snapshot(memory_store.storage)
    result = await alone(memory_cluster, tmp_path)
    assert await names_of(result.process, "old", "new") == {"new"}
    assert not {kind for kind, _ in result.kinds()}
    report = await Names(result.process.storage).run_once()
    assert (report.noted, report.dropped) == (0, 0)
    await operations.delete(result.process, "new")
    assert (await Names(result.process.storage).run_once()).dropped == 1
    memory_cluster.clock.advance(30 * DAY)
    await on_demand.collect_garbage(result.process.storage)
    result.check()
