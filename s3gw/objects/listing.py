"""Listings: pages of keys with prefix and delimiter, in byte order.

A page is read in as many engine reads as it needs. With a delimiter, most keys may fold into few
common prefixes, so a scan first probes a few keys and doubles as long as nothing folds; when a
read ends within a folded prefix, the scan goes on behind that prefix. All reads of one page are
at one revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from s3gw import limits
from s3gw.kv.interface import Item
from s3gw.metadata import keys
from s3gw.metadata.records import ObjectRecord, UploadRecord, decode
from s3gw.objects.storage import Storage

R = TypeVar("R", bound=msgspec.Struct)

PROBE_KEYS = 8


@dataclass(frozen=True, slots=True)
class Entry(Generic[R]):
    """One record of a page, by its key; `mark` is what follows the key in the record's own key
    (an upload id; empty for objects)."""

    key: str
    mark: bytes
    record: R


@dataclass(slots=True)
class Listing(Generic[R]):
    """A page. `last` is the last key or common prefix on it, `last_mark` the mark of the last
    entry if the page ends with one."""

    entries: list[Entry[R]] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    truncated: bool = False
    last: str = ""
    last_mark: bytes = b""

    def __len__(self) -> int:
        return len(self.entries) + len(self.prefixes)


@dataclass(frozen=True, slots=True)
class Space(Generic[R]):
    """A listed part of the metadata: where its keys begin and how they are read."""

    base: bytes
    split: Callable[[bytes], tuple[str, bytes]]
    kind: type[R]
    escape: Callable[[str], bytes]


def objects_of(bucket: str) -> Space[ObjectRecord]:
    """The visible versions of a bucket."""
    return Space(
        keys.objects(bucket),
        lambda rest: (rest.decode(), b""),
        ObjectRecord,
        lambda text: text.encode(),
    )


def uploads_of(bucket: str) -> Space[UploadRecord]:
    """The multipart uploads of a bucket, by key and upload id."""
    return Space(
        keys.uploads(bucket),
        keys.unended,
        UploadRecord,
        keys.escaped,
    )


def folded(key: str, prefix: str, delimiter: str) -> str:
    """The common prefix that `key` folds into, or "".

    >>> folded("a/b/c", "a/", "/"), folded("a/b", "a/", "/")
    ('a/b/', '')
    """
    if not delimiter:
        return ""
    end = key.find(delimiter, len(prefix))
    return "" if end < 0 else key[: end + len(delimiter)]


def start_of(space: Space[R], prefix: str, delimiter: str, after: str, mark: bytes | None) -> bytes:
    """The first record key that a page after (`after`, `mark`) may show."""
    begin = space.base + space.escape(prefix)
    if not after:
        return begin
    if mark is not None:
        return max(begin, space.base + keys.ended(after) + mark + b"\x00")
    if after.startswith(prefix) and folded(after, prefix, delimiter) == after:
        return max(begin, keys.after_prefix(space.base + space.escape(after)))
    if space.base.startswith(keys.UPLOADS):
        return max(begin, keys.after_prefix(space.base + keys.ended(after)))
    return max(begin, space.base + after.encode() + b"\x00")


async def page(
    storage: Storage,
    space: Space[R],
    *,
    prefix: str,
    delimiter: str,
    after: str,
    most: int,
    after_mark: bytes | None = None,
) -> Listing[R]:
    """Up to `most` entries and common prefixes behind `after`."""
    listing: Listing[R] = Listing()
    position = start_of(space, prefix, delimiter, after, after_mark)
    end = keys.after_prefix(space.base + space.escape(prefix))
    probe = PROBE_KEYS if delimiter else most + 1
    revision: int | None = None
    while most and position < end:
        want = min(probe, most + 1 - len(listing), limits.SCAN_ITEMS_MAX)
        got = await storage.store.scan_listed(position, end, limit=max(1, want), revision=revision)
        revision = got.revision
        for entry_or_prefix in _fold(space, got.items, prefix, delimiter, listing):
            if len(listing) >= most:
                listing.truncated = True
                return listing
            _take(listing, entry_or_prefix)
        if not got.more:
            return listing
        position, probe = _next(space, got.items, prefix, delimiter, probe)
    return listing


def _fold(
    space: Space[R], items: list[Item], prefix: str, delimiter: str, listing: Listing[R]
) -> Iterator[Entry[R] | str]:
    """The entries and the new common prefixes of what was read."""
    base = len(space.base)
    known = listing.prefixes[-1] if listing.prefixes else ""
    for item in items:
        key, mark = space.split(item.key[base:])
        common = folded(key, prefix, delimiter)
        if not common:
            yield Entry(key, mark, decode(space.kind, item.value))
        elif common != known:
            known = common
            yield common


def _take(listing: Listing[R], found: Entry[R] | str) -> None:
    if isinstance(found, str):
        listing.prefixes.append(found)
        listing.last, listing.last_mark = found, b""
    else:
        listing.entries.append(found)
        listing.last, listing.last_mark = found.key, found.mark


def _next(
    space: Space[R], items: list[Item], prefix: str, delimiter: str, probe: int
) -> tuple[bytes, int]:
    """Where to read on and how much: behind a common prefix if the read ended within one."""
    last = items[-1].key
    common = folded(space.split(last[len(space.base) :])[0], prefix, delimiter)
    if common:
        return keys.after_prefix(space.base + space.escape(common)), PROBE_KEYS
    return last + b"\x00", probe * 2
