"""GetObject (ranges are in test_ranges, conditions in test_conditions)."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest


def test_an_object_is_answered_with_its_headers(http, bucket):
    http.request("PUT", f"/{bucket}/k", body=b"hello")
    reply = http.request("GET", f"/{bucket}/k")
    assert (reply.status, reply.reason, reply.body) == (200, "OK", b"hello")
    assert reply["etag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert reply["content-length"] == "5"
    assert reply["content-type"] == "binary/octet-stream"
    assert reply["accept-ranges"] == "bytes"
    modified = parsedate_to_datetime(reply["last-modified"])
    assert abs(datetime.now(UTC) - modified) < timedelta(minutes=5)
    assert reply["last-modified"].endswith(" GMT")


def test_a_missing_key_is_refused_with_the_whole_error_document(http, bucket):
    reply = http.request("GET", f"/{bucket}/no/such")
    assert (reply.status, reply.code) == (404, "NoSuchKey")
    assert reply["content-type"] == "application/xml"
    text = reply.body.decode()
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>')
    assert "<Message>The specified key does not exist.</Message>" in text
    assert "<Key>no/such</Key>" in text
    assert f"<RequestId>{reply['x-amz-request-id']}</RequestId>" in text
    assert f"<HostId>{reply['x-amz-id-2']}</HostId>" in text
    assert "xmlns" not in text


def test_a_missing_bucket_is_refused_by_its_name(http, missing_bucket):
    reply = http.request("GET", f"/{missing_bucket}/k")
    assert (reply.status, reply.code) == (404, "NoSuchBucket")
    assert f"<BucketName>{missing_bucket}</BucketName>".encode() in reply.body


def test_every_reply_has_its_own_request_id(http, bucket):
    replies = [http.request("GET", f"/{bucket}/k") for _ in range(3)]
    assert len({reply["x-amz-request-id"] for reply in replies}) == 3


def test_a_signed_get_may_override_response_headers(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/plain")
    found = s3.get_object(
        Bucket=bucket,
        Key="k",
        ResponseContentType="application/json",
        ResponseContentDisposition='attachment; filename="x.json"',
        ResponseContentEncoding="identity",
        ResponseContentLanguage="fr",
        ResponseCacheControl="no-store",
        ResponseExpires=datetime(2033, 12, 1, 16, tzinfo=UTC),
    )
    headers = found["ResponseMetadata"]["HTTPHeaders"]
    assert headers["content-type"] == "application/json"
    assert headers["content-disposition"] == 'attachment; filename="x.json"'
    assert headers["content-encoding"] == "identity"
    assert headers["content-language"] == "fr"
    assert headers["cache-control"] == "no-store"
    assert headers["expires"]
    assert s3.head_object(Bucket=bucket, Key="k")["ContentType"] == "text/plain"


def test_an_override_cannot_add_a_header_of_its_own(http, bucket):
    http.request("PUT", f"/{bucket}/k", body=b"x")
    reply = http.request("GET", f"/{bucket}/k", "response-content-type=a%0D%0Ax-injected%3A%20b")
    assert reply.status in (200, 400)
    assert reply.headers["x-injected"] is None


def test_part_1_of_an_object_put_in_one_piece_is_the_whole_object(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm="SHA256")
    found = s3.get_object(Bucket=bucket, Key="k", PartNumber=1, ChecksumMode="ENABLED")
    assert found["Body"].read() == b"hello"
    assert found["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert "PartsCount" not in found


def test_part_2_of_an_object_put_in_one_piece_is_refused(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    with refused("InvalidPartNumber", 416):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=2)


def test_a_range_and_a_part_number_together_are_refused(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=1, Range="bytes=0-1")


@pytest.mark.parametrize("number", ["0", "10001", "x", "-1"])
def test_a_part_number_out_of_range_is_refused(http, bucket, number):
    http.request("PUT", f"/{bucket}/k", body=b"hello")
    reply = http.request("GET", f"/{bucket}/k", f"partNumber={number}")
    assert (reply.status, reply.code) == (400, "InvalidArgument")


def test_a_null_version_id_names_the_object_of_an_unversioned_bucket(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"hello"


def test_a_version_id_that_was_never_given_out_is_refused(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    with refused("InvalidArgument", 400):
        s3.get_object(Bucket=bucket, Key="k", VersionId="never-given-out")


def test_the_x_id_parameter_of_sdks_is_ignored(http, bucket):
    http.request("PUT", f"/{bucket}/k", "x-id=PutObject", body=b"hello")
    assert http.request("GET", f"/{bucket}/k", "x-id=GetObject").body == b"hello"


def test_the_date_header_is_the_time_of_the_reply(http, bucket):
    reply = http.request("GET", f"/{bucket}/k")
    assert re.match(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$", reply["date"])


def test_a_listing_is_not_an_object(http, bucket):
    http.request("PUT", f"/{bucket}/k", body=b"hello")
    assert b"<ListBucketResult" in http.request("GET", f"/{bucket}/").body


KEY = {"x-amz-server-side-encryption-customer-algorithm": "AES256"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_key_to_decrypt_what_is_not_encrypted_is_refused(http, bucket, method):
    http.request("PUT", f"/{bucket}/k", body=b"x")
    reply = http.request(method, f"/{bucket}/k", headers=KEY)
    assert (reply.status, reply.body == b"") == (400, method == "HEAD")


def test_304_repeats_what_caches_need(s3, http, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x", CacheControl="max-age=60")["ETag"]
    found = http.request("GET", f"/{bucket}/k")
    reply = http.request("GET", f"/{bucket}/k", headers={"if-none-match": etag})
    assert (reply.status, reply.body) == (304, b"")
    for name in ("etag", "last-modified", "cache-control"):
        assert reply[name] == found[name]
    assert reply["x-amz-request-id"]
    assert reply["date"]


@pytest.mark.parametrize("listing", ["uploads", "versions"])
def test_a_key_has_no_listing(http, bucket, listing):
    http.request("PUT", f"/{bucket}/k", body=b"x")
    reply = http.request("GET", f"/{bucket}/k", listing)
    assert (reply.status, reply.code) == (400, "InvalidRequest")


def test_a_copy_source_is_refused(http, bucket):
    http.request("PUT", f"/{bucket}/k", body=b"x")
    reply = http.request("GET", f"/{bucket}/k", headers={"x-amz-copy-source": f"/{bucket}/k"})
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    assert b"only specify a copy source header for copy requests" in reply.body
