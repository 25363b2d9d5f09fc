"""What a policy document may be, and with which reason everything else is refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.auth import actions, condition_keys
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy import Effect, Policy
from s3gw.auth.policy_parse import parse_bucket_policy, parse_identity_policy
from s3gw.server.routes import ROWS

BUCKET = "b"
GOOD = {
    "Effect": "Allow",
    "Principal": "*",
    "Action": "s3:GetObject",
    "Resource": "arn:aws:s3:::b/*",
}
LIMIT = 20 * 1024
CANONICAL = "ab" * 32


def policy(*statements: Any, **elements: Any) -> bytes:
    root = {"Version": "2012-10-17", "Statement": list(statements), **elements}
    return json.dumps(root).encode()


def parse(document: bytes, bucket: str = BUCKET) -> Policy:
    return parse_bucket_policy(document, bucket, limit=LIMIT)


def changed(**elements: Any) -> dict[str, Any]:
    return {name: value for name, value in {**GOOD, **elements}.items() if value is not None}


ACCEPTED = [
    GOOD,
    changed(Sid="Any text, also with spaces"),
    changed(Effect="Deny"),
    changed(Principal={"AWS": "*"}),
    changed(Principal={"AWS": "123456789012"}),
    changed(Principal={"AWS": "arn:aws:iam::123456789012:root"}),
    changed(Principal={"AWS": ["arn:aws:iam::123456789012:user/a/b", "123456789012"]}),
    changed(Principal={"AWS": "arn:aws:iam::123456789012:role/r"}),
    changed(Principal={"AWS": "arn:aws:sts::123456789012:assumed-role/r/session"}),
    changed(Principal={"AWS": "arn:aws:sts::123456789012:federated-user/f"}),
    changed(Principal={"AWS": "AIDACKCEVSQ6C2EXAMPLE"}),
    changed(Principal={"AWS": "AROACKCEVSQ6C2EXAMPLE:session"}),
    changed(Principal={"CanonicalUser": CANONICAL}),
    changed(Principal={"Service": "logging.s3.amazonaws.com"}),
    changed(Principal={"Federated": "arn:aws:iam::123456789012:saml-provider/p"}),
    changed(Effect="Deny", Principal=None, NotPrincipal={"AWS": "123456789012"}),
    changed(Action=["s3:GetObject", "s3:PutObject"]),
    changed(Action="S3:getobject".replace("S3", "s3")),
    changed(Action="s3:Get*"),
    changed(Action="s3:*"),
    changed(Action="*"),
    changed(Action="s3:?etObject"),
    changed(Action=None, NotAction="s3:DeleteObject"),
    changed(Resource="*"),
    changed(Resource="arn:aws:s3:::*"),
    changed(Resource="arn:aws:s3:::b*"),
    changed(Resource="arn:aws:s3:::?/a"),
    changed(Resource=["arn:aws:s3:::b", "arn:aws:s3:::b/a"], Action=["s3:ListBucket", "s3:Get*"]),
    changed(Resource="arn:aws:s3:::b/${aws:username}/*"),
    changed(Resource="arn:aws:s3:::${aws:username}/*"),
    changed(Resource=None, NotResource="arn:aws:s3:::b/private/*"),
    changed(Action="s3:ListBucket", Resource="arn:aws:s3:::b"),
    changed(Condition={}),
    changed(Condition={"Bool": {"aws:SecureTransport": True}}),
    changed(Condition={"Bool": {"AWS:securetransport": "true"}}),
    changed(Condition={"NumericLessThan": {"s3:signatureAge": 600000}}),
    changed(Condition={"StringEquals": {"s3:ExistingObjectTag/a b": "x"}}),
    changed(Condition={"StringEquals": {"accounts.example.com:aud": "x"}}),
    changed(Condition={"StringEquals": {"aws:PrincipalTag/team": ["x", "y"]}}),
    changed(
        Action=["s3:ListBucket"],
        Resource="arn:aws:s3:::b",
        Condition={"StringLike": {"s3:prefix": "home/*"}, "NumericLessThan": {"s3:max-keys": 9}},
    ),
]


@pytest.mark.parametrize("statement", ACCEPTED, ids=[json.dumps(s)[:60] for s in ACCEPTED])
def test_accepted(statement: dict[str, Any]) -> None:
    (found,) = parse(policy(statement)).statements
    assert found.effect is Effect(statement["Effect"])
    assert found.sid == statement.get("Sid", "")


SYNTAX = "Invalid policy syntax."
KEY = "Policy has an invalid condition key"
REFUSED = [
    (changed(Effect=None), "Missing required field Effect"),
    (changed(Effect="allow"), "Invalid effect: allow"),
    (changed(Effect=["Allow"]), "Invalid effect"),
    (changed(Effect={}), "Invalid effect"),
    (changed(Principal=None), "Missing required field Principal"),
    (changed(Principal=""), "Invalid principal in policy"),
    (changed(Principal="123456789012"), "Invalid principal in policy"),
    (changed(Principal={}), "Invalid principal in policy"),
    (changed(Principal=[]), "Invalid principal in policy"),
    (changed(Principal={"AWS": []}), "Invalid principal in policy"),
    (changed(Principal={"AWS": "12345678901"}), "Invalid principal in policy"),
    (changed(Principal={"AWS": "arn:aws:iam::123456789012:user/*"}), "Invalid principal"),
    (changed(Principal={"AWS": "arn:aws:iam::123456789012:group/g"}), "Invalid principal"),
    (changed(Principal={"AWS": "arn:aws:iam::*:root"}), "Invalid principal in policy"),
    (changed(Principal={"AWS": "12345678901٣"}), "Invalid principal in policy"),
    (changed(Principal={"AWS": "ann"}), "Invalid principal in policy"),
    (changed(Principal={"AWS": "AROACKCEVSQ6C2EXAMPLE:"}), "Invalid principal in policy"),
    (changed(Principal={"AWS": "AROACKCEVSQ6C2EXAMPLE:*"}), "Invalid principal in policy"),
    (changed(Principal={"AWS": 123456789012}), SYNTAX),
    (changed(Principal={"CanonicalUser": "*"}), "Invalid principal in policy"),
    (changed(Principal={"CanonicalUser": CANONICAL.upper()}), "Invalid principal in policy"),
    (changed(Principal={"Service": "*"}), "Invalid principal in policy"),
    (changed(Principal={"Service": "example.com"}), "Invalid principal in policy"),
    (changed(Principal={"Federated": "*"}), "Invalid principal in policy"),
    (changed(Principal={"Aws": "*"}), "Unknown field Aws"),
    (changed(NotPrincipal="*"), "both Principal and NotPrincipal"),
    (changed(Principal=None, NotPrincipal={"AWS": "123456789012"}), "Allow with NotPrincipal"),
    (changed(Action=None), "Missing required field Action"),
    (changed(Action=[]), "Action is empty"),
    (changed(Action=""), "Policy has invalid action"),
    (changed(Action=7), SYNTAX),
    (changed(Action=[["s3:GetObject"]]), SYNTAX),
    (changed(Action="GetObject"), "Policy has invalid action"),
    (changed(Action="s3:GetObjects"), "Policy has invalid action"),
    (changed(Action="s3:Foo*"), "Policy has invalid action"),
    (changed(Action="ec2:RunInstances"), "Policy has invalid action"),
    (changed(Action="ec2:*"), "Policy has invalid action"),
    (changed(Action=["s3:GetObject", "s3:Nothing"]), "Policy has invalid action"),
    (changed(Action="s3:GetObject "), "Policy has invalid action"),
    (changed(NotAction="s3:GetObject"), "both Action and NotAction"),
    (changed(Action=None, NotAction="s3:Nothing"), "Policy has invalid action"),
    (changed(Resource=None), "Missing required field Resource"),
    (changed(Resource=[]), "Resource is empty"),
    (changed(Resource=""), "Policy has invalid resource"),
    (changed(Resource={}), SYNTAX),
    (changed(Resource="b/*"), "Policy has invalid resource"),
    (changed(Resource="arn:aws:s3:::other/*"), "Policy has invalid resource"),
    (changed(Resource="arn:aws:s3:::bb/*"), "Policy has invalid resource"),
    (changed(Resource="arn:aws:s3:::B/*"), "Policy has invalid resource"),
    (changed(Resource="arn:aws:sqs:::b"), "Policy has invalid resource"),
    (changed(Resource=["arn:aws:s3:::b/*", "arn:aws:s3:::c/*"]), "Policy has invalid resource"),
    (changed(Resource="arn:aws:s3:::b/${open"), "Invalid policy variable"),
    (changed(NotResource="arn:aws:s3:::b/*"), "both Resource and NotResource"),
    (changed(Resource="arn:aws:s3:::b"), "Action does not apply to any resource(s)"),
    (changed(Action="s3:ListBucket"), "Action does not apply to any resource(s)"),
    (changed(Action=["s3:GetObject", "s3:ListBucket"]), "Action does not apply to any resource"),
    (changed(Action="s3:ListAllMyBuckets", Resource="*"), "Action does not apply to any resource"),
    (changed(Condition=[]), SYNTAX),
    (changed(Condition="x"), SYNTAX),
    (changed(Condition={"Bool": {}}), SYNTAX),
    (changed(Condition={"Bool": "x"}), SYNTAX),
    (changed(Condition={"Bool": {"aws:SecureTransport": {}}}), SYNTAX),
    (changed(Condition={"Bool": {"aws:SecureTransport": [None]}}), SYNTAX),
    (changed(Condition={"Bool": {"aws:SecureTransport": []}}), "Condition has no values"),
    (changed(Condition={"Bool": {"aws:SecureTransport": "on"}}), "Invalid Boolean value"),
    (changed(Condition={"Boolean": {"aws:SecureTransport": "true"}}), "Invalid Condition type"),
    (changed(Condition={"Bool": {"aws:SecureTransports": "true"}}), KEY),
    (changed(Condition={"StringEquals": {"s3:nothing": "x"}}), KEY),
    (changed(Condition={"StringEquals": {"s3:ExistingObjectTag/": "x"}}), KEY),
    (changed(Condition={"StringEquals": {"s3:ExistingObjectTag": "x"}}), KEY),
    (changed(Condition={"StringEquals": {"asw:SourceIp": "x"}}), KEY),
    (changed(Condition={"StringEquals": {"SourceIp": "x"}}), KEY),
    (changed(Condition={"StringEquals": {"": "x"}}), KEY),
    (changed(Condition={"StringEquals": {"kms:ViaService": "x"}}), KEY),
    (changed(Condition={"StringEquals": {"s3:prefix": "x"}}), "Conditions do not apply"),
    (changed(Condition={"IpAddress": {"aws:SourceIp": "10.0.0"}}), "Invalid IP address"),
    (changed(Sid=7), SYNTAX),
    (changed(Sids="a"), "Unknown field Sids"),
    (changed(action="s3:GetObject"), "Unknown field action"),
    ("statement", SYNTAX),
    (None, SYNTAX),
    ([GOOD], SYNTAX),
]


@pytest.mark.parametrize(
    ("statement", "reason"), REFUSED, ids=[f"{json.dumps(s)[:50]}: {r}" for s, r in REFUSED]
)
def test_refused_with_its_reason(statement: Any, reason: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(policy(statement))
    assert reason in str(caught.value)


NOT_JSON = "Policies must be valid JSON"
INVALID = "This policy contains invalid Json"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", NOT_JSON),
        (b" {}", NOT_JSON),
        (b"[]", NOT_JSON),
        (b"null", NOT_JSON),
        (b"{", INVALID),
        (b"{}x", INVALID),
        (b'{"a": NaN}', INVALID),
        (b'{"a": Infinity}', INVALID),
        (b'{"Statement": "\xff"}', INVALID),
        (b'{"Id": "\\ud800"}', INVALID),
        (b'{"a":' * 3000, INVALID),
        (b'{"a":' + b"[" * 20000, INVALID),
        (b'{"a":' + b"9" * 10000 + b"}", INVALID),
        (b"{}", "Missing required field Statement"),
        (b'{"Version": "2012-10-17"}', "Missing required field Statement"),
        (b'{"Statement": []}', "Statement is empty"),
        (b'{"Statement": 7}', "Invalid policy syntax."),
        (b'{"Id": "a", "Id": "b"}', "Duplicate field Id"),
        (b'{"statement": []}', "Unknown field statement"),
        (policy(GOOD, Version="2020-01-01"), "must contain a valid version"),
        (policy(GOOD, Version=20121017), "must contain a valid version"),
        (policy(GOOD, Version=[]), "must contain a valid version"),
        (policy(GOOD, Id=7), "Invalid policy syntax."),
        (policy(GOOD, Comment="x"), "Unknown field Comment"),
        (policy(changed(Sid="a"), changed(Sid="a")), "must be unique"),
        (policy(GOOD, Id="x" * LIMIT), "maximum allowed document size"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_documents_that_are_refused(document: bytes, reason: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(document)
    assert reason in str(caught.value)


def test_one_statement_needs_no_list_and_a_policy_no_version() -> None:
    document = json.dumps({"Id": "i", "Statement": GOOD}).encode()
    found = parse(document)
    assert (found.id, len(found.statements)) == ("i", 1)


def test_variables_count_since_2012_only() -> None:
    statement = changed(Resource="arn:aws:s3:::b/${aws:username}")
    for version, matches in (("2012-10-17", True), ("2008-10-17", False)):
        (found,) = parse(policy(statement, Version=version)).statements
        values = {"aws:username": ("ann",)}
        assert found.resources[0].matches("arn:aws:s3:::b/ann", values) is matches


IDENTITY_GOOD = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
# Of S3 and of other services, all valid and none known here.
OF_OTHERS = ["s3:Describe*", "s3:Nothing", "ec2:*", "kms:*", "s3-object-lambda:*", "s3express:*"]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (IDENTITY_GOOD, None),
        ({**IDENTITY_GOOD, "Action": ["iam:GetUser", "sts:AssumeRole"]}, None),
        ({**IDENTITY_GOOD, "Resource": "arn:aws:s3:::any/*"}, None),
        ({**IDENTITY_GOOD, "Sid": "Abc1"}, None),
        ({**IDENTITY_GOOD, "Sid": "a b"}, "must be alpha-numeric"),
        ({**IDENTITY_GOOD, "Principal": "*"}, "should not specify a principal"),
        ({**IDENTITY_GOOD, "NotPrincipal": "*"}, "should not specify a principal"),
        ({**IDENTITY_GOOD, "Action": OF_OTHERS}, None),
        ({**IDENTITY_GOOD, "Action": None, "NotAction": OF_OTHERS}, None),
        ({**IDENTITY_GOOD, "Action": "anything"}, "invalid action"),
        ({**IDENTITY_GOOD, "Action": "s3:"}, "invalid action"),
        ({**IDENTITY_GOOD, "Action": "*:GetObject"}, "invalid action"),
        ({**IDENTITY_GOOD, "Action": "ec2:Run Instances"}, "invalid action"),
        ({**IDENTITY_GOOD, "Action": [*OF_OTHERS, "s3:Get-Object"]}, "invalid action"),
        ({**IDENTITY_GOOD, "Condition": {"StringEquals": {"kms:ViaService": "s3"}}}, None),
        ({**IDENTITY_GOOD, "Condition": {"Bool": {"aws:NewOfThisYear": "true"}}}, None),
        ({**IDENTITY_GOOD, "Condition": {"Null": {"ec2:ResourceTag/a b": "true"}}}, None),
        ({**IDENTITY_GOOD, "Condition": {"StringEquals": {"ViaService": "s3"}}}, "by a vendor"),
        ({**IDENTITY_GOOD, "Condition": {"StringEquals": {":name": "s3"}}}, "by a vendor"),
        ({**IDENTITY_GOOD, "Condition": {"StringEquals": {"kms:": "s3"}}}, "by a vendor"),
        ({**IDENTITY_GOOD, "Condition": {"StringsEqual": {"kms:Via": "s3"}}}, "Condition type"),
        ({**IDENTITY_GOOD, "Resource": "bucket"}, "must be in ARN format"),
        ({**IDENTITY_GOOD, "Resource": "arn:aws:s3"}, "must be in ARN format"),
    ],
)
def test_policies_of_identities(statement: dict[str, Any], reason: str | None) -> None:
    document = policy({name: value for name, value in statement.items() if value is not None})
    if reason is None:
        assert parse_identity_policy(document, "p", limit=6144).statements[0].principals is None
        return
    with pytest.raises(PolicyError, match=reason):
        parse_identity_policy(document, "p", limit=6144)


def test_every_action_of_the_route_table_is_known() -> None:
    asked = {action for row in ROWS for action in (row.action, row.version_action) if action}
    unknown = {action for action in asked if action.startswith("s3:")} - actions.ACTIONS
    assert unknown == set()


def test_an_action_is_about_a_bucket_or_about_objects() -> None:
    kinds = (actions.ACCOUNT_ACTIONS, actions.BUCKET_ACTIONS, actions.OBJECT_ACTIONS)
    assert sum(map(len, kinds)) == len(actions.ACTIONS)


def test_condition_keys_are_kept_in_lower_case() -> None:
    assert all(key == key.lower() for key in condition_keys.KEYS)


NAMES = st.sampled_from(["AWS", "Service", "Bool", "StringLike", "aws:SourceIp", "*", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted({*GOOD, "Sid", "Condition", "NotAction", "NotPrincipal"})), JSON)
def test_whatever_an_element_is_it_is_accepted_or_refused(element: str, value: Any) -> None:
    for document in (policy({**GOOD, element: value}), policy(GOOD, **{element: value})):
        with suppress(PolicyError):
            parse(document)


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_accepted_or_refused(noise: bytes) -> None:
    for document in (noise, b"{" + noise, policy(GOOD).replace(b"Allow", noise)):
        with suppress(PolicyError):
            parse(document)
