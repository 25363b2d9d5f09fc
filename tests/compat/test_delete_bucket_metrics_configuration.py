"""DeleteBucketMetricsConfiguration."""

from tests.compat.bucket_configurations import METRICS


def test_one_configuration_is_removed(s3, bucket, refused):
    kept = METRICS.put(s3, bucket, "one")
    METRICS.put(s3, bucket, "two")
    reply = METRICS.delete(s3, bucket, "two")
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert METRICS.listed(METRICS.list(s3, bucket)) == [kept]
    with refused("NoSuchConfiguration", 404):
        METRICS.get(s3, bucket, "two")


def test_a_configuration_that_is_not_there_is_refused(s3, bucket, refused):
    with refused("NoSuchConfiguration", 404):
        METRICS.delete(s3, bucket, "one")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        METRICS.delete(s3, missing_bucket, "one")
