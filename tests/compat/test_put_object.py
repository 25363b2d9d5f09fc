"""PutObject."""

import base64
import email.header
import hashlib
import os
import socket

import pytest

KIB, MIB = 1024, 1024 * 1024


def md5_base64(body):
    return base64.b64encode(hashlib.md5(body).digest()).decode()


@pytest.mark.parametrize(
    "size",
    [
        *(0, 1, 4 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1),
        *(MIB - 1, MIB, MIB + 1, 4 * MIB + 12345, 9 * MIB + 1),
    ],
)
def test_what_was_put_is_read_back_whatever_its_size(s3, bucket, size):
    body = os.urandom(size)
    reply = s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert reply["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["ContentLength"] == size
    assert found["Body"].read() == body


def test_the_reply_has_a_quoted_etag_and_no_body(http, bucket):
    reply = http.request("PUT", f"/{bucket}/k", body=b"hello")
    assert (reply.status, reply.body) == (200, b"")
    assert reply["etag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert reply["content-length"] == "0"
    assert reply["x-amz-request-id"]
    assert reply["x-amz-id-2"]


def test_a_second_put_replaces_the_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"first", Metadata={"a": "1"}, ContentType="x/y")
    s3.put_object(Bucket=bucket, Key="k", Body=b"second, longer")
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["Body"].read() == b"second, longer"
    assert (found["Metadata"], found["ContentType"]) == ({}, "binary/octet-stream")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.put_object(Bucket=missing_bucket, Key="k", Body=b"x")


def test_content_headers_are_stored_and_returned(s3, bucket):
    given = {
        "ContentType": "text/plain; charset=utf-8",
        "ContentEncoding": "gzip",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentLanguage": "de-DE",
        "CacheControl": "max-age=60, private",
    }
    s3.put_object(
        Bucket=bucket, Key="k", Body=b"x", **given, Expires="Thu, 01 Dec 2033 16:00:00 GMT"
    )
    found = s3.head_object(Bucket=bucket, Key="k")
    assert {name: found[name] for name in given} == given
    assert found["ExpiresString"] == "Thu, 01 Dec 2033 16:00:00 GMT"


def test_user_metadata_is_returned_with_names_in_lower_case(http, bucket):
    http.request(
        "PUT",
        f"/{bucket}/k",
        headers={"X-Amz-Meta-CamelCase".lower(): "Some Value", "x-amz-meta-empty": ""},
    )
    headers = http.request("HEAD", f"/{bucket}/k").headers
    stored = {n: v for n, v in headers.items() if n.lower().startswith("x-amz-meta-")}
    assert stored == {"x-amz-meta-camelcase": "Some Value", "x-amz-meta-empty": ""}


def test_user_metadata_of_2_kib_is_accepted_and_more_is_refused(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata={"m": "v" * (2048 - 1)})
    assert len(s3.head_object(Bucket=bucket, Key="k")["Metadata"]["m"]) == 2047
    with refused("MetadataTooLarge", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata={"m": "v" * 2048})


def test_metadata_that_is_not_ascii_comes_back_as_rfc_2047_words(http, bucket):
    http.request("PUT", f"/{bucket}/k", headers={"x-amz-meta-name": "Grüße"})
    value = http.request("HEAD", f"/{bucket}/k")["x-amz-meta-name"]
    assert value.isascii()
    assert str(email.header.make_header(email.header.decode_header(value))) == "Grüße"


def test_a_right_content_md5_is_accepted(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ContentMD5=md5_base64(b"hello"))


def test_a_wrong_content_md5_is_refused_and_nothing_is_stored(s3, bucket, refused):
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ContentMD5=md5_base64(b"other"))
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("value", ["not base64!", "c2hvcnQ=", ""])
def test_a_content_md5_that_is_no_md5_is_refused(http, bucket, value):
    reply = http.request("PUT", f"/{bucket}/k", headers={"content-md5": value}, body=b"hello")
    assert (reply.status, reply.code) == (400, "InvalidDigest")


def test_a_body_other_than_the_signed_one_is_refused_and_nothing_is_stored(http, bucket):
    reply = http.request(
        "PUT", f"/{bucket}/k", body=b"changed", payload_hash=hashlib.sha256(b"signed").hexdigest()
    )
    assert (reply.status, reply.code) == (400, "XAmzContentSHA256Mismatch")
    assert http.request("HEAD", f"/{bucket}/k").status == 404


def test_a_refused_put_leaves_the_object_that_was_there(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"after", ContentMD5=md5_base64(b"other"))
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"before"


def test_a_body_without_a_length_is_refused(http, bucket):
    headers, _ = http.signed_headers("PUT", f"/{bucket}/k", "", {"transfer-encoding": "chunked"})
    reply = http.send("PUT", f"/{bucket}/k", headers=headers, body=b"5\r\nhello\r\n0\r\n\r\n")
    assert (reply.status, reply.code) == (411, "MissingContentLength")


def test_a_body_over_5_gib_is_refused_before_it_is_sent(http, bucket):
    headers = {"content-length": str(5 * 1024**3 + 1), "expect": "100-continue"}
    signed, _ = http.signed_headers("PUT", f"/{bucket}/k", "", headers)
    reply = http.send("PUT", f"/{bucket}/k", headers=signed)
    assert (reply.status, reply.code) == (400, "EntityTooLarge")


def test_the_storage_class_is_echoed_except_the_standard_one(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="STANDARD")
    assert "StorageClass" not in s3.head_object(Bucket=bucket, Key="k")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="STANDARD_IA")
    assert s3.head_object(Bucket=bucket, Key="k")["StorageClass"] == "STANDARD_IA"
    [entry] = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert entry["StorageClass"] == "STANDARD_IA"


def test_an_unknown_storage_class_is_refused(s3, bucket, refused):
    with refused("InvalidStorageClass", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="CARDBOARD_BOX")


def test_a_put_through_one_gateway_is_seen_at_once_through_another(server, bucket):
    writer, reader = (server.client(server.endpoints[index]) for index in (0, -1))
    for number in range(10):
        writer.put_object(Bucket=bucket, Key="k", Body=str(number).encode())
        assert reader.get_object(Bucket=bucket, Key="k")["Body"].read() == str(number).encode()


def test_a_body_whose_length_is_nowhere_is_refused(http, bucket):
    headers, _ = http.signed_headers("PUT", f"/{bucket}/k")
    with socket.create_connection((http.host, http.port), timeout=20) as wire:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        wire.sendall(f"PUT /{bucket}/k HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: wire.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 411 ")
    assert b"<Code>MissingContentLength</Code>" in reply


@pytest.mark.parametrize("kind", ["UNSIGNED-PAYLOAD", None])
def test_a_trailer_that_no_body_of_this_kind_has_is_refused(http, bucket, kind):
    headers = {"x-amz-trailer": "x-amz-checksum-crc32"}
    reply = http.request("PUT", f"/{bucket}/k", headers=headers, body=b"x", payload_hash=kind)
    assert (reply.status, reply.code) == (400, "InvalidRequest")
    assert http.request("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize(
    ("header", "value", "status", "code"),
    [
        ("x-amz-server-side-encryption", "aws:kms:dsse", 501, "NotImplemented"),
        ("x-amz-server-side-encryption", "ROT13", 400, "InvalidArgument"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "name", 400, "InvalidArgument"),
        ("x-amz-server-side-encryption-context", "e30=", 400, "InvalidArgument"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256", 400, "InvalidArgument"),
        ("x-amz-server-side-encryption-customer-key", "AES256", 400, "InvalidArgument"),
    ],
)
def test_encryption_that_makes_no_sense_is_refused_and_nothing_is_stored(
    http, bucket, header, value, status, code
):
    reply = http.request("PUT", f"/{bucket}/k", headers={header: value}, body=b"x")
    assert (reply.status, reply.code) == (status, code)
    assert http.request("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize("acl", ["private", "bucket-owner-read", "bucket-owner-full-control"])
def test_an_acl_that_says_what_is_so_anyway_is_accepted(s3, bucket, acl):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL=acl)
    [grant] = s3.get_object_acl(Bucket=bucket, Key="k")["Grants"]
    assert grant["Permission"] == "FULL_CONTROL"


@pytest.mark.parametrize(
    "grant", [{"ACL": "public-read"}, {"ACL": "authenticated-read"}, {"GrantRead": 'id="other"'}]
)
def test_an_acl_that_would_not_be_obeyed_is_refused(s3, bucket, refused, grant):
    with refused("AccessControlListNotSupported", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **grant)
    with refused("AccessControlListNotSupported", 400):
        s3.create_multipart_upload(Bucket=bucket, Key="k", **grant)


def test_an_acl_that_does_not_exist_is_refused(s3, bucket, refused):
    with refused("InvalidArgument", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="everybody")


@pytest.mark.parametrize(("method", "query"), [("PUT", ""), ("POST", "uploads&")])
def test_what_makes_a_version_cannot_name_one(http, bucket, method, query):
    reply = http.request(method, f"/{bucket}/k", f"{query}versionId=null", body=b"x")
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    assert http.request("HEAD", f"/{bucket}/k").status == 404
