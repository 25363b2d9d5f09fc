"""Whether a bucket policy is public, as Amazon S3 defines it.

A policy is public if some statement allows everyone, unless a condition holds the principal or the
network to fixed values. Fixed is a value without wildcard and variable; an address block counts
when it is not wider than /8 (IPv4) or /32 (IPv6). Source: S3 User Guide, "Blocking public access to
your Amazon S3 storage", "The meaning of 'public'".
"""

from __future__ import annotations

from s3gw.auth.conditions import FOR_ALL, Condition, network
from s3gw.auth.policy import Effect, Policy, Statement

# Amazon's list, with the keys of the principal that say the same as a Principal element.
HOLDING_KEYS = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:userid",
        "s3:dataaccesspointaccount",
        "s3:dataaccesspointarn",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
    }
)
ADDRESS_KEYS = frozenset({"aws:sourceip", "aws:vpcsourceip"})
HOLDING_OPERATORS = frozenset(
    {"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"}
)
IPV4_PREFIX_MIN, IPV6_PREFIX_MIN = 8, 32


def is_public(policy: Policy) -> bool:
    """Whether the policy allows anything to everyone."""
    return any(_opens(statement) for statement in policy.statements)


def _opens(statement: Statement) -> bool:
    principals = statement.principals
    if statement.effect is Effect.DENY or principals is None:
        return False
    if not (principals.everyone or statement.negated_principals):
        return False
    return not any(_holds_back(condition) for condition in statement.conditions)


def _holds_back(condition: Condition) -> bool:
    # A condition that is true of a request without the key holds nobody back.
    if condition.if_exists or condition.negated or condition.qualifier == FOR_ALL:
        return False
    if condition.key in ADDRESS_KEYS:
        return condition.operator == "IpAddress" and all(map(_is_narrow, condition.patterns))
    return (
        condition.key in HOLDING_KEYS
        and condition.operator in HOLDING_OPERATORS
        and all(_is_fixed(text, condition.key) for text in condition.patterns)
    )


def _is_fixed(text: str, key: str) -> bool:
    if key == "aws:userid" and text.endswith(":*"):
        # Every session of one role: the part before the colon is what is fixed.
        text = text.removesuffix(":*")
    return bool(text) and not any(mark in text for mark in ("*", "?", "${"))


def _is_narrow(text: str) -> bool:
    block = network(text)
    least = IPV4_PREFIX_MIN if block.version == 4 else IPV6_PREFIX_MIN
    return block.prefixlen >= least
