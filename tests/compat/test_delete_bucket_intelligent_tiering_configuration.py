"""DeleteBucketIntelligentTieringConfiguration."""

from tests.compat.bucket_configurations import INTELLIGENT_TIERING


def test_one_configuration_is_removed(s3, bucket, refused):
    kept = INTELLIGENT_TIERING.put(s3, bucket, "one")
    INTELLIGENT_TIERING.put(s3, bucket, "two")
    reply = INTELLIGENT_TIERING.delete(s3, bucket, "two")
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert INTELLIGENT_TIERING.listed(INTELLIGENT_TIERING.list(s3, bucket)) == [kept]
    with refused("NoSuchConfiguration", 404):
        INTELLIGENT_TIERING.get(s3, bucket, "two")


def test_a_configuration_that_is_not_there_is_refused(s3, bucket, refused):
    with refused("NoSuchConfiguration", 404):
        INTELLIGENT_TIERING.delete(s3, bucket, "one")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        INTELLIGENT_TIERING.delete(s3, missing_bucket, "one")
