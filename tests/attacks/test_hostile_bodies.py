"""Bombs in every document that an operation takes, generated from the route table, and in the
policies of IAM and STS: refused with an error of the client, quickly, and nothing is kept of them.
Over a store in memory; `test_hostile_documents.py` has the largest of them over HTTP.
"""

import asyncio
import base64
import hashlib
import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from s3gw import limits
from s3gw.auth.patterns import PolicyError
from s3gw.auth.policy_parse import parse_identity_policy
from s3gw.server.routes import ROWS, Row
from tests.attacks.in_process import BUCKET, KEY, Attacked, Request, http_of, posted, requests
from tests.attacks.test_hostile_documents import BOMBS
from tests.compat.forms import Poster, sign_4
from tests.iam.conftest import ACCOUNT, trust
from tests.iam.in_process import ROOT, Port
from tests.stores.memory_store import Process

ANSWER_SECONDS = 0.3
LARGEST_SECONDS = 1.0
"""Of this process, in which the store is: the machine of a test does other things too."""
HANGS_SECONDS = 5.0
ATTEMPTS = 3
"""A bound of time holds if it holds once: collections of garbage come at any time."""
XML_ROWS = [row for row in ROWS if row.handler and row.body.kind == "xml"]


@pytest.fixture
async def attacked(memory_store: Process) -> Attacked:
    return await Attacked.open(await Port.open(memory_store))


def shrunk(bomb: bytes, most: int) -> bytes:
    """As much of a bomb as the operation reads at all."""
    return bomb[: most or limits.XML_SMALL_BYTES_MAX]


async def refused_quickly(attacked: Attacked, request: Request, told: object) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        started = time.process_time()
        async with asyncio.timeout(HANGS_SECONDS):
            answer = await attacked.ask(request)
        seconds = time.process_time() - started
        # DeleteObjects says of each key why not.
        listed = request.row.name == "DeleteObjects" and b"<Deleted>" not in answer.body
        assert 400 <= answer.status < 500 or listed, (told, answer.status, answer.body[:500])
        assert b"root:" not in answer.body
        if seconds < ANSWER_SECONDS:
            return
        assert attempt < ATTEMPTS, (told, seconds)


@pytest.mark.parametrize("row", XML_ROWS, ids=lambda row: row.name)
async def test_no_document_is_a_bomb(attacked: Attacked, row: Row) -> None:
    request = next(each for each in requests(attacked.upload_id) if each.row is row)
    before = await attacked.state()
    for name, bomb in BOMBS.items():
        for body in (bomb, shrunk(bomb, row.body.bytes_max)):
            md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
            asked = replace(request, body=body, headers={**request.headers, "content-md5": md5})
            await refused_quickly(attacked, asked, (row.name, name, len(body)))
    assert await attacked.state() == before


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


STATEMENT = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}


def of_statements(*statements: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


JSON_BOMBS = {
    "arrays": "[" * 9000,
    "closed arrays": "[" * 9000 + "]" * 9000,
    "objects": nested(3000),
    "nested in a statement": '{"Version":"2012-10-17","Statement":' + "[" * 9000 + "]" * 9000 + "}",
    "nested in a condition": '{"Version":"2012-10-17","Statement":[{"Effect":"Allow",'
    '"Action":"s3:GetObject","Resource":"*","Condition":' + nested(2500) + "}]}",
    "a long number": '{"Version":' + "9" * 15_000 + "}",
    "a huge exponent": '{"Version":1e999999999}',
    "not a number": '{"Version":NaN}',
    "a half of a pair": '{"Version":"\\ud800"}',
    "a name twice": '{"Version":"2012-10-17","Version":"2012-10-17","Statement":[]}',
    "an effect twice": '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Effect":"Allow",'
    '"Action":"s3:*","Resource":"*"}]}',
    "many wildcards": of_statements({**STATEMENT, "Resource": "*?" * 9000}),
    "many variables": of_statements({**STATEMENT, "Resource": "${a" * 6000}),
    "many actions": of_statements({**STATEMENT, "Action": ["s3:Get*"] * 2000}),
    "null": "null",
    "a text": '"x"',
    "nothing": "",
    "NUL": "\0" * 100,
}


@pytest.mark.parametrize("bomb", JSON_BOMBS)
async def test_no_policy_of_a_bucket_is_a_bomb(attacked: Attacked, bomb: str) -> None:
    request = next(
        each for each in requests(attacked.upload_id) if each.row.name == "PutBucketPolicy"
    )
    before = await attacked.state()
    asked = replace(request, body=JSON_BOMBS[bomb].encode())
    await refused_quickly(attacked, asked, bomb)
    assert await attacked.state() == before


@pytest.mark.parametrize("bomb", JSON_BOMBS)
async def test_no_policy_of_identities_is_a_bomb(attacked: Attacked, bomb: str) -> None:
    port, text = attacked.port, JSON_BOMBS[bomb]
    keys = await port.user("app", {"Effect": "Allow", "Action": "*", "Resource": "*"})
    await port.store.create_role("r", trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/app"}))
    await port.view.refresh()
    before = await attacked.state()
    role = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r", "RoleSessionName": "s1"}
    named = {"UserName": "app", "PolicyName": "p"}
    for action, parameters in (
        ("PutUserPolicy", {**named, "PolicyDocument": text}),
        ("CreatePolicy", {"PolicyName": "p", "PolicyDocument": text}),
        ("CreateRole", {"RoleName": "x", "AssumeRolePolicyDocument": text}),
        ("UpdateAssumeRolePolicy", {"RoleName": "r", "PolicyDocument": text}),
        ("AssumeRole", {**role, "Policy": text}),
        ("GetFederationToken", {"Name": "xx", "Policy": text}),
        (
            "SimulateCustomPolicy",
            {"PolicyInputList.member.1": text, "ActionNames.member.1": "s3:GetObject"},
        ),
    ):
        if action in ("AssumeRole", "GetFederationToken") and text == "":
            continue  # no policy
        for attempt in range(1, ATTEMPTS + 1):
            started = time.process_time()
            answer = await port.ask(action, keys, **parameters)
            seconds = time.process_time() - started
            told = (action, bomb, answer.status, answer.body[:500])
            simulated = action == "SimulateCustomPolicy" and bomb.startswith("many")
            assert 400 <= answer.status < 500 or simulated, told
            if seconds < ANSWER_SECONDS:
                break
            assert attempt < ATTEMPTS, (told, seconds)
    assert await attacked.state() == before


@pytest.mark.parametrize("bomb", JSON_BOMBS)
async def test_no_policy_of_a_form_is_a_bomb(attacked: Attacked, bomb: str) -> None:
    good = Poster(http_of(ROOT), BUCKET).signed({"key": "new"}, [{"key": "new"}])
    before = await attacked.state()
    policy = base64.b64encode(JSON_BOMBS[bomb].encode()).decode()
    answer = await attacked.send(posted({**good, "policy": policy}.items()))
    assert 400 <= answer.status < 500, answer.body[:500]
    proof = resigned(good, policy)
    answer = await attacked.send(posted(proof.items()))
    assert 400 <= answer.status < 500, answer.body[:500]
    assert await attacked.state() == before


@pytest.mark.parametrize("bomb", JSON_BOMBS)
async def test_no_encryption_context_is_a_bomb(attacked: Attacked, bomb: str) -> None:
    text = base64.b64encode(JSON_BOMBS[bomb].encode()[:6000]).decode()
    headers = {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-context": text,
    }
    answer = await attacked.port.send("PUT", f"/{BUCKET}/new", b"x", headers=headers)
    assert answer.status < 500, answer.body[:500]
    if answer.status == 200:
        assert (await attacked.port.send("GET", f"/{BUCKET}/new")).body == b"x"
    else:
        assert await attacked.keys() == {KEY}


def resigned(fields: dict[str, str], policy: str) -> dict[str, str]:
    """The form with another policy under a good signature."""
    scope = fields["x-amz-credential"].partition("/")[2]
    proof = sign_4(ROOT.secret_key, scope, policy.encode())
    return {**fields, "policy": policy, "x-amz-signature": proof}


@pytest.mark.parametrize("pattern", ["*a?" * 500, "*?" * 700, "a*" * 700, "?" * 1500, "*" * 1500])
async def test_patterns_are_matched_quickly(attacked: Attacked, pattern: str) -> None:
    port = attacked.port
    resource = f"arn:aws:s3:::{pattern}z"
    keys = await port.user("app", {"Effect": "Allow", "Action": "s3:*", "Resource": resource})
    await port.view.refresh()
    taken = []
    for _ in range(ATTEMPTS):
        started = time.process_time()
        answer = await port.send("GET", f"/{BUCKET}/{'a' * 1000}", keys=keys)
        taken.append(time.process_time() - started)
        assert answer.status == 403
    assert min(taken) < ANSWER_SECONDS / 3, taken


@pytest.mark.parametrize("unit", ["${a", "${", "${a}", "*", "?", "*?", "$", "}"])
async def test_the_largest_policy_is_read_quickly(attacked: Attacked, unit: str) -> None:
    """Whatever it is made of: nobody else waits for it."""
    text = unit * (60_000 // len(unit))
    conditions = {"StringLike": {"aws:username": text}}
    resource = {**STATEMENT, "Resource": f"arn:aws:s3:::{text}"}
    for statement in (resource, {**STATEMENT, "Condition": conditions}):
        document = of_statements(statement)
        assert len(document) < limits.IAM_DOCUMENT_BYTES_MAX
        taken = []
        for _ in range(ATTEMPTS):
            started = time.process_time()
            with suppress(PolicyError):
                parse_identity_policy(
                    document.encode(), "policy", limit=limits.IAM_DOCUMENT_BYTES_MAX
                )
            taken.append(time.process_time() - started)
        assert min(taken) < LARGEST_SECONDS, taken


# Limits of heads and forms.


async def test_more_than_the_limits_is_refused(attacked: Attacked) -> None:
    port, before = attacked.port, await attacked.state()
    many = "&".join(f"UserName.member.{n}=x" for n in range(3000))
    long = "&".join(["Action=CreateUser", "UserName=" + "x" * 600_000])
    kind = {"content-type": "application/x-www-form-urlencoded"}
    for body in (many, long, "%" * 1000, "&" * 100_000, "=" * 100_000, "a" * 500_000):
        answer = await port.send("POST", "/", body.encode(), headers=kind, service="iam")
        assert 400 <= answer.status < 500, (body[:50], answer.status)
    for size in (1025, 2000):
        answer = await port.send("PUT", f"/{BUCKET}/{'k' * size}", b"x")
        assert answer.status == 400
        answer = await port.send("PUT", f"/{BUCKET}/{quote('é') * (size // 2 + 1)}", b"x")
        assert answer.status == 400
    metadata = {"x-amz-meta-a": "v" * 2049}
    answer = await port.send("PUT", f"/{BUCKET}/new", b"x", headers=metadata)
    assert answer.status == 400
    tags = {"x-amz-tagging": "&".join(f"k{n}=v" for n in range(11))}
    answer = await port.send("PUT", f"/{BUCKET}/new", b"x", headers=tags)
    assert answer.status == 400
    fields = [("key", "new"), *((f"x-ignore-{n}", "v") for n in range(3000))]
    assert (await attacked.send(posted(fields))).status == 400
    fields = [("key", "new"), ("x-ignore-a", "v" * 30_000)]
    assert (await attacked.send(posted(fields))).status == 400
    assert await attacked.state() == before
