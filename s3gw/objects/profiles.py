"""In which profile the bytes of an object go: that which claims its storage class, else that of
its bucket. Profiles are made while processes run, so one that a record names may be new here."""

from __future__ import annotations

from s3gw import errors
from s3gw.cluster.topology import Profile, UnknownProfile
from s3gw.metadata.records import BucketRecord, Data, ManifestRef
from s3gw.objects.storage import Storage


def known_profile(storage: Storage, bucket: BucketRecord, storage_class: str) -> Profile:
    """The profile for an object of this class, of a bucket that was read by `know`."""
    topology = storage.blobs.topology
    return topology.of_class(storage_class) or topology.profile(bucket.profile)


async def profile_of(storage: Storage, bucket: BucketRecord, storage_class: str) -> Profile:
    """The profile for an object of this class. Raises ServiceUnavailable, EngineError."""
    await know(storage, bucket.profile)
    return known_profile(storage, bucket, storage_class)


async def know(storage: Storage, *names: str) -> None:
    """See to it that these profiles are known. Raises ServiceUnavailable, EngineError."""
    for name in names:
        try:
            await storage.blobs.topology.know(name)
        except UnknownProfile as error:
            raise errors.ServiceUnavailable(f"There is no profile {name}.") from error


def named_by(data: Data | None) -> tuple[str, ...]:
    """The profile that a version's record names."""
    if data is None:
        return ()
    return (data.blob.profile if isinstance(data, ManifestRef) else data.profile,)
