"""Whom a bucket's policy is about, after users and roles were deleted and made again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from s3gw.kv.interface import Put
from s3gw.metadata.keys import identity_user
from tests.iam.conftest import ACCOUNT, Keys, trust
from tests.iam.in_process import ROOT, Answer, Port
from tests.stores.memory_store import Process

USER = f"arn:aws:iam::{ACCOUNT}:user/ann"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/night"


@pytest.fixture
async def port(memory_store: Process) -> Port:
    port = await Port.open(memory_store)
    assert (await port.send("PUT", "/guarded")).status == 200
    assert (await port.send("PUT", "/guarded/k", b"x")).status == 200
    return port


async def make_ann(port: Port) -> Keys:
    """The keys of a new user of this name."""
    assert (await port.ask("CreateUser", UserName="ann")).status == 200
    made = await port.ask("CreateAccessKey", UserName="ann")
    return Keys(made.text("AccessKeyId"), made.text("SecretAccessKey"))


async def remove_ann(port: Port, keys: Keys) -> None:
    gone = await port.ask("DeleteAccessKey", UserName="ann", AccessKeyId=keys.access_key)
    assert gone.status == 200
    assert (await port.ask("DeleteUser", UserName="ann")).status == 200


def policy(principal: Any, effect: str = "Allow", **more: Any) -> dict[str, Any]:
    statement = {"Effect": effect, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::guarded/*"}
    if principal is not None:
        statement["Principal"] = principal
    return {"Version": "2012-10-17", "Statement": [{**statement, **more}]}


async def put(port: Port, document: dict[str, Any]) -> Answer:
    return await port.send("PUT", "/guarded?policy=", json.dumps(document).encode())


async def shown(port: Port) -> Any:
    answer = await port.send("GET", "/guarded?policy=")
    assert answer.status == 200
    return json.loads(answer.body)


async def reads(port: Port, keys: Keys) -> bool:
    answer = await port.send("GET", "/guarded/k", keys=keys)
    assert answer.status in (200, 403)
    return answer.status == 200


@pytest.mark.parametrize("several", [False, True])
async def test_a_user_made_again_has_no_access_by_the_old_policy(port: Port, several: bool) -> None:
    keys = await make_ann(port)
    old_id = (await port.ask("GetUser", UserName="ann")).text("UserId")
    document = policy({"AWS": [USER, f"arn:aws:iam::{ACCOUNT}:root"] if several else USER})
    assert (await put(port, document)).status == 204
    assert await reads(port, keys)
    assert await shown(port) == document
    await remove_ann(port, keys)
    expected = policy({"AWS": [old_id, f"arn:aws:iam::{ACCOUNT}:root"] if several else old_id})
    assert await shown(port) == expected
    again = await make_ann(port)
    assert not await reads(port, again)
    assert await shown(port) == expected
    assert (await put(port, document)).status == 204
    assert await reads(port, again)
    assert await shown(port) == document


async def test_a_denial_is_of_the_one_who_was_named(port: Port) -> None:
    keys = await make_ann(port)
    allowed = json.dumps(policy(None, Action="s3:*", Resource="*"))
    named = {"UserName": "ann", "PolicyName": "p", "PolicyDocument": allowed}
    assert (await port.ask("PutUserPolicy", **named)).status == 200
    assert (await put(port, policy({"AWS": USER}, "Deny"))).status == 204
    assert not await reads(port, keys)
    await port.ask("DeleteUserPolicy", UserName="ann", PolicyName="p")
    await remove_ann(port, keys)
    again = await make_ann(port)
    assert (await port.ask("PutUserPolicy", **named)).status == 200
    assert await reads(port, again)
    assert (await put(port, policy(None, "Deny", NotPrincipal={"AWS": USER}))).status == 204
    assert await reads(port, again)
    await port.ask("DeleteUserPolicy", UserName="ann", PolicyName="p")
    await remove_ann(port, again)
    third = await make_ann(port)
    assert (await port.ask("PutUserPolicy", **named)).status == 200
    assert not await reads(port, third)


async def test_a_role_made_again_has_no_access_by_the_old_policy(port: Port) -> None:
    anybody = trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"})
    role = {"RoleName": "reader", "AssumeRolePolicyDocument": anybody}
    session = {"RoleArn": ROLE, "RoleSessionName": "session"}
    keys = await make_ann(port)
    assume = json.dumps(policy(None, Action="sts:AssumeRole", Resource="*"))
    await port.ask("PutUserPolicy", UserName="ann", PolicyName="p", PolicyDocument=assume)
    assert (await port.ask("CreateRole", **role)).status == 200
    assert (await put(port, policy({"AWS": ROLE}))).status == 204
    answer = await port.ask("AssumeRole", keys, **session)
    assert answer.status == 200, answer.body
    assert await reads(port, answer.keys)
    assert (await port.ask("DeleteRole", RoleName="reader")).status == 200
    assert (await port.ask("CreateRole", **role)).status == 200
    assert not await reads(port, (await port.ask("AssumeRole", keys, **session)).keys)


async def test_a_session_of_a_role_made_again_has_no_access_by_the_old_policy(port: Port) -> None:
    keys = await port.user("bob", {"Effect": "Allow", "Action": "sts:*", "Resource": "*"})
    role = {"RoleName": "reader", "AssumeRolePolicyDocument": trust({"AWS": ACCOUNT})}
    old_id = (await port.ask("CreateRole", **role)).text("RoleId")

    async def session(name: str) -> Keys:
        asked = {"RoleArn": ROLE, "RoleSessionName": name}
        return (await port.ask("AssumeRole", keys, **asked)).keys

    document = policy({"AWS": SESSION})
    assert (await put(port, document)).status == 204
    assert await reads(port, await session("night"))
    assert not await reads(port, await session("day"))
    assert await shown(port) == document
    assert (await port.ask("DeleteRole", RoleName="reader")).status == 200
    assert (await port.ask("CreateRole", **role)).status == 200
    assert not await reads(port, await session("night"))
    expected = policy({"AWS": f"{old_id}:night"})
    assert await shown(port) == expected
    assert (await put(port, expected)).status == 204  # what is shown can be put
    assert await shown(port) == expected
    assert not await reads(port, await session("night"))
    assert (await put(port, document)).status == 204
    assert await reads(port, await session("night"))


@pytest.mark.parametrize(
    "arn",
    [
        USER,
        ROLE,
        SESSION,
        SESSION.replace("reader", "BOB"),
        f"arn:aws:iam::{ACCOUNT}:user/staff/bob",
        f"arn:aws:iam::{ACCOUNT}:user/BOB",
        f"arn:aws:iam::{ACCOUNT}:role/bob",
    ],
)
async def test_who_does_not_exist_cannot_be_named(port: Port, arn: str) -> None:
    assert (await port.ask("CreateUser", UserName="bob")).status == 200
    await port.store.create_role("bob", trust({"AWS": ACCOUNT}), path="/staff/")
    answer = await put(port, policy({"AWS": [f"arn:aws:iam::{ACCOUNT}:user/bob", arn]}))
    assert (answer.status, answer.text("Code")) == (400, "MalformedPolicy")
    assert answer.text("Message") == "Invalid principal in policy"
    assert (await port.send("GET", "/guarded?policy=")).status == 404


async def test_others_stay_as_they_are(port: Port) -> None:
    """Whom we do not know: other accounts, federated users, services, unique ids."""
    names = ["arn:aws:iam::222222222222:user/ann", "222222222222", "AIDAANNANNANNANNANNAN"]
    names += [f"arn:aws:sts::{ACCOUNT}:federated-user/ann", "AROAANNANNANNANNANNAN:night"]
    names += ["arn:aws:sts::222222222222:assumed-role/reader/night"]
    document = policy({"AWS": names, "Service": "logging.s3.amazonaws.com"})
    assert (await put(port, document)).status == 204
    assert await shown(port) == document
    assert not await reads(port, await make_ann(port))


async def test_a_policy_that_is_deleted_leaves_nothing_for_the_next(port: Port) -> None:
    keys = await make_ann(port)
    assert (await put(port, policy({"AWS": USER}))).status == 204
    assert (await port.send("DELETE", "/guarded?policy=")).status == 204
    assert not await reads(port, keys)
    await remove_ann(port, keys)
    assert (await put(port, policy({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}))).status == 204
    assert await reads(port, ROOT)
    assert not await reads(port, await make_ann(port))


async def test_a_renamed_user_is_shown_by_the_name_that_it_has_now(port: Port) -> None:
    keys = await make_ann(port)
    bob = f"arn:aws:iam::{ACCOUNT}:user/staff/bob"
    root = f"arn:aws:iam::{ACCOUNT}:root"
    document = policy({"AWS": [USER, root]})
    assert (await put(port, document)).status == 204
    renamed = {"UserName": "ann", "NewUserName": "bob", "NewPath": "/staff/"}
    assert (await port.ask("UpdateUser", **renamed)).status == 200
    assert await reads(port, keys)
    assert await shown(port) == policy({"AWS": [bob, root]})
    # Whoever has the name now is another one, and is not shown as who had it.
    another = await make_ann(port)
    assert not await reads(port, another)
    assert await shown(port) == policy({"AWS": [bob, root]})
    assert (await put(port, await shown(port))).status == 204  # what is shown can be put
    assert await reads(port, keys)
    assert not await reads(port, another)


async def test_a_user_whose_record_cannot_be_read_is_shown_by_its_id(
    memory_store: Process, port: Port
) -> None:
    await make_ann(port)
    old_id = (await port.ask("GetUser", UserName="ann")).text("UserId")
    assert (await put(port, policy({"AWS": USER}))).status == 204
    assert (await port.ask("UpdateUser", UserName="ann", NewUserName="bob")).status == 200
    await memory_store.kv.commit([], [Put(identity_user("bob"), b"\xff")])
    assert await shown(port) == policy({"AWS": old_id})
