"""Changing what a version's record says beside its bytes: its tags, its lock.

The version stays the same, ETag and date included. The blob's footer keeps what the object was
written with: metadata that is made anew from the drives alone has that.
"""

from __future__ import annotations

from collections.abc import Callable

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord
from s3gw.metadata.store import Transaction
from s3gw.objects import lifecycle
from s3gw.objects.publish import Check, Target, no_check, read_target
from s3gw.objects.storage import Storage

Change = Callable[[ObjectRecord], ObjectRecord]


async def change_version(
    storage: Storage, target: Target, change: Change, check: Check = no_check
) -> ObjectRecord:
    """Write what `change` makes of the version that the target asks for; it keeps the sequence and
    the data, may raise S3Error, and is called again after a lost commit. Raises NoSuchKey,
    NoSuchVersion, MethodNotAllowed for a delete marker, OutcomeUnknown."""
    with storage.turns.of(keys.object_(target.bucket_name, target.key)) as turn:
        if await turn.behind_others():
            target = await read_target(storage, target.bucket_name, target.key, target.asked)
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            check(target)
            found = target.found
            if found is None:
                missing = errors.NoSuchKey if target.asked is None else errors.NoSuchVersion
                raise missing(Key=target.key)
            if found.record.marker:
                raise errors.MethodNotAllowed(ResourceType="DeleteMarker")
            record = change(found.record)
            if record == found.record:
                return record
            tx = Transaction()
            tx.expect(keys.bucket(target.bucket_name), target.bucket_revision)
            tx.expect(found.key, found.revision)
            storage.store.put_listed(tx, found.key, record)
            if record.description.tags != found.record.description.tags:
                lifecycle.unschedule(storage, tx, target.bucket, target.key, found.record)
                lifecycle.schedule(
                    storage, tx, target.bucket_name, target.bucket, target.key, record
                )
            if record.description.encryption != found.record.description.encryption:
                storage.ring.guard(tx, record.description.encryption)
            tx.witness = found.key  # whoever else wrote just this did the same
            try:
                await storage.store.apply(tx)
            except Conflict as conflict:
                await storage.ring.refresh(conflict)
                await turn.wait()
                target = await read_target(storage, target.bucket_name, target.key, target.asked)
            else:
                return record
    raise errors.OperationAborted("The key is written too often by others. Please try again.")
