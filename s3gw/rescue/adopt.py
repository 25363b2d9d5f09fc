"""Versions that only shards know of, published as a write would publish them.

Of a key the newest version counts. The moment in a footer's sequence is the state that its writer
saw before it wrote, and so is that of a record: who saw a record has a later one, and of racing
writers with the same none is known to have won. Without a record the newest that decodes is taken.
In a bucket with versioning all newer ones are taken, in their order, racing ones as well; delete
markers newer than the base are in no shard.

A bucket that the base does not know is made with default settings, but for two that versions tell
of: it has versioning when it had it for any of them, and object lock when any is locked, so that
what retention keeps is kept as it was.

Nothing in a shard says whether a version was ever published, or was deleted later: what began
before the base was taken and is not in it is taken only if it can have been under way then, and
listed either way. Bytes that a later version of the base has under another key were copied: what
their shards name is the original, which was deleted or replaced before the base was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from s3gw import errors, limits
from s3gw.buckets.names import is_well_formed
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    Checksums,
    Data,
    ManifestPage,
    ManifestRef,
    ObjectRecord,
    PartRecord,
    UploadRecord,
    Usage,
)
from s3gw.metadata.sequences import moment_of
from s3gw.metadata.store import Transaction
from s3gw.objects import names, publish, references
from s3gw.objects.buckets import change_bucket, create_bucket
from s3gw.objects.complete import PAGE_PARTS
from s3gw.objects.footer import Footer
from s3gw.objects.keyring.ring import master_key_of
from s3gw.objects.multipart import list_parts
from s3gw.objects.publish import Target
from s3gw.objects.rename import leave
from s3gw.objects.storage import Storage
from s3gw.rescue.catalog import Part, Version, part_key
from s3gw.rescue.decode import NotReadable
from s3gw.rescue.drives import Blob
from s3gw.rescue.named_keys import FoundKeys
from s3gw.rescue.rebuild import Rebuild

KEYS_AT_ONCE = 32
PARTS_PER_COMMIT = 40
IN_FLIGHT_MS = limits.WRITE_AGE_SECONDS_MAX * 1000

Key = tuple[str, str, list[Version]]


class Adoption:
    """Publishes what a recovery has found in shards alone. `highest` is the highest sequence that
    was met."""

    def __init__(self, rebuild: Rebuild, storage: Storage) -> None:
        self._rebuild = rebuild
        self._storage = storage
        self._base = rebuild.base
        self._buckets: set[str] = set()
        self._master_keys: set[bytes] = set()
        self._named_keys = FoundKeys()
        self.highest = 0

    async def run(self) -> None:
        """Carry out renames, then go over all keys: what was written since under a name that an
        object had left would else be taken for what replaced it."""
        await self._rename_known()
        batch: list[Key] = []
        for key in self._rebuild.catalog.versions():
            batch.append(key)
            if len(batch) == KEYS_AT_ONCE:
                await self._adopt(batch)
                batch = []
        await self._adopt(batch)
        await self._note_parts()
        under = await self._named_keys.write(self._storage.store.kv, self._rebuild.note)
        await self._storage.ring.note_found((under | self._master_keys) - {b""})

    async def _adopt(self, batch: Sequence[Key]) -> None:
        chosen = []
        for bucket, key, versions in batch:
            sequences = [version.footer.sequence for version in versions]
            self.highest = max(self.highest, *sequences)
            unknown = [version for version in versions if not self._is_known(version)]
            readable = self._readable(bucket, key, unknown)
            if readable and self._is_possible(bucket, key):
                await self._require_bucket(bucket, readable[0])
                chosen.append((bucket, key, readable))
        renamed = [any(version.renamed for version in versions) for _, _, versions in chosen]
        plain = [each for each, later in zip(chosen, renamed, strict=True) if not later]
        await asyncio.gather(*(self._adopt_key(*each) for each in plain))
        for each, later in zip(chosen, renamed, strict=True):
            if later:  # one manifest may have several names
                await self._adopt_key(*each)

    def _is_known(self, version: Version) -> bool:
        """Whether the base refers to the version's blob, or has dropped it."""
        blob = version.blob
        prefix = keys.blob(blob.profile, blob.pg, blob.blob)
        return self._base is not None and self._base.has(prefix)

    def _readable(self, bucket: str, key: str, versions: Sequence[Version]) -> list[Version]:
        readable = []
        for version in versions:
            if version.state == "lost":
                self._rebuild.note("lost", bucket, key, _shards(version))
            elif not self._rebuild.groups.is_home(version.blob):
                text = f"{_about(version)}: it does not lie or is not coded as its profile says"
                self._rebuild.note("uncertain", bucket, key, text)
            else:
                readable.append(version)
        return readable

    def _is_possible(self, bucket: str, key: str) -> bool:
        """Whether the names are such that the store itself can have written them."""
        possible = is_well_formed(bucket.encode()) and 0 < len(key.encode()) <= limits.KEY_BYTES_MAX
        if not possible:
            self._rebuild.note("refused", bucket, key, "no object can have this name")
        return possible

    async def _require_bucket(self, bucket: str, version: Version) -> None:
        if bucket in self._buckets:
            return
        present = await self._storage.store.get(BucketRecord, keys.bucket(bucket))
        if present.record is None:
            await create_bucket(
                self._storage,
                bucket,
                owner=version.footer.owner,
                region=self._rebuild.plan.region,
                profile=self._main_profile(version.blob.profile),
                object_lock=bucket in self._rebuild.catalog.locked,
                tags={},
            )
            if bucket in self._rebuild.catalog.versioned:
                await change_bucket(self._storage, bucket, _with_versioning)
            self._rebuild.report.buckets += 1
            text = "the bucket was made with default settings: its own are not in shards"
            self._rebuild.note("uncertain", bucket, "", text)
        self._buckets.add(bucket)

    def _main_profile(self, name: str) -> str:
        """The profile that a companion belongs to."""
        for owner, record in self._rebuild.groups.profiles.items():
            if record.companion == name:
                return owner
        return name

    async def _adopt_key(self, bucket: str, key: str, versions: Sequence[Version]) -> None:
        target = await publish.read_target(self._storage, bucket, key)
        versions = [each for each in versions if not self._is_present(each, target.latest)]
        if not versions:
            return
        newest, *older = versions
        if target.bucket.versioning == publish.ENABLED:
            distinct = {_content_of(version): version for version in older}
            distinct.pop(_content_of(newest), None)
            for version in reversed(distinct.values()):
                await self._adopt_version(target, version)
                target = await publish.read_target(self._storage, bucket, key)
            older = []
        await self._adopt_version(target, newest)
        for version in older:
            moment = moment_of(version.footer.sequence)
            if moment and moment == moment_of(newest.footer.sequence):
                text = "written at the same time as the one taken: either may have won"
                self._rebuild.note("uncertain", bucket, key, f"{_about(version)}: {text}")
            elif version.footer.content_id != newest.footer.content_id:
                self._rebuild.note("older", bucket, key, _about(version))

    async def _adopt_version(self, target: Target, version: Version) -> None:
        """Publish a version, unless it is left over."""
        bucket, key, current = target.bucket_name, target.key, target.latest
        text = self._left_out(version, target)
        if text:
            self._rebuild.note("uncertain", bucket, key, f"{_about(version)}: {text}")
        else:
            if self._began_before_base(version):
                text = "under way when the base was taken: published, as far as can be known"
                self._rebuild.note("uncertain", bucket, key, f"{_about(version)}: {text}")
            if self._has_raced(version, target):
                text = "written at the same time as another one: both are taken, in any order"
                self._rebuild.note("uncertain", bucket, key, f"{_about(version)}: {text}")
            try:
                await self._publish(target, version)
            except NotReadable as error:
                self._rebuild.note("lost", bucket, key, str(error))
            else:
                if target.bucket.versioning != publish.ENABLED:
                    self._note_replaced(bucket, key, version, current)

    def _note_replaced(
        self, bucket: str, key: str, version: Version, before: ObjectRecord | None
    ) -> None:
        """Tell of a record of the base that a version found in shards has taken the place of."""
        known = (version.footer.content_id, version.footer.upload)
        if before is not None and before.data is not None and before.content_id not in known:
            text = "replaced by one that is newer and may not have been published; kept for a week"
            self._rebuild.note("older", bucket, key, f"{_record(before)}: {text}")

    def _began_before_base(self, version: Version) -> bool:
        if self._base is None:
            return False
        if version.footer.sequence:
            return version.footer.sequence <= self._base.sequence
        return version.footer.modified_ms <= self._base.moment_ms

    def _is_present(self, version: Version, current: ObjectRecord | None) -> bool:
        """Whether it is what the key has in the base, maybe under a name it got later, as another
        blob."""
        if current is None or not self._is_same(version, current):
            return False
        renamed = version.renamed and version.footer.sequence == current.sequence
        return (renamed or self._began_before_base(version)) and self._is_whole(current.data)

    def _is_same(self, version: Version, current: ObjectRecord | None) -> bool:
        """Whether a record has the bytes of a version."""
        known = current.content_id if current is not None else b""
        return bool(known) and known == _content_of(version)

    def _left_out(self, version: Version, target: Target) -> str:
        """Why a version is not published; "" when it is."""
        footer, current = version.footer, target.latest
        earliest_ms = self._base.moment_ms - IN_FLIGHT_MS if self._base is not None else 0
        if self._began_before_base(version) and footer.modified_ms < earliest_ms:
            return "left over from before the base was taken, which does not know it"
        copied = self._rebuild.moved.newest_with(_content_of(version)) > footer.sequence
        if copied and self._began_before_base(version) and not self._is_same(version, current):
            return "other keys of the base have its bytes: deleted or replaced before, as it seems"
        if current is None:
            return ""
        if self._is_same(version, current):
            return "" if not self._is_whole(current.data) else "the same bytes as the key has"
        newer = footer.modified_ms > current.modified_ms
        if footer.sequence:
            newer = moment_of(footer.sequence) > moment_of(current.sequence)
        newer = newer or self._has_raced(version, target)
        return "" if newer else "older than the key's record, or written at the same time"

    def _has_raced(self, version: Version, target: Target) -> bool:
        """Whether it was written at the same time as what the key has by now, and both are kept."""
        sequence, current = version.footer.sequence, target.latest
        if not sequence or current is None or target.bucket.versioning != publish.ENABLED:
            return False
        same = moment_of(sequence) == moment_of(current.sequence)
        return same and not self._began_before_base(version)

    def _is_whole(self, data: Data | None) -> bool:
        """Whether what a record of the base names is on these drives."""
        if isinstance(data, ManifestRef):
            data = data.blob
        return data is None or self._rebuild.groups.located(data)[1]

    async def _publish(self, target: Target, version: Version) -> None:
        footer = version.footer
        current = target.latest
        sequence = max(footer.sequence, current.sequence + 1 if current else 1)
        self.highest = max(self.highest, sequence)
        tx = publish.guarded(target)
        holder = keys.object_holder(target.bucket_name, target.key, sequence)
        if footer.kind == "manifest":
            data: Data = await self._manifest(tx, target, version)
            references.hold(self._storage, tx, target.bucket_name, data, holder)
        else:
            assert version.coding is not None
            data = self._rebuild.groups.found(version.blob, version.coding)
            self._add(tx, target.bucket_name, data, holder)
        record = ObjectRecord(
            sequence=sequence,
            modified_ms=footer.modified_ms,
            owner=footer.owner,
            size=footer.size,
            etag=footer.etag,
            data=data,
            description=footer.description,
            checksums=Checksums(footer.checksums, footer.checksum_kind),
            content_id=_content_of(version),
        )
        if version.renamed:
            names.queue(tx, target, record, "")
        publish.replace(self._storage, tx, target, record)
        await self._storage.store.apply(tx)
        self._master_keys.add(master_key_of(footer.encryption))
        self._named_keys.add(footer)
        self._rebuild.report.objects += 1

    def _add(self, tx: Transaction, bucket: str, ref: BlobRef, holder: bytes) -> None:
        """Refer to a blob, and queue it when it does not lie where its group does."""
        references.add(self._storage, tx, bucket, ref, holder)
        if ref.nodes:
            references.queue_repair(self._storage, tx, ref, reduced="" in ref.nodes)

    async def _manifest(self, tx: Transaction, target: Target, version: Version) -> ManifestRef:
        """Write the references and pages of a manifest, which nobody sees yet, and add to `tx` what
        belongs to its publication."""
        bucket, upload = target.bucket_name, version.footer.upload
        assert version.coding is not None
        own = self._rebuild.groups.found(version.blob, version.coding)
        parts = [self._part(part) for part in version.parts]
        await self._add_parts(bucket, upload, parts)
        offsets, offset = [], 0
        for page, row in enumerate(range(0, len(parts), PAGE_PARTS)):
            listed = tuple(parts[row : row + PAGE_PARTS])
            offsets.append(offset)
            offset += sum(part.size for part in listed)
            page_tx = Transaction()
            page_tx.put(keys.manifest_page(upload, page), ManifestPage(listed))
            await self._storage.store.apply(page_tx)
        holder = keys.manifest_blob_holder(upload)
        key = references.key_of(self._storage.blobs.topology, own, holder)
        if not any((await self._storage.store.kv.get_many([key])).items):
            self._add(tx, bucket, own, holder)  # else another name of it was met first
        await self._end_upload(tx, target, upload)
        return ManifestRef(upload, len(parts), tuple(offsets), PAGE_PARTS, own)

    def _part(self, part: Part) -> PartRecord:
        if part.blob is None or part.coding is None:
            raise NotReadable(f"part {part.record.number} is not on these drives")
        if not self._rebuild.groups.is_home(part.blob):
            raise NotReadable(f"part {part.record.number} does not lie as its profile says")
        ref = self._rebuild.groups.found(part.blob, part.coding, part.record.blob.crc64)
        return msgspec.structs.replace(part.record, blob=ref)

    async def _add_parts(self, bucket: str, upload: bytes, parts: Sequence[PartRecord]) -> None:
        """References of parts, but for those that the base has from the open upload."""
        topology = self._storage.blobs.topology
        for rows in _chunks(parts):
            holders = [keys.part_holder(upload, part.number) for part in rows]
            wanted = [
                references.key_of(topology, part.blob, holder)
                for part, holder in zip(rows, holders, strict=True)
            ]
            present = (await self._storage.store.kv.get_many(wanted)).items
            tx = Transaction()
            for part, holder, item in zip(rows, holders, present, strict=True):
                if item is None:
                    self._add(tx, bucket, part.blob, holder)
            if tx.writes:
                await self._storage.store.apply(tx)

    async def _end_upload(self, tx: Transaction, target: Target, upload: bytes) -> None:
        """The base may know the upload as open: it ends as a completed one does."""
        key = keys.upload(target.bucket_name, target.key, upload)
        known = await self._storage.store.get(UploadRecord, key)
        if known.record is None:
            return
        parts, _ = await list_parts(self._storage, upload)
        tx.expect(key, known.revision)
        self._storage.store.delete_listed(tx, key)
        tx.use(target.bucket_name, Usage(uploads=-1, pending_bytes=-parts.bytes))
        references.queue_manifest(
            self._storage, tx, target.bucket_name, upload, b"parts", wait=False
        )

    async def _rename_known(self) -> None:
        """Renames that are newer than the base, of what it knows: a note is of a commit."""
        base = self._base
        if base is None:
            return
        newer = [
            note.footer
            for notes in self._rebuild.catalog.notes()
            for note in notes
            if note.footer is not None
            and note.footer.sequence > base.sequence
            and not base.has(keys.blob(note.profile, note.pg, note.blob))
            and self._rebuild.moved.newest_with(note.footer.content_id)
        ]
        for name in sorted(newer, key=lambda name: name.sequence):
            if not await self._rename(name):
                text = "the new name of a version that is there, or was replaced since"
                self._rebuild.note("uncertain", name.bucket, name.key, text)

    async def _rename(self, name: Footer) -> bool:
        """Give a version of the base the name that it got later."""
        storage = self._storage
        if not self._is_possible(name.bucket, name.key):
            return True
        try:
            target = await publish.read_target(storage, name.bucket, name.key)
        except errors.NoSuchBucket:
            return False
        latest = target.latest
        if latest is not None and moment_of(latest.sequence) >= moment_of(name.sequence):
            return False
        for former in name.former:
            source = await publish.read_target(storage, name.bucket, former)
            record = source.visible
            known = record is not None and record.content_id == name.content_id
            if record is None or record.data is None or not known or former == name.key:
                continue
            tx = publish.guarded(target)
            tx.guards += publish.guarded(source).guards
            renamed = msgspec.structs.replace(record, sequence=name.sequence)
            holder = keys.object_holder(name.bucket, name.key, name.sequence)
            references.hold(storage, tx, name.bucket, record.data, holder)
            names.queue(tx, target, renamed, "")
            publish.replace(storage, tx, target, renamed)
            leave(storage, tx, source, record, name.owner)
            await storage.store.apply(tx)
            self.highest = max(self.highest, name.sequence)
            return True
        return False

    async def _note_parts(self) -> None:
        """Parts that nothing refers to now, by upload."""
        upload, bucket, key, parts = b"", "", "", 0
        for blob in self._rebuild.catalog.parts():
            assert blob.footer is not None
            if await self._is_held_part(blob):
                continue
            if blob.footer.upload != upload:
                self._note_upload(upload, bucket, key, parts)
                upload, bucket, key = blob.footer.upload, blob.footer.bucket, blob.footer.key
                parts = 0
            parts += 1
        self._note_upload(upload, bucket, key, parts)

    async def _is_held_part(self, blob: Blob) -> bool:
        """Whether anything refers to a part's blob, or to another one with its bytes."""
        footer = blob.footer
        assert footer is not None
        for same in self._rebuild.catalog.found_by(part_key(footer.upload, footer.number)):
            assert same.footer is not None
            if (same.footer.etag, same.footer.size) == (footer.etag, footer.size):
                prefix = keys.blob(same.profile, same.pg, same.blob)
                page = await self._storage.store.kv.scan(prefix, keys.after_prefix(prefix), limit=1)
                if page.items:
                    return True
        return False

    def _note_upload(self, upload: bytes, bucket: str, key: str, parts: int) -> None:
        if parts:
            text = f"upload {upload.hex()}: {parts} parts that no completed object has"
            self._rebuild.note("upload", bucket, key, text)


def _with_versioning(bucket: BucketRecord) -> BucketRecord:
    return msgspec.structs.replace(bucket, versioning=publish.ENABLED)


def _content_of(version: Version) -> bytes:
    """The content id of its record."""
    return version.footer.content_id or version.footer.upload


def _about(version: Version) -> str:
    footer = version.footer
    return f"version {footer.sequence or '-'} of {footer.size} bytes, etag {footer.etag}"


def _record(record: ObjectRecord) -> str:
    return f"version {record.sequence} of {record.size} bytes, etag {record.etag}"


def _shards(version: Version) -> str:
    return f"{_about(version)}: {version.shards} of {version.width or '?'} shards"


def _chunks(parts: Sequence[PartRecord]) -> Iterator[Sequence[PartRecord]]:
    for first in range(0, len(parts), PARTS_PER_COMMIT):
        yield parts[first : first + PARTS_PER_COMMIT]


async def recover(rebuild: Rebuild) -> None:
    """The whole of a recovery. Raises RescueError, EngineError."""
    await rebuild.begin()
    storage = await rebuild.storage()
    adoption = Adoption(rebuild, storage)
    try:
        if rebuild.plan.add_newer:
            await adoption.run()
    except errors.S3Error as error:
        raise AssertionError(f"a recovery was refused as a client is: {error}") from error
    finally:
        storage.executor.shutdown()
    await rebuild.finish(adoption.highest)
