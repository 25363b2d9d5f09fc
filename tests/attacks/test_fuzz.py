"""Arbitrary and mutated requests: no server error, no hang, no exit, flat memory.

Most mutations are signed after they are made, so that they reach the code behind authentication.
"""

import hashlib
import os
import random
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from compose.local import Up
from compose.s3_http import (
    STREAMING_SIGNED,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    S3Http,
    chunked_signed,
    chunked_unsigned,
    quote_query,
)
from tests.attacks.target import SOAK, Answer, Baseline, ask, request_bytes
from tests.compat.forms import Poster, encode

SEED = int(os.environ.get("FUZZ_SEED", "20260101"))
REQUESTS_PER_KIND = 2500 if SOAK else 250
CLIENTS = 4
MEMORY_GROWTH_MAX = 96 << 20
ALLOWED = frozenset({501, 503})

INTERESTING = (
    b"\r\n",
    b"\n",
    b"\0",
    b"%",
    b"%00",
    b"%ff",
    b"%0d%0a",
    b"&",
    b"=",
    b"?",
    b"/",
    b"..",
    b"//",
    b";",
    b",",
    b"\xff\xfe",
    "😀".encode(),
    b"-1",
    b"0",
    b"99999999999999999999",
    b"1e9",
    b"bytes=0-",
    b"<",
    b"&#0;",
    b"<!DOCTYPE a>",
    b"]]>",
    b"{}",
    b" " * 50,
    b"A" * 3000,
)
HEADER_NAMES = (
    *("range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"),
    *("content-type", "content-md5", "content-encoding", "cache-control", "expires", "origin"),
    *("x-amz-copy-source", "x-amz-copy-source-range", "x-amz-meta-a", "x-amz-tagging"),
    *("x-amz-acl", "x-amz-storage-class", "x-amz-checksum-crc32", "x-amz-checksum-algorithm"),
    *("x-amz-sdk-checksum-algorithm", "x-amz-trailer", "x-amz-decoded-content-length"),
    *("x-amz-expected-bucket-owner", "x-amz-metadata-directive", "x-amz-object-attributes"),
    *("x-amz-server-side-encryption", "x-amz-max-parts", "x-amz-mp-object-size", "expect"),
    *("access-control-request-method", "access-control-request-headers"),
    *("x-amz-grant-read", "x-amz-grant-write-acp", "x-amz-object-ownership", "x-s3gw-debug"),
)
QUERY_NAMES = (
    *("acl", "tagging", "uploads", "uploadId", "partNumber", "versionId", "list-type", "prefix"),
    *("delimiter", "max-keys", "marker", "start-after", "continuation-token", "encoding-type"),
    *("key-marker", "upload-id-marker", "max-uploads", "max-parts", "part-number-marker"),
    *("attributes", "delete", "location", "policy", "response-content-type", "versions", "cors"),
    *("ownershipControls", "publicAccessBlock"),
)
DOCUMENTS = (
    b'<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>",
    b"<Delete><Quiet>true</Quiet><Object><Key>k</Key><VersionId>null</VersionId></Object></Delete>",
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag>"
    b"<ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
    b"<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*"
    b"</AllowedOrigin><MaxAgeSeconds>1</MaxAgeSeconds></CORSRule></CORSConfiguration>",
    b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    b"<MetricsConfiguration><Id>one</Id><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>"
    b"</MetricsConfiguration>",
    b"<AccessControlPolicy><Owner><ID>o</ID></Owner><AccessControlList><Grant><Grantee "
    b'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group"><URI>http://'
    b"acs.amazonaws.com/groups/global/AllUsers</URI></Grantee><Permission>READ</Permission>"
    b"</Grant></AccessControlList></AccessControlPolicy>",
    b"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>"
    b"</OwnershipControls>",
    b"<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument>"
    b"</WebsiteConfiguration>",
)

FORM_FIELDS = (
    *("acl", "tagging", "Content-Type", "Cache-Control", "Expires", "Content-MD5", "redirect"),
    *("success_action_redirect", "success_action_status", "x-amz-meta-a", "x-amz-storage-class"),
    *("x-amz-checksum-crc32", "x-amz-website-redirect-location", "x-amz-copy-source"),
    *("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-ignore-a", "submit"),
    *("x-amz-server-side-encryption", "x-amz-trailer", "x-amz-decoded-content-length"),
)
FORM_CONDITIONS: tuple[Any, ...] = (
    ["content-length-range", 1, 100],
    ["content-length-range", 0, "x"],
    ["content-length-range", 10**30, 0],
    {"": ""},
    {},
    [[[]]],
    None,
)


def mutated(chance: random.Random, data: bytes) -> bytes:
    """`data` after one to four edits."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice((0, 0, 1, 2, 8)))
        edit = chance.randrange(4)
        if edit == 0:
            piece = chance.choice(INTERESTING)
        elif edit == 1:
            piece = chance.randbytes(chance.randint(1, 8))
        elif edit == 2:
            piece = data[at : at + 40] * 2
        else:
            piece = b""
        data = data[:at] + piece + data[end:]
    return data


def text(chance: random.Random) -> str:
    plain = chance.choice((b"", b"1", b"1000", b"k", b"a/b", b"bytes=0-9", b"url", b"*", b'"e"'))
    value = mutated(chance, plain) if chance.random() < 0.7 else plain
    return value.decode("latin-1").replace("\r", "").replace("\n", "").replace("\0", "").strip()


Make = Callable[[random.Random, S3Http, str], bytes]


def signed_oddity(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """Odd methods, keys, parameters and headers under a good signature."""
    method = chance.choice(("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"))
    key = quote_query({"": text(chance)})[1:] if chance.random() < 0.3 else "fuzz"
    path = chance.choice(("/", f"/{bucket}", f"/{bucket}/", f"/{bucket}/{key}", f"/{key}"))
    count = chance.choice((0, 0, 1, 2, 3))
    query = quote_query({chance.choice(QUERY_NAMES): text(chance) for _ in range(count)})
    names = chance.sample(HEADER_NAMES, chance.choice((0, 1, 1, 2, 4)))
    given = {name: text(chance) for name in names}
    body = chance.randbytes(chance.choice((0, 0, 1, 300)))
    if method == "DELETE" and path in ("/", f"/{bucket}", f"/{bucket}/"):
        method = "GET"
    signed, _ = http.signed_headers(method, path, query, given, UNSIGNED_PAYLOAD)
    return wire(method, path, query, signed, body)


def signed_document(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """Mutated XML under a good signature."""
    method, path, query = chance.choice(
        (
            ("PUT", "/fuzzed-bucket", ""),
            ("POST", f"/{bucket}", "delete="),
            ("POST", f"/{bucket}/k", "uploadId=AAAA"),
            *(("PUT", f"/{bucket}", f"{name}=") for name in ("tagging", "cors", "website")),
            ("PUT", f"/{bucket}/k", "tagging="),
            ("PUT", f"/{bucket}", "metrics=&id=one"),
        )
    )
    body = mutated(chance, chance.choice(DOCUMENTS))
    sum_of_body = b64encode(hashlib.md5(body).digest()).decode()
    signed, _ = http.signed_headers(
        method, path, query, {"content-md5": sum_of_body}, UNSIGNED_PAYLOAD
    )
    return wire(method, path, query, signed, body)


def chunked_body(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """Mutated aws-chunked bodies under a good signature of the head."""
    path, content = f"/{bucket}/chunked", chance.randbytes(chance.choice((0, 1, 9000, 20_000)))
    length = str(len(content) if chance.random() < 0.8 else chance.randrange(30_000))
    given = {"x-amz-decoded-content-length": length, "content-encoding": "aws-chunked"}
    pieces = [content[:8192], content[8192:]] if len(content) > 8192 else [content]
    if chance.random() < 0.5:
        signed, seed = http.signed_headers("PUT", path, "", given, STREAMING_SIGNED)
        body = chunked_signed([piece for piece in pieces if piece], seed)
    else:
        given["x-amz-trailer"] = "x-amz-checksum-crc32"
        signed, _ = http.signed_headers("PUT", path, "", given, STREAMING_UNSIGNED_TRAILER)
        body = chunked_unsigned(
            [piece for piece in pieces if piece], {"x-amz-checksum-crc32": "AAAAAA=="}
        )
    return wire("PUT", path, "", signed, mutated(chance, body))


def signed_form(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """Mutated forms, and forms of odd fields under a policy that covers them."""
    names = chance.sample(FORM_FIELDS, chance.choice((0, 1, 2, 4)))
    fields = {"key": f"form/{text(chance)}", **{name: text(chance) for name in names}}
    conditions: list[Any] = [["starts-with", f"${name}", ""] for name in fields]
    if chance.random() < 0.3:
        conditions.append(chance.choice(FORM_CONDITIONS))
    version = chance.choice((2, 4))
    signed = Poster(http, bucket).signed(fields, conditions, version=version)
    content = chance.randbytes(chance.choice((0, 1, 9000, 70_000)))
    content_type, body = encode(signed.items(), content, filename=text(chance))
    if chance.random() < 0.6:
        body = mutated(chance, body)
    return wire("POST", f"/{bucket}", "", {"host": http.netloc, "content-type": content_type}, body)


def raw_bytes(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """A request broken after it was signed, or no request at all."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randint(1, 2000))
    make = chance.choice((signed_oddity, signed_document, chunked_body, signed_form))
    return mutated(chance, make(chance, http, bucket))


def wire(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> bytes:
    return request_bytes(method, f"{path}?{query}" if query else path, headers, body)


@pytest.mark.parametrize(
    "make", [signed_oddity, signed_document, chunked_body, signed_form, raw_bytes]
)
def test_no_request_makes_the_server_fail_hang_or_grow(
    make: Make, store: Up, http: S3Http, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="fuzz", Body=b"x" * 100)

    def attempt(number: int) -> tuple[bytes, Answer]:
        request = make(random.Random(f"{SEED}/{make.__name__}/{number}"), http, bucket)
        try:
            return request, ask(store.s3_port, request)
        except TimeoutError as error:
            raise AssertionError(f"no answer and no end to {request!r}") from error

    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(CLIENTS * 5):  # Threads, connections and caches of a warm process.
            attempt(number)
        before = Baseline.of(store.process, store.admin)
        for request, answer in pool.map(attempt, range(REQUESTS_PER_KIND)):
            assert answer.status < 500 or answer.status in ALLOWED, (request, answer.data)
    before.require_return(memory_growth_max=MEMORY_GROWTH_MAX)
    s3.put_object(Bucket=bucket, Key="after", Body=b"still works")
    assert s3.get_object(Bucket=bucket, Key="after")["Body"].read() == b"still works"
