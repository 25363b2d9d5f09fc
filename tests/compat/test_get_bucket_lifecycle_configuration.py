"""GetBucketLifecycleConfiguration."""

RULE = {"ID": "r", "Filter": {"Prefix": "a"}, "Status": "Enabled", "Expiration": {"Days": 1}}


def test_rules_are_read_by_both_names_of_the_operation(s3, bucket):
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [RULE]})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [RULE]
    assert [rule["ID"] for rule in s3.get_bucket_lifecycle(Bucket=bucket)["Rules"]] == ["r"]


def test_a_bucket_without_rules_says_so(s3, bucket, refused):
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_whoever_is_not_allowed_is_denied(http, bucket):
    reply = http.send("GET", f"/{bucket}?lifecycle")
    assert (reply.status, reply.code) == (403, "AccessDenied")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=missing_bucket)
