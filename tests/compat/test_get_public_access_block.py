"""GetPublicAccessBlock."""

SWITCHES = {"BlockPublicAcls": True}
OFF = ("IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def test_a_switch_that_was_not_named_is_off(s3, bucket):
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=SWITCHES)
    found = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert found == {**SWITCHES, **dict.fromkeys(OFF, False)}


def test_a_bucket_without_one(s3, bucket, refused):
    with refused("NoSuchPublicAccessBlockConfiguration", 404):
        s3.get_public_access_block(Bucket=bucket)


def test_who_is_denied_it(http, s3, put_policy, bucket):
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=SWITCHES)
    assert http.send("GET", f"/{bucket}", "publicAccessBlock").code == "AccessDenied"
    read = {"Action": "s3:GetBucketPublicAccessBlock", "Resource": f"arn:aws:s3:::{bucket}"}
    put_policy(bucket, read)
    assert http.send("GET", f"/{bucket}", "publicAccessBlock").status == 200
    put_policy(bucket, {**read, "Effect": "Deny"})
    assert http.request("GET", f"/{bucket}", "publicAccessBlock").code == "AccessDenied"
