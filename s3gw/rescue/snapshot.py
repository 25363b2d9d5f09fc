"""Snapshots of the metadata, kept on the nodes like any other blob.

All keys as they were at one revision, read page by page and streamed through the ordinary write
path, so a snapshot survives what the store's best profile survives. Its shards say in their footers
what they are: a recovery finds the newest one without any metadata. `snapshot/<revision>` names
it while there is metadata and holds its blob against the collector; the last few are kept.

The commit that names a snapshot comes after its blob is durable; one that is lost between the two
leaves an orphan, which goes like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from nodes.protocol import Buffer
from s3gw import limits
from s3gw.cluster.topology import Profile, Topology
from s3gw.kv.interface import At, Conflict
from s3gw.metadata import keys
from s3gw.metadata.everything import all_keys
from s3gw.metadata.records import (
    Checksums,
    RestoredRecord,
    SnapshotRecord,
    StoreRecord,
    decode,
    encode,
)
from s3gw.metadata.sequences import last_at
from s3gw.metadata.store import Transaction
from s3gw.objects import footer, publish, references
from s3gw.objects.ingest import Ingested, Learned, ingest
from s3gw.objects.read import read_data
from s3gw.objects.storage import Storage
from s3gw.rescue.snapshot_format import Row, SnapshotHeader, frames

log = logging.getLogger(__name__)

PAGE_ITEMS = 5000
FRAME_ROWS = 500
KEEP = 3
LOOK_SECONDS_MAX = 60.0
FIRST_MS = 5 * 60 * 1000
EVERYTHING = (b"\x00", b"\xff")


class NoSuchSnapshot(Exception):
    """The store has no snapshot of that revision."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot that was taken. `size` is that of its file in bytes, `items` its keys."""

    revision: int
    created_ms: int
    size: int
    items: int


class Lock(Protocol):
    """The lock of a worker (s3gw.workers.contract.Claim); without a key, none at all."""

    @property
    def key(self) -> bytes: ...

    @property
    def revision(self) -> int: ...


class _Rows:
    """The rows of a snapshot, as read at one revision."""

    def __init__(self, storage: Storage, revision: int) -> None:
        self._store = storage.store
        self._revision = revision
        self.items = 0

    async def pages(self) -> AsyncIterator[list[Row]]:
        start, end = EVERYTHING
        async for items in all_keys(
            self._store, start, end, revision=self._revision, limit=PAGE_ITEMS
        ):
            rows = [
                (item.key, without_secrets(item.key, item.value))
                for item in items
                if not item.lease and not item.key.startswith(keys.FENCES)
            ]
            for first in range(0, len(rows), FRAME_ROWS):
                yield rows[first : first + FRAME_ROWS]
            self.items += len(rows)


def without_secrets(key: bytes, value: bytes) -> bytes:
    """The value as a snapshot keeps it."""
    if key != keys.STORE:
        return value
    record = decode(StoreRecord, value)
    return encode(
        msgspec.structs.replace(record, fence_secret=b"", token_secret=b"", cluster_secret=b"")
    )


class _Body:
    """A snapshot as the body of a blob."""

    algorithms: Collection[str] = ()

    def __init__(self, header: SnapshotHeader, rows: _Rows) -> None:
        self._header = header
        self._rows = rows

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        async for piece in frames(self._header, self._rows.pages()):
            yield piece

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        return Checksums()


async def take_snapshot(storage: Storage, claim: Lock | None = None) -> SnapshotInfo:
    """Take a snapshot of the metadata as it is now, and let go of those beyond the last KEEP.

    Raises Compacted when reading takes longer than history is kept, S3Error when the nodes do not
    take it, Conflict (with a claim that is lost), OutcomeUnknown.
    """
    revision = (await storage.store.kv.get_many([keys.STORE])).revision
    identity = storage.store.identity
    created_ms = storage.clock_ms()
    header = SnapshotHeader(
        identity.store_id,
        identity.incarnation,
        revision,
        last_at(storage.store.moment(revision)),
        created_ms,
    )
    rows = _Rows(storage, revision)

    def footer_map(learned: Learned) -> bytes:
        return footer.describe(
            "snapshot",
            "",
            f"{identity.incarnation}/{revision}",
            store=identity.store_id,
            size=learned.size,
            etag=learned.etag,
            modified_ms=created_ms,
            owner="",
            checksums=Checksums(),
            sequence=revision,
        )

    ingested = await ingest(
        storage,
        safest_profile(storage.blobs.topology),
        "",
        _Body(header, rows),
        footer_map,
        most=limits.OBJECT_BYTES_MAX,
    )
    info = SnapshotInfo(revision, created_ms, ingested.size, rows.items)
    await _publish(storage, claim, info, ingested)
    await _release_old(storage, claim)
    return info


def safest_profile(topology: Topology) -> Profile:
    """The profile that survives most; of equals the first by name."""
    named = sorted(topology.profiles(), key=lambda profile: profile.name)
    return max(
        (profile for profile in named if profile.companion),
        key=lambda profile: profile.scheme.tolerance,
    )


async def _publish(
    storage: Storage, claim: Lock | None, info: SnapshotInfo, ingested: Ingested
) -> None:
    key = keys.snapshot(info.revision)
    profile = safest_profile(storage.blobs.topology)
    placed = publish.Placed(ingested.written)
    for _ in range(limits.COMMIT_ATTEMPTS_MAX):
        await placed.settle(storage)
        tx = _transaction(claim)
        tx.expect(key, 0)
        holder = keys.snapshot_holder(info.revision)
        ref = publish.add_new_blob(storage, tx, "", placed, holder, profile=profile)
        incarnation = storage.store.identity.incarnation
        record = SnapshotRecord(
            info.revision, info.created_ms, incarnation, info.size, info.items, ref
        )
        tx.put(key, record)
        tx.witness = key
        try:
            await storage.store.apply(tx)
        except Conflict as conflict:
            if _is_final(conflict, claim, key):
                raise
            await placed.refresh(storage, conflict)
        else:
            return
    raise Conflict(None)


def _is_final(conflict: Conflict, claim: Lock | None, key: bytes) -> bool:
    """Whether the lock is lost, or another process took a snapshot at this revision."""
    guarded = conflict.guard.key if isinstance(conflict.guard, At) else b""
    return guarded == key or (claim is not None and bool(claim.key) and guarded == claim.key)


def _transaction(claim: Lock | None) -> Transaction:
    tx = Transaction()
    if claim is not None and claim.key:
        tx.expect(claim.key, claim.revision)
    return tx


async def list_snapshots(storage: Storage) -> list[SnapshotRecord]:
    """The snapshots of the store, oldest first."""
    page = await storage.store.kv.scan(
        keys.SNAPSHOTS, keys.after_prefix(keys.SNAPSHOTS), limit=limits.SCAN_ITEMS_MAX
    )
    records = [decode(SnapshotRecord, item.value) for item in page.items]
    return sorted(records, key=lambda record: (record.incarnation, record.revision))


async def _release_old(storage: Storage, claim: Lock | None) -> None:
    for record in (await list_snapshots(storage))[:-KEEP]:
        key = keys.snapshot(record.revision)
        now = await storage.store.get(SnapshotRecord, key)
        if now.record is None:
            continue
        tx = _transaction(claim)
        tx.expect(key, now.revision)
        tx.delete(key)
        holder = keys.snapshot_holder(record.revision)
        references.drop(storage, tx, "", now.record.blob, holder)
        await storage.store.apply(tx)


async def export(storage: Storage, revision: int) -> AsyncIterator[bytes]:
    """The file of a snapshot, verified. Raises NoSuchSnapshot, BlobUnreadable, ContentDamaged."""
    found = await storage.store.get(SnapshotRecord, keys.snapshot(revision))
    if found.record is None:
        raise NoSuchSnapshot(f"there is no snapshot of revision {revision}")
    ref = found.record.blob
    async for buffers in read_data(storage, ref, 0, ref.size):
        for buffer in buffers:
            yield bytes(buffer)


class SnapshotWorker:
    """Takes a snapshot every `interval_seconds` (0: never), counted from the last one. A new store
    has none to fall back on and changes most: the first is taken five minutes after it was made,
    the next ones whenever its age has doubled, until that takes longer. One is taken as soon as a
    recovery was confirmed; while it is not, another recovery is to begin where that one did."""

    name = "snapshot"
    exclusive = True

    def __init__(
        self,
        storage: Storage,
        *,
        interval_seconds: float,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._interval_ms = int(interval_seconds * 1000)
        self._sleep = sleep

    async def wait(self) -> None:
        await self._sleep(LOOK_SECONDS_MAX)

    async def work(self, claim: Lock) -> bool:
        if self._interval_ms and await self._is_due():
            info = await take_snapshot(self._storage, claim)
            log.info("snapshot of revision %d: %d keys", info.revision, info.items)
        return False

    async def _is_due(self) -> bool:
        if not self._storage.blobs.topology.profiles():
            return False  # a cluster without nodes has nowhere to put it
        identity = self._storage.store.identity
        now_ms = self._storage.clock_ms()
        # A moment ahead was told by a clock that has been set right since: it counts for none.
        made_ms = last_ms = identity.created_ms if identity.created_ms <= now_ms else 0
        for record in await list_snapshots(self._storage):
            if record.incarnation == identity.incarnation and record.created_ms <= now_ms:
                last_ms = max(last_ms, record.created_ms)
        restored = await self._storage.store.get(RestoredRecord, keys.RESTORED)
        if restored.record is not None:
            last_ms = max(last_ms, restored.record.restored_ms)
            return now_ms >= last_ms + self._interval_ms
        wait_ms = min(self._interval_ms, max(FIRST_MS, last_ms - made_ms))
        return now_ms >= last_ms + wait_ms
