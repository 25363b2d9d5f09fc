"""Long reads, announced so that the collector waits for them.

What a replaced or deleted version was made of is unlinked `garbage_after` later. A read older than
half of that writes `reading/<blob or manifest>/<process lease>`; the key goes with the last such
read of the process, or with the process. Every read writes it, and it is removed only as it was
seen after the last of them: a removal that arrives late does not take back what another read has
announced since. A removal that the engine did not take is sent again (`keep_withdrawing`): the
process may live for months, and the collector waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from nodes.protocol import Buffer
from s3gw.cluster.reader import BlobUnreadable
from s3gw.kv.interface import At, Conflict, Delete, EngineError, Put
from s3gw.metadata import keys
from s3gw.metadata.records import Data, ManifestRef, ObjectRecord
from s3gw.objects.content.framing import PLAIN, Framing
from s3gw.objects.publish import Target, read_target
from s3gw.objects.read import read_data
from s3gw.objects.storage import Storage

ANNOUNCE_RETRY_SECONDS = 10.0
WITHDRAW_SECONDS = 10.0


def identity_of(data: Data) -> bytes:
    """The blob or manifest that a version is made of."""
    return data.manifest if isinstance(data, ManifestRef) else data.blob


class Reading:
    """One read, which announces itself when it has lasted."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._active = storage.readings
        self._announce_at = storage.monotonic() + storage.garbage_after_ms / 2000
        self._key = b""
        self._turn = asyncio.Lock()

    async def going_on(self, data: Data) -> None:
        """To be called while the read of `data` goes on. When the engine does not answer, the read
        does not end for that: there is as much time again until the collector may come."""
        if self._storage.monotonic() < self._announce_at:
            return
        lease = self._storage.lease()
        key = keys.reading(identity_of(data), lease)
        if key != self._key:
            await self._storage.store.shielded(self._announce(key, lease))

    async def ended(self) -> None:
        """Take the announcement back when no other read of this process needs it. To be shielded
        from cancellation."""
        async with self._turn:
            await self._take_back()

    async def _announce(self, key: bytes, lease: int) -> None:
        async with self._turn:
            await self._take_back()  # of what was read before, or under a lease that was lost
            self._key = key
            self._active[key] += 1
            try:
                await self._storage.store.kv.commit([], [Put(key, b"", lease)])
            except EngineError:
                await self._take_back()
                self._storage.to_withdraw.add(key)  # it may yet be taken
                self._announce_at = self._storage.monotonic() + ANNOUNCE_RETRY_SECONDS

    async def _take_back(self) -> None:
        if not self._key:
            return
        key, self._key = self._key, b""
        self._active[key] -= 1
        if self._active[key] == 0:
            del self._active[key]
            try:
                await _withdraw(self._storage, key)
            except EngineError:
                self._storage.to_withdraw.add(key)


async def _withdraw(storage: Storage, key: bytes) -> None:
    """Remove an announcement that no read needs. Raises EngineError."""
    while True:
        (item,) = (await storage.store.kv.get_many([key])).items
        if item is None or key in storage.readings:
            return
        try:
            await storage.store.kv.commit([At(key, item.revision)], [Delete(key)])
        except Conflict:
            continue
        return


async def keep_withdrawing(
    storage: Storage, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Send the removals again that the engine did not take, for ever."""
    while True:
        await sleep(WITHDRAW_SECONDS)
        for key in tuple(storage.to_withdraw):
            storage.to_withdraw.discard(key)  # before: what fails meanwhile is added again
            try:
                await storage.store.shielded(_withdraw(storage, key))
            except EngineError:
                storage.to_withdraw.add(key)
                break


async def read_version(
    storage: Storage,
    target: Target,
    record: ObjectRecord,
    first: int,
    stop: int,
    framing: Framing = PLAIN,
) -> AsyncIterator[list[Buffer]]:
    """Bytes [first, stop) of a version of the key, whose content is framed so, for as long as it
    takes. The same content has the same framing.

    A reader whose blob is gone reads the record again, wherever the version is by then, and goes on
    if it or the visible version is still the same content (another profile, a copy onto itself).
    The same manifest is read again too, once where the read stands: its pages may name other blobs
    by now. Raises BlobUnreadable, ContentDamaged.
    """
    if record.data is None:
        return
    reading = Reading(storage)
    position = first
    stuck_at = -1
    try:
        while position < stop:
            try:
                pieces = read_data(storage, record.data, position, stop, framing, record.size)
                async for buffers in pieces:
                    await reading.going_on(record.data)
                    position += sum(map(len, buffers))
                    yield buffers
            except BlobUnreadable:
                again = isinstance(record.data, ManifestRef) and position != stuck_at
                stuck_at = position
                record = await _same_content(storage, target, record, again=again)
    finally:
        await storage.store.shielded(reading.ended())


async def _same_content(
    storage: Storage, target: Target, record: ObjectRecord, *, again: bool
) -> ObjectRecord:
    """The version's present record, else the visible one's, if it has the same content elsewhere,
    or if the same data may be read `again`; else BlobUnreadable."""
    target = await read_target(storage, target.bucket_name, target.key, record.sequence)
    now = target.visible if target.found is None else target.found.record
    if (
        now is None
        or now.data is None
        or (now.data == record.data and not again)
        or now.content_id != record.content_id
    ):
        raise BlobUnreadable("the version is gone or cannot be read")
    return now
