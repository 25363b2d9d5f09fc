"""ListObjectsV2."""

from __future__ import annotations

from s3gw import errors
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.list_objects import ListRequest, write_contents
from s3gw.wire.tokens import Position, decode_token, encode_token
from s3gw.wire.xml import Writer


async def list_objects_v2(call: Call) -> Reply:
    """A page of keys and common prefixes behind `start-after` or a token."""
    request = ListRequest.of(call)
    start_after = call.query.get("start-after", "")
    token = call.query.get("continuation-token")
    secret = call.storage.store.identity.token_secret
    context = f"ListObjectsV2/{call.bucket_name}".encode()
    after = start_after
    if token is not None:
        if not token:
            raise errors.InvalidArgument(
                "The continuation token provided is incorrect", ArgumentName="continuation-token"
            )
        after = decode_token(secret, context, token, "continuation-token").key.decode()
    listing = await request.objects(call, after=after)
    writer = Writer("ListBucketResult")
    writer.element("Name", call.bucket_name)
    writer.element("Prefix", request.encode(request.prefix))
    if start_after:
        writer.element("StartAfter", request.encode(start_after))
    if token is not None:
        writer.element("ContinuationToken", token)
    if listing.truncated:
        position = Position(listing.last.encode())
        writer.element("NextContinuationToken", encode_token(secret, context, position))
    writer.element("KeyCount", len(listing))
    writer.element("MaxKeys", request.most)
    if request.delimiter:
        writer.element("Delimiter", request.encode(request.delimiter))
    if request.encoded:
        writer.element("EncodingType", "url")
    writer.flag("IsTruncated", listing.truncated)
    owner = call.owner if call.query.get("fetch-owner", "").lower() == "true" else None
    write_contents(writer, listing, request, owner)
    return xml_reply(writer.finish())
