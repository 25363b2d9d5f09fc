"""UploadPart."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.metadata.records import Checksums
from s3gw.objects.multipart import Upload, find_upload
from s3gw.objects.multipart import upload_part as store_part
from s3gw.operations.access import still_allowed_in_bucket
from s3gw.operations.call import Call, Reply
from s3gw.operations.encryption import encryption_headers, opened_upload
from s3gw.operations.parameters import part_number, upload_id
from s3gw.operations.present import quoted
from s3gw.wire.checksums import ALGORITHMS, ChecksumType


async def upload_part(call: Call) -> Reply:
    """Store the body as a part of an upload."""
    number = part_number(call)
    size = call.body.size
    if size is None:
        raise errors.MissingContentLength()
    if size > limits.PART_BYTES_MAX:
        raise errors.EntityTooLarge(
            ProposedSize=str(size), MaxSizeAllowed=str(limits.PART_BYTES_MAX)
        )
    upload = await find_upload(call.storage, call.bucket_name, call.key, upload_id(call), number)
    call.access.require_parts(call, upload.record.initiator_id)
    _require_checksum(call, upload)
    framing = await opened_upload(call, upload)
    check = still_allowed_in_bucket(call)
    part = await store_part(call.storage, upload, number, call.body, framing, check)
    return Reply(
        headers=[
            ("ETag", quoted(part.etag)),
            *part_checksum_headers(part.checksums),
            *encryption_headers(call, upload.record.description.encryption),
        ]
    )


def part_checksum_headers(checksums: Checksums) -> list[tuple[str, str]]:
    """`x-amz-checksum-*` of a part."""
    return [(ALGORITHMS[name].header, value) for name, value in checksums.values.items()]


def _require_checksum(call: Call, upload: Upload) -> None:
    """Parts carry the checksum that their upload was created with. One that comes without gets it
    where the object's sum follows from its bytes, and not where it is one over the sums that the
    client vouches for (COMPOSITE). Raises InvalidRequest."""
    wanted = upload.record.checksum_algorithm
    if not wanted:
        return
    sent = call.body.requested.algorithm
    if sent is None and upload.record.checksum_type == ChecksumType.COMPOSITE:
        raise _type_mismatch(wanted, "null")
    if sent is not None and sent.name != wanted:
        raise _type_mismatch(wanted, sent.name.lower())
    call.body.require(wanted)


def _type_mismatch(wanted: str, sent: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(
        "Checksum Type mismatch occurred, expected checksum Type: "
        f"{wanted.lower()}, actual checksum Type: {sent}"
    )
