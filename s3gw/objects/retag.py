"""Changing the tags of a version: what is visible stays the same version, ETag and date included.

The blob's footer keeps the tags that the object was written with: metadata that is made anew from
the drives alone has those.
"""

from __future__ import annotations

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.objects.publish import Target, guarded, read_target
from s3gw.objects.storage import Storage


async def retag(storage: Storage, target: Target, tags: dict[str, str]) -> None:
    """Give the visible version these tags, in one commit guarded by its record and the bucket's.

    Raises NoSuchKey, NoSuchBucket, OutcomeUnknown.
    """
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        record = target.visible
        if record is None:
            raise errors.NoSuchKey(Key=target.key)
        if record.description.tags == tags:
            return
        description = msgspec.structs.replace(record.description, tags=tags)
        tx = guarded(target)
        key = keys.object_(target.bucket_name, target.key)
        storage.store.put_listed(tx, key, msgspec.structs.replace(record, description=description))
        tx.witness = key
        try:
            await storage.store.apply(tx)
        except Conflict:
            target = await read_target(storage, target.bucket_name, target.key)
        else:
            return
    raise errors.OperationAborted("The key is written too often by others. Please try again.")
