"""Keys that are hard: they round-trip exactly or are refused with 400 (attack S8)."""

import re
import urllib.parse

import pytest

from compose.s3_http import quote_key

ROUND_TRIP = [
    *("a", "a/", "/a", "a//b", "//", "/", ".", "..", "./a", "../a", "a/../b", "a/.", "a/.."),
    *("../../../etc/passwd", "%2e%2e%2f", "%", "%00", "%zz", "a%2Fb", "\\..\\a"),
    *(" ", "  a  ", "a b", "+", "a+b", "a%20b", "~", "a;b", "a&b=c", "?", "a?b#c", "#", "*", ":"),
    *("\t", "\n", "trail\n", "\r\n", "\x01", "\x7f", "a\x1fb", "\uffff", "\ufffe", "😀", "é", "é"),
    *('"', "'", "<k>", "&amp;", "]]>", "$(id)", "`id`", "|", "{}", "[]", "^", "@", "=", "!", ","),
    *("x" * 1024, "é" * 512, "s3gw", ".s3gw", "metadata/db", "x" * 255 + "/" + "y" * 255),
]


def identity(key):
    return ascii(key[:20])[1:-1] + ("…" if len(key) > 20 else "")


@pytest.mark.parametrize("key", ROUND_TRIP, ids=identity)
def test_a_key_round_trips_through_every_operation_that_names_it(http, bucket, key):
    path, body = f"/{bucket}/{quote_key(key)}", f"body of {key}".encode()
    assert http.request("PUT", path, body=body).status == 200
    assert http.request("GET", path).body == body
    assert http.request("HEAD", path).status == 200
    text = http.request("GET", f"/{bucket}", "encoding-type=url&list-type=2").body.decode()
    [listed] = re.findall("<Key>([^<]*)</Key>", text)
    assert urllib.parse.unquote_plus(listed) == key
    copied = http.request(
        "PUT", f"/{bucket}/copied-key", headers={"x-amz-copy-source": f"{bucket}/{quote_key(key)}"}
    )
    assert copied.status == 200
    assert http.request("DELETE", path).status == 204
    assert http.request("GET", path).code == "NoSuchKey"


def test_all_hard_keys_live_side_by_side(s3, http, bucket):
    for key in ROUND_TRIP:
        http.request("PUT", f"/{bucket}/{quote_key(key)}", body=key.encode())
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert listed == sorted(set(ROUND_TRIP), key=str.encode)
    for key in ROUND_TRIP:
        assert http.request("GET", f"/{bucket}/{quote_key(key)}").body == key.encode()


@pytest.mark.parametrize("length", [1025, 1500])
def test_a_key_over_1024_bytes_is_refused(http, bucket, length):
    for method in ("PUT", "GET"):
        reply = http.request(method, f"/{bucket}/{'x' * length}")
        assert (reply.status, reply.code) == (400, "KeyTooLongError")


def test_the_length_of_a_key_is_counted_in_bytes(http, bucket):
    reply = http.request("PUT", f"/{bucket}/{quote_key('é' * 513)}")
    assert (reply.status, reply.code) == (400, "KeyTooLongError")


def test_a_nul_round_trips_or_is_refused(http, bucket):
    reply = http.request("PUT", f"/{bucket}/a%00b", body=b"x")
    assert reply.status in (200, 400)
    if reply.status == 200:
        assert http.request("GET", f"/{bucket}/a%00b").body == b"x"
    assert http.request("GET", f"/{bucket}/a").code == "NoSuchKey"


@pytest.mark.parametrize("path", ["%ff", "a%C3", "%ED%A0%80", "%C0%AF", "a%", "a%2", "a%zz"])
def test_a_path_that_is_no_utf_8_is_refused(http, bucket, path):
    reply = http.request("PUT", f"/{bucket}/{path}", body=b"x")
    assert reply.status == 400
    assert reply.code in ("InvalidURI", "InvalidArgument")


def test_an_encoded_slash_after_the_bucket_is_part_of_its_name(http, bucket):
    reply = http.request("PUT", f"/{bucket}%2Fk", body=b"x")
    assert (reply.status, reply.code) == (400, "InvalidBucketName")


@pytest.mark.parametrize("key", ["a", "a/b", "a/b/", "a/b/c"])
def test_a_key_and_the_keys_under_it_live_side_by_side(s3, bucket, key):
    for each in ("a", "a/b", "a/b/", "a/b/c"):
        s3.put_object(Bucket=bucket, Key=each, Body=each.encode())
    s3.delete_object(Bucket=bucket, Key=key)
    left = {"a", "a/b", "a/b/", "a/b/c"} - {key}
    for each in left:
        assert s3.get_object(Bucket=bucket, Key=each)["Body"].read() == each.encode()
