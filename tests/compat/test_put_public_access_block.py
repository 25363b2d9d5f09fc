"""PutPublicAccessBlock, and what its switches do."""

import pytest

ALL = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
PRIVATE = {"Principal": {"AWS": "arn:aws:iam::000000000000:root"}}


def block(s3, bucket, *on):
    switches = {name: name in on for name in ALL}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=switches)


def test_the_switches_are_kept(s3, bucket):
    for on in (ALL, ("BlockPublicPolicy",), ()):
        block(s3, bucket, *on)
        found = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert found == {name: name in on for name in ALL}


def test_a_public_policy_is_refused_where_they_are_blocked(s3, put_policy, bucket, refused):
    block(s3, bucket, "BlockPublicPolicy")
    with refused("AccessDenied", 403):
        put_policy(bucket, {})
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    put_policy(bucket, PRIVATE)
    put_policy(bucket, {"Effect": "Deny", "Principal": "*"})


def test_a_policy_that_is_there_stays_when_public_ones_are_blocked(http, s3, put_policy, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(bucket, {})
    block(s3, bucket, "BlockPublicPolicy")
    assert http.send("GET", f"/{bucket}/k").status == 200


def test_a_restricted_bucket_is_not_public_whatever_its_policy_says(http, s3, put_policy, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(bucket, {}, {"Effect": "Deny", "Resource": f"arn:aws:s3:::{bucket}/private"})
    block(s3, bucket, "RestrictPublicBuckets")
    assert http.send("GET", f"/{bucket}/k").code == "AccessDenied"
    assert http.request("GET", f"/{bucket}/k").status == 200
    assert http.request("GET", f"/{bucket}/private").code == "AccessDenied"
    block(s3, bucket)
    assert http.send("GET", f"/{bucket}/k").status == 200


def test_a_policy_that_is_not_public_is_not_restricted(http, s3, put_policy, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(bucket, {"Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}})
    block(s3, bucket, "RestrictPublicBuckets")
    assert http.send("GET", f"/{bucket}/k").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"<PublicAccessBlockConfiguration/>",
        b"<PublicAccessBlock><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlock>",
        b"<PublicAccessBlockConfiguration><BlockPublicAcls>yes</BlockPublicAcls>"
        b"</PublicAccessBlockConfiguration>",
        b"{}",
    ],
)
def test_what_says_nothing_is_malformed(http, bucket, body):
    reply = http.request("PUT", f"/{bucket}", "publicAccessBlock", body=body)
    assert (reply.status, reply.code) == (400, "MalformedXML")


def test_a_body_is_needed(http, bucket):
    reply = http.request("PUT", f"/{bucket}", "publicAccessBlock")
    assert (reply.status, reply.code) == (400, "MissingRequestBodyError")


def test_nobody_else_may(http, bucket):
    assert http.send("PUT", f"/{bucket}", "publicAccessBlock").code == "AccessDenied"


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        block(s3, missing_bucket)
