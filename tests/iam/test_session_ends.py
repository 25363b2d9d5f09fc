"""When sessions end, and what limits them: by a clock of our own, over one process."""

import json
from typing import Any

import pytest

from s3gw.identities.sessions import Sealer, Session, new_credentials
from tests.iam.conftest import ACCOUNT, Keys, policy, trust
from tests.iam.in_process import ROOT, Answer, Port
from tests.stores.memory_store import Process

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
ALL_S3 = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


@pytest.fixture
async def port(memory_store: Process) -> Port:
    return await Port.open(memory_store)


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.text("Code")


async def role(port: Port, user: str, **more: Any) -> str:
    """The ARN of a role that a user may assume, and that may do all of S3."""
    document = trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/{user}"})
    await port.store.create_role("r", document, **more)
    await port.store.put_inline_policy("role", "r", "p", policy("s3:*"))
    return f"arn:aws:iam::{ACCOUNT}:role/r"


async def test_a_session_ends_when_it_says(port: Port) -> None:
    keys = await port.user("ada", ALL_S3)
    arn = await role(port, "ada")
    sessions = {
        900: (await port.ask("GetSessionToken", keys, DurationSeconds="900")).keys,
        3600: (await port.ask("AssumeRole", keys, RoleArn=arn, RoleSessionName="s1")).keys,
    }
    for seconds, session in sessions.items():
        port.ahead = seconds - 2
        assert (await port.send("GET", "/", keys=session)).status == 200
        assert (await port.ask("GetCallerIdentity", session)).status == 200
        port.ahead = seconds + 1
        for method, target in (("GET", "/"), ("PUT", "/bucket/key"), ("DELETE", "/bucket")):
            answer = await port.send(method, target, keys=session)
            assert refusal(answer) == (400, "ExpiredToken")
        answer = await port.ask("GetCallerIdentity", session)
        assert refusal(answer) == (403, "ExpiredToken")


async def test_a_day_and_a_half_is_the_longest_session_of_a_user(port: Port) -> None:
    keys = await port.user("ada", ALL_S3)
    answer = await port.ask("GetSessionToken", keys, DurationSeconds="129601")
    assert refusal(answer) == (400, "ValidationError")
    session = (await port.ask("GetSessionToken", keys, DurationSeconds="129600")).keys
    port.ahead = 129_598
    assert (await port.send("GET", "/", keys=session)).status == 200
    port.ahead = 0
    root = (await port.ask("GetSessionToken", ROOT, DurationSeconds="129600")).keys
    assert (await port.send("GET", "/", keys=root)).status == 200
    port.ahead = 3601
    assert refusal(await port.send("GET", "/", keys=root)) == (400, "ExpiredToken")


async def test_the_session_of_a_disabled_user_ends(port: Port) -> None:
    keys = await port.user("ada", ALL_S3)
    session = (await port.ask("GetSessionToken", keys)).keys
    assert (await port.send("GET", "/", keys=session)).status == 200
    await port.store.set_user_status("ada", "Inactive")
    assert refusal(await port.send("GET", "/", keys=session)) == (400, "InvalidToken")


async def test_a_user_of_the_same_name_is_another(port: Port) -> None:
    keys = await port.user("ada", ALL_S3)
    session = (await port.ask("GetSessionToken", keys)).keys
    await port.store.delete_user("ada", force=True)
    await port.user("ada", ALL_S3)
    assert refusal(await port.send("GET", "/", keys=session)) == (400, "InvalidToken")


async def test_a_session_follows_a_user_who_is_renamed(port: Port) -> None:
    keys = await port.user("ada", ALL_S3)
    session = (await port.ask("GetSessionToken", keys)).keys
    await port.store.update_user("ada", new_name="eve")
    answer = await port.ask("GetCallerIdentity", session)
    assert answer.text("Arn") == f"arn:aws:iam::{ACCOUNT}:user/eve"


async def test_permissions_are_those_of_the_moment(port: Port) -> None:
    keys = await port.user("ada", ALL_S3)
    arn = await role(port, "ada")
    session = (await port.ask("AssumeRole", keys, RoleArn=arn, RoleSessionName="s1")).keys
    assert (await port.send("GET", "/bucket", keys=session)).status == 200
    await port.store.delete_inline_policy("role", "r", "p")
    assert (await port.send("GET", "/bucket", keys=session)).status == 403
    await port.store.attach_policy("role", "r", "arn:aws:iam::aws:policy/readonly")
    assert (await port.send("GET", "/bucket?location", keys=session)).status == 200


async def service_account(port: Port, user: str, document: str, **more: Any) -> Keys:
    record, secret = await port.store.create_service_account(user, policy=document, **more)
    return Keys(record.access_key, secret)


async def test_what_limits_a_service_account_limits_its_sessions(port: Port) -> None:
    await port.user("ada", EVERYTHING)
    limit = policy("s3:ListAllMyBuckets", "s3:ListBucket")
    keys = await service_account(port, "ada", limit)
    session = (await port.ask("GetSessionToken", keys)).keys
    for credentials in (keys, session):
        assert (await port.send("GET", "/bucket", keys=credentials)).status == 200
        assert (await port.send("PUT", "/bucket/key", keys=credentials)).status == 403
    await port.store.set_service_policy(keys.access_key, policy("s3:PutObject"))
    for credentials in (keys, session):
        assert (await port.send("GET", "/bucket", keys=credentials)).status == 403
        assert (await port.send("PUT", "/bucket/key", keys=credentials)).status == 200


async def test_a_service_account_assumes_a_role_only_if_its_policy_says_so(port: Port) -> None:
    await port.user("ada", EVERYTHING)
    arn = await role(port, "ada")  # its trust policy names the user itself
    form = {"RoleArn": arn, "RoleSessionName": "s1"}
    without = await service_account(port, "ada", policy("s3:*"))
    assert refusal(await port.ask("AssumeRole", without, **form)) == (403, "AccessDenied")
    allowed = await service_account(port, "ada", policy("sts:AssumeRole"))
    limit = policy("s3:ListBucket")
    session = (await port.ask("AssumeRole", allowed, **form, Policy=limit)).keys
    assert (await port.send("GET", "/bucket", keys=session)).status == 200
    assert (await port.send("PUT", "/bucket/key", keys=session)).status == 403
    await port.store.delete_access_key(allowed.access_key)
    assert refusal(await port.send("GET", "/bucket", keys=session)) == (400, "InvalidToken")


async def test_a_service_account_with_a_policy_vouches_for_nobody(port: Port) -> None:
    await port.user("ada", EVERYTHING)
    limited = await service_account(port, "ada", policy("*"))
    answer = await port.ask("GetFederationToken", limited, Name="bob")
    assert refusal(answer) == (403, "AccessDenied")
    free = await service_account(port, "ada", "")
    made = await port.ask("GetFederationToken", free, Name="bob", Policy=policy("s3:*"))
    assert (await port.send("GET", "/bucket", keys=made.keys)).status == 200
    await port.store.set_service_policy(free.access_key, policy("s3:ListBucket"))
    assert refusal(await port.send("GET", "/bucket", keys=made.keys)) == (400, "InvalidToken")


async def test_a_session_ends_with_its_service_account(port: Port) -> None:
    await port.user("ada", EVERYTHING)
    keys = await service_account(port, "ada", "", expires_ms=port.clock_ms() + 600_000)
    session = (await port.ask("GetSessionToken", keys)).keys
    assert (await port.send("GET", "/", keys=session)).status == 200
    port.ahead = 601
    assert (await port.send("GET", "/", keys=session)).status in (400, 403)
    other = await port.another()
    assert (await other.send("GET", "/", keys=session)).status in (400, 403)


async def test_tokens_sealed_for_what_cannot_be_are_refused(port: Port) -> None:
    """Only this store seals tokens; still, one that rests on nothing stands for nobody."""
    keys = await port.user("ada", EVERYTHING)
    sealer = Sealer(port.store.store.identity.token_secret)
    ada = await port.store.get_user("ada")
    for kind, issuer, provider in (
        ("role", "", ""),
        ("user", "", ""),
        ("root", keys.access_key, ""),
        ("root", "", ""),
        ("federated", "", "arn:aws:iam::000000000000:oidc-provider/x"),
        ("another", keys.access_key, ""),
        ("user", ROOT.access_key, ""),
    ):
        access_key, secret = new_credentials()
        now = port.clock_ms()
        session = Session(
            access_key, secret, kind, "ada", ada.user_id, "s", issuer, now, now + 60_000
        )
        if provider:
            session = Session(
                *(access_key, secret, kind, "ada", ada.user_id, "s", issuer, now, now + 60_000),
                provider=provider,
            )
        forged = Keys(access_key, secret, sealer.seal(session))
        assert refusal(await port.send("GET", "/", keys=forged)) == (400, "InvalidToken"), kind


async def test_what_grows_is_refused_when_the_engine_is_nearly_full(port: Port) -> None:
    await port.store.create_user("ada")
    port.full = True
    assert refusal(await port.ask("CreateUser", UserName="eve"))[0] == 507
    assert (await port.ask("DeleteUser", UserName="ada")).status == 200
    assert (await port.ask("GetSessionToken")).status == 200


async def test_a_key_works_on_its_own_gateway_as_soon_as_it_is_shown(port: Port) -> None:
    await port.ask("CreateUser", UserName="ada")
    made = await port.ask("CreateAccessKey", UserName="ada")
    keys = Keys(made.text("AccessKeyId"), made.text("SecretAccessKey"))
    who = await port.ask("GetCallerIdentity", keys)
    assert who.text("Arn") == f"arn:aws:iam::{ACCOUNT}:user/ada"


async def test_statements_that_decided_are_told_to_root_alone(port: Port) -> None:
    keys = await port.user("ada", {"Sid": "no1", **EVERYTHING, "Effect": "Deny"})
    answer = await port.ask("ListUsers", keys)
    assert refusal(answer) == (403, "AccessDenied")
    assert "no1" not in answer.text("Message")


async def test_a_trust_policy_that_denies_wins(port: Port) -> None:
    keys = await port.user("ada", EVERYTHING)
    user = f"arn:aws:iam::{ACCOUNT}:user/ada"
    allow = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    deny = {"Effect": "Deny", "Principal": {"AWS": user}, "Action": "sts:*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow, deny]})
    await port.store.create_role("r", document)
    form = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r", "RoleSessionName": "s1"}
    assert refusal(await port.ask("AssumeRole", keys, **form)) == (403, "AccessDenied")
    await port.store.update_assume_role_policy(
        "r", json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    )
    assert (await port.ask("AssumeRole", keys, **form)).status == 200


async def test_the_path_of_a_role_belongs_to_its_name(port: Port) -> None:
    keys = await port.user("ada", EVERYTHING)
    document = trust({"AWS": ACCOUNT})
    await port.store.create_role("r", document, path="/team/")
    form = {"RoleSessionName": "s1"}
    for arn, status in (("role/r", 403), ("role/team/r", 200), ("role/other/r", 403)):
        answer = await port.ask("AssumeRole", keys, RoleArn=f"arn:aws:iam::{ACCOUNT}:{arn}", **form)
        assert answer.status == status, arn


async def test_the_source_identity_is_set_once(port: Port) -> None:
    keys = await port.user("ada", EVERYTHING)
    both = ("sts:AssumeRole", "sts:SetSourceIdentity")
    for name in ("one", "two"):
        await port.store.create_role(name, trust({"AWS": "*"}, *both))
        await port.store.put_inline_policy("role", name, "p", policy("*"))
    arns = [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("one", "two")]
    first = await port.ask(
        "AssumeRole", keys, RoleArn=arns[0], RoleSessionName="s1", SourceIdentity="ada"
    )
    assert first.text("SourceIdentity") == "ada"
    form = {"RoleArn": arns[1], "RoleSessionName": "s2"}
    assert (await port.ask("AssumeRole", first.keys, **form)).text("SourceIdentity") == "ada"
    other = await port.ask("AssumeRole", first.keys, **form, SourceIdentity="eve")
    assert refusal(other) == (403, "AccessDenied")
