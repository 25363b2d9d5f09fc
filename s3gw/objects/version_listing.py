"""ListObjectVersions in terms of storage: visible and noncurrent versions in one order.

Keys come in byte order, the versions of a key newest first. The visible version of a key lies in
`object/`, all others, delete markers included, in `version/`; both are in the order of their keys,
so a page is a merge of two streams. Each is read in steps that fit the page, behind a common prefix
both go on behind it, and all reads are at one revision: a page costs in proportion to itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from s3gw import limits
from s3gw.kv.interface import Item
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord, RecordFormatError, decode
from s3gw.objects.listing import PROBE_KEYS, folded
from s3gw.objects.publish import read_target
from s3gw.objects.storage import Storage
from s3gw.wire.version_ids import NULL_VERSION


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version of a page. `latest`: the newest of its key."""

    key: str
    record: ObjectRecord
    latest: bool


@dataclass(slots=True)
class VersionListing:
    """A page, entries and common prefixes each in order. When it is `truncated`, `last_key` is the
    last key or common prefix on it, `last_sequence` that of the last version if it ends with one,
    else 0. `unreadable` are the keys of records that cannot be read, one for each, for who asked to
    pass over them."""

    entries: list[VersionEntry] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    truncated: bool = False
    last_key: str = ""
    last_sequence: int = 0
    unreadable: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries) + len(self.prefixes) + len(self.unreadable)


@dataclass(slots=True)
class Snapshot:
    """The revision that a page is read at: that of its first read."""

    revision: int | None = None


class Stream:
    """The records of `object/` or `version/` from a position on, read as they are needed: `step` at
    first, then more, up to `most`."""

    def __init__(
        self, storage: Storage, at: Snapshot, start: bytes, end: bytes, *, step: int, most: int
    ) -> None:
        self._storage = storage
        self._at = at
        self._position = start
        self._end = end
        self._step = step
        self._most = min(most, limits.SCAN_ITEMS_MAX)
        self._items: list[Item] = []
        self._row = 0

    async def head(self) -> Item | None:
        """The next record, None at the end."""
        if self._row == len(self._items) and self._position < self._end:
            await self._read()
        return self._items[self._row] if self._row < len(self._items) else None

    async def _read(self) -> None:
        limit = min(self._step, self._most)
        page = await self._storage.store.scan_listed(
            self._position, self._end, limit=limit, revision=self._at.revision
        )
        self._at.revision = page.revision
        self._items, self._row = page.items, 0
        self._position = page.items[-1].key + b"\x00" if page.more else self._end
        self._step *= 2

    def pass_on(self) -> None:
        """To the record behind the head."""
        self._row += 1

    def skip_to(self, position: bytes) -> None:
        """To the first record at or behind `position`; what is read next is likely folded again,
        so it is little."""
        while self._row < len(self._items) and self._items[self._row].key < position:
            self._row += 1
        if self._row == len(self._items):
            self._position = max(self._position, position)
            self._step = PROBE_KEYS


async def list_versions(
    storage: Storage,
    bucket: str,
    *,
    prefix: str,
    delimiter: str,
    most: int,
    after_key: str = "",
    after_sequence: int | None = None,
    pass_over_unreadable: bool = False,
) -> VersionListing:
    """Up to `most` versions and common prefixes behind a key, or, with `after_sequence`, behind
    that version of it (NULL_VERSION for its null version). Raises RecordFormatError, unless it is
    told to `pass_over_unreadable`."""
    listing = VersionListing()
    if not most:
        return listing
    at = Snapshot()
    before = 0
    if after_key and after_sequence == NULL_VERSION:
        found = (await read_target(storage, bucket, after_key, NULL_VERSION)).found
        after_sequence = found.record.sequence if found is not None else None
    if after_key and after_sequence is not None:
        before = await _newest_sequence(storage, bucket, after_key, at)
    merge = _Merge(storage, bucket, at, prefix, delimiter, most)
    merge.start_behind(after_key, after_sequence)
    current = after_key if before and after_sequence and before >= after_sequence else None
    while (found_next := await merge.next()) is not None:
        if len(listing) >= most:
            listing.truncated = True
            break
        if isinstance(found_next, str):
            listing.prefixes.append(found_next)
            listing.last_key, listing.last_sequence = found_next, 0
            continue
        key, item = found_next
        try:
            record = decode(ObjectRecord, item.value)
        except RecordFormatError:
            if not pass_over_unreadable:
                raise
            listing.unreadable.append(key)
            current = listing.last_key = key
            continue
        if key == after_key and after_sequence is not None and record.sequence >= after_sequence:
            continue  # the visible version, which is not behind the one named
        listing.entries.append(VersionEntry(key, record, latest=key != current))
        current = listing.last_key = key
        listing.last_sequence = record.sequence
    return listing


async def _newest_sequence(storage: Storage, bucket: str, key: str, at: Snapshot) -> int:
    """The sequence of a key's newest version; 0 for a key without any."""
    target = await read_target(storage, bucket, key)
    at.revision = target.revision
    return target.latest.sequence if target.latest is not None else 0


class _Merge:
    """Both streams of a page as one."""

    def __init__(
        self, storage: Storage, bucket: str, at: Snapshot, prefix: str, delimiter: str, most: int
    ) -> None:
        self._storage = storage
        self._at = at
        self._prefix = prefix
        self._delimiter = delimiter
        self._most = most + 1
        self._step = PROBE_KEYS if delimiter else self._most
        self._bucket = bucket
        self._objects = keys.objects(bucket)
        self._versions = keys.versions(bucket)
        self._visible, self._noncurrent = self._streams(self._objects, self._versions)

    def _streams(self, first_object: bytes, first_version: bytes) -> tuple[Stream, Stream]:
        """Both streams from these positions on, but not before the prefix."""
        of_objects = self._objects + self._prefix.encode()
        of_versions = self._versions + keys.escaped(self._prefix)
        visible = Stream(
            self._storage,
            self._at,
            max(of_objects, first_object),
            keys.after_prefix(of_objects),
            step=self._step,
            most=self._most,
        )
        noncurrent = Stream(
            self._storage,
            self._at,
            max(of_versions, first_version),
            keys.after_prefix(of_versions),
            step=self._step,
            most=self._most,
        )
        return visible, noncurrent

    def start_behind(self, key: str, sequence: int | None) -> None:
        """Begin behind a key or common prefix, or within the key."""
        if not key:
            return
        if sequence is not None:
            version = keys.version(self._bucket, key, sequence) + b"\x00"
            starts = self._objects + key.encode(), version
        elif key.startswith(self._prefix) and folded(key, self._prefix, self._delimiter) == key:
            starts = self._behind(key)
        else:
            behind = keys.after_prefix(keys.versions_of(self._bucket, key))
            starts = self._objects + key.encode() + b"\x00", behind
        self._visible, self._noncurrent = self._streams(*starts)

    def _behind(self, common: str) -> tuple[bytes, bytes]:
        """Where each stream goes on behind a common prefix."""
        return (
            keys.after_prefix(self._objects + common.encode()),
            keys.after_prefix(self._versions + keys.escaped(common)),
        )

    async def next(self) -> str | tuple[str, Item] | None:
        """The next version, or the next common prefix; None at the end."""
        visible, noncurrent = await self._visible.head(), await self._noncurrent.head()
        if visible is None and noncurrent is None:
            return None
        keyed = []
        if visible is not None:
            keyed.append((visible.key[len(self._objects) :].decode(), visible, self._visible))
        if noncurrent is not None:
            key, _ = keys.unended(noncurrent.key[len(self._versions) :])
            keyed.append((key, noncurrent, self._noncurrent))
        key, item, stream = min(keyed, key=lambda head: head[0].encode())  # of equal ones the first
        common = folded(key, self._prefix, self._delimiter)
        if not common:
            stream.pass_on()
            return key, item
        behind_objects, behind_versions = self._behind(common)
        self._visible.skip_to(behind_objects)
        self._noncurrent.skip_to(behind_versions)
        return common
