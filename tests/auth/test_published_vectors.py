"""AWS's published example requests and signatures (Amazon S3 API Reference, SigV4 examples)."""

import hashlib

import pytest

from s3gw.auth.canonical import Request
from s3gw.auth.chunks import ChunkSignatures
from s3gw.auth.sigv4 import PayloadMode, SignedRequest, parse_credentials, verify
from s3gw.wire.aws_chunked import AwsChunkedDecoder

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
NOW = 1369353600.0  # 20130524T000000Z
EMPTY = hashlib.sha256(b"").hexdigest()
SCOPE = "20130524/us-east-1/s3/aws4_request"


def signed(
    method: str, path: str, query: str, headers: dict[str, str], names: str, signature: str
) -> SignedRequest:
    sent = {
        "host": "examplebucket.s3.amazonaws.com",
        "x-amz-date": "20130524T000000Z",
        **headers,
        "authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},"
        f"SignedHeaders={names},Signature={signature}",
    }
    pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
    request = Request(method, path.encode(), query.encode(), pairs, NOW)
    credentials = parse_credentials(request, ["us-east-1"])
    assert credentials is not None
    assert credentials.access_key == ACCESS_KEY
    return verify(request, credentials, SECRET_KEY)


def test_get_object_with_a_range() -> None:
    result = signed(
        "GET",
        "/test.txt",
        "",
        {"range": "bytes=0-9", "x-amz-content-sha256": EMPTY},
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    )
    assert result.payload.mode is PayloadMode.HASHED
    assert result.payload.sha256 == EMPTY
    assert not result.presigned


def test_put_object_whose_path_was_sent_unencoded() -> None:
    body = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
    result = signed(
        "PUT",
        "/test$file.text",
        "",
        {
            "date": "Fri, 24 May 2013 00:00:00 GMT",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": body,
        },
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    )
    assert result.payload.sha256 == body


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ("lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "max-keys=2&prefix=J",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_get_bucket_lifecycle_and_list_objects(query: str, signature: str) -> None:
    names = "host;x-amz-content-sha256;x-amz-date"
    signed("GET", "/", query, {"x-amz-content-sha256": EMPTY}, names, signature)


def test_presigned_get() -> None:
    query = (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524"
        "%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400"
        "&X-Amz-SignedHeaders=host&X-Amz-Signature="
        "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    host = (b"host", b"examplebucket.s3.amazonaws.com")
    request = Request("GET", b"/test.txt", query.encode(), [host], NOW + 86400)
    credentials = parse_credentials(request, ["us-east-1"])
    assert credentials is not None
    result = verify(request, credentials, SECRET_KEY)
    assert result.presigned
    assert result.payload.mode is PayloadMode.UNSIGNED


PAYLOAD = b"a" * 66560
CHUNKS = (
    (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)
TRAILER_CHUNKS = (
    (65536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
    (1024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
    (0, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"),
)
TRAILER = (
    b"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:"
    b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n"
)


def framed(chunks: tuple[tuple[int, str], ...]) -> bytes:
    return b"".join(
        b"%x;chunk-signature=%b\r\n%b"
        % (size, signature.encode(), b"a" * size + b"\r\n" * (size > 0))
        for size, signature in chunks
    )


def test_chunked_upload_of_66560_bytes() -> None:
    result = signed(
        "PUT",
        "/examplebucket/chunkObject.txt",
        "",
        {
            "host": "s3.amazonaws.com",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": "66560",
            "content-length": "66824",
        },
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;"
        "x-amz-decoded-content-length;x-amz-storage-class",
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    )
    body = framed(CHUNKS) + b"\r\n"
    assert len(body) == 66824
    decoder = AwsChunkedDecoder(66560, signatures=ChunkSignatures(result))
    assert b"".join(decoder.feed(body)) == PAYLOAD
    assert decoder.finish() == {}


def test_chunked_upload_with_a_signed_trailer() -> None:
    result = signed(
        "PUT",
        "/examplebucket/chunkObject.txt",
        "",
        {
            "host": "s3.amazonaws.com",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": "66560",
            "x-amz-trailer": "x-amz-checksum-crc32c",
        },
        "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;"
        "x-amz-storage-class;x-amz-trailer",
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    )
    body = framed(TRAILER_CHUNKS) + TRAILER + b"\r\n"
    assert len(body) == 66946
    decoder = AwsChunkedDecoder(
        66560, signatures=ChunkSignatures(result), trailer_names={"x-amz-checksum-crc32c"}
    )
    assert b"".join(decoder.feed(body)) == PAYLOAD
    assert decoder.finish() == {"x-amz-checksum-crc32c": "sOO8/Q=="}
