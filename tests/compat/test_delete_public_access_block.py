"""DeletePublicAccessBlock."""

SWITCHES = {"BlockPublicPolicy": True}


def test_its_switches_are_off_afterwards(http, s3, put_policy, bucket, refused):
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=SWITCHES)
    reply = http.request("DELETE", f"/{bucket}", "publicAccessBlock")
    assert (reply.status, reply.body) == (204, b"")
    put_policy(bucket, {})
    with refused("NoSuchPublicAccessBlockConfiguration", 404):
        s3.get_public_access_block(Bucket=bucket)


def test_where_there_is_none_it_succeeds_too(http, bucket):
    assert http.request("DELETE", f"/{bucket}", "publicAccessBlock").status == 204


def test_nobody_else_may(http, s3, bucket):
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=SWITCHES)
    assert http.send("DELETE", f"/{bucket}", "publicAccessBlock").code == "AccessDenied"
    s3.get_public_access_block(Bucket=bucket)


def test_a_missing_bucket(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_public_access_block(Bucket=missing_bucket)
