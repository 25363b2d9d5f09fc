"""Versions go to another storage class and their bytes to the profile that has it, whatever stops
or races: the same version, ETag and date, everything readable, nothing left behind."""

from __future__ import annotations

import random

import pytest

from s3gw import limits
from s3gw.buckets.lifecycle import DAY_MS
from s3gw.cluster.profiles import create_profile
from s3gw.metadata import keys
from s3gw.metadata.records import ManifestPage, ManifestRef, ObjectRecord, decode
from s3gw.workers import on_demand
from s3gw.workers import transition as module
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from tests.stores.audit import Audit
from tests.stores.crashing_kv import Crashed, CrashingKV, Fuse, Mode
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import (
    complete,
    copy,
    copy_part,
    delete,
    get,
    part,
    put,
    record,
    set_versioning,
    start,
)
from tests.workers.lifecycle_rules import (
    DAY,
    ROUNDED,
    carry_out,
    drop_rules,
    expires,
    moves,
    put_tagged,
    queue,
    retag,
    rule,
    set_rules,
)

COLD, CLASS = "cold", "GLACIER"
ALL_SIZES = "<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>"
TO_COLD = rule(moves(1, CLASS), chosen=ALL_SIZES)
DATA = random.Random(1).randbytes(300_000)
SMALL = b"a few bytes"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


async def make_cold(process: Process) -> None:
    await create_profile(
        process.kv,
        process.topology,
        COLD,
        "5+3",
        pg_count=16,
        stripe_bytes=192 * 1024,
        now_ms=1,
        storage_classes=(CLASS,),
    )


@pytest.fixture
async def process(memory_store: Process) -> Process:
    await make_cold(memory_store)
    return memory_store


def profiles_of(process: Process, found: ObjectRecord) -> set[str]:
    """Where a version's bytes are."""
    if not isinstance(found.data, ManifestRef):
        assert found.data is not None
        return {found.data.profile}
    audit = Audit(process.cluster, process)
    names = {found.data.blob.profile}
    for page in audit.under(keys.manifest(found.data.manifest)).values():
        names |= {part.blob.profile for part in decode(ManifestPage, page).parts}
    return names


async def known(process: Process, key: str) -> ObjectRecord:
    found = await record(process, key)
    assert found is not None
    return found


async def at_rest(process: Process) -> None:
    process.cluster.clock.advance(7200)
    for _ in range(2):
        await on_demand.repair_all(process.storage)
        await on_demand.collect_garbage(process.storage)
        process.cluster.clock.advance(7200)
    await on_demand.collect_garbage(process.storage)
    Audit(process.cluster, process).check_at_rest()


async def upload(process: Process, key: str) -> None:
    upload_id = await start(process, key)
    await part(process, key, upload_id, 1, DATA)
    await part(process, key, upload_id, 2, SMALL)
    await complete(process, key, upload_id)


@pytest.mark.parametrize("kind", ["large", "small", "parts"])
async def test_a_version_moves_and_stays_what_it_is(process: Process, kind: str) -> None:
    body = {"large": DATA, "small": SMALL, "parts": DATA + SMALL}[kind]
    if kind == "parts":
        await upload(process, "k")
    else:
        await put(process, "k", body)
    before = await known(process, "k")
    await set_rules(process, TO_COLD)
    await carry_out(process)
    process.cluster.clock.advance(DAY - 7200)
    assert (await carry_out(process)).moved == 0
    process.cluster.clock.advance(ROUNDED)
    assert (await carry_out(process)).moved == 1
    after = await known(process, "k")
    homes = {"large": {COLD}, "small": {"cold.small"}, "parts": {COLD, "cold.small"}}
    assert profiles_of(process, after) == homes[kind]
    assert after.description.storage_class == CLASS
    for name in ("sequence", "modified_ms", "etag", "size", "content_id", "checksums"):
        assert getattr(after, name) == getattr(before, name), name
    assert await get(process, "k") == body
    assert queue(process) == []
    await at_rest(process)
    assert await get(process, "k") == body


async def test_small_objects_do_not_move_unless_a_rule_says_sizes(process: Process) -> None:
    await set_rules(process, rule(moves(1, CLASS)))
    await put(process, "k", SMALL)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 0
    assert (await known(process, "k")).description.storage_class == "STANDARD"


async def test_noncurrent_versions_move_under_their_record(process: Process) -> None:
    content = (
        f"<NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays>"
        f"<StorageClass>{CLASS}</StorageClass></NoncurrentVersionTransition>"
    )
    await set_versioning(process, "Enabled")
    await set_rules(process, rule(content, chosen=ALL_SIZES))
    old = await put(process, "k", DATA)
    await put(process, "k", b"new")
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 1
    key = keys.version(BUCKET, "k", old.sequence)
    moved = decode(ObjectRecord, process.cluster.engine.items[key].value)
    assert profiles_of(process, moved) == {COLD}
    assert moved.noncurrent_ms > 0
    assert await get(process, "k") == b"new"
    await at_rest(process)


async def test_versions_that_waited_for_younger_ones_move_when_a_burst_has_come(
    process: Process,
) -> None:
    content = (
        f"<NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays>"
        f"<StorageClass>{CLASS}</StorageClass><NewerNoncurrentVersions>2</NewerNoncurrentVersions>"
        "</NoncurrentVersionTransition>"
    )
    await set_versioning(process, "Enabled")
    await set_rules(process, rule(content, chosen=ALL_SIZES))
    await carry_out(process)
    for number in range(3):
        await put(process, "k", b"old %d" % number)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 0
    for number in range(40):
        await put(process, "k", b"%d" % number)
    assert (await carry_out(process)).moved == 2
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 38
    classes = [
        decode(ObjectRecord, item.value).description.storage_class
        for key, item in sorted(process.cluster.engine.items.items())
        if key.startswith(keys.versions(BUCKET))
    ]
    assert classes == ["STANDARD"] * 2 + [CLASS] * 40
    assert queue(process) == []
    await at_rest(process)


@pytest.mark.parametrize("body", [DATA, SMALL])
async def test_parts_that_share_a_blob_move_together(process: Process, body: bytes) -> None:
    """The second of them is where it should be when its turn comes."""
    await put(process, "source", body)
    upload_id = await start(process, "k")
    for number in (1, 2, 3):
        assert await copy_part(process, "source", "k", upload_id, number) is not None
    await complete(process, "k", upload_id)
    await delete(process, "source")
    await set_rules(process, TO_COLD)
    process.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(process)
    process.cluster.clock.advance(3600)
    report = await carry_out(process)
    assert (report.moved, report.waiting) == (1, 0)
    assert profiles_of(process, await known(process, "k")) <= {COLD, "cold.small"}
    assert await get(process, "k") == 3 * body
    await at_rest(process)
    assert await get(process, "k") == 3 * body


async def test_copies_keep_their_class_until_it_is_their_turn(process: Process) -> None:
    await put(process, "moves/a", DATA)
    await copy(process, "moves/a", "stays/a")
    chosen = "<Filter><Prefix>moves/</Prefix></Filter>"
    await set_rules(process, rule(moves(1, CLASS), chosen=chosen))
    await carry_out(process)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 1
    assert profiles_of(process, await known(process, "moves/a")) == {COLD}
    assert profiles_of(process, await known(process, "stays/a")) == {"4+2"}
    assert await get(process, "stays/a") == await get(process, "moves/a") == DATA
    await at_rest(process)
    assert await get(process, "stays/a") == await get(process, "moves/a") == DATA


async def test_expiration_comes_before_a_move_that_is_due_as_well(process: Process) -> None:
    await set_rules(process, TO_COLD, rule(expires(1), id_="e"))
    await put(process, "k", DATA)
    process.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(process)
    assert (report.moved, report.removed) == (0, 1)


async def test_first_moved_and_then_expired(process: Process) -> None:
    await set_rules(process, rule(moves(1, CLASS) + expires(3), chosen=ALL_SIZES))
    await put(process, "k", DATA)
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 1
    process.cluster.clock.advance(2 * DAY)
    assert (await carry_out(process)).removed == 1
    assert queue(process) == []
    await at_rest(process)


async def test_without_enough_nodes_it_waits_and_a_marker_does_not(process: Process) -> None:
    await set_versioning(process, "Enabled")
    await set_rules(process, TO_COLD, rule(expires(1), chosen="<Prefix>e</Prefix>", id_="e"))
    await put(process, "e", DATA)
    await put(process, "k", DATA)
    process.cluster.clock.advance(DAY + ROUNDED)
    process.cluster.drives["d0"].down = True
    for node in process.directory.all():
        if node.id == "d0":
            node.live = False
    report = await carry_out(process)
    assert (report.moved, report.hidden, report.waiting) == (0, 1, 1)
    process.cluster.drives["d0"].down = False
    for node in process.directory.all():
        node.live = True
    process.cluster.clock.advance(1200)
    assert (await carry_out(process)).moved == 1


@pytest.mark.parametrize("race", ["overwritten", "tagged", "rules"])
async def test_a_version_that_changes_meanwhile_is_not_moved_as_it_was(
    process: Process, monkeypatch: pytest.MonkeyPatch, race: str
) -> None:
    chosen = "<Filter><Tag><Key>cold</Key><Value>yes</Value></Tag></Filter>"
    await set_rules(process, rule(moves(1, CLASS), chosen=chosen))
    await put_tagged(process, "k", DATA, {"cold": "yes"})
    process.cluster.clock.advance(DAY + ROUNDED)
    plain = module.write_anew

    async def raced(*arguments):  # type: ignore[no-untyped-def]
        written = await plain(*arguments)
        if race == "overwritten":
            await put(process, "k", b"new")
        elif race == "tagged":
            await retag(process, "k", {})
        else:
            await drop_rules(process)
        return written

    monkeypatch.setattr(module, "write_anew", raced)
    report = await carry_out(process)
    assert (report.moved, report.lost) == (0, 1)
    monkeypatch.undo()
    assert (await carry_out(process)).moved == 0
    found = await known(process, "k")
    assert found.description.storage_class == "STANDARD"
    assert await get(process, "k") == (b"new" if race == "overwritten" else DATA)
    Audit(process.cluster, process).check_held()


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("kind", ["blob", "parts"])
async def test_a_crash_at_any_commit_loses_nothing(mode: Mode, kind: str) -> None:
    """The worker dies, or loses an answer, at each of its commits; another one goes on."""
    at = 0
    while True:
        cluster = MemoryCluster(8)
        await cluster.found()
        process = await cluster.process()
        await make_cold(process)
        await set_versioning(process, "Enabled")
        if kind == "parts":
            await upload(process, "k")
        else:
            await put(process, "k", DATA)
        await put(process, "gone", b"expires")
        gone = rule(expires(1), chosen="<Prefix>gone</Prefix>", id_="e")
        await set_rules(process, TO_COLD, gone)
        await LifecycleWalk(process.storage).run_once()
        cluster.clock.advance(DAY + ROUNDED)
        fuse = Fuse()
        victim = await cluster.process(CrashingKV(cluster.kv(), fuse), seed=at + 1)
        fuse.arm(at, mode)
        try:
            await Lifecycle(victim.storage).run_once()
        except Crashed:
            pass
        finished = fuse.left >= 0
        cluster.clock.advance(1200)
        await Lifecycle(process.storage).run_once()
        Audit(cluster, process).check_held()
        Audit(cluster, process).check_usage()
        body = DATA + SMALL if kind == "parts" else DATA
        assert await get(process, "k") == body
        found = await known(process, "k")
        assert found.description.storage_class == CLASS
        assert await record(process, "gone") is None
        assert {entry for entry in queue(process) if entry[0] < process.storage.clock_ms()} == set()
        if finished:
            break
        at += 1
    assert at >= 4


async def test_a_class_that_no_profile_has_any_more_is_a_name(process: Process) -> None:
    """The bytes stay with the bucket's."""
    from s3gw.cluster.profiles import claim_storage_classes

    await set_rules(process, TO_COLD)
    await put(process, "k", DATA)
    await claim_storage_classes(process.kv, process.topology, COLD, ())
    process.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(process)).moved == 1
    found = await known(process, "k")
    assert (found.description.storage_class, profiles_of(process, found)) == (CLASS, {"4+2"})
    assert DAY_MS == 86_400_000
