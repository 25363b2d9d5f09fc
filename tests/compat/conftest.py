"""The S3 servers that the compat tests run against, and the clients they use.

With S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY in the environment the same tests run against
that server (S3_ENDPOINT may list several gateways of one store, separated by commas). Otherwise
each test runs over both forms of our own store: `sqlite` (`s3gw up`) and `etcd` (a real etcd, six
node processes, two gateways).
"""

import json
import os
import secrets
import threading
import urllib.parse
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from compose.local import Cluster, Credentials, Up, running
from compose.s3_http import S3Http, Signer
from tests import sdk

BACKENDS = ("given",) if "S3_ENDPOINT" in os.environ else ("sqlite", "etcd")
REGION = "us-east-1"
DOMAIN = os.environ.get("S3_DOMAIN", "s3.test")
"""The name below which buckets are host names (virtual-host-style addressing)."""
WEBSITE_DOMAIN = os.environ.get("S3_WEBSITE_DOMAIN", "web.test")
"""The name below which buckets are websites."""
ENVIRONMENT = {
    "S3GW_DOMAINS": DOMAIN,
    "S3GW_WEBSITE_DOMAINS": WEBSITE_DOMAIN,
    "S3GW_ALLOW_SSEC_OVER_HTTP": "true",
    "S3GW_ACCESS_LOG_SECONDS": "0.5",
    "S3GW_MASTER_KEY": b64encode(os.urandom(32)).decode(),
}


@dataclass(frozen=True)
class Server:
    """One S3 store and how to reach it."""

    endpoints: list[str]
    access_key: str
    secret_key: str
    domain: str = DOMAIN
    website_domain: str = WEBSITE_DOMAIN
    admin: str = ""

    @property
    def endpoint(self) -> str:
        return self.endpoints[0]

    def client(self, endpoint: str | None = None, **config: Any) -> Any:
        """A boto3 client with the SDK's defaults, but without retries, which would hide errors."""
        return sdk.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32, **config),
        )

    def http(self, endpoint: str | None = None) -> S3Http:
        return S3Http(endpoint or self.endpoint, Signer(self.access_key, self.secret_key))


@contextmanager
def _serve(backend: str, directory: Path) -> Iterator[Server]:
    if backend == "given":
        yield Server(
            os.environ["S3_ENDPOINT"].split(","),
            os.environ["S3_ACCESS_KEY"],
            os.environ["S3_SECRET_KEY"],
        )
        return
    credentials = Credentials.generate()
    common: Any = {"credentials": credentials, "environment": ENVIRONMENT}
    store: Up | Cluster
    if backend == "sqlite":
        store = Up(directory / "store", **common)
    else:
        store = Cluster(directory / "store", nodes=6, gateways=2, **common)
    with running(store):
        admin = store.admin if isinstance(store, Up) else store.gateways[0].admin
        yield Server(store.endpoints, credentials.access_key, credentials.secret_key, admin=admin)


@pytest.fixture(scope="session", params=BACKENDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with _serve(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture(scope="session")
def endpoint(server: Server) -> str:
    return server.endpoint


@pytest.fixture(scope="session")
def s3(server: Server) -> Any:
    return server.client()


@pytest.fixture(scope="session")
def http(server: Server) -> S3Http:
    return server.http()


def _fits_xml(key: str) -> bool:
    """Whether XML 1.0, and so a DeleteObjects request, can hold the key."""
    return all(char >= " " and char not in "\ufffe\uffff" for char in key)


DELIVERIES_MAX = 5


def empty_bucket(s3: Any, name: str) -> None:
    while True:
        page = s3.list_object_versions(Bucket=name, EncodingType="url")
        versions = [
            {"Key": urllib.parse.unquote(entry["Key"]), "VersionId": entry["VersionId"]}
            for entry in page.get("Versions", []) + page.get("DeleteMarkers", [])
        ]
        if not versions:
            break
        for version in (version for version in versions if not _fits_xml(version["Key"])):
            s3.delete_object(Bucket=name, **version)
        objects = [version for version in versions if _fits_xml(version["Key"])]
        if objects:
            reply = s3.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
            assert not reply.get("Errors"), reply["Errors"]
        if not page["IsTruncated"]:
            break
    uploads = s3.list_multipart_uploads(Bucket=name, EncodingType="url").get("Uploads", [])
    for upload in uploads:
        key = urllib.parse.unquote_plus(upload["Key"])
        s3.abort_multipart_upload(Bucket=name, Key=key, UploadId=upload["UploadId"])


def remove_bucket(s3: Any, http: S3Http, name: str) -> None:
    """With what is in it; most tests leave nothing. The store may still deliver what it owes (an
    access log) when a bucket is being emptied: as many times as it does that."""
    for _ in range(DELIVERIES_MAX):
        reply = http.request("DELETE", f"/{name}")
        if reply.status == 204:
            return
        assert (reply.status, reply.code) == (409, "BucketNotEmpty")
        empty_bucket(s3, name)
    s3.delete_bucket(Bucket=name)


MakeBucket = Callable[[], str]


@pytest.fixture
def make_bucket(s3: Any, http: S3Http) -> Iterator[MakeBucket]:
    """Creates buckets with fresh names; they are emptied and removed after the test. Not by boto3,
    whose two requests would cost most tests more than what they test."""
    made: list[str] = []

    def make() -> str:
        name = f"compat-{secrets.token_hex(8)}"
        reply = http.request("PUT", f"/{name}")
        assert reply.status == 200, reply.body
        made.append(name)
        return name

    yield make
    for name in made:
        remove_bucket(s3, http, name)


@pytest.fixture
def bucket(make_bucket: MakeBucket) -> str:
    return make_bucket()


@pytest.fixture
def missing_bucket() -> str:
    return f"missing-{secrets.token_hex(8)}"


@pytest.fixture
def refused() -> Callable[[str, int], AbstractContextManager[None]]:
    """`with refused("NoSuchKey", 404): …` — the block must be answered with exactly this error."""

    @contextmanager
    def expect(code: str, status: int) -> Iterator[None]:
        with pytest.raises(ClientError) as caught:
            yield
        response = caught.value.response
        found = (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"])
        assert found == (code, status), caught.value

    return expect


@pytest.fixture
def upload_parts(s3: Any) -> Callable[..., Any]:
    """`upload_parts(bucket, key, bodies, **create)` → (upload id, list of parts for Complete)."""

    def upload(bucket: str, key: str, bodies: list[bytes], **create: Any) -> Any:
        created = s3.create_multipart_upload(Bucket=bucket, Key=key, **create)
        target = {"Bucket": bucket, "Key": key, "UploadId": created["UploadId"]}
        if "ChecksumAlgorithm" in create:
            target["ChecksumAlgorithm"] = create["ChecksumAlgorithm"]
        parts = []
        for number, body in enumerate(bodies, 1):
            reply = s3.upload_part(**target, PartNumber=number, Body=body)
            sums = {name: value for name, value in reply.items() if name.startswith("Checksum")}
            parts.append({"PartNumber": number, "ETag": reply["ETag"], **sums})
        return created["UploadId"], parts

    return upload


@pytest.fixture(scope="session")
def thousands(server: Server, s3: Any) -> Iterator[tuple[str, list[str]]]:
    """A bucket of 1,005 small objects, and its keys in order: more than one page of anything."""
    name = f"compat-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name)
    keys = [f"key-{number:04}" for number in range(1005)]
    clients = threading.local()

    def put(key: str) -> None:
        if not hasattr(clients, "s3"):
            clients.s3 = server.client(request_checksum_calculation="when_required")
        clients.s3.put_object(Bucket=name, Key=key, Body=key.encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, keys))
    yield name, keys
    empty_bucket(s3, name)
    s3.delete_bucket(Bucket=name)


TREE = ("a", "a/", "a/b", "a/b/c", "a/d", "ab", "b-1", "b-2", "c", "é", "～", "😀")
"""Keys in the order of their UTF-8 bytes (in UTF-16 the last two would change places)."""


@pytest.fixture
def tree(s3: Any, bucket: str) -> str:
    """A bucket with the objects of TREE, written in another order."""
    for key in reversed(TREE):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


PutPolicy = Callable[..., None]


@pytest.fixture
def put_policy(s3: Any) -> PutPolicy:
    """`put_policy(bucket, {"Effect": …}, …)`: statements about everyone and, unless they say
    otherwise, about reading every object."""

    def put(bucket: str, *statements: dict[str, Any]) -> None:
        s3.put_bucket_policy(Bucket=bucket, Policy=policy_of(bucket, *statements))

    return put


def policy_of(bucket: str, *statements: dict[str, Any]) -> str:
    default = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    filled = [{**default, **statement} for statement in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": filled})


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    """A bucket with versioning."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


@pytest.fixture
def suspend(s3: Any) -> Callable[[str], None]:
    """`suspend(bucket)`: suspended versioning from here on."""

    def change(bucket: str) -> None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})

    return change


@pytest.fixture
def history(s3: Any) -> Callable[..., list[tuple[str, str, bool]]]:
    """`history(bucket, Prefix=…)`: key, version id, latest of all versions, then of all
    markers, both in the order of the listing; a marker's key has a `-` in front."""

    def read(bucket: str, **asked: Any) -> list[tuple[str, str, bool]]:
        page = s3.list_object_versions(Bucket=bucket, **asked)
        found = [(entry["Key"], entry, "") for entry in page.get("Versions", [])]
        found += [(entry["Key"], entry, "-") for entry in page.get("DeleteMarkers", [])]
        return [(sign + key, entry["VersionId"], entry["IsLatest"]) for key, entry, sign in found]

    return read


@pytest.fixture
def listed(s3: Any, bucket: str) -> str:
    """A bucket in which access control lists count."""
    controls = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)
    return bucket


ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"


@pytest.fixture
def grants_of() -> Callable[[Any], set[tuple[str, str]]]:
    """`grants_of(reply)`: (`owner` or the end of a group's URI, permission) of each grant."""

    def read(reply: Any) -> set[tuple[str, str]]:
        owner = reply["Owner"]["ID"]
        found = set()
        for grant in reply["Grants"]:
            grantee = grant["Grantee"]
            name = grantee.get("URI", "").rpartition("/")[2] or grantee["ID"]
            found.add(("owner" if name == owner else name, grant["Permission"]))
        assert len(found) == len(reply["Grants"])
        return found

    return read
