"""A bucket's public access block: four switches that overrule what a policy or a list would open.

Source: S3 User Guide, "Blocking public access to your Amazon S3 storage". Kept in the bucket's
record as JSON. Access control lists for others are refused in any case, so the two switches about
them are only kept and returned.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

DOCUMENT = "publicAccessBlock"
ELEMENTS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


class PublicAccessBlock(msgspec.Struct, frozen=True, rename="pascal"):
    """The four switches."""

    block_public_acls: bool = False
    ignore_public_acls: bool = False
    block_public_policy: bool = False
    restrict_public_buckets: bool = False


NOTHING_BLOCKED = PublicAccessBlock()


@lru_cache(maxsize=256)
def stored(document: bytes | None) -> PublicAccessBlock:
    """The switches of a bucket's stored document; None is a bucket without one."""
    if document is None:
        return NOTHING_BLOCKED
    return msgspec.json.decode(document, type=PublicAccessBlock)


def to_store(switches: PublicAccessBlock) -> bytes:
    """The document to store."""
    return msgspec.json.encode(switches)
