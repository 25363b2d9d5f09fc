"""PutBucketMetricsConfiguration."""

from tests.compat.bucket_configurations import METRICS


def test_what_is_set_is_read_back(s3, bucket):
    sent = METRICS.put(s3, bucket, "one")
    assert METRICS.get(s3, bucket, "one") == sent


def test_the_same_id_again_replaces_the_configuration(s3, bucket):
    METRICS.put(s3, bucket, "one")
    sent = METRICS.put(s3, bucket, "one", Filter={"Prefix": "other"})
    assert METRICS.listed(METRICS.list(s3, bucket)) == [sent]


def test_a_tag_that_is_the_systems_is_refused(s3, bucket, refused):
    with refused("InvalidTag", 400):
        METRICS.put(s3, bucket, "one", Filter={"Tag": {"Key": "aws:a", "Value": "1"}})
    assert METRICS.listed(METRICS.list(s3, bucket)) == []


def test_an_id_that_differs_from_that_of_the_request_is_refused(s3, bucket, refused):
    with refused("InvalidArgument", 400):
        s3.put_bucket_metrics_configuration(
            Bucket=bucket,
            Id="one",
            MetricsConfiguration={**METRICS.sample, "Id": "other"},
        )


def test_a_body_that_is_no_configuration_is_refused(http, bucket):
    for body in (b"", b"<Other/>", b"<MetricsConfiguration/>", b"<MetricsConfiguration"):
        reply = http.request("PUT", f"/{bucket}", "metrics&id=one", body=body)
        assert reply.status == 400
        assert reply.code == ("MissingRequestBodyError" if body == b"" else "MalformedXML")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        METRICS.put(s3, missing_bucket, "one")
