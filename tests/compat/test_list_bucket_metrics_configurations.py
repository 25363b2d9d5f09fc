"""ListBucketMetricsConfigurations."""

from tests.compat.bucket_configurations import METRICS


def test_configurations_come_in_the_order_of_their_ids(s3, bucket):
    sent = [METRICS.put(s3, bucket, id_) for id_ in ("b", "a", "C", "a1")]
    page = METRICS.list(s3, bucket)
    expected = sorted(sent, key=lambda configuration: configuration["Id"])
    assert METRICS.listed(page) == expected
    assert page["IsTruncated"] is False
    assert "NextContinuationToken" not in page


def test_a_token_of_another_bucket_is_refused(s3, make_bucket, refused):
    with refused("InvalidArgument", 400):
        METRICS.list(s3, make_bucket(), "abc")


def test_more_than_a_page_is_listed_with_tokens(s3, make_bucket, refused):
    bucket = make_bucket()
    ids = sorted(f"id-{number}" for number in range(102))
    for id_ in reversed(ids):
        METRICS.put(s3, bucket, id_)
    first = METRICS.list(s3, bucket)
    assert first["IsTruncated"] is True
    token = first["NextContinuationToken"]
    second = METRICS.list(s3, bucket, token)
    assert (second["IsTruncated"], second["ContinuationToken"]) == (False, token)
    pages = [[one["Id"] for one in METRICS.listed(page)] for page in (first, second)]
    assert (len(pages[0]), pages[0] + pages[1]) == (100, ids)
    with refused("InvalidArgument", 400):
        METRICS.list(s3, make_bucket(), token)
