"""DeleteObject in terms of storage."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.records import Usage
from s3gw.objects import publish, references
from s3gw.objects.publish import Check, Target
from s3gw.objects.storage import Storage


async def delete_object(storage: Storage, target: Target, check: Check) -> None:
    """Remove the key's visible version; an absent one is no error. Raises S3Error."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        check(target.visible)
        old = target.current.record
        if old is None:
            return
        tx = publish.guarded(target)
        storage.store.delete_listed(tx, keys.object_(target.bucket_name, target.key))
        if old.data is not None:
            holder = keys.object_holder(target.bucket_name, target.key, old.sequence)
            references.release(storage, tx, target.bucket_name, old.data, holder)
        tx.use(target.bucket_name, Usage(objects=-1, bytes=-old.size))
        try:
            await storage.store.apply(tx)
        except Conflict:
            target = await publish.read_target(storage, target.bucket_name, target.key)
        else:
            return
    raise errors.OperationAborted("The key is written too often by others. Please try again.")
