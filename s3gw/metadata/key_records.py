"""The records of encryption keys: which master keys are in use, the named keys of the built-in key
store, and the job that wraps data keys anew. As in `s3gw.metadata.records`."""

from __future__ import annotations

import msgspec


class MasterKeysInUse(msgspec.Struct, array_like=True, frozen=True):
    """The ids of the master keys that something stored is wrapped under. A process that lacks one
    does not start."""

    ids: tuple[bytes, ...] = ()


class NamedKey(msgspec.Struct, array_like=True, frozen=True):
    """A named key of SSE-KMS. `state`: enabled, disabled or pending (it is removed at
    `delete_after_ms`). `versions` are its keys, oldest first, each wrapped under a master key."""

    created_ms: int
    state: str
    versions: tuple[bytes, ...]
    delete_after_ms: int = 0
    description: str = ""


class RewrapJob(msgspec.Struct, array_like=True, frozen=True):
    """Wrapping all data keys anew, under the newest version of what each is wrapped under. `state`:
    walking or done. `stage` and `cursor` say where the walk is, `walked` how many records it has
    seen, `rewrapped` how many it has changed (`rewrapped_before`: in former rounds, -1 in the
    first), and `failed` how many it could not. `master_key` is the id of the one that the job wraps
    under."""

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
