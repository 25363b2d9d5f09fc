"""Shards that say other than the rest: of another store, or with a footer that nothing bears out.
None of them decides anything, and all are told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from s3gw.metadata import keys
from s3gw.metadata.records import ProfileRecord, decode
from s3gw.rescue.extract import body
from s3gw.rescue.snapshot import take_snapshot
from tests.rescue.disks import Recovered, catalog_of, put_on_disks, recovered, reseal, shards_of
from tests.rescue.test_extract import rescue
from tests.rescue.test_rebuild import check_content, data_of, filled
from tests.stores import operations
from tests.stores.memory_store import BUCKET, MemoryCluster, Process

PROFILES = ("4+2", "4+2.small")


def profile(result: Recovered, name: str) -> ProfileRecord:
    return decode(ProfileRecord, result.audit().under(keys.PROFILES)[keys.profile(name)])


async def check_profiles(result: Recovered) -> None:
    for name in PROFILES:
        record = profile(result, name)
        assert (record.pg_count, record.stripe_bytes) == (8, 128 * 1024)
    assert profile(result, "4+2").scheme == "4+2"


async def another_store(root: Path, objects: int) -> list[str]:
    """The drives of another store with a profile of the same name and other groups."""
    other = MemoryCluster(8)
    await other.found(pg_count=16, stripe_bytes=64 * 1024)
    process = await other.process(seed=7)
    for number in range(objects):
        await operations.put(process, f"theirs/{number}", data_of(f"t{number}", 100_000))
    await operations.put(process, "twice", b"of another store")
    await take_snapshot(process.storage)
    return put_on_disks(other, root)


async def test_shards_of_another_store_are_left_out_however_many_they_are(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = await filled(memory_store)
    paths = put_on_disks(memory_cluster, tmp_path / "ours")
    theirs = await another_store(tmp_path / "theirs", objects=40)
    for own, other in zip(paths, theirs, strict=True):
        shutil.copytree(f"{other}/data", f"{own}/data", dirs_exist_ok=True)
    code, lines = rescue(capsys, "list", *paths)
    assert code == 0
    assert {line["key"] for line in lines if line["kind"] == "object"} == set(expected)
    told = {line["key"] for line in lines if line["kind"] == "outlier"}
    assert told >= {f"theirs/{number}" for number in range(40)} | {"twice"}
    assert lines[-1]["other_stores"] == 42
    result = await recovered(memory_cluster, paths)
    result.check()
    assert not result.report.source
    await check_profiles(result)
    await check_content(result.process, expected)
    assert ("outlier", "theirs/7") in result.kinds()
    assert await operations.record(result.process, "theirs/7") is None


@pytest.mark.parametrize("which", [0, -1])
async def test_a_blob_that_states_another_profile_misleads_nobody(
    which: int, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The first or the last blob of the scan; what it states fits where it lies."""
    kept = {f"k{number}": data_of(str(number), 70_000) for number in range(6)}
    refs = {}
    for key, data in kept.items():
        await operations.put(memory_store, key, data)
        refs[key] = await operations.blob_of(memory_store, key)
    paths = put_on_disks(memory_cluster, tmp_path)
    order = sorted(refs, key=lambda key: (int.from_bytes(refs[key].blob[:8]) % 8, refs[key].blob))
    odd = order[which]

    def state(said: dict[str, Any]) -> None:
        scheme, stripe_bytes, _, *rest = said["profile"]
        said["profile"] = [scheme, stripe_bytes, 4, *rest]

    for file in shards_of(paths, refs[odd].blob):
        reseal(file, state)
    result = await recovered(memory_cluster, paths)
    result.check()
    await check_profiles(result)
    assert ("outlier", odd) in result.kinds()
    assert await operations.record(result.process, odd) is None
    del kept[odd]
    await check_content(result.process, kept)


@pytest.mark.parametrize("size", [5_000, 300_000])
@pytest.mark.parametrize("lost", [0, 1])
async def test_one_shard_does_not_decide_what_its_blob_is(
    size: int, lost: int, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    """The one that is read first names another key, ETag and scheme."""
    data = data_of("k", size)
    await operations.put(memory_store, "k", data)
    blob = (await operations.blob_of(memory_store, "k")).blob
    paths = put_on_disks(memory_cluster, tmp_path)
    first, *others = shards_of(paths, blob)
    reseal(first, lambda said: said.update(key="other", etag="0" * 32, scheme="2+2"))
    if lost and size > 65_536:
        others[0].unlink()
    catalog = catalog_of(paths)
    assert catalog.scan.outliers == 1
    ((_, key, (version,)),) = catalog.versions(BUCKET)
    assert (key, b"".join(body(version))) == ("k", data)
    result = await recovered(memory_cluster, paths)
    result.check()
    assert ("outlier", "k") in result.kinds()
    assert await operations.get(result.process, "k") == data


async def test_a_shard_that_another_store_wrote_lends_no_block(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    await operations.put(memory_store, "k", data_of("k", 300_000))
    blob = (await operations.blob_of(memory_store, "k")).blob
    paths = put_on_disks(memory_cluster, tmp_path)
    files = shards_of(paths, blob)
    for file in files[:3]:
        reseal(file, lambda said: said.update(store="another"))
    ((_, _, (version,)),) = catalog_of(paths).versions(BUCKET)
    assert (version.state, version.blob.indexes) == ("lost", {3, 4, 5})


async def test_a_profile_that_nobody_knows_does_not_stop_a_recovery(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = await filled(memory_store)
    paths = put_on_disks(memory_cluster, tmp_path)
    ref = await operations.blob_of(memory_store, "k/300000")
    (file, *_) = shards_of(paths, ref.blob)
    stray = file.parent.parent.parent / "cold" / "3" / file.name
    stray.parent.mkdir(parents=True)
    shutil.copy(file, stray)
    reseal(stray, lambda said: [said.pop(name) for name in ("profile", "scheme")])
    result = await recovered(memory_cluster, paths)
    result.check()
    await check_content(result.process, expected)
    assert "outlier" in {kind for kind, _ in result.kinds()}
    assert keys.profile("cold") not in result.audit().under(keys.PROFILES)


@pytest.mark.parametrize("move", [-1, 1])
async def test_a_stray_copy_in_another_directory_hides_nothing(
    move: int, memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    expected = await filled(memory_store)
    paths = put_on_disks(memory_cluster, tmp_path)
    for key in ("k/5000", "k/300000"):
        for file in shards_of(paths, (await operations.blob_of(memory_store, key)).blob)[:2]:
            stray = file.parent.parent / str((int(file.parent.name) + move) % 8) / file.name
            stray.parent.mkdir(exist_ok=True)
            shutil.copy(file, stray)
    result = await recovered(memory_cluster, paths)
    result.check()
    await check_content(result.process, expected)
    assert {("outlier", "k/5000"), ("outlier", "k/300000")} <= result.kinds()
