"""AbortMultipartUpload."""

from __future__ import annotations

from s3gw.objects.multipart import abort_upload
from s3gw.operations.access import still_allowed_in_bucket
from s3gw.operations.begun_upload import begun_upload
from s3gw.operations.call import Call, Reply


async def abort_multipart_upload(call: Call) -> Reply:
    """End an upload; its parts are collected."""
    upload = await begun_upload(call, "s3:AbortMultipartUpload")
    await abort_upload(call.storage, upload, check=still_allowed_in_bucket(call))
    return Reply(204)
