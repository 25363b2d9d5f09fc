"""Sessions through boto3's STS client: who gets them, what they may do, and when they end."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.iam.conftest import (
    ACCOUNT,
    Keys,
    Server,
    fresh,
    make_user,
    policy,
    refused,
    trust,
    until,
)

ANY_S3 = policy("s3:*")
USER = f"arn:aws:iam::{ACCOUNT}:user/"


def make_role(server: Server, trusted: str, *documents: str, **more: Any) -> tuple[str, str]:
    """Name and ARN of a role."""
    iam, name = server.client("iam"), fresh("role")
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted, **more)["Role"]
    for number, document in enumerate(documents):
        iam.put_role_policy(RoleName=name, PolicyName=f"p{number}", PolicyDocument=document)
    return name, made["Arn"]


def assume(server: Server, keys: Keys, arn: str, **more: Any) -> Keys:
    sts = server.client("sts", keys)
    return Keys.of(sts.assume_role(RoleArn=arn, RoleSessionName="s-1", **more))


def works(server: Server, keys: Keys) -> bool:
    """Every gateway accepts the credentials, the others as soon as they know what ours does."""
    for gateway in range(len(server.endpoints)):
        sts = server.client("sts", keys, gateway)
        until(lambda sts=sts: sts.get_caller_identity(), "the session")  # type: ignore[misc]
    return True


def ended(server: Server, keys: Keys) -> bool:
    for gateway in range(len(server.endpoints)):
        with refused("InvalidClientTokenId", 403):
            server.client("sts", keys, gateway).get_caller_identity()
        with refused("InvalidToken", 400):
            server.client("s3", keys, gateway).list_buckets()
    return True


def test_everybody_may_ask_who_they_are(server: Server) -> None:
    name, keys = make_user(server, policy("*", effect="Deny"))
    found = server.client("sts", keys).get_caller_identity()
    assert (found["Account"], found["Arn"]) == (ACCOUNT, USER + name)
    assert found["UserId"].startswith("AIDA")
    assert server.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_a_role_is_assumed_by_whom_its_trust_policy_names(server: Server) -> None:
    name, keys = make_user(server)
    role, arn = make_role(server, trust({"AWS": USER + name}), ANY_S3)
    with refused("AccessDenied", 403):
        server.client("s3", keys).list_buckets()
    session = assume(server, keys, arn)
    assert session.access_key.startswith("ASIA")
    assert works(server, session)
    found = server.client("sts", session).get_caller_identity()
    assert found["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/s-1"
    bucket = fresh("b")
    for gateway in range(len(server.endpoints)):
        s3 = server.client("s3", session, gateway)
        s3.create_bucket(Bucket=f"{bucket}{gateway}")
        s3.put_object(Bucket=f"{bucket}{gateway}", Key="k", Body=b"data")
    with refused("AccessDenied", 403):
        server.client("iam", session).list_users()


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_session_works_in_presigned_urls(server: Server, version: str) -> None:
    name, keys = make_user(server)
    _, arn = make_role(server, trust({"AWS": USER + name}), ANY_S3)
    session = assume(server, keys, arn)
    s3, signer = (
        server.client("s3", session, **more) for more in ({}, {"signature_version": version})
    )
    bucket = fresh("b")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert urllib.request.urlopen(url).read() == b"data"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(re.sub("(?i)(security-token=)", r"\1A", url))
    assert caught.value.code == 400
    assert b"InvalidToken" in caught.value.read()


def test_a_role_that_trusts_the_account_needs_the_users_own_permission(server: Server) -> None:
    _, arn = make_role(server, trust({"AWS": ACCOUNT}), ANY_S3)
    _, without = make_user(server)
    with refused("AccessDenied", 403):
        assume(server, without, arn)
    _, allowed = make_user(server, policy("sts:AssumeRole", resource=arn))
    assert works(server, assume(server, allowed, arn))
    _, elsewhere = make_user(server, policy("sts:AssumeRole", resource=arn + "x"))
    with refused("AccessDenied", 403):
        assume(server, elsewhere, arn)


def test_permission_without_trust_is_not_enough(server: Server) -> None:
    other, _ = make_user(server)
    _, arn = make_role(server, trust({"AWS": USER + other}), ANY_S3)
    _, keys = make_user(server, policy("*"))
    with refused("AccessDenied", 403):
        assume(server, keys, arn)
    with refused("AccessDenied", 403):  # as for one that is not there
        assume(server, keys, arn + "x")


def test_an_explicit_denial_of_the_user_wins_over_trust(server: Server) -> None:
    name, keys = make_user(server, policy("sts:AssumeRole", effect="Deny"))
    _, arn = make_role(server, trust({"AWS": USER + name}), ANY_S3)
    with refused("AccessDenied", 403):
        assume(server, keys, arn)


def test_root_assumes_no_role(server: Server) -> None:
    _, arn = make_role(server, trust({"AWS": ACCOUNT}), ANY_S3)
    with refused("AccessDenied", 403):
        assume(server, server.root, arn)


def test_a_trust_policy_asks_for_the_external_id(server: Server) -> None:
    name, keys = make_user(server)
    condition = {"StringEquals": {"sts:ExternalId": "secret-7"}}
    _, arn = make_role(server, trust({"AWS": USER + name}, condition=condition))
    with refused("AccessDenied", 403):
        assume(server, keys, arn)
    with refused("AccessDenied", 403):
        assume(server, keys, arn, ExternalId="secret-8")
    assert works(server, assume(server, keys, arn, ExternalId="secret-7"))


def test_session_policies_only_take_away(server: Server) -> None:
    name, keys = make_user(server)
    bucket = fresh("b")
    server.client("s3").create_bucket(Bucket=bucket)
    _, arn = make_role(server, trust({"AWS": USER + name}), policy("s3:ListBucket", "s3:PutObject"))
    listing = policy("s3:ListBucket", "s3:DeleteBucket", "iam:*")
    session = server.client("s3", assume(server, keys, arn, Policy=listing))
    session.list_objects_v2(Bucket=bucket)
    with refused("AccessDenied", 403):
        session.put_object(Bucket=bucket, Key="k")
    with refused("AccessDenied", 403):
        session.delete_bucket(Bucket=bucket)  # the role may not


def test_managed_policies_limit_a_session(server: Server) -> None:
    name, keys = make_user(server)
    _, arn = make_role(server, trust({"AWS": USER + name}), ANY_S3)
    iam, policy_name = server.client("iam"), fresh("policy")
    made = iam.create_policy(PolicyName=policy_name, PolicyDocument=policy("s3:ListAllMyBuckets"))
    limits = [{"arn": made["Policy"]["Arn"]}]
    session = server.client("s3", assume(server, keys, arn, PolicyArns=limits))
    until(lambda: session.list_buckets(), "the policy")
    with refused("AccessDenied", 403):
        session.create_bucket(Bucket=fresh("b"))
    with refused("MalformedPolicyDocument", 400):
        assume(server, keys, arn, PolicyArns=[{"arn": made["Policy"]["Arn"] + "x"}])
    iam.delete_policy(PolicyArn=made["Policy"]["Arn"])

    def denied() -> bool:
        with refused("AccessDenied", 403):
            session.list_buckets()
        return True

    until(denied, "the end of the policy")


def test_session_tags_need_permission_and_are_conditions(server: Server) -> None:
    name, keys = make_user(server)
    tagged = {"StringEquals": {"aws:PrincipalTag/team": "a"}}
    plain = make_role(server, trust({"AWS": USER + name}), policy("s3:*", condition=tagged))[1]
    both = ("sts:AssumeRole", "sts:TagSession")
    _, arn = make_role(server, trust({"AWS": USER + name}, *both), policy("s3:*", condition=tagged))
    tags = [{"Key": "Team", "Value": "a"}]
    with refused("AccessDenied", 403):
        assume(server, keys, plain, Tags=tags)
    server.client("s3", assume(server, keys, arn, Tags=tags)).list_buckets()
    with refused("AccessDenied", 403):
        server.client("s3", assume(server, keys, arn)).list_buckets()
    with refused("AccessDenied", 403):
        other = [{"Key": "team", "Value": "b"}]
        server.client("s3", assume(server, keys, arn, Tags=other)).list_buckets()


def test_transitive_tags_follow_into_the_next_role_and_stay(server: Server) -> None:
    name, keys = make_user(server)
    both = ("sts:AssumeRole", "sts:TagSession")
    first, arn = make_role(server, trust({"AWS": USER + name}, *both), policy("sts:*"))
    first_arn = f"arn:aws:iam::{ACCOUNT}:role/{first}"
    tagged = {"StringEquals": {"aws:PrincipalTag/team": "a"}}
    _, second = make_role(
        server, trust({"AWS": first_arn}, *both), policy("s3:*", condition=tagged)
    )
    tags = {"Tags": [{"Key": "team", "Value": "a"}], "TransitiveTagKeys": ["team"]}
    session = assume(server, keys, arn, **tags)
    server.client("s3", assume(server, session, second)).list_buckets()
    with refused("AccessDenied", 403):
        assume(server, session, second, Tags=[{"Key": "team", "Value": "b"}])
    with refused("ValidationError", 400):
        assume(server, session, second, DurationSeconds=3601)


def test_a_session_lasts_as_long_as_its_role_allows(server: Server) -> None:
    name, keys = make_user(server)
    _, arn = make_role(server, trust({"AWS": USER + name}), MaxSessionDuration=7200)
    sts = server.client("sts", keys)
    for seconds in (7201, 43_200, 43_201):
        with refused("ValidationError", 400):
            sts.assume_role(RoleArn=arn, RoleSessionName="s-1", DurationSeconds=seconds)
    reply = sts.assume_role(RoleArn=arn, RoleSessionName="s-1", DurationSeconds=7200)
    assert reply["PackedPolicySize"] > 0
    assert reply["AssumedRoleUser"]["AssumedRoleId"].endswith(":s-1")


def test_a_session_that_would_not_fit_a_header_is_refused(server: Server) -> None:
    name, keys = make_user(server)
    both = ("sts:AssumeRole", "sts:TagSession")
    _, arn = make_role(server, trust({"AWS": USER + name}, *both))
    tags = [{"Key": f"{n:02}" + "k" * 120, "Value": "v" * 256} for n in range(50)]
    with refused("PackedPolicyTooLarge", 400):
        assume(server, keys, arn, Tags=tags)


@pytest.mark.parametrize("document", ["{}", "no", '{"Version":"2012-10-17","Statement":[{}]}'])
def test_a_session_policy_must_be_one(one_server: Server, document: str) -> None:
    name, keys = make_user(one_server)
    _, arn = make_role(one_server, trust({"AWS": USER + name}))
    with refused("MalformedPolicyDocument", 400):
        assume(one_server, keys, arn, Policy=document)


def test_the_sessions_of_a_role_end_with_it(server: Server) -> None:
    name, keys = make_user(server)
    role, arn = make_role(server, trust({"AWS": USER + name}))
    session = assume(server, keys, arn)
    assert works(server, session)
    iam = server.client("iam")
    iam.delete_role(RoleName=role)
    until(lambda: ended(server, session), "the end of the session")
    # One of the same name is another role.
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust({"AWS": USER + name}))
    assert works(server, assume(server, keys, arn))
    until(lambda: ended(server, session), "the old session stays ended")


def test_sessions_end_with_the_key_that_asked_for_them(server: Server) -> None:
    name, keys = make_user(server)
    _, arn = make_role(server, trust({"AWS": USER + name}))
    sessions = [
        assume(server, keys, arn),
        Keys.of(server.client("sts", keys).get_session_token()),
    ]
    iam = server.client("iam")
    key = {"UserName": name, "AccessKeyId": keys.access_key}
    iam.update_access_key(**key, Status="Inactive")
    for session in sessions:
        until(lambda session=session: ended(server, session), "the end")  # type: ignore[misc]
    iam.update_access_key(**key, Status="Active")
    for session in sessions:
        assert works(server, session)
    iam.delete_access_key(**key)
    for session in sessions:
        until(lambda session=session: ended(server, session), "the end")  # type: ignore[misc]


def test_chained_sessions_end_with_the_first_key(server: Server) -> None:
    name, keys = make_user(server)
    first, arn = make_role(server, trust({"AWS": USER + name}), policy("sts:*"))
    _, second = make_role(server, trust({"AWS": f"arn:aws:iam::{ACCOUNT}:role/{first}"}))
    chained = assume(server, assume(server, keys, arn), second)
    assert works(server, chained)
    server.client("iam").delete_access_key(UserName=name, AccessKeyId=keys.access_key)
    until(lambda: ended(server, chained), "the end of the chain")


def test_credentials_of_get_session_token_are_the_users_but_for_iam(server: Server) -> None:
    name, keys = make_user(server, policy("*"))
    session = Keys.of(server.client("sts", keys).get_session_token(DurationSeconds=900))
    assert server.client("sts", session).get_caller_identity()["Arn"] == USER + name
    server.client("s3", session).list_buckets()
    server.client("iam", keys).list_users()
    with refused("AccessDenied", 403):
        server.client("iam", session).list_users()
    with refused("AccessDenied", 403):
        server.client("sts", session).get_session_token()
    _, arn = make_role(server, trust({"AWS": USER + name}))
    assert works(server, assume(server, session, arn))


def test_root_has_sessions_that_are_root(server: Server) -> None:
    session = Keys.of(server.client("sts").get_session_token())
    server.client("s3", session).list_buckets()
    with refused("AccessDenied", 403):
        server.client("iam", session).list_users()


def test_a_federated_user_may_do_what_both_allow(server: Server) -> None:
    bucket = fresh("b")
    server.client("s3").create_bucket(Bucket=bucket)
    _, keys = make_user(
        server, policy("sts:GetFederationToken"), policy("s3:ListBucket", "s3:PutObject")
    )
    sts = server.client("sts", keys)
    reply = sts.get_federation_token(Name="bob", Policy=policy("s3:ListBucket", "s3:GetObject"))
    assert reply["FederatedUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:federated-user/bob"
    s3 = server.client("s3", Keys.of(reply))
    s3.list_objects_v2(Bucket=bucket)
    with refused("AccessDenied", 403):
        s3.put_object(Bucket=bucket, Key="k")
    with refused("AccessDenied", 403):
        server.client("iam", Keys.of(reply)).list_users()
    nothing = server.client("s3", Keys.of(sts.get_federation_token(Name="bob")))
    with refused("AccessDenied", 403):
        nothing.list_objects_v2(Bucket=bucket)
    _, other = make_user(server)
    with refused("AccessDenied", 403):
        server.client("sts", other).get_federation_token(Name="bob")


def test_the_parts_of_temporary_credentials_belong_together(server: Server) -> None:
    name, keys = make_user(server)
    _, arn = make_role(server, trust({"AWS": USER + name}), ANY_S3)
    one, other = assume(server, keys, arn), assume(server, keys, arn)
    broken = {
        "without a token": (Keys(one.access_key, one.secret_key), "InvalidAccessKeyId", 403),
        "another token": (
            Keys(one.access_key, one.secret_key, other.token),
            "InvalidToken",
            400,
        ),
        "a long-lived key with a token": (
            Keys(keys.access_key, keys.secret_key, one.token),
            "InvalidToken",
            400,
        ),
        "a token that is none": (Keys(one.access_key, one.secret_key, "x"), "InvalidToken", 400),
        "another secret": (
            Keys(one.access_key, other.secret_key, one.token),
            "SignatureDoesNotMatch",
            403,
        ),
    }
    for credentials, code, status in broken.values():
        with refused(code, status):
            server.client("s3", credentials).list_buckets()


def test_resource_policies_name_roles_and_sessions(server: Server) -> None:
    name, keys = make_user(server)
    role, arn = make_role(server, trust({"AWS": USER + name}))
    session = assume(server, keys, arn)
    bucket = fresh("b")
    s3 = server.client("s3")
    s3.create_bucket(Bucket=bucket)
    for principal in (arn, f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/s-1"):
        with refused("AccessDenied", 403):
            server.client("s3", session).list_objects_v2(Bucket=bucket)
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{bucket}",
        }
        s3.put_bucket_policy(
            Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        )
        server.client("s3", session).list_objects_v2(Bucket=bucket)
        s3.delete_bucket_policy(Bucket=bucket)
