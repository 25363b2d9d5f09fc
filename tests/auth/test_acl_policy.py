"""What access control lists allow, over a table and beside policies."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.auth.acl_policy import as_policy
from s3gw.auth.policy import Principal, RequestContext, principal_values
from s3gw.auth.policy_evaluate import Kind as PolicyKind
from s3gw.auth.policy_evaluate import Permissions, Reason, decide
from s3gw.buckets.acl import (
    ALL_USERS,
    AUTHENTICATED_USERS,
    EC2,
    GROUPS,
    LOG_DELIVERY,
    PERMISSIONS,
    Grant,
    Kind,
    is_public,
)
from tests.auth.test_policy_evaluate import (
    ALLOW_ALL,
    ANN,
    ANONYMOUS,
    OWNER_ID,
    ROOT,
    SESSION,
    WHO,
    contexts,
    for_bucket,
    for_identity,
    statement,
)

BUCKET_READS = {"s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"}
OBJECT_READS = {"s3:GetObject", "s3:GetObjectVersion"}
ALLOWS = {
    (Kind.BUCKET, "READ"): BUCKET_READS,
    (Kind.BUCKET, "WRITE"): {"s3:PutObject"},
    (Kind.BUCKET, "READ_ACP"): {"s3:GetBucketAcl"},
    (Kind.BUCKET, "WRITE_ACP"): {"s3:PutBucketAcl"},
    (Kind.BUCKET, "FULL_CONTROL"): {
        *BUCKET_READS,
        "s3:PutObject",
        "s3:GetBucketAcl",
        "s3:PutBucketAcl",
    },
    (Kind.OBJECT, "READ"): OBJECT_READS,
    (Kind.OBJECT, "WRITE"): set(),
    (Kind.OBJECT, "READ_ACP"): {"s3:GetObjectAcl", "s3:GetObjectVersionAcl"},
    (Kind.OBJECT, "WRITE_ACP"): {"s3:PutObjectAcl", "s3:PutObjectVersionAcl"},
    (Kind.OBJECT, "FULL_CONTROL"): {
        *OBJECT_READS,
        "s3:GetObjectAcl",
        "s3:GetObjectVersionAcl",
        "s3:PutObjectAcl",
        "s3:PutObjectVersionAcl",
    },
}
NEVER = {
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetObjectTagging",
    "s3:PutObjectTagging",
    "s3:GetObjectAttributes",
    "s3:PutObjectRetention",
    "s3:GetBucketPolicy",
    "s3:PutBucketPolicy",
    "s3:DeleteBucket",
    "s3:PutBucketOwnershipControls",
    "s3:ListAllMyBuckets",
}
ACTIONS = sorted(NEVER.union(*ALLOWS.values()))


def listed(*grants: tuple[str, str], kind: Kind = Kind.OBJECT, **options: Any) -> Any:
    document = msgspec.json.encode([Grant(*grant) for grant in grants])
    return as_policy(document, OWNER_ID, kind, **options)


def asked(who: Principal, action: str = "s3:GetObject") -> RequestContext:
    return RequestContext(who, action, "arn:aws:s3:::b/k", principal_values(who))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("kind", "permission"), ALLOWS)
def test_what_each_permission_allows(kind: Kind, permission: str, action: str) -> None:
    policy = listed((ALL_USERS, permission), kind=kind)
    allowed = decide(asked(ANONYMOUS, action), resource_policies=[policy]).allowed
    assert allowed is (action in ALLOWS[kind, permission])


# grantee, principal, statements of its identity → decision
WHOM = [
    (ALL_USERS, "anonymous", [], Reason.RESOURCE_ALLOW),
    (ALL_USERS, "ann", [], Reason.RESOURCE_ALLOW),
    (ALL_USERS, "session", [], Reason.RESOURCE_ALLOW),
    (ALL_USERS, "root", [], Reason.ROOT),
    (AUTHENTICATED_USERS, "anonymous", [], Reason.NO_ALLOW),
    (AUTHENTICATED_USERS, "ann", [], Reason.RESOURCE_ALLOW),
    (AUTHENTICATED_USERS, "session", [], Reason.RESOURCE_ALLOW),
    (LOG_DELIVERY, "anonymous", [], Reason.NO_ALLOW),
    (LOG_DELIVERY, "ann", [], Reason.NO_ALLOW),
    (EC2, "anonymous", [], Reason.NO_ALLOW),
    (EC2, "ann", [], Reason.NO_ALLOW),
    (OWNER_ID, "anonymous", [], Reason.NO_ALLOW),
    (OWNER_ID, "ann", [], Reason.NO_ALLOW),
    (OWNER_ID, "ann", [ALLOW_ALL], Reason.IDENTITY_ALLOW),
    (OWNER_ID, "root", [], Reason.ROOT),
    (ALL_USERS, "ann", [statement("Deny")], Reason.EXPLICIT_DENY),
]


@pytest.mark.parametrize(("grantee", "who", "identity", "reason"), WHOM)
def test_whom_a_grant_is_for(grantee: str, who: str, identity: Any, reason: Reason) -> None:
    permissions = Permissions((for_identity(*identity),) if identity else ())
    policy = listed((grantee, "READ"))
    assert decide(asked(WHO[who]), permissions, [policy]).reason is reason


def test_a_grant_to_everyone_is_limited_by_boundary_and_session() -> None:
    policy = listed((ALL_USERS, "READ"))
    assert decide(asked(ANN), Permissions(boundary=()), [policy]).reason is Reason.BOUNDARY
    assert decide(asked(SESSION), Permissions(session=()), [policy]).reason is Reason.SESSION


def test_public_grants_can_be_ignored() -> None:
    grants = [(ALL_USERS, "READ"), (AUTHENTICATED_USERS, "READ"), (OWNER_ID, "READ")]
    policy = listed(*grants, ignore_public=True)
    assert [each.sid for each in policy.statements] == [f"READ for {OWNER_ID}"]
    for who in (ANONYMOUS, ANN):
        assert not decide(asked(who), resource_policies=[policy]).allowed


def test_strangers_create_and_do_not_replace() -> None:
    grants = [(ALL_USERS, "WRITE"), (ALL_USERS, "FULL_CONTROL")]
    for grant in grants:
        for replaces in (False, True):
            policy = listed(grant, kind=Kind.BUCKET, replaces=replaces)
            decision = decide(asked(ANONYMOUS, "s3:PutObject"), resource_policies=[policy])
            assert decision.allowed is not replaces


def test_a_decision_names_the_grant() -> None:
    context = asked(ANONYMOUS)
    decision = decide(context, resource_policies=[listed((ALL_USERS, "READ"))])
    assert decision.kind is PolicyKind.RESOURCE
    assert decision.explain(context).endswith(
        'a resource-based policy (statement "READ for AllUsers" of the access control list of '
        "the object)"
    )


GRANTS = st.tuples(
    st.sampled_from([OWNER_ID, EC2, *GROUPS]),
    st.sampled_from(PERMISSIONS),
)
LISTS = st.lists(GRANTS, max_size=4)


@given(contexts(), st.sampled_from(Kind), LISTS)
def test_a_list_never_denies(context: RequestContext, kind: Kind, grants: Any) -> None:
    alone = decide(context, Permissions((for_identity(ALLOW_ALL),)))
    beside = decide(context, Permissions((for_identity(ALLOW_ALL),)), [listed(*grants, kind=kind)])
    assert beside.allowed or not alone.allowed


@given(contexts(), st.sampled_from(Kind), LISTS)
def test_a_deny_wins_over_every_list(context: RequestContext, kind: Kind, grants: Any) -> None:
    deny = for_bucket(statement("Deny", Action="s3:*", Resource=["arn:aws:s3:::b/*"]))
    assert not decide(context, resource_policies=[listed(*grants, kind=kind), deny]).allowed


@given(st.sampled_from(Kind), LISTS, st.sampled_from(ACTIONS))
def test_only_a_public_list_opens_anything_to_strangers(
    kind: Kind, grants: Any, action: str
) -> None:
    allowed = decide(
        asked(ANONYMOUS, action), resource_policies=[listed(*grants, kind=kind)]
    ).allowed
    assert not allowed or is_public(tuple(Grant(*grant) for grant in grants))


def test_root_needs_no_list() -> None:
    assert decide(asked(ROOT), resource_policies=[listed()]).reason is Reason.ROOT
