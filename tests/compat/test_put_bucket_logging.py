"""PutBucketLogging."""


def enabled(target, **more):
    return {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": "logs/", **more}}


def test_the_target_is_read_back_and_can_be_removed(s3, make_bucket):
    bucket, target = make_bucket(), make_bucket()
    sent = enabled(
        target,
        TargetObjectKeyFormat={"PartitionedPrefix": {"PartitionDateSource": "DeliveryTime"}},
    )
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=sent)
    found = s3.get_bucket_logging(Bucket=bucket)
    assert found["LoggingEnabled"] == sent["LoggingEnabled"]
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)


def test_a_bucket_may_log_to_itself(s3, bucket):
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=enabled(bucket))
    assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"]["TargetBucket"] == bucket


def test_a_target_that_is_not_there_is_refused(s3, bucket, missing_bucket, refused):
    for target in (missing_bucket, "No Bucket"):
        with refused("InvalidTargetBucketForLogging", 400):
            s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=enabled(target))
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)


def test_grants_are_refused(s3, bucket, refused):
    grantee = {"Type": "CanonicalUser", "ID": "somebody"}
    grants = [{"Grantee": grantee, "Permission": "READ"}]
    with refused("AccessControlListNotSupported", 400):
        s3.put_bucket_logging(
            Bucket=bucket, BucketLoggingStatus=enabled(bucket, TargetGrants=grants)
        )


def test_a_missing_bucket_is_refused(s3, bucket, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.put_bucket_logging(Bucket=missing_bucket, BucketLoggingStatus=enabled(bucket))
