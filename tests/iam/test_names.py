"""Names of users, groups and roles: one whatever their case, for lookups, lists and permissions.

Source: IAM User Guide, "IAM and AWS STS quotas" ("Names are not distinguished by case").
"""

from typing import Any

import pytest

from tests.iam.conftest import ACCOUNT, Server, fresh, make_user, policy, refused, trust, until

TRUST = trust({"AWS": ACCOUNT})
ALLOWED = policy("s3:Get*")
KINDS = ["user", "group", "role"]


@pytest.fixture
def iam(server: Server) -> Any:
    return server.client("iam")


def made(iam: Any, kind: str, name: str, path: str = "/") -> dict[str, Any]:
    more = {"AssumeRolePolicyDocument": TRUST} if kind == "role" else {}
    field = f"{kind.capitalize()}Name"
    found = getattr(iam, f"create_{kind}")(**{field: name}, Path=path, **more)
    return dict(found[kind.capitalize()])


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_in_another_case_is_the_same_name(iam: Any, kind: str) -> None:
    title, name = kind.capitalize(), fresh("Mixed")
    field, other = f"{title}Name", {f"{title}Name": name.upper()}
    record = made(iam, kind, name)
    with refused("EntityAlreadyExists", 409):
        made(iam, kind, name.lower())
    found = getattr(iam, f"get_{kind}")(**other)[title]
    assert (found[field], found["Arn"]) == (name, record["Arn"])
    getattr(iam, f"put_{kind}_policy")(**other, PolicyName="p", PolicyDocument=ALLOWED)
    assert getattr(iam, f"list_{kind}_policies")(**{field: name})["PolicyNames"] == ["p"]
    getattr(iam, f"delete_{kind}_policy")(**other, PolicyName="p")
    getattr(iam, f"delete_{kind}")(**other)
    with refused("NoSuchEntity", 404):
        getattr(iam, f"get_{kind}")(**{field: name})


def test_keys_and_memberships_by_a_name_in_another_case(iam: Any) -> None:
    user, group = fresh("User"), fresh("Group")
    made(iam, "user", user)
    made(iam, "group", group)
    iam.add_user_to_group(UserName=user.lower(), GroupName=group.upper())
    assert [u["UserName"] for u in iam.get_group(GroupName=group)["Users"]] == [user]
    groups = iam.list_groups_for_user(UserName=user.upper())["Groups"]
    assert [each["GroupName"] for each in groups] == [group]
    iam.remove_user_from_group(UserName=user, GroupName=group.lower())
    assert iam.list_groups_for_user(UserName=user)["Groups"] == []
    key = iam.create_access_key(UserName=user.upper())["AccessKey"]
    assert key["UserName"] == user
    named = {"UserName": user.lower(), "AccessKeyId": key["AccessKeyId"]}
    iam.update_access_key(**named, Status="Inactive")
    iam.delete_access_key(**named)
    renamed = fresh("Renamed")
    iam.update_user(UserName=user.upper(), NewUserName=renamed)
    assert iam.get_user(UserName=renamed)["User"]["UserName"] == renamed


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_denied_is_denied_under_the_name_in_any_case(
    server: Server, iam: Any, kind: str
) -> None:
    name = fresh("Guarded")
    arn = made(iam, kind, name)["Arn"]
    _, keys = make_user(server, policy("iam:*"), policy("iam:*", resource=arn, effect="Deny"))
    asker = server.client("iam", keys)
    for spelled in (name, name.lower(), name.upper()):
        with refused("AccessDenied", 403):
            getattr(asker, f"delete_{kind}")(**{f"{kind.capitalize()}Name": spelled})
    getattr(iam, f"get_{kind}")(**{f"{kind.capitalize()}Name": name})


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_in_the_order_of_names_whatever_their_case(iam: Any, kind: str) -> None:
    title, mark, path = kind.capitalize(), fresh(), f"/{fresh('p')}/"
    names = [f"{each}-{mark}" for each in ("aa", "Ab", "ac", "Ad")]
    for number, name in enumerate(reversed(names)):
        made(iam, kind, name, f"{path}{number}/")
    pages = iam.get_paginator(f"list_{kind}s")
    for size in (1, 3, 100):
        found: list[str] = []
        for page in pages.paginate(PathPrefix=path, PaginationConfig={"PageSize": size}):
            found += [each[f"{title}Name"] for each in page[f"{title}s"]]
        assert found == names


def test_the_built_in_policies_about_identities(server: Server, iam: Any) -> None:
    name, keys = make_user(server)
    asker = server.client("iam", keys)
    with refused("AccessDenied", 403):
        asker.list_roles()
    built_in = "arn:aws:iam::aws:policy/{}"
    iam.attach_user_policy(UserName=name, PolicyArn=built_in.format("IAMReadOnlyAccess"))
    until(asker.list_roles, "the policy for reading")
    with refused("AccessDenied", 403):
        asker.create_user(UserName=fresh())
    iam.attach_user_policy(UserName=name, PolicyArn=built_in.format("IAMFullAccess"))
    until(lambda: asker.create_user(UserName=fresh()), "the policy for everything")
