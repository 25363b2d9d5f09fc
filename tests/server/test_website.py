"""What a browser sees of a bucket as a website, over a store in memory."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from s3gw.buckets.cors import CORS
from s3gw.buckets.website import WEBSITE
from s3gw.identities.root import Root
from s3gw.identities.view import Identities
from s3gw.kv.interface import Unavailable
from s3gw.metadata.records import Description
from s3gw.metrics import Metrics
from s3gw.objects.buckets import change_bucket
from s3gw.objects.publish import read_target
from s3gw.objects.write import put_object
from s3gw.operations.access import POLICY_DOCUMENT
from s3gw.operations.bucket_documents import with_document
from s3gw.operations.call import Settings
from s3gw.server.pipeline import Edge
from s3gw.server.resolve import Domains
from s3gw.server.website import WebsiteApp
from tests.stores.memory_store import BUCKET, Bytes, MemoryCluster

HOST = f"{BUCKET}.web.test"
INDEX = "<IndexDocument><Suffix>index.html</Suffix></IndexDocument>"
ERROR = "<ErrorDocument><Key>error.html</Key></ErrorDocument>"
PAGES = {
    "index.html": b"<p>home",
    "docs/index.html": b"<p>docs",
    "docs/a b.html": b"<p>a b",
    "docs/1/2/index.html": b"<p>deep",
    "image.png": b"\x89PNG",
    "secret/index.html": b"<p>secret",
    "error.html": b"<p>sorry",
    "/slash/index.html": b"<p>slash",
}


@dataclass(frozen=True)
class Answer:
    """What came back. Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def location(self) -> str:
        return self.headers["location"]

    @property
    def code(self) -> str:
        return self.headers.get("x-amz-error-code", "")


class Site:
    """A bucket, and requests to its website."""

    def __init__(self, storage: Any, app: WebsiteApp) -> None:
        self.storage = storage
        self.app = app
        self.handed_on: list[str] = []

    async def put(self, key: str, data: bytes, **description: Any) -> None:
        headers = {"content-type": "text/html" if key.endswith("html") else "image/png"}
        target = await read_target(self.storage, BUCKET, key)
        about = Description(headers=headers, **description)
        await put_object(self.storage, target, "owner", about, Bytes(data), lambda record: None)

    async def set(self, name: str, document: bytes | None) -> None:
        await change_bucket(self.storage, BUCKET, lambda b: with_document(b, name, document))

    async def configure(self, *elements: str) -> None:
        text = f"<WebsiteConfiguration>{''.join(elements)}</WebsiteConfiguration>"
        await self.set(WEBSITE.name, WEBSITE.render(WEBSITE.parse(text.encode())))

    async def allow(self, *statements: dict[str, Any]) -> None:
        default = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
        default["Resource"] = f"arn:aws:s3:::{BUCKET}/*"
        policy = {"Version": "2012-10-17", "Statement": [{**default, **s} for s in statements]}
        await self.set(POLICY_DOCUMENT, json.dumps(policy).encode())

    async def get(
        self, path: str, method: str = "GET", host: str = HOST, scheme: str = "http", **headers: str
    ) -> Answer:
        raw_path, _, query = path.partition("?")
        named = {"host": host, **{name.replace("_", "-"): v for name, v in headers.items()}}
        scope = {
            "type": "http",
            "method": method,
            "scheme": scheme,
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "client": ("192.0.2.1", 5),
        }
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self.app(scope, receive, send)
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        body = b"".join(bytes(message["body"]) for message in sent[1:])
        if method != "HEAD" and "content-length" in found:
            assert int(found["content-length"]) == len(body)
        return Answer(sent[0]["status"], found, body)


@pytest.fixture
async def site() -> Site:
    cluster = MemoryCluster()
    await cluster.found()
    process = await cluster.process()
    assert cluster.identity is not None
    handed_on: list[str] = []

    async def s3(scope: Any, receive: Any, send: Any) -> None:
        handed_on.append(scope["type"])
        await send({"type": "http.response.start", "status": 299, "headers": []})

    root = Root("key", "secret-key")
    edge = Edge(
        storage=process.storage,
        identities=Identities(process.kv, root, cluster.identity),
        settings=Settings("us-east-1", "4+2", "http://s3.test"),
        domains=Domains(["s3.test"]),
        metrics=Metrics(),
    )
    site = Site(process.storage, WebsiteApp(edge, Domains(["web.test"]), s3))
    site.handed_on = handed_on
    for key, data in PAGES.items():
        await site.put(key, data)
    await site.allow({}, {"Effect": "Deny", "Resource": f"arn:aws:s3:::{BUCKET}/secret/*"})
    await site.configure(INDEX)
    return site


# Pages.


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", b"<p>home"),
        ("/index.html", b"<p>home"),
        ("/?a=b&versionId=x&response-content-type=x", b"<p>home"),
        ("/docs/", b"<p>docs"),
        ("/docs/a%20b.html", b"<p>a b"),
        ("/docs/1/2/", b"<p>deep"),
        ("/image.png", b"\x89PNG"),
    ],
)
async def test_pages(site: Site, path: str, body: bytes) -> None:
    answer = await site.get(path)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["etag"]
    kind = "image/png" if path.endswith("png") else "text/html"
    assert answer.headers["content-type"] == kind
    head = await site.get(path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(body))


async def test_a_folder_without_its_slash_is_one_redirect_away(site: Site) -> None:
    for path, location in {
        "/docs": "/docs/",
        "/docs/1/2": "/docs/1/2/",
        "/docs?a=b": "/docs/?a=b",
        "//slash": "/%2Fslash/",
    }.items():
        answer = await site.get(path)
        assert (answer.status, answer.location) == (302, location)
        assert (await site.get(location)).status == 200
    assert (await site.get("/docs/1")).status == 403  # no index there, and nobody may list


async def test_conditions_and_ranges(site: Site) -> None:
    etag = (await site.get("/")).headers["etag"]
    same = await site.get("/", if_none_match=etag)
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
    assert (await site.get("/", if_match='"x"')).status == 412
    part = await site.get("/", range="bytes=3-4")
    assert (part.status, part.body) == (206, b"ho")
    assert part.headers["content-range"] == "bytes 3-4/7"
    assert (await site.get("/", range="bytes=70-")).status == 416


async def test_an_object_can_point_elsewhere(site: Site) -> None:
    await site.put("old.html", b"old", redirect="/new.html")
    await site.put("away", b"", redirect="https://a.test/x?y#z")
    assert (await site.get("/old.html")).location == "/new.html"
    away = await site.get("/away", "HEAD")
    assert (away.status, away.location) == (301, "https://a.test/x?y#z")
    await site.put("secret/old", b"", redirect="/new.html")
    assert (await site.get("/secret/old")).status == 403


async def test_scripts_of_sites_that_the_bucket_allows(site: Site) -> None:
    rule = "<AllowedMethod>GET</AllowedMethod><AllowedOrigin>http://a.test</AllowedOrigin>"
    text = f"<CORSConfiguration><CORSRule>{rule}</CORSRule></CORSConfiguration>"
    await site.set(CORS.name, CORS.render(CORS.parse(text.encode())))
    for path in ("/", "/missing"):
        allowed = await site.get(path, origin="http://a.test")
        assert allowed.headers["access-control-allow-origin"] == "http://a.test"
        refused = await site.get(path, origin="http://b.test")
        assert "access-control-allow-origin" not in refused.headers
        assert "Origin" in refused.headers["vary"]
    asks = {"access_control_request_method": "GET"}
    assert (await site.get("/", "OPTIONS", origin="http://a.test", **asks)).status == 200
    assert (await site.get("/", "OPTIONS", origin="http://b.test", **asks)).status == 403


# Errors.


async def test_errors_are_pages(site: Site) -> None:
    await site.allow({}, {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"})
    missing = await site.get("/<b>missing")
    assert (missing.status, missing.code) == (404, "NoSuchKey")
    assert missing.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>404 Not Found</h1>" in missing.body
    assert b"<li>Code: NoSuchKey</li>" in missing.body
    assert b"<li>Key: &lt;b&gt;missing</li>" in missing.body
    request_id = missing.headers["x-amz-request-id"]
    assert f"<li>RequestId: {request_id}</li>".encode() in missing.body
    head = await site.get("/missing", "HEAD")
    assert (head.status, head.body) == (404, b"")


async def test_nothing_is_shown_that_not_everybody_may_read(site: Site) -> None:
    for path in ("/secret/", "/secret/index.html", "/secret", "/missing"):
        answer = await site.get(path)
        assert (answer.status, answer.code) == (403, "AccessDenied")
        assert b"secret" not in answer.body
    # Credentials count for nothing: this is not the S3 API.
    signed = await site.get("/secret/", authorization="AWS4-HMAC-SHA256 Credential=key/…")
    assert signed.status == 403
    await site.set(POLICY_DOCUMENT, None)
    assert (await site.get("/")).status == 403


async def test_the_error_document(site: Site) -> None:
    await site.configure(INDEX, ERROR)
    for path, status, headers in (
        ("/missing", 403, {}),
        ("/missing", 403, {"range": "bytes=0-1", "if_match": '"x"'}),
        ("/index.html", 412, {"if_match": '"x"'}),
        ("/index.html", 416, {"range": "bytes=70-"}),
    ):
        answer = await site.get(path, **headers)
        assert (answer.status, answer.body) == (status, b"<p>sorry")
        assert answer.headers["content-type"] == "text/html"
        assert "etag" not in answer.headers
    head = await site.get("/missing", "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (403, b"", "8")
    assert (await site.get("/index.html", if_none_match="*")).status == 304


async def test_an_error_document_that_cannot_be_shown(site: Site) -> None:
    await site.configure(INDEX, ERROR.replace("error.html", "secret/index.html"))
    answer = await site.get("/missing")
    assert answer.status == 403
    assert b"Attempting to Retrieve a Custom Error Document" in answer.body
    assert b"<li>Key: secret/index.html</li>" in answer.body


async def test_only_what_reads_is_answered(site: Site) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH", "BREW"):
        answer = await site.get("/index.html", method)
        assert (answer.status, answer.code) == (405, "MethodNotAllowed")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/%ff", 400, "InvalidURI"),
        ("/%zz", 400, "InvalidURI"),
        ("/%00", 400, "InvalidURI"),
        ("*", 400, "InvalidURI"),
        ("/" + "x" * 1025, 400, "KeyTooLongError"),
        ("/" + "x" * 1024, 403, "AccessDenied"),
    ],
)
async def test_bad_paths(site: Site, path: str, status: int, code: str) -> None:
    answer = await site.get(path)
    assert (answer.status, answer.code) == (status, code)


async def test_which_bucket(site: Site) -> None:
    assert (await site.get("/", host=f"{HOST}:9000")).status == 200
    assert (await site.get("/", host=HOST.upper())).status == 200
    for host, code in {
        "other-bucket.web.test": "NoSuchBucket",
        "x.web.test": "NoSuchBucket",
        "<b>.web.test": "NoSuchBucket",
        "é.web.test": "NoSuchBucket",
    }.items():
        answer = await site.get("/", host=host)
        assert (answer.status, answer.code) == (404, code)
        assert b"<b>" not in answer.body
    await site.set(WEBSITE.name, None)
    answer = await site.get("/")
    assert (answer.status, answer.code) == (404, "NoSuchWebsiteConfiguration")


async def test_other_hosts_are_those_of_the_s3_api(site: Site) -> None:
    for host in ("s3.test", f"{BUCKET}.s3.test", "web.test", "127.0.0.1:9000", ""):
        assert (await site.get("/", host=host)).status == 299
    assert site.handed_on == ["http"] * 5


async def test_trouble_is_a_page_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.configure(INDEX, ERROR)

    def failing(error: Exception) -> Callable[..., Any]:
        async def read(*_: Any) -> Any:
            raise error

        return read

    for error, status, code in (
        (Unavailable("gone"), 503, "ServiceUnavailable"),
        (ZeroDivisionError("a mistake"), 500, "InternalError"),
    ):
        monkeypatch.setattr("s3gw.server.website.publish.read_target", failing(error))
        answer = await site.get("/")
        assert (answer.status, answer.code) == (status, code)
        assert b"mistake" not in answer.body


async def test_no_request_makes_a_website_fail(site: Site) -> None:
    """Odd paths, hosts and headers, with everything that a configuration can have."""
    await site.configure(
        INDEX,
        ERROR,
        rules(
            (DOCS | {"HttpErrorCodeReturnedEquals": "404"}, {"ReplaceKeyWith": "x"}),
            ({"KeyPrefixEquals": "é"}, {"ReplaceKeyPrefixWith": "a b"}),
        ),
    )
    chance = random.Random(20261121)
    pieces = ["/", "//", "docs", "..", ".", "%2e%2e", "%", "%00", "%0d%0a", "%ff", "%c3%a9", "é"]
    pieces += ["?", "&a=b", "+", ";", "#", "x" * 600, "index.html", "\\", "<b>", "secret"]
    values = [
        "",
        "*",
        '"x"',
        "bytes=0-1",
        "bytes=-1,2-",
        "bytes=9-1",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    ]
    values += ["http://a.test", "x" * 5000, "PUT", "\xff", "-1"]
    names = ["range", "if_match", "if_none_match", "if_modified_since", "if_range", "origin"]
    names += ["content_length", "content_md5", "x_amz_trailer", "authorization", "expect"]
    names += ["access_control_request_method", "x_amz_checksum_mode", "x_amz_content_sha256"]
    statuses = set()
    for _ in range(2000):
        path = "/" + "".join(chance.choices(pieces, k=chance.randint(0, 4)))
        headers = {
            name: chance.choice(values) for name in chance.sample(names, chance.randint(0, 3))
        }
        answer = await site.get(path, chance.choice(["GET", "HEAD", "OPTIONS", "PUT"]), **headers)
        assert answer.status < 500, (path, headers)
        assert b"<b>" not in answer.body
        assert all(" " < character < "\x7f" for character in answer.headers.get("location", ""))
        statuses.add(answer.status)
    assert statuses >= {200, 206, 301, 302, 400, 403, 405}


# Redirects.


async def test_all_requests_elsewhere(site: Site) -> None:
    await site.configure(
        "<RedirectAllRequestsTo><HostName>a.test</HostName></RedirectAllRequestsTo>"
    )
    answer = await site.get("/docs/a%20b?x=1")
    assert (answer.status, answer.location) == (301, "http://a.test/docs/a%20b?x=1")
    assert (await site.get("/", "HEAD", scheme="https")).location == "https://a.test/"
    await site.configure(
        "<RedirectAllRequestsTo><HostName>a.test</HostName><Protocol>https</Protocol>"
        "</RedirectAllRequestsTo>"
    )
    assert (await site.get("/")).location == "https://a.test/"
    await site.configure(
        "<RedirectAllRequestsTo><HostName>bücher😀.test</HostName></RedirectAllRequestsTo>"
    )
    assert (await site.get("/")).location == "http://b%C3%BCcher%F0%9F%98%80.test/"


def rules(*pairs: tuple[dict[str, str], dict[str, str]]) -> str:
    def elements(values: dict[str, str]) -> str:
        return "".join(f"<{name}>{value}</{name}>" for name, value in values.items())

    listed = [
        "<RoutingRule>"
        + (f"<Condition>{elements(condition)}</Condition>" if condition else "")
        + f"<Redirect>{elements(redirect)}</Redirect></RoutingRule>"
        for condition, redirect in pairs
    ]
    return f"<RoutingRules>{''.join(listed)}</RoutingRules>"


DOCS = {"KeyPrefixEquals": "docs/"}
FORBIDDEN = {"HttpErrorCodeReturnedEquals": "403"}


@pytest.mark.parametrize(
    ("condition", "redirect", "path", "status", "location"),
    [
        (DOCS, {"ReplaceKeyPrefixWith": "new/"}, "/docs/a%20b", 301, f"http://{HOST}/new/a%20b"),
        (DOCS, {"ReplaceKeyPrefixWith": ""}, "/docs/a?x=1", 301, f"http://{HOST}/a"),
        (DOCS, {"ReplaceKeyWith": "one.html"}, "/docs/", 301, f"http://{HOST}/one.html"),
        (DOCS, {"HostName": "a.test"}, "/docs/a", 301, "http://a.test/docs/a"),
        (DOCS, {"Protocol": "https"}, "/docs/a", 301, f"https://{HOST}/docs/a"),
        (
            DOCS,
            {"HostName": "a.test", "HttpRedirectCode": "307"},
            "/docs/",
            307,
            "http://a.test/docs/",
        ),
        ({}, {"HostName": "a.test"}, "/x", 301, "http://a.test/x"),
        ({}, {"HostName": "bü😀.test"}, "/x", 301, "http://b%C3%BC%F0%9F%98%80.test/x"),
        ({}, {"HostName": "a.test&#13;&#10;b: c"}, "/x", 301, "http://a.test%0D%0Ab:%20c/x"),
        ({}, {"ReplaceKeyPrefixWith": "p/"}, "/x", 301, f"http://{HOST}/p/x"),
        (FORBIDDEN, {"ReplaceKeyPrefixWith": "#!/"}, "/app/x", 301, f"http://{HOST}/#!/app/x"),
        (
            FORBIDDEN,
            {"ReplaceKeyWith": "i.html?a=é b"},
            "/x",
            301,
            f"http://{HOST}/i.html?a=%C3%A9%20b",
        ),
        (DOCS | FORBIDDEN, {"HostName": "a.test"}, "/docs/x", 301, "http://a.test/docs/x"),
    ],
)
async def test_a_routing_rule(
    site: Site,
    condition: dict[str, str],
    redirect: dict[str, str],
    path: str,
    status: int,
    location: str,
) -> None:
    await site.configure(INDEX, ERROR, rules((condition, redirect)))
    answer = await site.get(path)
    assert (answer.status, answer.location) == (status, location)


async def test_a_rule_that_does_not_fit_changes_nothing(site: Site) -> None:
    await site.configure(
        INDEX,
        ERROR,
        rules(
            ({"HttpErrorCodeReturnedEquals": "404"}, {"HostName": "a.test"}),
            (DOCS | FORBIDDEN, {"HostName": "b.test"}),
        ),
    )
    assert (await site.get("/docs/")).body == b"<p>docs"
    assert (await site.get("/docs")).location == "/docs/"
    missing = await site.get("/missing")
    assert (missing.status, missing.body) == (403, b"<p>sorry")


async def test_the_first_rule_that_fits_counts(site: Site) -> None:
    await site.configure(
        INDEX,
        rules(
            (FORBIDDEN, {"HostName": "error.test"}),
            ({"KeyPrefixEquals": "docs/1/"}, {"HostName": "one.test"}),
            (DOCS, {"HostName": "docs.test"}),
        ),
    )
    assert (await site.get("/docs/1/x")).location == "http://one.test/docs/1/x"
    assert (await site.get("/docs/2")).location == "http://docs.test/docs/2"
    assert (await site.get("/missing")).location == "http://error.test/missing"
    assert (await site.get("/")).status == 200
