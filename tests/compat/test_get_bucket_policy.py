"""GetBucketPolicy: the document as it was put."""

import json

from tests.compat.conftest import policy_of


def test_the_policy_comes_back_byte_for_byte(http, bucket):
    body = json.dumps(json.loads(policy_of(bucket, {})), indent=3).encode() + b"\n"
    assert http.request("PUT", f"/{bucket}", "policy", body=body).status == 204
    reply = http.request("GET", f"/{bucket}", "policy")
    assert (reply.status, reply["content-type"], reply.body) == (200, "application/json", body)


def test_a_bucket_without_one(s3, bucket, refused):
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_policy(Bucket=missing_bucket)


def test_nobody_else_sees_it(http, put_policy, bucket):
    assert http.send("GET", f"/{bucket}", "policy").code == "AccessDenied"
    put_policy(bucket, {})
    assert http.send("GET", f"/{bucket}", "policy").code == "AccessDenied"


def test_another_expected_owner_is_refused(s3, put_policy, bucket, refused):
    put_policy(bucket, {})
    with refused("AccessDenied", 403):
        s3.get_bucket_policy(Bucket=bucket, ExpectedBucketOwner="123456789012")
