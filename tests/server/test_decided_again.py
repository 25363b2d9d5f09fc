"""What changes between the authorization of a request and its commit: the commit is authorized too.

Requests go through the S3 port of one process. At a chosen call of the engine another process
changes what the authorization rested on. `LOADED`: when the pipeline has read the bucket; what the
operation reads itself comes later. `COMMIT`: before the first commit, when all was read.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

import msgspec
import pytest

from s3gw.buckets import acl, public_access
from s3gw.errors import AccessDenied
from s3gw.kv.interface import KV, Guard, Key, Page, Reading, Write
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord
from s3gw.objects import publish
from s3gw.objects.buckets import change_bucket, create_bucket
from s3gw.objects.change import change_version
from s3gw.operations.access import POLICY_DOCUMENT
from s3gw.operations.bucket_documents import with_document
from s3gw.operations.delivery import LOGGING_SERVICE, Delivery, send
from s3gw.wire.version_ids import encode_version_id
from tests.iam.in_process import Answer, Port
from tests.stores import operations
from tests.stores.crashing_kv import CrashingKV, Fuse
from tests.stores.memory_store import BUCKET, PROFILE, MemoryCluster, Process

LOADED, COMMIT = "loaded", "commit"
LARGE = b"content " * 20_000
RECORDS = (
    keys.BUCKETS,
    keys.OBJECTS,
    keys.VERSIONS,
    keys.UPLOADS,
    b"part/",
    b"manifest/",
    b"configuration/",
    keys.BLOBS,
)
COUNTERS = (keys.COUNTS, b"usage/")
Meanwhile = Callable[[Process], Awaitable[object]]


class WatchedKV(CrashingKV):
    """Counts the calls of one request, and lets something happen at one of them."""

    def __init__(self, kv: KV) -> None:
        super().__init__(kv, Fuse())
        self.calls: Counter[str] = Counter()
        self.at, self.meanwhile = "", None
        self.happened = False

    def watch_for(self, at: str, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self.calls.clear()
        self.at, self.meanwhile, self.happened = at, meanwhile, False

    async def _happen(self, at: str) -> None:
        if at == self.at and not self.happened and self.meanwhile is not None:
            self.happened = True
            await self.meanwhile()

    async def get_many(self, keys: Sequence[Key]) -> Reading:
        if not all(key.startswith(COUNTERS) for key in keys):  # a process reads each once
            self.calls["get"] += 1
        reading = await super().get_many(keys)
        await self._happen(LOADED)
        return reading

    async def scan(
        self,
        start: Key,
        end: Key,
        *,
        limit: int,
        revision: int | None = None,
        keys_only: bool = False,
    ) -> Page:
        self.calls["scan"] += 1
        return await super().scan(start, end, limit=limit, revision=revision, keys_only=keys_only)

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int:
        self.calls["commit"] += 1
        await self._happen(COMMIT)
        return await super().commit(guards, writes)


@dataclass
class Gateway:
    """A port over a watched engine, and another process of the same store."""

    cluster: MemoryCluster
    kv: WatchedKV
    port: Port
    other: Process

    @classmethod
    async def open(cls, cluster: MemoryCluster) -> Gateway:
        kv = WatchedKV(cluster.kv())
        port = await Port.open(await cluster.process(kv))
        return cls(cluster, kv, port, await cluster.process(seed=9))

    def records(self) -> dict[bytes, bytes]:
        return {
            key: item.value
            for key, item in self.cluster.engine.items.items()
            if key.startswith(RECORDS) or key.startswith(b"usage/")
        }


@pytest.fixture
async def gateway(memory_cluster: MemoryCluster) -> Gateway:
    return await Gateway.open(memory_cluster)


@dataclass(frozen=True)
class Ask:
    """A request, and what there is before it."""

    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    signed: bool = True

    async def send(self, gateway: Gateway) -> Answer:
        headers = dict(self.headers)
        if self.method in ("PUT", "POST") and self.body.startswith(b"<"):
            headers["content-md5"] = b64encode(md5(self.body).digest()).decode()
        if self.signed:
            return await gateway.port.send(self.method, self.target, self.body, headers=headers)
        path, _, query = self.target.partition("?")
        headers |= {"host": "s3.test", "content-length": str(len(self.body))}
        return await gateway.port.send_as_is(self.method, path, query, headers, self.body)


def document(*statements: dict[str, Any]) -> bytes:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}).encode()


def statement(effect: str, action: str, **more: Any) -> dict[str, Any]:
    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    return {"Effect": effect, "Principal": "*", "Action": action, "Resource": resources, **more}


def set_policy(policy: bytes) -> Meanwhile:
    return lambda process: change_bucket(
        process.storage, BUCKET, lambda bucket: with_document(bucket, POLICY_DOCUMENT, policy)
    )


DENY_ALL = set_policy(document(statement("Deny", "s3:*")))
ALLOW_ALL = set_policy(document(statement("Allow", "s3:*")))


async def versioned(process: Process, bucket: str = BUCKET) -> None:
    def locked(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, versioning="Enabled", object_lock=True)

    await change_bucket(process.storage, bucket, locked)


async def prepared(gateway: Gateway) -> dict[str, str]:
    """Objects, an upload with a part, an encrypted object; names for targets."""
    process = gateway.other
    first = await operations.put(process, "old", b"first")
    await operations.put(process, "old", LARGE)
    await operations.put(process, "source", LARGE)
    upload = await operations.start(process, "new")
    await operations.part(process, "new", upload, 1, LARGE)
    sealed = Ask("PUT", f"/{BUCKET}/sealed", LARGE, {"x-amz-server-side-encryption": "AES256"})
    assert (await sealed.send(gateway)).status == 200
    tagged = Ask("PUT", f"/{BUCKET}/tagged", b"content", {"x-amz-tagging": "a=b"})
    assert (await tagged.send(gateway)).status == 200
    return {
        "first": encode_version_id(first.sequence),
        "upload": upload.hex(),
        "etag": md5(LARGE).hexdigest(),
        "bucket": BUCKET,
    }


TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
RETAIN = (
    b"<Retention><Mode>GOVERNANCE</Mode>"
    b"<RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>"
)
COMPLETE = (
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>%(etag)b</ETag></Part>"
    b"</CompleteMultipartUpload>"
)
CORS = (
    b"<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod>"
    b"<AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>"
)
METRICS = b"<MetricsConfiguration><Id>a</Id></MetricsConfiguration>"
KEY = b"<ObjectEncryption><SSE-KMS><KMSKeyArn>default</KMSKeyArn></SSE-KMS></ObjectEncryption>"
WRITES = {
    "PutObject": Ask("PUT", "/%(bucket)s/new", b"content"),
    "PutObject of a large one": Ask("PUT", "/%(bucket)s/new", LARGE),
    "PutObject over another": Ask("PUT", "/%(bucket)s/old", b"content"),
    "DeleteObject": Ask("DELETE", "/%(bucket)s/old"),
    "DeleteObject of a version": Ask("DELETE", "/%(bucket)s/old?versionId=%(first)s"),
    "CopyObject": Ask("PUT", "/%(bucket)s/new", headers={"x-amz-copy-source": "%(bucket)s/source"}),
    "CopyObject, written anew": Ask(
        "PUT",
        "/%(bucket)s/new",
        headers={"x-amz-copy-source": "%(bucket)s/source", "x-amz-checksum-algorithm": "SHA1"},
    ),
    "RenameObject": Ask(
        "PUT",
        "/%(bucket)s/new?renameObject=",
        headers={"x-amz-rename-source": "/%(bucket)s/source"},
    ),
    "CreateMultipartUpload": Ask("POST", "/%(bucket)s/new?uploads="),
    "UploadPart": Ask("PUT", "/%(bucket)s/new?partNumber=2&uploadId=%(upload)s", LARGE),
    "UploadPartCopy": Ask(
        "PUT",
        "/%(bucket)s/new?partNumber=2&uploadId=%(upload)s",
        headers={"x-amz-copy-source": "%(bucket)s/source"},
    ),
    "UploadPartCopy of a range": Ask(
        "PUT",
        "/%(bucket)s/new?partNumber=2&uploadId=%(upload)s",
        headers={
            "x-amz-copy-source": "%(bucket)s/source",
            "x-amz-copy-source-range": "bytes=1-70000",
        },
    ),
    "CompleteMultipartUpload": Ask("POST", "/%(bucket)s/new?uploadId=%(upload)s", COMPLETE),
    "AbortMultipartUpload": Ask("DELETE", "/%(bucket)s/new?uploadId=%(upload)s"),
    "PutObjectTagging": Ask("PUT", "/%(bucket)s/old?tagging=", TAGS),
    "DeleteObjectTagging": Ask("DELETE", "/%(bucket)s/tagged?tagging="),
    "PutObjectAcl": Ask("PUT", "/%(bucket)s/old?acl=", headers={"x-amz-acl": "public-read"}),
    "PutObjectRetention": Ask("PUT", "/%(bucket)s/old?retention=", RETAIN),
    "PutObjectLegalHold": Ask(
        "PUT", "/%(bucket)s/old?legal-hold=", b"<LegalHold><Status>ON</Status></LegalHold>"
    ),
    "UpdateObjectEncryption": Ask("PUT", "/%(bucket)s/sealed?encryption=", KEY),
    "PutBucketTagging": Ask("PUT", "/%(bucket)s?tagging=", TAGS),
    "PutBucketAcl": Ask("PUT", "/%(bucket)s?acl=", headers={"x-amz-acl": "public-read"}),
    "PutBucketCors": Ask("PUT", "/%(bucket)s?cors=", CORS),
    "PutBucketMetricsConfiguration": Ask("PUT", "/%(bucket)s?metrics=&id=a", METRICS),
}


def filled(ask: Ask, names: dict[str, str]) -> Ask:
    raw = {name.encode(): text.encode() for name, text in names.items()}
    return Ask(
        ask.method,
        ask.target % names,
        ask.body % raw if ask.body is COMPLETE else ask.body,
        {name: text % names for name, text in ask.headers.items()},
        ask.signed,
    )


async def with_lists(process: Process) -> None:
    """Let access control lists count in the bucket."""
    written = b"ObjectWriter"
    await change_bucket(
        process.storage,
        BUCKET,
        lambda bucket: with_document(bucket, acl.OWNERSHIP_DOCUMENT, written),
    )


async def ready(gateway: Gateway) -> dict[str, str]:
    """What the requests of `WRITES` need."""
    await with_lists(gateway.other)
    await versioned(gateway.other)
    return await prepared(gateway)


@pytest.mark.parametrize("at", [LOADED, COMMIT])
@pytest.mark.parametrize("name", WRITES)
async def test_a_policy_that_denies_by_the_commit_denies(
    gateway: Gateway, name: str, at: str
) -> None:
    ask = filled(WRITES[name], await ready(gateway))
    there: list[dict[bytes, bytes]] = []

    async def deny() -> None:
        await DENY_ALL(gateway.other)
        there.append(gateway.records())

    gateway.kv.watch_for(at, deny)
    answer = await ask.send(gateway)
    assert gateway.kv.happened
    assert (answer.status, answer.text("Code")) == (403, "AccessDenied")
    left = gateway.records()
    if name == "CompleteMultipartUpload":  # it was taken and given back; pages are not seen
        assert changed(left, there[0]) <= {keys.UPLOADS, b"manifest/"}
        await ALLOW_ALL(gateway.other)
        assert (await ask.send(gateway)).status == 200
    else:
        assert left == there[0]


def changed(now: dict[bytes, bytes], before: dict[bytes, bytes]) -> set[bytes]:
    """The prefixes under which something is another."""
    return {
        prefix
        for key in now.keys() | before.keys()
        if now.get(key) != before.get(key)
        for prefix in RECORDS
        if key.startswith(prefix)
    }


@pytest.mark.parametrize("name", WRITES)
async def test_a_policy_that_still_allows_by_the_commit_does_not_matter(
    gateway: Gateway, name: str
) -> None:
    ask = filled(WRITES[name], await ready(gateway))
    gateway.kv.watch_for(COMMIT, lambda: ALLOW_ALL(gateway.other))
    answer = await ask.send(gateway)
    assert gateway.kv.happened
    assert answer.status in (200, 204), answer.body


@pytest.mark.parametrize("at", [LOADED, COMMIT])
async def test_each_key_of_delete_objects_is_decided_on_what_its_commit_rests_on(
    gateway: Gateway, at: str
) -> None:
    for key in ("a", "b"):
        await operations.put(gateway.other, key, b"content")
    denied = statement("Deny", "s3:DeleteObject", Resource=f"arn:aws:s3:::{BUCKET}/a")
    gateway.kv.watch_for(at, lambda: set_policy(document(denied))(gateway.other))
    body = b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object></Delete>"
    answer = await Ask("POST", f"/{BUCKET}?delete=", body).send(gateway)
    assert gateway.kv.happened
    assert answer.status == 200
    assert answer.body.count(b"<Deleted>") == 1
    assert answer.text("Code") == "AccessDenied"
    assert await operations.record(gateway.other, "a") is not None
    assert await operations.record(gateway.other, "b") is None


KEPT = {"StringEquals": {"s3:ExistingObjectTag/keep": "yes"}}


@pytest.mark.parametrize("name", ["DeleteObject", "PutObject over another", "PutObjectTagging"])
async def test_tags_given_meanwhile_count(gateway: Gateway, name: str) -> None:
    """The key's record is another at the commit, the bucket's is not."""
    names = await ready(gateway)
    await set_policy(document(statement("Deny", "s3:*", Condition=KEPT)))(gateway.other)

    async def tag() -> None:
        target = await publish.read_target(gateway.other.storage, BUCKET, "old")
        await change_version(
            gateway.other.storage,
            target,
            lambda record: msgspec.structs.replace(
                record,
                description=msgspec.structs.replace(record.description, tags={"keep": "yes"}),
            ),
        )

    gateway.kv.watch_for(COMMIT, tag)
    answer = await filled(WRITES[name], names).send(gateway)
    assert gateway.kv.happened
    assert (answer.status, answer.text("Code")) == (403, "AccessDenied")
    found = await operations.record(gateway.other, "old")
    assert found is not None
    assert found.description.tags == {"keep": "yes"}


PUBLIC = {"x-amz-acl": "public-read"}


@pytest.mark.parametrize("at", [LOADED, COMMIT])
@pytest.mark.parametrize(
    "ask",
    [
        Ask("PUT", f"/{BUCKET}/new", b"content", PUBLIC),
        Ask("PUT", f"/{BUCKET}/old?acl=", headers=PUBLIC),
        Ask("POST", f"/{BUCKET}/new?uploads=", headers=PUBLIC),
        Ask("PUT", f"/{BUCKET}?acl=", headers=PUBLIC),
    ],
    ids=["PutObject", "PutObjectAcl", "CreateMultipartUpload", "PutBucketAcl"],
)
async def test_public_lists_blocked_meanwhile_are_not_written(
    gateway: Gateway, ask: Ask, at: str
) -> None:
    await ready(gateway)
    block = public_access.to_store(public_access.PublicAccessBlock(block_public_acls=True))
    gateway.kv.watch_for(
        at,
        lambda: change_bucket(
            gateway.other.storage,
            BUCKET,
            lambda bucket: with_document(bucket, public_access.DOCUMENT, block),
        ),
    )
    answer = await ask.send(gateway)
    assert gateway.kv.happened
    assert (answer.status, answer.text("Code")) == (403, "AccessDenied")
    records = gateway.records()
    assert not any(key.startswith(keys.object_(BUCKET, "new")) for key in records)
    old = await operations.record(gateway.other, "old")
    assert old is not None
    assert old.description.acl == b""


@pytest.mark.parametrize("at", [LOADED, COMMIT])
async def test_a_bucket_closed_meanwhile_takes_nothing_from_strangers(
    gateway: Gateway, at: str
) -> None:
    await ALLOW_ALL(gateway.other)
    stranger = Ask("PUT", f"/{BUCKET}/new", b"content", signed=False)
    assert (await stranger.send(gateway)).status == 200
    closed = Ask("PUT", f"/{BUCKET}/another", b"content", signed=False)
    gateway.kv.watch_for(
        at, lambda: set_policy(document(statement("Allow", "s3:GetObject")))(gateway.other)
    )
    answer = await closed.send(gateway)
    assert gateway.kv.happened
    assert answer.status == 403
    assert await operations.record(gateway.other, "another") is None


@pytest.mark.parametrize("name", ["CopyObject", "UploadPartCopy"])
async def test_a_source_in_another_bucket_closed_meanwhile_is_not_copied(
    gateway: Gateway, name: str
) -> None:
    """Its bucket's record guards nothing; only where the key is read again, it is asked again."""
    names = await ready(gateway)
    await create_bucket(
        gateway.other.storage,
        "other-bucket",
        owner="owner",
        region="us-east-1",
        profile=PROFILE,
        object_lock=False,
        tags={},
    )
    put = Ask("PUT", "/other-bucket/source", LARGE)
    assert (await put.send(gateway)).status == 200
    resource = {"Resource": "arn:aws:s3:::other-bucket/*"}
    denied = document(statement("Deny", "s3:GetObject", **resource))

    async def deny() -> None:
        await change_bucket(
            gateway.other.storage,
            "other-bucket",
            lambda bucket: with_document(bucket, POLICY_DOCUMENT, denied),
        )
        await gateway.port.another()  # nothing of this process is asked
        target = await publish.read_target(gateway.other.storage, "other-bucket", "source")
        await change_version(
            gateway.other.storage,
            target,
            lambda record: msgspec.structs.replace(
                record, description=msgspec.structs.replace(record.description, tags={"a": "b"})
            ),
        )

    ask = filled(WRITES[name], names)
    headers = {**ask.headers, "x-amz-copy-source": "other-bucket/source"}
    gateway.kv.watch_for(COMMIT, deny)
    answer = await Ask(ask.method, ask.target, headers=headers).send(gateway)
    assert gateway.kv.happened
    assert (answer.status, answer.text("Code")) == (403, "AccessDenied")


@pytest.mark.parametrize("at", [LOADED, COMMIT])
async def test_nothing_is_delivered_into_a_bucket_closed_meanwhile(
    gateway: Gateway, at: str
) -> None:
    """Inventory reports and access logs."""
    storage = gateway.port.process.storage
    delivery = Delivery(LOGGING_SERVICE, "source", "owner")
    await send(storage, delivery, BUCKET, "before", b"lines", "text/plain")
    gateway.kv.watch_for(at, lambda: DENY_ALL(gateway.other))
    with pytest.raises(AccessDenied):
        await send(storage, delivery, BUCKET, "after", b"lines", "text/plain")
    assert gateway.kv.happened
    assert await operations.record(gateway.other, "before") is not None
    assert await operations.record(gateway.other, "after") is None


PLAIN = {
    "PutObject": {"get": 1, "commit": 1},
    "PutObject of a large one": {"get": 1, "commit": 1},
    "PutObject over another": {"get": 1, "commit": 1},
    "DeleteObject": {"get": 1, "commit": 1},
    "CopyObject": {"get": 2, "commit": 1},
    "CreateMultipartUpload": {"get": 2, "commit": 1},
    "UploadPart": {"get": 2, "commit": 1},
    "AbortMultipartUpload": {"get": 2, "scan": 1, "commit": 1},
    "PutObjectTagging": {"get": 1, "commit": 1},
}
READS = {
    "GetObject": Ask("GET", f"/{BUCKET}/old"),
    "HeadObject": Ask("HEAD", f"/{BUCKET}/old"),
}


@pytest.mark.parametrize("policy", [False, True], ids=["plain", "policy"])
@pytest.mark.parametrize("name", [*PLAIN, *READS])
async def test_what_nobody_disturbs_costs_no_call_of_the_engine_more(
    gateway: Gateway, name: str, policy: bool
) -> None:
    names = await prepared(gateway)
    if policy:
        await ALLOW_ALL(gateway.other)
    assert (await Ask("PUT", f"/{BUCKET}/warm", LARGE).send(gateway)).status == 200
    gateway.kv.watch_for("", lambda: ALLOW_ALL(gateway.other))
    ask = READS[name] if name in READS else filled(WRITES[name], names)
    answer = await ask.send(gateway)
    assert answer.status in (200, 204), answer.body
    assert gateway.kv.calls == Counter(PLAIN.get(name, {"get": 1}))
