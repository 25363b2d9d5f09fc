"""Policies as Amazon's guides write them, by the S3 condition keys that they are about.

Each rule is asked about requests that differ in one key. Sources: S3 User Guide, "Bucket policy
examples using condition keys", "Examples of Amazon S3 bucket policies", "Enforce conditional writes
on Amazon S3 buckets"; Service Authorization Reference, "Condition keys for Amazon S3".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3gw.auth import condition_keys
from s3gw.auth.policy import RequestContext
from s3gw.auth.policy_evaluate import decide
from s3gw.operations import request_values
from tests.auth.test_policy_evaluate import ANONYMOUS, for_bucket, statement

GET, PUT, LIST = "s3:GetObject", "s3:PutObject", "s3:ListBucket"
OBJECT, BUCKET = "arn:aws:s3:::b/k", "arn:aws:s3:::b"
KMS = "arn:aws:kms:us-east-1:000000000000:key/"
SSE, SSE_KEY = "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id"
SSE_C = "s3:x-amz-server-side-encryption-customer-algorithm"
UNTIL, DAYS = "s3:object-lock-retain-until-date", "s3:object-lock-remaining-retention-days"
KEYS = "s3:RequestObjectTagKeys"

Values = dict[str, str | list[str]]

# condition of the rule, then the keys of a request and whether the rule is about it
RULES: list[tuple[str, dict[str, Any], list[tuple[Values, bool]]]] = [
    (
        PUT,
        {"StringEquals": {"s3:x-amz-acl": ["public-read", "public-read-write"]}},
        [
            ({"s3:x-amz-acl": "public-read"}, True),
            ({"s3:x-amz-acl": "public-read-write"}, True),
            ({"s3:x-amz-acl": "private"}, False),
            ({"s3:x-amz-acl": "Public-Read"}, False),
            ({}, False),
        ],
    ),
    (
        PUT,
        {"StringNotEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}},
        [
            ({"s3:x-amz-acl": "bucket-owner-full-control"}, False),
            ({"s3:x-amz-acl": "private"}, True),
            ({}, True),
        ],
    ),
    (
        PUT,
        {"StringLike": {"s3:x-amz-grant-read": "*http://acs.amazonaws.com/groups/global/*"}},
        [
            (
                {"s3:x-amz-grant-read": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
                True,
            ),
            ({"s3:x-amz-grant-read": "id=ab"}, False),
            ({"s3:x-amz-grant-write": "uri=http://acs.amazonaws.com/groups/global/x"}, False),
        ],
    ),
    *(
        (
            PUT,
            {"Null": {f"s3:x-amz-grant-{name}": "false"}},
            [({f"s3:x-amz-grant-{name}": "id=ab"}, True), ({"s3:x-amz-grant-x": "id"}, False)],
        )
        for name in ("full-control", "read", "read-acp", "write", "write-acp")
    ),
    (
        "s3:CreateBucket",
        {"StringNotEquals": {"s3:x-amz-object-ownership": "BucketOwnerEnforced"}},
        [
            ({"s3:x-amz-object-ownership": "BucketOwnerEnforced"}, False),
            ({"s3:x-amz-object-ownership": "ObjectWriter"}, True),
            ({}, True),
        ],
    ),
    (
        PUT,
        {"Null": {SSE: "true"}},
        [
            ({}, True),
            ({SSE: "AES256"}, False),
            ({SSE: "aws:kms"}, False),
            ({SSE_C: "AES256"}, True),
        ],
    ),
    (
        PUT,
        {"StringNotEquals": {SSE: "aws:kms"}},
        [({}, True), ({SSE: "AES256"}, True), ({SSE: "aws:kms"}, False), ({SSE: "AWS:KMS"}, True)],
    ),
    (
        PUT,
        {"StringNotEqualsIfExists": {SSE: ["aws:kms", "aws:kms:dsse"]}},
        [({}, True), ({SSE: "AES256"}, True), ({SSE: "aws:kms:dsse"}, False)],
    ),
    (
        PUT,
        {"StringEqualsIfExists": {SSE: "AES256"}},
        [({}, True), ({SSE: "AES256"}, True), ({SSE: "aws:kms"}, False)],
    ),
    (
        PUT,
        {"ArnNotEqualsIfExists": {SSE_KEY: f"{KMS}1111"}},
        [({}, True), ({SSE_KEY: f"{KMS}1111"}, False), ({SSE_KEY: f"{KMS}2222"}, True)],
    ),
    (
        PUT,
        {"ArnLike": {SSE_KEY: f"{KMS}*"}},
        [({}, False), ({SSE_KEY: f"{KMS}1111"}, True), ({SSE_KEY: "1111"}, False)],
    ),
    (
        PUT,
        {"StringLike": {SSE_KEY: "*alias/team-?"}},
        [({SSE_KEY: "alias/team-a"}, True), ({SSE_KEY: "alias/team-ab"}, False)],
    ),
    (
        PUT,
        {"Null": {SSE_C: "false"}},
        [({}, False), ({SSE_C: "AES256"}, True), ({SSE: "AES256"}, False)],
    ),
    (
        PUT,
        {"Null": {SSE: "true", SSE_C: "true"}},
        [({}, True), ({SSE: "AES256"}, False), ({SSE_C: "AES256"}, False)],
    ),
    (
        PUT,
        {"StringEquals": {"s3:x-amz-content-sha256": "UNSIGNED-PAYLOAD"}},
        [
            ({"s3:x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, True),
            ({"s3:x-amz-content-sha256": "00" * 32}, False),
            ({}, False),
        ],
    ),
    (
        PUT,
        {"Null": {"s3:x-amz-checksum-algorithm": "true"}},
        [({}, True), ({"s3:x-amz-checksum-algorithm": "CRC64NVME"}, False)],
    ),
    (
        PUT,
        {"StringNotEquals": {"s3:x-amz-checksum-algorithm": ["SHA256", "SHA512"]}},
        [
            ({"s3:x-amz-checksum-algorithm": "SHA256"}, False),
            ({"s3:x-amz-checksum-algorithm": "SHA1"}, True),
            ({}, True),
        ],
    ),
    (
        PUT,
        {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
        [
            ({"s3:objectcreationoperation": "true"}, True),
            ({"s3:objectcreationoperation": "true", "s3:if-none-match": "*"}, False),
            ({"s3:objectcreationoperation": "false"}, False),
            ({}, False),
        ],
    ),
    (
        PUT,
        {"Null": {"s3:if-match": "false"}},
        [({"s3:if-match": '"e"'}, True), ({"s3:if-none-match": "*"}, False)],
    ),
    (
        PUT,
        {"StringEquals": {"s3:x-amz-storage-class": ["GLACIER", "DEEP_ARCHIVE"]}},
        [
            ({"s3:x-amz-storage-class": "GLACIER"}, True),
            ({"s3:x-amz-storage-class": "STANDARD_IA"}, False),
            ({}, False),
        ],
    ),
    (
        PUT,
        {
            "StringNotLike": {"s3:x-amz-copy-source": "b/public/*"},
            "Null": {"s3:x-amz-copy-source": "false"},
        },
        [
            ({"s3:x-amz-copy-source": "b/public/k"}, False),
            ({"s3:x-amz-copy-source": "b/private/k"}, True),
            ({}, False),
        ],
    ),
    (
        PUT,
        {"StringEquals": {"s3:x-amz-metadata-directive": "REPLACE"}},
        [({"s3:x-amz-metadata-directive": "REPLACE"}, True), ({}, False)],
    ),
    (
        PUT,
        {"StringLike": {"s3:x-amz-website-redirect-location": "http*"}},
        [
            ({"s3:x-amz-website-redirect-location": "https://a.example"}, True),
            ({"s3:x-amz-website-redirect-location": "/other"}, False),
        ],
    ),
    (
        PUT,
        {"StringEquals": {"s3:RequestObjectTag/Team": "red"}},
        [
            ({"s3:requestobjecttag/team": "red"}, True),
            ({"s3:requestobjecttag/team": "Red"}, False),
            ({"s3:requestobjecttag/other": "red"}, False),
            ({}, False),
        ],
    ),
    (
        PUT,
        {"ForAllValues:StringEquals": {KEYS: ["team", "cost"]}},
        [
            ({KEYS.lower(): ["team"]}, True),
            ({KEYS.lower(): ["team", "cost"]}, True),
            ({KEYS.lower(): ["team", "other"]}, False),
            ({}, True),
        ],
    ),
    (
        PUT,
        {"ForAnyValue:StringEquals": {KEYS: ["team"]}},
        [
            ({KEYS.lower(): ["team", "other"]}, True),
            ({KEYS.lower(): ["other"]}, False),
            ({}, False),
        ],
    ),
    (
        GET,
        {"StringEquals": {"s3:ExistingObjectTag/environment": "production"}},
        [
            ({"s3:existingobjecttag/environment": "production"}, True),
            ({"s3:existingobjecttag/environment": "test"}, False),
            ({}, False),
        ],
    ),
    (
        "s3:GetObjectVersion",
        {"StringEquals": {"s3:VersionId": "0000000000002q24"}},
        [
            ({"s3:versionid": "0000000000002q24"}, True),
            ({"s3:versionid": "0000000000004tfo"}, False),
            ({}, False),
        ],
    ),
    (
        "s3:PutObjectRetention",
        {"NumericGreaterThan": {DAYS: "10"}},
        [({DAYS: "11"}, True), ({DAYS: "10"}, False), ({DAYS: "9"}, False), ({}, False)],
    ),
    (
        "s3:PutObjectRetention",
        {"DateGreaterThan": {UNTIL: "2027-01-01T00:00:00Z"}},
        [({UNTIL: "2027-06-01T00:00:00.000Z"}, True), ({UNTIL: "2026-06-01T00:00:00.000Z"}, False)],
    ),
    (
        "s3:PutObjectRetention",
        {"StringEquals": {"s3:object-lock-mode": "COMPLIANCE"}},
        [
            ({"s3:object-lock-mode": "COMPLIANCE"}, True),
            ({"s3:object-lock-mode": "GOVERNANCE"}, False),
            ({}, False),
        ],
    ),
    (
        "s3:PutObjectLegalHold",
        {"StringEquals": {"s3:object-lock-legal-hold": "OFF"}},
        [
            ({"s3:object-lock-legal-hold": "OFF"}, True),
            ({"s3:object-lock-legal-hold": "ON"}, False),
        ],
    ),
    (
        LIST,
        {"StringEquals": {"s3:prefix": ["", "home/"], "s3:delimiter": "/"}},
        [
            ({"s3:prefix": "", "s3:delimiter": "/"}, True),
            ({"s3:prefix": "home/", "s3:delimiter": "/"}, True),
            ({"s3:prefix": "home", "s3:delimiter": "/"}, False),
            ({"s3:prefix": "home/"}, False),
            ({"s3:delimiter": "/"}, False),
        ],
    ),
    (
        LIST,
        {"StringLike": {"s3:prefix": "home/${aws:username}/*"}},
        [
            ({"s3:prefix": "home/ann/x", "aws:username": "ann"}, True),
            ({"s3:prefix": "home/bob/x", "aws:username": "ann"}, False),
            ({"s3:prefix": "home//x"}, False),
        ],
    ),
    (
        LIST,
        {"NumericLessThanEquals": {"s3:max-keys": "10"}},
        [({"s3:max-keys": "10"}, True), ({"s3:max-keys": "11"}, False), ({}, False)],
    ),
    (
        GET,
        {"Bool": {"aws:SecureTransport": "false"}},
        [({"aws:securetransport": "false"}, True), ({"aws:securetransport": "true"}, False)],
    ),
    (
        GET,
        {
            "IpAddress": {"aws:SourceIp": "192.0.2.0/24"},
            "NotIpAddress": {"aws:SourceIp": "192.0.2.188/32"},
        },
        [
            ({"aws:sourceip": "192.0.2.1"}, True),
            ({"aws:sourceip": "192.0.2.188"}, False),
            ({"aws:sourceip": "198.51.100.1"}, False),
        ],
    ),
    (
        GET,
        {"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8:1234:5678::/64"]}},
        [
            ({"aws:sourceip": "192.0.2.9"}, True),
            ({"aws:sourceip": "2001:db8:1234:5678::1"}, True),
            ({"aws:sourceip": "2001:db8:1234:5679::1"}, False),
        ],
    ),
    (
        GET,
        {"StringLike": {"aws:Referer": ["https://www.example.com/*", "https://example.com/*"]}},
        [
            ({"aws:referer": "https://example.com/page"}, True),
            ({"aws:referer": "https://evil.example/?https://example.com/"}, False),
            ({}, False),
        ],
    ),
    (
        GET,
        {"StringNotEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}},
        [
            ({"s3:signatureversion": "AWS4-HMAC-SHA256"}, False),
            ({"s3:signatureversion": "AWS"}, True),
            ({}, True),
        ],
    ),
    (
        GET,
        {"NumericGreaterThan": {"s3:signatureAge": "600000"}},
        [
            ({"s3:signatureage": "600001"}, True),
            ({"s3:signatureage": "600000"}, False),
            ({}, False),
        ],
    ),
    (
        GET,
        {"StringNotEquals": {"s3:authType": "REST-HEADER"}},
        [
            ({"s3:authtype": "REST-QUERY-STRING"}, True),
            ({"s3:authtype": "POST"}, True),
            ({"s3:authtype": "REST-HEADER"}, False),
        ],
    ),
    (
        GET,
        {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
        [({"s3:tlsversion": "1.1"}, True), ({"s3:tlsversion": "1.2"}, False), ({}, False)],
    ),
    (
        GET,
        {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::111111111111:role/ops/*"}},
        [
            ({"aws:principalarn": "arn:aws:iam::111111111111:role/ops/a"}, False),
            ({"aws:principalarn": "arn:aws:iam::111111111111:role/dev/a"}, True),
            ({}, True),
        ],
    ),
    (
        GET,
        {"StringNotEquals": {"aws:PrincipalTag/team": "${s3:ExistingObjectTag/team}"}},
        [
            ({"aws:principaltag/team": "a", "s3:existingobjecttag/team": "a"}, False),
            ({"aws:principaltag/team": "a", "s3:existingobjecttag/team": "b"}, True),
            ({"aws:principaltag/team": "a"}, True),
            ({"s3:existingobjecttag/team": "a"}, True),
        ],
    ),
    (
        GET,
        {"StringNotEqualsIfExists": {"aws:SourceVpce": "vpce-1"}},
        [({}, True), ({"aws:sourcevpce": "vpce-1"}, False)],
    ),
    (
        GET,
        {
            "DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"},
            "DateLessThan": {"aws:CurrentTime": "2026-02-01T00:00:00Z"},
        },
        [
            ({"aws:currenttime": "2026-01-15T12:00:00Z"}, True),
            ({"aws:currenttime": "2025-12-31T23:59:59Z"}, False),
            ({"aws:currenttime": "2026-02-01T00:00:00Z"}, False),
        ],
    ),
    (
        GET,
        {"NumericGreaterThanEquals": {"aws:EpochTime": "1767225600"}},
        [({"aws:epochtime": "1767225600"}, True), ({"aws:epochtime": "1767225599"}, False)],
    ),
    (
        "s3:CreateBucket",
        {"StringNotEquals": {"s3:LocationConstraint": "eu-central-1"}},
        [
            ({"s3:locationconstraint": "eu-central-1"}, False),
            ({"s3:locationconstraint": "x"}, True),
        ],
    ),
    (
        GET,
        {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}},
        [({}, True), ({"aws:multifactorauthpresent": "true"}, False)],
    ),
    (
        GET,
        {"StringEquals": {"accounts.example.com:aud": "app"}},
        [({"accounts.example.com:aud": "app"}, True), ({}, False)],
    ),
]

CASES = [
    pytest.param(action, condition, values, applies, id=f"{number}-{place}")
    for number, (action, condition, requests) in enumerate(RULES)
    for place, (values, applies) in enumerate(requests)
]


def asked(action: str, values: Values) -> RequestContext:
    found = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in values.items()}
    about_bucket = action in (LIST, "s3:CreateBucket")
    return RequestContext(ANONYMOUS, action, BUCKET if about_bucket else OBJECT, found)


@pytest.mark.parametrize(("action", "condition", "values", "applies"), CASES)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_a_rule_is_about_the_requests_that_it_says(
    effect: str, action: str, condition: dict[str, Any], values: Values, applies: bool
) -> None:
    resource = [BUCKET, "arn:aws:s3:::b/*"]
    rule = statement(effect, Action=action, Resource=resource, Condition=condition)
    always = statement("Allow", Action=action, Resource=resource)
    policy = for_bucket(rule) if effect == "Allow" else for_bucket(always, rule)
    allowed = decide(asked(action, values), resource_policies=[policy]).allowed
    assert allowed is (applies if effect == "Allow" else not applies)


def test_there_are_hundreds_of_cases() -> None:
    assert 2 * len(CASES) >= 250


def test_what_requests_have_can_be_asked_for() -> None:
    made = {
        *request_values.HEADER_KEYS.values(),
        *request_values.LOCK_HEADERS.values(),
        request_values.CHECKSUM_KEY,
        request_values.COPY_SOURCE_KEY,
    }
    assert {key for key in made if not condition_keys.is_known(key)} == set()


# Of the keys that S3 knows: those that a request never has here, and why.
NEVER = {
    "accessgrantsinstancearn": "S3 Access Grants",
    "accesspointnetworkorigin": "access points",
    "bucketnamespace": "namespaces of accounts",
    "dataaccesspointaccount": "access points",
    "dataaccesspointarn": "access points",
    "inventoryaccessibleoptionalfields": "the body of an inventory configuration",
    "jobsuspendedcause": "S3 Batch Operations",
    "tlsversion": "the proxy in front ends TLS",
}


def test_every_key_of_s3_is_made_or_has_a_reason_not_to_be() -> None:
    source = Path(request_values.__file__).read_text()
    known = {key.removeprefix("s3:") for key in condition_keys.KEYS if key.startswith("s3:")}
    headers = {key.removeprefix("s3:") for key in request_values.HEADER_KEYS.values()}
    listed = set(request_values.LISTING_PARAMETERS)
    made = {key for key in known if f'"s3:{key}"' in source} | headers | listed
    assert known - made == set(NEVER)
