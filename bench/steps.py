"""The measurements. Each makes its requests first, then starts the clock, then runs them."""

import hashlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from urllib.parse import quote

from bench.processes import Servers
from bench.results import Row, percentile
from bench.wire import Connection, Prepared, UnexpectedReply, prepare
from compose.s3_http import UNSIGNED_PAYLOAD, S3Http

MB = 1_000_000
MIB = 1024 * 1024
SMALL_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """What a batch of requests took. Times in seconds."""

    wall: float
    latencies: list[float]
    server_cpu: float | None
    client_cpu: float
    body_bytes: int


class Bench:
    """The measurements over one endpoint; buckets and objects are the caller's to prepare."""

    def __init__(self, http: S3Http, servers: Servers, bucket: str) -> None:
        self.http = http
        self.servers = servers
        self.bucket = bucket

    def run(self, requests: Sequence[Prepared], concurrency: int) -> Outcome:
        """Send all requests over `concurrency` connections; raises when an answer is wrong."""
        waiting = deque(requests)
        latencies: list[list[float]] = [[] for _ in range(concurrency)]
        received = [0] * concurrency
        failures: list[BaseException] = []
        barrier = threading.Barrier(concurrency + 1)

        def work(index: int) -> None:
            connection = Connection(self.http.host, self.http.port)
            barrier.wait()
            try:
                while waiting and not failures:
                    try:
                        request = waiting.popleft()
                    except IndexError:
                        break
                    began = time.perf_counter()
                    count, _ = connection.exchange(request)
                    latencies[index].append(time.perf_counter() - began)
                    received[index] += count
            except (OSError, UnexpectedReply) as error:
                failures.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=work, args=(index,)) for index in range(concurrency)]
        for thread in threads:
            thread.start()
        server_before = self.servers.cpu_seconds() if self.servers.known else 0.0
        barrier.wait()
        client_before, began = time.process_time(), time.perf_counter()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - began
        client = time.process_time() - client_before
        server = self.servers.cpu_seconds() - server_before if self.servers.known else None
        if failures:
            raise failures[0]
        return Outcome(wall, sorted(chain.from_iterable(latencies)), server, client, sum(received))

    def _path(self, key: str) -> str:
        return f"/{self.bucket}/{key}"

    def remove(self, keys: Sequence[str]) -> None:
        self.run([prepare(self.http, "DELETE", self._path(key), status=204) for key in keys], 4)

    def large(
        self, size: int, count: int, concurrency: int, *, signed: bool = False, what: str = ""
    ) -> tuple[Row, Row]:
        """PUT and GET of `count` objects of `size` bytes: MB/s, and server CPU ms per MB. `what`
        says how the bucket keeps them, if not as usual: no goals are set for that."""
        body = memoryview(os.urandom(size))
        payload = hashlib.sha256(body).hexdigest() if signed else UNSIGNED_PAYLOAD
        keys = [f"large-{index}" for index in range(count)]
        puts = [
            prepare(self.http, "PUT", self._path(key), body=body, payload_hash=payload)
            for key in keys
        ]
        put = self.run(puts, concurrency)
        gets = [prepare(self.http, "GET", self._path(key)) for key in keys]
        self._check(gets[-1], body)
        get = self.run(gets, concurrency)
        if get.body_bytes != size * count:
            raise UnexpectedReply(f"{get.body_bytes} bytes came back of {size * count}")
        self.remove(keys)
        label = f"{size // MIB} MiB" + (f" × {concurrency} parallel" if concurrency > 1 else "")
        label += f", {what}" if what else ""
        note = ", signed payload" if signed else ""
        megabytes = size * count / MB
        return (
            # A signed payload costs one more hash of every byte: no goal is set for it.
            _bulk_row(f"PUT {label}{note}", None if signed or what else "PUT", put, megabytes),
            _bulk_row(f"GET {label}", None if signed or what else "GET", get, megabytes),
        )

    def _check(self, request: Prepared, expected: memoryview) -> None:
        """Before speed, the right bytes."""
        connection = Connection(self.http.host, self.http.port)
        _, body = connection.exchange(request, keep=True)
        connection.close()
        if hashlib.sha256(body).digest() != hashlib.sha256(expected).digest():
            raise UnexpectedReply("an object came back with other bytes than were put")

    def small(
        self,
        count: int,
        concurrency: int,
        *,
        signed: bool = False,
        what: str = "",
        methods: Sequence[str] = ("PUT", "GET", "HEAD", "DELETE"),
    ) -> list[Row]:
        """PUT, GET, HEAD and DELETE of `count` objects of 4 KiB: operations/s, CPU ms each. `what`
        as in `large`."""
        body = memoryview(os.urandom(SMALL_BYTES))
        payload = hashlib.sha256(body).hexdigest() if signed else UNSIGNED_PAYLOAD
        keys = [f"small-{index:06}" for index in range(count)]
        rows = []
        # A signed payload changes nothing for requests without one.
        methods = ("PUT",) if signed else methods
        for method in methods:
            requests = [
                prepare(
                    self.http,
                    method,
                    self._path(key),
                    body=body if method == "PUT" else None,
                    payload_hash=payload,
                    status=204 if method == "DELETE" else 200,
                )
                for key in keys
            ]
            outcome = self.run(requests, concurrency)
            note = ", signed payload" if signed else f", {what}" if what else ""
            kind = None if signed or what else f"4 KiB {method}"
            name = f"{method} 4 KiB, {concurrency} in flight{note}"
            rows.append(_operation_row(name, kind, outcome, count))
        if "DELETE" not in methods:
            self.remove(keys)
        return rows

    def listing(self, keys: int, rounds: int) -> Row:
        """LIST of a bucket of `keys` objects, 1,000 a page: seconds for the whole of it."""
        body = memoryview(b"x")
        names = [f"list/{index:07}" for index in range(keys)]
        self.run([prepare(self.http, "PUT", self._path(k), body=body) for k in names], 16)
        connection = Connection(self.http.host, self.http.port)
        before = self.servers.cpu_seconds() if self.servers.known else 0.0
        client_before = time.process_time()
        marks = [time.perf_counter()]
        for _ in range(rounds):
            found = self._list_once(connection)
            marks.append(time.perf_counter())
            if found != keys:
                raise UnexpectedReply(f"{found} keys were listed of {keys}")
        server = self.servers.cpu_seconds() - before if self.servers.known else None
        client = time.process_time() - client_before
        connection.close()
        self.remove(names)
        seconds = sorted(after - before for before, after in pairwise(marks))
        median = percentile(seconds, 0.5)
        return Row(
            name=f"LIST {keys:,} keys",
            kind="LIST" if keys == 10_000 else None,
            rate=median,
            rate_unit="s",
            p50_ms=median * 1000,
            p99_ms=percentile(seconds, 0.99) * 1000,
            cpu_ms=None if server is None else server / rounds * 1000,
            cpu_unit="ms",
            judged=median,
            judged_unit="s",
            client_cpu_ms=client / rounds * 1000,
        )

    def _list_once(self, connection: Connection) -> int:
        found, token = 0, ""
        while True:
            query = "list-type=2" + (
                f"&continuation-token={quote(token, safe='')}" if token else ""
            )
            page = prepare(self.http, "GET", f"/{self.bucket}", query)
            _, body = connection.exchange(page, keep=True)
            found += body.count(b"<Contents>")
            more = re.search(b"<NextContinuationToken>([^<]+)<", body)
            if more is None:
                return found
            token = more[1].decode()

    def memory(self, size: int, clients: int) -> list[Row]:
        """Peak memory above idle while `clients` connections PUT, then GET, `size` bytes each."""
        body = memoryview(os.urandom(size))
        keys = [f"memory-{index}" for index in range(clients)]
        puts = [prepare(self.http, "PUT", self._path(key), body=body) for key in keys]
        gets = [prepare(self.http, "GET", self._path(key)) for key in keys]
        rows = []
        for method, requests in (("PUT", puts), ("GET", gets)):
            self.servers.watch_peak()
            outcome = self.run(requests, clients)
            growth = self.servers.memory_growth()
            rows.append(
                Row(
                    name=f"memory, {clients} × {method} {size // MIB} MiB",
                    kind="memory",
                    rate=size * clients / MB / outcome.wall,
                    rate_unit="MB/s",
                    p50_ms=None,
                    p99_ms=None,
                    cpu_ms=growth.process_bytes_max / MIB,
                    cpu_unit="MiB",
                    judged=growth.process_bytes_max / MIB,
                    judged_unit="MiB",
                    client_cpu_ms=None,
                )
            )
        self.remove(keys)
        return rows


def _bulk_row(name: str, kind: str | None, outcome: Outcome, megabytes: float) -> Row:
    server = None if outcome.server_cpu is None else outcome.server_cpu * 1000 / megabytes
    return Row(
        name=name,
        kind=kind,
        rate=megabytes / outcome.wall,
        rate_unit="MB/s",
        p50_ms=percentile(outcome.latencies, 0.5) * 1000,
        p99_ms=percentile(outcome.latencies, 0.99) * 1000,
        cpu_ms=server,
        cpu_unit="ms/MB",
        judged=server,
        judged_unit="ms/MB",
        client_cpu_ms=outcome.client_cpu * 1000 / megabytes,
    )


def _operation_row(name: str, kind: str | None, outcome: Outcome, count: int) -> Row:
    server = None if outcome.server_cpu is None else outcome.server_cpu * 1000 / count
    return Row(
        name=name,
        kind=kind,
        rate=count / outcome.wall,
        rate_unit="/s",
        p50_ms=percentile(outcome.latencies, 0.5) * 1000,
        p99_ms=percentile(outcome.latencies, 0.99) * 1000,
        cpu_ms=server,
        cpu_unit="ms/op",
        judged=server,
        judged_unit="ms/op",
        client_cpu_ms=outcome.client_cpu * 1000 / count,
    )
