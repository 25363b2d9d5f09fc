"""The etcd engine when one server, or the way to it, fails."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest
from grpc import StatusCode

from s3gw import limits
from s3gw.kv.etcd import EtcdKV
from s3gw.kv.etcd_channel import AnswerTooLarge, RequestRefused, meaning
from s3gw.kv.interface import (
    At,
    CommitTooLarge,
    Compacted,
    Conflict,
    Delete,
    Event,
    EventKind,
    Guard,
    LeaseLost,
    NoSpace,
    Put,
    Unavailable,
)
from tests.kv import etcd_server
from tests.kv.etcd_proxy import CuttingProxy
from tests.kv.etcd_server import EtcdFailed, EtcdServer, free_port

SLACK_SECONDS = 1.0
EVENT_SECONDS_MAX = 20
QUOTA_BYTES = 8 * limits.MIB


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer(name="faults") as running:
        yield running


@pytest.fixture(autouse=True)
def _engines_start_at_their_first_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda count: 0)


@asynccontextmanager
async def connected(*urls: str, **options: Any) -> AsyncIterator[EtcdKV]:
    engine = await EtcdKV.connect(urls, **options)
    try:
        yield engine
    finally:
        await engine.close()


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    async with asyncio.timeout(EVENT_SECONDS_MAX):
        return [await anext(events) for _ in range(count)]


def watching(engine: EtcdKV, prefix: bytes, after: int) -> aclosing[Any]:
    return aclosing(cast("Any", engine.watch(prefix, after_revision=after)))


async def value_of(engine: EtcdKV, key: bytes) -> bytes | None:
    (item,) = (await engine.get_many([key])).items
    return item.value if item else None


# What a status means


@pytest.mark.parametrize(
    ("code", "details", "error", "unsent"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: …", Unavailable, True),
        ("UNAVAILABLE", "etcdserver: no leader", Unavailable, True),
        ("UNKNOWN", "raft proposal dropped", Unavailable, True),
        ("UNAVAILABLE", "etcdserver: request timed out", Unavailable, False),
        ("UNAVAILABLE", "etcdserver: leader changed", Unavailable, False),
        ("UNAVAILABLE", "Socket closed", Unavailable, False),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Unavailable, False),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Unavailable, False),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", NoSpace, False),
        (
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision has been compacted",
            Compacted,
            False,
        ),
        ("NOT_FOUND", "etcdserver: requested lease not found", LeaseLost, False),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", CommitTooLarge, False),
        (
            "INVALID_ARGUMENT",
            "etcdserver: too many operations in txn request",
            CommitTooLarge,
            False,
        ),
        ("INVALID_ARGUMENT", "etcdserver: key is not provided", RequestRefused, False),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max", AnswerTooLarge, False),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max", CommitTooLarge, False),
        ("UNKNOWN", "anything", Unavailable, False),
    ],
)
def test_a_status_has_one_meaning(
    code: str, details: str, error: type[Exception], unsent: bool
) -> None:
    found = meaning(StatusCode[code], details)
    assert (found.error, found.unsent) == (error, unsent)


@pytest.mark.parametrize("url", ["127.0.0.1:2379", "ftp://host:1", "http://", "http://h:1/path"])
async def test_an_endpoint_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an etcd endpoint"):
        await EtcdKV.connect([url])


async def test_an_endpoint_over_tls_wants_certificates() -> None:
    with pytest.raises(ValueError, match="needs certificates"):
        await EtcdKV.connect(["https://host:1"])


def test_a_missing_etcd_is_a_failure_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_server, "ETCD", "/nowhere/etcd")
    with pytest.raises(EtcdFailed, match="apt-get install etcd-server"):
        EtcdServer()


# Reads share requests, and answers have a size


async def test_reads_of_one_turn_share_a_request(
    server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(server.url) as engine:
        for first in range(0, 300, 100):
            await engine.commit(
                [], [Put(b"m/%d" % n, b"%d" % n) for n in range(first, first + 100)]
            )
        sent: list[str] = []

        def count(name: str) -> None:
            endpoint = engine._endpoints.current
            call = getattr(endpoint, name)

            def counted(request: object, **options: object) -> object:
                sent.append(name)
                return call(request, **options)

            monkeypatch.setattr(endpoint, name, counted)

        count("range")
        count("txn")
        readings = await asyncio.gather(
            *(engine.get_many([b"m/%d" % n, b"m/%d" % (n // 2)]) for n in range(300))
        )
        values = [[item.value if item else None for item in reading.items] for reading in readings]
        assert values == [[b"%d" % n, b"%d" % (n // 2)] for n in range(300)]
        assert len(sent) <= 5
        assert (await engine.get_many([b"", b"m/1"])).items[0] is None
        many = await engine.get_many([b"m/%d" % n for n in range(299, -1, -1)])
        assert [item.value if item else b"" for item in many.items] == [
            b"%d" % n for n in range(299, -1, -1)
        ]


async def test_answers_over_the_receive_limit_come_in_pieces(server: EtcdServer) -> None:
    async with connected(server.url, receive_bytes_max=limits.MIB) as engine:
        keys = [b"large/%02d" % n for n in range(30)]
        for key in keys:
            await engine.commit([], [Put(key, key * 12_000)])
        reading = await engine.get_many(keys)
        assert [item.value[:8] if item else None for item in reading.items] == keys
        page = await engine.scan(b"large/", b"large0", limit=30)
        assert page.more
        assert 0 < len(page.items) < 30
        rest = await engine.scan(page.items[-1].key + b"\x00", b"large0", limit=7)
        assert [item.key for item in (*page.items, *rest.items)] == keys[: len(page.items) + 7]


async def test_a_commit_too_large_to_ask_names_no_guard_or_is_refused(server: EtcdServer) -> None:
    async with connected(server.url) as engine:
        guards = [At(b"big/" + b"g" * 200 + b"%03d" % n, 0) for n in range(128)]
        room = limits.COMMIT_BYTES_MAX - 200 * 128
        await engine.commit([], [Put(guards[5].key, b"there")])
        with pytest.raises(Conflict) as conflict:
            await engine.commit(guards, [Put(b"big/k", bytes(room - 10_000))])
        assert conflict.value.guard is None
        with pytest.raises(CommitTooLarge):
            await engine.commit(guards[10:], [Put(b"big/k", bytes(room - 10))])
        assert await value_of(engine, b"big/k") is None


async def test_a_server_with_a_lower_limit_refuses_as_too_large() -> None:
    with EtcdServer(name="strict", extra=["--max-request-bytes=65536"]) as strict:
        async with connected(strict.url) as engine:
            for size in (70_000, 1_000_000):
                with pytest.raises(CommitTooLarge):
                    await engine.commit([], [Put(b"k", bytes(size))])
            assert await value_of(engine, b"k") is None


# A server that is away, or does not answer


async def test_a_stopped_server_is_unavailable_within_the_deadline(server: EtcdServer) -> None:
    async with connected(server.url, deadline_seconds=0.5) as engine:
        before = await engine.commit([], [Put(b"stop", b"0")])
        server.pause()
        try:
            for attempt in (
                engine.get_many([b"stop"]),
                engine.scan(b"s", b"t", limit=1),
                engine.commit([At(b"stop", before)], [Put(b"stop", b"1")]),
                engine.grant_lease(60),
                engine.space(),
            ):
                start, disturbances = time.monotonic(), engine.disturbances
                with pytest.raises(Unavailable):
                    await attempt
                assert time.monotonic() - start < 0.5 + SLACK_SECONDS
                assert engine.disturbances > disturbances
        finally:
            server.resume()
        # The commit may have been applied on waking, or later: sent again, it happens once.
        async with connected(server.url) as patient:
            with contextlib.suppress(Conflict):
                await patient.commit([At(b"stop", before)], [Put(b"stop", b"1")])
            assert await value_of(patient, b"stop") == b"1"


async def commit_and_lose_the_answer(
    proxy: CuttingProxy, engine: EtcdKV, direct: EtcdKV, guards: list[Guard], write: Put
) -> None:
    """Send a commit through the proxy, let it happen, and end the connection with the answer."""
    before = (await direct.get_many([])).revision
    async with watching(direct, write.key, before) as events:
        proxy.deaf()
        sent = asyncio.create_task(engine.commit(guards, [write]))
        await take(events, 1)
    proxy.cut()
    with pytest.raises(Unavailable):
        await sent


async def test_a_commit_whose_answer_is_lost_is_unknown_and_not_sent_again(
    server: EtcdServer,
) -> None:
    async with (
        CuttingProxy(server.port) as proxy,
        connected(proxy.url, server.url) as engine,
        connected(server.url) as direct,
    ):
        before = await engine.commit([], [Put(b"lost", b"0")])
        await commit_and_lose_the_answer(proxy, engine, direct, [], Put(b"lost", b"1"))
        # A second sending, unguarded as it was, would have succeeded at before + 2.
        (item,) = (await engine.get_many([b"lost"])).items
        assert item is not None
        assert (item.value, item.revision) == (b"1", before + 1)


async def test_a_guarded_commit_whose_answer_is_lost_may_be_sent_again_by_the_caller(
    server: EtcdServer,
) -> None:
    async with (
        CuttingProxy(server.port) as proxy,
        connected(proxy.url, server.url) as engine,
        connected(server.url) as direct,
    ):
        before = await engine.commit([], [Put(b"again", b"0")])
        guards: list[Guard] = [At(b"again", before)]
        await commit_and_lose_the_answer(proxy, engine, direct, guards, Put(b"again", b"1"))
        with pytest.raises(Conflict):
            await engine.commit(guards, [Put(b"again", b"1")])
        (item,) = (await engine.get_many([b"again"])).items
        assert item is not None
        assert (item.value, item.revision) == (b"1", before + 1)


async def test_a_read_without_an_answer_is_taken_from_the_next_endpoint(server: EtcdServer) -> None:
    async with (
        CuttingProxy(server.port) as proxy,
        connected(proxy.url, server.url, deadline_seconds=2) as engine,
    ):
        await engine.commit([], [Put(b"next", b"1")])
        proxy.deaf()
        start = time.monotonic()
        assert await value_of(engine, b"next") == b"1"
        assert time.monotonic() - start < 2
        taken = []
        for _ in range(3):
            start = time.monotonic()
            assert await value_of(engine, b"next") == b"1"
            taken.append(time.monotonic() - start)
        # The silent endpoint is no longer asked; one of them a busy machine may delay.
        assert sorted(taken)[1] < 1, taken


async def test_a_commit_passes_over_endpoints_where_nobody_listens(server: EtcdServer) -> None:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    async with connected(*urls, server.url) as engine:
        revision = await engine.commit([At(b"passes", 0)], [Put(b"passes", b"1")])
        (item,) = (await engine.get_many([b"passes"])).items
        assert item is not None
        assert item.revision == revision


async def test_an_outage_is_answered_fast_and_ends_by_itself(server: EtcdServer) -> None:
    async with connected(server.url) as engine:
        await engine.commit([], [Put(b"outage", b"1")])
        server.kill()
        with pytest.raises(Unavailable):
            await engine.get_many([b"outage"])
        start = time.monotonic()
        for _ in range(5):
            with pytest.raises(Unavailable):
                await engine.commit([], [Put(b"outage", b"2")])
        assert time.monotonic() - start < SLACK_SECONDS
        await asyncio.to_thread(server.restart)
        async with asyncio.timeout(EVENT_SECONDS_MAX):
            while True:
                with contextlib.suppress(Unavailable):
                    assert await value_of(engine, b"outage") == b"1"
                    break
                await asyncio.sleep(0.05)


async def test_a_server_restarted_under_commits_loses_none_that_was_acknowledged(
    server: EtcdServer,
) -> None:
    async with connected(server.url) as engine:
        acknowledged: set[bytes] = set()
        unknown: set[bytes] = set()
        done = asyncio.Event()

        async def write(number: int) -> None:
            count = 0
            while not done.is_set():
                key = b"restart/%d/%d" % (number, count)
                count += 1
                try:
                    await engine.commit([At(key, 0)], [Put(key, b"")])
                    acknowledged.add(key)
                except Unavailable:
                    unknown.add(key)

        writers = [asyncio.create_task(write(number)) for number in range(8)]
        for _ in range(2):
            reached = len(acknowledged) + 50
            async with asyncio.timeout(EVENT_SECONDS_MAX):
                while len(acknowledged) < reached:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(server.restart)
        done.set()
        await asyncio.gather(*writers)
        page = await engine.scan(b"restart/", b"restart0", limit=10_000, keys_only=True)
        found = {item.key for item in page.items}
        assert acknowledged <= found
        assert found <= acknowledged | unknown


async def test_what_waits_at_close_is_unavailable(server: EtcdServer) -> None:
    engine = await EtcdKV.connect([server.url], deadline_seconds=30)
    before = await engine.commit([], [Put(b"close", b"0")])
    events = cast("Any", engine.watch(b"close", after_revision=before - 1))
    assert (await take(events, 1))[0].revision == before
    server.pause()
    try:
        waiting = [
            asyncio.create_task(wait)
            for wait in (
                engine.get_many([b"close"]),
                engine.commit([], [Put(b"close", b"1")]),
                anext(events),
            )
        ]
        await asyncio.sleep(0.05)
        await engine.close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        server.resume()
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3


# Watches


async def test_a_watch_goes_on_after_a_restart_and_asks_for_a_relist(server: EtcdServer) -> None:
    async with connected(server.url) as engine:
        before = await engine.commit([], [Put(b"w/0", b"")])
        async with watching(engine, b"w/", before) as events:
            first = await engine.commit([], [Put(b"w/1", b"")])
            assert [event.revision for event in await take(events, 1)] == [first]
            await asyncio.to_thread(server.restart)
            second = await engine.commit([], [Put(b"w/2", b"")])
            assert await take(events, 2) == [
                Event(EventKind.RELIST, b"", b"", first),
                Event(EventKind.PUT, b"w/2", b"", second),
            ]


async def test_a_watch_misses_nothing_while_its_connection_is_cut_again_and_again(
    server: EtcdServer,
) -> None:
    async with CuttingProxy(server.port) as proxy, connected(proxy.url) as watcher:
        async with connected(server.url) as writer:
            before = await writer.commit([], [Put(b"cut", b"")])
            expected = []
            async with watching(watcher, b"cut/", before) as events:
                seen: list[Event] = []
                for number in range(60):
                    revision = await writer.commit([], [Put(b"cut/%02d" % number, b"")])
                    expected.append(Event(EventKind.PUT, b"cut/%02d" % number, b"", revision))
                    if number % 20 == 10:
                        seen += await take(events, 1)
                        proxy.cut()
                while expected[-1] not in seen:
                    seen += await take(events, 1)
        relists = [event for event in seen if event.kind is EventKind.RELIST]
        assert [event for event in seen if event.kind is EventKind.PUT] == expected
        assert len(relists) >= 1


async def test_a_watch_cut_off_during_a_compaction_relists(server: EtcdServer) -> None:
    async with (
        CuttingProxy(server.port) as proxy,
        connected(proxy.url) as watcher,
        connected(server.url) as writer,
    ):
        before = await writer.commit([], [Put(b"gone/0", b"")])
        async with watching(watcher, b"gone/", before - 1) as events:
            await take(events, 1)
            await proxy.refuse()
            for number in range(5):
                latest = await writer.commit([], [Put(b"gone/0", b"%d" % number)])
            await writer.compact(latest)
            await proxy.accept()
            relist, *more = await take(events, 1)
            if relist.revision < latest:  # the cut alone asked for one before
                (relist,) = await take(events, 1)
            assert relist.kind is EventKind.RELIST
            assert relist.revision >= latest
            revision = await writer.commit([], [Delete(b"gone/0")])
            assert await take(events, 1) == [Event(EventKind.DELETE, b"gone/0", b"", revision)]
            assert not more


async def test_a_commit_larger_than_a_watch_response_arrives_whole(server: EtcdServer) -> None:
    async with connected(server.url) as engine:
        before = await engine.commit([], [Put(b"frag", b"")])
        for number in range(5):
            await engine.commit(
                [], [Put(b"frag/%d/%03d" % (number, n), bytes(11_000)) for n in range(128)]
            )
        async with watching(engine, b"frag/", before) as events:
            seen = await take(events, 5 * 128)
        assert len({event.key for event in seen}) == 5 * 128


# Space


async def test_a_full_server_refuses_growth_and_recovers_by_compaction() -> None:
    flags = [f"--quota-backend-bytes={QUOTA_BYTES}"]
    with EtcdServer(name="full", extra=flags) as full:
        async with connected(full.url, quota_bytes=QUOTA_BYTES) as engine:
            revision = await engine.commit([], [Put(b"k", b""), Put(b"other", b"")])
            with pytest.raises((NoSpace, Unavailable)):
                while True:
                    revision = await engine.commit(
                        [At(b"k", revision)], [Put(b"k", bytes(900_000))]
                    )
            (item,) = (await engine.get_many([b"k"])).items
            assert item is not None
            for _ in range(2):
                with pytest.raises(NoSpace):
                    await engine.commit([At(b"k", item.revision)], [Put(b"k", bytes(900_000))])
            assert (await engine.space()).used_bytes >= QUOTA_BYTES
            assert (await engine.get_many([b"k"])).items == [item]
            revision = await engine.commit([], [Delete(b"other")])
            await engine.compact(revision)
            space = await engine.space()
            assert (space.used_bytes < QUOTA_BYTES / 2, space.quota_bytes) == (True, QUOTA_BYTES)
            await engine.commit([At(b"k", item.revision)], [Put(b"k", bytes(900_000))])


async def test_no_space_is_said_only_of_commits_that_wrote_nothing() -> None:
    flags = [f"--quota-backend-bytes={QUOTA_BYTES}"]
    with EtcdServer(name="brim", extra=flags) as brim:
        async with connected(brim.url) as engine:
            keys = [b"k%02d" % number for number in range(32)]
            outcomes: dict[bytes, object] = {}
            revision = await engine.commit([], [Put(key, b"") for key in keys])
            revisions = dict.fromkeys(keys, revision)

            async def fill(key: bytes) -> None:
                while key not in outcomes:
                    try:
                        revisions[key] = await engine.commit(
                            [At(key, revisions[key])], [Put(key, bytes(100_000))]
                        )
                    except (NoSpace, Unavailable) as error:
                        outcomes[key] = error

            await asyncio.gather(*(fill(key) for key in keys))
            for item in (await engine.get_many(keys)).items:
                assert item is not None
                if isinstance(outcomes[item.key], NoSpace):
                    assert item.revision == revisions[item.key]
            assert any(isinstance(outcome, NoSpace) for outcome in outcomes.values())


# Processes


def test_engines_of_forked_processes_are_their_own(server: EtcdServer) -> None:
    program = f"""
import asyncio, os
from s3gw.kv.etcd import EtcdKV
from s3gw.kv.interface import Put

async def write(name):
    engine = await EtcdKV.connect([{server.url!r}])
    await engine.commit([], [Put(name, b"")])
    await engine.close()

children = []
for name in (b"fork/1", b"fork/2"):
    if child := os.fork():
        children.append(child)
    else:
        asyncio.run(write(name))
        os._exit(0)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
asyncio.run(write(b"fork/0"))
assert codes == [0, 0], codes
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    async def names() -> list[bytes]:
        async with connected(server.url) as engine:
            page = await engine.scan(b"fork/", b"fork0", limit=10, keys_only=True)
            return [item.key for item in page.items]

    assert asyncio.run(names()) == [b"fork/0", b"fork/1", b"fork/2"]
