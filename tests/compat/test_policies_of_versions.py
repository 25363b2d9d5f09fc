"""Policies about versions, tags and object lock: which action each request is asked for, and which
condition keys its body gives."""

import base64
import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import pytest

TAGGING = "<Tagging><TagSet>{}</TagSet></Tagging>"
BYPASS = {"x-amz-bypass-governance-retention": "true"}


def tags(**values):
    listed = (f"<Tag><Key>{k}</Key><Value>{v}</Value></Tag>" for k, v in values.items())
    return TAGGING.format("".join(listed)).encode()


def retention(days, mode="GOVERNANCE"):
    until = (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    ).encode()


@pytest.fixture
def two_versions(s3, versioned):
    """The path of a key with two versions, and the ids of both, older first."""
    put = [s3.put_object(Bucket=versioned, Key="k", Body=body) for body in (b"old", b"new")]
    return f"/{versioned}/k", *(reply["VersionId"] for reply in put)


@pytest.fixture
def locked(s3):
    """A bucket with object lock, emptied by root past GOVERNANCE."""
    name = f"compat-lock-policy-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    yield name
    s3.delete_bucket_policy(Bucket=name)
    page = s3.list_object_versions(Bucket=name)
    for row in page.get("Versions", []) + page.get("DeleteMarkers", []):
        version = {"Bucket": name, "Key": row["Key"], "VersionId": row["VersionId"]}
        if "Size" in row:
            s3.put_object_legal_hold(**version, LegalHold={"Status": "OFF"})
        s3.delete_object(**version, BypassGovernanceRetention=True)
    s3.delete_bucket(Bucket=name)


@pytest.mark.parametrize(
    ("method", "query", "plain", "named"),
    [
        ("GET", "", "s3:GetObject", "s3:GetObjectVersion"),
        ("HEAD", "", "s3:GetObject", "s3:GetObjectVersion"),
        ("GET", "tagging&", "s3:GetObjectTagging", "s3:GetObjectVersionTagging"),
        ("PUT", "tagging&", "s3:PutObjectTagging", "s3:PutObjectVersionTagging"),
        ("DELETE", "tagging&", "s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"),
        ("DELETE", "", "s3:DeleteObject", "s3:DeleteObjectVersion"),
    ],
)
def test_a_version_that_is_named_asks_for_another_action(
    http, put_policy, versioned, two_versions, method, query, plain, named
):
    path, older, _ = two_versions
    body = tags(a="1") if (method, query) == ("PUT", "tagging&") else b""

    def statuses():
        queries = (query.rstrip("&"), f"{query}versionId={older}")
        return [http.send(method, path, each, body=body).status for each in queries]

    for action, allowed in ((plain, (True, False)), (named, (False, True))):
        put_policy(versioned, {"Action": action})
        assert [status < 300 for status in statuses()] == list(allowed), action


def test_the_tags_that_count_are_those_of_the_version_named(http, s3, put_policy, versioned):
    ids = {}
    for value in ("secret", "public"):
        reply = s3.put_object(Bucket=versioned, Key="k", Body=b"x", Tagging=f"class={value}")
        ids[value] = reply["VersionId"]
    condition = {"StringEquals": {"s3:ExistingObjectTag/class": "public"}}
    put_policy(versioned, {"Action": "s3:GetObjectVersion", "Condition": condition})
    for value, status in (("secret", 403), ("public", 200)):
        reply = http.send("GET", f"/{versioned}/k", f"versionId={ids[value]}")
        assert reply.status == status, value


def test_a_copy_of_a_version_reads_that_version(http, put_policy, versioned, two_versions):
    path, older, _ = two_versions
    source = {"x-amz-copy-source": f"{path}?versionId={older}"}
    put_policy(versioned, {"Action": ["s3:PutObject", "s3:GetObject"]})
    assert http.send("PUT", f"/{versioned}/copy", headers=source).code == "AccessDenied"
    put_policy(versioned, {"Action": ["s3:PutObject", "s3:GetObjectVersion"]})
    assert http.send("PUT", f"/{versioned}/copy", headers=source).status == 200


def test_versions_are_listed_by_whom_a_policy_lets(http, put_policy, versioned):
    resource = f"arn:aws:s3:::{versioned}"
    put_policy(versioned, {"Action": "s3:ListBucket", "Resource": resource})
    assert http.send("GET", f"/{versioned}", "versions").code == "AccessDenied"
    put_policy(versioned, {"Action": "s3:ListBucketVersions", "Resource": resource})
    assert http.send("GET", f"/{versioned}", "versions").status == 200


def test_the_marker_that_anybody_makes_is_the_bucket_owners(http, s3, put_policy, versioned):
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    put_policy(versioned, {"Action": "s3:DeleteObject"})
    assert http.send("DELETE", f"/{versioned}/k").status == 204
    marker = s3.list_object_versions(Bucket=versioned)["DeleteMarkers"][0]
    assert marker["Owner"]["ID"] == s3.list_buckets()["Owner"]["ID"]


def test_the_tags_in_a_body_are_those_that_a_policy_judges(http, s3, put_policy, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    condition = {
        "StringEquals": {"s3:RequestObjectTag/team": "red"},
        "ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["team"]},
    }
    put_policy(bucket, {"Action": "s3:PutObjectTagging", "Condition": condition})
    path, header = f"/{bucket}/k", {"x-amz-tagging": "team=red"}
    for body, status in (
        (tags(team="red"), 200),
        (tags(team="blue"), 403),
        (tags(team="red", more="1"), 403),
        (tags(), 403),
    ):
        assert http.send("PUT", path, "tagging", headers=header, body=body).status == status, body
    kept = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert kept == [{"Key": "team", "Value": "red"}]


def test_new_tags_are_given_to_the_version_named(s3, versioned, two_versions, refused):
    _, older, newer = two_versions
    target = {"Bucket": versioned, "Key": "k"}
    tag = {"TagSet": [{"Key": "a", "Value": "1"}]}
    reply = s3.put_object_tagging(**target, VersionId=older, Tagging=tag)
    assert reply["VersionId"] == older
    assert s3.get_object_tagging(**target, VersionId=older)["TagSet"] == tag["TagSet"]
    assert s3.get_object_tagging(**target)["TagSet"] == []
    assert s3.put_object_tagging(**target, Tagging=tag)["VersionId"] == newer
    assert s3.delete_object_tagging(**target, VersionId=older)["VersionId"] == older
    assert s3.get_object_tagging(**target, VersionId=older)["TagSet"] == []
    assert s3.get_object_tagging(**target)["TagSet"] == tag["TagSet"]
    marker = s3.delete_object(**target)["VersionId"]
    with refused("MethodNotAllowed", 405):
        s3.put_object_tagging(**target, VersionId=marker, Tagging=tag)
    with refused("NoSuchKey", 404):
        s3.put_object_tagging(**target, Tagging=tag)
    with refused("InvalidArgument", 400):
        s3.put_object_tagging(**target, VersionId="nonsense", Tagging=tag)


@pytest.mark.parametrize("batch", [False, True], ids=["DeleteObject", "DeleteObjects"])
def test_governance_is_passed_over_only_by_whom_a_policy_lets(http, s3, put_policy, locked, batch):
    until = datetime.now(UTC) + timedelta(days=2)
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    put = s3.put_object(Bucket=locked, Key="k", Body=b"x", ChecksumAlgorithm="CRC32", **lock)
    id_ = put["VersionId"]

    def deleted():
        if not batch:
            return http.send("DELETE", f"/{locked}/k", f"versionId={id_}", headers=BYPASS)
        body = f"<Delete><Object><Key>k</Key><VersionId>{id_}</VersionId></Object></Delete>"
        headers = BYPASS | {"x-amz-checksum-algorithm": "CRC32", "content-md5": _md5(body.encode())}
        return http.send("POST", f"/{locked}", "delete", headers=headers, body=body.encode())

    put_policy(locked, {"Action": "s3:DeleteObjectVersion"})
    assert "<Code>AccessDenied</Code>" in deleted().body.decode()
    assert len(s3.list_object_versions(Bucket=locked)["Versions"]) == 1
    put_policy(locked, {"Action": ["s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"]})
    assert "AccessDenied" not in deleted().body.decode()
    assert "Versions" not in s3.list_object_versions(Bucket=locked)


def test_the_retention_in_a_body_is_what_a_policy_judges(http, s3, put_policy, locked):
    s3.put_object(Bucket=locked, Key="k", Body=b"x", ChecksumAlgorithm="CRC32")
    days = {"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": "10"}}
    mode = {"StringEquals": {"s3:object-lock-mode": "GOVERNANCE"}}
    put_policy(locked, {"Action": "s3:PutObjectRetention", "Condition": days | mode})
    headers = {"x-amz-object-lock-mode": "GOVERNANCE"}
    for body, status in (
        (retention(2), 200),
        (retention(30), 403),
        (retention(3, "COMPLIANCE"), 403),
        (retention(9), 200),
    ):
        reply = http.send("PUT", f"/{locked}/k", "retention", headers=headers, body=body)
        assert reply.status == status, body
    weaker = http.send("PUT", f"/{locked}/k", "retention", headers=BYPASS, body=retention(2))
    assert weaker.code == "AccessDenied"


def test_the_legal_hold_in_a_body_is_what_a_policy_judges(http, s3, put_policy, locked):
    s3.put_object(Bucket=locked, Key="k", Body=b"x", ChecksumAlgorithm="CRC32")
    condition = {"StringEquals": {"s3:object-lock-legal-hold": "ON"}}
    put_policy(locked, {"Action": "s3:PutObjectLegalHold", "Condition": condition})
    headers = {"x-amz-object-lock-legal-hold": "ON"}
    for status, code in (("ON", 200), ("OFF", 403)):
        body = f"<LegalHold><Status>{status}</Status></LegalHold>".encode()
        reply = http.send("PUT", f"/{locked}/k", "legal-hold", headers=headers, body=body)
        assert reply.status == code, status
    assert s3.get_object_legal_hold(Bucket=locked, Key="k")["LegalHold"]["Status"] == "ON"


def _md5(body):
    return base64.b64encode(hashlib.md5(body).digest()).decode()
