"""GetBucketIntelligentTieringConfiguration."""

from tests.compat.bucket_configurations import INTELLIGENT_TIERING


def test_each_id_has_its_own_configuration(s3, bucket):
    first = INTELLIGENT_TIERING.put(s3, bucket, "one")
    second = INTELLIGENT_TIERING.put(s3, bucket, "two", Status="Disabled")
    assert [INTELLIGENT_TIERING.get(s3, bucket, id_) for id_ in ("one", "two")] == [first, second]


def test_an_id_without_configuration_is_refused(s3, bucket, refused):
    INTELLIGENT_TIERING.put(s3, bucket, "one")
    for id_ in ("two", "on", "one-"):
        with refused("NoSuchConfiguration", 404):
            INTELLIGENT_TIERING.get(s3, bucket, id_)


def test_an_id_that_cannot_be_one_is_refused(s3, bucket, refused):
    with refused("InvalidArgument", 400):
        INTELLIGENT_TIERING.get(s3, bucket, "a b")


def test_a_bucket_made_again_has_no_configurations(s3, make_bucket, refused):
    bucket = make_bucket()
    INTELLIGENT_TIERING.put(s3, bucket, "one")
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    with refused("NoSuchConfiguration", 404):
        INTELLIGENT_TIERING.get(s3, bucket, "one")
