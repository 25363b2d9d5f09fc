"""What inventory rows say of versions, how CSV spells it, and that a cut input makes no file."""

from __future__ import annotations

import csv
import gzip
import io
import json
from base64 import b64decode
from urllib.parse import unquote, unquote_plus

import msgspec
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.buckets import acl, lifecycle
from s3gw.buckets.inventory import Layout, read_inventory, slot_ms
from s3gw.metadata.records import (
    BlobRef,
    BucketRecord,
    Checksums,
    Description,
    Encryption,
    Lock,
    ManifestRef,
    ObjectRecord,
    encode,
)
from s3gw.wire.version_ids import encode_version_id
from s3gw.workers import inventory_encoder
from s3gw.workers.inventory_encoder import Cut, Header, Row, encode_report, frame
from s3gw.workers.inventory_rows import COLUMNS, EXPIRY, csv_line, row_of
from tests.workers.inventories import configuration

BLOB = BlobRef("4+2", b"x" * 16, 5, 0)
PLAIN = ObjectRecord(7, 1_700_000_000_123, "owner", 5, "e" * 32, BLOB, Description())
MARKER = msgspec.structs.replace(
    PLAIN, sequence=8, data=None, marker=True, null_version=False, size=0, etag=""
)
RICH = msgspec.structs.replace(
    PLAIN,
    data=ManifestRef(b"m" * 16, 2, (0,), 2, BLOB),
    etag="f" * 32 + "-2",
    checksums=Checksums({"CRC32": "AAAAAA=="}, "FULL_OBJECT"),
    description=Description(
        storage_class="STANDARD_IA",
        lock=Lock("GOVERNANCE", 1_800_000_000_000, legal_hold=True),
        encryption=Encryption("aws:kms", "arn:aws:kms:::key/k", b"", "", bucket_key=True),
        acl=acl.to_store(
            (acl.Grant("owner", "FULL_CONTROL"), acl.Grant(acl.ALL_USERS, "READ")), "owner"
        ),
    ),
)
BUCKET = BucketRecord(1, "owner", "us-east-1", "4+2", b"b" * 16)


def said(record: ObjectRecord, *, latest: bool = True) -> dict[str, str]:
    """Each column of the record as CSV spells it."""
    columns = ("Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", *COLUMNS)
    line = csv_line(columns, row_of(columns, "bucket", "k", record, latest=latest))
    (cells,) = csv.reader(io.StringIO(line.decode()), strict=True)
    return dict(zip(columns, cells, strict=True))


def test_a_plain_object() -> None:
    found = said(PLAIN)
    assert found["VersionId"] == "null"
    assert (found["IsLatest"], found["IsDeleteMarker"]) == ("true", "false")
    assert found["LastModifiedDate"] == "2023-11-14T22:13:20.123Z"
    assert (found["StorageClass"], found["EncryptionStatus"]) == ("STANDARD", "NOT-SSE")
    assert (found["IsMultipartUploaded"], found["ObjectLockLegalHoldStatus"]) == ("false", "Off")
    assert found["ReplicationStatus"] == found["BucketKeyStatus"] == found["ObjectLockMode"] == ""


def test_an_object_that_has_everything() -> None:
    found = said(RICH)
    assert (found["Size"], found["IsMultipartUploaded"]) == ("5", "true")
    assert (found["EncryptionStatus"], found["BucketKeyStatus"]) == ("SSE-KMS", "ENABLED")
    assert found["ObjectLockMode"] == "GOVERNANCE"
    assert found["ObjectLockRetainUntilDate"] == "2027-01-15T08:00:00.000Z"
    assert found["ObjectLockLegalHoldStatus"] == "On"
    assert found["ChecksumAlgorithm"] == "CRC32"
    grants = json.loads(b64decode(found["ObjectAccessControlList"]))
    assert grants["version"] == "2022-11-10"
    assert grants["grants"] == [
        {"canonicalId": "owner", "type": "CanonicalUser", "permission": "FULL_CONTROL"},
        {"uri": acl.ALL_USERS, "type": "Group", "permission": "READ"},
    ]


def test_a_delete_marker_has_no_content() -> None:
    found = said(MARKER, latest=False)
    assert found["VersionId"] == encode_version_id(8)
    assert (found["IsLatest"], found["IsDeleteMarker"]) == ("false", "true")
    for name in ("Size", "ETag", "StorageClass", "EncryptionStatus", "ObjectAccessControlList"):
        assert found[name] == "", name


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_every_key_survives_csv(key: str) -> None:
    columns = ("Bucket", "Key")
    line = csv_line(columns, row_of(columns, "bucket", key, PLAIN, latest=True)).decode("ascii")
    assert line.count("\n") == 1
    (cells,) = csv.reader(io.StringIO(line), strict=True)
    assert unquote(cells[1]) == unquote_plus(cells[1]) == key


RULES = b"""<LifecycleConfiguration><Rule><ID>r</ID><Filter/><Status>Enabled</Status>
<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>"""


def report(rows: list[Row], *, parquet: bool, columns: tuple[str, ...], end: bool = True) -> bytes:
    documents = {lifecycle.NAME: lifecycle.store(lifecycle.parse(RULES))}
    bucket = msgspec.structs.replace(BUCKET, documents=documents)
    header = Header("bucket", encode(bucket), columns, parquet, 24 * 3600 * 1000)
    sent = frame(header) + b"".join(frame([row]) for row in rows) + (frame(None) if end else b"")
    sink = io.BytesIO()
    encode_report(io.BytesIO(sent), sink)
    return sink.getvalue()


@pytest.mark.parametrize("parquet", [False, True])
def test_what_cannot_be_read_is_left_out(parquet: bool) -> None:
    rows = [Row(key, encode(PLAIN), True) for key in ("a", "b", "c")]
    damaged = [rows[0], Row("?", b"\xff", True), rows[1], Row("!", b"", True), rows[2]]
    asked = {"parquet": parquet, "columns": ("Bucket", "Key")}
    assert report(damaged, **asked) == report(rows, **asked)


@pytest.mark.parametrize("parquet", [False, True])
def test_an_input_that_is_cut_is_no_report(parquet: bool) -> None:
    rows = [Row("k", encode(PLAIN), True)]
    with pytest.raises(Cut):
        report(rows, parquet=parquet, columns=("Bucket", "Key"), end=False)


def test_parquet_goes_out_in_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory_encoder, "ROW_GROUP_ROWS", 2)
    rows = [Row(f"k{number}", encode(PLAIN), True) for number in range(5)]
    data = report(rows, parquet=True, columns=("Bucket", "Key", "Size"))
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == 3
    assert file.read().column("key").to_pylist() == [f"k{number}" for number in range(5)]


def test_the_expiration_of_the_newest_versions_is_told() -> None:
    rows = [Row("k", encode(PLAIN), True), Row("k", encode(PLAIN), False)]
    text = gzip.decompress(report(rows, parquet=False, columns=("Key", EXPIRY))).decode()
    # A day after its last modification, at the next midnight.
    assert text == '"k","2023-11-16T00:00:00.000Z"\n"k",""\n'


def test_gzip_of_no_rows_is_a_whole_file() -> None:
    assert gzip.decompress(report([], parquet=False, columns=("Bucket", "Key"))) == b""


def test_names_and_manifest_are_those_of_s3() -> None:
    inventory = read_inventory(configuration())
    layout = Layout("source", inventory, 1_700_000_000_000)
    assert layout.data("u") == "out/source/one/data/u.csv.gz"
    assert layout.manifest == "out/source/one/2023-11-14T22-13Z/manifest.json"
    assert layout.checksum == "out/source/one/2023-11-14T22-13Z/manifest.checksum"
    assert layout.symlink == "out/source/one/hive/dt=2023-11-14-22-13/symlink.txt"
    document = json.loads(layout.manifest_text([], "Bucket, Key"))
    assert document["creationTimestamp"] == "1700000000000"
    assert document["destinationBucket"] == "arn:aws:s3:::reports"


@given(st.integers(0, 4 * 10**12))
def test_a_slot_is_the_last_midnight_or_that_of_sunday(now_ms: int) -> None:
    day = 24 * 3600 * 1000
    assert now_ms - day < slot_ms(False, now_ms) <= now_ms
    assert slot_ms(False, now_ms) % day == 0
    week = slot_ms(True, now_ms)
    assert now_ms - 7 * day < week <= now_ms
    assert (week // day + 4) % 7 == 0
