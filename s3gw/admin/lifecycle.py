"""How the work of lifecycle rules goes: its queue, the walks over buckets, and the last run."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from s3gw import limits
from s3gw.admin.port import AdminPort
from s3gw.admin.row import Row
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import LifecycleJob, LifecycleRun
from s3gw.metadata.records import decode


class LifecycleWalkView(Struct):
    """A bucket whose rules were changed, and how far what is in it was queued."""

    bucket: str
    stage: str
    started_ms: int
    seen: int
    queued: int


class LifecycleRunView(Struct):
    """What a round did: entries looked at; versions removed, hidden behind a marker, and moved to
    another class; markers removed; uploads aborted; entries that wait for a lock or for nodes, and
    those that others changed meanwhile."""

    started_ms: int
    ended_ms: int
    looked: int
    removed: int
    hidden: int
    markers: int
    moved: int
    aborted: int
    waiting: int
    lost: int


class LifecycleView(Struct):
    """`due` of `queued` entries are due now; with `more` there are more than were counted. Times
    are those of the first entry and of the first that is not due yet, 0 for none."""

    due: int
    queued: int
    more: bool
    first_ms: int
    next_ms: int
    day_seconds: float
    walks: list[LifecycleWalkView]
    last: LifecycleRunView | None = None


async def lifecycle(port: AdminPort) -> LifecycleView:
    """What lifecycle rules have to do, and did last."""
    kv, now_ms = port.storage.store.kv, port.storage.clock_ms()
    page = await kv.scan(
        keys.DUE, keys.after_prefix(keys.DUE), limit=limits.SCAN_ITEMS_MAX, keys_only=True
    )
    times = [keys.split_due(item.key)[0] for item in page.items]
    due = sum(time <= now_ms for time in times)
    jobs = await kv.scan(
        keys.LIFECYCLES, keys.after_prefix(keys.LIFECYCLES), limit=limits.SCAN_ITEMS_MAX
    )
    walks = []
    for item in jobs.items:
        job = decode(LifecycleJob, item.value)
        bucket = item.key[len(keys.LIFECYCLES) :].decode()
        walks.append(LifecycleWalkView(bucket, job.stage, job.started_ms, job.seen, job.queued))
    last = (await port.storage.store.get(LifecycleRun, keys.LIFECYCLE_RUN)).record
    return LifecycleView(
        due=due,
        queued=len(times),
        more=page.more,
        first_ms=times[0] if times else 0,
        next_ms=times[due] if due < len(times) else 0,
        day_seconds=port.storage.lifecycle_day_ms / 1000,
        walks=walks,
        last=LifecycleRunView(**msgspec.structs.asdict(last)) if last is not None else None,
    )


LIFECYCLE_ROWS: tuple[Row, ...] = (
    Row(
        "GET",
        "/admin/lifecycle",
        "getLifecycle",
        "What lifecycle rules have to do, and did last",
        lifecycle,
        LifecycleView,
    ),
)
