"""HeadObject."""

from __future__ import annotations

from s3gw.operations.call import Call, Reply
from s3gw.operations.get_object import select


async def head_object(call: Call) -> Reply:
    """The head of what GetObject would answer."""
    _, _, reply = await select(call)
    return reply
