"""Put, Get, Delete and List of a bucket's inventory configurations."""

from __future__ import annotations

from s3gw.buckets.configurations import INVENTORY
from s3gw.operations.bucket_documents import (
    delete_configuration,
    get_configuration,
    list_configurations,
    put_configuration,
)
from s3gw.operations.call import Call, Reply


async def put_bucket_inventory_configuration(call: Call) -> Reply:
    """Set an inventory configuration."""
    return await put_configuration(call, INVENTORY)


async def get_bucket_inventory_configuration(call: Call) -> Reply:
    """One of the bucket's inventory configurations."""
    return await get_configuration(call, INVENTORY)


async def delete_bucket_inventory_configuration(call: Call) -> Reply:
    """Remove an inventory configuration."""
    return await delete_configuration(call, INVENTORY)


async def list_bucket_inventory_configurations(call: Call) -> Reply:
    """The bucket's inventory configurations, a page of them."""
    return await list_configurations(call, INVENTORY)
