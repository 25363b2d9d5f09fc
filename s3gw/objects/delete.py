"""DeleteObject in terms of storage.

Without a version named, a bucket with versioning gets a delete marker, any other loses the key's
visible version. With one named, that version goes for good; when it was the newest, the next newest
takes its place: a version becomes visible, a marker stays where it is. Both are one commit, guarded
by what the newest version is and, where it is looked at, by the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import Conflict, Empty, Guard
from s3gw.metadata import keys
from s3gw.metadata.records import Description, ObjectRecord, ReprofileJob, Usage, decode
from s3gw.metadata.store import Transaction
from s3gw.objects import lifecycle, publish
from s3gw.objects.publish import Check, Target, version_id_of
from s3gw.objects.storage import Storage
from s3gw.wire.version_ids import NULL, NULL_VERSION, encode_version_id

# Each of them takes three writes of a commit at the most: its record, a fence, a look of lifecycle.
MARKERS_PER_COMMIT = 32


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did. `version_id`: of the marker that was made or of the version named, ""
    for neither; `marker`: a delete marker was made or removed."""

    version_id: str = ""
    marker: bool = False


async def delete_object(
    storage: Storage,
    target: Target,
    check: Check,
    *,
    owner: str = "",
    bypass: bool = False,
    guards: Sequence[Guard] = (),
) -> Deleted:
    """Remove the version that the target asks for, or hide the key; what is absent is no error.
    `owner` is that of a marker; with `bypass`, object lock in mode GOVERNANCE does not keep a
    version; `guards` are what else the decision rests on. Raises S3Error, OutcomeUnknown."""
    (deleted,) = await delete_again(
        storage, target, check, times=1, owner=owner, bypass=bypass, guards=guards
    )
    return deleted


async def delete_again(
    storage: Storage,
    target: Target,
    check: Check,
    *,
    times: int,
    owner: str = "",
    bypass: bool = False,
    guards: Sequence[Guard] = (),
) -> list[Deleted]:
    """`delete_object` asked for several times in a row, as far as one commit goes: what each of
    the first did, at least one. All of these are decided on the same: once the key is hidden."""
    with storage.turns.of(keys.object_(target.bucket_name, target.key)) as turn:
        if await turn.behind_others():
            target = await publish.read_target(
                storage, target.bucket_name, target.key, target.asked
            )
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            tx = publish.guarded(target)
            tx.guards += guards
            alike = times if target.shown is None else 1
            if target.asked is not None:
                removed = await _remove_version(storage, tx, target, check, bypass=bypass)
                done = [removed] * (1 if tx.writes else alike)
            else:
                _judge(target, check)
                done = _hide(storage, tx, target, owner, alike)
            if not tx.writes:
                return done
            try:
                await storage.store.apply(tx)
            except Conflict:
                await turn.wait()
                target = await publish.read_target(
                    storage, target.bucket_name, target.key, target.asked
                )
            else:
                return done
    raise errors.OperationAborted("The key is written too often by others. Please try again.")


def _judge(target: Target, check: Check) -> None:
    """Check conditions. A key that a delete marker hides fails it otherwise than one that is not
    there: 412 instead of 404, as on S3."""
    try:
        check(target)
    except errors.NoSuchKey:
        if target.latest is None:
            raise
        raise errors.PreconditionFailed(Condition="If-Match") from None


def hide(storage: Storage, tx: Transaction, target: Target, owner: str) -> Deleted:
    """Remove the visible version, or put a delete marker in front."""
    (deleted,) = _hide(storage, tx, target, owner, 1)
    return deleted


def _hide(
    storage: Storage, tx: Transaction, target: Target, owner: str, times: int
) -> list[Deleted]:
    """`hide` up to so many times, at least once: where versions are kept, with a marker each. They
    are of one moment, so that what is drawn orders them."""
    if target.visible is not None:
        storage.store.delete_listed(tx, keys.object_(target.bucket_name, target.key))
    if not target.bucket.versioning:
        publish.make_way(storage, tx, target, null=True)
        return [Deleted()] * times
    kept = target.bucket.versioning == publish.ENABLED
    more = min(times, MARKERS_PER_COMMIT) - 1 if kept else 0
    again = (dataclasses.replace(target, drawn=next(storage.draws)) for _ in range(more))
    sequences = sorted(publish.sequence_of(storage, reading) for reading in (target, *again))
    markers = [_marker(storage, target, owner, sequence) for sequence in sequences]
    publish.make_way(storage, tx, target, null=not kept)
    for marker in markers:
        key = tx.witness = keys.version(target.bucket_name, target.key, marker.sequence)
        if marker is not markers[-1]:
            marker = msgspec.structs.replace(marker, noncurrent_ms=marker.modified_ms)
        storage.store.put_listed(tx, key, marker)
        lifecycle.schedule(storage, tx, target.bucket_name, target.bucket, target.key, marker)
    if more:
        lifecycle.displaced(storage, tx, target.bucket_name, target.bucket, target.key)
    tx.use(target.bucket_name, Usage(markers=len(markers)))
    made = [Deleted(version_id_of(target.bucket, marker), marker=True) for marker in markers]
    return made if kept else made * times


def _marker(storage: Storage, target: Target, owner: str, sequence: int) -> ObjectRecord:
    record = ObjectRecord(
        sequence=sequence,
        modified_ms=storage.clock_ms(),
        owner=owner,
        size=0,
        etag="",
        data=None,
        description=Description(),
        marker=True,
    )
    return publish.as_newest(target, record)


async def _remove_version(
    storage: Storage, tx: Transaction, target: Target, check: Check, *, bypass: bool
) -> Deleted:
    """Remove the version asked for."""
    _judge(target, check)
    found = target.found
    if found is None:
        named = NULL if target.asked == NULL_VERSION else encode_version_id(target.asked or 0)
        return Deleted(named)
    record, latest = found.record, target.latest
    if record is target.visible:
        storage.store.delete_listed(tx, found.key)
        publish.let_go(storage, tx, target, record, bypass=bypass)
        tx.use(target.bucket_name, Usage(objects=-1, bytes=-record.size))
    else:
        publish.drop_noncurrent(storage, tx, target, found, bypass=bypass)
    if target.bucket.versioning and latest is not None and latest.sequence == record.sequence:
        await _bring_forward(storage, tx, target, record)
    shown = version_id_of(target.bucket, record) or NULL
    return Deleted(shown, marker=record.marker)


async def _bring_forward(
    storage: Storage, tx: Transaction, target: Target, removed: ObjectRecord
) -> None:
    """Make the version behind the newest, which is removed, the visible one, unless it is a
    marker."""
    behind = keys.version(target.bucket_name, target.key, removed.sequence) + b"\x00"
    end = keys.after_prefix(keys.versions_of(target.bucket_name, target.key))
    page = await storage.store.scan_listed(behind, end, limit=1, revision=target.revision)
    tx.guards.append(Empty(behind, page.items[0].key if page.items else end))
    for item in page.items[:1]:
        tx.expect(item.key, item.revision)
        noncurrent = decode(ObjectRecord, item.value)
        lifecycle.unschedule(storage, tx, target.bucket, target.key, noncurrent)
        record = msgspec.structs.replace(noncurrent, noncurrent_ms=0)
        lifecycle.schedule(storage, tx, target.bucket_name, target.bucket, target.key, record)
        if record.marker:
            storage.store.put_listed(tx, item.key, record)
        else:
            storage.store.delete_listed(tx, item.key)
            object_key = keys.object_(target.bucket_name, target.key)
            storage.store.put_listed(tx, object_key, record)
            tx.use(target.bucket_name, Usage(objects=1, versions=-1))
            await tell_reprofile(storage, tx, target.bucket_name)


async def tell_reprofile(storage: Storage, tx: Transaction, bucket: str) -> None:
    """A move of the bucket to another profile walks over its keys and visible versions first: what
    appears behind its back with an old blob is seen by another round."""
    key = keys.reprofile(bucket)
    job = await storage.store.get(ReprofileJob, key)
    tx.expect(key, job.revision)
    if job.record is not None and not job.record.met and not job.record.ended_ms:
        tx.put(key, msgspec.structs.replace(job.record, met=True))
