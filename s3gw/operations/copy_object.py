"""CopyObject."""

from __future__ import annotations

import msgspec

from s3gw import errors
from s3gw.metadata.records import Description, ObjectRecord
from s3gw.objects.copy import Copying
from s3gw.objects.copy import copy_object as copy_stored
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.copy_source import check_source, load_source, source_headers
from s3gw.operations.describe import description_of, redirect_of, storage_class_of, write_check
from s3gw.operations.encryption import (
    SOURCE,
    customer_key,
    encryption_headers,
    wanted_encryption,
)
from s3gw.operations.lifecycle_headers import expiration_headers
from s3gw.operations.present import checksums_of, quoted, version_headers
from s3gw.wire.checksums import algorithm_named
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.xml import Writer

DIRECTIVES = ("COPY", "REPLACE")
# What must change for a copy of an object onto itself to be allowed (S3: "illegal" otherwise).
CHANGING_HEADERS = (
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-checksum-algorithm",
)


async def copy_object(call: Call) -> Reply:
    """Copy an object within the store."""
    source = await load_source(call)
    same = (source.bucket_name, source.key) == (call.bucket_name, call.key)
    if same and source.asked is None and directive(call, "x-amz-metadata-directive") == "COPY":
        tags_replaced = directive(call, "x-amz-tagging-directive") == "REPLACE"
        if not tags_replaced and not any(name in call.headers for name in CHANGING_HEADERS):
            raise errors.InvalidRequest(
                "This copy request is illegal because it is trying to copy an object to itself "
                "without changing the object's metadata, storage class, website redirect location "
                "or encryption attributes."
            )
    algorithm = call.headers.get("x-amz-checksum-algorithm")
    copying = Copying(
        owner=call.owner.id,
        describe=lambda record: _description(call, record),
        checksum_algorithm=algorithm_named(algorithm).name if algorithm else "",
        check=write_check(call),
        check_source=lambda now: check_source(call, source, now),
        wanted=wanted_encryption(call),
        source_key=customer_key(call, SOURCE),
    )
    record = await copy_stored(call.storage, source, call.target, copying)
    reply = xml_reply(_result(record))
    reply.headers += version_headers(call.bucket, record) + source_headers(source)
    reply.headers += expiration_headers(call, record)
    encryption = record.description.encryption
    reply.headers += encryption_headers(call, encryption, with_context=True)
    return reply


def directive(call: Call, header: str) -> str:
    """COPY or REPLACE. Raises InvalidArgument."""
    value = call.headers.get(header, "COPY")
    if value not in DIRECTIVES:
        raise errors.InvalidArgument(
            f"Unknown {header.removeprefix('x-amz-').replace('-', ' ')}.",
            ArgumentName=header,
            ArgumentValue=value,
        )
    return value


def _description(call: Call, source: ObjectRecord) -> Description:
    """The copy's description: the source's or the request's, as each directive says. Storage
    class, redirect, lock and access control list are never copied."""
    asked = description_of(call)
    description = asked
    if directive(call, "x-amz-metadata-directive") == "COPY":
        description = msgspec.structs.replace(
            source.description,
            encryption=None,
            compression="",
            lock=asked.lock,
            storage_class=storage_class_of(call),
            redirect=redirect_of(call),
            acl=asked.acl,
        )
    replace_tags = directive(call, "x-amz-tagging-directive") == "REPLACE"
    tags = asked.tags if replace_tags else source.description.tags
    return msgspec.structs.replace(description, tags=tags)


def _result(record: ObjectRecord) -> bytes:
    writer = Writer("CopyObjectResult")
    writer.element("LastModified", iso8601_ms(record.modified_ms))
    writer.element("ETag", quoted(record.etag))
    checksums = checksums_of(record)
    if checksums.values:
        writer.element("ChecksumType", checksums.kind)
    for name, value in checksums.values.items():
        writer.element(f"Checksum{name}", value)
    return writer.finish()
