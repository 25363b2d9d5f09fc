"""Tag sets as documents: those of buckets, and those of objects.

Source: Amazon S3 API Reference, PutBucketTagging, PutObjectTagging. The rules of one tag are in
s3gw.wire.tagging.
"""

from __future__ import annotations

from collections.abc import Mapping

from s3gw import limits
from s3gw.buckets.document import Document, Structure, Text, required, several
from s3gw.wire.tagging import check_tags

TAG = Structure((required("Key", Text()), required("Value", Text())))
TAGGING = Document(
    "tagging",
    "Tagging",
    Structure((required("TagSet", Structure((several("Tag", TAG),))),)),
)


def parse_tags(body: bytes, *, count_max: int, whose: str) -> dict[str, str]:
    """The tags of a document, by name, in order; `whose` ("Bucket", "Object") is for the error.
    Raises S3Error."""
    tags = TAGGING.parse(body)["TagSet"].get("Tag", [])
    return check_tags(((tag["Key"], tag["Value"]) for tag in tags), count_max, whose=whose)


def parse_bucket_tags(body: bytes) -> dict[str, str]:
    """The tags of a bucket."""
    return parse_tags(body, count_max=limits.BUCKET_TAGS_MAX, whose="Bucket")


def parse_object_tags(body: bytes) -> dict[str, str]:
    """The tags of an object."""
    return parse_tags(body, count_max=limits.OBJECT_TAGS_MAX, whose="Object")


def render_tags(tags: Mapping[str, str]) -> bytes:
    """The document of a tag set."""
    listed = [{"Key": name, "Value": value} for name, value in tags.items()]
    return TAGGING.render({"TagSet": {"Tag": listed}})
