"""What the store does for somebody, it does within what he may himself: reports and logs into other
buckets, the data of others behind a name, and identities that are bounded. Over a store in memory.
"""

import json
from typing import Any

import pytest

from tests.attacks.in_process import BUCKET, CONTENT, KEY, OTHER, Attacked, code_of
from tests.iam.conftest import ACCOUNT, Keys, policy
from tests.iam.in_process import Port
from tests.stores.memory_store import Process

OWN = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]


@pytest.fixture
async def attacked(memory_store: Process) -> Attacked:
    return await Attacked.open(await Port.open(memory_store))


def allow(*actions: str, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


INVENTORY = """<InventoryConfiguration><Destination><S3BucketDestination>
<Bucket>arn:aws:s3:::{bucket}</Bucket><Format>CSV</Format><Prefix>{prefix}</Prefix>
</S3BucketDestination></Destination><IsEnabled>true</IsEnabled><Id>one</Id>
<IncludedObjectVersions>Current</IncludedObjectVersions>
<Schedule><Frequency>Daily</Frequency></Schedule></InventoryConfiguration>"""
LOGGING = """<BucketLoggingStatus><LoggingEnabled><TargetBucket>{bucket}</TargetBucket>
<TargetPrefix>{prefix}/</TargetPrefix></LoggingEnabled></BucketLoggingStatus>"""


@pytest.mark.parametrize(
    ("query", "document"), [("inventory=&id=one", INVENTORY), ("logging=", LOGGING)]
)
async def test_nobody_has_the_store_write_where_he_may_not(
    attacked: Attacked, query: str, document: str
) -> None:
    port = attacked.port
    owner = await port.user("owner", allow("s3:*", resource=OWN))
    there = allow("s3:PutObject", resource=f"arn:aws:s3:::{OTHER}/reports/*")
    writer = await port.user("writer", allow("s3:*", resource=OWN), there)
    deny = {**there, "Effect": "Deny", "Principal": "*"}
    denied = json.dumps({"Version": "2012-10-17", "Statement": [deny]}).encode()

    async def put(keys: Keys, bucket: str, prefix: str) -> tuple[int, str]:
        body = document.format(bucket=bucket, prefix=prefix).encode()
        answer = await port.send("PUT", f"/{BUCKET}?{query}", body, keys)
        return answer.status, code_of(answer)

    before = await attacked.state()
    for prefix in ("reports", "", "logs", "reports/../x", "Reports"):
        assert await put(owner, OTHER, prefix) == (403, "AccessDenied"), prefix
    for prefix in ("", "logs", "Reports", "report"):
        assert await put(writer, OTHER, prefix) == (403, "AccessDenied"), prefix
    assert await attacked.state() == before
    assert await put(owner, BUCKET, "reports") == (200, "")
    assert await put(writer, OTHER, "reports") == (200, "")
    assert (await port.send("PUT", f"/{OTHER}?policy=", denied)).status == 204
    assert await put(writer, OTHER, "reports/b") == (403, "AccessDenied")


async def test_a_list_that_lets_write_lets_nobody_replace(attacked: Attacked) -> None:
    """Also who signs: WRITE of a list is for new keys, at the commit as before it."""
    port = attacked.port
    rules = b"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>"
    body = rules + b"</OwnershipControls>"
    assert (await port.send("PUT", f"/{BUCKET}?ownershipControls=", body)).status == 200
    group = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
    headers = {"x-amz-grant-write": f'uri="{group}"'}
    assert (await port.send("PUT", f"/{BUCKET}?acl=", headers=headers)).status == 200
    keys = await port.user("anybody")
    assert (await port.send("PUT", f"/{BUCKET}/{KEY}", b"x", keys)).status == 403

    reads = port.process.storage.store.kv
    plain, raced = reads.get_many, []

    async def get_many(wanted: Any) -> Any:
        found = await plain(wanted)
        if not raced and any(b"raced" in key for key in wanted):
            raced.append(True)
            assert (await port.send("PUT", f"/{BUCKET}/raced", CONTENT)).status == 200
        return found

    reads.get_many = get_many  # type: ignore[method-assign]
    answer = await port.send("PUT", f"/{BUCKET}/raced", b"x", keys)
    assert raced
    assert (answer.status, code_of(answer)) == (403, "AccessDenied")
    assert (await port.send("GET", f"/{BUCKET}/raced")).body == CONTENT
    assert (await port.send("PUT", f"/{BUCKET}/new", b"x", keys)).status == 200


@pytest.mark.parametrize("operation", ["copy", "copy of a part", "rename"])
async def test_what_is_decided_on_the_source_holds_at_the_commit(
    attacked: Attacked, operation: str
) -> None:
    """A source that is replaced between the decision and the commit is decided on again."""
    port = attacked.port
    secret, target = b"s" * 300_000, f"/{BUCKET}/target"
    opened = {"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}
    copied = f"arn:aws:s3:::{BUCKET}/raced"
    keys = await port.user(
        "reader",
        allow("s3:GetObject", "s3:GetObjectTagging", resource=copied, Condition=opened),
        allow("s3:DeleteObject", resource=copied),
        allow("s3:PutObject", "s3:PutObjectTagging", resource=f"arn:aws:s3:::{BUCKET}/target"),
    )
    tags = {"x-amz-tagging": "open=yes"}
    body = b"o" * 300_000
    assert (await port.send("PUT", f"/{BUCKET}/raced", body, headers=tags)).status == 200
    begun = await port.send("POST", f"{target}?uploads=")
    upload = begun.text("UploadId")
    kv, raced = port.process.storage.store.kv, []
    plain = kv.commit

    async def commit(*given: Any, **named: Any) -> Any:
        if not raced:
            raced.append(True)
            assert (await port.send("PUT", f"/{BUCKET}/raced", secret)).status == 200
        return await plain(*given, **named)

    kv.commit = commit  # type: ignore[method-assign]
    source = f"/{BUCKET}/raced"
    sent, headers = {
        "copy": (target, {"x-amz-copy-source": source}),
        "copy of a part": (
            f"{target}?partNumber=1&uploadId={upload}",
            {"x-amz-copy-source": source},
        ),
        "rename": (f"{target}?renameObject=", {"x-amz-rename-source": source}),
    }[operation]
    answer = await port.send("PUT", sent, keys=keys, headers=headers)
    assert raced
    assert (answer.status, code_of(answer)) == (403, "AccessDenied"), answer.body
    assert (await port.send("GET", target)).status == 404
    assert b"<Part>" not in (await port.send("GET", f"{target}?uploadId={upload}")).body
    assert (await port.send("GET", source)).body == secret


async def test_a_manager_of_bounded_users_manages_no_others(attacked: Attacked) -> None:
    """Delegation by boundary (IAM User Guide, "Delegating responsibility to others using
    permissions boundaries")."""
    port = attacked.port
    await port.store.create_policy("limit", policy("s3:GetObject"))
    limit = f"arn:aws:iam::{ACCOUNT}:policy/limit"
    bounded = {"StringEquals": {"iam:PermissionsBoundary": limit}}
    actions = ("iam:CreateUser", "iam:PutUserPolicy", "iam:AttachUserPolicy", "iam:CreateRole")
    manager = await port.user(
        "manager",
        allow(*actions, "iam:PutRolePolicy", resource="*", Condition=bounded),
        allow("iam:CreateAccessKey", resource="*", Condition=bounded),
    )
    await port.store.create_user("free")
    grant = {"PolicyName": "p", "PolicyDocument": policy("*")}
    assert (await port.ask("CreateUser", manager, UserName="x")).status == 403
    made = await port.ask("CreateUser", manager, UserName="x", PermissionsBoundary=limit)
    assert made.status == 200
    assert (await port.ask("PutUserPolicy", manager, UserName="x", **grant)).status == 200
    for user in ("free", "manager"):
        assert (await port.ask("PutUserPolicy", manager, UserName=user, **grant)).status == 403
        assert (await port.ask("CreateAccessKey", manager, UserName=user)).status == 403
    keys = (await port.ask("CreateAccessKey", manager, UserName="x")).keys
    keys = Keys(keys.access_key, keys.secret_key)
    assert (await port.send("GET", f"/{BUCKET}/{KEY}", keys=keys)).status == 200
    assert (await port.send("PUT", f"/{BUCKET}/{KEY}", b"x", keys=keys)).status == 403
    # To loose them he would need another action.
    assert (await port.ask("DeleteUserPermissionsBoundary", manager, UserName="x")).status == 403
