"""What goes over the wire of the admin API about the trash of buckets and about undo.

Sizes are bytes, times Unix milliseconds, durations seconds.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from s3gw.admin.models import PAGE_DEFAULT, PAGE_MAX, Cursor, Limit
from s3gw.limits import KEY_BYTES_MAX

KEEP_SECONDS_MAX = 3660 * 86_400
TIME_MS_MAX = 2**53

Key = Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX)]
Prefix = Annotated[str, Meta(max_length=KEY_BYTES_MAX, description="of keys; all without")]
Entry = Annotated[str, Meta(pattern="^([0-9a-f]{16})?$", description="`entry` of a listing")]
Seconds = Annotated[int, Meta(ge=0, le=KEEP_SECONDS_MAX)]
Moment = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]


class SetTrash(Struct, forbid_unknown_fields=True):
    """How long what is deleted or replaced stays restorable; 0: not at all. What is in the trash
    already leaves it when it was due."""

    keep_seconds: Seconds


class Trash(Struct):
    """The trash of a bucket, and what is in it, which is not part of the bucket's other figures."""

    bucket: str
    keep_seconds: int
    objects: int
    bytes: int


class TrashQuery(Struct, forbid_unknown_fields=True):
    prefix: Prefix = ""
    limit: Limit = PAGE_DEFAULT
    after: Cursor = ""


class TrashEntry(Struct):
    """An object that can be restored until `purge_ms`. `entry` tells those of one key apart."""

    key: str
    entry: str
    size: int
    etag: str
    modified_ms: int
    trashed_ms: int
    purge_ms: int


class TrashEntries(Struct):
    entries: list[TrashEntry]
    next: str = ""


class RestoreTrash(Struct, forbid_unknown_fields=True):
    """Give `key`, and an `entry` of it unless the last one is meant, or a `prefix`, of which every
    key gets back its last entry. `replace` also where there is an object, which goes into the
    trash. A prefix is restored in pages: repeat with `after` until there is no `next`."""

    key: Key | None = None
    entry: Entry = ""
    prefix: Prefix | None = None
    replace: bool = False
    limit: Limit = PAGE_MAX
    after: Cursor = ""


class RestoreReport(Struct):
    """Keys restored, and keys left because there is an object or nothing in the trash."""

    restored: int
    occupied: int
    missing: int
    next: str = ""


class EmptyTrash(Struct, forbid_unknown_fields=True):
    """Remove for good what is in the trash under a prefix, up to `limit`: repeat while `more`."""

    prefix: Prefix
    limit: Limit = PAGE_MAX


class EmptyReport(Struct):
    """Objects and bytes removed; `lost` were changed by others meanwhile."""

    objects: int
    bytes: int
    lost: int
    more: bool


class UndoRequest(Struct, forbid_unknown_fields=True):
    """The prefix, and the moment to go back to."""

    at_ms: Moment
    prefix: Prefix = ""


class PlanUndo(UndoRequest, forbid_unknown_fields=True):
    """A preview comes in pages of at most `limit` versions: repeat with `after`."""

    limit: Limit = PAGE_MAX
    after: Cursor = ""


class UndoPlan(Struct):
    """Of `keys` looked at, `restore` would get a copy of an older version and `hide` a delete
    marker; of `left` it cannot be said now."""

    keys: int
    restore: int
    hide: int
    left: int
    next: str = ""


class UndoView(Struct):
    """The last undo of a bucket. `state`: walking, done or cancelled. `left` are keys that others
    wrote since it began, or that could not be treated (`note`)."""

    bucket: str
    prefix: str
    at_ms: int
    state: str
    started_ms: int
    ended_ms: int
    keys: int
    restored: int
    hidden: int
    left: int
    note: str
