"""That what limits really limits, for every route: a policy, a boundary, a session policy or that
of a service account which allows to read one key allows nothing else; copies and renames ask about
both ends; and no spelling of a path escapes a policy that is limited to a prefix. Over a store in
memory.
"""

import base64
import hashlib
import json
import time
from dataclasses import replace
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from msgspec import structs

from s3gw.identities.sessions import FEDERATED, ROLE, USER, Session, new_credentials
from s3gw.server.routes import ROWS
from tests.attacks.in_process import (
    BUCKET,
    CONTENT,
    KEY,
    OTHER,
    PLACES,
    Attacked,
    Request,
    code_of,
    form,
    requests,
    signed,
)
from tests.iam.conftest import ACCOUNT, Keys, policy, trust
from tests.iam.in_process import Port
from tests.stores.memory_store import Process

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
READABLE = "readable"
READABLE_ARN = f"arn:aws:s3:::{BUCKET}/{READABLE}"
READ_ONE = policy("s3:GetObject", resource=READABLE_ARN)
OTHER_KEYS = (f"{READABLE}/", f"{READABLE}x", "READABLE", "*", "%3F", "readabl%3F")
# Rows that `s3:GetObject` alone is enough for; the last one is not built, which is answered after.
READS = frozenset({"GetObject", "HeadObject", "SelectObjectContent"})


@pytest.fixture
async def attacked(memory_store: Process) -> Attacked:
    found = await Attacked.open(await Port.open(memory_store))
    assert (await found.port.send("PUT", f"/{BUCKET}/{READABLE}", b"public")).status == 200
    return found


async def limited(port: Port) -> dict[str, Keys]:
    """Credentials that may read one key, by what limits them."""
    read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": READABLE_ARN}
    plain = await port.user("plain", read)
    not_else = await port.user(
        "not-else",
        EVERYTHING,
        {"Effect": "Deny", "NotAction": "s3:GetObject", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "NotResource": READABLE_ARN},
    )
    app = await port.user("app", EVERYTHING)
    await port.store.create_policy("read-one", READ_ONE)
    arn = f"arn:aws:iam::{ACCOUNT}:policy/read-one"
    bounded = await port.user("bounded", EVERYTHING)
    await port.store.put_boundary("user", "bounded", arn)
    record, secret = await port.store.create_service_account("app", policy=READ_ONE)
    account = Keys(record.access_key, secret)
    await port.store.create_group("readers")
    await port.store.put_inline_policy("group", "readers", "p", READ_ONE)
    member = await port.user("member")
    await port.store.add_user_to_group("readers", "member")
    role = await port.store.create_role("wide", trust("*"), boundary="")
    await port.store.put_inline_policy("role", "wide", "p", policy("*"))
    narrow = await port.store.create_role("narrow", trust("*"), boundary=arn)
    await port.store.put_inline_policy("role", "narrow", "p", policy("*"))
    await port.view.refresh()
    now = int(time.time() * 1000)
    user = port.view.known.users["app"]
    base = Session("", "", ROLE, "wide", role.role_id, "s1", app.access_key, now, now + 10**7)

    def sealed(**parts: Any) -> Keys:
        key, secret = new_credentials()
        made = structs.replace(base, access_key=key, secret_key=secret, **parts)
        return Keys(key, secret, port.view.sealer.seal(made))

    of_app = {"name": "app", "id": user.user_id}
    return {
        "its policy": plain,
        "denials of all else": not_else,
        "a boundary": bounded,
        "a group": member,
        "the policy of a service account": account,
        "that policy, in a session": sealed(kind=USER, issuer_key=account.access_key, **of_app),
        "a session policy": sealed(policy=READ_ONE),
        "a managed session policy": sealed(policy_arns=(arn,)),
        "the boundary of a role": sealed(name="narrow", id=narrow.role_id),
        "what a federated user was given": sealed(kind=FEDERATED, policy=READ_ONE, **of_app),
    }


async def test_who_may_read_one_key_may_nothing_else(attacked: Attacked) -> None:
    callers = await limited(attacked.port)
    before, count = await attacked.state(), 0
    for key in (READABLE, KEY, *OTHER_KEYS):
        places = PLACES if key in (READABLE, KEY) else PLACES[:1]
        asked = requests(attacked.upload_id, key=key, source=READABLE)
        for request, (name, keys), place in product(asked, callers.items(), places):
            row = request.row
            if row.name == "PostObject":
                answer = await attacked.send(form(keys, {"key": key}))
            else:
                answer = await attacked.ask(request, keys, place)
            told = (row.name, key, name, place, answer.status, answer.body)
            count += 1
            if key == READABLE and row.name in READS and "versionId" not in request.query:
                assert answer.status == (501 if row.handler is None else 200), told
            elif row.name == "DeleteObjects":
                assert b"<Deleted>" not in answer.body, told
                assert code_of(answer) == "AccessDenied", told
            else:
                assert answer.status == 403, told
    assert await attacked.state() == before
    print(f"{count} requests of who may read one key, nothing else done")
    assert count > 10_000


async def test_a_policy_of_the_bucket_for_the_user_does_not_lift_its_own_limits(
    attacked: Attacked,
) -> None:
    """What allows everyone, or the user by name, is still cut by sessions and service accounts."""
    callers = await limited(attacked.port)
    app = f"arn:aws:iam::{ACCOUNT}:user/app"
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [app, f"arn:aws:iam::{ACCOUNT}:role/wide"]},
                "Action": "s3:*",
                "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
            }
        ],
    }
    text = json.dumps(document).encode()
    assert (await attacked.port.send("PUT", f"/{BUCKET}?policy=", text)).status == 204
    before = await attacked.state()
    for name in (
        "the policy of a service account",
        "that policy, in a session",
        "a session policy",
        "a managed session policy",
        "what a federated user was given",
    ):
        keys = callers[name]
        for request in requests(attacked.upload_id, key=KEY, source=READABLE):
            if request.row.name in ("PostObject", "DeleteObjects"):
                continue
            answer = await attacked.ask(request, keys)
            assert answer.status == 403, (request.row.name, name, answer.status, answer.body)
        assert (await attacked.port.send("GET", f"/{BUCKET}/{READABLE}", keys=keys)).status == 200
    assert await attacked.state() == before


# Copies and renames.


@pytest.mark.parametrize(
    "name", [row.name for row in ROWS if row.name in {"CopyObject", "UploadPartCopy"}]
)
async def test_a_copy_needs_both_ends(attacked: Attacked, name: str) -> None:
    port = attacked.port
    read = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:GetObjectVersion"],
        "Resource": f"arn:aws:s3:::{OTHER}/{KEY}",
    }
    write = {
        "Effect": "Allow",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/{KEY}",
    }
    reader, writer = await port.user("reader", read), await port.user("writer", write)
    both = await port.user("both", read, write)
    whole = {**write, "Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}*"}
    owner = await port.user("owner", whole)
    await port.view.refresh()
    (request,) = (
        each
        for each in requests(attacked.upload_id)
        if each.row.name == name and "versionId" not in each.query
    )
    before = await attacked.state()
    sources = (
        f"/{OTHER}/{KEY}",
        f"{OTHER}/{KEY}",
        f"{OTHER}/{KEY}?versionId=null",
        f"/{OTHER}/%6b%65pt",
        f"%2F{OTHER}%2F{KEY}",
        f"arn:aws:s3:::{OTHER}/{KEY}",
    )
    for source in sources:
        for keys in (reader, writer, owner):
            asked = replace(request, headers={"x-amz-copy-source": source})
            for place in PLACES:
                answer = await attacked.ask(asked, keys, place)
                assert answer.status in (400, 403), (source, answer.status, answer.body)
    assert await attacked.state() == before
    asked = replace(request, headers={"x-amz-copy-source": sources[0]})
    assert (await attacked.ask(asked, both)).status == 200


async def test_a_rename_needs_to_read_and_to_delete_and_to_write(attacked: Attacked) -> None:
    port = attacked.port
    source, target = f"arn:aws:s3:::{BUCKET}/{KEY}", f"arn:aws:s3:::{BUCKET}/new"
    needed = [("s3:GetObject", source), ("s3:DeleteObject", source), ("s3:PutObject", target)]

    def statement(action: str, resource: str) -> dict[str, Any]:
        return {"Effect": "Allow", "Action": action, "Resource": resource}

    before = await attacked.state()
    for number in range(len(needed)):
        held = [statement(*each) for each in needed if each != needed[number]]
        keys = await port.user(f"u{number}", *held)
        before |= await attacked.state()
        for spelling in (f"/{BUCKET}/{KEY}", KEY, f"/{KEY}", f"{BUCKET}/{KEY}"):
            headers = {"x-amz-rename-source": spelling}
            answer = await port.send(
                "PUT", f"/{BUCKET}/new?renameObject=", keys=keys, headers=headers
            )
            assert answer.status in (400, 403, 404), (needed[number], spelling, answer.body)
    assert await attacked.keys() == {KEY, READABLE}
    keys = await port.user("all", *(statement(*each) for each in needed))
    headers = {"x-amz-rename-source": f"/{BUCKET}/{KEY}"}
    answer = await port.send("PUT", f"/{BUCKET}/new?renameObject=", keys=keys, headers=headers)
    assert answer.status == 200, answer.body
    assert await attacked.keys() == {"new", READABLE}


async def test_each_key_of_deleteobjects_is_asked_about(attacked: Attacked) -> None:
    port = attacked.port
    for key in ("mine/a", "mine/b", "yours"):
        assert (await port.send("PUT", f"/{BUCKET}/{key}", b"x")).status == 200
    keys = await port.user(
        "mine",
        {
            "Effect": "Allow",
            "Action": "s3:DeleteObject",
            "Resource": f"arn:aws:s3:::{BUCKET}/mine/*",
        },
    )
    await port.view.refresh()
    (request,) = (each for each in requests("") if each.row.name == "DeleteObjects")
    listed = ("mine/a", "yours", "mine/../yours", "MINE/b", KEY, "mine")
    body = "".join(f"<Object><Key>{key}</Key></Object>" for key in listed)
    versioned = "<Object><Key>mine/b</Key><VersionId>null</VersionId></Object>"
    document = f"<Delete>{body}{versioned}</Delete>".encode()
    md5 = base64.b64encode(hashlib.md5(document).digest()).decode()
    asked = replace(request, body=document, headers={"content-md5": md5})
    answer = await attacked.ask(asked, keys)
    assert answer.status == 200, answer.body
    deleted = answer.body.split(b"<Deleted>")[1:]
    # A key that is only spelt with `..` is another key, which is not there.
    assert [each.partition(b"</Key>")[0] for each in deleted] == [
        b"<Key>mine/a",
        b"<Key>mine/../yours",
    ]
    assert answer.body.count(b"AccessDenied") == 5
    assert await attacked.keys() == {"mine/b", "yours", KEY, READABLE}


# Paths.

SPELLINGS = (
    "home/../{key}",
    "home/%2e%2e/{key}",
    "home/%2E%2E/{key}",
    "home/.%2e/{key}",
    "home%2f..%2f{key}",
    "home/./../{key}",
    "home//../{key}",
    "/home/../{key}",
    "home/..%2f{key}",
    "home/%252e%252e/{key}",
    "home/..;/{key}",
    "home/%5c..%5c{key}",
    "home/..%c0%af{key}",
    "home/%00/../{key}",
    "home/{key}%00",
    "home/%2f{key}",
    "../{bucket}/{key}",
    "%2e%2e/{other}/{key}",
    "./{key}",
    "%2e/{key}",
    "HOME/{key}",
    "Home/{key}",
    "hom%45/{key}",
    "home",
    "home*",
    "*",
    "hom?",
    "home%2A/{key}",
    "{key}",
    "{key}%2f..%2fhome/x",
    "{key}?home/",
    "{key}%3Fhome/",
    "{key}#home/",
    "%68ome/{key}",
    "h%6fme/x/../../{key}",
    "home/$%7Baws:username%7D/{key}",
)


@pytest.mark.parametrize("how", ["plain", "variable", "deny elsewhere"])
async def test_no_spelling_of_a_path_escapes_a_prefix(attacked: Attacked, how: str) -> None:
    """What is written is written below the prefix, under that very key; nothing else is read."""
    port = attacked.port
    prefix = "${aws:username}" if how == "variable" else "home"
    allowed = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        "Resource": f"arn:aws:s3:::{BUCKET}/{prefix}/*",
    }
    statements = [allowed]
    if how == "deny elsewhere":
        statements = [
            {**allowed, "Resource": "*"},
            {"Effect": "Deny", "Action": "s3:*", "NotResource": allowed["Resource"]},
        ]
    keys = await port.user("home", *statements)
    await port.view.refresh()
    written = 0
    for spelling in SPELLINGS:
        path = f"/{BUCKET}/" + spelling.format(key=KEY, bucket=BUCKET, other=OTHER)
        for place in PLACES:
            for method in ("GET", "PUT", "DELETE"):
                answer = await asked_as_spelt(attacked, method, path, keys, place)
                told = (method, path, place, answer.status, answer.body)
                assert answer.status in (200, 204, 400, 403, 404), told
                assert answer.body != CONTENT, told
                assert code_of(answer) != "SignatureDoesNotMatch", told
                if answer.status == 200 and method == "PUT":
                    written += 1
                    new = await attacked.keys() - {KEY, READABLE}
                    assert len(new) == 1, (told, new)
                    assert min(new).startswith("home/"), (told, new)
            source = path.removeprefix("/")
            copied = await port.send(
                "PUT",
                f"/{BUCKET}/" + "home/copied",
                keys=keys,
                headers={"x-amz-copy-source": quote(source) if "?" in source else source},
            )
            assert copied.status in (400, 403, 404), (path, copied.status, copied.body)
    assert await attacked.keys() == {KEY, READABLE}
    assert await attacked.keys(OTHER) == {KEY}
    for bucket in (BUCKET, OTHER):
        assert (await port.send("GET", f"/{bucket}/{KEY}")).body == CONTENT
    assert written > 10


async def asked_as_spelt(attacked: Attacked, method: str, path: str, keys: Keys, place: str) -> Any:
    """A request whose path goes over the wire as it is written, and is signed so."""
    row = next(row for row in ROWS if row.name == "GetObject")
    raw, _, query = path.partition("?")
    request = Request(replace(row, method=method), raw, query, {}, b"x" if method == "PUT" else b"")
    return await attacked.send(signed(request, keys, place))
