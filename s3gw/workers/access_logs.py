"""Access logs on their way into buckets: kept in memory for a while, then written as objects.

Each process writes its own: the lines of a bucket since the last object, once they are so old or so
many. As on S3 the delivery is best effort: lines are lost with a process that crashes, when more
come than the buffer takes, and when their bucket refuses them again and again; what is dropped is
counted (`s3gw_access_log_lines_total`). Objects are written without a request, so that no delivery
is itself logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from s3gw import errors
from s3gw.buckets.access_log import Destination, destination_of
from s3gw.buckets.settings import LOGGING
from s3gw.identities.root import ACCOUNT_ID
from s3gw.kv.interface import EngineError
from s3gw.metadata.records import BucketRecord
from s3gw.metadata.store import OutcomeUnknown
from s3gw.objects.storage import Storage
from s3gw.operations.delivery import LOGGING_SERVICE, Delivery, send
from s3gw.workers.contract import UNCLAIMED, Claim

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
BATCH_BYTES = 4 * 1024 * 1024
ATTEMPTS_MAX = 3
PAUSE_SECONDS = 10.0
FLUSH_SECONDS_MAX = 5.0
BUCKETS_KNOWN_MAX = 1024
UNIQUE_BYTES = 8
TEXT_TYPE = "text/plain"
DELIVERED, DROPPED = "delivered", "dropped"
OUTCOMES = (DELIVERED, DROPPED)


@dataclass(slots=True)
class Batch:
    """Lines of one bucket for one destination; of one day where that matters. `seconds` is the Unix
    time of the first event, `due` (monotonic) when they are to be delivered, and `name` the object
    once that was tried."""

    source: str
    owner: str
    destination: Destination
    seconds: float
    due: float
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    attempts: int = 0
    name: str = ""


class AccessLogs:
    """The logs of one process, and the worker that delivers them."""

    name = "access-logs"
    exclusive = False

    def __init__(
        self,
        storage: Storage,
        *,
        region: str,
        interval_seconds: float,
        buffer_bytes: int,
        growth_refused: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._region = region
        self._interval_seconds = interval_seconds
        self._buffer_bytes = buffer_bytes
        self._growth_refused = growth_refused
        self._sleep = sleep
        self._open: dict[tuple[str, Destination, int], Batch] = {}
        self._full: list[Batch] = []
        self._size = 0
        self._known: OrderedDict[str, BucketRecord] = OrderedDict()
        self.lines = dict.fromkeys(OUTCOMES, 0)

    # What requests do.

    def add(self, bucket_name: str, bucket: BucketRecord, seconds: float, line: bytes) -> None:
        """Keep a line about a request at Unix time `seconds`."""
        document = bucket.documents.get(LOGGING.name)
        destination = destination_of(document) if document is not None else None
        if destination is None:
            return
        self._remember(bucket_name, bucket)
        if self._size + len(line) > self._buffer_bytes:
            self.lines[DROPPED] += 1
            return
        key = (bucket_name, destination, destination.day(seconds))
        batch = self._open.get(key)
        if batch is None:
            due = self._storage.monotonic() + self._interval_seconds
            batch = Batch(bucket_name, bucket.owner, destination, seconds, due)
            self._open[key] = batch
        batch.lines.append(line)
        batch.size += len(line)
        self._size += len(line)
        if batch.size >= BATCH_BYTES:
            batch.due = 0.0
            self._full.append(self._open.pop(key))

    def known(self, bucket_name: str) -> BucketRecord | None:
        """The record of a bucket that was seen to want a log."""
        return self._known.get(bucket_name)

    def forget(self, bucket_name: str) -> None:
        """The bucket wants no log any more."""
        self._known.pop(bucket_name, None)

    def _remember(self, name: str, bucket: BucketRecord) -> None:
        self._known[name] = bucket
        self._known.move_to_end(name)
        if len(self._known) > BUCKETS_KNOWN_MAX:
            self._known.popitem(last=False)

    # The worker.

    async def wait(self) -> None:
        await self._sleep(min(LOOK_SECONDS, self._interval_seconds))

    async def work(self, claim: Claim = UNCLAIMED) -> bool:
        """Deliver one batch that is due; whether there was one."""
        now = self._storage.monotonic()
        for key in [key for key, batch in self._open.items() if batch.due <= now]:
            self._full.append(self._open.pop(key))
        batch = next((batch for batch in self._full if batch.due <= now), None)
        if batch is None:
            return False
        self._full.remove(batch)
        await self._deliver(batch)
        return True

    async def flush(self) -> None:
        """Deliver everything that there is, as far as there is time; for the end of the process."""
        self._full += self._open.values()
        self._open.clear()
        try:
            async with asyncio.timeout(FLUSH_SECONDS_MAX):
                while self._full:
                    await self._deliver(self._full.pop(0), last=True)
        except TimeoutError:
            lost = sum(len(batch.lines) for batch in self._full)
            log.warning("%d lines or more of access logs were not delivered in time", lost)

    async def _deliver(self, batch: Batch, *, last: bool = False) -> None:
        """Write the batch as an object; put it back when that may go better later."""
        destination, storage = batch.destination, self._storage
        if not batch.name:
            # Chosen once: an attempt whose outcome is unknown is made again under the same name.
            when = batch.seconds if destination.by_event else storage.clock_ms() / 1000
            unique = os.urandom(UNIQUE_BYTES).hex().upper()
            batch.name = destination.object_name(
                ACCOUNT_ID, self._region, batch.source, when, unique
            )
        data = b"".join(batch.lines)
        delivery = Delivery(LOGGING_SERVICE, batch.source, batch.owner)
        try:
            if self._growth_refused():
                raise errors.InsufficientStorage("The metadata engine is nearly full.")
            await send(storage, delivery, destination.bucket, batch.name, data, TEXT_TYPE)
        except (errors.S3Error, EngineError, OutcomeUnknown) as error:
            self._failed(batch, error, last=last)
        except Exception as error:
            log.exception("the access log of %s", batch.source)
            self._failed(batch, error, last=last)
        else:
            self._size -= batch.size
            self.lines[DELIVERED] += len(batch.lines)

    def _failed(self, batch: Batch, error: Exception, *, last: bool) -> None:
        batch.attempts += 1
        if batch.attempts < ATTEMPTS_MAX and not last:
            batch.due = self._storage.monotonic() + PAUSE_SECONDS * batch.attempts
            self._full.append(batch)
            return
        told = error.message if isinstance(error, errors.S3Error) else str(error)
        log.warning(
            "%d lines of the access log of %s were dropped: bucket %s: %s",
            len(batch.lines),
            batch.source,
            batch.destination.bucket,
            told or type(error).__name__,
        )
        self._size -= batch.size
        self.lines[DROPPED] += len(batch.lines)
