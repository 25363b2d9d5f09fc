"""Bringing objects back from the trash, and emptying it.

Restoring is a write like any other: one commit in which the object appears under its key, as it
was, and leaves the trash. As with a copy it is last modified then, so that lifecycle rules do not
take it away again at once. What is there under the key is replaced only if that is asked for, and
goes into the trash itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import Conflict
from s3gw.metadata import keys
from s3gw.metadata.store import Transaction, Versioned
from s3gw.objects import names, profiles, publish, trash
from s3gw.objects.delete import tell_reprofile
from s3gw.objects.publish import Target
from s3gw.objects.storage import Storage
from s3gw.objects.trash import Trashed

ENTRIES_PER_COMMIT = 12


class Restored(Enum):
    """What became of a key that was to be restored."""

    DONE = "restored"
    OCCUPIED = "there is an object under the key"
    MISSING = "not in the trash"


@dataclass(slots=True)
class Emptied:
    """Versions and bytes that left the trash, versions left because others changed them."""

    objects: int = 0
    bytes: int = 0
    lost: int = 0


async def restore(
    storage: Storage, bucket: str, key: str, sequence: int | None, *, replace: bool
) -> Restored:
    """Bring back what was last in the trash under a key, or the version with this sequence. Raises
    NoSuchBucket, OutcomeUnknown."""
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        target = await publish.read_target(storage, bucket, key)
        trashed = await _find(storage, bucket, key, sequence)
        if trashed is None:
            return Restored.MISSING
        if target.visible is not None and not replace:
            return Restored.OCCUPIED
        tx = await _restoring(storage, target, trashed)
        try:
            await storage.store.apply(tx)
        except Conflict:
            continue
        return Restored.DONE
    raise errors.OperationAborted("The key is written too often by others. Please try again.")


async def _find(storage: Storage, bucket: str, key: str, sequence: int | None) -> Trashed | None:
    if sequence is not None:
        record_key = keys.trashed(bucket, key, sequence)
        (item,) = (await storage.store.kv.get_many([record_key])).items
        return trash.of_item(item) if item is not None else None
    start = keys.trash_of(bucket, key)
    page = await storage.store.scan_listed(start, keys.after_prefix(start), limit=1)
    return trash.of_item(page.items[0]) if page.items else None


async def _restoring(storage: Storage, target: Target, trashed: Trashed) -> Transaction:
    record = trashed.record.record
    await profiles.know(storage, target.bucket.profile, *profiles.named_by(record.data))
    tx = publish.guarded(target)
    trash.take_out(storage, tx, trashed, Versioned(target.bucket, target.bucket_revision))
    restored = publish.under_new_name(storage, tx, target, record)
    restored = msgspec.structs.replace(restored, modified_ms=storage.clock_ms())
    if await names.is_named(storage, trashed.bucket_name, trashed.key, record.sequence):
        names.queue(tx, target, restored, "")
    publish.replace(storage, tx, target, restored)
    await tell_reprofile(storage, tx, target.bucket_name)
    return tx


async def take_away(storage: Storage, trashed: list[Trashed], emptied: Emptied) -> None:
    """Let versions in the trash go for good, those of a bucket together. Raises OutcomeUnknown."""
    by_bucket: dict[str, list[Trashed]] = {}
    for one in trashed:
        by_bucket.setdefault(one.bucket_name, []).append(one)
    for bucket, group in by_bucket.items():
        for first in range(0, len(group), ENTRIES_PER_COMMIT):
            await _take_away(storage, bucket, group[first : first + ENTRIES_PER_COMMIT], emptied)


async def _take_away(storage: Storage, bucket: str, group: list[Trashed], emptied: Emptied) -> None:
    """In one commit; when somebody else changed one, each in one of its own."""
    now = await trash.bucket_now(storage, bucket)
    for one in group:
        data = one.record.record.data
        await profiles.know(storage, *profiles.named_by(data))
    tx = Transaction()
    for one in group:
        trash.take_out(storage, tx, one, now)
    try:
        await storage.store.apply(tx)
    except Conflict:
        if len(group) == 1:
            emptied.lost += 1
            return
        for one in group:
            await _take_away(storage, bucket, [one], emptied)
        return
    emptied.objects += len(group)
    emptied.bytes += sum(one.record.record.size for one in group)
