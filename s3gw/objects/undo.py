"""Undoing what happened to keys of a bucket with versioning, back to a moment.

For each key the version that was visible then is made visible again, by a copy that shares its
data; a key that showed nothing then gets a delete marker. Nothing is removed: what is visible now
becomes a noncurrent version, and so an undo can be undone. A bucket's default retention counts for
the copies as for every new version.

What was visible at a moment is told by the versions that are there: it is the newest that was last
modified at or before it, unless it was on its way then: a version comes when the one behind it
becomes noncurrent. A version that was removed for good is not there, and what was behind it then
takes its place. Who writes a key after the undo has begun wins: a key whose newest version has
no lower sequence than the undo (the first of the moment that its beginning was read at) is left
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects import profiles, publish, references
from s3gw.objects.delete import hide, tell_reprofile
from s3gw.objects.publish import ENABLED, Found, Target
from s3gw.objects.storage import Storage
from s3gw.objects.version_listing import list_versions

VERSIONS_PER_READ = 100


class NotVersioned(Exception):
    """The bucket keeps no versions now, so that something would be lost."""


class Verdict(Enum):
    """What an undo does to a key."""

    UNCHANGED = "shows what it showed then"
    RESTORE = "gets a copy of an older version"
    HIDE = "gets a delete marker"
    LEAVE = "was written since the undo began"


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment to go back to, in Unix milliseconds, and the sequence of the undo."""

    at_ms: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Page:
    """Keys whose newest version may be younger than the moment, in order; `seen` counts all keys of
    the page, and `last` is the last of them, "" behind which there are no more. Of the `unreadable`
    ones some version's record cannot be read: what they showed at the moment is not known."""

    changed: list[str]
    seen: int
    last: str
    unreadable: list[str]


async def keys_changed(
    storage: Storage, bucket: str, prefix: str, at_ms: int, *, after: str, most: int
) -> Page:
    """The next keys under a prefix, by a page of at most `most` versions."""
    listing = await list_versions(
        storage,
        bucket,
        prefix=prefix,
        delimiter="",
        most=most,
        after_key=after,
        pass_over_unreadable=True,
    )
    unreadable = dict.fromkeys(listing.unreadable)
    changed: list[str] = []
    seen = 0
    for entry, behind in zip_longest(listing.entries, listing.entries[1:]):
        if not entry.latest or entry.key in unreadable:
            continue
        seen += 1
        came_later = behind is None and listing.truncated
        if behind is not None and behind.key == entry.key:
            came_later = behind.record.noncurrent_ms > at_ms
        if came_later or entry.record.modified_ms > at_ms:
            changed.append(entry.key)
    last = listing.last_key if listing.truncated else ""
    return Page(changed, seen + len(unreadable), last, list(unreadable))


async def judge(storage: Storage, target: Target, moment: Moment) -> tuple[Verdict, Found | None]:
    """What is to be done with a key as read, and with which version. Raises NotVersioned."""
    if target.bucket.versioning != ENABLED:
        raise NotVersioned
    latest, visible = target.latest, target.visible
    if latest is None:
        return Verdict.UNCHANGED, None
    found = await _newest_at(storage, target, latest, moment.at_ms)
    if found is not None and found.record is latest:
        verdict = Verdict.UNCHANGED
    elif found is None or found.record.marker:
        verdict = Verdict.UNCHANGED if visible is None else Verdict.HIDE
    else:
        same = visible is not None and _is_copy(visible, found.record)
        verdict = Verdict.UNCHANGED if same else Verdict.RESTORE
    if verdict is not Verdict.UNCHANGED and latest.sequence >= moment.sequence:
        return Verdict.LEAVE, None
    return verdict, found


async def undo_key(storage: Storage, bucket: str, key: str, moment: Moment) -> Verdict:
    """Let a key show what it showed at a moment, in one commit. Raises NotVersioned, S3Error,
    OutcomeUnknown."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        target = await publish.read_target(storage, bucket, key)
        verdict, found = await judge(storage, target, moment)
        if verdict in (Verdict.UNCHANGED, Verdict.LEAVE):
            return verdict
        tx = publish.guarded(target)
        if verdict is Verdict.HIDE:
            hide(storage, tx, target, target.bucket.owner)
        else:
            assert found is not None
            await _show(storage, tx, target, found)
        try:
            await storage.store.apply(tx)
        except Conflict:
            continue
        return verdict
    raise errors.OperationAborted("The key is written too often by others. Please try again.")


async def _newest_at(
    storage: Storage, target: Target, latest: ObjectRecord, at_ms: int
) -> Found | None:
    """The newest version that was there at the moment, maybe a marker."""
    position = keys.versions_of(target.bucket_name, target.key)
    end = keys.after_prefix(position)
    held: Found | None = Found(
        keys.object_(target.bucket_name, target.key), latest, target.current.revision
    )
    if target.visible is None:
        held = target.noncurrent[target.newest]
        position = held.key + b"\x00"
    if latest.modified_ms > at_ms:
        held = None
    while position < end:
        page = await storage.store.scan_listed(
            position, end, limit=VERSIONS_PER_READ, revision=target.revision
        )
        for item in page.items:
            record = decode(ObjectRecord, item.value)
            if held is not None and record.noncurrent_ms <= at_ms:
                return held
            there = record.modified_ms <= at_ms
            held = Found(item.key, record, item.revision) if there else None
        if not page.more:
            break
        position = page.items[-1].key + b"\x00"
    return held


def _is_copy(visible: ObjectRecord, old: ObjectRecord) -> bool:
    """Whether what is visible is what an undo makes of the old version."""
    return (visible.data, visible.etag, _description(visible)) == (
        old.data,
        old.etag,
        _description(old),
    )


def _description(record: ObjectRecord) -> msgspec.Struct:
    """All but the lock, which every version has for itself."""
    return msgspec.structs.replace(record.description, lock=None)


async def _show(storage: Storage, tx: Transaction, target: Target, found: Found) -> None:
    """Copy a noncurrent version to the front, sharing its data."""
    old = found.record
    await profiles.know(storage, *profiles.named_by(old.data))
    tx.expect(found.key, found.revision)
    sequence = publish.sequence_of(storage, target)
    assert old.data is not None
    holder = keys.object_holder(target.bucket_name, target.key, sequence)
    references.hold(storage, tx, target.bucket_name, old.data, holder)
    copy = msgspec.structs.replace(
        old,
        sequence=sequence,
        modified_ms=storage.clock_ms(),
        description=msgspec.structs.replace(old.description, lock=None),
    )
    publish.replace(storage, tx, target, copy)
    await tell_reprofile(storage, tx, target.bucket_name)
