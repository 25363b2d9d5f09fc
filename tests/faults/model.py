"""A store against a model in memory: one client, random operations from a seed, and faults of
processes between them. What was not answered is sent again until it is, as every operation here may
be, so that after each step the model is exactly what the store must say.
"""

import base64
import contextlib
import hashlib
import http.client
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from compose.local import Cluster, Process, wait_until
from compose.s3_http import Reply, quote_key, quote_query
from tests.faults.faults import TOLERANCE, kill_worker, s3_of, start_all
from tests.faults.history import etag_of, etag_of_parts
from tests.faults.load import UNAVAILABLE

KEYS = ("a", "a/b", "a/b/c", "b/", "b/ü", "c c", "d+", "z")
SIZES = (0, 1, 900, 40_000, 70_000, 300_000)
PART_BYTES_MIN = 5 << 20
ANSWER_SECONDS_MAX = 60.0
UPLOADS_MAX = 4
OPERATIONS = {
    "put": 10,
    "get": 8,
    "get_range": 4,
    "copy": 5,
    "delete": 4,
    "delete_many": 1,
    "create_upload": 3,
    "put_part": 6,
    "complete": 3,
    "abort": 1,
    "list_pages": 3,
    "list_parts": 2,
}
FAULTS = {
    "kill_node": 4,
    "start_node": 4,
    "kill_gateway": 2,
    "start_gateway": 3,
    "kill_a_worker": 2,
}
FAULT_CHANCE = 0.08
_KEY = re.compile(r"<(?:Key|Prefix)>(.*?)</(?:Key|Prefix)>")


@dataclass
class Upload:
    """A multipart upload that is open; part number to body."""

    key: str
    upload_id: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Object:
    body: bytes
    etag: str


class Model:
    """The bucket as it must be, and the client that makes it so."""

    def __init__(self, cluster: Cluster, bucket: str, seed: int | str) -> None:
        self.cluster = cluster
        self.bucket = bucket
        self.chance = random.Random(f"model/{seed}")
        self.objects: dict[str, Object] = {}
        self.uploads: list[Upload] = []
        self.done: Counter[str] = Counter()
        self.resent = 0
        self._gateways = [s3_of(cluster, number) for number in range(len(cluster.gateways))]
        assert self.ask("PUT", "", allowed=(200, 409)).status in (200, 409)

    def steps(self, count: int) -> None:
        """Random operations and faults; everything runs again when they are done."""
        for _ in range(count):
            table = FAULTS if self.chance.random() < FAULT_CHANCE else OPERATIONS
            name = self.chance.choices(list(table), list(table.values()))[0]
            step: Callable[[], None] = getattr(self, name)
            step()
            self.done[name] += 1
        start_all(self.cluster, [*self._nodes(), *self._gateway_processes()])

    def ask(
        self,
        method: str,
        key: str,
        query: str = "",
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        allowed: Sequence[int] = (200,),
    ) -> Reply:
        """Send until it is answered; an answer that is not allowed is a failure."""
        path = f"/{self.bucket}/{quote_key(key)}" if key else f"/{self.bucket}"
        found: list[Reply] = []

        def answered() -> bool:
            gateway = self.chance.choice(self._gateways)
            with contextlib.suppress(OSError, http.client.HTTPException):
                reply = gateway.request(method, path, query, headers=headers or {}, body=body)
                if reply.status not in UNAVAILABLE and b"<Code>SlowDown" not in reply.body[:300]:
                    found.append(reply)
                    return True
            self.resent += 1
            return False

        wait_until(answered, what=f"{method} {path}", seconds_max=ANSWER_SECONDS_MAX)
        assert found[0].status in allowed, (method, path, query, found[0].status, found[0].body)
        return found[0]

    # Objects

    def _key(self) -> str:
        return self.chance.choice(KEYS)

    def _body(self) -> bytes:
        return self.chance.randbytes(self.chance.choice(SIZES))

    def put(self) -> None:
        key, body = self._key(), self._body()
        reply = self.ask("PUT", key, body=body)
        assert reply["etag"] == f'"{etag_of(body)}"'
        self.objects[key] = Object(body, etag_of(body))

    def get(self) -> None:
        self._compare(self._key())

    def _compare(self, key: str) -> None:
        expected = self.objects.get(key)
        reply = self.ask("GET", key, allowed=(200, 404))
        head = self.ask("HEAD", key, allowed=(200, 404))
        if expected is None:
            assert (reply.status, head.status) == (404, 404), f"{key} is there"
        else:
            assert (reply.status, head.status) == (200, 200), f"{key} is lost"
            assert reply.body == expected.body, f"{key} has other bytes"
            assert reply["etag"] == head["etag"] == f'"{expected.etag}"'
            assert int(head["content-length"]) == len(expected.body)

    def get_range(self) -> None:
        full = [key for key, found in sorted(self.objects.items()) if found.body]
        if full:
            key = self.chance.choice(full)
            body = self.objects[key].body
            first = self.chance.randrange(len(body))
            last = self.chance.randrange(first, len(body))
            reply = self.ask("GET", key, headers={"range": f"bytes={first}-{last}"}, allowed=(206,))
            assert reply.body == body[first : last + 1], f"{key}: {first}-{last}"

    def copy(self) -> None:
        source, key = self._key(), self._key()
        if source == key:
            return
        headers = {"x-amz-copy-source": quote_key(f"/{self.bucket}/{source}")}
        reply = self.ask("PUT", key, headers=headers, allowed=(200, 404))
        assert (reply.status == 200) == (source in self.objects), (source, reply.body)
        if reply.status == 200:
            self.objects[key] = self._copied(key, self.objects[source])

    def _copied(self, key: str, source: Object) -> Object:
        """Of a multipart object the copy's ETag may be either form; its bytes may not."""
        etag = self.ask("HEAD", key)["etag"].strip('"')
        assert etag in (source.etag, etag_of(source.body)), (key, etag, source.etag)
        return Object(source.body, etag)

    def delete(self) -> None:
        key = self._key()
        self.ask("DELETE", key, allowed=(204,))
        self.objects.pop(key, None)

    def delete_many(self) -> None:
        keys = self.chance.sample(KEYS, 3)
        rows = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        body = f"<Delete>{rows}</Delete>".encode()
        while True:
            checksum = {"content-md5": _md5(body)}
            reply = self.ask("POST", "", "delete=", headers=checksum, body=body)
            if b"<Error>" not in reply.body:
                break
            self.resent += 1
        for key in keys:
            self.objects.pop(key, None)

    # Multipart uploads

    def create_upload(self) -> None:
        if len(self.uploads) < UPLOADS_MAX:
            key = self._key()
            text = self.ask("POST", key, "uploads=").body.decode()
            self.uploads.append(Upload(key, re.findall("<UploadId>(.*?)</UploadId>", text)[0]))

    def put_part(self) -> None:
        if self.uploads:
            upload = self.chance.choice(self.uploads)
            number, body = self.chance.randint(1, 2), self._body()
            if number == 1 and self.chance.random() < 0.3:
                body = self.chance.randbytes(PART_BYTES_MIN)
            query = quote_query({"partNumber": str(number), "uploadId": upload.upload_id})
            reply = self.ask("PUT", upload.key, query, body=body)
            assert reply["etag"] == f'"{etag_of(body)}"'
            upload.parts[number] = body

    def complete(self) -> None:
        ready = [each for each in self.uploads if each.parts]
        if not ready:
            return
        upload = self.chance.choice(ready)
        bodies = [body for _, body in sorted(upload.parts.items())]
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag_of(body)}</ETag></Part>"
            for number, body in sorted(upload.parts.items())
        )
        document = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        query = quote_query({"uploadId": upload.upload_id})
        small = any(len(body) < PART_BYTES_MIN for body in bodies[:-1])
        while True:
            reply = self.ask("POST", upload.key, query, body=document, allowed=(200, 400))
            if reply.status == 400 or b"<Error>" not in reply.body:
                break
            self.resent += 1  # the status had gone out before it failed
        if small:
            assert (reply.status, reply.code) == (400, "EntityTooSmall"), reply.body
            return
        etag = etag_of_parts(bodies)
        assert etag.encode() in reply.body, reply.body
        self.objects[upload.key] = Object(b"".join(bodies), etag)
        self.uploads.remove(upload)

    def abort(self) -> None:
        if self.uploads:
            upload = self.uploads.pop(self.chance.randrange(len(self.uploads)))
            query = quote_query({"uploadId": upload.upload_id})
            self.ask("DELETE", upload.key, query, allowed=(204, 404))
            assert self.ask("GET", upload.key, query, allowed=(404,)).code == "NoSuchUpload"

    def list_parts(self) -> None:
        for upload in self.uploads:
            query = quote_query({"uploadId": upload.upload_id})
            text = self.ask("GET", upload.key, query).body.decode()
            numbers = [int(each) for each in re.findall("<PartNumber>(.*?)<", text)]
            assert numbers == sorted(upload.parts), (upload.key, numbers)
            for body in upload.parts.values():
                assert etag_of(body) in text, upload.key

    # Listings

    def list_pages(self) -> None:
        prefix = self.chance.choice(("", "a", "a/", "b/", "nothing"))
        delimiter = self.chance.choice(("", "/"))
        self._compare_listing(prefix, delimiter, self.chance.randint(1, 4))

    def _compare_listing(self, prefix: str, delimiter: str, page_keys: int) -> None:
        asked = {"list-type": "2", "prefix": prefix, "max-keys": str(page_keys)}
        asked |= {"delimiter": delimiter} if delimiter else {}
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            text = self.ask("GET", "", quote_query(asked | more)).body.decode()
            # What is listed comes after the prefix that was asked for, which is said first.
            listed = _KEY.findall(re.sub("<Prefix>.*?</Prefix>|<Prefix/>", "", text, count=1))
            assert len(listed) <= page_keys
            found += listed
            token = re.findall("<NextContinuationToken>(.*?)<", text)
            if not token:
                break
            more = {"continuation-token": token[0]}
        assert sorted(found) == self._expected(prefix, delimiter), (prefix, delimiter, found)

    def _expected(self, prefix: str, delimiter: str) -> list[str]:
        names = set()
        for key in self.objects:
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                rolled = bool(delimiter) and delimiter in rest
                names.add(prefix + rest.partition("/")[0] + "/" if rolled else key)
        return sorted(names)

    def compare_all(self) -> None:
        """Every key, every listing and every upload, over each gateway by itself."""
        every = self._gateways
        for gateway in every:
            self._gateways = [gateway]
            for key in KEYS:
                self._compare(key)
            for prefix in ("", "a/"):
                for delimiter in ("", "/"):
                    self._compare_listing(prefix, delimiter, 3)
            self.list_parts()
        self._gateways = every

    # Faults

    def _nodes(self) -> list[Process]:
        return [node.process for node in self.cluster.nodes]

    def _gateway_processes(self) -> list[Process]:
        return [gateway.process for gateway in self.cluster.gateways]

    def kill_node(self) -> None:
        alive = [each for each in self._nodes() if each.running()]
        if len(self._nodes()) - len(alive) < TOLERANCE:
            self.chance.choice(alive).kill()

    def start_node(self) -> None:
        dead = [each for each in self._nodes() if not each.running()]
        if dead:
            start_all(self.cluster, [self.chance.choice(dead)])

    def kill_gateway(self) -> None:
        alive = [each for each in self._gateway_processes() if each.running()]
        if len(alive) > 1:
            self.chance.choice(alive).kill()

    def start_gateway(self) -> None:
        start_all(self.cluster, self._gateway_processes())

    def kill_a_worker(self) -> None:
        alive = [p for p in (*self._nodes(), *self._gateway_processes()) if p.running()]
        kill_worker(self.chance.choice(alive), self.chance)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()
