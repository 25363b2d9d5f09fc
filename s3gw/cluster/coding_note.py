"""What the writer of a blob adds to the footer map of its shards: how the bytes are coded.

With it a recovery needs no record of the profile, which the blob may outlive. Only the writer knows
these values (a blob may be narrowed, or written anew under another scheme), so they are added here
and replace what an earlier writing of the same bytes has noted.

    profile    [scheme, stripe_bytes, pg_count, failure_domain, companion] of the blob's profile
    scheme     scheme that this blob is coded with
    stored     bytes of the blob as stored
    crc64      CRC64NVME of these bytes
"""

from __future__ import annotations

from typing import Any

import msgspec

from erasure.scheme import Scheme
from s3gw.cluster.topology import Profile

_decoder = msgspec.msgpack.Decoder(dict[str, Any])
_encoder = msgspec.msgpack.Encoder()


def noted(footer_map: bytes, profile: Profile, scheme: Scheme, size: int, crc64: int) -> bytes:
    """The footer map with the coding of a blob of `size` stored bytes."""
    fields = _decoder.decode(footer_map)
    fields["profile"] = (
        str(profile.scheme),
        profile.stripe_bytes,
        profile.pg_count,
        profile.failure_domain,
        profile.companion,
    )
    fields["scheme"] = str(scheme)
    fields["stored"] = size
    fields["crc64"] = crc64
    return _encoder.encode(fields)
