"""Which profile an object's bytes go into, and which of its groups suits the bucket's policy."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from nodes.protocol import Buffer, ShardName
from s3gw import errors
from s3gw.cluster.policies import BALANCED, LATENCY, SPREAD, preference
from s3gw.cluster.profiles import create_profile
from s3gw.cluster.topology import Group
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    Checksums,
    Description,
    ManifestRef,
    ObjectRecord,
    decode,
    encode,
)
from s3gw.objects import publish
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.multipart import create_upload
from s3gw.objects.publish import no_check
from s3gw.objects.write import put_object
from s3gw.operations.access import Access
from s3gw.operations.call import Call, Origin, Principal, Settings
from s3gw.operations.create_bucket import create_bucket
from tests.stores.memory_store import BUCKET, PROFILE, Bytes, MemoryCluster, Process
from tests.stores.operations import blob_of, complete, get, part, put, record

IA = Description(storage_class="STANDARD_IA")
BODY = random.Random(4).randbytes(200_000)
OTHER = "other"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from s3gw import limits

    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


@pytest.fixture
async def process(memory_store: Process) -> Process:
    """With a profile that claims STANDARD_IA."""
    await make(memory_store, "cold", storage_classes=("STANDARD_IA",))
    return memory_store


async def make(process: Process, name: str, scheme: str = "5+3", **options: Any) -> None:
    await create_profile(
        process.kv, process.topology, name, scheme, pg_count=16, now_ms=1, **options
    )


async def put_as(
    process: Process, key: str, description: Description, body: bytes = BODY, bucket: str = BUCKET
) -> ObjectRecord:
    target = await publish.read_target(process.storage, bucket, key)
    return await put_object(process.storage, target, "owner", description, Bytes(body), no_check)


async def copy_as(process: Process, source: str, key: str, description: Description) -> BlobRef:
    copied = await copy_object(
        process.storage,
        await publish.read_target(process.storage, BUCKET, source),
        await publish.read_target(process.storage, BUCKET, key),
        Copying("owner", lambda found: description, "", no_check, lambda found: None),
    )
    assert isinstance(copied.data, BlobRef)
    return copied.data


async def test_an_object_goes_where_its_storage_class_or_its_bucket_says(
    process: Process,
) -> None:
    await put_as(process, "cold", IA)
    await put_as(process, "cold-small", IA, b"x")
    await put_as(process, "warm", Description())
    await put_as(process, "glacier", Description(storage_class="GLACIER"))
    homes = [(await blob_of(process, key)).profile for key in ("cold", "cold-small", "warm")]
    assert homes == ["cold", "cold.small", PROFILE]
    assert (await blob_of(process, "glacier")).profile == PROFILE
    assert await get(process, "cold") == BODY


async def test_an_upload_in_parts_goes_where_its_storage_class_says(process: Process) -> None:
    upload = await create_upload(
        process.storage, BUCKET, "parts", "owner", IA, checksum_algorithm="", checksum_type=""
    )
    await part(process, "parts", upload, 1, BODY)
    await complete(process, "parts", upload)
    found = await record(process, "parts")
    assert found is not None
    assert isinstance(found.data, ManifestRef)
    assert found.data.blob.profile == "cold.small"
    assert await get(process, "parts") == BODY
    held = [key for key in process.cluster.engine.items if key.startswith(b"blob/cold/")]
    assert len(held) == 1


async def test_a_copy_of_the_same_class_shares_the_blob_and_of_another_does_not(
    process: Process,
) -> None:
    await put_as(process, "cold", IA)
    first = await blob_of(process, "cold")
    assert await copy_as(process, "cold", "shared", IA) == first
    moved = await copy_as(process, "cold", "warm", Description())
    assert (moved.profile, moved.blob != first.blob) == (PROFILE, True)
    assert await copy_as(process, "warm", "warm-too", Description()) == moved
    assert (await copy_as(process, "warm", "cold-again", IA)).profile == "cold"
    for key in ("shared", "warm", "warm-too", "cold-again"):
        assert await get(process, key) == BODY


async def test_a_profile_made_by_another_process_is_used_at_once(memory_store: Process) -> None:
    other = await memory_store.cluster.process(seed=8)
    await make(memory_store, "new")
    bucket = BucketRecord(1, "owner", "us-east-1", "new", b"n" * 16)
    await memory_store.kv.commit([], [Put(keys.bucket(OTHER), encode(bucket))])
    await put_as(other, "k", Description(), bucket=OTHER)
    third = await memory_store.cluster.process(seed=9)
    third.topology._profiles.clear()
    target = await publish.read_target(third.storage, OTHER, "k")
    assert target.visible is not None
    assert isinstance(target.visible.data, BlobRef)
    assert target.visible.data.profile == "new"


async def test_a_bucket_of_a_profile_that_is_nowhere_is_an_outage_and_no_bug(
    memory_store: Process,
) -> None:
    bucket = BucketRecord(1, "owner", "us-east-1", "nowhere", b"n" * 16)
    await memory_store.kv.commit([], [Put(keys.bucket(OTHER), encode(bucket))])
    with pytest.raises(errors.ServiceUnavailable):
        await publish.read_target(memory_store.storage, OTHER, "k")


# --- CreateBucket ---------------------------------------------------------------------------


class NoBody:
    async def read(self, limit: int) -> bytes:
        return b""

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        return
        yield b""

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        return Checksums()


async def create(process: Process, name: str, **headers: str) -> BucketRecord:
    call = Call(
        operation="CreateBucket",
        bucket_name=name,
        key="",
        query={},
        headers={f"x-s3gw-{header}": value for header, value in headers.items()},
        principal=Principal("owner", "owner"),
        signed=True,
        storage=process.storage,
        settings=Settings("us-east-1", PROFILE, "http://localhost"),
        request_id="1",
        body=NoBody(),  # type: ignore[arg-type]
        access=Access("000000000000"),
        origin=Origin(0, "127.0.0.1", secure=False),
    )
    await create_bucket(call)
    (item,) = (await process.kv.get_many([keys.bucket(name)])).items
    assert item is not None
    return decode(BucketRecord, item.value)


async def test_a_bucket_names_its_profile_and_policy_when_it_is_made(process: Process) -> None:
    plain = await create(process, "plain")
    assert (plain.profile, plain.placement) == (PROFILE, "")
    chosen = await create(process, "chosen", profile="cold", placement=SPREAD)
    assert (chosen.profile, chosen.placement) == ("cold", SPREAD)


@pytest.mark.parametrize(
    "headers",
    [
        {"profile": "none"},
        {"profile": "cold.small"},
        {"profile": ""},
        {"placement": "near"},
        {"placement": "SPREAD"},
    ],
)
async def test_an_unknown_profile_or_policy_makes_no_bucket(
    process: Process, headers: dict[str, str]
) -> None:
    with pytest.raises(errors.InvalidArgument):
        await create(process, "refused", **headers)
    assert keys.bucket("refused") not in process.cluster.engine.items


# --- Placement policies ---------------------------------------------------------------------


async def zoned(scheme: str = "4+2", drives: int = 12, zones: int = 4) -> Process:
    cluster = MemoryCluster(drives, zones=zones)
    await cluster.found(scheme, pg_count=64)
    return await cluster.process()


def zones_of(process: Process, group: Group) -> list[str]:
    return [process.cluster.zone_of[node] for node in group.nodes]


def mean_score(process: Process, placement: str, measure: str, draws: int = 300) -> float:
    profile = next(p for p in process.topology.profiles() if p.companion)
    scores = []
    score = preference(measure, process.directory, "z1")
    assert score is not None
    for _ in range(draws):
        _, group = process.blobs.draw(profile, lambda group: False, placement=placement)
        scores.append(score(group))
    return sum(scores) / draws


async def test_latency_puts_more_data_shards_into_the_own_zone() -> None:
    process = await zoned()
    process.blobs.zone = "z1"
    plain = mean_score(process, BALANCED, LATENCY)
    assert mean_score(process, LATENCY, LATENCY) >= plain + 0.15
    assert mean_score(process, "", LATENCY) == pytest.approx(plain, abs=0.05)


async def test_latency_without_a_zone_is_balanced() -> None:
    process = await zoned()
    assert preference(LATENCY, process.directory, "") is None
    assert preference(BALANCED, process.directory, "z1") is None


async def test_spread_covers_more_zones() -> None:
    process = await zoned("4+2", drives=7, zones=4)  # the last zone has one node
    assert mean_score(process, BALANCED, SPREAD) < 0.99
    assert mean_score(process, SPREAD, SPREAD) == 1


async def test_a_policy_takes_at_most_eight_draws_and_stops_at_the_best() -> None:
    process = await zoned()
    profile = process.profile()
    drawn = 0
    plain = process.blobs._random_bytes

    def counting(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return plain(size)

    process.blobs._random_bytes = counting
    process.blobs.zone = "nowhere"
    process.blobs.draw(profile, lambda group: False, placement=LATENCY)
    assert drawn == 8
    drawn = 0
    process.blobs.draw(profile, lambda group: False)
    assert drawn == 1
    process.blobs.zone = "z1"
    companion = process.topology.companion(profile)
    for _ in range(50):
        _, group = process.blobs.draw(companion, lambda group: False, placement=LATENCY)
        if "z1" in zones_of(process, group):
            return
    raise AssertionError("no group of copies has one in the zone")


async def test_a_group_to_be_avoided_is_not_taken_for_the_sake_of_a_policy() -> None:
    process = await zoned()
    process.blobs.zone = "z1"
    profile = process.profile()
    for _ in range(100):
        _, group = process.blobs.draw(
            profile, lambda group: group.number % 2 == 0, placement=LATENCY
        )
        assert group.number % 2 == 1


async def test_the_policy_of_the_bucket_is_obeyed_by_writes() -> None:
    process = await zoned()
    process.blobs.zone = "z1"
    (item,) = (await process.kv.get_many([keys.bucket(BUCKET)])).items
    assert item is not None
    near = msgspec.structs.replace(decode(BucketRecord, item.value), placement=LATENCY)
    score = preference(LATENCY, process.directory, "z1")
    assert score is not None
    means = []
    for bucket in (decode(BucketRecord, item.value), near):
        await process.kv.commit([], [Put(item.key, encode(bucket))])
        total = 0.0
        for number in range(60):
            await put(process, f"k{number}", BODY[:70_000])
            ref = await blob_of(process, f"k{number}")
            total += score(process.topology.group_of(ref.profile, ref.blob))
        means.append(total / 60)
    assert means[1] >= means[0] + 0.15


async def test_reads_of_copies_take_the_one_in_the_own_zone() -> None:
    process = await zoned()
    process.blobs.zone = "z1"
    profile = process.topology.companion(process.profile())
    asked: list[str] = []
    for name, drive in process.cluster.drives.items():

        async def read(
            shard: ShardName, offset: int, length: int, name: str = name, plain: Any = drive.read
        ) -> bytes:
            asked.append(process.cluster.zone_of[name])
            found: bytes = await plain(shard, offset, length)
            return found

        drive.read = read  # type: ignore[method-assign]
    near = 0
    for number in range(40):
        await put(process, f"k{number}", b"small")
        ref = await blob_of(process, f"k{number}")
        group = process.topology.group_of(profile.name, ref.blob)
        asked.clear()
        assert await get(process, f"k{number}") == b"small"
        if "z1" in zones_of(process, group):
            near += 1
            assert asked == ["z1"]
    assert near >= 10
