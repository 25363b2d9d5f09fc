"""ListBucketAnalyticsConfigurations."""

from tests.compat.bucket_configurations import ANALYTICS


def test_configurations_come_in_the_order_of_their_ids(s3, bucket):
    sent = [ANALYTICS.put(s3, bucket, id_) for id_ in ("b", "a", "C", "a1")]
    page = ANALYTICS.list(s3, bucket)
    expected = sorted(sent, key=lambda configuration: configuration["Id"])
    assert ANALYTICS.listed(page) == expected
    assert page["IsTruncated"] is False
    assert "NextContinuationToken" not in page


def test_a_token_of_another_bucket_is_refused(s3, make_bucket, refused):
    with refused("InvalidArgument", 400):
        ANALYTICS.list(s3, make_bucket(), "abc")
