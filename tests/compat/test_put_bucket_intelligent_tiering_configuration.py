"""PutBucketIntelligentTieringConfiguration."""

from tests.compat.bucket_configurations import INTELLIGENT_TIERING


def test_what_is_set_is_read_back(s3, bucket):
    sent = INTELLIGENT_TIERING.put(s3, bucket, "one")
    assert INTELLIGENT_TIERING.get(s3, bucket, "one") == sent


def test_the_same_id_again_replaces_the_configuration(s3, bucket):
    INTELLIGENT_TIERING.put(s3, bucket, "one")
    sent = INTELLIGENT_TIERING.put(s3, bucket, "one", Status="Disabled")
    assert INTELLIGENT_TIERING.listed(INTELLIGENT_TIERING.list(s3, bucket)) == [sent]


def test_a_tier_of_too_few_days_is_refused(s3, bucket, refused):
    tiers = [{"Days": 179, "AccessTier": "DEEP_ARCHIVE_ACCESS"}]
    with refused("InvalidRequest", 400):
        INTELLIGENT_TIERING.put(s3, bucket, "one", Tierings=tiers)
    assert INTELLIGENT_TIERING.listed(INTELLIGENT_TIERING.list(s3, bucket)) == []


def test_an_id_that_differs_from_that_of_the_request_is_refused(s3, bucket, refused):
    with refused("InvalidArgument", 400):
        s3.put_bucket_intelligent_tiering_configuration(
            Bucket=bucket,
            Id="one",
            IntelligentTieringConfiguration={**INTELLIGENT_TIERING.sample, "Id": "other"},
        )


def test_a_body_that_is_no_configuration_is_refused(http, bucket):
    for body in (
        b"",
        b"<Other/>",
        b"<IntelligentTieringConfiguration/>",
        b"<IntelligentTieringConfiguration",
    ):
        reply = http.request("PUT", f"/{bucket}", "intelligent-tiering&id=one", body=body)
        assert reply.status == 400
        assert reply.code == ("MissingRequestBodyError" if body == b"" else "MalformedXML")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        INTELLIGENT_TIERING.put(s3, missing_bucket, "one")
