"""PutBucketNotificationConfiguration and GetBucketNotificationConfiguration."""

from __future__ import annotations

from s3gw.buckets.settings import NOTIFICATION
from s3gw.operations.bucket_documents import get_document, put_document
from s3gw.operations.call import Call, Reply


async def put_bucket_notification_configuration(call: Call) -> Reply:
    """Set the destinations of events: there are none yet, so none is accepted."""
    return await put_document(call, NOTIFICATION)


async def get_bucket_notification_configuration(call: Call) -> Reply:
    """The destinations of events: there are none yet, so none is accepted."""
    return get_document(call, NOTIFICATION)
