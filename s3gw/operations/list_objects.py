"""ListObjects (version 1), and what both versions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from s3gw import errors, limits
from s3gw.metadata.records import ObjectRecord
from s3gw.objects.listing import Entry, Listing, objects_of, page
from s3gw.operations.call import Call, Principal, Reply, xml_reply
from s3gw.operations.parameters import integer, url_encoding
from s3gw.operations.present import checksums_of
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.xml import Writer, escape, url_encode

# Who sends them without list-type=2 takes this for version 2, and the same page for the next one.
VERSION_2_PARAMETERS = {"continuation-token": "ContinuationToken", "start-after": "StartAfter"}


@dataclass(frozen=True, slots=True)
class ListRequest:
    """The parameters that all listings have."""

    prefix: str
    delimiter: str
    most: int
    encode: Callable[[str], str]
    encoded: bool

    @classmethod
    def of(cls, call: Call, most_name: str = "max-keys") -> ListRequest:
        """From the query. Raises InvalidArgument."""
        encoded = url_encoding(call)
        most = integer(call, most_name, default=limits.LIST_PAGE_KEYS_MAX)
        return cls(
            call.query.get("prefix", ""),
            call.query.get("delimiter", ""),
            min(most, limits.LIST_PAGE_KEYS_MAX),
            url_encode if encoded else str,
            encoded,
        )

    async def objects(self, call: Call, *, after: str) -> Listing[ObjectRecord]:
        """The page of the bucket's objects behind `after`."""
        return await page(
            call.storage,
            objects_of(call.bucket_name),
            prefix=self.prefix,
            delimiter=self.delimiter,
            after=after,
            most=self.most,
        )


async def list_objects(call: Call) -> Reply:
    """A page of keys and common prefixes behind `marker`."""
    for name, title in VERSION_2_PARAMETERS.items():
        if name in call.query:
            raise errors.InvalidArgument(
                f"{title} only supported in REST.GET.BUCKET with list-type=2", ArgumentName=name
            )
    request = ListRequest.of(call)
    marker = call.query.get("marker", "")
    listing = await request.objects(call, after=marker)
    writer = Writer("ListBucketResult")
    writer.element("Name", call.bucket_name)
    writer.element("Prefix", request.encode(request.prefix))
    writer.element("Marker", request.encode(marker))
    if listing.truncated and request.delimiter:
        writer.element("NextMarker", request.encode(listing.last))
    writer.element("MaxKeys", request.most)
    if request.delimiter:
        writer.element("Delimiter", request.encode(request.delimiter))
    if request.encoded:
        writer.element("EncodingType", "url")
    writer.flag("IsTruncated", listing.truncated)
    write_contents(writer, listing, request, owner=call.owner)
    return xml_reply(writer.finish())


def write_contents(
    writer: Writer, listing: Listing[ObjectRecord], request: ListRequest, owner: Principal | None
) -> None:
    """`<Contents>` and `<CommonPrefixes>` of a page."""
    shown_owner = ""
    if owner is not None:
        shown_owner = (
            f"<Owner><ID>{escape(owner.id)}</ID>"
            f"<DisplayName>{escape(owner.name)}</DisplayName></Owner>"
        )
    for entry in listing.entries:
        writer.raw(_contents(entry, request, shown_owner))
    write_prefixes(writer, listing.prefixes, request)


def _contents(entry: Entry[ObjectRecord], request: ListRequest, owner: str) -> str:
    record = entry.record
    checksums = checksums_of(record)
    algorithms = "".join(
        f"<ChecksumAlgorithm>{name}</ChecksumAlgorithm>" for name in checksums.values
    )
    kind = f"<ChecksumType>{checksums.kind}</ChecksumType>" if algorithms else ""
    return (
        f"<Contents><Key>{escape(request.encode(entry.key))}</Key>"
        f"<LastModified>{iso8601_ms(record.modified_ms)}</LastModified>"
        f"<ETag>&quot;{record.etag}&quot;</ETag>{algorithms}{kind}"
        f"<Size>{record.size}</Size>{owner}"
        f"<StorageClass>{record.description.storage_class}</StorageClass></Contents>"
    )


def write_prefixes(writer: Writer, prefixes: list[str], request: ListRequest) -> None:
    """`<CommonPrefixes>`, one element each."""
    for prefix in prefixes:
        writer.open("CommonPrefixes")
        writer.element("Prefix", request.encode(prefix))
        writer.close("CommonPrefixes")
