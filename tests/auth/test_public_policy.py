"""Which bucket policies are public, by the examples of the S3 User Guide and around them."""

import json
from typing import Any

import pytest

from s3gw.auth.policy_parse import parse_bucket_policy
from s3gw.auth.public_policy import is_public

USER = "arn:aws:iam::123456789012:user/ann"

CASES = [
    ({}, True),
    ({"Principal": {"AWS": "*"}}, True),
    ({"Principal": {"AWS": ["*", "123456789012"]}}, True),
    ({"Principal": {"AWS": "123456789012"}}, False),
    ({"Principal": {"AWS": USER}}, False),
    ({"Principal": {"Service": "logging.s3.amazonaws.com"}}, False),
    ({"Effect": "Deny"}, False),
    ({"Condition": {"StringEquals": {"aws:SourceVpc": "vpc-91237329"}}}, False),
    ({"Condition": {"StringLike": {"aws:SourceVpc": "vpc-*"}}}, True),
    ({"Condition": {"StringLike": {"aws:SourceVpc": "vpc-1"}}}, False),
    ({"Condition": {"StringEquals": {"aws:SourceVpce": ["vpce-1", "vpce-2"]}}}, False),
    ({"Condition": {"StringEquals": {"aws:SourceVpce": "${aws:username}"}}}, True),
    ({"Condition": {"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}}, True),
    ({"Condition": {"StringEqualsIfExists": {"aws:SourceVpc": "vpc-1"}}}, True),
    ({"Condition": {"ForAllValues:StringEquals": {"aws:SourceVpc": "vpc-1"}}}, True),
    ({"Condition": {"ForAnyValue:StringEquals": {"aws:SourceVpc": "vpc-1"}}}, False),
    ({"Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}}}, False),
    ({"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}, False),
    ({"Condition": {"ArnEquals": {"aws:PrincipalArn": USER}}}, False),
    ({"Condition": {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/ann"}}}, True),
    ({"Condition": {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::c"}}}, False),
    ({"Condition": {"StringLike": {"aws:userid": "AROAEXAMPLE:*"}}}, False),
    ({"Condition": {"StringLike": {"aws:userid": "*:*"}}}, True),
    ({"Condition": {"StringLike": {"aws:userid": "*"}}}, True),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}, False),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, False),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/7"}}}, True),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}, True),
    ({"Condition": {"IpAddress": {"aws:SourceIp": ["192.0.2.1", "0.0.0.0/1"]}}}, True),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}}, False),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "2001::/16"}}}, True),
    ({"Condition": {"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}, True),
    ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, True),
    ({"Condition": {"StringEquals": {"aws:Referer": "https://example.com/"}}}, True),
    (
        {
            "Condition": {
                "Bool": {"aws:SecureTransport": "true"},
                "IpAddress": {"aws:SourceIp": "192.0.2.1"},
            }
        },
        False,
    ),
]


def policy(*statements: dict[str, Any]) -> Any:
    base = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::b/*",
    }
    document = {"Version": "2012-10-17", "Statement": [{**base, **each} for each in statements]}
    return parse_bucket_policy(json.dumps(document).encode(), "b", limit=20480)


@pytest.mark.parametrize(("elements", "public"), CASES, ids=[json.dumps(c[0]) for c in CASES])
def test_public(elements: dict[str, Any], public: bool) -> None:
    assert is_public(policy(elements)) is public


def test_one_public_statement_is_enough() -> None:
    assert is_public(policy({"Principal": {"AWS": USER}}, {}))


def test_a_deny_beside_it_closes_nothing() -> None:
    assert is_public(policy({}, {"Effect": "Deny"}))
