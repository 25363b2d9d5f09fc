"""CreateBucket."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.buckets.names import check_new
from s3gw.objects import buckets
from s3gw.operations.call import Call, Reply
from s3gw.operations.describe import grants_others
from s3gw.wire import xml

US_EAST_1 = "us-east-1"


async def create_bucket(call: Call) -> Reply:
    """Make a bucket owned by the caller; in us-east-1 an own bucket again is no error."""
    check_new(call.bucket_name)
    if grants_others(call):
        raise errors.InvalidBucketAclWithObjectOwnership()
    object_lock = call.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true"
    if object_lock:
        raise errors.NotImplementedS3("Object lock is not implemented.")
    await _check_configuration(call)
    existing = await buckets.create_bucket(
        call.storage,
        call.bucket_name,
        owner=call.principal.id,
        region=call.settings.region,
        profile=call.settings.profile,
        object_lock=object_lock,
        tags={},
    )
    if existing is not None:
        if existing.owner != call.principal.id:
            raise errors.BucketAlreadyExists(BucketName=call.bucket_name)
        if call.settings.region != US_EAST_1:
            raise errors.BucketAlreadyOwnedByYou(BucketName=call.bucket_name)
    return Reply(headers=[("Location", f"/{call.bucket_name}")])


async def _check_configuration(call: Call) -> None:
    """The region in the body, if any, must be this store's. Raises
    IllegalLocationConstraintException; NotImplementedS3 for tags, which would be lost."""
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    if not body.strip():
        return
    document = await xml.parse_off_loop(
        body, limit=limits.XML_SMALL_BYTES_MAX, root="CreateBucketConfiguration"
    )
    if xml.child(document, "Tags"):
        raise errors.NotImplementedS3("Bucket tags are not implemented.")
    location = xml.optional_text(document, "LocationConstraint")
    if location in (None, "", call.settings.region):
        return
    raise errors.IllegalLocationConstraintException(
        f"The {location} location constraint is incompatible for the region specific endpoint "
        "this request was sent to."
    )
