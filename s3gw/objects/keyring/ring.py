"""The data keys of objects: made, wrapped, opened and wrapped anew.

Each object has a random data key, which is stored wrapped (`Encryption.wrapped_key`). Its first
byte says under what:

    1  master key              key id (8), wrapped key
    2  built-in named key      version (4), wrapped key; the name is that of `Encryption.key_name`
    3  key management service  length of the name (1), the key's name there, ciphertext (text)
    4  customer's key          wrapped key; the customer's key is stored nowhere, nor is a digest of
                               it: that it opens the data key is what shows that it is the one

The kind of encryption, the content id, and the key's name and encryption context are bound to it
(associated data), so that a wrapped key opens for its own content only. What is copied within the
store keeps its content id.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import KV, At, Conflict, Put
from s3gw.metadata import keys
from s3gw.metadata.key_records import MasterKeysInUse
from s3gw.metadata.records import Encryption, decode, encode
from s3gw.objects.content import sealing
from s3gw.objects.content.framing import ContentDamaged
from s3gw.objects.content.sealing import KEY_BYTES, NotAuthentic
from s3gw.objects.keyring.master import (
    ID_BYTES,
    BadMasterKeys,
    MasterKeyMissing,
    MasterKeys,
)
from s3gw.objects.keyring.named import NAME, KeyExists, NamedKeys
from s3gw.objects.keyring.transit import Transit, version_of

SSE_S3, SSE_KMS, SSE_C = "AES256", "aws:kms", "customer"
UNDER_MASTER, UNDER_NAMED, UNDER_TRANSIT, UNDER_CUSTOMER = b"\x01", b"\x02", b"\x03", b"\x04"
# A process that still wraps under a master key which a job has just done away with notes it again.
NOTED_MS = 60_000
NO_MASTER_KEY = "Server-side encryption was asked for, but this store has no master key."


@dataclass(frozen=True, slots=True)
class Wanted:
    """The encryption that somebody wants for an object: its kind and, of SSE-KMS, the key's name
    ("" for the default key), the context and the bucket key flag; of SSE-C the customer's key."""

    kind: str
    key_name: str = ""
    context: str = ""
    bucket_key: bool = False
    customer_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where keys come from. `transit_key` is the key there under which SSE-S3 wraps; without it the
    master key does. `default_key` is that of SSE-KMS without a name."""

    region: str = "us-east-1"
    account: str = "000000000000"
    default_key: str = "default"
    master: MasterKeys | None = None
    transit: Transit | None = None
    transit_key: str = ""


class Ring:
    """The keys of one store, as one process reaches them."""

    def __init__(self, kv: KV, sources: Sources, clock_ms: Callable[[], int]) -> None:
        self._kv = kv
        self.sources = sources
        self.named = NamedKeys(kv, clock_ms)
        self._clock_ms = clock_ms
        self._noted_ms = 0

    # Names.

    def arn(self, name: str) -> str:
        """The ARN of a key, as clients see it."""
        return f"arn:aws:kms:{self.sources.region}:{self.sources.account}:key/{name}"

    def name_of(self, text: str) -> str:
        """The name in what a client calls a key: a name, an alias, or the ARN of either. Raises
        KMSNotFoundException."""
        name = text or self.sources.default_key
        if name.startswith("arn:"):
            prefix, _, name = name.rpartition(":")
            if prefix != self.arn("").rpartition(":")[0]:
                raise errors.KMSNotFoundException(f"Key '{text}' does not exist")
            kind, _, name = name.partition("/")
            if kind not in ("key", "alias"):
                raise errors.KMSNotFoundException(f"Key '{text}' does not exist")
        name = name.removeprefix("alias/")
        if not NAME.fullmatch(name):
            raise errors.KMSNotFoundException("The name is not that of a key.")
        return name

    # Data keys.

    async def new_key(self, wanted: Wanted, content_id: bytes) -> tuple[bytes, Encryption]:
        """A data key for a new content, and how it is kept. Raises S3Error."""
        data_key = os.urandom(KEY_BYTES)
        return data_key, await self.wrap(wanted, content_id, data_key)

    async def wrap(self, wanted: Wanted, content_id: bytes, data_key: bytes) -> Encryption:
        """How a data key is kept for whom it is wanted. Raises S3Error."""
        key_name = self.arn(self.name_of(wanted.key_name)) if wanted.kind == SSE_KMS else ""
        encryption = Encryption(wanted.kind, key_name, b"", wanted.context, wanted.bucket_key)
        wrapped = await self._wrapped(encryption, content_id, data_key, wanted.customer_key)
        return msgspec.structs.replace(encryption, wrapped_key=wrapped)

    async def _wrapped(
        self, encryption: Encryption, content_id: bytes, data_key: bytes, customer_key: bytes = b""
    ) -> bytes:
        context = _context(encryption, content_id)
        sources = self.sources
        if encryption.kind == SSE_C:
            return UNDER_CUSTOMER + sealing.wrap(customer_key, data_key, context)
        if encryption.kind == SSE_KMS or sources.transit_key:
            kms = encryption.kind == SSE_KMS
            name = _named_by(encryption.key_name) if kms else sources.transit_key
            if sources.transit is not None:
                text = await sources.transit.wrap(name, data_key, context)
                return _under_transit(name, text)
            return UNDER_NAMED + await self._wrap_named(name, data_key, context)
        return UNDER_MASTER + (await self.usable_master()).wrap(data_key, context)

    async def _wrap_named(self, name: str, data_key: bytes, context: bytes) -> bytes:
        master = await self.usable_master()
        try:
            try:
                return await self.named.wrap(name, master, data_key, context)
            except errors.KMSNotFoundException:
                if name != self.sources.default_key:
                    raise
            await self._make_default(name, master)
            return await self.named.wrap(name, master, data_key, context)
        except MasterKeyMissing as error:
            raise _missing(error) from error
        except NotAuthentic as error:
            raise ContentDamaged(f"key {name}: {error}") from error

    async def _make_default(self, name: str, master: MasterKeys) -> None:
        try:
            await self.named.create(name, master, "made when it was first needed")
        except KeyExists:
            return

    async def open(
        self, encryption: Encryption, content_id: bytes, customer_key: bytes = b""
    ) -> bytes:
        """The data key of a stored content. Raises S3Error (AccessDenied for another customer's
        key), ContentDamaged."""
        form, wrapped = encryption.wrapped_key[:1], encryption.wrapped_key[1:]
        context = _context(encryption, content_id)
        try:
            data_key = opened_by(encryption, content_id, self.sources.master, customer_key)
            if data_key is not None:
                return data_key
            if form == UNDER_TRANSIT and self.sources.transit is not None:
                name, text = _of_transit(wrapped)
                return await self.sources.transit.unwrap(name, text, context)
            if form == UNDER_NAMED and self.sources.master is not None:
                name = _named_by(encryption.key_name)
                return await self.named.unwrap(name, self.sources.master, wrapped, context)
        except MasterKeyMissing as error:
            raise _missing(error) from error
        except NotAuthentic as error:
            if form == UNDER_CUSTOMER:
                raise errors.AccessDenied() from None
            raise ContentDamaged(f"a data key: {error}") from error
        raise errors.ServiceUnavailable(
            "The keys that this object is encrypted with are not configured here."
        )

    async def rewrapped(self, encryption: Encryption, content_id: bytes) -> Encryption | None:
        """The same data key under the newest version of what it is under, or under the present
        master key; None when it is already, or is the customer's. Raises S3Error,
        ContentDamaged."""
        form, wrapped = encryption.wrapped_key[:1], encryption.wrapped_key[1:]
        if form == UNDER_TRANSIT and self.sources.transit is not None:
            name, before = _of_transit(wrapped)
            after = await self.sources.transit.rewrap(name, before)
            if version_of(after) == version_of(before):
                return None
            return msgspec.structs.replace(encryption, wrapped_key=_under_transit(name, after))
        if form == UNDER_CUSTOMER:
            return None
        if form == UNDER_MASTER and not self.sources.transit_key:
            if (await self.usable_master()).is_present(wrapped):
                return None
        elif form == UNDER_NAMED and self.sources.transit is None:
            name = _named_by(encryption.key_name)
            if await self.named.is_newest(name, wrapped):
                return None
        data_key = await self.open(encryption, content_id)
        anew = await self._wrapped(encryption, content_id, data_key)
        return msgspec.structs.replace(encryption, wrapped_key=anew)

    # Master keys.

    async def usable_master(self) -> MasterKeys:
        """The master keys, the present one noted as in use. Raises NotImplementedS3 without."""
        master = self.sources.master
        if master is None:
            raise errors.NotImplementedS3(NO_MASTER_KEY)
        if self._clock_ms() - self._noted_ms > NOTED_MS:
            await self.note_in_use(master.present)
            self._noted_ms = self._clock_ms()
        return master

    async def note_in_use(self, name: bytes) -> None:
        """Something is wrapped under the master key with this id."""
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            known, revision = await keys_in_use(self._kv)
            if name in known:
                return
            record = MasterKeysInUse((*known, name))
            guard = At(keys.MASTER_KEYS, revision)
            try:
                await self._kv.commit([guard], [Put(keys.MASTER_KEYS, encode(record))])
            except Conflict:
                continue
            return
        raise errors.OperationAborted("The master keys are changed too often by others.")

    async def forget_others(self, name: bytes) -> bool:
        """Nothing is under another master key than this one any more. False when they have changed
        meanwhile."""
        known, revision = await keys_in_use(self._kv)
        record = MasterKeysInUse(tuple(other for other in known if other == name))
        guard = At(keys.MASTER_KEYS, revision)
        try:
            await self._kv.commit([guard], [Put(keys.MASTER_KEYS, encode(record))])
        except Conflict:
            return False
        return True


def opened_by(
    encryption: Encryption, content_id: bytes, master: MasterKeys | None, customer_key: bytes
) -> bytes | None:
    """The data key, where the master keys or the customer's key alone open it; None where they do
    not, whatever they are. Raises MasterKeyMissing, NotAuthentic."""
    form, wrapped = encryption.wrapped_key[:1], encryption.wrapped_key[1:]
    context = _context(encryption, content_id)
    if form == UNDER_CUSTOMER and customer_key:
        return sealing.unwrap(customer_key, wrapped, context)
    if form == UNDER_MASTER and master is not None:
        return master.unwrap(wrapped, context)
    return None


def master_key_of(encryption: Encryption | None) -> bytes:
    """The id of the master key that a data key is wrapped under; b"" for none."""
    wrapped = b"" if encryption is None else encryption.wrapped_key
    return wrapped[1 : 1 + ID_BYTES] if wrapped[:1] == UNDER_MASTER else b""


async def keys_in_use(kv: KV) -> tuple[tuple[bytes, ...], int]:
    """The ids of the master keys that something is wrapped under, and the revision of that."""
    (item,) = (await kv.get_many([keys.MASTER_KEYS])).items
    if item is None:
        return (), 0
    return decode(MasterKeysInUse, item.value).ids, item.revision


async def require_master_keys(kv: KV, master: MasterKeys | None) -> None:
    """Refuse to go on without a master key that something is wrapped under. Raises BadMasterKeys,
    EngineError."""
    known, _ = await keys_in_use(kv)
    given = master.ids if master is not None else ()
    missing = [name.hex() for name in known if name not in given]
    if missing:
        raise BadMasterKeys(
            f"objects of this store are encrypted under the master key {', '.join(missing)} (its "
            "id), which is not among those configured: put it back, behind the present one if "
            "there is another by now"
        )


def _context(encryption: Encryption, content_id: bytes) -> bytes:
    bound = ("s3gw data key", encryption.kind, content_id, encryption.key_name, encryption.context)
    return msgspec.msgpack.encode(bound)


def _named_by(arn: str) -> str:
    """The name in a stored ARN; its region may have another name by now."""
    return arn.rpartition("/")[2]


def _under_transit(name: str, text: str) -> bytes:
    encoded = name.encode()
    return UNDER_TRANSIT + bytes((len(encoded),)) + encoded + text.encode()


def _of_transit(wrapped: bytes) -> tuple[str, str]:
    stop = 1 + wrapped[0]
    return wrapped[1:stop].decode(), wrapped[stop:].decode()


def _missing(error: MasterKeyMissing) -> errors.S3Error:
    return errors.ServiceUnavailable(
        f"The master key {error.args[0].hex()} that this object is encrypted under is not "
        "configured here."
    )
