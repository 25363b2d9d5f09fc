"""CreateMultipartUpload."""

from __future__ import annotations

from s3gw import errors
from s3gw.metadata.records import BucketRecord
from s3gw.objects.encrypted import frame
from s3gw.objects.multipart import create_upload, initiated_ms, new_upload_id
from s3gw.operations.access_lists import new_object_acl
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.describe import description_of
from s3gw.operations.encryption import encryption_headers, wanted_encryption
from s3gw.operations.lifecycle_headers import abort_headers
from s3gw.wire.checksums import algorithm_named, multipart_type
from s3gw.wire.xml import Writer


async def create_multipart_upload(call: Call) -> Reply:
    """Start an upload in parts."""
    name = call.headers.get("x-amz-checksum-algorithm", "")
    asked_type = call.headers.get("x-amz-checksum-type")
    algorithm, kind = "", ""
    if name:
        algorithm = algorithm_named(name).name
        kind = str(multipart_type(algorithm_named(name), asked_type))
    elif asked_type is not None:
        raise errors.InvalidRequest(
            "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm "
            "header."
        )
    who = call.principal
    upload_id = new_upload_id(call.storage.clock_ms())
    wanted = wanted_encryption(call)
    description, _ = await frame(
        call.storage, call.bucket, description_of(call), wanted, content_id=upload_id
    )
    await create_upload(
        call.storage,
        call.bucket_name,
        call.key,
        call.owner.id,
        description,
        checksum_algorithm=algorithm,
        checksum_type=kind,
        upload_id=upload_id,
        initiator=("", "") if who.is_root else (who.arn, who.user_id),
        check=lambda bucket, revision: _check(call, bucket, revision),
    )
    writer = Writer("InitiateMultipartUploadResult")
    writer.element("Bucket", call.bucket_name)
    writer.element("Key", call.key)
    writer.element("UploadId", upload_id.hex())
    reply = xml_reply(writer.finish())
    reply.headers += encryption_headers(call, description.encryption, with_context=True)
    reply.headers += abort_headers(call, initiated_ms(upload_id))
    if algorithm:
        reply.headers += [
            ("x-amz-checksum-algorithm", algorithm),
            ("x-amz-checksum-type", kind),
        ]
    return reply


def _check(call: Call, bucket: BucketRecord, revision: int) -> None:
    """Whether the caller may still create the object, and with the list that it is to have."""
    if call.access.require_still(call, bucket, revision):
        new_object_acl(call)
