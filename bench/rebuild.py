"""Losing one of eight nodes: how long until everything is whole again, and who notices.

    python -m bench.rebuild [--blobs N] [--directory DIR]

etcd, eight nodes in three zones and two gateways as processes on this machine. Nine of ten objects
have 4 KiB, the others 256 KiB. After the load one node is killed for good; a second later it is out
of the layout (`rebuild_after_seconds` 1) and its shards are rebuilt on the other seven. All the
while eight clients read and write objects of 4 KiB; their latencies before and during the rebuild
are compared. The least that any rebuild must write is what the lost node held, counted on its
drive.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import Servers
from bench.steps import Bench
from bench.wire import Connection, UnexpectedReply, prepare
from compose.local import Cluster, running
from compose.s3_http import S3Http, Signer

BLOBS = 50_000
SMALL_BYTES, LARGE_BYTES = 4 * 1024, 256 * 1024
LARGE_SHARE = 10
CHUNK_REQUESTS = 5000
FOREGROUND_CLIENTS = 8
QUIET_SECONDS = 20.0
POLL_SECONDS = 1.0
GIVE_UP_SECONDS = 3600.0
MB = 1e6


@dataclass
class Foreground:
    """Clients that read and write all the time; `latencies` of the present phase, in seconds."""

    http: S3Http
    bucket: str
    blobs: int
    latencies: dict[str, list[float]] = field(default_factory=lambda: {"GET": [], "PUT": []})
    failed: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [
            threading.Thread(target=self._work, args=(number,))
            for number in range(FOREGROUND_CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def phase(self) -> dict[str, list[float]]:
        """What was measured since the last call."""
        done, self.latencies = self.latencies, {"GET": [], "PUT": []}
        return done

    def _work(self, number: int) -> None:
        chance = random.Random(number)
        connection = Connection(self.http.host, self.http.port)
        body = memoryview(os.urandom(SMALL_BYTES))
        while not self._ended.is_set():
            method = "GET" if chance.random() < 0.7 else "PUT"
            key = small_key(chance.randrange(self.blobs)) if method == "GET" else f"new-{number}"
            request = prepare(
                self.http,
                method,
                f"/{self.bucket}/{key}",
                body=body if method == "PUT" else None,
            )
            began = time.perf_counter()
            try:
                connection.exchange(request)
            except (OSError, UnexpectedReply):
                self.failed += 1
                connection.close()
            self.latencies[method].append(time.perf_counter() - began)
        connection.close()


def small_key(number: int) -> str:
    """A key that surely names an object of 4 KiB."""
    return f"o{number + 1 if number % LARGE_SHARE == 0 else number:06}"


def load(bench: Bench, blobs: int) -> None:
    small, large = memoryview(os.urandom(SMALL_BYTES)), memoryview(os.urandom(LARGE_BYTES))
    for first in range(0, blobs + 1, CHUNK_REQUESTS):
        numbers = range(first, min(first + CHUNK_REQUESTS, blobs + 1))
        requests = [
            prepare(
                bench.http,
                "PUT",
                f"/{bench.bucket}/o{number:06}",
                body=small if number % LARGE_SHARE else large,
            )
            for number in numbers
        ]
        bench.run(requests, 16)


class Admin:
    """The admin API of one gateway."""

    def __init__(self, http: S3Http) -> None:
        self._http = http

    def get(self, path: str) -> Any:
        reply = self._http.request("GET", path)
        if reply.status != 200:
            raise UnexpectedReply(f"{path}: {reply.status} {reply.body[:300]!r}")
        return json.loads(reply.body)

    def put(self, path: str, value: dict[str, Any]) -> None:
        headers = {"x-s3gw-nonce": secrets.token_hex(8)}
        body = json.dumps(value).encode()
        reply = self._http.request("PUT", path, headers=headers, body=body)
        if reply.status != 200:
            raise UnexpectedReply(f"{path}: {reply.status} {reply.body[:300]!r}")


def drive_bytes(directory: Path) -> int:
    """What a node's drives hold in shard files."""
    return sum(path.stat().st_size for path in directory.rglob("data/**/*") if path.is_file())


def percentile(samples: Sequence[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[int(share * (len(ordered) - 1))] * 1000


def wait_until_healed(admin: Admin, began: float) -> dict[str, Any]:
    """The last rebalance report, once the ledger says that everything is whole."""
    moved: dict[str, Any] = {}
    while time.monotonic() - began < GIVE_UP_SECONDS:
        time.sleep(POLL_SECONDS)
        found = admin.get("/admin/rebalances")
        if found["bytes_rebuilt"] >= moved.get("bytes_rebuilt", 0):
            moved = found
        ledger = admin.get("/admin/ledger")
        if ledger["healed"]:
            return moved
    raise UnexpectedReply("not healed in time")


def measure(cluster: Cluster, blobs: int) -> None:
    signer = Signer(cluster.credentials.access_key, cluster.credentials.secret_key)
    http = S3Http(cluster.gateways[0].endpoint, signer)
    operator = dataclasses.replace(signer, service="s3gw")
    admin = Admin(S3Http(cluster.gateways[0].admin, operator))
    bench = Bench(http, Servers([process.pid for process in cluster.processes]), "rebuild")
    http.request("PUT", "/rebuild")
    began = time.monotonic()
    load(bench, blobs)
    print(f"{blobs:,} objects written in {time.monotonic() - began:.0f} s", flush=True)
    foreground = Foreground(http, "rebuild", blobs)
    foreground.start()
    time.sleep(QUIET_SECONDS)
    before = foreground.phase()
    admin.put("/admin/tunables", {"rebuild_after_seconds": 1, "hold_down_seconds": 0})
    lost = cluster.nodes[-1]
    least = drive_bytes(lost.directory)
    began = time.monotonic()
    lost.process.kill()
    try:
        moved = wait_until_healed(admin, began)
        seconds = time.monotonic() - began
        during = foreground.phase()
    finally:
        foreground.stop()
    rebuilt, copied, read = (
        moved[name] / MB for name in ("bytes_rebuilt", "bytes_moved", "bytes_read")
    )
    print(
        f"healed {seconds:.0f} s after the node was killed: {rebuilt:.0f} MB rebuilt and "
        f"{copied:.0f} MB moved ({read:.0f} MB read), where the lost node held {least / MB:.0f} MB"
    )
    for method in ("GET", "PUT"):
        was, then = before[method], during[method]
        print(
            f"4 KiB {method}, {FOREGROUND_CLIENTS} clients: p50 {percentile(was, 0.5):.1f} → "
            f"{percentile(then, 0.5):.1f} ms, p99 {percentile(was, 0.99):.1f} → "
            f"{percentile(then, 0.99):.1f} ms ({len(was):,} and {len(then):,} requests)"
        )
    print(f"failed requests: {foreground.failed}")


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blobs", type=int, default=BLOBS)
    parser.add_argument("--directory", type=Path, default=Path("build/rebuild"))
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    shutil.rmtree(directory, ignore_errors=True)
    try:
        cluster = Cluster(directory, nodes=8, zones=3, gateways=2)
        with running(cluster):
            measure(cluster, arguments.blobs)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
