"""What an attacker, a mistaken script or a proxy may send to the admin port: never a 500, never
done without root's signature, and what is done is on record."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import pytest

from s3gw.admin.app import SERVICE
from s3gw.admin.routes import ROWS, examples
from s3gw.admin.row import Row
from s3gw.auth.signer import sign
from s3gw.logs import AUDIT, configure
from tests.admin.conftest import HOST, REGION, ROOT, Admin
from tests.admin.test_every_route import BODIES, body_of, name_of, target_of

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 2**31, 2**63, 2**64, 10**400, 1e308, 0.5, -0.0),
    *("", "\x00", "a\n", "../..", "x" * 300, "é", "nan", "4+2", "0+1", "200+55", "4+2/9", "٣+١"),
    *([], {}, [1], [[]], {"a": 1}),
)
SEGMENTS = ("%00", "%0a", "d0%0a", "%ff", "%c0%80", "..", "%2e%2e", "a%2Fb", "%ed%a0%80", "+", "*")
METHODS = ("HEAD", "OPTIONS", "TRACE", "PATCH", "PUT", "DELETE", "POST", "GET", "get", "XYZZY")
SECONDS_MAX = 20


async def ask(
    admin: Admin,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    signed: bool = True,
    pieces: Sequence[bytes | None] | None = None,
) -> tuple[int, bytes]:
    """Status and body of the answer to a request as a server hands it over, unlike httpx with its
    target as it is. `pieces` are those of the body; None: the client leaves."""
    path, _, query = target.partition("?")
    headers = {"host": HOST}
    if signed:
        keys = {"access_key": ROOT.access_key, "secret_key": ROOT.secret_key, "region": REGION}
        headers["x-s3gw-nonce"] = secrets.token_hex(8)
        headers = sign(
            method, target.encode(), headers, body, now=time.time(), service=SERVICE, **keys
        )
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
        "client": ("10.9.8.7", 5),
        "server": ("admin", 1),
    }
    left = list(pieces if pieces is not None else [body])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        piece = left.pop(0) if left else None
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(SECONDS_MAX):
        await admin.app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def spoilt(value: Any) -> list[Any]:
    """The value with any one thing in it, at any depth, replaced."""
    found = list(VALUES)
    if isinstance(value, dict):
        found += [{**value, name: bad} for name in value for bad in spoilt(value[name])]
    if isinstance(value, list):
        found += [[*value[:at], bad] for at in range(len(value)) for bad in spoilt(value[at])]
    return found


@pytest.mark.parametrize("row", [row for row in ROWS if row.body_type], ids=name_of)
async def test_no_body_is_a_bug(admin: Admin, row: Row) -> None:
    bodies = [json.dumps(value).encode() for value in spoilt(BODIES[row.operation])]
    bodies += [b'{"seconds":NaN}', b'{"epoch":1e400}', b'{"a":' * 5000, b"\xef\xbb\xbf{}", b'"']
    for body in bodies:
        status, answer = await ask(admin, row.method, target_of(row), body)
        assert status < 500, (body, answer)
        if status != 200:
            assert json.loads(answer)["message"], body


@pytest.mark.parametrize("row", [row for row in ROWS if row.path_type], ids=name_of)
async def test_no_path_is_a_bug(admin: Admin, row: Row) -> None:
    for segment in SEGMENTS:
        target = row.path.format(**dict.fromkeys(examples(), segment))
        for body in (b"", b"{}", body_of(row)):
            status, answer = await ask(admin, row.method, target, body)
            assert 400 <= status < 500, (target, answer)


@pytest.mark.parametrize("path", sorted({row.path for row in ROWS if not row.open_to_all}))
async def test_no_method_goes_without_a_signature(admin: Admin, path: str) -> None:
    before = admin.cluster.engine.revision
    for method in METHODS:
        for target in (path, f"/%61{path[2:]}", f"{path}%0a", f"{path}?x=1"):
            status, _ = await ask(admin, method, target.format(**examples()), signed=False)
            assert status == 403, (method, target)
    assert admin.cluster.engine.revision == before


async def test_a_body_in_pieces_is_one_and_one_that_ends_early_does_nothing(admin: Admin) -> None:
    body = b'{"rebuild_groups_at_once":3}'
    pieces = [body[:9], body[9:20], body[20:]]
    assert (await ask(admin, "PUT", "/admin/tunables", body, pieces=pieces))[0] == 200
    before = admin.cluster.engine.revision
    status, answer = await ask(admin, "PUT", "/admin/tunables", body, pieces=[body[:9], None])
    assert (status, json.loads(answer)["error"]) == (400, "IncompleteBody")
    assert admin.cluster.engine.revision == before


async def test_what_is_changed_is_on_record_at_every_log_level(
    admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in ("", "s3gw", "nodes", AUDIT)}
    try:
        configure("error")
        root.addHandler(caplog.handler)
        await ask(admin, "GET", "/admin/nodes")
        await ask(admin, "POST", "/admin/nodes/d0/cordon", signed=False)
        assert not caplog.records
        assert (await ask(admin, "POST", "/admin/nodes/d0/cordon"))[0] == 200
        assert (await ask(admin, "POST", "/admin/nodes/d0/fail", b'{"seconds":5}'))[0] == 200
    finally:
        root.handlers = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    cordon, fail = [record for record in caplog.records if record.name == AUDIT]
    assert cordon.getMessage().startswith(f"{ROOT.access_key} asks for POST /admin/nodes/d0/cordon")
    assert '{"seconds":5}' in fail.getMessage()
    assert fail.__dict__["client"] == "10.9.8.7"
    text = "".join(str(record.__dict__) for record in caplog.records)
    assert ROOT.secret_key not in text
    assert "Signature" not in text
