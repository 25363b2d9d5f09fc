"""The HTTP server of a node: one ASGI application over one or several drives (nodes.wire lists the
routes).

It is plain ASGI with one pattern for all paths: the node port carries every shard of the store, and
Starlette's Request, router and Response objects cost more per request than the work itself. A body
is checked against the shard format while it arrives, and only a whole shard is committed: what a
broken connection or a faulty network tore is never acknowledged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Protocol

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nodes import wire
from nodes.auth import Authenticator, Replayed, Unauthenticated
from nodes.check import StreamCheck
from nodes.format import ShardCorrupt
from nodes.pg_revisions import REVISION_MAX
from nodes.protocol import (
    INDEX_MAX,
    PG_MAX,
    PROFILE_PATTERN,
    Drive,
    DriveRefused,
    ShardName,
    StalePgRevision,
)

OFFSET_MAX = 2**62
_PG = rf"({PROFILE_PATTERN.pattern})/(0|[1-9][0-9]{{0,4}})"
_PATH = re.compile(
    r"/v1/([A-Za-z0-9._-]{1,64})/(?:"
    rf"shards/{_PG}(?:/([0-9a-f]{{32}})\.(0|[1-9][0-9]{{0,2}})(/verify|/quarantine)?)?"
    rf"|pg/{_PG}|(stats))"
)
_RANGE = re.compile(rb"offset=([0-9]{1,19})&length=([0-9]{1,19})")
_DELETE = re.compile(rb"pg_revision=([0-9]{1,19})")
_SHOW = re.compile(rb"revision=([0-9]{1,19})")
_MSGPACK = b"application/msgpack"
_BYTES = b"application/octet-stream"
_encode = msgspec.msgpack.Encoder().encode


class Registration(Protocol):
    """The node's membership, as far as the server must know it."""

    def writes_allowed(self) -> bool:
        """False when the node's lease may have ended: others may count it as down."""
        ...


class _Always:
    def writes_allowed(self) -> bool:
        return True


class _Refusal(Exception):
    """An error answer with a code of `wire.OTHER_STATUS`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _ClientGone(Exception):
    """The client closed its connection before the body was complete; nobody reads an answer."""


@dataclass(slots=True)
class _Request:
    method: str
    target: str
    query: bytes
    length: int | None
    receive: Receive
    drive: Drive
    name: ShardName
    pg: tuple[str, int]


@dataclass(slots=True)
class _Answer:
    body: bytes = b""
    content_type: bytes = _BYTES
    # For HEAD: the size that is told without a body.
    length: int | None = None


_ERRORS: tuple[type[Exception], ...] = tuple(kind for _, _, kind in wire.ERRORS)
_NO_SHARD = ShardName("", 0, b"", 0)


def build_app(
    drives: Mapping[str, Drive],
    secret: bytes,
    registration: Registration | None = None,
    *,
    authenticator: Authenticator | None = None,
) -> ASGIApp:
    """The application for drives by their ids. Raises ValueError for a short secret.

    `registration` None: a node without membership, always writable. `authenticator` replaces the
    one made from `secret` (tests inject a clock).
    """
    return NodeApp(drives, authenticator or Authenticator(secret), registration or _Always())


class NodeApp:
    """ASGI application; see `build_app`."""

    def __init__(
        self, drives: Mapping[str, Drive], authenticator: Authenticator, registration: Registration
    ) -> None:
        self._drives = drives
        self._authenticator = authenticator
        self._registration = registration
        self._handlers: dict[tuple[str, str], Callable[[_Request], Awaitable[_Answer]]] = {
            ("shard", "PUT"): self._put,
            ("shard", "GET"): self._get,
            ("shard", "HEAD"): self._head,
            ("shard", "DELETE"): self._delete,
            ("/verify", "POST"): self._verify,
            ("/quarantine", "POST"): self._quarantine,
            ("shards", "GET"): self._list,
            ("pg", "PUT"): self._show,
            ("stats", "GET"): self._stats,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} connections here")
        if scope["path"] == "/health" and scope["method"] == "GET":
            await _send(send, 200, _Answer(b'{"status":"ok"}', b"application/json"))
            return
        try:
            handler, request = self._resolve(scope, receive)
            answer = await handler(request)
        except _ClientGone:
            return
        except _Refusal as error:
            await _send_error(send, wire.OTHER_STATUS[error.code], error.code, error)
        except _ERRORS as error:
            code, status = next((c, s) for c, s, kind in wire.ERRORS if isinstance(error, kind))
            await _send_error(send, status, code, error)
        else:
            await _send(send, 200, answer)

    def _resolve(
        self, scope: Scope, receive: Receive
    ) -> tuple[Callable[[_Request], Awaitable[_Answer]], _Request]:
        method, query = scope["method"], scope["query_string"]
        path = scope["raw_path"].decode("latin-1")
        length: bytes | None = None
        authorization = b""
        for key, value in scope["headers"]:
            if key == b"authorization":
                authorization = value
            elif key == b"content-length":
                length = value
        target = f"{path}?{query.decode('latin-1')}" if query else path
        try:
            self._authenticator.check(method, target, length, authorization)
        except Replayed as error:
            raise _Refusal(wire.REPLAYED, str(error)) from error
        except Unauthenticated as error:
            raise _Refusal(wire.UNAUTHENTICATED, str(error)) from error
        match = _PATH.fullmatch(path)
        if match is None:
            raise _Refusal(wire.NO_ROUTE, "no such path")
        drive_id, profile, pg, blob, index, action, shown, shown_pg, stats = match.groups()
        drive = self._drives.get(drive_id)
        if drive is None:
            raise _Refusal(wire.NO_DRIVE, "this node has no such drive")
        name, group = _NO_SHARD, (profile or shown or "", int(pg or shown_pg or 0))
        if group[1] > PG_MAX or (index and int(index) > INDEX_MAX):
            raise DriveRefused("placement group or index is out of range")
        kind = "stats" if stats else "pg" if shown else "shards"
        if blob:
            name = ShardName(profile, group[1], bytes.fromhex(blob), int(index))
            kind = action or "shard"
        handler = self._handlers.get((kind, method))
        if handler is None:
            raise _Refusal(wire.NO_ROUTE, "no such method here")
        count = int(length) if length is not None else None
        return handler, _Request(method, target, query, count, receive, drive, name, group)

    async def _put(self, request: _Request) -> _Answer:
        if request.length is not None and request.length > wire.SHARD_BYTES_MAX:
            raise _Refusal(wire.TOO_LARGE, "the shard is too large")
        self._require_lease()
        check = StreamCheck(request.name)
        try:
            if request.length is not None and request.length <= wire.WHOLE_BODY_BYTES_MAX:
                await self._put_whole(request, check)
            else:
                await self._put_stream(request, check)
        except ShardCorrupt as error:
            raise DriveRefused(f"not a whole shard: {error}") from error
        return _Answer()

    async def _put_whole(self, request: _Request, check: StreamCheck) -> None:
        pieces = []
        more = True
        while more:
            body, more = await _next_piece(request.receive)
            check.feed(body)
            pieces.append(body)
        check.finish()
        self._require_lease()
        await request.drive.write(request.name, pieces)

    async def _put_stream(self, request: _Request, check: StreamCheck) -> None:
        writer = request.drive.writer(request.name)
        received = 0
        more = True
        try:
            while more:
                body, more = await _next_piece(request.receive)
                received += len(body)
                if received > wire.SHARD_BYTES_MAX:
                    raise _Refusal(wire.TOO_LARGE, "the shard is too large")
                check.feed(body)
                await writer.append((body,))
            check.finish()
            self._require_lease()
        except BaseException:
            await writer.abort()
            raise
        await writer.commit()

    def _require_lease(self) -> None:
        if not self._registration.writes_allowed():
            raise _Refusal(wire.LEASE_ENDED, "the node's lease may have ended")

    async def _get(self, request: _Request) -> _Answer:
        match = _RANGE.fullmatch(request.query)
        if match is None:
            raise DriveRefused("offset and length are needed")
        offset, length = int(match[1]), int(match[2])
        if offset > OFFSET_MAX or length > wire.READ_BYTES_MAX:
            raise DriveRefused("offset or length is out of range")
        return _Answer(await request.drive.read(request.name, offset, length))

    async def _head(self, request: _Request) -> _Answer:
        return _Answer(length=await request.drive.size(request.name))

    async def _delete(self, request: _Request) -> _Answer:
        revision = _revision(_DELETE, request.query)
        await request.drive.delete(request.name, revision)
        return _Answer()

    async def _verify(self, request: _Request) -> _Answer:
        verdict = await request.drive.verify(request.name)
        return _Answer(_encode(astuple(verdict)), _MSGPACK)

    async def _quarantine(self, request: _Request) -> _Answer:
        await request.drive.quarantine(request.name)
        return _Answer()

    async def _list(self, request: _Request) -> _Answer:
        entries = await request.drive.list(*request.pg)
        rows = [(e.blob, e.index, e.bytes_stored, e.age_seconds) for e in entries]
        return _Answer(_encode(rows), _MSGPACK)

    async def _show(self, request: _Request) -> _Answer:
        await request.drive.show_pg_revision(*request.pg, _revision(_SHOW, request.query))
        return _Answer()

    async def _stats(self, request: _Request) -> _Answer:
        return _Answer(_encode(astuple(await request.drive.stats())), _MSGPACK)


def _revision(pattern: re.Pattern[bytes], query: bytes) -> int:
    match = pattern.fullmatch(query)
    if match is None or int(match[1]) > REVISION_MAX:
        raise DriveRefused("a revision is needed")
    return int(match[1])


async def _next_piece(receive: Receive) -> tuple[bytes, bool]:
    message: Message = await receive()
    if message["type"] != "http.request":
        raise _ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _send(send: Send, status: int, answer: _Answer) -> None:
    length = len(answer.body) if answer.length is None else answer.length
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(length).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _send_error(send: Send, status: int, code: str, error: Exception) -> None:
    document: dict[str, object] = {"error": code, "message": str(error)}
    if isinstance(error, StalePgRevision):
        document["seen"] = error.seen
    await _send(send, status, _Answer(json.dumps(document).encode(), b"application/json"))
