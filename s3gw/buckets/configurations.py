"""The configurations of which a bucket has many, each under an id: inventory, analytics, metrics
and intelligent tiering.

Source: Amazon S3 API Reference, PutBucketInventoryConfiguration and its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3gw import limits
from s3gw.buckets.document import (
    Choice,
    Document,
    Element,
    Flag,
    Integer,
    Structure,
    Text,
    Value,
    optional,
    required,
    several,
)
from s3gw.errors import InvalidArgument, InvalidRequest, MalformedXML, NotImplementedS3
from s3gw.wire.tagging import check_tags

ID_CHARACTERS_MAX = 64
ID_PUNCTUATION = "_-."
ARN_OF_BUCKETS = "arn:aws:s3:::"
# Days of an access tier (User Guide, "S3 Intelligent-Tiering access tiers").
ARCHIVE_DAYS_MIN, DEEP_ARCHIVE_DAYS_MIN, TIER_DAYS_MAX = 90, 180, 730
OPTIONAL_FIELDS = (
    "Size",
    "LastModifiedDate",
    "StorageClass",
    "ETag",
    "IsMultipartUploaded",
    "ReplicationStatus",
    "EncryptionStatus",
    "ObjectLockRetainUntilDate",
    "ObjectLockMode",
    "ObjectLockLegalHoldStatus",
    "ObjectLockEventHoldStatus",
    "ObjectLockEventHoldDuration",
    "IntelligentTieringAccessTier",
    "BucketKeyStatus",
    "ChecksumAlgorithm",
    "ObjectAccessControlList",
    "ObjectOwner",
    "LifecycleExpirationDate",
    "IntelligentTieringReferenceDate",
)

_ID = required("Id", Text(1, ID_CHARACTERS_MAX))
_KEY = Text(0, limits.KEY_BYTES_MAX)
_TAG = Structure((required("Key", Text()), required("Value", Text())))


def _filter(*more: Element) -> Structure:
    """One condition, or `And` of a prefix, tags and `more`."""
    both = Structure((optional("Prefix", _KEY), several("Tag", _TAG), *more))
    one = (optional("Prefix", _KEY), optional("Tag", _TAG), *more, optional("And", both))
    return Structure(one, union=True)


def _bucket_destination(*elements: Element) -> Structure:
    return Structure((required("S3BucketDestination", Structure(elements)),))


_ANALYTICS_EXPORT = Structure(
    (
        required("OutputSchemaVersion", Choice(("V_1",))),
        required(
            "Destination",
            _bucket_destination(
                required("Format", Choice(("CSV",))),
                optional("BucketAccountId", Text()),
                required("Bucket", Text(1)),
                optional("Prefix", _KEY),
            ),
        ),
    )
)
_STORAGE_CLASS_ANALYSIS = Structure((optional("DataExport", _ANALYTICS_EXPORT),))
_TIERING = Structure(
    (
        required("Days", Integer()),
        required("AccessTier", Choice(("ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"))),
    )
)
_ENCRYPTION = Structure(
    (
        optional("SSE-S3", Structure(())),
        optional("SSE-KMS", Structure((required("KeyId", Text(1)),))),
    ),
    union=True,
)
_INVENTORY_DESTINATION = _bucket_destination(
    optional("AccountId", Text()),
    required("Bucket", Text(1)),
    required("Format", Choice(("CSV", "ORC", "Parquet"))),
    optional("Prefix", _KEY),
    optional("Encryption", _ENCRYPTION),
)


def _check_filter(value: Value) -> None:
    """An `And` joins at least two conditions; tags obey the rules of tags."""
    found = value.get("Filter", {})
    joined = found.get("And")
    if joined is None:
        tags = [found["Tag"]] if "Tag" in found else []
    else:
        tags = joined.get("Tag", [])
        if len(joined) - ("Tag" in joined) + len(tags) < 2:
            raise MalformedXML
    check_tags(((tag["Key"], tag["Value"]) for tag in tags), limits.BUCKET_TAGS_MAX)


def _check_destination(destination: Value) -> None:
    """The bucket is named by its ARN."""
    bucket = destination["S3BucketDestination"]["Bucket"]
    if not bucket.startswith(ARN_OF_BUCKETS) or bucket == ARN_OF_BUCKETS:
        raise InvalidArgument(
            "The destination bucket must be given as an ARN.",
            ArgumentName="Bucket",
            ArgumentValue=bucket,
        )


def _check_analytics(value: Value) -> None:
    _check_filter(value)
    export = value["StorageClassAnalysis"].get("DataExport")
    if export is not None:
        _check_destination(export["Destination"])


def _check_inventory(value: Value) -> None:
    _check_destination(value["Destination"])
    if value["Destination"]["S3BucketDestination"]["Format"] == "ORC":
        raise NotImplementedS3("Inventory reports are written as CSV and Parquet, not as ORC.")
    fields = value.get("OptionalFields", {}).get("Field", [])
    if len(set(fields)) != len(fields):
        raise MalformedXML


def _check_tiering(value: Value) -> None:
    _check_filter(value)
    days = {}
    for tier in value["Tiering"]:
        name = tier["AccessTier"]
        least = ARCHIVE_DAYS_MIN if name == "ARCHIVE_ACCESS" else DEEP_ARCHIVE_DAYS_MIN
        if name in days or not least <= tier["Days"] <= TIER_DAYS_MAX:
            raise InvalidRequest(
                f"Each access tier may be there once, {name} with {least} to {TIER_DAYS_MAX} days."
            )
        days[name] = tier["Days"]
    if days.get("ARCHIVE_ACCESS", 0) >= days.get("DEEP_ARCHIVE_ACCESS", TIER_DAYS_MAX + 1):
        raise InvalidRequest("DEEP_ARCHIVE_ACCESS must have more days than ARCHIVE_ACCESS.")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of such configurations: the document of one, and the root element of their list."""

    document: Document
    list_root: str

    @property
    def name(self) -> str:
        return self.document.name


INVENTORY = Kind(
    Document(
        "inventory",
        "InventoryConfiguration",
        Structure(
            (
                required("Destination", _INVENTORY_DESTINATION),
                required("IsEnabled", Flag()),
                optional("Filter", Structure((required("Prefix", _KEY),))),
                _ID,
                required("IncludedObjectVersions", Choice(("All", "Current"))),
                optional("OptionalFields", Structure((several("Field", Choice(OPTIONAL_FIELDS)),))),
                required(
                    "Schedule", Structure((required("Frequency", Choice(("Daily", "Weekly"))),))
                ),
            )
        ),
        _check_inventory,
    ),
    "ListInventoryConfigurationsResult",
)

ANALYTICS = Kind(
    Document(
        "analytics",
        "AnalyticsConfiguration",
        Structure(
            (
                _ID,
                optional("Filter", _filter()),
                required("StorageClassAnalysis", _STORAGE_CLASS_ANALYSIS),
            )
        ),
        _check_analytics,
    ),
    "ListBucketAnalyticsConfigurationResult",
)

METRICS = Kind(
    Document(
        "metrics",
        "MetricsConfiguration",
        Structure((_ID, optional("Filter", _filter(optional("AccessPointArn", Text(1)))))),
        _check_filter,
    ),
    "ListMetricsConfigurationsResult",
)

INTELLIGENT_TIERING = Kind(
    Document(
        "intelligent-tiering",
        "IntelligentTieringConfiguration",
        Structure(
            (
                _ID,
                optional("Filter", _filter()),
                required("Status", Choice(("Enabled", "Disabled"))),
                several("Tiering", _TIERING, least=1),
            )
        ),
        _check_tiering,
    ),
    "ListBucketIntelligentTieringConfigurationsOutput",
)

KINDS = (INVENTORY, ANALYTICS, METRICS, INTELLIGENT_TIERING)


def check_id(text: str) -> str:
    """The `id` of a request. Raises InvalidArgument."""
    plain = text.translate(dict.fromkeys(map(ord, ID_PUNCTUATION)))
    if not (
        0 < len(text) <= ID_CHARACTERS_MAX and text.isascii() and (not plain or plain.isalnum())
    ):
        raise InvalidArgument(
            f"The id may have {ID_CHARACTERS_MAX} letters, digits, dashes, dots and underscores.",
            ArgumentName="id",
            ArgumentValue=text,
        )
    return text
