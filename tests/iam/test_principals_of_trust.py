"""Whom a role's trust policy is about, after users and roles were deleted and made again."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from tests.iam.conftest import ACCOUNT, Keys, trust
from tests.iam.in_process import Answer, Port
from tests.stores.memory_store import Process

ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"
FIRST = f"arn:aws:iam::{ACCOUNT}:role/first"
READER = f"arn:aws:iam::{ACCOUNT}:role/reader"
NIGHT = f"arn:aws:sts::{ACCOUNT}:assumed-role/first/night"
ASSUMING = {"Effect": "Allow", "Action": "sts:*", "Resource": "*"}


@pytest.fixture
async def port(memory_store: Process) -> Port:
    return await Port.open(memory_store)


async def user_again(port: Port, *documents: dict[str, Any]) -> Keys:
    """Ann deleted, and another user made under her name."""
    await port.store.delete_user("ann", force=True)
    return await port.user("ann", *documents)


async def make(port: Port, document: str, name: str = "reader") -> Answer:
    return await port.ask("CreateRole", RoleName=name, AssumeRolePolicyDocument=document)


async def update(port: Port, document: str, name: str = "reader") -> Answer:
    return await port.ask("UpdateAssumeRolePolicy", RoleName=name, PolicyDocument=document)


async def assumed(port: Port, keys: Keys, role: str = READER, name: str = "night") -> Answer:
    answer = await port.ask("AssumeRole", keys, RoleArn=role, RoleSessionName=name)
    assert answer.status in (200, 403), answer.body
    return answer


async def may(port: Port, keys: Keys) -> bool:
    return (await assumed(port, keys)).status == 200


async def shown(port: Port, name: str = "reader") -> str:
    answer = await port.ask("GetRole", RoleName=name)
    assert answer.status == 200
    return urllib.parse.unquote(answer.text("AssumeRolePolicyDocument"))


async def allow_sts(port: Port) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": [ASSUMING]})
    await port.store.put_inline_policy("role", "first", "p", document)


@pytest.mark.parametrize("updated", [False, True])
async def test_a_user_made_again_may_not_assume_the_role(port: Port, updated: bool) -> None:
    keys = await port.user("ann")
    document = trust({"AWS": ANN})
    if updated:
        assert (await make(port, trust({"AWS": ACCOUNT}))).status == 200
        assert (await update(port, document)).status == 200
    else:
        assert (await make(port, document)).status == 200
    assert await may(port, keys)
    again = await user_again(port)
    assert not await may(port, again)
    assert (await update(port, document)).status == 200
    assert await may(port, again)


async def test_permissions_of_her_own_do_not_let_the_user_made_again_in(port: Port) -> None:
    await port.user("ann", ASSUMING)
    assert (await make(port, trust({"AWS": ANN}))).status == 200
    assert not await may(port, await user_again(port, ASSUMING))


async def test_a_denial_is_of_the_one_who_was_named(port: Port) -> None:
    keys = await port.user("ann", ASSUMING)
    allow = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    deny = {**allow, "Effect": "Deny", "Principal": {"AWS": ANN}}
    document = {"Version": "2012-10-17", "Statement": [allow, deny]}
    assert (await make(port, json.dumps(document))).status == 200
    assert not await may(port, keys)
    assert await may(port, await user_again(port, ASSUMING))


async def test_a_user_who_is_renamed_stays_the_one_who_is_trusted(port: Port) -> None:
    keys = await port.user("ann")
    assert (await make(port, trust({"AWS": ANN}))).status == 200
    await port.store.update_user("ann", new_name="eve")
    assert await may(port, keys)
    other = await port.user("ann")
    assert not await may(port, other)
    eve = f"arn:aws:iam::{ACCOUNT}:user/eve"
    assert json.loads(await shown(port)) == json.loads(trust({"AWS": eve}))
    await port.store.delete_user("ann", force=True)
    await port.store.update_user("eve", new_name="ann")
    assert await shown(port) == trust({"AWS": ANN})


async def test_a_role_made_again_may_not_assume_the_next(port: Port) -> None:
    keys = await port.user("ann")
    assert (await make(port, trust({"AWS": ANN}), "first")).status == 200
    assert (await make(port, trust({"AWS": FIRST}))).status == 200
    await allow_sts(port)
    assert await may(port, (await assumed(port, keys, FIRST)).keys)
    await port.store.delete_role("first", force=True)
    assert (await make(port, trust({"AWS": ANN}), "first")).status == 200
    await allow_sts(port)
    assert not await may(port, (await assumed(port, keys, FIRST)).keys)


async def test_a_session_of_a_role_made_again_may_not_assume_the_next(port: Port) -> None:
    keys = await port.user("ann")
    made = await make(port, trust({"AWS": ANN}), "first")
    assert (await make(port, trust({"AWS": NIGHT}))).status == 200
    assert await may(port, (await assumed(port, keys, FIRST)).keys)
    assert not await may(port, (await assumed(port, keys, FIRST, "day")).keys)
    await port.store.delete_role("first", force=True)
    assert (await make(port, trust({"AWS": ANN}), "first")).status == 200
    assert not await may(port, (await assumed(port, keys, FIRST)).keys)
    gone = trust({"AWS": f"{made.text('RoleId')}:night"})
    assert json.loads(await shown(port)) == json.loads(gone)
    assert (await update(port, gone)).status == 200  # what is shown can be put


async def test_the_policy_is_shown_as_it_was_put_until_somebody_is_gone(port: Port) -> None:
    await port.user("ann")
    ann_id = (await port.store.get_user("ann")).user_id
    federated = f"arn:aws:sts::{ACCOUNT}:federated-user/x"
    others = [f"arn:aws:iam::{ACCOUNT}:root", "arn:aws:iam::222222222222:user/ann", federated]
    document = json.dumps(json.loads(trust({"AWS": [ANN, *others]})), indent=3)
    made = await make(port, document)
    assert urllib.parse.unquote(made.text("AssumeRolePolicyDocument")) == document
    assert await shown(port) == document
    await user_again(port)
    expected = json.loads(trust({"AWS": [ann_id, *others]}))
    assert json.loads(await shown(port)) == expected
    for action, more in (
        ("ListRoles", {}),
        ("UpdateRoleDescription", {"RoleName": "reader", "Description": "d"}),
    ):
        answer = await port.ask(action, **more)
        text = urllib.parse.unquote(answer.text("AssumeRolePolicyDocument"))
        assert json.loads(text) == expected, action
    # What else changes of the role leaves whom it trusts.
    await port.store.set_role_tags("reader", {"a": "b"})
    assert json.loads(await shown(port)) == expected


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:iam::{ACCOUNT}:user/bob",
        f"arn:aws:iam::{ACCOUNT}:user/ANN",
        f"arn:aws:iam::{ACCOUNT}:user/staff/ann",
        f"arn:aws:iam::{ACCOUNT}:role/ann",
        READER,
        NIGHT,
    ],
)
async def test_who_does_not_exist_cannot_be_trusted(port: Port, arn: str) -> None:
    await port.user("ann")
    refused = await make(port, trust({"AWS": [ANN, arn]}))
    assert (refused.status, refused.text("Code")) == (400, "MalformedPolicyDocument")
    assert refused.text("Message") == f'Invalid principal in policy: "AWS":"{arn}"'
    assert (await port.ask("GetRole", RoleName="reader")).status == 404
    before = trust({"AWS": ANN})
    assert (await make(port, before)).status == 200
    if arn == READER:  # which there is now
        assert (await update(port, trust({"AWS": arn}))).status == 200
        return
    refused = await update(port, trust({"AWS": arn}))
    assert (refused.status, refused.text("Code")) == (400, "MalformedPolicyDocument")
    assert await shown(port) == before


@pytest.mark.parametrize(
    "principal",
    [
        "*",
        {"AWS": "*"},
        {"AWS": ACCOUNT},
        {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        {"Service": "s3.amazonaws.com"},
        {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/issuer.test"},
        {"AWS": "AIDAANNANNANNANNANNAN"},
    ],
)
async def test_who_is_no_user_or_role_of_ours_stays_as_it_is(port: Port, principal: Any) -> None:
    assert (await make(port, trust(principal))).status == 200
    assert await shown(port) == trust(principal)
    assert (await port.store.get_role("reader")).principals == {}


async def test_each_trust_policy_shows_whom_it_named(port: Port) -> None:
    """Two policies that name two users under one name, one of whom has another name by now."""
    await port.user("ann")
    document = trust({"AWS": ANN})
    assert (await make(port, document, "old")).status == 200
    assert (await port.ask("UpdateUser", UserName="ann", NewUserName="bob")).status == 200
    await port.user("ann")
    assert (await make(port, document, "new")).status == 200
    listed = await port.store.shown_roles(await port.store.list_roles())
    told = {role.name: json.loads(role.trust)["Statement"][0]["Principal"] for role in listed}
    assert told["new"] == {"AWS": ANN}
    assert told["old"] == {"AWS": ANN.replace("ann", "bob")}
