"""Decisions: who is allowed what by which policies together, and the laws that always hold."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.auth.policy import ANONYMOUS, Policy, Principal, PrincipalType, RequestContext
from s3gw.auth.policy_evaluate import Kind, Permissions, Reason, decide
from s3gw.auth.policy_parse import parse_bucket_policy, parse_identity_policy

ACCOUNT, OTHER = "111111111111", "222222222222"
OWNER_ID = "ab" * 32
ROOT = Principal(
    OWNER_ID,
    "root",
    PrincipalType.ROOT,
    account=ACCOUNT,
    arn=f"arn:aws:iam::{ACCOUNT}:root",
    user_id=ACCOUNT,
)
ANN = Principal(
    OWNER_ID,
    "ann",
    account=ACCOUNT,
    arn=f"arn:aws:iam::{ACCOUNT}:user/ann",
    user_id="AIDAANNANNANNANN",
)
BOB = replace(ANN, name="bob", arn=f"arn:aws:iam::{ACCOUNT}:user/bob", user_id="AIDABOBBOBBOBBOB")
SESSION = Principal(
    OWNER_ID,
    "build",
    PrincipalType.ROLE_SESSION,
    account=ACCOUNT,
    arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/ci/build",
    user_id="AROACICICICICICI:build",
    role_arn=f"arn:aws:iam::{ACCOUNT}:role/ci",
)
WHO = {"root": ROOT, "ann": ANN, "bob": BOB, "session": SESSION, "anonymous": ANONYMOUS}

GET, PUT, DELETE = "s3:GetObject", "s3:PutObject", "s3:DeleteObject"
OBJECT = "arn:aws:s3:::b/k"


def statement(effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    """A statement about GetObject on every object; elements named None are left out."""
    found = {"Effect": effect, "Action": GET, "Resource": "arn:aws:s3:::b/*", **elements}
    for name in ("Action", "Resource"):
        if f"Not{name}" in elements:
            del found[name]
    return found


def for_bucket(*statements: dict[str, Any]) -> Policy:
    named = []
    for each in statements:
        default = {} if "NotPrincipal" in each else {"Principal": "*"}
        named.append({**default, **each})
    document = json.dumps({"Version": "2012-10-17", "Statement": named}).encode()
    return parse_bucket_policy(document, "b", limit=20480)


def for_identity(*statements: dict[str, Any]) -> Policy:
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)}).encode()
    return parse_identity_policy(document, "p", limit=20480)


def aws(*names: str) -> dict[str, list[str]]:
    return {"AWS": list(names)}


def asked(
    who: Principal = ANONYMOUS, action: str = GET, resource: str = OBJECT, **values: str
) -> RequestContext:
    return RequestContext(who, action, resource, {k: (v,) for k, v in values.items()})


ALLOW, DENY = statement(), statement("Deny")
ALLOW_ALL = statement(Action="s3:*", Resource="*")
USER_ANN = aws(f"arn:aws:iam::{ACCOUNT}:user/ann")
ROLE = aws(f"arn:aws:iam::{ACCOUNT}:role/ci")

# principal, statements of the bucket, of the identity, of its boundary, of its session → decision
TOGETHER = [
    ("root", [], [], None, None, Reason.ROOT),
    ("root", [DENY], [], None, None, Reason.EXPLICIT_DENY),
    ("root", [statement("Deny", Principal=aws(ACCOUNT))], [], None, None, Reason.EXPLICIT_DENY),
    ("root", [statement("Deny", Principal=USER_ANN)], [], None, None, Reason.ROOT),
    ("anonymous", [], [], None, None, Reason.NO_ALLOW),
    ("anonymous", [ALLOW], [], None, None, Reason.RESOURCE_ALLOW),
    ("anonymous", [statement(Principal=aws("*"))], [], None, None, Reason.RESOURCE_ALLOW),
    ("anonymous", [ALLOW, DENY], [], None, None, Reason.EXPLICIT_DENY),
    ("anonymous", [DENY, ALLOW], [], None, None, Reason.EXPLICIT_DENY),
    ("anonymous", [statement(Principal=aws(ACCOUNT))], [], None, None, Reason.NO_ALLOW),
    ("anonymous", [statement(Principal=USER_ANN)], [], None, None, Reason.NO_ALLOW),
    ("anonymous", [statement(Action=PUT)], [], None, None, Reason.NO_ALLOW),
    ("anonymous", [], [ALLOW], None, None, Reason.NO_ALLOW),
    ("ann", [], [], None, None, Reason.NO_ALLOW),
    ("ann", [], [ALLOW], None, None, Reason.IDENTITY_ALLOW),
    ("ann", [], [ALLOW, DENY], None, None, Reason.EXPLICIT_DENY),
    ("ann", [DENY], [ALLOW], None, None, Reason.EXPLICIT_DENY),
    ("ann", [ALLOW], [], None, None, Reason.RESOURCE_ALLOW),
    ("ann", [ALLOW], [DENY], None, None, Reason.EXPLICIT_DENY),
    ("ann", [statement(Principal=USER_ANN)], [], None, None, Reason.RESOURCE_ALLOW),
    ("bob", [statement(Principal=USER_ANN)], [], None, None, Reason.NO_ALLOW),
    ("ann", [statement(Principal=aws(ACCOUNT))], [], None, None, Reason.NO_ALLOW),
    ("ann", [statement(Principal=aws(ACCOUNT))], [ALLOW], None, None, Reason.IDENTITY_ALLOW),
    ("ann", [statement("Deny", Principal=aws(ACCOUNT))], [ALLOW], None, None, Reason.EXPLICIT_DENY),
    ("ann", [statement(Principal=aws(OTHER))], [], None, None, Reason.NO_ALLOW),
    ("ann", [statement(Principal=aws("AIDAANNANNANNANN"))], [], None, None, Reason.RESOURCE_ALLOW),
    ("bob", [statement(Principal=aws("AIDAANNANNANNANN"))], [], None, None, Reason.NO_ALLOW),
    ("ann", [statement(Principal={"CanonicalUser": OWNER_ID})], [], None, None, Reason.NO_ALLOW),
    ("ann", [], [ALLOW], [ALLOW], None, Reason.IDENTITY_ALLOW),
    ("ann", [], [ALLOW], [], None, Reason.BOUNDARY),
    ("ann", [], [ALLOW], [statement(Action=PUT)], None, Reason.BOUNDARY),
    ("ann", [], [], [ALLOW], None, Reason.NO_ALLOW),
    ("ann", [], [ALLOW], [ALLOW, DENY], None, Reason.EXPLICIT_DENY),
    ("ann", [ALLOW], [], [], None, Reason.BOUNDARY),
    ("ann", [statement(Principal=USER_ANN)], [], [], None, Reason.RESOURCE_ALLOW),
    ("ann", [statement(Principal=USER_ANN)], [], [DENY], None, Reason.EXPLICIT_DENY),
    ("session", [], [ALLOW], None, [ALLOW], Reason.IDENTITY_ALLOW),
    ("session", [], [ALLOW], None, [], Reason.SESSION),
    ("session", [], [ALLOW], None, [statement(Action=PUT)], Reason.SESSION),
    ("session", [], [], None, [ALLOW], Reason.NO_ALLOW),
    ("session", [], [ALLOW], [ALLOW], [ALLOW], Reason.IDENTITY_ALLOW),
    ("session", [], [ALLOW], [], [ALLOW], Reason.BOUNDARY),
    ("session", [], [ALLOW], [ALLOW], [], Reason.SESSION),
    ("session", [], [ALLOW], None, [ALLOW, DENY], Reason.EXPLICIT_DENY),
    ("session", [statement(Principal=ROLE)], [], None, None, Reason.RESOURCE_ALLOW),
    ("session", [statement(Principal=ROLE)], [], None, [], Reason.SESSION),
    ("session", [statement(Principal=ROLE)], [], [], None, Reason.BOUNDARY),
    ("session", [statement(Principal=aws(SESSION.arn))], [], [], [], Reason.RESOURCE_ALLOW),
    ("session", [statement("Deny", Principal=ROLE)], [ALLOW], None, None, Reason.EXPLICIT_DENY),
    ("session", [statement(Principal=USER_ANN)], [], None, None, Reason.NO_ALLOW),
    (
        "ann",
        [statement("Deny", NotPrincipal=USER_ANN)],
        [ALLOW],
        None,
        None,
        Reason.IDENTITY_ALLOW,
    ),
    ("bob", [statement("Deny", NotPrincipal=USER_ANN)], [ALLOW], None, None, Reason.EXPLICIT_DENY),
    (
        "anonymous",
        [ALLOW, statement("Deny", NotPrincipal=USER_ANN)],
        [],
        None,
        None,
        Reason.EXPLICIT_DENY,
    ),
    (
        "bob",
        [statement("Deny", NotPrincipal=aws(ACCOUNT))],
        [ALLOW],
        None,
        None,
        Reason.IDENTITY_ALLOW,
    ),
]


@pytest.mark.parametrize(("who", "bucket", "identity", "boundary", "session", "reason"), TOGETHER)
def test_policies_together(
    who: str, bucket: Any, identity: Any, boundary: Any, session: Any, reason: Reason
) -> None:
    def limit(statements: Any) -> tuple[Policy, ...] | None:
        if statements is None:
            return None
        return (for_identity(*statements),) if statements else ()

    permissions = Permissions(limit(identity) or (), limit(boundary), limit(session))
    policies = [for_bucket(*bucket)] if bucket else []
    decision = decide(asked(WHO[who]), permissions, policies)
    assert decision.reason is reason
    allowing = (Reason.ROOT, Reason.RESOURCE_ALLOW, Reason.IDENTITY_ALLOW)
    assert decision.allowed is (reason in allowing)


# elements of one Allow for everyone, action, resource, condition keys → allowed
ELEMENTS = [
    ({}, GET, OBJECT, {}, True),
    ({}, "s3:getobject", OBJECT, {}, True),
    ({}, PUT, OBJECT, {}, False),
    ({}, GET, "arn:aws:s3:::b", {}, False),
    ({}, GET, "arn:aws:s3:::c/k", {}, False),
    ({"Action": "s3:Get*"}, GET, OBJECT, {}, True),
    ({"Action": "s3:G?tObject"}, GET, OBJECT, {}, True),
    ({"Action": "s3:GETOBJECT"}, GET, OBJECT, {}, True),
    ({"Action": "s3:GetObject?cl"}, GET, OBJECT, {}, False),
    ({"Action": "*"}, DELETE, OBJECT, {}, True),
    ({"Action": ["s3:PutObject", "s3:DeleteObject"]}, DELETE, OBJECT, {}, True),
    ({"Action": ["s3:PutObject", "s3:DeleteObject"]}, GET, OBJECT, {}, False),
    ({"NotAction": "s3:Put*"}, GET, OBJECT, {}, True),
    ({"NotAction": "s3:Put*"}, PUT, OBJECT, {}, False),
    ({"NotAction": ["s3:PutObject", "s3:GetObject"]}, GET, OBJECT, {}, False),
    ({"Resource": "arn:aws:s3:::b/p/*"}, GET, "arn:aws:s3:::b/p/k", {}, True),
    ({"Resource": "arn:aws:s3:::b/p/*"}, GET, "arn:aws:s3:::b/p/", {}, True),
    ({"Resource": "arn:aws:s3:::b/p/*"}, GET, "arn:aws:s3:::b/p", {}, False),
    ({"Resource": "arn:aws:s3:::b/p/*"}, GET, "arn:aws:s3:::b/P/k", {}, False),
    ({"Resource": "arn:aws:s3:::b/p/*"}, GET, "arn:aws:s3:::b/p/../q", {}, True),
    ({"Resource": "arn:aws:s3:::b/*.jpg"}, GET, "arn:aws:s3:::b/a/b.jpg", {}, True),
    ({"Resource": "arn:aws:s3:::b/*.jpg"}, GET, "arn:aws:s3:::b/a.jpg\n", {}, False),
    ({"Resource": "arn:aws:s3:::b/a?c"}, GET, "arn:aws:s3:::b/a/c", {}, True),
    ({"Resource": "arn:aws:s3:::b/a?c"}, GET, "arn:aws:s3:::b/ac", {}, False),
    ({"Resource": "arn:aws:s3:::b/é*"}, GET, "arn:aws:s3:::b/é😀", {}, True),
    ({"Resource": "arn:aws:s3:::b/[a]*"}, GET, "arn:aws:s3:::b/a", {}, False),
    ({"NotResource": "arn:aws:s3:::b/p/*"}, GET, "arn:aws:s3:::b/q", {}, True),
    ({"NotResource": "arn:aws:s3:::b/p/*"}, GET, "arn:aws:s3:::b/p/q", {}, False),
    (
        {"Resource": "arn:aws:s3:::b/${aws:username}/*"},
        GET,
        "arn:aws:s3:::b/ann/k",
        {"aws:username": "ann"},
        True,
    ),
    (
        {"Resource": "arn:aws:s3:::b/${aws:username}/*"},
        GET,
        "arn:aws:s3:::b/bob/k",
        {"aws:username": "ann"},
        False,
    ),
    ({"Resource": "arn:aws:s3:::b/${aws:username}/*"}, GET, "arn:aws:s3:::b//k", {}, False),
    (
        {"Resource": "arn:aws:s3:::b/${aws:username}/*"},
        GET,
        "arn:aws:s3:::b/bob/k",
        {"aws:username": "*"},
        False,
    ),
    (
        {"Resource": "arn:aws:s3:::b/${aws:username, 'guest'}/*"},
        GET,
        "arn:aws:s3:::b/guest/k",
        {},
        True,
    ),
    (
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        GET,
        OBJECT,
        {"aws:securetransport": "true"},
        True,
    ),
    (
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        GET,
        OBJECT,
        {"aws:securetransport": "false"},
        False,
    ),
    ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, GET, OBJECT, {}, False),
    (
        {
            "Condition": {
                "Bool": {"aws:SecureTransport": "true"},
                "IpAddress": {"aws:SourceIp": "10.0.0.0/8"},
            }
        },
        GET,
        OBJECT,
        {"aws:securetransport": "true", "aws:sourceip": "11.0.0.1"},
        False,
    ),
    (
        {
            "Condition": {
                "Bool": {"aws:SecureTransport": "true"},
                "IpAddress": {"aws:SourceIp": "10.0.0.0/8"},
            }
        },
        GET,
        OBJECT,
        {"aws:securetransport": "true", "aws:sourceip": "10.0.0.1"},
        True,
    ),
    (
        {"Condition": {"StringEquals": {"aws:Referer": "r", "aws:UserAgent": "u"}}},
        GET,
        OBJECT,
        {"aws:referer": "r", "aws:useragent": "v"},
        False,
    ),
    (
        {"Condition": {"StringEquals": {"s3:ExistingObjectTag/Team": "red"}}},
        GET,
        OBJECT,
        {"s3:existingobjecttag/team": "red"},
        True,
    ),
]


@pytest.mark.parametrize(("elements", "action", "resource", "values", "allowed"), ELEMENTS)
def test_elements_of_a_statement(
    elements: Any, action: str, resource: str, values: Any, allowed: bool
) -> None:
    context = asked(ANONYMOUS, action, resource, **values)
    policy = for_bucket(statement(**elements))
    assert decide(context, resource_policies=[policy]).allowed is allowed


def test_a_decision_names_the_statement_that_decided() -> None:
    policy = for_bucket(ALLOW, statement("Deny", Sid="not today"))
    context = asked(ANN)
    decision = decide(context, resource_policies=[policy])
    assert decision.kind is Kind.RESOURCE
    assert decision.statement is policy.statements[1]
    assert decision.explain(context) == (
        f"User: {ANN.arn} is not authorized to perform: s3:GetObject on resource: "
        '"arn:aws:s3:::b/k" with an explicit deny in a resource-based policy '
        '(statement "not today" of the policy of bucket b)'
    )


def test_an_allowed_and_an_implicitly_denied_request_are_explained_too() -> None:
    policy = for_identity(ALLOW)
    allowed = decide(asked(ANN), Permissions((policy,)))
    assert "is authorized" in allowed.explain(asked(ANN))
    assert "an identity-based policy (statement 1 of p)" in allowed.explain(asked(ANN))
    denied = decide(asked(ANN))
    assert denied.explain(asked(ANN)).endswith("because no policy allows the s3:GetObject action")
    limited = decide(asked(ANN), Permissions((policy,), boundary=()))
    assert limited.explain(asked(ANN)).endswith("because no permissions boundary allows it")


# Laws. Small worlds, in which statements often meet the request.

PRINCIPALS = st.sampled_from(
    ["*", aws("*"), aws(ACCOUNT), aws(OTHER), USER_ANN, ROLE, aws(SESSION.arn)]
)
ACTIONS = st.lists(st.sampled_from([GET, PUT, "s3:*", "s3:Get*", "s3:*Object"]), min_size=1)
RESOURCES = st.lists(
    st.sampled_from([OBJECT, "arn:aws:s3:::b/*", "arn:aws:s3:::b/other", "arn:aws:s3:::b/?"]),
    min_size=1,
)
CONDITIONS = st.sampled_from(
    [
        {},
        {"Bool": {"aws:SecureTransport": "true"}},
        {"StringNotEquals": {"aws:Referer": "r"}},
        {"StringLike": {"aws:Referer": "?"}},
        {"Null": {"aws:Referer": "true"}},
    ]
)


@st.composite
def statements(draw: st.DrawFn, effect: str | None = None) -> dict[str, Any]:
    found = {
        "Effect": effect or draw(st.sampled_from(["Allow", "Deny"])),
        draw(st.sampled_from(["Action", "NotAction"])): draw(ACTIONS),
        draw(st.sampled_from(["Resource", "NotResource"])): draw(RESOURCES),
        "Condition": draw(CONDITIONS),
    }
    return found


@st.composite
def bucket_statements(draw: st.DrawFn, effect: str | None = None) -> dict[str, Any]:
    return {**draw(statements(effect)), "Principal": draw(PRINCIPALS)}


@st.composite
def contexts(draw: st.DrawFn) -> RequestContext:
    values = draw(
        st.dictionaries(
            st.sampled_from(["aws:securetransport", "aws:referer"]),
            st.sampled_from([("true",), ("r",)]),
        )
    )
    who = draw(st.sampled_from(list(WHO.values())))
    resource = draw(st.sampled_from([OBJECT, "arn:aws:s3:::b/other", "arn:aws:s3:::b/long"]))
    return RequestContext(who, draw(st.sampled_from([GET, PUT, DELETE])), resource, values)


WORLDS = st.tuples(
    st.lists(bucket_statements(), max_size=3),
    st.lists(statements(), max_size=3),
    st.none() | st.lists(statements(), max_size=2),
    st.none() | st.lists(statements(), max_size=2),
)


def decided(context: RequestContext, world: Any) -> bool:
    bucket, identity, boundary, session = world

    def policies(found: Any) -> Any:
        if found is None:
            return None
        return (for_identity(*found),) if found else ()

    permissions = Permissions(policies(identity), policies(boundary), policies(session))
    return decide(context, permissions, [for_bucket(*bucket)] if bucket else []).allowed


@given(contexts(), WORLDS, bucket_statements("Deny"), statements("Deny"), st.integers(0, 3))
def test_adding_a_deny_never_allows(
    context: RequestContext, world: Any, bucket_deny: Any, deny: Any, place: int
) -> None:
    before = decided(context, world)
    parts = list(world)
    if parts[place] is not None:
        parts[place] = [*parts[place], deny if place else bucket_deny]
    after = decided(context, parts)
    assert before or not after


@given(contexts(), WORLDS, bucket_statements("Allow"), statements("Allow"), st.integers(0, 3))
def test_adding_an_allow_never_denies(
    context: RequestContext, world: Any, bucket_allow: Any, allow: Any, place: int
) -> None:
    before = decided(context, world)
    parts = list(world)
    if parts[place] is not None:
        parts[place] = [*parts[place], allow if place else bucket_allow]
    assert decided(context, parts) or not before


@given(contexts(), WORLDS)
def test_a_limit_never_allows(context: RequestContext, world: Any) -> None:
    bucket, identity, *_ = world
    if decided(context, world):
        assert decided(context, (bucket, identity, None, None))


@given(contexts(), statements("Allow"))
def test_not_action_and_not_resource_are_the_complement(
    context: RequestContext, found: dict[str, Any]
) -> None:
    named = {**found, "Action": found.get("Action") or found.get("NotAction")}
    named.pop("NotAction", None)
    turned = {**named, "NotAction": named["Action"]}
    turned.pop("Action")
    unconditional = [
        {**each, "NotResource": "arn:aws:s3:::c", "Condition": {}} for each in (named, turned)
    ]
    for each in unconditional:
        each.pop("Resource", None)
    one, other = (
        bool(for_identity(each).statements[0].match(context).name != "NONE")
        for each in unconditional
    )
    assert one is not other


@given(contexts(), WORLDS, st.randoms())
def test_the_order_of_statements_does_not_matter(
    context: RequestContext, world: Any, random: Any
) -> None:
    before = decided(context, world)
    shuffled = [None if part is None else random.sample(part, len(part)) for part in world]
    assert decided(context, shuffled) is before


@pytest.mark.parametrize(
    ("effect", "operator", "allowed"),
    [
        ("Allow", "StringEquals", False),
        ("Allow", "StringNotEquals", True),
        ("Allow", "StringEqualsIfExists", True),
        ("Allow", "ForAllValues:StringEquals", True),
        ("Allow", "ForAnyValue:StringEquals", False),
        ("Deny", "StringEquals", True),
        ("Deny", "StringNotEquals", False),
        ("Deny", "StringEqualsIfExists", False),
    ],
)
@pytest.mark.parametrize("key", ["kms:ViaService", "ec2:SourceInstanceARN", "s3:misspelt"])
def test_a_key_that_is_not_known_is_absent(
    effect: str, operator: str, allowed: bool, key: str
) -> None:
    conditional = statement(effect, Condition={operator: {key: "x"}})
    statements = (conditional,) if effect == "Allow" else (ALLOW, conditional)
    assert decide(asked(ANN), Permissions((for_identity(*statements),))).allowed is allowed


def test_a_key_that_is_not_known_counts_where_a_simulation_gives_it() -> None:
    policies = Permissions((for_identity(statement(Condition={"Null": {"kms:Via": "false"}})),))
    assert decide(asked(ANN, **{"kms:via": "x"}), policies).allowed
    assert not decide(asked(ANN), policies).allowed
