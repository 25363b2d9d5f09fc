"""Moving one blob into another profile, holders and all, as `s3gw.workers.reencode` does it.

The blob's entry in the repair queue says where it is to go. Whatever is cut short after the copy
was published is ended by the repair worker, which finds the entry.
"""

from __future__ import annotations

import msgspec

from s3gw.cluster.topology import Profile
from s3gw.cluster.tunables import Throttle
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, Repair, decode
from s3gw.metadata.store import Transaction
from s3gw.objects.references import URGENCY_MISPLACED
from s3gw.objects.storage import Storage
from s3gw.workers import reencode
from s3gw.workers.contract import Claim, commit
from s3gw.workers.damage import URGENCIES
from s3gw.workers.reencode import Entry, NotPossibleNow, Swap

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
) -> bool:
    """Write a blob anew in profile `target`, and move over all that holds it in `bucket`; False
    when some holders must wait. Raises Conflict, OutcomeUnknown, NotPossibleNow, BlobUnreadable,
    ContentChanged, UnknownProfile."""
    entry = await _entry(storage, bucket, ref, target, reason)
    if entry.record.copy is None:
        await throttle.take(2 * ref.size)
        entry = await reencode.write_copy(storage, claim, entry, ref)
    return await Swap(storage, claim, entry, ref).run()


async def end_other_move(
    storage: Storage, claim: Claim, bucket: str, ref: BlobRef, profile: Profile
) -> bool:
    """See to it that no move begun before takes a blob out of `profile`, where it is to stay: one
    that has no copy yet is called off, any other is brought to its end, and whoever asked finds the
    blob elsewhere. True for the latter. Raises Conflict, OutcomeUnknown, NotPossibleNow,
    ContentChanged."""
    found = await _find(storage, ref)
    if found is None:
        return False
    homes, record = ("", profile.name, profile.companion), found.record
    if record.copy is None:
        if record.target not in homes:
            tx = Transaction()
            tx.expect(found.key, found.revision)
            tx.put(found.key, msgspec.structs.replace(record, target="", bucket=""))
            tx.witness = found.key
            await commit(storage.store, claim, tx)
        return False
    if record.copy.profile in homes:
        return False
    if not await Swap(storage, claim, found, ref).run():
        raise NotPossibleNow(f"blob {ref.blob.hex()} is on its way to another profile")
    return True


async def _entry(storage: Storage, bucket: str, ref: BlobRef, target: str, reason: str) -> Entry:
    """The blob's entry in the repair queue, if it has one, else one that is not written yet."""
    found = await _find(storage, ref)
    if found is not None:
        record = found.record
        if record.copy is None:
            record = msgspec.structs.replace(record, target=target, bucket=bucket)
        return Entry(found.key, found.revision, record)
    number = storage.blobs.topology.group_of(ref.profile, ref.blob).number
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


async def _find(storage: Storage, ref: BlobRef) -> Entry | None:
    """The blob's entry in the repair queue, if it has one."""
    number = storage.blobs.topology.group_of(ref.profile, ref.blob).number
    wanted = [keys.repair(urgency, ref.profile, number, ref.blob) for urgency in URGENCIES]
    for item in (await storage.store.kv.get_many(wanted)).items:
        if item is not None:
            return Entry(item.key, item.revision, decode(Repair, item.value))
    return None
