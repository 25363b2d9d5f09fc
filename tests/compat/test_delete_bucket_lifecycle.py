"""DeleteBucketLifecycle."""

RULE = {"ID": "r", "Filter": {}, "Status": "Enabled", "Expiration": {"Days": 1}}


def test_the_rules_are_removed_and_their_effect_with_them(s3, bucket, refused):
    s3.put_bucket_lifecycle_configuration(
        Bucket=bucket,
        LifecycleConfiguration={"Rules": [RULE]},
        TransitionDefaultMinimumObjectSize="varies_by_storage_class",
    )
    assert "Expiration" in s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for _ in range(2):
        reply = s3.delete_bucket_lifecycle(Bucket=bucket)
        assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="k")


def test_whoever_is_not_allowed_is_denied(http, bucket):
    reply = http.send("DELETE", f"/{bucket}?lifecycle")
    assert (reply.status, reply.code) == (403, "AccessDenied")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.delete_bucket_lifecycle(Bucket=missing_bucket)
