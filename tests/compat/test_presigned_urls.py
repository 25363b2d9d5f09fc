"""Presigned URLs."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from compose.s3_http import quote_query

HOUR = 3600


@pytest.fixture
def key(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a b/ü+", Body=b"secret", ContentType="text/plain")
    return f"/{bucket}/a%20b/%C3%BC%2B"


@pytest.fixture(scope="session")
def signer(server):
    """boto3 signs URLs of us-east-1 with the retired Version 2 unless it is told otherwise."""
    return server.client(signature_version="s3v4")


def presign(http, method, path, query="", *, expires=HOUR, when=None, **headers):
    signed = {"host": http.netloc, **headers}
    return http.signer.presigned(method, path, query, signed, expires_seconds=expires, when=when)


def open_url(http, method, url, **more):
    parts = urlsplit(url)
    return http.send(method, parts.path, parts.query, **more)


def test_boto3s_urls_put_get_head_and_delete(signer, http, bucket):
    def url(operation):
        return signer.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": "k ü"})

    assert open_url(http, "PUT", url("put_object"), body=b"hello").status == 200
    assert open_url(http, "GET", url("get_object")).body == b"hello"
    assert open_url(http, "HEAD", url("head_object")).status == 200
    assert open_url(http, "DELETE", url("delete_object")).status == 204


def test_a_url_may_override_response_headers(s3, signer, http, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    url = signer.generate_presigned_url(
        "get_object",
        Params={
            "Bucket": bucket,
            "Key": "k",
            "ResponseContentDisposition": 'attachment; filename="ü.txt"',
        },
    )
    assert "attachment" in open_url(http, "GET", url)["content-disposition"]


def test_a_url_for_one_part_uploads_it(s3, signer, http, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    url = signer.generate_presigned_url(
        "upload_part",
        Params={"Bucket": bucket, "Key": "k", "UploadId": upload, "PartNumber": 1},
    )
    etag = open_url(http, "PUT", url, body=b"hello")["etag"]
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
    )
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


def test_an_expired_url_is_refused(http, key):
    query = presign(http, "GET", key, expires=60, when=datetime.now(UTC) - timedelta(seconds=62))
    reply = http.send("GET", key, query)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert b"<Message>Request has expired</Message>" in reply.body


def test_a_url_lives_for_a_week_at_most(http, key):
    when = datetime.now(UTC) - timedelta(days=6)
    assert (
        http.send("GET", key, presign(http, "GET", key, expires=7 * 86400, when=when)).status == 200
    )
    reply = http.send("GET", key, presign(http, "GET", key, expires=7 * 86400 + 1))
    assert (reply.status, reply.code) == (400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize("expires", ["-1", "x", "", "1.5"])
def test_an_expiry_that_is_no_number_is_refused(http, key, expires):
    query = presign(http, "GET", key).replace("X-Amz-Expires=3600", f"X-Amz-Expires={expires}")
    reply = http.send("GET", key, query)
    assert (reply.status, reply.code) == (400, "AuthorizationQueryParametersError")


def test_a_url_is_bound_to_method_path_query_and_host(http, key):
    query = presign(http, "GET", key)
    attempts = [
        http.send("PUT", key, query, body=b"x"),
        http.send("DELETE", key, query),
        http.send("GET", key + "x", query),
        http.send("GET", key, query + "&response-content-type=text%2Fhtml"),
        http.send("GET", key, query, headers={"host": "elsewhere.example"}),
        http.send("GET", key, query[:-1] + ("0" if query[-1] != "0" else "1")),
    ]
    assert [reply.status for reply in attempts] == [403] * len(attempts)
    assert all(b"secret" not in reply.body for reply in attempts)


@pytest.mark.parametrize(
    "header", ["x-amz-copy-source", "x-amz-acl", "x-amz-meta-a", "x-amz-storage-class"]
)
def test_an_amz_header_that_was_not_signed_is_refused(http, key, header):
    bucket = key.split("/")[1]
    value = {"x-amz-copy-source": key, "x-amz-acl": "public-read"}.get(header, "STANDARD")
    query = presign(http, "PUT", f"/{bucket}/new")
    reply = http.send("PUT", f"/{bucket}/new", query, headers={header: value})
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert http.request("HEAD", f"/{bucket}/new").status == 404


def test_an_amz_header_that_was_signed_must_be_sent(http, key):
    bucket = key.split("/")[1]
    query = presign(http, "PUT", f"/{bucket}/new", **{"x-amz-meta-a": "1"})
    sent = http.send("PUT", f"/{bucket}/new", query, headers={"x-amz-meta-a": "1"}, body=b"x")
    assert sent.status == 200
    assert http.send("PUT", f"/{bucket}/new", query, body=b"x").status == 403


def test_a_parameter_that_is_missing_is_refused(http, key):
    query = presign(http, "GET", key)
    parts = [part for part in query.split("&") if not part.startswith("X-Amz-Date=")]
    reply = http.send("GET", key, "&".join(parts))
    assert (reply.status, reply.code) == (400, "AuthorizationQueryParametersError")


def test_two_ways_to_authenticate_at_once_are_refused(http, key):
    headers, _ = http.signed_headers("GET", key)
    reply = http.send("GET", key, presign(http, "GET", key), headers=headers)
    assert (reply.status, reply.code) == (400, "InvalidArgument")


def test_a_url_of_a_listing_lists(http, key):
    bucket = key.split("/")[1]
    query = presign(http, "GET", f"/{bucket}", quote_query({"list-type": "2", "prefix": "a b/"}))
    assert b"<KeyCount>1</KeyCount>" in http.send("GET", f"/{bucket}", query).body


@pytest.mark.parametrize("expected", ["AAAAAA==", "nonsense"])
def test_a_sum_of_content_in_the_query_has_no_effect(s3, http, bucket, expected):
    """The JavaScript SDK puts that of no content into every URL for an upload, and on S3 such an
    upload succeeds; as a header a sum is compared."""
    summed = {"x-amz-checksum-crc32": expected, "x-amz-sdk-checksum-algorithm": "CRC32"}
    query = quote_query({**summed, "x-amz-meta-a": "1"})
    signed = presign(http, "PUT", f"/{bucket}/k", query)
    assert http.send("PUT", f"/{bucket}/k", signed, body=b"hello").status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a": "1"}
    header = {"x-amz-checksum-crc32": "AAAAAA=="}
    signed = presign(http, "PUT", f"/{bucket}/other", **header)
    reply = http.send("PUT", f"/{bucket}/other", signed, headers=header, body=b"hello")
    assert (reply.status, reply.code) == (400, "BadDigest")
