"""ListMultipartUploads."""

import pytest


@pytest.fixture
def uploads(s3, bucket):
    """(key, upload id) in the order of listing: by key, then by the time of their start."""
    keys = ["a", "a", "b/1", "b/2", "c"]
    found = [
        (key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])
        for key in reversed(keys)
    ]
    return sorted(found, key=lambda pair: pair[0])


def entries(page):
    return [(upload["Key"], upload["UploadId"]) for upload in page.get("Uploads", [])]


def test_uploads_are_listed_by_key_and_then_by_time(s3, bucket, uploads):
    page = s3.list_multipart_uploads(Bucket=bucket)
    assert entries(page) == uploads
    assert (page["Bucket"], page["IsTruncated"]) == (bucket, False)
    first = page["Uploads"][0]
    assert first["StorageClass"] == "STANDARD"
    assert first["Initiated"]
    assert first["Initiator"]["ID"]
    assert first["Owner"]["ID"]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_pages_follow_each_other_without_gap_or_repetition(s3, bucket, uploads, size):
    found, marker = [], {}
    while True:
        page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=size, **marker)
        found += entries(page)
        if not page["IsTruncated"]:
            break
        assert len(entries(page)) == size
        marker = {
            "KeyMarker": page["NextKeyMarker"],
            "UploadIdMarker": page["NextUploadIdMarker"],
        }
    assert found == entries(s3.list_multipart_uploads(Bucket=bucket))


def test_a_key_marker_alone_skips_every_upload_of_that_key(s3, bucket, uploads):
    page = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a")
    assert [key for key, _ in entries(page)] == ["b/1", "b/2", "c"]


def test_a_prefix_selects(s3, bucket, uploads):
    page = s3.list_multipart_uploads(Bucket=bucket, Prefix="b")
    assert [key for key, _ in entries(page)] == ["b/1", "b/2"]


def test_a_delimiter_folds(s3, bucket, uploads):
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [key for key, _ in entries(page)] == ["a", "a", "c"]
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["b/"]


def test_objects_are_not_uploads(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_keys_that_xml_cannot_hold_are_listed_percent_encoded(s3, http, bucket):
    s3.create_multipart_upload(Bucket=bucket, Key="a b\x01")
    text = http.request("GET", f"/{bucket}", "encoding-type=url&uploads").body.decode()
    assert "<Key>a%20b%01</Key>" in text or "<Key>a+b%01</Key>" in text


def test_a_missing_bucket_is_refused(s3, missing_bucket, refused):
    with refused("NoSuchBucket", 404):
        s3.list_multipart_uploads(Bucket=missing_bucket)
