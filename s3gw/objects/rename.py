"""RenameObject in terms of storage: one commit in which the source goes and the target comes.

No byte moves. The target's record names the same data under a reference of its own; the source's
goes to the collector, which finds the other one and leaves the blob alone. The commit is guarded by
the bucket and by both keys as they were read, so that nobody ever sees both names, or neither.

What becomes of the keys is what a delete and a write would make of them. Without versioning the
source is gone, and what the target's name held is replaced. With versioning the source gets a
delete marker and keeps its versions, and the target gets a new version, also where versioning is
suspended (null ones then). An object keeps all that it is: headers, tags, checksums, storage class,
owner, lock, and without versioning the time of its last modification; versions are ordered by that
time, so that a new one has its own.

A client token makes retries harmless: its record, written in the same commit, answers them.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord, RenamedRecord, Usage
from s3gw.metadata.store import Transaction, Versioned
from s3gw.objects import lifecycle, names, publish
from s3gw.objects.copy import SourceCheck
from s3gw.objects.delete import hide, tell_reprofile
from s3gw.objects.publish import Check, Target, version_id_of
from s3gw.objects.storage import Storage

RENAMED_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Renaming:
    """What a rename asks for. `owner` is that of a delete marker. `token` is the digest of caller
    and client token (b"": none), `digest` that of all the request's parameters."""

    owner: str
    check_source: SourceCheck
    check: Check
    token: bytes = b""
    digest: bytes = b""


async def rename_object(
    storage: Storage, source: Target, target: Target, renaming: Renaming
) -> str:
    """Give the visible version of `source` the name of `target`, a key of the same bucket. Returns
    the new version's id as clients see it. Raises S3Error, OutcomeUnknown."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        answered = await answer_of(storage, target, renaming)
        if answered.record is not None:
            return answered.record.version_id
        record = source.visible
        if record is None:
            raise errors.NoSuchKey(Key=source.key)
        renaming.check_source(source)
        renaming.check(target)
        tx = publish.guarded(target)
        tx.guards += publish.guarded(source).guards
        renamed = publish.under_new_name(storage, tx, target, record)
        renamed = publish.replace(storage, tx, target, renamed)
        leave(storage, tx, source, record, renaming.owner)
        # The marker that the source gets could be that of a delete.
        tx.witness = keys.object_(target.bucket_name, target.key)
        former = "" if source.bucket.versioning else source.key
        names.queue(tx, target, renamed, former)
        await tell_reprofile(storage, tx, target.bucket_name)
        version_id = version_id_of(target.bucket, renamed)
        if renaming.token:
            key = keys.renamed(target.bucket.bucket_id, renaming.token)
            tx.expect(key, answered.revision)
            expires_ms = storage.clock_ms() + RENAMED_MS
            answer = RenamedRecord(renaming.digest, expires_ms, version_id)
            storage.store.put_listed(tx, key, answer)
            tx.witness = key
        try:
            await storage.store.apply(tx)
        except Conflict:
            source = await publish.read_target(storage, source.bucket_name, source.key)
            target = await publish.read_target(storage, target.bucket_name, target.key)
        else:
            return version_id
    raise errors.OperationAborted("The keys are written too often by others. Please try again.")


async def answer_of(
    storage: Storage, target: Target, renaming: Renaming
) -> Versioned[RenamedRecord]:
    """What a request with the same client token was answered, and the revision of that; no record
    when there was none. Raises IdempotencyParameterMismatch when it asked for something else."""
    if not renaming.token:
        return Versioned(None, 0)
    key = keys.renamed(target.bucket.bucket_id, renaming.token)
    found = await storage.store.get(RenamedRecord, key)
    if found.record is None or found.record.expires_ms <= storage.clock_ms():
        return Versioned(None, found.revision)
    if found.record.digest != renaming.digest:
        raise errors.IdempotencyParameterMismatch()
    return found


def leave(
    storage: Storage, tx: Transaction, source: Target, record: ObjectRecord, owner: str
) -> None:
    """Take the object away from its old name. It is not deleted, so that no trash keeps it."""
    if source.bucket.versioning:
        hide(storage, tx, source, owner)
        return
    storage.store.delete_listed(tx, keys.object_(source.bucket_name, source.key))
    lifecycle.unschedule(storage, tx, source.bucket, source.key, record)
    publish.release(storage, tx, source, record)
    tx.use(source.bucket_name, Usage(objects=-1, bytes=-record.size))
