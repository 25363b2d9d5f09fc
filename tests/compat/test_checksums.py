"""Checksums of every algorithm: verified, stored, returned; a mismatch stores nothing."""

import base64
import hashlib
import os
import re
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


FULL_OBJECT = {"crc32", "crc32c", "crc64nvme"}
COMPOSITE = set(ALGORITHMS) - {"crc64nvme"}
PART = 5 * 1024 * 1024
PARTS = [os.urandom(PART), b"the tail"]


def document(parts):
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{more}</Part>"
        for number, etag, more in parts
    )
    return f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()


def create(http, bucket, name, kind=""):
    headers = {"x-amz-checksum-algorithm": name.upper()}
    if kind:
        headers["x-amz-checksum-type"] = kind
    return http.request("POST", f"/{bucket}/k", "uploads", headers=headers)


def element(reply, name):
    found = re.search(rf"<{name}>([^<]*)</{name}>".encode(), reply.body)
    return found.group(1).decode() if found else None


def whole_of(name, kind, bodies):
    if kind == "FULL_OBJECT":
        return checksum(name, b"".join(bodies))
    joined = b"".join(ALGORITHMS[name](body) for body in bodies)
    return f"{base64.b64encode(ALGORITHMS[name](joined)).decode()}-{len(bodies)}"


KINDS = [
    (name, kind)
    for name in ALGORITHMS
    for kind, names in (("FULL_OBJECT", FULL_OBJECT), ("COMPOSITE", COMPOSITE))
    if name in names
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_an_object_of_parts_has_the_checksum_of_its_type_everywhere(http, bucket, name, kind):
    header, tag = f"x-amz-checksum-{name}", f"Checksum{name.upper()}"
    created = create(http, bucket, name, kind)
    assert (created["x-amz-checksum-algorithm"], created["x-amz-checksum-type"]) == (
        name.upper(),
        kind,
    )
    upload = element(created, "UploadId")
    parts = []
    for number, body in enumerate(PARTS, 1):
        query = f"partNumber={number}&uploadId={upload}"
        value = checksum(name, body)
        sent = http.request("PUT", f"/{bucket}/k", query, headers={header: value}, body=body)
        assert (sent.status, sent[header]) == (200, value)
        parts.append((number, sent["etag"], f"<{tag}>{value}</{tag}>"))
    listed = http.request("GET", f"/{bucket}/k", f"uploadId={upload}")
    assert element(listed, "ChecksumAlgorithm") == name.upper()
    assert element(listed, "ChecksumType") == kind
    assert element(listed, tag) == checksum(name, PARTS[0])
    whole = whole_of(name, kind, PARTS)
    body = document(parts)
    wrong = http.request(
        "POST",
        f"/{bucket}/k",
        f"uploadId={upload}",
        headers={header: checksum(name, b"other")},
        body=body,
    )
    assert (wrong.status, wrong.code) == (400, "BadDigest")
    assert http.request("HEAD", f"/{bucket}/k").status == 404
    done = http.request("POST", f"/{bucket}/k", f"uploadId={upload}", body=body)
    assert (done.status, element(done, tag), element(done, "ChecksumType")) == (200, whole, kind)
    found = http.request("HEAD", f"/{bucket}/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert (found[header], found["x-amz-checksum-type"]) == (whole, kind)
    for number, body in enumerate(PARTS, 1):
        for method in ("HEAD", "GET"):
            part = http.request(
                method,
                f"/{bucket}/k",
                f"partNumber={number}",
                headers={"x-amz-checksum-mode": "ENABLED"},
            )
            assert (part.status, part[header]) == (206, checksum(name, body))
            assert part["x-amz-checksum-type"] == kind
    asked = {"x-amz-object-attributes": "Checksum,ObjectParts"}
    attributes = http.request("GET", f"/{bucket}/k", "attributes", headers=asked)
    assert element(attributes, tag) == whole.partition("-")[0]
    assert attributes.body.count(f"<{tag}>".encode()) == 1 + len(PARTS)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("kind", ["FULL_OBJECT", "COMPOSITE", "EVERY_OTHER_BYTE"])
def test_only_types_that_an_algorithm_has_are_offered(http, bucket, name, kind):
    created = create(http, bucket, name, kind)
    if (name, kind) in KINDS:
        assert created.status == 200
    else:
        assert (created.status, created.code) == (400, "InvalidRequest")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_wrong_checksum_of_a_part_stores_no_part(http, bucket, name):
    upload = element(create(http, bucket, name), "UploadId")
    query = f"partNumber=1&uploadId={upload}"
    headers = {f"x-amz-checksum-{name}": checksum(name, b"other")}
    reply = http.request("PUT", f"/{bucket}/k", query, headers=headers, body=b"body")
    assert (reply.status, reply.code) == (400, "BadDigest")
    listed = http.request("GET", f"/{bucket}/k", f"uploadId={upload}")
    assert b"<Part>" not in listed.body


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_copy_keeps_the_checksum_or_gets_the_one_asked_for(http, bucket, name):
    header, tag = f"x-amz-checksum-{name}", f"Checksum{name.upper()}"
    http.request("PUT", f"/{bucket}/k", body=BODY)
    copied = http.request(
        "PUT",
        f"/{bucket}/asked",
        headers={
            "x-amz-copy-source": f"{bucket}/k",
            "x-amz-checksum-algorithm": name.upper(),
        },
    )
    assert (copied.status, element(copied, tag)) == (200, checksum(name, BODY))
    kept = http.request("PUT", f"/{bucket}/kept", headers={"x-amz-copy-source": f"{bucket}/asked"})
    assert element(kept, tag) == checksum(name, BODY)
    for key in ("asked", "kept"):
        found = http.request("HEAD", f"/{bucket}/{key}", headers={"x-amz-checksum-mode": "ENABLED"})
        assert (found[header], found["x-amz-checksum-type"]) == (
            checksum(name, BODY),
            "FULL_OBJECT",
        )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_part_that_is_copied_has_the_checksum_of_its_upload(http, bucket, name):
    http.request("PUT", f"/{bucket}/source", body=BODY)
    upload = element(create(http, bucket, name), "UploadId")
    for number, headers in ((1, {}), (2, {"x-amz-copy-source-range": "bytes=1-9"})):
        reply = http.request(
            "PUT",
            f"/{bucket}/k",
            f"partNumber={number}&uploadId={upload}",
            headers={"x-amz-copy-source": f"{bucket}/source", **headers},
        )
        body = BODY if number == 1 else BODY[1:10]
        assert element(reply, f"Checksum{name.upper()}") == checksum(name, body)


def test_the_attributes_of_a_single_object_have_its_checksum(http, bucket):
    for name in ALGORITHMS:
        value = checksum(name, BODY)
        headers = {f"x-amz-checksum-{name}": value}
        http.request("PUT", f"/{bucket}/{name}", headers=headers, body=BODY)
        asked = {"x-amz-object-attributes": "Checksum"}
        reply = http.request("GET", f"/{bucket}/{name}", "attributes", headers=asked)
        assert element(reply, f"Checksum{name.upper()}") == value
        assert element(reply, "ChecksumType") == "FULL_OBJECT"
