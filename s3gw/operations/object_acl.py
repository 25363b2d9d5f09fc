"""GetObjectAcl and PutObjectAcl."""

from __future__ import annotations

import msgspec

from s3gw.buckets import acl
from s3gw.buckets.acl import Kind
from s3gw.identities.root import account_owner
from s3gw.metadata.records import ObjectRecord
from s3gw.objects.change import change_version
from s3gw.objects.publish import Target
from s3gw.operations.access_lists import check_allowed, sent_acl
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.present import version_headers, visible


async def get_object_acl(call: Call) -> Reply:
    """The list that counts: where lists are disabled, the owner's full control."""
    record = visible(call)
    counts = acl.in_force(call.bucket.documents)
    found = acl.stored(record.description.acl if counts else b"", record.owner)
    reply = xml_reply(acl.render(found, record.owner, account_owner(record.owner).name))
    reply.headers += version_headers(call.bucket, record)
    return reply


async def put_object_acl(call: Call) -> Reply:
    """Replace a version's list; where lists are disabled, one that says what is so anyway is
    accepted."""
    owner = visible(call).owner
    asked = await sent_acl(call, owner, Kind.OBJECT)
    check_allowed(call.bucket, asked, owner)

    def check(target: Target) -> None:
        if call.access.require_still(call, target.bucket, target.bucket_revision, target):
            check_allowed(call.bucket, asked, owner)

    def change(record: ObjectRecord) -> ObjectRecord:
        if not acl.in_force(call.bucket.documents):
            return record
        kept = acl.to_store(asked, record.owner)
        description = msgspec.structs.replace(record.description, acl=kept)
        return msgspec.structs.replace(record, description=description)

    record = await change_version(call.storage, call.target, change, check)
    return Reply(200, version_headers(call.bucket, record))
