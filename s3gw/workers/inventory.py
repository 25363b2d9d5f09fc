"""Inventory reports: made when they are due, each of the metadata at one revision.

Whoever holds the worker's lock makes one report after the other. A report begins with a commit that
writes its record (`inventory/<bucket>/<id>`) and a pin; the revision of that commit is the one that
the report shows, and the pin has compaction keep the history from there on, up to a bound. Pages of
records go to a process that makes files of them (s3gw.workers.inventory_encoder), and these as they
come into the bucket that the configuration names, so that nothing is held in memory.

The record says what is written: the files that are there, and the one in the making. The manifest,
which is what clients look for, is written when all files are there, and the manifest's checksum
last. A report whose process died is begun again, of a newer revision, and its files are removed; if
all of them were there (`publishing`), only manifest and checksum are written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import sys
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Unpack

import msgspec

from nodes.protocol import Buffer
from s3gw import errors
from s3gw.buckets.inventory import PARQUET, DataFile, Inventory, Layout, read_inventory
from s3gw.kv.interface import Compacted, Conflict, Item
from s3gw.metadata import keys
from s3gw.metadata.inventory_records import InventoryFile, InventoryRun, Pin
from s3gw.metadata.records import BucketRecord, decode, encode
from s3gw.metadata.store import Transaction
from s3gw.objects import inventories
from s3gw.objects.inventories import (
    ASKED,
    DONE,
    FAILED,
    PUBLISHING,
    UNDER_WAY,
    WRITING,
    Job,
)
from s3gw.objects.keyring.ring import Wanted
from s3gw.objects.storage import Storage
from s3gw.operations.delivery import INVENTORY_SERVICE, Delivery, Sent, deliver, send, take_back
from s3gw.workers.contract import (
    SHARED_TROUBLE,
    UNCLAIMED,
    Claim,
    PeriodicWorker,
    Timing,
    commit,
)
from s3gw.workers.inventory_encoder import Header, Omitted, Rows, frame
from s3gw.workers.inventory_rows import schema_of
from s3gw.workers.inventory_walk import ROWS_PER_PAGE, pages

log = logging.getLogger(__name__)

NAME = "inventory"
ROWS_PER_FILE = 1_000_000
RETRY_MS = 3600 * 1000
PIECE_BYTES = 256 * 1024
ERROR_CHARACTERS_MAX = 500
ENCODER = "s3gw.workers.inventory_encoder"
CONTENT_TYPES = {PARQUET: "application/vnd.apache.parquet"}
GZIP_TYPE, JSON_TYPE, TEXT_TYPE = "application/gzip", "application/json", "text/plain"


class EncoderFailed(Exception):
    """The process that makes a file has failed; the message says how."""


class Stopped(Exception):
    """The process ends: the report is left as it is."""


class InventoryWorker(PeriodicWorker):
    """The worker. One unit is one report."""

    name = NAME
    interval_seconds = 10.0

    def __init__(
        self,
        storage: Storage,
        *,
        rows_per_file: int = ROWS_PER_FILE,
        growth_refused: Callable[[], bool] = lambda: False,
        **timing: Unpack[Timing],
    ) -> None:
        super().__init__(storage, **timing)
        self._rows_per_file = rows_per_file
        self._growth_refused = growth_refused
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    async def run_once(self, claim: Claim = UNCLAIMED) -> int:
        """All reports that are due; how many that were."""
        made = 0
        while await self.work(claim):
            made += 1
        return made

    async def work(self, claim: Claim = UNCLAIMED) -> bool:
        """The report that is due for longest; False when there is none, or no room for one."""
        storage = self._storage
        if self._growth_refused():
            return False
        found, forsaken = await inventories.all_jobs(storage.store.kv)
        for item in forsaken:
            try:
                await self._forget(claim, item)
            except SHARED_TROUBLE:
                raise
            except Exception:
                log.exception("the record %r of a report stays", item.key)
        now_ms = storage.clock_ms()
        times = [(inventories.due_ms(job, now_ms), job) for job in found]
        due = [(when, job) for when, job in times if 0 <= when <= now_ms]
        if not due or self._stopping:
            return False
        _, job = min(due, key=lambda each: (each[0], each[1].key))
        try:
            await _Report(storage, claim, job, self._rows_per_file, self._is_stopping).make()
        except Stopped:
            log.info("inventory %s of bucket %s is left unfinished", job.inventory.id, job.bucket)
        except Conflict:
            # Asked for a moment ago, or another process makes it: its record says which.
            log.info("inventory %s of bucket %s was begun elsewhere", job.inventory.id, job.bucket)
        return not self._stopping

    def _is_stopping(self) -> bool:
        return self._stopping

    async def _forget(self, claim: Claim, item: Item) -> None:
        """Let go of the record of a report whose configuration is gone."""
        await remove_files(self._storage, decode(InventoryRun, item.value))
        tx = Transaction()
        tx.expect(item.key, item.revision)
        tx.delete(item.key)
        with contextlib.suppress(Conflict):  # it was asked for again
            await commit(self._storage.store, claim, tx)


class _Report:
    """One report on its way."""

    def __init__(
        self,
        storage: Storage,
        claim: Claim,
        job: Job,
        rows_per_file: int,
        stopping: Callable[[], bool],
    ) -> None:
        self._storage = storage
        self._claim = claim
        self._job = job
        self._rows_per_file = rows_per_file
        self._stopping = stopping
        self._run = job.run.record or InventoryRun(b"", ASKED)
        self._revision = job.run.revision
        self._inventory = job.inventory
        self._bucket: BucketRecord | None = None
        self._omitted = Omitted()

    async def make(self) -> None:
        """Make the report, or note why it cannot be made. Raises Stopped, EngineError,
        OutcomeUnknown, ClaimLost; then it is made again later."""
        try:
            if self._run.state == PUBLISHING:
                self._inventory = read_inventory(self._run.document)
            else:
                await self._write()
            await self._publish()
        except (errors.S3Error, Compacted, EncoderFailed) as error:
            await self._fail(error)
        except (*SHARED_TROUBLE, Conflict, Stopped):
            raise
        except Exception as error:
            # One report, always the one that is due for longest, must not hold up all others.
            log.exception("inventory %s of bucket %s", self._job.inventory.id, self._job.bucket)
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        told = error.message if isinstance(error, errors.S3Error) else str(error)
        note = (told or type(error).__name__)[:ERROR_CHARACTERS_MAX]
        log.warning(
            "inventory %s of bucket %s failed: %s", self._job.inventory.id, self._job.bucket, note
        )
        await remove_files(self._storage, self._run)
        now_ms = self._storage.clock_ms()
        started_ms = self._run.started_ms or now_ms
        await self._save(
            msgspec.structs.replace(
                self._run,
                state=FAILED,
                started_ms=started_ms,
                ended_ms=now_ms,
                retry_ms=now_ms + RETRY_MS,
                note=note,
                files=(),
                pending="",
            )
        )

    # The files.

    async def _write(self) -> None:
        """Begin, and write all files."""
        await remove_files(self._storage, self._run)
        await self._begin()
        inventory, job = self._inventory, self._job
        found = pages(
            self._storage.store,
            job.bucket,
            inventory.prefix,
            self._run.revision,
            every_version=inventory.every_version,
            rows_per_page=min(ROWS_PER_PAGE, self._rows_per_file),
        )
        async with aclosing(_Ahead(found)) as rows:
            while await rows.more():
                await self._write_file(rows)
        await self._save(msgspec.structs.replace(self._run, state=PUBLISHING, pending=""))

    async def _begin(self) -> None:
        """The commit whose revision the report shows."""
        storage, job = self._storage, self._job
        self._run = msgspec.structs.replace(self._run, started_ms=storage.clock_ms())
        found = await storage.store.get(BucketRecord, keys.bucket(job.bucket))
        if found.record is None:
            raise errors.NoSuchBucket(BucketName=job.bucket)
        self._bucket = found.record
        await self._save(
            msgspec.structs.replace(
                self._run,
                bucket_id=found.record.bucket_id,
                state=WRITING,
                document=job.document,
                revision=0,
                rows=0,
                files=(),
                pending="",
                ended_ms=0,
                retry_ms=0,
                note="",
            )
        )
        self._run = msgspec.structs.replace(self._run, revision=self._revision)

    async def _write_file(self, rows: _Ahead) -> None:
        """Write the next file."""
        assert self._bucket is not None
        inventory = self._inventory
        name = str(uuid.uuid4())
        key = Layout(self._job.bucket, inventory, self._run.started_ms).data(name)
        await self._save(msgspec.structs.replace(self._run, pending=key))
        header = Header(
            self._job.bucket,
            encode(self._bucket),
            inventory.columns,
            inventory.format == PARQUET,
            self._storage.lifecycle_day_ms,
        )
        before = rows.taken
        limit = before + self._rows_per_file

        async def taken() -> AsyncIterator[Rows]:
            while rows.taken < limit and await rows.more():
                if self._stopping():
                    raise Stopped
                yield rows.take()

        async with aclosing(encoded(header, taken(), self._omitted)) as pieces:
            sent = Sent(pieces)
            kind = CONTENT_TYPES.get(inventory.format, GZIP_TYPE)
            await deliver(self._storage, self._delivery(), inventory.bucket, key, sent, kind)
        self._run = msgspec.structs.replace(
            self._run,
            rows=rows.taken - self._omitted.count,
            files=(*self._run.files, InventoryFile(key, sent.size, sent.md5)),
            pending="",
            note=self._note(),
        )

    def _note(self) -> str:
        """What the report lacks; "" for nothing."""
        omitted = self._omitted
        if not omitted.count:
            return ""
        lacks = f"versions that cannot be read are left out ({omitted.count}), the first of key "
        return (lacks + omitted.first)[:ERROR_CHARACTERS_MAX]

    # The manifest.

    async def _publish(self) -> None:
        inventory, run = self._inventory, self._run
        layout = Layout(self._job.bucket, inventory, run.started_ms)
        files = [DataFile(file.key, file.size, file.md5) for file in run.files]
        schema = schema_of(inventory.columns, parquet=inventory.format == PARQUET)
        manifest = layout.manifest_text(files, schema)
        checksum = hashlib.md5(manifest, usedforsecurity=False).hexdigest().encode()
        if self._bucket is None:
            found = await self._storage.store.get(BucketRecord, keys.bucket(self._job.bucket))
            self._bucket = found.record
        await self._send(layout.symlink, layout.symlink_text(files), TEXT_TYPE)
        await self._send(layout.manifest, manifest, JSON_TYPE)
        await self._send(layout.checksum, checksum, TEXT_TYPE)
        now_ms = self._storage.clock_ms()
        await self._save(
            msgspec.structs.replace(
                run, state=DONE, ended_ms=now_ms, done_ms=now_ms, manifest=layout.manifest
            )
        )

    async def _send(self, key: str, data: bytes, kind: str) -> None:
        await send(self._storage, self._delivery(), self._inventory.bucket, key, data, kind)

    def _delivery(self) -> Delivery:
        owner = self._bucket.owner if self._bucket is not None else ""
        return Delivery(INVENTORY_SERVICE, self._job.bucket, owner, wanted_of(self._inventory))

    async def _save(self, run: InventoryRun) -> None:
        """Write the record, which must be as this process wrote it; and the pin while files are
        written, which is gone when they are there."""
        tx = Transaction()
        tx.expect(self._job.key, self._revision)
        tx.put(self._job.key, run)
        tx.witness = self._job.key
        pin = keys.pin(NAME)
        if run.state != WRITING:
            tx.delete(pin)
        elif not run.revision:  # it begins
            tx.put(pin, Pin(run.started_ms), lease=self._storage.lease())
        self._revision = await commit(self._storage.store, self._claim, tx)
        self._run = run


async def remove_files(storage: Storage, run: InventoryRun) -> None:
    """Remove what a report has written that was not made to its end. What cannot be removed stays:
    no manifest names it."""
    if run.state not in UNDER_WAY:
        return
    bucket = read_inventory(run.document).bucket
    pending = [run.pending] if run.pending else []
    for key in [*(file.key for file in run.files), *pending]:
        try:
            await take_back(storage, bucket, key)
        except SHARED_TROUBLE:
            raise
        except errors.S3Error as error:
            log.warning("%s/%s of an inventory stays: %s", bucket, key, error.message)
        except Exception:
            log.exception("%s/%s of an inventory stays", bucket, key)


def wanted_of(inventory: Inventory) -> Wanted | None:
    """How the configuration wants its reports encrypted; None for nothing special."""
    if not inventory.algorithm:
        return None
    return Wanted(inventory.algorithm, inventory.key_name)


class _Ahead:
    """Pages, of which the next one is known before it is taken. `taken` counts rows."""

    def __init__(self, pages: AsyncGenerator[Rows, None]) -> None:
        self._pages = pages
        self._next: Rows | None = None
        self.taken = 0

    async def more(self) -> bool:
        if self._next is None:
            self._next = await anext(self._pages, None)
        return self._next is not None

    def take(self) -> Rows:
        page, self._next = self._next, None
        assert page is not None
        self.taken += len(page)
        return page

    async def aclose(self) -> None:
        await self._pages.aclose()


async def encoded(
    header: Header, rows: AsyncIterator[Rows], omitted: Omitted
) -> AsyncGenerator[Buffer, None]:
    """The file that the process makes of the rows, piece by piece; behind the last one `omitted`
    has what it lacks. Raises EncoderFailed, and what `rows` raises; no process is left behind."""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        ENCODER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,  # what ends this process from a terminal is not for that one
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    feeding = asyncio.create_task(_feed(process.stdin, header, rows))
    told = asyncio.create_task(process.stderr.read())
    try:
        while piece := await process.stdout.read(PIECE_BYTES):
            yield piece
        code = await process.wait()
        await feeding
        text = (await told).decode(errors="replace").strip()
        if code:
            raise EncoderFailed(text.splitlines()[-1] if text else f"it ended with {code}")
        for line in text.splitlines():
            _learn(line, header.bucket, omitted)
    finally:
        feeding.cancel()
        told.cancel()
        if process.returncode is None:
            process.kill()
        await asyncio.gather(feeding, told, process.wait(), return_exceptions=True)


def _learn(line: str, bucket: str, omitted: Omitted) -> None:
    """What the process says at its end about what it left out. Libraries write other lines."""
    try:
        more = msgspec.json.decode(line, type=Omitted)
    except msgspec.DecodeError:
        log.warning("a report of bucket %s: %s", bucket, line)
        return
    omitted.add(more.count, more.first)
    log.error("%s records under bucket %s cannot be read", more.count, bucket)


async def _feed(pipe: asyncio.StreamWriter, header: Header, rows: AsyncIterator[Rows]) -> None:
    """Send everything, and the end mark only behind everything. A process that is gone says why
    itself."""
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            pipe.write(frame(header))
            async for page in rows:
                pipe.write(frame(page))
                await pipe.drain()
            pipe.write(frame(None))
            await pipe.drain()
    finally:
        pipe.close()
