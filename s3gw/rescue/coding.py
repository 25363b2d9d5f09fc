"""How a blob found on drives is coded.

Shards say it themselves (s3gw.cluster.coding_note). What a profile is like is what most of its
blobs say, of those that bear it out by the group they lie in and the size of their blocks; a blob
that says otherwise is told and left alone. Shards of older versions say nothing; there the scheme
follows from the profile's name or record, the block size in the header and the payload size in the
footer: every narrowed scheme has the parity of its profile, and only one number of data shards fits
the sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from erasure.scheme import Scheme
from erasure.stripes import Geometry
from nodes.protocol import PG_MAX, PROFILE_PATTERN
from placement.domains import FAILURE_DOMAINS
from placement.groups import pg_of
from s3gw import limits
from s3gw.cluster.founding import COMPANION_SUFFIX
from s3gw.metadata.records import ProfileRecord
from s3gw.rescue.drives import Blob

STRIPE_BYTES_DEFAULT = limits.MIB
FAILURE_DOMAIN_DEFAULT = "node"


@dataclass(frozen=True, slots=True)
class Coding:
    """Scheme, stripe size, and bytes stored. `stored` of an old manifest's blob includes what pads
    its last stripe."""

    scheme: Scheme
    stripe_bytes: int
    stored: int
    crc64: int

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.scheme, self.stripe_bytes, self.stored)


def coding_of(blob: Blob, profiles: Mapping[str, ProfileRecord]) -> Coding | None:
    """The coding of a blob, None when it cannot be known."""
    footer = blob.footer
    if footer is None:
        return None
    try:
        if footer.scheme and footer.profile is not None and footer.stored >= 0:
            scheme = Scheme.parse(footer.scheme)
            coding = Coding(scheme, footer.profile.stripe_bytes, footer.stored, footer.crc64)
            return coding if _fits(blob, coding) else None
        record = profiles.get(blob.profile) or named_profile(blob.profile, 0)
    except ValueError:
        return None
    return None if record is None else _derived(blob, record)


def borne_out(blob: Blob) -> ProfileRecord | None:
    """The profile that a blob's footer states, when the blob lies and is coded as that says."""
    record = blob.footer.profile if blob.footer is not None else None
    if record is None or not 0 < record.pg_count <= PG_MAX + 1 or coding_of(blob, {}) is None:
        return None
    try:
        Scheme.parse(record.scheme)
    except ValueError:
        return None
    known = record.failure_domain in FAILURE_DOMAINS
    if not known or (record.companion and not PROFILE_PATTERN.fullmatch(record.companion)):
        return None
    return record if pg_of(blob.blob, record.pg_count) == blob.pg else None


def contradicts(blob: Blob, record: ProfileRecord) -> bool:
    """Whether a blob's footer says otherwise than its profile, in what the bytes depend on."""
    said = blob.footer.profile if blob.footer is not None else None
    if said is None:
        return False
    wanted = (record.scheme, record.stripe_bytes, record.pg_count)
    return (said.scheme, said.stripe_bytes, said.pg_count) != wanted


def named_profile(name: str, pg_count: int) -> ProfileRecord | None:
    """The profile that a name like "4+2" or "4+2.small" tells of; None for other names."""
    base = name.removesuffix(COMPANION_SUFFIX)
    try:
        scheme = Scheme.parse(base)
    except ValueError:
        return None
    companion = "" if base != name else name + COMPANION_SUFFIX
    if base != name:
        scheme = scheme.companion()
    return ProfileRecord(
        str(scheme), STRIPE_BYTES_DEFAULT, pg_count, FAILURE_DOMAIN_DEFAULT, companion
    )


def _derived(blob: Blob, record: ProfileRecord) -> Coding | None:
    footer = blob.footer
    assert footer is not None
    for scheme in _schemes(Scheme.parse(record.scheme)):
        stored = footer.size
        if footer.kind == "manifest":
            stored = blob.payload_bytes * scheme.data  # with the padding of the last stripe
        for stripe_bytes in (record.stripe_bytes, blob.block_bytes * scheme.data):
            coding = Coding(scheme, stripe_bytes, stored, -1)
            if _fits(blob, coding):
                return coding
    return None


def _schemes(scheme: Scheme) -> Iterator[Scheme]:
    """The profile's scheme and what a write to fewer nodes makes of it."""
    for live in range(scheme.width, scheme.tolerance, -1):
        narrowed = scheme.narrowed(live)
        if narrowed is not None:
            yield narrowed


def _fits(blob: Blob, coding: Coding) -> bool:
    if coding.stripe_bytes < 1 or coding.stored < 0:
        return False
    geometry = coding.geometry
    return (
        geometry.block_bytes == blob.block_bytes
        and geometry.shard_payload_bytes == blob.payload_bytes
    )
