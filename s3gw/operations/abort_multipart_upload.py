"""AbortMultipartUpload."""

from __future__ import annotations

from s3gw.objects.multipart import abort_upload, find_upload
from s3gw.operations.access import still_allowed_in_bucket
from s3gw.operations.call import Call, Reply
from s3gw.operations.parameters import upload_id


async def abort_multipart_upload(call: Call) -> Reply:
    """End an upload; its parts are collected."""
    upload = await find_upload(call.storage, call.bucket_name, call.key, upload_id(call))
    await abort_upload(call.storage, upload, check=still_allowed_in_bucket(call))
    return Reply(204)
