"""Checksums of every algorithm: verified, stored, returned; a mismatch stores nothing."""

import base64
import hashlib
import zlib

import pytest
import xxhash
from awscrt import checksums

BODY = b"The quick brown fox jumps over the lazy dog" * 1000

ALGORITHMS = {
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "crc32c": lambda body: checksums.crc32c(body).to_bytes(4, "big"),
    "crc64nvme": lambda body: checksums.crc64nvme(body).to_bytes(8, "big"),
    "sha1": lambda body: hashlib.sha1(body).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
    "sha512": lambda body: hashlib.sha512(body).digest(),
    "md5": lambda body: hashlib.md5(body).digest(),
    "xxhash64": lambda body: xxhash.xxh64(body).digest(),
    "xxhash3": lambda body: xxhash.xxh3_64(body).digest(),
    "xxhash128": lambda body: xxhash.xxh3_128(body).digest(),
}


def checksum(name, body):
    return base64.b64encode(ALGORITHMS[name](body)).decode()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_checksum_is_verified_stored_and_returned_when_asked_for(http, bucket, name):
    header, value = f"x-amz-checksum-{name}", checksum(name, BODY)
    put = http.request("PUT", f"/{bucket}/k", headers={header: value}, body=BODY)
    assert (put.status, put[header], put["x-amz-checksum-type"]) == (200, value, "FULL_OBJECT")
    for method in ("GET", "HEAD"):
        asked = http.request(method, f"/{bucket}/k", headers={"x-amz-checksum-mode": "ENABLED"})
        assert (asked[header], asked["x-amz-checksum-type"]) == (value, "FULL_OBJECT")
        assert http.request(method, f"/{bucket}/k").headers[header] is None


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_wrong_checksum_is_refused_and_nothing_is_stored(http, bucket, name):
    headers = {f"x-amz-checksum-{name}": checksum(name, b"other")}
    reply = http.request("PUT", f"/{bucket}/k", headers=headers, body=BODY)
    assert (reply.status, reply.code) == (400, "BadDigest")
    assert http.request("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("value", ["", "AAAA", "not base64!"])
def test_a_value_that_cannot_be_of_that_algorithm_is_refused(http, bucket, name, value):
    reply = http.request("PUT", f"/{bucket}/k", headers={f"x-amz-checksum-{name}": value})
    assert (reply.status, reply.code) == (400, "InvalidRequest")


def test_two_checksums_in_one_request_are_refused(http, bucket):
    headers = {f"x-amz-checksum-{name}": checksum(name, BODY) for name in ("crc32", "sha256")}
    reply = http.request("PUT", f"/{bucket}/k", headers=headers, body=BODY)
    assert (reply.status, reply.code) == (400, "InvalidRequest")


def test_an_unknown_algorithm_is_refused(http, bucket):
    reply = http.request(
        "PUT", f"/{bucket}/k", headers={"x-amz-sdk-checksum-algorithm": "CRC16"}, body=b"x"
    )
    assert (reply.status, reply.code) == (400, "InvalidRequest")


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_boto3_computes_and_verifies_what_it_is_asked_for(s3, bucket, algorithm):
    put = s3.put_object(Bucket=bucket, Key="k", Body=BODY, ChecksumAlgorithm=algorithm)
    assert put[f"Checksum{algorithm}"] == checksum(algorithm.lower(), BODY)
    found = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert found["Body"].read() == BODY
    assert found[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]


def test_an_object_put_without_a_checksum_gets_a_crc64nvme(http, bucket):
    http.request("PUT", f"/{bucket}/k", body=BODY)
    found = http.request("HEAD", f"/{bucket}/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert found["x-amz-checksum-crc64nvme"] == checksum("crc64nvme", BODY)


def test_a_range_is_answered_without_the_checksum_of_the_whole(http, bucket):
    headers = {"x-amz-checksum-crc32": checksum("crc32", BODY)}
    http.request("PUT", f"/{bucket}/k", headers=headers, body=BODY)
    asked = {"x-amz-checksum-mode": "ENABLED", "range": "bytes=0-9"}
    reply = http.request("GET", f"/{bucket}/k", headers=asked)
    assert (reply.status, reply.headers["x-amz-checksum-crc32"]) == (206, None)
