"""What an access control list allows, as a policy: so that one evaluation decides about both.

    permission      of a bucket                                     of an object
    READ            ListBucket, -Versions, -MultipartUploads        GetObject, GetObjectVersion
    WRITE           PutObject (see below)                           nothing
    READ_ACP        GetBucketAcl                                    GetObjectAcl, -VersionAcl
    WRITE_ACP       PutBucketAcl                                    PutObjectAcl, -VersionAcl
    FULL_CONTROL    all of these                                    all of these

A grant is an allowing statement and never denies. One to AllUsers is about everyone, one to
AuthenticatedUsers about everyone who signed, one to a canonical id about that account, which passes
the decision on to the policies of its users. WRITE lets others than the owner create objects, not
replace or delete them. Source: S3 User Guide, "Access control list (ACL) overview", "Mapping of
ACL permissions and access policy permissions".
"""

from __future__ import annotations

from functools import lru_cache

from s3gw.auth.conditions import condition
from s3gw.auth.patterns import Pattern
from s3gw.auth.policy import Effect, Policy, Principals, PrincipalType, Statement
from s3gw.buckets import acl
from s3gw.buckets.acl import Grant, Kind

_ACTIONS: dict[Kind, dict[str, tuple[str, ...]]] = {
    Kind.BUCKET: {
        acl.READ: ("s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"),
        acl.WRITE: ("s3:PutObject",),
        acl.READ_ACP: ("s3:GetBucketAcl",),
        acl.WRITE_ACP: ("s3:PutBucketAcl",),
    },
    Kind.OBJECT: {
        acl.READ: ("s3:GetObject", "s3:GetObjectVersion"),
        acl.WRITE: (),
        acl.READ_ACP: ("s3:GetObjectAcl", "s3:GetObjectVersionAcl"),
        acl.WRITE_ACP: ("s3:PutObjectAcl", "s3:PutObjectVersionAcl"),
    },
}
# The list is the resource's own, so there is no other that it could speak of.
_THIS = (Pattern("*", variables=False),)
_SIGNED = condition(
    "StringNotEquals", "aws:PrincipalType", [PrincipalType.ANONYMOUS.value], variables=False
)
LISTS_COMPILED_MAX = 1024


@lru_cache(maxsize=LISTS_COMPILED_MAX)
def as_policy(
    document: bytes,
    owner: str,
    kind: Kind,
    *,
    ignore_public: bool = False,
    replaces: bool = False,
) -> Policy:
    """The policy of a stored list. `ignore_public` leaves out what it grants to everyone
    (IgnorePublicAcls); `replaces` says that a write would replace an object."""
    granted = [g for g in acl.stored(document, owner) if not (ignore_public and g.public)]
    statements = (
        _statement(number, grant, actions)
        for number, grant in enumerate(granted, 1)
        if (actions := _actions(grant, kind, replaces=replaces and grant.grantee != owner))
    )
    return Policy(f"the access control list of the {kind.value}", tuple(statements))


def _actions(grant: Grant, kind: Kind, *, replaces: bool) -> tuple[str, ...]:
    permissions = _ACTIONS[kind]
    named = permissions if grant.permission == acl.FULL_CONTROL else (grant.permission,)
    return tuple(
        action
        for permission in named
        if not (replaces and permission == acl.WRITE)
        for action in permissions[permission]
    )


def _statement(number: int, grant: Grant, actions: tuple[str, ...]) -> Statement:
    grantee = grant.grantee
    if grantee in acl.PUBLIC_GROUPS:
        who = Principals(everyone=True)
    elif grantee in acl.GROUPS:
        who = Principals(others=frozenset({grantee}))
    else:
        who = Principals(canonical_ids=frozenset({grantee}))
    return Statement(
        number,
        f"{grant.permission} for {grantee.rpartition('/')[2]}",
        Effect.ALLOW,
        tuple(Pattern(action, variables=False, fold=str.lower) for action in actions),
        _THIS,
        who,
        (_SIGNED,) if grantee == acl.AUTHENTICATED_USERS else (),
    )
