"""Entries of the queue `due/` as the worker of lifecycle rules deals with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from s3gw.kv.interface import Item
from s3gw.metadata import keys
from s3gw.metadata.lifecycle_records import Due
from s3gw.metadata.records import decode


@dataclass(frozen=True, slots=True)
class Entry:
    """A queue entry as read. Its subject is a version (`sequence`; 0: the key as a whole) or an
    upload (`upload_id`). What is done for it does not look behind the version unless it
    `leads_on`. `since` (never 0) and `since_ms` are of a key, `through` of a
    version: see `Due`."""

    item: Item
    bucket_name: str
    bucket_id: bytes
    subject: bytes
    key: str
    sequence: int
    upload_id: bytes
    attempts: int = 0
    leads_on: bool = True
    since: int = 0
    since_ms: int = 0
    through: int = 0

    @property
    def about(self) -> bytes:
        """What it is about, for comparing."""
        return self.bucket_id + self.subject

    def with_since_of(self, other: Entry) -> Entry:
        """To be looked at for both."""
        since, since_ms = min(self.since, other.since), min(self.since_ms, other.since_ms)
        return dataclasses.replace(self, since=since, since_ms=since_ms)


class Next(NamedTuple):
    """An entry to come: its key, and what is in it (see `Due`)."""

    key: bytes
    attempts: int = 0
    waits: str = ""
    since: int = 0
    since_ms: int = 0
    through: int = 0

    def record(self, bucket_name: str) -> Due:
        """As it is written."""
        return Due(bucket_name, self.attempts, self.waits, self.since, self.since_ms, self.through)


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry that was dealt with. It goes, unless it is `gone`, and these come in its place."""

    entry: Entry
    again: Sequence[Next] = ()
    gone: bool = False

    @property
    def writes(self) -> int:
        return len(self.again) + (not self.gone)


def entry_of(item: Item) -> Entry:
    """An entry as read. Raises what a damaged one makes fail."""
    due_ms, bucket_id, subject = keys.split_due(item.key)
    key, sequence, upload_id = keys.split_subject(subject)
    due = decode(Due, item.value)
    about_key = not sequence and not upload_id
    return Entry(
        item,
        due.bucket,
        bucket_id,
        subject,
        key,
        sequence,
        upload_id,
        due.attempts,
        since=(due.since or item.revision) if about_key else 0,
        since_ms=due.since_ms or due_ms,
        through=due.through,
    )


def about_version(entry: Entry, sequence: int, *, leads_on: bool = True, through: int = 0) -> Entry:
    """For a version of the key that an entry is about."""
    subject = keys.due_version(entry.key, sequence)
    return dataclasses.replace(
        entry, sequence=sequence, subject=subject, leads_on=leads_on, since=0, through=through
    )
