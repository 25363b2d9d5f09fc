"""Records of inventory reports; their form is that of s3gw.metadata.records."""

from __future__ import annotations

import msgspec


class InventoryFile(msgspec.Struct, array_like=True, frozen=True):
    """A file of a report that is written. `md5` in hexadecimal."""

    key: str
    size: int
    md5: str


class InventoryRun(msgspec.Struct, array_like=True, frozen=True):
    """The last report of an inventory configuration, or the one that is being made.

    `state`: asked (by an operator, and not begun), writing, publishing (all `files` are there, the
    manifest may be), done or failed. `document` is the configuration that it is made by, `revision`
    the one of the metadata that it shows, `pending` the key of the file that is being written.
    `note` says why it failed, or what it lacks. `retry_ms` is when one that failed is begun again;
    `done_ms` and `manifest` are of the last report that was finished."""

    bucket_id: bytes
    state: str
    document: bytes = b""
    started_ms: int = 0
    revision: int = 0
    rows: int = 0
    files: tuple[InventoryFile, ...] = ()
    pending: str = ""
    ended_ms: int = 0
    retry_ms: int = 0
    note: str = ""
    done_ms: int = 0
    manifest: str = ""


class Pin(msgspec.Struct, array_like=True, frozen=True):
    """History from the revision of this record's own key on is wanted, since `since_ms`."""

    since_ms: int
