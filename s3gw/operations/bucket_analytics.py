"""Put, Get, Delete and List of a bucket's analytics configurations."""

from __future__ import annotations

from s3gw.buckets.configurations import ANALYTICS
from s3gw.operations.bucket_documents import (
    delete_configuration,
    get_configuration,
    list_configurations,
    put_configuration,
)
from s3gw.operations.call import Call, Reply


async def put_bucket_analytics_configuration(call: Call) -> Reply:
    """Set an analytics configuration."""
    return await put_configuration(call, ANALYTICS)


async def get_bucket_analytics_configuration(call: Call) -> Reply:
    """One of the bucket's analytics configurations."""
    return await get_configuration(call, ANALYTICS)


async def delete_bucket_analytics_configuration(call: Call) -> Reply:
    """Remove an analytics configuration."""
    return await delete_configuration(call, ANALYTICS)


async def list_bucket_analytics_configurations(call: Call) -> Reply:
    """The bucket's analytics configurations, a page of them."""
    return await list_configurations(call, ANALYTICS)
