"""Inventory reports as a client finds and reads them."""

import csv
import gzip
import hashlib
import io
import json
from urllib.parse import unquote

import pyarrow.parquet
import pytest

from compose.local import wait_until

KEYS = ["a/1", "a/b c+d%", "a/é\n\"q\"", "b"]  # fmt: skip
FIELDS = ["Size", "LastModifiedDate", "ETag", "StorageClass", "IsMultipartUploaded"]
WAIT_SECONDS = 60


def configure(s3, bucket, target, form, **more):
    configuration = {
        "Id": "all",
        "Destination": {
            "S3BucketDestination": {
                "Bucket": f"arn:aws:s3:::{target}",
                "Format": form,
                "Prefix": "reports",
            }
        },
        "IsEnabled": True,
        "IncludedObjectVersions": "Current",
        "OptionalFields": FIELDS,
        "Schedule": {"Frequency": "Daily"},
        **more,
    }
    s3.put_bucket_inventory_configuration(
        Bucket=bucket, Id="all", InventoryConfiguration=configuration
    )


def manifest(s3, bucket, target):
    """The manifest of the first report, once its checksum is there."""
    prefix = f"reports/{bucket}/all/"
    found = []

    def is_there():
        page = s3.list_objects_v2(Bucket=target, Prefix=prefix)
        keys = [entry["Key"] for entry in page.get("Contents", [])]
        found[:] = [key for key in keys if key.endswith("Z/manifest.checksum")]
        return bool(found)

    wait_until(is_there, what="a report", seconds_max=WAIT_SECONDS)
    checksum = s3.get_object(Bucket=target, Key=found[0])["Body"].read()
    key = found[0].replace(".checksum", ".json")
    text = s3.get_object(Bucket=target, Key=key)["Body"].read()
    assert checksum.decode() == hashlib.md5(text).hexdigest()
    return json.loads(text)


def data(s3, target, found):
    for file in found["files"]:
        body = s3.get_object(Bucket=target, Key=file["key"])["Body"].read()
        assert len(body) == file["size"]
        assert hashlib.md5(body).hexdigest() == file["MD5checksum"]
        yield body


@pytest.fixture
def filled(s3, bucket):
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


def test_a_report_in_csv(s3, filled, make_bucket):
    target = make_bucket()
    configure(s3, filled, target, "CSV", Filter={"Prefix": "a/"})
    found = manifest(s3, filled, target)
    assert found["sourceBucket"] == filled
    assert found["destinationBucket"] == f"arn:aws:s3:::{target}"
    assert (found["version"], found["fileFormat"]) == ("2016-11-30", "CSV")
    columns = found["fileSchema"].split(", ")
    assert columns == ["Bucket", "Key", *FIELDS]
    (body,) = data(s3, target, found)
    rows = list(csv.reader(io.StringIO(gzip.decompress(body).decode()), strict=True))
    assert [unquote(row[1]) for row in rows] == [key for key in KEYS if key.startswith("a/")]
    for row in rows:
        head = s3.head_object(Bucket=filled, Key=unquote(row[1]))
        assert row[2] == str(head["ContentLength"])
        assert row[3][:19] == head["LastModified"].isoformat()[:19]
        assert f'"{row[4]}"' == head["ETag"]
        assert row[5:] == ["STANDARD", "false"]


def test_a_report_of_all_versions_in_parquet(s3, filled, make_bucket):
    target = make_bucket()
    s3.put_bucket_versioning(Bucket=filled, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=filled, Key="b", Body=b"again")
    s3.delete_object(Bucket=filled, Key="a/1")
    configure(s3, filled, target, "Parquet", IncludedObjectVersions="All")
    found = manifest(s3, filled, target)
    (body,) = data(s3, target, found)
    rows = pyarrow.parquet.read_table(io.BytesIO(body)).to_pylist()
    page = s3.list_object_versions(Bucket=filled, EncodingType="url")
    expected = {
        (unquote(entry["Key"]), entry["VersionId"], entry["IsLatest"], "Size" not in entry)
        for entry in page["Versions"] + page["DeleteMarkers"]
    }
    seen = {
        (row["key"], row["version_id"], row["is_latest"], row["is_delete_marker"]) for row in rows
    }
    assert seen == expected
    assert len(rows) == len(expected)


def test_orc_is_refused(s3, bucket, refused):
    with refused("NotImplemented", 501):
        configure(s3, bucket, bucket, "ORC")
