"""What a request says about the object that it creates: PutObject, CreateMultipartUpload and
CopyObject with REPLACE read the same headers."""

from __future__ import annotations

from s3gw import errors
from s3gw.buckets.lock import MODES
from s3gw.metadata.records import Description, Lock
from s3gw.objects.publish import Check, Target
from s3gw.operations.access_lists import new_object_acl
from s3gw.operations.call import Call
from s3gw.operations.object_lock import NO_LOCK, retention_of
from s3gw.operations.present import current_of
from s3gw.wire.conditions import WriteConditions
from s3gw.wire.dates import parse_iso8601_ms
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
OBJECT_LOCK = (
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
)


def description_of(call: Call) -> Description:
    """The description in a request's headers, but for the encryption. Raises S3Error."""
    if "versionId" in call.query:
        raise errors.InvalidArgument(
            "This operation does not accept a version-id.",
            ArgumentName="versionId",
            ArgumentValue=call.query["versionId"],
        )
    headers = content_headers(call.headers)
    headers.setdefault("content-type", DEFAULT_CONTENT_TYPE)
    return Description(
        headers=headers,
        user=user_metadata(call.headers),
        tags=tags_of(call),
        storage_class=storage_class_of(call),
        lock=lock_of(call),
        redirect=redirect_of(call),
        acl=new_object_acl(call),
    )


def tags_of(call: Call) -> dict[str, str]:
    """The tags of `x-amz-tagging`."""
    header = call.headers.get("x-amz-tagging")
    return parse_tagging_header(header) if header else {}


def lock_of(call: Call) -> Lock | None:
    """`x-amz-object-lock-*`; a bucket's default comes when the version is published. Raises
    InvalidRequest, InvalidArgument."""
    mode, until, hold = (call.headers.get(name) for name in OBJECT_LOCK)
    if mode is None and until is None and hold is None:
        return None
    if mode is not None and mode not in MODES:
        raise _bad_lock(0, "Unknown wormMode directive.", mode)
    if hold is not None and hold not in ("ON", "OFF"):
        raise _bad_lock(2, "Legal Hold must be either of 'ON' or 'OFF'", hold)
    if (mode is None) != (until is None):
        raise errors.InvalidArgument(
            f"{OBJECT_LOCK[1]} and {OBJECT_LOCK[0]} must both be supplied",
            ArgumentName=OBJECT_LOCK[0 if mode is None else 1],
        )
    until_ms = 0
    if mode is not None and until is not None:
        if parse_iso8601_ms(until) is None:
            message = "The retain until date must be provided in ISO 8601 format"
            raise _bad_lock(1, message, until)
        mode, until_ms = retention_of(call, mode, until)
    if not call.bucket.object_lock:
        raise errors.InvalidRequest(NO_LOCK, BucketName=call.bucket_name)
    return Lock(mode or "", until_ms, hold == "ON")


def _bad_lock(row: int, message: str, given: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(message, ArgumentName=OBJECT_LOCK[row], ArgumentValue=given)


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
    """The write conditions of a request, and whether its caller may still write the key and replace
    what is there."""
    conditions = WriteConditions.of_put(call.headers)

    def check(target: Target) -> None:
        if call.access.require_still(call, target.bucket, target.bucket_revision, target):
            new_object_acl(call)  # whether the bucket still takes it
        call.access.require_replace(call, target.visible)
        conditions.check(current_of(target.visible))

    return check
