"""What the actions of IAM do, through boto3 as applications and Terraform call them."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.iam.conftest import ACCOUNT, Keys, Server, fresh, make_user, policy, refused, trust

READ = policy("s3:Get*", "s3:List*")
TRUST = trust({"AWS": ACCOUNT})


@pytest.fixture
def iam(server: Server) -> Any:
    return server.client("iam")


def everything(iam: Any, operation: str, key: str, **more: Any) -> list[Any]:
    """All pages of a list, two items each."""
    found: list[Any] = []
    paginator = iam.get_paginator(operation)
    for page in paginator.paginate(PaginationConfig={"PageSize": 2}, **more):
        assert len(page[key]) <= 2
        found += page[key]
    return found


def test_a_user_is_made_changed_and_removed(iam: Any) -> None:
    name, path = fresh("user"), f"/{fresh('p')}/"
    made = iam.create_user(UserName=name, Path=path, Tags=[{"Key": "team", "Value": "a"}])["User"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user{path}{name}"
    assert made["UserId"].startswith("AIDA")
    assert iam.get_user(UserName=name)["User"] == made
    with refused("EntityAlreadyExists", 409):
        iam.create_user(UserName=name.upper())
    assert [u["UserName"] for u in iam.list_users(PathPrefix=path)["Users"]] == [name]
    renamed = fresh("renamed")
    iam.update_user(UserName=name, NewUserName=renamed, NewPath="/")
    after = iam.get_user(UserName=renamed)["User"]
    assert (after["UserId"], after["Path"]) == (made["UserId"], "/")
    with refused("NoSuchEntity", 404):
        iam.get_user(UserName=name)
    iam.delete_user(UserName=renamed)
    with refused("NoSuchEntity", 404):
        iam.delete_user(UserName=renamed)


def test_tags_of_users_and_roles(iam: Any) -> None:
    user, role = fresh("user"), fresh("role")
    iam.create_user(UserName=user)
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=TRUST)
    for kind, name in (("user", {"UserName": user}), ("role", {"RoleName": role})):
        tag, untag = getattr(iam, f"tag_{kind}"), getattr(iam, f"untag_{kind}")
        tags = [{"Key": key, "Value": "1"} for key in ("a", "b", "c")]
        tag(**name, Tags=tags)
        assert everything(iam, f"list_{kind}_tags", "Tags", **name) == tags
        tag(**name, Tags=[{"Key": "B", "Value": "2"}])
        untag(**name, TagKeys=["A", "none"])
        left = [{"Key": "B", "Value": "2"}, {"Key": "c", "Value": "1"}]
        assert getattr(iam, f"list_{kind}_tags")(**name)["Tags"] == left
        with refused("ValidationError", 400):
            tag(**name, Tags=[{"Key": "x", "Value": "1"}, {"Key": "X", "Value": "2"}])


def test_tags_of_policies_and_providers(iam: Any) -> None:
    made = iam.create_policy(PolicyName=fresh("policy"), PolicyDocument=READ)
    policy_arn = {"PolicyArn": made["Policy"]["Arn"]}
    url = f"https://{fresh('idp')}.example.com"
    made = iam.create_open_id_connect_provider(Url=url, ClientIDList=["a"])
    provider = {"OpenIDConnectProviderArn": made["OpenIDConnectProviderArn"]}
    for tag, untag, listing, what in (
        (iam.tag_policy, iam.untag_policy, "list_policy_tags", policy_arn),
        (
            iam.tag_open_id_connect_provider,
            iam.untag_open_id_connect_provider,
            "list_open_id_connect_provider_tags",
            provider,
        ),
    ):
        tag(**what, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
        tag(**what, Tags=[{"Key": "A", "Value": "3"}])
        untag(**what, TagKeys=["b"])
        assert getattr(iam, listing)(**what)["Tags"] == [{"Key": "A", "Value": "3"}]
        with refused("InvalidInput", 400):
            tag(**what, Tags=[{"Key": "aws:x", "Value": "1"}])
    assert iam.get_policy(**policy_arn)["Policy"]["Tags"] == [{"Key": "A", "Value": "3"}]
    with refused("NoSuchEntity", 404):
        iam.tag_policy(PolicyArn=policy_arn["PolicyArn"] + "x", Tags=[{"Key": "a", "Value": "1"}])


def test_what_there_is_none_of_is_listed_as_none(iam: Any) -> None:
    """Terraform and the aws cli ask before they remove a user."""
    user, role = make_holder(iam, "user"), make_holder(iam, "role")
    assert iam.list_mfa_devices(**user)["MFADevices"] == []
    assert iam.list_ssh_public_keys(**user)["SSHPublicKeys"] == []
    assert iam.list_signing_certificates(**user)["Certificates"] == []
    assert iam.list_service_specific_credentials(**user)["ServiceSpecificCredentials"] == []
    assert iam.list_virtual_mfa_devices(AssignmentStatus="Any")["VirtualMFADevices"] == []
    assert iam.list_account_aliases()["AccountAliases"] == []
    assert iam.list_instance_profiles()["InstanceProfiles"] == []
    assert iam.list_instance_profiles_for_role(**role)["InstanceProfiles"] == []
    for call in (iam.get_login_profile, iam.delete_login_profile):
        with refused("NoSuchEntity", 404):
            call(**user)
    with refused("NoSuchEntity", 404):
        iam.list_mfa_devices(UserName=fresh("nobody"))


def test_lists_come_in_pages(iam: Any) -> None:
    path = f"/{fresh('pages')}/"
    names = sorted(fresh("user") for _ in range(5))
    for name in names:
        iam.create_user(UserName=name, Path=path)
        iam.create_group(GroupName=name, Path=path)
        iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=TRUST)
        iam.create_policy(PolicyName=name, Path=path, PolicyDocument=READ)
    for operation, key, field in (
        ("list_users", "Users", "UserName"),
        ("list_groups", "Groups", "GroupName"),
        ("list_roles", "Roles", "RoleName"),
        ("list_policies", "Policies", "PolicyName"),
    ):
        listed = everything(iam, operation, key, PathPrefix=path)
        assert [each[field] for each in listed] == names
    marker = iam.list_users(PathPrefix=path, MaxItems=1)["Marker"]
    for wrong in (marker[:-1], "x", marker + "A"):
        with refused("ValidationError", 400):
            iam.list_users(PathPrefix=path, Marker=wrong)
    with refused("ValidationError", 400):
        iam.list_groups(PathPrefix=path, Marker=marker)  # of another list


def test_access_keys_are_made_disabled_and_removed(server: Server, iam: Any) -> None:
    name, keys = make_user(server)
    second = iam.create_access_key(UserName=name)["AccessKey"]
    assert second["Status"] == "Active"
    assert len(second["SecretAccessKey"]) == 40
    with refused("LimitExceeded", 409):
        iam.create_access_key(UserName=name)
    listed = everything(iam, "list_access_keys", "AccessKeyMetadata", UserName=name)
    assert {each["AccessKeyId"] for each in listed} == {keys.access_key, second["AccessKeyId"]}
    assert not any("SecretAccessKey" in each for each in listed)
    sts = server.client("sts", keys)
    iam.update_access_key(UserName=name, AccessKeyId=keys.access_key, Status="Inactive")
    with refused("InvalidClientTokenId", 403):
        sts.get_caller_identity()
    iam.update_access_key(UserName=name, AccessKeyId=keys.access_key, Status="Active")
    sts.get_caller_identity()
    used = iam.get_access_key_last_used(AccessKeyId=keys.access_key)
    assert used["UserName"] == name
    assert used["AccessKeyLastUsed"] == {"ServiceName": "N/A", "Region": "N/A"}
    with refused("DeleteConflict", 409):
        iam.delete_user(UserName=name)
    other, _ = make_user(server)
    with refused("NoSuchEntity", 404):
        iam.delete_access_key(UserName=other, AccessKeyId=keys.access_key)
    iam.delete_access_key(UserName=name, AccessKeyId=keys.access_key)
    with refused("InvalidClientTokenId", 403):
        sts.get_caller_identity()


def test_users_may_be_let_to_manage_their_own_keys(server: Server) -> None:
    mine = "arn:aws:iam::*:user/${aws:username}"
    name, keys = make_user(server, policy("iam:*AccessKey*", "iam:GetUser", resource=mine))
    iam = server.client("iam", keys)
    assert iam.get_user()["User"]["UserName"] == name
    made = iam.create_access_key()["AccessKey"]
    assert made["UserName"] == name
    assert len(iam.list_access_keys()["AccessKeyMetadata"]) == 2
    iam.update_access_key(AccessKeyId=made["AccessKeyId"], Status="Inactive")
    iam.delete_access_key(AccessKeyId=made["AccessKeyId"])
    other, _ = make_user(server)
    with refused("AccessDenied", 403):
        iam.create_access_key(UserName=other)


def test_policies_may_name_actions_that_are_not_known_here(server: Server, iam: Any) -> None:
    others = ("s3:Describe*", "ec2:*", "kms:*", "s3-object-lambda:*", "s3express:*")
    name, keys = make_user(
        server, policy(*others, "s3:CreateBucket"), policy(*others, "kms:List*", effect="Deny")
    )
    s3, bucket = server.client("s3", keys), fresh("bucket")
    s3.create_bucket(Bucket=bucket)
    with refused("AccessDenied", 403):
        s3.list_objects_v2(Bucket=bucket)
    document = policy(*others, "s3:List*")
    arn = iam.create_policy(PolicyName=fresh("policy"), PolicyDocument=document)["Policy"]["Arn"]
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    s3.list_objects_v2(Bucket=bucket)
    with refused("AccessDenied", 403):
        s3.delete_bucket(Bucket=bucket)
    with refused("MalformedPolicyDocument", 400):
        iam.create_policy(PolicyName=fresh("policy"), PolicyDocument=policy("ec2:Run Instances"))


def test_root_is_no_user(server: Server, iam: Any) -> None:
    user = iam.get_user()["User"]
    assert (user["Arn"], user["UserId"]) == (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT)
    (key,) = iam.list_access_keys()["AccessKeyMetadata"]
    assert key["AccessKeyId"] == server.root.access_key
    with refused("ValidationError", 400):
        iam.create_access_key()
    with refused("ValidationError", 400):
        iam.delete_access_key(AccessKeyId=server.root.access_key)


def test_groups_give_their_members_policies(server: Server, iam: Any) -> None:
    group, path = fresh("group"), f"/{fresh('p')}/"
    made = iam.create_group(GroupName=group, Path=path)["Group"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:group{path}{group}"
    name, keys = make_user(server)
    s3 = server.client("s3", keys)
    iam.put_group_policy(GroupName=group, PolicyName="p", PolicyDocument=policy("s3:*"))
    with refused("AccessDenied", 403):
        s3.list_buckets()
    iam.add_user_to_group(GroupName=group, UserName=name)
    s3.list_buckets()
    assert [u["UserName"] for u in everything(iam, "get_group", "Users", GroupName=group)] == [name]
    assert iam.list_groups_for_user(UserName=name)["Groups"] == [made]
    with refused("DeleteConflict", 409):
        iam.delete_group(GroupName=group)
    iam.remove_user_from_group(GroupName=group, UserName=name)
    with refused("AccessDenied", 403):
        s3.list_buckets()
    with refused("NoSuchEntity", 404):
        iam.remove_user_from_group(GroupName=group, UserName=name)
    iam.update_group(GroupName=group, NewPath="/")
    assert iam.get_group(GroupName=group)["Group"]["Path"] == "/"
    with refused("NotImplemented", 501):
        iam.update_group(GroupName=group, NewGroupName=fresh("group"))
    iam.delete_group_policy(GroupName=group, PolicyName="p")
    iam.delete_group(GroupName=group)
    with refused("NoSuchEntity", 404):
        iam.get_group(GroupName=group)


def make_holder(iam: Any, kind: str) -> dict[str, str]:
    name = {f"{kind.capitalize()}Name": fresh(kind)}
    more = {"AssumeRolePolicyDocument": TRUST} if kind == "role" else {}
    getattr(iam, f"create_{kind}")(**name, **more)
    return name


@pytest.mark.parametrize("kind", ["user", "group", "role"])
def test_inline_policies(iam: Any, kind: str) -> None:
    name = make_holder(iam, kind)
    put, get = getattr(iam, f"put_{kind}_policy"), getattr(iam, f"get_{kind}_policy")
    for number in range(3):
        put(**name, PolicyName=f"p{number}", PolicyDocument=READ)
    put(**name, PolicyName="p1", PolicyDocument=policy("s3:*"))
    assert everything(iam, f"list_{kind}_policies", "PolicyNames", **name) == ["p0", "p1", "p2"]
    assert get(**name, PolicyName="p1")["PolicyDocument"] == json.loads(policy("s3:*"))
    with refused("MalformedPolicyDocument", 400):
        put(**name, PolicyName="p1", PolicyDocument='{"Statement": []}')
    with refused("LimitExceeded", 409):
        put(**name, PolicyName="big", PolicyDocument=policy(*(f"s3:Get{n}*" for n in range(2000))))
    getattr(iam, f"delete_{kind}_policy")(**name, PolicyName="p1")
    for call in (get, getattr(iam, f"delete_{kind}_policy")):
        with refused("NoSuchEntity", 404):
            call(**name, PolicyName="p1")
    with refused("DeleteConflict", 409):
        getattr(iam, f"delete_{kind}")(**name)


@pytest.mark.parametrize("kind", ["user", "group", "role"])
def test_managed_policies_are_attached_and_detached(iam: Any, kind: str) -> None:
    name, path = make_holder(iam, kind), f"/{fresh('p')}/"
    policies = sorted(fresh("policy") for _ in range(3))
    arns = [
        iam.create_policy(PolicyName=each, Path=path, PolicyDocument=READ)["Policy"]["Arn"]
        for each in policies
    ]
    attach, detach = getattr(iam, f"attach_{kind}_policy"), getattr(iam, f"detach_{kind}_policy")
    for arn in arns:
        attach(**name, PolicyArn=arn)
    attach(**name, PolicyArn=arns[0])  # again is no error
    operation = f"list_attached_{kind}_policies"
    listed = everything(iam, operation, "AttachedPolicies", **name)
    assert [each["PolicyArn"] for each in listed] == arns
    assert [each["PolicyName"] for each in listed] == policies
    assert not getattr(iam, operation)(**name, PathPrefix="/none/")["AttachedPolicies"]
    assert iam.get_policy(PolicyArn=arns[0])["Policy"]["AttachmentCount"] == 1
    entities = iam.list_entities_for_policy(PolicyArn=arns[0])
    assert [next(iter(e.values())) for e in entities[f"Policy{kind.capitalize()}s"]] == [
        *name.values()
    ]
    with refused("DeleteConflict", 409):
        iam.delete_policy(PolicyArn=arns[0])
    with refused("NoSuchEntity", 404):
        attach(**name, PolicyArn=arns[0] + "x")
    detach(**name, PolicyArn=arns[0])
    with refused("NoSuchEntity", 404):
        detach(**name, PolicyArn=arns[0])
    iam.delete_policy(PolicyArn=arns[0])
    with refused("NoSuchEntity", 404):
        iam.get_policy(PolicyArn=arns[0])


def test_versions_of_a_policy_as_terraform_makes_them(server: Server, iam: Any) -> None:
    name, keys = make_user(server)
    made = iam.create_policy(PolicyName=fresh("policy"), Description="d", PolicyDocument=READ)
    arn = made["Policy"]["Arn"]
    assert made["Policy"]["DefaultVersionId"] == "v1"
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    s3 = server.client("s3", keys)
    s3.list_buckets()
    denied = policy("s3:*", effect="Deny")
    reply = iam.create_policy_version(PolicyArn=arn, PolicyDocument=denied, SetAsDefault=True)
    assert reply["PolicyVersion"]["VersionId"] == "v2"
    with refused("AccessDenied", 403):
        s3.list_buckets()
    (version,) = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    assert (version["VersionId"], version["IsDefaultVersion"]) == ("v2", True)
    found = iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]
    assert found["Document"] == json.loads(denied)
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v2")
    for call in (
        iam.get_policy_version,
        iam.set_default_policy_version,
        iam.delete_policy_version,
    ):
        with refused("NoSuchEntity", 404):
            call(PolicyArn=arn, VersionId="v1")
    with refused("DeleteConflict", 409):
        iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    with refused("NotImplemented", 501):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=READ)
    assert iam.get_policy(PolicyArn=arn)["Policy"]["Description"] == "d"


def test_policies_that_are_built_in_are_listed_and_attached(iam: Any) -> None:
    arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    assert arn in [each["Arn"] for each in iam.list_policies(Scope="AWS")["Policies"]]
    assert arn not in [each["Arn"] for each in iam.list_policies(Scope="Local")["Policies"]]
    user = make_holder(iam, "user")
    iam.attach_user_policy(**user, PolicyArn=arn)
    used = iam.list_policies(Scope="AWS", OnlyAttached=True)["Policies"]
    assert arn in [each["Arn"] for each in used]
    with refused("NoSuchEntity", 404):
        iam.delete_policy(PolicyArn=arn)


@pytest.mark.parametrize("kind", ["user", "role"])
def test_permissions_boundaries(iam: Any, kind: str) -> None:
    name = make_holder(iam, kind)
    arn = iam.create_policy(PolicyName=fresh("b"), PolicyDocument=READ)["Policy"]["Arn"]
    put = getattr(iam, f"put_{kind}_permissions_boundary")
    put(**name, PermissionsBoundary=arn)
    got = getattr(iam, f"get_{kind}")(**name)[kind.capitalize()]["PermissionsBoundary"]
    assert got["PermissionsBoundaryArn"] == arn
    policy_now = iam.get_policy(PolicyArn=arn)["Policy"]
    assert policy_now["PermissionsBoundaryUsageCount"] == 1
    usage = {"PolicyArn": arn, "PolicyUsageFilter": "PermissionsBoundary"}
    assert iam.list_entities_for_policy(**usage)[f"Policy{kind.capitalize()}s"]
    with refused("DeleteConflict", 409):
        iam.delete_policy(PolicyArn=arn)
    with refused("NoSuchEntity", 404):
        put(**name, PermissionsBoundary=arn + "x")
    getattr(iam, f"delete_{kind}_permissions_boundary")(**name)
    with refused("NoSuchEntity", 404):
        getattr(iam, f"delete_{kind}_permissions_boundary")(**name)
    iam.delete_policy(PolicyArn=arn)


def test_a_boundary_can_be_demanded_of_those_who_make_users(server: Server, iam: Any) -> None:
    arn = iam.create_policy(PolicyName=fresh("b"), PolicyDocument=READ)["Policy"]["Arn"]
    demanded = {"StringEquals": {"iam:PermissionsBoundary": arn}}
    _, keys = make_user(server, policy("iam:CreateUser", condition=demanded))
    with refused("AccessDenied", 403):
        server.client("iam", keys).create_user(UserName=fresh("user"))
    server.client("iam", keys).create_user(UserName=fresh("user"), PermissionsBoundary=arn)


def test_which_policies_may_be_attached_can_be_limited(server: Server, iam: Any) -> None:
    arn = iam.create_policy(PolicyName=fresh("p"), PolicyDocument=READ)["Policy"]["Arn"]
    only = {"ArnEquals": {"iam:PolicyARN": arn}}
    name, keys = make_user(server, policy("iam:AttachUserPolicy", condition=only))
    admin = "arn:aws:iam::aws:policy/AdministratorAccess"
    with refused("AccessDenied", 403):
        server.client("iam", keys).attach_user_policy(UserName=name, PolicyArn=admin)
    server.client("iam", keys).attach_user_policy(UserName=name, PolicyArn=arn)


def test_tags_of_what_is_changed_are_conditions(server: Server, iam: Any) -> None:
    only = {"StringEquals": {"iam:ResourceTag/team": "${aws:PrincipalTag/team}"}}
    name, keys = make_user(server, policy("iam:GetUser", "iam:GetRole", condition=only))
    iam.tag_user(UserName=name, Tags=[{"Key": "team", "Value": "a"}])
    theirs = server.client("iam", keys)
    for team in ("a", "b"):
        other = fresh("tagged")
        tags = [{"Key": "Team", "Value": team}]
        iam.create_user(UserName=other, Tags=tags)
        iam.create_role(RoleName=other, AssumeRolePolicyDocument=TRUST, Tags=tags)
        if team == "a":
            theirs.get_user(UserName=other)
            theirs.get_role(RoleName=other)
        else:
            for call in (theirs.get_user, theirs.get_role):
                with refused("AccessDenied", 403):
                    kind = "UserName" if call == theirs.get_user else "RoleName"
                    call(**{kind: other})


def test_a_role_is_made_changed_and_removed(iam: Any) -> None:
    name = fresh("role")
    made = iam.create_role(
        RoleName=name,
        Path="/a/",
        AssumeRolePolicyDocument=TRUST,
        Description="one",
        MaxSessionDuration=7200,
    )["Role"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/a/{name}"
    assert made["AssumeRolePolicyDocument"] == json.loads(TRUST)
    iam.update_role(RoleName=name, Description="two", MaxSessionDuration=3600)
    described = iam.update_role_description(RoleName=name, Description="three")
    assert described["Role"]["Description"] == "three"
    iam.update_role(RoleName=name, Description="two")
    other = trust({"AWS": iam.create_user(UserName=fresh("user"))["User"]["Arn"]})
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=other)
    found = iam.get_role(RoleName=name)["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("two", 3600)
    assert found["AssumeRolePolicyDocument"] == json.loads(other)
    for document in (READ, "{}", trust({"AWS": "nobody"}), trust({"AWS": ACCOUNT}, "s3:*")):
        with refused("MalformedPolicyDocument", 400):
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
    iam.delete_role(RoleName=name)
    with refused("NoSuchEntity", 404):
        iam.get_role(RoleName=name)


def test_identity_providers(iam: Any) -> None:
    url = f"https://{fresh('idp')}.example.com/tenant"
    made = iam.create_open_id_connect_provider(
        Url=url, ClientIDList=["a"], ThumbprintList=["0" * 40], Tags=[{"Key": "k", "Value": "v"}]
    )
    arn = {"OpenIDConnectProviderArn": made["OpenIDConnectProviderArn"]}
    name = url.removeprefix("https://")
    assert made["OpenIDConnectProviderArn"] == f"arn:aws:iam::{ACCOUNT}:oidc-provider/{name}"
    iam.add_client_id_to_open_id_connect_provider(**arn, ClientID="b")
    iam.remove_client_id_from_open_id_connect_provider(**arn, ClientID="a")
    iam.update_open_id_connect_provider_thumbprint(**arn, ThumbprintList=["1" * 40])
    found = iam.get_open_id_connect_provider(**arn)
    assert (found["Url"], found["ClientIDList"]) == (name, ["b"])
    assert found["ThumbprintList"] == ["1" * 40]
    listed = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    assert {"Arn": arn["OpenIDConnectProviderArn"]} in listed
    with refused("EntityAlreadyExists", 409):
        iam.create_open_id_connect_provider(Url=url, ClientIDList=["a"])
    with refused("InvalidInput", 400):
        iam.create_open_id_connect_provider(Url="http://idp.example.com", ClientIDList=["a"])
    iam.delete_open_id_connect_provider(**arn)
    with refused("NoSuchEntity", 404):
        iam.get_open_id_connect_provider(**arn)


def test_the_account_is_summed_up(iam: Any) -> None:
    before = iam.get_account_summary()["SummaryMap"]
    make_holder(iam, "user")
    make_holder(iam, "role")
    after = iam.get_account_summary()["SummaryMap"]
    assert after["Users"] == before["Users"] + 1
    assert after["Roles"] == before["Roles"] + 1
    assert after["UsersQuota"] == 5000


def decisions(reply: Any) -> list[tuple[str, str, str]]:
    return [
        (each["EvalActionName"], each["EvalResourceName"], each["EvalDecision"])
        for each in reply["EvaluationResults"]
    ]


def test_policies_are_simulated_as_they_would_be_judged(iam: Any) -> None:
    documents = [
        policy("s3:Get*", resource="arn:aws:s3:::b/*"),
        policy("s3:*", resource="arn:aws:s3:::b/secret/*", effect="Deny"),
        policy(
            "s3:ListBucket",
            resource="arn:aws:s3:::b",
            condition={"StringLike": {"s3:prefix": "home/*"}},
        ),
    ]
    reply = iam.simulate_custom_policy(
        PolicyInputList=documents,
        ActionNames=["s3:GetObject", "s3:PutObject"],
        ResourceArns=["arn:aws:s3:::b/k", "arn:aws:s3:::b/secret/k"],
    )
    assert decisions(reply) == [
        ("s3:GetObject", "arn:aws:s3:::b/k", "allowed"),
        ("s3:GetObject", "arn:aws:s3:::b/secret/k", "explicitDeny"),
        ("s3:PutObject", "arn:aws:s3:::b/k", "implicitDeny"),
        ("s3:PutObject", "arn:aws:s3:::b/secret/k", "explicitDeny"),
    ]
    matched = reply["EvaluationResults"][1]["MatchedStatements"][0]
    assert matched["SourcePolicyId"] == "PolicyInputList.2"
    listing = {
        "PolicyInputList": documents,
        "ActionNames": ["s3:ListBucket"],
        "ResourceArns": ["arn:aws:s3:::b"],
    }
    for prefix, answer in (("home/ada", "allowed"), ("etc", "implicitDeny")):
        entry = {
            "ContextKeyName": "s3:prefix",
            "ContextKeyValues": [prefix],
            "ContextKeyType": "string",
        }
        found = iam.simulate_custom_policy(**listing, ContextEntries=[entry])
        assert decisions(found)[0][2] == answer
    with refused("InvalidInput", 400):
        iam.simulate_custom_policy(PolicyInputList=["{}"], ActionNames=["s3:GetObject"])


@pytest.mark.parametrize("kind", ["user", "group", "role"])
def test_the_policies_of_somebody_are_simulated(iam: Any, kind: str) -> None:
    name = make_holder(iam, kind)
    getattr(iam, f"put_{kind}_policy")(**name, PolicyName="p", PolicyDocument=READ)
    arn = f"arn:aws:iam::{ACCOUNT}:{kind}/{next(iter(name.values()))}"
    asked = {"PolicySourceArn": arn, "ActionNames": ["s3:GetObject", "s3:PutObject"]}
    reply = iam.simulate_principal_policy(**asked)
    assert [each[2] for each in decisions(reply)] == ["allowed", "implicitDeny"]
    bounded = iam.simulate_principal_policy(
        **asked, PermissionsBoundaryPolicyInputList=[policy("s3:PutObject")]
    )
    assert [each[2] for each in decisions(bounded)] == ["implicitDeny", "implicitDeny"]
    more = iam.simulate_principal_policy(**asked, PolicyInputList=[policy("s3:Put*")])
    assert [each[2] for each in decisions(more)] == ["allowed", "allowed"]
    with refused("NoSuchEntity", 404):
        iam.simulate_principal_policy(**{**asked, "PolicySourceArn": arn + "x"})


def test_changes_show_on_the_other_gateway_at_once(server: Server) -> None:
    name = fresh("user")
    server.client("iam", gateway=0).create_user(UserName=name)
    assert server.client("iam", gateway=-1).get_user(UserName=name)["User"]["UserName"] == name


def test_a_user_without_policies_may_do_nothing(server: Server) -> None:
    name, keys = make_user(server)
    iam = server.client("iam", keys)
    with pytest.raises(ClientError) as caught:
        iam.get_user()
    assert caught.value.response["Error"]["Message"] == (
        f"User: arn:aws:iam::{ACCOUNT}:user/{name} is not authorized to perform: iam:GetUser on "
        f"resource: arn:aws:iam::{ACCOUNT}:user/{name}"
    )
    stranger = Keys("AKIAXXXXXXXXXXXXXXXX", keys.secret_key)
    with refused("InvalidClientTokenId", 403):
        server.client("iam", stranger).get_user()
    with refused("SignatureDoesNotMatch", 403):
        server.client("iam", Keys(keys.access_key, "wrong")).get_user()
