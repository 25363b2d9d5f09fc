"""AssumeRoleWithWebIdentity through boto3, with a provider that is fetched from over HTTPS."""

from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from tests.iam.conftest import ACCOUNT, REGION, Keys, Server, fresh, policy, refused, trust, until
from tests.iam.oidc_provider import CLIENT, Issuer, Key

WEB = "sts:AssumeRoleWithWebIdentity"


@pytest.fixture
def issuer(server: Server) -> Any:
    """The provider, registered, with one key."""
    iam, issuer = server.client("iam"), server.provider.issuer
    arn = provider_arn(issuer)
    iam.create_open_id_connect_provider(
        Url=issuer.url, ClientIDList=[CLIENT], ThumbprintList=["0" * 40]
    )
    yield issuer
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)


def provider_arn(issuer: Issuer) -> str:
    return f"arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer.url.removeprefix('https://')}"


def key_of(issuer: Issuer, claim: str) -> str:
    return f"{issuer.url.removeprefix('https://')}:{claim}"


def make_role(server: Server, issuer: Issuer, condition: Any = None, **more: Any) -> str:
    """The ARN of a role that trusts the provider and may do all of S3."""
    iam, name = server.client("iam"), fresh("web")
    trusted = trust({"Federated": provider_arn(issuer)}, WEB, "sts:TagSession", condition=condition)
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted, **more)["Role"]
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy("s3:*"))
    return str(made["Arn"])


def assume(server: Server, arn: str, token: str, gateway: int = -1, **more: Any) -> Any:
    sts = boto3.client(
        "sts",
        endpoint_url=server.endpoints[gateway],
        region_name=REGION,
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    return sts.assume_role_with_web_identity(
        RoleArn=arn, RoleSessionName="web-1", WebIdentityToken=token, **more
    )


def test_a_token_is_exchanged_for_a_session_on_every_gateway(
    server: Server, issuer: Issuer
) -> None:
    arn = make_role(server, issuer)
    for gateway in range(len(server.endpoints)):
        reply = assume(server, arn, issuer.token(), gateway)
        assert reply["SubjectFromWebIdentityToken"] == "user-1"
        assert reply["Audience"] == CLIENT
        assert reply["Provider"] == provider_arn(issuer)
        assert reply["AssumedRoleUser"]["Arn"].endswith("/web-1")
        for other in range(len(server.endpoints)):
            until(
                lambda reply=reply, other=other: server.client(  # type: ignore[misc]
                    "s3", Keys.of(reply), other
                ).list_buckets(),
                "the session",
            )


def test_claims_are_conditions_of_trust_policies_and_of_permissions(
    server: Server, issuer: Issuer
) -> None:
    condition = {
        "StringEquals": {key_of(issuer, "aud"): CLIENT},
        "StringLike": {key_of(issuer, "sub"): "repo:me/*"},
    }
    arn = make_role(server, issuer, condition)
    with refused("AccessDenied", 403):
        assume(server, arn, issuer.token(issuer.claims(sub="repo:you/x")))
    reply = assume(server, arn, issuer.token(issuer.claims(sub="repo:me/x", team="a")))
    name = arn.rpartition("/")[2]
    limit = policy("s3:*", condition={"StringEquals": {key_of(issuer, "team"): "b"}})
    session = server.client("s3", Keys.of(reply))
    session.list_buckets()
    server.client("iam").put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=limit)
    with refused("AccessDenied", 403):
        session.list_buckets()


def test_tags_of_the_token_are_tags_of_the_session(server: Server, issuer: Issuer) -> None:
    arn = make_role(server, issuer)
    name = arn.rpartition("/")[2]
    limit = policy("s3:*", condition={"StringEquals": {"aws:PrincipalTag/team": "a"}})
    server.client("iam").put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=limit)
    for team in ("a", "b"):
        tags = {"https://aws.amazon.com/tags": {"principal_tags": {"team": [team]}}}
        reply = assume(server, arn, issuer.token(issuer.claims(**tags)))
        session = server.client("s3", Keys.of(reply))
        if team == "a":
            session.list_buckets()
        else:
            with refused("AccessDenied", 403):
                session.list_buckets()


def test_session_policies_limit_web_identities(server: Server, issuer: Issuer) -> None:
    arn = make_role(server, issuer)
    limit = policy("s3:ListAllMyBuckets")
    session = server.client("s3", Keys.of(assume(server, arn, issuer.token(), Policy=limit)))
    session.list_buckets()
    with refused("AccessDenied", 403):
        session.create_bucket(Bucket=fresh("b"))


def test_what_does_not_fit_is_refused(server: Server, issuer: Issuer) -> None:
    arn = make_role(server, issuer)
    stranger = Key.rsa(issuer.keys[-1].kid)
    wrong = {
        issuer.token(issuer.claims(aud="another")): "InvalidIdentityToken",
        issuer.token(issuer.claims(iss="https://evil.example.com")): "InvalidIdentityToken",
        issuer.token(issuer.claims(exp=1)): "ExpiredTokenException",
        issuer.token(key=stranger): "InvalidIdentityToken",
        issuer.token(headers={"kid": "nobody's"}): "InvalidIdentityToken",
        "no.to.ken": "InvalidIdentityToken",
    }
    for token, code in wrong.items():
        with refused(code, 400):
            assume(server, arn, token)
    with refused("AccessDenied", 403):
        assume(server, arn + "x", issuer.token())
    with refused("ValidationError", 400):
        assume(server, arn, issuer.token(), DurationSeconds=3601)


def test_a_role_that_names_no_provider_is_not_for_web_identities(
    server: Server, issuer: Issuer
) -> None:
    iam = server.client("iam")
    for principal in ({"AWS": "*"}, "*", {"AWS": ACCOUNT}):
        name = fresh("web")
        document = trust(principal, WEB)
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]
        with refused("AccessDenied", 403):
            assume(server, made["Arn"], issuer.token())
    only_users = iam.create_role(
        RoleName=fresh("web"),
        AssumeRolePolicyDocument=trust({"Federated": provider_arn(issuer)}, "sts:AssumeRole"),
    )["Role"]
    with refused("AccessDenied", 403):
        assume(server, only_users["Arn"], issuer.token())


def test_sessions_end_with_the_provider(server: Server, issuer: Issuer) -> None:
    arn = make_role(server, issuer)
    session = server.client("s3", Keys.of(assume(server, arn, issuer.token())))
    session.list_buckets()
    iam = server.client("iam")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider_arn(issuer))
    with refused("InvalidToken", 400):
        session.list_buckets()
    with refused("InvalidIdentityToken", 400):
        assume(server, arn, issuer.token())
    iam.create_open_id_connect_provider(Url=issuer.url, ClientIDList=["another"])
    with refused("InvalidIdentityToken", 400):
        assume(server, arn, issuer.token())
