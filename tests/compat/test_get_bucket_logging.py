"""GetBucketLogging."""


def test_the_setting_outlives_its_target(s3, make_bucket):
    bucket, target = make_bucket(), make_bucket()
    status = {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": ""}}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=status)
    s3.delete_bucket(Bucket=target)
    assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"] == status["LoggingEnabled"]
    s3.create_bucket(Bucket=target)  # the fixture removes it
