"""What S3 answers about settings that nobody has made.

Terraform, SDKs and s3cmd read most sub-resources of a bucket before they do anything else, and
stop at an unexpected code or root element. The answers are those of Amazon S3 (API Reference, each
operation's "Response Syntax" and "Errors") for a bucket just created and an object just put. Until
the operation that makes a setting is built, the fresh answer is the true one; afterwards it is that
of a bucket whose owner has not made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from s3gw import errors
from s3gw.errors import S3Error


@dataclass(frozen=True, slots=True)
class Refusal:
    """The operation fails with this error, and this message where it is not the usual one."""

    error: type[S3Error]
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A root element, and its children as (name, text)."""

    root: str
    children: tuple[tuple[str, str], ...] = ()


Answer = Refusal | Document

_NOT_TRUNCATED = (("IsTruncated", "false"),)
_NO_CONFIGURATION = Refusal(errors.NoSuchConfiguration)

ANSWERS: Mapping[str, Answer] = MappingProxyType(
    {
        "GetBucketAbac": Document("AbacStatus", (("Status", "Disabled"),)),
        "GetBucketAccelerateConfiguration": Document("AccelerateConfiguration"),
        "GetBucketAnalyticsConfiguration": _NO_CONFIGURATION,
        "GetBucketCors": Refusal(errors.NoSuchCORSConfiguration),
        "GetBucketEncryption": Refusal(errors.ServerSideEncryptionConfigurationNotFoundError),
        "GetBucketIntelligentTieringConfiguration": _NO_CONFIGURATION,
        "GetBucketInventoryConfiguration": _NO_CONFIGURATION,
        "GetBucketLifecycleConfiguration": Refusal(errors.NoSuchLifecycleConfiguration),
        "GetBucketLogging": Document("BucketLoggingStatus"),
        "GetBucketMetadataConfiguration": Refusal(errors.MetadataConfigurationNotFound),
        "GetBucketMetadataTableConfiguration": Refusal(errors.MetadataConfigurationNotFound),
        "GetBucketMetricsConfiguration": _NO_CONFIGURATION,
        "GetBucketNotificationConfiguration": Document("NotificationConfiguration"),
        "GetBucketReplication": Refusal(errors.ReplicationConfigurationNotFoundError),
        "GetBucketRequestPayment": Document(
            "RequestPaymentConfiguration", (("Payer", "BucketOwner"),)
        ),
        "GetBucketTagging": Refusal(errors.NoSuchTagSet),
        "GetBucketWebsite": Refusal(errors.NoSuchWebsiteConfiguration),
        "ListBucketAnalyticsConfigurations": Document(
            "ListBucketAnalyticsConfigurationResult", _NOT_TRUNCATED
        ),
        "ListBucketIntelligentTieringConfigurations": Document(
            "ListBucketIntelligentTieringConfigurationsOutput", _NOT_TRUNCATED
        ),
        "ListBucketInventoryConfigurations": Document(
            "ListInventoryConfigurationsResult", _NOT_TRUNCATED
        ),
        "ListBucketMetricsConfigurations": Document(
            "ListMetricsConfigurationsResult", _NOT_TRUNCATED
        ),
        "PreflightBucket": Refusal(errors.AccessForbidden),
        "PreflightObject": Refusal(errors.AccessForbidden),
    }
)
