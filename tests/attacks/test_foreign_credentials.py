"""Every route of S3 and every action of IAM and STS, asked by those who may not.

Generated from the route table and the action table, over a store in memory: nobody, users without
policies or with those of another bucket, keys and sessions that are over, disabled, tampered with
or put together from two. None is served, wherever its signature is, and nothing changes.
"""

import json
import time
from dataclasses import dataclass, replace

import pytest
from msgspec import structs

from s3gw.iam.actions import ACTIONS, Action
from s3gw.identities.sessions import FEDERATED, ROLE, ROOT, USER, Sealer, Session, new_credentials
from s3gw.server.routes import Scope
from tests.attacks.in_process import (
    BUCKET,
    OTHER,
    PLACES,
    Attacked,
    Request,
    code_of,
    form,
    posted,
    requests,
    signed,
)
from tests.attacks.test_signatures_of_every_route import Sent
from tests.iam.conftest import ACCOUNT, Keys, policy, trust
from tests.iam.in_process import ROOT as ROOT_KEYS
from tests.iam.in_process import VERSIONS, Answer, Port
from tests.iam.test_denied_and_bad_input import ANYBODY, good
from tests.stores.memory_store import Process

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Caller:
    """Who asks, and the error code that all of it is answered with."""

    name: str
    keys: Keys
    code: str


async def session(port: Port, issuer: Keys, of: str, /, **parts: object) -> Keys:
    """Credentials sealed by the store itself, so that each part can be other than STS makes it."""
    user = port.view.known.users.get(of)
    access_key, secret_key = new_credentials()
    now = int(time.time() * 1000)
    made = Session(
        access_key,
        secret_key,
        USER,
        of,
        user.user_id if user is not None else "",
        "",
        issuer.access_key,
        now,
        now + HOUR_MS,
    )
    made = structs.replace(made, **parts)
    return Keys(made.access_key, made.secret_key, port.view.sealer.seal(made))


@pytest.fixture
async def attacked(memory_store: Process) -> Attacked:
    return await Attacked.open(await Port.open(memory_store))


async def over(port: Port) -> list[Caller]:
    """Credentials that were good, and are over."""
    now = int(time.time() * 1000)
    names = ("disabled", "off", "deleted", "renewed")
    keys = {name: await port.user(name, EVERYTHING) for name in (*names, "app")}
    sessions = {name: await session(port, keys[name], name) for name in names}
    expired = await session(port, keys["app"], "app", expires_ms=now - 1)
    before = await port.store.create_role("r", trust("*"))
    role = {"kind": ROLE, "name": "r", "id": before.role_id}
    of_role = await session(port, keys["app"], "r", **role)
    await port.store.delete_role("r")
    await port.store.create_role("r", trust("*"))
    await port.store.put_inline_policy("role", "r", "p", policy("*"))
    await port.store.update_access_key(keys["disabled"].access_key, "Inactive")
    await port.store.set_user_status("off", "Inactive")
    await port.store.delete_user("deleted", force=True)
    await port.store.delete_user("renewed", force=True)
    await port.user("renewed", EVERYTHING)
    return [
        Caller("a key that is disabled", keys["disabled"], "InvalidAccessKeyId"),
        Caller("a key of a disabled user", keys["off"], "InvalidAccessKeyId"),
        Caller("a key of a deleted user", keys["deleted"], "InvalidAccessKeyId"),
        Caller("a session of a disabled key", sessions["disabled"], "InvalidToken"),
        Caller("a session of a disabled user", sessions["off"], "InvalidToken"),
        Caller("a session of a deleted user", sessions["deleted"], "InvalidToken"),
        Caller("a session of a user made anew", sessions["renewed"], "InvalidToken"),
        Caller("a session of a role made anew", of_role, "InvalidToken"),
        Caller("a session that has expired", expired, "ExpiredToken"),
    ]


async def forged(port: Port) -> list[Caller]:
    """Credentials that never were good: tampered tokens, and parts of several."""
    app, other = await port.user("forger", EVERYTHING), await port.user("other", EVERYTHING)
    mine, his = await session(port, app, "forger"), await session(port, other, "other")
    assert mine.token is not None
    middle = len(mine.token) // 2
    flipped = "A" if mine.token[middle] != "A" else "B"
    tampered = mine.token[:middle] + flipped + mine.token[middle + 1 :]
    stranger = Sealer(bytes(range(32)))
    of_root = Session("ASIAROOT", "s", ROOT, "", "", "", ROOT_KEYS.access_key, 0, 1 << 50)
    foreign = Keys("ASIAROOT", "s", stranger.seal(of_root))
    made = {
        "a tampered token": replace(mine, token=tampered),
        "a token cut short": replace(mine, token=mine.token[:-4]),
        "a token made longer": replace(mine, token=mine.token + "AAAA"),
        "an empty token": replace(mine, token=""),
        "root's key with a token": replace(ROOT_KEYS, token=mine.token),
        "a user's key with its session's token": replace(app, token=mine.token),
        "the token of another's session": replace(mine, token=his.token),
        "a token of another store": foreign,
        "root's session of another key": await session(port, app, "", kind=ROOT),
        "a federated session without user": await session(port, app, "", kind=FEDERATED),
        "a role's session without provider and key": await session(
            port, replace(app, access_key=""), "r", kind=ROLE
        ),
        "a session of an unknown kind": await session(port, app, "forger", kind="owner"),
    }
    callers = [Caller(name, keys, "InvalidToken") for name, keys in made.items()]
    bare = Caller("a session's key without its token", replace(mine, token=None), "")
    return [*callers, replace(bare, code="InvalidAccessKeyId")]


async def powerless(port: Port) -> list[Caller]:
    """Known to the store, and allowed nothing that is asked for here."""
    bare = await port.user("bare")
    elsewhere = [f"arn:aws:s3:::{OTHER}", f"arn:aws:s3:::{OTHER}/*"]
    neighbour = await port.user(
        "neighbour", {"Effect": "Allow", "Action": "s3:*", "Resource": elsewhere}
    )
    denied = await port.user("denied", EVERYTHING, {**EVERYTHING, "Effect": "Deny"})
    app = await port.user("limited", EVERYTHING)
    await port.store.create_policy("neighbour", policy("s3:*", resource=elsewhere))
    bounded = await port.user("bounded", EVERYTHING)
    arn = f"arn:aws:iam::{ACCOUNT}:policy/neighbour"
    await port.store.put_boundary("user", "bounded", arn)
    limit = policy("s3:*", resource=elsewhere)
    record, secret = await port.store.create_service_account("limited", policy=limit)
    account = Keys(record.access_key, secret)
    role = await port.store.create_role("limited", trust("*"))
    await port.store.put_inline_policy("role", "limited", "p", policy("*"))
    of_role = {"kind": ROLE, "name": "limited", "id": role.role_id}
    federated = {"kind": FEDERATED, "session_name": "guest"}
    made = {
        "a user without policies": bare,
        "a user of another bucket": neighbour,
        "a user denied everything": denied,
        "a user bounded to another bucket": bounded,
        "a service account of another bucket": account,
        "a session of that service account": await session(port, account, "limited"),
        "a role's session with a session policy": await session(
            port, app, "limited", **of_role, policy=limit
        ),
        "a role's session with a managed session policy": await session(
            port, app, "limited", **of_role, policy_arns=(arn,)
        ),
        "a federated user without policies": await session(port, app, "limited", **federated),
        "a federated user of another bucket": await session(
            port, app, "limited", **federated, policy=limit
        ),
    }
    return [Caller(name, keys, "AccessDenied") for name, keys in made.items()]


def asked(request: Request, caller: Caller) -> list[tuple[str, Sent]]:
    """The request at each place where credentials may be."""
    if request.row.name == "PostObject":
        if caller.keys.token == "":
            return []  # an empty field is none
        return [
            (f"form of version {version}", form(caller.keys, {"key": "new"}, version=version))
            for version in (2, 4)
        ]
    return [(place, signed(request, caller.keys, place)) for place in PLACES]


def require_refused(request: Request, caller: Caller, place: str, answer: Answer) -> None:
    told = (request.row.name, request.path, caller.name, place, answer.status, answer.body)
    if request.row.name == "DeleteObjects" and caller.code == "AccessDenied":
        assert b"<Deleted>" not in answer.body, told
        assert code_of(answer) == "AccessDenied", told
        return
    assert answer.status in (400, 403), told
    assert code_of(answer) == caller.code or request.row.method == "HEAD", told


async def test_no_route_serves_who_may_not(attacked: Attacked) -> None:
    port = attacked.port
    callers = [*await over(port), *await forged(port), *await powerless(port)]
    await port.view.refresh()
    before, count = await attacked.state(), 0
    for request in requests(attacked.upload_id):
        for caller in callers:
            for place, sent in asked(request, caller):
                require_refused(request, caller, place, await attacked.send(sent))
                count += 1
    assert await attacked.state() == before
    print(f"{count} requests of {len(callers)} callers who may not, none served")
    assert count > 5000


async def test_nobody_is_served(attacked: Attacked) -> None:
    before, count = await attacked.state(), 0
    for request in requests(attacked.upload_id):
        headers = {"host": "s3.test", **request.headers}
        headers["content-length"] = str(len(request.body))
        sent = Sent(request.row.method, request.path, request.query, headers, request.body)
        if request.row.name == "PostObject":
            sent = posted({"key": "new"}.items())
        for given in (sent, replace(sent, headers={**headers, "authorization": ""})):
            answer = await attacked.send(given)
            told = (request.row.name, answer.status, answer.body)
            assert answer.status in (400, 403), told
            if given is sent:
                assert code_of(answer) == "AccessDenied" or request.row.method == "HEAD", told
            count += 1
    assert await attacked.state() == before
    print(f"{count} requests of nobody, none served")
    assert count > 200


async def test_those_who_may_are_served(attacked: Attacked) -> None:
    """Otherwise the refusals above would prove nothing."""
    app = await attacked.port.user("may", EVERYTHING)
    callers = [ROOT_KEYS, app, await session(attacked.port, app, "may")]
    for request in requests(attacked.upload_id):
        if request.row.method == "DELETE" and request.row.scope is Scope.BUCKET:
            continue
        for keys in callers:
            for place, sent in asked(request, Caller("may", keys, "")):
                answer = await attacked.send(sent)
                told = (request.row.name, place, answer.status, answer.body)
                assert answer.status not in (403, 500), told
                assert not code_of(answer).startswith(("Invalid Access", "Authorization")), told


# IAM and STS

ENDED = frozenset({"InvalidClientTokenId", "ExpiredToken"})


async def act(port: Port, action: Action, keys: Keys, service: str = "") -> Answer:
    service = service or action.service.name
    parameters = {"Action": action.name, "Version": VERSIONS[action.service.name], **good(action)}
    body = "&".join(f"{name}={value}" for name, value in parameters.items()).encode()
    kind = {"content-type": "application/x-www-form-urlencoded"}
    return await port.send("POST", "/", body, keys, headers=kind, service=service)


async def test_no_action_serves_who_may_not(attacked: Attacked) -> None:
    port = attacked.port
    refused = [*await over(port), *await forged(port)]
    denied = [each for each in await powerless(port) if "denied" not in each.name]
    await port.view.refresh()
    before, count = await attacked.state(), 0
    for action in ACTIONS:
        if not action.signed:
            continue
        for caller in (*refused, *denied):
            answer = await act(port, action, caller.keys)
            told = (action.name, caller.name, answer.status, answer.body)
            count += 1
            if caller.code == "AccessDenied" and action.name in ANYBODY:
                continue
            assert answer.status == 403, told
            expected = {"AccessDenied"} if caller.code == "AccessDenied" else ENDED
            assert code_of(answer) in expected, told
    assert await attacked.state() == before
    print(f"{count} actions of IAM and STS asked by who may not, none done")
    assert count > 1500


@pytest.mark.parametrize("service", ["s3", "s3gw", "iam", "sts", "s3express"])
async def test_a_signature_is_for_one_service(attacked: Attacked, service: str) -> None:
    before = await attacked.state()
    for action in ACTIONS:
        if action.signed and service != action.service.name:
            answer = await act(attacked.port, action, ROOT_KEYS, service)
            assert answer.status in (400, 403), (action.name, answer.body)
    if service != "s3":
        for request in requests(attacked.upload_id):
            target = f"{request.path}?{request.query}" if request.query else request.path
            answer = await attacked.port.send(
                request.row.method,
                target,
                request.body,
                headers=request.headers,
                service=service,
            )
            assert answer.status == 400, (request.row.name, answer.body)
    assert await attacked.state() == before


async def test_what_one_may_of_iam_ends_at_its_resource(attacked: Attacked) -> None:
    """Who may do everything to himself cannot raise himself by what is done to others."""
    port = attacked.port
    own = f"arn:aws:iam::{ACCOUNT}:user/dev/*"
    keys = await port.user("climber", {"Effect": "Allow", "Action": "iam:*", "Resource": own})
    await port.store.create_user("admin", path="/admins/")
    await port.store.create_user("dev", path="/dev/")
    await port.store.create_group("admins")
    await port.store.create_role(
        "root", trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/admins/admin"})
    )
    await port.view.refresh()
    before = await attacked.state()
    everything = policy("*")
    attempts: list[tuple[str, dict[str, str]]] = [
        ("PutUserPolicy", {"UserName": "climber", "PolicyName": "p", "PolicyDocument": everything}),
        ("PutUserPolicy", {"UserName": "Climber", "PolicyName": "p", "PolicyDocument": everything}),
        ("CreateAccessKey", {"UserName": "admin"}),
        ("CreateAccessKey", {"UserName": "dev/../admin"}),
        ("AttachUserPolicy", {"UserName": "admin", "PolicyArn": "arn:aws:iam::aws:policy/x"}),
        ("UpdateUser", {"UserName": "dev", "NewPath": "/admins/"}),
        ("UpdateUser", {"UserName": "admin", "NewPath": "/dev/"}),
        ("UpdateUser", {"UserName": "dev", "NewUserName": "x", "NewPath": "/"}),
        ("AddUserToGroup", {"UserName": "dev", "GroupName": "admins"}),
        ("UpdateAssumeRolePolicy", {"RoleName": "root", "PolicyDocument": trust("*")}),
        ("CreateRole", {"RoleName": "dev", "AssumeRolePolicyDocument": trust("*")}),
        ("CreatePolicy", {"PolicyName": "p", "PolicyDocument": everything, "Path": "/dev/"}),
        ("CreateUser", {"UserName": "x", "Path": "/admins/dev/"}),
        ("CreateUser", {"UserName": "x"}),
        ("AssumeRole", {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/root", "RoleSessionName": "xx"}),
    ]
    for name, parameters in attempts:
        answer = await port.ask(name, keys, **parameters)
        told = (name, parameters, answer.status, answer.body)
        assert answer.status in (400, 403), told
        assert code_of(answer) in ("AccessDenied", "ValidationError"), told
    assert await attacked.state() == before
    assert (await port.ask("CreateAccessKey", keys, UserName="dev")).status == 200


async def test_who_is_trusted_by_all_is_still_limited_by_what_it_may(attacked: Attacked) -> None:
    """A service account's limit holds for the roles that it would assume, too."""
    port = attacked.port
    user = await port.user("owner", {"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    arn = f"arn:aws:iam::{ACCOUNT}:user/owner"
    await port.store.create_role("r", trust({"AWS": arn}))
    await port.store.put_inline_policy("role", "r", "p", policy("s3:*"))
    record, secret = await port.store.create_service_account(
        "owner", policy=policy("s3:GetObject", resource=f"arn:aws:s3:::{BUCKET}/none")
    )
    await port.view.refresh()
    account = Keys(record.access_key, secret)
    role = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r", "RoleSessionName": "s1"}
    assert (await port.ask("AssumeRole", user, **role)).status == 200
    assert (await port.ask("AssumeRole", account, **role)).status == 403
    limited = (await port.ask("GetSessionToken", account)).keys
    assert (await port.ask("AssumeRole", limited, **role)).status == 403
    assert json.loads(record.policy)
    assert (await port.ask("GetFederationToken", account, Name="xx")).status == 403
