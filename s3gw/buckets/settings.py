"""The small bucket documents: request payment, acceleration, access logging, notifications.

Source: Amazon S3 API Reference, PutBucketRequestPayment, PutBucketAccelerateConfiguration,
PutBucketLogging, PutBucketNotificationConfiguration.
"""

from __future__ import annotations

from s3gw.buckets.document import (
    Choice,
    Document,
    Structure,
    Text,
    Value,
    optional,
    required,
    several,
)
from s3gw.errors import AccessControlListNotSupported, InvalidArgument

REQUEST_PAYMENT = Document(
    "requestPayment",
    "RequestPaymentConfiguration",
    Structure((required("Payer", Choice(("BucketOwner", "Requester"))),)),
)

ACCELERATE = Document(
    "accelerate",
    "AccelerateConfiguration",
    Structure((required("Status", Choice(("Enabled", "Suspended"))),)),
)

_GRANTEE = Structure(
    tuple(optional(name, Text()) for name in ("DisplayName", "EmailAddress", "ID", "URI"))
)
_GRANT = Structure(
    (
        required("Grantee", _GRANTEE),
        required("Permission", Choice(("FULL_CONTROL", "READ", "WRITE"))),
    )
)
_PARTITIONED = Structure((optional("PartitionDateSource", Choice(("EventTime", "DeliveryTime"))),))
_KEY_FORMAT = Structure(
    (optional("SimplePrefix", Structure(())), optional("PartitionedPrefix", _PARTITIONED)),
    union=True,
)
_LOGGING_ENABLED = Structure(
    (
        required("TargetBucket", Text(1)),
        optional("TargetGrants", Structure((several("Grant", _GRANT),))),
        required("TargetPrefix", Text()),
        optional("TargetObjectKeyFormat", _KEY_FORMAT),
    )
)


def _check_logging(value: Value) -> None:
    """Whoever reads the logs is said by policies: buckets have no access control lists."""
    if value.get("LoggingEnabled", {}).get("TargetGrants", {}).get("Grant"):
        raise AccessControlListNotSupported


LOGGING = Document(
    "logging",
    "BucketLoggingStatus",
    Structure((optional("LoggingEnabled", _LOGGING_ENABLED),)),
    _check_logging,
)

# A destination's own content is not looked at: there is none that events could be sent to.
_EVENTS = tuple(
    several(name, Structure((), opaque=True))
    for name in (
        "TopicConfiguration",
        "QueueConfiguration",
        "CloudFunctionConfiguration",
        "EventBridgeConfiguration",
    )
)


def _check_notification(value: Value) -> None:
    if value:
        raise InvalidArgument(
            "Unable to validate the following destination configurations",
            ArgumentName=next(iter(value)),
        )


NOTIFICATION = Document(
    "notification", "NotificationConfiguration", Structure(_EVENTS), _check_notification
)
