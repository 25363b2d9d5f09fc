"""PutObject."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.objects.write import put_object as store_object
from s3gw.operations.call import Call, Reply
from s3gw.operations.describe import description_of, write_check
from s3gw.operations.encryption import encryption_headers, framed
from s3gw.operations.lifecycle_headers import expiration_headers
from s3gw.operations.present import checksum_headers, checksums_of, quoted, version_headers


async def put_object(call: Call) -> Reply:
    """Store the body as the key's visible version."""
    if "x-amz-rename-source" in call.headers:
        # What was meant moves an object here; this would put an empty one in its place.
        raise errors.InvalidRequest("A rename has the query parameter renameObject.")
    size = call.body.size
    if size is None:
        raise errors.MissingContentLength()
    if size > limits.SINGLE_PUT_BYTES_MAX:
        raise errors.EntityTooLarge(
            ProposedSize=str(size), MaxSizeAllowed=str(limits.SINGLE_PUT_BYTES_MAX)
        )
    return await store_body(call)


async def store_body(call: Call) -> Reply:
    """Store the body, whose size may be unknown, as what the request's headers describe."""
    description, framing = await framed(call, description_of(call))
    record = await store_object(
        call.storage,
        call.target,
        call.owner.id,
        description,
        call.body,
        write_check(call),
        framing,
    )
    return Reply(
        headers=[
            ("ETag", quoted(record.etag)),
            *checksum_headers(checksums_of(record)),
            *version_headers(call.bucket, record),
            *encryption_headers(call, record.description.encryption, with_context=True),
            *expiration_headers(call, record),
        ]
    )
