"""An S3 error as the document that clients parse (API Reference, "Error responses")."""

from __future__ import annotations

from s3gw.errors import S3Error
from s3gw.wire.xml import Writer

CONTENT_TYPE = "application/xml"


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
