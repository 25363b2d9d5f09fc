"""Which requests the access log of a bucket is told of, and what it is told."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest

from s3gw.metadata.records import BucketRecord
from s3gw.metrics import Metrics
from s3gw.operations.call import Settings
from s3gw.server.access_log import operation_name
from s3gw.server.pipeline import Edge, S3App
from s3gw.server.resolve import Domains, Resolved
from s3gw.server.routes import ROWS
from s3gw.workers.access_logs import AccessLogs
from tests.iam.conftest import Keys
from tests.iam.in_process import ROOT, Port
from tests.stores.memory_store import PROFILE, Process
from tests.workers.test_access_logs import delivered

STATUS = b"""<BucketLoggingStatus><LoggingEnabled><TargetBucket>logs</TargetBucket>
<TargetPrefix></TargetPrefix></LoggingEnabled></BucketLoggingStatus>"""


class Heard(AccessLogs):
    """The logs of a process, which also keeps its lines where a test can see them."""

    heard: list[tuple[str, str]]

    def add(self, bucket_name: str, bucket: BucketRecord, seconds: float, line: bytes) -> None:
        super().add(bucket_name, bucket, seconds, line)
        self.heard.append((bucket_name, line.decode()))


@pytest.fixture
async def heard(memory_store: Process) -> tuple[Port, Heard]:
    """The port, with two buckets of which `logged` has a log; what was told so far is forgotten."""
    port = await Port.open(memory_store)
    logs = Heard(
        memory_store.storage, region="us-east-1", interval_seconds=60, buffer_bytes=1 << 20
    )
    logs.heard = []
    settings = Settings("us-east-1", PROFILE, "http://s3.test")
    port.app = S3App(  # type: ignore[assignment]
        Edge(memory_store.storage, port.view, settings, Domains(), Metrics(), access_log=logs)
    )
    for name in ("logs", "logged", "quiet"):
        assert (await port.send("PUT", f"/{name}")).status == 200
    assert (await port.send("PUT", "/logged?logging=", STATUS)).status == 200
    assert (await port.send("PUT", "/logged/k", b"12345")).status == 200
    logs.heard.clear()
    return port, logs


async def test_only_requests_of_buckets_with_a_log_are_told(heard: tuple[Port, Heard]) -> None:
    port, logs = heard
    for target in ("/quiet", "/quiet/k", "/nothing-here", "/"):
        await port.send("GET", target)
    assert logs.heard == []
    await port.send("GET", "/logged/k")
    ((bucket, line),) = logs.heard
    assert bucket == "logged"
    assert ' REST.GET.OBJECT k "GET /logged/k HTTP/1.1" 200 - 5 5 ' in line


async def test_whether_a_list_was_needed_is_told(heard: tuple[Port, Heard]) -> None:
    """By a read of everybody and of somebody, before and after a policy allows it as well."""
    port, logs = heard
    ownership = b"""<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>
    </OwnershipControls>"""
    assert (await port.send("DELETE", "/logged?publicAccessBlock=")).status == 204
    assert (await port.send("PUT", "/logged?ownershipControls=", ownership)).status == 200
    for target in ("/logged?acl=", "/logged/k?acl="):
        public = {"x-amz-acl": "public-read"}
        assert (await port.send("PUT", target, headers=public)).status == 200
    await port.store.create_user("ann")
    record, secret = await port.store.create_access_key("ann")
    ann = Keys(record.access_key, secret)
    everything = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*",
    "Resource": "*"}]}"""

    async def told(target: str, keys: Keys) -> tuple[int, str]:
        logs.heard.clear()
        status = (await port.send("GET", target, keys=keys)).status
        return status, logs.heard[-1][1].split()[-1]

    for target in ("/logged/k", "/logged"):
        assert await told(target, ann) == (200, "Yes")
        assert await told(target, ROOT) == (200, "-")
    assert await told("/logged/k?acl=", ann) == (403, "-")
    await port.store.put_inline_policy("user", "ann", "all", everything)
    for target in ("/logged/k", "/logged"):
        assert await told(target, ann) == (200, "-")


async def test_each_key_of_a_batch_is_told(heard: tuple[Port, Heard]) -> None:
    port, logs = heard
    marker = "<VersionId>no version at all</VersionId>"
    objects = "".join(
        f"<Object><Key>{key}</Key>{more}</Object>"
        for key, more in (("k", ""), ("not there", ""), ("k", marker))
    )
    body = f"<Delete>{objects}<Quiet>true</Quiet></Delete>".encode()
    digest = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    answer = await port.send("POST", "/logged?delete=", body, headers={"content-md5": digest})
    assert answer.status == 200
    request, *batch = [line for _, line in logs.heard]
    assert ' REST.POST.MULTI_OBJECT_DELETE - "POST /logged?delete= HTTP/1.1" 200 ' in request
    assert " BATCH.DELETE.OBJECT k - 204 - - 5 - - - - - s3gw SigV4 - AuthHeader " in batch[0]
    assert " BATCH.DELETE.OBJECT not%20there - 204 - - - - - - - - s3gw " in batch[1]
    assert " BATCH.DELETE.OBJECT k - 400 InvalidArgument - - - - - - no%20version" in batch[2]
    assert len(batch) == 3
    assert len({line.split()[6] for line in (request, *batch)}) == 1, "one request id"


async def test_a_wrong_signature_is_told(heard: tuple[Port, Heard]) -> None:
    port, logs = heard
    answer = await port.send("GET", "/logged/k", keys=Keys(ROOT.access_key, "no secret of his"))
    assert answer.status == 403
    ((_, line),) = logs.heard
    assert re.search(r" - \S+ REST.GET.OBJECT k .* 403 SignatureDoesNotMatch ", line)


async def test_without_a_log_any_more_nothing_is_told(heard: tuple[Port, Heard]) -> None:
    port, logs = heard
    assert (await port.send("PUT", "/logged?logging=", b"<BucketLoggingStatus/>")).status == 200
    logs.heard.clear()
    await port.send("GET", "/logged/k")
    await port.send("GET", "/logged/k", keys=Keys(ROOT.access_key, "no secret of his"))
    assert logs.heard == []


async def test_users_are_told_by_their_arn(heard: tuple[Port, Heard]) -> None:
    port, logs = heard
    keys = await port.user("alice")
    assert (await port.send("GET", "/logged/k", keys=keys)).status == 403
    ((_, line),) = logs.heard
    assert " arn:aws:iam::000000000000:user/alice " in line
    assert " 403 AccessDenied " in line
    assert keys.secret_key not in line


async def test_the_delivery_of_a_log_is_not_logged(
    heard: tuple[Port, Heard], memory_store: Process
) -> None:
    port, logs = heard
    own = STATUS.replace(b">logs<", b">logged<")
    assert (await port.send("PUT", "/logged?logging=", own)).status == 200
    await port.send("GET", "/logged/k")
    logs.heard.clear()
    await logs.flush()
    assert logs.heard == []
    assert logs.lines["dropped"] == 0
    assert len(await delivered(memory_store)) == 1  # of the time before


def test_every_operation_has_a_name_of_the_form_of_s3() -> None:
    for row in ROWS:
        name = operation_name(Resolved(row, "bucket", "key", {}))
        assert re.fullmatch(r"REST\.[A-Z]+\.[A-Z_]+", name), name
