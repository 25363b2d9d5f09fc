"""XML bombs and endless range lists over HTTP: refused quickly, and nobody else waits for them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from compose.s3_http import S3Http
from tests.attacks.target import Baseline

MIB = 1 << 20
ANSWER_SECONDS = 0.3
OTHERS_SECONDS = 0.25
"""A request of another client beside a document that keeps one thread busy; two shared cores."""
RANGES_SECONDS = 0.05
ATTEMPTS = 5
"""A bound of time holds if it holds once: the machine of a test does other things too."""
OBJECT = bytes(range(256)) * 4096

LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "&%c;&%c;&%c;&%c;">' % (c + 1, c, c, c, c) for c in range(97, 117))
    + b"]><Delete><Object><Key>&u;</Key></Object></Delete>"
)
BOMBS = {
    "entities": LAUGHS,
    "external entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b"<Delete><Object><Key>&x;</Key></Object></Delete>",
    "parameter entity": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><Delete/>',
    "depth": b"<a>" * 290_000,
    "siblings": b"<Delete>" + b"<a/>" * 500_000,
    "closed siblings": b"<Delete>" + b"<a/>" * 190_000 + b"</Delete>",
    "huge attribute": b'<Delete a="' + b"x" * (2 * MIB - 100) + b'"/>',
    "many attributes": b"<Delete " + b" ".join(b'a%d=""' % n for n in range(150_000)) + b"/>",
    "many names": b"<Delete>" + b"".join(b"<a%d/>" % n for n in range(150_000)) + b"</Delete>",
    "huge text": b"<Delete><Object><Key>" + b"x" * (2 * MIB - 100) + b"</Key></Object></Delete>",
    "unclosed text": b"<Delete>" + b"<" * (2 * MIB - 100),
    "comment": b"<Delete><!--" + b"-" * (2 * MIB - 100),
    "cdata": b"<Delete><![CDATA[" + b"]" * (2 * MIB - 100),
    "references": b"<Delete><Object><Key>" + b"&#120;" * 300_000 + b"</Key></Object></Delete>",
    "UTF-16": '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><Delete/>'.encode("utf-16"),
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?><Delete/>',
    "over the limit": b"<Delete>" + b" " * (3 * MIB),
}


@contextmanager
def others(http: S3Http, path: str) -> Iterator[list[float]]:
    """Another client reads all the while; the seconds that each of its requests took."""
    taken: list[float] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            started = time.perf_counter()
            assert http.request("GET", path).status == 200
            taken.append(time.perf_counter() - started)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield taken
    finally:
        over.set()
        reader.join()


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("query", ["delete=", "uploadId=AAAA"])
def test_an_xml_bomb_is_refused_quickly(
    bomb: str, query: str, http: S3Http, store: Any, bucket: str
) -> None:
    http.request("PUT", f"/{bucket}/k", body=b"x")
    path = f"/{bucket}" if query == "delete=" else f"/{bucket}/k"
    body = BOMBS[bomb]
    before = Baseline.of(store.process, store.admin)
    for attempt in range(1, ATTEMPTS + 1):
        with others(http, f"/{bucket}/k") as taken:
            started = time.perf_counter()
            reply = http.request("POST", path, query, body=body, payload_hash="UNSIGNED-PAYLOAD")
            seconds = time.perf_counter() - started
        assert reply.status in (400, 404), reply.body
        assert b"root:" not in reply.body
        if seconds < ANSWER_SECONDS and max(taken, default=0) < OTHERS_SECONDS:
            break
        assert attempt < ATTEMPTS, f"{seconds:.3f} s, others {max(taken):.3f} s"
    before.require_return(memory_growth_max=128 * MIB)


RANGES = {
    "ten thousand": "bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)),
    "that fit in a header": "bytes=" + ",".join(f"{n}-{n}" for n in range(800)),
    "overlapping": "bytes=" + ",".join(["0-"] * 1000),
    "negative": "bytes=-1--5",
    "of nothing": "bytes=" + "," * 4000,
    "of spaces": "bytes=" + " " * 4000 + "0-1",
    "huge": f"bytes=0-{'9' * 4000}",
    "huge start": f"bytes={'9' * 400}-",
    "huge suffix": f"bytes=-{'9' * 400}",
    "signed numbers": "bytes=+1-+2",
    "not ASCII": "bytes=\u0661-\u0662".encode().decode("latin-1"),
}


@pytest.mark.parametrize("ranges", RANGES)
def test_odd_ranges_are_answered_quickly_and_rightly(
    ranges: str, http: S3Http, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="ranged", Body=OBJECT)
    headers, _ = http.signed_headers("GET", f"/{bucket}/ranged")
    headers["range"] = RANGES[ranges]
    taken = []
    for _ in range(ATTEMPTS):
        started = time.perf_counter()
        reply = http.send("GET", f"/{bucket}/ranged", headers=headers)
        taken.append(time.perf_counter() - started)
    assert min(taken) < RANGES_SECONDS, taken
    if reply.status == 206:
        first, last = (int(each) for each in reply["content-range"][6:].split("/")[0].split("-"))
        assert reply.body == OBJECT[first : last + 1]
    elif reply.status == 200:
        assert reply.body == OBJECT
    else:
        assert reply.status in (416, 431), reply.body


def test_many_ranges_in_turn(http: S3Http, s3: Any, bucket: str) -> None:
    """Each is right, and none slow on the median."""
    s3.put_object(Bucket=bucket, Key="ranged", Body=OBJECT)
    taken = []
    for number in range(300):
        first = number * 3481 % len(OBJECT)
        last = min(first + number % 700, len(OBJECT) - 1)
        started = time.perf_counter()
        reply = http.request("GET", f"/{bucket}/ranged", headers={"range": f"bytes={first}-{last}"})
        taken.append(time.perf_counter() - started)
        assert reply.body == OBJECT[first : last + 1]
    assert sorted(taken)[150] < RANGES_SECONDS
