"""Raw request lines to rows, buckets and keys; what is refused and how."""

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw import errors
from s3gw.errors import S3Error
from s3gw.server.resolve import (
    FOREIGN_SUBRESOURCES,
    SUBRESOURCES,
    Domains,
    Resolved,
    parse_query,
    percent_decode,
    resolve,
)
from s3gw.server.routes import OBJECT, ROWS, SERVICE

DOMAINS = Domains(["s3.test", "EU.s3.test"])
PLAIN = {"ListBuckets", "ListObjects", "GetObject", "PutObject", "DeleteObject", "HeadObject"}
PLAIN |= {"CreateBucket", "HeadBucket", "DeleteBucket", "PostObject"}
COPY = {b"x-amz-copy-source"}


def name_of(method: str, target: str, **options: object) -> str:
    path, _, query = target.partition("?")
    return resolve(method, path.encode(), query.encode(), **options).row.name  # type: ignore[arg-type]


def attempt(method: str, target: str) -> Resolved | S3Error:
    path, _, query = target.partition("?")
    try:
        return resolve(method, path.encode(), query.encode())
    except S3Error as error:
        return error


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (b"/bucket/a%2Fb", "a/b"),
        (b"/bucket/trail%0A", "trail\n"),
        (b"/bucket/a/../b", "a/../b"),
        (b"/bucket/..", ".."),
        (b"/bucket/%2e%2e%2f", "../"),
        (b"/bucket/a//b", "a//b"),
        (b"/bucket//a", "/a"),
        (b"/bucket/dir/", "dir/"),
        (b"/bucket/a+b", "a+b"),
        (b"/bucket/a%252Fb", "a%2Fb"),
        (b"/bucket/%EF%BF%BF", "\uffff"),
        (b"/bucket/%F0%9F%98%80", "\U0001f600"),
        (b"/bucket/%01", "\x01"),
        (b"/bucket/a;b=c", "a;b=c"),
        (b"/bucket/" + b"k" * 1024, "k" * 1024),
        (b"/bucket/" + b"%C3%A9" * 512, "é" * 512),
    ],
)
def test_key_is_decoded_exactly_once(path: bytes, key: str) -> None:
    found = resolve("GET", path, b"")
    assert (found.row.name, found.bucket, found.key) == ("GetObject", "bucket", key)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/bucket/%ff", errors.InvalidURI),
        (b"/bucket/\xff", errors.InvalidURI),
        (b"/bucket/%ED%A0%80", errors.InvalidURI),
        (b"/bucket/a%00", errors.InvalidURI),
        (b"/bucket/a%", errors.InvalidURI),
        (b"/bucket/a%2", errors.InvalidURI),
        (b"/bucket/a%zz", errors.InvalidURI),
        (b"/bucket/a%+1", errors.InvalidURI),
        (b"bucket/a", errors.InvalidURI),
        (b"*", errors.InvalidURI),
        (b"", errors.InvalidURI),
        (b"/b%2Fk", errors.InvalidBucketName),
        (b"//a", errors.InvalidBucketName),
        (b"/Bucket/a", errors.InvalidBucketName),
        (b"/WriteGetObjectResponse", errors.InvalidBucketName),
        (b"/bucket/" + b"k" * 1025, errors.KeyTooLongError),
        (b"/bucket/" + b"%C3%A9" * 513, errors.KeyTooLongError),
    ],
)
def test_path_that_names_nothing_is_refused(path: bytes, error: type[S3Error]) -> None:
    with pytest.raises(error):
        resolve("GET", path, b"")


def test_too_long_key_says_how_long_it_is() -> None:
    with pytest.raises(errors.KeyTooLongError) as caught:
        resolve("PUT", b"/bucket/" + b"k" * 1025, b"")
    assert caught.value.fields == {"Size": "1025", "MaxSizeAllowed": "1024"}


@pytest.mark.parametrize(
    ("host", "path", "bucket", "key"),
    [
        (b"s3.test", b"/bucket/k", "bucket", "k"),
        (b"S3.Test:9000", b"/bucket/k", "bucket", "k"),
        (b"bucket.s3.test", b"/", "bucket", ""),
        (b"Bucket.S3.test:9000", b"/k/l", "bucket", "k/l"),
        (b"bucket.s3.test.", b"//k", "bucket", "/k"),
        (b"my.bucket.s3.test", b"/k", "my.bucket", "k"),
        (b"bucket.eu.s3.test", b"/k", "bucket", "k"),
        (b"eu.s3.test", b"/bucket/k", "bucket", "k"),
        (b"xs3.test", b"/bucket/k", "bucket", "k"),
        (b"127.0.0.1:9000", b"/bucket/", "bucket", ""),
        (b"[::1]:9000", b"/bucket", "bucket", ""),
        (b"", b"/bucket", "bucket", ""),
    ],
)
def test_bucket_comes_from_the_host_under_a_configured_domain_else_from_the_path(
    host: bytes, path: bytes, bucket: str, key: str
) -> None:
    found = resolve("GET", path, b"", host=host, domains=DOMAINS)
    assert (found.bucket, found.key) == (bucket, key)


def test_without_domains_every_host_is_path_style() -> None:
    assert resolve("GET", b"/bucket/k", b"", host=b"other.s3.test").bucket == "bucket"


@pytest.mark.parametrize(
    ("method", "target", "row"),
    [
        ("GET", "/", "ListBuckets"),
        ("GET", "/?x-id=ListBuckets&max-buckets=5", "ListBuckets"),
        ("GET", "/bucket?prefix=a&delimiter=/&id=1", "ListObjects"),
        ("GET", "/bucket?list-type=2&prefix=acl", "ListObjectsV2"),
        ("GET", "/bucket?analytics", "ListBucketAnalyticsConfigurations"),
        ("GET", "/bucket?analytics&id=1&x-id=a", "GetBucketAnalyticsConfiguration"),
        ("GET", "/bucket/?location", "GetBucketLocation"),
        ("GET", "/bucket?location=", "GetBucketLocation"),
        ("GET", "/bucket/k?partNumber=3", "GetObject"),
        ("GET", "/bucket/k?versionId=null&response-content-type=a", "GetObject"),
        ("HEAD", "/bucket/k?partNumber=3&versionId=null", "HeadObject"),
        ("GET", "/bucket/k?uploadId=u&max-parts=2", "ListParts"),
        ("GET", "/bucket/k?acl&versionId=v", "GetObjectAcl"),
        ("GET", "/bucket/k?whatever=1&ACL", "GetObject"),
        ("DELETE", "/bucket/k?x-id=DeleteObject", "DeleteObject"),
        ("PUT", "/bucket/k?X-Amz-Signature=00&X-Amz-Date=1", "PutObject"),
        ("OPTIONS", "/bucket?acl", "PreflightBucket"),
        ("OPTIONS", "/bucket/k?uploadId=u", "PreflightObject"),
    ],
)
def test_parameters_that_are_no_sub_resource_do_not_change_the_row(
    method: str, target: str, row: str
) -> None:
    assert name_of(method, target) == row


@pytest.mark.parametrize(
    ("target", "headers", "row"),
    [
        ("/bucket/k", {b"host"}, "PutObject"),
        ("/bucket/k", COPY, "CopyObject"),
        ("/bucket/k?partNumber=1&uploadId=u", set(), "UploadPart"),
        ("/bucket/k?partNumber=1&uploadId=u", COPY, "UploadPartCopy"),
        ("/bucket/k?acl", COPY, "PutObjectAcl"),
        ("/bucket/k", {b"x-amz-write-offset-bytes"}, "AppendObject"),
    ],
)
def test_header_that_changes_what_a_put_does_has_its_own_row(
    target: str, headers: set[bytes], row: str
) -> None:
    assert name_of("PUT", target, headers=headers) == row


@pytest.mark.parametrize(
    ("method", "target", "error"),
    [
        ("PUT", "/bucket/k?uploadId=u", errors.MethodNotAllowed),
        ("PUT", "/bucket/k?partNumber=1", errors.InvalidArgument),
        ("GET", "/bucket/k?uploads", errors.InvalidRequest),
        ("GET", "/bucket/k?versions", errors.InvalidRequest),
        ("POST", "/bucket/k?select", errors.InvalidArgument),
        ("POST", "/bucket/k?select&select-type=3", errors.InvalidArgument),
        ("GET", "/bucket?list-type=3", errors.InvalidArgument),
        ("GET", "/bucket?acl&policy", errors.InvalidArgument),
        ("PUT", "/bucket/k?acl&tagging", errors.InvalidArgument),
        ("GET", "/bucket?policy&append", errors.InvalidArgument),
        ("PUT", "/bucket?analytics", errors.InvalidArgument),
        ("GET", "/bucket/k?policy", errors.MethodNotAllowed),
        ("HEAD", "/bucket?acl", errors.MethodNotAllowed),
        ("HEAD", "/bucket/k?uploadId=u", errors.MethodNotAllowed),
        ("DELETE", "/bucket?versioning", errors.MethodNotAllowed),
        ("PUT", "/bucket?delete", errors.MethodNotAllowed),
        ("PUT", "/bucket/k?append&position=0", errors.NotImplementedS3),
        ("POST", "/bucket/k?compose", errors.NotImplementedS3),
        ("POST", "/bucket/k", errors.MethodNotAllowed),
        ("POST", "/", errors.MethodNotAllowed),
        ("PUT", "/", errors.MethodNotAllowed),
        ("PATCH", "/bucket/k", errors.MethodNotAllowed),
        ("TRACE", "/", errors.MethodNotAllowed),
        ("get", "/bucket", errors.MethodNotAllowed),
        ("", "/bucket", errors.MethodNotAllowed),
    ],
)
def test_what_no_row_explains_is_refused(method: str, target: str, error: type[S3Error]) -> None:
    with pytest.raises(error):
        name_of(method, target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/bucket"),
        ("GET", "/bucket?list-type=2"),
        ("DELETE", "/bucket"),
        ("GET", "/bucket/k"),
        ("HEAD", "/bucket/k"),
        ("DELETE", "/bucket/k?versionId=v"),
        ("POST", "/bucket/k?uploadId=u"),
    ],
)
def test_a_copy_source_is_refused_where_nothing_is_copied(method: str, target: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        name_of(method, target, headers=COPY)
    assert caught.value.fields == {"ArgumentName": "x-amz-copy-source"}


@pytest.mark.parametrize("key", sorted(SUBRESOURCES))
def test_no_sub_resource_falls_through_to_a_plain_operation(key: str) -> None:
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        for path in ("/", "/bucket", "/bucket/k"):
            for query in (key, f"{key}=", f"x-id=a&{key}=1&prefix=b"):
                answer = attempt(method, f"{path}?{query}")
                if isinstance(answer, S3Error):
                    foreign = key in FOREIGN_SUBRESOURCES
                    assert answer.status in ((405, 501) if foreign else (400, 405))
                else:
                    assert answer.row.name not in PLAIN


def test_refused_method_names_itself_and_the_allowed_ones() -> None:
    with pytest.raises(errors.MethodNotAllowed) as caught:
        name_of("PATCH", "/bucket/k")
    assert caught.value.fields == {"Method": "PATCH", "ResourceType": "OBJECT"}
    allowed = set(caught.value.headers["Allow"].split(", "))
    assert allowed == {row.method for row in ROWS if row.scope is OBJECT}


def test_action_of_a_version_is_the_version_action() -> None:
    assert resolve("GET", b"/bucket/k", b"").action == "s3:GetObject"
    assert resolve("GET", b"/bucket/k", b"versionId=v").action == "s3:GetObjectVersion"
    assert resolve("PUT", b"/bucket/k", b"versionId=v").action == "s3:PutObject"


def test_object_lambda_response_is_known_by_its_path_and_header() -> None:
    path = b"/WriteGetObjectResponse"
    assert resolve("POST", path, b"", headers={b"x-amz-request-route"}).row.scope is SERVICE
    with pytest.raises(errors.InvalidBucketName):
        resolve("POST", path, b"")


def test_query_is_decoded_once_with_plus_as_space_and_the_first_of_a_repeated_key() -> None:
    raw = b"prefix=a+b%2Bc%252F&empty&also=&prefix=second&&k%65y=v=w"
    assert parse_query(raw) == {
        "prefix": "a b+c%2F",
        "empty": "",
        "also": "",
        "key": "v=w",
    }


@pytest.mark.parametrize("raw", [b"a=%", b"%zz=1", b"a=%ff", b"a=%00", b"\xfe"])
def test_query_that_is_not_text_is_refused(raw: bytes) -> None:
    with pytest.raises(errors.InvalidURI):
        parse_query(raw)


@given(st.text(min_size=1, max_size=300))
def test_any_key_survives_percent_encoding(key: str) -> None:
    encoded = key.encode("utf-8", "surrogatepass")
    raw = b"/bucket/" + quote(encoded, safe="/").encode()
    try:
        found = resolve("GET", raw, b"")
    except errors.InvalidURI:
        assert "\0" in key or any("\ud800" <= c <= "\udfff" for c in key)
    except errors.KeyTooLongError:
        assert len(encoded) > 1024
    else:
        assert found.key == key


@given(st.binary(max_size=64))
def test_percent_decoding_agrees_with_every_byte_encoded(raw: bytes) -> None:
    assert percent_decode(b"".join(b"%%%02x" % byte for byte in raw)) == raw


METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "\xff"])
QUERY_KEYS = st.sampled_from(sorted(SUBRESOURCES | {"id", "list-type", "partNumber", "versionId"}))
QUERIES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(QUERY_KEYS, st.sampled_from(["", "=", "=2", "=%41", "=%"])), max_size=4).map(
        lambda terms: "&".join(key + value for key, value in terms).encode()
    ),
)
PATHS = st.one_of(
    st.binary(max_size=60).map(lambda tail: b"/" + tail),
    st.binary(max_size=40).map(lambda tail: b"/bucket/" + tail),
    st.binary(max_size=10),
)


@settings(max_examples=400)
@given(METHODS, PATHS, QUERIES, st.binary(max_size=30), st.sampled_from([set(), COPY]))
def test_only_an_s3_error_comes_out_of_any_request_line(
    method: str, path: bytes, query: bytes, host: bytes, headers: set[bytes]
) -> None:
    for name in (host, host + b".s3.test"):
        try:
            found = resolve(method, path, query, host=name, headers=headers, domains=DOMAINS)
        except (
            errors.InvalidURI,
            errors.InvalidBucketName,
            errors.InvalidArgument,
            errors.MethodNotAllowed,
            errors.NotImplementedS3,
        ):
            continue
        else:
            assert found.row.method == method
            assert len(found.key.encode()) <= 1024
