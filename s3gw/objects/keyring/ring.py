"""The data keys of objects: made, wrapped, opened and wrapped anew.

Each object has a random data key, which is stored wrapped (`Encryption.wrapped_key`). Its first
byte says under what:

    1  master key              key id (8), wrapped key
    2  built-in named key      key id (8), version (4), wrapped key; the name is that of
                               `Encryption.key_name`
    3  key management service  length of the name (1), the key's name there, ciphertext (text)
    4  customer's key          wrapped key; the customer's key is stored nowhere, nor is a digest of
                               it: that it opens the data key is what shows that it is the one

The kind of encryption, the content id, and the key's name and encryption context are bound to it
(associated data), so that a wrapped key opens for its own content only. What is copied within the
store keeps its content id.

**Nothing is ever under a master key that the record `kms/master` does not name.** Whoever wraps
under the present one has read there that he may, and the commit that stores it is guarded by the
record as he read it. To do away with a master key it is barred there first: from that commit on
only what is stored already is under it, wherever it is moved to, and every move is guarded by the
record that it moves. So when one reading of everything at one later revision meets nothing under it
(s3gw.workers.rewrap), and the record is still as it was, nothing will ever be; it is struck out,
stays barred, and may be thrown away. A process that has it as its present one for all that is
refused: it was not started again with the new one.

**Nor is anything stored under a former version of a key of the key management service once the
proof has begun that nothing is.** The proof begins with a commit that writes `kms/transit`, and who
stores what he has wrapped there is guarded by that record. When he loses by it he asks the service
which version its keys have by now: what he has wrapped under a former one is refused.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from s3gw import errors, limits
from s3gw.kv.interface import KV, At, Conflict, Put
from s3gw.metadata import keys
from s3gw.metadata.key_records import KeyCopy, MasterKeysInUse, ProcessKeys
from s3gw.metadata.records import Encryption, decode, encode
from s3gw.metadata.store import Transaction
from s3gw.objects.content import sealing
from s3gw.objects.content.framing import ContentDamaged
from s3gw.objects.content.sealing import KEY_BYTES, NotAuthentic
from s3gw.objects.keyring.master import (
    ID_BYTES,
    BadMasterKeys,
    MasterKeyMissing,
    MasterKeys,
)
from s3gw.objects.keyring.named import NAME, KeyExists, MasterGuard, NamedKeys, opened_with
from s3gw.objects.keyring.transit import Transit, version_of

SSE_S3, SSE_KMS, SSE_C = "AES256", "aws:kms", "customer"
UNDER_MASTER, UNDER_NAMED, UNDER_TRANSIT, UNDER_CUSTOMER = b"\x01", b"\x02", b"\x03", b"\x04"
PROCESSES_MAX = 10_000
UNKNOWN = sys.maxsize
ROTATED = "The encryption key was rotated while the request was under way. Please try again."
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


class NewKey(NamedTuple):
    """A new data key and how it is kept; under a built-in named key with a copy of that."""

    data_key: bytes
    encryption: Encryption
    key_copy: KeyCopy | None = None


class Ring:
    """The keys of one store, as one process reaches them. `clock_ms` is Unix time in milliseconds,
    `monotonic` seconds."""

    def __init__(
        self,
        kv: KV,
        sources: Sources,
        clock_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kv = kv
        self.sources = sources
        guard = MasterGuard(self._master_guard, self.refresh)
        self.named = NamedKeys(kv, clock_ms, monotonic, guard)
        # Of `kms/master` as it says that the present master key may be wrapped under; 0: not known.
        self._master_revision = 0
        self._wraps = False
        # Of `kms/transit`, -1: not known; the keys there that this process has wrapped under, each
        # with the version below which nothing wrapped may be stored any more, which may be UNKNOWN.
        self._proof_revision = -1
        self._floors: dict[str, int] = {}

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

    async def new_key(self, wanted: Wanted, content_id: bytes) -> NewKey:
        """A data key for a new content, and how it is kept; whoever stores that has his commit
        guarded (`guard`). Raises S3Error."""
        return await self.wrap(wanted, content_id, os.urandom(KEY_BYTES))

    async def wrap(self, wanted: Wanted, content_id: bytes, data_key: bytes) -> NewKey:
        """How a data key is kept for whom it is wanted; as `new_key`."""
        key_name = self.arn(self.name_of(wanted.key_name)) if wanted.kind == SSE_KMS else ""
        encryption = Encryption(wanted.kind, key_name, b"", wanted.context, wanted.bucket_key)
        return await self._kept(encryption, content_id, data_key, wanted.customer_key)

    async def _kept(
        self, encryption: Encryption, content_id: bytes, data_key: bytes, customer_key: bytes = b""
    ) -> NewKey:
        wrapped, copy = await self._wrapped(encryption, content_id, data_key, customer_key)
        kept = msgspec.structs.replace(encryption, wrapped_key=wrapped)
        return NewKey(data_key, kept, copy)

    async def _wrapped(
        self, encryption: Encryption, content_id: bytes, data_key: bytes, customer_key: bytes
    ) -> tuple[bytes, KeyCopy | None]:
        context = _context(encryption, content_id)
        sources = self.sources
        if encryption.kind == SSE_C:
            return UNDER_CUSTOMER + sealing.wrap(customer_key, data_key, context), None
        if encryption.kind == SSE_KMS or sources.transit_key:
            kms = encryption.kind == SSE_KMS
            name = named_by(encryption.key_name) if kms else sources.transit_key
            if sources.transit is not None:
                wrapping = partial(sources.transit.wrap, name, data_key, context)
                return _under_transit(name, await self._noted(name, wrapping)), None
            wrapped, copy = await self._wrap_named(name, data_key, context)
            return UNDER_NAMED + wrapped, copy
        return UNDER_MASTER + (await self.usable_master()).wrap(data_key, context), None

    async def _wrap_named(
        self, name: str, data_key: bytes, context: bytes
    ) -> tuple[bytes, KeyCopy]:
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
                name = named_by(encryption.key_name)
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
            wrapping = partial(self.sources.transit.rewrap, name, before)
            after = await self._noted(name, wrapping)
            if version_of(after) == version_of(before):
                return None
            return msgspec.structs.replace(encryption, wrapped_key=_under_transit(name, after))
        if form == UNDER_CUSTOMER:
            return None
        if form == UNDER_MASTER and not self.sources.transit_key:
            if (await self.usable_master()).is_present(wrapped):
                return None
        elif form == UNDER_NAMED and self.sources.transit is None:
            name = named_by(encryption.key_name)
            if await self.named.is_newest(name, wrapped):
                return None
        data_key = await self.open(encryption, content_id)
        return (await self._kept(encryption, content_id, data_key)).encryption

    async def require_usable(self, encryption: Encryption | None) -> None:
        """That a named key may be used now, for who takes over what is sealed with it as it lies.
        Raises S3Error, as `open`."""
        wrapped = b"" if encryption is None else encryption.wrapped_key
        if encryption is not None and encryption.kind == SSE_KMS and wrapped[:1] == UNDER_NAMED:
            await self.named.require_usable(named_by(encryption.key_name), wrapped[1:])

    async def key_copy(self, encryption: Encryption | None) -> KeyCopy | None:
        """A copy of the built-in named key that something stored is sealed with, for the footers of
        shards; None for none."""
        if encryption is None or encryption.wrapped_key[:1] != UNDER_NAMED:
            return None
        return await self.named.copy_for(named_by(encryption.key_name), encryption.wrapped_key[1:])

    # Master keys.

    async def usable_master(self) -> MasterKeys:
        """The master keys, the present one noted as in use. Raises NotImplementedS3 without,
        ServiceUnavailable when it has been done away with."""
        master = self.sources.master
        if master is None:
            raise errors.NotImplementedS3(NO_MASTER_KEY)
        if not self._master_revision:
            self._master_revision = await self.note_in_use(master.present)
            self._wraps = True
        return master

    def _master_guard(self) -> At:
        return At(keys.MASTER_KEYS, self._master_revision)

    def guard(self, tx: Transaction, encryption: Encryption | None) -> None:
        """Have the commit that stores what was just wrapped take effect only if it may still be
        wrapped so. When it is lost: `refresh`. Raises ServiceUnavailable where it may not."""
        form = b"" if encryption is None else encryption.wrapped_key[:1]
        if form == UNDER_MASTER:
            tx.guards.append(self._master_guard())
        elif form == UNDER_TRANSIT and encryption is not None:
            name, text = _of_transit(encryption.wrapped_key[1:])
            if version_of(text) < self._floors.get(name, 0):
                raise errors.ServiceUnavailable(ROTATED, headers=dict(errors.RETRY_SOON))
            tx.guards.append(At(keys.TRANSIT_PROOF, max(0, self._proof_revision)))

    async def refresh(self, conflict: Conflict) -> None:
        """After a lost commit, if that may be why: learn again that the present master key may be
        wrapped under, or which version the keys of the service have by now. Raises S3Error when it
        may not."""
        lost = conflict.guard
        named = lost.key if isinstance(lost, At) else b""
        if self._proof_revision >= 0 and (lost is None or named == keys.TRANSIT_PROOF):
            await self.learn_proof()
        if not self._wraps or not (lost is None or named == keys.MASTER_KEYS):
            return
        # Somebody else in this process may have learned it again meanwhile, or be at it.
        if lost is None or lost == self._master_guard():
            self._master_revision = 0
        await self.usable_master()

    async def _noted(self, name: str, wrapping: Callable[[], Awaitable[str]]) -> str:
        """What was wrapped under a key of the service; what its commit is guarded by is known
        before that. A key that nothing was wrapped under is not noted: its name may be anything."""
        if self._proof_revision < 0:
            found = await self._proof_now()
            if self._proof_revision < 0:  # another's, and what he wrapped since, is not passed over
                self._proof_revision = found
        began, floor = self._proof_revision, self._floors.get(name)
        text = await wrapping()
        if began != self._proof_revision:
            self._floors.setdefault(name, UNKNOWN)
        elif floor == UNKNOWN:
            self._floors[name] = version_of(text)  # of the time of the proof, or a later one
        else:
            self._floors.setdefault(name, 0)
        return text

    async def _proof_now(self) -> int:
        (item,) = (await self._kv.get_many([keys.TRANSIT_PROOF])).items
        return item.revision if item is not None else 0

    async def learn_proof(self) -> None:
        """Learn of the last proof, and which version each key has that this process has wrapped
        under: what it wrapped under a former one has come too late. Where the service does not tell
        so of a key, everything has, until something is wrapped under it again."""
        transit, revision = self.sources.transit, await self._proof_now()
        if transit is None or revision == self._proof_revision:
            return

        async def version_now(name: str) -> int:
            try:
                return version_of(await transit.wrap(name, os.urandom(KEY_BYTES), b""))
            except errors.S3Error:  # it may be this key alone that is closed to the gateway
                return UNKNOWN

        asked = list(self._floors)
        versions = dict(zip(asked, await asyncio.gather(*map(version_now, asked)), strict=True))
        for name, floor in self._floors.items():
            self._floors[name] = max(floor, versions.get(name, UNKNOWN))
        self._proof_revision = max(revision, self._proof_revision)

    async def note_in_use(self, name: bytes) -> int:
        """Something is to be wrapped under the master key with this id, barred or not; the revision
        of what says so. Raises ServiceUnavailable for one that has been done away with."""
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            known, revision = await master_keys_known(self._kv)
            if name in known.ids and name not in known.barred:
                return revision
            if name in known.barred and name not in known.ids:
                raise errors.ServiceUnavailable(_replaced(name))
            ids = known.ids if name in known.ids else (*known.ids, name)
            barred = tuple(other for other in known.barred if other != name)
            try:
                return await self._commit(MasterKeysInUse(ids, barred), revision)
            except Conflict:
                continue
        raise errors.OperationAborted("The master keys are changed too often by others.")

    async def note_found(self, names: Iterable[bytes]) -> None:
        """Something stored is wrapped under these master keys, also under one that has been done
        away with; for recoveries."""
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            known, revision = await master_keys_known(self._kv)
            ids = tuple(dict.fromkeys((*known.ids, *sorted(names))))
            if ids == known.ids:
                return
            try:
                await self._commit(MasterKeysInUse(ids, known.barred), revision)
            except Conflict:
                continue
            return
        raise errors.OperationAborted("The master keys are changed too often by others.")

    async def bar_others(self) -> int:
        """Have nobody wrap under another master key than the present one; the revision of what says
        so. A process whose present one is another takes that back when it next wraps. Raises as
        `usable_master`, ServiceUnavailable also when it was usable when this process began."""
        for _ in range(limits.COMMIT_ATTEMPTS_MAX):
            master = await self.usable_master()
            await self.note_in_use(master.present)
            known, revision = await master_keys_known(self._kv)
            if master.present not in known.ids or master.present in known.barred:
                continue  # barred, or done away with, since it was noted
            every = dict.fromkeys((*known.barred, *known.ids))
            barred = tuple(name for name in every if name != master.present)
            if barred == known.barred:
                return revision
            try:
                revision = await self._commit(MasterKeysInUse(known.ids, barred), revision)
            except Conflict:
                continue
            self._master_revision = revision
            return revision
        raise errors.OperationAborted("The master keys are changed too often by others.")

    async def _commit(self, record: MasterKeysInUse, revision: int) -> int:
        guard = At(keys.MASTER_KEYS, revision)
        return await self._kv.commit([guard], [Put(keys.MASTER_KEYS, encode(record))])


def opened_by(
    encryption: Encryption,
    content_id: bytes,
    master: MasterKeys | None,
    customer_key: bytes,
    key_copy: KeyCopy | None = None,
) -> bytes | None:
    """The data key, where the master keys, with a copy of the named key if it is under one, or the
    customer's key alone open it; None where they do not, whatever they are. Raises
    MasterKeyMissing, NotAuthentic."""
    form, wrapped = encryption.wrapped_key[:1], encryption.wrapped_key[1:]
    context = _context(encryption, content_id)
    if form == UNDER_CUSTOMER and customer_key:
        return sealing.unwrap(customer_key, wrapped, context)
    if form == UNDER_MASTER and master is not None:
        return master.unwrap(wrapped, context)
    if form == UNDER_NAMED and master is not None and key_copy is not None:
        return opened_with(named_by(encryption.key_name), key_copy, master, wrapped, context)
    return None


def master_key_of(encryption: Encryption | None) -> bytes:
    """The id of the master key that a data key is wrapped under; b"" for none."""
    wrapped = b"" if encryption is None else encryption.wrapped_key
    return wrapped[1 : 1 + ID_BYTES] if wrapped[:1] == UNDER_MASTER else b""


async def keys_in_use(kv: KV) -> tuple[tuple[bytes, ...], int]:
    """The ids of the master keys that something is wrapped under, and the revision of that."""
    known, revision = await master_keys_known(kv)
    return known.ids, revision


async def master_keys_known(kv: KV) -> tuple[MasterKeysInUse, int]:
    """The record of master keys, and its revision."""
    (item,) = (await kv.get_many([keys.MASTER_KEYS])).items
    if item is None:
        return MasterKeysInUse(), 0
    return decode(MasterKeysInUse, item.value), item.revision


def process_record(sources: Sources) -> bytes:
    """What this process says of itself under its lease."""
    name = f"{socket.gethostname()} {os.getpid()}"
    return encode(ProcessKeys(name, sources.master.ids if sources.master is not None else ()))


async def processes(kv: KV) -> list[ProcessKeys]:
    """What the processes that live and serve objects say of their master keys, by name."""
    end = keys.after_prefix(keys.PROCESSES)
    page = await kv.scan(keys.PROCESSES, end, limit=PROCESSES_MAX)
    told = [decode(ProcessKeys, item.value) for item in page.items if item.value]
    return sorted(told, key=lambda process: process.name)


async def processes_behind(kv: KV, present: bytes) -> list[str]:
    """The names of processes that do not have this one as their present master key."""
    return [each.name for each in await processes(kv) if each.master_keys[:1] != (present,)]


async def require_master_keys(kv: KV, master: MasterKeys | None) -> None:
    """Refuse to go on without a master key that something is wrapped under, or with one as the
    present one that has been done away with. Raises BadMasterKeys, EngineError."""
    known, _ = await master_keys_known(kv)
    given = master.ids if master is not None else ()
    missing = [name.hex() for name in known.ids if name not in given]
    if missing:
        raise BadMasterKeys(
            f"objects of this store are encrypted under the master key {', '.join(missing)} (its "
            "id), which is not among those configured: put it back, behind the present one if "
            "there is another by now"
        )
    if master is not None and master.present in known.barred and master.present not in known.ids:
        raise BadMasterKeys(_replaced(master.present))


def _context(encryption: Encryption, content_id: bytes) -> bytes:
    bound = ("s3gw data key", encryption.kind, content_id, encryption.key_name, encryption.context)
    return msgspec.msgpack.encode(bound)


def named_by(arn: str) -> str:
    """The name in a stored ARN; its region may have another name by now."""
    return arn.rpartition("/")[2]


def _under_transit(name: str, text: str) -> bytes:
    encoded = name.encode()
    return UNDER_TRANSIT + bytes((len(encoded),)) + encoded + text.encode()


def _of_transit(wrapped: bytes) -> tuple[str, str]:
    stop = 1 + wrapped[0]
    return wrapped[1:stop].decode(), wrapped[stop:].decode()


def _replaced(name: bytes) -> str:
    return (
        f"the master key {name.hex()} (its id) has been replaced for good: put the present one of "
        "this store before it, or a new one, and start this process again"
    )


def _missing(error: MasterKeyMissing) -> errors.S3Error:
    return errors.ServiceUnavailable(
        f"The master key {error.args[0].hex()} that this object is encrypted under is not "
        "configured here."
    )
