"""CompleteMultipartUpload."""

from __future__ import annotations

from s3gw import errors, limits
from s3gw.objects.complete import Completion, PartChoice, complete_upload
from s3gw.operations.begun_upload import require_completion
from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.describe import write_check
from s3gw.operations.encryption import check_upload_key, encryption_headers
from s3gw.operations.lifecycle_headers import expiration_headers
from s3gw.operations.parameters import upload_id
from s3gw.operations.present import object_url, quoted
from s3gw.wire import xml
from s3gw.wire.checksums import ALGORITHMS, ChecksumType, decode, is_digest
from s3gw.wire.xml import Writer


async def complete_multipart_upload(call: Call) -> Reply:
    """Make one object of the parts that the body lists."""
    identity = upload_id(call)
    await require_completion(call, identity)
    body = await call.body.read(limits.XML_LARGE_BYTES_MAX)
    if not body:
        raise errors.MalformedXML()  # no parts, like the empty list that it stands for
    document = await xml.parse_off_loop(
        body, limit=limits.XML_LARGE_BYTES_MAX, root="CompleteMultipartUpload", lists=("Part",)
    )
    completion = Completion(
        choices=_choices(document),
        check=write_check(call),
        expected=_expected(call),
        expected_type=_expected_type(call),
        expected_size=_expected_size(call),
    )
    await check_upload_key(call, identity)
    done = await complete_upload(call.storage, call.bucket_name, call.key, identity, completion)
    writer = Writer("CompleteMultipartUploadResult")
    writer.element("Location", object_url(call))
    writer.element("Bucket", call.bucket_name)
    writer.element("Key", call.key)
    writer.element("ETag", quoted(done.etag))
    for name, value in done.checksums.values.items():
        writer.element(f"Checksum{name}", value)
    if done.checksums.values:
        writer.element("ChecksumType", done.checksums.kind)
    reply = xml_reply(writer.finish())
    reply.headers += encryption_headers(call, done.encryption)
    if done.record is not None:
        reply.headers += expiration_headers(call, done.record)
    if done.version_id:
        reply.headers.append(("x-amz-version-id", done.version_id))
    return reply


def _choices(document: xml.Node) -> list[PartChoice]:
    choices = []
    for node in xml.children(document, "Part"):
        number = xml.integer(node, "PartNumber")
        etag = xml.text(node, "ETag").strip().removeprefix('"').removesuffix('"')
        if not 1 <= number <= limits.PART_NUMBER_MAX:
            raise errors.InvalidArgument(
                f"PartNumber must be >= 1 and <= {limits.PART_NUMBER_MAX}",
                ArgumentName="PartNumber",
                ArgumentValue=str(number),
            )
        choices.append(PartChoice(number, etag, _part_checksum(node)))
    if not choices or len(choices) > limits.PART_NUMBER_MAX:
        raise errors.MalformedXML()
    return choices


def _part_checksum(node: xml.Node) -> dict[str, str]:
    """The checksum that the list gives a part, if any. Raises InvalidArgument."""
    given = {
        name: value
        for name in ALGORITHMS
        if (value := xml.optional_text(node, f"Checksum{name}")) is not None
    }
    if len(given) > 1 or not all(is_digest(ALGORITHMS[n], value) for n, value in given.items()):
        raise errors.InvalidArgument(
            "Invalid Base64 or multiple checksums present in request", ArgumentName="Checksum"
        )
    return given


def _expected(call: Call) -> dict[str, str]:
    """The object's checksum in a header. It is of the object, not of this request's body, and of a
    COMPOSITE one it may end in the number of parts. Raises InvalidRequest."""
    expected = {
        name: call.headers[row.header]
        for name, row in ALGORITHMS.items()
        if row.header in call.headers
    }
    if len(expected) > 1:
        raise errors.InvalidRequest(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    for name, value in expected.items():
        digest, dash, parts = value.partition("-")
        decode(ALGORITHMS[name], digest)
        if dash and not (parts.isascii() and parts.isdigit()):
            raise errors.InvalidRequest(f"Value for {ALGORITHMS[name].header} header is invalid.")
    return expected


def _expected_type(call: Call) -> str:
    text = call.headers.get("x-amz-checksum-type", "").upper()
    if text and text not in tuple(ChecksumType):
        raise errors.InvalidRequest("Value for x-amz-checksum-type header is invalid.")
    return text


def _expected_size(call: Call) -> int:
    text = call.headers.get("x-amz-mp-object-size")
    if text is None:
        return -1
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 16:
        raise errors.InvalidRequest(f"Value for x-amz-mp-object-size header is invalid: '{text}'")
    if text != digits:
        raise errors.InvalidRequest(
            f"Value for x-amz-mp-object-size header is less than zero: '{text}'"
        )
    return int(text)
