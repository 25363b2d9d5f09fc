"""What the tests of inventory, analytics, metrics and intelligent-tiering configurations share."""

import re
from dataclasses import dataclass, field
from typing import Any

TARGET = "arn:aws:s3:::reports"


@dataclass(frozen=True)
class Kind:
    """One kind of configuration as boto3 names it."""

    name: str
    sample: dict[str, Any] = field(hash=False)

    @property
    def parameter(self) -> str:
        return f"{self.name}Configuration"

    @property
    def stem(self) -> str:
        return "bucket_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.parameter).lower()

    def put(self, s3: Any, bucket: str, id_: str, **changes: Any) -> Any:
        """Set a configuration; returns what a read is to give back."""
        configuration = {**self.sample, "Id": id_, **changes}
        setting = {self.parameter: configuration}
        getattr(s3, f"put_{self.stem}")(Bucket=bucket, Id=id_, **setting)
        return configuration

    def get(self, s3: Any, bucket: str, id_: str) -> Any:
        return getattr(s3, f"get_{self.stem}")(Bucket=bucket, Id=id_)[self.parameter]

    def delete(self, s3: Any, bucket: str, id_: str) -> Any:
        return getattr(s3, f"delete_{self.stem}")(Bucket=bucket, Id=id_)

    def list(self, s3: Any, bucket: str, token: str | None = None) -> Any:
        more = {"ContinuationToken": token} if token else {}
        return getattr(s3, f"list_{self.stem}s")(Bucket=bucket, **more)

    def listed(self, page: Any) -> Any:
        return page.get(f"{self.parameter}List", [])


INVENTORY = Kind(
    "Inventory",
    {
        "Destination": {
            "S3BucketDestination": {"Bucket": TARGET, "Format": "Parquet", "Prefix": "a/<&"}
        },
        "IsEnabled": True,
        "Filter": {"Prefix": "p/"},
        "IncludedObjectVersions": "Current",
        "OptionalFields": ["Size", "ETag"],
        "Schedule": {"Frequency": "Weekly"},
    },
)
ANALYTICS = Kind(
    "Analytics",
    {
        "Filter": {"And": {"Prefix": "p/", "Tags": [{"Key": "a", "Value": "1"}]}},
        "StorageClassAnalysis": {
            "DataExport": {
                "OutputSchemaVersion": "V_1",
                "Destination": {"S3BucketDestination": {"Format": "CSV", "Bucket": TARGET}},
            }
        },
    },
)
METRICS = Kind("Metrics", {"Filter": {"Tag": {"Key": "a", "Value": "1"}}})
INTELLIGENT_TIERING = Kind(
    "IntelligentTiering",
    {
        "Filter": {"Prefix": "p/"},
        "Status": "Enabled",
        "Tierings": [
            {"Days": 90, "AccessTier": "ARCHIVE_ACCESS"},
            {"Days": 180, "AccessTier": "DEEP_ARCHIVE_ACCESS"},
        ],
    },
)
