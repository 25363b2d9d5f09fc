"""The records of lifecycle rules: what is to be looked at when, and how far the work has come.

The form is that of `s3gw.metadata.records`: fields are only ever appended.
"""

from __future__ import annotations

import msgspec


class Due(msgspec.Struct, array_like=True, frozen=True):
    """A queue entry: a version, a key or an upload of `bucket` is to be looked at. Its key says
    which, and names the bucket by its id: one made later under the same name is another. `attempts`
    counts how often in a row that could not be done, the last time because no placement group of
    the profile `waits` has all its nodes, if that is why.

    Of a key that had to wait, `since` and `since_ms` are revision and due time of its first entry;
    of a version, `through` is the sequence of another behind it: all between them are to be looked
    at as well."""

    bucket: str
    attempts: int = 0
    waits: str = ""
    since: int = 0
    since_ms: int = 0
    through: int = 0


class LifecycleJob(msgspec.Struct, array_like=True, frozen=True):
    """The walk over a bucket whose rules were changed, which queues what is there; it goes when
    that is done. `stage` and `cursor` say where it is: of objects, versions or uploads, behind
    this key. `seen` counts records, `queued` the entries made for them."""

    bucket_id: bytes
    started_ms: int
    stage: str = ""
    cursor: bytes = b""
    seen: int = 0
    queued: int = 0


class LifecycleRun(msgspec.Struct, array_like=True, frozen=True):
    """What the last run over the queue did that met anything: entries looked at; versions removed,
    hidden behind a marker, and moved to another class; markers removed; uploads aborted; entries
    that wait for a lock to end or for nodes, and those that others changed meanwhile."""

    started_ms: int
    ended_ms: int = 0
    looked: int = 0
    removed: int = 0
    hidden: int = 0
    markers: int = 0
    moved: int = 0
    aborted: int = 0
    waiting: int = 0
    lost: int = 0
