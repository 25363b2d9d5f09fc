"""Reads of sub-resources that nobody has set (s3gw.buckets.fresh), rendered."""

from __future__ import annotations

from s3gw.buckets.fresh import ANSWERS, Document, Refusal
from s3gw.wire.xml import SCHEMA_INSTANCE, Writer


def fresh_answer(operation_name: str, *, owner_id: str, bucket: str) -> bytes:
    """The XML document that the operation answers with status 200, or its S3Error, raised.

    `operation_name` is a row's name and must be in `fresh.ANSWERS`. The caller has found the
    bucket, and for an operation on an object the object, and has authorized the request.
    """
    match ANSWERS[operation_name]:
        case Refusal(error, message):
            raise error(message, BucketName=bucket)
        case Document(root, children):
            document = Writer(root)
            for name, value in children:
                document.element(name, value)
            return document.finish()
        case _:
            return owner_full_control(owner_id)


def owner_full_control(owner_id: str) -> bytes:
    """The access control list of a resource whose owner alone may do everything.

    DisplayName, which Amazon stopped sending in 2025, is kept for s3cmd, which prints it.
    """
    document = Writer("AccessControlPolicy")
    document.open("Owner")
    _write_user(document, owner_id)
    document.close("Owner")
    document.open("AccessControlList")
    document.open("Grant")
    document.raw(f'<Grantee xmlns:xsi="{SCHEMA_INSTANCE}" xsi:type="CanonicalUser">')
    _write_user(document, owner_id)
    document.close("Grantee")
    document.element("Permission", "FULL_CONTROL")
    document.close("Grant")
    document.close("AccessControlList")
    return document.finish()


def _write_user(document: Writer, user_id: str) -> None:
    document.element("ID", user_id)
    document.element("DisplayName", user_id)
