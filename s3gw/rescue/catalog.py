"""What the drives hold, in order: every blob, and the versions of every key.

Filled by one scan and kept in a scratch database, so that a store of any size fits. Keys:

    b <profile> / <pg:2> <blob:16>             every blob
    o <bucket*> <key*> <blob:16>               blobs of objects and manifests
    c <content id:16> <blob:16>                objects, by their bytes
    m <upload:16> <blob:16>                    manifests
    p <upload:16> <number:2> <blob:16>         parts
    s <incarnation:8> <revision:8> <blob:16>   snapshots of the metadata
    n <content id:16> <blob:16>                notes of what a content is called
    y <bucket*> <key*> <blob:16>               a blob under a name that a note gives it
    x <profile> / <pg:2> <blob:16> <text>      what is told of a blob that says other than the rest

All but `b` and `x` name the key of the `b` entry. A blob of another store has an `x` alone. What a
recovery notes of its base is kept beside them, under `r` (s3gw.rescue.moved).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import msgspec

from s3gw.kv.sqlite_scratch import Scratch
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    ManifestPage,
    PartRecord,
    ProfileRecord,
    RecordFormatError,
    decode,
)
from s3gw.metadata.sequences import moment_of
from s3gw.objects.footer import Footer, parse
from s3gw.rescue.coding import Coding, borne_out, coding_of
from s3gw.rescue.decode import NotReadable, read_blob
from s3gw.rescue.drives import Blob, RescueDrive, Scan, Shard, scan

MANIFEST_BYTES_MAX = 64 * 1024 * 1024
ID_BYTES = 16


class _Row(msgspec.Struct, array_like=True):
    """A blob as kept in the scratch database; shards are [index, drive, path]."""

    profile: str
    pg: int
    blob: bytes
    block_bytes: int
    payload_bytes: int
    footer_map: bytes
    shards: list[tuple[int, int, str]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Row).decode


@dataclass(slots=True)
class Part:
    """A part of a manifest, and the blob that holds it; None when it is not on these drives."""

    record: PartRecord
    blob: Blob | None
    coding: Coding | None


@dataclass(slots=True)
class Version:
    """One version of a key as found. `state`: "readable" (all shards), "reduced" (it decodes),
    "lost". `shards` counts those of the worst blob of it, of `width`; `renamed`: a note gives it
    this name."""

    blob: Blob
    footer: Footer
    coding: Coding | None
    state: str
    shards: int
    width: int
    renamed: bool = False
    parts: list[Part] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int, bytes]:
        return moment_of(self.footer.sequence), self.footer.modified_ms, self.blob.blob


STATES = ("readable", "reduced", "lost")


class _Doubt(msgspec.Struct, array_like=True):
    bucket: str
    key: str
    text: str


_decode_doubt = msgspec.msgpack.Decoder(_Doubt).decode


class Catalog:
    """The blobs of some drives. `profiles` are the records that footers name, by profile, as most
    blobs have them. `versioned` and `locked` are the buckets with versioning, or a lock, of which
    any footer tells."""

    def __init__(self, drives: Sequence[RescueDrive]) -> None:
        self.drives = drives
        self.scan = Scan()
        self.profiles: dict[str, ProfileRecord] = {}
        self.places: Counter[tuple[str, int, int, int, str]] = Counter()
        """Shards by profile, group, index, drive, and the scheme of their blob ("": not said)."""
        self.versioned: set[str] = set()
        self.locked: set[str] = set()
        self.blobs = 0
        self.unknown = 0
        self.scratch = Scratch()
        self._stated: dict[str, Counter[ProfileRecord]] = {}

    def fill(self, progress: Callable[[str], None] = lambda group: None) -> None:
        """Read all drives. Blocks."""
        for blob in scan(self.drives, self.scan, progress):
            self._add(blob)
        self._rename()
        for name, said in self._stated.items():
            self.profiles[name] = max(said, key=lambda record: (said[record], _encode(record)))

    def close(self) -> None:
        self.scratch.close()

    def _add(self, blob: Blob) -> None:
        footer = blob.footer
        if footer is not None and footer.store not in ("", self.drives[0].store_id):
            self.scan.other_stores += 1
            self.doubt(blob, f"{len(blob.shards)} shards of store {footer.store}: left out")
            return
        self.blobs += 1
        key = _blob_key(blob.profile, blob.pg, blob.blob)
        self.scratch.put(key, _encode(_row(blob)))
        if blob.outliers:
            places = ", ".join(shard.path for shard in blob.outliers)
            self.doubt(blob, f"shards that contradict the others of their blob: {places}")
        if footer is None:
            self.unknown += 1
            return
        record = borne_out(blob)
        if record is not None:
            self._stated.setdefault(blob.profile, Counter())[record] += 1
        self.places.update(
            (blob.profile, blob.pg, shard.index, shard.drive, footer.scheme)
            for shard in blob.shards
        )
        if footer.versioning:
            self.versioned.add(footer.bucket)
        if footer.lock is not None:
            self.locked.add(footer.bucket)
        known = _index_keys(footer)
        for prefix in known:
            self._index(prefix + blob.blob, key, blob)
        self.unknown += not known

    def _index(self, name: bytes, key: bytes, blob: Blob) -> None:
        """Let a blob be found by a name. Of one that is met in two directories, the one that lies
        where it says, and has more shards, is found."""
        before = self.scratch.get(name)
        if before is not None:
            other = self._at(before)
            if _standing(blob) <= _standing(other):
                self.doubt(blob, "it lies in another directory, too: left alone")
                return
            self.doubt(other, "it lies in another directory, too: left alone")
        self.scratch.put(name, key)

    def notes(self) -> Iterator[list[Blob]]:
        """The notes of names, those of one content together, in the order that they were given."""
        rows = self.scratch.scan(b"n", b"o")
        for _, group in groupby(rows, lambda row: row[0][: 1 + ID_BYTES]):
            yield sorted((self._at(key) for _, key in group), key=_sequence)

    def _rename(self) -> None:
        """Let blobs be found under the names that notes give them, and no longer under those that
        their content has lost."""
        for notes in self.notes():
            names = [note.footer for note in notes if note.footer is not None]
            content_id = names[0].content_id
            for prefix in (content_key(content_id), manifest_key(content_id)):
                for blob in list(self.found_by(prefix)):
                    self._rename_blob(blob, names)

    def _rename_blob(self, blob: Blob, names: Sequence[Footer]) -> None:
        said = blob.footer
        assert said is not None
        if _is_lost(said, names):
            self.scratch.delete(_object_key(said) + blob.blob)
        for name in names:
            if not _is_lost(name, names):
                footer_map = _encode(_under_name(said, name))
                row = msgspec.structs.replace(_row(blob), footer_map=footer_map)
                key = _object_key(name) + blob.blob
                self.scratch.put(b"y" + key, _encode(row))
                self.scratch.put(key, b"y" + key)

    def doubt(self, blob: Blob, text: str) -> None:
        """Note that shards of a blob, or all of them, say other than the rest."""
        bucket, key = (blob.footer.bucket, blob.footer.key) if blob.footer else ("", "")
        name = _blob_key(blob.profile, blob.pg, blob.blob)[1:]
        told = _Doubt(bucket, key, f"blob {blob.blob.hex()} of {blob.profile}: {text}")
        self.scratch.put(b"x" + name + text.encode(), _encode(told))

    def doubts(self) -> Iterator[tuple[str, str, str]]:
        """What was noted: bucket, key, and a text."""
        for _, value in self.scratch.scan(b"x", b"y"):
            told = _decode_doubt(value)
            yield told.bucket, told.key, told.text

    def blob(self, profile: str, pg: int, blob: bytes) -> Blob | None:
        """A blob by its name."""
        value = self.scratch.get(_blob_key(profile, pg, blob))
        return None if value is None else _blob(value)

    def coding(self, blob: Blob) -> Coding | None:
        return coding_of(blob, self.profiles)

    def all_blobs(self) -> Iterator[Blob]:
        for _, value in self.scratch.scan(b"b", b"c"):
            yield _blob(value)

    def snapshots(self) -> Iterator[Blob]:
        """The blobs of snapshots, newest first."""
        found = list(self.scratch.scan(b"s", b"t"))
        for _, key in reversed(found):
            yield self._at(key)

    def parts(self) -> Iterator[Blob]:
        """The blobs of all parts, by upload and number."""
        for _, key in self.scratch.scan(b"p", b"q"):
            yield self._at(key)

    def found_by(self, name: bytes) -> Iterator[Blob]:
        """The blobs with the same bytes of an object, manifest, part or snapshot, as its shards say
        (`content_key` and the like)."""
        for _, key in self.scratch.scan(name, keys.after_prefix(name)):
            yield self._at(key)

    def versions(
        self, bucket: str = "", prefix: str = "", key: str | None = None
    ) -> Iterator[tuple[str, str, list[Version]]]:
        """Every key in order, with its versions, newest first."""
        start, end = b"o", b"p"
        if bucket:
            start = b"o" + keys.ended(bucket)
            end = keys.after_prefix(start)
        if bucket and key is not None:
            start += keys.ended(key)
            end = keys.after_prefix(start)
        rows = self.scratch.scan(start, end)
        for name, group in groupby(rows, lambda row: row[0][:-16]):
            found_bucket, rest = keys.unended(name[1:])
            found_key, _ = keys.unended(rest)
            if found_key.startswith(prefix):
                versions = [self._named(row[1]) for row in group]
                yield found_bucket, found_key, newest_first(versions)

    def _named(self, key: bytes) -> Version:
        version = self.version(self._at(key))
        version.renamed = key.startswith(b"y")
        return version

    def version(self, blob: Blob) -> Version:
        """A blob of an object or a manifest, with what is known of its bytes."""
        footer = blob.footer
        assert footer is not None
        coding = self.coding(blob)
        state, shards, width = state_of(blob, coding)
        version = Version(blob, footer, coding, state, shards, width)
        if footer.kind == "manifest" and state != "lost":
            self._add_parts(version)
        return version

    def _add_parts(self, version: Version) -> None:
        try:
            records = self.manifest(version)
        except NotReadable:
            version.state = "lost"
            return
        for record in records:
            blob = self._part(version.footer.upload, record)
            coding = None if blob is None else self.coding(blob)
            version.parts.append(Part(record, blob, coding))
            state, shards, width = ("lost", 0, 0) if blob is None else state_of(blob, coding)
            if STATES.index(state) > STATES.index(version.state):
                version.state, version.shards, version.width = state, shards, width

    def manifest(self, version: Version) -> tuple[PartRecord, ...]:
        """The parts that a manifest's blob lists. Raises NotReadable."""
        coding = version.coding
        if coding is None or coding.stored > MANIFEST_BYTES_MAX:
            raise NotReadable("the manifest's coding is not known")
        data = b"".join(read_blob(version.blob, coding))
        # Old shards do not say where the padding of the last stripe begins.
        for padding in range(1 if coding.crc64 >= 0 else coding.scheme.data):
            try:
                return decode(ManifestPage, data[: len(data) - padding]).parts
            except RecordFormatError:
                continue
        raise NotReadable("the manifest cannot be understood")

    def _part(self, upload: bytes, record: PartRecord) -> Blob | None:
        """The blob of a part: the one that the manifest names, else one that has since been
        written anew from the same bytes."""
        prefix = part_key(upload, record.number)
        key = self.scratch.get(prefix + record.blob.blob)
        found = None if key is None else self._at(key)
        if found is not None and self._decodes(found):
            return found
        for _, other in self.scratch.scan(prefix, keys.after_prefix(prefix)):
            blob = self._at(other)
            assert blob.footer is not None
            same = (blob.footer.etag, blob.footer.size) == (record.etag, record.size)
            if same and self._decodes(blob):
                return blob
        return found

    def _decodes(self, blob: Blob) -> bool:
        return state_of(blob, self.coding(blob))[0] != "lost"

    def _at(self, key: bytes) -> Blob:
        value = self.scratch.get(key)
        assert value is not None
        return _blob(value)

    def drive_ids(self, blob: Blob) -> dict[int, list[str]]:
        """The drives that hold each shard of a blob."""
        held: dict[int, list[str]] = {}
        for shard in blob.shards:
            held.setdefault(shard.index, []).append(self.drives[shard.drive].drive_id)
        return held


def _blob_key(profile: str, pg: int, blob: bytes) -> bytes:
    return b"b" + profile.encode() + b"/" + pg.to_bytes(2, "big") + blob


def content_key(content_id: bytes) -> bytes:
    return b"c" + content_id


def manifest_key(upload: bytes) -> bytes:
    return b"m" + upload


def part_key(upload: bytes, number: int) -> bytes:
    return b"p" + upload + number.to_bytes(2, "big")


def snapshot_key(incarnation: int, revision: int) -> bytes:
    return b"s" + incarnation.to_bytes(8, "big") + revision.to_bytes(8, "big")


def _index_keys(footer: Footer) -> list[bytes]:
    """What a blob is found by beside its name; nothing for a kind that is not known."""
    if footer.kind == "name" and len(footer.content_id) == ID_BYTES and footer.sequence:
        return [b"n" + footer.content_id]
    if footer.kind in ("object", "manifest"):
        found = [_object_key(footer)]
        if footer.kind == "object" and len(footer.content_id) == ID_BYTES:
            found.append(content_key(footer.content_id))
        if footer.kind == "manifest" and len(footer.upload) == ID_BYTES:
            found.append(manifest_key(footer.upload))
        return found
    if footer.kind == "part" and len(footer.upload) == ID_BYTES and 0 <= footer.number < 65536:
        return [part_key(footer.upload, footer.number)]
    if footer.kind == "snapshot":
        incarnation = footer.key.partition("/")[0]
        if incarnation.isdecimal() and len(incarnation) < 19 and 0 <= footer.sequence < 2**64:
            return [snapshot_key(int(incarnation), footer.sequence)]
    return []


def _row(blob: Blob) -> _Row:
    shards = [(shard.index, shard.drive, shard.path) for shard in blob.shards]
    return _Row(
        blob.profile,
        blob.pg,
        blob.blob,
        blob.block_bytes,
        blob.payload_bytes,
        blob.footer_map,
        shards,
    )


def _blob(value: bytes) -> Blob:
    row = _decode(value)
    footer = parse(row.footer_map) if row.footer_map else None
    shards = [Shard(*shard) for shard in row.shards]
    return Blob(
        row.profile,
        row.pg,
        row.blob,
        row.block_bytes,
        row.payload_bytes,
        footer,
        row.footer_map,
        shards,
    )


def _object_key(footer: Footer) -> bytes:
    return b"o" + keys.ended(footer.bucket) + keys.ended(footer.key)


def _sequence(note: Blob) -> int:
    return note.footer.sequence if note.footer is not None else 0


def _is_lost(said: Footer, names: Sequence[Footer]) -> bool:
    """Whether a content has lost the name that a footer gives it, by one that is newer."""
    return any(
        name.bucket == said.bucket and said.key in name.former and name.sequence > said.sequence
        for name in names
    )


def _under_name(said: Footer, name: Footer) -> Footer:
    """The footer of a blob under the name that a note gives it: all that is not about its bytes is
    as the note says."""
    return msgspec.structs.replace(
        said,
        bucket=name.bucket,
        key=name.key,
        sequence=name.sequence,
        modified_ms=name.modified_ms,
        owner=name.owner,
        headers=name.headers,
        user=name.user,
        tags=name.tags,
        storage_class=name.storage_class,
        lock=name.lock,
        redirect=name.redirect,
        versioning=name.versioning,
        former=name.former,
    )


def _standing(blob: Blob) -> tuple[bool, int]:
    return borne_out(blob) is not None, len(blob.indexes)


def state_of(blob: Blob, coding: Coding | None) -> tuple[str, int, int]:
    """State, shards found, and shards that there should be (0: not known)."""
    found = len(blob.indexes)
    if coding is None:
        return "lost", found, 0
    if not coding.scheme.decodable(blob.indexes):
        return "lost", found, coding.scheme.width
    state = "readable" if found >= coding.scheme.width else "reduced"
    return state, found, coding.scheme.width


def newest_first(versions: list[Version]) -> list[Version]:
    """By moment where all have one (manifests of old versions have none), else by time."""
    if all(version.footer.sequence for version in versions):
        return sorted(versions, key=lambda version: version.order, reverse=True)
    return sorted(versions, key=lambda version: version.order[1:], reverse=True)


def plain_ref(blob: Blob, coding: Coding, crc64: int) -> BlobRef:
    """A reference to a blob that does not say where it lies."""
    return BlobRef(blob.profile, blob.blob, coding.stored, crc64)
