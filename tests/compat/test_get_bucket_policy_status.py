"""GetBucketPolicyStatus: whether a policy is public, as S3 defines it."""

import pytest


@pytest.mark.parametrize(
    ("elements", "public"),
    [
        ({}, True),
        ({"Principal": {"AWS": "arn:aws:iam::000000000000:root"}}, False),
        ({"Effect": "Deny"}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}, True),
        ({"Condition": {"StringLike": {"aws:Referer": "https://example.com/*"}}}, True),
    ],
)
def test_public_or_not(s3, put_policy, bucket, elements, public):
    put_policy(bucket, elements)
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"] == {"IsPublic": public}


def test_a_bucket_without_a_policy(s3, bucket, refused):
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy_status(Bucket=bucket)


def test_nobody_else_is_told(http, put_policy, bucket):
    put_policy(bucket, {})
    assert http.send("GET", f"/{bucket}", "policyStatus").code == "AccessDenied"


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_policy_status(Bucket=missing_bucket)
