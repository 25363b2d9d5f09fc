"""Policy documents of identities: their limits, their check, and the ones that are built in.

The limits are those of IAM (IAM User Guide, "IAM and AWS STS quotas"); as there, white space does
not count.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import lru_cache
from types import MappingProxyType

from s3gw import limits
from s3gw.auth.patterns import Pattern, PolicyError
from s3gw.auth.policy import Effect, Policy, Statement
from s3gw.auth.policy_parse import parse_identity_policy, parse_trust_policy
from s3gw.identities.errors import LimitExceeded, MalformedPolicyDocument
from s3gw.identities.names import AWS_ACCOUNT, POLICY, arn

log = logging.getLogger(__name__)

POLICIES_COMPILED_MAX = 4096


def _built_in(*statements: tuple[list[str], str]) -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": actions, "Resource": resource}
                for actions, resource in statements
            ],
        }
    )


ALL_S3 = "arn:aws:s3:::*"
# By name: those that programs for Amazon S3 expect, and those that users of MinIO do.
BUILT_IN = MappingProxyType(
    {
        "AdministratorAccess": _built_in((["*"], "*")),
        "AmazonS3FullAccess": _built_in((["s3:*"], "*")),
        "AmazonS3ReadOnlyAccess": _built_in((["s3:Get*", "s3:List*"], "*")),
        "IAMFullAccess": _built_in((["iam:*"], "*")),
        "IAMReadOnlyAccess": _built_in(
            (
                [
                    "iam:Get*",
                    "iam:List*",
                    "iam:SimulateCustomPolicy",
                    "iam:SimulatePrincipalPolicy",
                ],
                "*",
            )
        ),
        "readwrite": _built_in((["s3:*"], ALL_S3)),
        "readonly": _built_in((["s3:GetBucketLocation", "s3:GetObject"], ALL_S3)),
        "writeonly": _built_in((["s3:PutObject"], ALL_S3)),
    }
)
BUILT_IN_ARNS = MappingProxyType({arn(POLICY, "/", name, AWS_ACCOUNT): name for name in BUILT_IN})


def counted(document: str) -> int:
    """The characters of a document that count: all but white space."""
    return sum(map(len, document.split()))


def check_document(document: str, name: str, most: int) -> str:
    """A policy that names no principal. Raises MalformedPolicyDocument, LimitExceeded."""
    if counted(document) > most:
        raise LimitExceeded(f"Cannot exceed quota for PolicySize: {most}")
    try:
        parse_identity_policy(_bytes(document), name, limit=limits.IAM_DOCUMENT_BYTES_MAX)
    except PolicyError as error:
        raise MalformedPolicyDocument(str(error)) from error
    return document


def check_inline(policies: dict[str, str], whose: str, most: int) -> None:
    """All inline policies of an identity together. Raises LimitExceeded."""
    if sum(map(counted, policies.values())) > most:
        raise LimitExceeded(f"Maximum policy size of {most} bytes exceeded for {whose}")


def parsed_trust(document: str, role: str) -> Policy:
    """A trust policy that may be kept. Raises MalformedPolicyDocument, LimitExceeded."""
    most = limits.IAM_TRUST_POLICY_CHARACTERS_MAX
    if counted(document) > most:
        raise LimitExceeded(f"Cannot exceed quota for ACLSizePerRole: {most}")
    try:
        return parse_trust_policy(_bytes(document), role, limit=limits.IAM_DOCUMENT_BYTES_MAX)
    except PolicyError as error:
        raise MalformedPolicyDocument(str(error)) from error


def _bytes(document: str) -> bytes:
    """Raises MalformedPolicyDocument for what UTF-8 cannot carry."""
    try:
        return document.encode()
    except UnicodeEncodeError as error:
        raise MalformedPolicyDocument("Policies must be valid UTF-8.") from error


@lru_cache(maxsize=POLICIES_COMPILED_MAX)
def compiled(document: str, name: str) -> Policy:
    """The policy of a stored document. One that cannot be read denies everything: it might be a
    newer version's, and what it denies must not be allowed meanwhile."""
    try:
        return parse_identity_policy(document.encode(), name, limit=limits.IAM_DOCUMENT_BYTES_MAX)
    except PolicyError as error:
        log.warning("%s cannot be read, and denies everything: %s", name, error)
        return denying(f"{name}, which this version cannot read")


def denying(name: str) -> Policy:
    """A policy that denies everything."""
    everything = (Pattern("*", variables=False),)
    return Policy(name, (Statement(1, "", Effect.DENY, everything, everything),))


def compiled_all(documents: Iterable[tuple[str, str]]) -> tuple[Policy, ...]:
    """The policies of pairs of name and document."""
    return tuple(compiled(document, name) for name, document in documents)
