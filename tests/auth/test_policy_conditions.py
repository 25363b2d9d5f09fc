"""Every condition operator, with and without its qualifiers, over a table."""

import pytest

from s3gw.auth.conditions import OPERATORS, condition, moment
from s3gw.auth.patterns import PolicyError

K = "s3:prefix"
ARN = "arn:aws:iam::123456789012:user/team/ann"

# operator, values of the policy, values of the request (None: the key is absent), outcome
CASES = [
    ("StringEquals", ["a"], ["a"], True),
    ("StringEquals", ["a"], ["A"], False),
    ("StringEquals", ["a", "b"], ["b"], True),
    ("StringEquals", ["a*"], ["abc"], False),
    ("StringEquals", ["a*"], ["a*"], True),
    ("StringEquals", [""], [""], True),
    ("StringEquals", ["a"], None, False),
    ("StringEquals", ["${aws:username}"], ["ann"], True),
    ("StringEquals", ["${aws:username}"], ["bob"], False),
    ("StringEquals", ["a"], ["b", "a"], True),
    ("StringNotEquals", ["a"], ["b"], True),
    ("StringNotEquals", ["a"], ["a"], False),
    ("StringNotEquals", ["a", "b"], ["b"], False),
    ("StringNotEquals", ["a"], None, True),
    ("StringNotEquals", ["a"], ["a", "b"], False),
    ("StringEqualsIgnoreCase", ["ABC"], ["abc"], True),
    ("StringEqualsIgnoreCase", ["ABC"], ["abd"], False),
    ("StringEqualsIgnoreCase", ["ABC"], None, False),
    ("StringNotEqualsIgnoreCase", ["ABC"], ["abc"], False),
    ("StringNotEqualsIgnoreCase", ["ABC"], ["x"], True),
    ("StringNotEqualsIgnoreCase", ["ABC"], None, True),
    ("StringLike", ["a*"], ["abc"], True),
    ("StringLike", ["a?c"], ["abc"], True),
    ("StringLike", ["a?c"], ["ac"], False),
    ("StringLike", ["A*"], ["abc"], False),
    ("StringLike", ["home/${aws:username}/*"], ["home/ann/x"], True),
    ("StringLike", ["home/${aws:username}/*"], ["home/bob/x"], False),
    ("StringLike", ["*"], None, False),
    ("StringLike", ["*"], [""], True),
    ("StringNotLike", ["a*"], ["abc"], False),
    ("StringNotLike", ["a*"], ["b"], True),
    ("StringNotLike", ["a*"], None, True),
    ("NumericEquals", ["10"], ["10"], True),
    ("NumericEquals", ["10"], ["10.0"], True),
    ("NumericEquals", ["10"], ["11"], False),
    ("NumericEquals", ["10"], ["ten"], False),
    ("NumericEquals", ["10"], None, False),
    ("NumericNotEquals", ["10"], ["11"], True),
    ("NumericNotEquals", ["10"], ["10"], False),
    ("NumericNotEquals", ["10"], None, True),
    ("NumericLessThan", ["10"], ["9"], True),
    ("NumericLessThan", ["10"], ["10"], False),
    ("NumericLessThan", ["10"], ["nan"], False),
    ("NumericLessThan", ["10"], ["-Infinity"], False),
    ("NumericLessThanEquals", ["10"], ["10"], True),
    ("NumericLessThanEquals", ["10"], ["11"], False),
    ("NumericLessThanEquals", ["10"], ["9" * 100], False),
    ("NumericGreaterThan", ["10"], ["11"], True),
    ("NumericGreaterThan", ["10"], ["10"], False),
    ("NumericGreaterThanEquals", ["10"], ["10"], True),
    ("NumericGreaterThanEquals", ["10"], ["9.99"], False),
    ("NumericGreaterThanEquals", ["10"], None, False),
    ("DateEquals", ["2026-01-01T00:00:00Z"], ["2026-01-01T00:00:00Z"], True),
    ("DateEquals", ["2026-01-01T01:00:00+01:00"], ["2026-01-01T00:00:00Z"], True),
    ("DateEquals", ["1767225600"], ["2026-01-01T00:00:00Z"], True),
    ("DateEquals", ["2026-01-01"], ["2026-01-01T00:00:01Z"], False),
    ("DateNotEquals", ["2026-01-01"], ["2026-01-01T00:00:01Z"], True),
    ("DateNotEquals", ["2026-01-01"], None, True),
    ("DateLessThan", ["2026-01-01"], ["2025-12-31T23:59:59Z"], True),
    ("DateLessThan", ["2026-01-01"], ["2026-01-01T00:00:00Z"], False),
    ("DateLessThanEquals", ["2026-01-01"], ["2026-01-01T00:00:00Z"], True),
    ("DateGreaterThan", ["2026-01-01"], ["2026-01-01T00:00:01Z"], True),
    ("DateGreaterThan", ["2026-01-01"], ["2026-01-01T00:00:00Z"], False),
    ("DateGreaterThan", ["2026-01-01"], ["yesterday"], False),
    ("DateGreaterThanEquals", ["2026-01-01"], ["2026-01-01T00:00:00Z"], True),
    ("DateGreaterThanEquals", ["2026-01-01"], None, False),
    ("Bool", ["true"], ["true"], True),
    ("Bool", ["True"], ["true"], True),
    ("Bool", ["true"], ["false"], False),
    ("Bool", ["false"], ["false"], True),
    ("Bool", ["false"], None, False),
    ("BinaryEquals", ["QmluYXJ5"], ["QmluYXJ5"], True),
    ("BinaryEquals", ["QmluYXJ5"], ["QmluYXJ6"], False),
    ("BinaryEquals", ["QmluYXJ5"], ["!"], False),
    ("BinaryEquals", ["QmluYXJ5"], None, False),
    ("IpAddress", ["10.0.0.0/8"], ["10.1.2.3"], True),
    ("IpAddress", ["10.0.0.0/8"], ["11.1.2.3"], False),
    ("IpAddress", ["10.1.2.3"], ["10.1.2.3"], True),
    ("IpAddress", ["10.0.0.0/8", "192.0.2.0/24"], ["192.0.2.9"], True),
    ("IpAddress", ["10.0.0.0/8"], ["::ffff:10.1.2.3"], True),
    ("IpAddress", ["2001:db8::/32"], ["2001:db8::1"], True),
    ("IpAddress", ["2001:db8::/32"], ["10.1.2.3"], False),
    ("IpAddress", ["0.0.0.0/0"], ["2001:db8::1"], False),
    ("IpAddress", ["fe80::/10"], ["fe80::1%eth0"], True),
    ("IpAddress", ["10.0.0.0/8"], ["unknown"], False),
    ("IpAddress", ["10.0.0.0/8"], None, False),
    ("NotIpAddress", ["10.0.0.0/8"], ["10.1.2.3"], False),
    ("NotIpAddress", ["10.0.0.0/8"], ["11.1.2.3"], True),
    ("NotIpAddress", ["10.0.0.0/8"], None, True),
    ("ArnEquals", [ARN], [ARN], True),
    ("ArnEquals", ["arn:aws:iam::*:user/team/*"], [ARN], True),
    ("ArnEquals", ["arn:aws:iam::123456789012:user/other/*"], [ARN], False),
    ("ArnLike", ["arn:aws:iam::123456789012:user/team/${aws:username}"], [ARN], True),
    ("ArnLike", ["arn:aws:*:user/team/ann:*:*:*"], [ARN], False),
    ("ArnLike", ["arn:*:*:*:*:*"], [ARN], True),
    ("ArnLike", ["arn:aws:iam::1234?6789012:user/*"], [ARN], True),
    ("ArnLike", ["*"], [ARN], True),
    ("ArnLike", [ARN], ["ann"], False),
    ("ArnLike", [ARN], None, False),
    ("ArnNotEquals", [ARN], [ARN], False),
    ("ArnNotEquals", [ARN], None, True),
    ("ArnNotLike", ["arn:aws:iam::*:role/*"], [ARN], True),
    ("ArnNotLike", ["arn:aws:iam::*:user/*"], [ARN], False),
    ("Null", ["true"], None, True),
    ("Null", ["true"], ["a"], False),
    ("Null", ["false"], None, False),
    ("Null", ["false"], ["a"], True),
    ("Null", ["false"], [""], True),
    ("StringEqualsIfExists", ["a"], None, True),
    ("StringEqualsIfExists", ["a"], ["b"], False),
    ("StringNotEqualsIfExists", ["a"], None, True),
    ("StringNotEqualsIfExists", ["a"], ["a"], False),
    ("NumericLessThanIfExists", ["5"], None, True),
    ("NumericLessThanIfExists", ["5"], ["6"], False),
    ("DateGreaterThanIfExists", ["2026-01-01"], None, True),
    ("BoolIfExists", ["true"], None, True),
    ("BoolIfExists", ["true"], ["false"], False),
    ("IpAddressIfExists", ["10.0.0.0/8"], None, True),
    ("ArnLikeIfExists", [ARN], None, True),
    ("BinaryEqualsIfExists", ["QQ=="], None, True),
    ("ForAllValues:StringEquals", ["a", "b"], ["a", "b"], True),
    ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
    ("ForAllValues:StringEquals", ["a", "b"], ["a"], True),
    ("ForAllValues:StringEquals", ["a"], None, True),
    ("ForAllValues:StringEquals", ["a"], [], True),
    ("ForAllValues:StringEquals", ["a"], [""], True),
    ("ForAllValues:StringLike", ["a*"], ["ab", "ac"], True),
    ("ForAllValues:StringNotEquals", ["a"], ["b", "c"], True),
    ("ForAllValues:StringNotEquals", ["a"], ["a", "c"], False),
    ("ForAllValues:NumericLessThan", ["5"], ["1", "4"], True),
    ("ForAnyValue:StringEquals", ["a", "b"], ["x", "b"], True),
    ("ForAnyValue:StringEquals", ["a", "b"], ["x", "y"], False),
    ("ForAnyValue:StringEquals", ["a"], None, False),
    ("ForAnyValue:StringEquals", ["a"], [], False),
    ("ForAnyValue:StringLike", ["a*"], ["x", "ab"], True),
    ("ForAnyValue:StringNotEquals", ["a"], ["a", "b"], True),
    ("ForAnyValue:StringNotEquals", ["a"], ["a"], False),
    ("ForAnyValue:StringNotEquals", ["a"], None, False),
    ("ForAnyValue:StringEqualsIfExists", ["a"], None, True),
]


@pytest.mark.parametrize(("name", "texts", "found", "holds"), CASES)
def test_operator(name: str, texts: list[str], found: list[str] | None, holds: bool) -> None:
    values = {"aws:username": ("ann",)}
    if found is not None:
        values[K] = tuple(found)
    assert condition(name, "S3:Prefix", texts, variables=True).holds(values) is holds


def test_every_operator_is_in_the_table() -> None:
    tested = {name.rpartition(":")[2].removesuffix("IfExists") for name, *_ in CASES}
    assert tested == set(OPERATORS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NumericEquals", "ten"),
        ("NumericEquals", "NaN"),
        ("NumericLessThan", "9" * 65),
        ("DateEquals", "tomorrow"),
        ("DateEquals", "2026-13-01"),
        ("DateEquals", "2026-01-01 00:00:00"),
        ("Bool", "yes"),
        ("Null", "maybe"),
        ("BinaryEquals", "not base64"),
        ("IpAddress", "10.0.0.0/33"),
        ("IpAddress", "10.0.0.*"),
        ("ArnLike", "ann"),
        ("ArnEquals", "arn:aws:iam"),
        ("StringLike", "${open"),
        ("stringEquals", "a"),
        ("StringMatches", "a"),
        ("", "a"),
        ("IfExists", "a"),
        ("NullIfExists", "true"),
        ("ForAnyValue:Null", "true"),
        ("ForSomeValues:StringEquals", "a"),
        (":StringEquals", "a"),
    ],
)
def test_what_cannot_be_understood_is_refused(name: str, text: str) -> None:
    with pytest.raises(PolicyError):
        condition(name, K, [text], variables=True)


def test_a_condition_without_values_is_refused() -> None:
    with pytest.raises(PolicyError):
        condition("StringEquals", K, [], variables=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026", 1767225600),
        ("2026-02", 1769904000),
        ("2026-01-01", 1767225600),
        ("2026-01-01T00:00Z", 1767225600),
        ("2026-01-01T00:00:00.5Z", 1767225600.5),
        ("2026-01-01T01:30:00+01:30", 1767225600),
        ("1767225600.25", 1767225600.25),
        ("0000-00-00", None),
        ("0000", None),
        ("", None),
    ],
)
def test_dates(text: str, seconds: float | None) -> None:
    assert moment(text) == seconds
