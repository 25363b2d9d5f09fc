"""PostObject: an upload from a browser's form.

By then the form is the PUT that it describes (s3gw.server.form); what is left is to answer as the
form asks: with a redirect, so that the browser goes on to a page of the application, or a status.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from s3gw.operations.call import XML_TYPE, Call, Reply
from s3gw.operations.present import object_url
from s3gw.operations.put_object import store_body
from s3gw.wire.xml import Writer

CREATED = "201"
STATUSES = {"200": 200, CREATED: 201}
NO_CONTENT, SEE_OTHER = 204, 303


async def post_object(call: Call) -> Reply:
    """Store the file as the key's visible version."""
    reply = await store_body(call)
    etag = dict(reply.headers)["ETag"]
    wanted = call.fields.get("success_action_redirect") or call.fields.get("redirect", "")
    redirect = redirect_to(wanted, call.bucket_name, call.key, etag)
    if redirect is not None:
        reply.status = SEE_OTHER
        reply.headers.append(("Location", redirect))
        return reply
    status = call.fields.get("success_action_status", "")
    reply.status = STATUSES.get(status, NO_CONTENT)
    location = object_url(call)
    reply.headers.append(("Location", location))
    if status == CREATED:
        reply.headers.append(XML_TYPE)
        reply.body = _document(call, location, etag)
    return reply


def redirect_to(url: str, bucket: str, key: str, etag: str) -> str | None:
    """`url` with what was stored in its query; None when it is no URL that a browser could go to,
    which counts as none given.

    >>> redirect_to("http://a.test/done?x=1", "b", "a/b", '"e"')
    'http://a.test/done?x=1&bucket=b&key=a%2Fb&etag=%22e%22'
    """
    if not all("!" <= character <= "~" for character in url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    stored = urlencode({"bucket": bucket, "key": key, "etag": etag}, safe="", quote_via=quote)
    return urlunsplit(parts._replace(query=f"{parts.query}&{stored}" if parts.query else stored))


def _document(call: Call, location: str, etag: str) -> bytes:
    writer = Writer("PostResponse", namespace="")
    writer.element("Location", location)
    writer.element("Bucket", call.bucket_name)
    writer.element("Key", call.key)
    writer.element("ETag", etag)
    return writer.finish()
