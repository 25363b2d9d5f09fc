"""The access control list that a request gives a bucket or an object, and whether it may."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.buckets import acl, public_access
from s3gw.buckets.acl import Acl, Kind
from s3gw.metadata.records import BucketRecord
from s3gw.operations.bucket_documents import parse_body
from s3gw.operations.call import Call

BLOCKED = (
    "The access control list is public, and public lists are blocked by the BlockPublicAcls block "
    "public access setting."
)
# What a list for the bucket's owner may be called where lists are disabled.
OWNER_FULL_CONTROL = "bucket-owner-full-control"


def new_object_acl(call: Call) -> bytes:
    """The list that headers give a new object, as it is stored. Raises as `of_headers`,
    AccessControlListNotSupported and AccessDenied."""
    if acl.HEADERS.isdisjoint(call.headers):
        return b""
    owner = call.bucket.owner
    if acl.asks_grants(call.headers) and not acl.in_force(call.bucket.documents):
        raise errors.AccessControlListNotSupported()
    asked = acl.of_headers(call.headers, owner, Kind.OBJECT)
    assert asked is not None
    check_allowed(call.bucket, asked, owner)
    return acl.to_store(asked, owner)


async def sent_acl(call: Call, owner: str, kind: Kind) -> Acl:
    """The list that PutBucketAcl or PutObjectAcl sends, in headers or in the body. Raises
    MissingSecurityHeader when there is neither, UnexpectedContent for both, and as those who read
    them."""
    in_force = acl.in_force(call.bucket.documents)
    if acl.asks_grants(call.headers) and not in_force:
        raise errors.AccessControlListNotSupported()
    given = not acl.HEADERS.isdisjoint(call.headers)
    if given and await call.body.read(limits.XML_SMALL_BYTES_MAX):
        raise errors.UnexpectedContent()
    asked = acl.of_headers(call.headers, owner, kind)
    if asked is not None:
        if call.headers.get(acl.CANNED_HEADER) != OWNER_FULL_CONTROL and not in_force:
            raise errors.AccessControlListNotSupported()
        return asked

    def parse(body: bytes) -> Acl:
        if not body:
            raise errors.MissingSecurityHeader(
                "Your request was missing a required header", MissingHeaderName=acl.CANNED_HEADER
            )
        return acl.of_document(body, owner, limit=limits.XML_SMALL_BYTES_MAX)

    return await parse_body(call, parse)


def check_allowed(bucket: BucketRecord, asked: Acl, owner: str) -> None:
    """Whether the bucket takes this list. Raises AccessControlListNotSupported where lists are
    disabled, AccessDenied where public ones are blocked."""
    if not acl.in_force(bucket.documents) and asked != acl.owner_alone(owner):
        raise errors.AccessControlListNotSupported()
    block = public_access.stored(bucket.documents.get(public_access.DOCUMENT))
    if block.block_public_acls and acl.is_public(asked):
        raise errors.AccessDenied(BLOCKED)
