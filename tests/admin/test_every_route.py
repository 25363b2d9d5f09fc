"""What every route of the table does alike: it works, wants root's signature, refuses bad input.

The cases are made from the table, so that a new row is covered when it is there.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from compose.s3_http import Signer
from s3gw.admin.app import BODY_BYTES_MAX
from s3gw.admin.models import Problem
from s3gw.admin.routes import ROWS, examples
from s3gw.admin.row import Row
from tests.admin.conftest import HOST, REGION, ROOT, Admin
from tests.admin.identity_calls import IDENTITY_BEFORE, IDENTITY_BODIES
from tests.stores.operations import set_versioning
from tests.workers.inventories import configuration, configure

BODIES: dict[str, Any] = {
    "failNode": {"seconds": 5, "force": True},
    "stageChanges": {"changes": [{"change": "state", "node": "d1", "state": "cordoned"}]},
    "applyLayout": {"reason": "because"},
    "changeBucketProfile": {"profile": "copies"},
    "createProfile": {"name": "copies", "scheme": "1+1"},
    "setTrash": {"keep_seconds": 86_400},
    "restoreTrash": {"prefix": ""},
    "emptyTrash": {"prefix": ""},
    "planUndo": {"at_ms": 1, "prefix": "dir/"},
    "startUndo": {"at_ms": 1, "prefix": "dir/"},
    "changeTunables": {"rebuild_groups_at_once": 2},
    "simulatePolicy": {
        "principal": "anonymous",
        "actions": ["s3:GetObject"],
        "resources": ["arn:aws:s3:::bucket/key"],
    },
    "createKmsKey": {"name": "default"},
    "deleteKmsKey": {"days": 7},
    "setCompression": {"compression": "zstd"},
    **IDENTITY_BODIES,
}
# What must be so before the operation can be done, as calls.
BEFORE: dict[str, list[tuple[str, str, Any]]] = {
    "uncordonNode": [("POST", "/admin/nodes/d0/cordon", None)],
    "activateNode": [("POST", "/admin/nodes/d0/drain", None)],
    "changeBucketProfile": [("POST", "/admin/profiles", BODIES["createProfile"])],
    **{
        operation: [
            ("POST", "/admin/profiles", BODIES["createProfile"]),
            ("POST", "/admin/buckets/bucket/profile", BODIES["changeBucketProfile"]),
        ]
        for operation in ("getBucketProfileJob", "cancelBucketProfileJob")
    },
    **{
        operation: [("POST", "/admin/buckets/bucket/undo", {"at_ms": 1})]
        for operation in ("getUndo", "cancelUndo")
    },
    **{
        operation: [("POST", "/admin/layout/draft", BODIES["stageChanges"])]
        for operation in ("getDraft", "planLayout", "applyLayout")
    },
    **{
        operation: [("POST", "/admin/kms/keys", BODIES["createKmsKey"])]
        for operation in (
            *("getKmsKey", "rotateKmsKey", "enableKmsKey", "disableKmsKey", "deleteKmsKey"),
        )
    },
    **IDENTITY_BEFORE,
}
# Rows whose pages go by name.
BY_NAME = {
    "listBuckets",
    "listUsers",
    "listGroups",
    "listKeys",
    "listPolicies",
    "listRoles",
}
NOBODY = {
    "node": "nobody",
    "bucket": "nothing-here",
    "worker": "nobody",
    "user": "nobody",
    "group": "nobody",
    "role": "nobody",
    "policy": "nothing",
    "key": "AKIANOBODYNOBODY0000",
    "kms_key": "nothing",
    "inventory": "nothing",
}
# What wants the bucket to have versioning.
VERSIONED = frozenset({"planUndo", "startUndo", "getUndo", "cancelUndo"})
SIGNED = [row for row in ROWS if not row.open_to_all]


def name_of(row: Row) -> str:
    return row.operation


def target_of(row: Row) -> str:
    return row.path.format(**examples())


async def prepare(admin: Admin, row: Row) -> str:
    """Make what the operation needs; its target, with the id of a key if there is one, as the store
    draws it."""
    if row.operation in VERSIONED:
        await set_versioning(admin.process, "Enabled")
    if "{inventory}" in row.path:
        await configure(admin.process, configuration())
    for method, target, body in BEFORE.get(row.operation, []):
        await admin.call(method, target, body)
    found = await admin.port.identity_store.list_all_access_keys()
    known = {"key": found[0].access_key} if found else {}
    return row.path.format(**{**examples(), **known})


def body_of(row: Row) -> bytes:
    return msgspec.json.encode(BODIES[row.operation]) if row.body_type is not None else b""


@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_it_answers_what_the_table_says(admin: Admin, row: Row) -> None:
    reply = await admin.send(row.method, await prepare(admin, row), body_of(row))
    assert reply.status_code == 200, reply.text
    answer = msgspec.json.decode(reply.content, type=row.answer)
    assert msgspec.to_builtins(answer).keys() == reply.json().keys()


@pytest.mark.parametrize("row", SIGNED, ids=name_of)
@pytest.mark.parametrize(
    "spoilt",
    ["unsigned", "wrong secret", "unknown key", "stale", "for S3", "other body", "other path"],
)
async def test_it_wants_the_signature_of_root(admin: Admin, row: Row, spoilt: str) -> None:
    target, body = target_of(row), body_of(row)
    before = admin.cluster.engine.revision
    match spoilt:
        case "unsigned":
            reply = await admin.http.request(row.method, target, content=body)
        case "wrong secret":
            reply = await admin.send(row.method, target, body, secret_key="root-secret-kez")
        case "unknown key":
            reply = await admin.send(row.method, target, body, access_key="SOMEONE")
        case "stale":
            reply = await admin.send(row.method, target, body, now=time.time() - 1000)
        case "for S3":
            reply = await admin.send(row.method, target, body, service=b"s3")
        case "other body":
            reply = await admin.send(row.method, target, body or b"{}", signed_body=b"[]")
        case _:
            signed = await _signed_for_another_path(admin, row, body)
            reply = await admin.http.request(row.method, target, content=body, headers=signed)
    assert reply.status_code == (400 if spoilt == "for S3" else 403), reply.text
    assert msgspec.json.decode(reply.content, type=Problem).error
    assert ROOT.secret_key not in reply.text
    assert admin.cluster.engine.revision == before


async def _signed_for_another_path(admin: Admin, row: Row, body: bytes) -> Any:
    reply = await admin.send(row.method, "/admin/elsewhere", body)
    assert reply.status_code == 404
    return {
        name: text
        for name, text in reply.request.headers.items()
        if name.startswith(("x-amz-", "x-s3gw-")) or name in ("authorization", "host")
    }


BAD_BODIES = (
    b"[]",
    b"{",
    b"null",
    b'{"surprise":1}',
    b"\xff",
    b'{"seconds":1e999}',
    b"[" * 5000,
    b'{"reason":"\\ud800"}',
    b"{}" + b" " * 100 + b"x",
)
BAD_VALUES = ("", "-1", "0", "x" * 9000, "1e9", "%00", "nan", "zz")


def bad_inputs() -> list[Any]:
    """Path, query and body that every row of the kind must refuse."""
    cases: list[tuple[Row, str, bytes]] = []
    for row in ROWS:
        target, body = target_of(row), body_of(row)
        cases += [(row, f"{target}?surprise=1", body), (row, f"{target}?%ff=1", body)]
        bodies = BAD_BODIES if row.body_type is not None else (b"{}",)
        cases += [(row, target, bad) for bad in bodies]
        for field in msgspec.structs.fields(row.query_type) if row.query_type else ():
            cases.append((row, f"{target}?{field.name}=1&{field.name}=1", body))
            cases += [
                (row, f"{target}?{field.name}={value}", body)
                for value in BAD_VALUES
                if (field.name, value) != ("after", "") and not plain_name(row, field, value)
            ]
        if row.path_type is not None:
            cases.append((row, row.path.replace("{", "").replace("}", "x" * 200), body))
    return [
        pytest.param(*case, id=f"{case[0].operation}-{number}") for number, case in enumerate(cases)
    ]


def plain_name(row: Row, field: Any, value: str) -> bool:
    """Whether the value is a fine name to go on after, or a fine prefix."""
    if (row.operation, field.name) == ("listTrash", "prefix"):
        return len(value) < 1024
    return row.operation in BY_NAME and field.name == "after" and len(value) < 64


@pytest.mark.parametrize(("row", "target", "body"), bad_inputs())
async def test_bad_input_is_refused_with_a_reason(
    admin: Admin, row: Row, target: str, body: bytes
) -> None:
    before = admin.cluster.engine.revision
    reply = await admin.send(row.method, target, body)
    assert reply.status_code == 400, reply.text
    problem = msgspec.json.decode(reply.content, type=Problem)
    assert problem.error == "BadRequest"
    assert problem.message
    assert admin.cluster.engine.revision == before


@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_a_body_that_is_too_large_is_refused(admin: Admin, row: Row) -> None:
    reply = await admin.send(row.method, target_of(row), b"x" * (BODY_BYTES_MAX + 1))
    assert reply.status_code == 413
    assert msgspec.json.decode(reply.content, type=Problem).error == "BodyTooLarge"


@pytest.mark.parametrize("row", [row for row in ROWS if row.path_type], ids=name_of)
async def test_what_is_not_there_is_404(admin: Admin, row: Row) -> None:
    target = row.path.format(**NOBODY)
    reply = await admin.send(row.method, target, body_of(row))
    assert reply.status_code == 404, reply.text
    assert msgspec.json.decode(reply.content, type=Problem).message


@pytest.mark.parametrize(
    "target", ["/", "/admin", "/admin/", "/admin/nodes/", "/nothing", "/admin/nodes/a/b/c"]
)
async def test_an_unknown_path_is_404_in_json(admin: Admin, target: str) -> None:
    reply = await admin.send("GET", target)
    assert reply.status_code == 404
    assert msgspec.json.decode(reply.content, type=Problem).error == "NoSuchPath"


async def test_below_admin_even_an_unknown_path_or_method_wants_a_signature(admin: Admin) -> None:
    assert (await admin.http.get("/admin/nothing")).status_code == 403
    assert (await admin.http.delete("/admin/nodes")).status_code == 403
    reply = await admin.send("PATCH", "/admin/layout/draft")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "DELETE, GET, POST"


async def test_an_unsigned_payload_is_taken_only_without_a_body(admin: Admin) -> None:
    signer = Signer(ROOT.access_key, ROOT.secret_key, REGION, "s3gw")

    async def send(method: str, path: str, body: bytes) -> int:
        signed, _ = signer.headers(method, path, "", {"host": HOST}, "UNSIGNED-PAYLOAD")
        return (await admin.http.request(method, path, content=body, headers=signed)).status_code

    assert await send("POST", "/admin/run/garbage", b"") == 200
    assert await send("PUT", "/admin/tunables", b'{"rebuild_groups_at_once":3}') == 400
