"""Simulated clients: few keys, many hands, every answer written down in one history.

The operations are those of `s3gw.objects` as the S3 operations call them; what a client is told is
the S3 error that they would answer with. The rules of the history are those of the tests on real
processes (tests.faults.load).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from s3gw import errors
from s3gw.metadata.records import Description, ObjectRecord
from s3gw.objects import publish
from s3gw.objects.complete import Completion, PartChoice, complete_upload
from s3gw.objects.copy import Copying, copy_object
from s3gw.objects.delete import delete_object
from s3gw.objects.listing import objects_of, page
from s3gw.objects.multipart import abort_upload, create_upload, find_upload, upload_part
from s3gw.objects.publish import no_check
from s3gw.objects.reading import read_version
from s3gw.objects.storage import Storage
from s3gw.objects.write import put_object
from s3gw.operations.present import current_of
from s3gw.operations.trouble import translate
from s3gw.wire.conditions import WriteConditions
from tests.faults.history import (
    UNKNOWN,
    History,
    Kind,
    Operation,
    State,
    body_of,
    etag_of,
    etag_of_parts,
    trouble_with,
)
from tests.simulation.gateways import SimulatedGateway
from tests.simulation.machines import Lost, Unreachable
from tests.simulation.trace import Trace
from tests.stores.memory_store import Bytes

BUCKET = "bucket"
OWNER = "owner"
SIZES = (0, 100, 900, 30_000, 70_000, 150_000)
SIZE_WEIGHTS = (1, 4, 4, 4, 3, 2)
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 1.0
MIX = {
    "put": 6,
    "get": 8,
    "slow_get": 1,
    "head": 2,
    "list": 2,
    "delete": 2,
    "create": 2,
    "replace": 2,
    "copy": 2,
    "multipart": 2,
}
UNAVAILABLE = frozenset({503, 507})


@dataclass(frozen=True, slots=True)
class Answer:
    """A status (0: none), what came with it, and when."""

    status: int
    value: Any
    invoked: float
    returned: float


class Client:
    """One client; `step` is one operation with one of the gateways."""

    def __init__(
        self,
        name: str,
        gateways: Sequence[SimulatedGateway],
        keys: Sequence[str],
        history: History,
        chance: Random,
        trace: Trace,
    ) -> None:
        self.name = name
        self._gateways = gateways
        self._keys = keys
        self._history = history
        self._chance = chance
        self._trace = trace
        self._sequence = 0
        self._seen: dict[str, str] = {}

    async def run(self, until: float) -> None:
        clock = asyncio.get_running_loop().time
        kinds, weights = list(MIX), list(MIX.values())
        while clock() < until:
            await self.step(self._chance.choices(kinds, weights)[0])
            await asyncio.sleep(self._chance.expovariate(1 / PAUSE_SECONDS))

    async def step(self, kind: str) -> bool:
        """One operation; whether it was answered."""
        key = self._chance.choice(self._keys)
        method: Callable[[str], Awaitable[bool]] = getattr(self, kind)
        return await method(key)

    async def _ask(
        self,
        name: str,
        key: str,
        work: Callable[[Storage], Awaitable[Any]],
        allowed: Sequence[int] = (),
    ) -> Answer:
        gateway = self._chance.choice(self._gateways)
        clock = asyncio.get_running_loop().time
        invoked, status, value = clock(), 200, None
        try:
            value = await gateway.ask(self.name, work, seconds=PATIENCE_SECONDS)
        except (Lost, Unreachable):
            status = 0
        except errors.RequestTimeout:
            status = 503  # it was never tried to publish it, or before in vain
        except Exception as error:
            status = translate(error).status
            if status not in UNAVAILABLE and status not in allowed:
                self._history.complain(f"{name} {key}: {status} {type(error).__name__} {error}")
                status = 0
        self._trace.note(self.name, gateway.name, name, key, status)
        return Answer(status, value, invoked, clock())

    def _note(
        self, key: str, kind: Kind, etag: State, answer: Answer, *, expected: State = None
    ) -> None:
        known = answer.status not in UNAVAILABLE and answer.status != 0
        returned = answer.returned if known else UNKNOWN
        if known or kind in (Kind.WRITE, Kind.CREATE, Kind.REPLACE):
            operation = Operation(key, kind, etag, answer.invoked, returned, expected, self.name)
            self._history.add(operation)

    def _body(self, key: str) -> bytes:
        self._sequence += 1
        size = self._chance.choices(SIZES, SIZE_WEIGHTS)[0]
        return body_of(key, self.name, self._sequence, size)

    def _written(self, key: str, kind: Kind, etag: str, answer: Answer, expected: State) -> bool:
        if answer.status == 200:
            if answer.value.etag != etag:
                self._history.complain(f"{key}: ETag {answer.value.etag}, not {etag}")
            self._seen[key] = etag
        if answer.status == 412:
            refusal = Kind.EXISTS if kind is Kind.CREATE else Kind.DIFFERS
            self._note(key, refusal, None, answer, expected=expected)
        elif answer.status == 404:
            self._note(key, Kind.READ, None, answer)
        elif answer.status != 409:
            self._note(key, kind, etag, answer, expected=expected)
        return answer.status in (200, 404, 409, 412)

    async def _put(self, key: str, kind: Kind, expected: State) -> bool:
        body = self._body(key)
        conditions = WriteConditions(if_match=expected, if_absent=kind is Kind.CREATE)

        def check(target: publish.Target) -> None:
            conditions.check(current_of(target.shown))

        async def work(storage: Storage) -> ObjectRecord:
            target = await publish.read_target(storage, BUCKET, key)
            return await put_object(storage, target, OWNER, Description(), Bytes(body), check)

        answer = await self._ask(kind, key, work, (404, 409, 412) if conditions else (409,))
        return self._written(key, kind, etag_of(body), answer, expected)

    async def put(self, key: str) -> bool:
        return await self._put(key, Kind.WRITE, None)

    async def create(self, key: str) -> bool:
        return await self._put(key, Kind.CREATE, None)

    async def replace(self, key: str) -> bool:
        expected = self._seen.get(key)
        if expected is None:
            return await self.head(key)
        return await self._put(key, Kind.REPLACE, expected)

    async def copy(self, key: str) -> bool:
        """From a source of its own, written once."""
        body = self._body(key)
        source = f"source-of-{self.name}-{self._sequence}"

        async def put_source(storage: Storage) -> ObjectRecord:
            target = await publish.read_target(storage, BUCKET, source)
            return await put_object(storage, target, OWNER, Description(), Bytes(body), no_check)

        async def work(storage: Storage) -> ObjectRecord:
            found = await publish.read_target(storage, BUCKET, source)
            if found.visible is None:
                raise errors.NoSuchKey(Key=source)
            target = await publish.read_target(storage, BUCKET, key)
            copying = Copying(OWNER, lambda r: r.description, "", no_check, lambda r: None)
            return await copy_object(storage, found, target, copying)

        if (await self._ask("put source", source, put_source, (409,))).status != 200:
            return False
        answer = await self._ask("copy", key, work, (409,))
        return self._written(key, Kind.WRITE, etag_of(body), answer, None)

    async def multipart(self, key: str) -> bool:
        body = self._body(key)
        cuts = sorted(self._chance.sample(range(1, len(body)), self._chance.randint(0, 2)))
        bounds = [0, *cuts, len(body)]
        parts = [body[a:b] for a, b in pairwise(bounds)]
        created = await self._ask("create upload", key, lambda s: _start(s, key))
        if created.status != 200:
            return False
        upload_id = created.value
        for number, part in enumerate(parts, 1):
            sent = await self._ask(
                "part", key, _part_work(key, upload_id, number, part), (404, 409)
            )
            if sent.status != 200:
                if self._chance.random() < 0.5:
                    await self._ask("abort", key, _abort_work(key, upload_id), (404, 409))
                return False
        answer = await self._ask("complete", key, _complete_work(key, upload_id, parts), (404, 409))
        if answer.status == 404:
            self._history.complain(f"{key}: an upload that nobody ended is gone")
        return self._written(key, Kind.WRITE, etag_of_parts(parts), answer, None)

    async def delete(self, key: str) -> bool:
        async def work(storage: Storage) -> None:
            target = await publish.read_target(storage, BUCKET, key)
            await delete_object(storage, target, no_check)

        answer = await self._ask("delete", key, work, (409,))
        if answer.status != 409:
            self._note(key, Kind.WRITE, None, answer)
        return answer.status == 200

    async def head(self, key: str) -> bool:
        async def work(storage: Storage) -> str | None:
            found = (await publish.read_target(storage, BUCKET, key)).visible
            return found.etag if found is not None else None

        answer = await self._ask("head", key, work)
        return self._read(key, answer, answer.value)

    async def get(self, key: str, *, pause: float = 0.0) -> bool:
        async def work(storage: Storage) -> tuple[str, bytes] | None:
            target = await publish.read_target(storage, BUCKET, key)
            if target.visible is None:
                return None
            pieces = []
            stream = read_version(storage, target, target.visible, 0, target.visible.size)
            async for buffers in stream:
                pieces += [bytes(buffer) for buffer in buffers]
                if pause:
                    await asyncio.sleep(pause)
            return target.visible.etag, b"".join(pieces)

        answer = await self._ask("get", key, work)
        if answer.status != 200 or answer.value is None:
            return self._read(key, answer, None)
        etag, body = answer.value
        trouble = trouble_with(body, key)
        if trouble or ("-" not in etag and etag != etag_of(body)):
            self._history.complain(f"{key} with ETag {etag}: {trouble or 'another'}")
        return self._read(key, answer, etag)

    async def slow_get(self, key: str) -> bool:
        """By a client that takes its time between two pieces."""
        return await self.get(key, pause=self._chance.uniform(0, 6))

    def _read(self, key: str, answer: Answer, etag: str | None) -> bool:
        if answer.status == 200:
            if etag is not None:
                self._seen[key] = etag
            self._note(key, Kind.READ, etag, answer)
        return answer.status == 200

    async def list(self, key: str) -> bool:
        """One page is a read of each key: of its ETag, or that it is absent."""

        async def work(storage: Storage) -> dict[str, str]:
            listing = await page(
                storage, objects_of(BUCKET), prefix="", delimiter="", after="", most=1000
            )
            return {entry.key: entry.record.etag for entry in listing.entries}

        answer = await self._ask("list", "", work)
        if answer.status == 200:
            for each in self._keys:
                self._note(each, Kind.READ, answer.value.get(each), answer)
        return answer.status == 200


async def _start(storage: Storage, key: str) -> bytes:
    return await create_upload(
        storage, BUCKET, key, OWNER, Description(), checksum_algorithm="", checksum_type=""
    )


def _part_work(
    key: str, upload_id: bytes, number: int, data: bytes
) -> Callable[[Storage], Awaitable[object]]:
    async def work(storage: Storage) -> object:
        upload = await find_upload(storage, BUCKET, key, upload_id, number)
        return await upload_part(storage, upload, number, Bytes(data))

    return work


def _abort_work(key: str, upload_id: bytes) -> Callable[[Storage], Awaitable[object]]:
    async def work(storage: Storage) -> None:
        await abort_upload(storage, await find_upload(storage, BUCKET, key, upload_id))

    return work


def _complete_work(
    key: str, upload_id: bytes, parts: Sequence[bytes]
) -> Callable[[Storage], Awaitable[object]]:
    choices = [PartChoice(number, etag_of(part), {}) for number, part in enumerate(parts, 1)]

    async def work(storage: Storage) -> object:
        completion = Completion(choices, no_check, {}, "", -1)
        return await complete_upload(storage, BUCKET, key, upload_id, completion)

    return work
