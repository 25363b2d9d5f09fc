"""PutBucketOwnershipControls, GetBucketOwnershipControls and DeleteBucketOwnershipControls.

The owner of a bucket owns everything in it and access control lists are not offered: that is
`BucketOwnerEnforced`. The other two settings enable such lists, so they are refused rather than
taken and not obeyed.
"""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.operations.bucket_documents import set_document
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.wire import xml
from s3gw.wire.xml import Writer

DOCUMENT = "ownershipControls"
ENFORCED = "BucketOwnerEnforced"
WITH_LISTS = frozenset({"BucketOwnerPreferred", "ObjectWriter"})


async def put_bucket_ownership_controls(call: Call) -> Reply:
    """Say that the bucket's owner owns all objects."""
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    document = await xml.parse_off_loop(
        body, limit=limits.XML_SMALL_BYTES_MAX, root="OwnershipControls", lists=("Rule",)
    )
    rules = xml.children(document, "Rule")
    if len(rules) != 1:
        raise errors.MalformedXML()
    ownership = xml.text(rules[0], "ObjectOwnership")
    if ownership in WITH_LISTS:
        raise errors.NotImplementedS3(
            f"Access control lists are not implemented, so ObjectOwnership can only be {ENFORCED}."
        )
    if ownership != ENFORCED:
        raise errors.MalformedXML()
    await set_document(call, DOCUMENT, ownership.encode())
    return Reply()


async def get_bucket_ownership_controls(call: Call) -> Reply:
    """The setting, if it was made."""
    ownership = call.bucket.documents.get(DOCUMENT)
    if ownership is None:
        raise errors.OwnershipControlsNotFoundError(BucketName=call.bucket_name)
    writer = Writer("OwnershipControls")
    writer.open("Rule")
    writer.element("ObjectOwnership", ownership.decode())
    writer.close("Rule")
    return xml_reply(writer.finish())


async def delete_bucket_ownership_controls(call: Call) -> Reply:
    """Drop the setting; there may be none."""
    await set_document(call, DOCUMENT, None)
    return Reply(204)
