"""What client and server of the node API agree on: paths, errors and documents.

    PUT, GET, HEAD, DELETE  /v1/<drive>/shards/<profile>/<pg>/<blob hex>.<index>
                            GET ?offset=&length=   DELETE ?pg_revision=
    POST                    /v1/<drive>/shards/<profile>/<pg>/<blob hex>.<index>/verify, /quarantine
    GET                     /v1/<drive>/shards/<profile>/<pg>
    PUT                     /v1/<drive>/pg/<profile>/<pg>?revision=
    GET                     /v1/<drive>/stats
    GET                     /health

Listings, verdicts and statistics are MessagePack (arrays of the dataclass's fields); errors are
JSON: {"error": code, "message": text} and, for a stale revision, "seen".
"""

from __future__ import annotations

from nodes.protocol import (
    DriveError,
    DriveFull,
    DriveRefused,
    DriveUnreachable,
    ShardMissing,
    ShardName,
    StalePgRevision,
)

# A part has at most 5 GiB; its shard is as large with k = 1, and has checksums besides.
SHARD_BYTES_MAX = 6 * 1024**3
READ_BYTES_MAX = 64 * 1024**2
# Shards up to this size are received as a whole and written in one step.
WHOLE_BODY_BYTES_MAX = 128 * 1024
ERROR_BYTES_MAX = 4096

# code, status, exception; the first row that matches an exception counts.
ERRORS: tuple[tuple[str, int, type[Exception]], ...] = (
    ("shard-missing", 404, ShardMissing),
    ("stale-pg-revision", 409, StalePgRevision),
    ("drive-full", 507, DriveFull),
    ("drive-error", 503, DriveError),
    ("refused", 400, DriveRefused),
)
UNAUTHENTICATED = "unauthenticated"
REPLAYED = "replayed"
NO_DRIVE = "no-such-drive"
NO_ROUTE = "no-such-route"
LEASE_ENDED = "lease-ended"
TOO_LARGE = "too-large"
OTHER_STATUS = {
    UNAUTHENTICATED: 401,
    REPLAYED: 401,
    NO_DRIVE: 503,
    NO_ROUTE: 400,
    LEASE_ENDED: 503,
    TOO_LARGE: 413,
}


def shard_target(drive_id: str, name: ShardName) -> str:
    """The path of a shard on a node."""
    return f"/v1/{drive_id}/shards/{name}"


def to_exception(status: int, code: str, message: str, seen: int) -> Exception:
    """The protocol's exception for an error answer."""
    for known, _, kind in ERRORS:
        if code == known:
            return StalePgRevision(seen) if kind is StalePgRevision else kind(message)
    if code == NO_DRIVE:  # lost, or replaced by another one, while its registration still lives
        return DriveUnreachable(message)
    # An HTTP library sent a request again whose first outcome is unknown.
    if status >= 500 or code == REPLAYED:
        return DriveError(f"status {status}: {code or 'no error code'} {message}")
    return DriveRefused(f"status {status}: {code or 'no error code'} {message}")
