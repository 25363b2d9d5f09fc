"""The whole S3 port in this process, over engine and drives in memory, under attack: requests of
every row of the route table, whoever signs them, wherever the signature is, and all that they could
have changed."""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

from compose.s3_http import S3Http, Signer
from s3gw import limits
from s3gw.server.routes import ROWS, Asks, Row, Scope
from tests.attacks.test_signatures_of_every_route import Sent
from tests.compat.forms import Poster, encode
from tests.iam.conftest import Keys
from tests.iam.in_process import ROOT, Answer, Port

ENDPOINT = "http://s3.test"
TOKEN = "x-amz-security-token"
BUCKET, KEY, OTHER = "attacked", "kept", "elsewhere"
CONTENT = b"as it was"
STREAM_BODY = b"x" * 100
# Those whose body says what to authorize are given one that they take.
BODIES = {
    "DeleteObjects": f"<Delete><Object><Key>{KEY}</Key></Object></Delete>".encode(),
    "PutObjectTagging": b"<Tagging><TagSet></TagSet></Tagging>",
    "PutObjectLegalHold": b"<LegalHold><Status>ON</Status></LegalHold>",
    "PutObjectRetention": b"<Retention><Mode>GOVERNANCE</Mode>"
    b"<RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
}
SIGNED_ROWS = tuple(row for row in ROWS if row.asks is not Asks.NOBODY)
PLACES = ("header", "query")


@dataclass(frozen=True)
class Request:
    """A request of a row before it is signed."""

    row: Row
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def requests(
    upload_id: str, *, bucket: str = BUCKET, key: str = KEY, source: str = KEY
) -> Iterator[Request]:
    """Requests of every row, built or not, that signs; also of named versions. `source` is the key
    that copies and renames read."""
    paths = {Scope.SERVICE: "/", Scope.BUCKET: f"/{bucket}", Scope.OBJECT: f"/{bucket}/{key}"}
    values = {"uploadId": upload_id, "attributes": "", "id": "one"}
    for row in SIGNED_ROWS:
        terms = [term for term in row.query.split("&") if term]
        query = "&".join(t if "=" in t else f"{t}={values.get(t, '1')}" for t in terms)
        headers = dict.fromkeys(row.headers, f"/{bucket}/{source}")
        if row.name == "RenameObject":
            headers["x-amz-rename-source"] = f"/{bucket}/{source}"
        if row.name == "GetObjectAttributes":
            headers["x-amz-object-attributes"] = "ETag"
        body = BODIES.get(row.name, STREAM_BODY if row.body.kind == "stream" else b"")
        if body and row.body.kind == "xml":
            headers["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
        yield Request(row, paths[row.scope], query, headers, body)
        if row.version_action is not None and row.name != "DeleteObjects":
            named = f"{query}&versionId=null".removeprefix("&")
            yield Request(row, paths[row.scope], named, headers, body)


def http_of(keys: Keys) -> S3Http:
    return S3Http(ENDPOINT, Signer(keys.access_key, keys.secret_key))


def signed(request: Request, keys: Keys, place: str = "header") -> Sent:
    """The request signed by somebody, in its headers or (`query`) as a presigned URL."""
    signer = http_of(keys).signer
    headers = {"host": "s3.test", "content-length": str(len(request.body)), **request.headers}
    method, path, query = request.row.method, request.path, request.query
    if place == "query":
        if keys.token is not None:
            token = urllib.parse.quote(keys.token, safe="~")
            query = f"{query}&X-Amz-Security-Token={token}".removeprefix("&")
        query = signer.presigned(method, path, query, headers, expires_seconds=60)
        return Sent(method, path, query, headers, request.body)
    if keys.token is not None:
        headers[TOKEN] = keys.token
    digest = hashlib.sha256(request.body).hexdigest()
    sent, _ = signer.headers(method, path, query, headers, digest)
    return Sent(method, path, query, sent, request.body)


def form(keys: Keys, fields: dict[str, str], *, version: int = 4, bucket: str = BUCKET) -> Sent:
    """A form upload signed by somebody."""
    exact = [{name: value} for name, value in fields.items()]
    poster = Poster(http_of(keys), bucket)
    named = poster.signed(fields, exact, version=version, token=keys.token or "")
    return posted(named.items(), bucket=bucket)


def posted(fields: object, *, bucket: str = BUCKET) -> Sent:
    """A form as it is."""
    kind, body = encode(fields, STREAM_BODY)  # type: ignore[arg-type]
    headers = {"host": "s3.test", "content-type": kind, "content-length": str(len(body))}
    return Sent("POST", f"/{bucket}", "", headers, body)


def code_of(answer: Answer) -> str:
    """The error code in the body of an answer, or ""."""
    return answer.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


@dataclass
class Attacked:
    """A store with two buckets, an object in each, and an upload that has begun."""

    port: Port
    upload_id: str = ""

    @classmethod
    async def open(cls, port: Port) -> Attacked:
        attacked = cls(port)
        for bucket in (BUCKET, OTHER):
            assert (await port.send("PUT", f"/{bucket}")).status == 200
            assert (await port.send("PUT", f"/{bucket}/{KEY}", CONTENT)).status == 200
        begun = await port.send("POST", f"/{BUCKET}/{KEY}?uploads=")
        attacked.upload_id = begun.text("UploadId")
        return attacked

    async def send(self, sent: Sent) -> Answer:
        return await self.port.send_as_is(
            sent.method, sent.path, sent.query, sent.headers, sent.body
        )

    async def ask(self, request: Request, keys: Keys = ROOT, place: str = "header") -> Answer:
        return await self.send(signed(request, keys, place))

    async def keys(self, bucket: str = BUCKET) -> set[str]:
        """The keys of a bucket, as root lists them."""
        answer = await self.port.send("GET", f"/{bucket}?encoding-type=url&list-type=2")
        pieces = answer.body.decode().split("<Key>")[1:]
        return {urllib.parse.unquote_plus(piece.partition("</Key>")[0]) for piece in pieces}

    async def state(self) -> dict[bytes, int]:
        """Everything that is kept: each key of the engine with the revision of its last change, and
        the shards of each drive."""
        found: dict[bytes, int] = {}
        start = b"\0"
        while True:
            kv = self.port.process.kv
            page = await kv.scan(start, b"\xff" * 16, limit=limits.SCAN_ITEMS_MAX)
            found |= {item.key: item.revision for item in page.items}
            if not page.more:
                break
            start = page.items[-1].key + b"\0"
        for name, drive in self.port.process.cluster.drives.items():
            found[f"shards of {name}".encode()] = len(drive.shards)
        return found
