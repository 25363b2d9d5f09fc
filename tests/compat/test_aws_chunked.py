"""aws-chunked bodies in every form, built by hand, by boto3 and by the common runtime (awscrt)."""

import base64
import os
import zlib

import pytest
from awscrt.auth import AwsCredentialsProvider
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.s3 import (
    S3ChecksumAlgorithm,
    S3ChecksumConfig,
    S3ChecksumLocation,
    S3Client,
    S3RequestTlsMode,
    S3RequestType,
    create_default_s3_signing_config,
)

from compose.s3_http import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    chunked_signed,
    chunked_unsigned,
)
from tests.compat.test_checksums import ALGORITHMS, checksum

CHUNKS = [b"a" * 65536, b"b" * 65536, b"c" * 1000]
BODY = b"".join(CHUNKS)
BODY_BYTES = len(BODY)


def crc32(body):
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


TRAILER = {"x-amz-checksum-crc32": crc32(BODY)}


@pytest.fixture
def put(http, bucket):
    """Sends an aws-chunked body to `k`; `make` frames it, given the seed signature."""

    def send(kind, make, *, decoded=BODY_BYTES, transfer=False, **headers):
        path = f"/{bucket}/k"
        given = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(decoded),
            **headers,
        }
        if kind != STREAMING_SIGNED:
            given.setdefault("x-amz-trailer", "x-amz-checksum-crc32")
        signed, seed = http.signed_headers("PUT", path, "", given, kind)
        framed = make(seed)
        if not transfer:
            return http.send("PUT", path, headers=signed, body=framed)
        pieces = [b"%x\r\n%b\r\n" % (len(framed), framed), b"0\r\n\r\n"]
        return http.send(
            "PUT", path, headers={**signed, "transfer-encoding": "chunked"}, body=pieces
        )

    return send


def signed(seed):
    return chunked_signed(CHUNKS, seed)


def signed_trailer(seed):
    return chunked_signed(CHUNKS, seed, TRAILER)


def unsigned_trailer(_):
    return chunked_unsigned(CHUNKS, TRAILER)


FORMS = {
    STREAMING_SIGNED: signed,
    STREAMING_SIGNED_TRAILER: signed_trailer,
    STREAMING_UNSIGNED_TRAILER: unsigned_trailer,
}


@pytest.mark.parametrize("transfer", [False, True], ids=["length", "chunked transfer"])
@pytest.mark.parametrize("kind", FORMS)
def test_the_framing_is_removed_and_never_stored(http, bucket, put, kind, transfer):
    assert put(kind, FORMS[kind], transfer=transfer).status == 200
    found = http.request("GET", f"/{bucket}/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert found.body == BODY
    assert found.headers["content-encoding"] is None
    if kind != STREAMING_SIGNED:
        assert found["x-amz-checksum-crc32"] == TRAILER["x-amz-checksum-crc32"]


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("encoding", ["aws-chunked,gzip", "gzip,aws-chunked", "gzip, aws-chunked"])
def test_an_encoding_of_the_users_own_is_kept(http, bucket, put, kind, encoding):
    assert put(kind, FORMS[kind], **{"content-encoding": encoding}).status == 200
    assert http.request("HEAD", f"/{bucket}/k")["content-encoding"] == "gzip"


@pytest.mark.parametrize("kind", FORMS)
def test_an_empty_body_is_framed_too(http, bucket, put, kind):
    trailer = {"x-amz-checksum-crc32": crc32(b"")}
    empty = {
        STREAMING_SIGNED: lambda seed: chunked_signed([], seed),
        STREAMING_SIGNED_TRAILER: lambda seed: chunked_signed([], seed, trailer),
        STREAMING_UNSIGNED_TRAILER: lambda _: chunked_unsigned([], trailer),
    }
    assert put(kind, empty[kind], decoded=0).status == 200
    assert http.request("GET", f"/{bucket}/k").body == b""


@pytest.mark.parametrize("position", [100, 65536 + 200, 2 * 65536 + 400])
def test_a_changed_byte_in_any_chunk_is_refused_and_nothing_is_stored(http, bucket, put, position):
    def tampered(seed):
        framed = bytearray(signed(seed))
        framed[position] ^= 1
        return bytes(framed)

    reply = put(STREAMING_SIGNED, tampered)
    assert (reply.status, reply.code) == (403, "SignatureDoesNotMatch")
    assert http.request("HEAD", f"/{bucket}/k").status == 404


def test_swapped_chunks_are_refused(put):
    def swapped(seed):
        framed = signed(seed)
        size = framed.index(b"\r\n") + 2 + 65536 + 2
        return framed[size : 2 * size] + framed[:size] + framed[2 * size :]

    assert put(STREAMING_SIGNED, swapped).code == "SignatureDoesNotMatch"


def test_a_changed_trailer_is_refused(http, bucket, put):
    def tampered(seed):
        return signed_trailer(seed).replace(TRAILER["x-amz-checksum-crc32"].encode(), b"AAAAAA==")

    reply = put(STREAMING_SIGNED_TRAILER, tampered)
    assert reply.status in (400, 403)
    assert reply.code in ("SignatureDoesNotMatch", "BadDigest")
    assert http.request("HEAD", f"/{bucket}/k").status == 404


def test_a_trailer_that_does_not_match_the_body_is_refused(http, bucket, put):
    wrong = {"x-amz-checksum-crc32": crc32(b"other")}
    replies = [
        put(STREAMING_UNSIGNED_TRAILER, lambda _: chunked_unsigned(CHUNKS, wrong)),
        put(STREAMING_SIGNED_TRAILER, lambda seed: chunked_signed(CHUNKS, seed, wrong)),
    ]
    assert [(reply.status, reply.code) for reply in replies] == [(400, "BadDigest")] * 2
    assert http.request("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("decoded", [len(BODY) - 1, len(BODY) + 1, 0])
def test_a_decoded_length_that_is_not_the_bodys_is_refused(http, bucket, put, kind, decoded):
    reply = put(kind, FORMS[kind], decoded=decoded)
    assert (reply.status, reply.code) == (400, "IncompleteBody")
    assert http.request("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("cut", [1, 3, 100, 1000, 65000, 100_000])
def test_a_body_that_ends_early_is_refused_and_nothing_is_stored(http, bucket, put, kind, cut):
    reply = put(kind, lambda seed: FORMS[kind](seed)[:-cut])
    assert reply.status in (400, 403)
    assert reply.code in ("IncompleteBody", "SignatureDoesNotMatch", "MalformedTrailerError")
    assert http.request("HEAD", f"/{bucket}/k").status == 404


@pytest.mark.parametrize(
    "frame",
    [
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["no number", "negative", "bare LF", "no CRLF", "huge", "long extension"],
)
def test_a_malformed_chunk_is_refused(http, bucket, put, frame):
    reply = put(STREAMING_UNSIGNED_TRAILER, lambda _: frame, decoded=5)
    assert reply.status == 400
    assert http.request("HEAD", f"/{bucket}/k").status == 404


def test_a_missing_decoded_length_is_refused(http, bucket):
    path = f"/{bucket}/k"
    headers, seed = http.signed_headers("PUT", path, "", {}, STREAMING_SIGNED)
    reply = http.send("PUT", path, headers=headers, body=signed(seed))
    assert (reply.status, reply.code) == (411, "MissingContentLength")


def test_a_trailer_does_not_replace_a_signature(http, bucket):
    for headers in (
        {"x-amz-content-sha256": STREAMING_UNSIGNED_TRAILER},
        {
            "x-amz-content-sha256": STREAMING_UNSIGNED_TRAILER,
            "authorization": "AWS4-HMAC-SHA256 Credential=x/20250101/us-east-1/s3/aws4_request, "
            "SignedHeaders=host, Signature=00",
        },
    ):
        framed = {
            **headers,
            "x-amz-decoded-content-length": str(len(BODY)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
        reply = http.send("PUT", f"/{bucket}/k", headers=framed, body=unsigned_trailer(None))
        assert reply.status in (400, 403)
    assert http.request("HEAD", f"/{bucket}/k").status == 404


def test_a_part_can_be_framed(s3, http, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    path, query = f"/{bucket}/k", f"partNumber=1&uploadId={upload}"
    given = {
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(len(BODY)),
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    headers, _ = http.signed_headers("PUT", path, query, given, STREAMING_UNSIGNED_TRAILER)
    reply = http.send("PUT", path, query, headers=headers, body=unsigned_trailer(None))
    assert reply.status == 200
    [part] = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
    assert part["Size"] == len(BODY)


def crt_client(server):

    credentials = AwsCredentialsProvider.new_static(server.access_key, server.secret_key)
    return S3Client(
        region="us-east-1",
        tls_mode=S3RequestTlsMode.DISABLED,
        part_size=5 * 1024 * 1024,
        signing_config=create_default_s3_signing_config(
            region="us-east-1", credential_provider=credentials
        ),
    )


@pytest.mark.parametrize("size", [1000, 12 * 1024 * 1024])
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC64NVME", "SHA256"])
def test_the_common_runtime_uploads_with_a_trailer(server, http, bucket, tmp_path, size, algorithm):

    body = os.urandom(size)
    source = tmp_path / "source"
    source.write_bytes(body)
    headers = HttpHeaders([("host", http.netloc), ("content-length", str(size))])
    crt_client(server).make_request(
        type=S3RequestType.PUT_OBJECT,
        request=HttpRequest("PUT", f"/{bucket}/crt", headers),
        send_filepath=str(source),
        checksum_config=S3ChecksumConfig(
            algorithm=S3ChecksumAlgorithm[algorithm], location=S3ChecksumLocation.TRAILER
        ),
    ).finished_future.result(60)
    found = http.request("GET", f"/{bucket}/crt")
    assert found.body == body
    assert found.headers["content-encoding"] is None


@pytest.mark.parametrize("kind", [STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_may_come_in_a_trailer(http, bucket, put, kind, name):
    header = f"x-amz-checksum-{name}"

    def framed(body):
        trailer = {header: checksum(name, body)}
        if kind == STREAMING_SIGNED_TRAILER:
            return lambda seed: chunked_signed(CHUNKS, seed, trailer)
        return lambda _: chunked_unsigned(CHUNKS, trailer)

    wrong = put(kind, framed(b"other"), **{"x-amz-trailer": header})
    assert (wrong.status, wrong.code) == (400, "BadDigest")
    assert http.request("HEAD", f"/{bucket}/k").status == 404
    assert put(kind, framed(BODY), **{"x-amz-trailer": header}).status == 200
    found = http.request("HEAD", f"/{bucket}/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert found[header] == checksum(name, BODY)
