"""What a drive can do with shards: the interface shared by the local store, the HTTP client and
the HTTP server, so that callers cannot tell a drive in this process from one behind a network.

A shard is opaque bytes in the format of `nodes.format`. It is written once, never changed, and
named by profile, placement group, blob and index. Nothing here knows buckets, objects or coding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Buffer = bytes | bytearray | memoryview

PROFILE_PATTERN = re.compile(r"[a-z0-9][a-z0-9+._-]{0,31}")
BLOB_ID_BYTES = 16
PG_MAX = 65_535
INDEX_MAX = 254


@dataclass(frozen=True, slots=True)
class ShardName:
    """Names one shard of one blob. `blob` is 16 bytes."""

    profile: str
    pg: int
    blob: bytes
    index: int

    def __str__(self) -> str:
        return f"{self.profile}/{self.pg}/{self.blob.hex()}.{self.index}"


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One line of a listing. `bytes_stored` is the file's size, `age_seconds` the time since
    this drive's process first saw the shard, by the monotonic clock (an orphan's age)."""

    blob: bytes
    index: int
    bytes_stored: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of `verify`. `damaged_blocks` are block numbers whose checksum fails;
    `reason` says what else is wrong (header, footer, size), empty when nothing is."""

    damaged_blocks: list[int] = field(default_factory=list)
    reason: str = ""

    @property
    def whole(self) -> bool:
        return not self.damaged_blocks and not self.reason


@dataclass(frozen=True, slots=True)
class DriveStats:
    """Identity and space of a drive. `writable` is False below the reserve. `damaged_revisions` are
    those of placement groups that cannot be read, and refuse deletes until they are healed."""

    store_id: str
    drive_id: str
    capacity_bytes: int
    free_bytes: int
    writable: bool
    damaged_revisions: int = 0


class DriveError(Exception):
    """Base of what a drive raises. The drive is in trouble or out of reach (a client maps refused
    connections, deadlines and 5xx answers here): another drive must serve."""


class DriveUnreachable(DriveError):
    """The connection was refused or could not be made: nothing listens there, so the node is
    suspect at once, before its lease ends."""


class DriveLost(DriveError):
    """The directory does not have the drive any more: it was emptied, or is another's by now. What
    the drive held is gone, whatever calls succeed."""


class DriveFull(DriveError):
    """The write would go below the drive's reserve, or found no space."""


class DriveRefused(Exception):
    """The drive answered and refused: bad credentials, malformed name or body, wrong store."""


class ShardMissing(Exception):
    """The drive works and does not hold the shard."""


class StalePgRevision(Exception):
    """A delete carried a placement group revision below the highest that the drive has seen."""

    def __init__(self, seen: int) -> None:
        super().__init__(f"the drive has seen revision {seen}")
        self.seen = seen


class ShardWriter(Protocol):
    """Writes one shard in order. Exactly one of `commit` and `abort` must be called.

    `append` may return before the bytes are on disk and applies backpressure; buffers handed in
    must not be changed afterwards. `commit` returns when file and directory are durable, and the
    shard is then visible; before that it is not. `commit` of a shard that already exists replaces
    nothing and raises DriveRefused. All raise DriveError, DriveFull; after one of these from
    `commit` there is a whole shard or none.
    """

    async def append(self, buffers: Sequence[Buffer]) -> None: ...

    async def commit(self) -> None: ...

    async def abort(self) -> None: ...


class Drive(Protocol):
    """One drive: `nodes.store.LocalDrive` in process, `nodes.client.RemoteDrive` over HTTP."""

    async def write(self, name: ShardName, buffers: Sequence[Buffer]) -> None:
        """Store a whole shard (header to footer); durable and visible on return. Cheaper than
        a writer for small shards."""
        ...

    def writer(self, name: ShardName) -> ShardWriter:
        """A writer for a shard of any size."""
        ...

    async def read(self, name: ShardName, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length) of the shard file, fewer at its end. Unverified: the
        caller checks blocks with `nodes.format`. Raises ShardMissing, DriveError."""
        ...

    async def size(self, name: ShardName) -> int:
        """The shard file's size in bytes. Raises ShardMissing, DriveError."""
        ...

    async def delete(self, name: ShardName, pg_revision: int) -> None:
        """Remove a shard; an absent one is no error. Raises StalePgRevision, DriveError."""
        ...

    async def list(self, profile: str, pg: int) -> list[ShardEntry]:
        """All shards of a placement group, sorted by blob and index."""
        ...

    async def show_pg_revision(self, profile: str, pg: int, revision: int) -> None:
        """Tell the drive a placement group's revision; it is kept durably if higher."""
        ...

    async def verify(self, name: ShardName) -> Verdict:
        """Read the whole shard and check every checksum. What is said to be whole is durable, too,
        whatever became of its writer. Raises ShardMissing, DriveError."""
        ...

    async def quarantine(self, name: ShardName) -> None:
        """Set a damaged shard aside (kept in the drive's `quarantine/`), so that it reads as
        missing. An absent one is no error."""
        ...

    async def stats(self) -> DriveStats: ...

    async def close(self) -> None: ...
