"""Slow heads, stalled bodies and slow readers: others are served as before, and all are closed."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from compose.local import Up
from compose.s3_http import S3Http
from tests.attacks.conftest import HEAD_SECONDS, IDLE_SECONDS
from tests.attacks.target import SOAK, Baseline, Raw, request_bytes

ATTACKERS = 500 if SOAK else 150
REQUESTS = 300
LARGE_BYTES = 24 << 20
HELD_BYTES_MAX = 5 << 20
"""Per reader: the stripes in flight, and what is written and not sent."""
SWEEPS_SECONDS = 4
"""The server looks for expired deadlines once a second, and grants a stalled peer two periods."""
ATTEMPTS = 3
"""A bound of time holds if it holds once: the machine of a test does other things too."""
P99_FACTOR = 2.0
P99_FLOOR_SECONDS = 0.2
"""Below this the two shared cores of a test machine are measured, not the server."""


def p99_of_others(http: S3Http, bucket: str) -> float:
    """The slowest hundredth of small requests by a client that behaves, in seconds."""
    taken = []
    for number in range(REQUESTS):
        started = time.perf_counter()
        if number % 2:
            assert http.request("PUT", f"/{bucket}/small", body=b"small").status == 200
        else:
            assert http.request("GET", f"/{bucket}/small").body == b"small"
        taken.append(time.perf_counter() - started)
    return statistics.quantiles(taken, n=100)[98]


@contextmanager
def attackers(port: int, sent: bytes, *, receive_buffer: int = 0) -> Iterator[list[Raw]]:
    """So many connections that have sent `sent` and then stand still."""
    with ExitStack() as stack:
        opened = []
        for _ in range(ATTACKERS):
            raw = stack.enter_context(Raw(port, receive_buffer=receive_buffer))
            raw.send(sent)
            opened.append(raw)
        yield opened


def require_closed(opened: list[Raw], deadline_seconds: float) -> None:
    """The server ends every connection by the deadline, whatever it says before."""
    deadline = time.monotonic() + deadline_seconds
    for raw in opened:
        raw.socket.settimeout(max(0.1, deadline - time.monotonic()))
        raw.rest()


@pytest.fixture
def small(http: S3Http, bucket: str) -> str:
    assert http.request("PUT", f"/{bucket}/small", body=b"small").status == 200
    return bucket


def attack(kind: str, http: S3Http, bucket: str) -> bytes:
    """What the attacker sends before it stands still."""
    if kind == "slow heads":
        return b"PUT /attacked/slow HTTP/1.1\r\nHost: "
    if kind == "stalled bodies":
        headers, _ = http.signed_headers("PUT", f"/{bucket}/stalled")
        headers["content-length"] = str(LARGE_BYTES)
        return request_bytes("PUT", f"/{bucket}/stalled", headers, b"x" * 5000)
    headers, _ = http.signed_headers("GET", f"/{bucket}/large")
    return request_bytes("GET", f"/{bucket}/large", headers)


@pytest.mark.parametrize("kind", ["slow heads", "stalled bodies", "slow readers"])
def test_others_are_served_and_the_slow_are_closed(
    kind: str, store: Up, http: S3Http, s3: Any, bucket: str, small: str
) -> None:
    s3.put_object(Bucket=bucket, Key="large", Body=bytes(LARGE_BYTES))
    p99_before = p99_of_others(http, bucket)
    before = Baseline.of(store.process, store.admin)
    sent = attack(kind, http, bucket)
    receive_buffer = 4096 if kind == "slow readers" else 0
    for attempt in range(1, ATTEMPTS + 1):
        with attackers(store.s3_port, sent, receive_buffer=receive_buffer) as opened:
            p99 = p99_of_others(http, bucket)
            if kind == "slow readers":
                # To read is what they do not do; the server's side shows that they are gone.
                before.require_return(
                    memory_growth_max=ATTACKERS * HELD_BYTES_MAX,
                    seconds=2 * IDLE_SECONDS + SWEEPS_SECONDS,
                )
            else:
                limit = HEAD_SECONDS if kind == "slow heads" else 2 * IDLE_SECONDS
                require_closed(opened, limit + SWEEPS_SECONDS)
        before.require_return(memory_growth_max=ATTACKERS * HELD_BYTES_MAX)
        if p99 <= max(P99_FACTOR * p99_before, P99_FLOOR_SECONDS):
            break
        assert attempt < ATTEMPTS, (p99_before, p99)
    listed = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert "stalled" not in listed


def test_a_reader_that_is_slow_but_reads_gets_everything(
    store: Up, http: S3Http, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="large", Body=bytes(LARGE_BYTES))
    headers, _ = http.signed_headers("GET", f"/{bucket}/large")
    pause, received = threading.Event(), 0
    with Raw(store.s3_port) as raw:
        raw.send(request_bytes("GET", f"/{bucket}/large", headers))
        while received < LARGE_BYTES:
            until = received + LARGE_BYTES // 4
            while received < min(until, LARGE_BYTES):
                received += len(raw.socket.recv(1 << 20))
            pause.wait(IDLE_SECONDS / 2)
    assert received >= LARGE_BYTES
