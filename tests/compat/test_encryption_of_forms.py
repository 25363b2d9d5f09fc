"""Encryption of uploads from forms, and for those who come without a key of their own."""

import json

import pytest

from tests.compat.encryption import body_of, key_headers, rule, sse_c
from tests.compat.forms import Poster

SSE = "x-amz-server-side-encryption"


@pytest.fixture
def poster(http, bucket):
    return Poster(http, bucket)


def test_a_form_into_a_bucket_with_default_encryption(s3, poster, bucket):
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule())
    reply = poster.post({"key": "k"}, b"hello")
    assert (reply.status, reply[SSE]) == (204, "AES256")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["ServerSideEncryption"]) == (b"hello", "AES256")


def test_a_form_that_asks_for_encryption(s3, poster, bucket):
    body = body_of(200_000)
    assert poster.post({"key": "k", SSE: "AES256"}, body).status == 204
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["ServerSideEncryption"]) == (body, "AES256")
    assert poster.post({"key": "own", **key_headers()}, body).status == 204
    assert s3.get_object(Bucket=bucket, Key="own", **sse_c())["Body"].read() == body


def test_whoever_may_read_reads_what_the_store_has_the_key_of(s3, http, bucket):
    """A policy that lets everyone read opens SSE-S3, and no named key."""
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::{bucket}/*",
            }
        ],
    }
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    s3.put_object(Bucket=bucket, Key="s3", Body=b"body", ServerSideEncryption="AES256")
    s3.put_object(Bucket=bucket, Key="kms", Body=b"body", ServerSideEncryption="aws:kms")
    assert http.send("GET", f"/{bucket}/s3").body == b"body"
    denied = http.send("GET", f"/{bucket}/kms")
    assert (denied.status, denied.code) == (403, "AccessDenied")


def test_a_policy_may_demand_encryption(s3, http, bucket):
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": f"arn:aws:s3:::{bucket}/*",
                "Condition": {"StringNotEquals": {f"s3:{SSE}": "aws:kms"}},
            }
        ],
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    for headers, status in (({}, 403), ({SSE: "AES256"}, 403), ({SSE: "aws:kms"}, 200)):
        assert http.request("PUT", f"/{bucket}/k", headers=headers, body=b"x").status == status
    s3.delete_bucket_policy(Bucket=bucket)
