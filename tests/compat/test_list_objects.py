"""ListObjects, the first version of the listing."""

import re
from datetime import UTC, datetime, timedelta

import pytest

TREE = ("a", "a/", "a/b", "a/b/c", "a/d", "ab", "b-1", "b-2", "c", "é", "～", "😀")


def keys(page):
    return [entry["Key"] for entry in page.get("Contents", [])]


def prefixes(page):
    return [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]


def pages(s3, **arguments):
    marker = {}
    while True:
        page = s3.list_objects(**arguments, **marker)
        yield page
        if not page["IsTruncated"]:
            return
        found = keys(page)
        marker = {"Marker": page.get("NextMarker") or found[-1]}


def test_keys_are_listed_in_the_order_of_their_utf_8_bytes(s3, tree):
    assert keys(s3.list_objects(Bucket=tree)) == list(TREE)


def test_an_entry_tells_size_etag_time_class_and_owner(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    [entry] = s3.list_objects(Bucket=bucket)["Contents"]
    assert (entry["Size"], entry["StorageClass"]) == (5, "STANDARD")
    assert entry["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert abs(datetime.now(UTC) - entry["LastModified"]) < timedelta(minutes=5)
    assert entry["Owner"]["ID"]


@pytest.mark.parametrize(
    ("arguments", "expected_keys", "expected_prefixes"),
    [
        ({"Prefix": "a/"}, ["a/", "a/b", "a/b/c", "a/d"], []),
        ({"Prefix": "zz"}, [], []),
        ({"Delimiter": "/"}, ["a", "ab", "b-1", "b-2", "c", "é", "～", "😀"], ["a/"]),
        ({"Delimiter": "/", "Prefix": "a/"}, ["a/", "a/b", "a/d"], ["a/b/"]),
        ({"Delimiter": "/", "Prefix": "a"}, ["a", "ab"], ["a/"]),
        ({"Delimiter": "-"}, [key for key in TREE if "-" not in key], ["b-"]),
        ({"Delimiter": "b/c"}, [key for key in TREE if "b/c" not in key], ["a/b/c"]),
        ({"Delimiter": ""}, list(TREE), []),
        ({"Delimiter": "nowhere"}, list(TREE), []),
        ({"Marker": "a/b"}, list(TREE[3:]), []),
        ({"Marker": "a/b/zzz"}, list(TREE[4:]), []),
        ({"Marker": "😀"}, [], []),
        ({"Marker": "a", "Prefix": "b"}, ["b-1", "b-2"], []),
        ({"Marker": "a/", "Delimiter": "/"}, ["ab", "b-1", "b-2", "c", "é", "～", "😀"], []),
        ({"MaxKeys": 0}, [], []),
    ],
)
def test_prefix_delimiter_and_marker_select(s3, tree, arguments, expected_keys, expected_prefixes):
    page = s3.list_objects(Bucket=tree, **arguments)
    assert (keys(page), prefixes(page)) == (expected_keys, expected_prefixes)
    assert page["IsTruncated"] is False


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 12])
@pytest.mark.parametrize("delimiter", [{}, {"Delimiter": "/"}], ids=["flat", "folded"])
def test_pages_follow_each_other_without_gap_or_repetition(s3, tree, size, delimiter):
    whole = s3.list_objects(Bucket=tree, **delimiter)
    found = list(pages(s3, Bucket=tree, MaxKeys=size, **delimiter))
    assert [key for page in found for key in keys(page)] == keys(whole)
    assert [prefix for page in found for prefix in prefixes(page)] == prefixes(whole)
    assert all(len(keys(page)) + len(prefixes(page)) <= size for page in found)
    assert all(len(keys(page)) + len(prefixes(page)) == size for page in found[:-1])


def test_the_next_marker_is_given_with_a_delimiter_only(s3, tree):
    assert "NextMarker" not in s3.list_objects(Bucket=tree, MaxKeys=2)
    assert s3.list_objects(Bucket=tree, MaxKeys=2, Delimiter="/")["NextMarker"] == "a/"


def test_more_than_a_thousand_keys_take_two_pages(s3, thousands):
    bucket, expected = thousands
    first = s3.list_objects(Bucket=bucket, MaxKeys=5000)
    assert (len(keys(first)), first["IsTruncated"], first["MaxKeys"]) == (1000, True, 1000)
    rest = s3.list_objects(Bucket=bucket, Marker=keys(first)[-1])
    assert keys(first) + keys(rest) == expected


def test_an_empty_bucket_has_an_empty_listing(http, bucket):
    text = http.request("GET", f"/{bucket}").body.decode()
    assert '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' in text
    assert f"<Name>{bucket}</Name>" in text
    assert re.search(r"<Prefix ?/>|<Prefix></Prefix>", text)
    assert re.search(r"<Marker ?/>|<Marker></Marker>", text)
    assert "<MaxKeys>1000</MaxKeys>" in text
    assert "<IsTruncated>false</IsTruncated>" in text
    assert "<KeyCount>" not in text


def test_keys_are_percent_encoded_when_asked_for(http, s3, bucket):
    for key in ("a b/x", "ü\n", "\x01"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    text = http.request(
        "GET", f"/{bucket}", "delimiter=%2F&encoding-type=url&prefix="
    ).body.decode()
    assert "<EncodingType>url</EncodingType>" in text
    assert re.findall("<Key>([^<]*)</Key>", text) == ["%01", "%C3%BC%0A"]
    assert re.search("<CommonPrefixes><Prefix>a(%20|[+])b/</Prefix></CommonPrefixes>", text)


def test_an_unknown_encoding_is_refused(http, bucket):
    reply = http.request("GET", f"/{bucket}", "encoding-type=rot13")
    assert (reply.status, reply.code) == (400, "InvalidArgument")


@pytest.mark.parametrize("value", ["-1", "x", "2147483648"])
def test_a_page_size_that_is_no_number_in_range_is_refused(http, bucket, value):
    reply = http.request("GET", f"/{bucket}", f"max-keys={value}")
    assert (reply.status, reply.code) == (400, "InvalidArgument")


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.list_objects(Bucket=missing_bucket)


def test_a_written_key_is_listed_at_once_by_every_gateway(server, bucket):
    writer, reader = (server.client(server.endpoints[index]) for index in (0, -1))
    for number in range(5):
        writer.put_object(Bucket=bucket, Key=f"k{number}", Body=b"")
        assert len(keys(reader.list_objects(Bucket=bucket))) == number + 1


@pytest.mark.parametrize("name", ["start-after", "continuation-token"])
def test_a_parameter_of_version_2_is_refused(http, bucket, name):
    reply = http.request("GET", f"/{bucket}", f"{name}=a")
    assert (reply.status, reply.code) == (400, "InvalidArgument")
