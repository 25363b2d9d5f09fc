"""CORS on answers: what lets a browser show them to scripts of another site.

Every answer about a bucket with rules carries the headers, errors too: a script that may not read
why it was refused cannot say so. `Vary` goes with each of them, also when the request came from
nowhere, so that no cache gives one site the answer that was meant for another.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from s3gw import errors
from s3gw.buckets.cors import CORS, VARY, Headers, answer_headers
from s3gw.metadata.records import BucketRecord
from s3gw.objects.buckets import find_bucket
from s3gw.objects.storage import Storage
from s3gw.operations.call import Call
from s3gw.operations.trouble import TROUBLE
from s3gw.server.resolve import Resolved
from s3gw.server.routes import OPTIONS

log = logging.getLogger("s3gw.server")


@dataclass(slots=True)
class Seen:
    """What became known of a request on its way: its bucket, once that was read, and the call that
    became of it."""

    bucket: BucketRecord | None = None
    call: Call | None = None


async def cors_headers(
    storage: Storage, resolved: Resolved, headers: Mapping[str, str], seen: Seen
) -> Headers:
    """The headers that the answer carries for the sake of browsers. A preflight's own are those
    of the operation."""
    if not resolved.bucket or resolved.row.method == OPTIONS:
        return []
    origin = headers.get("origin")
    bucket = seen.bucket
    if bucket is None:
        if origin is None:
            return []
        bucket = await _bucket(storage, resolved.bucket)
    return headers_of_bucket(bucket, origin, resolved.row.method)


def headers_of_bucket(bucket: BucketRecord | None, origin: str | None, method: str) -> Headers:
    """The headers that an answer about the bucket carries."""
    stored = bucket.documents.get(CORS.name) if bucket is not None else None
    if stored is None:
        return []
    allowed = answer_headers(stored, origin, method) if origin else []
    return [*allowed, VARY]


async def _bucket(storage: Storage, name: str) -> BucketRecord | None:
    """The bucket of a request that was refused before it was looked at."""
    try:
        return (await find_bucket(storage, name)).record
    except errors.NoSuchBucket:
        return None
    except TROUBLE as error:
        log.warning("a refusal goes without CORS headers: %s", error)
        return None
