"""Arbitrary and mutated requests: no server error, no hang, no exit, flat memory.

Most mutations are signed after they are made, so that they reach the code behind authentication.
"""

import hashlib
import json
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
    Signer,
    chunked_signed,
    chunked_unsigned,
    quote_query,
)
from s3gw.iam.actions import ACTIONS
from s3gw.server.routes import ROWS, Scope
from tests.attacks.target import SOAK, Answer, Baseline, ask, request_bytes
from tests.compat.forms import Poster, encode
from tests.iam.test_denied_and_bad_input import good

SEED = int(os.environ.get("FUZZ_SEED", "20260101"))
REQUESTS_PER_KIND = 2500 if SOAK else 250
CLIENTS = 4
WEBSITE_DOMAIN = "web.test"
SETTINGS = {
    "S3GW_WEBSITE_DOMAINS": WEBSITE_DOMAIN,
    "S3GW_ALLOW_SSEC_OVER_HTTP": "true",
    "S3GW_MASTER_KEY": b64encode(b"m" * 32).decode(),
}
MEMORY_GROWTH_MAX = 96 << 20
# 505 is for a version of HTTP that a mutation made.
ALLOWED = frozenset({501, 503, 505})

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
    *("x-amz-rename-source", "x-amz-rename-source-if-match", "x-amz-client-token"),
    *("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-mfa"),
    *("x-amz-object-lock-legal-hold", "x-amz-bypass-governance-retention"),
    *("x-amz-bucket-object-lock-enabled", "x-amz-website-redirect-location"),
    *("x-amz-security-token", "x-amz-if-match-size", "x-amz-if-match-last-modified-time"),
    *("x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-context"),
    *(f"x-amz-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-md5")),
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-bucket-key-enabled",
)
QUERY_NAMES = (
    *("acl", "tagging", "uploads", "uploadId", "partNumber", "versionId", "list-type", "prefix"),
    *("delimiter", "max-keys", "marker", "start-after", "continuation-token", "encoding-type"),
    *("key-marker", "upload-id-marker", "max-uploads", "max-parts", "part-number-marker"),
    *("attributes", "delete", "location", "policy", "response-content-type", "versions", "cors"),
    *("ownershipControls", "publicAccessBlock", "versioning", "versions", "object-lock"),
    *("retention", "legal-hold", "renameObject", "encryption", "lifecycle", "inventory", "id"),
    *("analytics", "metrics", "intelligent-tiering", "website", "notification", "logging"),
    *("requestPayment", "accelerate", "policyStatus", "version-id-marker", "Action", "Version"),
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
    b"<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules>"
    b"<RoutingRule><Condition><KeyPrefixEquals>a</KeyPrefixEquals></Condition><Redirect>"
    b"<ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules>"
    b"</WebsiteConfiguration>",
    b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate>"
    b"</Retention>",
    b"<LegalHold><Status>OFF</Status></LegalHold>",
    b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
    b"<DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule>"
    b"</ObjectLockConfiguration>",
    b"<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter><And><Prefix>p"
    b"</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter><Expiration><Days>1"
    b"</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>"
    b"</NoncurrentVersionExpiration></Rule></LifecycleConfiguration>",
    b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>"
    b"AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>"
    b"</ServerSideEncryptionConfiguration>",
    b"<ObjectEncryption><SSE-KMS><KMSKeyArn>arn:aws:kms:us-east-1:000000000000:key/a</KMSKeyArn>"
    b"</SSE-KMS></ObjectEncryption>",
    b"<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls>"
    b"</PublicAccessBlockConfiguration>",
    b"<InventoryConfiguration><Destination><S3BucketDestination><Bucket>arn:aws:s3:::x</Bucket>"
    b"<Format>CSV</Format></S3BucketDestination></Destination><IsEnabled>false</IsEnabled><Id>one"
    b"</Id><IncludedObjectVersions>All</IncludedObjectVersions><Schedule><Frequency>Daily"
    b"</Frequency></Schedule></InventoryConfiguration>",
    b"<BucketLoggingStatus><LoggingEnabled><TargetBucket>fuzzed-documents</TargetBucket>"
    b"<TargetPrefix>l</TargetPrefix></LoggingEnabled></BucketLoggingStatus>",
    b"<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>",
    b"<AccelerateConfiguration><Status>Enabled</Status></AccelerateConfiguration>",
    b"<IntelligentTieringConfiguration><Id>one</Id><Status>Enabled</Status><Tiering><Days>90"
    b"</Days><AccessTier>ARCHIVE_ACCESS</AccessTier></Tiering></IntelligentTieringConfiguration>",
)
POLICY_DOCUMENT = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "a",
                "Effect": "Allow",
                "Principal": {"AWS": "*"},
                "Action": ["s3:Get*"],
                "Resource": "arn:aws:s3:::fuzzed-documents/${aws:username}/*",
                "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
            }
        ],
    }
).encode()
DOCUMENTS_BUCKET = "fuzzed-documents"
# Every operation that takes a document, of a bucket and a key of their own.
DOCUMENT_PLACES = tuple(
    (
        row.method,
        f"/{DOCUMENTS_BUCKET}" + ("/fuzz" if row.scope is Scope.OBJECT else ""),
        "&".join(
            term if "=" in term else f"{term}={'one' if term == 'id' else ''}"
            for term in row.query.split("&")
            if term
        ),
        row.body.kind,
    )
    for row in ROWS
    if row.handler and row.body.kind in ("xml", "json")
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
    """Mutated XML and JSON under a good signature."""
    method, path, query, kind = chance.choice(DOCUMENT_PLACES)
    body = mutated(chance, POLICY_DOCUMENT if kind == "json" else chance.choice(DOCUMENTS))
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


def signed_action(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """Actions of IAM and STS with odd parameters, under a good signature of their service."""
    action = chance.choice(ACTIONS)
    form = {"Action": action.name, "Version": action.service.version, **good(action)}
    for name in chance.sample(sorted(action.names), min(len(action.names), chance.randint(0, 2))):
        form[name] = text(chance)
    for name in form.keys() & {"PolicyDocument", "AssumeRolePolicyDocument", "Policy"}:
        form[name] = mutated(chance, POLICY_DOCUMENT).decode("latin-1")
    body = quote_query(form).encode()
    if chance.random() < 0.5:
        body = mutated(chance, body)
    service = action.service.name
    signer = Signer(http.signer.access_key, http.signer.secret_key, service=service)
    headers = {"host": http.netloc, "content-type": "application/x-www-form-urlencoded"}
    digest = hashlib.sha256(body).hexdigest()
    if chance.random() < 0.2:
        query = body.decode("latin-1").replace(" ", "%20")
        signed, _ = signer.headers("GET", "/", query, headers, hashlib.sha256().hexdigest())
        return wire("GET", "/", query, signed, b"")
    signed, _ = signer.headers("POST", "/", "", headers, digest)
    return wire("POST", "/", "", signed, body)


def website(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """Odd visits of a website, of one without configuration and of none."""
    method = chance.choice(("GET", "GET", "HEAD", "OPTIONS", "POST", "PUT"))
    path = mutated(chance, chance.choice((b"/", b"/i", b"/dir/", b"/fuzz", b"/a/b%20c")))
    host = mutated(chance, f"{DOCUMENTS_BUCKET}.{WEBSITE_DOMAIN}".encode())
    if chance.random() < 0.7:
        host = f"{chance.choice((DOCUMENTS_BUCKET, bucket, 'none'))}.{WEBSITE_DOMAIN}".encode()
    names = chance.sample(HEADER_NAMES, chance.choice((0, 1, 2)))
    given = {name: text(chance) for name in names}
    spelt = path.decode("latin-1").replace(" ", "%20")
    if not spelt.startswith("/"):
        spelt = "/" + spelt
    return wire(method, spelt, "", {"host": host.decode("latin-1"), **given}, b"")


def raw_bytes(chance: random.Random, http: S3Http, bucket: str) -> bytes:
    """A request broken after it was signed, or no request at all."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randint(1, 2000))
    make = chance.choice(
        (signed_oddity, signed_document, chunked_body, signed_form, signed_action, website)
    )
    return mutated(chance, make(chance, http, bucket))


def wire(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> bytes:
    return request_bytes(method, f"{path}?{query}" if query else path, headers, body)


@pytest.mark.parametrize(
    "make",
    [
        signed_oddity,
        signed_document,
        chunked_body,
        signed_form,
        signed_action,
        website,
        raw_bytes,
    ],
)
def test_no_request_makes_the_server_fail_hang_or_grow(
    make: Make, store: Up, http: S3Http, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="fuzz", Body=b"x" * 100)
    if make in (signed_document, website, raw_bytes):
        s3.create_bucket(Bucket=DOCUMENTS_BUCKET)
        s3.put_object(Bucket=DOCUMENTS_BUCKET, Key="fuzz", Body=b"x" * 100)

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
