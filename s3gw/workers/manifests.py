"""Freeing the parts of multipart uploads.

Three things put a manifest into the collector's queue, told apart by the entry's holder:

    parts       the upload was completed: its part records are not needed any more, and parts that
                the client did not list are free. The pages are the truth about listed parts.
    abort       the upload was aborted: all its parts are free.
    o…          an object version that held the manifest is gone. When it was the last holder, all
                parts are free, and the manifest's own blob is.

A part is freed by dropping its reference with an entry of its own, due at once. Every step looks
at what is there and is guarded by it, so the work may stop anywhere and start again: a reference
that is dropped already is passed over, a page goes when all its parts are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TypeVar

import msgspec

from s3gw import limits
from s3gw.kv.interface import At, Item
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    Garbage,
    ManifestPage,
    PartRecord,
    Reference,
    decode,
)
from s3gw.metadata.store import Transaction
from s3gw.objects import references
from s3gw.objects.storage import Storage
from s3gw.workers.contract import Claim, commit

T = TypeVar("T")

COMPLETED = b"parts"
ABORTED = b"abort"
PARTS_PER_COMMIT = 30


class State(Enum):
    """How the freeing of a manifest ended."""

    FREED = "freed"
    HELD = "held"
    READ = "read"


class Freeing:
    """Frees the parts of one manifest as far as its queue entry allows. `seen` and `deletes` are
    for the commit that removes the entry."""

    def __init__(
        self, storage: Storage, claim: Claim, garbage: Garbage, manifest: bytes, holder: bytes
    ) -> None:
        self._storage = storage
        self._claim = claim
        self._garbage = garbage
        self._manifest = manifest
        self._holder = holder
        self.seen: dict[bytes, int] = {}
        self.deletes: list[bytes] = []

    async def free(self) -> State:
        """Do it. Raises Conflict, OutcomeUnknown: to be tried again."""
        if self._holder == COMPLETED:
            listed = {
                self._reference(part)
                for page in await self._pages()
                for part in decode(ManifestPage, page.value).parts
            }
            await self._free_part_records(listed)
            return State.FREED
        state = await self._holders()
        if state is State.FREED:
            for page in await self._pages():
                await self._free_page(page)
            await self._free_part_records(set())
            if self._garbage.reference:
                await self._drop([self._garbage.reference], [], [])
        return state

    async def _holders(self) -> State:
        """Whether anybody else still holds or reads the manifest."""
        kv = self._storage.store.kv
        prefix = keys.manifest_holders(self._manifest)
        own = keys.manifest_holder(self._manifest, self._holder)
        page = await kv.scan(prefix, keys.after_prefix(prefix), limit=2)
        # Of many holders the own one may be behind these.
        itself = await kv.scan(own, own + b"\x00", limit=1, revision=page.revision)
        for item in itself.items:
            if not item.value:
                return State.HELD  # held again by a version of the same name
            self.seen[own] = item.revision
            self.deletes.append(own)
        others = [item for item in page.items if item.key != own]
        for item in others:
            self.seen[item.key] = item.revision
        if others:
            return State.HELD
        readings = keys.readings(self._manifest)
        readers = await kv.scan(
            readings, keys.after_prefix(readings), limit=1, revision=page.revision
        )
        return State.READ if readers.items else State.FREED

    async def _pages(self) -> list[Item]:
        prefix = keys.manifest(self._manifest)
        page = await self._storage.store.kv.scan(
            prefix, keys.after_prefix(prefix), limit=limits.PART_NUMBER_MAX
        )
        return page.items

    async def _free_page(self, page: Item) -> None:
        """Drop the references of a page's parts, then the page."""
        guard = At(page.key, page.revision)
        for parts in _chunks(decode(ManifestPage, page.value).parts):
            await self._drop([self._reference(part) for part in parts], [guard], [])
        tx = Transaction()
        tx.expect(page.key, page.revision)
        tx.delete(page.key)
        await commit(self._storage.store, self._claim, tx)

    async def _free_part_records(self, listed: set[bytes]) -> None:
        """Remove the part records, and drop their references that no listed part has. A blob alone
        says nothing: two parts may share one."""
        prefix = keys.parts(self._manifest)
        page = await self._storage.store.kv.scan(
            prefix, keys.after_prefix(prefix), limit=limits.SCAN_ITEMS_MAX
        )
        for items in _chunks(page.items):
            parts = [decode(PartRecord, item.value) for item in items]
            dropped = [key for part in parts if (key := self._reference(part)) not in listed]
            await self._drop(
                dropped, [At(item.key, item.revision) for item in items], [i.key for i in items]
            )

    def _reference(self, part: PartRecord) -> bytes:
        """The key of a part's reference to its blob."""
        ref: BlobRef = part.blob
        holder = keys.part_holder(self._manifest, part.number)
        return references.key_of(self._storage.blobs.topology, ref, holder)

    async def _drop(
        self, reference_keys: Sequence[bytes], guards: Sequence[At], deletes: Sequence[bytes]
    ) -> None:
        """Drop the references that are live, due at once, and delete some keys, in one commit."""
        tx = Transaction()
        tx.guards += guards
        for key in deletes:
            tx.delete(key)
        if reference_keys:
            for item in (await self._storage.store.kv.get_many(reference_keys)).items:
                if item is not None:
                    drop_now(self._storage, tx, item)
        if tx.writes:
            await commit(self._storage.store, self._claim, tx)


def drop_now(storage: Storage, tx: Transaction, item: Item) -> bool:
    """Drop a reference as read, due at once; False if it is dropped already."""
    reference = decode(Reference, item.value)
    if reference.dropped_due_ms:
        return False
    due_ms = storage.clock_ms()
    _, _, blob, holder = keys.split_reference(item.key)
    tx.expect(item.key, item.revision)
    tx.put(item.key, msgspec.structs.replace(reference, dropped_due_ms=due_ms))
    tx.put(keys.garbage(due_ms, blob, holder), Garbage(reference=item.key, bucket=reference.bucket))
    return True


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), PARTS_PER_COMMIT):
        yield items[first : first + PARTS_PER_COMMIT]
