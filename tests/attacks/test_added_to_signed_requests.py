"""What is added to a signed request, changed in it or carried to another place: every header that
acts, beside every route, in each place that a signature can be. Over a store in memory.

A presigned URL is a capability that its bearer may not widen: neither by headers (an unsigned
`x-amz-copy-source` beside a presigned PUT) nor by parameters, nor by sending the signature where it
was not made for. The same for forms, whose fields their policy must cover.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config

from tests import sdk
from tests.attacks.in_process import (
    BUCKET,
    KEY,
    OTHER,
    PLACES,
    SIGNED_ROWS,
    Attacked,
    code_of,
    form,
    posted,
    requests,
    signed,
)
from tests.attacks.test_signatures_of_every_route import Sent
from tests.iam.in_process import ROOT as ROOT_KEYS
from tests.iam.in_process import Port
from tests.stores.memory_store import Process

# Every header of a request that changes what is done, or as whom.
ADDED = {
    "content-md5": "XUFAKrxLKna5cZ2REBfFkg==",
    "x-amz-acl": "public-read-write",
    "x-amz-bucket-object-lock-enabled": "true",
    "x-amz-bypass-governance-retention": "true",
    "x-amz-checksum-crc32": "AAAAAA==",
    "x-amz-client-token": "token",
    "x-amz-copy-source": f"/{OTHER}/{KEY}",
    "x-amz-copy-source-if-match": "*",
    "x-amz-copy-source-range": "bytes=0-1",
    "x-amz-copy-source-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-decoded-content-length": "1",
    "x-amz-expected-bucket-owner": "somebody",
    "x-amz-grant-full-control": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"',
    "x-amz-grant-read": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"',
    "x-amz-grant-write": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"',
    "x-amz-if-match-size": "1",
    "x-amz-meta-a": "1",
    "x-amz-metadata-directive": "REPLACE",
    "x-amz-mfa": "1 2",
    "x-amz-object-attributes": "ETag",
    "x-amz-object-lock-legal-hold": "ON",
    "x-amz-object-lock-mode": "COMPLIANCE",
    "x-amz-object-lock-retain-until-date": "2099-01-01T00:00:00Z",
    "x-amz-object-ownership": "ObjectWriter",
    "x-amz-optional-object-attributes": "RestoreStatus",
    "x-amz-rename-source": f"/{BUCKET}/{KEY}",
    "x-amz-request-route": "route",
    "x-amz-sdk-checksum-algorithm": "CRC32",
    "x-amz-security-token": "a token",
    "x-amz-server-side-encryption": "AES256",
    "x-amz-server-side-encryption-aws-kms-key-id": "other",
    "x-amz-server-side-encryption-context": "e30=",
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "x-amz-server-side-encryption-customer-key-md5": "AAAA",
    "x-amz-storage-class": "GLACIER",
    "x-amz-tagging": "a=b",
    "x-amz-tagging-directive": "REPLACE",
    "x-amz-trailer": "x-amz-checksum-crc32",
    "x-amz-website-redirect-location": "https://elsewhere.example/",
    "x-amz-write-offset-bytes": "0",
}


@pytest.fixture
async def attacked(memory_store: Process) -> Attacked:
    return await Attacked.open(await Port.open(memory_store))


async def require_refused(attacked: Attacked, sent: Sent, told: object) -> None:
    answer = await attacked.send(sent)
    assert answer.status in (400, 403), (told, answer.status, answer.body)


async def test_no_header_can_be_added(attacked: Attacked) -> None:
    before, count = await attacked.state(), 0
    for request in requests(attacked.upload_id):
        for place in PLACES:
            good = signed(request, ROOT_KEYS, place)
            for name, value in ADDED.items():
                if name in good.headers:
                    continue
                spoilt = replace(good, headers={**good.headers, name: value})
                await require_refused(attacked, spoilt, (request.row.name, place, name))
                count += 1
    assert await attacked.state() == before
    print(f"{count} headers added to signed requests, none accepted")
    assert count > 8000


async def test_no_signed_header_can_be_changed_or_left_out(attacked: Attacked) -> None:
    before, count = await attacked.state(), 0
    for request in requests(attacked.upload_id):
        for place in PLACES:
            acting = {**request.headers, "x-amz-meta-a": "1", "x-amz-expected-bucket-owner": "x"}
            good = signed(replace(request, headers=acting), ROOT_KEYS, place)
            for name in acting:
                left = {key: value for key, value in good.headers.items() if key != name}
                for headers in (left, {**good.headers, name: good.headers[name] + "x"}):
                    spoilt = replace(good, headers=headers)
                    answer = await attacked.send(spoilt)
                    # Without the header that tells operations apart it may be none of them.
                    unknown = answer.status == 405 and headers is left
                    told = (request.row.name, place, name, answer.status, answer.body)
                    assert answer.status in (400, 403) or unknown, told
                    count += 1
    assert await attacked.state() == before
    assert count > 800


def added_parameters(request_query: str) -> Iterator[str]:
    """Parameters that name another operation, another version, or who asks."""
    for row in SIGNED_ROWS:
        for term in row.query.split("&"):
            if term and term.partition("=")[0] not in request_query:
                yield term if "=" in term else f"{term}=1"
    yield from ("versionId=null", "X-Amz-Security-Token=x", "x-amz-security-token=x")
    yield from (
        "X-Amz-Expires=604800",
        "x-amz-copy-source=/elsewhere/kept",
        "x-amz-acl=public-read",
    )
    yield from ("response-content-type=text/html", "X-Amz-Algorithm=AWS4-HMAC-SHA256")
    yield from ("Signature=x&AWSAccessKeyId=x&Expires=9999999999", "prefix=x")


async def test_no_parameter_can_be_added(attacked: Attacked) -> None:
    before, count = await attacked.state(), 0
    for request in requests(attacked.upload_id):
        for place in PLACES:
            good = signed(request, ROOT_KEYS, place)
            for term in dict.fromkeys(added_parameters(request.query)):
                spoilt = replace(good, query=f"{good.query}&{term}".removeprefix("&"))
                answer = await attacked.send(spoilt)
                told = (request.row.name, place, term, answer.status, answer.body)
                # What is no operation is refused before the signature is looked at.
                assert answer.status in (400, 403, 405, 501), told
                assert answer.status != 501 or code_of(answer) == "NotImplemented", told
                count += 1
    assert await attacked.state() == before
    print(f"{count} parameters added to signed requests, none accepted")
    assert count > 5000


async def test_a_signature_of_one_place_is_none_in_another(attacked: Attacked) -> None:
    """The query of a presigned URL in the Authorization header, as a form, and the reverse."""
    before = await attacked.state()
    for request in requests(attacked.upload_id):
        url = signed(request, ROOT_KEYS, "query")
        terms = dict(term.split("=", 1) for term in url.query.split("&") if "X-Amz-" in term)
        credential = terms["X-Amz-Credential"].replace("%2F", "/")
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={credential}, "
            f"SignedHeaders={terms['X-Amz-SignedHeaders'].replace('%3B', ';')}, "
            f"Signature={terms['X-Amz-Signature']}"
        )
        moved = {**url.headers, "authorization": authorization, "x-amz-date": terms["X-Amz-Date"]}
        moved["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
        for query in (request.query, url.query):
            spoilt = replace(url, query=query, headers=moved)
            await require_refused(attacked, spoilt, request.row.name)
        head = signed(request, ROOT_KEYS, "header")
        both = replace(head, query=url.query)
        await require_refused(attacked, both, request.row.name)
        fields = {name.lower(): value.replace("%2F", "/") for name, value in terms.items()}
        fields |= {"key": KEY, "policy": "e30="}
        await require_refused(attacked, posted(fields.items()), request.row.name)
    assert await attacked.state() == before


@pytest.fixture
def version_2() -> Any:
    return sdk.client(
        "s3",
        endpoint_url="http://s3.test",
        region_name="us-east-1",
        aws_access_key_id=ROOT_KEYS.access_key,
        aws_secret_access_key=ROOT_KEYS.secret_key,
        config=Config(signature_version="s3", s3={"addressing_style": "path"}),
    )


@pytest.mark.parametrize(
    ("operation", "method"),
    [("put_object", "PUT"), ("get_object", "GET"), ("delete_object", "DELETE")],
)
async def test_nothing_is_added_to_urls_of_version_2(
    attacked: Attacked, version_2: Any, operation: str, method: str
) -> None:
    url = version_2.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": KEY})
    parts = urlsplit(url)
    good = Sent(method, parts.path, parts.query, {"host": "s3.test", "content-length": "0"}, b"")
    before = await attacked.state()
    for name, value in ADDED.items():
        spoilt = replace(good, headers={**good.headers, name: value})
        await require_refused(attacked, spoilt, name)
        in_query = replace(good, query=f"{good.query}&{name}={value}".replace(" ", "%20"))
        await require_refused(attacked, in_query, name)
    for term in ("acl", "tagging", "versionId=null", "uploadId=x&partNumber=1", "retention"):
        spoilt = replace(good, query=f"{good.query}&{term}")
        answer = await attacked.send(spoilt)
        assert answer.status in (400, 403, 405), (term, answer.status, answer.body)
    assert await attacked.state() == before
    assert (await attacked.send(good)).status in (200, 204)


@pytest.mark.parametrize("version", [2, 4])
async def test_no_field_can_be_added_to_a_form(attacked: Attacked, version: int) -> None:
    good = form(ROOT_KEYS, {"key": "new"}, version=version)
    before = await attacked.state()
    fields = {**ADDED, "acl": "public-read", "tagging": "<Tagging/>"}
    fields |= {"success_action_redirect": "http://elsewhere.example", "content-type": "text/html"}
    for name, value in fields.items():
        line = f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        boundary = good.body.partition(b"\r\n")[0]
        body = boundary + b"\r\n" + line + good.body
        headers = {**good.headers, "content-length": str(len(body))}
        await require_refused(attacked, replace(good, body=body, headers=headers), name)
    for name in ("key", "policy", "x-amz-signature", "signature", "AWSAccessKeyId"):
        if f'name="{name}"'.encode() not in good.body:
            continue
        before_name, _, after = good.body.partition(f'name="{name}"\r\n\r\n'.encode())
        body = before_name + f'name="{name}"\r\n\r\nx'.encode() + after
        headers = {**good.headers, "content-length": str(len(body))}
        await require_refused(attacked, replace(good, body=body, headers=headers), name)
    assert await attacked.state() == before
    # Headers of the request itself say nothing: nobody signed them.
    for name, value in ADDED.items():
        if name in ("content-md5", "x-amz-decoded-content-length", "x-amz-expected-bucket-owner"):
            continue
        answer = await attacked.send(replace(good, headers={**good.headers, name: value}))
        if answer.status in (200, 204):
            found = await attacked.port.send("GET", f"/{BUCKET}/new")
            assert name not in found.headers or name == "x-amz-server-side-encryption", name
            assert found.body == b"x" * 100
            assert (await attacked.port.send("DELETE", f"/{BUCKET}/new")).status == 204
    assert await attacked.keys() == {KEY}
    assert (await attacked.send(good)).status == 204
