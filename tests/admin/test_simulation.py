"""What `POST /admin/policy/simulate` answers: who may do what, and which statement says so."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from s3gw.identities.store import IdentityStore
from s3gw.metadata.records import BucketRecord, ObjectRecord
from s3gw.objects.buckets import change_bucket
from s3gw.objects.change import change_version
from s3gw.objects.publish import read_target
from tests.admin.conftest import Admin
from tests.stores.operations import put

GET = "s3:GetObject"
KEY = "arn:aws:s3:::bucket/key"
ANN = "arn:aws:iam::000000000000:user/ann"
CI = "arn:aws:iam::000000000000:role/ci"
TRUST = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Principal": {"AWS": ANN}, "Action": "sts:AssumeRole"},
}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": GET, "Resource": "arn:aws:s3:::bucket/*", **elements}


async def asked(admin: Admin, principal: str = "", **question: Any) -> dict[str, Any]:
    """The one verdict on a question about reading the key."""
    body = {"actions": [GET], "resources": [KEY], "principal": principal, **question}
    [verdict] = (await admin.call("POST", "/admin/policy/simulate", body))["verdicts"]
    return dict(verdict)


async def documents(admin: Admin, **changes: Any) -> None:
    """Give the bucket documents, as bytes or JSON."""
    made = {
        name: value if isinstance(value, bytes) else json.dumps(value).encode()
        for name, value in changes.items()
    }

    def change(bucket: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(bucket, documents={**bucket.documents, **made})

    await change_bucket(admin.port.storage, "bucket", change)


async def describe(admin: Admin, **changes: Any) -> None:
    """Write the key and change its description."""
    await put(admin.process, "key", b"content")

    def change(record: ObjectRecord) -> ObjectRecord:
        description = msgspec.structs.replace(record.description, **changes)
        return msgspec.structs.replace(record, description=description)

    target = await read_target(admin.port.storage, "bucket", "key")
    await change_version(admin.port.storage, target, change)


@pytest.fixture
async def identities(admin: Admin) -> IdentityStore:
    """Ann, who may read, and a role, whose boundary lets it write at most."""
    storage = admin.port.storage
    store = IdentityStore(storage.store, storage.clock_ms, admin.port.identities.catch_up)
    await store.create_user("ann")
    await store.put_inline_policy("user", "ann", "reading", json.dumps(policy(allow(Sid="Reads"))))
    await store.create_role("ci", json.dumps(TRUST))
    await store.attach_policy("role", "ci", "arn:aws:iam::aws:policy/AmazonS3FullAccess")
    await store.put_boundary("role", "ci", "arn:aws:iam::aws:policy/writeonly")
    return store


@pytest.mark.parametrize(
    ("principal", "decision", "reason"),
    [
        ("anonymous", "implicitDeny", "no policy allows it"),
        ("root", "allowed", "the account itself needs no policy"),
        ("arn:aws:iam::000000000000:root", "allowed", "the account itself needs no policy"),
        (ANN, "allowed", "an identity-based policy allows it"),
        (CI, "implicitDeny", "no permissions boundary allows it"),
        (
            "arn:aws:sts::000000000000:assumed-role/ci/build-7",
            "implicitDeny",
            "no permissions boundary allows it",
        ),
    ],
)
async def test_who_may_read(
    admin: Admin, identities: IdentityStore, principal: str, decision: str, reason: str
) -> None:
    verdict = await asked(admin, principal)
    assert (verdict["decision"], verdict["reason"]) == (decision, reason)


async def test_the_decisive_statement_and_all_that_apply_are_named(
    admin: Admin, identities: IdentityStore
) -> None:
    deny = allow("Deny", Principal="*", Sid="Closed", Resource=KEY)
    await documents(admin, policy=policy(allow(Principal="*"), deny))
    verdict = await asked(admin, ANN)
    assert verdict["decision"] == "explicitDeny"
    assert verdict["decisive"] == {
        "kind": "resource-based policy",
        "policy": "the policy of bucket bucket",
        "statement": 'statement "Closed"',
        "effect": "Deny",
    }
    assert [each["statement"] for each in verdict["matched"]] == [
        'statement "Reads"',
        "statement 1",
        'statement "Closed"',
    ]
    assert "with an explicit deny in a resource-based policy" in verdict["message"]
    other = await asked(admin, ANN, resources=["arn:aws:s3:::bucket/other"])
    assert other["decision"] == "allowed"


async def test_every_action_is_asked_about_every_resource(
    admin: Admin, identities: IdentityStore
) -> None:
    body = {
        "principal": ANN,
        "actions": [GET, "s3:PutObject"],
        "resources": [KEY, "arn:aws:s3:::elsewhere/key"],
    }
    verdicts = (await admin.call("POST", "/admin/policy/simulate", body))["verdicts"]
    found = [(v["resource"], v["action"], v["decision"]) for v in verdicts]
    assert found == [
        (KEY, GET, "allowed"),
        (KEY, "s3:PutObject", "implicitDeny"),
        ("arn:aws:s3:::elsewhere/key", GET, "implicitDeny"),
        ("arn:aws:s3:::elsewhere/key", "s3:PutObject", "implicitDeny"),
    ]


async def test_policies_of_the_question_are_those_of_nobody_or_of_who_is_named(
    admin: Admin, identities: IdentityStore
) -> None:
    everything = policy(allow(Action="*", Resource="*"))
    assert (await asked(admin, policies=[everything]))["decision"] == "allowed"
    writing = policy(allow(Action="s3:PutObject"))
    assert (await asked(admin, ANN, policies=[writing]))["decision"] == "implicitDeny"
    limited = await asked(admin, CI, policies=[everything])
    assert limited["reason"] == "no permissions boundary allows it"


async def test_condition_keys_come_from_the_question(admin: Admin) -> None:
    secure = allow(Condition={"Bool": {"aws:SecureTransport": "true"}})
    question = {"policies": [policy(secure)]}
    unknown = await asked(admin, **question)
    assert (unknown["decision"], unknown["missing"]) == ("implicitDeny", ["aws:securetransport"])
    known = await asked(admin, **question, context={"aws:SecureTransport": ["true"]})
    assert (known["decision"], known["missing"]) == ("allowed", [])
    other = policy(allow(Action="s3:PutObject", Condition=secure["Condition"]))
    assert (await asked(admin, policies=[other]))["missing"] == []


async def test_time_and_who_asks_are_known(admin: Admin, identities: IdentityStore) -> None:
    now = {"DateGreaterThan": {"aws:CurrentTime": "2020-01-01"}}
    mine = {"StringEquals": {"aws:username": "ann"}}
    verdict = await asked(admin, ANN, policies=[policy(allow(Condition={**now, **mine}))])
    assert (verdict["decision"], verdict["missing"]) == ("allowed", [])


async def test_the_object_that_is_there_is_asked_for_its_tags_and_its_list(admin: Admin) -> None:
    red = {"StringEquals": {"s3:ExistingObjectTag/team": "red"}}
    question = {"policies": [policy(allow(Condition=red))]}
    assert (await asked(admin, **question))["decision"] == "implicitDeny"
    public = b'[["http://acs.amazonaws.com/groups/global/AllUsers","READ"]]'
    await describe(admin, tags={"team": "red"}, acl=public)
    assert (await asked(admin, **question))["decision"] == "allowed"
    assert (await asked(admin, "anonymous"))["decision"] == "implicitDeny"
    await documents(admin, ownershipControls=b"ObjectWriter")
    verdict = await asked(admin, "anonymous")
    assert verdict["decision"] == "allowed"
    assert verdict["decisive"]["policy"] == "the access control list of the object"
    await documents(admin, publicAccessBlock={"IgnorePublicAcls": True})
    assert (await asked(admin, "anonymous"))["decision"] == "implicitDeny"


async def test_the_public_access_block_counts(admin: Admin) -> None:
    await documents(admin, policy=policy(allow(Principal="*")))
    assert (await asked(admin, "anonymous"))["decision"] == "allowed"
    await documents(admin, publicAccessBlock={"RestrictPublicBuckets": True})
    verdict = await asked(admin, "anonymous")
    assert verdict["reason"] == "the bucket restricts public access"
    assert verdict["decisive"] is None


async def test_a_bucket_and_what_is_no_bucket(admin: Admin) -> None:
    listing = allow(Action="s3:ListBucket", Principal="*", Resource="arn:aws:s3:::bucket")
    await documents(admin, policy=policy(listing))
    for resource, decision in (
        ("arn:aws:s3:::bucket", "allowed"),
        ("arn:aws:s3:::bucket/", "implicitDeny"),
        ("arn:aws:s3:::other", "implicitDeny"),
        ("arn:aws:s3:::*", "implicitDeny"),
        ("*", "implicitDeny"),
        ("arn:aws:sqs:::queue", "implicitDeny"),
        ("arn:aws:s3:::bucket/" + "x" * 1025, "implicitDeny"),
    ):
        question = {"actions": ["s3:ListBucket"], "resources": [resource]}
        verdict = await asked(admin, "anonymous", **question)
        assert (resource, verdict["decision"]) == (resource, decision)


async def test_what_is_not_there_is_told(admin: Admin, identities: IdentityStore) -> None:
    for principal in (
        "arn:aws:iam::000000000000:user/bob",
        "arn:aws:sts::000000000000:assumed-role/ci/",
    ):
        body = {"actions": [GET], "resources": [KEY], "principal": principal}
        reply = await admin.send("POST", "/admin/policy/simulate", json.dumps(body).encode())
        assert (reply.status_code, reply.json()["error"]) == (404, "NoSuchPrincipal")
    body = {"actions": [GET], "resources": [KEY], "principal": "ann"}
    reply = await admin.send("POST", "/admin/policy/simulate", json.dumps(body).encode())
    assert reply.status_code == 400
    assert "'ann' is not an ARN such as" in reply.json()["message"]
    assert "arn:aws:iam::000000000000:user/NAME" in reply.json()["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"actions": []},
        {"actions": ["GetObject"]},
        {"actions": ["s3:Get*"]},
        {"resources": []},
        {"resources": ["bucket/key"]},
        {"actions": [f"s3:A{n}" for n in range(11)], "resources": [f"{KEY}{n}" for n in range(11)]},
        {"principal": ""},
        {"policies": [{}]},
        {"policies": [policy(allow(Action="NoSuchThing"))], "principal": ""},
        {"policies": [policy(allow(Principal="*"))], "principal": ""},
        {"policies": [policy(allow())]},
        {"context": {"": ["x"]}},
        {"context": {"aws:SourceIp": "10.0.0.1"}},
        {"extra": 1},
    ],
    ids=str,
)
async def test_a_question_that_makes_no_sense_is_refused(
    admin: Admin, change: dict[str, Any]
) -> None:
    body = {"actions": [GET], "resources": [KEY], "principal": "anonymous", **change}
    reply = await admin.send("POST", "/admin/policy/simulate", json.dumps(body).encode())
    assert (reply.status_code, reply.json()["error"]) == (400, "BadRequest")


async def test_nothing_is_changed(admin: Admin) -> None:
    before = admin.cluster.engine.revision
    await asked(admin, "anonymous")
    assert admin.cluster.engine.revision == before
