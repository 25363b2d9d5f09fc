"""What rules want of a version at a time: tables, and what holds for all rules and versions."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.buckets.lifecycle import DAY_MS, Configuration, Move, Rule, When
from s3gw.buckets.lifecycle_due import (
    Kind,
    Version,
    abort,
    coldness,
    due_ms,
    expiry,
    first_look,
    judge,
)

BIG = 1 << 20
NOON = DAY_MS // 2


def rules(*given_rules: Rule, small: bool = False) -> Configuration:
    return Configuration(given_rules, small)


def version(**changes: object) -> Version:
    return dataclasses.replace(Version("k", BIG), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("since", "when", "day", "due"),
    [
        (0, When(1), DAY_MS, DAY_MS),
        (1, When(1), DAY_MS, 2 * DAY_MS),
        (NOON, When(3), DAY_MS, 4 * DAY_MS),
        (DAY_MS - 1, When(0), DAY_MS, DAY_MS),
        (NOON, When(0), DAY_MS, DAY_MS),
        (12_345, When(3), 1000, 15_345),
        (12_345, When(date_ms=7 * DAY_MS), DAY_MS, 7 * DAY_MS),
        (9 * DAY_MS, When(date_ms=7 * DAY_MS), 1000, 7 * DAY_MS),
    ],
)
def test_days_are_rounded_up_to_a_midnight_unless_a_day_is_another(
    since: int, when: When, day: int, due: int
) -> None:
    assert due_ms(since, when, day) == due


EXPIRES = Rule("e", expires=When(10))
MARKERS = Rule("m", markers=True)
REMOVES = Rule("r", removes=When(10))
KEEPS = Rule("n", removes=When(10), newer=2)
GLACIER = Rule("g", moves=(Move(When(10), "GLACIER"),))
ARCHIVE = Rule("d", moves=(Move(When(10), "DEEP_ARCHIVE"),))
NONCURRENT_GLACIER = Rule("ng", noncurrent_moves=(Move(When(10), "GLACIER", 1),))
OLD = 11 * DAY_MS

TABLE: list[tuple[str, Configuration, Version, Kind | None, str]] = [
    ("expires for good", rules(EXPIRES), version(), Kind.REMOVE, "e"),
    ("is hidden", rules(EXPIRES), version(versioned=True), Kind.HIDE, "e"),
    ("noncurrent is not expired", rules(EXPIRES), version(noncurrent=True), None, ""),
    ("a marker over versions stays", rules(EXPIRES, MARKERS), version(marker=True), None, ""),
    ("an old marker goes", rules(EXPIRES), version(marker=True, alone=True), Kind.REMOVE, "e"),
    (
        "a young marker stays",
        rules(EXPIRES),
        version(marker=True, alone=True, since_ms=5 * DAY_MS),
        None,
        "",
    ),
    (
        "a young marker goes",
        rules(MARKERS),
        version(marker=True, alone=True, since_ms=OLD),
        Kind.REMOVE,
        "m",
    ),
    ("noncurrent is removed", rules(REMOVES), version(noncurrent=True), Kind.REMOVE, "r"),
    (
        "a noncurrent marker is removed",
        rules(REMOVES),
        version(noncurrent=True, marker=True),
        Kind.REMOVE,
        "r",
    ),
    ("visible is not", rules(REMOVES), version(versioned=True), None, ""),
    ("one of the newer stays", rules(KEEPS), version(noncurrent=True, newer=1), None, ""),
    ("behind the newer", rules(KEEPS), version(noncurrent=True, newer=2), Kind.REMOVE, "n"),
    ("moves", rules(GLACIER), version(), Kind.MOVE, "g"),
    ("the coldest class", rules(GLACIER, ARCHIVE), version(), Kind.MOVE, "d"),
    ("is there", rules(GLACIER), version(storage_class="GLACIER"), None, ""),
    ("is colder", rules(GLACIER), version(storage_class="DEEP_ARCHIVE"), None, ""),
    ("removal before move", rules(GLACIER, EXPIRES), version(), Kind.REMOVE, "e"),
    ("move before marker", rules(EXPIRES, GLACIER), version(versioned=True), Kind.MOVE, "g"),
    (
        "noncurrent moves",
        rules(NONCURRENT_GLACIER),
        version(noncurrent=True, newer=1),
        Kind.MOVE,
        "ng",
    ),
    ("noncurrent stays", rules(NONCURRENT_GLACIER), version(noncurrent=True), None, ""),
    ("small stays", rules(GLACIER), version(size=131_071), None, ""),
    ("small by class", rules(GLACIER, small=True), version(size=131_071), Kind.MOVE, "g"),
    (
        "small by class, but warm",
        rules(Rule("i", moves=(Move(When(1), "STANDARD_IA"),)), small=True),
        version(size=131_071),
        None,
        "",
    ),
    (
        "small by a rule that says sizes",
        rules(dataclasses.replace(GLACIER, above=10)),
        version(size=131_071),
        Kind.MOVE,
        "g",
    ),
    ("another prefix", rules(dataclasses.replace(EXPIRES, prefix="x")), version(), None, ""),
    (
        "another tag",
        rules(dataclasses.replace(EXPIRES, tags=(("a", "b"), ("c", "d")))),
        version(tags={"a": "b", "c": "x"}),
        None,
        "",
    ),
    (
        "all tags",
        rules(dataclasses.replace(EXPIRES, tags=(("a", "b"), ("c", "d")))),
        version(tags={"a": "b", "c": "d", "e": "f"}),
        Kind.REMOVE,
        "e",
    ),
    ("too small", rules(dataclasses.replace(EXPIRES, above=BIG)), version(), None, ""),
    ("too large", rules(dataclasses.replace(EXPIRES, below=BIG)), version(), None, ""),
]


@pytest.mark.parametrize(
    ("configuration", "subject", "kind", "rule_id"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_what_is_done_when_it_is_due(
    configuration: Configuration, subject: Version, kind: Kind | None, rule_id: str
) -> None:
    action = judge(configuration, subject, OLD).action
    assert (action and action.kind, action.rule_id if action else "") == (kind, rule_id)


def test_the_marker_is_known_beside_a_move_that_may_not_be_possible() -> None:
    verdict = judge(rules(EXPIRES, GLACIER), version(versioned=True), OLD)
    assert verdict.hide is not None
    assert (verdict.hide.kind, verdict.hide.rule_id) == (Kind.HIDE, "e")


def test_the_expiration_that_is_told_is_the_first_one() -> None:
    later = Rule("later", expires=When(20))
    found = expiry(rules(later, EXPIRES, GLACIER), version(since_ms=NOON))
    assert found is not None
    assert (found.due_ms, found.rule_id) == (11 * DAY_MS, "e")
    assert expiry(rules(GLACIER), version()) is None


def test_uploads_are_aborted_by_the_first_rule_about_their_key() -> None:
    configuration = rules(
        Rule("other", "x", aborts_after=1), Rule("slow", aborts_after=9), Rule("a", aborts_after=3)
    )
    found = abort(configuration, "k", NOON)
    assert found is not None
    assert (found.due_ms, found.rule_id) == (4 * DAY_MS, "a")
    assert abort(rules(EXPIRES), "k", 0) is None


# Properties.

whens = st.one_of(
    st.builds(When, st.integers(0, 50)),
    st.builds(When, st.just(0), st.integers(1, 50).map(lambda day: day * DAY_MS)),
)
classes = st.sampled_from(
    ["STANDARD", "STANDARD_IA", "GLACIER", "DEEP_ARCHIVE", "COLD", "REDUCED_REDUNDANCY"]
)
moves = st.lists(st.builds(Move, whens, classes, st.integers(0, 3)), max_size=2).map(tuple)
any_rule = st.builds(
    Rule,
    st.uuids().map(str),
    st.sampled_from(["", "k", "x"]),
    st.sampled_from([(), (("t", "1"),)]),
    st.sampled_from([-1, 0, BIG]),
    st.sampled_from([-1, 1, 2 * BIG]),
    st.none() | whens,
    st.booleans(),
    moves,
    moves,
    st.none() | whens,
    st.integers(0, 3),
    st.integers(0, 9),
)
configurations = st.builds(Configuration, st.lists(any_rule, max_size=5).map(tuple), st.booleans())
versions = st.builds(
    Version,
    st.sampled_from(["k", "kk", "x"]),
    st.sampled_from([0, 1, 1000, BIG]),
    st.sampled_from([{}, {"t": "1"}]),
    classes,
    st.integers(0, 30 * DAY_MS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 4),
    st.booleans(),
)
times = st.integers(0, 100 * DAY_MS)
days = st.sampled_from([DAY_MS, 1000, 60_000])


@given(configurations, versions, times, days)
def test_nothing_is_done_early_and_the_next_look_is_ahead(
    configuration: Configuration, subject: Version, now: int, day: int
) -> None:
    verdict = judge(configuration, subject, now, day)
    assert verdict.action is None or verdict.action.due_ms <= now
    assert verdict.look_ms is None or verdict.look_ms > now
    assert judge(Configuration(()), subject, now, day).action is None


@given(configurations, versions, times, days)
def test_following_the_looks_finds_what_is_due_the_moment_it_is(
    configuration: Configuration, subject: Version, now: int, day: int
) -> None:
    """Whoever looks at `first_look` and then whenever a verdict says so misses nothing."""
    look = first_look(configuration, subject, day)
    seen = False
    while look is not None and look <= now and not seen:
        verdict = judge(configuration, subject, look, day)
        seen, look = verdict.action is not None, verdict.look_ms
    assert seen == (judge(configuration, subject, now, day).action is not None)


@given(configurations, versions, times, days)
def test_a_rule_more_never_lets_more_stay(
    configuration: Configuration, subject: Version, now: int, day: int
) -> None:
    before = judge(configuration, subject, now, day).action
    more = dataclasses.replace(configuration, rules=(*configuration.rules, EXPIRES, REMOVES))
    after = judge(more, subject, now, day).action
    if before is not None:
        assert after is not None
        assert after.kind <= before.kind


@settings(max_examples=300)
@given(configurations, versions, st.lists(times, max_size=20), days)
def test_moves_end(
    configuration: Configuration, subject: Version, moments: list[int], day: int
) -> None:
    """However often a version is looked at, it only gets colder."""
    for now in sorted(moments) + [100 * DAY_MS] * 10:
        action = judge(configuration, subject, now, day).action
        if action is not None and action.kind is Kind.MOVE:
            assert coldness(action.storage_class) > coldness(subject.storage_class)
            subject = dataclasses.replace(subject, storage_class=action.storage_class)
    last = judge(configuration, subject, 100 * DAY_MS, day).action
    assert last is None or last.kind is not Kind.MOVE
