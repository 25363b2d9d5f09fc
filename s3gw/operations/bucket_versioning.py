"""GetBucketVersioning and PutBucketVersioning."""

from __future__ import annotations

import msgspec

from s3gw import errors, limits
from s3gw.metadata.records import BucketRecord
from s3gw.objects.publish import ENABLED, SUSPENDED
from s3gw.operations.bucket_documents import change_own_bucket
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.wire import xml
from s3gw.wire.xml import Writer


async def get_bucket_versioning(call: Call) -> Reply:
    """The state; an empty document for a bucket that never had versioning."""
    writer = Writer("VersioningConfiguration")
    if call.bucket.versioning:
        writer.element("Status", call.bucket.versioning)
    return xml_reply(writer.finish())


async def put_bucket_versioning(call: Call) -> Reply:
    """Enable or suspend versioning. Raises NotImplementedS3 for MFA delete,
    IllegalVersioningConfigurationException, InvalidBucketState."""
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    document = await xml.parse_off_loop(
        body, limit=limits.XML_SMALL_BYTES_MAX, root="VersioningConfiguration"
    )
    status = xml.optional_text(document, "Status")
    mfa_delete = xml.optional_text(document, "MfaDelete")
    if mfa_delete not in (None, "Disabled", "Enabled"):
        raise errors.MalformedXML()
    if mfa_delete == "Enabled":
        raise errors.NotImplementedS3(
            "MFA delete is not implemented: there are no devices to confirm a deletion with."
        )
    if status is None:
        raise errors.IllegalVersioningConfigurationException()
    if status not in (ENABLED, SUSPENDED):
        raise errors.MalformedXML()

    def change(bucket: BucketRecord) -> BucketRecord:
        if bucket.object_lock and status == SUSPENDED:
            raise errors.InvalidBucketState(
                "An Object Lock configuration is present on this bucket, so the versioning state "
                "cannot be changed."
            )
        return msgspec.structs.replace(bucket, versioning=status)

    await change_own_bucket(call, change)
    return Reply()
