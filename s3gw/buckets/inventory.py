"""Inventory reports: what a configuration asks for, when a report is due, and what it is called.

Names and manifest are those of Amazon S3 (User Guide, "Locating your inventory list"):

    <prefix>/<bucket>/<id>/data/<uuid>.csv.gz                   the report, in one file or several
    <prefix>/<bucket>/<id>/YYYY-MM-DDTHH-MMZ/manifest.json      names them: there, it is whole
    <prefix>/<bucket>/<id>/YYYY-MM-DDTHH-MMZ/manifest.checksum  the manifest's MD5; written last
    <prefix>/<bucket>/<id>/hive/dt=YYYY-MM-DD-HH-MM/symlink.txt the files, for Hive

A daily report is due at midnight UTC, a weekly one at that of Sunday; the first one at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import gmtime, strftime
from typing import Any

from s3gw.buckets.configurations import ARN_OF_BUCKETS, INVENTORY

DAY_MS = 24 * 3600 * 1000
# 1 January 1970 was a Thursday.
FIRST_SUNDAY_MS = 3 * DAY_MS
CSV, PARQUET = "CSV", "Parquet"
SUFFIXES = {CSV: "csv.gz", PARQUET: "parquet"}
MANIFEST_VERSION = "2016-11-30"
FORMAT_VERSION_COLUMNS = ("VersionId", "IsLatest", "IsDeleteMarker")


@dataclass(frozen=True, slots=True)
class Inventory:
    """A configuration. `prefix` and `folder` are those of the keys that are listed and of the
    report; `algorithm` ("AES256", "aws:kms" or "") and `key_name` say how it is encrypted."""

    id: str
    enabled: bool
    prefix: str
    every_version: bool
    weekly: bool
    format: str
    bucket: str
    folder: str
    fields: tuple[str, ...]
    algorithm: str = ""
    key_name: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the report, by S3's names."""
        versions = FORMAT_VERSION_COLUMNS if self.every_version else ()
        return ("Bucket", "Key", *versions, *self.fields)


def read_inventory(stored: bytes) -> Inventory:
    """A configuration as it is kept."""
    value = INVENTORY.document.parse(stored)
    destination = value["Destination"]["S3BucketDestination"]
    algorithm, key_name = _encryption(destination.get("Encryption", {}))
    return Inventory(
        id=value["Id"],
        enabled=value["IsEnabled"],
        prefix=value.get("Filter", {}).get("Prefix", ""),
        every_version=value["IncludedObjectVersions"] == "All",
        weekly=value["Schedule"]["Frequency"] == "Weekly",
        format=destination["Format"],
        bucket=destination["Bucket"].removeprefix(ARN_OF_BUCKETS),
        folder=destination.get("Prefix", ""),
        fields=tuple(value.get("OptionalFields", {}).get("Field", [])),
        algorithm=algorithm,
        key_name=key_name,
    )


def _encryption(value: dict[str, Any]) -> tuple[str, str]:
    if "SSE-KMS" in value:
        return "aws:kms", value["SSE-KMS"]["KeyId"]
    return ("AES256" if "SSE-S3" in value else ""), ""


def slot_ms(weekly: bool, now_ms: int) -> int:
    """When the last report up to now became due.

    >>> slot_ms(False, 3 * DAY_MS + 5), slot_ms(True, 9 * DAY_MS)
    (259200000, 259200000)
    """
    if not weekly:
        return now_ms - now_ms % DAY_MS
    return now_ms - (now_ms - FIRST_SUNDAY_MS) % (7 * DAY_MS)


def next_slot_ms(weekly: bool, now_ms: int) -> int:
    """When the next report becomes due."""
    return slot_ms(weekly, now_ms) + (7 * DAY_MS if weekly else DAY_MS)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A finished file of a report. `md5` in hexadecimal."""

    key: str
    size: int
    md5: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of one report's objects. `started_ms` is when it was begun."""

    bucket: str
    inventory: Inventory
    started_ms: int

    @property
    def _base(self) -> str:
        folder = self.inventory.folder.rstrip("/")
        path = f"{self.bucket}/{self.inventory.id}"
        return f"{folder}/{path}" if folder else path

    def data(self, name: str) -> str:
        """A file of the report; `name` is unique for ever."""
        return f"{self._base}/data/{name}.{SUFFIXES[self.inventory.format]}"

    @property
    def manifest(self) -> str:
        return f"{self._base}/{self._time('%Y-%m-%dT%H-%MZ')}/manifest.json"

    @property
    def checksum(self) -> str:
        return f"{self._base}/{self._time('%Y-%m-%dT%H-%MZ')}/manifest.checksum"

    @property
    def symlink(self) -> str:
        return f"{self._base}/hive/dt={self._time('%Y-%m-%d-%H-%M')}/symlink.txt"

    def _time(self, form: str) -> str:
        return strftime(form, gmtime(self.started_ms // 1000))

    def symlink_text(self, files: Sequence[DataFile]) -> bytes:
        """What `symlink.txt` says: a line for each file."""
        return "\n".join(f"s3://{self.inventory.bucket}/{each.key}" for each in files).encode()

    def manifest_text(self, files: Sequence[DataFile], schema: str) -> bytes:
        """The manifest: JSON, with every key spelled as it is."""
        return json.dumps(
            {
                "sourceBucket": self.bucket,
                "destinationBucket": ARN_OF_BUCKETS + self.inventory.bucket,
                "version": MANIFEST_VERSION,
                "creationTimestamp": str(self.started_ms),
                "fileFormat": self.inventory.format,
                "fileSchema": schema,
                "files": [
                    {"key": each.key, "size": each.size, "MD5checksum": each.md5} for each in files
                ],
            },
            indent=2,
        ).encode()
