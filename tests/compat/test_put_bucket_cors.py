"""PutBucketCors, and the headers that every answer about the bucket carries from then on."""

import secrets

import pytest

ALLOWED, EVIL = "https://a.test", "https://evil.test"
RULE = {
    "AllowedMethods": ["GET", "PUT"],
    "AllowedOrigins": [ALLOWED],
    "AllowedHeaders": ["x-amz-*"],
    "ExposeHeaders": ["ETag"],
    "MaxAgeSeconds": 60,
    "ID": "one",
}
HEADERS = {
    "access-control-allow-origin": ALLOWED,
    "access-control-allow-methods": "GET, PUT",
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "ETag",
    "access-control-max-age": "60",
}
VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


def cors_of(reply):
    found = {name.lower(): value for name, value in reply.headers.items()}
    return {name: value for name, value in found.items() if name.startswith("access-")}


@pytest.fixture
def shared(s3, bucket):
    """A bucket with an object, and one rule."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [RULE]})
    return bucket


def test_rules_are_read_back_and_replaced(s3, bucket):
    other = {"AllowedMethods": ["HEAD"], "AllowedOrigins": ["*", "http://*.test"]}
    for rules in ([RULE, other], [other]):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
        assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("GET", "/k", "", 200),
        ("PUT", "/new", "", 200),
        ("GET", "", "", 200),
        ("GET", "", "cors", 200),
        ("GET", "/missing", "", 404),
        ("GET", "", "policy", 404),
        ("GET", "/k", "partNumber=0", 400),
    ],
)
def test_answers_to_an_allowed_origin_carry_the_headers_errors_too(
    http, shared, method, path, query, status
):
    reply = http.request(method, f"/{shared}{path}", query, headers={"origin": ALLOWED})
    assert (reply.status, cors_of(reply), reply["vary"]) == (status, HEADERS, VARY)


def test_an_answer_that_is_not_modified_carries_the_headers(s3, http, shared):
    etag = s3.head_object(Bucket=shared, Key="k")["ETag"]
    headers = {"origin": ALLOWED, "if-none-match": etag}
    reply = http.request("GET", f"/{shared}/k", headers=headers)
    assert (reply.status, cors_of(reply)) == (304, HEADERS)


def test_refusals_of_whoever_asks_carry_the_headers(http, shared):
    anonymous = http.send("GET", f"/{shared}/k", headers={"origin": ALLOWED})
    signed, _ = http.signed_headers("GET", f"/{shared}/k", headers={"origin": ALLOWED})
    broken = {**signed, "authorization": signed["authorization"][:-4] + "0000"}
    forged = http.send("GET", f"/{shared}/k", headers=broken)
    for reply in (anonymous, forged):
        assert (reply.status, cors_of(reply), reply["vary"]) == (403, HEADERS, VARY)


def test_other_origins_and_methods_get_no_headers_but_vary(http, shared):
    for method, origin in (
        ("GET", EVIL),
        ("GET", "null"),
        ("GET", ALLOWED + ".evil.test"),
        ("DELETE", ALLOWED),
        ("HEAD", ALLOWED),
    ):
        reply = http.request(method, f"/{shared}/missing", headers={"origin": origin})
        assert cors_of(reply) == {}
        assert reply["vary"] == VARY


def test_answers_without_origin_vary_by_it(http, shared):
    reply = http.request("GET", f"/{shared}/k")
    assert (reply.status, cors_of(reply), reply["vary"]) == (200, {}, VARY)


def test_a_bucket_without_rules_and_one_that_is_missing_say_nothing(http, bucket, missing_bucket):
    for name in (bucket, missing_bucket):
        reply = http.request("GET", f"/{name}", headers={"origin": ALLOWED})
        assert cors_of(reply) == {}
        assert "vary" not in reply.headers


def test_a_rule_for_every_origin_never_allows_credentials(s3, http, bucket):
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    reply = http.request("GET", f"/{bucket}", headers={"origin": EVIL})
    assert cors_of(reply) == {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "GET",
    }


def test_rules_of_a_bucket_in_the_host_name_count(s3, http, server, shared):
    headers = {"origin": ALLOWED, "host": f"{shared}.{server.domain}"}
    reply = http.request("GET", "/k", headers=headers)
    assert (reply.status, cors_of(reply)) == (200, HEADERS)


def test_every_gateway_applies_the_rules_at_once(server, shared):
    for endpoint in server.endpoints:
        reply = server.http(endpoint).request("GET", f"/{shared}/k", headers={"origin": ALLOWED})
        assert cors_of(reply) == HEADERS


@pytest.mark.parametrize(
    "change",
    [
        {"AllowedMethods": ["PATCH"]},
        {"AllowedOrigins": ["*.*"]},
        {"AllowedHeaders": ["x-*-*"]},
        {"ExposeHeaders": ["*"]},
        {"ExposeHeaders": ["a b"]},
        {"ID": "i" * 256},
    ],
)
def test_a_rule_that_breaks_the_rules_is_refused(s3, bucket, refused, change):
    with refused("InvalidRequest", 400):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [{**RULE, **change}]})
    with refused("NoSuchCORSConfiguration", 404):
        s3.get_bucket_cors(Bucket=bucket)


def test_a_hundred_rules_are_accepted_and_one_more_refused(s3, bucket, refused):
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["https://a.test"]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule] * 100})
    with refused("InvalidRequest", 400):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule] * 101})
    assert len(s3.get_bucket_cors(Bucket=bucket)["CORSRules"]) == 100


def test_documents_that_are_no_configuration_are_refused(s3, http, bucket, refused):
    for rules in ([], [{"AllowedMethods": [], "AllowedOrigins": ["*"]}]):
        with refused("MalformedXML", 400):
            s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    body = b"<CORSConfiguration/>"
    reply = http.request("PUT", f"/{bucket}", "cors", body=body)
    assert (reply.status, reply.code) == (400, "InvalidRequest")  # without a checksum


def test_a_missing_bucket_is_refused(s3, refused):
    with refused("NoSuchBucket", 404):
        s3.put_bucket_cors(
            Bucket=f"missing-{secrets.token_hex(8)}", CORSConfiguration={"CORSRules": [RULE]}
        )
