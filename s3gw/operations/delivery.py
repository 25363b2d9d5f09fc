"""What the store itself writes into a bucket: inventory reports and access logs.

S3 does so as a service (`s3.amazonaws.com`, `logging.s3.amazonaws.com`), which the policy of the
bucket has to allow. Here all buckets belong to one account. Whoever asks for the delivery, by the
configuration of another of its buckets, must be allowed to write there himself
(`require_target`): that allows it. A policy that denies it to the service, or
to everyone, is obeyed; so are the bucket's default encryption and its object lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass

from nodes.protocol import Buffer
from s3gw import errors
from s3gw.auth.policy import Principal, PrincipalType, RequestContext
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Reason
from s3gw.identities.root import ACCOUNT_ID
from s3gw.metadata.records import BucketRecord, Checksums, Description
from s3gw.objects import publish
from s3gw.objects.delete import delete_object
from s3gw.objects.encrypted import frame
from s3gw.objects.keyring.ring import Wanted
from s3gw.objects.storage import Storage
from s3gw.objects.write import put_object
from s3gw.operations.access import Access, Resource
from s3gw.operations.call import Call
from s3gw.operations.encryption import PREFIX, default_of_bucket

INVENTORY_SERVICE = "s3.amazonaws.com"
LOGGING_SERVICE = "logging.s3.amazonaws.com"


def require_target(call: Call, bucket_name: str, bucket: BucketRecord | None, prefix: str) -> None:
    """Authorize a configuration of the call's bucket that has the store write below a prefix of
    another one: otherwise whoever may configure one bucket could write into all of them. Raises
    AccessDenied."""
    resource = Resource(bucket_name, bucket, f"{prefix}{call.bucket_name}/")
    call.access.require(call, "s3:PutObject", resource)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who delivers what for which bucket of `owner`. `wanted`: how it is to be encrypted, None for
    what the bucket that gets it says."""

    service: str
    source: str
    owner: str
    wanted: Wanted | None = None


class Sent:
    """Pieces as the body of an object; counts them."""

    algorithms: Collection[str] = ()

    def __init__(self, pieces: AsyncIterator[Buffer]) -> None:
        self._pieces = pieces
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    @property
    def md5(self) -> str:
        """Of what was sent so far."""
        return self._md5.hexdigest()

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        async for piece in self._pieces:
            self._md5.update(piece)
            self.size += len(piece)
            yield piece

    def verify(self, digests: Mapping[str, bytes]) -> Checksums:
        return Checksums()


async def deliver(
    storage: Storage,
    delivery: Delivery,
    bucket_name: str,
    key: str,
    body: Sent,
    content_type: str,
) -> None:
    """Write an object. Raises S3Error (NoSuchBucket, AccessDenied), OutcomeUnknown, and what the
    body raises, after which there is nothing."""
    target = await publish.read_target(storage, bucket_name, key)
    bucket = target.bucket
    wanted = delivery.wanted or _default(bucket)
    _authorize(delivery, bucket_name, bucket, key, wanted)
    described = Description(headers={"content-type": content_type})
    description, framing = await frame(storage, bucket, described, wanted)

    def check(now: publish.Target) -> None:
        if now is not target:
            _authorize(delivery, bucket_name, now.bucket, key, wanted)

    await put_object(storage, target, bucket.owner, description, body, check, framing)


async def send(
    storage: Storage,
    delivery: Delivery,
    bucket_name: str,
    key: str,
    data: bytes,
    content_type: str,
) -> None:
    """Write an object of these bytes. Raises as `deliver`."""
    await deliver(storage, delivery, bucket_name, key, Sent(_once(data)), content_type)


async def _once(data: bytes) -> AsyncIterator[Buffer]:
    yield data


async def take_back(storage: Storage, bucket_name: str, key: str) -> None:
    """Remove what was delivered, if it is there; in a bucket with versioning its version. Raises
    S3Error, OutcomeUnknown."""
    try:
        target = await publish.read_target(storage, bucket_name, key)
        if target.visible is None:
            return
        if target.bucket.versioning:
            sequence = target.visible.sequence
            target = await publish.read_target(storage, bucket_name, key, sequence)
    except errors.NoSuchBucket:
        return
    await delete_object(storage, target, publish.no_check, owner=target.bucket.owner)


def _default(bucket: BucketRecord) -> Wanted | None:
    default = default_of_bucket(bucket)
    if not default.algorithm:
        return None
    return Wanted(default.algorithm, default.key_name, bucket_key=default.bucket_key)


def _authorize(
    delivery: Delivery, bucket_name: str, bucket: BucketRecord, key: str, wanted: Wanted | None
) -> None:
    """Raises AccessDenied."""
    resource = Resource(bucket_name, bucket, key)
    values = {
        "aws:sourcearn": (f"arn:aws:s3:::{delivery.source}",),
        "aws:sourceaccount": (ACCOUNT_ID,),
        "aws:securetransport": ("true",),
        "aws:principalisawsservice": ("true",),
        "aws:principalservicename": (delivery.service,),
    }
    if wanted is not None:
        values[f"s3:{PREFIX}"] = (wanted.kind,)
    # Policies name a service as they name an identity by its id.
    service = Principal("", delivery.service, PrincipalType.USER, user_id=delivery.service)
    context = RequestContext(service, "s3:PutObject", resource.arn, values)
    decision = Access(ACCOUNT_ID).judge(context, NO_PERMISSIONS, resource)
    foreign = bucket.owner != delivery.owner
    if decision.reason is Reason.EXPLICIT_DENY or (foreign and not decision.allowed):
        raise errors.AccessDenied(
            f"{delivery.service} may not write into the bucket {bucket_name}."
        )
