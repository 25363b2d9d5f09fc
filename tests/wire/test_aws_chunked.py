"""aws-chunked bodies: every form, every segmentation, every cut, and arbitrary bytes."""

import hashlib
import hmac
import io
import itertools

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, CrtCrc64NvmeChecksum
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.auth.chunks import ChunkSignatures
from s3gw.auth.sigv4 import Payload, PayloadMode, SignedRequest
from s3gw.errors import S3Error
from s3gw.limits import CHUNK_HEADER_BYTES_MAX, TRAILER_BYTES_MAX
from s3gw.wire.aws_chunked import (
    AwsChunkedDecoder,
    parse_decoded_length,
    parse_trailer_names,
)

KEY = b"k" * 32
SEED = b"5" * 64
STAMP = (b"20260524T120000Z", b"20260524/us-east-1/s3/aws4_request")
NAME = "x-amz-checksum-crc32"
EMPTY = hashlib.sha256(b"").hexdigest().encode()


def chain() -> ChunkSignatures:
    timestamp, scope = STAMP
    return ChunkSignatures(
        SignedRequest(
            access_key="AKIA",
            region="us-east-1",
            presigned=False,
            session_token=None,
            payload=Payload(PayloadMode.STREAMING),
            timestamp=timestamp,
            scope=scope,
            signature=SEED,
            signing_key=KEY,
        )
    )


def sign(kind: bytes, *lines: bytes) -> bytes:
    to_sign = b"\n".join((b"AWS4-HMAC-SHA256-" + kind, *STAMP, *lines))
    return hmac.new(KEY, to_sign, hashlib.sha256).hexdigest().encode()


def signed_body(*chunks: bytes, trailer: bytes | None = None, line_end: bytes = b"\r\n") -> bytes:
    """A body as an SDK frames it; `trailer` is `name:value`."""
    previous, body = SEED, b""
    for chunk in (*chunks, b""):
        digest = hashlib.sha256(chunk).hexdigest().encode()
        previous = sign(b"PAYLOAD", previous, EMPTY, digest)
        body += b"%x;chunk-signature=%b\r\n%b" % (len(chunk), previous, chunk)
        body += b"\r\n" if chunk else b""
    if trailer is not None:
        digest = hashlib.sha256(trailer + b"\n").hexdigest().encode()
        signature = sign(b"TRAILER", previous, digest)
        body += trailer + line_end + b"x-amz-trailer-signature:" + signature + b"\r\n"
    return body + b"\r\n"


def unsigned_body(*chunks: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body + b"0\r\n" + trailer + b"\r\n"


def decode(decoder: AwsChunkedDecoder, *segments: bytes) -> tuple[bytes, dict[str, str]]:
    payload = b"".join(b"".join(decoder.feed(segment)) for segment in segments)
    return payload, decoder.finish()


def signed_decoder(length: int) -> AwsChunkedDecoder:
    return AwsChunkedDecoder(length, signatures=chain())


def trailing_decoder(length: int) -> AwsChunkedDecoder:
    return AwsChunkedDecoder(length, signatures=chain(), trailer_names={NAME})


def unsigned_decoder(length: int) -> AwsChunkedDecoder:
    return AwsChunkedDecoder(length, trailer_names={NAME})


LARGE, SMALL = b"a" * 8192, b"tail"
TRAILER = NAME.encode() + b":AAAAAA=="
FORMS = {
    "signed": (signed_decoder, signed_body(LARGE, SMALL), {}),
    "signed trailer": (
        trailing_decoder,
        signed_body(LARGE, SMALL, trailer=TRAILER),
        {NAME: "AAAAAA=="},
    ),
    "signed trailer of minio-go": (
        trailing_decoder,
        signed_body(LARGE, SMALL, trailer=TRAILER, line_end=b"\n\r\n"),
        {NAME: "AAAAAA=="},
    ),
    "unsigned trailer": (
        unsigned_decoder,
        unsigned_body(LARGE, SMALL, trailer=TRAILER + b"\r\n"),
        {NAME: "AAAAAA=="},
    ),
    "unsigned trailer of minio-go": (
        unsigned_decoder,
        unsigned_body(LARGE, SMALL, trailer=TRAILER + b"\n\r\n"),
        {NAME: "AAAAAA=="},
    ),
}
LENGTH = len(LARGE + SMALL)
forms = pytest.mark.parametrize(("new", "body", "trailers"), FORMS.values(), ids=FORMS)


@forms
def test_each_form_decodes(new, body: bytes, trailers: dict[str, str]) -> None:
    assert decode(new(LENGTH), body) == (LARGE + SMALL, trailers)


@forms
def test_each_form_decodes_byte_by_byte(new, body: bytes, trailers: dict[str, str]) -> None:
    segments = [body[n : n + 1] for n in range(len(body))]
    assert decode(new(LENGTH), *segments) == (LARGE + SMALL, trailers)


@forms
@given(cuts=st.lists(st.integers(0, 9000), max_size=12))
@settings(max_examples=30, deadline=None)
def test_every_segmentation_gives_the_same(
    new, body: bytes, trailers: dict[str, str], cuts: list[int]
) -> None:
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    segments = [body[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(new(LENGTH), *segments) == (LARGE + SMALL, trailers)


@forms
def test_a_body_cut_at_any_offset_is_refused(new, body: bytes, trailers: dict[str, str]) -> None:
    interesting = [*range(120), *range(8150, len(body))]
    for end in interesting:
        with pytest.raises(S3Error) as caught:
            decode(new(LENGTH), body[:end])
        assert caught.value.status < 500, end


@forms
def test_a_byte_after_the_end_is_refused(new, body: bytes, trailers: dict[str, str]) -> None:
    with pytest.raises(S3Error):
        decode(new(LENGTH), body + b"x")


@pytest.mark.parametrize("form", ["signed", "signed trailer"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_of_a_signed_body_is_refused(form: str, data: st.DataObject) -> None:
    new, body, _ = FORMS[form]
    index = data.draw(st.one_of(st.integers(0, 200), st.integers(8150, len(body) - 1)))
    # Upper case in a trailer's name says the same.
    same = {body[index : index + 1].lower(), body[index : index + 1].upper()}
    byte = data.draw(st.binary(min_size=1, max_size=1).filter(lambda b: b not in same))
    with pytest.raises(S3Error):
        decode(new(LENGTH), body[:index] + byte + body[index + 1 :])


@given(
    body=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [b"\r\n", b"0\r\n", b"4\r\nabcd\r\n", b";chunk-signature=", TRAILER, b"\n"]
            ),
        ),
        max_size=10,
    ).map(b"".join),
    length=st.integers(0, 64),
    form=st.sampled_from(sorted(FORMS)),
)
@settings(max_examples=400, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_s3_errors(body: bytes, length: int, form: str) -> None:
    try:
        payload, _ = decode(FORMS[form][0](length), body)
    except S3Error as error:
        status = error.status
    else:
        assert len(payload) == length
        status = 200
    assert status in (200, 400, 403)


def test_botocores_unsigned_chunks_decode() -> None:
    data = bytes(range(256)) * 9000
    name = "x-amz-checksum-crc64nvme"
    body = AwsChunkedWrapper(io.BytesIO(data), CrtCrc64NvmeChecksum, name).read()
    checksum = CrtCrc64NvmeChecksum()
    checksum.update(data)
    decoder = AwsChunkedDecoder(len(data), trailer_names=parse_trailer_names(name))
    assert decode(decoder, body) == (data, {name: checksum.b64digest()})


def test_payload_is_handed_on_without_a_copy() -> None:
    body = unsigned_body(LARGE, trailer=TRAILER + b"\r\n")
    (piece,) = unsigned_decoder(len(LARGE)).feed(body)
    assert piece.obj is body


def test_payload_flows_before_its_chunk_is_complete_and_a_bad_chunk_ends_it() -> None:
    body = signed_body(LARGE)
    decoder = signed_decoder(len(LARGE))
    assert len(decoder.feed(body[:1000])) == 1
    with pytest.raises(S3Error) as caught:
        decoder.feed(b"x" * len(body[1000:]))
    assert caught.value.code == "SignatureDoesNotMatch"
    for again in (lambda: decoder.feed(body), decoder.finish):
        with pytest.raises(S3Error):
            again()


@pytest.mark.parametrize("chunks", [(LARGE, LARGE), (b"",)], ids=["twice", "empty"])
def test_chunks_cannot_be_reordered_or_repeated(chunks: tuple[bytes, ...]) -> None:
    body = signed_body(LARGE, b"b" * 8192)
    first_length = body.index(b"\r\n") + 2 + 8192 + 2
    first, rest = body[:first_length], body[first_length:]
    for wrong in (first + first + rest, rest, first + rest[first_length:]):
        with pytest.raises(S3Error):
            decode(signed_decoder(8192 * len(chunks)), wrong)


@pytest.mark.parametrize("length", [LENGTH - 1, LENGTH + 1, 0])
@forms
def test_the_decoded_length_is_exact(
    new, body: bytes, trailers: dict[str, str], length: int
) -> None:
    with pytest.raises(S3Error) as caught:
        decode(new(length), body)
    assert caught.value.code == "IncompleteBody"


@pytest.mark.parametrize(
    "size", [b"-1", b"+1", b"0x1", b" 1", b"1 ", b"1_0", b"g", b"", b"0" * 17, b"\xd9\xa1"]
)
def test_chunk_sizes_are_strict_hexadecimal(size: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        unsigned_decoder(1).feed(size + b"\r\na\r\n")
    assert caught.value.code == "IncompleteBody"


@pytest.mark.parametrize(
    "body",
    [b"1\na\r\n", b"1\r\naX\r\n", b"1\r\na\n\r\n", b"1;x=y\r\na\r\n", b"1\r\r\na\r\n"],
)
def test_chunk_ends_are_crlf_and_extensions_are_known(body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        unsigned_decoder(1).feed(body)
    assert caught.value.code == "IncompleteBody"


def test_an_endless_chunk_header_is_refused_early() -> None:
    decoder = unsigned_decoder(1)
    for _ in range(CHUNK_HEADER_BYTES_MAX - 1):
        assert decoder.feed(b"0") == []
    with pytest.raises(S3Error):
        decoder.feed(b"0")


def test_an_endless_trailer_is_refused_early() -> None:
    decoder = unsigned_decoder(0)
    decoder.feed(b"0\r\n" + b"x" * TRAILER_BYTES_MAX)
    with pytest.raises(S3Error) as caught:
        decoder.feed(b"x")
    assert caught.value.code == "MalformedTrailerError"


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        b"x-amz-checksum-sha1:AAAA\r\n",
        TRAILER + b"\r\n" + TRAILER + b"\r\n",
        b"x-amz-checksum-crc32 AAAA\r\n",
        TRAILER + b"\r\nx-amz-acl:public-read\r\n",
        b"x-amz-trailer-signature:00\r\n",
    ],
)
def test_a_trailer_holds_what_was_announced_and_nothing_else(trailer: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        decode(unsigned_decoder(0), unsigned_body(trailer=trailer))
    assert caught.value.code == "MalformedTrailerError"


def test_a_signed_trailer_without_its_signature_is_refused() -> None:
    body = signed_body()[:-2] + TRAILER + b"\r\n\r\n"
    with pytest.raises(S3Error) as caught:
        decode(trailing_decoder(0), body)
    assert caught.value.code == "SignatureDoesNotMatch"


def test_only_the_last_signed_chunk_may_be_small() -> None:
    with pytest.raises(S3Error) as caught:
        decode(signed_decoder(8), signed_body(SMALL, SMALL))
    assert caught.value.code == "InvalidChunkSizeError"
    assert decode(unsigned_decoder(8), unsigned_body(SMALL, SMALL, trailer=TRAILER + b"\r\n"))


def test_an_empty_object_decodes() -> None:
    assert decode(signed_decoder(0), signed_body()) == (b"", {})


def test_trailer_names_are_checksums() -> None:
    assert parse_trailer_names(None) == frozenset()
    assert parse_trailer_names(" X-Amz-Checksum-CRC32 ") == {"x-amz-checksum-crc32"}
    with pytest.raises(S3Error) as caught:
        parse_trailer_names("x-amz-acl")
    assert caught.value.code == "InvalidRequest"


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "MissingContentLength"), *((v, "InvalidArgument") for v in ("", "-1", "x", "1" * 40))],
)
def test_the_decoded_length_is_required_and_a_number(value: str | None, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_decoded_length(value)
    assert caught.value.code == code
    assert parse_decoded_length("66560") == 66560
