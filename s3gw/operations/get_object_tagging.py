"""GetObjectTagging."""

from __future__ import annotations

from s3gw.operations.call import Call, Reply, xml_reply
from s3gw.operations.present import visible
from s3gw.wire.xml import Writer


async def get_object_tagging(call: Call) -> Reply:
    """The tags that a version was put or copied with."""
    writer = Writer("Tagging")
    writer.open("TagSet")
    for key, value in visible(call).description.tags.items():
        writer.open("Tag")
        writer.element("Key", key)
        writer.element("Value", value)
        writer.close("Tag")
    writer.close("TagSet")
    return xml_reply(writer.finish())
