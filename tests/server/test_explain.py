"""To whom a signature that does not match is explained."""

from __future__ import annotations

import asyncio
import hmac
import json
import threading
from base64 import b64encode
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from s3gw.auth import sigv2
from s3gw.auth.canonical import Request
from s3gw.auth.signer import sign
from s3gw.errors import SignatureDoesNotMatch
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.server.explain import (
    FIELD,
    REPLY_HEADER,
    add_explanation,
    add_form_explanation,
    explanation_header,
)
from tests.identities.conftest import ROOT, Clock, Gateway, make_gateway

REGION = "us-east-1"
NOW = 1_700_000_000.0
EXPLAIN = {"Effect": "Allow", "Action": "s3gw:ExplainAccess", "Resource": "*"}


@pytest.fixture
async def gateway() -> Gateway:
    return await make_gateway(MemoryKV(MemoryStore()), Clock())


async def keys_of(gateway: Gateway, *statements: dict[str, str]) -> tuple[str, str]:
    """The keys of a new user with these statements."""
    await gateway.store.create_user("ann")
    if statements:
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        await gateway.store.put_inline_policy("user", "ann", "p", document)
    record, secret = await gateway.store.create_access_key("ann")
    await gateway.view.refresh()
    return record.access_key, secret


def changed(access_key: str, secret: str, *, asks: bool = True, signs: bool = True) -> Request:
    """A GET that arrives as a PUT."""
    debug = {"x-s3gw-debug": "explain"}
    headers = sign(
        "GET",
        b"/b/k",
        {"host": "h", **(debug if asks and signs else {})},
        b"",
        access_key=access_key,
        secret_key=secret,
        region=REGION,
        now=NOW,
    )
    if asks:
        headers |= debug
    pairs = [(name.encode(), text.encode()) for name, text in headers.items()]
    return Request("PUT", b"/b/k", b"", pairs, NOW)


async def said(gateway: Gateway, request: Request, *, always: bool = False) -> str:
    error = SignatureDoesNotMatch(StringToSign="s")
    await add_explanation(error, request, REGION, gateway.view, always=always)
    assert error.fields["StringToSign"] == "s"
    return error.fields.get(FIELD, "")


async def test_root_is_told_when_it_asks(gateway: Gateway) -> None:
    keys = (ROOT.access_key, ROOT.secret_key)
    assert "the method 'GET'" in await said(gateway, changed(*keys))
    assert await said(gateway, changed(*keys, signs=False)) == ""
    assert await said(gateway, changed(*keys, asks=False)) == ""


async def test_the_event_loop_goes_on_meanwhile(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of explanation waits, in its thread, for what the event loop does after it."""
    root = (ROOT.access_key, ROOT.secret_key)
    loop = asyncio.get_running_loop()

    def waiting(*_what: Any, **_more: Any) -> str:
        went_on = threading.Event()
        loop.call_soon_threadsafe(went_on.set)
        return "went on" if went_on.wait(10) else "stood still"

    for name in ("explain", "explain_version_2", "explain_form"):
        monkeypatch.setattr(f"s3gw.server.explain.{name}", waiting)
    assert await said(gateway, changed(*root)) == "went on"
    assert await said(gateway, version_2(*root)) == "went on"
    error = SignatureDoesNotMatch(AWSAccessKeyId=ROOT.access_key)
    await add_form_explanation(error, {}, gateway.view, always=True)
    assert error.fields[FIELD] == "went on"


async def test_the_setting_asks_for_all_who_may(gateway: Gateway) -> None:
    keys = (ROOT.access_key, ROOT.secret_key)
    assert "the method 'GET'" in await said(gateway, changed(*keys, asks=False), always=True)
    nobody = await keys_of(gateway)
    assert await said(gateway, changed(*nobody, asks=False), always=True) == ""


async def test_a_user_is_told_with_the_permission(gateway: Gateway) -> None:
    assert "the method 'GET'" in await said(gateway, changed(*await keys_of(gateway, EXPLAIN)))


@pytest.mark.parametrize(
    "statements",
    [
        (),
        ({**EXPLAIN, "Action": "s3:*"},),
        (EXPLAIN, {**EXPLAIN, "Effect": "Deny", "Action": "*"}),
    ],
)
async def test_a_user_without_the_permission_is_not(
    gateway: Gateway, statements: tuple[dict[str, str], ...]
) -> None:
    assert await said(gateway, changed(*await keys_of(gateway, *statements))) == ""


async def test_an_anonymous_request_is_left_alone(gateway: Gateway) -> None:
    request = changed(ROOT.access_key, ROOT.secret_key)
    headers = [pair for pair in request.headers if pair[0] != b"authorization"]
    assert await said(gateway, replace(request, headers=headers), always=True) == ""


def version_2(access_key: str, secret: str, *, asks: bool = True) -> Request:
    """A URL of Version 2 for a GET that is used for a PUT."""
    got = Request("GET", b"/b/k", b"", [], NOW)
    expires = b"%d" % (NOW + 60)
    text = sigv2.strings_to_sign(got, expires, None, ())[0]
    signature = b64encode(hmac.digest(secret.encode(), text, "sha1"))
    pairs = {"AWSAccessKeyId": access_key, "Expires": expires, "Signature": signature}
    headers = [(b"x-s3gw-debug", b"explain")] if asks else []
    return Request("PUT", b"/b/k", urlencode(pairs).encode(), headers, NOW)


async def test_version_2_is_explained_to_the_same(gateway: Gateway) -> None:
    root = (ROOT.access_key, ROOT.secret_key)
    assert "the method 'GET'" in await said(gateway, version_2(*root))
    assert await said(gateway, version_2(*root, asks=False)) == ""
    assert "the method 'GET'" in await said(gateway, version_2(*root, asks=False), always=True)
    nobody = await keys_of(gateway)
    assert await said(gateway, version_2(*nobody), always=True) == ""


async def test_forms_are_explained_to_the_same(gateway: Gateway) -> None:
    async def said_of(access_key: str, *, always: bool = False, **asked: str) -> str:
        error = SignatureDoesNotMatch(AWSAccessKeyId=access_key)
        fields = {"policy": "e30=", "awsaccesskeyid": access_key, "signature": "x", **asked}
        await add_form_explanation(error, fields, gateway.view, always=always)
        return error.fields.get(FIELD, "")

    asks = {"x-s3gw-debug": "explain"}
    assert (await said_of(ROOT.access_key, **asks)).startswith("None of the ")
    assert await said_of(ROOT.access_key) == ""
    assert (await said_of(ROOT.access_key, always=True)).startswith("None of the ")
    nobody, _ = await keys_of(gateway)
    assert await said_of(nobody, always=True, **asks) == ""


def test_a_header_carries_one_line_of_ascii() -> None:
    error = SignatureDoesNotMatch()
    assert explanation_header(error) == []
    error.fields[FIELD] = "ü\r\nx-other: 1 " + "x" * 3000
    ((name, text),) = explanation_header(error)
    assert (name, text[:18], len(text)) == (REPLY_HEADER, "\\xfc x-other: 1 xx", 2000)
