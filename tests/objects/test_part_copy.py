"""Parts that share a blob with what they are copied from; and that no copy moves bytes that it need
not."""

from __future__ import annotations

import hashlib

import pytest

from s3gw import errors, limits
from s3gw.metadata.records import Checksums, Description, PartRecord
from s3gw.objects import publish
from s3gw.objects.multipart import create_upload, find_upload, list_parts
from s3gw.objects.part_copy import share_part
from s3gw.objects.write import put_object
from s3gw.workers import on_demand
from tests.stores import operations
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, Bytes, Process

LARGE, SMALL = b"large part " * 30_000, b"small"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 0)


def shards(process: Process) -> set[object]:
    return {shard for drive in process.cluster.drives.values() for shard in drive.shards}


def check(process: Process) -> None:
    audit = Audit(process.cluster, process)
    audit.check_held()
    audit.check_counts()
    audit.check_usage()


async def at_rest(process: Process) -> None:
    for _ in range(2):
        process.cluster.clock.advance(2 * 86_400.0)
        await on_demand.collect_garbage(process.storage)
    await on_demand.expire_completed(process.storage)
    Audit(process.cluster, process).check_at_rest()


async def share(
    process: Process,
    source: str,
    upload_id: bytes,
    number: int,
    first: int = 0,
    stop: int | None = None,
) -> PartRecord | None:
    upload = await find_upload(process.storage, BUCKET, "k", upload_id, number)
    target = await publish.read_target(process.storage, BUCKET, source)

    def span(found: publish.Target) -> tuple[int, int]:
        return first, operations.of_all(found)[1] if stop is None else stop

    return await share_part(process.storage, upload, number, target, span)


async def multipart(process: Process, key: str, *bodies: bytes) -> None:
    upload = await operations.start(process, key)
    for number, body in enumerate(bodies, 1):
        await operations.part(process, key, upload, number, body)
    await operations.complete(process, key, upload)


@pytest.mark.parametrize("body", [LARGE, SMALL, b""])
async def test_a_whole_object_becomes_a_part_without_moving_a_byte(
    memory_store: Process, body: bytes
) -> None:
    await operations.put(memory_store, "source", body)
    upload = await operations.start(memory_store, "k")
    before = shards(memory_store)
    for number in (1, 2):
        part = await share(memory_store, "source", upload, number)
        assert part is not None
        assert (part.size, part.etag) == (len(body), hashlib.md5(body).hexdigest())
    assert shards(memory_store) == before
    check(memory_store)
    await operations.delete(memory_store, "source")
    await operations.complete(memory_store, "k", upload)
    assert await operations.get(memory_store, "k") == body + body
    await at_rest(memory_store)
    assert await operations.get(memory_store, "k") == body + body
    await operations.delete(memory_store, "k")
    await at_rest(memory_store)
    assert not shards(memory_store)


async def test_whole_parts_of_an_object_become_parts_of_another(memory_store: Process) -> None:
    bodies = [LARGE, b"second", LARGE[::-1]]
    await multipart(memory_store, "source", *bodies)
    upload = await operations.start(memory_store, "k")
    before, first = shards(memory_store), 0
    for number, body in enumerate(bodies, 1):
        part = await share(memory_store, "source", upload, number, first, first + len(body))
        assert part is not None
        assert part.etag == hashlib.md5(body).hexdigest()
        first += len(body)
    assert shards(memory_store) == before
    check(memory_store)
    await operations.complete(memory_store, "k", upload)
    await operations.delete(memory_store, "source")
    await at_rest(memory_store)
    assert await operations.get(memory_store, "k") == b"".join(bodies)


@pytest.mark.parametrize(
    ("first", "stop"), [(1, len(LARGE)), (0, len(LARGE) - 1), (0, len(LARGE) + 6), (len(LARGE), 7)]
)
async def test_another_range_is_not_shared(memory_store: Process, first: int, stop: int) -> None:
    await multipart(memory_store, "source", LARGE, b"second")
    upload = await operations.start(memory_store, "k")
    assert await share(memory_store, "source", upload, 1, first, stop) is None
    assert (await list_parts(memory_store.storage, upload))[0].records == []


async def test_the_same_part_twice_and_another_in_its_place(memory_store: Process) -> None:
    await operations.put(memory_store, "source", LARGE)
    await operations.put(memory_store, "other", SMALL)
    upload = await operations.start(memory_store, "k")
    # What the part let go it takes back only when the collector has been there.
    for source, shared in (("source", True), ("source", True), ("other", True), ("source", False)):
        assert (await share(memory_store, source, upload, 1) is not None) == shared
        check(memory_store)
    await operations.part(memory_store, "k", upload, 1, b"sent")
    check(memory_store)
    memory_store.cluster.clock.advance(7200.0)
    await on_demand.collect_garbage(memory_store.storage)
    assert await share(memory_store, "source", upload, 1) is not None
    check(memory_store)
    await operations.delete(memory_store, "source")
    await operations.complete(memory_store, "k", upload)
    await at_rest(memory_store)
    assert await operations.get(memory_store, "k") == LARGE


async def test_an_upload_that_is_aborted_gives_the_blob_up_alone(memory_store: Process) -> None:
    await operations.put(memory_store, "source", LARGE)
    upload = await operations.start(memory_store, "k")
    await share(memory_store, "source", upload, 1)
    await operations.abort(memory_store, "k", upload)
    await at_rest(memory_store)
    assert await operations.get(memory_store, "source") == LARGE


async def test_a_source_replaced_meanwhile_gives_what_is_there_now_or_nothing(
    memory_store: Process,
) -> None:
    await operations.put(memory_store, "source", LARGE)
    upload_id = await operations.start(memory_store, "k")
    upload = await find_upload(memory_store.storage, BUCKET, "k", upload_id, 1)
    source = await publish.read_target(memory_store.storage, BUCKET, "source")
    await operations.put(memory_store, "source", SMALL)
    part = await share_part(memory_store.storage, upload, 1, source, operations.of_all)
    assert part is not None
    assert part.etag == hashlib.md5(SMALL).hexdigest()
    source = await publish.read_target(memory_store.storage, BUCKET, "source")
    upload = await find_upload(memory_store.storage, BUCKET, "k", upload_id, 2)
    await operations.delete(memory_store, "source")
    with pytest.raises(errors.NoSuchKey):
        await share_part(memory_store.storage, upload, 2, source, operations.of_all)
    check(memory_store)


@pytest.mark.parametrize(
    ("algorithm", "kept", "shared"),
    [
        ("", {}, True),
        ("CRC64NVME", {}, True),
        ("SHA256", {"SHA256": "A" * 43 + "="}, True),
        ("SHA256", {"SHA1": "A" * 27 + "="}, False),
        ("XXHASH3", {}, False),
    ],
)
async def test_a_checksum_that_is_known_of_the_blob_is_the_parts(
    memory_store: Process, algorithm: str, kept: dict[str, str], shared: bool
) -> None:
    class Summed(Bytes):
        def verify(self, digests: object) -> Checksums:
            return Checksums(kept, "FULL_OBJECT" if kept else "")

    storage = memory_store.storage
    target = await publish.read_target(storage, BUCKET, "source")
    await put_object(storage, target, "owner", Description(), Summed(LARGE), publish.no_check)
    upload_id = await create_upload(
        storage,
        BUCKET,
        "k",
        "owner",
        Description(),
        checksum_algorithm=algorithm,
        checksum_type="COMPOSITE" if algorithm else "",
    )
    part = await share(memory_store, "source", upload_id, 1)
    assert (part is not None) == shared
    if part is not None:
        assert set(part.checksums.values) == ({algorithm} if algorithm else set())


async def test_copies_share_the_blob_or_the_manifest_and_write_no_shard(
    memory_store: Process,
) -> None:
    await operations.put(memory_store, "large", LARGE)
    await operations.put(memory_store, "small", SMALL)
    await multipart(memory_store, "parts", LARGE, SMALL)
    before = shards(memory_store)
    for key in ("large", "small", "parts"):
        await operations.copy(memory_store, key, f"{key}-copy")
        found, copied = [
            await operations.record(memory_store, name) for name in (key, f"{key}-copy")
        ]
        assert found is not None
        assert copied is not None
        assert copied.data == found.data
    assert shards(memory_store) == before
    for key in ("large", "small", "parts"):
        await operations.delete(memory_store, key)
    await at_rest(memory_store)
    assert await operations.get(memory_store, "large-copy") == LARGE
    assert await operations.get(memory_store, "parts-copy") == LARGE + SMALL
