"""The trash of buckets without versioning, and undo of a prefix of those with versioning."""

from __future__ import annotations

import msgspec

from s3gw import limits
from s3gw.admin import models, undo_models
from s3gw.admin.port import AdminPort, bad_request, conflict, not_found
from s3gw.metadata import keys
from s3gw.metadata.counters import total
from s3gw.metadata.records import BucketRecord
from s3gw.objects import trash
from s3gw.objects.buckets import change_bucket, find_bucket
from s3gw.objects.publish import ENABLED
from s3gw.objects.restore import Emptied, Restored, restore, take_away


async def show_trash(port: AdminPort, path: models.BucketPath) -> undo_models.Trash:
    """How long a bucket keeps what is deleted, and what is in its trash."""
    bucket = (await find_bucket(port.storage, path.bucket)).record
    assert bucket is not None
    prefix = keys.usages(path.bucket)
    slots = await port.storage.store.kv.scan(
        prefix, keys.after_prefix(prefix), limit=limits.USAGE_SLOTS_MAX
    )
    usage = total(slots.items)
    return undo_models.Trash(
        path.bucket, bucket.trash_ms // 1000, usage.trash_objects, usage.trash_bytes
    )


async def set_trash(
    port: AdminPort, path: models.BucketPath, body: undo_models.SetTrash
) -> undo_models.Trash:
    """Keep from now on what is deleted or replaced, for so long."""

    def change(bucket: BucketRecord) -> BucketRecord:
        if bucket.versioning and body.keep_seconds:
            raise conflict(f"{path.bucket} has versioning, which keeps what is deleted: use undo")
        return msgspec.structs.replace(bucket, trash_ms=body.keep_seconds * 1000)

    await change_bucket(port.storage, path.bucket, change)
    return await show_trash(port, path)


async def list_trash(
    port: AdminPort, path: models.BucketPath, query: undo_models.TrashQuery
) -> undo_models.TrashEntries:
    """What is in the trash, by key and the newest of a key first; also of a bucket of this name
    that was deleted."""
    found, more = await trash.list_trash(
        port.storage,
        path.bucket,
        query.prefix,
        after=bytes.fromhex(query.after),
        most=query.limit,
    )
    if not found:
        await find_bucket(port.storage, path.bucket)
    entries = [
        undo_models.TrashEntry(
            one.key,
            f"{one.record.record.sequence:016x}",
            one.record.record.size,
            one.record.record.etag,
            one.record.record.modified_ms,
            one.record.trashed_ms,
            one.record.purge_ms,
        )
        for one in found
    ]
    return undo_models.TrashEntries(entries, found[-1].record_key.hex() if found and more else "")


async def restore_trash(
    port: AdminPort, path: models.BucketPath, body: undo_models.RestoreTrash
) -> undo_models.RestoreReport:
    """Bring back a key, or the keys under a prefix."""
    if (body.key is None) == (body.prefix is None):
        raise bad_request("give a key or a prefix")
    if body.prefix is not None and body.entry:
        raise bad_request("an entry is one of a key, not of a prefix")
    await find_bucket(port.storage, path.bucket)
    names, following = [body.key or ""], ""
    if body.prefix is not None:
        names, following = await _names(port, path.bucket, body.prefix, body)
    found = dict.fromkeys(Restored, 0)
    sequence = int(body.entry, 16) if body.entry else None
    for name in names:
        outcome = await restore(port.storage, path.bucket, name, sequence, replace=body.replace)
        found[outcome] += 1
    return undo_models.RestoreReport(
        found[Restored.DONE], found[Restored.OCCUPIED], found[Restored.MISSING], following
    )


async def _names(
    port: AdminPort, bucket: str, prefix: str, body: undo_models.RestoreTrash
) -> tuple[list[str], str]:
    """The next keys that have something in the trash, and the cursor behind them."""
    after = b""
    if body.after:
        # Behind all entries of the last key.
        after = keys.trashed(bucket, _text(body.after), 0)
    found, more = await trash.list_trash(port.storage, bucket, prefix, after=after, most=body.limit)
    names = list(dict.fromkeys(one.key for one in found))
    return names, names[-1].encode().hex() if names and more else ""


def _text(cursor: str) -> str:
    try:
        return bytes.fromhex(cursor).decode()
    except UnicodeDecodeError:
        raise bad_request("`after` is no cursor of this listing") from None


async def empty_trash(
    port: AdminPort, path: models.BucketPath, body: undo_models.EmptyTrash
) -> undo_models.EmptyReport:
    """Remove for good what is in the trash under a prefix."""
    found, more = await trash.list_trash(port.storage, path.bucket, body.prefix, most=body.limit)
    if not found:
        await find_bucket(port.storage, path.bucket)
    emptied = Emptied()
    await take_away(port.storage, found, emptied)
    return undo_models.EmptyReport(emptied.objects, emptied.bytes, emptied.lost, more)


async def plan_undo(
    port: AdminPort, path: models.BucketPath, body: undo_models.PlanUndo
) -> undo_models.UndoPlan:
    """What an undo begun now would do."""
    bucket = (await find_bucket(port.storage, path.bucket)).record
    if bucket is None or bucket.versioning != ENABLED:
        raise conflict(f"{path.bucket} keeps no versions now")
    after = _text(body.after)
    return await port.jobs.plan_undo(
        path.bucket, body.prefix, body.at_ms, after=after, most=body.limit
    )


async def start_undo(
    port: AdminPort, path: models.BucketPath, body: undo_models.UndoRequest
) -> undo_models.UndoView:
    """Let the keys under a prefix show what they showed at a moment."""
    await find_bucket(port.storage, path.bucket)
    return await port.jobs.start_undo(path.bucket, body.prefix, body.at_ms)


async def show_undo(port: AdminPort, path: models.BucketPath) -> undo_models.UndoView:
    """How far the last undo of a bucket has come."""
    await find_bucket(port.storage, path.bucket)
    job = await port.jobs.undo(path.bucket)
    if job is None:
        raise not_found("NoUndo", f"nothing of {path.bucket} was ever undone")
    return job


async def cancel_undo(port: AdminPort, path: models.BucketPath) -> undo_models.UndoView:
    """Stop an undo where it is; what it did stays."""
    await find_bucket(port.storage, path.bucket)
    return await port.jobs.cancel_undo(path.bucket)
