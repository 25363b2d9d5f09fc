"""Sessions: `AssumeRole`, `GetSessionToken`, `AssumeRoleWithWebIdentity`, …

Whoever gets temporary credentials here may do with them what the role or user may at the time of
each request, cut down by the session policies given here. Source: STS API Reference; IAM User
Guide, "Temporary security credentials", "Pass session tags in AWS STS".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from s3gw import limits
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy import (
    Effect,
    Match,
    Policy,
    Principal,
    PrincipalType,
    RequestContext,
    by_unique_ids,
)
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, Decision, Permissions, decide, findings
from s3gw.auth.policy_parse import parse_trust_policy
from s3gw.iam import shapes
from s3gw.iam.call import Asker, QueryCall
from s3gw.iam.documents import Result
from s3gw.iam.errors import (
    AccessDenied,
    MalformedPolicyDocument,
    PackedPolicyTooLarge,
    ValidationError,
)
from s3gw.iam.resources import add_tags
from s3gw.identities import names
from s3gw.identities.documents import check_document
from s3gw.identities.errors import NoSuchEntity
from s3gw.identities.principals import PRINCIPAL_TAG, assumed_role_arn, principal_tags
from s3gw.identities.root import ACCOUNT_ID
from s3gw.identities.sessions import (
    FEDERATED,
    ROLE,
    ROOT,
    TOKEN_CHARACTERS_MAX,
    USER,
    Session,
    new_credentials,
)
from s3gw.metadata.identity_records import RoleRecord

ROLE_SECONDS_DEFAULT = 3600
CHAINED_SECONDS_MAX = 3600
USER_SECONDS_DEFAULT = 12 * 3600
ROOT_SECONDS_MAX = 3600
ROLE_ARN = f"arn:aws:iam::{ACCOUNT_ID}:role/"
SOURCE_IDENTITY = "aws:sourceidentity"


async def get_caller_identity(call: QueryCall) -> Result:
    """Needs no permission: it tells no more than the asker proved."""
    who = call.principal
    return {"UserId": who.user_id, "Account": who.account, "Arn": who.arn}


async def get_session_token(call: QueryCall) -> Result:
    """Credentials of the asker itself, that end. Needs no permission."""
    if call.asker.session is not None:
        raise AccessDenied("Cannot call GetSessionToken with session credentials")
    seconds = call.parameters.integer("DurationSeconds") or USER_SECONDS_DEFAULT
    if call.principal.is_root:
        session = await _session(call, ROOT, "", "", "", min(seconds, ROOT_SECONDS_MAX))
    else:
        name, unique_id = call.principal.name, call.principal.user_id
        session = await _session(call, USER, name, unique_id, "", seconds)
    return {"Credentials": _credentials(call, session)[0]}


async def get_federation_token(call: QueryCall) -> Result:
    """Credentials of the asker, in the name of somebody it vouches for, that may do what both the
    asker and the policies given here allow; without any, only what resources grant by name."""
    if call.asker.session is not None:
        raise AccessDenied("Cannot call GetFederationToken with session credentials")
    if call.principal.type is not PrincipalType.USER:
        raise AccessDenied("Only users may call GetFederationToken")
    if call.asker.permissions.session is not None:
        raise AccessDenied("Service accounts with a policy of their own cannot vouch for others")
    name = call.parameters.text("Name")
    tags = names.check_tags(call.parameters.tags())
    if tags:
        call.require(call.resource, action="sts:TagSession")
    seconds = call.parameters.integer("DurationSeconds") or USER_SECONDS_DEFAULT
    session = await _session(
        call,
        FEDERATED,
        call.principal.name,
        call.principal.user_id,
        name,
        seconds,
        claims=principal_tags(tags),
    )
    credentials, packed = _credentials(call, session)
    user = {"FederatedUserId": f"{ACCOUNT_ID}:{name}", "Arn": call.resource}
    return {"Credentials": credentials, "FederatedUser": user, "PackedPolicySize": packed}


async def assume_role(call: QueryCall) -> Result:
    """The session of a role whose trust policy names the asker, or the account and then the
    asker's own policies allow it."""
    parameters = call.parameters
    if call.principal.is_root:
        raise AccessDenied("Roles may not be assumed by root accounts.")
    role = await _role(call)
    tags, transitive = _session_tags(call)
    actions = ["sts:AssumeRole"]
    actions += ["sts:TagSession"] if tags else []
    source_identity = parameters.optional("SourceIdentity")
    actions += ["sts:SetSourceIdentity"] if source_identity is not None else []
    for action in actions:
        _require_trust(call, action, role)
    assert role is not None  # nobody is trusted by none
    before = call.asker.session
    inherited = _inherited(before)
    claims = {**principal_tags(tags), **inherited}
    if source_identity is not None:
        if claims.get(SOURCE_IDENTITY, (source_identity,)) != (source_identity,):
            raise AccessDenied("The source identity of a session cannot be changed.")
        claims[SOURCE_IDENTITY] = (source_identity,)
    chained = before is not None and before.kind == ROLE
    seconds = _role_seconds(call, role, chained=chained)
    session = await _session(
        call,
        ROLE,
        role.name,
        role.role_id,
        parameters.text("RoleSessionName"),
        seconds,
        claims=claims,
        transitive=(*transitive, *(before.transitive_tags if before is not None else ())),
    )
    return _assumed(call, role, session)


async def assume_role_with_web_identity(call: QueryCall) -> Result:
    """The session of a role whose trust policy names a provider, for who presents its token."""
    parameters = call.parameters
    await call.services.view.refresh()
    providers = call.services.view.known.providers

    def clients_of(issuer: str) -> tuple[str, ...] | None:
        # Providers are kept without the slash that some issuers end in; there is one such form, so
        # that nobody makes us ask a provider under ever new names.
        found = providers.get(names.provider_arn(issuer.removesuffix("/")))
        if found is None or issuer not in (found.url, found.url + "/"):
            return None
        return found.client_ids

    token = parameters.text("WebIdentityToken")
    identity = await call.services.web.verify(token, clients_of)
    provider = names.provider_arn(identity.issuer.removesuffix("/"))
    role = await _role(call)
    claims = {**identity.conditions, "aws:federatedprovider": (provider,)}
    who = Principal("", identity.subject, PrincipalType.FEDERATED, user_id=provider, claims=claims)
    call.asker = Asker(who)
    call.values |= {f"aws:requesttag/{k.lower()}": (v,) for k, v in identity.tags.items()}
    if identity.tags:
        call.values["aws:tagkeys"] = tuple(identity.tags)
    actions = ["sts:AssumeRoleWithWebIdentity", *(["sts:TagSession"] if identity.tags else [])]
    for action in actions:
        _require_trust(call, action, role)
    assert role is not None  # nobody is trusted by none
    names.check_tags(identity.tags)
    session = await _session(
        call,
        ROLE,
        role.name,
        role.role_id,
        parameters.text("RoleSessionName"),
        _role_seconds(call, role, chained=False),
        claims={**claims, **principal_tags(identity.tags)},
        transitive=identity.transitive_tags,
        provider=provider,
    )
    return {
        **_assumed(call, role, session),
        "SubjectFromWebIdentityToken": identity.subject,
        "Audience": identity.audience,
        "Provider": provider,
    }


async def _role(call: QueryCall) -> RoleRecord | None:
    """The role that the call names, if there is one."""
    arn = call.parameters.text("RoleArn")
    if not arn.startswith(ROLE_ARN):
        return None
    name = arn.rpartition("/")[2]
    try:
        role = await call.store.get_role(name)
    except NoSuchEntity:
        return None
    if names.arn(names.ROLE, role.path, role.name) != arn:
        return None
    add_tags(call, role.tags)
    return role


def _require_trust(call: QueryCall, action: str, role: RoleRecord | None) -> None:
    """The trust policy must allow the action, whatever else does. Raises AccessDenied, the same for
    a role that is not there."""
    arn = call.parameters.text("RoleArn")
    context = call.context(action, arn)
    if role is not None and trusts(role, context, call.asker.permissions).allowed:
        return
    if call.principal.type is PrincipalType.FEDERATED:
        raise AccessDenied(f"Not authorized to perform {action}")
    raise AccessDenied(
        f"User: {call.principal.arn} is not authorized to perform: {action} on resource: {arn}"
    )


def trusts(role: RoleRecord, context: RequestContext, permissions: Permissions) -> Decision:
    """Whether the role's trust policy lets somebody have a session. Raises MalformedPolicyDocument
    for one that cannot be read."""
    policy = _trust_policy(role)
    allowing = [
        found.match
        for found in findings(context, [policy])
        if found.statement.effect is Effect.ALLOW
    ]
    web = context.principal.type is PrincipalType.FEDERATED and not context.principal.arn
    # A web identity is nobody of the account: only a statement that names its provider is about it.
    if not allowing or (web and Match.DIRECT not in allowing):
        return decide(context, NO_PERMISSIONS, [_denials(policy)])
    return decide(context, permissions, [policy])


def _denials(policy: Policy) -> Policy:
    """The policy without what it allows."""
    kept = tuple(each for each in policy.statements if each.effect is Effect.DENY)
    return Policy(policy.name, kept, policy.id)


def _trust_policy(role: RoleRecord) -> Policy:
    try:
        name = f"the trust policy of role {role.name}"
        limit = limits.IAM_DOCUMENT_BYTES_MAX
        policy = parse_trust_policy(role.trust.encode(), name, limit=limit)
        return by_unique_ids(policy, role.principals)
    except PolicyError as error:
        raise MalformedPolicyDocument(f"The trust policy cannot be read: {error}") from error


def _session_tags(call: QueryCall) -> tuple[dict[str, str], tuple[str, ...]]:
    """The tags of the call and the keys of those that follow into further sessions. Raises
    ValidationError, and AccessDenied for one that the session before has fixed."""
    tags = names.check_tags(call.parameters.tags())
    transitive = tuple(call.parameters.texts("TransitiveTagKeys"))
    if unknown := {key.lower() for key in transitive} - {key.lower() for key in tags}:
        raise ValidationError(f"The tag key {min(unknown)} is transitive, but no tag has it.")
    fixed = {key.lower() for key in _transitive(call.asker.session)}
    if fixed & {key.lower() for key in tags}:
        raise AccessDenied("A tag of the session that is transitive cannot be changed.")
    return tags, transitive


def _transitive(session: Session | None) -> tuple[str, ...]:
    return session.transitive_tags if session is not None else ()


def _inherited(session: Session | None) -> dict[str, tuple[str, ...]]:
    """What follows from one session into the next: transitive tags, the source identity."""
    if session is None:
        return {}
    kept = {PRINCIPAL_TAG + key.lower() for key in session.transitive_tags} | {SOURCE_IDENTITY}
    return {key: value for key, value in session.claims.items() if key in kept}


def _role_seconds(call: QueryCall, role: RoleRecord, *, chained: bool) -> int:
    """How long the session lasts. Raises ValidationError."""
    seconds = call.parameters.integer("DurationSeconds") or ROLE_SECONDS_DEFAULT
    if seconds > role.max_session_seconds:
        raise ValidationError(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    if chained and seconds > CHAINED_SECONDS_MAX:
        raise ValidationError(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by "
            "role chaining"
        )
    return seconds


async def _session(
    call: QueryCall,
    kind: str,
    name: str,
    unique_id: str,
    session_name: str,
    seconds: int,
    *,
    claims: Mapping[str, tuple[str, ...]] | None = None,
    transitive: Iterable[str] = (),
    provider: str = "",
) -> Session:
    """A session with fresh credentials and the session policies of the call. Raises
    MalformedPolicyDocument."""
    before = call.asker.session
    access_key, secret_key = new_credentials()
    policy = call.parameters.optional("Policy") or ""
    if policy:
        check_document(policy, "session policy", limits.IAM_SESSION_POLICY_CHARACTERS_MAX)
    arns = tuple(each["arn"] for each in call.parameters.structures("PolicyArns"))
    for arn in arns:
        try:
            await call.store.get_policy(arn)
        except NoSuchEntity as error:
            raise MalformedPolicyDocument(error.message) from error
    found = {**(claims or {}), "aws:tokenissuetime": (shapes.date(call.now_ms),)}
    return Session(
        access_key,
        secret_key,
        kind,
        name,
        unique_id,
        session_name,
        issuer_key=before.issuer_key if before is not None else call.asker.access_key,
        issued_ms=call.now_ms,
        expires_ms=call.now_ms + seconds * 1000,
        policy=policy,
        policy_arns=arns,
        claims=found,
        provider=provider or (before.provider if before is not None else ""),
        transitive_tags=tuple(dict.fromkeys(transitive)),
    )


def _credentials(call: QueryCall, session: Session) -> tuple[Result, int]:
    """The credentials of a session, and how much of the room of a token it takes, in percent.
    Raises PackedPolicyTooLarge."""
    token = call.services.view.sealer.seal(session)
    percent = -(-len(token) * 100 // TOKEN_CHARACTERS_MAX)
    if percent > 100:
        raise PackedPolicyTooLarge(f"The session takes {percent} % of the allowed size.")
    return {
        "AccessKeyId": session.access_key,
        "SecretAccessKey": session.secret_key,
        "SessionToken": token,
        "Expiration": shapes.date(session.expires_ms),
    }, percent


def _assumed(call: QueryCall, role: RoleRecord, session: Session) -> Result:
    credentials, packed = _credentials(call, session)
    return {
        "Credentials": credentials,
        "AssumedRoleUser": {
            "AssumedRoleId": f"{role.role_id}:{session.session_name}",
            "Arn": assumed_role_arn(role, session.session_name),
        },
        "PackedPolicySize": packed,
        "SourceIdentity": session.claims.get(SOURCE_IDENTITY, (None,))[0],
    }
