"""Every built route × payload mode × place of the credentials × kind of bad signature.

Generated from the route table. Each request, before it is spoilt, is one that the store serves;
none of the spoilt ones may be accepted, and nothing of the bucket may change.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from compose.s3_http import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    Reply,
    S3Http,
    Signature,
    chunked_signed,
    chunked_unsigned,
)
from s3gw.server.routes import ROWS, Row, Scope

BODY = b"x" * 9000
OWN_BODIES = {
    "DeleteObjects": b"<Delete><Object><Key>kept</Key></Object></Delete>",
    "CompleteMultipartUpload": b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
    b"<ETag>x</ETag></Part></CompleteMultipartUpload>",
}
BODIES = ("hashed", "unsigned", "signed chunks", "signed trailer", "unsigned trailer")
REFUSED = frozenset({400, 403})
"""Never a success, and never an answer that depends on what is in the store, such as 404."""


@dataclass(frozen=True)
class Case:
    """A request before it is signed."""

    row: Row
    mode: str
    place: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    key: str = ""
    secret: str = ""
    when: datetime = field(default_factory=lambda: datetime.now(UTC))
    expires_seconds: int = 60

    @property
    def name(self) -> str:
        return f"{self.row.name}, {self.mode}, credentials in the {self.place}"


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


def cases(bucket: str, upload_id: str) -> Iterator[Case]:
    for row in ROWS:
        if row.handler is None:
            continue
        path = {Scope.SERVICE: "/", Scope.BUCKET: f"/{bucket}", Scope.OBJECT: f"/{bucket}/kept"}
        values = {"uploadId": upload_id, "attributes": ""}
        terms = [term for term in row.query.split("&") if term]
        query = "&".join(t if "=" in t else f"{t}={values.get(t, '1')}" for t in terms)
        headers = dict.fromkeys(row.headers, f"/{bucket}/kept")
        body = OWN_BODIES.get(row.name, BODY if row.body.kind == "stream" else b"")
        modes = BODIES if body else ("hashed", "unsigned")
        for mode in modes:
            for place in ("header", "query"):
                if place == "header" or mode in ("hashed", "unsigned"):
                    yield Case(row, mode, place, path[row.scope], query, body, headers)


def framing(case: Case) -> tuple[str, dict[str, str]]:
    """The value of x-amz-content-sha256 and the headers of the mode."""
    length = {"x-amz-decoded-content-length": str(len(case.body))}
    trailer = {"x-amz-trailer": "x-amz-checksum-crc32c", **length}
    return {
        "hashed": (hashlib.sha256(case.body).hexdigest(), {}),
        "unsigned": (UNSIGNED_PAYLOAD, {}),
        "signed chunks": (STREAMING_SIGNED, length),
        "signed trailer": (STREAMING_SIGNED_TRAILER, trailer),
        "unsigned trailer": (STREAMING_UNSIGNED_TRAILER, trailer),
    }[case.mode]


def framed(case: Case, signature: Signature) -> bytes:
    trailers = {"x-amz-checksum-crc32c": "AAAAAA=="}
    match case.mode:
        case "signed chunks":
            return chunked_signed([case.body], signature)
        case "signed trailer":
            return chunked_signed([case.body], signature, trailers)
        case "unsigned trailer":
            return chunked_unsigned([case.body], trailers)
        case _:
            return case.body


def signed(http: S3Http, case: Case) -> Sent:
    signer = replace(
        http.signer,
        access_key=case.key or http.signer.access_key,
        secret_key=case.secret or http.signer.secret_key,
    )
    payload, more = framing(case)
    headers = {"host": http.netloc, **case.headers, **more}
    row = case.row
    if case.place == "query":
        if payload != UNSIGNED_PAYLOAD:
            headers["x-amz-content-sha256"] = payload
        query = signer.presigned(
            row.method,
            case.path,
            case.query,
            headers,
            expires_seconds=case.expires_seconds,
            when=case.when,
            payload_hash=payload,
        )
        return Sent(row.method, case.path, query, headers, case.body)
    sent, signature = signer.headers(
        row.method, case.path, case.query, headers, payload, when=case.when
    )
    return Sent(row.method, case.path, case.query, sent, framed(case, signature))


def spoilt(http: S3Http, case: Case) -> Iterator[tuple[str, Sent]]:
    """The ways in which a request can carry credentials that do not cover it."""
    good = signed(http, case)

    def changed(**parts: Any) -> Sent:
        return replace(good, **parts)

    def with_headers(**headers: str) -> Sent:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return changed(headers={**good.headers, **named})

    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    yield "wrong secret", signed(http, replace(case, secret="not the secret"))
    yield "unknown key", signed(http, replace(case, key="AKIAUNKNOWN"))
    yield "an hour late", signed(http, replace(case, when=now - hour))
    yield "an hour early", signed(http, replace(case, when=now + hour))
    yield "wrong signature", wrong_signature(good)
    yield "an unsigned copy source", with_headers(x_amz_copy_source="/attacked/other")
    yield "unsigned metadata", with_headers(x_amz_meta_a="1")
    yield "unsigned or changed MD5", with_headers(content_md5="XUFAKrxLKna5cZ2REBfFkg==")
    yield "another host", with_headers(host="other.example")
    yield "another path", changed(path=good.path.rstrip("/") + "/other")
    yield "a parameter more", changed(query=f"{good.query}&a=b".removeprefix("&"))
    yield "another method", changed(method="PUT" if good.method != "PUT" else "POST")
    if case.mode == "hashed":
        yield "the hash of another body", with_headers(x_amz_content_sha256="0" * 64)
    if case.body and case.mode not in ("unsigned", "unsigned trailer"):
        middle = len(good.body) // 2
        yield "another body", changed(body=good.body[:middle] + b"!" + good.body[middle + 1 :])


def wrong_signature(good: Sent) -> Sent:
    def flipped(text: str) -> str:
        return text[:-1] + ("0" if text[-1] != "0" else "1")

    if "authorization" in good.headers:
        authorization = flipped(good.headers["authorization"])
        return replace(good, headers={**good.headers, "authorization": authorization})
    return replace(good, query=flipped(good.query))


def send(http: S3Http, request: Sent) -> Reply:
    headers = {**request.headers, "content-length": str(len(request.body))}
    return http.send(
        request.method, request.path, request.query, headers=headers, body=request.body
    )


@pytest.fixture(scope="module")
def upload(s3: Any, bucket: str) -> dict[str, str]:
    created = s3.create_multipart_upload(Bucket=bucket, Key="kept")
    return {"Bucket": bucket, "Key": "kept", "UploadId": created["UploadId"]}


@pytest.fixture
def contents(s3: Any, bucket: str, upload: dict[str, str]) -> Callable[[], object]:
    """All that the requests could have changed."""
    s3.put_object(Bucket=bucket, Key="kept", Body=b"as it was")

    def read() -> object:
        names = [each["Name"] for each in s3.list_buckets()["Buckets"]]
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        objects = [(each["Key"], each["ETag"], each["LastModified"]) for each in listed]
        uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
        parts = s3.list_parts(**upload).get("Parts", [])
        return names, objects, uploads, parts

    return read


DESTRUCTIVE = ("DeleteBucket", "DeleteObject", "DeleteObjects", "AbortMultipartUpload")


def test_what_is_not_spoilt_is_served(
    http: S3Http, bucket: str, contents: Callable[[], object], upload: dict[str, str]
) -> None:
    """Otherwise the refusals below would prove nothing."""
    for case in cases(bucket, upload["UploadId"]):
        if case.row.name in DESTRUCTIVE:
            continue
        reply = send(http, signed(http, case))
        # What they ask for may make no sense; who asks has been proven.
        assert reply.status < 500, case.name
        assert reply.status != 403, (case.name, reply.body)
        assert not reply.code.startswith("Authorization"), case.name


def test_no_spoilt_request_is_accepted(
    http: S3Http, bucket: str, contents: Callable[[], object], upload: dict[str, str]
) -> None:
    before = contents()
    count = 0
    for case in cases(bucket, upload["UploadId"]):
        for kind, request in spoilt(http, case):
            reply = send(http, request)
            # What no operation answers is refused before the credentials are looked at.
            resolved = reply.status == 405 and kind in ("another method", "another path")
            assert reply.status in REFUSED or resolved, (case.name, kind, reply.status, reply.body)
            count += 1
    assert contents() == before
    print(f"{count} spoilt requests, none accepted")
    assert count > 1000
