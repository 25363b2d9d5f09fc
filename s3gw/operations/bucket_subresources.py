"""Reads of sub-resources that nobody has set (s3gw.buckets.fresh), rendered."""

from __future__ import annotations

from s3gw.buckets.fresh import ANSWERS, Refusal
from s3gw.wire.xml import Writer


def fresh_answer(operation_name: str, *, bucket: str) -> bytes:
    """The XML document that the operation answers with status 200, or its S3Error, raised.

    `operation_name` is a row's name and must be in `fresh.ANSWERS`. The caller has found the
    bucket, and for an operation on an object the object, and has authorized the request.
    """
    answer = ANSWERS[operation_name]
    if isinstance(answer, Refusal):
        raise answer.error(answer.message, BucketName=bucket)
    document = Writer(answer.root)
    for name, value in answer.children:
        document.element(name, value)
    return document.finish()
