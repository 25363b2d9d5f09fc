"""A move to another storage class while another move of the same bytes is under way, or comes
afterwards by a decision made before: in the end the bytes are where the class wants them."""

from __future__ import annotations

import msgspec
import pytest

from s3gw import limits
from s3gw.cluster.profiles import claim_storage_classes
from s3gw.kv.interface import Item, Put
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    Reference,
    Repair,
    decode,
    encode,
)
from s3gw.objects.buckets import change_bucket
from s3gw.workers import blob_move, on_demand, reencode
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.lifecycle_walk import LifecycleWalk
from s3gw.workers.reencode import Entry
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, PROFILE, Process
from tests.stores.operations import copy, delete, get, put
from tests.workers.lifecycle_rules import DAY, ROUNDED, carry_out, moves, rule, set_rules
from tests.workers.test_reprofile import WIDE, make_wide
from tests.workers.test_transition import (
    ALL_SIZES,
    CLASS,
    COLD,
    DATA,
    SMALL,
    TO_COLD,
    at_rest,
    known,
    make_cold,
    profiles_of,
    upload,
)

KINDS = ("blob", "parts")
AT_HOME = {COLD, "cold.small"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


@pytest.fixture
async def process(memory_store: Process) -> Process:
    await make_cold(memory_store)
    await make_wide(memory_store)
    return memory_store


async def fill(process: Process, kind: str) -> bytes:
    if kind == "parts":
        await upload(process, "k")
        return DATA + SMALL
    await put(process, "k", DATA)
    return DATA


def blobs_of(process: Process, found: ObjectRecord) -> list[BlobRef]:
    if isinstance(found.data, BlobRef):
        return [found.data]
    assert isinstance(found.data, ManifestRef)
    pages = Audit(process.cluster, process).under(keys.manifest(found.data.manifest)).values()
    return [part.blob for page in pages for part in decode(ManifestPage, page).parts]


async def begin_move(process: Process, ref: BlobRef, target: str, *, copied: bool) -> Entry:
    """What a move to another profile leaves that is cut short: an entry, and maybe a copy."""
    entry = await blob_move._entry(process.storage, BUCKET, ref, target, "a test")
    if copied:
        return await reencode.write_copy(process.storage, UNCLAIMED, entry, ref)
    record = msgspec.structs.replace(entry.record, not_before_ms=0)
    await process.kv.commit([], [Put(entry.key, encode(record))])
    return entry


async def begin_moves(process: Process, target: str, *, copied: bool) -> None:
    for ref in blobs_of(process, await known(process, "k")):
        await begin_move(process, ref, target, copied=copied)


async def to_cold_tomorrow(process: Process) -> None:
    await set_rules(process, TO_COLD)
    await LifecycleWalk(process.storage).run_once()


async def check(process: Process, body: bytes) -> None:
    """Label and data agree, once everything that is under way has ended."""
    for _ in range(3):
        process.cluster.clock.advance(3600)
        await on_demand.repair_all(process.storage)
        await carry_out(process)
    found = await known(process, "k")
    assert found.description.storage_class == CLASS
    assert profiles_of(process, found) <= AT_HOME
    assert await get(process, "k") == body
    await at_rest(process)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_move_elsewhere_that_was_begun_before(
    process: Process, kind: str, copied: bool
) -> None:
    body = await fill(process, kind)
    await to_cold_tomorrow(process)
    await begin_moves(process, WIDE, copied=copied)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 1
    found = await known(process, "k")
    assert found.description.storage_class == CLASS
    assert profiles_of(process, found) <= AT_HOME
    await check(process, body)


@pytest.mark.parametrize("kind", KINDS)
async def test_from_class_to_class_nothing_moves_twice(process: Process, kind: str) -> None:
    await claim_storage_classes(process.kv, process.topology, WIDE, ["STANDARD_IA"])
    body = await fill(process, kind)
    both = rule(moves(30, "STANDARD_IA") + moves(60, CLASS), chosen=ALL_SIZES)
    await set_rules(process, both)
    await LifecycleWalk(process.storage).run_once()
    for days, storage_class, home in ((30, "STANDARD_IA", WIDE), (30, CLASS, COLD)):
        process.cluster.clock.advance(days * DAY + ROUNDED)
        assert (await carry_out(process)).moved == 1
        found = await known(process, "k")
        assert found.description.storage_class == storage_class
        assert profiles_of(process, found) <= {home, f"{home}.small"}
        assert not [key for key in process.cluster.engine.items if key.startswith(keys.REPAIRS)]
    await check(process, body)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_are_there_already_are_not_taken_away(
    process: Process, kind: str, copied: bool
) -> None:
    """The bucket was in the profile that the class belongs to, and leaves it."""
    await change_bucket(
        process.storage, BUCKET, lambda bucket: msgspec.structs.replace(bucket, profile=COLD)
    )
    body = await fill(process, kind)
    await change_bucket(
        process.storage, BUCKET, lambda bucket: msgspec.structs.replace(bucket, profile=PROFILE)
    )
    assert profiles_of(process, await known(process, "k")) <= AT_HOME
    await to_cold_tomorrow(process)
    await begin_moves(process, PROFILE, copied=copied)
    process.cluster.clock.advance(DAY + ROUNDED)
    await carry_out(process)
    await check(process, body)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_move_elsewhere_that_was_decided_before_and_comes_later(
    process: Process, kind: str, copied: bool
) -> None:
    body = await fill(process, kind)
    await to_cold_tomorrow(process)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 1
    await begin_moves(process, WIDE, copied=copied)
    await on_demand.repair_all(process.storage)
    await check(process, body)


async def test_what_shares_the_bytes_of_a_class_keeps_its_own_class(process: Process) -> None:
    await fill(process, "blob")
    await to_cold_tomorrow(process)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 1
    await copy(process, "k", "copied")
    (ref,) = blobs_of(process, await known(process, "k"))
    await begin_move(process, ref, WIDE, copied=True)
    await check(process, DATA)
    assert await get(process, "copied") == DATA


async def test_the_class_is_not_written_over_parts_that_move_meanwhile(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts are where they should be, and one of them is taken away before the commit."""
    from s3gw.workers import transition

    body = await fill(process, "parts")
    await to_cold_tomorrow(process)
    plain, raced = transition._commit_class, False

    async def late(*arguments):  # type: ignore[no-untyped-def]
        nonlocal raced
        if not raced:
            raced = True
            ref = blobs_of(process, await known(process, "k"))[0]
            entry = await begin_move(process, ref, WIDE, copied=True)
            assert await reencode.Swap(process.storage, UNCLAIMED, entry, ref).run()
        await plain(*arguments)

    monkeypatch.setattr(transition, "_commit_class", late)
    process.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(process)
    assert (raced, report.moved, report.lost) == (True, 0, 1)
    assert (await known(process, "k")).description.storage_class == "STANDARD"
    await check(process, body)


async def test_what_goes_on_to_its_class_while_others_still_arrive_leaves_nothing_behind(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three objects share a blob that is moved, and all have got another class meanwhile: of the
    first on, their bytes are queued for that, and a worker begins before the others have come."""
    await put(process, "k", DATA)
    await copy(process, "k", "l")
    await copy(process, "k", "m")
    ref = (await known(process, "k")).data
    assert isinstance(ref, BlobRef)
    entry = await begin_move(process, ref, WIDE, copied=True)
    for key in ("k", "l", "m"):
        found = await known(process, key)
        described = msgspec.structs.replace(found.description, storage_class=CLASS)
        marked = msgspec.structs.replace(found, description=described)
        await process.kv.commit([], [Put(keys.object_(BUCKET, key), encode(marked))])
    swap = reencode.Swap(process.storage, UNCLAIMED, entry, ref)
    plain, begun = swap._move, 0

    async def moving(item: Item, reference: Reference) -> None:
        nonlocal begun
        await plain(item, reference)
        for key, value in Audit(process.cluster, process).under(keys.REPAIRS).items():
            queued = decode(Repair, value)
            if key != entry.key and queued.copy is None:
                revision = process.cluster.engine.items[key].revision
                arrived = BlobRef(queued.profile, queued.blob, ref.size, ref.crc64)
                onward = Entry(key, revision, queued)
                await reencode.write_copy(process.storage, UNCLAIMED, onward, arrived)
                begun += 1

    monkeypatch.setattr(swap, "_move", moving)
    assert await swap.run()
    assert begun == 1
    await check(process, DATA)
    for key in ("k", "l", "m"):
        assert profiles_of(process, await known(process, key)) <= AT_HOME


async def test_parts_go_on_to_the_class_of_a_version_behind_many_that_are_gone(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(process, "parts")
    for number in range(7):
        await copy(process, "k", f"a{number}")
        await delete(process, f"a{number}")
    entries = [
        await begin_move(process, ref, WIDE, copied=True)
        for ref in blobs_of(process, await known(process, "k"))
    ]
    found = await known(process, "k")
    described = msgspec.structs.replace(found.description, storage_class=CLASS)
    marked = msgspec.structs.replace(found, description=described)
    await process.kv.commit([], [Put(keys.object_(BUCKET, "k"), encode(marked))])
    monkeypatch.setattr(reencode, "REFERENCES_PER_READ", 3)
    for entry in entries:
        old = BlobRef(entry.record.profile, entry.record.blob, 0, 0)
        assert await reencode.Swap(process.storage, UNCLAIMED, entry, old).run()
    queued = [
        decode(Repair, value)
        for value in Audit(process.cluster, process).under(keys.REPAIRS).values()
    ]
    moved = {ref.blob for ref in blobs_of(process, await known(process, "k"))}
    assert {repair.blob for repair in queued if repair.target == COLD} == moved
