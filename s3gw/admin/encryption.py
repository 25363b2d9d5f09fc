"""Named keys, master keys, and the compression of buckets."""

from __future__ import annotations

import msgspec

from s3gw.admin import encryption_models as models
from s3gw.admin.models import BucketPath
from s3gw.admin.port import AdminPort, Refusal, conflict, not_found
from s3gw.buckets.encryption import COMPRESSION
from s3gw.errors import KMSNotFoundException, NotImplementedS3
from s3gw.metadata.key_records import NamedKey, ProcessKeys
from s3gw.metadata.records import BucketRecord
from s3gw.objects.buckets import change_bucket, find_bucket
from s3gw.objects.keyring.master import MasterKeyMissing
from s3gw.objects.keyring.master import MasterKeys as Configured
from s3gw.objects.keyring.named import DISABLED, ENABLED, PENDING, KeyExists
from s3gw.objects.keyring.ring import master_keys_known, processes

WALKING = "walking"


def _view(port: AdminPort, name: str, key: NamedKey) -> models.Key:
    return models.Key(
        name,
        port.storage.ring.arn(name),
        key.state,
        len(key.versions),
        key.created_ms,
        key.delete_after_ms,
        key.description,
    )


async def _master(port: AdminPort) -> Configured:
    """The master key that named keys are wrapped under. Raises Refusal."""
    if port.storage.ring.sources.transit is not None:
        raise conflict("the named keys are those of the configured key management service")
    try:
        return await port.storage.ring.usable_master()
    except NotImplementedS3 as error:
        raise conflict("this store has no master key") from error


async def list_keys(port: AdminPort) -> models.Keys:
    """The named keys of the built-in key store."""
    return models.Keys([_view(port, *found) for found in await port.storage.ring.named.all()])


async def create_key(port: AdminPort, body: models.CreateKey) -> models.Key:
    """Make a named key."""
    try:
        named = port.storage.ring.named
        key = await named.create(body.name, await _master(port), body.description)
    except KeyExists:
        raise conflict(f"there is a key {body.name} already") from None
    return _view(port, body.name, key)


async def show_key(port: AdminPort, path: models.KeyPath) -> models.Key:
    """One named key."""
    try:
        key, _ = await port.storage.ring.named.find(path.kms_key)
    except KMSNotFoundException as error:
        raise _no_key(path) from error
    return _view(port, path.kms_key, key)


async def rotate_key(port: AdminPort, path: models.KeyPath) -> models.Key:
    """Give a named key a new version, which encrypts from now on; the former ones still open."""
    try:
        key = await port.storage.ring.named.rotate(path.kms_key, await _master(port))
    except KMSNotFoundException as error:
        raise _no_key(path) from error
    return _view(port, path.kms_key, key)


async def enable_key(port: AdminPort, path: models.KeyPath) -> models.Key:
    """Let a named key be used again; its deletion is taken back."""
    return await _set_state(port, path, ENABLED)


async def disable_key(port: AdminPort, path: models.KeyPath) -> models.Key:
    """Let a named key be used no more: what is encrypted with it cannot be read."""
    return await _set_state(port, path, DISABLED)


async def delete_key(port: AdminPort, path: models.KeyPath, body: models.DeleteKey) -> models.Key:
    """Remove a named key in some days; until then it cannot be used, and can be enabled again."""
    return await _set_state(port, path, PENDING, body.days)


async def _set_state(
    port: AdminPort, path: models.KeyPath, state: str, days: int = 0
) -> models.Key:
    try:
        key = await port.storage.ring.named.set_state(path.kms_key, state, days=days)
    except KMSNotFoundException as error:
        raise _no_key(path) from error
    return _view(port, path.kms_key, key)


def _no_key(path: models.KeyPath) -> Refusal:
    return not_found("NoSuchKmsKey", f"there is no key {path.kms_key}")


async def master_keys(port: AdminPort) -> models.MasterKeys:
    """The master keys by their ids, which process has which, and how far the job that wraps anew
    has come."""
    kv = port.storage.store.kv
    known, _ = await master_keys_known(kv)
    master = port.storage.ring.sources.master
    configured = [name.hex() for name in master.ids] if master is not None else []
    present = configured[0] if configured else ""
    job = await port.jobs.rewrap()
    goes_on = job is not None and job.state == WALKING
    wanted = job.master_key if job is not None and goes_on else present
    running = [_process(told, wanted) for told in await processes(kv)]
    done_with = {name.hex() for name in known.barred} - {name.hex() for name in known.ids}
    held = set(configured).union(*(process.configured for process in running))
    # Where processes do not agree, one may come to wrap under any of their keys yet.
    settled = not goes_on and all(process.present == present for process in running)
    return models.MasterKeys(
        present,
        configured,
        [name.hex() for name in known.ids],
        sorted(done_with & held) if settled else [],
        running,
        job,
    )


def _process(told: ProcessKeys, wanted: str) -> models.KeyProcess:
    configured = [name.hex() for name in told.master_keys]
    present = configured[0] if configured else ""
    return models.KeyProcess(told.name, present, configured, present != wanted)


async def rewrap(port: AdminPort) -> models.Rewrap:
    """Wrap all data keys anew, under the newest keys; a job does it."""
    try:
        return await port.jobs.start_rewrap()
    except (NotImplementedS3, MasterKeyMissing) as error:
        raise conflict("this store has no master key") from error


async def set_compression(
    port: AdminPort, path: BucketPath, body: models.SetCompression
) -> models.Compression:
    """Compress new objects of a bucket, or no more. What is there stays as it is."""

    def change(bucket: BucketRecord) -> BucketRecord:
        documents = {name: kept for name, kept in bucket.documents.items() if name != COMPRESSION}
        if body.compression:
            documents[COMPRESSION] = body.compression.encode()
        return msgspec.structs.replace(bucket, documents=documents)

    await change_bucket(port.storage, path.bucket, change)
    return models.Compression(path.bucket, body.compression)


async def show_compression(port: AdminPort, path: BucketPath) -> models.Compression:
    """How new objects of a bucket are compressed."""
    bucket = (await find_bucket(port.storage, path.bucket)).record
    assert bucket is not None
    return models.Compression(path.bucket, bucket.documents.get(COMPRESSION, b"").decode())
