"""Random histories of buckets with rules: the queue misses nothing, and nothing goes too early.

What rules want is found out here by looking at everything, which the worker never does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from s3gw import limits
from s3gw.buckets.lifecycle_due import Kind, Verdict, abort, judge
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord, ObjectRecord, UploadRecord, decode
from s3gw.objects import lifecycle
from s3gw.workers.contract import UNCLAIMED
from s3gw.workers.lifecycle import Lifecycle
from s3gw.workers.lifecycle_walk import LifecycleWalk
from tests.stores.audit import Audit
from tests.stores.memory_store import BUCKET, MemoryCluster, Process
from tests.stores.operations import abort as abort_upload
from tests.stores.operations import complete, copy, delete, part, record, remove, set_versioning
from tests.stores.operations import start as begin
from tests.workers.lifecycle_rules import (
    DAY,
    MARKERS,
    aborts,
    drop_rules,
    expires,
    put_tagged,
    removes,
    retag,
    rule,
    set_rules,
)

STEPS = 120
SPREAD_MS = 3_600_000
NAMES = ["a/1", "a/2", "b/1", "b/2"]
TAGS: list[dict[str, str]] = [{}, {"t": "1"}]
FILTERS = [
    "<Filter/>",
    "<Filter><Prefix>a/</Prefix></Filter>",
    "<Filter><Tag><Key>t</Key><Value>1</Value></Tag></Filter>",
]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES_MIN", 1)


@dataclass(frozen=True)
class Seen:
    """A version, and what the rules want of it now."""

    key: str
    record: ObjectRecord
    verdict: Verdict


def bucket_of(process: Process) -> BucketRecord:
    return decode(BucketRecord, process.cluster.engine.items[keys.bucket(BUCKET)].value)


def versions(process: Process) -> dict[str, list[ObjectRecord]]:
    """All versions by key, newest first."""
    items = process.cluster.engine.items
    found: dict[str, list[ObjectRecord]] = {}
    for name, item in sorted(items.items()):
        if name.startswith(keys.objects(BUCKET)):
            key = name[len(keys.objects(BUCKET)) :].decode()
            found.setdefault(key, []).append(decode(ObjectRecord, item.value))
    for name, item in sorted(items.items()):
        if name.startswith(keys.versions(BUCKET)):
            key, _ = keys.unended(name[len(keys.versions(BUCKET)) :])
            found.setdefault(key, []).append(decode(ObjectRecord, item.value))
    return found


def everything(process: Process) -> list[Seen]:
    """What rules want, found by looking at all there is."""
    bucket, now_ms = bucket_of(process), process.storage.clock_ms()
    configuration = lifecycle.configuration_of(bucket)
    if configuration is None:
        return []
    found = []
    for key, records in versions(process).items():
        for position, one in enumerate(records):
            assert (one.noncurrent_ms > 0) == (position > 0), "its record says whether it is newest"
            seen = lifecycle.as_seen(
                bucket, key, one, newer=max(0, position - 1), alone=len(records) == 1
            )
            found.append(Seen(key, one, judge(configuration, seen, now_ms)))
    return found


def check_queue(process: Process) -> None:
    """Nothing was due for longer than the work of a midnight is spread over, plus what a walk
    that has just begun may take."""
    now_ms = process.storage.clock_ms()
    for seen in everything(process):
        action = seen.verdict.action
        late = action is not None and action.due_ms + SPREAD_MS < now_ms
        assert not late, f"{seen.key} {seen.record.sequence}: {action} was missed"
    bucket = bucket_of(process)
    configuration = lifecycle.configuration_of(bucket)
    for name, item in process.cluster.engine.items.items():
        if configuration is not None and name.startswith(keys.UPLOADS):
            _, key, _ = keys.split_upload(name)
            upload = decode(UploadRecord, item.value)
            wanted = abort(configuration, key, upload.initiated_ms)
            assert wanted is None or wanted.due_ms + SPREAD_MS >= now_ms, f"upload {key} was missed"


def check_justified(before: list[Seen], process: Process) -> None:
    """What went was due."""
    left = {(key, one.sequence) for key, records in versions(process).items() for one in records}
    hidden = {
        seen.key for seen in before if seen.verdict.action and seen.verdict.action.kind is Kind.HIDE
    }
    for seen in before:
        if (seen.key, seen.record.sequence) in left or seen.record.marker:
            continue
        action = seen.verdict.action
        removed = action is not None and action.kind is Kind.REMOVE
        assert removed or (seen.key in hidden and seen.record.noncurrent_ms), seen


async def carry_out(process: Process) -> None:
    """Walk, and then rounds until nothing is due any more."""
    await LifecycleWalk(process.storage).run_once()
    worker = Lifecycle(process.storage)
    for _ in range(4):
        process.cluster.clock.advance(0.01)
        while await worker.work(UNCLAIMED):
            pass


def random_rules(choice: random.Random) -> list[str]:
    rules = []
    for number in range(choice.randint(1, 3)):
        chosen = choice.choice(FILTERS)
        content = choice.choice(
            [
                expires(choice.randint(1, 4)),
                removes(choice.randint(1, 3)),
                removes(choice.randint(1, 2), newer=choice.randint(1, 2)),
                expires(choice.randint(1, 3)) + removes(choice.randint(1, 2)),
                MARKERS if "Tag" not in chosen else expires(2),
                aborts(choice.randint(1, 3)) if "Tag" not in chosen else expires(1),
            ]
        )
        enabled = choice.random() < 0.9
        rules.append(rule(content, chosen=chosen, id_=str(number), enabled=enabled))
    return rules


@pytest.mark.parametrize("versioning", ["", "Enabled", "mixed"])
@pytest.mark.parametrize("seed", range(6))
async def test_random_histories(seed: int, versioning: str) -> None:
    choice = random.Random(f"{seed} {versioning}")
    cluster = MemoryCluster(8)
    await cluster.found()
    process = await cluster.process(seed=seed)
    if versioning:
        await set_versioning(process, "Enabled")
    await set_rules(process, *random_rules(choice))
    await carry_out(process)
    uploads: list[tuple[str, bytes]] = []
    for _ in range(STEPS):
        await step(process, choice, versioning, uploads)
        if choice.random() < 0.3:
            before = everything(process)
            await carry_out(process)
            check_justified(before, process)
            # What a walk met late was queued for within an hour from then.
            cluster.clock.advance(SPREAD_MS / 1000 + 1)
            before = everything(process)
            await carry_out(process)
            check_justified(before, process)
            check_queue(process)
    Audit(cluster, process).check_held()
    Audit(cluster, process).check_usage()
    Audit(cluster, process).check_counts()


async def step(
    process: Process, choice: random.Random, versioning: str, uploads: list[tuple[str, bytes]]
) -> None:
    """One thing that clients do, or time."""
    key = choice.choice(NAMES)
    roll = choice.random()
    if roll < 0.35:
        await put_tagged(process, key, choice.randbytes(10), choice.choice(TAGS))
    elif roll < 0.5:
        await delete(process, key)
    elif roll < 0.6:
        records = versions(process).get(key)
        if records and versioning:
            await remove(process, key, choice.choice(records).sequence)
    elif roll < 0.65:
        if await record(process, key) is not None:
            await retag(process, key, choice.choice(TAGS))
    elif roll < 0.7:
        if await record(process, key) is not None:
            await copy(process, key, choice.choice(NAMES))
    elif roll < 0.76:
        uploads.append((key, await begin(process, key)))
    elif roll < 0.79 and uploads:
        await end(process, choice, *uploads.pop())
    elif roll < 0.83:
        await set_rules(process, *random_rules(choice))
    elif roll < 0.84:
        await drop_rules(process)
    elif roll < 0.87 and versioning == "mixed":
        await set_versioning(process, choice.choice(["Enabled", "Suspended"]))
    else:
        process.cluster.clock.advance(choice.random() * 2 * DAY)


async def end(process: Process, choice: random.Random, key: str, upload_id: bytes) -> None:
    """Complete or abort an upload, if rules have not aborted it."""
    if keys.upload(BUCKET, key, upload_id) not in process.cluster.engine.items:
        return
    if choice.random() < 0.5:
        await abort_upload(process, key, upload_id)
    else:
        await part(process, key, upload_id, 1, b"part")
        await complete(process, key, upload_id)
