"""The truth of a store, recomputed from its records and drives, against what it says itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from nodes.check import check_bytes
from nodes.protocol import ShardName
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    Count,
    ManifestPage,
    ManifestRef,
    NameRecord,
    ObjectRecord,
    PartRecord,
    Reference,
    TrashRecord,
    Usage,
    decode,
    encode,
)
from tests.stores.memory_store import MemoryCluster, Process


class Audit:
    """One look at everything."""

    def __init__(self, cluster: MemoryCluster, process: Process) -> None:
        self.cluster = cluster
        self.process = process
        self.items = dict(cluster.engine.items)

    def under(self, prefix: bytes) -> dict[bytes, bytes]:
        return {key: item.value for key, item in self.items.items() if key.startswith(prefix)}

    def references(self) -> dict[bytes, Reference]:
        return {key: decode(Reference, value) for key, value in self.under(keys.BLOBS).items()}

    def held(self) -> dict[bytes, BlobRef]:
        """What objects, parts and manifests say they hold: reference key to blob."""
        topology = self.process.topology
        found: dict[bytes, BlobRef] = {}

        def note(ref: BlobRef, holder: bytes) -> None:
            number = topology.group_of(ref.profile, ref.blob).number
            found[keys.reference(ref.profile, number, ref.blob, holder)] = ref

        for bucket, name, record in self.versions():
            if isinstance(record.data, BlobRef):
                note(record.data, keys.object_holder(bucket, name, record.sequence))
            elif isinstance(record.data, ManifestRef):
                self._note_manifest(record.data, note)
        for key, entry in self.trash():
            bucket, name = keys.split_trashed(key)
            record = entry.record
            if isinstance(record.data, BlobRef):
                note(record.data, keys.object_holder(bucket, name, record.sequence))
            elif isinstance(record.data, ManifestRef):
                self._note_manifest(record.data, note)
        for key, value in self.under(keys.NAMES).items():
            named = decode(NameRecord, value).blob
            assert named is not None
            note(named, b"n" + key[len(keys.NAMES) :])
        for upload in self.uploads():
            for value in self.under(keys.parts(upload)).values():
                part = decode(PartRecord, value)
                note(part.blob, keys.part_holder(upload, part.number))
        return found

    def _note_manifest(self, data: ManifestRef, note: Callable[[BlobRef, bytes], None]) -> None:
        note(data.blob, keys.manifest_blob_holder(data.manifest))
        for page in range(len(data.page_offsets)):
            stored = self.items[keys.manifest_page(data.manifest, page)].value
            for part in decode(ManifestPage, stored).parts:
                note(part.blob, keys.part_holder(data.manifest, part.number))

    def trash(self) -> list[tuple[bytes, TrashRecord]]:
        """Key and record of all that is in the trash."""
        return [(key, decode(TrashRecord, value)) for key, value in self.under(keys.TRASH).items()]

    def check_trash(self) -> None:
        """What is in the trash is due once, and nothing else is."""
        due = {
            keys.purge(
                entry.purge_ms,
                keys.object_holder(*keys.split_trashed(key), entry.record.sequence),
            )
            for key, entry in self.trash()
        }
        assert set(self.under(keys.PURGES)) == due

    def uploads(self) -> list[bytes]:
        return [key[-16:] for key in self.under(keys.UPLOADS)]

    def usage(self) -> Usage:
        usage = Usage()
        for value in self.under(keys.OBJECTS).values():
            usage += Usage(objects=1, bytes=decode(ObjectRecord, value).size)
        for value in self.under(keys.VERSIONS).values():
            record = decode(ObjectRecord, value)
            usage += Usage(markers=1) if record.marker else Usage(versions=1, bytes=record.size)
        for key, entry in self.trash():
            bucket = self.items.get(keys.bucket(keys.split_trashed(key)[0]))
            if bucket and decode(BucketRecord, bucket.value).bucket_id == entry.bucket_id:
                usage += Usage(trash_objects=1, trash_bytes=entry.record.size)
        for upload in self.uploads():
            usage += Usage(uploads=1)
            for value in self.under(keys.parts(upload)).values():
                usage += Usage(pending_bytes=decode(PartRecord, value).size)
        return usage

    def check_held(self) -> None:
        """Nothing that is held lacks a live reference or can no longer be read."""
        references = self.references()
        for key, ref in self.held().items():
            assert key in references, f"no reference {key!r}"
            assert references[key].dropped_due_ms == 0, f"dropped, but held: {key!r}"
            self.check_readable(ref)

    def check_readable(self, ref: BlobRef) -> None:
        scheme, nodes, group = self.process.topology.location(ref)
        good = []
        for index, node in enumerate(nodes):
            name = ShardName(ref.profile, group.number, ref.blob, index)
            data = self.cluster.drives[node].shards.get(name) if node else None
            if data is not None and check_bytes(name, data).whole:
                good.append(index)
        assert scheme.decodable(good), f"blob {ref.blob.hex()} has only shards {good}"

    def check_whole(self, ref: BlobRef) -> None:
        """Every shard of a blob is where it belongs, and whole."""
        _, nodes, group = self.process.topology.location(ref)
        for index, node in enumerate(nodes):
            name = ShardName(ref.profile, group.number, ref.blob, index)
            data = self.cluster.drives[node].shards.get(name) if node else None
            assert data is not None, f"{name} is missing on {node}"
            assert check_bytes(name, data).whole, f"{name} is damaged on {node}"

    def check_usage(self) -> None:
        """The usage slots say what the records say."""
        told = Usage()
        for value in self.under(b"usage/").values():
            told += decode(Usage, value)
        assert told == self.usage()

    def check_counts(self) -> None:
        """`count/` says how many references there are, live and dropped."""
        truth: Counter[bytes] = Counter()
        size: Counter[bytes] = Counter()
        for key, reference in self.references().items():
            profile, pg, _, _ = keys.split_reference(key)
            count = keys.count(profile, pg, reference.bucket)
            truth[count] += 1
            size[count] += reference.size
        told = {key: decode(Count, value) for key, value in self.under(keys.COUNTS).items()}
        for key, count_record in told.items():
            assert count_record == Count(truth[key], size[key]), key
        assert set(truth) <= set(told)

    def check_at_rest(self) -> None:
        """No garbage, nothing dropped, no orphan, no leftover; counters are the truth."""
        self.check_held()
        self.check_usage()
        self.check_counts()
        held = self.held()
        left = set(self.references()) - set(held)
        assert not left, f"references without holder: {left}"
        assert not self.under(keys.GARBAGE)
        live = set(self.uploads())
        for prefix, length in ((b"part/", 16), (b"holder/", 16)):
            names = {key[len(prefix) : len(prefix) + length] for key in self.under(prefix)}
            manifests = {
                record.data.manifest
                for record in (*self.objects(), *(entry.record for _, entry in self.trash()))
                if isinstance(record.data, ManifestRef)
            }
            assert names <= (live if prefix == b"part/" else manifests), prefix
        blobs = {ref.blob for ref in held.values()}
        for name, drive in self.cluster.drives.items():
            orphans = {shard for shard in drive.shards if shard.blob not in blobs}
            assert not orphans, f"{name} holds orphans {orphans}"

    def objects(self) -> list[ObjectRecord]:
        return [record for _, _, record in self.versions()]

    def versions(self) -> list[tuple[str, str, ObjectRecord]]:
        """Bucket, key and record of every version: visible, noncurrent, delete markers."""
        found = []
        for key, value in self.under(keys.OBJECTS).items():
            bucket, name = key[len(keys.OBJECTS) :].split(b"/", 1)
            found.append((bucket.decode(), name.decode(), decode(ObjectRecord, value)))
        for key, value in self.under(keys.VERSIONS).items():
            bucket, rest = key[len(keys.VERSIONS) :].split(b"/", 1)
            found.append((bucket.decode(), keys.unended(rest)[0], decode(ObjectRecord, value)))
        return found

    def check_versions(self) -> None:
        """Of every key the newest version is in `object/`, or it is a delete marker; all records
        are where their names say, at most one is the null version, and the newest names it."""
        by_key: dict[tuple[str, str], list[ObjectRecord]] = {}
        for bucket, name, record in self.versions():
            by_key.setdefault((bucket, name), []).append(record)
        for (bucket, name), records in by_key.items():
            newest = max(records, key=lambda record: record.sequence)
            assert len({record.sequence for record in records}) == len(records)
            assert newest.marker != (keys.object_(bucket, name) in self.items)
            nulls = [record.sequence for record in records if record.null_version]
            assert nulls in ([], [newest.sequence if newest.null_version else newest.null_sequence])
            for record in records:
                key = keys.version(bucket, name, record.sequence)
                if record is newest and not record.marker:
                    key = keys.object_(bucket, name)
                assert self.items[key].value == encode(record)

    def check_fences(self) -> None:
        """Exactly the records that carry a fence have one."""
        secret = self.process.storage.store.identity.fence_secret
        prefixes = (keys.OBJECTS, keys.VERSIONS, keys.UPLOADS, keys.TRASH)
        listed = {
            key
            for prefix in (*prefixes, keys.COMPLETED, keys.RENAMED)
            for key in self.under(prefix)
            if keys.carries_fence(key, secret)
        }
        assert {key[len(keys.fence(b"")) :] for key in self.under(keys.fence(b""))} == listed
