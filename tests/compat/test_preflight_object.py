"""OPTIONS of an object: a browser asks before it sends another site's request, unsigned."""

import pytest

ALLOWED, EVIL = "https://a.test", "https://evil.test"
RULES = [
    {
        "AllowedMethods": ["PUT", "GET"],
        "AllowedOrigins": [ALLOWED],
        "AllowedHeaders": ["x-amz-*", "content-type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 600,
    },
    {"AllowedMethods": ["GET"], "AllowedOrigins": ["http://*.b.test"]},
]
VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


@pytest.fixture
def shared(s3, bucket):
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    return bucket


def asks(origin=ALLOWED, method="PUT", headers=None):
    asked = {"origin": origin, "access-control-request-method": method}
    if headers is not None:
        asked["access-control-request-headers"] = headers
    return {name: value for name, value in asked.items() if value is not None}


def cors_of(reply):
    found = {name.lower(): value for name, value in reply.headers.items()}
    return {name: value for name, value in found.items() if name.startswith("access-")}


def test_an_allowed_request_is_told_all_that_its_rule_says(http, shared):
    headers = asks(headers="X-Amz-Date, content-type")
    reply = http.send("OPTIONS", f"/{shared}/a%20key", headers=headers)
    assert (reply.status, reply.body, reply["content-length"]) == (200, b"", "0")
    assert cors_of(reply) == {
        "access-control-allow-origin": ALLOWED,
        "access-control-allow-methods": "PUT, GET",
        "access-control-allow-headers": "x-amz-date, content-type",
        "access-control-expose-headers": "ETag",
        "access-control-max-age": "600",
        "access-control-allow-credentials": "true",
    }
    assert reply["vary"] == VARY
    assert reply["x-amz-request-id"]


def test_a_wildcard_in_an_origin_is_answered_with_the_origin(http, shared):
    headers = asks("http://x.b.test", "GET")
    reply = http.send("OPTIONS", f"/{shared}/k", headers=headers)
    assert (reply.status, reply["access-control-allow-origin"]) == (200, "http://x.b.test")


def test_the_parameters_of_the_request_that_follows_are_no_matter(http, shared):
    for query in ("uploads", "uploadId=x&partNumber=1", "X-Amz-Signature=0&X-Amz-Expires=9"):
        reply = http.send("OPTIONS", f"/{shared}/k", query, headers=asks())
        assert reply.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        asks(EVIL),
        asks("null"),
        asks("https://A.TEST"),
        asks(ALLOWED + ".evil.test"),
        asks(method="DELETE"),
        asks("http://x.b.test", "PUT"),
        asks("http://b.test", "GET"),
        asks(headers="authorization"),
        asks(headers="x-amz-date,authorization"),
    ],
)
def test_what_no_rule_allows_is_refused_without_headers(http, shared, headers):
    reply = http.send("OPTIONS", f"/{shared}/k", headers=headers)
    assert (reply.status, reply.code, cors_of(reply)) == (403, "AccessForbidden", {})
    assert reply["vary"] == VARY
    assert b"<ResourceType>OBJECT</ResourceType>" in reply.body


@pytest.mark.parametrize("headers", [asks(None), asks(method=None), asks(method="BREW"), {}])
def test_what_is_no_preflight_is_refused(http, shared, headers):
    reply = http.send("OPTIONS", f"/{shared}/k", headers=headers)
    assert (reply.status, reply.code, cors_of(reply)) == (400, "BadRequest", {})


def test_a_bucket_without_rules_and_one_that_is_missing_are_refused(http, bucket, missing_bucket):
    for name, status, code in (
        (bucket, 403, "AccessForbidden"),
        (missing_bucket, 404, "NoSuchBucket"),
    ):
        reply = http.send("OPTIONS", f"/{name}/k", headers=asks())
        assert (reply.status, reply.code, cors_of(reply)) == (status, code, {})


@pytest.mark.parametrize("asked", ["x y", "content-type, a/b", "x-amz-*", "né"])
def test_a_header_that_has_no_such_name_is_refused(http, shared, asked):
    reply = http.send("OPTIONS", f"/{shared}/k", headers=asks(headers=asked))
    assert (reply.status, reply.code) == (400, "BadRequest")
