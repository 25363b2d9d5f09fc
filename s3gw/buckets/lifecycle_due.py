"""What lifecycle rules want of a version or an upload, and when.

    visible version    expires: a marker in front of it, or, where there is no versioning, for good
    noncurrent version removed for good, so long after it became noncurrent, and only while enough
                       younger ones are there
    delete marker      removed when it is all that is left of its key: at once
                       (ExpiredObjectDeleteMarker), or when it is as old as a version that expires
    both versions      moved to a colder storage class
    upload             aborted

Days are added to the time of the object and the sum is rounded up to a midnight in UTC. Where a
day lasts another number of seconds than a day (for tests), nothing is rounded.

Of several actions that are due the one for which S3 decides: permanent removal, then a move, then
a delete marker; of several moves the one to the coldest class (Amazon S3 User Guide, "Conflicts in
lifecycle configurations"). Of several rules that want the same, the one whose time comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from s3gw.buckets.lifecycle import DAY_MS, WATERFALL, Configuration, Move, Rule, When

SMALL_BYTES = 128 * 1024
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")


class Kind(IntEnum):
    """What is to be done, in order of precedence."""

    REMOVE = 1
    """Remove this version for good."""
    MOVE = 2
    """Move it to another storage class."""
    HIDE = 3
    """Put a delete marker in front of it."""
    ABORT = 4
    """Abort the upload."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a rule wants from `due_ms` on."""

    kind: Kind
    due_ms: int
    rule_id: str
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """A version or delete marker as rules see it. `since_ms` is when it was made; of a noncurrent
    one, when it became that. `newer` noncurrent versions are younger. A marker that is the newest
    of its key hides nothing when it is `alone`. `versioned`: the bucket has or had versioning."""

    key: str
    size: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = "STANDARD"
    since_ms: int = 0
    noncurrent: bool = False
    marker: bool = False
    versioned: bool = False
    newer: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now (None: nothing), and when to look again if it was done or there is nothing to
    do (None: never, unless something changes)."""

    action: Action | None
    look_ms: int | None
    hide: Action | None = None
    """The marker that is due as well, should the move before it not be possible now."""


def due_ms(since_ms: int, when: When, day_ms: int) -> int:
    """The time that `when` means for an object of `since_ms`.

    >>> due_ms(DAY_MS + 1, When(days=3), DAY_MS) // DAY_MS
    5
    """
    if when.date_ms:
        return when.date_ms
    due = since_ms + when.days * day_ms
    return due if day_ms != DAY_MS else -(-due // DAY_MS) * DAY_MS


def judge(
    configuration: Configuration, version: Version, now_ms: int, day_ms: int = DAY_MS
) -> Verdict:
    """What is to be done with a version now."""
    wanted = list(_wanted(configuration, version, day_ms))
    due = [action for action in wanted if action.due_ms <= now_ms]
    # Also at the time of what is not wanted now: enough younger ones may be there then.
    ever = _wanted(configuration, version, day_ms, anyhow=version.noncurrent)
    look = min((one.due_ms for one in ever if one.due_ms > now_ms), default=None)
    action = None
    if due:
        action = min(due, key=lambda one: (one.kind, -coldness(one.storage_class), one.due_ms))
    hide = next((one for one in due if one.kind is Kind.HIDE), None)
    return Verdict(action, look, hide)


def first_look(configuration: Configuration, version: Version, day_ms: int = DAY_MS) -> int | None:
    """When a version is to be looked at first, whatever is then beside it; None: never. It depends
    on the version's own record alone, so that whoever removes it knows the same time."""
    return min(
        (action.due_ms for action in _wanted(configuration, version, day_ms, anyhow=True)),
        default=None,
    )


def expiry(configuration: Configuration, version: Version, day_ms: int = DAY_MS) -> Action | None:
    """The expiration of a visible version that comes first, due or not."""
    wanted = [
        action
        for action in _wanted(configuration, version, day_ms)
        if action.kind in (Kind.REMOVE, Kind.HIDE)
    ]
    return min(wanted, key=lambda action: action.due_ms, default=None)


def abort(
    configuration: Configuration, key: str, initiated_ms: int, day_ms: int = DAY_MS
) -> Action | None:
    """When an upload is to be aborted; None: never."""
    wanted = [
        Action(Kind.ABORT, due_ms(initiated_ms, When(rule.aborts_after), day_ms), rule.id)
        for rule in configuration.rules
        if rule.aborts_after and key.startswith(rule.prefix)
    ]
    return min(wanted, key=lambda action: action.due_ms, default=None)


def coldness(storage_class: str) -> int:
    """Orders classes from warm to cold; those that are not S3's come right behind STANDARD.

    >>> coldness("STANDARD") < coldness("SLOW_DISKS") < coldness("STANDARD_IA")
    True
    """
    return 2 * WATERFALL.index(storage_class) if storage_class in WATERFALL else 1


def _wanted(
    configuration: Configuration, version: Version, day_ms: int, *, anyhow: bool = False
) -> Iterator[Action]:
    """All that rules want of a version at any time; `anyhow`: whatever is beside it."""
    for rule in configuration.rules:
        if not version.key.startswith(rule.prefix):
            continue  # almost all of a thousand rules, at the least cost
        if not rule.matches(version.key, version.tags, version.size):
            continue
        if version.noncurrent:
            yield from _of_noncurrent(configuration, rule, version, day_ms, anyhow=anyhow)
        elif version.marker:
            if version.alone or anyhow:
                yield from _of_marker(rule, version, day_ms)
        else:
            yield from _of_visible(configuration, rule, version, day_ms)


def _of_noncurrent(
    configuration: Configuration, rule: Rule, version: Version, day_ms: int, *, anyhow: bool
) -> Iterator[Action]:
    if rule.removes is not None and (anyhow or version.newer >= rule.newer):
        yield Action(Kind.REMOVE, due_ms(version.since_ms, rule.removes, day_ms), rule.id)
    for move in rule.noncurrent_moves:
        if anyhow or version.newer >= move.newer:
            yield from _moving(configuration, rule, move, version, day_ms)


def _of_marker(rule: Rule, version: Version, day_ms: int) -> Iterator[Action]:
    if rule.markers:
        yield Action(Kind.REMOVE, version.since_ms, rule.id)
    if rule.expires is not None:
        yield Action(Kind.REMOVE, due_ms(version.since_ms, rule.expires, day_ms), rule.id)


def _of_visible(
    configuration: Configuration, rule: Rule, version: Version, day_ms: int
) -> Iterator[Action]:
    if rule.expires is not None:
        kind = Kind.HIDE if version.versioned else Kind.REMOVE
        yield Action(kind, due_ms(version.since_ms, rule.expires, day_ms), rule.id)
    for move in rule.moves:
        yield from _moving(configuration, rule, move, version, day_ms)


def _moving(
    configuration: Configuration, rule: Rule, move: Move, version: Version, day_ms: int
) -> Iterator[Action]:
    """The move, unless the version is as cold already, or is too small."""
    target = move.storage_class
    if version.marker or coldness(target) <= coldness(version.storage_class):
        return
    by_class = configuration.small_move_by_class and target in ARCHIVES
    if version.size < SMALL_BYTES and not rule.bounds_size and not by_class:
        return
    yield Action(Kind.MOVE, due_ms(version.since_ms, move.when, day_ms), rule.id, target)
