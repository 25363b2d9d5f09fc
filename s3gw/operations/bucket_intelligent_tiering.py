"""Put, Get, Delete and List of a bucket's intelligent-tiering configurations."""

from __future__ import annotations

from s3gw.buckets.configurations import INTELLIGENT_TIERING
from s3gw.operations.bucket_documents import (
    delete_configuration,
    get_configuration,
    list_configurations,
    put_configuration,
)
from s3gw.operations.call import Call, Reply


async def put_bucket_intelligent_tiering_configuration(call: Call) -> Reply:
    """Set an intelligent-tiering configuration."""
    return await put_configuration(call, INTELLIGENT_TIERING)


async def get_bucket_intelligent_tiering_configuration(call: Call) -> Reply:
    """One of the bucket's intelligent-tiering configurations."""
    return await get_configuration(call, INTELLIGENT_TIERING)


async def delete_bucket_intelligent_tiering_configuration(call: Call) -> Reply:
    """Remove an intelligent-tiering configuration."""
    return await delete_configuration(call, INTELLIGENT_TIERING)


async def list_bucket_intelligent_tiering_configurations(call: Call) -> Reply:
    """The bucket's intelligent-tiering configurations, a page of them."""
    return await list_configurations(call, INTELLIGENT_TIERING)
