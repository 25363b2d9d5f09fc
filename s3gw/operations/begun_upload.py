"""The upload that a request is about, where it counts who began it.

By default the initiator of an upload may end it and list its parts, so that who may write leaves
nothing behind. So it is authorized once the upload has been read; to whom may neither, it does not
say which uploads there are. And whom only an access control list lets write completes no uploads of
others, as it replaces nothing. Source: S3 User Guide, "Multipart upload API and permissions".
"""

from __future__ import annotations

from s3gw import errors
from s3gw.buckets import acl
from s3gw.objects.multipart import Upload, find_upload
from s3gw.operations.call import Call
from s3gw.operations.parameters import upload_id


async def begun_upload(call: Call, action: str) -> Upload:
    """The upload that the query names, with the row's action authorized. Raises NoSuchBucket,
    NoSuchUpload, AccessDenied."""
    try:
        upload = await find_upload(call.storage, call.bucket_name, call.key, upload_id(call))
    except errors.NoSuchUpload:
        call.access.require_row(call, action)
        raise
    call.initiator_id = upload.record.initiator_id
    call.access.require_row(call, action)
    return upload


async def require_completion(call: Call, identity: bytes) -> None:
    """Where lists count, whether the caller may complete the upload of this id, if there is one.
    Raises NoSuchBucket, AccessDenied."""
    if not acl.in_force(call.bucket.documents):
        return
    try:
        upload = await find_upload(call.storage, call.bucket_name, call.key, identity)
    except errors.NoSuchUpload:
        return  # what is not there, or was completed before, is answered as it is
    call.access.require_parts(call, upload.record.initiator_id)
