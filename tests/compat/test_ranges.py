"""Range requests, single, suffix and open, over the borders of stripes (1 MiB)."""

import os

import pytest

MIB = 1024 * 1024
SIZE = 3 * MIB + 7


@pytest.fixture
def ten(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    return f"/{bucket}/k"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-9", 0, 9),
        ("bytes=2-4", 2, 4),
        ("bytes=9-9", 9, 9),
        ("bytes=7-", 7, 9),
        ("bytes=0-", 0, 9),
        ("bytes=-1", 9, 9),
        ("bytes=-10", 0, 9),
        ("bytes=-11", 0, 9),
        ("bytes=5-100", 5, 9),
        ("bytes=5-99999999999999999999", 5, 9),
        ("Bytes=2-4", 2, 4),
    ],
)
def test_a_range_is_answered_with_206_and_its_place(http, ten, header, first, last):
    reply = http.request("GET", ten, headers={"range": header})
    assert (reply.status, reply.reason) == (206, "Partial Content")
    assert reply.body == b"0123456789"[first : last + 1]
    assert reply["content-range"] == f"bytes {first}-{last}/10"
    assert reply["content-length"] == str(last - first + 1)
    assert reply["etag"] == '"781e5e245d69b566979b86e28d23f2c7"'


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=999999999999-"])
def test_a_range_without_a_byte_is_refused_with_the_size(http, ten, header):
    reply = http.request("GET", ten, headers={"range": header})
    assert (reply.status, reply.code) == (416, "InvalidRange")
    assert reply["content-range"] == "bytes */10"
    assert b"<ActualObjectSize>10</ActualObjectSize>" in reply.body
    assert f"<RangeRequested>{header}</RangeRequested>".encode() in reply.body


@pytest.mark.parametrize(
    "header",
    [
        *("bytes=5-2", "bytes=a-b", "bytes=", "bytes=-", "bytes=1", "lines=1-2", "0-5"),
        *("bytes=--5", "bytes=+1-2", "bytes=0-1,3-4", "bytes=0x1-2", "bytes=1-2-3"),
    ],
)
def test_a_range_that_is_malformed_or_multiple_is_ignored(http, ten, header):
    reply = http.request("GET", ten, headers={"range": header})
    assert (reply.status, reply.body) == (200, b"0123456789")


@pytest.mark.parametrize("header", ["bytes=0-0", "bytes=-1", "bytes=0-"])
def test_an_empty_object_has_no_range(http, bucket, header):
    http.request("PUT", f"/{bucket}/empty")
    reply = http.request("GET", f"/{bucket}/empty", headers={"range": header})
    assert (reply.status, reply.code) == (416, "InvalidRange")


def test_ranges_over_the_borders_of_stripes_have_the_right_bytes(http, bucket):
    body = os.urandom(SIZE)
    http.request("PUT", f"/{bucket}/big", body=body)
    borders = [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 3 * MIB - 1, 3 * MIB, SIZE - 1]
    for index, first in enumerate(borders):
        for last in borders[index:]:
            reply = http.request(
                "GET", f"/{bucket}/big", headers={"range": f"bytes={first}-{last}"}
            )
            assert reply.status == 206
            assert reply.body == body[first : last + 1], (first, last)


def test_a_range_of_an_object_that_changed_can_be_refused(s3, bucket, refused):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"first")["ETag"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"other")
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=0-1", IfMatch=etag)


def test_if_range_asks_for_the_range_only_of_what_is_unchanged(http, bucket):
    http.request("PUT", f"/{bucket}/k", body=b"first")
    found = http.request("GET", f"/{bucket}/k")
    for same in (found["etag"], found["last-modified"]):
        reply = http.request("GET", f"/{bucket}/k", headers={"range": "bytes=2-", "if-range": same})
        assert (reply.status, reply.body) == (206, b"rst")
    other = ('"0"', f"W/{found['etag']}", "Sun, 06 Nov 1994 08:49:37 GMT", "nonsense")
    for changed in other:
        headers = {"range": "bytes=2-", "if-range": changed}
        reply = http.request("GET", f"/{bucket}/k", headers=headers)
        assert (reply.status, reply.body) == (200, b"first"), changed
