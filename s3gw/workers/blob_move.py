"""Moving one blob into another profile, holders and all, as `s3gw.workers.reencode` does it.

The blob's entry in the repair queue says where it is to go. Whatever is cut short after the copy
was published is ended by the repair worker, which finds the entry.
"""

from __future__ import annotations

import msgspec

from s3gw.cluster.tunables import Throttle
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Repair, decode
from s3gw.objects.references import URGENCY_MISPLACED
from s3gw.objects.storage import Storage
from s3gw.workers import reencode
from s3gw.workers.contract import Claim
from s3gw.workers.damage import URGENCIES
from s3gw.workers.reencode import Entry, Swap

# The repair worker leaves a move to whoever began it for so long.
HEAD_START_MS = 60_000


async def move_blob(
    storage: Storage,
    claim: Claim,
    bucket: str,
    ref: BlobRef,
    target: str,
    *,
    reason: str,
    throttle: Throttle,
    follows: bool = True,
) -> bool:
    """Write a blob anew in profile `target`, and move over all that holds it in `bucket`; False
    when some holders must wait. `follows` as in Swap. Raises Conflict, OutcomeUnknown,
    NotPossibleNow, BlobUnreadable, ContentChanged, UnknownProfile."""
    entry = await _entry(storage, bucket, ref, target, reason)
    if entry.record.copy is None:
        goal = reencode.destination(storage.blobs.topology, ref.profile, target)
        reencode.require_opening(storage, goal)
        await throttle.take(2 * ref.size)
        entry = await reencode.write_copy(storage, claim, entry, ref)
    return await Swap(storage, claim, entry, ref, follows=follows).run()


async def _entry(storage: Storage, bucket: str, ref: BlobRef, target: str, reason: str) -> Entry:
    """The blob's entry in the repair queue, if it has one, else one that is not written yet."""
    number = storage.blobs.topology.group_of(ref.profile, ref.blob).number
    wanted = [keys.repair(urgency, ref.profile, number, ref.blob) for urgency in URGENCIES]
    found = [item for item in (await storage.store.kv.get_many(wanted)).items if item is not None]
    entries = [Entry(item.key, item.revision, decode(Repair, item.value)) for item in found]
    if entries:
        entry = next((each for each in entries if each.record.copy is not None), entries[0])
        if entry.record.copy is not None:
            return entry
        record = msgspec.structs.replace(entry.record, target=target, bucket=bucket)
        return Entry(entry.key, entry.revision, record)
    key = keys.repair(URGENCY_MISPLACED, ref.profile, number, ref.blob)
    now_ms = storage.clock_ms()
    record = Repair(
        ref.profile,
        number,
        ref.blob,
        reason,
        now_ms,
        now_ms + HEAD_START_MS,
        target=target,
        bucket=bucket,
    )
    return Entry(key, 0, record)
