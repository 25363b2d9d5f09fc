"""Encrypted and compressed objects over drives: what is stored, shared, moved and attacked."""

from __future__ import annotations

import dataclasses
import random

import msgspec
import pytest

from s3gw import errors, limits
from s3gw.cluster.profiles import create_profile
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    PartRecord,
    decode,
    encode,
)
from s3gw.objects import part_copy
from s3gw.objects.content.chunks import CHUNK_BYTES, SEALED_CHUNK_BYTES, sealed_size
from s3gw.objects.content.framing import ContentDamaged
from s3gw.objects.encrypted import framing_of, framing_of_version
from s3gw.objects.ingest import ingest
from s3gw.objects.keyring.ring import Ring, Sources, Wanted
from s3gw.objects.multipart import find_upload
from s3gw.objects.profiles import profile_of
from s3gw.objects.publish import read_target
from s3gw.objects.read import read_data
from s3gw.operations.trouble import translate
from s3gw.workers import on_demand, reprofile
from s3gw.workers.reprofile import Reprofiler
from tests.stores import encrypted, operations
from tests.stores.audit import Audit
from tests.stores.encrypted import ALL, CUSTOMER, KMS, OWN, S3
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster, Process

TEXT = b"".join(b"line %d of a text that compresses well\n" % n for n in range(20_000))
NOISE = random.Random(5).randbytes(300_000)
SIZES = (0, 1, 65_520, 65_536, 65_537, 131_072, 300_000)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


async def stored_bytes(process: Process, ref: BlobRef) -> bytes:
    pieces = read_data(process.storage, ref, 0, ref.size)
    return b"".join([bytes(buffer) async for buffers in pieces for buffer in buffers])


async def record_of(process: Process, key: str) -> ObjectRecord:
    record = await operations.record(process, key)
    assert record is not None
    return record


@pytest.mark.parametrize("wanted", ALL.values(), ids=ALL)
@pytest.mark.parametrize("size", SIZES)
async def test_what_is_stored_is_sealed_and_comes_back(
    memory_store: Process, wanted: Wanted, size: int
) -> None:
    record = await encrypted.put(memory_store, "k", NOISE[:size], wanted)
    assert isinstance(record.data, BlobRef)
    assert (record.size, record.data.size) == (size, sealed_size(size))
    stored = await stored_bytes(memory_store, record.data)
    assert size < 16 or NOISE[:16] not in stored
    assert await encrypted.get(memory_store, "k", wanted=wanted) == NOISE[:size]
    for first, stop in ((0, 1), (65_530, 65_540), (size - 1, size)):
        if 0 <= first < stop <= size:
            found = await encrypted.get(memory_store, "k", first, stop, wanted)
            assert found == NOISE[first:stop]


async def test_a_range_reads_the_chunks_that_it_covers_alone(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await encrypted.put(memory_store, "k", NOISE)
    asked: list[tuple[int, int]] = []
    real = memory_store.storage.blobs.read

    def read(ref: BlobRef, first: int, stop: int, **more: int):
        asked.append((first, stop))
        return real(ref, first, stop, **more)

    monkeypatch.setattr(memory_store.storage.blobs, "read", read)
    assert await encrypted.get(memory_store, "k", 70_000, 70_010) == NOISE[70_000:70_010]
    assert asked == [(SEALED_CHUNK_BYTES, 2 * SEALED_CHUNK_BYTES)]


@pytest.mark.parametrize("wanted", [None, S3], ids=["plain", "sealed"])
async def test_compressed_content_is_shorter_and_read_in_ranges(
    memory_store: Process, wanted: Wanted | None
) -> None:
    await encrypted.compress(memory_store)
    record = await encrypted.put(memory_store, "k", TEXT, wanted)
    assert isinstance(record.data, BlobRef)
    assert record.description.compression == "zstd"
    assert record.data.size < record.size // 3
    assert await encrypted.get(memory_store, "k", wanted=wanted) == TEXT
    for first in (0, 262_143, 262_144, 600_000):
        found = await encrypted.get(memory_store, "k", first, first + 10, wanted)
        assert found == TEXT[first : first + 10]
    noise = await encrypted.put(memory_store, "n", NOISE, wanted)
    assert noise.description.compression == ""
    assert await encrypted.get(memory_store, "n", wanted=wanted) == NOISE


@pytest.mark.parametrize("wanted", [None, *ALL.values()], ids=["plain", *ALL])
async def test_parts_are_framed_by_themselves(memory_store: Process, wanted: Wanted | None) -> None:
    await encrypted.compress(memory_store)
    bodies = [TEXT, NOISE, b"end"]
    await encrypted.multipart(memory_store, "k", bodies, wanted)
    whole = b"".join(bodies)
    assert await encrypted.get(memory_store, "k", wanted=wanted) == whole
    at = len(TEXT)
    found = await encrypted.get(memory_store, "k", at - 3, at + 70_000, wanted)
    assert found == whole[at - 3 : at + 70_000]


@pytest.mark.parametrize("wanted", ALL.values(), ids=ALL)
async def test_a_copy_with_the_same_keys_shares_the_blob(
    memory_store: Process, wanted: Wanted
) -> None:
    source = await encrypted.put(memory_store, "k", NOISE, wanted)
    copied = await encrypted.copy(memory_store, "k", "copy", wanted, wanted.customer_key)
    assert copied.data == source.data
    assert copied.etag == source.etag
    await operations.delete(memory_store, "k")
    assert await encrypted.get(memory_store, "copy", wanted=wanted) == NOISE


@pytest.mark.parametrize("before", [None, *ALL.values()], ids=["plain", *ALL])
@pytest.mark.parametrize("after", [None, *ALL.values()], ids=["plain", *ALL])
async def test_a_copy_with_other_keys_is_written_anew(
    memory_store: Process, before: Wanted | None, after: Wanted | None
) -> None:
    source = await encrypted.put(memory_store, "k", NOISE, before)
    key = encrypted.key_of(before)
    copied = await encrypted.copy(memory_store, "k", "copy", after, key)
    assert (copied.data == source.data) == (before == after)
    assert copied.content_id != source.content_id or before == after
    assert await encrypted.get(memory_store, "copy", wanted=after) == NOISE


async def test_a_copy_with_another_customers_key_is_refused(memory_store: Process) -> None:
    await encrypted.put(memory_store, "k", NOISE, OWN)
    for wanted in (OWN, None):
        with pytest.raises(errors.AccessDenied):
            await encrypted.copy(memory_store, "k", "copy", wanted, b"x" * 32)
    assert await operations.record(memory_store, "copy") is None


async def share(
    process: Process, source: str, upload_id: bytes, number: int, first: int, stop: int
) -> PartRecord | None:
    """UploadPartCopy of [first, stop) of a source into an upload of the key "copy"."""
    storage = process.storage
    upload = await find_upload(storage, BUCKET, "copy", upload_id, number)
    found = await read_target(storage, BUCKET, source)
    assert found.visible is not None
    held = part_copy.Keys(
        found.visible.content_id,
        await framing_of_version(storage, found.visible),
        await framing_of(storage, upload.record.description, upload_id),
    )
    return await part_copy.share_part(
        storage, upload, number, found, lambda record: (first, stop), held
    )


@pytest.mark.parametrize("wanted", [None, S3, KMS], ids=["plain", "S3", "KMS"])
@pytest.mark.parametrize("compressed", [False, True], ids=["whole", "compressed"])
async def test_parts_share_sealed_blobs_with_the_same_keys(
    memory_cluster: MemoryCluster,
    memory_store: Process,
    wanted: Wanted | None,
    *,
    compressed: bool,
) -> None:
    if compressed:
        await encrypted.compress(memory_store)
    whole = await encrypted.put(memory_store, "whole", TEXT, wanted)
    await encrypted.multipart(memory_store, "parts", [NOISE, TEXT, b"end"], wanted)
    upload_id = await encrypted.begin(memory_store, "copy", wanted)
    border = len(NOISE)
    first = await share(memory_store, "whole", upload_id, 1, 0, len(TEXT))
    second = await share(memory_store, "parts", upload_id, 2, border, border + len(TEXT))
    assert first is not None
    assert second is not None
    assert first.blob == whole.data
    assert await share(memory_store, "whole", upload_id, 3, 1, len(TEXT)) is None
    await operations.complete(memory_store, "copy", upload_id)
    await operations.delete(memory_store, "whole")
    await operations.delete(memory_store, "parts")
    memory_cluster.clock.advance(10_000)
    await on_demand.collect_garbage(memory_store.storage)
    assert await encrypted.get(memory_store, "copy", wanted=wanted) == TEXT * 2
    at = len(TEXT)
    found = await encrypted.get(memory_store, "copy", at - 7, at + 7, wanted)
    assert found == (TEXT * 2)[at - 7 : at + 7]


# Whoever has drives and metadata in his hands, and not the keys.


async def plant(process: Process, key: str, stored: bytes, size: int) -> None:
    """Let a key's record refer to these stored bytes, with checksums that fit."""
    storage = process.storage
    record = await record_of(process, key)
    bucket = (await storage.store.get(BucketRecord, keys.bucket(BUCKET))).record
    assert bucket is not None
    profile = await profile_of(storage, bucket, "STANDARD")
    made = await ingest(
        storage, profile, BUCKET, Bytes(stored), lambda learned: b"\x80", most=len(stored)
    )
    forged = msgspec.structs.replace(record, data=made.written.ref, size=size)
    await encrypted.overwrite(process, key, forged)


@pytest.mark.parametrize("attack", ["swap", "cut", "cut-size", "replay", "flip", "append"])
async def test_forged_bytes_are_never_given_out(memory_store: Process, attack: str) -> None:
    size = 4 * CHUNK_BYTES
    record = await encrypted.put(memory_store, "k", NOISE[:size])
    other = await encrypted.put(memory_store, "other", NOISE[-size:])
    assert isinstance(record.data, BlobRef)
    assert isinstance(other.data, BlobRef)
    stored = await stored_bytes(memory_store, record.data)
    foreign = await stored_bytes(memory_store, other.data)
    chunk = SEALED_CHUNK_BYTES
    forged = {
        "swap": stored[chunk : 2 * chunk] + stored[:chunk] + stored[2 * chunk :],
        "cut": stored[: 3 * chunk],
        "cut-size": stored[: 3 * chunk],
        "replay": foreign[:chunk] + stored[chunk:],
        "flip": stored[:5] + bytes([stored[5] ^ 1]) + stored[6:],
        "append": stored + stored[-chunk:],
    }[attack]
    told = {"cut-size": 3 * CHUNK_BYTES, "append": 5 * CHUNK_BYTES}.get(attack, size)
    await plant(memory_store, "k", forged, told)
    with pytest.raises(ContentDamaged) as caught:
        await encrypted.get(memory_store, "k")
    assert translate(caught.value).status == 503
    target_chunk = {"cut-size": 2, "append": 3}.get(attack, 0)
    begin = target_chunk * CHUNK_BYTES
    with pytest.raises(ContentDamaged):
        await encrypted.get(memory_store, "k", begin, begin + 10)


async def test_records_that_change_their_blobs_are_found_out(memory_store: Process) -> None:
    one = await encrypted.put(memory_store, "one", NOISE[:100_000])
    two = await encrypted.put(memory_store, "two", NOISE[-100_000:])
    await encrypted.overwrite(memory_store, "one", msgspec.structs.replace(one, data=two.data))
    with pytest.raises(ContentDamaged):
        await encrypted.get(memory_store, "one")
    described = msgspec.structs.replace(one, data=two.data, description=two.description)
    await encrypted.overwrite(memory_store, "one", described)
    with pytest.raises(ContentDamaged):
        await encrypted.get(memory_store, "one")


async def test_parts_that_change_places_are_found_out(memory_store: Process) -> None:
    await encrypted.multipart(memory_store, "k", [NOISE[:70_000], NOISE[-70_000:]])
    record = await record_of(memory_store, "k")
    assert isinstance(record.data, ManifestRef)
    page_key = keys.manifest_page(record.data.manifest, 0)
    (item,) = (await memory_store.kv.get_many([page_key])).items
    assert item is not None
    one, two = decode(ManifestPage, item.value).parts
    swapped = (
        msgspec.structs.replace(one, blob=two.blob),
        msgspec.structs.replace(two, blob=one.blob),
    )
    await memory_store.kv.commit([], [Put(page_key, encode(ManifestPage(swapped)))])
    with pytest.raises(ContentDamaged):
        await encrypted.get(memory_store, "k")


# What works on stored bytes needs no key.


async def test_lost_shards_of_sealed_blobs_are_rebuilt_and_verified(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await encrypted.put(memory_store, "large", NOISE, KMS)
    await encrypted.put(memory_store, "small", NOISE[:1000], OWN)
    for number, drive in enumerate(memory_cluster.drives.values()):
        if number < 2:
            drive.shards.clear()
    await on_demand.verify_all(memory_store.storage)
    await on_demand.repair_all(memory_store.storage)
    assert await encrypted.get(memory_store, "large", wanted=KMS) == NOISE
    assert await encrypted.get(memory_store, "small", wanted=OWN) == NOISE[:1000]
    report = await on_demand.verify_all(memory_store.storage)
    assert (report.damaged, report.missing) == (0, 0)


async def test_another_profile_needs_no_key(memory_store: Process) -> None:
    await create_profile(
        memory_store.kv,
        memory_store.topology,
        "wide",
        "5+3",
        pg_count=16,
        stripe_bytes=192 * 1024,
        now_ms=1,
    )
    await encrypted.compress(memory_store)
    for name, wanted in ALL.items():
        await encrypted.put(memory_store, name, NOISE, wanted)
        await encrypted.multipart(memory_store, f"{name}-parts", [TEXT, b"end"], wanted)
    without = Ring(memory_store.kv, Sources(), memory_store.storage.clock_ms)
    ring, memory_store.storage.ring = memory_store.storage.ring, without
    await reprofile.start(memory_store.kv, BUCKET, "wide")
    worker = Reprofiler(memory_store.storage)
    for _ in range(100):
        await worker.work()
    job = await reprofile.status(memory_store.kv, BUCKET)
    assert job is not None
    assert job.state == reprofile.DONE
    memory_store.storage.ring = ring
    for name, wanted in ALL.items():
        assert (await operations.blob_of(memory_store, name)).profile == "wide"
        assert await encrypted.get(memory_store, name, wanted=wanted) == NOISE
        assert await encrypted.get(memory_store, f"{name}-parts", wanted=wanted) == TEXT + b"end"


async def test_a_rename_and_a_version_need_no_key(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await encrypted.put(memory_store, "k", NOISE, OWN)
    await operations.rename(memory_store, "k", "renamed")
    assert await encrypted.get(memory_store, "renamed", wanted=OWN) == NOISE
    await operations.set_versioning(memory_store, "Enabled")
    await encrypted.put(memory_store, "renamed", b"newer", S3)
    assert await encrypted.get(memory_store, "renamed", wanted=S3) == b"newer"
    await operations.delete(memory_store, "renamed")
    Audit(memory_cluster, memory_store)


async def test_a_customers_key_is_nowhere_in_the_store(
    memory_cluster: MemoryCluster, memory_store: Process
) -> None:
    await encrypted.put(memory_store, "k", NOISE, OWN)
    await encrypted.multipart(memory_store, "parts", [NOISE], OWN)
    kept = [item.value for item in memory_cluster.engine.items.values()]
    kept += [bytes(data) for d in memory_cluster.drives.values() for data in d.shards.values()]
    assert not any(CUSTOMER[:16] in value for value in kept)
    assert not any(b"m" * 16 in value for value in kept)


async def test_named_keys_open_what_they_wrapped_when_the_region_had_another_name(
    memory_store: Process,
) -> None:
    await encrypted.put(memory_store, "k", NOISE, KMS)
    before = memory_store.storage.ring
    sources = dataclasses.replace(before.sources, region="eu-central-1")
    ring = Ring(memory_store.kv, sources, memory_store.storage.clock_ms)
    memory_store.storage.ring = ring
    assert await encrypted.get(memory_store, "k", wanted=KMS) == NOISE
    record = await operations.record(memory_store, "k")
    assert record is not None
    assert record.description.encryption is not None
    await ring.named.rotate("default", await ring.usable_master())
    anew = await ring.rewrapped(record.description.encryption, record.content_id)
    assert anew is not None
    assert await ring.open(anew, record.content_id) == await before.open(
        record.description.encryption, record.content_id
    )
