"""An S3 error as the document that clients parse (API Reference, "Error responses")."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nodes.http_head import ProtocolError
from s3gw import errors
from s3gw.errors import S3Error
from s3gw.wire.xml import Writer

CONTENT_TYPE = "application/xml"
HOST_ID = "s3gw"
# What the HTTP server refuses by itself, by status; SDKs retry RequestTimeout and SlowDown.
REFUSALS: Mapping[int, type[S3Error]] = {
    400: errors.BadRequest,
    408: errors.RequestTimeout,
    431: errors.RequestHeaderSectionTooLarge,
    500: errors.InternalError,
    503: errors.SlowDown,
}


def error_body(
    error: S3Error, *, method: str, resource: str, request_id: str, host_id: str
) -> bytes:
    """The body of the answer: empty to a HEAD and for 304, where HTTP allows none.

    `resource` is the decoded path as the client sees it, `/bucket/key`.
    """
    if method == "HEAD" or error.status == 304:
        return b""
    document = Writer("Error", namespace="")
    document.element("Code", error.code)
    document.element("Message", error.message)
    for name, value in error.fields.items():
        document.element(name, value)
    document.element("Resource", resource)
    document.element("RequestId", request_id)
    document.element("HostId", host_id)
    return document.finish()


def refusal(error: ProtocolError) -> tuple[bytes, bytes]:
    """Header lines and body of the answer to a request that is broken HTTP or came too slowly."""
    request_id = new_request_id()
    body = error_body(
        REFUSALS.get(error.status, errors.BadRequest)(error.reason),
        method="",
        resource="",
        request_id=request_id,
        host_id=HOST_ID,
    )
    identity = f"x-amz-request-id: {request_id}\r\nx-amz-id-2: {HOST_ID}\r\n"
    return f"content-type: {CONTENT_TYPE}\r\n{identity}".encode(), body


def new_request_id() -> str:
    """16 hexadecimal digits, as S3's look."""
    return os.urandom(8).hex().upper()
