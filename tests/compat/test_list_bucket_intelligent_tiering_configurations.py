"""ListBucketIntelligentTieringConfigurations."""

from tests.compat.bucket_configurations import INTELLIGENT_TIERING


def test_configurations_come_in_the_order_of_their_ids(s3, bucket):
    sent = [INTELLIGENT_TIERING.put(s3, bucket, id_) for id_ in ("b", "a", "C", "a1")]
    page = INTELLIGENT_TIERING.list(s3, bucket)
    expected = sorted(sent, key=lambda configuration: configuration["Id"])
    assert INTELLIGENT_TIERING.listed(page) == expected
    assert page["IsTruncated"] is False
    assert "NextContinuationToken" not in page


def test_a_token_of_another_bucket_is_refused(s3, make_bucket, refused):
    with refused("InvalidArgument", 400):
        INTELLIGENT_TIERING.list(s3, make_bucket(), "abc")
