"""Lifecycle rules over a store: what is due goes, by the same commits as a client's requests; what
is not, or not any more, stays."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from s3gw import limits
from s3gw.buckets.lifecycle import DAY_MS
from s3gw.kv.interface import Put
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import LifecycleRun
from s3gw.metadata.records import BucketRecord
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket, create_bucket, delete_bucket
from s3gw.objects.steady_clock import SteadyClock
from s3gw.objects.trash import list_trash
from s3gw.objects.turns import Turn
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import (
    complete,
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
    aborts,
    at_rest,
    carry_out,
    check,
    drop_rules,
    expires,
    put_tagged,
    queue,
    removes,
    retag,
    rule,
    set_rules,
    stored,
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


# Visible versions.


async def test_objects_expire_when_their_days_are_over_and_not_before(
    memory_store: Process,
) -> None:
    clock = memory_store.cluster.clock
    await put(memory_store, "old", b"before the rules")
    await set_rules(memory_store, rule(expires(3), chosen="<Prefix/>"))
    clock.advance(DAY)
    await put(memory_store, "young", b"after the rules")
    clock.advance(2 * DAY - 1)
    assert (await carry_out(memory_store)).removed == 0
    assert stored(memory_store) == {"old": [False], "young": [False]}
    clock.advance(ROUNDED)
    assert (await carry_out(memory_store)).removed == 1
    assert stored(memory_store) == {"young": [False]}
    clock.advance(DAY)
    assert (await carry_out(memory_store)).removed == 1
    assert stored(memory_store) == {}
    assert queue(memory_store) == []
    await at_rest(memory_store)


async def test_no_time_in_the_queue_is_before_the_midnight_after(memory_store: Process) -> None:
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"data")
    ((due_ms, _, _),) = queue(memory_store)
    now_ms = memory_store.storage.clock_ms()
    midnight = -(-(now_ms + DAY_MS) // DAY_MS) * DAY_MS
    assert midnight <= due_ms < midnight + DAY_MS // 24


async def test_a_shorter_day_is_not_rounded(memory_store: Process) -> None:
    memory_store.storage.lifecycle_day_ms = 1000
    await set_rules(memory_store, rule(expires(2)))
    await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(1.9)
    assert (await carry_out(memory_store)).looked == 0
    memory_store.cluster.clock.advance(0.2)
    assert (await carry_out(memory_store)).removed == 1


async def test_with_versioning_a_marker_hides_the_object(memory_store: Process) -> None:
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(expires(1)))
    first = await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(memory_store)
    assert (report.hidden, report.removed) == (1, 0)
    assert stored(memory_store) == {"k": [True, False]}
    target = await publish.read_target(memory_store.storage, BUCKET, "k")
    assert target.latest is not None
    assert (target.latest.owner, target.latest.marker) == ("owner", True)
    kept = (await publish.read_target(memory_store.storage, BUCKET, "k", first.sequence)).found
    assert kept is not None
    check(memory_store)


async def test_a_suspended_bucket_loses_its_null_version_to_a_marker(
    memory_store: Process,
) -> None:
    await set_versioning(memory_store, "Suspended")
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).hidden == 1
    assert stored(memory_store) == {"k": [True]}
    check(memory_store)


async def test_only_what_the_filter_picks(memory_store: Process) -> None:
    chosen = (
        "<Filter><And><Prefix>logs/</Prefix><Tag><Key>keep</Key><Value>no</Value></Tag>"
        "<ObjectSizeGreaterThan>3</ObjectSizeGreaterThan></And></Filter>"
    )
    await set_rules(memory_store, rule(expires(1), chosen=chosen))
    await put_tagged(memory_store, "logs/a", b"data", {"keep": "no"})
    await put_tagged(memory_store, "logs/b", b"data", {"keep": "yes"})
    await put_tagged(memory_store, "logs/c", b"123", {"keep": "no"})
    await put_tagged(memory_store, "other", b"data", {"keep": "no"})
    assert [key for _, key, _ in queue(memory_store)] == ["logs/a"]
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    assert (await carry_out(memory_store)).removed == 1
    assert sorted(stored(memory_store)) == ["logs/b", "logs/c", "other"]


async def test_other_tags_change_what_is_due(memory_store: Process) -> None:
    chosen = "<Filter><Tag><Key>keep</Key><Value>no</Value></Tag></Filter>"
    await set_rules(memory_store, rule(expires(1), chosen=chosen))
    await put_tagged(memory_store, "spared", b"data", {"keep": "no"})
    await put_tagged(memory_store, "condemned", b"data")
    memory_store.cluster.clock.advance(10 * DAY)
    await retag(memory_store, "spared", {})
    await retag(memory_store, "condemned", {"keep": "no"})
    memory_store.cluster.clock.advance(3600)
    assert (await carry_out(memory_store)).removed == 1
    assert stored(memory_store) == {"spared": [False]}


async def test_what_is_replaced_or_deleted_leaves_nothing_in_the_queue(
    memory_store: Process,
) -> None:
    await set_rules(memory_store, rule(expires(1)))
    for _ in range(5):
        await put(memory_store, "k", b"data")
    assert len(queue(memory_store)) == 1
    await delete(memory_store, "k")
    assert queue(memory_store) == []


async def test_an_overwrite_begins_the_days_anew(memory_store: Process) -> None:
    await set_rules(memory_store, rule(expires(2)))
    await put(memory_store, "k", b"one")
    memory_store.cluster.clock.advance(DAY)
    await put(memory_store, "k", b"two")
    memory_store.cluster.clock.advance(ROUNDED)
    assert (await carry_out(memory_store)).removed == 0
    memory_store.cluster.clock.advance(ROUNDED + 3600)
    assert (await carry_out(memory_store)).removed == 1


async def test_a_date_that_has_passed_goes_on_to_apply(memory_store: Process) -> None:
    clock = memory_store.cluster.clock
    day = "2023-11-16T00:00:00.000Z"  # the second midnight after the clock of the tests begins
    await set_rules(memory_store, rule(f"<Expiration><Date>{day}</Date></Expiration>"))
    await put(memory_store, "k", b"data")
    clock.advance(DAY)
    assert (await carry_out(memory_store)).removed == 0
    clock.advance(ROUNDED)
    assert (await carry_out(memory_store)).removed == 1
    await put(memory_store, "late", b"data")
    clock.advance(3600)
    assert (await carry_out(memory_store)).removed == 1


# Rules that change.


@pytest.mark.parametrize("how", ["removed", "disabled", "narrowed"])
async def test_nothing_goes_by_rules_that_are_not_there_any_more(
    memory_store: Process, how: str
) -> None:
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    if how == "removed":
        await drop_rules(memory_store)
    elif how == "disabled":
        await set_rules(memory_store, rule(expires(1), enabled=False))
    else:
        await set_rules(memory_store, rule(expires(1), chosen="<Prefix>other/</Prefix>"))
    report = await carry_out(memory_store)
    assert (report.looked, report.removed) == (1, 0)
    assert await get(memory_store, "k") == b"data"
    assert queue(memory_store) == []


async def test_rules_that_go_while_one_is_carried_out_win(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules are removed after the decision, and before its commit."""
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    from s3gw.workers import lifecycle as module

    plain = module.delete_object

    async def raced(*arguments, **more):  # type: ignore[no-untyped-def]
        await drop_rules(memory_store)
        return await plain(*arguments, **more)

    monkeypatch.setattr(module, "delete_object", raced)
    report = await carry_out(memory_store)
    assert (report.removed, report.lost) == (0, 1)
    monkeypatch.undo()
    assert (await carry_out(memory_store)).removed == 0
    assert await get(memory_store, "k") == b"data"


@pytest.mark.parametrize("versioning", ["", "Enabled"])
@pytest.mark.parametrize("race", ["overwritten", "deleted", "tagged"])
async def test_what_changes_while_it_is_carried_out_is_judged_again(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch, race: str, versioning: str
) -> None:
    chosen = "<Filter><Tag><Key>t</Key><Value>1</Value></Tag></Filter>"
    if versioning:
        await set_versioning(memory_store, versioning)
    await set_rules(memory_store, rule(expires(1), chosen=chosen))
    await put_tagged(memory_store, "k", b"data", {"t": "1"})
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    from s3gw.workers import lifecycle as module

    plain = module.delete_object

    async def raced(*arguments, **more):  # type: ignore[no-untyped-def]
        if race == "overwritten":
            await put_tagged(memory_store, "k", b"new", {"t": "1"})
        elif race == "deleted":
            await delete(memory_store, "k")
        else:
            await retag(memory_store, "k", {})
        return await plain(*arguments, **more)

    monkeypatch.setattr(module, "delete_object", raced)
    report = await carry_out(memory_store)
    assert (report.removed, report.hidden, report.lost) == (0, 0, 1)
    monkeypatch.undo()
    report = await carry_out(memory_store)
    assert (report.removed, report.hidden) == (0, 0)
    found = await record(memory_store, "k")
    assert (found is None) == (race == "deleted")
    if found is not None:
        assert await get(memory_store, "k") == (b"new" if race == "overwritten" else b"data")
    check(memory_store)


async def test_what_expires_goes_through_the_trash(memory_store: Process) -> None:
    await change_bucket(
        memory_store.storage, BUCKET, lambda bucket: msgspec.structs.replace(bucket, trash_ms=1000)
    )
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"data")
    await carry_out(memory_store)
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(memory_store)
    assert (report.looked, report.removed, report.lost) == (1, 1, 0)
    assert await record(memory_store, "k") is None
    kept, _ = await list_trash(memory_store.storage, BUCKET, "", most=10)
    assert [one.key for one in kept] == ["k"]
    assert queue(memory_store) == []


async def test_later_rules_apply_to_what_is_there(memory_store: Process) -> None:
    await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(30 * DAY)
    await set_rules(memory_store, rule(expires(40)))
    await carry_out(memory_store)
    assert [key for _, key, _ in queue(memory_store)] == ["k"]
    await set_rules(memory_store, rule(expires(20)))
    await LifecycleWalk(memory_store.storage).run_once()
    memory_store.cluster.clock.advance(3600)
    assert (await carry_out(memory_store)).removed == 1


async def test_a_bucket_made_anew_is_not_touched_by_what_was_queued_for_the_old_one(
    memory_store: Process,
) -> None:
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"data")
    stale = dict(memory_store.cluster.engine.items.items())
    await delete(memory_store, "k")
    await delete_bucket(memory_store.storage, BUCKET)
    await create_bucket(
        memory_store.storage,
        BUCKET,
        owner="owner",
        region="us-east-1",
        profile="4+2",
        object_lock=False,
        tags={},
    )
    entry = next(key for key in stale if key.startswith(keys.DUE))
    await memory_store.kv.commit([], [Put(entry, stale[entry].value)])
    await put(memory_store, "k", b"of the new bucket")
    await set_rules(memory_store, rule(expires(100)))
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(memory_store)
    assert (report.looked, report.removed) == (1, 0)
    assert await get(memory_store, "k") == b"of the new bucket"


# Uploads.


async def test_uploads_are_aborted_and_others_are_not(memory_store: Process) -> None:
    early = await start(memory_store, "tmp/early")
    await part(memory_store, "tmp/early", early, 1, b"x" * 1000)
    await set_rules(memory_store, rule(aborts(2), chosen="<Prefix>tmp/</Prefix>"))
    await carry_out(memory_store)
    memory_store.cluster.clock.advance(DAY)
    late = await start(memory_store, "tmp/late")
    other = await start(memory_store, "other")
    done = await start(memory_store, "tmp/done")
    await part(memory_store, "tmp/done", done, 1, b"done")
    await complete(memory_store, "tmp/done", done)
    memory_store.cluster.clock.advance(ROUNDED + 7200)
    assert (await carry_out(memory_store)).aborted == 1
    assert set(Audit(memory_store.cluster, memory_store).uploads()) == {late, other}
    memory_store.cluster.clock.advance(DAY)
    assert (await carry_out(memory_store)).aborted == 1
    assert Audit(memory_store.cluster, memory_store).uploads() == [other]
    assert queue(memory_store) == []
    await at_rest(memory_store)
    assert await get(memory_store, "tmp/done") == b"done"


async def test_an_upload_that_is_being_completed_is_left_alone(memory_store: Process) -> None:
    from s3gw.objects.multipart import change_record, find_upload

    await set_rules(memory_store, rule(aborts(1)))
    upload_id = await start(memory_store, "k")
    lease = await memory_store.kv.grant_lease(10**7)
    await memory_store.kv.commit([], [Put(keys.process(lease), b"", lease)])
    upload = await find_upload(memory_store.storage, BUCKET, "k", upload_id)
    await change_record(
        memory_store.storage,
        upload,
        lambda found: msgspec.structs.replace(
            found, state="completing", owner_lease=lease, attempt=b"a"
        ),
    )
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    report = await carry_out(memory_store)
    assert (report.aborted, report.waiting) == (0, 1)
    await memory_store.kv.revoke_lease(lease)
    memory_store.cluster.clock.advance(1000)
    assert (await carry_out(memory_store)).aborted == 1


# The run and its clock.


async def test_the_last_run_is_kept_and_told(memory_store: Process) -> None:
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"data")
    memory_store.cluster.clock.advance(DAY + ROUNDED)
    await LifecycleWalk(memory_store.storage).run_once()
    worker = Lifecycle(memory_store.storage)
    while await worker.work(UNCLAIMED):
        pass
    run = await memory_store.storage.store.get(LifecycleRun, keys.LIFECYCLE_RUN)
    assert run.record is not None
    assert (run.record.looked, run.record.removed) == (1, 1)
    assert worker.actions["removed"] == 1


def test_a_clock_that_is_set_ahead_is_not_believed_for_an_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall, monotonic = 1_000_000, 0.0
    clock = SteadyClock(lambda: wall, lambda: monotonic)
    wall, monotonic = wall + 500_000, 500.0
    assert clock.now_ms() == 1_500_000
    with caplog.at_level(logging.WARNING):
        wall += 10 * DAY_MS
        assert clock.now_ms() == 1_500_000
    assert "set ahead" in caplog.text
    wall, monotonic = wall + 100_000, 600.0
    assert clock.now_ms() == 1_600_000
    wall, monotonic = wall + 3_500_000, 4100.0
    assert clock.now_ms() == wall
    wall -= 20 * DAY_MS  # backwards is later, which harms nobody
    assert clock.now_ms() == wall


def test_a_clock_that_is_set_further_ahead_waits_for_another_hour() -> None:
    wall, monotonic = 0, 0.0
    clock = SteadyClock(lambda: wall, lambda: monotonic)
    wall += 120_000
    assert clock.now_ms() == 0
    wall, monotonic = wall + 3_500_000 + DAY_MS, 3500.0
    assert clock.now_ms() == 3_500_000
    wall, monotonic = wall + 3_500_000, 7000.0
    assert clock.now_ms() == 7_000_000
    wall, monotonic = wall + 200_000, 7200.0
    assert clock.now_ms() == wall


async def test_two_workers_at_once_do_everything_once(memory_store: Process) -> None:
    cluster: MemoryCluster = memory_store.cluster
    other = await cluster.process(seed=7)
    await set_versioning(memory_store, "Enabled")
    await set_rules(memory_store, rule(expires(1) + removes(1)))
    for number in range(40):
        await put(memory_store, f"k{number}", b"one")
        await put(memory_store, f"k{number}", b"two")
    cluster.clock.advance(DAY + ROUNDED)
    await asyncio.gather(
        *(Lifecycle(process.storage).run_once() for process in (memory_store, other))
    )
    await Lifecycle(memory_store.storage).run_once()
    assert all(versions == [True, False] for versions in stored(memory_store).values())
    assert len(stored(memory_store)) == 40
    check(memory_store)
    bucket = await memory_store.storage.store.get(BucketRecord, keys.bucket(BUCKET))
    assert bucket.record is not None
    assert await record(memory_store, "k0") is None


async def test_what_is_written_while_a_rule_waits_for_its_turn_stays(
    memory_store: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await memory_store.cluster.process(seed=7)
    await set_rules(memory_store, rule(expires(1)))
    await put(memory_store, "k", b"old")
    memory_store.cluster.clock.advance(DAY + ROUNDED)

    async def behind_others(turn: Turn) -> bool:
        monkeypatch.undo()
        await put(other, "k", b"new")
        return True

    monkeypatch.setattr(Turn, "behind_others", behind_others)
    report = await carry_out(memory_store)
    assert (report.removed, report.lost) == (0, 1)
    assert await get(memory_store, "k") == b"new"
