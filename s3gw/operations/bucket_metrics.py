"""Put, Get, Delete and List of a bucket's metrics configurations."""

from __future__ import annotations

from s3gw.buckets.configurations import METRICS
from s3gw.operations.bucket_documents import (
    delete_configuration,
    get_configuration,
    list_configurations,
    put_configuration,
)
from s3gw.operations.call import Call, Reply


async def put_bucket_metrics_configuration(call: Call) -> Reply:
    """Set a metrics configuration."""
    return await put_configuration(call, METRICS)


async def get_bucket_metrics_configuration(call: Call) -> Reply:
    """One of the bucket's metrics configurations."""
    return await get_configuration(call, METRICS)


async def delete_bucket_metrics_configuration(call: Call) -> Reply:
    """Remove a metrics configuration."""
    return await delete_configuration(call, METRICS)


async def list_bucket_metrics_configurations(call: Call) -> Reply:
    """The bucket's metrics configurations, a page of them."""
    return await list_configurations(call, METRICS)
