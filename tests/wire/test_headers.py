"""Headers that are stored with an object, tags, copy sources and dates."""

from email.utils import formatdate
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.errors import S3Error
from s3gw.wire.copy_source import CopySource, parse_copy_source
from s3gw.wire.dates import http_date, iso8601_ms, iso8601_seconds, parse_http_date
from s3gw.wire.headers import (
    by_name,
    content_headers,
    metadata_headers,
    response_overrides,
    user_metadata,
)
from s3gw.wire.tagging import check_tags, parse_tagging_header


def code_of(call, *arguments: object, **options: object) -> str:
    with pytest.raises(S3Error) as caught:
        call(*arguments, **options)
    return caught.value.code


def test_repeated_headers_join_and_bytes_survive() -> None:
    raw = [(b"a", b" 1 "), (b"b", b"\xff"), (b"a", b"2")]
    assert by_name(raw) == {"a": "1,2", "b": "\xff"}


def test_user_metadata_is_what_was_sent() -> None:
    headers = by_name([(b"x-amz-meta-a", b"1"), (b"x-amz-meta-b-c", b""), (b"x-amz-acl", b"p")])
    assert user_metadata(headers) == {"a": "1", "b-c": ""}


def test_user_metadata_beyond_ascii_is_utf8_and_leaves_as_rfc_2047() -> None:
    stored = user_metadata(by_name([(b"x-amz-meta-a", "é".encode()), (b"x-amz-meta-b", b"\xe9")]))
    assert stored == {"a": "é", "b": "é"}
    assert metadata_headers(stored) == [
        ("x-amz-meta-a", "=?UTF-8?B?w6k=?="),
        ("x-amz-meta-b", "=?UTF-8?B?w6k=?="),
    ]


def test_user_metadata_holds_2_kib_of_names_and_values() -> None:
    assert user_metadata({"x-amz-meta-ab": "v" * 2046})
    assert code_of(user_metadata, {"x-amz-meta-ab": "v" * 2047}) == "MetadataTooLarge"


@pytest.mark.parametrize(
    ("name", "value"),
    [("a", "x\r\nSet-Cookie: y"), ("a", "\0"), ("a", "\x7f"), ("", "x"), ("a b", "x"), ("ü", "x")],
)
def test_metadata_that_no_header_can_carry_is_refused(name: str, value: str) -> None:
    assert code_of(user_metadata, {"x-amz-meta-" + name: value}) == "InvalidArgument"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("gzip,AWS-Chunked,br", "gzip,br"),
        ("gzip", "gzip"),
        ("", None),
    ],
)
def test_framing_is_not_stored_as_content_encoding(sent: str, stored: str | None) -> None:
    assert content_headers({"content-encoding": sent}).get("content-encoding") == stored


def test_content_headers_are_the_six_of_s3() -> None:
    sent = {
        "cache-control": "no-cache",
        "content-disposition": "inline",
        "content-language": "de",
        "content-type": "text/plain",
        "expires": "never",
        "content-length": "3",
        "x-other": "y",
    }
    assert content_headers(sent) == dict(list(sent.items())[:5])
    assert code_of(content_headers, {"content-type": "a\nb"}) == "InvalidArgument"


def test_overrides_belong_to_signed_requests() -> None:
    query = {"response-content-type": "text/x", "response-expires": "0", "prefix": "a"}
    assert response_overrides(query, signed=True) == {"content-type": "text/x", "expires": "0"}
    assert response_overrides({"prefix": "a"}, signed=False) == {}
    assert code_of(response_overrides, query, signed=False) == "InvalidRequest"


@pytest.mark.parametrize("value", ["a\r\nb: c", "日本"])
def test_overrides_cannot_inject(value: str) -> None:
    query = {"response-content-disposition": value}
    assert code_of(response_overrides, query, signed=True) == "InvalidArgument"


def test_tags_are_query_encoded() -> None:
    assert parse_tagging_header("a=1&b%20c=%C3%BC&d=&e+f=g%2Bh") == {
        "a": "1",
        "b c": "ü",
        "d": "",
        "e f": "g+h",
    }
    assert parse_tagging_header("") == {}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("&".join(f"k{n}=v" for n in range(11)), "BadRequest"),
        ("a=1&a=2", "InvalidArgument"),
        ("=x", "InvalidArgument"),
        ("k" * 129 + "=v", "InvalidTag"),
        ("k=" + "v" * 257, "InvalidTag"),
        ("aws:x=1", "InvalidTag"),
        ("a=%zz", "InvalidArgument"),
        ("a=%ff", "InvalidArgument"),
        ("a=%00", "InvalidTag"),
        ("a=%3C", "InvalidTag"),
    ],
)
def test_tags_that_s3_refuses(header: str, code: str) -> None:
    assert code_of(parse_tagging_header, header) == code


def test_tag_sets_of_documents_obey_the_same_rules() -> None:
    assert check_tags([("a", "1"), ("b", "2")]) == {"a": "1", "b": "2"}
    assert code_of(check_tags, [("a", "1"), ("a", "2")]) == "InvalidTag"
    assert code_of(check_tags, [(f"k{n}", "") for n in range(11)]) == "BadRequest"
    assert len(check_tags([(f"k{n}", "") for n in range(50)], 50)) == 50


@pytest.mark.parametrize(
    ("header", "source"),
    [
        ("bucket/key", CopySource("bucket", "key")),
        ("/bucket/key", CopySource("bucket", "key")),
        ("%2Fbucket%2Fkey", CopySource("bucket", "key")),
        ("bucket/a/b%20c", CopySource("bucket", "a/b c")),
        ("bucket/a+b%2Bc", CopySource("bucket", "a b+c")),
        ("bucket//a", CopySource("bucket", "/a")),
        ("bucket/key?versionId=v1", CopySource("bucket", "key", "v1")),
        ("bucket/key?versionId=null", CopySource("bucket", "key", "null")),
        ("bucket/key%3FversionId=v1", CopySource("bucket", "key?versionId=v1")),
        ("bucket/%252e%252e/x", CopySource("bucket", "%2e%2e/x")),
        ("bucket/%C3%BC", CopySource("bucket", "ü")),
    ],
)
def test_copy_sources_are_decoded_once(header: str, source: CopySource) -> None:
    assert parse_copy_source(header) == source


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "InvalidArgument"),
        ("/", "InvalidArgument"),
        ("bucket", "InvalidArgument"),
        ("bucket/", "InvalidArgument"),
        ("/bucket", "InvalidArgument"),
        ("//key", "InvalidArgument"),
        ("?versionId=1", "InvalidArgument"),
        ("bucket/key?versionId=", "InvalidArgument"),
        ("bucket/%ff", "InvalidArgument"),
        ("bucket/%zz", "InvalidArgument"),
        ("bucket/100%", "InvalidArgument"),
        ("arn:aws:s3:us-east-1:1:accesspoint/a/object/b", "InvalidArgument"),
        ("bucket/" + "k" * 1025, "KeyTooLongError"),
    ],
)
def test_malformed_copy_sources_are_refused(header: str, code: str) -> None:
    assert code_of(parse_copy_source, header) == code


@given(st.text(min_size=1, max_size=50).filter(lambda key: not key.startswith("/")))
def test_any_quoted_key_is_its_own_copy_source(key: str) -> None:
    try:
        quoted = quote(key, safe="/~")
    except UnicodeEncodeError:
        return
    assert parse_copy_source("b/" + quoted) == CopySource("b", key)


@given(st.text(st.characters(max_codepoint=255), max_size=60))
@settings(max_examples=300)
def test_arbitrary_headers_raise_nothing_but_s3_errors(text: str) -> None:
    refused = 0
    for parse in (
        parse_copy_source,
        parse_tagging_header,
        lambda value: user_metadata({"x-amz-meta-a": value}),
        lambda value: content_headers({"content-encoding": value}),
        lambda value: response_overrides({"response-expires": value}, signed=True),
    ):
        try:
            parse(text)
        except S3Error as error:
            refused = max(refused, error.status)
    assert refused in (0, 400)
    seconds = parse_http_date(text)
    assert seconds is None or isinstance(seconds, int)


@given(st.integers(0, 4_000_000_000))
def test_http_dates_agree_with_the_standard_library(seconds: int) -> None:
    text = http_date(seconds + 0.9)
    assert text == formatdate(seconds, usegmt=True)
    assert parse_http_date(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 +0000",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "sun, 06 nov 1994 08:49:37 GMT",
    ],
)
def test_the_three_forms_of_http_dates_parse(text: str) -> None:
    assert parse_http_date(text) == 784111777


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, ٠6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT" + " " * 100,
    ],
)
def test_other_dates_are_none(text: str) -> None:
    assert parse_http_date(text) is None


def test_timestamps_of_documents_have_milliseconds() -> None:
    assert iso8601_ms(1_369_353_600_007) == "2013-05-24T00:00:00.007Z"
    assert iso8601_seconds(1_369_353_600.9) == "2013-05-24T00:00:00Z"
