"""The engine on etcd, for clusters.

The contract of `s3gw.kv.interface` is etcd's own model, so most calls are one request:

* `commit` is one transaction. `At` compares the key's MOD revision (0 for an absent key). A
  compare over a range holds when it holds for every key in it, and for an empty range when it
  holds for revision 0: `Empty` is "MOD = 0", `NoneNewer` is "MOD < revision + 1". The failure
  branch reads, keys only, what each guard looks at, in the same transaction: that names the guard.
* `get_many` calls made in one turn of the event loop share one request: a request costs the
  client 100–250 µs of CPU and etcd about as much, a further key in it a few.

Where etcd differs from the contract:

* It answers "space exceeded" for a transaction that crossed the quota while it was being applied,
  **after applying it**. So `NoSpace` ("nothing was written") is raised only when a guarded key
  that the commit writes still has the revision guarded; otherwise the outcome is unknown.
* A commit that only removes absent keys does not raise the revision.
* Once its NOSPACE alarm is raised etcd refuses writes until it is told otherwise, compaction
  alone does not help. `compact` then also defragments the members and ends the alarm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from operator import attrgetter
from typing import Any

from aetcd import rpc

from nodes.tls import TlsCredentials
from s3gw import limits
from s3gw.kv import etcd_watch
from s3gw.kv.checks import check_commit, check_scan, check_ttl
from s3gw.kv.etcd_channel import AnswerTooLarge, Endpoints
from s3gw.kv.interface import (
    At,
    CommitTooLarge,
    Compacted,
    Conflict,
    Empty,
    Event,
    Guard,
    Item,
    Key,
    LeaseLost,
    NoSpace,
    Page,
    Put,
    Reading,
    Space,
    Unavailable,
    Write,
)

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 5.0
QUOTA_BYTES = 2 * limits.GIB
"""etcd's default `--quota-backend-bytes`; etcd 3.4 does not tell its quota."""
RECEIVE_BYTES_MAX = 64 * limits.MIB
MAINTENANCE_SECONDS_MAX = 120.0
FIRST_KEY = b"\x00"
REQUEST_OVERHEAD_BYTES = 64
"""What etcd adds to a transaction before it measures it against --max-request-bytes."""

_EQUAL = rpc.Compare.CompareResult.EQUAL
_LESS = rpc.Compare.CompareResult.LESS
_MOD = rpc.Compare.CompareTarget.MOD

_RANGE = attrgetter("range")
_TXN = attrgetter("txn")


class EtcdKV:
    """An engine over an etcd cluster; see `s3gw.kv.interface.KV` for the contract."""

    range_costs_its_size = True

    def __init__(self, endpoints: Endpoints, *, quota_bytes: int) -> None:
        self._endpoints = endpoints
        self._quota_bytes = quota_bytes
        self._asked: list[tuple[Sequence[Key], asyncio.Future[Reading]]] = []
        self._batches: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        quota_bytes: int = QUOTA_BYTES,
        receive_bytes_max: int = RECEIVE_BYTES_MAX,
        tls: TlsCredentials | None = None,
    ) -> EtcdKV:
        """An engine on the members at `urls` (`http://HOST:PORT`, or https with the certificates
        `tls`), each call of which ends within `deadline_seconds`. Connections are made by the
        first call, so this does not fail when etcd is away. Call it in the process and the loop
        that use the engine."""
        endpoints = Endpoints(
            urls,
            deadline_seconds=deadline_seconds,
            receive_bytes_max=receive_bytes_max,
            tls=tls,
        )
        return cls(endpoints, quota_bytes=quota_bytes)

    @property
    def disturbances(self) -> int:
        return self._endpoints.disturbances

    def reconnect(self) -> None:
        """Use certificates that were replaced. Raises TlsError."""
        self._endpoints.reconnect()

    # Reads

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reading] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._send_asked)
        self._asked.append((keys, future))
        return await future

    def _send_asked(self) -> None:
        """Send the reads of this turn of the loop, as few requests of up to 128 keys as hold
        them; a read that alone has more makes its own."""
        asked, self._asked = self._asked, []
        batch: list[tuple[Sequence[Key], asyncio.Future[Reading]]] = []
        distinct: dict[Key, None] = {}
        for read in asked:
            if batch and len(distinct) + len(read[0]) > limits.COMMIT_OPERATIONS_MAX:
                self._start(batch, distinct)
                batch, distinct = [], {}
            batch.append(read)
            distinct.update(dict.fromkeys(read[0]))
        self._start(batch, distinct)

    def _start(
        self,
        batch: Sequence[tuple[Sequence[Key], asyncio.Future[Reading]]],
        distinct: Collection[Key],
    ) -> None:
        task = asyncio.get_running_loop().create_task(
            self._read_batch(batch, [key for key in distinct if key])  # etcd has no empty key
        )
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _read_batch(
        self,
        batch: Sequence[tuple[Sequence[Key], asyncio.Future[Reading]]],
        distinct: Sequence[Key],
    ) -> None:
        try:
            found, revision = await self._lookup(distinct, 0)
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for keys, future in batch:
            if not future.done():
                future.set_result(Reading([found.get(key) for key in keys], revision))

    async def _lookup(self, keys: Sequence[Key], revision: int) -> tuple[dict[Key, Item], int]:
        """The items of `keys` that exist at `revision` (0: now), and the revision read at."""
        if len(keys) > limits.COMMIT_OPERATIONS_MAX:
            return await self._lookup_halves(keys, revision)
        try:
            if len(keys) > 1:
                ranges = [rpc.RangeRequest(key=key, revision=revision) for key in keys]
                request = rpc.TxnRequest(success=[rpc.RequestOp(request_range=r) for r in ranges])
                answer = await self._endpoints.call(_TXN, request, repeatable=True)
                parts = [response.response_range.kvs for response in answer.responses]
            else:
                request = rpc.RangeRequest(key=keys[0] if keys else FIRST_KEY, revision=revision)
                answer = await self._endpoints.call(_RANGE, request, repeatable=True)
                parts = [answer.kvs]
        except AnswerTooLarge:
            return await self._lookup_halves(keys, revision)
        found = {kv.key: _item(kv) for kvs in parts for kv in kvs}
        return found, revision or answer.header.revision

    async def _lookup_halves(
        self, keys: Sequence[Key], revision: int
    ) -> tuple[dict[Key, Item], int]:
        """As `_lookup`, in two requests, the second at the revision of the first."""
        middle = len(keys) // 2
        if not middle:
            raise Unavailable("one item is over the receive limit")
        first, revision = await self._lookup(keys[:middle], revision)
        second, _ = await self._lookup(keys[middle:], revision)
        return first | second, revision

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        check_scan(limit)
        start = start or FIRST_KEY
        if start >= end:  # etcd gives such ranges other meanings
            return Page([], False, revision or (await self.get_many([])).revision)
        while True:
            request = rpc.RangeRequest(
                key=start, range_end=end, limit=limit, revision=revision, keys_only=keys_only
            )
            try:
                answer = await self._endpoints.call(_RANGE, request, repeatable=True)
            except AnswerTooLarge as error:
                if limit == 1:
                    raise Unavailable("one item is over the receive limit") from error
                limit //= 2  # a shorter page, which says that more follows
                continue
            items = [_item(kv) for kv in answer.kvs]
            return Page(items, answer.more, revision or answer.header.revision)

    # Commits

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        check_commit(guards, writes)
        guards = [g for g in guards if type(g) is At or (g.start or FIRST_KEY) < g.end]  # type: ignore[union-attr]
        request = rpc.TxnRequest(
            compare=[_compare(guard) for guard in guards], success=[_write(w) for w in writes]
        )
        if len(guards) > 1:
            request.failure.extend([_question(guard) for guard in guards])
        _check_size(request)
        try:
            answer = await self._endpoints.call(_TXN, request, repeatable=False)
        except NoSpace as error:
            if await self._is_untouched(guards, writes):
                raise
            raise Unavailable(f"applied or refused: {error}") from error
        if answer.succeeded:
            return int(answer.header.revision)
        raise Conflict(_failed(guards, answer.responses))

    async def _is_untouched(self, guards: Sequence[Guard], writes: Sequence[Write]) -> bool:
        """Whether a refused commit provably wrote nothing: a key that it would have written has
        the revision that it guarded. An absent key proves nothing, it may have come and gone."""
        written = {write.key for write in writes}
        for guard in guards:
            if type(guard) is At and guard.revision and guard.key in written:
                (item,) = (await self.get_many([guard.key])).items
                return item is not None and item.revision == guard.revision
        return False

    # Watches and leases

    def watch(self, prefix: Key, *, after_revision: int) -> AsyncIterator[Event]:
        return etcd_watch.watch(self._endpoints, prefix, after_revision)

    async def grant_lease(self, ttl_seconds: int) -> int:
        check_ttl(ttl_seconds)
        # Repeatable: a lease granted twice is one nobody renews, and ends by itself.
        request = rpc.LeaseGrantRequest(TTL=ttl_seconds)
        answer = await self._endpoints.call(attrgetter("grant"), request, repeatable=True)
        return int(answer.ID)

    async def renew_lease(self, lease: int) -> None:
        request = rpc.LeaseKeepAliveRequest(ID=lease)
        answer = await self._endpoints.call(attrgetter("renew"), request, repeatable=True)
        if answer.TTL <= 0:
            raise LeaseLost(f"lease {lease}")

    async def revoke_lease(self, lease: int) -> None:
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            await self._endpoints.call(attrgetter("revoke"), request, repeatable=True)
        except LeaseLost:
            log.debug("etcd: lease %d was gone before its revocation", lease)

    # Space

    async def compact(self, revision: int) -> None:
        alarms = await self._space_alarms()
        request = rpc.CompactionRequest(revision=revision, physical=bool(alarms))
        try:
            await self._endpoints.call(
                attrgetter("compact"),
                request,
                repeatable=True,
                deadline_seconds=MAINTENANCE_SECONDS_MAX if alarms else None,
            )
        except Compacted:
            log.debug("etcd: history before %d was dropped already", revision)
        if alarms:
            await self._end_alarms(alarms)

    async def _space_alarms(self) -> list[Any]:
        request = rpc.AlarmRequest(
            action=rpc.AlarmRequest.AlarmAction.GET, alarm=rpc.AlarmType.NOSPACE
        )
        answer = await self._endpoints.call(attrgetter("alarm"), request, repeatable=True)
        return list(answer.alarms)

    async def _end_alarms(self, alarms: Sequence[Any]) -> None:
        """Give the space that compaction freed back to the members' files, which is what etcd
        measures, and let writes go on. A member that is away does not hold up the others: should
        its file still be full, it raises its alarm again."""
        for endpoint in self._endpoints.all:
            try:
                await endpoint.defragment(rpc.DefragmentRequest(), timeout=MAINTENANCE_SECONDS_MAX)
            except rpc.AioRpcError as error:
                log.warning("etcd: %s was not defragmented: %s", endpoint.url, error.details())
            except asyncio.CancelledError:
                self._endpoints.raise_if_closed()
                raise
        for alarm in alarms:
            request = rpc.AlarmRequest(
                action=rpc.AlarmRequest.AlarmAction.DEACTIVATE,
                memberID=alarm.memberID,
                alarm=alarm.alarm,
            )
            await self._endpoints.call(attrgetter("alarm"), request, repeatable=True)

    async def space(self) -> Space:
        """Bytes in use (free pages of etcd's file are used again), and all of the quota while
        the alarm stops writes."""
        answer = await self._endpoints.call(
            attrgetter("status"), rpc.StatusRequest(), repeatable=True
        )
        used = int(answer.dbSizeInUse)
        if any("NOSPACE" in error for error in answer.errors):
            used = max(used, self._quota_bytes)
        return Space(used, self._quota_bytes)

    async def close(self) -> None:
        await self._endpoints.close()


def _item(kv: Any) -> Item:
    return Item(kv.key, kv.value, kv.mod_revision, kv.lease)


def _write(write: Write) -> Any:
    if type(write) is Put:
        put = rpc.PutRequest(key=write.key, value=write.value, lease=write.lease)
        return rpc.RequestOp(request_put=put)
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=write.key))


def _compare(guard: Guard) -> Any:
    if type(guard) is At:
        return rpc.Compare(result=_EQUAL, target=_MOD, key=guard.key, mod_revision=guard.revision)
    assert not isinstance(guard, At)
    key, end = guard.start or FIRST_KEY, guard.end
    if type(guard) is Empty:
        return rpc.Compare(result=_EQUAL, target=_MOD, key=key, range_end=end, mod_revision=0)
    assert not isinstance(guard, Empty)
    return rpc.Compare(
        result=_LESS, target=_MOD, key=key, range_end=end, mod_revision=guard.revision + 1
    )


def _question(guard: Guard) -> Any:
    """What to read to learn whether the guard held: the key itself, or one key that breaks it."""
    if type(guard) is At:
        asked = rpc.RangeRequest(key=guard.key, keys_only=True)
    else:
        assert not isinstance(guard, At)
        asked = rpc.RangeRequest(
            key=guard.start or FIRST_KEY,
            range_end=guard.end,
            limit=1,
            keys_only=True,
            min_mod_revision=0 if isinstance(guard, Empty) else guard.revision + 1,
        )
    return rpc.RequestOp(request_range=asked)


def _failed(guards: Sequence[Guard], responses: Sequence[Any]) -> Guard | None:
    """The first guard that did not hold, by the answers to its question; None if not asked."""
    if len(guards) == 1:
        return guards[0]
    for guard, response in zip(guards, responses, strict=False):
        kvs = response.response_range.kvs
        if type(guard) is At:
            if (kvs[0].mod_revision if kvs else 0) != guard.revision:
                return guard
        elif kvs:
            return guard
    return None


def _check_size(request: Any) -> None:
    """Keep the request within etcd's default --max-request-bytes: the questions go first."""
    allowed = limits.COMMIT_BYTES_MAX - REQUEST_OVERHEAD_BYTES
    if request.ByteSize() <= allowed:
        return
    request.ClearField("failure")
    if (size := request.ByteSize()) > allowed:
        raise CommitTooLarge(f"{size} bytes as sent, at most {allowed}")
