"""PutBucketOwnershipControls, GetBucketOwnershipControls and DeleteBucketOwnershipControls.

What the three settings mean is said in s3gw.buckets.acl. A bucket without the setting is one with
`BucketOwnerEnforced`.
"""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.buckets import acl
from s3gw.metadata.records import BucketRecord
from s3gw.operations.bucket_documents import change_own_bucket, set_document, with_document
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.wire import xml
from s3gw.wire.xml import Writer


async def put_bucket_ownership_controls(call: Call) -> Reply:
    """Disable access control lists, or enable them. Raises InvalidBucketAclWithObjectOwnership
    for disabling them while the bucket's own grants something to others."""
    body = await call.body.read(limits.XML_SMALL_BYTES_MAX)
    document = await xml.parse_off_loop(
        body, limit=limits.XML_SMALL_BYTES_MAX, root="OwnershipControls", lists=("Rule",)
    )
    rules = xml.children(document, "Rule")
    if len(rules) != 1:
        raise errors.MalformedXML()
    ownership = xml.text(rules[0], "ObjectOwnership")
    if ownership not in acl.OWNERSHIPS:
        raise errors.MalformedXML()

    def change(bucket: BucketRecord) -> BucketRecord:
        if ownership == acl.ENFORCED and acl.in_force(bucket.documents):
            kept = acl.stored(bucket.documents.get(acl.DOCUMENT, b""), bucket.owner)
            if any(grant.grantee != bucket.owner for grant in kept):
                raise errors.InvalidBucketAclWithObjectOwnership()
        return with_document(bucket, acl.OWNERSHIP_DOCUMENT, ownership.encode())

    await change_own_bucket(call, change)
    return Reply()


async def get_bucket_ownership_controls(call: Call) -> Reply:
    """The setting, if it was made."""
    ownership = call.bucket.documents.get(acl.OWNERSHIP_DOCUMENT)
    if ownership is None:
        raise errors.OwnershipControlsNotFoundError(BucketName=call.bucket_name)
    writer = Writer("OwnershipControls")
    writer.open("Rule")
    writer.element("ObjectOwnership", ownership.decode())
    writer.close("Rule")
    return xml_reply(writer.finish())


async def delete_bucket_ownership_controls(call: Call) -> Reply:
    """Drop the setting, and with it disable lists; there may be none."""
    await set_document(call, acl.OWNERSHIP_DOCUMENT, None)
    return Reply(204)
