"""ListBuckets."""

from __future__ import annotations

from s3gw import limits
from s3gw.identities.root import account_owner
from s3gw.objects import buckets
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.parameters import integer
from s3gw.operations.present import write_owner
from s3gw.wire.dates import iso8601_ms
from s3gw.wire.tokens import Position, decode_token, encode_token
from s3gw.wire.xml import Writer

TOKEN_CONTEXT = b"ListBuckets"


async def list_buckets(call: Call) -> Reply:
    """All buckets of the caller, by name, in pages when asked for."""
    most = integer(
        call, "max-buckets", default=limits.BUCKETS_PAGE_MAX, least=1, limit=limits.BUCKETS_PAGE_MAX
    )
    secret = call.storage.store.identity.token_secret
    token = call.query.get("continuation-token")
    after = ""
    if token:
        after = decode_token(secret, TOKEN_CONTEXT, token, "continuation-token").key.decode()
    prefix = call.query.get("prefix", "")
    page = await buckets.list_buckets(call.storage, prefix=prefix, after=after, most=most)
    writer = Writer("ListAllMyBucketsResult")
    write_owner(writer, "Owner", account_owner(call.principal.id))
    writer.open("Buckets")
    region = call.query.get("bucket-region")
    for name, record in page.buckets:
        if region is not None and record.region != region:
            continue
        writer.open("Bucket")
        writer.element("Name", name)
        writer.element("CreationDate", iso8601_ms(record.created_ms))
        if "max-buckets" in call.query:
            writer.element("BucketRegion", record.region)
        writer.close("Bucket")
    writer.close("Buckets")
    if prefix:
        writer.element("Prefix", prefix)
    if page.more:
        last = page.buckets[-1][0].encode()
        writer.element("ContinuationToken", encode_token(secret, TOKEN_CONTEXT, Position(last)))
    return xml_reply(writer.finish())
