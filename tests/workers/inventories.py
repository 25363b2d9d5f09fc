"""Inventory configurations for tests."""

from __future__ import annotations

from s3gw.buckets.configurations import INVENTORY
from s3gw.objects.buckets import change_configurations, create_bucket
from tests.stores.memory_store import BUCKET, Process

REPORTS = "reports"


def configuration(
    form: str = "CSV",
    *,
    versions: str = "Current",
    more: str = "",
    frequency: str = "Daily",
    fields: str = "<Field>Size</Field><Field>ETag</Field>",
    bucket: str = REPORTS,
    enabled: str = "true",
) -> bytes:
    """A configuration with id `one`."""
    return (
        f"<InventoryConfiguration><Destination><S3BucketDestination>"
        f"<Bucket>arn:aws:s3:::{bucket}</Bucket><Format>{form}</Format><Prefix>out/</Prefix>"
        f"</S3BucketDestination></Destination><IsEnabled>{enabled}</IsEnabled>{more}<Id>one</Id>"
        f"<IncludedObjectVersions>{versions}</IncludedObjectVersions>"
        f"<OptionalFields>{fields}</OptionalFields>"
        f"<Schedule><Frequency>{frequency}</Frequency></Schedule></InventoryConfiguration>"
    ).encode()


async def configure(process: Process, document: bytes) -> None:
    """Give the bucket this configuration alone."""
    document = INVENTORY.document.fragment(INVENTORY.document.parse(document)).encode()

    def change(held: dict[str, bytes]) -> dict[str, bytes]:
        return {"one": document}

    await change_configurations(process.storage, BUCKET, INVENTORY.name, change)


async def make_reports(process: Process, name: str = REPORTS) -> None:
    """Make the bucket that gets the reports."""
    await create_bucket(
        process.storage,
        name,
        owner="owner",
        region="us-east-1",
        profile=process.profile().name,
        object_lock=False,
        tags={},
    )
