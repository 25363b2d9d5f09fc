"""GetObjectTagging."""

from __future__ import annotations

from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.present import version_headers, visible
from s3gw.wire.xml import Writer


async def get_object_tagging(call: Call) -> Reply:
    """The tags that a version was put or copied with."""
    writer = Writer("Tagging")
    writer.open("TagSet")
    record = visible(call)
    for key, value in record.description.tags.items():
        writer.open("Tag")
        writer.element("Key", key)
        writer.element("Value", value)
        writer.close("Tag")
    writer.close("TagSet")
    reply = xml_reply(writer.finish())
    reply.headers += version_headers(call.bucket, record)
    return reply
