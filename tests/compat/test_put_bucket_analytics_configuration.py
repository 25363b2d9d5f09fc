"""PutBucketAnalyticsConfiguration."""

from tests.compat.bucket_configurations import ANALYTICS


def test_what_is_set_is_read_back(s3, bucket):
    sent = ANALYTICS.put(s3, bucket, "one")
    assert ANALYTICS.get(s3, bucket, "one") == sent


def test_the_same_id_again_replaces_the_configuration(s3, bucket):
    ANALYTICS.put(s3, bucket, "one")
    sent = ANALYTICS.put(s3, bucket, "one", StorageClassAnalysis={})
    assert ANALYTICS.listed(ANALYTICS.list(s3, bucket)) == [sent]


def test_a_join_of_one_condition_is_refused(s3, bucket, refused):
    with refused("MalformedXML", 400):
        ANALYTICS.put(s3, bucket, "one", Filter={"And": {"Prefix": "p"}})
    assert ANALYTICS.listed(ANALYTICS.list(s3, bucket)) == []


def test_an_id_that_differs_from_that_of_the_request_is_refused(s3, bucket, refused):
    with refused("InvalidArgument", 400):
        s3.put_bucket_analytics_configuration(
            Bucket=bucket,
            Id="one",
            AnalyticsConfiguration={**ANALYTICS.sample, "Id": "other"},
        )


def test_a_body_that_is_no_configuration_is_refused(http, bucket):
    for body in (b"", b"<Other/>", b"<AnalyticsConfiguration/>", b"<AnalyticsConfiguration"):
        reply = http.request("PUT", f"/{bucket}", "analytics&id=one", body=body)
        assert reply.status == 400
        assert reply.code == ("MissingRequestBodyError" if body == b"" else "MalformedXML")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        ANALYTICS.put(s3, missing_bucket, "one")
