"""Put, Get, Delete and List of a bucket's inventory configurations."""

from __future__ import annotations

from s3gw.buckets.configurations import ARN_OF_BUCKETS, INVENTORY
from s3gw.buckets.document import Value
from s3gw.metadata import keys
from s3gw.metadata.records import BucketRecord
from s3gw.operations.bucket_documents import (
    delete_configuration,
    get_configuration,
    list_configurations,
    put_configuration,
)
from s3gw.operations.call import Call, Reply
from s3gw.operations.delivery import require_target


async def put_bucket_inventory_configuration(call: Call) -> Reply:
    """Set an inventory configuration, of whoever may write where its reports go."""

    async def check(value: Value) -> None:
        destination = value["Destination"]["S3BucketDestination"]
        name = destination["Bucket"].removeprefix(ARN_OF_BUCKETS)
        found = await call.storage.store.get(BucketRecord, keys.bucket(name))
        folder = destination.get("Prefix", "")
        require_target(call, name, found.record, f"{folder}/" if folder else "")

    return await put_configuration(call, INVENTORY, check=check)


async def get_bucket_inventory_configuration(call: Call) -> Reply:
    """One of the bucket's inventory configurations."""
    return await get_configuration(call, INVENTORY)


async def delete_bucket_inventory_configuration(call: Call) -> Reply:
    """Remove an inventory configuration."""
    return await delete_configuration(call, INVENTORY)


async def list_bucket_inventory_configurations(call: Call) -> Reply:
    """The bucket's inventory configurations, a page of them."""
    return await list_configurations(call, INVENTORY)
