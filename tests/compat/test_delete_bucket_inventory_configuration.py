"""DeleteBucketInventoryConfiguration."""

from tests.compat.bucket_configurations import INVENTORY


def test_one_configuration_is_removed(s3, bucket, refused):
    kept = INVENTORY.put(s3, bucket, "one")
    INVENTORY.put(s3, bucket, "two")
    reply = INVENTORY.delete(s3, bucket, "two")
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert INVENTORY.listed(INVENTORY.list(s3, bucket)) == [kept]
    with refused("NoSuchConfiguration", 404):
        INVENTORY.get(s3, bucket, "two")


def test_a_configuration_that_is_not_there_is_refused(s3, bucket, refused):
    with refused("NoSuchConfiguration", 404):
        INVENTORY.delete(s3, bucket, "one")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        INVENTORY.delete(s3, missing_bucket, "one")
