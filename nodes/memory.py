"""A drive in memory, for tests: the whole interface, and faults on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nodes.check import check_bytes
from nodes.protocol import (
    Buffer,
    DriveError,
    DriveFull,
    DriveRefused,
    DriveStats,
    ShardEntry,
    ShardMissing,
    ShardName,
    StalePgRevision,
    Verdict,
)
from nodes.store import Clock, check_name, shard_path

CAPACITY_BYTES = 1 << 40
OPERATIONS = frozenset(
    {"write", "append", "commit", "read", "size", "delete", "list", "show_pg_revision"}
    | {"verify", "quarantine", "stats"}
)


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` calls of an operation (None: to all).

    `delay_seconds` goes to the drive's `sleep` first; then the call hangs until the fault is
    cleared, or raises `error`, or `corrupt` flips the lowest bit of the middle byte of what is
    read or stored.
    """

    error: Exception | None = None
    hang: bool = False
    delay_seconds: float = 0.0
    corrupt: bool = False
    times: int | None = None


class MemoryDrive:
    """Implements `nodes.protocol.Drive`. `shards` is open to tests."""

    def __init__(
        self,
        *,
        store_id: str = "store",
        drive_id: str = "memory",
        capacity_bytes: int = CAPACITY_BYTES,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.shards: dict[ShardName, bytes] = {}
        self.quarantined: dict[ShardName, bytes] = {}
        self.calls: list[tuple[str, ShardName | None]] = []
        self._first_seen: dict[ShardName, float] = {}
        self._revisions: dict[tuple[str, int], int] = {}
        self._faults: dict[str, Fault] = {}
        self._cleared = asyncio.Event()
        self._store_id = store_id
        self._drive_id = drive_id
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._sleep = sleep
        self._closed = False

    def inject(self, fault: Fault, *operations: str) -> None:
        """Let a fault befall the operations (all, when none is named), instead of earlier ones."""
        for operation in operations or OPERATIONS:
            if operation not in OPERATIONS:
                raise ValueError(f"no such operation: {operation}")
            self._faults[operation] = fault

    def heal(self) -> None:
        """Clear all faults; what hangs goes on."""
        self._faults.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    async def enter(self, operation: str, name: ShardName | None = None) -> bool:
        """Note a call and let its fault befall it; true when its bytes are to be corrupted."""
        self.calls.append((operation, name))
        if self._closed:
            raise DriveError("the drive is closed")
        fault = self._faults.get(operation)
        if fault is None:
            return False
        if fault.times is not None:
            if not fault.times:
                return False
            fault.times -= 1
        if fault.delay_seconds:
            await self._sleep(fault.delay_seconds)
        if fault.hang:
            await self._cleared.wait()
        if fault.error is not None:
            raise fault.error
        return fault.corrupt

    async def write(self, name: ShardName, buffers: Sequence[Buffer]) -> None:
        shard_path(name)
        corrupt = await self.enter("write", name)
        self.store(name, b"".join(buffers), corrupt)

    def store(self, name: ShardName, data: bytes, corrupt: bool) -> None:
        """Keep a whole shard."""
        if name in self.shards:
            raise DriveRefused("the shard exists already")
        if len(data) > self._free_bytes():
            raise DriveFull("the write would go below the drive's reserve")
        self.shards[name] = _flipped(data) if corrupt else data

    def writer(self, name: ShardName) -> MemoryShardWriter:
        shard_path(name)
        return MemoryShardWriter(self, name)

    async def read(self, name: ShardName, offset: int, length: int) -> bytes:
        corrupt = await self.enter("read", name)
        data = self._get(name)[offset : offset + length]
        return _flipped(data) if corrupt else data

    async def size(self, name: ShardName) -> int:
        await self.enter("size", name)
        return len(self._get(name))

    async def delete(self, name: ShardName, pg_revision: int) -> None:
        shard_path(name)
        await self.enter("delete", name)
        seen = self._show(name.profile, name.pg, pg_revision)
        if seen > pg_revision:
            raise StalePgRevision(seen)
        self.shards.pop(name, None)

    async def list(self, profile: str, pg: int) -> list[ShardEntry]:
        check_name(profile, pg)
        await self.enter("list")
        now = self._clock()
        names = [name for name in self.shards if (name.profile, name.pg) == (profile, pg)]
        names.sort(key=lambda name: (name.blob, name.index))
        entries = []
        for name in names:
            age = now - self._first_seen.setdefault(name, now)
            entries.append(ShardEntry(name.blob, name.index, len(self.shards[name]), age))
        return entries

    async def show_pg_revision(self, profile: str, pg: int, revision: int) -> None:
        check_name(profile, pg)
        await self.enter("show_pg_revision")
        self._show(profile, pg, revision)

    async def verify(self, name: ShardName) -> Verdict:
        await self.enter("verify", name)
        return check_bytes(name, self._get(name))

    async def quarantine(self, name: ShardName) -> None:
        shard_path(name)
        await self.enter("quarantine", name)
        if name in self.shards:
            self.quarantined[name] = self.shards.pop(name)

    async def stats(self) -> DriveStats:
        await self.enter("stats")
        free = self._free_bytes()
        return DriveStats(self._store_id, self._drive_id, self._capacity_bytes, free, free > 0)

    async def close(self) -> None:
        self._closed = True

    def _get(self, name: ShardName) -> bytes:
        shard_path(name)
        data = self.shards.get(name)
        if data is None:
            raise ShardMissing(str(name))
        return data

    def _show(self, profile: str, pg: int, revision: int) -> int:
        seen = max(revision, self._revisions.get((profile, pg), 0))
        self._revisions[profile, pg] = seen
        return seen

    def _free_bytes(self) -> int:
        return self._capacity_bytes - sum(map(len, self.shards.values()))


class MemoryShardWriter:
    """Gathers a shard; `commit` stores it."""

    def __init__(self, drive: MemoryDrive, name: ShardName) -> None:
        self._drive = drive
        self._name = name
        self._data: bytearray | None = bytearray()

    async def append(self, buffers: Sequence[Buffer]) -> None:
        await self._drive.enter("append", self._name)
        if self._data is None:
            raise DriveError("the writer has ended")
        for buffer in buffers:
            self._data += buffer

    async def commit(self) -> None:
        data, self._data = self._data, None
        if data is None:
            raise DriveError("the writer has ended")
        corrupt = await self._drive.enter("commit", self._name)
        self._drive.store(self._name, bytes(data), corrupt)

    async def abort(self) -> None:
        self._data = None


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
