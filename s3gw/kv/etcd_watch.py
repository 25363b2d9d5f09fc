"""A watch on etcd that outlives connections, members and compactions.

One gRPC stream per watch. `after` is the revision up to which everything was delivered; when a
stream ends, for whatever reason, the next one goes on from there. Rules:

* Every stream but the first begins with `RELIST`, although the events go on without a gap: etcd
  3.4 can lose events when a watch resumes, at a member that was behind among other cases.
* A watch that would start before the last compaction goes on from the revision at which it was
  told so, by the same `RELIST`.
* A response may be a fragment of a revision. Then `after` stays below that revision, so that a
  resumed watch delivers it again rather than half of it.

A response without events that is neither the answer to the creation nor a cancellation is a
progress notice: everything up to its revision was delivered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from aetcd import rpc

from s3gw.kv.checks import prefix_end
from s3gw.kv.etcd_channel import HAS_LEADER, RETRY_PAUSE_SECONDS, Endpoint, Endpoints
from s3gw.kv.interface import Event, EventKind, Key, Unavailable

log = logging.getLogger(__name__)

_DELETE = rpc.Event.EventType.DELETE


class _StreamLost(Exception):
    """The connection, the member or its leader is gone, or does not answer."""


class _Position:
    """What a watch watches and how far it came."""

    def __init__(self, prefix: Key, after: int) -> None:
        self.prefix = prefix
        self.after = after
        self.owes_relist = False

    def request(self) -> Any:
        # etcd reads the range end "\0" as "no end", and has no empty key to begin with.
        create = rpc.WatchCreateRequest(
            key=self.prefix or b"\x00",
            range_end=prefix_end(self.prefix) or b"\x00",
            start_revision=self.after + 1,
            progress_notify=True,
            fragment=True,
        )
        return rpc.WatchRequest(create_request=create)

    def advance(self, response: Any) -> None:
        """Note what was delivered, after its last event was."""
        if response.events:
            last = response.events[-1].kv.mod_revision
            self.after = max(self.after, last - 1 if response.fragment else last)
        elif not response.created:
            self.after = max(self.after, response.header.revision)


async def watch(endpoints: Endpoints, prefix: Key, after: int) -> AsyncIterator[Event]:
    """Events under `prefix` with a revision above `after`, without end. Raises `Unavailable` only
    when the engine is closed."""
    position = _Position(prefix, after)
    while True:
        if endpoints.closed:
            raise Unavailable("the engine is closed")
        endpoint = endpoints.current
        try:
            async with aclosing(_stream(endpoints, endpoint, position)) as events:
                async for event in events:
                    yield event
        except _StreamLost as error:
            log.info("etcd: watch of %r at %s lost: %s", prefix, endpoint.url, error)
            endpoints.leave(endpoint)
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
        position.owes_relist = True


async def _stream(
    endpoints: Endpoints, endpoint: Endpoint, position: _Position
) -> AsyncGenerator[Event, None]:
    """The events of one stream. Ends where history was dropped, with the position moved past it;
    raises `_StreamLost` otherwise."""
    call = endpoint.watch(metadata=HAS_LEADER)
    try:
        async with asyncio.timeout(endpoints.deadline_seconds):
            await call.write(position.request())
            response = await _read(call)
        if position.owes_relist and not response.canceled:
            position.owes_relist = False
            yield Event(EventKind.RELIST, b"", b"", position.after)
        while not response.canceled:
            for event in response.events:
                yield _event(event)
            position.advance(response)
            response = await _read(call)
        if not response.compact_revision:
            raise _StreamLost(response.cancel_reason)
        position.after = max(position.after, response.compact_revision, response.header.revision)
    except rpc.AioRpcError as error:
        raise _StreamLost(error.details()) from error
    except TimeoutError as error:
        raise _StreamLost("no answer") from error
    except asyncio.CancelledError:
        endpoints.raise_if_closed()
        raise
    finally:
        call.cancel()


async def _read(call: Any) -> Any:
    """The next response."""
    response = await call.read()
    if not isinstance(response, rpc.WatchResponse):  # gRPC's end-of-stream object
        raise _StreamLost("the member ended the stream")
    return response


def _event(event: Any) -> Event:
    kv = event.kv
    if event.type == _DELETE:
        return Event(EventKind.DELETE, kv.key, b"", kv.mod_revision)
    return Event(EventKind.PUT, kv.key, kv.value, kv.mod_revision)
