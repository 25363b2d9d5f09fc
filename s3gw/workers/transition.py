"""A version goes to another storage class, and its bytes to the profile that has the class.

Version, ETag and date stay what they are. One commit names the new blob and the class, guarded by
the bucket (its rules) and by the version's record; the old blob goes to the collector, unless other
versions hold it as well.

What was uploaded in parts goes part by part, in the way in which a bucket changes its profile
(`s3gw.workers.blob_move`), and then gets its class. Copies that share the parts have them in the
new profile from then on and keep their class until rules move them as well. Whatever is cut short
goes on at the next try: what has moved is where it should be. A blob that another move has begun
to take elsewhere goes there first and on from there: the class is written when all bytes are where
it wants them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import msgspec

from s3gw import errors
from s3gw.cluster.reader import BlobUnreadable
from s3gw.cluster.topology import Profile, UnknownProfile
from s3gw.cluster.tunables import Throttle
from s3gw.kv.interface import Conflict, NoneNewer
from s3gw.metadata import keys
from s3gw.metadata.records import BlobRef, ManifestPage, ManifestRef, ObjectRecord, decode
from s3gw.metadata.store import Transaction
from s3gw.objects import profiles, publish, references
from s3gw.objects.publish import Found, Target
from s3gw.objects.storage import Storage
from s3gw.objects.write import refuse_if_old
from s3gw.workers.blob_move import move_blob
from s3gw.workers.contract import Claim, commit
from s3gw.workers.reencode import (
    ContentChanged,
    NotPossibleNow,
    destination,
    require_opening,
    write_anew,
)

log = logging.getLogger(__name__)

OPENING_SECONDS = 60.0
PASSES_MAX = 4


class Changed(Exception):
    """The version or its bucket is not what was decided on any more: look again."""


class NotMoved(Exception):
    """That is not possible now: the version stays in its class. `profile` is one of which no
    placement group has all its nodes, if that is why, else ""."""

    def __init__(self, profile: str = "") -> None:
        super().__init__(profile)
        self.profile = profile


class NoOpening(NotPossibleNow):
    """No placement group of the profile `name` has all its nodes."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no placement group of {name} has all its nodes")
        self.name = name


class Openings:
    """Which profiles can be written as a whole now. Each is looked at once in OPENING_SECONDS,
    however many versions want to go there: `looks` counts that."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._found: dict[str, tuple[float, bool]] = {}
        self.looks = 0

    def require(self, profile: Profile) -> None:
        """Raises NoOpening unless a placement group of the profile has all its nodes."""
        now = self._storage.monotonic()
        when, is_open = self._found.get(profile.name, (-OPENING_SECONDS, False))
        if now - when >= OPENING_SECONDS:
            is_open = self._look(profile)
            self._found[profile.name] = (now, is_open)
        if not is_open:
            raise NoOpening(profile.name)

    def may_be(self, name: str) -> bool:
        """Whether the profile of this name, which may be gone, may have an opening by now."""
        try:
            self.require(self._storage.blobs.topology.profile(name))
        except NoOpening:
            return False
        except UnknownProfile:
            return True
        return True

    def forget(self) -> None:
        """Other nodes live: look again."""
        self._found.clear()

    def _look(self, profile: Profile) -> bool:
        self.looks += 1
        try:
            require_opening(self._storage, profile)
        except NotPossibleNow:
            return False
        return True


async def change_class(
    storage: Storage,
    claim: Claim,
    target: Target,
    found: Found,
    storage_class: str,
    throttle: Throttle,
    openings: Openings,
) -> None:
    """Move a version. Raises NotMoved, Changed, OutcomeUnknown, EngineError."""
    try:
        profile = await profiles.profile_of(storage, target.bucket, storage_class)
        data = found.record.data
        if isinstance(data, ManifestRef):
            found, revision = await _move_parts(
                storage, claim, target, found, profile, throttle, openings
            )
            tx, prefix = Transaction(), keys.manifest(data.manifest)
            tx.guards.append(NoneNewer(prefix, keys.after_prefix(prefix), revision))
            await _commit_class(storage, claim, target, found, storage_class, tx)
        elif isinstance(data, BlobRef) and not _at_home(data, profile):
            openings.require(destination(storage.blobs.topology, data.profile, profile.name))
            await throttle.take(2 * data.size)
            await _move_blob(storage, claim, target, found, data, storage_class, profile)
        else:
            await _commit_class(storage, claim, target, found, storage_class, Transaction())
    except Conflict as conflict:
        raise Changed from conflict
    except (
        NotPossibleNow,
        BlobUnreadable,
        ContentChanged,
        UnknownProfile,
        errors.S3Error,
    ) as reason:
        log.info("%s/%s stays in its class: %s", target.bucket_name, target.key, reason)
        raise NotMoved(reason.name if isinstance(reason, NoOpening) else "") from reason


def _at_home(ref: BlobRef, profile: Profile) -> bool:
    return ref.profile in (profile.name, profile.companion)


async def _commit_class(
    storage: Storage,
    claim: Claim,
    target: Target,
    found: Found,
    storage_class: str,
    tx: Transaction,
    data: BlobRef | None = None,
) -> None:
    """Write the class, and with it `data`, if that is another. Raises Conflict, OutcomeUnknown."""
    tx.expect(keys.bucket(target.bucket_name), target.bucket_revision)
    tx.expect(found.key, found.revision)
    description = msgspec.structs.replace(found.record.description, storage_class=storage_class)
    record = msgspec.structs.replace(
        found.record, description=description, data=data or found.record.data
    )
    storage.store.put_listed(tx, found.key, record)
    tx.witness = found.key  # whoever else wrote just this did the same
    await commit(storage.store, claim, tx)


async def _move_blob(
    storage: Storage,
    claim: Claim,
    target: Target,
    found: Found,
    old: BlobRef,
    storage_class: str,
    profile: Profile,
) -> None:
    started = storage.monotonic()
    placed = publish.Placed(await write_anew(storage, old, profile, target.bucket.placement))
    refuse_if_old(storage, started)
    await placed.settle(storage)
    tx = Transaction()
    holder = keys.object_holder(target.bucket_name, target.key, found.record.sequence)
    ref = publish.add_new_blob(storage, tx, target.bucket_name, placed, holder, profile=profile)
    references.drop(storage, tx, target.bucket_name, old, holder)
    await _commit_class(storage, claim, target, found, storage_class, tx, ref)


async def _move_parts(
    storage: Storage,
    claim: Claim,
    target: Target,
    found: Found,
    profile: Profile,
    throttle: Throttle,
    openings: Openings,
) -> tuple[Found, int]:
    """Move all parts, and the manifest's own blob; the version as it is then, and the revision at
    which all of them were there. Raises Changed when it is another by more than that."""
    record, revision = found.record, target.revision
    for _ in range(PASSES_MAX):
        assert isinstance(found.record.data, ManifestRef)
        done: set[bytes] = set()
        async for ref in _blobs_of(storage, found.record.data):
            await profiles.know(storage, ref.profile)
            if ref.blob in done or _at_home(ref, profile):
                continue
            openings.require(destination(storage.blobs.topology, ref.profile, profile.name))
            moved = await move_blob(
                storage,
                claim,
                target.bucket_name,
                ref,
                profile.name,
                reason="its object goes to another storage class",
                throttle=throttle,
                follows=False,
            )
            if not moved:
                raise NotPossibleNow(f"blob {ref.blob.hex()} could not be moved as a whole")
            done.add(ref.blob)  # of all parts that share it
        now = await publish.read_target(storage, target.bucket_name, target.key, record.sequence)
        if now.bucket_revision != target.bucket_revision or now.found is None:
            raise Changed
        if _without_blob(now.found.record) != _without_blob(record):
            raise Changed
        found = now.found
        if not done:
            return found, revision
        revision = now.revision
    raise NotPossibleNow("its parts are taken elsewhere by others")


def _without_blob(record: ObjectRecord) -> ObjectRecord:
    """A version whatever place its manifest's blob has."""
    assert isinstance(record.data, ManifestRef)
    data = msgspec.structs.replace(record.data, blob=BlobRef("", b"", 0, 0))
    return msgspec.structs.replace(record, data=data)


async def _blobs_of(storage: Storage, manifest: ManifestRef) -> AsyncIterator[BlobRef]:
    """The blobs of a completed upload's parts, and of its manifest."""
    prefix = keys.manifest(manifest.manifest)
    position = prefix
    while True:
        page = await storage.store.kv.scan(position, keys.after_prefix(prefix), limit=1)
        for item in page.items:
            for part in decode(ManifestPage, item.value).parts:
                yield part.blob
            position = item.key + b"\x00"
        if not page.more:
            break
    yield manifest.blob
