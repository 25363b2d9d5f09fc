"""GetBucketAcl and PutBucketAcl."""

from __future__ import annotations

from s3gw.buckets import acl
from s3gw.buckets.acl import Kind
from s3gw.metadata.records import BucketRecord
from s3gw.operations.access_lists import check_allowed, sent_acl
from s3gw.operations.bucket_documents import change_own_bucket, with_document
from s3gw.operations.call import Call, Reply, xml_reply


async def get_bucket_acl(call: Call) -> Reply:
    """The list that counts: where lists are disabled, the owner's full control."""
    owner = call.bucket.owner
    kept = call.bucket.documents.get(acl.DOCUMENT, b"")
    counts = acl.in_force(call.bucket.documents)
    found = acl.stored(kept if counts else b"", owner)
    return xml_reply(acl.render(found, owner, call.owner.name))


async def put_bucket_acl(call: Call) -> Reply:
    """Replace the list; where lists are disabled, one that says what is so anyway is accepted."""
    owner = call.bucket.owner
    asked = await sent_acl(call, owner, Kind.BUCKET)

    def change(bucket: BucketRecord) -> BucketRecord:
        check_allowed(bucket, asked, owner)
        if not acl.in_force(bucket.documents):
            return bucket
        return with_document(bucket, acl.DOCUMENT, acl.to_store(asked, owner) or None)

    await change_own_bucket(call, change)
    return Reply()
