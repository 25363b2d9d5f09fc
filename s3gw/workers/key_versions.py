"""The versions of a key as lifecycle rules see them: since when they are noncurrent, how many are
younger, whether object lock keeps them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from s3gw.buckets import lock as lock_rules
from s3gw.buckets.lifecycle import NEWER_VERSIONS_MAX, Configuration
from s3gw.buckets.lifecycle_due import Action, Kind, Version, judge
from s3gw.kv.interface import At, Guard, Item
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord, RecordFormatError, decode
from s3gw.objects import lifecycle
from s3gw.objects.publish import Found, Target
from s3gw.objects.storage import Storage

log = logging.getLogger(__name__)

SINCE_VERSIONS = 1000
PUSHED_VERSIONS = 16


@dataclass(frozen=True, slots=True)
class DueVersion:
    """A noncurrent version of which rules want something now. `held` is the key of the entry for
    the end of the lock that keeps it, None when none does; it was `passed` when that is there."""

    found: Found
    held: bytes | None
    passed: bool


async def seen(
    storage: Storage, target: Target, found: Found, configuration: Configuration
) -> tuple[Version, list[Guard]]:
    """A version as rules see it, and what of that its own record does not guard."""
    record, latest = found.record, target.latest
    if latest is not None and latest.sequence == record.sequence:
        alone = record.marker and not await _has_older(storage, target, found)
        current = msgspec.structs.replace(record, noncurrent_ms=0)
        return lifecycle.as_seen(target.bucket, target.key, current, alone=alone), []
    if not record.noncurrent_ms:
        since_ms = await _noncurrent_since(storage, target, found)
        record = msgspec.structs.replace(record, noncurrent_ms=since_ms)
    _, most = configuration.newer_kept(target.key)
    newer = await youngest(storage, target, found.key, most) if most else []
    guards: list[Guard] = [At(item.key, item.revision) for item in newer]
    version = lifecycle.as_seen(target.bucket, target.key, record, newer=len(newer))
    return version, guards


def _wanted_now(
    storage: Storage,
    target: Target,
    configuration: Configuration,
    record: ObjectRecord,
    now_ms: int,
    newer: int,
) -> Action | None:
    """What rules want of a noncurrent version now that has so many younger ones. Where its record
    does not say since when it is noncurrent, it may have been from the first moment on."""
    if not record.noncurrent_ms:
        record = msgspec.structs.replace(record, noncurrent_ms=record.modified_ms)
    version = lifecycle.as_seen(target.bucket, target.key, record, newer=newer)
    return judge(configuration, version, now_ms, storage.lifecycle_day_ms).action


async def due_now(
    storage: Storage,
    target: Target,
    configuration: Configuration,
    items: Sequence[Item],
    now_ms: int,
    younger: Iterable[int] = itertools.repeat(NEWER_VERSIONS_MAX),
) -> list[DueVersion]:
    """Those of a key's noncurrent versions of which rules want something now; `younger` says how
    many younger ones each of them has."""
    found: list[tuple[Found, bytes | None]] = []
    for item, newer in zip(items, younger, strict=False):
        record = _record(item)
        if record is None:
            log.error("no lifecycle rule is applied to %r, which cannot be read", item.key)
            continue
        action = _wanted_now(storage, target, configuration, record, now_ms, newer)
        if action is not None:
            held = action.kind is Kind.REMOVE and is_locked(record, now_ms)
            entry = unlocked_entry(storage, target, record, now_ms) if held else None
            found.append((Found(item.key, record, item.revision), entry))
    entries = [entry for _, entry in found if entry is not None]
    reading = (await storage.store.kv.get_many(entries)).items if entries else []
    there = {item.key for item in reading if item is not None}
    return [DueVersion(version, entry, entry in there) for version, entry in found]


@dataclass(frozen=True, slots=True)
class PushedOut:
    """Noncurrent versions that have come to have enough younger ones, the youngest first, without
    those that were passed: all of them, or as many as were asked for, and `through` is the sequence
    of the last version among which there may be more of them."""

    due: list[DueVersion]
    through: int


async def pushed_out(
    storage: Storage,
    target: Target,
    configuration: Configuration,
    now_ms: int,
    *,
    since: int,
    since_ms: int,
    most: int,
) -> PushedOut:
    """Up to `most` of those versions of a key of which rules want something now, and may not have
    before the commit of revision `since`, made at `since_ms`.

    A version comes to have enough younger ones when one more becomes noncurrent, which is the
    youngest then. By now as many are before it as became noncurrent since. So many more than rules
    keep are read, whatever rules want of them: those behind had enough before. Which came since is
    told by revision and by time, as two commits of one millisecond have one entry, the latter's."""
    kept = configuration.newer_kept(target.key)[1]
    position, end = _first_noncurrent(target), _behind_all(target)
    due: list[DueVersion] = []
    seen = later = through = 0
    while position < end and (missing := kept + PUSHED_VERSIONS + later - seen) > 0:
        page = await storage.store.scan_listed(
            position, end, limit=min(missing, SINCE_VERSIONS), revision=target.revision
        )
        if len(due) < most:
            younger = range(seen, seen + len(page.items))
            found = await due_now(storage, target, configuration, page.items, now_ms, younger)
            due += [one for one in found if not one.passed]
        seen += len(page.items)
        for item in page.items:
            record = _record(item)
            if record is not None:
                through = record.sequence
                later += item.revision > since or record.noncurrent_ms >= since_ms
        if not page.more:
            break
        position = page.items[-1].key + b"\x00"
    return PushedOut(due[:most], through if len(due) >= most else 0)


def is_locked(record: ObjectRecord, now_ms: int) -> bool:
    """Whether object lock keeps a version at this time."""
    lock = record.description.lock
    return lock is not None and lock_rules.is_kept(
        lock.mode, lock.until_ms, legal_hold=lock.legal_hold, now_ms=now_ms
    )


def unlocked_entry(storage: Storage, target: Target, record: ObjectRecord, now_ms: int) -> bytes:
    """The key of the entry for a version that object lock keeps: at the end of its retention; under
    a legal hold at the next midnight, so that it is the same all day."""
    lock = record.description.lock
    day_ms = storage.lifecycle_day_ms
    look_ms = (now_ms // day_ms + 1) * day_ms
    if lock is not None and not lock.legal_hold and lock.until_ms > now_ms:
        look_ms = lock.until_ms
    subject = keys.due_version(target.key, record.sequence)
    return lifecycle.entry_at(storage, target.bucket, look_ms, subject)


async def youngest(storage: Storage, target: Target, end: bytes, most: int) -> list[Item]:
    """The youngest noncurrent versions whose keys lie before `end`, `most` at most."""
    start = _first_noncurrent(target)
    found: list[Item] = []
    while len(found) < most and start < end:
        page = await storage.store.scan_listed(
            start, end, limit=most - len(found), revision=target.revision
        )
        found += page.items
        if not page.more:
            break
        start = page.items[-1].key + b"\x00"
    return found


def _record(item: Item) -> ObjectRecord | None:
    """A version; None for one that cannot be read, which must not hold up others."""
    try:
        return decode(ObjectRecord, item.value)
    except RecordFormatError:
        return None


def _behind_all(target: Target) -> bytes:
    return keys.after_prefix(keys.versions_of(target.bucket_name, target.key))


def _first_noncurrent(target: Target) -> bytes:
    """Where the key's noncurrent versions begin: behind the marker that is its newest version, if
    there is one."""
    if target.visible is None and target.newest:
        return target.noncurrent[target.newest].key + b"\x00"
    return keys.versions_of(target.bucket_name, target.key)


async def _has_older(storage: Storage, target: Target, found: Found) -> bool:
    end = _behind_all(target)
    page = await storage.store.scan_listed(
        found.key + b"\x00", end, limit=1, revision=target.revision
    )
    return bool(page.items)


async def _noncurrent_since(storage: Storage, target: Target, found: Found) -> int:
    """When a version became noncurrent whose record does not say it: when the one that came after
    it was made."""
    start = keys.versions_of(target.bucket_name, target.key)
    after = target.visible
    while start < found.key:
        page = await storage.store.scan_listed(
            start, found.key, limit=SINCE_VERSIONS, revision=target.revision
        )
        if page.items:
            after = decode(ObjectRecord, page.items[-1].value)
            start = page.items[-1].key + b"\x00"
        if not page.more:
            break
    return after.modified_ms if after is not None else found.record.modified_ms
