"""What goes over the wire of the admin API about encryption keys and about compression."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

DELETE_DAYS_MIN, DELETE_DAYS_MAX = 7, 30

KeyName = Annotated[str, Meta(max_length=128, pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class KeyPath(Struct, forbid_unknown_fields=True):
    kms_key: KeyName


class CreateKey(Struct, forbid_unknown_fields=True):
    name: KeyName
    description: Annotated[str, Meta(max_length=1000)] = ""


class DeleteKey(Struct, forbid_unknown_fields=True):
    """The key is removed after so many days, and what is encrypted with it is lost then."""

    days: Annotated[int, Meta(ge=DELETE_DAYS_MIN, le=DELETE_DAYS_MAX)] = DELETE_DAYS_MAX


class Key(Struct):
    """A named key of the built-in key store. `state`: enabled, disabled, or pending deletion at
    `delete_after_ms`."""

    name: str
    arn: str
    state: str
    versions: int
    created_ms: int
    delete_after_ms: int
    description: str


class Keys(Struct):
    keys: list[Key]


class MasterKeys(Struct):
    """Master keys by their ids: the present one ("" for none), those that this process has, those
    that something is wrapped under, and those that may be taken from all configurations; what every
    process has; and the job that wraps anew, if there was one."""

    present: str
    configured: list[str]
    in_use: list[str]
    removable: list[str]
    processes: list[KeyProcess]
    rewrap: Rewrap | None = None


class KeyProcess(Struct):
    """The master keys of a process that serves objects. It is `behind` when it is to be started
    again with the present one of all, or the one that a job wraps under, as its own."""

    name: str
    present: str
    configured: list[str]
    behind: bool


class Rewrap(Struct):
    """Wrapping all data keys anew, under the master key with the id `master_key` ("" for none).
    `failed` records are still under former keys, `kept` ones under a former version of a named key
    that may not be used; `note` says why the last of them is, or what the job waits for. When it is
    `proving`, it reads everything once more, as it was at one moment."""

    state: str
    stage: str
    started_ms: int
    ended_ms: int
    walked: int
    rewrapped: int
    failed: int
    kept: int
    note: str
    proving: bool
    master_key: str


class SetCompression(Struct, forbid_unknown_fields=True):
    """How new objects of a bucket are compressed; "" for not at all."""

    compression: Literal["", "zstd"]


class Compression(Struct):
    bucket: str
    compression: str
