"""Lifecycle configurations: what is accepted, what is refused with which code, what is kept."""

from __future__ import annotations

import pytest

from s3gw.buckets import lifecycle
from s3gw.buckets.lifecycle import LIFECYCLE, Move, Rule, When
from s3gw.errors import S3Error

EXPIRE = "<Expiration><Days>1</Days></Expiration>"
NONCURRENT = "NoncurrentVersionExpiration"


def rule(
    content: str = EXPIRE, chosen: str = "<Filter/>", id_: str = "", status: str = "Enabled"
) -> str:
    named = f"<ID>{id_}</ID>" if id_ else ""
    return f"<Rule>{named}{chosen}<Status>{status}</Status>{content}</Rule>"


def document(*rules: str) -> bytes:
    return (
        '<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{''.join(rules)}</LifecycleConfiguration>"
    ).encode()


def stored(*rules: str) -> dict[str, bytes]:
    return {lifecycle.NAME: lifecycle.store(lifecycle.parse(document(*rules)))}


def shown(*rules: str) -> bytes:
    return LIFECYCLE.render(lifecycle.read(stored(*rules)[lifecycle.NAME]))


def parsed(*rules: str) -> tuple[Rule, ...]:
    configuration = lifecycle.of_bucket(stored(*rules))
    assert configuration is not None
    return configuration.rules


def move(when: str, storage_class: str) -> str:
    return f"<Transition>{when}<StorageClass>{storage_class}</StorageClass></Transition>"


def noncurrent_move(days: int, storage_class: str, more: str = "") -> str:
    return (
        f"<NoncurrentVersionTransition><NoncurrentDays>{days}</NoncurrentDays>{more}"
        f"<StorageClass>{storage_class}</StorageClass></NoncurrentVersionTransition>"
    )


def filtered(content: str) -> str:
    return f"<Filter>{content}</Filter>"


TAG = "<Tag><Key>k</Key><Value>v</Value></Tag>"
DATE, LATER = "<Date>2026-03-01T00:00:00Z</Date>", "<Date>2026-04-01T00:00:00Z</Date>"
NEWER = "<NewerNoncurrentVersions>{}</NewerNoncurrentVersions>"
ABORT = (
    "<AbortIncompleteMultipartUpload><DaysAfterInitiation>{}</DaysAfterInitiation>"
    "</AbortIncompleteMultipartUpload>"
)
MARKERS = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"


def removal(days: int, more: str = "") -> str:
    return f"<{NONCURRENT}><NoncurrentDays>{days}</NoncurrentDays>{more}</{NONCURRENT}>"


REFUSED: list[tuple[str, str]] = [
    # Shapes.
    ("MalformedXML", ""),
    ("MalformedXML", rule(chosen="")),
    ("MalformedXML", rule(chosen="<Prefix/><Filter/>")),
    ("MalformedXML", rule(status="enabled")),
    ("MalformedXML", "<Rule><Filter/>" + EXPIRE + "</Rule>"),
    ("MalformedXML", rule(EXPIRE + EXPIRE)),
    ("MalformedXML", rule("<Expiration/>")),
    ("MalformedXML", rule("<Expiration><Days>x</Days></Expiration>")),
    ("MalformedXML", rule(f"<Expiration><Days>1</Days>{DATE}</Expiration>")),
    ("MalformedXML", rule("<Expiration><Days>1</Days>" + MARKERS[12:])),
    ("MalformedXML", rule("<Expiration><Date>soon</Date></Expiration>")),
    ("MalformedXML", rule("<Unknown/>" + EXPIRE)),
    ("MalformedXML", rule(move("", "GLACIER"))),
    ("MalformedXML", rule(move("<Days>1</Days>" + DATE, "GLACIER"))),
    ("MalformedXML", rule("<Transition><Days>1</Days></Transition>")),
    ("MalformedXML", rule(f"<{NONCURRENT}/>")),
    ("MalformedXML", rule(f"<{NONCURRENT}>{NEWER.format(3)}</{NONCURRENT}>")),
    ("MalformedXML", rule("<AbortIncompleteMultipartUpload/>")),
    # Filters.
    ("MalformedXML", rule(chosen=filtered("<Prefix>a</Prefix>" + TAG))),
    ("MalformedXML", rule(chosen=filtered(TAG + TAG))),
    ("MalformedXML", rule(chosen=filtered("<And/>"))),
    ("MalformedXML", rule(chosen=filtered("<And><Prefix>a</Prefix></And>"))),
    ("MalformedXML", rule(chosen=filtered(f"<And>{TAG}</And>"))),
    ("MalformedXML", rule(chosen=filtered(f"<Prefix>a</Prefix><And>{TAG}<Prefix/></And>"))),
    ("MalformedXML", rule(chosen=filtered("<Tag><Key>k</Key></Tag>"))),
    ("InvalidTag", rule(chosen=filtered("<Tag><Key/><Value>v</Value></Tag>"))),
    ("InvalidTag", rule(chosen=filtered(f"<And>{TAG}{TAG}</And>"))),
    ("InvalidRequest", rule(chosen=filtered(f"<Prefix>{'é' * 513}</Prefix>"))),
    (
        "InvalidArgument",
        rule(chosen=filtered("<ObjectSizeGreaterThan>-1</ObjectSizeGreaterThan>")),
    ),
    (
        "InvalidRequest",
        rule(
            chosen=filtered(
                "<And><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>"
                "<ObjectSizeLessThan>5</ObjectSizeLessThan></And>"
            )
        ),
    ),
    # Rules.
    ("InvalidArgument", rule(id_="x" * 256)),
    ("InvalidArgument", rule(id_="same") + rule(id_="same")),
    ("InvalidRequest", rule("")),
    ("InvalidRequest", rule() * 1001),
    # Values.
    ("InvalidArgument", rule("<Expiration><Days>0</Days></Expiration>")),
    ("InvalidArgument", rule("<Expiration><Days>-1</Days></Expiration>")),
    ("InvalidArgument", rule("<Expiration><Date>2026-03-01T01:00:00Z</Date></Expiration>")),
    ("InvalidArgument", rule(move("<Days>-1</Days>", "GLACIER"))),
    ("InvalidArgument", rule(move("<Date>2026-03-01T00:00:01Z</Date>", "GLACIER"))),
    ("InvalidArgument", rule(move("<Days>29</Days>", "STANDARD_IA"))),
    ("InvalidArgument", rule(noncurrent_move(29, "ONEZONE_IA"))),
    ("InvalidArgument", rule(noncurrent_move(-1, "GLACIER"))),
    ("InvalidArgument", rule(noncurrent_move(1, "GLACIER", NEWER.format(0)))),
    ("InvalidArgument", rule(removal(0))),
    ("InvalidArgument", rule(removal(1, NEWER.format(0)))),
    ("InvalidArgument", rule(removal(1, NEWER.format(101)))),
    ("InvalidArgument", rule(ABORT.format(0))),
    # Combinations.
    ("InvalidRequest", rule(ABORT.format(1), chosen=filtered(TAG))),
    (
        "InvalidRequest",
        rule(ABORT.format(1), chosen=filtered("<ObjectSizeLessThan>9</ObjectSizeLessThan>")),
    ),
    ("InvalidRequest", rule(MARKERS, chosen=filtered(TAG))),
    ("InvalidRequest", rule(removal(1, NEWER.format(1)), chosen="<Prefix/>")),
    (
        "InvalidRequest",
        rule(f"<Expiration>{DATE}</Expiration>" + move("<Days>1</Days>", "GLACIER")),
    ),
    ("InvalidRequest", rule("<Expiration><Days>9</Days></Expiration>" + move(DATE, "GLACIER"))),
    ("InvalidRequest", rule(move("<Days>1</Days>", "GLACIER") + move(DATE, "DEEP_ARCHIVE"))),
    ("InvalidRequest", rule(move("<Days>1</Days>", "GLACIER") + move("<Days>2</Days>", "GLACIER"))),
    ("InvalidRequest", rule(noncurrent_move(1, "GLACIER") + noncurrent_move(2, "GLACIER"))),
    ("InvalidArgument", rule(EXPIRE + move("<Days>1</Days>", "GLACIER"))),
    ("InvalidArgument", rule(f"<Expiration>{DATE}</Expiration>" + move(LATER, "GLACIER"))),
    ("InvalidArgument", rule(removal(1) + noncurrent_move(1, "GLACIER"))),
    (
        "InvalidArgument",
        rule(move("<Days>9</Days>", "GLACIER") + move("<Days>9</Days>", "DEEP_ARCHIVE")),
    ),
    ("InvalidArgument", rule(noncurrent_move(9, "GLACIER") + noncurrent_move(3, "DEEP_ARCHIVE"))),
]


@pytest.mark.parametrize(("code", "rules"), REFUSED)
def test_what_s3_refuses_is_refused_with_its_code(code: str, rules: str) -> None:
    with pytest.raises(S3Error) as caught:
        lifecycle.parse(document(rules))
    assert caught.value.code == code


def test_every_element_is_read_and_written_back() -> None:
    whole = rule(
        "<Expiration><Days>400</Days></Expiration>"
        + move("<Days>30</Days>", "STANDARD_IA")
        + move("<Days>60</Days>", "GLACIER")
        + noncurrent_move(1, "GLACIER", NEWER.format(2))
        + removal(9, NEWER.format(3)),
        id_="all",
        chosen=filtered(
            f"<And><Prefix>a/</Prefix>{TAG}<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>"
            "<ObjectSizeLessThan>50</ObjectSizeLessThan></And>"
        ),
    )
    assert parsed(whole) == (
        Rule(
            "all",
            "a/",
            (("k", "v"),),
            5,
            50,
            When(400),
            moves=(Move(When(30), "STANDARD_IA"), Move(When(60), "GLACIER")),
            noncurrent_moves=(Move(When(1), "GLACIER", 2),),
            removes=When(9),
            newer=3,
        ),
    )
    assert LIFECYCLE.parse(shown(whole)) == lifecycle.parse(document(whole))


def test_a_date_is_kept_in_its_canonical_form() -> None:
    dated = rule("<Expiration><Date>2026-03-01T02:00:00+02:00</Date></Expiration>", id_="d")
    assert b"<Date>2026-03-01T00:00:00.000Z</Date>" in shown(dated)
    assert parsed(dated)[0].expires == When(date_ms=1_772_323_200_000)


def test_rules_without_an_id_get_one_each_and_disabled_ones_do_nothing() -> None:
    value = lifecycle.parse(document(rule(), rule(), rule(status="Disabled", id_="off")))
    ids = [one["ID"] for one in value["Rule"]]
    assert len(set(ids)) == 3
    assert all(ids)
    rules = parsed(rule(), rule(status="Disabled"))
    assert len(rules) == 1


@pytest.mark.parametrize("chosen", ["<Prefix>logs/</Prefix>", filtered("<Prefix>logs/</Prefix>")])
def test_a_prefix_of_either_form(chosen: str) -> None:
    (found,) = parsed(rule(chosen=chosen))
    assert found.matches("logs/x", {}, 0)
    assert not found.matches("other", {}, 0)
    assert chosen.encode() in shown(rule(chosen=chosen))


def test_a_thousand_rules_are_taken() -> None:
    rules = [rule(id_=f"rule {number}") for number in range(1000)]
    assert len(parsed(*rules)) == 1000


def test_more_than_a_bucket_can_keep_is_refused() -> None:
    prefix = "p" * 1024
    rules = [
        rule(id_=f"rule {number}", chosen=filtered(f"<Prefix>{prefix}</Prefix>"))
        for number in range(600)
    ]
    with pytest.raises(S3Error) as caught:
        stored(*rules)
    assert caught.value.code == "MaxMessageLengthExceeded"


def test_the_classes_that_objects_are_moved_to() -> None:
    value = lifecycle.parse(
        document(rule(move("<Days>1</Days>", "GLACIER")), rule(noncurrent_move(1, "COLD")))
    )
    assert lifecycle.storage_classes(value) == {"GLACIER", "COLD"}


def test_a_bucket_without_a_configuration_has_none() -> None:
    assert lifecycle.of_bucket({}) is None
