"""A drive on another machine: `nodes.protocol.Drive` over HTTP. The only importer of aiohttp."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from nodes import wire
from nodes.auth import Signer
from nodes.protocol import (
    Buffer,
    DriveError,
    DriveStats,
    DriveUnreachable,
    ShardEntry,
    ShardName,
    Verdict,
)
from nodes.tls import is_loopback

CONNECTIONS_PER_NODE_MAX = 256
# Shorter than the servers' keep-alive (75 s): a connection about to be closed is not used.
KEEP_ALIVE_SECONDS = 30
# A writer sends in pieces of about this size and holds at most QUEUED_PIECES_MAX + 2 of them.
PIECE_BYTES = 512 * 1024
QUEUED_PIECES_MAX = 1
_SKIPPED_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. `connect` for a TCP connection; `total` for a call from start to end and, in a
    writer, for each append and for the commit."""

    connect: float = 2.0
    total: float = 30.0


def open_session(tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """A connection pool for any number of drives; to be closed by its owner. `tls` is for drives
    at https (nodes.tls)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            limit_per_host=CONNECTIONS_PER_NODE_MAX,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ssl=tls or True,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_SKIPPED_HEADERS,
        auto_decompress=False,
        trust_env=False,
    )


class RemoteDrive:
    """One drive of a node at `base_url` (http[s]://host:port). The session is shared and stays open
    when the drive is closed. `clock` gives Unix seconds, for the signatures. Unless `plain_allowed`
    no byte is sent over plain HTTP to another machine: the drive counts as unreachable."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        drive_id: str,
        secret: bytes,
        *,
        deadlines: Deadlines | None = None,
        clock: Callable[[], float] = time.time,
        plain_allowed: bool = True,
    ) -> None:
        """Raises ValueError for a short secret."""
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._drive_id = drive_id
        self._signer = Signer(secret, clock)
        self._deadlines = deadlines or Deadlines()
        self._timeout = aiohttp.ClientTimeout(
            total=self._deadlines.total, sock_connect=self._deadlines.connect
        )
        url = URL(base_url)
        self._refused = (
            not plain_allowed and url.scheme != "https" and not is_loopback(url.host or "")
        )
        # A stream may last; its steps have deadlines of their own.
        self._stream_timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._deadlines.connect
        )

    async def write(self, name: ShardName, buffers: Sequence[Buffer]) -> None:
        length = sum(map(len, buffers))
        body = b"".join(buffers) if length <= wire.WHOLE_BODY_BYTES_MAX else _each(buffers)
        await self._call("PUT", wire.shard_target(self._drive_id, name), body, length)

    def writer(self, name: ShardName) -> RemoteShardWriter:
        return RemoteShardWriter(self, name)

    async def read(self, name: ShardName, offset: int, length: int) -> bytes:
        target = f"{wire.shard_target(self._drive_id, name)}?offset={offset}&length={length}"
        data, _ = await self._call("GET", target)
        if len(data) > length:
            raise DriveError("the node sent more than was asked for")
        return data

    async def size(self, name: ShardName) -> int:
        _, size = await self._call("HEAD", wire.shard_target(self._drive_id, name))
        return size

    async def delete(self, name: ShardName, pg_revision: int) -> None:
        target = f"{wire.shard_target(self._drive_id, name)}?pg_revision={pg_revision}"
        await self._call("DELETE", target)

    async def list(self, profile: str, pg: int) -> list[ShardEntry]:
        data, _ = await self._call("GET", f"/v1/{self._drive_id}/shards/{profile}/{pg}")
        rows = _decode(data, list[tuple[bytes, int, int, float]])
        return [ShardEntry(*row) for row in rows]

    async def show_pg_revision(self, profile: str, pg: int, revision: int) -> None:
        await self._call("PUT", f"/v1/{self._drive_id}/pg/{profile}/{pg}?revision={revision}")

    async def verify(self, name: ShardName) -> Verdict:
        data, _ = await self._call("POST", f"{wire.shard_target(self._drive_id, name)}/verify")
        return Verdict(*_decode(data, tuple[list[int], str]))

    async def quarantine(self, name: ShardName) -> None:
        await self._call("POST", f"{wire.shard_target(self._drive_id, name)}/quarantine")

    async def stats(self) -> DriveStats:
        data, _ = await self._call("GET", f"/v1/{self._drive_id}/stats")
        return DriveStats(*_decode(data, tuple[str, str, int, int, bool, int]))

    async def close(self) -> None:
        """Nothing to release: connections belong to the session."""

    async def _call(
        self,
        method: str,
        target: str,
        body: bytes | AsyncIterator[Buffer] | None = None,
        length: int | None = None,
        *,
        stream: bool = False,
    ) -> tuple[bytes, int]:
        """The answer's body and Content-Length. Raises the protocol's exceptions; the only place
        where aiohttp's are translated."""
        if self._refused:
            raise DriveUnreachable(f"{self._base_url}: plain HTTP to another machine is refused")
        headers = {"Authorization": self._signer.sign(method, target, length)}
        if length is not None:
            headers["Content-Length"] = str(length)
        try:
            async with self._session.request(
                method,
                URL(self._base_url + target, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=self._stream_timeout if stream else self._timeout,
            ) as response:
                data = await response.read()
                if response.status == 200:
                    return data, response.content_length or 0
                raise _error(response.status, method, data)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise DriveUnreachable(f"{self._base_url}: {error}") from error
        except TimeoutError as error:
            raise DriveError(f"{self._base_url}: no answer within the deadline") from error
        except (aiohttp.ClientError, OSError) as error:
            raise DriveError(f"{self._base_url}: {type(error).__name__}: {error}") from error


class RemoteShardWriter:
    """Sends a shard while it is made. Nothing is sent before the first MiB; what is smaller at
    `commit` goes as a whole write."""

    def __init__(self, drive: RemoteDrive, name: ShardName) -> None:
        self._drive = drive
        self._name = name
        self._gathered: list[Buffer] = []
        self._gathered_bytes = 0
        self._queue: asyncio.Queue[list[Buffer] | None] = asyncio.Queue(QUEUED_PIECES_MAX)
        self._request: asyncio.Task[Any] | None = None
        self._ended = False

    async def append(self, buffers: Sequence[Buffer]) -> None:
        if self._ended:
            raise DriveError("the writer has ended")
        self._gathered.extend(buffers)
        self._gathered_bytes += sum(map(len, buffers))
        if self._gathered_bytes >= PIECE_BYTES:
            await self._send_gathered()

    async def commit(self) -> None:
        if self._ended:
            raise DriveError("the writer has ended")
        self._ended = True
        if self._request is None:
            await self._drive.write(self._name, self._gathered)
            return
        try:
            await self._send_gathered()
            await self._put(None)
            await self._within_deadline({self._request})
        except BaseException:
            await self._stop()
            raise
        self._request.result()

    async def abort(self) -> None:
        """Close the connection in mid-body. No error when the writer has ended already."""
        if not self._ended:
            self._ended = True
            await self._stop()

    async def _stop(self) -> None:
        self._gathered.clear()
        if self._request is not None:
            self._request.cancel()
            await asyncio.wait((self._request,))
            if not self._request.cancelled():
                self._request.exception()  # nobody else looks at it any more

    async def _send_gathered(self) -> None:
        if self._request is None:
            target = wire.shard_target(self._drive._drive_id, self._name)
            self._request = asyncio.create_task(
                self._drive._call("PUT", target, self._pieces(), stream=True)
            )
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        await self._put(gathered)

    async def _put(self, piece: list[Buffer] | None) -> None:
        """Queue a piece; a request that ended early raises its error here."""
        assert self._request is not None
        if self._queue.full() and not self._request.done():
            put = asyncio.create_task(self._queue.put(piece))
            try:
                await self._within_deadline({self._request, put})
            finally:
                put.cancel()
        elif not self._request.done():
            self._queue.put_nowait(piece)
        if self._request.done():
            self._request.result()
            if piece is not None:
                raise DriveError("the node answered before the end of the shard")

    async def _within_deadline(self, tasks: set[asyncio.Task[Any]]) -> None:
        done, _ = await asyncio.wait(
            tasks, timeout=self._drive._deadlines.total, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise DriveError("the node did not take the shard within the deadline")

    async def _pieces(self) -> AsyncIterator[Buffer]:
        while (piece := await self._queue.get()) is not None:
            for buffer in piece:
                yield buffer


async def _each(buffers: Sequence[Buffer]) -> AsyncIterator[Buffer]:
    for buffer in buffers:
        yield buffer


def _decode(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise DriveError(f"the node's answer cannot be understood: {error}") from error


def _error(status: int, method: str, data: bytes) -> Exception:
    if method == "HEAD":  # an answer to HEAD has no body: the status must do
        code = next((code for code, known, _ in wire.ERRORS if known == status), "")
        return wire.to_exception(status, code, "", 0)
    try:
        document = json.loads(data[: wire.ERROR_BYTES_MAX])
        code, message = str(document["error"]), str(document["message"])
        seen = int(document.get("seen", 0))
    except (ValueError, TypeError, KeyError, AttributeError):
        return wire.to_exception(status, "", "", 0)
    return wire.to_exception(status, code, message, seen)
