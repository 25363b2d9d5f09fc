"""Checksums: every algorithm against botocore's, combination against direct computation."""

import hashlib
from base64 import b64encode

import botocore.httpchecksum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.errors import S3Error
from s3gw.wire.checksums import (
    ALGORITHMS,
    Algorithm,
    ChecksumType,
    algorithm_named,
    composite,
    decode,
    encode,
    full_object,
    multipart_type,
    requested,
)

MD5_SUM = encode(hashlib.md5(b"hello").digest())
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
combinable = pytest.mark.parametrize(
    "algorithm", [row for row in ALGORITHMS.values() if row.combine], ids=lambda row: row.name
)


def digest(algorithm: Algorithm, data: bytes) -> bytes:
    hasher = algorithm.new()
    hasher.update(data)
    return hasher.digest()


def refusal(headers: dict[str, str], trailers: tuple[str, ...] = ()) -> S3Error:
    with pytest.raises(S3Error) as caught:
        requested(headers, trailers)
    return caught.value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CRC32", "cbf43926"),
        ("CRC32C", "e3069283"),
        ("CRC64NVME", "ae8b14860a799888"),
        ("SHA1", hashlib.sha1(b"123456789").hexdigest()),
        ("SHA256", hashlib.sha256(b"123456789").hexdigest()),
        ("SHA512", hashlib.sha512(b"123456789").hexdigest()),
        ("MD5", hashlib.md5(b"123456789").hexdigest()),
    ],
)
def test_published_check_values(name: str, expected: str) -> None:
    assert digest(ALGORITHMS[name], b"123456789").hex() == expected


def test_the_table_is_botocores() -> None:
    assert {name.lower() for name in ALGORITHMS} >= set(botocore.httpchecksum._CHECKSUM_CLS)


@algorithms
def test_each_algorithm_agrees_with_botocores_in_any_pieces(algorithm: Algorithm) -> None:
    reference = botocore.httpchecksum._CHECKSUM_CLS.get(algorithm.name.lower())
    data = bytes(range(256)) * 33
    hasher = algorithm.new()
    for start in range(0, len(data), 1000):
        hasher.update(memoryview(data)[start : start + 1000])
    assert len(hasher.digest()) == algorithm.digest_bytes
    assert hasher.digest() == digest(algorithm, data)
    if reference is not None:
        assert encode(hasher.digest()) == reference().handle(data)


@combinable
@given(parts=st.lists(st.binary(max_size=200), max_size=6))
@settings(max_examples=100, deadline=None)
def test_the_whole_follows_from_the_parts(algorithm: Algorithm, parts: list[bytes]) -> None:
    combined = full_object(algorithm, [(digest(algorithm, part), len(part)) for part in parts])
    assert combined == digest(algorithm, b"".join(parts))


@combinable
def test_lengths_beyond_32_bits_combine(algorithm: Algorithm) -> None:
    mib = b"\0" * (1 << 20)
    zeros = digest(algorithm, mib)
    length = 1 << 20
    while length < 1 << 36:
        zeros = full_object(algorithm, [(zeros, length), (zeros, length)])
        length *= 2
    head = (digest(algorithm, b"x"), 1)
    tail = (digest(algorithm, b"y" * 77), 77)
    zeros_then_tail = (full_object(algorithm, [(zeros, length), tail]), length + 77)
    left_to_right = full_object(algorithm, [head, (zeros, length), tail])
    assert full_object(algorithm, [head, zeros_then_tail]) == left_to_right


def test_a_hash_has_no_full_object_sum_of_parts() -> None:
    with pytest.raises(ValueError, match="SHA256"):
        full_object(ALGORITHMS["SHA256"], [(b"\0" * 32, 1)])


def test_a_composite_is_the_sum_of_the_sums() -> None:
    parts = [hashlib.sha256(part).digest() for part in (b"a", b"b")]
    expected = b64encode(hashlib.sha256(b"".join(parts)).digest()).decode()
    assert composite(ALGORITHMS["SHA256"], parts) == expected + "-2"


@algorithms
def test_multipart_types_are_those_of_s3(algorithm: Algorithm) -> None:
    crc = algorithm.name.startswith("CRC")
    only_full = algorithm.name == "CRC64NVME"
    default = ChecksumType.FULL_OBJECT if only_full else ChecksumType.COMPOSITE
    assert multipart_type(algorithm, None) is default
    offered = {"FULL_OBJECT": crc, "COMPOSITE": not only_full}
    for name, allowed in offered.items():
        if allowed:
            assert multipart_type(algorithm, name) == name
        else:
            with pytest.raises(S3Error) as caught:
                multipart_type(algorithm, name)
            assert caught.value.code == "InvalidRequest"
    with pytest.raises(S3Error):
        multipart_type(algorithm, "OTHER")


def test_unknown_algorithms_are_refused_and_names_ignore_case() -> None:
    assert algorithm_named("crc32c").name == "CRC32C"
    with pytest.raises(S3Error) as caught:
        algorithm_named("CRC16")
    assert caught.value.code == "InvalidRequest"


def test_nothing_is_requested_by_a_plain_request() -> None:
    wanted = requested({"host": "a", "x-amz-checksum-mode": "ENABLED"})
    assert wanted.algorithm is None
    assert wanted.content_md5 is None


@algorithms
def test_a_sum_in_a_header_is_verified(algorithm: Algorithm) -> None:
    right = digest(algorithm, b"hello")
    wanted = requested(
        {algorithm.header: encode(right), "x-amz-sdk-checksum-algorithm": algorithm.name}
    )
    assert wanted.algorithm is algorithm
    wanted.verify(right, {})
    with pytest.raises(S3Error) as caught:
        wanted.verify(digest(algorithm, b"hellp"), {})
    assert (caught.value.code, caught.value.status) == ("BadDigest", 400)


@algorithms
def test_a_sum_in_a_trailer_is_verified(algorithm: Algorithm) -> None:
    right = digest(algorithm, b"hello")
    wanted = requested({"x-amz-sdk-checksum-algorithm": algorithm.name}, {algorithm.header})
    assert wanted.in_trailer
    wanted.verify(right, {algorithm.header: encode(right)})
    with pytest.raises(S3Error) as caught:
        wanted.verify(right, {algorithm.header: encode(digest(algorithm, b"x"))})
    assert caught.value.code == "BadDigest"
    with pytest.raises(S3Error) as caught:
        wanted.verify(right, {algorithm.header: "!"})
    assert caught.value.code == "InvalidRequest"


def test_content_md5_is_verified() -> None:
    wanted = requested({"content-md5": MD5_SUM})
    wanted.verify_md5(hashlib.md5(b"hello").digest())
    with pytest.raises(S3Error) as caught:
        wanted.verify_md5(hashlib.md5(b"x").digest())
    assert caught.value.code == "BadDigest"
    assert caught.value.fields["ExpectedDigest"] == MD5_SUM


@pytest.mark.parametrize("value", ["", "x", "AAAA", MD5_SUM[:-1], MD5_SUM + "=", "é" * 24])
def test_a_malformed_content_md5_is_invalid(value: str) -> None:
    assert refusal({"content-md5": value}).code == "InvalidDigest"


CRC, SHA = "x-amz-checksum-crc32", "x-amz-checksum-sha1"
SDK = "x-amz-sdk-checksum-algorithm"
SINGLE = "Expecting a single x-amz-checksum- header"


@pytest.mark.parametrize(
    ("headers", "trailers", "message"),
    [
        ({CRC: "AAAAAA==", SHA: "A"}, (), SINGLE + ". Multiple checksum Types are not allowed."),
        ({CRC: "AAAAAA=="}, (SHA,), SINGLE),
        ({CRC: "AAAAA==="}, (), f"Value for {CRC} header is invalid."),
        ({CRC: "AAAAAAAA"}, (), f"Value for {CRC} header is invalid."),
        ({CRC: ""}, (), f"Value for {CRC} header is invalid."),
        ({CRC: "AAAAAA==,AAAAAA=="}, (), f"Value for {CRC} header is invalid."),
        (
            {"x-amz-checksum-crc16": "AA"},
            (),
            "The algorithm type you specified in x-amz-checksum- header is invalid.",
        ),
        (
            {},
            ("x-amz-checksum-crc16",),
            "The algorithm type you specified in x-amz-checksum- header is invalid.",
        ),
        ({SDK: "CRC16", CRC: "AAAAAA=="}, (), f"Value for {SDK} header is invalid."),
        ({SDK: "SHA1", CRC: "AAAAAA=="}, (), f"Value for {SDK} header is invalid."),
        (
            {SDK: "CRC32"},
            (),
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* "
            "or x-amz-trailer headers were found.",
        ),
    ],
)
def test_inconsistent_requests_get_s3s_message(
    headers: dict[str, str], trailers: tuple[str, ...], message: str
) -> None:
    error = refusal(headers, trailers)
    assert (error.code, error.message) == ("InvalidRequest", message)


@given(st.text(max_size=100), st.sampled_from(sorted(ALGORITHMS)))
@settings(max_examples=200, deadline=None)
def test_arbitrary_sums_decode_or_are_invalid_requests(text: str, name: str) -> None:
    try:
        value = decode(ALGORITHMS[name], text)
    except S3Error as error:
        code = error.code
    else:
        assert encode(value) == text or len(value) == ALGORITHMS[name].digest_bytes
        code = "InvalidRequest"
    assert code == "InvalidRequest"
