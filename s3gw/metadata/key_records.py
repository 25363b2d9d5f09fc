"""The records of encryption keys: which master keys are in use and which processes have which, the
named keys of the built-in key store, and the job that wraps data keys anew. As in
`s3gw.metadata.records`."""

from __future__ import annotations

import msgspec


class MasterKeysInUse(msgspec.Struct, array_like=True, frozen=True):
    """The ids of the master keys that something stored is, or may be, wrapped under. A process that
    lacks one does not start. Under those that are `barred` nothing new is wrapped: what is in `ids`
    as well is about to be replaced, what is not is done with, for ever."""

    ids: tuple[bytes, ...] = ()
    barred: tuple[bytes, ...] = ()


class ProcessKeys(msgspec.Struct, array_like=True, frozen=True):
    """What a process that serves objects says of itself while it lives: where it runs, and the ids
    of its master keys, the present one first."""

    name: str
    master_keys: tuple[bytes, ...] = ()


class NamedKey(msgspec.Struct, array_like=True, frozen=True):
    """A named key of SSE-KMS. `state`: enabled, disabled or pending (it is removed at
    `delete_after_ms`). `versions` are its keys, oldest first, each wrapped under a master key; b""
    for one that a recovery has not found. `key_id` tells it from others that had its name."""

    created_ms: int
    state: str
    versions: tuple[bytes, ...]
    delete_after_ms: int = 0
    description: str = ""
    key_id: bytes = b""


class KeyCopy(msgspec.Struct, array_like=True, frozen=True):
    """One version of a named key, as it was kept when a shard was written that is sealed with it:
    in the shard's footer, so that drives and master keys are enough to read it."""

    key_id: bytes
    version: int
    wrapped: bytes
    created_ms: int = 0


class TransitProof(msgspec.Struct, array_like=True, frozen=True):
    """From the revision of this record on nothing is stored that was wrapped by a key management
    service before, under a version of its key that was not the newest any more."""

    begun_ms: int


class RewrapJob(msgspec.Struct, array_like=True, frozen=True):
    """Wrapping all data keys anew, under the newest version of what each is wrapped under. `state`:
    walking or done. `stage` and `cursor` say where the walk is, `walked` how many records it has
    seen, `rewrapped` how many it has changed (`rewrapped_before`: in former rounds), and `failed`
    how many it could not; `kept` are under a former version of a named key that may not be used.
    `master_key` is the id of the one that the job wraps under. While it is `proving`, it reads at
    `revision` (0: that at which this record was written), with the record of master keys in use as
    it was written at `master_revision`."""

    started_ms: int
    state: str = "walking"
    stage: str = ""
    cursor: bytes = b""
    walked: int = 0
    rewrapped: int = 0
    failed: int = 0
    ended_ms: int = 0
    master_key: bytes = b""
    note: str = ""
    rewrapped_before: int = 0
    proving: bool = False
    revision: int = 0
    master_revision: int = 0
    kept: int = 0
