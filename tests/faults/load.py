"""Many clients on few keys, through several gateways, each writing down what it saw.

A client knows no retries: one request, one answer. 2xx and the refusals of conditions are what the
history judges; 5xx but 500 and 501, and lost connections, leave the outcome unknown; every other
status is a violation by itself.
"""

import base64
import hashlib
import http.client
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from compose.local import Cluster, wait_until
from compose.s3_http import Reply, S3Http, Signer, quote_query
from tests.faults.checker import violations
from tests.faults.history import (
    UNKNOWN,
    Call,
    History,
    Kind,
    Operation,
    State,
    body_of,
    etag_of,
    etag_of_parts,
    trouble_with,
)

SIZES = (100, 900, 30_000, 70_000, 250_000)
AFTER_FAILURE_SECONDS = 0.05
UNAVAILABLE = frozenset({502, 503, 504, 507})
MIX = {
    "put": 6,
    "get": 8,
    "head": 2,
    "list": 1,
    "delete": 2,
    "delete_many": 1,
    "create": 2,
    "replace": 2,
    "copy": 1,
    "multipart": 1,
}
_ENTRY = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>")
_ETAG = re.compile(rb"<ETag>(?:&quot;|&#34;|\")?([0-9a-f-]+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, or its absence (status 0)."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    invoked: float
    returned: float

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "").strip('"')


class Client:
    """One client: operations on `keys` of a bucket over any of the endpoints."""

    def __init__(
        self,
        name: str,
        endpoints: Sequence[str],
        signer: Signer,
        bucket: str,
        keys: Sequence[str],
        history: History,
        chance: random.Random,
        *,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        self.name = name
        self._gateways = [S3Http(endpoint, signer) for endpoint in endpoints]
        self._bucket = bucket
        self._keys = keys
        self._history = history
        self._chance = chance
        self._sizes = sizes
        self._sequence = 0
        self._seen: dict[str, str] = {}

    def step(self, kind: str) -> bool:
        """One operation; whether it was answered."""
        key = self._chance.choice(self._keys)
        method: Callable[[str], bool] = getattr(self, kind)
        return method(key)

    def _ask(
        self,
        name: str,
        method: str,
        key: str,
        query: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        allowed: Sequence[int] = (200,),
    ) -> Answer:
        gateway = self._chance.choice(self._gateways)
        invoked = time.monotonic()
        status, data, found, when = 0, b"", {}, datetime.now(UTC).strftime("%H:%M:%S.%f")
        try:
            path = f"/{self._bucket}/{key}" if key else f"/{self._bucket}"
            reply: Reply = gateway.request(method, path, query, headers=headers, body=body)
            status, data = reply.status, reply.body
            found = {each.lower(): text for each, text in reply.headers.items()}
        except (OSError, http.client.HTTPException):
            status = 0
        returned = time.monotonic()
        self._history.called(Call(name, status, invoked, returned - invoked))
        if status and status not in UNAVAILABLE and status not in allowed:
            self._history.complain(
                f"{when} {name} {key} {headers or ''} at {gateway.netloc}: {status} {data[:300]!r}"
            )
            status = 0
        return Answer(status, data, found, invoked, returned)

    def _note(
        self, key: str, kind: Kind, etag: State, answer: Answer, *, expected: State = None
    ) -> None:
        known = answer.status not in UNAVAILABLE and answer.status != 0
        returned = answer.returned if known else UNKNOWN
        if known or kind in (Kind.WRITE, Kind.CREATE, Kind.REPLACE):
            self._history.add(
                Operation(key, kind, etag, answer.invoked, returned, expected, self.name)
            )

    def _body(self, key: str) -> bytes:
        self._sequence += 1
        size = self._chance.choice(self._sizes)
        return body_of(key, self.name, self._sequence, size)

    def _written(self, key: str, kind: Kind, etag: str, answer: Answer, expected: State) -> bool:
        """Note a write of any form by its answer."""
        if answer.status == 200:
            if answer.etag and answer.etag != etag:
                self._history.complain(f"{key}: ETag {answer.etag}, not {etag}")
            self._seen[key] = etag
        if answer.status == 412:
            refusal = Kind.EXISTS if kind is Kind.CREATE else Kind.DIFFERS
            self._note(key, refusal, None, answer, expected=expected)
        elif answer.status == 404:
            self._note(key, Kind.READ, None, answer)
        elif answer.status != 409:
            self._note(key, kind, etag, answer, expected=expected)
        return answer.status in (200, 404, 409, 412)

    def put(self, key: str) -> bool:
        body = self._body(key)
        answer = self._ask("put", "PUT", key, body=body)
        return self._written(key, Kind.WRITE, etag_of(body), answer, None)

    def create(self, key: str) -> bool:
        body = self._body(key)
        condition = {"if-none-match": "*"}
        answer = self._ask(
            "create", "PUT", key, headers=condition, body=body, allowed=(200, 409, 412)
        )
        return self._written(key, Kind.CREATE, etag_of(body), answer, None)

    def replace(self, key: str) -> bool:
        expected = self._seen.get(key)
        if expected is None:
            return self.head(key)
        body = self._body(key)
        answer = self._ask(
            *("replace", "PUT", key),
            headers={"if-match": f'"{expected}"'},
            body=body,
            allowed=(200, 404, 409, 412),
        )
        return self._written(key, Kind.REPLACE, etag_of(body), answer, expected)

    def copy(self, key: str) -> bool:
        """From a source that this client alone writes."""
        body, source = self._body(key), f"source-of-{self.name}"
        if self._ask("put source", "PUT", source, body=body).status != 200:
            return False
        headers = {"x-amz-copy-source": f"/{self._bucket}/{source}"}
        answer = self._ask("copy", "PUT", key, headers=headers)
        if answer.status == 200:
            copied = _ETAG.search(answer.body)
            if copied is None or copied[1].decode() != etag_of(body):
                self._history.complain(f"{key}: copied as {answer.body[:300]!r}")
        return self._written(key, Kind.WRITE, etag_of(body), answer, None)

    def multipart(self, key: str) -> bool:
        body = self._body(key)
        created = self._ask("create upload", "POST", key, "uploads=")
        if created.status != 200:
            return False
        upload = re.findall(rb"<UploadId>(.*?)</UploadId>", created.body)[0].decode()
        query = quote_query({"partNumber": "1", "uploadId": upload})
        if self._ask("upload part", "PUT", key, query, body=body).status != 200:
            return False
        document = (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
            f"<ETag>{etag_of(body)}</ETag></Part></CompleteMultipartUpload>"
        )
        answer = self._ask(
            "complete", "POST", key, quote_query({"uploadId": upload}), body=document.encode()
        )
        etag = etag_of_parts([body])
        if answer.status == 200 and etag.encode() not in answer.body:
            # An error after the status has gone out: the outcome is not known.
            if b"<Error>" not in answer.body:
                self._history.complain(f"{key}: completed as {answer.body[:300]!r}")
            answer = Answer(0, b"", {}, answer.invoked, answer.returned)
        return self._written(key, Kind.WRITE, etag, answer, None)

    def delete(self, key: str) -> bool:
        answer = self._ask("delete", "DELETE", key, allowed=(204,))
        self._note(key, Kind.WRITE, None, answer)
        return answer.status == 204

    def delete_many(self, key: str) -> bool:
        keys = sorted({key, *self._chance.sample(list(self._keys), min(2, len(self._keys)))})
        objects = "".join(f"<Object><Key>{each}</Key></Object>" for each in keys)
        answer = self._ask(
            *("delete many", "POST", ""),
            "delete=",
            headers={"content-md5": _content_md5(body := f"<Delete>{objects}</Delete>".encode())},
            body=body,
        )
        deleted = re.findall(rb"<Deleted><Key>(.*?)</Key>", answer.body)
        for each in keys:
            done = answer.status == 200 and each.encode() in deleted
            lost = Answer(0, b"", {}, answer.invoked, answer.returned)
            self._note(each, Kind.WRITE, None, answer if done else lost)
        return answer.status == 200

    def head(self, key: str) -> bool:
        answer = self._ask("head", "HEAD", key, allowed=(200, 404))
        return self._read(key, answer)

    def get(self, key: str) -> bool:
        answer = self._ask("get", "GET", key, allowed=(200, 404))
        if answer.status == 200:
            trouble = trouble_with(answer.body, key)
            if trouble or answer.etag not in (etag_of(answer.body), etag_of_parts([answer.body])):
                self._history.complain(f"{key} with ETag {answer.etag}: {trouble or 'another'}")
        return self._read(key, answer)

    def _read(self, key: str, answer: Answer) -> bool:
        if answer.status == 200:
            self._seen[key] = answer.etag
        self._note(key, Kind.READ, answer.etag if answer.status == 200 else None, answer)
        return answer.status in (200, 404)

    def list(self, key: str) -> bool:
        """One page is a read of each key: of its ETag, or that it is absent."""
        answer = self._ask("list", "GET", "", "list-type=2")
        if answer.status != 200:
            return False
        listed = {}
        for entry in _ENTRY.findall(answer.body):
            listed[_KEY.findall(entry)[0].decode()] = _ETAG.findall(entry)[0].decode()
        for each in self._keys:
            self._note(each, Kind.READ, listed.get(each), answer)
        return True


def _content_md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()


@dataclass
class Load:
    """`clients` threads with one history, over these gateways (none: all)."""

    cluster: Cluster
    bucket: str
    seed: int | str
    clients: int = 8
    keys: int = 8
    mix: Mapping[str, int] = field(default_factory=lambda: MIX)
    sizes: Sequence[int] = SIZES
    pause_seconds: float = 0.0
    gateways: Sequence[int] = ()
    history: History = field(default_factory=History)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [f"key-{number}" for number in range(self.keys)]
        credentials = self.cluster.credentials
        self.signer = Signer(credentials.access_key, credentials.secret_key)

    def client(self, name: str, endpoints: Sequence[str]) -> Client:
        chance = random.Random(f"{self.seed}/{name}")
        return Client(
            *(name, endpoints, self.signer, self.bucket, self.names, self.history, chance),
            sizes=self.sizes,
        )

    def __enter__(self) -> "Load":
        """Make the bucket and start."""
        s3 = S3Http(self.cluster.endpoint, self.signer)
        wait_until(
            lambda: s3.request("PUT", f"/{self.bucket}").status in (200, 409), what="the bucket"
        )
        for number in range(self.clients):
            thread = threading.Thread(target=self._run, args=(number,))
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        every = self.cluster.endpoints
        endpoints = [every[each] for each in self.gateways] or every
        client = self.client(f"client-{number}", endpoints)
        chance = random.Random(f"{self.seed}/kinds/{number}")
        kinds, weights = list(self.mix), list(self.mix.values())
        while not self._stop.is_set():
            answered = client.step(chance.choices(kinds, weights)[0])
            self._stop.wait(self.pause_seconds if answered else AFTER_FAILURE_SECONDS)

    def progress(self, writes: int, *, seconds_max: float = 60.0) -> None:
        """Wait until so many more changes were acknowledged."""
        wanted = self.history.acknowledged() + writes
        wait_until(
            lambda: bool(self.history.wrong) or self.history.acknowledged() >= wanted,
            what="progress of the load",
            seconds_max=seconds_max,
        )

    def verify(self, *, seconds_max: float = 60.0) -> None:
        """Read everything once more over each gateway, and judge the whole history."""
        for endpoint in self.cluster.endpoints:
            client = self.client(f"witness-{len(self.history.calls)}", [endpoint])
            for key in self.names:
                wait_until(lambda: client.get(key), what=f"a GET of {key}", seconds_max=seconds_max)  # noqa: B023
            wait_until(lambda: client.list(""), what="a listing", seconds_max=seconds_max)  # noqa: B023
        found = violations(self.history)
        assert not found, "\n".join(found[:3])

    def failed(self, names: Sequence[str]) -> list[Any]:
        """Calls of these names that were not answered as they should."""
        return [
            call
            for call in self.history.calls
            if call.name in names and (call.status in UNAVAILABLE or call.status == 0)
        ]
