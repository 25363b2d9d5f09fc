"""What a request says about the object that it creates: PutObject, CreateMultipartUpload and
CopyObject with REPLACE read the same headers."""

from __future__ import annotations

from s3gw import errors
from s3gw.metadata.records import Description
from s3gw.objects.publish import Check
from s3gw.operations.call import Call
from s3gw.operations.present import current_of
from s3gw.wire.conditions import WriteConditions
from s3gw.wire.headers import content_headers, user_metadata
from s3gw.wire.tagging import parse_tagging_header

DEFAULT_CONTENT_TYPE = "binary/octet-stream"
STORAGE_CLASSES = frozenset(
    {
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "GLACIER_IR",
    }
)
CANNED_ACLS = frozenset(
    {
        "private",
        "public-read",
        "public-read-write",
        "authenticated-read",
        "aws-exec-read",
        "bucket-owner-read",
        "bucket-owner-full-control",
    }
)
# Asking for these and not getting them would be a broken promise, so they are refused.
NOT_OFFERED = {
    "x-amz-server-side-encryption": "Server-side encryption",
    "x-amz-server-side-encryption-customer-algorithm": "Server-side encryption",
    "x-amz-object-lock-mode": "Object lock",
    "x-amz-object-lock-retain-until-date": "Object lock",
    "x-amz-object-lock-legal-hold": "Object lock",
}


def description_of(call: Call) -> Description:
    """The description in a request's headers. Raises S3Error."""
    refuse_not_offered(call)
    headers = content_headers(call.headers)
    headers.setdefault("content-type", DEFAULT_CONTENT_TYPE)
    return Description(
        headers=headers,
        user=user_metadata(call.headers),
        tags=tags_of(call),
        storage_class=storage_class_of(call),
        redirect=redirect_of(call),
    )


def refuse_not_offered(call: Call) -> None:
    """Refuse what changes how an object is kept and is not built. Raises NotImplementedS3."""
    for header, feature in NOT_OFFERED.items():
        if header in call.headers and call.headers[header] not in ("", "OFF"):
            raise errors.NotImplementedS3(f"{feature} is not implemented.", Header=header)
    acl = call.headers.get("x-amz-acl")
    if acl is not None and acl not in CANNED_ACLS:
        raise errors.InvalidArgument(ArgumentName="x-amz-acl", ArgumentValue=acl)


def tags_of(call: Call) -> dict[str, str]:
    """The tags of `x-amz-tagging`."""
    header = call.headers.get("x-amz-tagging")
    return parse_tagging_header(header) if header else {}


def storage_class_of(call: Call) -> str:
    """`x-amz-storage-class`; kept and echoed. Raises InvalidStorageClass."""
    storage_class = call.headers.get("x-amz-storage-class") or "STANDARD"
    if storage_class not in STORAGE_CLASSES:
        raise errors.InvalidStorageClass(StorageClassRequested=storage_class)
    return storage_class


def redirect_of(call: Call) -> str:
    """`x-amz-website-redirect-location`. Raises InvalidRedirectLocation."""
    location = call.headers.get("x-amz-website-redirect-location", "")
    if location and not location.startswith(("/", "http://", "https://")):
        raise errors.InvalidRedirectLocation()
    return location


def write_check(call: Call) -> Check:
    """The write conditions of a request, as a check of the key's visible version."""
    conditions = WriteConditions.of_put(call.headers)
    return lambda record: conditions.check(current_of(record))
