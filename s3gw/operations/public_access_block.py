"""PutPublicAccessBlock, GetPublicAccessBlock and DeletePublicAccessBlock."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.buckets.public_access import DOCUMENT, ELEMENTS, PublicAccessBlock, stored, to_store
from s3gw.operations.bucket_documents import set_document
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.wire import xml
from s3gw.wire.xml import Writer

ROOT = "PublicAccessBlockConfiguration"


async def put_public_access_block(call: Call) -> Reply:
    """Set the four switches; one that is not named is off."""
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    document = await xml.parse_off_loop(body, limit=limits.XML_SMALL_BYTES_MAX, root=ROOT)
    if not any(name in document for name in ELEMENTS):
        raise errors.MalformedXML()
    switches = PublicAccessBlock(*(xml.boolean(document, name) for name in ELEMENTS))
    await set_document(call, DOCUMENT, to_store(switches))
    return Reply()


async def get_public_access_block(call: Call) -> Reply:
    """The four switches."""
    document = call.bucket.documents.get(DOCUMENT)
    if document is None:
        raise errors.NoSuchPublicAccessBlockConfiguration(BucketName=call.bucket_name)
    switches = stored(document)
    writer = Writer(ROOT)
    writer.flag("BlockPublicAcls", switches.block_public_acls)
    writer.flag("IgnorePublicAcls", switches.ignore_public_acls)
    writer.flag("BlockPublicPolicy", switches.block_public_policy)
    writer.flag("RestrictPublicBuckets", switches.restrict_public_buckets)
    return xml_reply(writer.finish())


async def delete_public_access_block(call: Call) -> Reply:
    """Drop the switches; there may be none."""
    await set_document(call, DOCUMENT, None)
    return Reply(204)
