"""Lifecycle configurations: the document, and the rules that it makes.

What the rules mean for a version or an upload at a time is in `s3gw.buckets.lifecycle_due`.

A rule picks objects by prefix, tags and size (in a `Filter`, or a `Prefix` of its own as documents
had it before filters), and says what becomes of them: of visible versions, noncurrent versions,
delete markers that hide nothing, uploads. What its shape cannot say is refused with the codes that
S3 sends: InvalidArgument for values, InvalidRequest for combinations, MalformedXML for the rest.

Source: Amazon S3 API Reference, PutBucketLifecycleConfiguration; User Guide, "Lifecycle
configuration elements".
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from s3gw import limits
from s3gw.buckets.document import (
    Choice,
    Document,
    Flag,
    Integer,
    Structure,
    Text,
    Value,
    optional,
    required,
    several,
)
from s3gw.buckets.tagging import TAG
from s3gw.errors import (
    InvalidArgument,
    InvalidRequest,
    MalformedXML,
    MaxMessageLengthExceeded,
)
from s3gw.wire.dates import iso8601_ms, parse_iso8601_ms
from s3gw.wire.tagging import check_tags

NAME = "lifecycle"
"""The name of the document among a bucket's, and of what else the bucket's record says of it."""
MINIMUM_SIZE_NAME = "lifecycle-minimum-size"
MINIMUM_SIZE_HEADER = "x-amz-transition-default-minimum-object-size"
ALL_CLASSES_128K = "all_storage_classes_128K"
BY_CLASS = "varies_by_storage_class"
MINIMUM_SIZES = (ALL_CLASSES_128K, BY_CLASS)

RULE_ID_CHARACTERS_MAX = 255
NEWER_VERSIONS_MAX = 100
DAY_MS = 86_400_000
INFREQUENT_DAYS_MIN = 30
INFREQUENT = ("STANDARD_IA", "ONEZONE_IA")
# From warm to cold: S3 moves objects along this line and never back (User Guide, "Transitioning
# objects using Amazon S3 Lifecycle").
WATERFALL = (
    "STANDARD",
    "STANDARD_IA",
    "INTELLIGENT_TIERING",
    "ONEZONE_IA",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
)

# What is no number at all is no document; a number that means nothing is refused by `_check`.
_ANY = Integer(-(2**31), 2**31 - 1)
_BYTES = Integer(-(2**63), 2**63 - 1)
_SIZES = (
    optional("ObjectSizeGreaterThan", _BYTES),
    optional("ObjectSizeLessThan", _BYTES),
)
_AND = Structure((optional("Prefix", Text()), several("Tag", TAG), *_SIZES))
_FILTER = Structure(
    (optional("Prefix", Text()), optional("Tag", TAG), *_SIZES, optional("And", _AND))
)
_EXPIRATION = Structure(
    (
        optional("Date", Text()),
        optional("Days", _ANY),
        optional("ExpiredObjectDeleteMarker", Flag()),
    ),
    union=True,
)
_TRANSITION = Structure(
    (optional("Date", Text()), optional("Days", _ANY), required("StorageClass", Text(1, 64)))
)
_NONCURRENT_TRANSITION = Structure(
    (
        required("NoncurrentDays", _ANY),
        required("StorageClass", Text(1, 64)),
        optional("NewerNoncurrentVersions", _ANY),
    )
)
_NONCURRENT_EXPIRATION = Structure(
    (required("NoncurrentDays", _ANY), optional("NewerNoncurrentVersions", _ANY))
)
_RULE = Structure(
    (
        optional("ID", Text()),
        optional("Prefix", Text()),
        optional("Filter", _FILTER),
        required("Status", Choice(("Enabled", "Disabled"))),
        optional("Expiration", _EXPIRATION),
        several("Transition", _TRANSITION),
        several("NoncurrentVersionTransition", _NONCURRENT_TRANSITION),
        optional("NoncurrentVersionExpiration", _NONCURRENT_EXPIRATION),
        optional(
            "AbortIncompleteMultipartUpload", Structure((required("DaysAfterInitiation", _ANY),))
        ),
    )
)
_ACTIONS = (
    "Expiration",
    "Transition",
    "NoncurrentVersionTransition",
    "NoncurrentVersionExpiration",
    "AbortIncompleteMultipartUpload",
)


def _argument(message: str, value: object) -> InvalidArgument:
    return InvalidArgument(message, ArgumentValue=str(value))


def _check(value: Value) -> None:
    rules = value["Rule"]
    if len(rules) > limits.LIFECYCLE_RULES_MAX:
        raise InvalidRequest(
            "The number of lifecycle rules must not exceed the allowed limit of "
            f"{limits.LIFECYCLE_RULES_MAX} rules."
        )
    seen: set[str] = set()
    for rule in rules:
        id_ = rule.get("ID", "")
        if len(id_) > RULE_ID_CHARACTERS_MAX:
            raise _argument(
                f"ID length should not exceed allowed limit of {RULE_ID_CHARACTERS_MAX}", id_
            )
        if id_ and id_ in seen:
            raise _argument("Rule ID must be unique. Found same ID for more than one rule", id_)
        seen.add(id_)
        _check_filter(rule)
        _check_actions(rule)
        _check_transitions(rule)
        _check_noncurrent(rule)


def _check_filter(rule: Value) -> None:
    """Either a prefix or a filter; of the latter one condition, or several in an `And`."""
    if ("Prefix" in rule) == ("Filter" in rule):
        raise MalformedXML
    chosen = rule.get("Filter", {})
    conditions = chosen
    if "And" in chosen:
        conditions = chosen["And"]
        if len(chosen) > 1 or sum(map(len, _parts(conditions))) < 2:
            raise MalformedXML
    elif len(chosen) > 1:
        raise MalformedXML
    if len(_prefix(rule).encode()) > limits.KEY_BYTES_MAX:
        raise InvalidRequest(
            f"The maximum size of a prefix is {limits.KEY_BYTES_MAX}.", Prefix=_prefix(rule)
        )
    check_tags(_tags(rule))
    above = conditions.get("ObjectSizeGreaterThan")
    below = conditions.get("ObjectSizeLessThan")
    for name, size in (("ObjectSizeGreaterThan", above), ("ObjectSizeLessThan", below)):
        if size is not None and not 0 <= size <= limits.OBJECT_BYTES_MAX:
            raise _argument(f"'{name}' must be between 0 and {limits.OBJECT_BYTES_MAX} bytes", size)
    if above is not None and below is not None and below <= above + 1:
        raise InvalidRequest(
            "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'"
        )


def _parts(conditions: Value) -> list[Sequence[object]]:
    """The conditions of an `And`, each tag counted."""
    return [part if isinstance(part, list) else (part,) for part in conditions.values()]


def _conditions(rule: Value) -> Value:
    chosen: Value = rule.get("Filter", {})
    conditions: Value = chosen.get("And", chosen)
    return conditions


def _prefix(rule: Value) -> str:
    return str(rule.get("Prefix", _conditions(rule).get("Prefix", "")))


def _tags(rule: Value) -> list[tuple[str, str]]:
    tags = _conditions(rule).get("Tag", [])
    listed = tags if isinstance(tags, list) else [tags]
    return [(tag["Key"], tag["Value"]) for tag in listed]


def _sizes(rule: Value) -> bool:
    conditions = _conditions(rule)
    return "ObjectSizeGreaterThan" in conditions or "ObjectSizeLessThan" in conditions


def _filter_text(rule: Value) -> str:
    """The filter as errors show it."""
    parts = [f"prefix={_prefix(rule)}"]
    parts += [f"tag={{key={name}, value={value}}}" for name, value in _tags(rule)]
    return f"({' and '.join(parts)})"


def _check_actions(rule: Value) -> None:
    if not any(name in rule for name in _ACTIONS):
        raise InvalidRequest("At least one action needs to be specified in a rule")
    expiration = rule.get("Expiration", {})
    days = expiration.get("Days")
    if days is not None and days < 1:
        raise _argument("'Days' for Expiration action must be a positive integer", days)
    if "Date" in expiration:
        _date_ms(expiration["Date"])
    picky = "Tags" if _tags(rule) else "an object size filter" if _sizes(rule) else ""
    if picky and "ExpiredObjectDeleteMarker" in expiration:
        raise InvalidRequest(f"ExpiredObjectDeleteMarker cannot be specified with {picky}.")
    abort = rule.get("AbortIncompleteMultipartUpload")
    if abort is not None:
        days = abort["DaysAfterInitiation"]
        if picky:
            raise InvalidRequest(
                f"AbortIncompleteMultipartUpload cannot be specified with {picky}."
            )
        if days < 1:
            raise _argument(
                "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a "
                "positive integer",
                days,
            )


def _date_ms(text: str) -> int:
    """A date's Unix milliseconds. Raises InvalidArgument unless it is a midnight in UTC."""
    moment = parse_iso8601_ms(text)
    if moment is None or moment < 0:
        raise MalformedXML
    if moment % DAY_MS:
        raise _argument("'Date' must be at midnight GMT", text)
    return moment


def _check_transitions(rule: Value) -> None:
    transitions = rule.get("Transition", [])
    times: list[tuple[str, int, str]] = []
    for transition in transitions:
        if ("Days" in transition) == ("Date" in transition):
            raise MalformedXML
        if "Date" in transition:
            times.append(("Date", _date_ms(transition["Date"]), transition["StorageClass"]))
        else:
            days = transition["Days"]
            if days < 0:
                raise _argument("'Days' in Transition action must be nonnegative", days)
            times.append(("Days", days, transition["StorageClass"]))
    expiration = rule.get("Expiration", {})
    kinds = {kind for kind, _, _ in times}
    shown = _filter_text(rule)
    if len(kinds) > 1:
        raise InvalidRequest(
            "Found mixed 'Date' and 'Days' based Transition actions in lifecycle rule for filter "
            f"'{shown}'"
        )
    if kinds and kinds ^ ({"Days", "Date"} & expiration.keys()) == {"Days", "Date"}:
        raise InvalidRequest(
            "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle "
            f"rule for filter '{shown}'"
        )
    _check_order("Transition", times, shown)
    for kind, time, _ in times:
        if kind in expiration:
            end = expiration["Days"] if kind == "Days" else _date_ms(expiration["Date"])
            if end <= time:
                raise _argument(
                    f"'{kind}' in the Expiration action for filter '{shown}' must be greater than "
                    f"'{kind}' in the Transition action",
                    expiration[kind],
                )


def _check_order(action: str, times: Sequence[tuple[str, int, str]], shown: str) -> None:
    """Each class once, and colder ones later. `times` has (name of the time, time, class)."""
    classes = [storage_class for _, _, storage_class in times]
    if len(set(classes)) != len(classes):
        raise InvalidRequest(
            f"'StorageClass' must be different for '{action}' actions in same 'Rule' with filter "
            f"'{shown}'"
        )
    for kind, time, storage_class in times:
        if storage_class in INFREQUENT and kind != "Date" and time < INFREQUENT_DAYS_MIN:
            raise _argument(
                f"'{kind}' in {action} action must be greater than or equal to "
                f"{INFREQUENT_DAYS_MIN} for storageClass '{storage_class}'",
                time,
            )
    ranked = sorted(
        (WATERFALL.index(name), time, kind, name) for kind, time, name in times if name in WATERFALL
    )
    for (_, before, _, warm), (_, after, kind, cold) in itertools.pairwise(ranked):
        if after <= before:
            raise _argument(
                f"'{kind}' in the {action} action for StorageClass '{cold}' for filter '{shown}' "
                f"must be greater than '{kind}' in the {action} action for StorageClass '{warm}' "
                f"for filter '{shown}'",
                after,
            )


def _check_noncurrent(rule: Value) -> None:
    transitions = rule.get("NoncurrentVersionTransition", [])
    expiration = rule.get("NoncurrentVersionExpiration")
    shown = _filter_text(rule)
    for transition in transitions:
        if transition["NoncurrentDays"] < 0:
            raise _argument(
                "'NoncurrentDays' in NoncurrentVersionTransition action must be nonnegative",
                transition["NoncurrentDays"],
            )
        _check_newer(rule, transition, "NoncurrentVersionTransition")
    _check_order(
        "NoncurrentVersionTransition",
        [("NoncurrentDays", t["NoncurrentDays"], t["StorageClass"]) for t in transitions],
        shown,
    )
    if expiration is None:
        return
    days = expiration["NoncurrentDays"]
    if days < 1:
        raise _argument(
            "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer",
            days,
        )
    _check_newer(rule, expiration, "NoncurrentVersionExpiration")
    if any(days <= transition["NoncurrentDays"] for transition in transitions):
        raise _argument(
            "'NoncurrentDays' in the NoncurrentVersionExpiration action for filter "
            f"'{shown}' must be greater than 'NoncurrentDays' in the "
            "NoncurrentVersionTransition action",
            days,
        )


def _check_newer(rule: Value, action: Value, name: str) -> None:
    newer = action.get("NewerNoncurrentVersions")
    if newer is None:
        return
    if "Filter" not in rule:
        raise InvalidRequest(f"NewerNoncurrentVersions for {name} needs a Filter in its rule.")
    if not 1 <= newer <= NEWER_VERSIONS_MAX:
        raise _argument(
            f"'NewerNoncurrentVersions' for {name} action must be a positive integer, at most "
            f"{NEWER_VERSIONS_MAX}",
            newer,
        )


LIFECYCLE = Document(
    NAME,
    "LifecycleConfiguration",
    Structure((several("Rule", _RULE, least=1),)),
    _check,
    limits.LIFECYCLE_BYTES_MAX,
)


def parse(body: bytes) -> Value:
    """A configuration as sent; rules without an id get one, and dates their canonical form.
    Raises S3Error."""
    value = LIFECYCLE.parse(body)
    for rule in value["Rule"]:
        rule["ID"] = rule.get("ID") or os.urandom(24).hex()
        for action in (rule.get("Expiration", {}), *rule.get("Transition", [])):
            if "Date" in action:
                action["Date"] = iso8601_ms(_date_ms(action["Date"]))
    return value


def store(value: Value) -> bytes:
    """A configuration as the bucket's record has it: read far more often than it is shown, so that
    it is not XML. Raises MaxMessageLengthExceeded."""
    stored = msgspec.msgpack.encode(value)
    if len(stored) > limits.LIFECYCLE_BYTES_MAX:
        raise MaxMessageLengthExceeded(MaxMessageLengthBytes=str(limits.LIFECYCLE_BYTES_MAX))
    return stored


def read(stored: bytes) -> Value:
    """What `store` was given."""
    value: Value = msgspec.msgpack.decode(stored)
    return value


def storage_classes(value: Value) -> set[str]:
    """The classes that a configuration moves objects to."""
    return {
        transition["StorageClass"]
        for rule in value["Rule"]
        for name in ("Transition", "NoncurrentVersionTransition")
        for transition in rule.get(name, [])
    }


@dataclass(frozen=True, slots=True)
class When:
    """A time: `days` after an object's own, or since a date (`date_ms` is not 0)."""

    days: int = 0
    date_ms: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """To `storage_class`; of noncurrent versions only those that have `newer` younger ones."""

    when: When
    storage_class: str
    newer: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """An enabled rule. `above` and `below` bound sizes, -1 for no bound. `expires` is about visible
    versions and markers that hide nothing, `markers` about the latter at once; `removes` (with
    `newer`: the number of younger ones that stay) and `noncurrent_moves` about noncurrent versions;
    `aborts_after` days about uploads, 0 for never."""

    id: str
    prefix: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    above: int = -1
    below: int = -1
    expires: When | None = None
    markers: bool = False
    moves: tuple[Move, ...] = ()
    noncurrent_moves: tuple[Move, ...] = ()
    removes: When | None = None
    newer: int = 0
    aborts_after: int = 0

    def matches(self, key: str, tags: Mapping[str, str], size: int) -> bool:
        """Whether an object is one of those that the rule is about."""
        return (
            key.startswith(self.prefix)
            and size > self.above
            and (self.below < 0 or size < self.below)
            and all(tags.get(name) == value for name, value in self.tags)
        )

    @property
    def bounds_size(self) -> bool:
        return self.above >= 0 or self.below >= 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """The enabled rules of a bucket. `small_move_by_class`: objects below 128 KiB may go to the
    archive classes even by a rule that says nothing of sizes."""

    rules: tuple[Rule, ...]
    small_move_by_class: bool = False

    def newer_kept(self, key: str) -> tuple[int, int]:
        """The least and the largest number of younger noncurrent versions that rules about this
        key ask for; 0 and 0 when none does."""
        asked = [
            newer
            for rule in self.rules
            if key.startswith(rule.prefix)
            for newer in (rule.newer, *(move.newer for move in rule.noncurrent_moves))
            if newer
        ]
        return (min(asked), max(asked)) if asked else (0, 0)

    def cleans_markers(self, key: str) -> bool:
        """Whether a marker of this key goes once it hides nothing."""
        return any(
            rule.markers or rule.expires is not None
            for rule in self.rules
            if key.startswith(rule.prefix)
        )


def of_bucket(documents: Mapping[str, bytes]) -> Configuration | None:
    """The configuration among a bucket's documents; None without one."""
    stored = documents.get(NAME)
    if stored is None:
        return None
    return _configuration(stored, documents.get(MINIMUM_SIZE_NAME, b""))


@lru_cache(maxsize=64)
def _configuration(stored: bytes, minimum_size: bytes) -> Configuration:
    rules = tuple(_rule(rule) for rule in read(stored)["Rule"] if rule["Status"] == "Enabled")
    return Configuration(rules, minimum_size.decode() == BY_CLASS)


def _rule(rule: Value) -> Rule:
    conditions = _conditions(rule)
    expiration = rule.get("Expiration", {})
    noncurrent = rule.get("NoncurrentVersionExpiration")
    return Rule(
        id=rule["ID"],
        prefix=_prefix(rule),
        tags=tuple(_tags(rule)),
        above=conditions.get("ObjectSizeGreaterThan", -1),
        below=conditions.get("ObjectSizeLessThan", -1),
        expires=_when(expiration) if "Days" in expiration or "Date" in expiration else None,
        markers=expiration.get("ExpiredObjectDeleteMarker", False),
        moves=tuple(Move(_when(t), t["StorageClass"]) for t in rule.get("Transition", [])),
        noncurrent_moves=tuple(
            Move(When(t["NoncurrentDays"]), t["StorageClass"], t.get("NewerNoncurrentVersions", 0))
            for t in rule.get("NoncurrentVersionTransition", [])
        ),
        removes=When(noncurrent["NoncurrentDays"]) if noncurrent is not None else None,
        newer=noncurrent.get("NewerNoncurrentVersions", 0) if noncurrent is not None else 0,
        aborts_after=rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation", 0),
    )


def _when(action: Value) -> When:
    return When(date_ms=_date_ms(action["Date"])) if "Date" in action else When(action["Days"])
