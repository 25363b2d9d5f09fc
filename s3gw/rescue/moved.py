"""Blobs that were written anew after the base was taken.

A blob never changes its scheme or place. Repair of what was written around lost nodes, and the
change of a bucket's profile, write the same bytes as a blob with another id, move every holder over
and let the first one be collected. The base then names a blob that is no more. Shards of the new
one have the footer of the first, so it is found by what does not change:

    object      content id
    manifest    upload
    part        upload and part number
    snapshot    incarnation and revision

It takes the place of the first only when it decodes and has the size and the checksum that the
base's record has; else the record stays as it is.

Records say whose bytes a blob has, references do not. So all records are read first (`learn`), and
what was found is kept by the first blob. Then every live reference of that blob goes over, whoever
holds it, and its count with it. A dropped one stays: its entry in the collector's queue names it,
and there is nothing to unlink.

Kept in the catalog's scratch database:

    rb <profile> / <pg:2> <blob:16>    the reference to the blob that took the place of this one
    rc <count key>                     change of a count: references, bytes
    rh <content id:16>                 highest sequence of the base's versions with these bytes
    rw <reference key>                 references that came from another blob
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from erasure.scheme import Scheme
from placement.groups import pg_of
from s3gw.kv.sqlite_scratch import Scratch
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Count,
    Garbage,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    PartRecord,
    Reference,
    Repair,
    SnapshotRecord,
    TrashRecord,
    decode,
    encode,
)
from s3gw.objects.references import URGENCY_MISPLACED, URGENCY_REDUCED
from s3gw.rescue import catalog as catalogs
from s3gw.rescue.catalog import Catalog, state_of
from s3gw.rescue.decode import NotReadable, checksum
from s3gw.rescue.drives import Blob
from s3gw.rescue.groups import Groups
from s3gw.rescue.sources import Base

_PARTS = b"part/"
_MANIFESTS = b"manifest/"

Row = tuple[bytes, bytes]
"""A key and its value."""


class Moved:
    """What became of the blobs that a base names. `blobs` counts those that have moved."""

    def __init__(self, catalog: Catalog, groups: Groups, base: Base | None, now_ms: int) -> None:
        self._catalog = catalog
        self._scratch: Scratch = catalog.scratch
        self._groups = groups
        self._base = base
        self._now_ms = now_ms
        self.blobs = 0

    def learn(self) -> None:
        """Look for all blobs of the base. Blocks."""
        if self._base is None or not self._catalog.drives:
            return
        for ref, name in self._named(self._base):
            if self.now(ref) is None and not self._is_readable(ref):
                found = self._find(ref, name)
                if found is not None:
                    self._put(ref, found)
        for _, value in self._base.scan(keys.REPAIRS):
            self._follow(decode(Repair, value))

    def _put(self, old: BlobRef, new: BlobRef) -> None:
        self._scratch.put(b"rb" + self._key(old), encode(new))
        self.blobs += 1

    def _follow(self, repair: Repair) -> None:
        """The copy of a move that was under way may be named by nobody but the move, and have been
        moved once more with the rest."""
        if repair.copy is None or self.now(repair.copy) or self._is_readable(repair.copy):
            return
        found = self.now(BlobRef(repair.profile, repair.blob, 0, 0))
        if found is not None:
            self._put(repair.copy, found)

    def now(self, ref: BlobRef) -> BlobRef | None:
        """The reference that takes the place of one of the base; None: it stays."""
        value = self._scratch.get(b"rb" + self._key(ref))
        return None if value is None else decode(BlobRef, value)

    def newest_with(self, content_id: bytes) -> int:
        """The highest sequence of the base's versions that have these bytes, 0 without any."""
        return int.from_bytes(self._scratch.get(b"rh" + content_id) or b"", "big")

    def _named(self, base: Base) -> Iterator[tuple[BlobRef, bytes]]:
        """Every blob that a record names, and what its bytes are found by."""
        for prefix in (keys.OBJECTS, keys.VERSIONS):
            for _, value in base.scan(prefix):
                yield from self._named_by(decode(ObjectRecord, value))
        for _, value in base.scan(keys.TRASH):
            yield from self._named_by(decode(TrashRecord, value).record)
        for key, value in base.scan(_PARTS):
            upload = key[len(_PARTS) :][: catalogs.ID_BYTES]
            part = decode(PartRecord, value)
            yield part.blob, catalogs.part_key(upload, part.number)
        for key, value in base.scan(_MANIFESTS):
            upload = key[len(_MANIFESTS) :][: catalogs.ID_BYTES]
            for part in decode(ManifestPage, value).parts:
                yield part.blob, catalogs.part_key(upload, part.number)
        for _, value in base.scan(keys.SNAPSHOTS):
            snapshot = decode(SnapshotRecord, value)
            name = catalogs.snapshot_key(snapshot.incarnation, snapshot.revision)
            yield snapshot.blob, name

    def _named_by(self, record: ObjectRecord) -> Iterator[tuple[BlobRef, bytes]]:
        data = record.data
        if data is None or len(record.content_id) != catalogs.ID_BYTES:
            return
        highest = max(record.sequence, self.newest_with(record.content_id))
        self._scratch.put(b"rh" + record.content_id, highest.to_bytes(8, "big"))
        if isinstance(data, ManifestRef):
            yield data.blob, catalogs.manifest_key(data.manifest)
        else:
            yield data, catalogs.content_key(record.content_id)

    def _number(self, ref: BlobRef) -> int:
        return pg_of(ref.blob, self._groups.profiles[ref.profile].pg_count)

    def _key(self, ref: BlobRef) -> bytes:
        return keys.blob(ref.profile, self._number(ref), ref.blob)

    def _is_readable(self, ref: BlobRef) -> bool:
        """Whether enough shards of it are on the drives; a few may be left of one that was
        collected."""
        blob = self._catalog.blob(ref.profile, self._number(ref), ref.blob)
        scheme = Scheme.parse(ref.scheme or self._groups.profiles[ref.profile].scheme)
        return blob is not None and scheme.decodable(blob.indexes)

    def _find(self, old: BlobRef, name: bytes) -> BlobRef | None:
        found = (self._same(old, blob) for blob in self._catalog.found_by(name))
        return next((ref for ref in found if ref is not None), None)

    def _same(self, old: BlobRef, blob: Blob) -> BlobRef | None:
        """A reference to a blob that can be read and has the bytes of another."""
        coding = self._catalog.coding(blob)
        if coding is None or coding.stored != old.size or not self._groups.is_home(blob):
            return None
        if state_of(blob, coding)[0] == "lost":
            return None
        try:
            crc64 = coding.crc64 if coding.crc64 >= 0 else checksum(blob, coding)
        except NotReadable:
            return None
        return self._groups.found(blob, coding, crc64) if crc64 == old.crc64 else None

    def is_taken(self, key: bytes) -> bool:
        """Whether a reference of the base gives way to one that came from another blob."""
        return self._scratch.get(b"rw" + key) is not None

    def reference(self, key: bytes, reference: Reference, new: BlobRef) -> Iterator[Row]:
        """The rows of a live reference whose blob is `new` now."""
        profile, pg, _, holder = keys.split_reference(key)
        number = self._number(new)
        new_key = keys.reference(new.profile, number, new.blob, holder)
        self._change(keys.count(profile, pg, reference.bucket), -1, -reference.size)
        if not (self._is_live(new_key) or self.is_taken(new_key)):
            self._change(keys.count(new.profile, number, reference.bucket), 1, new.size)
        self._scratch.put(b"rw" + new_key, b"")
        moved = Reference(new.size, reference.bucket, nodes=new.nodes, scheme=new.scheme)
        yield new_key, encode(moved)
        if new.nodes:
            reduced = "" in new.nodes
            urgency = URGENCY_REDUCED if reduced else URGENCY_MISPLACED
            reason = "shards missing" if reduced else "not on its group's slots"
            repair = Repair(new.profile, number, new.blob, reason, self._now_ms)
            yield keys.repair(urgency, new.profile, number, new.blob), encode(repair)

    def forget(self, key: bytes, reference: Reference) -> None:
        """Count a live reference of the base that is not taken over."""
        profile, pg, _, _ = keys.split_reference(key)
        self._change(keys.count(profile, pg, reference.bucket), -1, -reference.size)

    def garbage(self, garbage: Garbage) -> Garbage:
        """A queue entry for a manifest names the live reference of the manifest's own blob."""
        if not (garbage.manifest and garbage.reference):
            return garbage
        profile, _, blob, holder = keys.split_reference(garbage.reference)
        new = self.now(BlobRef(profile, blob, 0, 0))
        if new is None:
            return garbage
        key = keys.reference(new.profile, self._number(new), new.blob, holder)
        return msgspec.structs.replace(garbage, reference=key)

    def _is_live(self, key: bytes) -> bool:
        """Whether the base has this reference: who moves a manifest has both for a time."""
        value = None if self._base is None else self._base.rows.get(key)
        return value is not None and not decode(Reference, value).dropped_due_ms

    def _change(self, key: bytes, references: int, size: int) -> None:
        value = self._scratch.get(b"rc" + key)
        before = decode(Count, value) if value is not None else Count()
        after = Count(before.references + references, before.bytes + size)
        self._scratch.put(b"rc" + key, encode(after))

    def counts(self) -> Iterator[Row]:
        """The counts as they are when all references have been written."""
        assert self._base is not None
        for key, value in self._scratch.scan(b"rc", b"rd"):
            change, stored = decode(Count, value), self._base.rows.get(key[2:])
            before = decode(Count, stored) if stored is not None else Count()
            after = Count(before.references + change.references, before.bytes + change.bytes)
            yield key[2:], encode(after)
